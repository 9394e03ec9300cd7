"""Every flagfile parses, resolves, and says what it is."""

import dataclasses
import functools
import pathlib
import re

import pytest
from absl import flags

from tests.own_flags import own_flags
from tfi2i import command_line, presets, settings
from tfi2i.config import UserError
from tfi2i.methods import METHODS, trained_by
from tfi2i.methods.ugatit import config as ugatit_config
from tfi2i.methods.unit import config as unit_config

ROOT = pathlib.Path(__file__).parent.parent
ALL = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*.flags"))
ADAPTATION = [f for f in ALL if "tfi2i adapt " in (ROOT / f).read_text().partition("\n")[0]]
FILES = [f for f in ALL if f not in ADAPTATION]
# Presets for pictures of the user's own, which the command names; the others name theirs.
OWN = [f for f in FILES if "/own" in f]
CYCLEGAN = (
    "horse2zebra",
    "apple2orange",
    "summer2winter_yosemite",
    "monet2photo",
    "cezanne2photo",
    "ukiyoe2photo",
    "vangogh2photo",
    "iphone2dslr_flower",
    "maps",
    "facades",
    "cityscapes",
    "emoji",
)


def resolver(define):
    """Yields a function that resolves a command line, from the repository's root."""
    with pytest.MonkeyPatch.context() as patch, own_flags() as mine:
        patch.chdir(ROOT)
        define(mine)
        flags.DEFINE_string("run_dir", None, "")

        def run(*arguments):
            mine.unparse_flags()
            for name in mine:
                mine[name].unparse()
            assert mine(["train", *presets.expand(arguments)]) == ["train"]
            return settings.resolve(mine.method if "method" in mine else "adaptation", command_line.given_flags(mine))

        yield run


@pytest.fixture
def resolve():
    yield from resolver(command_line.define_train_flags)


@pytest.fixture
def resolve_adaptation():
    yield from resolver(functools.partial(command_line.define_train_flags, command="adapt"))


def opening(file):
    """The comment that a flagfile opens with, as one line."""
    lines = (ROOT / file).read_text(encoding="ascii").splitlines()
    end = next(i for i, line in enumerate([*lines, ""]) if not line.startswith("#"))
    return " ".join(" ".join(line.lstrip("#") for line in lines[:end]).split())


def test_all_are_there():
    names = {pathlib.Path(f).stem for f in FILES if f.startswith("configs/cyclegan/")}
    ablation = {f"ablation_{n}" for n in ("cycle_only", "gan_only", "gan_forward", "gan_backward")}
    assert names >= {*CYCLEGAN, *ablation}
    assert "configs/quickstart.flags" in FILES
    own = {f"configs/{method}/{name}.flags" for method in trained_by("train") for name in ("own_small", "own")}
    own |= {f.replace(".flags", "_pretrain.flags") for f in own if "/uvcgan" in f}
    assert own == {*OWN}


@pytest.mark.parametrize("file", FILES)
def test_resolves_to_something_that_can_be_built(file, resolve):
    run = resolve(f"--flagfile={file}", *["--a=photos", "--b=paintings"] * (file in OWN))
    assert run.data.data or run.data.a or run.data.tfds or run.data.csv
    steps, per_epoch = run.training.total_steps(1000, 1200)
    assert steps >= 1 and per_epoch >= 1
    channels = {"channels_a": run.data.channels_a, "channels_b": run.data.channels_b}
    model = METHODS[run.method].of_task(run.training.task).model_class(**channels, **dataclasses.asdict(run.model))
    model.check_crop(*run.data.crop)


@pytest.mark.parametrize("file", [f for f in FILES if f not in OWN])
def test_opens_with_its_command_source_and_expectation(file, resolve):
    check_opening(file, "train", resolve)


def check_opening(file, module, resolve):
    text = opening(file)
    preset = pathlib.Path(file).relative_to("configs").with_suffix("")
    command = re.search(rf"tfi2i {module} (--preset={preset}( --\w+=\S+)*)", text)
    assert command, f"{file} does not open with the command that uses it"
    assert "--run_dir=" in command.group(1)
    resolve(*command.group(1).split())
    check_content(text)


def check_content(text):
    assert re.search(r"arXiv \d{4}\.\d{5}|[Mm]easured|[Cc]hosen|[Tt]uned", text), "no source of its numbers"
    assert re.search(r"[Ee]xpect", text), "no expectation"
    assert re.search(r"hour|minute", text), "no duration"


@pytest.mark.parametrize("file", OWN)
def test_own_pictures_have_a_preset_with_its_price(file, resolve):
    text, name = opening(file), file.removeprefix("configs/").removesuffix(".flags")
    command = re.match(
        rf"tfi2i train (--preset={name} --a=photos --b=paintings( --\w+=\S+)* --run_dir=runs/mine\S*)", text
    )
    assert resolve(*command[1].split()).data.holdout == 0.1
    check_content(text)
    assert re.search(r"GiB|[Mm]emory was not measured", text) and re.search(r"[TG]FLOP a step", text)
    run, larger = resolve(f"--flagfile={file}"), resolve(f"--flagfile={file.replace('own_small', 'own')}")
    assert (run.data.data, run.data.resize_mode) == (None, "short_side")
    assert larger.data.crop == (256, 256) and run.data.crop == ((128, 128) if "own_small" in file else (256, 256))
    assert (run.training.task == "pretrain") == ("_pretrain" in file) != bool(run.training.eval_every)
    if "_pretrain" not in file:
        variant = {n: v for n, v in dataclasses.asdict(larger.model).items() if n.endswith("_variant")}
        usual = settings.resolve(run.method, variant).training
        assert larger.training.total_steps(1000, 1000) == usual.total_steps(1000, 1000)


@pytest.mark.parametrize("file", [f for f in FILES if re.search("/cyclegan/(.*2|maps|facades)", f)])
def test_tfds_can_be_replaced_by_a_folder_as_the_comment_says(file, resolve):
    alternative = re.search(r"add (--tfds=) (--data=\S+)", opening(file)).groups()
    given = resolve(f"--flagfile={file}")
    assert given.data.tfds == f"cycle_gan/{pathlib.Path(file).stem}" and not given.data.data
    other = resolve(f"--flagfile={file}", *alternative)
    assert not other.data.tfds and other.data.data == f"datasets/{pathlib.Path(file).stem}"


@pytest.mark.parametrize(
    "name, weights",
    [
        ("cycle_only", {"lambda_gan": 0, "lambda_a": 10, "lambda_b": 10}),
        ("gan_only", {"lambda_gan": 1, "lambda_a": 0, "lambda_b": 0}),
        ("gan_forward", {"lambda_gan": 1, "lambda_a": 10, "lambda_b": 0}),
        ("gan_backward", {"lambda_gan": 1, "lambda_a": 0, "lambda_b": 10}),
    ],
)
def test_ablation_differs_from_the_quickstart_in_its_weights_only(name, weights, resolve):
    whole = resolve("--flagfile=configs/quickstart.flags", "--lambda_identity=0")
    part = resolve(f"--flagfile=configs/cyclegan/ablation_{name}.flags")
    kept = {k: getattr(whole.model, k) if v else 0 for k, v in weights.items()}
    assert part == dataclasses.replace(whole, model=dataclasses.replace(whole.model, **kept))


def test_paper_specifics(resolve):
    cityscapes = resolve("--flagfile=configs/cyclegan/cityscapes.flags")
    assert (cityscapes.data.resize, cityscapes.data.crop) == ((143, 143), (128, 128))
    assert cityscapes.model.generator == "resnet_6blocks"
    identity = {n: resolve(f"--flagfile=configs/cyclegan/{n}.flags").model.lambda_identity for n in CYCLEGAN[:11]}
    assert {n for n, weight in identity.items() if not weight} == {"maps", "facades", "cityscapes"}


def test_an_unknown_flag_is_an_error(resolve, tmp_path):
    (tmp_path / "wrong.flags").write_text("--flagfile=configs/cyclegan/horse2zebra.flags\n--lambda_c=1\n")
    with pytest.raises(flags.UnrecognizedFlagError, match="lambda_c"):
        resolve(f"--flagfile={tmp_path}/wrong.flags")


def test_adaptation_is_there():
    pairs = ("svhn_to_mnist", "mnist_to_usps", "usps_to_mnist", "mnist_to_optdigits", "optdigits_to_mnist")
    assert {pathlib.Path(f).stem for f in ADAPTATION} == set(pairs)


@pytest.mark.parametrize("file", ADAPTATION)
def test_adaptation_resolves_and_says_what_it_is(file, resolve_adaptation):
    check_opening(file, "adapt", resolve_adaptation)
    run = resolve_adaptation(f"--flagfile={file}")
    a, b = pathlib.Path(file).stem.split("_to_")
    assert a in run.data.source and b in run.data.target and a not in run.data.target
    if a == "svhn":
        assert run.data.source_split == "extra" and run.data.target_inverted and run.data.channels_a == 3
        assert dataclasses.asdict(run.model) == dataclasses.asdict(unit_config.Adaptation())


UGATIT_ABLATION = {
    "in": {"decoder_norm": "in"}, "ln": {"decoder_norm": "ln"}, "adain": {"decoder_norm": "adain"},
    "gn": {"decoder_norm": "gn"}, "no_cam": {"cam_generator": False, "cam_discriminator": False},
    "no_cam_generator": {"cam_generator": False}, "no_cam_discriminator": {"cam_discriminator": False},
}  # fmt: skip


@pytest.mark.parametrize("name", UGATIT_ABLATION)
def test_ugatit_ablation_differs_from_the_whole_in_one_thing(name, resolve):
    whole = resolve("--flagfile=configs/ugatit/emoji.flags")
    part = resolve(f"--flagfile=configs/ugatit/ablation_{name}.flags")
    assert part == dataclasses.replace(whole, model=dataclasses.replace(whole.model, **UGATIT_ABLATION[name]))


@pytest.mark.parametrize("name", ["selfie2anime", "horse2zebra", "cat2dog", "photo2portrait", "photo2vangogh"])
def test_ugatit_data_sets_have_the_papers_settings(name, resolve):
    run = resolve(f"--flagfile=configs/ugatit/{name}.flags")
    assert run.model == ugatit_config.UGATIT() and run.training == settings.resolve("ugatit", {"data": "x"}).training
    text = opening(f"configs/ugatit/{name}.flags")
    assert text.count("+-") == 2  # both directions
    if run.data.tfds:
        alternative = re.search(r"add (--tfds=) (--data=[\w/]+)", text).groups()
        other = resolve(f"--flagfile=configs/ugatit/{name}.flags", *alternative)
        assert not other.data.tfds and other.data.data == f"datasets/{run.data.tfds.split('/')[1]}"


UVCGAN2 = (
    "selfie2anime",
    "celeba_gender",
    "celeba_eyeglasses",
    "celeba_hq_gender",
    "afhq_cat2dog",
    "afhq_wild2dog",
    "afhq_wild2cat",
    "emoji",
    "own_small",
    "own",
)
UVCGAN = ("selfie2anime", "celeba_gender", "celeba_eyeglasses", "own_small", "own")


@pytest.mark.parametrize("name", [*(f"uvcgan2/{n}" for n in UVCGAN2), *(f"uvcgan/{n}" for n in UVCGAN)])
def test_pretraining_and_translation_of_uvcgan_belong_together(name, resolve):
    """Same data and generator in both stages; else the one cannot start from the other."""
    run, before = (resolve(f"--flagfile=configs/{name}{stage}.flags") for stage in ("", "_pretrain"))
    assert (run.training.task, before.training.task) == ("translate", "pretrain")
    kept = {"rotate": before.data.rotate, "jitter": before.data.jitter}
    assert dataclasses.replace(run.data, **kept) == before.data
    for field in ("generator_width", "generator_levels", "vit_width", "vit_heads", "vit_blocks", "vit_ffn_width"):
        assert getattr(run.model, field) == getattr(before.model, field)


def test_uvcgan_of_2022_as_its_scripts_have_it(resolve):
    """Images, cycles and rates of LS4GAN/uvcgan's scripts, whose epochs have 512 (pre-training) or 2,000 steps."""
    run = resolve("--flagfile=configs/uvcgan/celeba_gender.flags")
    assert (run.training.total_steps(1, 1)[0], run.model.pool_size, run.model.lambda_a) == (500 * 2000, 50, 5)
    assert (run.model.gp_form, run.model.gp_center, run.model.lambda_gp) == ("uvcgan", 100, 0.1)
    for name, batch, epochs, cycle in (("celeba_gender", 32, 499, 100), ("selfie2anime", 64, 2499, 500)):
        before = resolve(f"--flagfile=configs/uvcgan/{name}_pretrain.flags")
        steps = before.training.total_steps(1, 1)[0], before.training.lr_restart_steps
        assert (before.training.batch_size, *steps) == (batch, 512 * epochs, 512 * cycle)
        assert before.model.learning_rate == pytest.approx(64 * 5e-3 / 512)


def test_rungs_of_uvcgan_lead_from_v1_to_v2(resolve):
    rungs = sorted(f for f in FILES if "/uvcgan2/ladder_" in f)
    runs = [resolve(f"--flagfile={f}") for f in [*rungs, "configs/uvcgan2/emoji.flags"]]
    assert len(runs) == 6 and runs[0].method == "uvcgan"
    models = [dataclasses.asdict(r.model) for r in runs]
    assert all(r.data == runs[-1].data and r.training == runs[-1].training for r in runs)
    changes = [{k for k in x if x[k] != y[k]} for x, y in zip(models, models[1:])]
    assert changes == [
        {"style", "norm"}, {"discriminator_head", "spectral_norm", "pool_size"}, {"gp_form", "gp_center", "lambda_gp"},
        {"ema_momentum"}, {"lambda_consistency", "consistency_size"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "beside, seen",
    [
        (["--epochs=2"], {"epochs": 2.0, "steps": None, "data": "emoji"}),
        (["--steps=7"], {"steps": 7, "epochs": None}),
        (["--a=photos", "--b=paintings"], {"a": "photos", "b": "paintings", "data": None, "steps": 3500}),
        (["--data=pictures"], {"data": "pictures"}),
        (["--csv=list.csv", "--domain_a=x", "--domain_b=!x"], {"csv": "list.csv", "data": None}),
    ],
)
def test_what_a_flag_says_replaces_what_a_preset_says_by_another(resolve, beside, seen):
    run = resolve("--preset=quickstart", *beside)
    values = dataclasses.asdict(run.data) | dataclasses.asdict(run.training)
    assert {name: values[name] for name in seen} == seen


def test_two_flags_that_contradict_stay_two(resolve, tmp_path):
    with pytest.raises(UserError, match="contradict"):
        resolve("--preset=quickstart", "--epochs=2", "--images=4")
    (tmp_path / "mine.flags").write_text("--preset=quickstart\n--epochs=3\n")
    run = resolve(f"--flagfile={tmp_path}/mine.flags", "--images=400")
    assert (run.training.images, run.training.epochs, run.training.steps) == (400, None, None)


def test_what_belongs_to_the_replaced_pictures_goes_with_them(resolve):
    assert resolve("--preset=ugatit/photo2vangogh").data.swap_domains
    run = resolve("--preset=ugatit/photo2vangogh", "--a=photos", "--b=vangogh")
    assert not run.data.swap_domains and run.data.tfds is None


def test_values_are_no_flags_and_a_later_file_counts(resolve, tmp_path):
    run = resolve("--preset=cyclegan/own_small", "--data", "images")
    assert run.data.data == "images" and run.training.steps == 40000
    (tmp_path / "mine.flags").write_text("--epochs=3\n")
    run = resolve("--preset=quickstart", f"--flagfile={tmp_path}/mine.flags")
    assert (run.training.epochs, run.training.steps) == (3, None)
