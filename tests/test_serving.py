"""Exported SavedModels behind a server, and the client: over gRPC by the real stubs, and over HTTP.

The server is the stand-in of `serving_stand_in`, which keeps to the documented rules of TF Serving. TF Serving itself
was not at hand.
"""

import base64
import collections
import concurrent.futures
import http.client
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2
from tfi2i.export import client, image_bytes, saved_model, serving

from tests.own_flags import call
from tests.test_export import Convolutions, encoded, picture
from tests.toy.model import Toy
from tfi2i.config import UserError
from tfi2i.data import images

stand_in = pytest.importorskip("tests.serving_stand_in", reason="needs tensorflow-serving-api")
Code = stand_in.Code
EXAMPLE = pathlib.Path(__file__).resolve().parent.parent / "examples" / "serving"
SHAPES = [(16, 16), (9, 21), (12, 8), (16, 16)]


@pytest.fixture(scope="module")
def model():
    return Convolutions()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Version 1 translates a2b, version 2 b2a."""
    folder = tmp_path_factory.mktemp("served")
    for version, direction in (("1", "a2b"), ("2", "b2a")):
        saved_model.write_saved_model(model, folder / version, direction, max_side=64)
        saved_model.write_warmup(folder / version, picture(16, 16), encoded(picture(16, 16)), "lines")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with stand_in.Server("lines", folder, labels={"stable": 1, "canary": 2}).running() as server:
        yield server


def rest(server, **chosen):
    return client.Rest(server.rest, "lines", **chosen)


def grpc(server, **chosen):
    return client.Grpc(server.grpc, "lines", **chosen)


def post(server, body, path="lines:predict"):
    """Status and content of an answer over HTTP."""
    connection = http.client.HTTPConnection(server.rest)
    connection.request("POST", f"/v1/models/{path}", body if isinstance(body, str) else json.dumps(body))
    answer = connection.getresponse()
    status, content = answer.status, json.loads(answer.read())
    connection.close()
    return status, content


def b64(contents):
    return {"b64": base64.b64encode(contents).decode()}


def assert_translated(png, pixels, model, direction="a2b"):
    expected = model.translate(pixels, direction)
    assert np.abs(images.read_image(png).astype(int) - expected).max() <= 1


@pytest.fixture(scope="module")
def with_style():
    """A model that takes a style, of two numbers."""
    model = Toy(toy_width=4)
    model.build((None, None, None, 3))
    return model


@pytest.fixture(scope="module")
def server_of_styles(with_style, tmp_path_factory):
    folder = tmp_path_factory.mktemp("styles")
    saved_model.write_saved_model(with_style, folder / "1", "a2b", max_side=64)
    saved_model.write_warmup(folder / "1", picture(16, 16), encoded(picture(16, 16)), "lines", np.zeros(2, "float32"))
    with stand_in.Server("lines", folder).running() as server:
        yield server


# ---------------------------------------------------------------------------------- the SavedModel behind a server


def test_warm_up_requests_are_read_and_run(server):
    assert [version.warmed_up for version in server.versions.values()] == [2, 2]


@pytest.mark.parametrize("send", [rest, grpc])
def test_both_ways_translate_and_name_what_is_broken(server, model, send):
    pictures = [picture(*shape, seed=i) for i, shape in enumerate(SHAPES)]
    files = [*map(encoded, pictures), b"no picture", encoded(picture(65, 8))]
    *good, broken, large = send(server, version=1)(files)
    for pixels, (png, error) in zip(pictures, good):
        assert_translated(png, pixels, model)
        assert error == ""
    assert broken == (b"", image_bytes.UNREADABLE)
    assert large == (b"", "larger than 64 pixels a side: its height is 65, its width is 8")


@pytest.mark.parametrize("send", [rest, grpc])
def test_versions_and_labels(server, model, send):
    pixels = picture(8, 8)
    for chosen, direction in (
        ({}, "b2a"),
        ({"version": 1}, "a2b"),
        ({"label": "stable"}, "a2b"),
        ({"label": "canary"}, "b2a"),
    ):
        ((png, _),) = send(server, **chosen)([encoded(pixels)])
        assert_translated(png, pixels, model, direction)
    for chosen in ({"version": 3}, {"label": "gone"}):
        with pytest.raises(client.Unusable, match="Servable not found"):
            send(server, **chosen)([encoded(pixels)])


def test_row_and_column_form_of_both_signatures(server, model):
    pixels, file = picture(8, 8), encoded(picture(8, 8))
    translated = model.translate(pixels, "b2a").astype(int)
    for form, answer in (("instances", "predictions"), ("inputs", "outputs")):
        status, content = post(server, {form: [pixels.tolist()]})
        assert status == 200 and np.abs(np.array(content[answer][0]) - translated).max() <= 1
    status, content = post(server, {"signature_name": "image_bytes", "instances": [b64(file), b64(b"")]})
    assert status == 200 and [prediction["errors"] for prediction in content["predictions"]] == [
        "",
        image_bytes.UNREADABLE,
    ]
    assert content["predictions"][1]["image_bytes"] == {"b64": ""}
    status, content = post(server, {"signature_name": "image_bytes", "inputs": {"image_bytes": [b64(file)]}})
    assert status == 200 and content["outputs"]["errors"] == [""]
    assert_translated(base64.b64decode(content["outputs"]["image_bytes"][0]["b64"]), pixels, model, "b2a")


@pytest.mark.parametrize(
    "body, status, message",
    [
        ("no JSON", 400, "JSON Parse error"),
        ({"instances": [], "signature_name": "image_bytes"}, 400, "must not be empty"),
        ({"inputs": [], "signature_name": "image_bytes"}, 400, "expected a list of 1 or more encoded pictures"),
        ({"instances": [[b64(b"x")]], "signature_name": "image_bytes"}, 400, "expected a list of 1 or more"),
        ({"instances": [[[1, 2, 3]]]}, 400, "images: expected uint8 [N, H, W, 3]"),
        ({"instances": [b64(b"x")], "signature_name": "other"}, 400, '"other" not found'),
    ],
)
def test_bad_requests_are_one_clear_error(server, body, status, message):
    seen, content = post(server, body)
    assert seen == status and message in content["error"]


def test_a_scalar_over_grpc_is_one_clear_error(server):
    send = grpc(server)
    send._request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(b"x"))
    with pytest.raises(stand_in.grpc.RpcError) as error:
        send._stub.Predict(send._request)
    assert error.value.code() is Code.INVALID_ARGUMENT
    assert "expected a list of 1 or more encoded pictures" in error.value.details()


# ------------------------------------------------------------------------------------------ batching by the server


def together(calls):
    """The results of functions that run at once."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.exception() or future.result() for future in futures]


@pytest.fixture(scope="module")
def batching(folder):
    """A run has four pictures, for which it waits."""
    batching = {"size": 4, "wait": 60.0, "queued": 2}
    with stand_in.Server("lines", folder, batching=batching).running() as server:
        yield server


def test_requests_of_mixed_sizes_share_a_batch_and_the_broken_one_is_alone(batching, model):
    pictures = [picture(*shape, seed=i) for i, shape in enumerate(SHAPES[:3])]
    send = rest(batching), grpc(batching), rest(batching), grpc(batching)
    files = [*map(encoded, pictures), b"hostile"]
    *good, ((none, error),) = together([lambda s=s, file=file: s([file]) for s, file in zip(send, files)])
    for pixels, ((png, fine),) in zip(pictures, good):
        assert_translated(png, pixels, model, "b2a")
        assert fine == ""
    assert (none, error) == (b"", image_bytes.UNREADABLE)
    assert batching.runs[2, "image_bytes"].batches == [[1, 1, 1, 1]]


def test_requests_of_pixels_share_a_batch_only_where_their_sizes_are_equal(batching, model):
    def ask(*shape):
        return lambda: post(batching, {"instances": [picture(*shape).tolist()] * 2})

    (status, content), other = together([ask(8, 8), ask(8, 8)])
    assert (status, content) == other and status == 200
    assert np.abs(np.array(content["predictions"][1]) - model.translate(picture(8, 8), "b2a").astype(int)).max() <= 1
    for status, content in together([ask(8, 8), ask(8, 12)]):
        assert status == 412 and "different shapes" in content["error"]


def test_a_request_that_is_too_large_for_the_server_is_sent_in_single_pictures(folder, tmp_path):
    targets = {}
    for i in range(6):
        (tmp_path / f"{i}.bmp").write_bytes(encoded(picture(8, 8, seed=i), "BMP"))
        targets[tmp_path / f"{i}.bmp"] = tmp_path / "out" / f"{i}.png"
    with stand_in.Server("lines", folder, batching={"size": 4, "wait": 0.0, "queued": 9}).running() as server:
        with pytest.raises(client.Refused, match="Task size 5 is larger than maximum input batch size 4"):
            rest(server)([encoded(picture(8, 8))] * 5)
        written, failed, ended = client.translate_files(rest(server), targets, batch_size=5, active=False)
    assert len(written) == 6 and not failed and not ended


@pytest.mark.parametrize("send", [rest, grpc])
def test_a_deadline_that_passes_is_no_reason_to_send_again(batching, send):
    slept = []
    with pytest.raises(client.Refused, match="no answer within 0.2 s: raise --deadline"):
        client.with_repetitions(send(batching, deadline=0.2), [b"x"], retries=3, sleep=slept.append)
    assert not slept
    rest(batching)([b"x"] * 3)  # fills the batch, so that nothing waits for ever


# ------------------------------------------------------------------------------------------------------ the client


@pytest.fixture
def photos(tmp_path):
    """A folder with sub-folders, two pictures of one stem, and a broken one."""
    folder = tmp_path / "photos"
    names = ["a.png", "b.jpg", "b.png", "inner/a.png", "inner/deep/ä b.bmp"]
    for i, name in enumerate(names):
        images.write_image(folder / name, picture(8 + i, 9, seed=i))
    (folder / "broken.png").write_bytes(b"\x89PNG, but no more")
    return folder


@pytest.mark.parametrize("api", ["rest", "grpc"])
def test_a_folder_is_translated_with_its_names_and_goes_on_where_it_ended(server, model, photos, tmp_path, api, capsys):
    out, before = tmp_path / "out", server.answered
    arguments = [f"--api={api}", "--model=lines", "--model_version=1", f"--input={photos}", f"--output={out}"]
    arguments += [f"--server={getattr(server, api)}", "--batch_size=2", "--parallel=2"]
    assert call(client, *arguments) == 1
    results = {"a.png": "a.png", "b.jpg": "b.jpg.png", "b.png": "b.png.png"}
    results |= {"inner/a.png": "inner/a.png", "inner/deep/ä b.bmp": "inner/deep/ä b.png"}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {*results.values()}
    for name, result in results.items():
        assert_translated((out / result).read_bytes(), images.read_image(photos / name), model)
    said = capsys.readouterr()
    assert f"translated 5 of 6 pictures into {out}\n" in said.out
    assert said.err == f"error: 1 failed:\n  {photos / 'broken.png'}: {image_bytes.UNREADABLE}\n"
    assert server.answered - before == 3

    (out / "a.png").unlink()
    (out / "b.jpg.png").write_bytes(b"mine")
    images.write_image(photos / "broken.png", picture(8, 8))
    assert call(client, *arguments) == 0
    assert "translated 2 of 2 pictures into" in (said := capsys.readouterr().out) and "4 were there already" in said
    assert (out / "broken.png").is_file() and (out / "b.jpg.png").read_bytes() == b"mine"
    assert call(client, *arguments, "--overwrite") == 0
    assert (out / "b.jpg.png").read_bytes() != b"mine"


@pytest.mark.parametrize("send", [rest, grpc])
def test_only_what_may_be_repeated_is_repeated(server, send):
    slept = []

    def ask(*errors):
        slept.clear()
        server.refuse = collections.deque(stand_in.Error(code, "said by the server") for code in errors)
        return client.with_repetitions(send(server), [encoded(picture(8, 8))], retries=3, sleep=slept.append)

    ((png, _),) = ask(*[Code.UNAVAILABLE] * 3)
    assert png and len(slept) == 3
    # Each pause is 0.5, 1, 2 s, of which a random half is left out.
    assert all(most / 2 <= pause <= most for pause, most in zip(slept, (0.5, 1, 2)))
    with pytest.raises(client.Unavailable, match="said by the server"):
        ask(*[Code.UNAVAILABLE] * 4)
    assert len(slept) == 3
    for code in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION):
        with pytest.raises(client.Refused, match="said by the server"):
            ask(code)
        assert not slept


def test_pauses_end_at_eight_seconds():
    slept = []

    def gone(_):
        raise client.Unavailable("gone")

    with pytest.raises(client.Unavailable):
        client.with_repetitions(gone, [b""], retries=9, sleep=slept.append)
    assert len(slept) == 9 and max(slept) <= 8 and min(slept[4:]) >= 4


def test_a_server_that_goes_away_loses_nothing(photos, tmp_path):
    """It answers two requests of one picture, and is gone; later it is there again."""
    left = [2]

    def send(pictures):
        if not left[0]:
            raise client.Unavailable("connection refused")
        left[0] -= 1
        return [(b"PNG", "") for _ in pictures]

    targets = client.plan(photos, tmp_path / "out")
    quiet = {"batch_size": 1, "parallel": 1, "retries": 2, "sleep": lambda _: None, "active": False}
    written, failed, ended = client.translate_files(send, targets, **quiet)
    assert len(written) == 2 and not failed and ended == "connection refused"
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.startswith(".")]
    left[0] = 99
    todo = {source: target for source, target in targets.items() if not target.exists()}
    written, failed, ended = client.translate_files(send, todo, **quiet)
    assert len(written) == 4 and not failed and not ended and left[0] == 95


def test_no_server_and_no_model_are_one_error(server, photos, tmp_path, capsys):
    common = [f"--input={photos}", f"--output={tmp_path / 'out'}", "--retries=0"]
    assert call(client, "--server=127.0.0.1:1", "--model=lines", *common) == 1
    said = capsys.readouterr().err
    assert (
        said.startswith("error: 127.0.0.1:1 does not translate with the model lines: ")
        and "6 pictures are left" in said
    )
    for api in ("rest", "grpc"):
        assert call(client, f"--server={getattr(server, api)}", f"--api={api}", "--model=other", *common) == 1
        said = capsys.readouterr().err
        assert "Servable not found for request: other" in said and said.count("\n") == 1
    assert not [p for p in (tmp_path / "out").rglob("*")]


def test_a_file_that_vanishes_and_an_empty_answer_fail_alone(photos, tmp_path):
    targets = client.plan(photos, tmp_path / "out")
    (photos / "a.png").unlink()
    answer = lambda pictures: [(b"" if p.startswith(b"BM") else b"PNG", "") for p in pictures]  # noqa: E731
    written, failed, ended = client.translate_files(answer, targets, active=False)
    assert len(written) == 4 and not ended
    assert dict(failed) == {
        photos / "a.png": "cannot be read: No such file or directory",
        photos / "inner/deep/ä b.bmp": "the server gave an empty file",
    }


def test_plans_that_cannot_be(photos, tmp_path):
    with pytest.raises(UserError, match="has no images outside --output"):
        client.plan(photos, photos)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: expected a folder"):
        client.plan(photos, tmp_path / "file")
    images.write_image(photos / "b.jpg.bmp", picture(8, 8))
    with pytest.raises(UserError, match="would both be .*b.jpg.png: rename one"):
        client.plan(photos, tmp_path / "out")
    assert client.plan(photos / "a.png", tmp_path / "out") == {photos / "a.png": tmp_path / "out" / "a.png"}


@pytest.mark.parametrize("api", ["rest", "grpc"])
def test_every_picture_takes_the_style_that_is_given(server_of_styles, with_style, photos, tmp_path, api):
    arguments = [f"--api={api}", f"--server={getattr(server_of_styles, api)}", "--model=lines", "--batch_size=2"]
    arguments += [f"--input={photos / 'inner'}", f"--output={tmp_path / 'out'}"]
    seen, reference = images.read_image(photos / "inner" / "a.png"), photos / "b.png"
    for style, given in (
        ("--style_vector=2.5,-3", {"style": np.array([2.5, -3], "float32")}),
        (f"--reference={reference}", {"reference": images.read_image(reference)}),
    ):
        assert call(client, *arguments, style, "--overwrite") == 0
        translated = images.read_image(tmp_path / "out" / "a.png").astype(int)
        expected = with_style.translate(seen, "a2b", **given)
        assert np.abs(translated - expected).max() <= 1
        assert np.abs(translated - with_style.translate(seen, "a2b", style=np.zeros(2, "float32"))).max() > 1


@pytest.mark.parametrize("api", ["rest", "grpc"])
def test_a_style_that_the_model_does_not_take_or_lacks_is_one_error(
    server, server_of_styles, photos, tmp_path, api, capsys
):
    none = "the model takes no style: leave --style_vector and --reference out"
    for served, styles, message in (
        (server, ["--style_vector=1,2"], none),
        (server, [f"--reference={photos / 'b.png'}"], none),
        (server_of_styles, [], "the model takes a style: give --style_vector or --reference"),
    ):
        arguments = [f"--api={api}", f"--server={getattr(served, api)}", "--model=lines", "--batch_size=2", *styles]
        arguments += [f"--input={photos}", f"--output={tmp_path / 'out'}", "--parallel=1"]
        before = served.asked
        assert call(client, *arguments) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and "6 pictures are left" in said
        assert served.asked - before == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--style_vector="], "--style_vector= is empty: expected numbers with commas between, e.g. 0.3,-1.2"),
        (["--style_vector=1,b"], "--style_vector=1,b: expected numbers with commas between, e.g. 0.3,-1.2"),
        (["--style_vector=1", "--reference=b.png"], "--reference and --style_vector both say what style to take"),
        (["--reference=no.png"], "--reference=no.png cannot be read: No such file or directory"),
        (["--server=localhost"], "--server=localhost: expected HOST:PORT, e.g. localhost:8501"),
        (
            ["--server=x:1", "--model_version=1", "--version_label=x"],
            "give --model_version or --version_label, not both",
        ),
    ],
)
def test_wrong_arguments(photos, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        call(
            client,
            "--server=localhost:1",
            *arguments,
            "--model=lines",
            f"--input={photos}",
            f"--output={tmp_path / 'out'}",
        )


def test_over_http_no_tensorflow_is_loaded(server, photos, tmp_path):
    program = (
        "import sys; from tfi2i.export import client\n"
        "try: client.run()\n"
        "finally: assert not {'tensorflow', 'keras', 'grpc'} & {*sys.modules}"
    )
    arguments = [f"--server={server.rest}", "--model=lines", f"--input={photos}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "translated 5 of 6 pictures" in done.stdout, done.stderr
    assert done.stderr.startswith("error: 1 failed:") and "Traceback" not in done.stderr


# ----------------------------------------------------------------------------------------------------- the example


def test_the_example_names_files_and_models_that_are_there():
    compose = (EXAMPLE / "compose.yaml").read_text()
    named = set(re.findall(r"/config/(\S+)", compose))
    assert named == serving.configs("lines", 20.0, 2).keys()
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((EXAMPLE / "config" / "models.config").read_text(), config)
    models = {model.name: model.base_path for model in config.model_config_list.config}
    assert models == {"lines": "/models/lines", "colours": "/models/colours"}


def test_the_labels_of_the_page_are_what_the_models_file_takes():
    page = (EXAMPLE.parent.parent / "docs" / "how-to" / "serving.md").read_text()
    (block,) = re.findall(r"```text\n( *model_version_policy.*?)```", page, re.DOTALL)
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(f"model_config_list {{ config {{ {block} }} }}", config)
    (model,) = config.model_config_list.config
    assert model.model_version_policy.specific.versions == [1, 2]
    assert model.version_labels == {"stable": 1, "canary": 2}


def test_the_check_of_health_knows_a_model_that_is_served(server):
    (script,) = re.findall(r"- \|\n(( {10}.*\n)+)", (EXAMPLE / "compose.yaml").read_text())
    check = script[0].replace("8501", server.rest.rpartition(":")[2])
    for name, status in (("lines", 0), ("gone", 1)):
        assert subprocess.run(["bash", "-c", check.replace("lines", name)], check=False).returncode == status


@pytest.mark.parametrize("api", ["rest", "grpc"])
def test_the_load_finds_every_answer_right_or_says_which_are_not(server, tmp_path, api, capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("load", EXAMPLE / "load.py")
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    monkeypatch.setattr(load, "_SIZES", (40, 24))
    for i in range(4):
        images.write_image(tmp_path / f"{i}.png", picture(50, 50, seed=i))
    arguments = [f"--server={getattr(server, api)}", f"--api={api}", "--model=lines", f"--input={tmp_path}"]
    arguments += ["--requests=40", "--hostile=0.5", "--clients=4"]
    assert call(load, *arguments) == 0
    good, hostile = re.findall(r"(\d+) of (\d+) answered right", capsys.readouterr().out)
    assert good[0] == good[1] and hostile[0] == hostile[1] and int(good[0]) + int(hostile[0]) == 40
    monkeypatch.setattr(load, "hostile_files", lambda good: good[:1])
    assert call(load, *arguments) == 1
    assert "hostile: 0 of " in capsys.readouterr().out
