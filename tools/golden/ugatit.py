"""What the official PyTorch U-GAT-IT computes: generators, discriminators, two training steps.

Checkout: github.com/znxlwm/UGATIT-pytorch at commit b8c4251 (2019-10). Its imports of torchvision,
SciPy and OpenCV are for files and pictures: empty modules stand in for them. The training step is the
official one, given one batch at a time, and the loss functions write down what they return.
"""

import functools
import itertools
import json
import sys
from unittest import mock

import numpy as np
import torch
from golden.common import (
    import_official,
    new_checkpoints,
    random_images,
    save,
    save_checkpoint,
    save_state,
    state,
    to_numpy,
    to_torch,
)

COMMIT = "b8c4251"
OFFICIAL = {
    "networks.py": "86d942a169c6fb730f22211b7333c8819dc7fefb",
    "UGATIT.py": "c1859a1cf8a29f943886f367822bae5e3690bd1a",
    "utils.py": "8a37953744507ab8ee1097217e1e6bbde8ac76a4",
    "dataset.py": "d42b6258b222907d10185814bf646353729794a2",
}
NAMES = ("genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB")


def official_modules(checkout):
    """The checkout's `networks` and `UGATIT`."""
    stand_ins = {n: mock.MagicMock() for n in ("torchvision", "torchvision.transforms", "scipy", "cv2")}
    with mock.patch.dict(sys.modules, stand_ins):
        return import_official(checkout, OFFICIAL, COMMIT, ["networks", "UGATIT"])


def randomize(net, rng):
    """Random weights of a scale that every layer notices; multiples of 1/64. rho is between 0 and 1."""
    for name, value in net.named_parameters():
        if name.endswith("rho"):
            drawn = rng.uniform(0, 1, value.shape)
        elif name.endswith(("bias", "beta")):
            drawn = rng.normal(0, 0.1, value.shape)
        elif name.endswith(".gamma"):
            drawn = rng.normal(1, 0.2, value.shape)
        else:
            drawn = rng.normal(0, np.prod(value.shape[1:]) ** -0.5, value.shape)
        drawn *= 64  # in place: the full generator's are 2 GiB
        np.round(drawn, out=drawn)
        drawn /= 64
        value.data = torch.from_numpy(drawn.astype(np.float32))
    for name, value in net.named_buffers():  # u and v of spectral norms
        drawn = rng.normal(size=value.shape)
        value.copy_(torch.from_numpy((drawn / np.linalg.norm(drawn)).astype(np.float32)))
    return net


def answers(net, images, prefix):
    with torch.no_grad():
        out, logits, heat = net(to_torch(images))
    return {f"{prefix}/output": to_numpy(out), f"{prefix}/cam": to_numpy(logits), f"{prefix}/heat": to_numpy(heat)}


def record_networks(networks, output):
    """Generators full and light; both discriminators, twice in train mode and then in eval mode."""
    rng = np.random.default_rng(20)
    for light, sizes in ((False, [(16, 16)]), (True, [(16, 16), (20, 28)])):
        config = dict(input_nc=3, output_nc=3, ngf=2, n_blocks=1 if light else 2, img_size=16, light=light)
        net = randomize(networks.ResnetGenerator(**config), rng)
        arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
        for h, w in sizes:
            images = random_images(rng, (2, h, w, 3))
            arrays |= {f"{h}x{w}/input": images, **answers(net, images, f"{h}x{w}")}
        save(output, f"ugatit_generator_{'light' if light else 'full'}", arrays)
    for name, n_layers, ndf, shape in (("local", 5, 2, (2, 36, 40, 3)), ("global", 7, 1, (1, 96, 96, 3))):
        config = dict(input_nc=3, ndf=ndf, n_layers=n_layers)
        net = randomize(networks.Discriminator(**config), rng)
        images = random_images(rng, shape)
        arrays = {"config": np.array(json.dumps(config)), "input": images, **state(net, "weights")}
        for k in (1, 2):
            arrays |= answers(net.train(), images, f"train{k}")
        vectors = {key: value for key, value in state(net, "after").items() if key.endswith(("_u", "_v"))}
        arrays |= vectors | answers(net.eval(), images, "eval")
        save(output, f"ugatit_discriminator_{name}", arrays)


class Images:
    """A loader that gives one batch, to code that calls `.next()`."""

    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return self

    def next(self):
        return to_torch(self.images), None

    __next__ = next


def record_steps(networks, ugatit, output):
    """Two official training steps: every loss of both, gradients and weights of the first."""
    rng = np.random.default_rng(21)
    config = dict(ngf=2, n_blocks=1, img_size=16, light=True, ndf=2, global_layers=4, local_layers=3, lr=1e-4)
    config |= dict(adv_weight=1, cycle_weight=10, identity_weight=10, cam_weight=1000, weight_decay=1e-4)
    model = object.__new__(ugatit.UGATIT)
    for key in ("adv_weight", "cycle_weight", "identity_weight", "cam_weight", "lr"):
        setattr(model, key, config[key])
    for name in NAMES:
        if name.startswith("gen"):
            net = networks.ResnetGenerator(3, 3, config["ngf"], config["n_blocks"], config["img_size"], config["light"])
        else:
            kind = {"G": "global", "L": "local"}[name[3]]
            net = networks.Discriminator(3, config["ndf"], config[f"{kind}_layers"])
        setattr(model, name, randomize(net, rng))
    model.device, model.resume, model.decay_flag = "cpu", False, False
    model.iteration, model.print_freq, model.save_freq = 1, 10, 10

    losses = []

    def written_down(function):
        def loss(x, y):
            value = function(x, y)
            losses.append(value.item())
            return value

        return loss

    model.L1_loss = written_down(torch.nn.L1Loss())
    model.MSE_loss = written_down(torch.nn.MSELoss())
    model.BCE_loss = written_down(torch.nn.BCEWithLogitsLoss())

    images = random_images(rng, (2, 2, 16, 16, 3))  # [step, domain, …]
    arrays = {"config": np.array(json.dumps(config)), "images": images}
    for name in NAMES:
        arrays |= state(getattr(model, name), f"weights/{name}")

    def optimizer(names):
        parameters = itertools.chain(*(getattr(model, n).parameters() for n in names))
        adam = torch.optim.Adam(parameters, lr=config["lr"], betas=(0.5, 0.999), weight_decay=config["weight_decay"])

        def keep(*_):
            for n in names:
                for key, value in getattr(model, n).named_parameters():
                    arrays.setdefault(f"gradients1/{n}/{key}", value.grad.numpy().copy())

        adam.register_step_pre_hook(keep)
        return adam

    model.G_optim, model.D_optim = optimizer(NAMES[:2]), optimizer(NAMES[2:])
    model.Rho_clipper = networks.RhoClipper(0, 1)
    for k in (1, 2):
        losses.clear()
        model.trainA_loader, model.trainB_loader = (Images(images[k - 1, i : i + 1]) for i in range(2))
        model.train()
        arrays[f"losses{k}"] = np.array(losses, np.float64)
        if k == 1:
            for name in ("genA2B", "disGA", "disLA"):  # losses2 depends on the others
                arrays |= state(getattr(model, name), f"after1/{name}")
    save(output, "ugatit_steps", arrays)


def record_checkpoints(networks, output):
    """Checkpoints as the official code writes them, of one channel, and translations both ways."""
    rng = np.random.default_rng(22)
    folder = new_checkpoints(output, "ugatit_*.zip")
    arrays = {d: random_images(rng, (1, 16, 16, 3)) for d in "AB"}
    for mode, light in (("full", False), ("light", True)):
        config = dict(input_nc=3, output_nc=3, ngf=1, n_blocks=1, img_size=16, light=light)
        nets = {name: randomize(networks.ResnetGenerator(**config), rng).eval() for name in NAMES[:2]}
        if mode == "full":
            for name in NAMES[2:]:
                nets[name] = randomize(networks.Discriminator(3, 1, 4 if name[3] == "G" else 3), rng).eval()
        content = {name: net.state_dict() for name, net in nets.items()}
        archive = folder / f"ugatit_{mode}.zip"
        save_checkpoint(archive, "photos_params_0000500.pt", content, "zip" if light else "stream")
        for name, net in nets.items():
            source = name[3] if name.startswith("gen") else name[4]
            with torch.no_grad():
                arrays[f"{mode}/{name}"] = to_numpy(net(to_torch(arrays[source]))[0])
    save(folder, "ugatit", arrays)


def full_width(light, checkout, folder):
    """Writes a checkpoint of the published width; returns the official translations, A to B and B to A.

    Without the discriminators, of which the converter says that they are not there.
    """
    networks, _ = official_modules(checkout)
    config = dict(input_nc=3, output_nc=3, ngf=64, n_blocks=4, img_size=256, light=light)
    nets = [randomize(networks.ResnetGenerator(**config), np.random.default_rng(i)).eval() for i in (1, 2)]
    content = {name: net.state_dict() for name, net in zip(NAMES[:2], nets, strict=True)}
    save_state(content, folder / "photos_params_1000000.pt")
    return [lambda x, net=net: net(x)[0] for net in nets]


# See tools/check_full_width.py: the lower end of the networks' range, and what there is to check.
LOW = -1
FULL_WIDTH = {"full": functools.partial(full_width, False), "light": functools.partial(full_width, True)}


def record(checkout, output):
    networks, ugatit = official_modules(checkout)
    record_networks(networks, output)
    record_steps(networks, ugatit, output)
    record_checkpoints(networks, output)
