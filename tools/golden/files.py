"""What all recorders share: the check of a checkout, random images, saving. Needs numpy alone."""

import hashlib
import importlib
import sys

import numpy as np


def check_checkout(folder, official, commit):
    """`official` maps files to git's own hashes: answers of an edited copy would not be golden."""
    for name, expected in official.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: point --checkout at the official code.")
        data = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if found != expected:
            raise ValueError(f"{path} has git hash {found}, expected {expected}: check out commit {commit}.")


def import_official(checkout, official, commit, modules, folder="."):
    """Modules by name from `folder` of a checked checkout."""
    check_checkout(checkout, official, commit)
    sys.path.insert(0, str(checkout / folder))
    return [importlib.import_module(name) for name in modules]


def sparse(images):
    """Every third pixel: coprime to the networks' strides, so that all phases of an upsampling are seen."""
    return images[:, ::3, ::3]


def random_images(rng, shape):
    """Random images [N, H, W, C] in [-1, 1], multiples of 1/8."""
    return (np.round(rng.uniform(-8, 8, shape)) / 8).astype(np.float32)


# A layer's output is off by about this much of its mean magnitude when its sums are added in another order in float32.
ROUNDING = 2.0**-24


def new_checkpoints(output, pattern):
    """OUTPUT/checkpoints, without the archives of an earlier recording."""
    folder = output / "checkpoints"
    folder.mkdir(exist_ok=True)
    for archive in folder.glob(pattern):
        archive.unlink()
    return folder


def save(output, name, arrays):
    path = output / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path.name:40s}{path.stat().st_size / 1024:8.1f} KiB{len(arrays):6d} arrays")
