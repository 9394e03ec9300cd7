"""Adam and schedules against hand-made answers and PyTorch's."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfi2i.optim import Adam, AlternatingAdam, Schedule

GOLDEN = pathlib.Path(__file__).parent / "golden"


def test_adam_first_step_is_the_rate_whatever_the_gradient():
    # m̂ / sqrt(v̂) = sign(g) at t = 1; with Keras' epsilon the small gradient would move by 0.24 of the rate.
    weights = keras.Variable([0.0, 0.0, 0.0])
    Adam(0.5).apply([tf.constant([1e-6, -3.0, 0.0])], [weights])
    np.testing.assert_allclose(weights.numpy(), [-0.5 * 1e-6 / (1e-6 + 1e-8), 0.5, 0], rtol=1e-4)


@pytest.mark.parametrize("case", ["cyclegan", "weight_decay"])
@pytest.mark.parametrize("in_graph", [False, True])
def test_adam_is_torchs(in_graph, case):
    file = np.load(GOLDEN / "torch_adam.npz")
    settings = json.loads(str(file["config"]))[case]
    decay = settings.get("weight_decay", 0.0)
    optimizer = Adam(settings["lr"], *settings["betas"], coupled_weight_decay=decay)
    weights = keras.Variable(file["start"])
    optimizer.build([weights])
    step = tf.function(lambda g: optimizer.apply([g], [weights])) if in_graph else lambda g: optimizer.apply([g])
    for gradient, after in zip(file["gradients"], file[f"after/{case}"]):
        step(tf.constant(gradient))
        np.testing.assert_allclose(weights.numpy(), after, rtol=0, atol=5e-7)
    assert np.abs(after - file["start"]).min() > 1e-5  # tiny gradients move weights too


def test_weight_decay_waits_for_the_gradient():
    """Otherwise TensorFlow computes a copy of every weight at the start of a step and keeps it until its update."""
    optimizer, weights = Adam(coupled_weight_decay=0.1), keras.Variable([1.0, 2.0])
    optimizer.build([weights])
    step = tf.function(lambda x: optimizer.apply([tf.exp(x)], [weights]))
    operations = step.get_concrete_function(tf.TensorSpec([2])).graph.get_operations()
    (gradient,) = [op for op in operations if op.type == "Exp"]
    reads = [op for op in operations if op.type == "ReadVariableOp" and op.outputs[0].shape == (2,)]
    assert reads and all(gradient in op.control_inputs for op in reads)


def test_adam_takes_variables_of_several_dtypes():
    variables = [keras.Variable([1.0], dtype=dtype) for dtype in ("float32", "float64")]
    Adam(0.1).apply([tf.constant([3.0], v.dtype) for v in variables], variables)
    np.testing.assert_allclose([float(v[0]) for v in variables], 0.9, atol=1e-6)


def test_alternating_adams_share_their_powers_of_beta():
    """Two weights of gradient 2 by turns, as one optimizer of TensorFlow 1 with `minimize` for each moves them."""
    x, y = keras.Variable(1.0, name="x"), keras.Variable(1.0, name="y")
    optimizers = {id(v): AlternatingAdam(0.1, turn, beta_1=0.5) for v, turn in ((x, 1), (y, 2))}
    for v, expected in ((x, 0.9), (y, 0.905743), (x, 0.795049), (y, 0.792663)):
        optimizers[id(v)].apply([tf.constant(2.0)], [v])
        assert float(v) == pytest.approx(expected, abs=3e-6)
    # Epsilon is added to the uncorrected sqrt(v), 1e-8 * 0.001 ** 0.5 here.
    v = keras.Variable(0.0)
    AlternatingAdam(0.5, beta_1=0.5).apply([tf.constant(1e-8)], [v])
    assert float(v) == pytest.approx(-0.5 * 0.001**0.5 / (0.001**0.5 + 1), rel=1e-4)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizers[id(y)]))
    assert type(again) is AlternatingAdam and (again.turn, again.beta_1) == (2, 0.5)


def test_a_step_with_several_updates_has_one_rate():
    schedule = Schedule(1.0, "linear_steps", 4, 1, 1.0, updates_per_step=2)
    assert [float(schedule(update)) for update in range(8)] == [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    again = Schedule.from_config(schedule.get_config())
    assert float(again(2)) == 0.75
    seldom = Schedule(1.0, "linear_steps", 6000, 1, 1.0, updates_per_step=1 / 3000)
    assert [float(seldom(update)) for update in range(2)] == [1, 0.5]


def test_adam_and_its_schedule_survive_serialization():
    rate = Schedule(0.1, "linear", 40, 2, 0.25)
    optimizer = Adam(rate, 0.3, 0.9, 1e-5, coupled_weight_decay=0.1, name="mine", clipnorm=3.0)
    again = keras.optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(optimizer))))
    assert type(again) is Adam
    assert again.get_config() == optimizer.get_config()
    assert (again.beta_1, again.beta_2, again.epsilon, again.clipnorm) == (0.3, 0.9, 1e-5, 3.0)
    assert again.coupled_weight_decay == 0.1
    assert float(again._learning_rate(39)) == pytest.approx(0.1 / 6)


def multipliers(kind, epochs, steps_per_epoch=1, **options):
    """What each epoch trains with; fails where it changes within an epoch."""
    schedule = Schedule(1.0, kind, epochs * steps_per_epoch, steps_per_epoch, **options)
    steps = tf.range(epochs * steps_per_epoch, dtype=tf.int64)
    m = tf.function(schedule)(steps).numpy().reshape(epochs, steps_per_epoch)
    assert (m == m[:, :1]).all()
    return m[:, 0]


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("linear", [1, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("linear_zero_last", [1, 1, 3 / 4, 2 / 4, 1 / 4, 0]),
        ("linear_torch7", [1, 1, 1, 1, 2 / 3, 1 / 3]),
        ("constant", [1] * 6),
    ],
)
def test_schedules_by_hand(kind, expected):
    np.testing.assert_allclose(multipliers(kind, 6, 7), expected, atol=1e-6)


def test_linear_steps_by_hand():
    schedule = Schedule(8.0, "linear_steps", 8, 2, 0.5)
    assert [float(schedule(s)) for s in range(8)] == [8, 8, 8, 8, 8, 6, 4, 2]


@pytest.mark.parametrize(
    "kind, era",
    [("linear", "B"), ("linear", "D"), ("linear_zero_last", "A"), ("linear_zero_last", "C")],
)
def test_linear_is_the_official_codes(kind, era):
    file = np.load(GOLDEN / "schedules.npz")
    ours = multipliers(kind, 200, 3)
    np.testing.assert_allclose(ours, file[f"linear/{era}"], atol=1e-6)
    if era in "CD":  # the official resume tells the rule its epoch; ours knows it from the step
        np.testing.assert_allclose(ours[120:], file[f"linear_resumed_121/{era}"], atol=1e-6)


def test_step_is_the_official_codes():
    # Like `linear`, the form that is stepped at an epoch's end.
    np.testing.assert_allclose(multipliers("step", 200, 3), np.load(GOLDEN / "schedules.npz")["step/end"], rtol=1e-5)
    assert multipliers("step", 4, 2, lr_step_epochs=2).tolist() == pytest.approx([1, 1, 0.1, 0.1])


def test_halving_counts_steps_from_one():
    # UNIT 2018: the rate moves before the step that it is for.
    schedule = Schedule(1e-4, "halving", 1_000_000)
    rates = [float(schedule(n - 1)) for n in (1, 99_999, 100_000, 199_999, 200_000)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5], rtol=1e-6)


def test_cosine_is_the_official_codes_over_its_period():
    # The official cosine ends after n_epochs = 100 and rises again in the decaying epochs; ours spans the whole run.
    official = np.load(GOLDEN / "schedules.npz")["cosine/end"]
    np.testing.assert_allclose(multipliers("cosine", 100, 3), official[:100], atol=1e-6)
    assert official[199] > 0.9 > 0.01 > multipliers("cosine", 200)[199]


def test_epochs_begin_at_their_first_step_in_long_runs():
    multipliers("linear", 200, 1334)


def test_schedule_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="kind='exponential': expected one of linear"):
        Schedule(1.0, "exponential", 10)
