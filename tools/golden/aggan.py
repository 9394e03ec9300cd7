"""What the official AGGAN computes: losses and images of both stages, two steps through the switch, a checkpoint.

Checkout: github.com/AlamiMejjati/Unsupervised-Attention-guided-Image-to-Image-Translation at commit a691e3a. It is
code of TensorFlow 1, which runs here on TensorFlow 2's `compat.v1`: all of it is the authors', networks, losses,
optimizer and image pool, but for the two functions of `tf.contrib` below, which are written after their documentation,
and for the order of a step, which stands in a loop that also reads files. Needs tfi2i's own environment, and no torch.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile
import types
import zipfile

import numpy as np
import tensorflow
from golden import files

tf = tensorflow.compat.v1
COMMIT = "a691e3a"
OFFICIAL = {
    "model.py": "9e278662f6a46b1723dea6b5d9e26b14b4df56cc",
    "main.py": "d5bfdb9b1a51c23491b6d9fa48c85df5e4acdc1e",
    "layers.py": "d86970b4c20c6303da7f2a57ca57e01e958a2ddd",
    "losses.py": "02955aee49fff126f3e3536290c63b023f1eb1e4",
    "cyclegan_datasets.py": "fa08e88e47d77d572741e4f789b45949bd8a9a54",
    "data_loader.py": "c81c3118f2b26bcdd9baca91be22ddea72251348",
}
SIZE = (24, 32)
RATE = 1e-3  # large enough that a step is seen beside rounding
THRESHOLD = 0.5


def convolution(x, filters, kernel, stride, padding, activation_fn, weights_initializer, biases_initializer):
    """`tf.contrib.layers.conv2d` with the arguments that the official code gives."""
    return _layer("Conv", tf.nn.conv2d, x, filters, kernel, stride, padding, weights_initializer, biases_initializer)


def transposed(x, filters, kernel, stride, padding, activation_fn, weights_initializer, biases_initializer):
    """`tf.contrib.layers.conv2d_transpose`, likewise; "SAME" makes the map `stride` times as large."""

    def compute(x, weights, strides, padding):
        n, h, w, _ = x.shape
        return tf.nn.conv2d_transpose(x, weights, [n, h * strides[1], w * strides[2], filters], strides, padding)

    name = "Conv2d_transpose"
    return _layer(name, compute, x, filters, kernel, stride, padding, weights_initializer, biases_initializer)


def _layer(name, compute, x, filters, kernel, stride, padding, weights, biases):
    (kh, kw), (sh, sw) = (tuple(v) if isinstance(v, (tuple, list)) else (v, v) for v in (kernel, stride))
    channels = (x.shape[-1], filters) if name == "Conv" else (filters, x.shape[-1])
    with tf.variable_scope(None, name):
        weights = tf.get_variable("weights", (kh, kw, *channels), initializer=weights)
        biases = tf.get_variable("biases", (filters,), initializer=biases)
        y = tf.nn.bias_add(compute(x, weights, [1, sh, sw, 1], padding.upper()), biases)
    # Sums of the first layers are exact in any order: what is a multiple of 2⁻¹² stays.
    (rounding,) = tf.local_variables()
    noise = rounding * tf.reduce_mean(tf.abs(y)) * tf.random.normal(tf.shape(y), seed=1)
    return y + tf.stop_gradient(tf.where(tf.equal(y * 2**12, tf.round(y * 2**12)), tf.zeros_like(y), noise))


@contextlib.contextmanager
def official(checkout, height, width, ngf, ndf):
    """The official `main.CycleGAN` in a graph of its own, with its losses and training operations, and a session."""
    tf.disable_eager_execution()
    tf.disable_control_flow_v2()
    tf.contrib = types.SimpleNamespace(
        layers=types.SimpleNamespace(conv2d=convolution, conv2d_transpose=transposed),
        slim=types.SimpleNamespace(get_or_create_global_step=tf.train.get_or_create_global_step),
    )
    sys.modules["tensorflow"] = tf
    sys.modules["scipy.misc"] = types.SimpleNamespace(imsave=None)  # no longer there, and not used
    try:
        main, model, losses = files.import_official(checkout, OFFICIAL, COMMIT, ["main", "model", "losses"])
        # Their names: the first side of a placeholder is IMG_WIDTH.
        model.IMG_WIDTH, model.IMG_HEIGHT, model.ngf, model.ndf = height, width, ngf, ndf
        with tf.Graph().as_default():
            config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
            config.graph_options.rewrite_options.disable_meta_optimizer = True  # each call takes but a moment
            with tf.Session(config=config) as session:
                # How far the outputs of layers are off by another rounding, see `record_steps`.
                tf.Variable(0.0, trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES])
                gan = main.CycleGAN(50, 10.0, 10.0, "", 0, RATE, 100, "", "", "", 1, False, 30, THRESHOLD)
                gan.model_setup()
                gan.compute_losses()
                gan.parts = {
                    "gan_a2b": losses.lsgan_loss_generator(gan.prob_fake_b_is_real),
                    "gan_b2a": losses.lsgan_loss_generator(gan.prob_fake_a_is_real),
                    "cycle_a": losses.cycle_consistency_loss(gan.input_a, gan.cycle_images_a),
                    "cycle_b": losses.cycle_consistency_loss(gan.input_b, gan.cycle_images_b),
                }
                gan.d_losses = {
                    "discriminator_a": losses.lsgan_loss_discriminator(
                        gan.prob_real_a_is_real, gan.prob_fake_pool_a_is_real
                    ),
                    "discriminator_b": losses.lsgan_loss_discriminator(
                        gan.prob_real_b_is_real, gan.prob_fake_pool_b_is_real
                    ),
                }
                gan.start = tf.group(tf.global_variables_initializer(), tf.local_variables_initializer())
                session.run(gan.start)
                yield gan, session
    finally:
        sys.modules["tensorflow"] = tensorflow


def randomize(gan, session, rng):
    """Random weights of a scale that every layer notices, multiples of 1/256; dict of name → array."""
    values = {}
    for v in sorted(gan.model_vars, key=lambda v: v.op.name):
        shape, kind = v.shape.as_list(), v.op.name.rsplit("/", 1)[-1]
        mean, std = {"weights": (0.0, None), "biases": (0.0, 0.1), "scale": (1.0, 0.2), "offset": (0.0, 0.1)}[kind]
        if kind == "weights":
            # A transposed convolution of stride 2 spreads each input over four times the pixels.
            fan_in = shape[0] * shape[1] * shape[3] / 4 if "transpose" in v.op.name else np.prod(shape[:3])
            std = fan_in**-0.5
        values[v.op.name] = (np.round(rng.normal(mean, std, shape) * 256) / 256).astype(np.float32)
    session.run([v.assign(values[v.op.name]) for v in gan.model_vars])
    return values


def step(gan, session, a, b, rate, second):
    """One iteration of `main.CycleGAN.train`; returns dict of loss → value, each before its own update.

    What is fetched is computed before the update, in a call of its own.
    """
    given = {gan.input_a: a, gan.input_b: b, gan.learning_rate: rate}
    given |= {gan.transition_rate: THRESHOLD if second else 0.0, gan.donorm: not second}
    found = {}
    for direction, masks in (("a2b", gan.masks[0]), ("b2a", gan.masks[1])):
        of_a2b = direction == "a2b"
        fake = gan.fake_images_b if of_a2b else gan.fake_images_a
        parts, image, mask = session.run([gan.parts, fake, masks], given)
        names = (f"gan_{direction}", "cycle_a", "cycle_b")
        found |= {f"{name}/{direction}": parts[name] for name in names}
        if of_a2b:
            session.run(gan.g_A_trainer_bis if second else gan.g_A_trainer, given)
            pool, trainer = gan.fake_images_B, gan.d_B_trainer
            ends = (gan.fake_pool_B, gan.fake_pool_B_mask)
        else:
            session.run(gan.g_B_trainer_bis if second else gan.g_B_trainer, given)
            pool, trainer = gan.fake_images_A, gan.d_A_trainer
            ends = (gan.fake_pool_A, gan.fake_pool_A_mask)
        stored = gan.fake_image_pool(gan.num_fake_inputs, image, mask, pool)
        judged = given | {ends[0]: stored["im"], ends[1]: stored["mask"]}
        name = f"discriminator_{direction[-1]}"
        found[name] = session.run(gan.d_losses[name], judged)
        session.run(trainer, judged)
    gan.num_fake_inputs += 1
    return found


def two_steps(gan, session, images, weights, rounding=0.0):
    """A step of the first stage and one of the second from these weights; dict of arrays.

    Args:
        rounding: about how far each layer's output is off, as a part of its mean magnitude.
    """
    session.run(gan.start)
    for v in gan.model_vars:
        v.load(weights[v.op.name], session)
    tf.local_variables()[0].load(rounding, session)
    gan.num_fake_inputs, gan.fake_images_A, gan.fake_images_B = 0, [], []
    arrays = {}

    def flat(values):
        """All variables' numbers in one array, in the order of `variables`."""
        return np.concatenate([values[name].ravel() for name in weights])

    slots = {v.op.name.removesuffix("/Adam"): v for v in tf.global_variables() if v.op.name.endswith("/Adam")}
    for k in range(2):
        # A rate that falls, as in the second half of the training.
        losses = step(gan, session, *images[k], RATE * (1 - k / 4), second=k == 1)
        arrays |= {f"losses{k + 1}/{name}": np.float32(value) for name, value in losses.items()}
        if k == 0:  # (1 - β1) times the gradient
            arrays["gradients1"] = 2 * flat(session.run(slots))
        arrays[f"after{k + 1}"] = flat(session.run({v.op.name: v for v in gan.model_vars}))
    tf.local_variables()[0].load(0.0, session)
    return arrays


def record_steps(gan, session, rng, output):
    """Two steps; images and masks before them.

    Where a gradient is nearly 0, its rounding decides how far Adam moves the weight: the steps are repeated with other
    roundings, and weights that then differ by a third of what tests allow are recorded as not a number.
    """
    images = files.random_images(rng, (2, 2, 1, *SIZE, 3))
    weights = randomize(gan, session, rng)
    arrays = {"images": images[:, :, 0], "rate": np.float32(RATE), "threshold": np.float32(THRESHOLD)}
    arrays["variables"] = np.array(json.dumps([(name, value.shape) for name, value in weights.items()]))
    arrays["weights"] = np.concatenate([value.ravel() for value in weights.values()])
    a, b = images[0]
    shown = {
        "mask_a": gan.masks[0], "mask_b": gan.masks[1], "fake_b": gan.fake_images_b, "fake_a": gan.fake_images_a,
        "cycle_a": gan.cycle_images_a, "cycle_b": gan.cycle_images_b,
    }  # fmt: skip
    given = {gan.input_a: a, gan.input_b: b, gan.transition_rate: 0.0, gan.donorm: True}
    arrays |= {f"images/{name}": value for name, value in session.run(shown, given).items()}
    judged = {"real_a": gan.prob_real_a_is_real, "fake_b": gan.prob_fake_b_is_real}
    for stage, changes in ((1, {}), (2, {gan.transition_rate: THRESHOLD, gan.donorm: False})):
        answers = session.run(judged, given | changes)
        arrays |= {f"judged{stage}/{name}": value for name, value in answers.items()}
    otherwise = [two_steps(gan, session, images, weights, files.ROUNDING) for _ in range(6)]
    arrays |= two_steps(gan, session, images, weights)
    for name in ("after1", "after2"):
        apart = np.max([np.abs(others[name] - arrays[name]) for others in otherwise], axis=0)
        unsteady = apart > 1e-5
        print(f"{name}: {unsteady.sum()} of {unsteady.size} weights depend on rounding.")
        arrays[name] = np.where(unsteady, np.float32(np.nan), arrays[name])
    files.save(output, "aggan_steps", arrays)


def record_checkpoint(gan, session, rng, output):
    """A checkpoint as the official code's saver writes it, after these steps, and what its networks make of images."""
    a, b = files.random_images(rng, (2, 1, *SIZE, 3))
    folder = files.new_checkpoints(output, "aggan.zip")
    session.run(tf.assign(gan.global_step, 99))
    with tempfile.TemporaryDirectory() as made:
        tf.train.Saver(max_to_keep=None).save(session, os.path.join(made, "AGGAN"), 99, write_meta_graph=False)
        with zipfile.ZipFile(folder / "aggan.zip", "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(pathlib.Path(made).glob("AGGAN-99.*")):
                packed.writestr(zipfile.ZipInfo(f"aggan/{path.name}"), path.read_bytes(), zipfile.ZIP_DEFLATED)
    shown = {
        "ab": gan.fake_images_b, "ba": gan.fake_images_a, "mask_a": gan.masks[0], "mask_b": gan.masks[1],
        "d_A": gan.prob_real_a_is_real, "d_B": gan.prob_real_b_is_real,
    }  # fmt: skip
    answers = session.run(shown, {gan.input_a: a, gan.input_b: b, gan.transition_rate: 0.0, gan.donorm: True})
    answers = {name: files.sparse(x[..., :1] if name.startswith("mask") else x) for name, x in answers.items()}
    files.save(folder, "aggan", {"a": a, "b": b, **answers})


def record(checkout, output):
    print(f"tensorflow {tensorflow.__version__}")
    rng = np.random.default_rng(1)
    with official(checkout, *SIZE, ngf=1, ndf=2) as (gan, session):
        record_steps(gan, session, rng, output)
        record_checkpoint(gan, session, rng, output)
