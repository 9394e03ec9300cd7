"""Translates any number of pictures by an exported SavedModel, as a pipeline of Apache Beam.

  python translate.py --input='photos/**' --saved_model=exported/1 --output=translated

Names and sub-folders are kept, and every result is a .png. Pictures whose results are there already are left out, so
that the same command goes on after any end. Pictures that cannot be translated are listed in OUTPUT/failed.txt, and the
exit status is then 1. Options that are not of this program are Beam's, such as --runner.

It needs Apache Beam and TensorFlow, and nothing else of tfi2i: workers load the SavedModel, one copy in each process.
"""

import argparse
import os
import sys

import apache_beam as beam
from apache_beam.io import fileio, filesystems
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

PICTURES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png")
# Bytes, so that large files do not come in large batches.
_BATCH_BYTES = 32 << 20


class Translator(ModelHandler):
    """The signature image_bytes of a SavedModel: files in; (PNG file, error) out, where one of both is empty.

    Args:
        saved_model: path of a SavedModel of `tfi2i export`.
        batch_size: pictures at once, at most.
    """

    def __init__(self, saved_model, batch_size):
        super().__init__(min_batch_size=1, max_batch_size=batch_size)
        self.saved_model = saved_model

    def load_model(self):
        import tensorflow as tf

        return tf.saved_model.load(self.saved_model)

    def run_inference(self, batch, model, inference_args=None):
        import tensorflow as tf

        batch, start = list(batch), 0
        while start < len(batch):
            end, size = start + 1, len(batch[start])
            while end < len(batch) and size + len(batch[end]) <= _BATCH_BYTES:
                size += len(batch[end])
                end += 1
            answer = model.signatures["image_bytes"](image_bytes=tf.constant(batch[start:end]))
            yield from zip(answer["image_bytes"].numpy(), (error.decode() for error in answer["errors"].numpy()))
            start = end

    def get_metrics_namespace(self):
        return "translate"


class Write(beam.DoFn):
    """((picture, target), (PNG file, error)) → "picture: error" of what failed; a file appears whole."""

    def process(self, element):
        (picture, target), (png, error) = element
        if error:
            Metrics.counter("translate", "failed").inc()
            yield f"{picture}: {error}"
            return
        folder, name = filesystems.FileSystems.split(target)
        if not filesystems.FileSystems.exists(folder):
            try:
                filesystems.FileSystems.mkdirs(folder)
            except OSError:  # another worker was first
                pass
        partial = filesystems.FileSystems.join(folder, f".{name}.{os.getpid()}.tmp")
        with filesystems.FileSystems.create(partial, "application/octet-stream") as file:
            file.write(png)
        filesystems.FileSystems.rename([partial], [target])
        Metrics.counter("translate", "written").inc()


def root_of(pattern):
    """The folder that names are relative to: the part of a pattern before its first wildcard."""
    start = pattern[: min((pattern.find(c) for c in "*?[" if c in pattern), default=len(pattern))]
    return start.rpartition("/")[0]


def target_of(path, root, output):
    """Where the translation of a picture goes. Its extension stays before the .png: x.jpg and x.bmp are two results."""
    name = path[len(root) :].lstrip("/")
    return filesystems.FileSystems.join(output, name if name.lower().endswith(".png") else f"{name}.png")


def run(arguments):
    """Runs the pipeline.

    Args:
        arguments: those of the command line.

    Returns:
        dict of "written" and "failed" → how many pictures.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="pattern of files, in quotes; ** stands for sub-folders")
    parser.add_argument("--saved_model", required=True, help="path of a SavedModel, such as exported/1")
    parser.add_argument("--output", required=True, help="folder for the results")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures at once, at most")
    values, options = parser.parse_known_args(arguments)
    root = root_of(values.input)

    def is_todo(metadata):
        if not metadata.path.lower().endswith(PICTURES):
            return False
        return not filesystems.FileSystems.exists(target_of(metadata.path, root, values.output))

    pipeline = beam.Pipeline(options=PipelineOptions(options, save_main_session=True))
    failed = (
        pipeline
        | fileio.MatchFiles(values.input)
        | beam.Filter(is_todo)
        | beam.Reshuffle()  # spread over all workers
        | fileio.ReadMatches()
        | beam.Map(lambda f: ((f.metadata.path, target_of(f.metadata.path, root, values.output)), f.read()))
        | RunInference(KeyedModelHandler(Translator(values.saved_model, values.batch_size)))
        | beam.ParDo(Write())
    )
    failed | beam.io.WriteToText(filesystems.FileSystems.join(values.output, "failed"), ".txt", shard_name_template="")
    result = pipeline.run()
    result.wait_until_finish()
    counters = {counter.key.metric.name: counter.committed for counter in result.metrics().query()["counters"]}
    return {name: counters.get(name, 0) for name in ("written", "failed")}


if __name__ == "__main__":
    counts = run(sys.argv[1:])
    print(f"{counts['written']} pictures written, {counts['failed']} failed")
    sys.exit(1 if counts["failed"] else 0)
