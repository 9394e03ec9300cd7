"""Records what the official code of a method computes, as small .npz files for tests/golden/.

The files hold numbers only: random weights, random inputs and the official code's answers. Needs an
environment with torch, numpy, pillow and absl-py (AGGAN: TensorFlow instead of torch; BiGAN: lupa too), and a checkout
of the official code; which one and at which commit says the method's recorder in tools/golden/:

    python tools/make_golden.py --method=cyclegan --checkout=FOLDER

Images are stored [N, H, W, C], weights under their torch names in torch's own layout; arrays are
float32 unless tests/golden/README.md says otherwise. Weights and inputs are multiples of a power
of two: exact in float32, and they compress well.
"""

import importlib
import pathlib
import sys

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "method",
    None,
    "whose answers to record: a module of tools/golden, such as cyclegan, unit_2018 or metrics",
    required=True,
)
flags.DEFINE_string("checkout", None, "folder of the official code, or of packages", required=True)
flags.DEFINE_string(
    "output", str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "golden"), "where the .npz files go"
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: use --method=NAME --checkout=FOLDER.")
    try:
        recorder = importlib.import_module(f"golden.{FLAGS.method}")
    except ModuleNotFoundError as error:
        if error.name != f"golden.{FLAGS.method}":
            raise
        raise app.UsageError(f"--method={FLAGS.method}: there is no tools/golden/{FLAGS.method}.py.") from error
    output = pathlib.Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        print(f"torch {torch.__version__}")
    print(f"numpy {np.__version__}")
    recorder.record(pathlib.Path(FLAGS.checkout).resolve(), output)


if __name__ == "__main__":
    app.run(main)
