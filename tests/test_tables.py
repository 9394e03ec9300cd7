"""Tables of what was measured: titles, forms, means over seeds and warnings, by hand."""

import csv
import types

import pytest

from tfi2i.metrics import tables
from tfi2i.metrics.protocols import Protocol, make_protocol


def protocol(name="efficientnet_lite0", standard=True):
    network = types.SimpleNamespace(
        name=name, standard=standard, size=299, filter="none", weights="file", sha256="0", protocol={}
    )
    return Protocol(("fid", "kid", "l1"), network=network)


def values(kid, n=60, **more):
    return {"n": n, "l1": 3.0, "l1_std": 1.0, "n_real": 80, "n_fake": n, "kid_subset_size": 30} | {
        "kid_efficientnet_lite0": kid, "kid_efficientnet_lite0_std": 0.01, **more
    }  # fmt: skip


def test_titles_name_the_network():
    fid, kid = {"fid_inception_2015": 1.0}, {"input_lpips_like_inception_keras": 1.0}
    assert tables.heading("fid", [{}, fid], protocol("inception_2015").network) == "FID, InceptionV3 2015"
    # Any other file, or none that is known, gives no published FID.
    assert tables.heading("fid", [fid], protocol("inception_2015", None).network) == "Fréchet, InceptionV3 2015"
    assert tables.heading("fid", [fid]) == "Fréchet, InceptionV3 2015"
    assert tables.heading("kid", [values(0.1)]) == "KID ×100, EfficientNet-Lite0"
    assert tables.heading("lpips_like", [kid]) == "LPIPS-like to input, InceptionV3 Keras"
    assert tables.heading("l1", [values(0.1)]) == "L1 (of 255)"


def test_seeds_become_a_mean_and_their_sample_deviation():
    of_seeds = {"x": values(0.01, psnr=20.0), "y": values(0.02, psnr=None), "z": values(0.06, psnr=30.0)}
    results = {"a2b": of_seeds | {"do_nothing": values(0.5)}, "b2a": {"other": values(0.7)}}
    together = tables.over_seeds(results, {"all": ["x", "y", "z"]})
    assert list(together["a2b"]) == ["all", "do_nothing"] and together["b2a"] == results["b2a"]
    mean = together["a2b"]["all"]
    assert (mean["seeds"], mean["n"], mean["n_fake"], mean["kid_subset_size"]) == (3, 60, 60, 30)
    # 1, 2 and 6: deviations -2, -1 and 3, so the variance is 14 / 2.
    assert mean["kid_efficientnet_lite0"] == pytest.approx(0.03)
    assert mean["kid_efficientnet_lite0_std"] == pytest.approx(0.01 * 7**0.5)
    assert (mean["l1"], mean["l1_std"], mean["psnr"]) == (3, 0, None)
    text = tables.table(together, protocol())
    assert "3.00 ± 2.65" in text and "Rows of several seeds: means over the seeds ± their sample" in text
    assert "several seeds" not in tables.table(results, protocol())


@pytest.mark.parametrize(
    "key, n, warned",
    [
        ("fid_inception_2015", 1999, "FID, InceptionV3 2015, is measured on 1999 images. Below 2,000"),
        ("fid_inception_2015", 2000, None),
        ("kid_efficientnet_lite0", 49, "KID ×100, EfficientNet-Lite0, is measured on 49 images. Below 50"),
        ("kid_efficientnet_lite0", 50, None),
    ],
)
def test_too_few_images_are_warned_of(key, n, warned):
    """The smaller side counts; the figure is there all the same."""
    for counts in ({"n_real": n, "n_fake": 5000}, {"n_real": 5000, "n_fake": n}):
        results = {"a2b": {"model": {"n": n, key: 0.5, **counts}}}
        text = tables.table(results, protocol("inception_2015"))
        assert ("Warning" in text) == bool(warned) and (not warned or f"Warning: {warned}" in text)
        assert "50.00" in text or "0.50" in text


def test_forms_of_a_table():
    results = {"a2b": {"a_1|<b> 50 %": values(0.0306), "do_nothing": {"n": 2, "l1": 7.25}}}
    rows = list(csv.reader(tables.table(results, protocol(), "csv").splitlines()))
    kid = "KID ×100, EfficientNet-Lite0"
    assert rows[0] == ["direction", "name", "n", "n_fake", "n_real", kid, f"± {kid}", "L1 (of 255)", "± L1 (of 255)"]
    assert rows[1:] == [
        ["a2b", "a_1|<b> 50 %", "60", "60", "80", "3.06", "1", "3", "1"],
        ["a2b", "do nothing", "2", "", "", "", "", "7.25", ""],
    ]
    text = tables.table(results, protocol(), "md")
    assert text.startswith(
        "|  |  | n | L1 (of 255) |\n|---|---|---:|---:|\n| a2b | a_1\\|\\<b> 50 % | 60 | 3.00 ± 1.00 |\n"
        "| a2b | do nothing | 2 | 7.25 |\n\n|  |  | n |"
    )
    assert "| a2b | a_1\\|\\<b> 50 % | 60 / 80 | 3.06 ± 1.00 |\n" in text
    text = tables.table(results, protocol(), "latex")
    assert text.startswith(
        "% needs \\usepackage{booktabs}\n\\begin{tabular}{llrr}\n\\toprule\n &  & n & L1 (of 255) \\\\"
    )
    assert "a2b & a\\_1|$<$b$>$ 50 \\% & 60 & 3.00 $\\pm$ 1.00 \\\\\n" in text and "KID $\\times$100" in text
    assert text.count("\\end{tabular}") == 2 and all(line for line in text.splitlines()[-3:])
    assert text.splitlines()[-1].startswith("% ")


def test_metrics_may_be_written_in_any_case():
    assert make_protocol(metrics=["PSNR", " Pixel_Accuracy", "l1"]).metrics == ("psnr", "pixel_accuracy", "l1")
