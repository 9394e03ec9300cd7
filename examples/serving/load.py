"""Asks a server many times at once: good pictures of mixed sizes, and some that nobody can translate.

  python load.py --server=localhost:8501 --model=lines --input=FOLDER --requests=10000 --clients=8

Every picture of FOLDER is translated once before, and each later answer has to equal the first one within one level.
Prints how many answers were right, pictures per second and percentiles of the latency. The exit status is 1 if one
answer was wrong.
"""

import collections
import concurrent.futures
import io
import random
import time

import numpy as np
from absl import flags
from PIL import Image
from tfi2i.export.client import Grpc, Rest, with_repetitions

from tfi2i import command
from tfi2i.data import images

_SIZES = (256, 128, 100, 64)


def define_flags(values):
    """Declares the flags of this program in `values`."""
    flags.DEFINE_string("server", None, "HOST:PORT of the server", required=True, flag_values=values)
    flags.DEFINE_enum("api", "rest", ("rest", "grpc"), "HTTP or gRPC", flag_values=values)
    flags.DEFINE_string("model", None, "name of the model on the server", required=True, flag_values=values)
    flags.DEFINE_string("input", None, "folder of pictures", required=True, flag_values=values)
    flags.DEFINE_integer("requests", 1000, "how many requests", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("clients", 8, "requests at the same time", lower_bound=1, flag_values=values)
    flags.DEFINE_float("hostile", 0.05, "share of requests that nobody can answer", 0, 1, flag_values=values)


def good_files(folder):
    """Encoded pictures: those of a folder as PNG and JPEG, cut to several sizes."""
    files = []
    for i, path in enumerate(images.find_images(folder)[:40]):
        side = _SIZES[i % len(_SIZES)]
        buffer = io.BytesIO()
        cut = Image.fromarray(images.to_channels(images.read_image(path), 3)[: side - i % 3, :side])
        cut.save(buffer, "PNG" if i % 2 else "JPEG")
        files.append(buffer.getvalue())
    return files


def hostile_files(good):
    """Files that cannot be translated: nothing, no picture, halves, other formats, and one of 16 gigapixels."""
    png = next(file for file in good if file.startswith(b"\x89PNG"))
    others = []
    for form, mode in (("WEBP", "RGB"), ("TIFF", "RGB"), ("BMP", "P")):
        others.append(io.BytesIO())
        Image.new(mode, (8, 8)).save(others[-1], form)
    bomb = png[:16] + (2**17).to_bytes(4, "big") * 2 + png[24:]
    halves = [file[: len(file) // 2] for file in (png, good[0]) if file.startswith(b"\x89PNG")]
    return [b"", b"\0" * 1000, bomb, *halves, *(other.getvalue() for other in others)]


def main(_):
    values = flags.FLAGS
    send = (Rest if values.api == "rest" else Grpc)(values.server, values.model)
    good = good_files(values.input)
    hostile = hostile_files(good)
    first = [images.read_image(send([file])[0][0]).astype(int) for file in good]
    chosen = random.Random(0)

    def ask(is_hostile, which):
        start = time.perf_counter()
        ((png, error),) = with_repetitions(send, [(hostile if is_hostile else good)[which]], retries=9)
        taken = time.perf_counter() - start
        if is_hostile:
            return taken, bool(error) and not png
        return taken, not error and np.abs(images.read_image(png).astype(int) - first[which]).max() <= 1

    asked = []
    for _ in range(values.requests):
        is_hostile = chosen.random() < values.hostile
        asked.append((is_hostile, chosen.randrange(len(hostile if is_hostile else good))))
    start, answers = time.perf_counter(), collections.defaultdict(list)
    with concurrent.futures.ThreadPoolExecutor(values.clients) as pool:
        for (is_hostile, _), (taken, right) in zip(asked, pool.map(lambda one: ask(*one), asked)):
            answers[is_hostile].append((taken, right))
    seconds, wrong = time.perf_counter() - start, 0
    for is_hostile, kind in ((False, "good"), (True, "hostile")):
        times, right = zip(*answers[is_hostile]) if answers[is_hostile] else ([0.0], [])
        wrong += len(right) - sum(right)
        p50, p90, p99 = (1000 * float(np.percentile(times, p)) for p in (50, 90, 99))
        print(
            f"{kind}: {sum(right)} of {len(right)} answered right; ms: 50 % {p50:.0f}, 90 % {p90:.0f}, 99 % {p99:.0f}"
        )
    print(f"{values.requests / seconds:.1f} requests/s by {values.clients} clients")
    return command.FAILED if wrong else 0


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
