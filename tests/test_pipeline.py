import itertools
import logging
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfi2i.config import Data, UserError
from tfi2i.data import images, pipeline, sources

PLAIN = {"resize": (8, 8), "resize_mode": "exact", "resize_filter": "bicubic", "crop": (8, 8), "flip": 0.0}


@pytest.fixture
def folder(tmp_path):
    """7 images of A and 5 of B, flat: the colour says which one it is."""
    for letter, first, count in (("A", 0, 7), ("B", 100, 5)):
        for i in range(count):
            path = tmp_path / f"train{letter}" / f"{i}.png"
            images.write_image(path, np.full((10, 12, 3), first + i, np.uint8))
    return tmp_path


def open_stream(folder, batch_size=1, seed=0, value_range=(0, 255), **data):
    data = Data(data=str(folder), **(PLAIN | data))
    return pipeline.TrainingStream(
        *sources.open_domains(data), data, value_range=value_range, seed=seed, batch_size=batch_size
    )


def take(dataset, n):
    return [tuple(x.numpy() for x in pair) for pair in dataset.take(n)]


def colours(batches):
    """Which images: a pair of integer lists."""
    return tuple(np.concatenate([b[d][:, 0, 0, 0] for b in batches]).round().astype(int).tolist() for d in (0, 1))


def test_every_epoch_of_each_domain_shows_every_image_once(folder):
    stream = open_stream(folder)
    a, b = colours(take(stream.dataset(), 35))
    epochs_a, epochs_b = np.reshape(a, (5, 7)), np.reshape(b, (7, 5))
    assert all(sorted(e) == list(range(7)) for e in epochs_a)
    assert all(sorted(e) == list(range(100, 105)) for e in epochs_b)
    assert len({tuple(e) for e in epochs_a}) > 1 and len({tuple(e) for e in epochs_b}) > 1
    assert [int(n[0].split("/")[1][0]) for n, _ in map(stream.names, range(35))] == a
    assert [100 + int(n[0].split("/")[1][0]) for _, n in map(stream.names, range(35))] == b


def test_domains_of_the_same_images_are_drawn_independently(folder):
    source = open_stream(folder)._sources[0]
    data = Data(data=str(folder), **(PLAIN | {"crop": (4, 4), "flip": 0.5}))
    stream = pipeline.TrainingStream(source, source, data, value_range=(0, 255), seed=0, batch_size=1)
    a, b = colours(take(stream.dataset(), 21))
    assert a != b


def test_the_seed_makes_another_stream(folder):
    orders = {tuple(colours(take(open_stream(folder, seed=s).dataset(), 14))[0]) for s in (0, 1, -1)}
    assert len(orders) == 3


@pytest.mark.parametrize("domain", "ab")
def test_smoothed_pictures_are_a_stream_of_their_own(folder, domain, monkeypatch):
    monkeypatch.setattr(pipeline.edges, "smooth_edges", lambda pixels: tf.constant(pixels + 50))
    data = Data(data=str(folder), **PLAIN)
    opened, how = sources.open_domains(data), {"value_range": (0, 255), "seed": 0, "batch_size": 1}
    stream = pipeline.TrainingStream(*opened, data, smoothed=domain, **how)
    whole = take(stream.dataset(), 35)
    plain = take(pipeline.TrainingStream(*opened, data, **how).dataset(), 35)
    assert [len(batch) for batch in (whole[0], plain[0])] == [3, 2]
    assert colours(whole) == colours(plain)
    seen = [int(batch[2][0, 0, 0, 0]) - 50 for batch in whole]
    count, first = {"a": (7, 0), "b": (5, 100)}[domain]
    assert all(sorted(epoch) == list(range(first, first + count)) for epoch in np.reshape(seen, (-1, count)))
    assert seen != colours(whole)["ab".index(domain)]
    assert [stream.names(step)[2] for step in range(35)] == [[f"train{domain.upper()}/{k - first}.png"] for k in seen]


def test_a_bad_file_of_smoothed_pictures_counts_once(folder):
    (folder / "trainB" / "3.png").write_bytes(b"broken")
    data = Data(data=str(folder), **PLAIN)
    how = {"value_range": (0, 255), "seed": 0, "batch_size": 1, "smoothed": "b"}
    stream = pipeline.TrainingStream(*sources.open_domains(data), data, **how)
    assert {int(batch[2][0, 0, 0, 0]) for batch in take(stream.dataset(), 10)} == {100, 101, 102, 104}
    assert len(stream.bad_files) == 1


def test_smoothed_pictures_have_blurred_edges_and_are_cached(folder, monkeypatch):
    write_noise(folder)
    computed, smooth = [], pipeline.edges.smooth_edges
    monkeypatch.setattr(pipeline.edges, "smooth_edges", lambda pixels: computed.append(smooth(pixels)) or computed[-1])
    data = Data(data=str(folder), **PLAIN)
    how = {"value_range": (0, 255), "seed": 0, "batch_size": 1, "smoothed": "b"}
    stream = pipeline.TrainingStream(*sources.open_domains(data), data, **how)
    shown = [stream.sample(2, k) for k in range(10)]
    assert len(computed) == 5
    assert all(any(np.array_equal(x, y[0]) for y in computed) for x in shown)


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_starting_at_a_step_gives_the_tail(folder, cache_gib):
    options = {"resize": (10, 10), "crop": (6, 7), "flip": 0.5, "cache_gib": cache_gib}
    whole = take(open_stream(folder, batch_size=2, **options).dataset(), 9)
    tail = take(open_stream(folder, batch_size=2, **options).dataset(start_step=4), 5)
    for expected, seen in zip(whole[4:], tail, strict=True):
        assert seen[0].shape == (2, 6, 7, 3) and seen[0].dtype == np.float32
        np.testing.assert_array_equal(seen[0], expected[0])
        np.testing.assert_array_equal(seen[1], expected[1])


def test_cached_and_uncached_streams_are_equal(folder):
    write_noise(folder)
    options = {"resize": (9, 9), "crop": (6, 7), "flip": 0.5}
    for flip_first in (False, True):
        streams = [open_stream(folder, flip_first=flip_first, cache_gib=g, **options) for g in (0.0, 1.0)]
        assert [s._caching for s in streams] == [False, True]
        for x, y in zip(*(take(s.dataset(), 20) for s in streams), strict=True):
            np.testing.assert_array_equal(x[0], y[0])
        assert not streams[0]._cache and len(streams[1]._cache) >= 12


@pytest.mark.parametrize(("hosts", "replicas"), [(1, 2), (2, 2), (2, 4)])
def test_hosts_and_replicas_share_the_global_batch_in_order(folder, hosts, replicas):
    stream = open_stream(folder, batch_size=8)
    expected = take(stream.dataset(start_step=3), 2)
    local = replicas // hosts
    parts = []
    for host in range(hosts):
        context = tf.distribute.InputContext(hosts, host, replicas)
        batches = take(stream.dataset(start_step=3, context=context), 2 * local)
        assert batches[0][0].shape == (8 // replicas, 8, 8, 3)
        parts.append([batches[:local], batches[local:]])
    for step in (0, 1):
        for domain in (0, 1):
            union = np.concatenate([b[domain] for part in parts for b in part[step]])
            np.testing.assert_array_equal(union, expected[step][domain])


def test_mirrored_strategy_gets_the_same_batches(folder):
    stream = open_stream(folder, batch_size=4)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    iterator = iter(strategy.distribute_datasets_from_function(lambda context: stream.dataset(2, context)))
    for expected in take(stream.dataset(2), 2):
        batch = next(iterator)
        union = np.concatenate([x.numpy() for x in strategy.experimental_local_results(batch[0])])
        np.testing.assert_array_equal(union, expected[0])


def test_a_batch_that_replicas_cannot_share_is_refused(folder):
    with pytest.raises(UserError, match="--batch_size=3 .* shared equally by 2 replicas"):
        open_stream(folder, batch_size=3).dataset(context=tf.distribute.InputContext(1, 0, 2))


# ------------------------------------------------------------------------------------------ bad files


def test_a_bad_file_is_replaced_by_the_next_of_the_permutation(folder, caplog):
    order = colours(take(open_stream(folder).dataset(), 14))[0]
    bad = order[2]
    (folder / "trainA" / f"{bad}.png").write_bytes(b"x")
    stream = open_stream(folder)
    with caplog.at_level(logging.WARNING):
        seen = colours(take(stream.dataset(), 14))[0]
    expected = list(order)
    for epoch in (0, 7):
        position = order.index(bad, epoch)
        expected[position] = order[epoch + (position + 1 - epoch) % 7]
    assert seen == expected
    assert stream.bad_files == [(f"trainA/{bad}.png", "not an image, or of an unknown format")]
    assert [r.message for r in caplog.records] == [
        f"skipped an image that cannot be read: trainA/{bad}.png (not an image, or of an unknown format)"
    ]
    assert stream.names(2)[0] == [f"trainA/{seen[2]}.png"]
    resumed = open_stream(folder)
    assert colours(take(resumed.dataset(start_step=5), 9))[0] == expected[5:]


def test_a_bad_file_whose_name_both_domains_have_is_named_with_its_domain(folder):
    (folder / "trainB" / "3.png").write_bytes(b"x")
    data = Data(a=str(folder / "trainA"), b=str(folder / "trainB"), holdout=0.0, **PLAIN)
    stream = pipeline.TrainingStream(*sources.open_domains(data), data, value_range=(0, 255), seed=0, batch_size=1)
    take(stream.dataset(), 14)
    assert [path for path, _ in stream.bad_files] == ["3.png of B"]


def test_too_many_bad_files_stop_with_the_list(folder):
    for i in (1, 4, 5):
        (folder / "trainA" / f"{i}.png").write_bytes(b"x")
    stream = open_stream(folder, max_bad_files=2)
    with pytest.raises(tf.errors.OpError):
        take(stream.dataset(), 20)
    with pytest.raises(UserError, match="3 files cannot be read, more than --max_bad_files=2") as caught:
        stream.raise_error()
    for i in (1, 4, 5):
        assert f"trainA/{i}.png: not an image" in str(caught.value)
    open_stream(folder).raise_error()  # no error, no exception
    stream = open_stream(folder, max_bad_files=3)
    assert set(colours(take(stream.dataset(), 14))[0]) == {0, 2, 3, 6} and len(stream.bad_files) == 3


def test_a_domain_of_bad_files_only_is_an_error(folder):
    for path in (folder / "trainB").iterdir():
        path.write_bytes(b"x")
    stream = open_stream(folder)
    with pytest.raises(UserError, match="none of the files of domain B can be read"):
        stream.sample(1, 0)


# -------------------------------------------------------------------------------------- preprocessing


def write_noise(folder, size=(10, 12), dtype=np.uint8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (*size, 3), dtype, endpoint=True)
    for letter in "AB":
        for path in (folder / f"train{letter}").iterdir():
            images.write_image(path, pixels)
    return pixels


@pytest.mark.parametrize("name", ["bicubic", "bilinear", "lanczos"])
def test_resize_is_pillows_and_the_range_is_exact(folder, name):
    pixels = write_noise(folder)
    expected = np.asarray(Image.fromarray(pixels).resize((9, 11), images.FILTERS[name]))
    size = {"resize": (11, 9), "crop": None, "resize_filter": name}
    (a, _), *_ = take(open_stream(folder, value_range=(-1, 1), **size).dataset(), 1)
    np.testing.assert_allclose(a[0], expected / 127.5 - 1, atol=1e-6)
    assert a.min() == expected.min() / np.float32(127.5) - 1
    flat = pipeline.scale(np.array([0, 255], np.uint8), (-1, 1))
    assert flat.tolist() == [-1, 1] and flat.dtype == np.float32


def test_sixteen_bits_stay_fine(folder):
    pixels = write_noise(folder, dtype=np.uint16)
    (a, _), *_ = take(open_stream(folder, resize=None, crop=None, value_range=(0, 1)).dataset(), 1)
    np.testing.assert_array_equal(np.rint(a[0] * 65535), pixels)


def test_crops_are_parts_of_the_image_at_every_place_and_flips_are_mirror_images(folder):
    pixels = write_noise(folder).astype(np.float32)
    stream = open_stream(folder, resize=None, crop=(9, 10), flip=0.5)
    places = set()
    for k in range(80):
        crop = stream.sample(0, k)
        np.testing.assert_array_equal(crop, stream.sample(0, k))
        for top in range(2):
            for left in range(3):
                window = pixels[top : top + 9, left : left + 10]
                for flipped, seen in enumerate((crop, crop[:, ::-1])):
                    if np.array_equal(seen, window):
                        places.add((top, left, flipped))
    assert len(places) == 12


@pytest.mark.parametrize("flip_first", [False, True])
def test_flip_first_and_last(folder, flip_first):
    pixels = write_noise(folder, size=(10, 13))
    options = {"resize": (7, 20), "crop": None, "flip": 1.0, "flip_first": flip_first}
    image = Image.fromarray(pixels)
    if flip_first:
        expected = np.asarray(Image.fromarray(pixels[:, ::-1]).resize((20, 7), Image.Resampling.BICUBIC))
    else:
        expected = np.asarray(image.resize((20, 7), Image.Resampling.BICUBIC))[:, ::-1]
    np.testing.assert_array_equal(open_stream(folder, **options).sample(0, 0), expected)


def test_flip_first_crops_the_flipped_image(folder):
    pixels = write_noise(folder).astype(np.float32)
    options = {"resize": None, "crop": (10, 4), "flip": 1.0}
    last = open_stream(folder, flip_first=False, **options).sample(0, 3)
    first = open_stream(folder, flip_first=True, **options).sample(0, 3)
    left = next(i for i in range(9) if np.array_equal(last, pixels[:, i : i + 4][:, ::-1]))
    np.testing.assert_array_equal(first, pixels[:, ::-1][:, left : left + 4])


def test_domains_crop_independently_and_flip_half_of_the_time(folder):
    pixels = write_noise(folder, size=(8, 8)).astype(np.float32)
    stream = open_stream(folder, flip=0.5)
    flips = np.array([[np.array_equal(stream.sample(d, k), pixels[:, ::-1]) for k in range(200)] for d in (0, 1)])
    assert 70 < flips[0].sum() < 130 and 70 < flips[1].sum() < 130
    assert 70 < (flips[0] != flips[1]).sum() < 130


def test_short_side_keeps_the_aspect(folder):
    pixels = write_noise(folder, size=(10, 25))
    data = {"resize": (8, 8), "resize_mode": "short_side", "crop": None}
    expected = np.asarray(Image.fromarray(pixels).resize((20, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(open_stream(folder, **data).sample(0, 0), expected)
    assert open_stream(folder, **(data | {"crop": (8, 8)})).dataset().element_spec[0].shape == (1, 8, 8, 3)


def test_static_shapes_and_channels(folder):
    spec = open_stream(folder, batch_size=2, channels_b=1).dataset().element_spec
    assert [s.shape.as_list() for s in spec] == [[2, 8, 8, 3], [2, 8, 8, 1]]
    a, b = take(open_stream(folder, channels_b=1).dataset(), 1)[0]
    assert a.shape == (1, 8, 8, 3) and b.shape == (1, 8, 8, 1)


def test_native_sizes_one_by_one_or_all_equal(folder):
    images.write_image(folder / "trainA" / "3.png", np.full((5, 6, 3), 3, np.uint8))
    native = {"resize": None, "resize_mode": "none", "crop": None}
    shapes = {a.shape for a, _ in take(open_stream(folder, **native).dataset(), 7)}
    assert shapes == {(1, 10, 12, 3), (1, 5, 6, 3)}
    with pytest.raises(UserError, match="images of different sizes .5x6, 10x12;.*set --crop"):
        open_stream(folder, batch_size=2, **native)
    images.write_image(folder / "trainA" / "3.png", np.full((10, 12, 3), 3, np.uint8))
    assert take(open_stream(folder, batch_size=2, **native).dataset(), 1)[0][0].shape == (2, 10, 12, 3)


def test_a_size_that_changed_since_the_first_look_stops_the_stream(folder):
    for options, message in (
        ({"batch_size": 2, "crop": None}, "different sizes .5x6, 10x12; trainA/3.png"),
        ({"crop": (8, 8)}, "trainA/3.png is 5x6 .*smaller than --crop=8,8"),
    ):
        images.write_image(folder / "trainA" / "3.png", np.full((10, 12, 3), 3, np.uint8))
        stream = open_stream(folder, resize=None, resize_mode="none", **options)
        images.write_image(folder / "trainA" / "3.png", np.full((5, 6, 3), 3, np.uint8))
        with pytest.raises(tf.errors.OpError):
            take(stream.dataset(), 7)
        with pytest.raises(UserError, match=message):
            stream.raise_error()


class Headers:
    """A source of which nothing but headers can be read: images of 20x20 and one that is smaller."""

    description, channels = "40 images", 3

    def __init__(self, small):
        self.names = [f"{i}.png" for i in range(40)]
        self.small, self.seen = small, []

    def __len__(self):
        return 40

    def image_size(self, i):
        self.seen.append(i)
        return (20, 9) if i == self.small else (20, 20)


def test_all_headers_are_read_where_sizes_are_the_images_own(monkeypatch, capsys):
    crop = {"crop": (10, 10)}
    for own in ({"resize_mode": "none"}, {"resize_mode": "short_side", "resize": (8, 8)}, {}):
        for i in (0, 17, 39):
            with pytest.raises(UserError, match="smaller than --crop=10,10"):
                pipeline.check(Headers(i), Data(data="x", **crop, **own))
    source = Headers(None)
    assert len(pipeline.check(source, Data(data="x", **crop))) == len(source.seen) == 40
    source = Headers(17)
    pipeline.check(source, Data(data="x", resize=(12, 12), resize_mode="exact", **crop))
    assert 0 in source.seen and 39 in source.seen and len(source.seen) == 16
    assert not capsys.readouterr().out
    clock = iter(range(1000))
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: float(next(clock)))
    pipeline.check(Headers(None), Data(data="x", **crop))
    assert "40/40 image sizes looked at | 40 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"resize_mode": "none", "crop": (11, 12)},
            r"trainA/0.png is 10x12 \(height x width\), smaller than --crop=11,12",
        ),
        ({"resize_mode": "short_side", "resize": (5, 5), "crop": (6, 6)}, "is 5x6 .* after resizing, smaller"),
        (
            {"resize_mode": "short_side", "resize": (5, 6), "crop": (4, 4)},
            "--resize=5,6: --resize_mode=short_side takes one",
        ),
    ],
)
def test_images_smaller_than_the_crop_are_found_at_once(folder, data, message):
    with pytest.raises(UserError, match=message):
        open_stream(folder, **data)


def test_the_cache_is_left_out_when_it_does_not_fit(folder):
    # (7 + 5) images of 8x8x3 bytes.
    assert open_stream(folder, cache_gib=12 * 192 / 2**30)._caching
    assert not open_stream(folder, cache_gib=(12 * 192 - 1) / 2**30)._caching
    assert not open_stream(folder, cache_gib=12 * 192 / 2**30, flip_first=True, flip=0.5)._caching


# ------------------------------------------------------------------------------------------ evaluation


def test_fixed_images_are_whole_and_of_the_crops_size(folder, caplog):
    pixels = write_noise(folder, size=(10, 20))
    data = Data(data=str(folder), **(PLAIN | {"resize": (12, 12), "crop": (8, 8), "flip": 0.5}))
    source = sources.open_domains(data)[0]
    whole = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC))
    batch = [x for _, x in pipeline.eval_images(source, data, [0, 3])]
    np.testing.assert_array_equal(batch, np.stack([whole, whole]))
    (folder / "trainA/1.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        seen = list(pipeline.eval_images(source, data))
    assert [name for name, _ in seen] == [f"trainA/{i}.png" for i in (0, 2, 3, 4, 5, 6)]
    assert seen[0][1].dtype == np.uint8 and len(caplog.records) == 1


@pytest.mark.parametrize("mode", ["short_side", "none"])
def test_fixed_images_of_other_modes_show_the_centre(folder, mode):
    pixels = write_noise(folder, size=(10, 20))
    data = Data(data=str(folder), **(PLAIN | {"resize_mode": mode, "resize": (12, 12), "crop": (5, 4)}))
    source = sources.open_domains(data)[0]
    if mode == "short_side":
        pixels = np.asarray(Image.fromarray(pixels).resize((10, 5), Image.Resampling.BICUBIC))[:, 3:7]
    else:
        pixels = pixels[2:7, 8:12]
    ((_, seen),) = pipeline.eval_images(source, data, [0])
    np.testing.assert_array_equal(seen, pixels)


def test_equal_preparations_give_equal_pictures(folder):
    """All combinations: what `eval_preparation` tells apart differs, and only that."""
    write_noise(folder, size=(15, 21))
    seen = {}
    for mode, resize, crop, filter in itertools.product(
        (None, "exact", "short_side", "none"), (None, (12, 12), (12, 14)), (None, (8, 8)), (None, "bicubic", "lanczos")
    ):
        data = Data(data=str(folder), resize_mode=mode, resize=resize, crop=crop, resize_filter=filter)
        ((_, pixels),) = pipeline.eval_images(sources.open_domains(data)[0], data, [0])
        key = tuple(pipeline.eval_preparation(data).values())
        seen.setdefault(key, []).append(pixels)
    # Of two filters each: to a size in two forms, to a shorter side, to a crop exactly, to a crop by the shorter side.
    # Of none: neither of them, and a crop of the centre.
    assert len(seen) == 2 * (2 + 2 + 1 + 1) + 2
    for pictures in seen.values():
        assert all(np.array_equal(pictures[0], p) for p in pictures)


def test_a_process_that_ends_while_files_are_read_ends(folder):
    code = f"""
        import faulthandler, tfi2i.data.pipeline as p
        from tfi2i.config import Data
        from tfi2i.data import sources
        data = Data(data={str(folder)!r}, resize=(500, 500), resize_mode="exact", crop=(400, 400), cache_gib=0.0)
        stream = p.TrainingStream(*sources.open_domains(data), data, value_range=(0, 1), seed=0, batch_size=1)
        iterator = iter(stream.dataset())
        next(iterator)
        print("read")
        faulthandler.dump_traceback_later(30, exit=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert done.stdout == "read\n" and done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "data, sizes, said",
    [
        # 64 x 64 of 72 x 72 pixels; the medians of 200, 256, 256 are 256.
        (
            {"resize": (72, 72), "resize_mode": "exact", "crop": (64, 64)},
            [[(256, 256), (200, 256), (256, 200)]] * 2,
            ["pictures of 256 px (median of 6 headers) are resized to 72 px and cropped to 64 px: the networks see 79% "
             "of a picture at a time"],
        ),
        # 64 x 64 of 256 x 512.
        (
            {"resize": (256, 256), "resize_mode": "short_side", "crop": (64, 64)},
            [[(512, 1024)]] * 2,
            ["pictures of 512x1024 px (height x width) (median of 2 headers) are resized to 256x512 px (height x "
             "width) and cropped to 64 px: the networks see 3% of a picture at a time; --crop=64 --resize=72 shows "
             "nearly all of it, smaller"],
        ),
        # A keyhole; without resizing the advice has to ask for it.
        (
            {"resize_mode": "none", "crop": (64, 64)},
            [[(256, 256)]] * 2,
            ["pictures of 256 px (median of 2 headers) are cropped to 64 px: the networks see 6% of a picture at a "
             "time; --crop=64 --resize_mode=short_side --resize=72 shows nearly all of it, smaller"],
        ),
        # 300 x 600 as a square: the width shrinks by 600 / 64, the height by 300 / 64.
        (
            {"resize": (64, 64), "resize_mode": "exact", "crop": (64, 64)},
            [[(300, 600)], [(32, 32)]],
            ["pictures of A of 300x600 px (height x width) (median of 1 header) are resized to 64 px (their width is "
             "squeezed 2 times) and seen whole by the networks",
             "pictures of B of 32 px (median of 1 header) are enlarged to 64 px and seen whole by the networks"],
        ),
        ({}, [[(32, 32)], []], ["pictures of 32 px (median of 1 header) are seen whole by the networks"]),
        ({}, [[], []], []),
    ],
)  # fmt: skip
def test_how_pictures_become_crops_is_told(data, sizes, said):
    assert pipeline.describe_crops(sizes, Data(data="x", **data)) == said
