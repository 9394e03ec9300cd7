"""What the official pix2pix computes: its U-Nets as they are tested, and its losses and steps.

Checkout: github.com/junyanz/pytorch-CycleGAN-and-pix2pix at commit c3268ed (2024-03-22).
"""

import json
from unittest import mock

import numpy as np
import torch
from golden import common, cyclegan
from golden.common import gradients, random_images, randomize, state, to_numpy, to_torch

COMMIT = cyclegan.COMMIT
OFFICIAL = {
    "models/networks.py": "f46237142a8629f344aeb3a1e3c3fb16a7392341",
    "models/base_model.py": "6de961b51a2cc12634fc40c39f63b017c6262b4c",
    "models/pix2pix_model.py": "86a2b15826438f15966bf73fa631c9748d91e207",
}


def masked(dropout, x):
    """In the place of dropout: the masks that tests can repeat, 1 where row + column + channel is even, times 2."""
    _, c, h, w = x.shape
    kept = (torch.arange(c)[:, None, None] + torch.arange(h)[:, None] + torch.arange(w)) % 2 == 0
    return x * kept * 2


def as_tested(net, images):
    """What the official code makes of each image: one at a time and in training mode, as it tests."""
    with torch.no_grad(), mock.patch.object(torch.nn.Dropout, "forward", masked):
        return np.concatenate([to_numpy(net.train()(to_torch(x[None]))) for x in images])


def coarse_images(rng, shape, block=16):
    """Images of squares of `block` pixels, which compress well."""
    n, height, width, channels = shape
    return random_images(rng, (n, height // block, width // block, channels)).repeat(block, 1).repeat(block, 2)


def record_generators(output, networks):
    """The U-Nets with batch norm and dropout, as they are tested; every third pixel."""
    for kind, shapes in (("unet_128", [(2, 128, 128, 1)]), ("unet_256", [(1, 256, 512, 1)])):
        config = dict(netG=kind, ngf=1, input_nc=1, output_nc=2, norm="batch")
        net = networks.define_G(1, 2, 1, kind, "batch", use_dropout=True)
        randomize(net, np.random.default_rng(1))
        rng = np.random.default_rng(2)
        arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
        for shape in shapes:
            size = f"{shape[1]}x{shape[2]}"
            arrays[f"input/{size}"] = coarse_images(rng, shape)
            arrays[f"output/{size}"] = common.sparse(as_tested(net, arrays[f"input/{size}"]))
        common.save(output, f"pix2pix_{kind.replace('_', '')}", arrays)


def record_steps(output, pix2pix_model):
    """The losses of a step in both directions and for a batch of one and two, then two steps of training."""
    rng = np.random.default_rng(4)
    real = {domain: coarse_images(rng, (2, 128, 128, 3), block=4) for domain in "AB"}
    names = ("G", "D")

    def new_model(**changes):
        options = dict(netG="unet_128", ngf=1, ndf=2, norm="batch", gan_mode="vanilla", lambda_L1=100.0)
        options |= dict(no_dropout=False)
        model = pix2pix_model.Pix2PixModel(cyclegan.cyclegan_options(**options | changes))
        for seed, name in enumerate(names):
            randomize(getattr(model, "net" + name), np.random.default_rng(10 + seed))
        return model

    def step(model, samples):
        images = {d: to_torch(x[samples]) for d, x in real.items()}
        model.set_input(images | dict(A_paths=[], B_paths=[]))
        with mock.patch.object(torch.nn.Dropout, "forward", masked):
            model.optimize_parameters()
        return np.array([getattr(model, "loss_" + name).item() for name in model.loss_names], np.float32)

    model = new_model()
    arrays = {"loss_names": np.array(model.loss_names), "real_A": real["A"], "real_B": real["B"]}
    for name in names:
        arrays |= state(getattr(model, "net" + name), f"weights/{name}")
    arrays["losses/lsgan"] = step(new_model(gan_mode="lsgan"), slice(2))
    arrays["losses/BtoA"] = step(new_model(direction="BtoA"), slice(1))
    for k, samples in ((1, slice(2)), (2, slice(1))):
        arrays[f"losses{k}"] = step(model, samples)
        for name in names:
            net = getattr(model, "net" + name)
            if k == 1:
                arrays |= gradients(net, f"gradients{k}/{name}")
            arrays |= state(net, f"after{k}/{name}")
    common.save(output, "pix2pix_steps", arrays)


def record_checkpoints(output, networks):
    """Checkpoints as the official code writes them, of networks of a width of 1, and what it makes of images."""
    rng = np.random.default_rng(7)
    folder = common.new_checkpoints(output, "pix2pix_*.zip")
    arrays = {"128": coarse_images(rng, (2, 128, 128, 3)), "256": coarse_images(rng, (1, 256, 256, 3))}
    judged = np.concatenate([arrays["128"], arrays["128"][::-1]], axis=-1)

    def make(net, seed):
        randomize(net, np.random.default_rng(seed))
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.data = common.random_weights(rng, module.num_features, 0.0, 0.5)
                module.running_var.data = common.random_weights(rng, module.num_features, 1.0, 0.2).abs()
        return net

    def evaluated(net, images):
        with torch.no_grad():
            return common.sparse(to_numpy(net.eval()(to_torch(images))))

    net = make(networks.define_G(3, 3, 1, "unet_128", "batch", use_dropout=True), 1)
    common.save_checkpoint(folder / "pix2pix_whole.zip", "latest_net_G.pth", net.state_dict(), "zip")
    arrays["whole/average"] = evaluated(net, arrays["128"])
    arrays["whole/G"] = common.sparse(as_tested(net, arrays["128"]))
    net = make(networks.define_D(6, 1, "basic", norm="batch"), 2)
    common.save_checkpoint(folder / "pix2pix_whole.zip", "latest_net_D.pth", net.state_dict(), "stream")
    arrays["whole/D"] = evaluated(net, judged)
    net = make(networks.define_G(3, 3, 1, "unet_256", "instance"), 3)
    common.save_checkpoint(folder / "pix2pix_unet256.zip", "latest_net_G.pth", net.state_dict(), "old stream")
    arrays["unet256/G"] = evaluated(net, arrays["256"])
    net = make(networks.define_G(3, 3, 1, "resnet_6blocks", "batch", use_dropout=True), 4)
    common.save_checkpoint(folder / "pix2pix_resnet.zip", "30_net_G.pth", net.state_dict(), "stream")
    arrays["resnet/G"] = common.sparse(as_tested(net, arrays["128"][:, :32, :32]))
    common.save(folder, "pix2pix", arrays)


def record(checkout, output):
    networks, pix2pix_model = common.import_official(
        checkout, OFFICIAL, COMMIT, ["models.networks", "models.pix2pix_model"]
    )
    record_generators(output, networks)
    record_steps(output, pix2pix_model)
    record_checkpoints(output, networks)
