"""What all methods share: a Keras model that translates and learns in named phases.

A phase computes losses in a pure function (weights, batch, noise) → (losses, gradients, new state), which XLA may
compile, and applies gradients and state outside it. `jit_compile=True` for the whole step would fail with more than
one replica, because XLA then reads a variable of another device.
"""

import contextlib
import dataclasses
import os
import types
import zlib

import keras
import numpy as np
import PIL.Image
import tensorflow as tf
from keras import ops

from tfi2i import layers, optim
from tfi2i.config import DIRECTIONS, UserError
from tfi2i.data.images import read_image, read_pil, to_channels
from tfi2i.levels import to_levels, to_range
from tfi2i.methods import fitting
from tfi2i.methods.memory import FeatureCache, ImagePool
from tfi2i.methods.sizes import Sizes, padded, resized

# How many styles samples/ shows of a method that takes one.
_STYLES_SHOWN = 3


class Translator(keras.Model):
    """Base of all methods.

    A method sets `config_class` and what else is listed below, creates its networks in `__init__`, names them in
    `networks` and `generators`, and describes one training step in `learn`.

    Calling the model, and `predict`, translate in the first of its `directions`, in the method's float range
    [N, H, W, C]. `translate` takes pixels.

    Args:
        channels_a: channels of domain A, 1 or 3.
        channels_b: channels of domain B, 1 or 3.
        seed: seeds initial weights and every draw in training.
        **hyperparameters: the fields of `config_class`. With a momentum in `ema_momentum`, weights of the networks that
            learn with the first role are averaged after every step, and the averages translate.

    Attributes:
        averages: dict of name → `optim.Average`, empty until the model is built and where nothing is averaged. They are
            part of checkpoints.
    """

    config_class = None
    # (low, high) of the networks' images.
    value_range = (-1.0, 1.0)
    # Which sizes of images the networks take.
    sizes = Sizes()
    # Which ways it can translate; a published generator may have come alone.
    directions = DIRECTIONS
    # dict of a direction by the names of its folders, such as "photos2paintings" → "a2b"; `tfi2i.load` knows them.
    named_directions = types.MappingProxyType({})
    # Whose weights learn together, each with an optimizer of its own. A network whose name begins with one of the later
    # roles belongs to that role, every other network to the first.
    roles = ("generator", "discriminator")
    # Length of the style vector that generators take beside the image, or None where they take none.
    style_size = None
    # Length of the noise that a method draws pairs of images from; it translates by a search for the noise of an image.
    # None where networks translate.
    latent_size = None
    # Whether young averages of weights move faster, so that a short training forgets how it began. The published ones
    # do not.
    averages_warm_up = False
    # Whether a step has operations that do not wait for each other, as those of two networks, see
    # `strategies.share_cores`.
    side_by_side = True
    # Whether weight decay leaves biases and norms out.
    decay_kernels_only = False
    # What to try when training shows a failure that `training.summaries.Alarms` knows, by its name there; "small crop";
    # and with a pre-training "no pre-training", what happens without.
    advice = {}

    def __init__(self, channels_a=3, channels_b=3, seed=0, name=None, dtype=None, **hyperparameters):
        super().__init__(name=name, dtype=dtype)
        self.config = self.config_class(**hyperparameters)
        self.channels_a = channels_a
        self.channels_b = channels_b
        self.seed = seed
        if direction := getattr(self.config, "direction", None):
            self.directions = (direction,)
        # Batches learned from, on all replicas; numbers the random draws.
        self.step = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="step", aggregation="only_first_replica"
        )
        self.xla = False
        self.accumulate = 1
        self.remat = False
        self.averages = {}
        self.active = True  # False: losses are only measured
        self.total_steps = None  # of the whole training, where it is known
        self.steps_per_epoch = None  # likewise

    # === What a method defines ===

    @property
    def networks(self):
        """dict of name → network, in the order of construction; all are part of checkpoints."""
        raise NotImplementedError

    @property
    def frozen(self):
        """dict of name → network that losses use and no phase changes; not part of checkpoints."""
        return {}

    @property
    def generators(self):
        """dict of direction → callable (x [N, H, W, C], training=False) → [N, H, W, C'] in `value_range`.

        They may compute with the weights that learn; `styled_generator` puts the averages in, where there are any. With
        a `style_size` the callable takes style=float32 [N, style_size] too.
        """
        raise NotImplementedError

    def stage(self, step):
        """Which kind of training step number `step` (0, 1, …) is; None where all are alike.

        A hashable value, which `learn` gets as `stage`: each one is traced once. So a phase can be left out of most
        steps, or a network be frozen from some step on. `fit` knows no stages.
        """
        return None

    def learn(self, *batch, indices):
        """One training step by calls of `phase`.

        Args:
            *batch: what the data's training stream gives, this replica's part. Of pictures: a, images of domain A,
                float32 [N, H, W, channels_a] in `value_range`, and b, the same of domain B.
            indices: int32 [N], each sample's position in the global batch.

        Returns:
            dict of loss name → float32 scalar, weights included.
        """
        raise NotImplementedError

    def encode_style(self, images, direction):
        """The style of images of the domain translated to: float32 [N, H, W, C'] → float32 [N, style_size].

        Raises:
            ValueError: the method takes no reference image.
        """
        raise ValueError(f"{self.name} takes no reference image")

    def draw_pairs(self, z):
        """Pairs of images of the same content, where the method has a `latent_size`.

        Args:
            z: float32 [N, latent_size], draws from N(0, 1).

        Returns:
            (a, b): float32 tensors [N, H, W, C] of domain A and B in `value_range`.

        Raises:
            ValueError: the method draws none, or `z` has another shape.
        """
        raise ValueError(f"{self.name} draws no pairs from noise")

    def heatmaps(self, images, direction="a2b", discriminators=False):
        """Where the networks look: dict of network → float32 array [N, H, W, 1] from 0 to 1.

        Raises:
            UserError: the networks have no attention to show.
        """
        self.check_heatmaps(discriminators)

    def check_heatmaps(self, discriminators=False):
        """Raises `UserError`: `heatmaps` has nothing to show, said before anything is computed."""
        raise UserError(f"--heatmaps: {self.name} has no attention to show")

    def check_crop(self, height, width):
        """Refuses training crops of a size that the networks cannot learn from; None is a size of the images' own.

        Raises:
            UserError: another size than the networks take, or too small for the discriminators.
        """
        if height is None:
            if self.sizes.fixed:
                raise UserError(f"crops of no fixed size: the networks take {self.sizes}: give --crop")
            return  # decided image by image
        if not self.sizes.fit(height, width):
            near = ",".join(map(str, self.sizes.nearest((height, width))))
            raise UserError(
                f"--crop={height},{width} does not fit {self.name}'s networks, which take {self.sizes}: give "
                f"--crop={near}"
            )
        least = self.sizes.crop_minimum
        if min(height, width) < least:
            raise UserError(
                f"--crop={height},{width} is too small for the networks, which need {least} pixels a side: make it "
                f"larger{self.advice.get('small crop', '')}"
            )

    def monitored(self):
        """dict of name → scalar that is logged beside the losses: what of the weights is worth watching."""
        return {}

    def prepare_frozen(self):
        """Gives the `frozen` networks their weights, unless they have them; called before losses are computed."""

    def build_for_training(self, *shapes):
        """Creates what training needs beyond the networks (image pools); shapes of the batch's parts, (N, H, W, C)."""
        self.build((None, None, None, self.channels_a))
        self.prepare_frozen()
        self._training_shapes = tuple(map(tuple, shapes))

    # === Keras ===

    def build(self, input_shape):
        if self.built:
            return
        for name, network in self.networks.items():
            network.build(self.input_shape_of(name))
        if momentum := getattr(self.config, "ema_momentum", 0.0):
            for name in [n for n in self.networks if self._role_of(n) == self.roles[0]]:
                warm_up = self.averages_warm_up
                average = optim.Average(self.networks[name], momentum, warm_up, name=f"{name}_average")
                average.build()
                self.averages[average.name] = average
        self.built = True

    def input_shape_of(self, name):
        """(None, None, None, C) of what the network of this name takes: images of domain A or B.

        The first letter after the underscore names the domain: generator_a2b takes A, discriminator_b takes B.
        """
        return (None, None, None, self.channels_of(name.split("_")[1][0]))

    @property
    def translation_note(self):
        """A sentence about how it translates that users should know, or None."""
        return None

    @property
    def background(self):
        """R, G, B (0-255) that the model saw behind transparent pixels in training."""
        run = getattr(self, "run", None)
        return run.data.background if run else (255, 255, 255)

    def channels_of(self, domain):
        """Channels of the images of domain "a" or "b"."""
        return {"a": self.channels_a, "b": self.channels_b}[domain]

    def call(self, x, training=False):
        direction = self.directions[0]
        return self.styled_generator(direction)(x, training=True) if training else self.generate(x, direction)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.channels_of(self.directions[0][-1]))

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

    def compile(self, *, xla=False, accumulate=1, remat=False, **kwargs):
        """Sets how the model learns.

        Args:
            generator_optimizer, discriminator_optimizer: Keras optimizers, one for each of the `roles`; None, or left
                out: as published, at a constant rate.
            xla: compile the pure part of each phase with XLA.
            accumulate: compute each phase in this many parts of the batch, one after the other, and add up the
                gradients. Statistics over samples, as of batch norm, are taken over a part.
            remat: keep what goes into each part of the generators, such as a residual block, and compute the maps
                within it again for the gradients: less memory, longer steps.
            **kwargs: for `keras.Model.compile`, e.g. `run_eagerly`.
        """
        optimizers = {role: kwargs.pop(f"{role}_optimizer", None) for role in self.roles}
        for name in ("optimizer", "loss", "jit_compile"):
            if name in kwargs:
                raise ValueError(
                    f"compile({name}=…): the losses are the method's own; give "
                    f"{', '.join(f'{role}_optimizer' for role in self.roles)} and xla"
                )
        super().compile(optimizer=None, jit_compile=False, **kwargs)
        self.accumulate = accumulate
        self.remat = remat
        for role, optimizer in optimizers.items():
            setattr(self, f"{role}_optimizer", self._prepare(optimizer or self.published_optimizer(role)))
        self.switch_xla(xla)

    def switch_xla(self, on):
        """Sets whether XLA compiles the phases of steps that are traced from now on."""
        self.xla = on
        for layer in self._flatten_layers():
            if isinstance(layer, layers.InstanceNormalization):
                layer.fused = not on

    def optimizer_of(self, role):
        """The optimizer that `compile` set for one of the `roles`."""
        return getattr(self, f"{role}_optimizer")

    def learning_rate(self, role):
        """The published rate, before any schedule, of one of the `roles`."""
        return self.config.learning_rate

    def updates_per_step(self, role):
        """How many phases of a step update weights of one of the `roles`; a fraction where only some steps have one."""
        return 1

    def published_optimizer(self, role, learning_rate=None):
        """The published optimizer of one of the `roles`.

        Args:
            role: one of the `roles`.
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
        if not self.compiled:
            return None
        own = {f"{r}_optimizer": keras.saving.serialize_keras_object(self.optimizer_of(r)) for r in self.roles}
        return {**own, "xla": self.xla, "accumulate": self.accumulate, "remat": self.remat}

    def compile_from_config(self, config):
        config = dict(config)
        for name in (f"{role}_optimizer" for role in self.roles):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        self.compile(**config)
        self.build_optimizers()

    def get_build_config(self):
        frozen = {name: network.get_build_config() for name, network in self.frozen.items() if network.built}
        return {"shapes": getattr(self, "_training_shapes", None), "frozen": frozen}

    def build_from_config(self, config):
        # Their weights are in the file: what they were prepared from need not be there.
        for name, own in config.get("frozen", {}).items():
            if not self.frozen[name].built:
                self.frozen[name].build_from_config(own)
        shapes = config.get("shapes")
        if shapes:
            self.build_for_training(*[tuple(s) for s in shapes])
        else:
            self.build((None, None, None, self.channels_a))

    def build_optimizers(self):
        """Creates the optimizers' slots; every network must be built."""
        for role in self.roles:
            self.optimizer_of(role).build(self.weights_of(role))

    def weights_of(self, role):
        """Trainable variables of the networks of one of the `roles`."""
        learning = [network for name, network in self.networks.items() if self._role_of(name) == role]
        return [v for network in learning for v in network.trainable_variables]

    def _role_of(self, name):
        """The role that the network of this name learns with."""
        first, *later = self.roles
        return next((role for role in later if name.startswith(role)), first)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        validation_batch_size=None,
        **kwargs,
    ):
        """As `keras.Model.fit`; the history holds the means of the losses over each epoch.

        With `steps_per_execution` they are means of what Keras reports, the last batch of each execution. There is no
        sum `loss`: a callback that watches one names it, as `EarlyStopping("val_cycle_a", mode="min")`. Callbacks that
        look for the one `model.optimizer` find none: there is one for each of the `roles`.

        Args:
            x, y, batch_size: what it learns from, see `fitting.as_dataset`. It looks at the first batch before it
                begins. Arrays are shuffled each by itself, those of pairs together.
            epochs, verbose, callbacks, shuffle, **kwargs: as Keras'.
            validation_split: the last part of two arrays to validate with, 0 to 1.
            validation_data: arrays (A, B), or a data set, whose losses are computed after each epoch.
            validation_batch_size: of arrays; None: the least that the replicas take.

        Raises:
            ValueError: the model is not compiled, or cannot learn from `x`.
        """
        if self.stage(0) is not None:
            raise ValueError(f"{self.name} learns in stages, which fit does not know: use tfi2i.train")
        if not self.compiled:
            raise ValueError("call compile() before fit(): without arguments it takes the published optimizers")
        if validation_split and validation_data is None:
            x, y, validation_data = fitting.split(x, y, validation_split)
        x, shapes = fitting.as_dataset(self, x, y, batch_size, shuffle)
        if validation_data is not None:
            validation_data, _ = fitting.as_dataset(
                self, validation_data, batch_size=validation_batch_size, training=False
            )
        with self.distribute_strategy.scope():
            self.build_for_training(*shapes)
            self.build_optimizers()
        return super().fit(
            x,
            epochs=epochs,
            verbose=verbose,
            callbacks=[fitting.EpochMeans(), *_listed(callbacks)],
            validation_data=validation_data,
            shuffle=False,
            **kwargs,
        )

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, steps=None, callbacks=None,
        return_dict=False, **kwargs,
    ):  # fmt: skip
        """As `keras.Model.evaluate`: the means of the losses that training would have; nothing is learned.

        Discriminators judge the translations of these images alone: image pools and feature caches rest.

        Args:
            x, y, batch_size: see `fitting.as_dataset`; nothing is shuffled.
            verbose, steps, callbacks, return_dict: as Keras'.
            sample_weight: not supported.
        """
        if not self.compiled:
            raise ValueError("call compile() before evaluate(): without arguments it takes the published optimizers")
        if sample_weight is not None:
            raise ValueError("sample_weight=…: the losses weigh all images alike")
        if not kwargs.get("_use_cached_eval_dataset"):  # which `fit` has prepared
            x, _ = fitting.as_dataset(self, x, y, batch_size, training=False)
            callbacks = [fitting.EpochMeans(), *_listed(callbacks)]
            with self.distribute_strategy.scope():
                self.build((None, None, None, self.channels_a))
                self.prepare_frozen()
        last = super().evaluate(x, verbose=verbose, steps=steps, callbacks=callbacks, return_dict=True, **kwargs)
        means = next(c for c in getattr(callbacks, "callbacks", callbacks) if isinstance(c, fitting.EpochMeans))
        losses = {name: means.measured[name] for name in last}
        return losses if return_dict else list(losses.values())

    def save(self, filepath, *args, **kwargs):
        """As `keras.Model.save`; a model that has not seen images yet is built first."""
        self.build((None, None, None, self.channels_a))
        super().save(filepath, *args, **kwargs)

    def summary(self, *args, **kwargs):
        """As `keras.Model.summary`, of the networks' weights alone: without image pools and counters."""
        self.build((None, None, None, self.channels_a))
        networks = keras.Model(name=self.name)
        networks.parts = list(self.networks.values())
        networks.built = True
        networks.summary(*args, **kwargs)

    def test_step(self, data):
        with self._only_measuring(), keras.StatelessScope():  # what networks count stays as it is
            return self.learn(*data, indices=self.sample_indices(data[0].shape[0]))

    @contextlib.contextmanager
    def _only_measuring(self):
        """While open, `phase` computes losses and learns nothing, and pools and caches rest."""
        memories = [layer for layer in self._flatten_layers() if isinstance(layer, (ImagePool, FeatureCache))]
        for part in (self, *memories):
            part.active = False
        try:
            yield
        finally:
            for part in (self, *memories):
                part.active = True

    def train_step(self, data, stage=None):
        staged = {} if stage is None else {"stage": stage}
        losses = self.learn(*data, indices=self.sample_indices(data[0].shape[0]), **staged)
        for average in self.averages.values():
            average.update(self.step.value)
        self.step.assign_add(1)
        return losses

    def sample_indices(self, count):
        """int32 [count], the positions of this replica's samples in the global batch."""
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group * count if context.num_replicas_in_sync > 1 else 0
        return first + tf.range(count)

    def pictures(self, a, b):
        """What samples/ shows of fixed inputs: dict of title → float32 [N, H, W, C] in `value_range`.

        Of a method that takes a style, translations with a few styles that are drawn.
        """
        shown = {}
        for domain, x, direction in (("A", a, "a2b"), ("B", b, "b2a")):
            back, title = direction[::-1], f"{domain} to {direction[-1].upper()}"
            shown[domain] = x
            if self.style_size is not None:
                for seed in range(_STYLES_SHOWN) if direction in self.directions else ():
                    y = self.generate(x, direction, self.draw_styles(seed, range(len(x))))
                    shown[f"{title}, seed {seed}" if seed else title] = y
                continue
            if direction in self.directions:
                shown[title] = y = self.generate(x, direction)
                if back in self.directions:
                    shown[f"{title} to {domain}"] = self.generate(y, back)
            if back in self.directions and self.channels_a == self.channels_b:
                shown[f"identity {domain}"] = self.generate(x, back)
        return shown

    # === Phases ===

    def phase(self, compute, role, unbatched=None, learned=None, **inputs):
        """Runs one named phase: losses, gradients of their sum, one step of the optimizer.

        Args:
            compute: method (**inputs) → (dict of losses, dict of outputs); losses are means over the batch, weights
                included, outputs have the batch on axis 0. Pure: it may assign network state, nothing else.
            role: one of the `roles`, or a tuple of some: whose weights learn, with that role's optimizer; None: nothing
                learns and no state changes, for what a step needs before its phases.
            unbatched: dict of further arguments of `compute`, nests of tensors that are no samples of this batch.
            learned: list of those of the one role's weights that learn here; None: all.
            **inputs: tensors with the batch on axis 0.

        Returns:
            (losses, outputs) as `compute` gave them, before the update.
        """
        if not self.active:
            return compute(**inputs, **(unbatched or {}))
        roles = role if isinstance(role, tuple) else (role,) if role else ()
        optimizers = [self.optimizer_of(r) for r in roles]
        weights = [self.weights_of(r) for r in roles] if learned is None else [learned]
        learned = [v for own in weights for v in own]
        learning = self.networks.values()
        variables = [v for network in (*learning, *self.frozen.values()) for v in network.variables]
        state = [v for network in learning for v in network.non_trainable_variables]
        unbatched = unbatched or {}
        values = [tf.convert_to_tensor(v.value) for v in variables]
        # Reading weights waits for the phase that updates them, and here everything waits for all weights. TensorFlow
        # would begin whatever needs no updated weight, and would hold the maps of two phases at once.
        with tf.control_dependencies([tf.group(values)]):
            values, inputs, unbatched = tf.nest.map_structure(tf.identity, (values, inputs, unbatched))
        scaled = bool(roles) and isinstance(optimizers[0], keras.optimizers.LossScaleOptimizer)
        if scaled and tf.distribute.get_replica_context().num_replicas_in_sync > 1:
            # Keras' loss scaling looks at the first replica's gradients only, and its branch holds collectives.
            raise ValueError("mixed_float16 learns on one replica only: use mixed_bfloat16 on several")
        scales = [tf.convert_to_tensor(o.dynamic_scale.value) if scaled else tf.constant(1.0) for o in optimizers]
        scale = scales[0] if scaled else tf.constant(1.0)
        position = {id(v): i for i, v in enumerate(variables)}

        once = tf.inside_function() and not self.xla  # XLA is to see the operations of all calls
        scope_class = layers.TracedOnce if once else layers.StepScope

        def pure(values, scale, inputs):
            watched = [values[position[id(v)]] for v in learned]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                with scope_class(list(zip(variables, values)), self.remat) as scope:
                    losses, outputs = compute(**inputs)
                total = scale * tf.add_n(list(losses.values())) if roles else scale
            gradients = tape.gradient(total, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return losses, gradients, [scope.get_current_value(v) for v in state], outputs

        if self.xla or self.accumulate > 1:  # for several parts it is traced once
            pure = tf.function(pure, jit_compile=self.xla or None)
        if self.accumulate > 1:
            losses, gradients, news, outputs = _in_parts(
                lambda part: pure(values, scale, part | unbatched), inputs, self.accumulate
            )
        else:
            losses, gradients, news, outputs = pure(values, scale, inputs | unbatched)
        if not roles:
            return losses, outputs
        # Optimizers add up the gradients of all replicas; each holds the mean over its own part of the batch.
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        gradients = [g / replicas for g in gradients] if replicas > 1 else list(gradients)
        for optimizer, own, own_scale in zip(optimizers, weights, scales):
            part, gradients = gradients[: len(own)], gradients[len(own) :]
            # Every optimizer undoes its own scale.
            optimizer.apply([g * (own_scale / scale) for g in part] if scaled and len(roles) > 1 else part, own)
        # Every part starts from the same state: power iterations, which do not see the images, count once.
        for variable, value in zip(state, news):
            variable.assign(value)
        return losses, outputs

    # === Pixels ===

    def to_float(self, x):
        """uint8 or uint16 tensor → float32 in `value_range`."""
        return to_range(tf.cast(x, tf.float32), self.value_range, float(x.dtype.max))

    def to_pixels(self, x, dtype=tf.uint8):
        """Float in `value_range` → pixels of `dtype` (uint8 or uint16), rounded to the nearest level."""
        x = to_levels(tf.cast(x, tf.float32), self.value_range, float(dtype.max))
        return tf.cast(tf.round(tf.clip_by_value(x, 0.0, float(dtype.max))), dtype)

    def resolve_direction(self, direction):
        """A direction that this model translates: the given one, or for None its first.

        A model that was loaded from a run knows directions by the names of its folders too, see `named_directions`.

        Raises:
            UserError: no direction at all, or the model has no generator of it.
        """
        if direction is None:
            return self.directions[0]
        if direction not in DIRECTIONS:
            if direction not in self.named_directions:
                expected = ", ".join([*DIRECTIONS, *self.named_directions])
                raise UserError(f"direction='{direction}': expected one of {expected}")
            direction = self.named_directions[direction]
        if direction not in self.directions:
            raise UserError(f"--direction={direction}: this model translates {', '.join(self.directions)} only")
        return direction

    def generate(self, x, direction=None, style=None, network=None):
        """Translates any size.

        Pads by reflection to the next size that the networks take and cuts back; networks of a fixed size get the
        image resized to that, see `generate_resized`.

        Args:
            x: float tensor [N, H, W, C] in `value_range`.
            direction: "a2b" or "b2a"; None: the first of `directions`.
            style: float32 [N, style_size], or None: zeros, the mean of the styles' distribution.
            network: callable instead of the generator; its output has the size of its input, and is in `value_range`.

        Returns:
            float32 tensor [N, H, W, C'] in `value_range`.
        """
        direction = self.resolve_direction(direction)
        network = network or self.styled_generator(direction, style)
        if None not in x.shape[1:3] and self.sizes.fit(*x.shape[1:3]):
            return network(x)
        if self.sizes.fixed:
            return resized(network, x, self.sizes.fixed, self.value_range)
        return padded(network, x, self.sizes)

    def generate_resized(self, x, direction, size, filter="bicubic", style=None):
        """Translates any size at `size`: resizes to it and back, antialiased, within `value_range`.

        Args:
            x: float tensor [N, H, W, C] in `value_range`.
            direction: "a2b" or "b2a".
            size: (height, width) that the networks see.
            filter: "bicubic", "bilinear" or "lanczos", Pillow's.
            style: as of `generate`.

        Returns:
            float32 tensor [N, H, W, C'] in `value_range`.
        """
        return resized(self.styled_generator(direction, style), x, size, self.value_range, filter)

    def averaged(self):
        """A context in which networks compute with the averages of their weights, where there are any."""
        return optim.AveragedScope(self.averages.values()) if self.averages else contextlib.nullcontext()

    def styled_generator(self, direction, style=None):
        """The averaged generator of a direction as a function of images and `training` alone; `style` as of `generate`.

        Without averages it computes with the weights that learn.
        """
        generator = self.generators[direction]

        def translate(x, training=False):
            given = {}
            if self.style_size is not None:
                given["style"] = tf.zeros((tf.shape(x)[0], self.style_size)) if style is None else style
            with self.averaged():
                return generator(x, training=training, **given)

        return translate

    def translate(self, images, direction=None, batch_size=1, style=None, reference=None, seed=None):
        """Translates pixels to pixels.

        Args:
            images: uint8 or uint16 pixels, or float32 in `value_range`; [N, H, W, C] or one image [H, W, C], C being
                the channels of the domain translated from. Any size of at least one pixel. Or the path of an image
                file, a PIL image, or a list of any of these, which go through the networks one by one.
            direction: "a2b" or "b2a"; None: the first of `directions`.
            batch_size: images that go through the network at once.
            style: what the translations should look like, where the method takes a style: float [N, style_size], or
                [style_size] for all images.
            reference: instead of `style`, images of the domain translated to whose style is taken, as `images`: one
                for all, or one for each.
            seed: instead of both, draws a style from N(0, 1) for each image, see `draw_styles`: of an array or list by
                its position, of one file by its name. With none of the three, 0.

        Returns:
            numpy array of the same kind and size, with the channels of the other domain; of a path pixels of 8 or 16
            bits [H, W, C]; of a PIL image of 8 bits a PIL image; of a list a list.

        Raises:
            data.images.BadImage: a file that is no image.
            ValueError: another rank, number of channels, dtype, a float outside `value_range`, a style that the method
                does not take, or more than one of `style`, `reference` and `seed`.
        """
        direction = self.resolve_direction(direction)
        if isinstance(images, (list, tuple)):
            styles = self.styles_of(range(len(images)), direction, style, reference, seed)
            styles = [None] * len(images) if styles is None else styles
            return [self.translate(x, direction, batch_size, style) for x, style in zip(images, styles)]
        if isinstance(images, (str, os.PathLike, PIL.Image.Image)):
            pixels = self._pixels(images, direction[0])
            name = os.path.basename(images) if isinstance(images, (str, os.PathLike)) else 0
            styles = self.styles_of([name], direction, style, reference, seed)
            result = self.translate(pixels, direction, batch_size, styles)
            if not isinstance(images, PIL.Image.Image) or result.dtype != np.uint8:
                return result
            return PIL.Image.fromarray(result if result.shape[-1] == 3 else result[..., 0])
        images = np.asarray(images)
        batch = images[None] if images.ndim == 3 else images
        kind = self.check_images(batch, images.shape, direction[0])
        styles = self.styles_of(range(len(batch)), direction, style, reference, seed)
        results = []
        for start in range(0, len(batch), batch_size):
            rows = slice(start, start + batch_size)
            part = tf.convert_to_tensor(batch[rows])
            style = None if styles is None else tf.constant(styles[rows])
            if part.dtype.is_floating:
                results.append(self._translate_float(tf.cast(part, tf.float32), direction, style).numpy().astype(kind))
            else:
                y = self._translate_float(self.to_float(part), direction, style)
                results.append(self.to_pixels(y, part.dtype).numpy())
        shape = (*batch.shape[:3], self.channels_of(direction[-1]))
        result = np.concatenate(results) if results else np.zeros(shape, kind)
        return result[0] if images.ndim == 3 else result

    def _pixels(self, image, domain):
        """The pixels of an image file or a PIL image, with the channels of a domain; arrays as they are."""
        if not isinstance(image, (str, os.PathLike, PIL.Image.Image)):
            return np.asarray(image)
        read = read_pil if isinstance(image, PIL.Image.Image) else read_image
        return to_channels(read(image, self.background), self.channels_of(domain))

    def check_images(self, batch, shape, domain):
        """The dtype of images [N, H, W, C] of a domain; `shape` is what the user gave. Raises `ValueError`."""
        channels = self.channels_of(domain)
        if batch.ndim != 4 or batch.shape[-1] != channels:
            raise ValueError(f"images of shape {shape}: expected [N, H, W, {channels}] or [H, W, {channels}]")
        if 0 in batch.shape[1:3]:
            raise ValueError(f"images of shape {shape} have no pixels")
        low, high = self.value_range
        if np.issubdtype(batch.dtype, np.floating):
            if batch.size and not (batch.min() >= low - 1e-4 and batch.max() <= high + 1e-4):
                raise ValueError(
                    f"float images from {batch.min():.4g} to {batch.max():.4g}: this method's range is "
                    f"[{low:g}, {high:g}]; scale them, or pass uint8 or uint16 pixels"
                )
        elif batch.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"images of dtype {batch.dtype}: expected uint8, uint16 or a float")
        return batch.dtype

    def styles_of(self, names, direction, style=None, reference=None, seed=None):
        """The styles that images are translated with.

        Args:
            names: of each image its position in a batch, or its file's name.
            direction, style, reference, seed: as of `translate`.

        Returns:
            float32 array [n, style_size]; None where the method takes no style.

        Raises:
            ValueError: as `translate`.
        """
        given = [n for n, x in (("style", style), ("reference", reference), ("seed", seed)) if x is not None]
        if self.style_size is None:
            if given:
                raise ValueError(f"{given[0]}=…: {self.name} takes no style, it has one translation for each image")
            return None
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} all say what style to take: give one of them")
        count = len(names)
        if not given or seed is not None:
            return self.draw_styles(seed or 0, names)
        if reference is not None:
            reference = self._pixels(reference, direction[-1])
            batch = reference[None] if reference.ndim == 3 else reference
            self.check_images(batch, reference.shape, direction[-1])
            if len(batch) not in (1, count):
                raise ValueError(f"{len(batch)} reference images: expected {count}, one for each image, or one for all")
            x = tf.convert_to_tensor(batch)
            with self.averaged():
                style = self.encode_style(
                    tf.cast(x, tf.float32) if x.dtype.is_floating else self.to_float(x), direction
                )
        style = np.asarray(style, np.float32)
        expected = (self.style_size,)
        if style.shape[-1:] != expected or style.ndim > 2 or style.shape[:-1] not in ((), (1,), (count,)):
            raise ValueError(
                f"style of shape {style.shape}: expected [{count}, {self.style_size}], one for each image, or "
                f"[{self.style_size}] for all"
            )
        return np.broadcast_to(style, (count, self.style_size))

    def draw_styles(self, seed, names):
        """Styles from N(0, 1), each of which depends on `seed` and on the name of its image alone.

        Args:
            seed: int.
            names: of each image its position in a batch, or its file's name.

        Returns:
            float32 array [n, style_size].
        """
        indices = [zlib.crc32(n.encode()) & 0x7FFFFFFF if isinstance(n, str) else n for n in names]
        if not indices:
            return np.zeros((0, self.style_size), np.float32)
        seeds = layers.sample_seeds(seed, 0, tf.constant(indices, tf.int32), "style")
        return layers.normal(seeds, (self.style_size,)).numpy()

    def _translate_float(self, x, direction, style):
        # Called directly, the first calls of several models would look like retracing of one, and TensorFlow warns.
        return self._generate_traced.get_concrete_function(x, direction, style)(
            *[t for t in (x, style) if t is not None]
        )

    @tf.function(reduce_retracing=True)
    def _generate_traced(self, x, direction, style):
        return self.generate(x, direction, style)


def _listed(callbacks):
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] * (callbacks is not None)


def translate_and_keep(generator, source, target, keep=True, batches_mix=False):
    """Translates images and, for the identity loss, passes those of the target domain through the same generator.

    One call does both where samples of a batch do not mix: on large batches the machine is faster.

    Args:
        generator: function of the arguments in `source`, a nest of tensors with the batch on axis 0 as result.
        source: tuple of tensors [N, …]: the images to translate, and what else `generator` takes.
        target: the same, of the images that should stay as they are.
        keep: whether a loss asks for the second result.
        batches_mix: whether statistics are taken over the samples of a call.

    Returns:
        (generator(*source), generator(*target)), the second None without `keep`.
    """
    if not keep:
        return generator(*source), None
    if batches_mix:
        kept = generator(*target)  # moving statistics depend on the order
        return generator(*source), kept
    both = generator(*(ops.concatenate(parts) for parts in zip(source, target)))
    halves = [(None, None) if x is None else ops.split(x, 2) for x in tf.nest.flatten(both)]
    return tuple(tf.nest.pack_sequence_as(both, [half[i] for half in halves]) for i in range(2))


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
