"""The files that TF Serving is started with, and which version of a model is which folder."""

import math

# What a picture may wait for others, and what a request may wait in the queue, in milliseconds.
_LONGEST_WAIT, _LONGEST_QUEUE = 50, 10_000
# Pictures in a batch, at least as many as a request of the client has.
_SMALLEST_BATCH, _LARGEST_BATCH = 8, 32

_MODELS = """\
# --model_config_file. Several models, such as both directions, are several `config` in one file.
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    # The two newest versions are served, so that a client can ask for the one before the newest.
    model_version_policy {{ latest {{ num_versions: 2 }} }}
  }}
}}
"""
_BATCHING = """\
# --enable_batching --batching_parameters_file. One picture took {latency:.1f} ms on the {cores} cores of the machine
# that exported: measure on yours.
# Pictures in a batch, and so the most that a request may have: 8 or more, up to 32 where they take about a second.
max_batch_size {{ value: {batch} }}
# Half of what one picture takes: waiting longer for others costs more than it saves.
batch_timeout_micros {{ value: {wait} }}
# One for each core. On a GPU, 2 keep it busy.
num_batch_threads {{ value: {cores} }}
# What is done within {queue:g} s. Further requests are answered with UNAVAILABLE, and clients try again later.
max_enqueued_batches {{ value: {queued} }}
"""
_MONITORING = """\
# --monitoring_config_file. Prometheus reads http://HOST:8501/monitoring/prometheus/metrics.
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


def configs(name, latency, cores):
    """The configuration of TF Serving for one model.

    Args:
        name: of the model, and of its folder in /models.
        latency: milliseconds that one picture takes.
        cores: of the processor.

    Returns:
        dict of file name → text.
    """
    batch = 2 ** int(math.log2(min(max(1000 / latency, _SMALLEST_BATCH), _LARGEST_BATCH)))
    values = {
        "latency": latency,
        "cores": cores,
        "batch": batch,
        "wait": round(1000 * min(max(latency / 2, 1), _LONGEST_WAIT)),
        "queue": _LONGEST_QUEUE / 1000,
        "queued": max(cores, round(_LONGEST_QUEUE / (batch * latency))),
    }
    return {
        "models.config": _MODELS.format(name=name),
        "batching.config": _BATCHING.format(**values),
        "monitoring.config": _MONITORING,
    }


def versions(folder):
    """The versions in a model's folder, ascending: names of numbers, as TF Serving reads them."""
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()) if folder.is_dir() else []
