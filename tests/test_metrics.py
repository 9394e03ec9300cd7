"""The table of metrics; distances between images, by hand."""

import subprocess
import sys

import numpy as np
import pytest

from tfi2i import config, metrics
from tfi2i.config import UserError
from tfi2i.metrics import faithfulness as f
from tfi2i.metrics import realism


def test_the_table_is_read_without_tensorflow():
    loaded = "import sys, tfi2i.commands.evaluate; print({'numpy', 'tensorflow', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout == "set()\n"


def test_the_table_is_consistent():
    names = [name for metric in metrics.METRICS.values() for name in metric.columns]
    assert len(names) == len(set(names)) and list(metrics.columns()) == names
    by_kind = [metrics.columns(kind) for kind in ("real", "samples", "truth", "input", "labels")]
    assert sum(map(len, by_kind)) == len(names) and all(by_kind)
    assert metrics.metric_of("recall") is metrics.METRICS["precision_recall"]
    assert metrics.METRICS["precision_recall"].least_images == realism.NEIGHBOURS + 1
    higher = {name for name, column in metrics.columns().items() if column.higher_is_better}
    assert {"diversity", "psnr", "ssim", "precision", "recall", "channel_accuracy", "class_iou"} <= higher
    assert not {"fid", "kid", "mean_kid", "l1", "l2", "lpips_like", "il2", "cycle"} & higher


def test_values_are_written_as_their_column_says():
    columns = metrics.columns()
    assert columns["kid"].text(0.0306, 0.0037) == "3.06 ± 0.37" and columns["l1"].text(1.004) == "1.00"
    assert columns["pixel_accuracy"].text(0.5, 0.25) == "50.0 ± 25.0 %" and columns["psnr"].text(18.94) == "18.9 dB"


def test_what_may_decide_on_the_best_step():
    given = "cycle,diversity,precision_recall,pixel_accuracy,kid"
    training = config.Training(eval_metrics=given, eval_every=1)
    decides = ("precision", "recall", "pixel_accuracy", "channel_accuracy", "kid")
    assert metrics.best_metrics(training) == decides
    for name in decides:
        metrics.check_training(config.Training(eval_metrics=given, eval_every=1, best_metric=name))
    for name in ("cycle", "diversity", "precision_recall", "l1"):
        with pytest.raises(UserError, match=f"--best_metric={name}: expected one of precision, recall, .*, kid, which"):
            metrics.check_training(config.Training(eval_metrics=given, eval_every=1, best_metric=name))


def grey(*levels):
    """A row of grey RGB pixels: uint8 [1, n, 3]."""
    return np.repeat(np.array(levels, np.uint8)[None, :, None], 3, axis=-1)


def test_l1_by_hand():
    assert f.l1(grey(0, 10), grey(0, 10)) == 0
    assert f.l1(grey(0, 10), grey(4, 10)) == 2
    # Unsigned bytes must not wrap around in either direction.
    assert f.l1(grey(0), grey(255)) == f.l1(grey(255), grey(0)) == 255


def test_l1_counts_channels_equally():
    x = np.zeros((1, 1, 3), np.uint8)
    y = x.copy()
    y[..., 1] = 9
    assert f.l1(x, y) == 3


def test_l2_is_the_length_of_the_difference():
    """3 channels of 2 pixels are 255 off: the root of 6."""
    assert f.l2(grey(0, 0, 9), grey(255, 255, 9)) == pytest.approx(np.sqrt(6))


def test_pixel_accuracy_needs_every_channel_within_16():
    x = np.full((2, 2, 3), 100, np.uint8)
    y = x.copy()
    y[0, 0] = (116, 84, 100)  # right: at the limit in two channels
    y[0, 1, 2] = 117  # wrong: one channel is off by 17
    y[1, 0] = 83  # wrong
    assert f.pixel_accuracy(x, y) == 0.5
    assert f.pixel_accuracy(x, y, within=17) == 1
    assert f.pixel_accuracy(x, y, within=0) == 0.25


def test_psnr_by_hand():
    assert f.squared_error(grey(0, 0), grey(5, 5)) == 25
    assert f.psnr(grey(0), grey(255)) == 0
    # 25.5 squared is a hundredth of 255 squared.
    assert f.decibels(25.5**2) == pytest.approx(20)
    assert f.psnr(grey(7), grey(7)) == np.inf


def test_one_number_per_image():
    x = np.zeros((3, 4, 5, 1), np.uint8)
    y = x + np.array([0, 1, 20], np.uint8)[:, None, None, None]
    np.testing.assert_array_equal(f.l1(x, y), [0, 1, 20])
    np.testing.assert_array_equal(f.pixel_accuracy(x, y), [1, 1, 0])
    np.testing.assert_array_equal(f.squared_error(x, y), [0, 1, 400])
    assert f.l1(x[0], y[1]).shape == ()


@pytest.mark.parametrize("function", [f.l1, f.pixel_accuracy, f.psnr])
def test_other_images_are_refused(function):
    x = grey(1, 2)
    with pytest.raises(ValueError, match="expected uint8"):
        function(x, x.astype(np.float32))
    with pytest.raises(ValueError, match="expected uint8"):
        function(x.astype(np.uint16), x.astype(np.uint16))
    with pytest.raises(ValueError, match="two equal shapes"):
        function(x, x[:, :1])
    with pytest.raises(ValueError, match="two equal shapes"):
        function(x[0], x[0])


def test_channel_accuracy_counts_each_channel():
    x = np.full((1, 2, 3), 100, np.uint8)
    y = x.copy()
    y[0, 0] = (116, 117, 83)
    assert f.channel_accuracy(x, y) == pytest.approx(4 / 6) and f.pixel_accuracy(x, y) == 0.5


def test_ssim_by_hand():
    """Without structure only brightness is left: (2 x y + c) / (x² + y² + c)."""
    x, y = np.full((11, 12, 3), 100, np.uint8), np.full((11, 12, 3), 150, np.uint8)
    assert f.ssim(x, x) == pytest.approx(1)
    assert f.ssim(x, y) == pytest.approx((2 * 100 * 150 + 2.55**2) / (100**2 + 150**2 + 2.55**2))
    rng = np.random.default_rng(0)
    z = rng.integers(0, 256, (2, 20, 20, 1), np.uint8)
    np.testing.assert_allclose(f.ssim(z, 255 - z), f.ssim(255 - z, z))
    assert (f.ssim(z, 255 - z) < 0).all()
    with pytest.raises(ValueError, match="11 pixels a side"):
        f.ssim(x[:10], y[:10])


def test_ssim_is_tensorflows():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (3, 24, 17, 3), np.uint8)
    y = np.clip(x + rng.normal(0, 30, x.shape), 0, 255).astype(np.uint8)
    np.testing.assert_allclose(f.ssim(x, y), tf.image.ssim(x, y, 255), atol=2e-6)
