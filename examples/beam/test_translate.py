"""The pipeline on Beam's DirectRunner, with a SavedModel whose translation of a file is known: `make test-beam`."""

import pathlib

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
    assert [png for png, _ in handler.run_inference(files, model)] == [file[::-1] for file in files]
    assert seen == [2, 1, 2]


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
