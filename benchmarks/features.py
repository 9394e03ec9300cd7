"""How fast features of image files are extracted, beside the network alone: what FID and KID cost.

  python -m benchmarks.features --network=efficientnet_lite0 --size=256 --images=256

The goal is nine tenths of the network's own rate: reading, decoding and resizing happen while the network works, but
on the same processor. JPEG files of soft noise are made for it.
"""

import pathlib
import tempfile
import time

from absl import flags

from tfi2i import command, machine
from tfi2i.config import UserError
from tfi2i.metrics.protocols import NETWORKS


def define_flags(values):
    """Declares the flags of this command."""
    flags.DEFINE_string("network", "efficientnet_lite0", "as of tfi2i.evaluate", flag_values=values)
    flags.DEFINE_string("network_weights", None, "as of tfi2i.evaluate", flag_values=values)
    flags.DEFINE_integer("size", 256, "side of the images in pixels", lower_bound=8, flag_values=values)
    flags.DEFINE_integer("images", 256, "how many", lower_bound=2, flag_values=values)
    flags.DEFINE_integer("batch", 32, "images that go through the network at once", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("repeats", 5, "passes, of which the median counts", lower_bound=1, flag_values=values)


def main(_):
    """Makes the files, prints the table."""
    values = flags.FLAGS
    machine.import_tensorflow()
    from benchmarks import common
    from tfi2i.metrics import features

    if values.network not in NETWORKS:
        raise UserError(f"--network={values.network}: expected one of {', '.join(NETWORKS)}")
    network = features.FeatureNetwork(values.network, values.network_weights)
    print(common.machine())
    print(common.table(measure(network, values.size, values.images, values.batch, values.repeats)))


def measure(network, size=256, count=256, batch=32, repeats=5):
    """Times extraction and its parts.

    Args:
        network: `features.FeatureNetwork`.
        size: side of the images in pixels.
        count: how many images.
        batch: images that go through the network at once.
        repeats: passes, of which the median counts; the passes of all rows take turns.

    Returns:
        rows for `common.table`, the first one a heading.
    """
    import statistics

    import numpy as np

    from tfi2i.data import images

    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="tfi2i-") as folder:
        paths = [pathlib.Path(folder, f"{i}.jpg") for i in range(count)]
        for path in paths:
            rough = draw.integers(0, 256, (size // 8, size // 8, 3), np.uint8)
            images.write_image(path, images.resize(rough, (size, size)))
        pictures = [images.read_image(path) for path in paths]
        prepared = np.stack([network.prepare(x) for x in pictures[:batch]])

        def alone():
            for start in range(0, count, batch):
                network.of_prepared(prepared[: min(batch, count - start)])

        runs = {
            "network alone": alone,
            "with resizing, of arrays": lambda: network.extract(lambda i: pictures[i], count, batch),
            "with reading and decoding too": lambda: network.extract(
                lambda i: images.read_image(paths[i]), count, batch
            ),
        }
        times = {name: [] for name in runs}
        for repeat in range(repeats + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if repeat:  # the first is for warming up
                    times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    rows = [[f"{network.name}, {count} JPEG files, {size} px", "images/s", "network alone = 1"]]
    for name, seconds in median.items():
        rows.append([name, f"{count / seconds:.1f}", f"{median['network alone'] / seconds:.2f}"])
    return rows


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
