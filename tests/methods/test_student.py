"""The student: its network, what it learns from, its command; and that it is a run like any other."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfi2i.export import __main__ as export_command

import tfi2i
from tests.own_flags import call
from tests.test_conformance import described
from tests.toy import command as toy_command
from tfi2i import api, archive, checkpoints, flops, run_directory, settings
from tfi2i.commands import distill, evaluate, translate
from tfi2i.config import UserError
from tfi2i.methods import METHODS, trained_by
from tfi2i.methods.student.config import Pictures
from tfi2i.methods.student.model import Discriminator, Generator, Student, half_width
from tfi2i.training import loop

pytestmark = pytest.mark.usefixtures("toy")

TINY = {"student_width": 8, "student_blocks": 1, "ema_momentum": 0.5}
SIDE = 32
GIVEN = {"student_width": 8, "student_blocks": 1, "batch_size": 2, "log_every": 1, "precision": "float32"}

TEACHER = described("toy").TINY | {"toy_width": 128, "steps": 1, "log_every": 1, "data": "emoji"}
TEACHER |= {"crop": (SIDE, SIDE), "resize": (SIDE, SIDE)}


def built(channels_a=3, channels_b=3, **given):
    model = Student(channels_a, channels_b, **{**TINY, **given})
    model.build((None, None, None, channels_a))
    return model


def pictures(n=2, channels=3, seed=0, side=SIDE):
    return np.random.default_rng(seed).uniform(-1, 1, (n, side, side, channels)).astype("float32")


class Negative:
    """A teacher whose translation is the negative, in the range [0, 1]."""

    value_range = (0.0, 1.0)

    def generate(self, x, direction):
        assert direction == "a2b"
        return 1 - x


# ------------------------------------------------------------------------------------------------------------- network


def test_multiply_accumulates_and_parameters_by_hand():
    # Width 24 has 8 channels at half the size. 5·5·3·8 weights at 16², 3·3·8·24 at 8², a block of twice 3·3·24 + 24·24
    # at 8², 24·32 at 8², 3·3·8·12 at 16².
    kernels = [5 * 5 * 3 * 8, 3 * 3 * 8 * 24, 2 * (9 * 24 + 24 * 24), 24 * 32, 3 * 3 * 8 * 12]
    biases = 8 + 24 + 4 * 24 + 32 + 12
    macs = 16**2 * (kernels[0] + kernels[4]) + 8**2 * sum(kernels[1:4])
    assert flops.cost(built(student_width=24), "a2b", 32, 32) == (macs, sum(kernels) + biases)


def test_sizes_that_it_does_not_take_are_counted_as_padded():
    model = built()
    assert flops.cost(model, "a2b", 29, 31) == flops.cost(model, "a2b", 32, 32)


def test_channels_at_half_the_size_are_a_third_in_eights():
    assert [half_width(w) for w in (8, 24, 32, 96, 200)] == [8, 8, 16, 32, 72]


def test_it_has_no_norm_and_translates_between_channels():
    model = built(channels_a=1, channels_b=3, direction="b2a")
    assert model.directions == ("b2a",) and list(model.networks) == ["generator_b2a"]
    assert model.translate(np.zeros((2, 33, 35, 3), np.uint8), "b2a").shape == (2, 33, 35, 1)
    with pytest.raises(UserError, match="translates b2a only"):
        model.translate(np.zeros((33, 35, 1), np.uint8), "a2b")
    kinds = {type(layer).__name__ for layer in model.generator._flatten_layers()}
    assert kinds == {"Generator", "Block", "QuantizableConv2D", "QuantizableDepthwiseConv2D"}


def test_the_gradient_leads_back_from_outside():
    """Where the network says 3, the biases of the last convolution stay if the teacher says 1, and fall if 0.5."""
    generator = Generator(3, 8, 1, seed=0, name="generator_a2b")
    generator.build((None, None, None, 3))
    bias = generator.up_2.bias
    bias.assign(np.full(bias.shape, 3.0))
    x = tf.constant(pictures())
    for target, sign in ((1.0, 0), (0.5, 1)):
        with tf.GradientTape() as tape:
            y = generator(x, training=True)
            loss = tf.reduce_mean(tf.abs(y - target))
        assert float(tf.reduce_max(y)) <= 1
        np.testing.assert_array_equal(np.sign(tape.gradient(loss, bias.value)), sign)


def test_rounding_changes_it_little_and_only_where_asked():
    model, x = built(student_width=24), pictures()
    plain, rounded = (np.asarray(model.generator(x, training=True, quantized=q)) for q in (False, True))
    assert 1e-4 < np.abs(plain - rounded).mean() < 0.02
    np.testing.assert_array_equal(model.generator(x), plain)


# ------------------------------------------------------------------------------------------------------------ learning


def test_losses_by_hand():
    """Without changes of the pictures, a student that says 0 is compared with the negative: -x."""
    model = built(affine=0.0, permute_colours=0.0)
    for variable in model.generator.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    model.compile(generator_optimizer=keras.optimizers.SGD(0.0))
    model.learn_from(Negative())
    x = pictures()
    model.build_for_training(x.shape, x.shape)
    losses = model.train_step((tf.constant(x), tf.constant(x)))
    assert set(losses) == {"l1_b", "l2_b"}
    assert float(losses["l1_b"]) == pytest.approx(np.abs(x).mean(), rel=1e-5)
    assert float(losses["l2_b"]) == pytest.approx(0.5 * np.square(x).mean(), rel=1e-5)


def test_the_adversarial_losses_by_hand(monkeypatch):
    """A discriminator that says 0.5 to all: each square is a quarter. It judges the teacher's pictures as real."""
    model = built(lambda_gan=0.1, discriminator_width=4)
    assert list(model.networks) == ["generator_a2b", "discriminator_b"]
    assert model.roles == ("generator", "discriminator") and built().roles == ("generator",)
    model.compile()
    model.learn_from(Negative())
    x = tf.constant(pictures())
    model.build_for_training(x.shape, x.shape)
    assert model.discriminator(x).shape == (2, SIDE // 8, SIDE // 8, 1)
    before = [np.array(v) for v in model.discriminator.trainable_variables]
    assert np.isfinite([float(v) for v in model.train_step((x, x)).values()]).all()
    assert any((a != np.array(b)).any() for a, b in zip(before, model.discriminator.trainable_variables))
    monkeypatch.setattr(Discriminator, "call", lambda self, x: tf.fill((x.shape[0], 1, 1, 1), 0.5))
    losses = model.train_step((x, x))
    assert float(losses["gan_a2b"]) == pytest.approx(0.025) and float(losses["discriminator_b"]) == pytest.approx(0.25)


def test_it_learns_with_fit():
    model = built(affine=0.0, permute_colours=0.0, learning_rate=0.01, student_width=24)
    model.compile()
    model.learn_from(Negative())
    x = tf.image.resize(pictures(4, side=4), (SIDE, SIDE)).numpy()
    history = model.fit(x, x, batch_size=4, epochs=30, verbose=0).history["l1_b"]
    assert history[-1] < 0.5 * history[0]


def test_without_a_teacher_it_says_so():
    model = built()
    model.compile()
    with pytest.raises(ValueError, match="call learn_from"):
        model.fit(pictures(), pictures(), verbose=0)


def test_pictures_are_varied_alike_on_one_replica_and_two():
    model, x = built(), tf.constant(pictures(4))
    whole = model.varied(x, tf.range(4)).numpy()
    parts = [model.varied(x[i : i + 2], tf.range(i, i + 2)).numpy() for i in (0, 2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert whole.min() >= -1.0001 and whole.max() <= 1.0001 and np.abs(whole - x).max() > 0.5
    model.step.assign(1)
    assert np.abs(model.varied(x, tf.range(4)) - whole).max() > 0.5


def test_colours_are_exchanged_and_kept():
    model, x = built(affine=0.0, permute_colours=1.0), pictures(16)
    y = model.varied(tf.constant(x), tf.range(16)).numpy()
    np.testing.assert_array_equal(np.sort(x, axis=-1), np.sort(y, axis=-1))
    assert len({tuple(np.argmax((a[..., None] == b[..., None, :]).all((0, 1)), 1)) for a, b in zip(y, x)}) > 3
    np.testing.assert_array_equal(built(affine=0.0, permute_colours=0.0).varied(tf.constant(x), tf.range(16)), x)


def test_the_centre_stays_where_it_is():
    """A disc in the middle is turned and scaled, and without shifts stays in the middle."""
    side, middle = 33, 16
    row, column = np.mgrid[:side, :side] - middle
    x = np.where(np.hypot(row, column) < 8, 1.0, 0.0)[None, ..., None].repeat(8, axis=0).astype("float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfi2i.methods.student.model._SHIFT", 0.0)
        y = built(permute_colours=0.0).varied(tf.constant(x), tf.range(8)).numpy()[..., 0]
    centres = [(np.mean(row[d > 0.5]), np.mean(column[d > 0.5])) for d in y]
    np.testing.assert_allclose(centres, 0, atol=0.2)
    areas = (y > 0.5).sum((1, 2))
    assert areas.min() < (x[0] > 0.5).sum() < areas.max()


def test_the_last_part_of_the_duration_is_rounded():
    model = built(quantized_fraction=0.25)
    assert model.stage(10**9) is None  # as in `fit`, where the duration is not known
    model.total_steps = 8
    assert [model.stage(step) for step in range(8)] == [None] * 6 + ["quantized"] * 2
    never = built(quantized_fraction=0.0)
    never.total_steps = 8
    assert never.stage(7) is None


# ------------------------------------------------------------------------------------------------------------- command


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The run directory of a toy that was trained for a step."""
    run_dir = tmp_path_factory.mktemp("teachers") / "toy"
    loop.train(settings.resolve("toy", TEACHER), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    """The run directory of a student of three steps, the last one rounded, that was resumed after the second."""
    run_dir = tmp_path_factory.mktemp("students") / "student"
    given = GIVEN | {"steps": 3, "quantized_fraction": 0.34, "save_every": 1, "keep": 9}
    tfi2i.distill(teacher, run_dir, **given)
    return run_dir


def state(run_dir, step):
    reader = tf.train.load_checkpoint(str(run_directory.checkpoint_folder(run_dir, step) / "state"))
    return {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n}


def test_its_run_directory_describes_it_without_its_teacher(student, teacher):
    run = run_directory.read(student)
    assert run.method == "student" and run.model.teacher == str(teacher) and run.model.teacher_checkpoint == "1"
    assert run.data.data == "emoji" and run.data.crop == (SIDE, SIDE)
    elsewhere = student.with_name("elsewhere")
    text = run_directory.config_path(student).read_text().replace(str(teacher), "/nowhere")
    (elsewhere / "checkpoints").mkdir(parents=True)
    run_directory.config_path(elsewhere).write_text(text)
    (elsewhere / "checkpoints" / "00000003").symlink_to(student / "checkpoints" / "00000003")
    x = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(tfi2i.load(elsewhere).translate(x), tfi2i.load(student).translate(x))


def test_it_resumes_bit_for_bit(student, teacher, tmp_path):
    """From the checkpoint before the rounding begins."""
    shutil.copytree(student, tmp_path / "again")
    for step in (2, 3):
        shutil.rmtree(run_directory.checkpoint_folder(tmp_path / "again", step))
    call(distill, *run_flags(student), f"--run_dir={tmp_path / 'again'}")
    first, second = state(student, 3), state(tmp_path / "again", 3)
    assert first.keys() == second.keys() and not any("teacher" in name for name in first)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def run_flags(run_dir):
    return (run_dir / "flags.txt").read_text().splitlines()


def test_evaluate_puts_the_teacher_beside_it(student, tmp_path):
    call(evaluate, f"--run_dir={student}", "--limit=4", f"--output={tmp_path / 'e.png'}")
    measured = json.loads((tmp_path / "evaluate.json").read_text())["directions"]
    assert list(measured) == ["a2b"] and list(measured["a2b"])[:2] == ["model", "teacher"]


def test_it_is_exported_and_the_report_says_what_it_costs(student, tmp_path):
    """By plain operations, and in integers alone, with the floors of untrained networks."""
    flags = ["--formats=float32,int8_full", "--calibration_images=4", "--verification_images=4"]
    floors = ["--min_psnr=int8_full:15/10"]
    call(export_command, f"--run_dir={student}", f"--output={tmp_path / 'out'}", *flags, *floors)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    model = checkpoints.load(student)
    assert (report["macs"], report["parameters"]) == flops.cost(model, "a2b", SIDE, SIDE)
    assert f"{report['parameters']:,} parameters" in (tmp_path / "out" / "README.md").read_text()
    assert set(report["formats"]["float32"]["operations"]) <= {
        "ADD", "CAST", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "MUL", "RESHAPE", "STRIDED_SLICE", "SUB",
        "DEQUANTIZE", "QUANTIZE",
    }  # fmt: skip


@pytest.mark.parametrize("as_part", [False, True])
def test_the_width_is_the_largest_that_keeps_to_the_work(teacher, tmp_path, capsys, as_part):
    whole, _ = flops.cost(checkpoints.load(teacher), "a2b", SIDE, SIDE)
    fits, too_much = (flops.cost(built(student_width=w), "a2b", SIDE, SIDE)[0] for w in (16, 24))
    asked = (fits + too_much) // 2 / (whole if as_part else 1)
    assert (asked < 1) == as_part
    flags = [f"--student_macs={asked}", "--student_blocks=1", "--print_config"]
    call(distill, f"--teacher={teacher}", f"--run_dir={tmp_path}/x", *flags)
    shown = capsys.readouterr().out
    assert json.loads(shown)["model"]["student_width"] == 16


def refusal(*arguments):
    with pytest.raises(UserError) as refused:
        call(distill, *arguments)
    return str(refused.value)


def test_no_student_is_that_small(teacher, tmp_path):
    said = refusal(f"--teacher={teacher}", f"--run_dir={tmp_path}/x", "--student_macs=1000")
    least = float(re.search(r"give ([\d.e+]+) or more", said)[1])
    assert least == pytest.approx(flops.cost(built(student_blocks=3), "a2b", SIDE, SIDE)[0], rel=0.1)
    assert not (tmp_path / "x").exists()


def test_a_direction_that_the_teacher_lacks(tmp_path, capsys):
    """Without one the student takes the only one there is."""
    loop.train(settings.resolve("one_way_toy", TEACHER), tmp_path / "t")
    said = refusal(f"--teacher={tmp_path / 't'}", "--direction=b2a", f"--run_dir={tmp_path}/x")
    assert said == f"--direction=b2a: the teacher {tmp_path / 't'} translates a2b only"
    capsys.readouterr()
    call(distill, f"--teacher={tmp_path / 't'}", f"--run_dir={tmp_path}/x", "--student_width=8", "--print_config")
    assert json.loads(capsys.readouterr().out)["model"]["direction"] == "a2b"


def test_a_teacher_that_names_no_pictures(teacher, tmp_path):
    shutil.copytree(teacher, tmp_path / "converted")
    path = run_directory.config_path(tmp_path / "converted")
    content = json.loads(path.read_text())
    content["data"]["data"] = None
    path.write_text(json.dumps(content))
    said = refusal(f"--teacher={tmp_path / 'converted'}", f"--run_dir={tmp_path}/x")
    assert "names no pictures: give --data=FOLDER" in said


def folder_of_pictures(path, count=4):
    path.mkdir()
    for i in range(count):
        keras.utils.save_img(path / f"{i}.png", np.full((SIDE, SIDE, 3), 50 * i), scale=False)
    return path


def test_the_domain_translated_from_is_enough(teacher, tmp_path, capsys):
    """For b2a that is B. What is held out of it measures the student."""
    pictures, out = folder_of_pictures(tmp_path / "pictures"), tmp_path / "student"
    given = GIVEN | {"steps": 1, "sample_every": 1, "b": str(pictures), "holdout": 0.3}
    tfi2i.distill(teacher, out, direction="b2a", **given)
    kept = (out / "held_out.txt").read_text().splitlines()
    assert 1 <= len(kept) <= 3 and {str(pictures)} == {str(pathlib.Path(path).parent) for path in kept}
    call(evaluate, f"--run_dir={out}", "--metrics=il2", f"--output={tmp_path / 'e.png'}")
    assert list(json.loads((tmp_path / "metrics.json").read_text())["directions"]) == ["b2a"]
    call(translate, f"--run_dir={out}", f"--input={pictures / '0.png'}", f"--output={tmp_path / 'y.png'}")
    assert "translated 1 of 1 images b2a" in capsys.readouterr().out
    for direction, wrong, needed in (("a2b", "b", "A"), ("b2a", "a", "B")):
        flags = [f"--direction={direction}", f"--{wrong}={pictures}"]
        said = refusal(f"--teacher={teacher}", f"--run_dir={tmp_path}/y", *flags)
        assert f"learns from pictures of {needed}" in said and f"give --{needed.lower()}=FOLDER" in said


def test_more_pictures_follow_those_of_the_teacher(teacher, tmp_path, capsys):
    pictures = folder_of_pictures(tmp_path / "pictures")
    flags = [f"--teacher={teacher}", f"--run_dir={tmp_path}/x", f"--more_pictures={pictures}", "--student_width=8"]
    call(distill, *flags, "--print_config")
    run = settings.Run.from_json(capsys.readouterr().out)
    own, _ = dataclasses.replace(run.data, more_pictures=None).open_domains()
    both, _ = run.data.open_domains()
    assert both.names == own.names + [f"more/{i}.png" for i in range(4)]
    np.testing.assert_array_equal(both.read(len(own) + 3), np.full((SIDE, SIDE, 3), 150))
    np.testing.assert_array_equal(both.read(5), own.read(5))
    assert not any("more" in name for name in run.data.open_domains("test")[0].names)
    assert both.fingerprint != own.fingerprint
    assert "does not exist" in refusal(*flags[:2], f"--more_pictures={tmp_path}/none", "--student_width=8")


def test_more_pictures_are_whole_where_the_teachers_are_halves(tmp_path):
    """Of pictures side by side a half is this domain's; what is added is not cut, odd widths neither."""
    for name, width in (("pairs", 2 * SIDE), ("more", SIDE + 1)):
        (tmp_path / name).mkdir()
        for i in range(3):
            keras.utils.save_img(tmp_path / name / f"{i}.png", np.full((SIDE, width, 3), 50 * i), scale=False)
    data = Pictures(ab=str(tmp_path / "pairs"), holdout=0.0, more_pictures=str(tmp_path / "more"))
    for source in data.open_domains():
        assert [source.image_size(i) for i in (0, 5)] == [(SIDE, SIDE), (SIDE, SIDE + 1)]
        assert [source.read(i).shape for i in (2, 3)] == [(SIDE, SIDE, 3), (SIDE, SIDE + 1, 3)]


def test_samples_show_the_domain_translated_from():
    model = built(direction="b2a")
    shown = model.pictures(*(tf.constant(pictures(seed=seed)) for seed in (0, 1)))
    assert list(shown) == ["B", "B to A"]
    np.testing.assert_array_equal(shown["B"], pictures(seed=1))


def test_another_teacher_or_a_longer_run_is_not_the_same_run(student, teacher, tmp_path):
    """Other weights under the same names; and a duration with which the rounding would have begun later."""
    run_dir, other = tmp_path / "student", tmp_path / "other"
    shutil.copytree(student, run_dir)
    loop.train(settings.resolve("toy", TEACHER | {"seed": 1}), other)
    flags = [f for f in run_flags(student) if not f.startswith(("--teacher", "--steps"))]
    said = refusal(*flags, "--steps=3", f"--teacher={other}", f"--run_dir={run_dir}")
    assert said.startswith(f"the teacher is not the one that the run in {run_dir} started with")
    flags += [f"--teacher={teacher}", "--steps=9", "--lr_schedule=constant", f"--run_dir={run_dir}"]
    assert "--steps was 3, is 9" in refusal(*flags)


def test_a_teacher_may_move(student, teacher, tmp_path):
    shutil.copytree(student, tmp_path / "student")
    shutil.copytree(teacher, tmp_path / "moved")
    flags = [f for f in run_flags(student) if not f.startswith("--teacher=")]
    call(distill, *flags, f"--teacher={tmp_path / 'moved'}", f"--run_dir={tmp_path / 'student'}")


def test_the_teachers_checkpoint_is_gone(student, teacher, tmp_path):
    run_dir, moved = tmp_path / "student", tmp_path / "moved"
    shutil.copytree(student, run_dir)
    shutil.copytree(teacher, moved)
    run_directory.checkpoint_folder(moved, 1).rename(run_directory.checkpoint_folder(moved, 2))
    path = run_directory.config_path(run_dir)
    path.write_text(path.read_text().replace(str(teacher), str(moved)))
    said = refusal(f"--teacher={moved}", f"--run_dir={run_dir}")
    assert said == (
        f"the run in {run_dir} learns from step 1 of its teacher (--teacher_checkpoint=1: {moved} has 2): give a new "
        "--run_dir"
    )
    path.write_text(path.read_text().replace('"teacher_checkpoint": "1"', '"teacher_checkpoint": "best"'))
    said = refusal(f"--teacher={moved}", f"--run_dir={run_dir}")
    assert said == (
        f"the run in {run_dir} learns from best/ of its teacher (--teacher_checkpoint=best: {moved} has 2): give a new "
        "--run_dir"
    )


def test_the_teachers_checkpoint_is_damaged(student, teacher, tmp_path):
    run_dir, moved = tmp_path / "student", tmp_path / "moved"
    shutil.copytree(student, run_dir)
    shutil.copytree(teacher, moved)
    (run_directory.checkpoint_folder(moved, 1) / "manifest.json").unlink()
    path = run_directory.config_path(run_dir)
    path.write_text(path.read_text().replace(str(teacher), str(moved)))
    said = refusal(f"--teacher={moved}", f"--run_dir={run_dir}")
    assert said.startswith(f"the run in {run_dir} learns from step 1 of its teacher (checkpoint {moved}")
    assert said.endswith("): give a new --run_dir") and "give another" not in said
    said = refusal(f"--teacher={moved}", "--teacher_checkpoint=1", f"--run_dir={tmp_path}/new")
    assert said.endswith("; give another --teacher_checkpoint")


def test_what_is_packed_names_no_path(student, tmp_path):
    path = archive.pack(student, tmp_path / "student.zip")
    with zipfile.ZipFile(path) as packed:
        content = json.loads(packed.read("student/config.json"))
    assert content["model"]["teacher"] is None and content["model"]["student_width"] == 8


def test_flags_txt_says_all_of_the_data(tmp_path):
    """The teacher does not mirror, and the student does, which is a student's default: the file must say so."""
    teacher = settings.resolve("toy", TEACHER | {"flip": 0.0, "rotate": 5.0})
    given = distill._of_teacher(teacher, {}) | {"flip": 0.5, "rotate": 0.0, "student_width": 8, "student_blocks": 1}
    run = settings.resolve("student", given)
    again = distill._of_teacher(teacher, settings.differing(run)) | settings.differing(run)
    assert settings.resolve("student", again) == run


@pytest.mark.thorough
def test_two_replicas_in_a_process_of_their_own(teacher, tmp_path):
    """The strategy comes before the teacher, which computes."""
    flags = [f"--teacher={teacher}", f"--run_dir={tmp_path}/x", "--strategy=mirrored", "--replicas=2", "--steps=2"]
    flags += [f"--{n}={v}" for n, v in GIVEN.items()]
    done = subprocess.run([*toy_command("tfi2i.distill"), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 replicas" in done.stdout and run_directory.steps(tmp_path / "x") == [2]


@pytest.mark.parametrize("parts", [2])
def test_a_rounded_step_is_that_of_its_parts(parts):
    """Each sample is rounded by its own range, so losses of a batch are means of those of its parts."""
    model = built(affine=0.0, permute_colours=0.0)
    x = tf.constant(pictures(4))
    whole, _ = model.quantized_phase(x, -x)
    halves = [model.quantized_phase(h, -h)[0] for h in tf.split(x, parts)]
    for name, value in whole.items():
        assert float(value) == pytest.approx(np.mean([float(h[name]) for h in halves]), rel=1e-5)


def test_pictures_that_are_not_there_do_not_wait_for_the_teacher(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "load", None)
    at = (f"--teacher={teacher}", f"--run_dir={tmp_path}/x")
    assert f"--a={tmp_path}/no does not exist" in refusal(*at, f"--a={tmp_path}/no")
    assert f"{tmp_path}/more does not exist" in refusal(*at, f"--more_pictures={tmp_path}/more")
    moved = shutil.copytree(teacher, tmp_path / "moved")
    config = run_directory.config_path(moved)
    config.write_text(config.read_text().replace('"data": "emoji"', '"data": "/gone"'))
    said = refusal(f"--teacher={moved}", f"--run_dir={tmp_path}/x")
    assert said == "trained on --data=/gone, not found here: give --data=FOLDER"


def test_other_bad_input(teacher, tmp_path):
    at = f"--run_dir={tmp_path}/x"
    assert "--teacher is missing" in refusal(at)
    assert "is not a run directory" in refusal("--teacher=/nowhere", at)
    said = refusal(f"--teacher={teacher}", "--teacher_checkpoint=7", at)
    assert said == f"--teacher_checkpoint=7: {teacher} has 1"
    said = refusal(f"--teacher={teacher}", "--channels_b=1", "--student_width=8", at)
    assert said == "--channels_b=1: the teacher has 3, and so has its student"
    assert "are both" in refusal(f"--teacher={teacher}", f"--run_dir={teacher}")
    assert "--crop=30,30 does not fit" in refusal(f"--teacher={teacher}", "--crop=30", "--student_width=8", at)
    assert not (tmp_path / "x").exists()


def test_a_crop_given_alone_keeps_the_teachers_margin(tmp_path):
    data = settings.resolve("toy", {"data": "emoji"}).data
    teacher = dataclasses.replace(
        settings.resolve("toy", {}), data=dataclasses.replace(data, resize=(36, 36), crop=(32, 32))
    )
    assert distill._of_teacher(teacher, {"crop": (64, 64)})["resize"] == (72, 72)
    assert distill._of_teacher(teacher, {})["resize"] == (36, 36)
    assert "data" not in distill._of_teacher(teacher, {"a": "photos", "b": "paintings"})


@pytest.mark.parametrize("method", [*trained_by("train"), "toy"])
def test_every_method_teaches(method):
    """A student learns from each method's generator, whose range and sizes are its own."""
    about = described(method)
    teacher = METHODS[method].model_class(**about.TINY)
    teacher.build((None, None, None, 3))
    side = max(about.SIDE, SIDE)
    model = built()
    model.learn_from(teacher)
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    taught = model.to_pixels(model._taught(model.to_float(tf.constant(pixels))))
    mean = {} if teacher.style_size is None else {"style": np.zeros(teacher.style_size)}
    difference = np.abs(np.int16(taught) - teacher.translate(pixels, **mean))
    assert difference.max() <= 1 and difference.mean() < 0.01


def test_the_function_is_public():
    assert tfi2i.distill is api.distill
