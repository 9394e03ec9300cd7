"""What CycleGAN's Torch7 code computes as its model `bigan`: two steps, and the losses of a step in a batch of two.

Checkout: github.com/junyanz/CycleGAN at commit 40b4498 (2023-09). Needs torch and lupa 2.8, which runs the official Lua
code. Torch7 itself is not needed: `bigan_standins.lua` and the functions here give that code tensors, layers and Adam's
arithmetic, over PyTorch. In two points they depart from it as tfi2i does: biases are not reset in each step, and the
discriminator pads by 1 instead of 2.
"""

import pathlib
import types

import lupa.lua51
import numpy as np
import torch
from golden import common
from golden.common import gradients, random_images, random_weights, randomize, state, to_torch

COMMIT = "40b4498"
OFFICIAL = {
    "models/architectures.lua": "8b83cea91e318e3cd49e436a36299dce904d3122",
    "models/base_model.lua": "fedd4bdc33b045859476d5cebb8b1b02df326295",
    "models/bigan_model.lua": "7bd6df8defd7a91e1fde38f6813089e46d7f8ed4",
    "util/image_pool.lua": "f62cd85a2e2331775644ac05b66467c8220ed5b4",
}
STANDINS = pathlib.Path(__file__).with_name("bigan_standins.lua")
NETWORKS = ("G", "E", "D")
OPTIONS = dict(
    test=0, pool_size=50, continue_train=0, input_nc=3, output_nc=1, fineSize=32, ngf=2, ndf=2, lr=2e-4, beta1=0.5,
    which_model_netG="resnet_6blocks", which_model_netD="basic", n_layers_D=3, which_direction="AtoB",
)  # fmt: skip

# What the Lua code calls


def channels(x, first, last):
    return x.narrow(1, first - 1, last - first + 1)


def size(x, axis):
    return x.shape if axis is None else x.shape[axis - 1]


class Sum(torch.nn.Module):
    """Torch7's ConcatTable and CAddTable, which follow each other: the sum of what the modules make of one input."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList()

    def append(self, part):
        self.parts.append(part)

    def forward(self, x):
        return sum(part(x) for part in self.parts)


def convolution(inputs, filters, width, height, dw=1, dh=1, pad_w=0, pad_h=0):
    pad = (1, 1) if width == 4 else (pad_h, pad_w)
    return torch.nn.Conv2d(inputs, filters, (height, width), (dh, dw), pad)


def full_convolution(inputs, filters, width, height, dw, dh, pad_w, pad_h, more_w, more_h):
    return torch.nn.ConvTranspose2d(inputs, filters, (height, width), (dh, dw), (pad_h, pad_w), (more_h, more_w))


MODULES = {
    "SpatialConvolution": convolution,
    "SpatialFullConvolution": full_convolution,
    "SpatialReflectionPadding": lambda *sides: torch.nn.ReflectionPad2d(sides),
    "InstanceNormalization": lambda width: torch.nn.InstanceNorm2d(width, eps=1e-5, affine=True),
    "ReLU": lambda inplace: torch.nn.ReLU(),
    "LeakyReLU": lambda slope, inplace: torch.nn.LeakyReLU(slope),
    "Tanh": torch.nn.Tanh,
    "Identity": torch.nn.Identity,
    "Dropout": torch.nn.Dropout,
    "Sequential": torch.nn.Sequential,
    "ConcatTable": Sum,
    "CAddTable": torch.nn.Identity,
}


def forward(net, x):
    net.seen = x.detach().clone().requires_grad_()
    net.said = net(net.seen)
    return net.said.detach()


def backward(net, gradient):
    """Adds to the gradients of the weights, and gives that of the input."""
    torch.autograd.backward(net.said, gradient)
    return net.seen.grad


def input_gradient(net, gradient):
    (found,) = torch.autograd.grad(net.said, net.seen, gradient)
    return found


def parameters(net):
    """All weights and all gradients as two vectors, of which those of the layers are parts from now on."""
    weights = torch.cat([p.detach().flatten() for p in net.parameters()])
    vectors = types.SimpleNamespace(weights=weights, gradients=torch.zeros_like(weights))
    start = 0
    for p in net.parameters():
        part = slice(start, start + p.numel())
        p.data, p.grad = vectors.weights[part].view_as(p), vectors.gradients[part].view_as(p)
        start += p.numel()
    return vectors


def adam(x, gradient, settings):
    """Torch7's `optim.adam`: epsilon, 1e-8, is added before bias correction."""
    if settings.t is None:
        settings.t, settings.m, settings.v = 0, torch.zeros_like(x), torch.zeros_like(x)
    settings.t += 1
    settings.m.mul_(settings.beta1).add_(gradient, alpha=1 - settings.beta1)
    settings.v.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
    rate = settings.learningRate * (1 - 0.999**settings.t) ** 0.5 / (1 - settings.beta1**settings.t)
    x.addcdiv_(settings.m, settings.v.sqrt().add_(1e-8), value=-rate)


FUNCTIONS = types.SimpleNamespace(
    channels=channels,
    size=size,
    zeros=torch.zeros,
    clone=torch.clone,
    copy=torch.Tensor.copy_,
    fill=torch.Tensor.fill_,
    append=lambda modules, module: modules.append(module),
    module=lambda kind, *args: MODULES[kind](*args),
    forward=forward,
    backward=backward,
    input_gradient=input_gradient,
    parameters=parameters,
    squared_error=lambda x, label: torch.mean((x - label) ** 2).item(),
    squared_error_gradient=lambda x, label: 2 * (x - label) / x.numel(),
    adam=adam,
)

# What is recorded


class Model:
    """The official model with random weights; `step` trains it once."""

    def __init__(self, checkout, **options):
        self.lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)
        known = self.lua.globals()
        known.python, known.checkout = FUNCTIONS, str(checkout)
        known.opt = self.options = self.lua.table_from(OPTIONS | options)
        self.lua.execute(STANDINS.read_text())
        self.lua.execute("print = function() end; require 'models.bigan_model'; set_normalization('instance')")
        self.model = self.lua.eval("BiGANModel()")
        self.model.Initialize(self.model, self.options)
        self.networks = {name: self.model["net" + name].value for name in NETWORKS}
        for seed, net in enumerate(self.networks.values()):
            rng = np.random.default_rng(20 + seed)
            values = {id(p): p.data for p in net.parameters()}  # parts of the vector that Adam changes
            randomize(net, rng)
            for module in net.modules():
                if isinstance(module, torch.nn.InstanceNorm2d):
                    module.weight.data = random_weights(rng, module.weight.shape, 1.0, 0.2)
            for p in net.parameters():
                p.data = values[id(p)].copy_(p.data)

    def step(self, a, b):
        """The losses errD (halved, as logged), errG, errE of a step on these images [N, H, W, C]."""
        wrap = self.lua.globals().tensor
        batch = self.lua.table_from({"real_A": wrap(to_torch(a)), "real_B": wrap(to_torch(b))})
        self.model.Forward(self.model, batch, self.options)
        self.model.OptimizeParameters(self.model, self.options)
        errors = self.model.GetCurrentErrors(self.model)
        return np.array([errors["err" + name] for name in "DGE"], np.float32)


def record(checkout, output):
    common.check_checkout(checkout, OFFICIAL, COMMIT)
    rng = np.random.default_rng(3)
    a, b = (random_images(rng, (2, 32, 32, channels)) for channels in (3, 1))
    model = Model(checkout, batchSize=1)
    arrays = {"real_A": a, "real_B": b, "loss_names": np.array(["errD", "errG", "errE"])}
    for name, net in model.networks.items():
        arrays |= state(net, f"weights/{name}")
    arrays["losses/batch2"] = Model(checkout, batchSize=2).step(a, b)
    for k in (1, 2):
        arrays[f"losses{k}"] = model.step(a[k - 1 : k], b[k - 1 : k])
        for name, net in model.networks.items():
            arrays |= gradients(net, "gradients1/" + name) if k == 1 else state(net, "after2/" + name)
    common.save(output, "bigan_steps", arrays)
