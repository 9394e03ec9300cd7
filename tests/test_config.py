"""Flags, recipes, and what is refused with which words."""

import dataclasses
import functools
import importlib
import json
import pathlib
import re
import subprocess
import sys
import typing

import pytest
from absl import flags

from tests.own_flags import own_flags
from tfi2i import __main__ as tfi2i_command
from tfi2i import command_line, config, settings
from tfi2i.config import UserError, parse_size
from tfi2i.methods import METHODS, trained_by
from tfi2i.methods.unit import config as unit_config
from tfi2i.metrics import eval_metrics
from tfi2i.settings import resolve

ROOT = pathlib.Path(__file__).resolve().parent.parent
GIVEN = {
    "data": "photos", "crop": (128, 192), "background": (0, 128, 255), "flip": 0.25, "flip_first": True,
    "epochs": 12.5, "batch_size": 4, "accumulate": 2, "dropout": True, "download": False, "lambda_identity": 0.0,
    "gan_loss": "wgan-gp", "lr_schedule": "cosine",
}  # fmt: skip


# What there is to train: (method, task).
TRAINED = [(m, t) for m, row in METHODS.items() for t in ("translate", "pretrain") if row.of_task(t)]
COMMANDS = {name: module for name, (module, _) in tfi2i_command.COMMANDS.items() if name != "presets"}


def config_class(method, task="translate"):
    return METHODS[method].of_task(task).config_class


@pytest.fixture
def parse():
    """Parses a command line of `tfi2i.train`; returns (method, flags that were given)."""
    with own_flags() as mine:
        command_line.define_train_flags(mine)
        yield functools.partial(parse_again, mine)


def parse_again(mine, *arguments):
    mine.unparse_flags()
    for name in mine:
        mine[name].unparse()
    assert mine(["train", *map(str, arguments)]) == ["train"]
    return mine.method, command_line.given_flags(mine)


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
    ["--crop=256,", "--crop=1,2,3", "--batch_size=two", "--background=white", "--no_such_flag=1"],
)
def test_arguments_that_cannot_be_read(parse, argument):
    with pytest.raises(flags.Error):
        parse(argument)


def test_flags_text_gives_the_same_run_again(parse, tmp_path):
    file = tmp_path / "flags.txt"
    file.write_text(command_line.flags_text("cyclegan", GIVEN))
    method, given = parse(f"--flagfile={file}")
    assert given == GIVEN and resolve(method, given) == resolve("cyclegan", GIVEN)


def test_a_variants_defaults_are_its_own_and_what_is_given_wins():
    paper, later = settings.resolve("unit", {}), settings.resolve("unit", {"unit_variant": "2018"})
    assert (paper.model.lambda_gan, paper.model.shared_blocks, paper.training.steps) == (10, 1, 500_000)
    assert (later.model.lambda_gan, later.model.shared_blocks, later.training.steps) == (1, 0, 1_000_000)
    given = settings.resolve("unit", {"unit_variant": "2018", "lambda_gan": 3.0, "epochs": 2.0})
    assert given.model.lambda_gan == 3 and given.training.steps is None and given.training.epochs == 2
    assert settings.Run.from_json(later.to_json()) == later
    assert unit_config.UNIT(unit_variant="2018") == later.model


def test_flags_of_a_variant_that_are_another_ones_defaults():
    """5 layers are the paper model's default and not that of 2018."""
    run = resolve("unit", {"unit_variant": "2018", "discriminator_layers": 5})
    given = settings.differing(run)
    assert resolve("unit", given) == run and given["discriminator_layers"] == 5


def test_a_crop_of_its_own_keeps_the_usual_resize():
    """Which the crop alone would change."""
    run = resolve("cyclegan", {"crop": (128, 128), "resize": (286, 286)})
    assert settings.differing(run) == {"crop": (128, 128), "resize": (286, 286)}


def test_choices_are_those_of_the_method():
    assert resolve("cyclegan", {"discriminator": "pixel"}).model.discriminator == "pixel"
    with pytest.raises(UserError, match="--discriminator=pixel: expected one of stack, shared, multiscale"):
        resolve("unit", {"discriminator": "pixel"})


# What --help shows


def shown(*arguments):
    """The flags that --help shows with the given arguments, as a dict of name to flag."""
    with own_flags() as mine:
        command_line.define_train_flags(mine, ["train", *arguments])
        return {flag.name: flag for flag in mine.get_key_flags_for_module(__name__)}


def test_help_of_unit_by_hand():
    help = {name: flag.help for name, flag in shown("--method=unit").items()}
    assert help["gan_loss"] == "<lsgan|vanilla>: adversarial loss [paper: vanilla, 2018: lsgan]"
    assert (
        help["discriminator"].startswith("<stack|shared|multiscale>: ")
        and "stride 2; shared: " in help["discriminator"]
    )
    assert help["dropout"].startswith("dropout 0.5 at the end of every residual block")
    assert help["generator_width"] == "channels after the generator's first layer (ngf) [64]"
    assert help["steps"].endswith("[paper: 500000, 2018: 1000000]") and help["resize_mode"].endswith("[short_side]")
    assert "upsample" not in help and "vit_width" not in help and "source" not in help
    assert help["method"].startswith(f"one of {', '.join(trained_by('train'))}; ")


@pytest.mark.parametrize(
    "arguments, variant",
    [
        ([], "cyclegan_variant"),
        (["--method=cylcegan"], "cyclegan_variant"),
        (["--method", "unit"], "unit_variant"),
        (["-method=unit", "--method=ugatit"], "ugatit_variant"),
        (["--flagfile=configs/unit/emoji.flags"], "unit_variant"),
        (["--method=unit", "--flagfile=configs/ugatit/emoji.flags"], "ugatit_variant"),
        (["--flagfile=missing.flags", "--method=unit"], "unit_variant"),
        (["--method=unit", "--task=pretrain"], "unit_variant"),  # which has none, as parsing says
    ],
)
def test_help_is_of_the_method_that_the_command_line_names(arguments, variant, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert [name for name in shown(*arguments) if name.endswith("_variant")] == [variant]


@pytest.mark.parametrize("method, task", [(m, t) for m, t in TRAINED if METHODS[m].command == "train"])
def test_help_shows_the_methods_own_flags_choices_texts_and_defaults(method, task):
    kind, seen = config_class(method, task), shown(f"--method={method}", f"--task={task}")
    run = resolve(method, {"task": task})
    assert set(seen) == {
        "method",
        *(n for k in (kind, kind.data_class, config.Training) for n in settings.field_names(k)),
    }
    for part in (run.model, run.data, run.training):
        for field in dataclasses.fields(part):
            flag, choices = seen[field.name], field.metadata["choices"]
            head = f"<{'|'.join(map(str, choices))}>: " if choices else ""
            text, bracket, default = flag.help.removeprefix(head + field.metadata["help"]).partition(" [")
            assert not text and flag.value is None
            if field.name in kind.follows:
                assert default == f"--{kind.follows[field.name]}]"
            elif any(field.name in values for values in kind.variants.values()):
                flag_of_variant = next(n for n in settings.field_names(kind) if n.endswith("_variant"))
                for variant, values in kind.variants.items():
                    other = resolve(method, {flag_of_variant: variant})
                    parts = {n: v for p in (other.model, other.data, other.training) for n, v in vars(p).items()}
                    resolved = parts[field.name]
                    assert f"{variant}: {config.as_text(resolved)}" in default
            elif bracket and field.name != "task":
                assert default == f"{config.as_text(getattr(part, field.name))}]"
            else:
                assert field.default is None or field.name == "task"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_text_stands_alone(command):
    """--help sorts flags by name, so no text may point at a neighbour or begin in the middle of a sentence."""
    with own_flags() as mine:
        importlib.import_module(COMMANDS[command]).define_flags(mine)
    texts = {name: mine[name].help for name in mine if name not in ("flagfile", "undefok")}
    for name, text in texts.items():
        text = re.sub(r"^<[^>]*>: ", "", text)
        assert len(text) > 10, name
        assert not re.search(
            r"\b(the same(?! \w+s\b)|likewise|ditto|as above|as before|the former|the latter)\b", text
        ), name
        assert not re.match(r"(its?|they|their|them|this|these|that|those|he|she|of|or|and|else)\b", text, re.I), name


LIGHT = [("train", [f"--method={m}", f"--task={t}"]) for m, t in TRAINED if METHODS[m].command == "train"]


@pytest.mark.parametrize("command, arguments", LIGHT + [(c, []) for c in COMMANDS if c != "train"])
def test_help_is_instant(command, arguments):
    """Nothing that takes seconds to import is imported."""
    code = (
        "import importlib, sys\n"
        f"module = importlib.import_module('{COMMANDS[command]}')\n"
        f"sys.argv = ['command', *{arguments}, '--help']\n"
        "try:\n    module.run()\n"
        "finally:\n    print('heavy:', sorted({'tensorflow', 'keras', 'numpy', 'PIL'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "heavy: []" in done.stdout, done.stdout[-500:] + done.stderr
    flag = "learning_rate" if command in ("train", "adapt", "doctor") else "run_dir"
    assert f"  --{flag}" in done.stdout


# Files


def test_json_round_trip():
    run = resolve("cyclegan", GIVEN)
    again = settings.Run.from_json(run.to_json())
    assert again == run and again.data.crop == (128, 192) and again.to_json() == run.to_json()
    assert json.loads(run.to_json())["model"]["gan_loss"] == "wgan-gp"


# What some flags cannot be given without.
COMPANIONS = {
    "holdout": {"a": "photos", "b": "paintings"},
    "accumulate": {"batch_size": 6}, "gp_form": {"gp_center": 100.0}, "eval_metrics": {"best_metric": None},
    "csv": {"domain_a": "x", "domain_b": "!x"}, "domain_a": {"domain_b": "!x"}, "domain_b": {"domain_a": "x"},
}  # fmt: skip


def others(field, value):
    """Values of a field besides `value`, of its type, some of them impossible."""
    if field.name in ("eval_metrics", "best_metric"):
        return ["kid", "kid,fid"]
    if field.metadata["choices"]:
        return [choice for choice in field.metadata["choices"] if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [type(value)(2 * value + 1), type(value)(value / 2)]
    if isinstance(value, tuple):
        return [tuple(n // 2 for n in value), tuple(n * 2 for n in value)]
    hint = next(t for t in typing.get_args(field.type) if t is not type(None)) if value is None else field.type
    return {int: [3], float: [0.25], config.Size: [(64, 96)]}.get(hint, ["some"])


@pytest.mark.parametrize("method, task", TRAINED)
def test_every_flag_comes_back_from_json_and_from_the_flags_that_differ(method, task):
    usual = resolve(method, {"task": task})
    variants = config_class(method, task).variants or [None]
    flag_of_variant = next((n for n in settings.field_names(type(usual.model)) if n.endswith("_variant")), None)
    seen = set()
    for variant in variants:
        base = {"task": task} | ({flag_of_variant: variant} if variant else {})
        default = resolve(method, base)
        for part in (default.model, default.data, default.training):
            for field in dataclasses.fields(part):
                for value in others(field, getattr(part, field.name)):
                    try:
                        run = resolve(method, base | COMPANIONS.get(field.name, {}) | {field.name: value})
                    except UserError:
                        continue  # impossible alone
                    assert settings.Run.from_json(run.to_json()) == run
                    given = settings.differing(run)
                    assert resolve(method, given) == run, (field.name, value, given)
                    seen.add(field.name)
    names = {n for part in (usual.model, usual.data, usual.training) for n in settings.field_names(type(part))}
    assert names - seen <= {"task", "pretrained", "eval_every"}  # which some methods cannot have
    differing = settings.differing(usual)
    if usual.model.data_in_full:
        differing = {n: v for n, v in differing.items() if n not in settings.field_names(type(usual.data))}
    assert differing == ({} if task == "translate" else {"task": task})


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
        ({"eval_every": -1}, "--eval_every=-1: expected 0 or more"),
        ({"eval_metrics": "kid,fdi"}, "--eval_metrics=kid,fdi: 'fdi' is none of fid, kid"),
        ({"best_metric": "l1"}, "--best_metric=l1: expected one of kid"),
        ({"batch_size": 0}, "--batch_size=0: expected 1 or more"),
        ({"batch_size": 3, "accumulate": 2}, "cannot be split into --accumulate=2 equal parts: give --batch_size=4,"),
        ({"decay_fraction": 1.5}, "--decay_fraction=1.5: expected 0 to 1"),
        ({"precision": "int8"}, "--precision=int8: expected one of auto, float32, mixed_bfloat16"),
        ({"data": "a", "tfds": "b"}, "--data and --tfds both name the images"),
        (
            {"a": "a", "data": "d"},
            "--data and --a both name the images: give one of --data, --ab, --tfds, --csv, or --a and --b",
        ),
        ({"holdout": 0.2, "data": "d"}, "--holdout=0.2 is for --a and --b"),
        ({"holdout": 1.2, "a": "a", "b": "b"}, "--holdout=1.2: expected a share from 0 to 1"),
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
    with pytest.raises(UserError, match=r"--method=spade is not known: expected one of cyclegan[^?]*$"):
        resolve("spade", {})


def test_metrics_in_any_case():
    run = resolve("cyclegan", {"eval_every": 5, "eval_metrics": "KID, L1", "best_metric": "KID"})
    assert eval_metrics(run.training) == ("kid", "l1")
