"""Segmentation scores: by hand, FCN-8s against OpenCV's runner of Caffe's networks, data sets with label maps."""

import json
import pathlib

import numpy as np
import pytest

from tests.damage import damaged
from tfi2i import config
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.metrics import check_training, evaluation, pages, segmentation, tables
from tfi2i.metrics.candidates import Candidate
from tfi2i.metrics.protocols import Protocol, make_protocol
from tools.golden import caffe_files, made_weights

GOLDEN = pathlib.Path(__file__).parent / "golden" / "fcn8s.npz"
COLOURS = np.array([colour for _, _, colour in segmentation.CLASSES], np.uint8)
IDS = np.array([label_id for _, label_id, _ in segmentation.CLASSES], np.uint8)


def test_scores_by_hand():
    labels = np.array([[0, 0, 1], [1, 255, 18]], np.uint8)
    classes = np.array([[0, 1, 1], [0, 0, 19]], np.uint8)
    counts = segmentation.confusion(labels, classes)
    assert counts.sum() == 5  # 255 is of no account
    assert (counts[0, 0], counts[0, 1], counts[1, 0], counts[1, 1], counts[18, 19]) == (1, 1, 1, 1, 1)
    found = segmentation.scores(counts)
    assert found["per_pixel_accuracy"] == pytest.approx(2 / 5)
    assert found["per_class_accuracy"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 19)
    # Intersection 1, union 2 + 2 - 1, twice.
    assert found["class_iou"] == pytest.approx((1 / 3 + 1 / 3) / 19)
    perfect = segmentation.confusion(np.arange(19, dtype=np.uint8)[None], np.arange(19, dtype=np.uint8)[None])
    assert segmentation.scores(perfect) == dict.fromkeys(segmentation.SCORES, 1.0)


def test_errors_are_of_images():
    right = np.zeros((19, 20), np.int64)
    wrong = right.copy()
    right[0, 0], wrong[0, 1] = 10, 10
    same = segmentation.with_errors([right] * 5)
    assert (same["per_pixel_accuracy"], same["per_pixel_accuracy_error"]) == (1, 0)
    mixed = segmentation.with_errors([right, wrong] * 50)
    # sqrt(p (1 - p) / n), to the accuracy of 200 draws.
    assert mixed["per_pixel_accuracy"] == 0.5
    assert mixed["per_pixel_accuracy_error"] == pytest.approx(0.05, rel=0.2)


def test_the_nearest_colour_wins():
    draw = np.random.default_rng(0)
    for shift in (0, 4):
        pixels = np.clip(COLOURS.astype(int) + draw.integers(-shift, shift + 1, COLOURS.shape), 0, 255)
        np.testing.assert_array_equal(segmentation.nearest_class(pixels[None].astype(np.uint8))[0], np.arange(19))


def test_classes_are_enlarged_by_their_nearest_pixel():
    small = np.array([[1, 2], [3, 4]], np.uint8)
    np.testing.assert_array_equal(segmentation._enlarged(small, (4, 6)), small.repeat(2, 0).repeat(3, 1))
    np.testing.assert_array_equal(segmentation._enlarged(small, (2, 2)), small)


# -------------------------------------------------------------------------------------------------------------- FCN-8s


def caffemodel(folder, layers=None, old=False):
    path = folder / "net.caffemodel"
    path.write_bytes(caffe_files.network(layers or made_weights.fcn_layers(), old))
    return path


@pytest.mark.parametrize("old", [False, True])
def test_fcn_8s_computes_what_caffe_does(tmp_path, old):
    network = segmentation.FCN8s(caffemodel(tmp_path, old=old))
    golden = np.load(GOLDEN)
    for name in ("small", "large"):
        image, expected = golden[f"image/{name}"], golden[f"scores/{name}"]
        found = network.scores(image[None].astype(np.float32))[0].numpy()
        assert found.shape == (*image.shape[:2], 20)
        np.testing.assert_allclose(found[::3, ::3], expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(network.segment(image), found.argmax(-1))


def test_other_networks_are_refused(tmp_path):
    layers = made_weights.fcn_layers()
    del layers["score_pool3"]
    with pytest.raises(UserError, match=r"net.caffemodel is not FCN-8s for Cityscapes: layer score_pool3"):
        segmentation.FCN8s(caffemodel(tmp_path, layers))
    with pytest.raises(UserError, match="no.caffemodel cannot be read: No such file"):
        segmentation.FCN8s(tmp_path / "no.caffemodel")
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="empty is not a whole file of Caffe"):
        segmentation.read_caffemodel(tmp_path / "empty")


def test_damaged_files_load_or_are_refused(tmp_path):
    path = tmp_path / "x.caffemodel"
    arrays = [np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2), np.arange(3, dtype=np.float32)]
    whole = caffe_files.network({"one": ("Convolution", arrays), "two": ("Convolution", arrays)})
    refused = 0
    for file in damaged(whole, 400):
        path.write_bytes(file)
        try:
            segmentation.read_caffemodel(path)
        except UserError:
            refused += 1
    assert refused > 100


# ---------------------------------------------------------------------------------------------------------- label maps


@pytest.fixture
def streets(tmp_path):
    """A data set as CycleGAN's Cityscapes: three numbered pairs of 16 x 16, and the label maps, of 32 x 64."""
    for i, name in enumerate(("aachen_000001_000019", "aachen_000002_000019", "ulm_000000_000019")):
        classes = ((np.arange(16) + 5 * i) % 19).reshape(4, 4).astype(np.uint8)  # together all of them
        small = classes.repeat(4, 0).repeat(4, 1)
        images.write_image(tmp_path / "testA" / f"{i}_A.png", np.full((16, 16, 3), 60 * i, np.uint8))
        images.write_image(tmp_path / "testB" / f"{i}_B.png", COLOURS[small])
        folder = tmp_path / "gtFine" / name.partition("_")[0]
        large = IDS[classes].repeat(8, 0).repeat(16, 1)[..., None]
        large[:2, :2] = 4  # static: void
        images.write_image(folder / f"{name}_gtFine_labelIds.png", large)
        images.write_image(folder / f"{name}_gtFine_color.png", COLOURS[classes])
    return tmp_path


def test_label_maps_belong_to_images(streets, tmp_path):
    maps = segmentation.LabelMaps(streets / "gtFine", [f"testA/{i}_A.png" for i in range(3)])
    assert maps.read("testA/2_A.png").shape == (32, 64) and (maps.read("testA/2_A.png")[:2, :2] == 255).all()
    names = ["fakes/ulm_000000_000019_leftImg8bit.png", "fakes/aachen_000001_000019_leftImg8bit.png"]
    by_name = segmentation.LabelMaps(streets / "gtFine", names)
    np.testing.assert_array_equal(by_name.read(names[0]), maps.read("testA/2_A.png"))
    counted_from_one = segmentation.LabelMaps(streets / "gtFine", [f"{i}_B.jpg" for i in (1, 2, 3)])
    np.testing.assert_array_equal(counted_from_one.read("3_B.jpg"), maps.read("testA/2_A.png"))
    for names in (["a.png"], ["0_A.png", "1_A.png"], ["0_A.png", "1_A.png", "7_A.png"]):
        with pytest.raises(UserError, match="gtFine has no label map of the name of"):
            segmentation.LabelMaps(streets / "gtFine", names)


def test_train_ids_are_taken_as_they_are(tmp_path):
    images.write_image(tmp_path / "x.png", np.array([[[0], [18], [19], [255]]], np.uint8))
    maps = segmentation.LabelMaps(tmp_path, ["x.jpg"])
    assert maps.read("x.jpg").tolist() == [[0, 18, 255, 255]]
    images.write_image(tmp_path / "x.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match="x.png is no label map: expected a grey picture of 8 bits"):
        maps.read("x.jpg")


class Painter:
    """Stands in for FCN-8s: it sees the colours of the classes, also in what is as dark."""

    weights, sha256 = "painter", "0"

    def segment(self, pixels):
        return segmentation.nearest_class(pixels)


def measured(streets, candidates, network=Painter(), directions=("a2b", "b2a"), **options):
    labelled = segmentation.Segmentation(None, streets / "gtFine", **options)
    labelled.network = network
    protocol = Protocol(("fcn_score",), segmentation=labelled)
    return evaluation.evaluate(candidates, config.Data(data=str(streets)), protocol, directions, active=False)[0]


def test_true_labels_reach_one(streets):
    pictures = {i: images.read_image(streets / "testB" / f"{i}_B.png") for i in range(3)}

    def translate(inputs, direction, names):
        found = [pictures[int(name.split("/")[-1][0])] for name in names]
        return np.stack(found) if direction == "a2b" else inputs

    candidates = {"model": Candidate(translate), "black": Candidate(lambda x, d, n: np.zeros_like(x))}
    candidates["do_nothing"] = Candidate(lambda x, d, n: x, baseline=True)
    results = measured(streets, candidates)
    for direction in ("a2b", "b2a"):
        assert results[direction]["model"]["n"] == 3
        # Black is nearest to the blue of trucks.
        assert results[direction]["black"]["per_pixel_accuracy"] < 0.2
        assert results[direction]["do_nothing"] == {"n": 3}  # segmentation is expensive
    assert [results["a2b"]["model"][s] for s in segmentation.SCORES] == [1, 1, 1]
    assert results["a2b"]["truth"] == results["a2b"]["model"]
    # What is to be segmented is enlarged bilinearly, so a painter of labels loses the edges.
    assert 0.85 < results["b2a"]["model"]["per_pixel_accuracy"] < 1
    assert results["b2a"]["truth"]["per_pixel_accuracy"] < 0.5  # grey photographs
    text = tables.table(results, Protocol(("fcn_score",)))
    assert "per-class acc." in text and "the truth" in text and "to input" not in text
    json.dumps(results, allow_nan=False)


def test_what_fcn_score_needs_is_said(streets):
    unchanged = {"model": Candidate(lambda x, d, n: x)}
    with pytest.raises(UserError, match="of b2a segments photographs: give --segmentation_weights=FILE.*direction=a2b"):
        measured(streets, unchanged, network=None)
    assert measured(streets, unchanged, network=None, directions=("a2b",))["a2b"]["model"]["n"] == 3
    with pytest.raises(UserError, match="is not the label map of .*Expected Cityscapes' colours in domain"):
        measured(streets, unchanged, label_domain="a")
    with pytest.raises(UserError, match="give --labels=FOLDER"):
        make_protocol(metrics=["fcn_score"])
    with pytest.raises(UserError, match="'fcn_score' is none of"):
        check_training(config.Training(eval_metrics="fcn_score"))


def test_folders_of_photographs(streets, tmp_path, capsys):
    """As the code of pix2pix takes them, with its network (narrow, and of no use: its answers are chance)."""
    pages.evaluate_folders(
        real=streets / "testA",
        fake=streets / "testA",
        source=streets / "testB",
        output=tmp_path / "out" / "page.png",
        label_domain="a",
        metrics=["fcn_score"],
        labels=str(streets / "gtFine"),
        segmentation_weights=str(caffemodel(tmp_path)),
    )
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= written["results"]["per_pixel_accuracy"] < 0.5 and written["results"]["n"] == 3
    assert written["protocol"]["segmentation_weights"] == "net.caffemodel"
    assert len(written["protocol"]["segmentation_sha256"]) == 64
    assert "class IoU" in capsys.readouterr().out
