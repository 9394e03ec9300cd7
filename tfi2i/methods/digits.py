"""What the methods share that learn to recognise digits of a domain without labels."""

import tensorflow as tf
from keras import ops

from tfi2i.methods.translator import Translator


class DigitClassifier(Translator):
    """A model whose discriminators have a classifier of digits on top, of which `digit_logits` gives the logits.

    It learns from batches (A, B, labels of A). Its `config.baseline` says that it is the classifier alone, which then
    sees both domains as A: B's own layers would never have learned.
    """

    def digit_logits(self, x, domain):
        """Float32 [N, 10] of images of domain "a" or "b"."""
        raise NotImplementedError

    def classify(self, x, domain="b"):
        """The digits 0–9 of images.

        Args:
            x: uint8, or float32 in `value_range`, [N, H, W, C] of the networks' size; with C of domain A under
                `baseline`.
            domain: "a" or "b".

        Returns:
            int64 numpy array [N].
        """
        domain = "a" if self.config.baseline else domain
        x = tf.convert_to_tensor(x)
        return self._classify(x if x.dtype.is_floating else self.to_float(x), domain).numpy()

    @tf.function(reduce_retracing=True)
    def _classify(self, x, domain):
        return ops.argmax(self.digit_logits(x, domain), axis=-1)

    def accuracy(self, images, labels, domain="b", batch_size=256):
        """Part of the images that are classified as their label says; arguments as of `classify`."""
        right = 0
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            right += int((self.classify(images[part], domain) == labels[part]).sum())
        return right / len(images)
