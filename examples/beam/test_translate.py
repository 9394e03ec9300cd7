"""The pipeline on Beam's DirectRunner, with SavedModels whose translation of a file is known: `make test-beam`."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import translate


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """Turns a file's bytes round; those that begin with "bad" have an error."""
    folder = tmp_path_factory.mktemp("model")
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def image_bytes(image_bytes):
        bad = tf.strings.regex_full_match(image_bytes, "bad.*")
        turned = tf.map_fn(lambda x: tf.strings.reduce_join(tf.strings.bytes_split(x)[::-1]), image_bytes)
        return {"image_bytes": tf.where(bad, "", turned), "errors": tf.where(bad, "cannot be read", "")}

    tf.saved_model.save(module, str(folder), {"image_bytes": image_bytes})
    return folder


@pytest.fixture(scope="module")
def styled_model(tmp_path_factory):
    """Writes the style behind a file's bytes: two numbers, or the bytes of the reference."""
    folder = tmp_path_factory.mktemp("styled")
    module = tf.Module()
    files = tf.TensorSpec([None], tf.string, name="image_bytes")

    def answer(image_bytes, style):
        return {"image_bytes": image_bytes + " " + style, "errors": tf.fill(tf.shape(image_bytes), "")}

    @tf.function(input_signature=[files, tf.TensorSpec([None, 2], tf.float32, name="style")])
    def image_bytes(image_bytes, style):
        style = tf.broadcast_to(style, [tf.size(image_bytes), 2])
        return answer(image_bytes, tf.strings.reduce_join(tf.strings.as_string(style), 1, separator=" "))

    @tf.function(input_signature=[files, tf.TensorSpec([None], tf.string, name="reference_bytes")])
    def reference_bytes(image_bytes, reference_bytes):
        return answer(image_bytes, tf.ensure_shape(reference_bytes, image_bytes.shape))

    tf.saved_model.save(module, str(folder), {"image_bytes": image_bytes, "reference_bytes": reference_bytes})
    return folder


@pytest.fixture
def photos(tmp_path):
    for name, content in (("a.png", "abc"), ("a.jpg", "def"), ("in/b.JPG", "ghi"), ("in/bad.bmp", "bad")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def content(folder):
    """dict of path within a folder → text of the file."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in pathlib.Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("relative", [False, True])
def test_names_failures_and_going_on(photos, saved_model, tmp_path, monkeypatch, relative):
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    given = "photos" if relative else photos
    arguments = [f"--input={given}/**", f"--saved_model={saved_model}", f"--output={out}", "--batch_size=2"]
    assert translate.run(arguments) == {"written": 3, "failed": 1}
    results = {"a.png": "cba", "a.jpg.png": "fed", "in/b.JPG.png": "ihg"}
    assert content(out) == results | {"failed.txt": f"{given}/in/bad.bmp: cannot be read\n"}
    (photos / "in" / "bad.bmp").write_text("good")
    (out / "a.png").write_text("mine")
    assert translate.run(arguments) == {"written": 1, "failed": 0}
    assert content(out) == results | {"a.png": "mine", "in/bad.bmp.png": "doog", "failed.txt": ""}


def test_large_files_do_not_share_a_batch(saved_model, monkeypatch):
    monkeypatch.setattr(translate, "_BATCH_BYTES", 5)
    handler, seen = translate.Translator(str(saved_model), 9), []
    model = handler.load_model()
    run = model.signatures["image_bytes"]
    monkeypatch.setattr(
        model, "signatures", {"image_bytes": lambda image_bytes: seen.append(len(image_bytes)) or run(image_bytes)}
    )
    files = [b"ab", b"cde", b"fghijkl", b"m", b"n"]
    named = [("x.png", file) for file in files]
    assert [png for png, _ in handler.run_inference(named, model)] == [file[::-1] for file in files]
    assert seen == [2, 1, 2]


def styles_of(folder):
    """dict of path → what the model of `styled_model` wrote behind the file, numbers where they are some."""
    behind = {name: text.split(" ")[1:] for name, text in content(folder).items() if name != "failed.txt"}
    return {name: [float(n) for n in style] if len(style) > 1 else style for name, style in behind.items()}


def test_styles(photos, styled_model, tmp_path):
    def translated(name, *options):
        arguments = [f"--input={photos}/**", f"--saved_model={styled_model}", f"--output={tmp_path / name}"]
        assert translate.run([*arguments, "--batch_size=2", *options]) == {"written": 4, "failed": 0}
        return styles_of(tmp_path / name)

    drawn = translated("drawn", "--style_seed=7")
    # As `draw_styles` of the models of tfi2i draws them.
    np.testing.assert_allclose(drawn["a.png"], [0.41802916, -0.29279441], atol=1e-5)
    np.testing.assert_allclose(drawn["in/b.JPG.png"], [2.04568982, -0.15818037], atol=1e-5)
    np.testing.assert_allclose(translated("default")["a.png"], [-0.68109637, 0.0319446], atol=1e-5)
    given = translated("given", "--style_vector=2.5,-3")
    assert list(given.values()) == [[2.5, -3]] * 4
    assert list(translated("reference", f"--reference={photos}/a.jpg").values()) == [["def"]] * 4


@pytest.mark.parametrize(
    "model, options, message",
    [
        ("saved_model", ["--style_seed=0"], "--style_seed: .* takes no style: leave it out"),
        ("saved_model", ["--reference=a.png"], "--reference: .* takes no style: leave it out"),
        ("styled_model", ["--style_vector=1"], "--style_vector=1: expected 2 numbers with commas between"),
        ("styled_model", ["--style_vector=1,b"], "--style_vector=1,b: expected 2 numbers with commas between"),
        ("styled_model", ["--style_vector=nan,1"], "--style_vector=nan,1: expected 2 numbers with commas between"),
        ("styled_model", ["--reference=no.png"], "--reference=no.png cannot be read"),
        ("styled_model", ["--reference=a.png", "--style_seed=1"], "argument --style_seed: not allowed with argument"),
        (None, [], "missing/saved_model.pb cannot be read: give the folder of a version, such as exported/1"),
    ],
)
def test_styles_that_the_model_does_not_take_stop_the_command(model, options, message, request, tmp_path, capfd):
    folder = request.getfixturevalue(model) if model else tmp_path / "missing"
    with pytest.raises(SystemExit):
        translate.run([f"--input={tmp_path}/**", f"--saved_model={folder}", f"--output={tmp_path}/out", *options])
    assert re.search(message, capfd.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_model_that_translates_no_files(tmp_path):
    module = tf.Module()
    module.sample = tf.function(lambda z: {"images_a": z}, input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    tf.saved_model.save(module, str(tmp_path), {"sample": module.sample})
    with pytest.raises(ValueError, match="translates no files: it has no signature image_bytes"):
        translate.style_size(str(tmp_path))


@pytest.mark.parametrize(
    "pattern, root",
    [
        ("photos/**", "photos"),
        ("/data/photos/*.jpg", "/data/photos"),
        ("/data/p*/x.jpg", "/data"),
        ("/data/x.jpg", "/data"),
    ],
)
def test_the_root_of_a_pattern(pattern, root):
    assert translate.root_of(pattern) == root
