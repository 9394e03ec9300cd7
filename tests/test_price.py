"""What a run costs, and what users are told before it begins and after it has ended."""

import math
import shlex
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

from tests.own_flags import call
from tests.test_configs import resolver
from tfi2i import command_line, machine, machine_report, settings
from tfi2i.commands import train
from tfi2i.config import UserError
from tfi2i.methods.sizes import Sizes
from tfi2i.training import advice, loop, price, stopping
from tfi2i.training.stopping import Stop


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; clock[0] is the time."""
    now = [0.0]
    for module in (price.time, stopping.time):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def resolve():
    yield from resolver(command_line.define_train_flags)


def measured(clock, meter, durations, stages=()):
    """(step after which the meter is done, what it measured) of steps of these durations."""
    for step, took in enumerate(durations, 1):
        clock[0] += took
        meter.read(stages[step - 1] if stages else None)
        if meter.seconds:
            return step, meter.seconds
    return None


def test_steps_are_timed_without_those_that_trace(clock):
    alike = {None: 1000}
    assert measured(clock, price.Meter(alike), [60] + 30 * [0.5]) == (21, 0.5)  # 20 steps
    assert measured(clock, price.Meter(alike), [60] + 30 * [4.0]) == (4, 4.0)  # until 10 s are over
    assert measured(clock, price.Meter(alike), [60] + 30 * [100.0]) == (3, 100.0)  # two at least
    assert measured(clock, price.Meter(alike, 2), [60, 1, 2, 9]) == (3, 1.5)
    assert measured(clock, price.Meter(alike), [60, 1, 1]) is None


def test_each_kind_of_steps_counts_as_often_as_it_comes(clock):
    # Every third step is a full one, of 4 s, after two of 1 s: 2 s in the mean.
    meter = price.Meter({"contents": 200, None: 100}, 4)
    durations, kinds = [60, 1, 50, 1, 1, 4, 1, 1, 4, 1], 4 * ["contents", "contents", None]
    assert measured(clock, meter, durations, kinds) == (9, 2.0) and meter.complete
    # 300 steps of 1 s, then 100 of 3 s, of which a run is told nothing before they come.
    meter = price.Meter({"first": 300, "then": 100}, 2)
    assert measured(clock, meter, [60, 1, 1], 3 * ["first"]) == (3, 1.0) and not meter.complete
    # A dry run times all, however long the first ones take.
    meter = price.Meter({"first": 300, "then": 100}, 4, math.inf)
    assert measured(clock, meter, [60, 10, 10, 60, 30, 30], 3 * ["first"] + 3 * ["then"]) == (6, 15.0)
    assert meter.complete


def test_the_price_in_time(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    price.time.tzset()
    monkeypatch.setattr(price.time, "time", lambda: 1_800_000_000.0)  # 2027-01-15 08:00:00
    assert price.of_time(0.5, 7200) == "0.5 s a step: 7200 steps take 1h00m, until Fri 15 Jan 2027 09:00"
    assert price.of_time(12.34, 7200, evaluations=True) == (
        "12 s a step: 7200 steps take 1d00h, until Sat 16 Jan 2027 08:40; evaluations take further time"
    )
    assert price.of_time(0.5, 7200, complete=False).endswith(
        "; later steps, of another kind that is not timed yet, may take longer or shorter"
    )
    assert [price.is_long(12, n) for n in (7200, 7201)] == [False, True]
    monkeypatch.undo()
    price.time.tzset()


def test_the_price_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(price.checkpoints, "sizes", lambda model: (2**30, 3 * 2**30))
    free = types.SimpleNamespace(free=9.5 * 2**30)
    monkeypatch.setattr(price.shutil, "disk_usage", lambda folder: free)
    training = settings.resolve("cyclegan", {"keep": 3}).training
    text, enough = price.of_disk(None, training, 5000, tmp_path / "new" / "run")
    assert enough and text == f"checkpoints will take 9.0 GiB (3 of 3.0 GiB); 9.5 GiB are free in {tmp_path}"
    training = settings.resolve("cyclegan", {"keep": 3, "eval_every": 100}).training
    text, enough = price.of_disk(None, training, 5000, tmp_path)
    assert not enough and "10.0 GiB (3 of 3.0 GiB, and best/ of 1.0 GiB)" in text and "a smaller --keep than 3" in text
    assert price.of_disk(None, training, 1500, tmp_path)[1]  # two checkpoints in 1500 steps
    # What lies there already needs no further space.
    (tmp_path / "checkpoints" / "00001000").mkdir(parents=True)
    with open(tmp_path / "checkpoints" / "00001000" / "state", "wb") as file:
        file.truncate(2**29)
    assert price.of_disk(None, training, 5000, tmp_path)[1]


@pytest.mark.parametrize(
    "arguments, half, night",
    [
        # 12 hours of 6 s are 7200 steps, about 7000; an epoch has 700.
        ("--data=x", [(128, 128), (143, 143)], {"epochs": 10.0}),
        ("--data=x --crop=100 --resize=120 --steps=90000", [(48, 48), (58, 58)], {"steps": 7000}),
        ("--method=ugatit '--data=my pictures' --crop=64,128", [(32, 64), (36, 72)], {"steps": 7000}),
        ("--data=x --crop=24", None, {"epochs": 10.0}),  # the half would be too small
        ("--data=x --images=90000 --batch_size=2", [(128, 128), (143, 143)], {"images": 14000}),
    ],
)  # fmt: skip
def test_what_is_cheaper_are_commands_that_work(resolve, monkeypatch, arguments, half, night):
    monkeypatch.setattr(price.presets, "names", lambda: [])
    run = resolve(*shlex.split(arguments))
    model = types.SimpleNamespace(sizes=Sizes(4, 16, crop_minimum=32 if half else 16))
    lines = price.cheaper(run, "runs/x", model, 6.0, 700)
    commands = [shlex.split(line) for line in lines if line.lstrip().startswith("tfi2i train ")]
    *smaller, short = [resolve(*words[2:]) for words in commands]
    assert len(smaller) == (half is not None)
    for found in smaller:
        assert [found.data.crop, found.data.resize] == half
        assert found.data.data == run.data.data and found.training == run.training
    assert short.training.init_from == "TRAINED" and short.data == run.data
    assert {n: getattr(short.training, n) for n in settings.DURATIONS} == dict.fromkeys(settings.DURATIONS) | night
    assert "tfi2i[gpu]" in lines[-1]


def test_the_small_preset_is_named_where_it_comes_installed(resolve, monkeypatch):
    run = resolve("--data=my pictures", "--crop=512", "--jitter=0.1", "--steps=9000", "--seed=4")
    model = types.SimpleNamespace(sizes=Sizes(4))
    monkeypatch.setattr(price.presets, "names", lambda: ["unit/own_small"])
    assert not any("own_small" in line for line in price.cheaper(run, "runs/x", model, 60.0, 700))
    monkeypatch.setattr(price.presets, "names", lambda: ["cyclegan/own_small", "unit/own_small"])
    (line,) = [line for line in price.cheaper(run, "runs/x", model, 60.0, 700) if "--preset" in line]
    words = ["--preset=cyclegan/own_small", "--data=my pictures", "--jitter=0.1", "--run_dir=runs/x-own_small"]
    assert shlex.split(line) == ["tfi2i", "train", "--method=cyclegan", *words]
    # It is no help to who has taken it already, or takes smaller pictures.
    for more, named in (((), False), (("--crop=64",), False), (("--generator=resnet_9blocks",), True)):
        small = resolve("--preset=cyclegan/own_small", "--data=my pictures", *more)
        assert any("own_small" in line for line in price.cheaper(small, "runs/x", model, 60.0, 700)) == named
    # Files of a method's own stay where they are, too.
    monkeypatch.setattr(price.presets, "names", lambda: ["cartoongan/own_small"])
    run = resolve("--method=cartoongan", "--data=pictures", "--lambda_vgg=5", "--vgg_weights=/vgg.h5")
    (line,) = [line for line in price.cheaper(run, "runs/x", model, 60.0, 700) if "--preset" in line]
    assert "--vgg_weights=/vgg.h5" in shlex.split(line) and "lambda_vgg" not in line


# ------------------------------------------------------------------------------------------- before and after a run


def test_a_method_with_a_pretraining_is_not_started_without_a_word(resolve):
    run = resolve("--flagfile=configs/uvcgan2/emoji.flags", "--seed=3")
    model = types.SimpleNamespace(advice={"no pre-training": "they paint white"})
    warning, first, second, both = advice.before(run, "runs/x", model, None)
    assert "uvcgan2 starts without pre-training; they paint white" in warning and "--pretrain_steps=512000" in both
    before = resolve(*shlex.split(first)[2:])
    assert before == settings.pretraining(run) and before.training.task == "pretrain"
    assert (before.model.generator_width, before.model.init, before.data.crop) == (24, "kaiming", (64, 64))
    # As published, not as the translation learns.
    assert (before.model.learning_rate, before.training.batch_size, before.training.seed) == (3.125e-4, 16, 3)
    then = resolve(*shlex.split(second)[2:])
    assert then.training.pretrained == "runs/x-pretrain" and then.model == run.model
    assert shlex.split(first)[-1] == "--run_dir=runs/x-pretrain"
    for start in ("--pretrained=x", "--init_from=x", "--task=pretrain"):
        given = ["--method=uvcgan2", "--data=emoji", start]
        assert advice.before(resolve(*given), "runs/x", model, None) == []


def test_a_short_pretraining_has_one_cycle_of_rates(resolve):
    run = resolve("--method=uvcgan", "--data=emoji")
    assert settings.pretraining(run, 1500).training.lr_restart_steps == 1500
    assert settings.pretraining(run, 100_000).training.lr_restart_steps == 51_200


def test_what_a_finished_run_advises():
    linear = settings.resolve("cyclegan", {"steps": 7}).training
    said = advice.finished(linear, "runs/x", 7, open_ended=False)
    assert "--lr_schedule=linear; to learn on" in said and "--init_from=runs/x --run_dir=NEW" in said
    assert "a longer" not in said
    constant = settings.resolve("cyclegan", {"epochs": 2.0, "lr_schedule": "constant"}).training
    assert "a longer --epochs goes on" in advice.finished(constant, "runs/x", 7, open_ended=True)


# --------------------------------------------------------------------------------------- pre-training in one command


@pytest.fixture
def trained(monkeypatch):
    """Records the calls of `loop.train`, which makes the last checkpoint's folder only."""
    calls = []

    def record(run, run_dir, dry_run=False):
        calls.append((run, str(run_dir)))
        train.run_directory.checkpoint_folder(run_dir, run.training.steps).mkdir(parents=True)

    monkeypatch.setattr(loop, "train", record)
    monkeypatch.setattr(train.machine, "import_tensorflow", lambda: None)
    return calls


def test_pretraining_and_translation_in_one_command(trained, tmp_path, clock, monkeypatch):
    arguments = ["--method=uvcgan2", "--data=emoji", "--pretrain_steps=5", "--steps=9", "--max_hours=2"]
    arguments += ["--mask_patch=8", f"--run_dir={tmp_path}/run/"]  # a flag of the pre-training alone
    record = loop.train

    def an_hour(*given):
        record(*given)
        clock[0] += 3600

    monkeypatch.setattr(loop, "train", an_hour)
    call(train, *arguments)
    (first, folder), (run, then) = trained
    assert folder == f"{tmp_path}/run-pretrain" and then == f"{tmp_path}/run/"
    assert (first.training.task, first.training.steps, first.training.max_hours) == ("pretrain", 5, 2)
    assert first.model.mask_patch == 8
    assert run.training.pretrained == f"{tmp_path}/run-pretrain"
    assert (run.training.task, run.training.steps, run.training.max_hours) == ("translate", 9, 1)
    # The same command finds the pre-training finished.
    shutil.rmtree(tmp_path / "run")
    call(train, *arguments)
    (run, folder), hours = trained[2], trained[2][0].training.max_hours
    assert folder == f"{tmp_path}/run/" and hours == 2 and len(trained) == 3


@pytest.mark.parametrize(
    "flag, said",
    [
        ("--pretrained=x", "--pretrain_steps and --pretrained both"),
        ("--init_from=x", "--pretrain_steps and --init_from both"),
        ("--task=pretrain", "leave --task=pretrain out"),
        ("--method=cyclegan", "not for --method=cyclegan"),
    ],
)
def test_impossible_pretrainings_are_refused(trained, tmp_path, flag, said):
    with pytest.raises(UserError, match=said):
        call(train, "--method=uvcgan2", "--data=emoji", "--pretrain_steps=5", flag, f"--run_dir={tmp_path}/run")
    assert not trained


# ------------------------------------------------------------------------------------------------------ stopping


def test_time_is_over_at_the_deadline_unless_a_signal_came(clock):
    stop = Stop(deadline=10.0)
    stop.restore()
    clock[0] = 9.9
    assert stop.reason is None and stop.tensor().numpy().tolist() == [0, 0, 0, 0]
    clock[0] = 10.0
    assert stop.reason == Stop.TIME and stop.tensor().numpy().tolist() == [0, 0, 1, 0]
    stop.number = 15
    assert stop.reason == 15 and stop.tensor().numpy().tolist() == [0, 1, 0, 0]
    never = Stop()
    never.restore()
    assert never.reason is None


@pytest.mark.parametrize(
    "sums, agreed",
    [
        ((0, 0, 0, 0), None), ((0, 0, 1, 0), Stop.TIME), ((1, 0, 1, 0), 2), ((2, 1, 0, 0), 15),
        ((0, 1, 1, 1), Stop.FAILURE),
    ],
)  # fmt: skip
def test_workers_agree_on_why_they_stop(sums, agreed):
    assert Stop.agreed(types.SimpleNamespace(numpy=lambda: np.float32(sums))) == agreed
    assert Stop.agreed(None) is None


def test_exit_statuses():
    assert [stopping.Interrupted(number, 1, None).status for number in (2, 15, None)] == [130, 143, 75]


# ------------------------------------------------------------------------------------------------------ the machine


def test_another_backend_of_keras_is_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UserError, match="KERAS_BACKEND=jax: tfi2i needs TensorFlow's backend: unset KERAS_BACKEND"):
        machine.check_backend()
    monkeypatch.delenv("KERAS_BACKEND")
    machine.check_backend()
    assert machine.os.environ["KERAS_BACKEND"] == "tensorflow"


def test_peak_memory_is_of_this_program_and_not_of_the_one_that_started_it():
    large = np.ones(300 << 17)  # 300 MiB, all written
    program = "import numpy; from tfi2i import machine; x = numpy.ones(100 << 17); print(machine.peak_resident())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 100 < int(done.stdout) / 2**20 < 200
    assert machine.peak_resident() > large.nbytes


def test_a_card_that_tensorflow_does_not_see_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.unused_cards() == [] and machine.cuda_advice() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA X1\necho NVIDIA X1\n")
    tool.chmod(0o755)
    monkeypatch.setattr(machine.shutil, "which", lambda name: str(tool))
    assert machine.unused_cards() == ["NVIDIA X1", "NVIDIA X1"]
    assert "this machine has NVIDIA X1, and TensorFlow sees no GPU" in machine.cuda_advice()
    assert "tfi2i[gpu]" in machine.cuda_advice()
    tool.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert machine.unused_cards() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    tool.write_text("#!/bin/sh\necho NVIDIA X1\n")
    assert machine.unused_cards() == []


def test_the_machine_is_described(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    lines = dict(line.split(": ", 1) for line in machine_report.examine_machine(tmp_path / "not" / "there"))
    assert {
        "devices",
        "versions",
        "--precision=auto",
        "--xla=auto",
        "--strategy=auto",
        "memory",
        "disk",
    } <= lines.keys()
    assert lines["devices"] == machine.devices() and f"keras {loop.keras.__version__}" in lines["versions"]
    assert lines["disk"].endswith(f"free in {tmp_path}")
