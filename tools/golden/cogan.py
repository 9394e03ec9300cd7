"""What CoGAN's PyTorch code for MNIST and USPS computes: coupled networks of digits, and a training step.

Checkout: github.com/mingyuliutw/CoGAN at commit f940c28 (2017-12-15). Its channels are numbers in the code, so its
classes are run with a `torch.nn` that divides them.
"""

import contextlib
import types
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import gradients, random_images, state, to_numpy, to_torch

COMMIT = "f940c28"
OFFICIAL = {
    "cogan_pytorch/src/init.py": "ba9f629e9dd2e9d589ebdc59c30d03577f8d48a1",
    "cogan_pytorch/src/net_cogan_mnist2usps.py": "0e4c6f8729bf5b5ef218688c2b20b9386287ffca",
    "cogan_pytorch/src/trainer_cogan_mnist2usps.py": "325793da5caa034e051921baa2be68fcbaafaa84",
}
LATENT, BATCH = 6, 3
# Channels of the code → here: the generator's divided by 128, the discriminator's by 10.
CHANNELS = {1024: 8, 512: 4, 256: 2, 128: 1, 20: 2, 50: 5, 500: 50}
CLASS_WEIGHT, FEATURE_WEIGHT = 10, 0.01  # of cogan_pytorch/exps/mnist2usps_full_cogan.yaml


def narrow(kind):
    def made(*channels, **kwargs):
        return kind(*(CHANNELS.get(c, c) for c in channels), **kwargs)

    return made


@contextlib.contextmanager
def of_2017(networks):
    """Narrow layers, tensors that stay on the CPU, and numpy's earlier name of int."""
    names = {name: getattr(torch.nn, name) for name in dir(torch.nn)}
    names |= {name: narrow(names[name]) for name in ("Conv2d", "ConvTranspose2d", "BatchNorm2d")}
    with (
        common.on_cpu(),
        mock.patch.object(networks, "nn", types.SimpleNamespace(**names)),
        mock.patch.object(np, "int", int, create=True),
    ):
        yield


def randomize(net, rng):
    """`common.randomize` of the convolutions, and random slopes; these batch norms have no weights."""
    for module in net.children():
        if isinstance(module, torch.nn.PReLU):
            module.weight.data = common.random_weights(rng, (1,), 0.25, 0.1)
        elif not isinstance(module, torch.nn.BatchNorm2d):
            common.randomize(module, rng)


def record(checkout, output):
    folder = "cogan_pytorch/src"
    names = ["net_cogan_mnist2usps", "trainer_cogan_mnist2usps"]
    networks, trainers = common.import_official(checkout, OFFICIAL, COMMIT, names, folder)
    rng = np.random.default_rng(1)
    with of_2017(networks):
        trainer = trainers.MNIST2USPSCoGanTrainer(BATCH, LATENT)
        for net in (trainer.gen, trainer.dis):
            randomize(net, rng)
        real = {d: (random_images(rng, (BATCH, 28, 28, 1)) + 1) / 2 for d in "ab"}
        noise = {r: common.random_noise(rng, (BATCH, LATENT)) for r in ("dis", "gen")}
        labels = np.arange(3, 3 + BATCH)
        arrays = {f"real_{d}": x for d, x in real.items()} | {f"noise/{r}": z for r, z in noise.items()}
        arrays |= {"labels": labels, **state(trainer.gen, "weights/gen"), **state(trainer.dis, "weights/dis")}
        a, b = (to_torch(real[d]) for d in "ab")
        with torch.no_grad():
            trainer.gen.eval()
            for domain, x in zip("ab", trainer.gen(torch.from_numpy(noise["dis"])), strict=True):
                arrays[f"generated/{domain}"] = to_numpy(x)
            trainer.gen.train()
            logits, of_a, of_b = trainer.dis(a, b)
            arrays |= {"logits": logits.numpy(), "features/a": to_numpy(of_a), "features/b": to_numpy(of_b)}
            arrays["digits/a"] = trainer.dis.classify_a(a).numpy()
            arrays["digits/b"] = trainer.dis.classify_b(b).numpy()
        seen, cross_entropy = [], torch.nn.functional.cross_entropy

        def kept(*args):
            seen.append(cross_entropy(*args))
            return seen[-1]

        with mock.patch.object(torch.nn.functional, "cross_entropy", kept):
            given = a, torch.from_numpy(labels), b, torch.from_numpy(noise["dis"])
            _, feature, _ = trainer.dis_update(*given, FEATURE_WEIGHT, CLASS_WEIGHT)
            arrays |= gradients(trainer.dis, "gradients/dis")
            trainer.gen_update(torch.from_numpy(noise["gen"]))
            arrays |= gradients(trainer.gen, "gradients/gen")
        real_loss, fake_loss, class_loss, gan_loss = (float(x.detach()) for x in seen)
        losses = [real_loss + fake_loss, CLASS_WEIGHT * class_loss, FEATURE_WEIGHT * float(feature.detach()), gan_loss]
        arrays["losses"] = np.array(losses, np.float32)
        arrays |= state(trainer.gen, "after/gen") | state(trainer.dis, "after/dis")
    common.save(output, "cogan_step", arrays)
