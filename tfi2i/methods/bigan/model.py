"""BiGAN (Donahue et al., arXiv 1605.09782), which is ALI (Dumoulin et al., arXiv 1606.00704), between two domains.

Both papers learn an encoder beside a generator: a discriminator tells pairs (x, E(x)) from pairs (G(z), z). CycleGAN's
authors kept this objective and put a picture of the other domain in the place of z, with CycleGAN's own networks (arXiv
1703.10593, section 5.1.2). This is that translator, as in the Torch7 code of that paper (model `bigan`).

Names: `generator_a2b` is that code's G, `generator_b2a` its E, `discriminator_ab` its D, which judges a picture of A
beside a picture of B. `gan_a2b` is errG, `gan_b2a` errE, `discriminator_ab` twice errD, which the code halves when it
logs it. In the two papers, where x is of A and z of B, generator_a2b is E and generator_b2a is G.

Neither kind of pair holds two real pictures: the discriminator answers 1 for (a, G(a)) and 0 for (E(b), b), and each
generator asks for the other's answer. There is no cycle, no identity and no L1. Where both kinds of pairs have the same
distribution, one generator inverts the other.

Departures from the Torch7 code:

- its histories store references to one buffer, so that a slot shows the current pair until it was overwritten by a
  copy; here they hold copies;
- its convolutions' biases are reset to 0 in each step; here they learn;
- its discriminator pads maps by 2 pixels, where the comments beside it count with 1; here by 1, as in the PyTorch code;
- its Adam adds epsilon before bias correction; here as in PyTorch;
- it has an optimizer for each generator; here one is for both, which computes the same.
"""

import keras
from keras import ops

from tfi2i.config import UserError
from tfi2i.methods.bigan import config
from tfi2i.methods.cyclegan.model import Discriminator, ResnetGenerator
from tfi2i.methods.losses import adversarial_loss
from tfi2i.methods.memory import ImagePool
from tfi2i.methods.sizes import Sizes
from tfi2i.methods.translator import Translator


@keras.saving.register_keras_serializable(package="tfi2i")
class BiGAN(Translator):
    """Two generators and one discriminator of pairs. Hyper-parameters: `config.BiGAN`.

    Example:

        model = tfi2i.BiGAN(residual_blocks=6)
        model.compile()
        model.fit(dataset)                      # batches (A, B) of one size, float32 in [-1, 1]
        pictures = model.translate(photos)      # uint8 in, uint8 out
    """

    config_class = config.BiGAN
    advice = {
        "silent discriminator": "try a smaller --discriminator_width or --discriminator_layers, or more images",
        "unchanged": "start again with another --seed",
        "blank": "start again with a lower --learning_rate or another --seed",
        "inverted": "start again with another --seed, or take a method with a cycle, such as --method=cyclegan",
        "small crop": ", or give fewer --discriminator_layers",
    }

    def __init__(self, channels_a=3, channels_b=3, seed=0, name="bigan", **kwargs):
        super().__init__(channels_a, channels_b, seed, name, **kwargs)
        c = self.config
        shared = {"norm": "instance", "affine": True, "init": "normal", "init_gain": c.init_gain}
        shared |= {"seed": seed, "dtype": self.dtype_policy}

        def generator(channels, name):
            sizes = (c.generator_width, c.residual_blocks, c.upsample)
            return ResnetGenerator(channels, *sizes, dropout=False, name=name, **shared)

        self.generator_a2b = generator(channels_b, "generator_a2b")
        self.generator_b2a = generator(channels_a, "generator_b2a")
        sizes = (c.discriminator_layers, c.discriminator_width)
        self.discriminator = Discriminator("n_layers", *sizes, name="discriminator_ab", **shared)
        self.sizes = Sizes(4, 8, crop_minimum=max(8, self.discriminator.size_minimum))
        # Each history is named after the domain of the translations in its pairs.
        self.pool_a = ImagePool(c.pool_size, seed, name="pool_a")
        self.pool_b = ImagePool(c.pool_size, seed, name="pool_b")

    @property
    def networks(self):
        return {network.name: network for network in (self.generator_a2b, self.generator_b2a, self.discriminator)}

    @property
    def generators(self):
        return {"a2b": self.generator_a2b, "b2a": self.generator_b2a}

    def input_shape_of(self, name):
        if name == self.discriminator.name:
            return (None, None, None, self.channels_a + self.channels_b)
        return super().input_shape_of(name)

    def build_for_training(self, shape_a, shape_b):
        if shape_a[1:3] != shape_b[1:3]:
            sizes = " and ".join("x".join(map(str, shape[1:3])) for shape in (shape_a, shape_b))
            raise UserError(f"images of {sizes}: the discriminator looks at pairs, so give A and B one size")
        super().build_for_training(shape_a, shape_b)
        for pool in (self.pool_a, self.pool_b):
            if not pool.built:
                pool.build((*shape_a[:-1], self.channels_a + self.channels_b))

    # -----------------------------------------------------------------------------------------------------------------
    # One step, in the published order: the discriminator first, then both generators against the updated one

    def learn(self, a, b, indices):
        _, made = self.phase(self.translation, None, a=a, b=b)
        pairs_b = self.pool_b.query(made["pairs_b"], self.step.value, indices)
        pairs_a = self.pool_a.query(made["pairs_a"], self.step.value, indices)
        d_losses, _ = self.phase(self.discriminator_phase, "discriminator", pairs_b=pairs_b, pairs_a=pairs_a)
        g_losses, _ = self.phase(self.generator_phase, "generator", a=a, b=b)
        return g_losses | d_losses

    def translation(self, a, b):
        """Pairs (a, G(a)), of which B is translated, and (E(b), b), of which A is: [N, H, W, channels of both]."""
        fake_b, fake_a = self.generator_a2b(a, training=True), self.generator_b2a(b, training=True)
        pairs = {"pairs_b": ops.concatenate([a, fake_b], axis=-1), "pairs_a": ops.concatenate([fake_a, b], axis=-1)}
        return {}, pairs

    def judge(self, pairs_b, pairs_a):
        """What the discriminator says of both kinds of pairs; the norms are those of each pair alone."""
        return ops.split(self.discriminator(ops.concatenate([pairs_b, pairs_a]), training=True), 2)

    def discriminator_phase(self, pairs_b, pairs_a):
        """L(D(a, G(a)), 1) + L(D(E(b), b), 0), pairs from the histories."""
        judged_b, judged_a = self.judge(pairs_b, pairs_a)
        kind = self.config.gan_loss
        loss = adversarial_loss(judged_b, True, kind) + adversarial_loss(judged_a, False, kind)
        return {"discriminator_ab": loss}, {}

    def generator_phase(self, a, b):
        """L(D(a, G(a)), 0) and L(D(E(b), b), 1): no term has a gradient for both generators."""
        judged_b, judged_a = self.judge(**self.translation(a, b)[1])
        kind = self.config.gan_loss
        losses = {"gan_a2b": adversarial_loss(judged_b, False, kind), "gan_b2a": adversarial_loss(judged_a, True, kind)}
        return losses, {}
