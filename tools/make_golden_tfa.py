"""Records what tensorflow-addons 0.23 computes, and models as Keras 2 saves them, for tests/golden/.

Needs the environment of requirements/tfa.txt, in which `make test-tfa` runs it with --check:

    python tools/make_golden_tfa.py                      # writes tests/golden/tfa*, checkpoints/cyclegan_keras*
    python tools/make_golden_tfa.py --output=FOLDER --check=tests/golden

The CycleGAN networks have the layers of three published codes, LynnHo/CycleGAN-Tensorflow-2, the example of keras.io
and TensorFlow's tutorial, and are saved in the ways that those codes or their users save them. Weights and inputs are
multiples of a power of two: exact in float32, and they compress well.
"""

import json
import os
import pathlib
import tempfile
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "output", str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "golden"), "where the files go"
)
flags.DEFINE_string("check", None, "folder of files that must have the same names and, within 1e-5, the same numbers")

keras = tf.keras


def random_numbers(rng, shape, mean=0.0, std=1.0, steps=64):
    """Normal float32, multiples of 1 / steps."""
    return (np.round(rng.normal(mean, std, shape) * steps) / steps).astype(np.float32)


def randomize(layer, rng):
    """Weights of a scale that every layer notices; factors and variances are positive."""
    values = []
    for w in layer.weights:
        name = w.name.split("/")[-1].split(":")[0]
        if name == "kernel":
            fan_in = np.prod(w.shape[:-1])
            values.append(random_numbers(rng, w.shape, 0, fan_in**-0.5, 256))
        elif name in ("gamma", "scale", "moving_variance"):
            values.append(np.abs(random_numbers(rng, w.shape, 1, 0.2)))
        else:
            values.append(random_numbers(rng, w.shape, 0, 0.3))
    layer.set_weights(values)
    return layer


def state(layer, prefix):
    return {f"{prefix}/{w.name.split('/')[-1].split(':')[0]}": w.numpy() for w in layer.weights}


def save(output, name, arrays):
    path = output / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path.name:40s}{path.stat().st_size / 1024:8.1f} KiB{len(arrays):6d} arrays")


def record_norms(output):
    """Instance and group norms: CASE/{config,input,gamma,beta,output}."""
    rng, arrays = np.random.default_rng(30), {}
    instance, group = tfa.layers.InstanceNormalization, tfa.layers.GroupNormalization
    cases = {
        "instance": (instance, {}, (2, 5, 4, 3)),
        "instance_plain": (instance, dict(center=False, scale=False, epsilon=1e-5), (2, 4, 3, 2)),
        "instance_first": (instance, dict(axis=1), (2, 3, 4, 5)),
        "instance_vectors": (instance, dict(scale=False), (2, 7, 3)),
        "group": (group, dict(groups=2), (2, 4, 5, 6)),
        "group_first": (group, dict(groups=3, axis=1, center=False), (2, 6, 4, 5)),
        "group_third": (group, dict(groups=2, axis=3), (2, 3, 4, 4)),
        "group_each": (group, dict(groups=4, epsilon=0.5), (2, 3, 3, 4)),
        "group_one": (group, dict(groups=1), (3, 6)),
    }
    for name, (kind, options, shape) in cases.items():
        layer = kind(**options)
        layer.build((None, *shape[1:]))
        randomize(layer, rng)
        x = random_numbers(rng, shape, 0.5, 2)
        config = json.dumps(layer.get_config() | {"name": name})
        arrays |= {f"{name}/config": np.array(config), f"{name}/input": x, f"{name}/output": layer(x).numpy()}
        arrays |= state(layer, name)
    save(output, "tfa_norms", arrays)


def record_spectral(output):
    """Spectral norms: weights before, the output, kernel and u of two calls in training, the output of one without."""
    rng, arrays = np.random.default_rng(31), {}
    cases = {
        "conv": (keras.layers.Conv2D(4, 3, name="inner"), 1, (2, 6, 5, 3)),
        "dense": (keras.layers.Dense(3, use_bias=False, name="inner"), 3, (4, 5)),
    }
    for name, (inner, iterations, shape) in cases.items():
        layer = tfa.layers.SpectralNormalization(inner, power_iterations=iterations)
        layer.build((None, *shape[1:]))
        randomize(layer, rng)
        x = random_numbers(rng, shape)
        arrays |= {f"{name}/input": x, f"{name}/power_iterations": np.array(iterations), **state(layer, name)}
        for k in (1, 2):
            with tf.GradientTape() as tape:
                y = layer(x, training=True)
                loss = tf.reduce_sum(y**2)
            arrays[f"{name}/train{k}/output"] = y.numpy()
            arrays[f"{name}/train{k}/gradient"] = tape.gradient(loss, layer.layer.kernel).numpy()
            arrays |= state(layer, f"{name}/train{k}")
        arrays[f"{name}/inference"] = layer(x, training=False).numpy()
    save(output, "tfa_spectral", arrays)


def record_model(output):
    """A whole model with all three layers, as h5 and in the format of Keras 3, and what it computes."""
    rng = np.random.default_rng(32)
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = tfa.layers.InstanceNormalization()(x)
    x = keras.layers.LeakyReLU(0.2)(x)
    x = tfa.layers.SpectralNormalization(keras.layers.Conv2D(6, 4, strides=2, padding="same"))(x)
    x = tfa.layers.GroupNormalization(groups=3, beta_regularizer="l2")(x)
    outputs = keras.layers.Dense(2, activation="tanh")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs, name="judge")
    for layer in model.layers:
        randomize(layer, rng)
    model.save(output / "tfa_model.h5", include_optimizer=False)
    model.save(output / "tfa_model.keras")
    images = random_numbers(rng, (3, 8, 8, 3), steps=8)
    save(output, "tfa_model", {"input": images, "output": model(images, training=False).numpy()})


# === CycleGAN's networks ===


class ReflectionPadding2D(keras.layers.Layer):
    """As people write it."""

    def __init__(self, padding=(1, 1), **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, x):
        (h, w) = self.padding
        return tf.pad(x, [[0, 0], [h, h], [w, w], [0, 0]], "REFLECT")


class Layers:
    """keras.io's: a layer of its own for padding, and Activation."""

    norm = tfa.layers.InstanceNormalization

    @staticmethod
    def pad(x, n):
        return ReflectionPadding2D((n, n))(x)

    @staticmethod
    def relu(x):
        return keras.layers.Activation("relu")(x)

    @staticmethod
    def leaky(x):
        return keras.layers.LeakyReLU(0.2)(x)

    @staticmethod
    def tanh(x):
        return keras.layers.Activation("tanh")(x)


class Functions(Layers):
    """LynnHo's: functions of TensorFlow, which Keras makes layers of."""

    pad = staticmethod(lambda x, n: tf.pad(x, [[0, 0], [n, n], [n, n], [0, 0]], mode="REFLECT"))
    relu = staticmethod(tf.nn.relu)
    leaky = staticmethod(lambda x: tf.nn.leaky_relu(x, alpha=0.2))
    tanh = staticmethod(tf.tanh)


def generator(width, blocks, parts=Layers, channels=3, name=None):
    """c7s1, two d, R, two u, c7s1; padded by reflection but where the stride is 2, where by zeros, "same"."""
    x = inputs = keras.Input((16, 16, channels))

    def conv(x, filters, side, **kwargs):
        return parts.norm()(keras.layers.Conv2D(filters, side, use_bias=False, **kwargs)(x))

    x = parts.relu(conv(parts.pad(x, 3), width, 7))
    for m in (2, 4):
        x = parts.relu(conv(x, width * m, 3, strides=2, padding="same"))
    for _ in range(blocks):
        y = parts.relu(conv(parts.pad(x, 1), width * 4, 3))
        x = keras.layers.add([x, conv(parts.pad(y, 1), width * 4, 3)])
    for m in (2, 1):
        x = keras.layers.Conv2DTranspose(width * m, 3, strides=2, padding="same", use_bias=False)(x)
        x = parts.relu(parts.norm()(x))
    x = parts.tanh(keras.layers.Conv2D(channels, 7)(parts.pad(x, 3)))
    return keras.Model(inputs, x, name=name)


def discriminator(width, parts=Layers, name=None):
    """Three strides of 2, one of 1 and the last, all "same"."""
    x = inputs = keras.Input((16, 16, 3))
    x = parts.leaky(keras.layers.Conv2D(width, 4, strides=2, padding="same")(x))
    for m, strides in ((2, 2), (4, 2), (8, 1)):
        x = keras.layers.Conv2D(width * m, 4, strides=strides, padding="same", use_bias=False)(x)
        x = parts.leaky(parts.norm()(x))
    return keras.Model(inputs, keras.layers.Conv2D(1, 4, padding="same")(x), name=name)


class InstanceNormalization(keras.layers.Layer):
    """The tutorial's own."""

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, shape):
        self.scale = self.add_weight("scale", shape[-1:])
        self.offset = self.add_weight("offset", shape[-1:])

    def call(self, x):
        mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
        return self.scale * (x - mean) * tf.math.rsqrt(variance + self.epsilon) + self.offset


def unet(width, downs, norm=InstanceNormalization, name=None):
    """The tutorial's U-Net, every level a Sequential; slopes are Keras' 0.3."""
    inputs = keras.Input((None, None, 3))
    x, skips, filters = inputs, [], [width * min(2**i, 8) for i in range(downs)]
    for i in range(downs):
        conv = keras.layers.Conv2D(filters[i], 4, strides=2, padding="same", use_bias=False)
        x = keras.Sequential([conv, *([norm()] if i else []), keras.layers.LeakyReLU()])(x)
        skips.append(x)
    for i in range(downs - 1):
        up = keras.layers.Conv2DTranspose(filters[-2 - i], 4, strides=2, padding="same", use_bias=False)
        dropout = [keras.layers.Dropout(0.5)] if i < 3 else []
        x = keras.Sequential([up, norm(), *dropout, keras.layers.ReLU()])(x)
        x = keras.layers.Concatenate()([x, skips[-2 - i]])
    x = keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="tanh")(x)
    return keras.Model(inputs, x, name=name)


class CycleGan(keras.Model):
    """The example's model: a container of four networks, trained by `fit`."""

    def __init__(self, *networks):
        super().__init__()
        self.gen_G, self.gen_F, self.disc_X, self.disc_Y = networks

    def call(self, inputs):
        return self.disc_Y(self.gen_G(inputs)), self.disc_X(self.gen_F(inputs))


def record_cyclegans(output):
    """Checkpoints in an archive for each way of saving, and translations and judgements of the networks."""
    rng = np.random.default_rng(33)
    folder = output / "checkpoints"
    folder.mkdir(exist_ok=True)
    x = random_numbers(rng, (1, 16, 16, 3), 0, 0.5, 8).clip(-1, 1)
    arrays = {"input": x}

    def networks(prefix, width, blocks, parts, names):
        found = {}
        for i, name in enumerate(names):
            net = generator(width, blocks, parts, name=name) if i < 2 else discriminator(width, parts, name=name)
            found[name] = randomize(net, rng)
            arrays[f"{prefix}/{name}"] = net(x).numpy()
        return found

    with tempfile.TemporaryDirectory() as temporary:
        # tf.train.Checkpoint of four networks and two optimizers, numbered by tf.train.CheckpointManager.
        root = pathlib.Path(temporary) / "cyclegan_keras_checkpoint"
        found = networks("checkpoint", 2, 9, Functions, ("G_A2B", "G_B2A", "D_A", "D_B"))
        optimizer = keras.optimizers.Adam(0.0)
        variables = found["G_A2B"].trainable_variables + found["G_B2A"].trainable_variables
        optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
        checkpoint = tf.train.Checkpoint(**found, G_optimizer=optimizer, ep_cnt=tf.Variable(7, dtype=tf.int64))
        tf.train.CheckpointManager(checkpoint, str(root), max_to_keep=5).save(checkpoint_number=6)
        archive(folder, root)

        # save_weights of the example's model, and the same as h5.
        root = pathlib.Path(temporary) / "cyclegan_keras_weights"
        names = ("generator_G", "generator_F", "discriminator_X", "discriminator_Y")
        model = CycleGan(*networks("weights", 1, 6, Layers, names).values())
        model(x)
        model.save_weights(root / "cyclegan_checkpoints.090")
        archive(folder, root)
        root = pathlib.Path(temporary) / "cyclegan_keras_model_h5"
        root.mkdir()
        model.save_weights(root / "cyclegan.h5")
        archive(folder, root)

        # One generator in every format.
        alone = networks("alone", 2, 6, Layers, ("generator_G",))["generator_G"]
        root = pathlib.Path(temporary) / "cyclegan_keras_saved_model"
        alone.save(root, save_format="tf", include_optimizer=False)
        (root / "saved_model.pb").write_bytes(b"not read")
        for name in ("keras_metadata.pb", "fingerprint.pb"):
            (root / name).unlink()
        archive(folder, root)
        for name in ("whole.h5", "weights.h5", "whole.keras"):
            root = pathlib.Path(temporary) / f"cyclegan_keras_{name.replace('.', '_')}"
            root.mkdir()
            write = alone.save_weights if name == "weights.h5" else alone.save
            write(root / f"horse2zebra.{name.split('.')[1]}")
            archive(folder, root)
        root = pathlib.Path(temporary) / "cyclegan_keras_classed"
        root.mkdir()
        alone.save_weights(root / "horse2zebra.weights.h5")
        archive(folder, root)
        root = pathlib.Path(temporary) / "cyclegan_keras_functions_h5"
        root.mkdir()
        same = generator(2, 6, Functions)
        same.set_weights(alone.get_weights())
        same.save(root / "horse2zebra.h5")
        archive(folder, root)

        # The tutorial's checkpoint, of U-Nets; and a U-Net with batch norm, whole, as of its paired sibling.
        tile = random_numbers(rng, (1, 32, 32, 3), 0, 0.5, 8).clip(-1, 1)
        arrays["tile"] = tile
        root = pathlib.Path(temporary) / "cyclegan_keras_tutorial"
        nets = {n: randomize(unet(1, 8, name=n), rng) for n in ("generator_g", "generator_f")}
        nets |= {n: randomize(discriminator(1, name=n), rng) for n in ("discriminator_x", "discriminator_y")}
        optimizer = keras.optimizers.legacy.Adam(0.0)  # whose state lies beside the weights
        optimizer.apply_gradients([(tf.zeros_like(v), v) for v in nets["generator_g"].trainable_variables])
        tf.train.Checkpoint(**nets, generator_g_optimizer=optimizer).save(root / "ckpt")
        archive(folder, root)
        root = pathlib.Path(temporary) / "cyclegan_keras_unet_h5"
        root.mkdir()
        paired = randomize(unet(1, 7, keras.layers.BatchNormalization), rng)
        paired.save(root / "facades.h5")
        archive(folder, root)
        for net, side in ((nets["generator_g"], 8), (nets["generator_f"], 8), (paired, 4)):
            name = net.name if side == 8 else "paired"
            arrays[f"unet/{name}"] = net(np.tile(tile, (1, side, side, 1))).numpy()[:, ::7, ::7]
    save(folder, "cyclegan_keras", arrays)


def archive(folder, root):
    """Packs what is in `root`, under its name, with dates that do not change."""
    path = folder / f"{root.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            name = zipfile.ZipInfo(str(file.relative_to(root.parent)))
            packed.writestr(name, file.read_bytes(), zipfile.ZIP_DEFLATED)
    print(f"{path.name:40s}{path.stat().st_size / 1024:8.1f} KiB")


# === Comparison ===


def contents(path):
    """All arrays of a recorded file by name, those of the files in an archive too."""
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".index":
        reader = tf.train.load_checkpoint(str(path.with_suffix("")))
        shown = [n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
        return {n: reader.get_tensor(n) for n in shown}
    arrays = {}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            file.visititems(lambda n, d: arrays.update({n: d[()]}) if isinstance(d, h5py.Dataset) else None)
            if "model_config" in file.attrs:
                arrays["model_config"] = np.array(file.attrs["model_config"])
    elif path.suffix in (".zip", ".keras"):
        with tempfile.TemporaryDirectory() as temporary:
            with zipfile.ZipFile(path) as packed:
                packed.extractall(temporary)
            for file in sorted(pathlib.Path(temporary).rglob("*.*")):
                name = file.relative_to(temporary)
                arrays |= {f"{name}:{n}": a for n, a in contents(file).items()}
    return arrays


def check(output, expected):
    """Raises ValueError where files differ in more than rounding; dates and versions may."""
    files = sorted(p.relative_to(output) for p in output.rglob("*.*") if p.is_file())
    for name in files:
        new, old = contents(output / name), contents(expected / name)
        if new.keys() != old.keys():
            raise ValueError(f"{name}: {sorted(new.keys() ^ old.keys())[:4]} are in one of the two only.")
        for key, array in new.items():
            if array.dtype.kind in "OUS":
                same = str(array) == str(old[key])
            else:
                same = array.shape == old[key].shape and np.allclose(array, old[key], rtol=1e-5, atol=1e-5)
            if not same:
                raise ValueError(f"{name}: {key} is not what was recorded.")
        print(f"{name}: {len(new)} arrays as recorded")
    print(f"{len(files)} files agree")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: use --output=FOLDER.")
    output = pathlib.Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    print(f"tensorflow {tf.__version__}, tensorflow-addons {tfa.__version__}, numpy {np.__version__}")
    for record in (record_norms, record_spectral, record_model, record_cyclegans):
        keras.backend.clear_session()
        record(output)
    if FLAGS.check:
        check(output, pathlib.Path(FLAGS.check))


if __name__ == "__main__":
    app.run(main)
