"""What discriminators remember of earlier steps: pools of images and caches of features.

Every replica keeps the samples of all replicas, in global order: all copies stay equal, and the number of replicas may
change when a run is resumed.
"""

import keras
import tensorflow as tf

from tfi2i import layers


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


@keras.saving.register_keras_serializable(package="tfi2i")
class ImagePool(keras.layers.Layer):
    """History of translated images that discriminators learn from (Shrivastava et al., arXiv 1612.07828).

    Until `size` images are stored, each is stored and returned. Then, with probability 1/2, a stored image is
    returned and the new one takes its place; otherwise the new one is returned and not stored. Every replica applies
    the samples of all replicas in global order, so all copies stay equal.

    Args:
        size: images kept; 0: every image is returned as it is.
        seed: the run's seed.

    Attributes:
        active: False while losses are only measured: every image is returned as it is, and none is stored.
    """

    def __init__(self, size=50, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.seed = seed
        self.active = True

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
        if not (self.size and self.active):
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


@keras.saving.register_keras_serializable(package="tfi2i")
class FeatureCache(keras.layers.Layer):
    """The features of the newest `size` samples that a discriminator saw, oldest first.

    Every replica adds the samples of all replicas in global order, so all copies stay equal.

    Attributes:
        active: False while losses are only measured: nothing is remembered and nothing is added.
    """

    def __init__(self, size, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self.size = size
        self.active = True

    def build(self, input_shape):
        shared = {"trainable": False, "initializer": "zeros", "autocast": False}
        # Equal on all replicas without a broadcast of all the features at each step.
        self.features = self.add_weight(
            shape=(self.size, *input_shape[1:]), dtype="float32", name="features", aggregation="none", **shared
        )
        self.count = self.add_weight(shape=(), dtype="int64", name="count", aggregation="only_first_replica", **shared)
        self.built = True

    def read(self):
        """(features [size, h, w, F], float32 [size]: 1 for those that are filled, else 0); None where not `active`."""
        if not self.active:
            return None
        age = tf.range(self.size, 0, -1, tf.int64)
        filled = tf.cast(age <= tf.convert_to_tensor(self.count.value), tf.float32)
        return tf.convert_to_tensor(self.features.value), filled

    def push(self, features, indices):
        """Adds this replica's features [N, h, w, F]; `indices` are the samples' positions in the global batch."""
        if not self.active:
            return
        everyone = gather_global(features, indices)
        self.features.assign(tf.concat([tf.convert_to_tensor(self.features.value), everyone], axis=0)[-self.size :])
        self.count.assign(tf.minimum(tf.convert_to_tensor(self.count.value) + everyone.shape[0], self.size))


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
