"""What the recorders of PyTorch's code share: random weights, torch to numpy, saving as torch does."""

import collections
import contextlib
import io
import itertools
import zipfile
from unittest import mock

import numpy as np
import torch
from golden.files import ROUNDING
from golden.files import check_checkout as check_checkout
from golden.files import import_official as import_official
from golden.files import new_checkpoints as new_checkpoints
from golden.files import random_images as random_images
from golden.files import save as save
from golden.files import sparse as sparse


def to_numpy(tensor):
    """A torch tensor as numpy; images and feature maps [N, C, H, W] become [N, H, W, C]."""
    array = tensor.detach().numpy().copy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def to_torch(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def random_noise(rng, shape):
    """Standard normal [N, H, W, C], multiples of 1/16."""
    return (np.round(rng.normal(size=shape) * 16) / 16).astype(np.float32)


def random_weights(rng, shape, mean, std):
    """A normal torch tensor, multiples of 1/256."""
    return torch.from_numpy((np.round(rng.normal(mean, std, shape) * 256) / 256).astype(np.float32))


def randomize(net, rng):
    """Random weights of a scale that every layer notices, biases included; multiples of 1/256."""
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            fan_in = module.in_channels * np.prod(module.kernel_size)
            if isinstance(module, torch.nn.ConvTranspose2d):
                fan_in /= np.prod(module.stride)
            module.weight.data = random_weights(rng, module.weight.shape, 0.0, fan_in**-0.5)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data = random_weights(rng, module.weight.shape, 1.0, 0.2)
        if getattr(module, "bias", None) is not None:
            module.bias.data = random_weights(rng, module.bias.shape, 0.0, 0.1)
    return net


def state(net, prefix):
    """The state_dict as arrays, kernels as torch lays them out."""
    return {f"{prefix}/{key}": value.numpy().copy() for key, value in net.state_dict().items()}


def gradients(net, prefix):
    return {f"{prefix}/{key}": value.grad.numpy().copy() for key, value in net.named_parameters()}


def with_statistics(net, rng):
    """The state_dict as PyTorch before 0.4 had it: instance norms have statistics, which nothing uses."""
    found = dict(net.state_dict())
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            found[f"{name}.running_mean"] = random_weights(rng, module.num_features, 3.0, 1.0)
            found[f"{name}.running_var"] = random_weights(rng, module.num_features, 3.0, 1.0) ** 2
    return collections.OrderedDict(found)


def save_checkpoint(archive, name, content, form):
    """Adds a file of `torch.save` to a zip archive, as torch writes it now ("zip"), before 1.6 ("stream") or 0.4 ("old
    stream")."""

    def reduce(tensor, protocol):
        view = tensor._typed_storage(), tensor.storage_offset(), tuple(tensor.size()), tensor.stride()
        return torch._utils._rebuild_tensor, view

    old = mock.patch.object(torch.Tensor, "__reduce_ex__", reduce) if form == "old stream" else contextlib.nullcontext()
    # A stream names its storages by their addresses: two runs give other bytes and the same content.
    with old:
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo(f"{archive.stem}/{name}"), file.getvalue(), zipfile.ZIP_DEFLATED)
    print(f"{archive.name + ' ' + name:40s}{archive.stat().st_size / 1024:8.1f} KiB")


def on_cpu():
    """Code that calls `tensor.cuda()` stays on the CPU."""
    return mock.patch.object(torch.Tensor, "cuda", lambda tensor, *_: tensor)


@contextlib.contextmanager
def rounded(k):
    """While open, modules round their outputs in the way number k: see `steady`.

    Sums of the first layers are exact in any order, since inputs and weights are multiples of powers of two: what is a
    multiple of 2⁻¹² stays.
    """
    draw = np.random.default_rng(k)

    def hook(module, inputs, output):
        if not isinstance(output, torch.Tensor):
            return output
        x = output.detach()
        noise = torch.from_numpy(draw.standard_normal(x.shape, np.float32)) * (ROUNDING * x.abs().mean())
        return output + noise * (x * 2**12 != torch.round(x * 2**12))

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def steady(steps, close, first):
    """Recorded steps that do not depend on the order in which sums are added, whoever adds them.

    Where the argument of a ReLU or of an absolute difference is nearly 0, its rounding decides about a part of the
    gradient. Where a gradient is nearly 0, its rounding decides how far Adam moves the weight. Another machine, or
    another number of threads, then computes another step, and both are right.

    Args:
        steps: function of a seed, of the inputs, to what is recorded with them.
        close: function of two recordings, whether they agree as tests want it.
        first: the first seed to try.

    Returns:
        (a seed, what is recorded with it).
    """
    for seed in itertools.count(first):
        recorded = steps(seed)
        for k in range(1, 7):
            with rounded(k):
                others = steps(seed)
            if not close(recorded, others):
                print(f"seed {seed}: rounding number {k} makes too much of a difference.")
                break
        else:
            print(f"seed {seed} is recorded.")
            return seed, recorded


def distance(arrays, others, names):
    """The norm of the difference of these arrays, as a part of the norm of all."""
    x, y = (np.concatenate([a[name].ravel() for name in names]) for a in (arrays, others))
    return np.linalg.norm(x - y) / np.linalg.norm(x)


@contextlib.contextmanager
def given_noise(*arrays):
    """`torch.randn` gives these [N, H, W, C] arrays, in this order, and all of them."""
    queue = [to_torch(array) for array in arrays]

    def randn(size):
        noise = queue.pop(0)
        if noise.shape != size:
            raise ValueError(f"noise of shape {tuple(noise.shape)}, but {tuple(size)} was asked for.")
        return noise

    with mock.patch.object(torch, "randn", randn):
        yield
    if queue:
        raise ValueError(f"{len(queue)} of {len(arrays)} noise arrays were left over.")


def save_state(content, path):
    """`torch.save`, and how large the file is."""
    torch.save(content, path)
    print(f"{path.name:40s}{path.stat().st_size / 2**20:8.1f} MiB")
