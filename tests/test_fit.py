"""What `fit`, `evaluate`, `save`, `summary` and `translate` of a model take, and what they say of what they do not."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests.marks import thorough
from tests.test_conformance import as_numpy, build, described
from tfi2i.methods.fitting import as_dataset

SIDE = described("cyclegan").SIDE
A = np.random.default_rng(0).uniform(-1, 1, (5, SIDE, SIDE, 3)).astype("float32")
B = A[::-1].copy()


def compiled():
    model = build("cyclegan")
    model.compile(run_eagerly=True)
    return model


def dataset(size, remainder=False):
    return tf.data.Dataset.from_tensor_slices((A, B)).batch(size, drop_remainder=not remainder)


class Batches(keras.utils.PyDataset):
    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, i):
        return A[: self.sizes[i]], B[: self.sizes[i]]


def endless():
    while True:
        yield A[:2], B[:2]


def pixels(x):
    return np.round((x + 1) * 127.5).astype("uint8")


@pytest.mark.parametrize(
    "data, more, steps",
    [
        ((A, B), {"batch_size": 2}, 2),  # the fifth pair is another one in each epoch
        ((A[:3], B), {}, 5),  # of other lengths, one by one
        thorough(((A[:2], B[:2]),), {}, 2),
        ((pixels(A[:2]), pixels(B[:2])), {}, 2),
        thorough((A[:2].astype("float64"), B[:2]), {}, 2),
        ((dataset(2),), {}, 2),
        thorough((endless(),), {"steps_per_epoch": 3}, 3),
        ((Batches([2, 2, 2]),), {}, 3),
    ],
)
def test_it_learns_from(data, more, steps):
    model = compiled()
    model.fit(*data, verbose=0, **more)
    assert int(model.step.numpy()) == steps


REFUSED = [
    ((A,), {}, "one array: expected two, the images of domain A and those of domain B"),
    (([A, B, B],), {}, "3 arrays: expected two"),
    (("photos",), {}, "str: expected two arrays"),
    ((A[:1], B[:1]), {"batch_size": 2}, "1 and 1 images in batches of 2: there is no whole batch"),
    ((A * 127.5 + 127.5, B), {}, "this method's range is [-1, 1]; scale them, or pass uint8 or uint16 pixels"),
    ((A.astype("int32"), B), {}, "dtype int32: expected uint8, uint16 or a float"),
    ((A[..., :1], B), {}, "expected [N, H, W, 3]"),
    ((A[:, :8], B), {}, f"images of 8x{SIDE} pixels in A and of {SIDE}x{SIDE} in B: expected one size"),
    ((A[:, :15], B[:, :15]), {}, f"images of 15x{SIDE} pixels: the networks take"),
    ((dataset(2, remainder=True),), {}, "use .batch(n, drop_remainder=True)"),
    ((tf.data.Dataset.from_tensor_slices(A).batch(1),), {}, "use tf.data.Dataset.zip(a, b)"),
    ((dataset(2),), {"batch_size": 2}, "batch_size=2 is for arrays"),
    ((Batches([2, 1]),), {}, "leave the remainder out"),
    ((iter([A[:2]]),), {}, "batches of type ndarray: expected (A, B)"),
    ((iter([]),), {}, "batches of type NoneType: expected (A, B)"),
    ((A[:0], B), {}, "0 and 5 images in batches of 1: there is no whole batch"),
    ((tf.data.Dataset.from_tensor_slices(((A, A), B)).batch(1),), {}, "use tf.data.Dataset.zip(a, b)"),
    ((dataset(2),), {"validation_split": 0.5}, "validation_split is for two arrays (A, B): give validation_data"),
    ((A, B), {"validation_split": 0.1}, "validation_split=0.1 of 5 and 5 images leaves a part without any"),
    ((A, B), {"validation_data": (A, B), "validation_batch_size": 2}, "1 would be left out; choose another batch_size"),
]


@pytest.mark.parametrize("data, more, said", REFUSED, ids=[said[:40] for *_, said in REFUSED])
def test_it_refuses_in_one_sentence(data, more, said):
    model = compiled()
    with pytest.raises(ValueError, match=re.escape(said)):
        model.fit(*data, verbose=0, **more)


def test_before_compile_one_sentence_says_what_to_do():
    for call in (lambda m: m.fit(A, B), lambda m: m.evaluate(A, B)):
        with pytest.raises(ValueError, match=r"call compile\(\) before"):
            call(build("cyclegan"))


def test_arrays_are_unpaired():
    """Each array is shuffled by itself: A's first image does not always meet B's."""
    model, met = build("cyclegan"), set()
    for _ in range(20):
        data, shapes = as_dataset(model, A, B, shuffle=True)
        met |= {(int(np.argmin(np.abs(A - a).sum((1, 2, 3)))), int(np.argmin(np.abs(B - b).sum((1, 2, 3)))))
                for a, b in data.as_numpy_iterator()}  # fmt: skip
    assert shapes == [(1, SIDE, SIDE, 3)] * 2 and len(met) > 5


def test_evaluate_is_the_mean_of_the_losses_and_changes_nothing():
    model = compiled()
    model.fit(A[:2], B[:2], verbose=0)
    before = [as_numpy(v) for v in model.variables]
    both = model.evaluate(A[:2], B[:2], verbose=0, return_dict=True)
    one, other = (model.evaluate(A[i : i + 1], B[i : i + 1], verbose=0, return_dict=True) for i in (0, 1))
    assert both.keys() == one.keys() and {"cycle_a", "discriminator_b"} <= both.keys()
    for name in both:
        np.testing.assert_allclose(both[name], (one[name] + other[name]) / 2, rtol=1e-5)
    for x, v in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(x, as_numpy(v), err_msg=v.path)
    assert model.evaluate(dataset(1).take(2), verbose=0) == list(both.values())


def test_the_history_holds_means_and_validation():
    model = compiled()
    losses = []
    record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: losses.append(logs["cycle_a"]))
    history = model.fit(A, B, validation_split=0.2, callbacks=[record], epochs=2, verbose=0).history
    np.testing.assert_allclose(history["cycle_a"], [np.mean(losses[:4]), np.mean(losses[4:])], rtol=1e-6)
    expected = model.evaluate(A[4:], B[4:], verbose=0, return_dict=True)
    np.testing.assert_allclose(history["val_cycle_a"][-1], expected["cycle_a"], rtol=1e-6)


def test_arguments_are_in_the_order_of_keras():
    model, seen = compiled(), []
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: seen.append(epoch))
    model.fit(A[:2], B[:2], 2, 3, 0, record)
    assert seen == [0, 1, 2] and int(model.step.numpy()) == 3
    assert len(model.evaluate(A[:1], B[:1], 1, 0, None, None, record)) > 3


def test_validation_data_win_over_a_split():
    model = compiled()
    model.fit(A[:4], B[:4], validation_data=(A[:1], B[:1]), validation_split=0.5, verbose=0)
    assert int(model.step.numpy()) == 4


def test_a_generator_goes_on_in_the_next_epoch():
    model, given = compiled(), []

    def batches():
        for i in range(4):
            given.append(i)
            yield A[i : i + 1], B[i : i + 1]

    model.fit(batches(), steps_per_epoch=2, epochs=2, verbose=0)
    assert given == [0, 1, 2, 3] and int(model.step.numpy()) == 4


def test_pictures_of_another_size_are_measured_without_pools():
    model = compiled()
    large = [np.tile(x, (1, 2, 2, 1)) for x in (A[:1], B[:1])]
    new = model.evaluate(*large, verbose=0, return_dict=True)
    model.fit(A[:1], B[:1], verbose=0)
    assert model.evaluate(*large, verbose=0, return_dict=True).keys() == new.keys()
    # What discriminators see are the translations of these images, none that a pool has kept.
    before = as_numpy(model.pool_a.images).copy()
    first = model.evaluate(A[1:2], B[1:2], verbose=0)
    model.pool_a.images.assign(tf.zeros_like(model.pool_a.images) + 9.0)
    assert model.evaluate(A[1:2], B[1:2], verbose=0) == first and before.any()


@pytest.mark.parametrize("kwargs, given", [({}, {"accumulate": 2}), ({"dtype": "mixed_float16"}, {})])
def test_it_is_measured_where_a_step_has_other_needs(kwargs, given):
    """`accumulate` divides batches that are learned from, and float16 has a loss scale: measuring needs neither."""
    model = build("cyclegan", **kwargs)
    model.compile(run_eagerly=True, **given)
    assert np.isfinite(model.evaluate(A[:1], B[:1], verbose=0)).all()


def test_batches_that_parts_do_not_divide_are_refused_before_the_first_step():
    model = build("cyclegan")
    model.compile(accumulate=2)
    with pytest.raises(ValueError, match="batches of 3 images: .* must be a multiple of 2"):
        model.fit(A, B, batch_size=3)


def test_measuring_on_two_replicas_is_measuring():
    alone = compiled()
    with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
        model = build("cyclegan")
        model.compile()
    expected = alone.evaluate(A[:2], B[:2], batch_size=2, verbose=0, return_dict=True)
    for name, value in model.evaluate(A[:2], B[:2], verbose=0, return_dict=True).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)


def test_a_model_that_was_never_compiled_is_saved(tmp_path):
    model = build("cyclegan")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.translate(pixels(A)), model.translate(pixels(A)))


def test_the_summary_counts_the_networks_weights_alone():
    model, lines = build("cyclegan"), []
    model.summary(print_fn=lines.append)
    weights = sum(np.prod(v.shape) for network in model.networks.values() for v in network.variables)
    text = "\n".join(lines)
    assert f"Total params: {weights:,}" in text and "pool" not in text


def test_translate_takes_paths_pictures_and_lists(tmp_path):
    model, array = build("cyclegan"), pixels(A[0])
    picture = PIL.Image.fromarray(array)
    picture.save(tmp_path / "a.png")
    expected = model.translate(array)
    of_path, of_picture, of_array, of_text = model.translate([tmp_path / "a.png", picture, array, f"{tmp_path}/a.png"])
    assert isinstance(of_picture, PIL.Image.Image) and of_picture.mode == "RGB"
    for result in (of_path, np.asarray(of_picture), of_array, of_text):
        np.testing.assert_array_equal(result, expected)
    # Transparent pixels are seen over the background, grey ones as colour, turned ones upright.
    clear = picture.convert("RGBA")
    clear.putalpha(0)
    np.testing.assert_array_equal(np.asarray(model.translate(clear)), model.translate(np.full_like(array, 255)))
    grey = np.repeat(array[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(
        np.asarray(model.translate(PIL.Image.fromarray(array[..., 0]))), model.translate(grey)
    )
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    turned = PIL.Image.open(tmp_path / "turned.jpg")
    upright = np.asarray(turned)[::-1, ::-1]
    np.testing.assert_array_equal(np.asarray(model.translate(turned)), model.translate(upright))
    with pytest.raises(ValueError, match="none.png"):
        model.translate(tmp_path / "none.png")
    wide = PIL.Image.fromarray(np.full((SIDE, SIDE), 30000, np.int32))
    with pytest.raises(ValueError, match="the PIL image: pixels of mode 'I' are not supported"):
        model.translate(wide)


def test_channels_are_last_whatever_keras_json_says(tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first", "backend": "tensorflow"}')
    code = (
        "import numpy as np, tfi2i; from tests.test_conformance import build;"
        f"print(build('cyclegan').translate(np.zeros((1, {SIDE}, {SIDE}, 3), 'uint8')).shape)"
    )
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert f"(1, {SIDE}, {SIDE}, 3)" in done.stdout, done.stderr[-2000:]
