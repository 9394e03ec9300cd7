"""What this process may use of the machine, and what it has used."""

import contextlib
import functools
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile

from tfi2i.config import UserError

# Keras imports these where they are installed, to wrap them; that takes as long as half of TensorFlow.
_WRAPPED = ("matplotlib", "sklearn")
# Whether Keras is imported with them. Commands, which have the process to themselves, leave them out.
with_wrapped = True


def check_backend():
    """Chooses TensorFlow as the backend of Keras, whatever keras.json says.

    Raises:
        UserError: KERAS_BACKEND names another one.
    """
    chosen = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if chosen != "tensorflow":
        raise UserError(f"KERAS_BACKEND={chosen}: tfi2i needs TensorFlow's backend: unset KERAS_BACKEND")


@contextlib.contextmanager
def hidden(*names):
    """While open, packages of these names that are not imported yet cannot be."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@functools.cache
def import_tensorflow():
    """Imports TensorFlow without the dozen lines that it writes to stderr past every logger.

    They are shown when the import fails. Warnings of later operations are left as they are. On GPUs float32 is float32:
    TensorFlow's default, TF32, has the mantissa of 10 bits, too few to prove a file equal; bfloat16 is there for speed.

    Raises:
        UserError: KERAS_BACKEND names another backend.
    """
    check_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            with contextlib.nullcontext() if with_wrapped else hidden(*_WRAPPED):
                import tensorflow as tf

            tf.config.list_physical_devices()
            tf.config.experimental.enable_tensor_float_32_execution(False)
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def cores():
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def devices():
    """What TensorFlow computes on, in words: "2 CPU cores", or "2 GPUs NVIDIA A100-SXM4-40GB"."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"{cores()} CPU core" + "s" * (cores() > 1)
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "of an unknown kind")
    return f"{len(gpus)} GPU{'s' * (len(gpus) > 1)} {name}"


def unused_cards():
    """Names of NVIDIA cards that are here while TensorFlow sees no GPU, though CUDA_VISIBLE_DEVICES hides none."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU") or "CUDA_VISIBLE_DEVICES" in os.environ:
        return []
    asked = shutil.which("nvidia-smi")
    if not asked:
        return []
    try:
        command = [asked, "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.split("\n")[:-1] if answer.returncode == 0 else []


def cuda_advice():
    """What to do where `unused_cards` finds some, in one line; None where it finds none."""
    cards = unused_cards()
    if not cards:
        return None
    return (
        f"this machine has {', '.join(sorted(set(cards)))}, and TensorFlow sees no GPU: install CUDA's libraries with "
        "pip install 'tfi2i[gpu]'; if they are there, then the driver may be too old for them"
    )


def peak_memory():
    """GiB: the most that the first GPU held so far, or that this process did where there is none."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return peak_resident() / 2**30


def peak_resident():
    """Bytes: the most memory that this process has held so far."""
    # Linux: ru_maxrss of a new program starts at the high-water mark of the program that started it, however small
    # the new one is. VmHWM is the new program's own.
    try:
        with open("/proc/self/status") as file:
            mark = re.search(r"^VmHWM:\s*(\d+) kB$", file.read(), re.MULTILINE)
    except OSError:
        mark = None
    if mark:
        return 1024 * int(mark[1])
    # macOS has no /proc. It keeps ru_maxrss for each program, in bytes; elsewhere it is KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
