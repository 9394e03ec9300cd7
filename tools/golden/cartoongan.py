"""What the official CartoonGAN computes: its generator, and its losses and steps.

Checkout: github.com/Yijunmaverick/CartoonGAN-Test-Pytorch-Torch at commit e0414a3. This is the authors' code for tests
in PyTorch, with norms as the released models had them in training (1e-5, which the code has as 1e-9). Their code for
training is in Torch7 and is not run: discriminator, losses and steps are computed in PyTorch by the formulas of
github.com/FlyingGoblin/CartoonGAN at 7064aa6, the division of the content loss' gradient included.
"""

import types
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import random_images, random_weights, randomize, state, to_numpy, to_torch

COMMIT = "e0414a3"
OFFICIAL = {"network/Transformer.py": "891dc9ce7ad3e743cec066f405d70c29bd13b9f7"}
# The official class has no option for its width; it is made this many times narrower.
NARROWER = 32
MEAN = (103.939, 116.779, 123.680)
VGG_SIDE = 20


def narrow(channels):
    return channels if channels == 3 else channels // NARROWER


def make_generator(module, seed):
    """The official network with 2 channels instead of 64, norms as in training, and random weights."""

    def narrowed(kind):
        return lambda c, d, *arguments: kind(narrow(c), narrow(d), *arguments)

    kinds = {kind: narrowed(getattr(torch.nn, kind)) for kind in ("Conv2d", "ConvTranspose2d")}
    names = types.SimpleNamespace(**vars(torch.nn) | kinds)
    with mock.patch.object(module, "nn", names):
        net = module.Transformer()
    rng = np.random.default_rng(seed)
    randomize(net, rng)
    for part in net.modules():
        if isinstance(part, module.InstanceNormalization):
            channels, part.eps = narrow(len(part.scale)), 1e-5
            part.scale.data = random_weights(rng, channels, 0.6, 0.3)
            part.shift.data = random_weights(rng, channels, 0.0, 0.2)
    return net


class Discriminator(torch.nn.Sequential):
    """Width 2; norms behind the third, fifth and sixth convolution. It takes red, green, blue."""

    def __init__(self):
        layers, channels = [], 3
        for times, stride, normed in ((1, 1, 0), (2, 2, 0), (4, 1, 1), (4, 2, 0), (8, 1, 1), (8, 1, 1)):
            layers.append(torch.nn.Conv2d(channels, 2 * times, 3, stride, 1))
            layers += [torch.nn.InstanceNorm2d(2 * times, affine=True)] if normed else []
            layers.append(torch.nn.LeakyReLU(0.2))
            channels = 2 * times
        super().__init__(*layers, torch.nn.Conv2d(channels, 1, 3, 1, 1))


class Adam:
    """Torch7's `optim.adam` on all weights but the biases of convolutions."""

    def __init__(self, net):
        biases = [m.bias for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
        self.weights = [w for w in net.parameters() if not any(w is b for b in biases)]
        self.m, self.v, self.t = *([torch.zeros_like(w) for w in self.weights] for _ in "mv"), 0

    def step(self, rate):
        self.t += 1
        size = rate * (1 - 0.999**self.t) ** 0.5 / (1 - 0.5**self.t)
        for w, m, v in zip(self.weights, self.m, self.v):
            m.mul_(0.5).add_(w.grad, alpha=0.5)
            v.mul_(0.999).addcmul_(w.grad, w.grad, value=0.001)
            w.data.addcdiv_(m, v.sqrt() + 1e-8, value=-size)


def record_generator(output, module):
    net, rng = make_generator(module, 1), np.random.default_rng(2)
    arrays = state(net, "weights")
    for shape in ((2, 16, 16, 3), (1, 24, 40, 3), (1, 13, 18, 3)):
        size = f"{shape[1]}x{shape[2]}"
        arrays[f"input/{size}"] = random_images(rng, shape)
        with torch.no_grad():
            arrays[f"output/{size}"] = to_numpy(net(to_torch(arrays[f"input/{size}"])))
    common.save(output, "cartoongan_generator", arrays)


def record_steps(output, module):
    """One step of the initialisation, then two with a discriminator, without a pool."""
    rng = np.random.default_rng(3)
    images = {name: random_images(rng, (2, 16, 16, 3)) for name in ("photos", "cartoons", "smoothed")}
    g, d = make_generator(module, 4), randomize(Discriminator(), np.random.default_rng(5))
    vgg = randomize(torch.nn.Conv2d(3, 64, 3, 1, 1), np.random.default_rng(6)).requires_grad_(False)
    arrays = {**images, **state(g, "weights/G"), **state(d, "weights/D"), **state(vgg, "weights/vgg")}
    photos, cartoons, smoothed = map(to_torch, images.values())
    adam_g, adam_d = Adam(g), Adam(d)

    def features(x):
        x = torch.nn.functional.interpolate(x, (VGG_SIDE, VGG_SIDE), mode="bilinear", align_corners=True)
        return vgg((x + 1) * 127.5 - torch.tensor(MEAN)[:, None, None])

    def squared(x, target):
        return torch.mean((d(x.flip(1)) - target) ** 2)

    def learn_g(rate, k, adversarial):
        g.zero_grad()
        fake = g(photos)
        seen = fake.detach().requires_grad_()
        content = 10 * torch.mean(torch.abs(features(seen) - features(photos)))
        gradient = torch.autograd.grad(content, seen)[0] / 127.5**2
        losses = [content]
        if adversarial:
            losses.insert(0, squared(seen, 1.0))
            gradient += torch.autograd.grad(losses[0], seen)[0]
        fake.backward(gradient)
        arrays[f"gradients{k}/G"] = np.concatenate([w.grad.numpy().ravel() for w in adam_g.weights])
        adam_g.step(rate)
        return [loss.item() for loss in losses]

    arrays["losses1"] = np.array(learn_g(2e-4, 1, adversarial=False), np.float32)
    for k in (2, 3):
        fake = g(photos).detach()
        d.zero_grad()
        loss = squared(cartoons, 1.0) + squared(smoothed, 0.0) + squared(fake, 0.0)
        loss.backward()
        arrays[f"gradients{k}/D"] = np.concatenate([w.grad.numpy().ravel() for w in adam_d.weights])
        adam_d.step(1e-5)
        arrays[f"losses{k}"] = np.array([loss.item(), *learn_g(1e-5, k, adversarial=True)], np.float32)
    arrays |= {**state(g, "after/G"), **state(d, "after/D")}
    common.save(output, "cartoongan_steps", arrays)


def record_checkpoints(output, module):
    """A generator in both forms in which the released ones are passed on, and what it makes of an image."""
    net = make_generator(module, 7)
    folder = common.new_checkpoints(output, "cartoongan*.zip")
    common.save_checkpoint(folder / "cartoongan.zip", "Hayao_net_G_float.pth", net.state_dict(), "old stream")
    image = random_images(np.random.default_rng(8), (1, 16, 20, 3))
    with torch.no_grad():
        common.save(folder, "cartoongan", {"input": image, "output": to_numpy(net(to_torch(image)))})


def record(checkout, output):
    (module,) = common.import_official(checkout, OFFICIAL, COMMIT, ["network.Transformer"])
    record_generator(output, module)
    record_steps(output, module)
    record_checkpoints(output, module)
