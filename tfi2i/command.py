"""How every command starts and fails."""

import errno
import os
import sys
import tempfile

from absl import app, flags, logging

from tfi2i import machine
from tfi2i.config import UserError

# Faults of disks and permissions, not of this program.
_OF_THE_MACHINE = (
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENAMETOOLONG, errno.ENOSPC, errno.EPERM,
    errno.EROFS, errno.ESTALE,
)  # fmt: skip


def run(main):
    """absl's `app.run`, with a `UserError` printed as one line and exit status 1, and Ctrl-C as status 130.

    An exception for Ctrl-C that has a `status` has said what there is to say, and ends the command with that one.

    Args:
        main: function of the positional arguments; a returned int is the exit status.
    """

    # Names of files need not be UTF-8, and printing them must not end the work.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")

    def guarded(argv):
        logging.set_verbosity(logging.WARNING)
        if len(argv) > 1:
            fail(f"'{argv[1]}' is not a flag: flags are written --name=value")
        try:
            return main(argv)
        except (UserError, FloatingPointError) as error:
            fail(str(error))
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                raise
            fail(f"{error.filename or 'a file'} cannot be read or written: {error.strerror}")
        except KeyboardInterrupt as stop:
            if not hasattr(stop, "status"):
                print("\nstopped", file=sys.stderr)
            sys.exit(getattr(stop, "status", 130))

    module = sys.modules[main.__module__]
    if module is not sys.modules["__main__"]:
        # A console script: --help is about the module that it calls.
        sys.modules["__main__"].__doc__ = module.__doc__
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(guarded)


def fail(message):
    """Prints `message` as an error and exits with status 1."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def import_tensorflow():
    """Imports TensorFlow without the dozen lines that it writes to stderr past every logger.

    They are shown when the import fails. Warnings of later operations are left as they are. On GPUs float32 is float32:
    TensorFlow's default, TF32, has the mantissa of 10 bits, too few to prove a file equal; bfloat16 is there for speed.

    Raises:
        UserError: KERAS_BACKEND names another backend.
    """
    machine.check_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
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
