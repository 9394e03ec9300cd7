"""What all methods share: a Keras model that translates both ways and learns in named phases.

A phase computes losses in a pure function (weights, batch, noise) → (losses, gradients, new state), which XLA may
compile, and applies gradients and state outside it. `jit_compile=True` for the whole step would fail with more than
one replica, because XLA then reads a variable of another device.
"""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfi2i import layers, optim
from tfi2i.config import UserError

DIRECTIONS = ("a2b", "b2a")


class Translator(keras.Model):
    """Base of the four methods.

    A method sets `config_class`, `value_range`, `size_multiple`, creates its networks in `__init__`, names them in
    `networks` and `generators`, and describes one training step in `learn`.

    Calling the model, and `predict`, translate a→b in the method's float range [N, H, W, C]. `translate` takes pixels.

    Args:
        channels_a: channels of domain A, 1 or 3.
        channels_b: channels of domain B, 1 or 3.
        seed: seeds initial weights and every draw in training.
        **hyperparameters: the fields of `config_class`; see `tfi2i.config`.
    """

    config_class = None
    value_range = (-1.0, 1.0)
    # Sides of the networks' input must be multiples of this; `translate` pads by reflection and cuts back.
    size_multiple = 1
    # … and at least this, so that the innermost map is large enough for its own padding.
    size_minimum = 1
    # (height, width) where the networks take no other, as dense layers over a whole map do: images are resized to it.
    fixed_size = None
    # Whether weight decay leaves biases and norms out.
    decay_kernels_only = False
    # Training crops must be at least this, so that discriminators have something to say.
    crop_minimum = 1
    # Which way it can translate; a published generator may have come alone.
    directions = DIRECTIONS

    def __init__(self, channels_a=3, channels_b=3, seed=0, name=None, dtype=None, **hyperparameters):
        super().__init__(name=name, dtype=dtype)
        self.config = self.config_class(**hyperparameters)
        self.channels_a = channels_a
        self.channels_b = channels_b
        self.seed = seed
        # Batches learned from, on all replicas; numbers the random draws.
        self.step = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="step", aggregation="only_first_replica"
        )
        self.xla = False
        self.accumulate = 1

    # === What a method defines ===

    @property
    def networks(self):
        """dict of name → network, in the order of construction.

        All are part of checkpoints. Those that are not `trainable`, averages of others, take no part in phases.
        """
        raise NotImplementedError

    @property
    def frozen(self):
        """dict of name → network that losses use and no phase changes; not part of checkpoints."""
        return {}

    @property
    def generators(self):
        """dict of direction → callable (x [N, H, W, C], training=False) → [N, H, W, C'] in `value_range`."""
        raise NotImplementedError

    def learn(self, a, b, indices):
        """One training step by calls of `phase`.

        Args:
            a: this replica's images of domain A, float32 [N, H, W, channels_a] in `value_range`.
            b: the same of domain B.
            indices: int32 [N], each sample's position in the global batch.

        Returns:
            dict of loss name → float32 scalar, weights included.
        """
        raise NotImplementedError

    def monitored(self):
        """dict of name → scalar that is logged beside the losses: what of the weights is worth watching."""
        return {}

    def build_for_training(self, shape_a, shape_b):
        """Creates what training needs beyond the networks (image pools); shapes as (N, H, W, C)."""
        self.build((None, None, None, self.channels_a))
        self._training_shapes = (tuple(shape_a), tuple(shape_b))

    # === Keras ===

    def build(self, input_shape):
        if self.built:
            return
        for name, network in self.networks.items():
            network.build(self.input_shape_of(name))
        self.built = True

    def input_shape_of(self, name):
        """(None, None, None, C) of what the network of this name takes: images of domain A or B.

        The first letter after the underscore names the domain: generator_a2b takes A, discriminator_b takes B.
        """
        return (None, None, None, {"a": self.channels_a, "b": self.channels_b}[name.split("_")[1][0]])

    def call(self, x, training=False):
        return self.generators["a2b"](x, training=True) if training else self.generate(x, "a2b")

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.channels_b)

    def get_config(self):
        own = {"channels_a": self.channels_a, "channels_b": self.channels_b, "seed": self.seed}
        policy = keras.dtype_policies.serialize(self.dtype_policy)
        return {"name": self.name, "dtype": policy, **own, **dataclasses.asdict(self.config)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        return cls(**config)

    def compile(self, generator_optimizer=None, discriminator_optimizer=None, xla=False, accumulate=1, **kwargs):
        """Sets how the model learns.

        Args:
            generator_optimizer: a Keras optimizer; None: as published, at a constant rate.
            discriminator_optimizer: the same for the discriminators.
            xla: compile the pure part of each phase with XLA.
            accumulate: compute each phase in this many parts of the batch, one after the other, and add up the
                gradients. Batch norm and the heads "bsd" and "bn" take their statistics over a part.
            **kwargs: for `keras.Model.compile`, e.g. `run_eagerly`.
        """
        for name in ("optimizer", "loss", "jit_compile"):
            if name in kwargs:
                raise ValueError(
                    f"compile({name}=…): the losses are the method's own; give generator_optimizer, "
                    "discriminator_optimizer and xla"
                )
        super().compile(optimizer=None, jit_compile=False, **kwargs)
        self.xla = xla
        self.accumulate = accumulate
        self.generator_optimizer = self._prepare(generator_optimizer or self.published_optimizer("generator"))
        self.discriminator_optimizer = self._prepare(
            discriminator_optimizer or self.published_optimizer("discriminator")
        )
        for layer in self._flatten_layers():
            if isinstance(layer, layers.InstanceNormalization):
                layer.fused = not xla

    def learning_rate(self, role):
        """The published rate, before any schedule, of the generators or discriminators."""
        return self.config.learning_rate

    def published_optimizer(self, role, learning_rate=None):
        """The published optimizer of the generators or discriminators.

        Args:
            role: "generator" or "discriminator".
            learning_rate: float or schedule instead of the published constant.
        """
        config = self.config
        return optim.Adam(
            learning_rate or self.learning_rate(role),
            config.beta_1,
            config.beta_2,
            coupled_weight_decay=config.weight_decay,
            decay_kernels_only=self.decay_kernels_only,
            name=f"{role}_adam",
        )

    def _prepare(self, optimizer):
        """Loss scaling for float16, and slots for all weights now, so that checkpoints hold them from the start."""
        optimizer = keras.optimizers.get(optimizer)
        if self.dtype_policy.compute_dtype == "float16" and not isinstance(
            optimizer, keras.optimizers.LossScaleOptimizer
        ):
            # A name of its own: Keras would number it, and a checkpoint of the same process would not fit.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name=f"{optimizer.name}_loss_scale")
        return optimizer

    def get_compile_config(self):
        names = ("generator_optimizer", "discriminator_optimizer")
        own = {n: keras.saving.serialize_keras_object(getattr(self, n)) for n in names}
        return {**own, "xla": self.xla, "accumulate": self.accumulate}

    def compile_from_config(self, config):
        config = dict(config)
        for name in ("generator_optimizer", "discriminator_optimizer"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        self.compile(**config)
        self.build_optimizers()

    def get_build_config(self):
        return {"shapes": getattr(self, "_training_shapes", None)}

    def build_from_config(self, config):
        shapes = config.get("shapes")
        if shapes:
            self.build_for_training(*[tuple(s) for s in shapes])
        else:
            self.build((None, None, None, self.channels_a))

    def build_optimizers(self):
        """Creates the optimizers' slots; every network must be built."""
        for role in ("generator", "discriminator"):
            getattr(self, f"{role}_optimizer").build(self.weights_of(role))

    def weights_of(self, role):
        """Trainable variables of the discriminators, or of all other networks."""
        judges = role == "discriminator"
        named = self.networks.items()
        return [v for n, net in named if n.startswith("discriminator") == judges for v in net.trainable_variables]

    def fit(self, x=None, y=None, **kwargs):
        """As `keras.Model.fit`; `x` is a data set of (A, B) batches, or two arrays x=A, y=B."""
        if isinstance(x, tf.data.Dataset) or hasattr(x, "element_spec"):
            shapes = [tuple(s.shape) for s in x.element_spec]
        else:
            shapes = [tuple(np.shape(x)), tuple(np.shape(y))]
        if any(None in shape for shape in shapes):
            raise ValueError(
                f"fit needs batches of one static shape, not {shapes}: use .batch(n, drop_remainder=True) and "
                "images of one size"
            )
        with self.distribute_strategy.scope():
            self.build_for_training(*shapes)
            self.build_optimizers()
        return super().fit(x, y, **kwargs)

    def train_step(self, data):
        a, b = data[:2]
        losses = self.learn(a, b, self.sample_indices(a.shape[0]))
        self.step.assign_add(1)
        return losses

    def sample_indices(self, count):
        """int32 [count], the positions of this replica's samples in the global batch."""
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group * count if context.num_replicas_in_sync > 1 else 0
        return first + tf.range(count)

    def pictures(self, a, b):
        """What samples/ shows of fixed inputs: dict of title → float32 [N, H, W, C] in `value_range`."""
        fake_b, fake_a = self.generate(a, "a2b"), self.generate(b, "b2a")
        shown = {"A": a, "A to B": fake_b, "A to B to A": self.generate(fake_b, "b2a")}
        same = a.shape[-1] == b.shape[-1]
        if same:
            shown["identity A"] = self.generate(a, "b2a")
        shown |= {"B": b, "B to A": fake_a, "B to A to B": self.generate(fake_a, "a2b")}
        if same:
            shown["identity B"] = self.generate(b, "a2b")
        return shown

    # === Phases ===

    def phase(self, compute, role, whole=None, **inputs):
        """Runs one named phase: losses, gradients of their sum, one step of the optimizer.

        Args:
            compute: method (**inputs) → (dict of losses, dict of outputs); losses are means over the batch, weights
                included, outputs have the batch on axis 0. Pure: it may assign network state, nothing else.
            role: "generator" or "discriminator": whose weights learn, with `<role>_optimizer`.
            whole: dict of further arguments of `compute`, nests of tensors that are no samples of this batch.
            **inputs: tensors with the batch on axis 0.

        Returns:
            (losses, outputs) as `compute` gave them, before the update.
        """
        optimizer = getattr(self, f"{role}_optimizer")
        learned = self.weights_of(role)
        learning = [network for network in self.networks.values() if network.trainable]
        variables = [v for network in (*learning, *self.frozen.values()) for v in network.variables]
        state = [v for network in learning for v in network.non_trainable_variables]
        values = [tf.convert_to_tensor(v.value) for v in variables]
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if scaled and tf.distribute.get_replica_context().num_replicas_in_sync > 1:
            # Keras' loss scaling looks at the first replica's gradients only, and its branch holds collectives.
            raise ValueError("mixed_float16 learns on one replica only: use mixed_bfloat16 on several")
        scale = tf.convert_to_tensor(optimizer.dynamic_scale.value) if scaled else tf.constant(1.0)
        position = {id(v): i for i, v in enumerate(variables)}

        def pure(values, scale, inputs):
            watched = [values[position[id(v)]] for v in learned]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                with keras.StatelessScope(state_mapping=list(zip(variables, values))) as scope:
                    losses, outputs = compute(**inputs)
                total = scale * tf.add_n(list(losses.values()))
            gradients = tape.gradient(total, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return losses, gradients, [scope.get_current_value(v) for v in state], outputs

        if self.xla or self.accumulate > 1:  # for several parts it is traced once
            pure = tf.function(pure, jit_compile=self.xla or None)
        if self.accumulate > 1:
            losses, gradients, news, outputs = _in_parts(
                lambda part: pure(values, scale, part | (whole or {})), inputs, self.accumulate
            )
        else:
            losses, gradients, news, outputs = pure(values, scale, inputs | (whole or {}))
        # Optimizers add up the gradients of all replicas; each holds the mean over its own part of the batch.
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        optimizer.apply([g / replicas for g in gradients] if replicas > 1 else gradients, learned)
        # Every part starts from the same state: power iterations, which do not see the images, count once.
        for variable, value in zip(state, news):
            variable.assign(value)
        return losses, outputs

    # === Pixels ===

    def to_float(self, pixels):
        """uint8 or uint16 tensor → float32 in `value_range`."""
        low, high = self.value_range
        peak = 255.0 if pixels.dtype == tf.uint8 else 65535.0
        return tf.cast(pixels, tf.float32) * ((high - low) / peak) + low

    def to_pixels(self, x, dtype=tf.uint8):
        """Float in `value_range` → pixels of `dtype` (uint8 or uint16), rounded to the nearest level."""
        low, high = self.value_range
        peak = 255.0 if dtype == tf.uint8 else 65535.0
        x = (tf.cast(x, tf.float32) - low) * (peak / (high - low))
        return tf.cast(tf.round(tf.clip_by_value(x, 0.0, peak)), dtype)

    def takes(self, height, width):
        """Whether the networks take images of this size as they are."""
        if self.fixed_size:
            return (height, width) == tuple(self.fixed_size)
        return all(n >= self.size_minimum and n % self.size_multiple == 0 for n in (height, width))

    @property
    def sizes(self):
        """In words, which sizes the networks take."""
        if self.fixed_size:
            return f"{self.fixed_size[0]},{self.fixed_size[1]} only"
        return f"multiples of {self.size_multiple}, at least {self.size_minimum}"

    def nearest_size(self, size):
        """The (height, width) nearest to `size` that the networks take."""
        if self.fixed_size:
            return tuple(self.fixed_size)
        m = self.size_multiple
        return tuple(max(round(n / m), -(-self.size_minimum // m)) * m for n in size)

    def check_direction(self, direction):
        """Refuses a direction that this model cannot translate.

        Raises:
            ValueError: no direction at all.
            UserError: the published checkpoint did not have that generator.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"direction='{direction}': expected one of {', '.join(DIRECTIONS)}")
        if direction not in self.directions:
            raise UserError(
                f"--direction={direction}: this model was converted from a generator that translates "
                f"{', '.join(self.directions)} alone"
            )

    def generate(self, x, direction="a2b", network=None):
        """Translates any size.

        Pads by reflection to the next multiple of `size_multiple` and cuts back; networks of a `fixed_size` get the
        image resized to that, see `generate_resized`.

        Args:
            x: float tensor [N, H, W, C] in `value_range`.
            direction: "a2b" or "b2a".
            network: callable instead of the generator; its output has the size of its input, and is in `value_range`.

        Returns:
            float32 tensor [N, H, W, C'] in `value_range`.
        """
        self.check_direction(direction)
        network = network or self.generators[direction]
        if None not in x.shape[1:3] and self.takes(*x.shape[1:3]):
            return network(x)
        if self.fixed_size:
            return self.generate_resized(x, direction, self.fixed_size, network=network)
        h, w = tf.shape(x)[1], tf.shape(x)[2]
        top, rows = _reflected(h, self.size_multiple, self.size_minimum)
        left, columns = _reflected(w, self.size_multiple, self.size_minimum)
        y = network(tf.gather(tf.gather(x, rows, axis=1), columns, axis=2))
        return y[:, top : top + h, left : left + w]

    def generate_resized(self, x, direction, size, filter="bicubic", network=None):
        """Translates any size at `size`: resizes to it and back, antialiased, within `value_range`.

        Args:
            x: float tensor [N, H, W, C] in `value_range`.
            direction: "a2b" or "b2a".
            size: (height, width) that the networks see.
            filter: "bicubic", "bilinear" or "lanczos", Pillow's.
            network: as in `generate`.

        Returns:
            float32 tensor [N, H, W, C'] in `value_range`.
        """
        filter = {"lanczos": "lanczos3"}.get(filter, filter)

        def resize(x, size):
            return tf.clip_by_value(tf.image.resize(x, size, filter, antialias=True), *self.value_range)

        network = network or self.generators[direction]
        return resize(network(resize(x, size)), tf.shape(x)[1:3])

    def translate(self, images, direction="a2b", batch_size=1):
        """Translates pixels to pixels.

        Args:
            images: uint8 or uint16 pixels, or float32 in `value_range`; [N, H, W, C] or one image [H, W, C], C being
                the channels of the domain translated from. Any size of at least one pixel.
            direction: "a2b" or "b2a".
            batch_size: images that go through the network at once.

        Returns:
            numpy array of the same kind and size, with the channels of the other domain.

        Raises:
            ValueError: another rank, number of channels, dtype, or a float outside `value_range`.
        """
        self.check_direction(direction)
        images = np.asarray(images)
        batch = images[None] if images.ndim == 3 else images
        channels = self.channels_a if direction == "a2b" else self.channels_b
        if batch.ndim != 4 or batch.shape[-1] != channels:
            raise ValueError(f"images of shape {images.shape}: expected [N, H, W, {channels}] or [H, W, {channels}]")
        if 0 in batch.shape[1:3]:
            raise ValueError(f"images of shape {images.shape} have no pixels")
        low, high = self.value_range
        kind = batch.dtype
        if np.issubdtype(kind, np.floating):
            if batch.size and not (batch.min() >= low - 1e-4 and batch.max() <= high + 1e-4):
                raise ValueError(
                    f"float images from {batch.min():.4g} to {batch.max():.4g}: this method's range is "
                    f"[{low:g}, {high:g}]; scale them, or pass uint8 or uint16 pixels"
                )
        elif kind not in (np.uint8, np.uint16):
            raise ValueError(f"images of dtype {kind}: expected uint8, uint16 or a float")
        results = []
        for start in range(0, len(batch), batch_size):
            part = tf.convert_to_tensor(batch[start : start + batch_size])
            if part.dtype.is_floating:
                results.append(self._translate_float(tf.cast(part, tf.float32), direction).numpy().astype(kind))
            else:
                y = self._translate_float(self.to_float(part), direction)
                results.append(self.to_pixels(y, part.dtype).numpy())
        shape = (*batch.shape[:3], self.channels_b if direction == "a2b" else self.channels_a)
        result = np.concatenate(results) if results else np.zeros(shape, kind)
        return result[0] if images.ndim == 3 else result

    def _translate_float(self, x, direction):
        # Called directly, the first calls of several models would look like retracing of one, and TensorFlow warns.
        return self._generate_traced.get_concrete_function(x, direction)(x)

    @tf.function(reduce_retracing=True)
    def _generate_traced(self, x, direction):
        return self.generate(x, direction)


def _in_parts(compute, inputs, count):
    """Runs `compute` on `count` parts of the batch one after the other, in the memory of one, and keeps sums.

    Args:
        compute: function of a part, a dict as `inputs` → (losses, gradients, state, outputs), nests of tensors; outputs
            have the batch on axis 0.
        inputs: dict of tensors with the batch on axis 0.
        count: how many parts.

    Returns:
        What `compute` gives: means over the parts, and the outputs of the whole batch.
    """
    split = {name: tf.stack(tf.split(x, count)) for name, x in inputs.items()}

    def part(i):
        *summed, outputs = compute({name: x[i] for name, x in split.items()})
        return tf.nest.flatten(summed), outputs, summed

    def add(i, sums, stored):
        found, outputs, _ = part(i)
        return i + 1, [x + y for x, y in zip(sums, found)], {k: a.write(i, outputs[k]) for k, a in stored.items()}

    sums, outputs, nest = part(0)
    stored = {k: tf.TensorArray(x.dtype, count, element_shape=x.shape).write(0, x) for k, x in outputs.items()}
    _, sums, stored = tf.while_loop(lambda i, *_: i < count, add, (1, sums, stored), parallel_iterations=1)
    losses, gradients, state = tf.nest.pack_sequence_as(nest, [x / count for x in sums])
    shapes = {k: (count * x.shape[0], *x.shape[1:]) for k, x in outputs.items()}
    return losses, gradients, state, {k: tf.reshape(a.stack(), shapes[k]) for k, a in stored.items()}


def _reflected(length, multiple, minimum):
    """Padding before, and the index of the source row for every row of the padded map; mirrored without the edge.

    The index runs back and forth, so that a map can be padded by more than its own length.
    """
    padded = tf.maximum(-(-length // multiple) * multiple, minimum)
    before = (padded - length) // 2
    period = tf.maximum(2 * (length - 1), 1)
    position = tf.math.floormod(tf.range(padded) - before, period)
    return before, tf.minimum(position, period - position)


def gather_global(x, indices):
    """The samples of all replicas, in global order, on every replica.

    `all_gather` fails with two CPU worker processes, a sum of slots does not.

    Args:
        x: this replica's samples [N, …].
        indices: int32 [N], their positions in the global batch.

    Returns:
        [N replicas, …].
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return x
    slots = tf.scatter_nd(indices[:, None], x, [x.shape[0] * replicas, *x.shape[1:]])
    return context.all_reduce(tf.distribute.ReduceOp.SUM, slots)


def gradient_penalty(critic, x, center=1.0):
    """mean over samples of (‖∇ₓ critic(x)‖₂ - center)².

    Args:
        critic: callable [N, H, W, C] → any map with N on axis 0.
        x: float32 [N, H, W, C], where the gradient is taken.
        center: the norm that costs nothing: 1 in WGAN-GP (Gulrajani et al., arXiv 1704.00028, equation 3).

    Returns:
        float32 scalar.
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ops.sum(critic(x))
    gradient = ops.reshape(tape.gradient(y, x), (x.shape[0], -1))
    # The tiny summand, inside as in the published code, keeps the square root differentiable at 0.
    norm = ops.sqrt(ops.sum(ops.square(gradient + 1e-16), axis=1))
    return ops.mean(ops.square(norm - center))


@keras.saving.register_keras_serializable(package="tfi2i")
class ImagePool(keras.layers.Layer):
    """History of translated images that discriminators learn from (Shrivastava et al., arXiv 1612.07828).

    Until `size` images are stored, each is stored and returned. Then, with probability 1/2, a stored image is
    returned and the new one takes its place; otherwise the new one is returned and not stored. Every replica applies
    the samples of all replicas in global order, so all copies stay equal.

    Args:
        size: images kept; 0: every image is returned as it is.
        seed: the run's seed.
    """

    def __init__(self, size=50, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.seed = seed

    def build(self, input_shape):
        shared = {"trainable": False, "initializer": "zeros", "autocast": False}
        if self.size:
            # Equal on all replicas without a broadcast of all the images at each step.
            self.images = self.add_weight(
                shape=(self.size, *input_shape[1:]), dtype="float32", name="images", aggregation="none", **shared
            )
            self.count = self.add_weight(
                shape=(), dtype="int64", name="count", aggregation="only_first_replica", **shared
            )
        self.built = True

    def query(self, x, step, indices):
        """Stores this step's images and returns the ones to learn from.

        Args:
            x: float32 [N, H, W, C], this replica's translated images.
            step: the step's number.
            indices: int32 [N], their positions in the global batch.

        Returns:
            float32 [N, H, W, C].
        """
        if not self.size:
            return x
        everyone = gather_global(x, indices)
        seeds = layers.sample_seeds(self.seed, step, tf.range(everyone.shape[0]), self.name)
        draws = layers.uniform(seeds, (2,))
        swaps = draws[:, 0] > 0.5
        slots = tf.cast(draws[:, 1] * self.size, tf.int64)
        images, count, returned = replay(
            tf.convert_to_tensor(self.images.value), tf.convert_to_tensor(self.count.value), everyone, swaps, slots
        )
        self.images.assign(images)
        self.count.assign(count)
        return tf.gather(returned, indices)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "seed": self.seed}


def replay(images, count, new, swaps, slots):
    """The pool's rule for given draws.

    Args:
        images: stored images [P, …].
        count: int64 scalar, how many of them are filled.
        new: images that come in [N, …], in order.
        swaps: bool [N], whether a full pool exchanges.
        slots: int64 [N] in [0, P), which one it exchanges.

    Returns:
        (images, count, returned [N, …]).
    """
    size = images.shape[0]
    returned = []
    for i in range(new.shape[0]):
        full = count >= size
        slot = tf.where(full, slots[i], tf.minimum(count, size - 1))
        old = images[slot]
        swap = tf.logical_and(full, swaps[i])
        returned.append(tf.where(swap, old, new[i]))
        images = tf.tensor_scatter_nd_update(
            images, [[slot]], [tf.where(tf.logical_and(full, tf.logical_not(swap)), old, new[i])]
        )
        count = tf.minimum(count + 1, size)
    return images, count, tf.stack(returned)
