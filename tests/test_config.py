"""Flags, recipes, and what is refused with which words."""

import dataclasses
import functools
import json
import subprocess
import sys

import pytest
from absl import flags

from tfi2i import config
from tfi2i.config import UserError, parse_size, resolve

GIVEN = {
    "data": "photos", "crop": (128, 192), "background": (0, 128, 255), "flip": 0.25, "flip_first": True,
    "epochs": 12.5, "batch_size": 4, "accumulate": 2, "dropout": True, "download": False, "lambda_identity": 0.0,
    "gan_loss": "wgan-gp", "lr_schedule": "cosine",
}  # fmt: skip


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line by flags that only this test sees; returns (method, flags that were given)."""
    mine = flags.FlagValues()
    for name in ("DEFINE", "DEFINE_string", "DEFINE_bool", "DEFINE_integer", "DEFINE_float", "DEFINE_enum"):
        monkeypatch.setattr(flags, name, functools.partial(getattr(flags, name), flag_values=mine))
    monkeypatch.setattr(flags, "FLAGS", mine)
    config.define_flags()

    def run(*arguments):
        mine.unparse_flags()
        for name in mine:
            mine[name].unparse()
        assert mine(["train", *map(str, arguments)]) == ["train"]
        return mine.method, config.given_flags()

    return run


# Recipes


def test_defaults_are_the_published_ones():
    run = resolve("cyclegan", {})
    d = run.data
    assert (d.resize, d.crop, d.flip, d.resize_filter) == ((286, 286), (256, 256), 0.5, "bicubic")
    assert (run.training.batch_size, run.training.epochs, run.training.decay_fraction) == (1, 200, 0.5)
    m = run.model
    assert (m.generator, m.discriminator_layers, m.norm, m.init, m.gan_loss) == (
        "resnet_9blocks",
        3,
        "instance",
        "normal",
        "lsgan",
    )
    assert (m.lambda_a, m.lambda_b, m.lambda_identity, m.pool_size) == (10, 10, 0.5, 50)
    assert (m.learning_rate, m.beta_1, m.beta_2, m.init_gain, m.dropout) == (2e-4, 0.5, 0.999, 0.02, False)


def test_a_duration_replaces_the_recipes():
    run = resolve("cyclegan", {"steps": 7})
    assert run.training.epochs is None and run.training.total_steps(10, 20) == (7, 20)
    assert resolve("cyclegan", {"images": 100, "batch_size": 8}).training.total_steps(30, 20) == (12, 3)
    assert resolve("cyclegan", {"epochs": 2.5, "batch_size": 2}).training.total_steps(8, 3) == (10, 4)


@pytest.mark.parametrize(
    "given, resize",
    [
        ({"crop": (128, 128)}, (143, 143)),
        ({"crop": (128, 256)}, (143, 286)),
        ({"crop": (128, 128), "resize": (130, 140)}, (130, 140)),
        ({"resize": (300, 300)}, (300, 300)),
    ],
)
def test_a_crop_alone_keeps_the_published_margin(given, resize):
    assert resolve("cyclegan", given).data.resize == resize


# The command line


def test_flags_arrive_with_their_types(parse):
    method, given = parse(
        "--method=cyclegan",
        "--data=photos",
        "--crop=128,192",
        "--background=0,128,255",
        "--epochs=1.5",
        "--batch_size=4",
        "--dropout",
        "--noflip_first",
        "--norm=batch",
    )
    assert method == "cyclegan"
    assert given == {
        "data": "photos", "crop": (128, 192), "background": (0, 128, 255), "epochs": 1.5,
        "batch_size": 4, "dropout": True, "flip_first": False, "norm": "batch",
    }  # fmt: skip
    assert parse("--crop=64")[1] == {"crop": (64, 64)}
    assert parse() == ("cyclegan", {})


def test_the_later_flag_wins(parse, tmp_path):
    file = tmp_path / "run.flags"
    file.write_text("# a comment\n--data=photos\n--batch_size=1\n--dropout\n")
    assert parse(f"--flagfile={file}", "--batch_size=2", "--nodropout")[1] == {
        "data": "photos", "batch_size": 2, "dropout": False,
    }  # fmt: skip
    assert parse("--batch_size=2", f"--flagfile={file}")[1]["batch_size"] == 1


@pytest.mark.parametrize(
    "argument",
    ["--crop=256,", "--crop=1,2,3", "--batch_size=two", "--norm=layer", "--background=white", "--no_such_flag=1"],
)
def test_arguments_that_cannot_be_read(parse, argument):
    with pytest.raises(flags.Error):
        parse(argument)


def test_flags_text_gives_the_same_run_again(parse, tmp_path):
    file = tmp_path / "flags.txt"
    file.write_text(config.flags_text("cyclegan", GIVEN))
    method, given = parse(f"--flagfile={file}")
    assert given == GIVEN and resolve(method, given) == resolve("cyclegan", GIVEN)


def test_every_field_is_a_flag_with_a_text(parse):
    for kind in (config.Data, config.Training, *config.METHODS.values()):
        for field in dataclasses.fields(kind):
            assert flags.FLAGS[field.name].value is None and len(flags.FLAGS[field.name].help) > 10
    assert "[cyclegan: 256,256, " in flags.FLAGS["crop"].help
    assert "0.5" in flags.FLAGS["lambda_identity"].help


def test_a_variants_defaults_are_its_own_and_what_is_given_wins():
    paper, later = config.resolve("unit", {}), config.resolve("unit", {"unit_variant": "2018"})
    assert (paper.model.lambda_gan, paper.model.shared_blocks, paper.training.steps) == (10, 1, 500_000)
    assert (later.model.lambda_gan, later.model.shared_blocks, later.training.steps) == (1, 0, 1_000_000)
    given = config.resolve("unit", {"unit_variant": "2018", "lambda_gan": 3.0, "epochs": 2.0})
    assert given.model.lambda_gan == 3 and given.training.steps is None and given.training.epochs == 2
    assert config.Run.from_json(later.to_json()) == later
    assert config.UNIT(unit_variant="2018") == later.model


def test_one_flag_takes_the_choices_of_all_methods_and_each_method_checks_its_own(parse):
    help = flags.FLAGS["discriminator"].help
    assert "cyclegan: n_layers" in help and "unit: stack/multiscale" in help
    with pytest.raises(config.UserError, match="--discriminator=pixel: expected one of stack, shared, multiscale"):
        config.resolve("unit", {"discriminator": "pixel"})


def test_help_loads_no_tensorflow():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['train', '--help']\n"
        "try:\n    runpy.run_module('tfi2i.train', run_name='__main__')\n"
        "finally:\n    print('heavy:', sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "heavy: []" in done.stdout, done.stderr
    for word in ("--run_dir", "--lambda_identity", "--method", "--crop", "--[no]dropout"):
        assert word in done.stdout, word


# Files


def test_json_round_trip():
    run = resolve("cyclegan", GIVEN)
    again = config.Run.from_json(run.to_json())
    assert again == run and again.data.crop == (128, 192) and again.to_json() == run.to_json()
    assert json.loads(run.to_json())["model"]["gan_loss"] == "wgan-gp"


# Errors


@pytest.mark.parametrize("text, size", [("256", (256, 256)), ("256,512", (256, 512)), ((3, 4), (3, 4)), (8, (8, 8))])
def test_parse_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "a", "0", "-4", "1.5", "256,", "1,2,3", "256,0"])
def test_parse_size_refuses(text):
    with pytest.raises(ValueError, match="is not a size: give N for a square or H,W"):
        parse_size(text)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"lambda_attention": 1.0}, "--lambda_attention is not a flag of --method=cyclegan; its own are: --cy"),
        ({"steps": 5, "epochs": 2.0}, "--steps=5 and --epochs=2.0 contradict: give exactly one"),
        ({"steps": 5, "images": 9}, "--steps=5 and --images=9 contradict"),
        ({"steps": 0}, "--steps=0: expected more than 0"),
        ({"save_every": 0}, "--save_every=0: expected more than 0"),
        ({"eval_every": 0}, "--eval_every=0: expected 1 or more"),
        ({"eval_metrics": "kid,fdi"}, "--eval_metrics=kid,fdi: 'fdi' is none of fid, kid"),
        ({"best_metric": "l1"}, "--best_metric=l1: expected one of kid"),
        ({"batch_size": 0}, "--batch_size=0: expected 1 or more"),
        ({"batch_size": 3, "accumulate": 2}, "--batch_size=3 cannot be split into --accumulate=2 equal parts"),
        ({"decay_fraction": 1.5}, "--decay_fraction=1.5: expected 0 to 1"),
        ({"precision": "int8"}, "--precision=int8: expected one of auto, float32, mixed_bfloat16"),
        ({"data": "a", "tfds": "b"}, "--data and --tfds both name the images"),
        ({"csv": "a.csv"}, "--csv needs --domain_a and --domain_b"),
        ({"tfds": "b", "domain_a": "x"}, "--domain_a and --domain_b go together"),
        ({"crop": (300, 200), "resize": (286, 286)}, "--crop=300,200 does not fit into --resize=286,286: make"),
        ({"resize": (128, 128)}, "--crop=256,256 does not fit into --resize=128,128"),
        ({"flip": 2.0}, "--flip=2.0: expected a probability"),
        ({"background": (0, 0, 256)}, r"--background=\(0, 0, 256\): expected three numbers from 0 to 255"),
        ({"channels_a": 2}, "--channels_a=2: expected one of 1, 3"),
        ({"max_bad_files": -1}, "--max_bad_files=-1: expected 0 or more"),
        ({"norm": "layer"}, "--norm=layer: expected one of instance, batch, none"),
        ({"lambda_a": -1.0}, "--lambda_a=-1.0: expected 0 or more"),
        ({"learning_rate": 0.0}, "--learning_rate=0.0: expected more than 0"),
        ({"generator": "unet_128", "upsample": "resize_conv"}, "--generator=unet_128 has none"),
        ({"lambda_gan": 0.0, "lambda_a": 0.0, "lambda_b": 0.0}, "are all 0: nothing is left to learn"),
    ],
)
def test_impossible_values(given, message):
    with pytest.raises(UserError, match=message):
        resolve("cyclegan", given)


def test_unknown_methods():
    with pytest.raises(UserError, match=r"--method=cylcegan is not known: .*; did you mean --method=cyclegan\?"):
        resolve("cylcegan", {})
    with pytest.raises(UserError, match=r"--method=pix2pix is not known: expected one of cyclegan[^?]*$"):
        resolve("pix2pix", {})
