"""On which devices, in which precision, with or without XLA: what `auto` means."""

import contextlib
import os
import re

import keras
import tensorflow as tf

from tfi2i import machine
from tfi2i.config import UserError
from tfi2i.methods import METHODS

# What the workers say that have no fault of their own.
ELSEWHERE = "another worker could not go on, and said why: see its output"


def make_strategy(name, replicas=None, side_by_side=False):
    """The distribution strategy of `--strategy`.

    Args:
        name: "auto", "one_device", "mirrored" or "multi_worker". auto: multi_worker when TF_CONFIG is set, mirrored
            with more than one GPU or `replicas`, else one_device.
        replicas: with "mirrored" only: how many of the GPUs, or without any, logical CPU devices to split the machine
            into.
        side_by_side: whether steps have operations that should compute side by side on CPUs, see `share_cores`.

    Raises:
        UserError: the machine does not have what was asked for, or `replicas` with another strategy.
    """
    gpus = tf.config.list_physical_devices("GPU")
    # On CPUs Grappler, which rewrites graphs, takes more than half of the time of a first step and makes later ones no
    # faster. Its remapper fails on the gradient of leaky ReLU with an error line; where it works it gains nothing here.
    tf.config.optimizer.set_experimental_options({"remapping": False, "disable_meta_optimizer": not gpus})
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            break  # TensorFlow has started, as in a notebook; memory stays as it was set then.
    if side_by_side and not gpus:
        share_cores()
    chosen, name = name, resolve_strategy(name, replicas)
    if replicas and name != "mirrored":
        why = ", which TF_CONFIG chose" if chosen == "auto" else ""
        raise UserError(
            f"--replicas={replicas} is for --strategy=mirrored, this is {name}{why}: leave it out, or give "
            "--strategy=mirrored"
        )
    if name == "multi_worker":
        if not os.environ.get("TF_CONFIG"):
            raise UserError("--strategy=multi_worker: TF_CONFIG is not set; it names the workers and this one's index")
        return _multi_worker()
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")
    if gpus:
        if replicas and replicas > len(gpus):
            raise UserError(f"--replicas={replicas}: this machine has {len(gpus)} GPUs")
        return _mirrored(*(f"/gpu:{i}" for i in range(replicas or len(gpus))))
    replicas = replicas or 1
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
        except RuntimeError:
            pass  # TensorFlow has started; what counts is how many devices there are.
        found = len(tf.config.list_logical_devices("CPU"))
        if found < replicas:
            raise UserError(f"--replicas={replicas}: TensorFlow has already started with {found} CPU device(s)")
    return _mirrored(*(f"/cpu:{i}" for i in range(replicas)))


def of_run(run):
    """The strategy of a run, with operations side by side where that is quicker, and whether XLA compiles its steps.

    Args:
        run: `settings.Run`.

    Returns:
        (strategy, xla): those of `make_strategy` and `resolve_xla`.

    Raises:
        UserError: as `make_strategy`.
    """
    t, xla = run.training, resolve_xla(run.training.xla)
    model_class = METHODS[run.method].of_task(t.task).model_class
    return make_strategy(t.strategy, t.replicas, side_by_side=model_class.side_by_side and not xla), xla


def share_cores():
    """On two cores, computes each operation on one of them, so that two compute side by side.

    In most steps these are the two domains' networks, or the two gradients of a convolution: single operations on few
    small images are too short to keep both cores busy. With XLA a step is one operation, which should have both.

    TensorFlow has one pool of threads for all operations. With one thread in it, operations compute in the threads that
    start them, of which there are as many as cores. On more cores a smaller pool would leave some without work.

    A number that was set in TF_NUM_INTRAOP_THREADS or in Python stays, and so does all that TensorFlow has once it has
    computed something.
    """
    given = "TF_NUM_INTRAOP_THREADS" in os.environ or tf.config.threading.get_intra_op_parallelism_threads()
    if machine.cores() == 2 and not given:
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)


_made = {}


def _mirrored(*devices):
    if len(devices) == 1:
        return tf.distribute.MirroredStrategy(devices)
    return _only_one(devices, lambda: tf.distribute.MirroredStrategy(devices))


def _multi_worker():
    return _only_one("multi_worker", tf.distribute.MultiWorkerMirroredStrategy)


def _only_one(kind, make):
    """The strategy that this process has, made by the first call.

    A second one would number its collective operations from the start again, and TensorFlow 2.21 takes them for those
    of the first.
    """
    if _made and kind not in _made:
        raise UserError("this process has trained on other replicas already: start Python again, or keep their number")
    if not _made:
        _made[kind] = make()
    return _made[kind]


def resolve_strategy(name, replicas=None):
    """What `make_strategy` makes of a name: the name, or what auto chooses."""
    if name != "auto":
        return name
    if os.environ.get("TF_CONFIG"):
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 or replicas else "one_device"


def distributed_step(strategy, model, without_xla=None):
    """One training step on all replicas, as one graph.

    Args:
        strategy: the one in whose scope `model` was made.
        model: a compiled `Translator`, built for training.
        without_xla: function of a reason, which is called when the first step that XLA has to compile fails. That step
            and the later ones are then taken without XLA, from the state before it. None: the failure is an error, as
            it has to be with several workers, which cannot take a step again.

    Returns:
        function (batch, signals=None, stage=None) → (losses, signals): of a distributed batch (A, B) a function that
        waits for them and returns a dict of loss name → float, the mean over replicas; of a float32 tensor, one on each
        worker, the sum over replicas. None costs nothing. `stage` is the step's, see `Translator.stage`. It has a
        `tf.function`'s `get_concrete_function`.
    """

    names = {}

    def on_replica(batch, signals, stage):
        losses = model.train_step(batch, stage)
        names[stage] = list(losses)
        # One tensor: one collective and one copy to the host, not one for each loss.
        return tf.stack(list(losses.values())), signals

    @tf.function(autograph=False)
    def step(batch, signals=None, stage=None):
        losses, signals = strategy.run(on_replica, args=(batch, signals, stage))
        losses = strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)
        if signals is not None:
            signals = strategy.reduce(tf.distribute.ReduceOp.SUM, signals, axis=None)
        return losses, signals

    def attempt(*arguments):
        nonlocal step
        restore = _restorer(model)
        try:
            return step(*arguments)
        except tf.errors.OpError as error:
            restore()
            model.switch_xla(False)
            step = tf.function(step.python_function, autograph=False)
            without_xla(_reason(error))
        return step(*arguments)

    def run(batch, signals=None, stage=None):
        compiles = model.xla and stage not in names
        losses, signals = (attempt if compiles and without_xla else step)(batch, signals, stage)
        return lambda: dict(zip(names[stage], losses.numpy().tolist())), signals

    run.get_concrete_function = lambda *arguments: step.get_concrete_function(*arguments)
    return run


def _restorer(model):
    """A function that gives a model and its optimizers the values back that they have now.

    The values are kept on the host: a step's first phases have changed the state when a later one does not compile, and
    the device may not have the memory twice.
    """
    variables = [*model.variables, *(v for role in model.roles for v in model.optimizer_of(role).variables)]
    values = [keras.ops.convert_to_numpy(v) for v in variables]

    def restore():
        for variable, value in zip(variables, values):
            variable.assign(value)

    return restore


def _reason(error):
    """The line of an error of TensorFlow that says what failed, without the nodes and files above it."""
    several = re.search(r"^ +\(0\) \w+: +(.+)", error.message, re.MULTILINE)
    one = re.search(r"^(?!Graph execution error|Detected at node|<stack traces|\s)(.+)", error.message, re.MULTILINE)
    found = several or one
    return found[1][:400] if found else type(error).__name__


@contextlib.contextmanager
def together(strategy):
    """What one worker is refused within, all are: none is left waiting for it in a collective operation.

    Raises:
        UserError: another worker raised something; that one says what.
    """
    try:
        yield
    except Exception:
        _count_failed(strategy, 1.0)
        raise
    if _count_failed(strategy, 0.0):
        raise UserError(ELSEWHERE)


@contextlib.contextmanager
def lost_worker_in_words():
    """Says in words that a worker is gone; TensorFlow only shows the traceback of a collective operation.

    Raises:
        UserError: a worker ended or cannot be reached.
    """
    try:
        yield
    except tf.errors.OpError as error:
        aborted = re.search(r"Collective ops is aborted by: (?P<reason>[^\n]*)", error.message)
        if not aborted or "TF_CONFIG" not in os.environ:
            raise
        raise UserError(
            f"another worker has ended or cannot be reached ({aborted['reason']}), and this one cannot go on alone: "
            "start the same command on every worker again; training goes on from the newest checkpoint"
        ) from error


def _count_failed(strategy, failed):
    """The sum of `failed` over all workers; nothing to ask where there is one."""
    if workers(strategy) == 1:
        return failed

    @tf.function(autograph=False)
    def total():
        replicas = strategy.num_replicas_in_sync // workers(strategy)
        part = strategy.run(lambda: tf.constant(failed / replicas))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None)

    return float(total())


def workers(strategy):
    """Number of processes that train together."""
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict() if resolver and resolver.task_type else {}
    return max(1, sum(len(jobs.get(job, ())) for job in ("chief", "worker")))


def is_chief(strategy):
    """Whether this process writes files; true for all strategies but a multi-worker one's other workers."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker" and resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
    )


def resolve_precision(name):
    """The Keras dtype policy of `--precision`; auto is bfloat16 where the hardware multiplies it, else float32."""
    if name != "auto":
        return name
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "float32"
    try:
        with open("/proc/cpuinfo") as file:
            abilities = file.read()
        has = any(f in abilities for f in ("amx_bf16", "avx512_bf16"))
    except OSError:
        has = False
    return "mixed_bfloat16" if has else "float32"


def arithmetic(precision, xla):
    """How a run computes, in words: "mixed_bfloat16, XLA on, TF32 off"; GPUs alone have TF32."""
    words = f"{precision}, XLA {'on' if xla else 'off'}"
    if not tf.config.list_physical_devices("GPU"):
        return words
    return f"{words}, TF32 {'on' if tf.config.experimental.tensor_float_32_execution_enabled() else 'off'}"


def threads():
    """Threads in TensorFlow's pool, which compute single operations on CPUs."""
    text = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    given = int(text) if text.isdigit() else 0
    return tf.config.threading.get_intra_op_parallelism_threads() or given or machine.cores()


def resolve_xla(name):
    """Whether `--xla` compiles; auto: on GPUs only, because XLA's CPU convolutions are slower than oneDNN's."""
    return bool(tf.config.list_physical_devices("GPU")) if name == "auto" else name == "on"
