"""What the official CycleGAN computes: networks, losses, steps, image pool, Adam, schedules, preprocessing.

Checkout: github.com/junyanz/pytorch-CycleGAN-and-pix2pix at commit c3268ed (2024-03-22).
"""

import functools
import json
import random
import types
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import gradients, random_images, randomize, state, to_numpy, to_torch
from PIL import Image

COMMIT = "c3268ed"
OFFICIAL = {
    "models/networks.py": "f46237142a8629f344aeb3a1e3c3fb16a7392341",
    "models/base_model.py": "6de961b51a2cc12634fc40c39f63b017c6262b4c",
    "models/cycle_gan_model.py": "15bb72d8ddc4e7891b643578025037c34f047aec",
    "util/image_pool.py": "6d086f882bc3d1b90c529fce6cddaaa75f2005d7",
    "util/util.py": "b050c13e1d6d0f197af356b099b9c11c0714522c",
}
EPOCHS = 200  # the published 100 + 100


def generator(networks, **config):
    """A seeded generator; `config` goes into the file beside its numbers."""
    net = networks.define_G(config["input_nc"], config["output_nc"], config["ngf"], config["netG"], config["norm"])
    return randomize(net, np.random.default_rng(1))


def discriminator(networks, **config):
    net = networks.define_D(config["input_nc"], config["ndf"], config["netD"], config["n_layers_D"], config["norm"])
    return randomize(net, np.random.default_rng(2))


def record_network(output, name, net, config, shapes):
    """Weights, inputs and outputs; with batch norm also the running statistics and eval outputs.

    Sizes are run in order in train mode, so batch norm's running statistics are those after all of
    them; the eval outputs use these statistics. Outputs keep every `output_stride`-th pixel.
    """
    stride = config.get("output_stride", 1)
    rng = np.random.default_rng(3)
    arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
    inputs = {}
    with torch.no_grad():
        for batch, height, width in shapes:
            size = f"{height}x{width}"
            inputs[size] = random_images(rng, (batch, height, width, config["input_nc"]))
            arrays[f"input/{size}"] = inputs[size]
            result = to_numpy(net.train()(to_torch(inputs[size])))
            arrays[f"output/{size}"] = result[:, ::stride, ::stride]
        if config["norm"] == "batch":
            after = state(net, "weights_after")
            arrays |= {key: value for key, value in after.items() if "running" in key}
            for size, images in inputs.items():
                result = to_numpy(net.eval()(to_torch(images)))
                arrays[f"output_eval/{size}"] = result[:, ::stride, ::stride]
    common.save(output, name, arrays)


def record_generators(output, networks):
    few = [(2, 16, 16), (1, 24, 40)]
    many = [(1, 32, 32), *few, (1, 18, 21)]
    cases = [
        ("resnet_9blocks", "instance", 4, many),
        ("resnet_6blocks", "instance", 4, many),
        ("resnet_6blocks", "batch", 3, few),
        ("resnet_6blocks", "none", 3, few),
    ]
    for netG, norm, ngf, shapes in cases:
        config = dict(netG=netG, norm=norm, ngf=ngf, input_nc=3, output_nc=3)
        name = f"cyclegan_{netG.removesuffix('blocks').replace('_', '')}_{norm}"
        record_network(output, name, generator(networks, **config), config, shapes)
    # These need large maps: fewer channels and every third pixel of the output keep them small.
    cases = [
        ("unet_128", "instance", 2, [(1, 128, 128), (1, 128, 256)]),
        ("unet_128", "batch", 2, [(1, 128, 128)]),
        ("unet_256", "instance", 1, [(1, 256, 256)]),
    ]
    for netG, norm, ngf, shapes in cases:
        config = dict(netG=netG, norm=norm, ngf=ngf, input_nc=1, output_nc=2, output_stride=3)
        name = f"cyclegan_{netG.replace('_', '')}_{norm}"
        record_network(output, name, generator(networks, **config), config, shapes)


def record_discriminators(output, networks):
    small, odd = (2, 32, 32), (1, 45, 37)
    cases = [
        ("basic", "basic", 3, "instance", 4, [small, odd, (1, 64, 96)]),
        ("basic", "basic", 3, "batch", 4, [small, odd]),
        ("basic", "basic", 3, "none", 4, [small, odd]),
        ("layers1", "n_layers", 1, "instance", 4, [small, odd]),
        ("layers2", "n_layers", 2, "instance", 4, [small, odd]),
        ("layers4", "n_layers", 4, "instance", 2, [(1, 64, 64), (1, 77, 69)]),
        ("layers5", "n_layers", 5, "instance", 2, [(1, 96, 96), (1, 101, 98)]),
        ("pixel", "pixel", 3, "instance", 4, [small, odd]),
        ("pixel", "pixel", 3, "batch", 4, [small]),
    ]
    for label, netD, layers, norm, ndf, shapes in cases:
        config = dict(netD=netD, n_layers_D=layers, norm=norm, ndf=ndf, input_nc=3)
        net = discriminator(networks, **config)
        record_network(output, f"cyclegan_discriminator_{label}_{norm}", net, config, shapes)


def cyclegan_options(**changes):
    options = dict(
        gpu_ids=[],
        isTrain=True,
        checkpoints_dir="unused",
        name="unused",
        direction="AtoB",
        preprocess="none",
        input_nc=3,
        output_nc=3,
        ngf=2,
        ndf=2,
        netG="resnet_6blocks",
        netD="basic",
        n_layers_D=3,
        norm="instance",
        no_dropout=True,
        init_type="normal",
        init_gain=0.02,
        gan_mode="lsgan",
        lambda_A=10.0,
        lambda_B=10.0,
        lambda_identity=0.5,
        pool_size=50,
        lr=2e-4,
        beta1=0.5,
        lr_policy="linear",
        epoch_count=1,
        n_epochs=100,
        n_epochs_decay=100,
        lr_decay_iters=50,
    )
    return types.SimpleNamespace(**options | changes)


def record_model(output, cycle_gan_model):
    """The whole model: eight losses in three GAN modes, then two steps of training."""
    names = ["G_A", "G_B", "D_A", "D_B"]
    rng = np.random.default_rng(4)
    real_A, real_B = (random_images(rng, (2, 32, 32, 3)) for _ in range(2))

    def new_model(**changes):
        model = cycle_gan_model.CycleGANModel(cyclegan_options(**changes))
        for seed, name in enumerate(names):
            randomize(getattr(model, "net" + name), np.random.default_rng(10 + seed))
        return model

    def step(model, samples):
        model.set_input(dict(A=to_torch(real_A[samples]), B=to_torch(real_B[samples]), A_paths=[], B_paths=[]))
        model.optimize_parameters()
        losses = [getattr(model, "loss_" + name).item() for name in model.loss_names]
        return np.array(losses, np.float32)

    model = new_model()
    config = {key: value for key, value in vars(model.opt).items() if value != "unused"}
    arrays = {
        "config": np.array(json.dumps(config)),
        "loss_names": np.array(model.loss_names),
        "real_A": real_A,
        "real_B": real_B,
    }
    for name in names:
        arrays |= state(getattr(model, "net" + name), f"weights/{name}")
    for gan_mode in ["lsgan", "vanilla", "wgangp"]:
        for batch in [1, 2]:
            losses = step(new_model(gan_mode=gan_mode), slice(batch))
            arrays[f"losses/{gan_mode}/batch{batch}"] = losses
    # With an unfilled pool a step's losses are those of the weights it starts from.
    step(model, slice(1))
    for name in ["fake_B", "rec_A", "fake_A", "rec_B", "idt_A", "idt_B"]:
        arrays[f"images/{name}"] = to_numpy(getattr(model, name))
    common.save(output, "cyclegan_model", arrays)

    model = new_model()
    arrays = {"losses1": step(model, slice(0, 1))}
    for name in names:
        arrays |= gradients(getattr(model, "net" + name), f"gradients1/{name}")
        arrays |= state(getattr(model, "net" + name), f"after1/{name}")
    arrays["losses2"] = step(model, slice(1, 2))
    for name in names:
        arrays |= state(getattr(model, "net" + name), f"after2/{name}")
    common.save(output, "cyclegan_steps", arrays)


def record_gradient_penalty(output, networks):
    config = dict(netD="basic", n_layers_D=3, norm="instance", ndf=2, input_nc=3)
    net = discriminator(networks, **config)
    rng = np.random.default_rng(5)
    real, fake = (random_images(rng, (2, 32, 32, 3)) for _ in range(2))
    alpha = np.array([0.25, 0.8125], np.float32)
    arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
    arrays |= {"real": real, "fake": fake, "alpha": alpha}
    for kind in ["mixed", "real", "fake"]:
        net.zero_grad()
        with mock.patch.object(torch, "rand", lambda *_, **__: torch.from_numpy(alpha[:, None])):
            penalty, gradient = networks.cal_gradient_penalty(net, to_torch(real), to_torch(fake), "cpu", type=kind)
        arrays[f"penalty/{kind}"] = penalty.detach().numpy()
        arrays[f"gradient_norm/{kind}"] = gradient.norm(dim=1).detach().numpy()
    net.zero_grad()
    with mock.patch.object(torch, "rand", lambda *_, **__: torch.from_numpy(alpha[:, None])):
        penalty, _ = networks.cal_gradient_penalty(net, to_torch(real), to_torch(fake), "cpu")
    penalty.backward()
    # The last bias has no part in the penalty: torch leaves its gradient empty.
    for key, value in net.named_parameters():
        grad = torch.zeros_like(value) if value.grad is None else value.grad
        arrays[f"gradients/{key}"] = grad.numpy().copy()
    common.save(output, "cyclegan_gradient_penalty", arrays)


def record_pool(output, image_pool):
    """200 images through a pool of 5, one at a time and in twos, with known random numbers."""
    rng = np.random.default_rng(6)
    uniform = np.round(rng.uniform(size=200), 3)
    uniform[[20, 60, 111]] = 0.5  # the boundary: only u > 0.5 takes a stored image
    index = rng.integers(0, 5, 200)
    arrays = {
        "pool_size": np.array(5),
        "ids_in": np.arange(200),
        "uniform": uniform,
        "index": index,
    }
    for batch in [1, 2]:
        pool = image_pool.ImagePool(5)
        ids_out, stored = [], []
        for start in range(0, 200, batch):
            images = torch.arange(start, start + batch, dtype=torch.float32)[:, None, None, None]
            # The official code draws only when it is full: give image i the numbers at i.
            draws = iter(range(max(start, 5), start + batch))
            current = None

            def next_uniform(*_):
                nonlocal current
                current = next(draws)
                return uniform[current]

            def next_index(*_):
                return int(index[current])

            with (
                mock.patch.object(random, "uniform", next_uniform),
                mock.patch.object(random, "randint", next_index),
            ):
                ids_out += [int(image) for image in pool.query(images).flatten()]
            ids = [int(image) for image in pool.images]
            stored.append(ids + [-1] * (5 - len(ids)))
        arrays[f"ids_out/batch{batch}"] = np.array(ids_out)
        arrays[f"stored/batch{batch}"] = np.array(stored)
    common.save(output, "image_pool", arrays)


def record_adam(output):
    """torch.optim.Adam on gradients from 1 down to 1e-9, some changing sign, some zero at times."""
    rng = np.random.default_rng(7)
    magnitude = 10.0 ** -np.arange(10).repeat(3)  # 30 weights: three per power of ten
    grads = (rng.normal(size=(20, 30)) * magnitude).astype(np.float32)
    grads[:, 2::3] = np.abs(grads[:, 2::3])
    grads[5:8, 1::3] = 0
    start = np.round(rng.normal(size=30) * 1024).astype(np.float32) / 1024
    arrays = {"start": start, "gradients": grads}
    cases = {
        "cyclegan": dict(lr=2e-4, betas=(0.5, 0.999)),
        "weight_decay": dict(lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4),
    }
    arrays["config"] = np.array(json.dumps(cases))
    for name, settings in cases.items():
        weights = torch.nn.Parameter(torch.from_numpy(start.copy()))
        optimizer = torch.optim.Adam([weights], **settings)
        after = []
        for grad in grads:
            weights.grad = torch.from_numpy(grad.copy())
            optimizer.step()
            after.append(weights.detach().numpy().copy())
        arrays[f"after/{name}"] = np.stack(after)
    common.save(output, "torch_adam", arrays)


def record_schedules(output, networks):
    """The multiplier of the learning rate that each epoch trains with, for each way of stepping."""

    def multipliers(epochs, at_start, **changes):
        options = cyclegan_options(**changes)
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = networks.get_scheduler(optimizer, options)
        optimizer.step()  # torch warns when the schedule moves before any step
        used = []
        for _ in range(epochs):
            if at_start:
                scheduler.step()
            used.append(optimizer.param_groups[0]["lr"])
            if not at_start:
                scheduler.step()
        return np.array(used)

    arrays = {
        "linear/C": multipliers(EPOCHS, True),
        "linear/D": multipliers(EPOCHS, False),
        # Resumed after epoch 120: the rule is told where it stands by epoch_count.
        "linear_resumed_121/C": multipliers(80, True, epoch_count=121),
        "linear_resumed_121/D": multipliers(80, False, epoch_count=121),
        "step/start": multipliers(EPOCHS, True, lr_policy="step"),
        "step/end": multipliers(EPOCHS, False, lr_policy="step"),
        "cosine/start": multipliers(EPOCHS, True, lr_policy="cosine"),
        "cosine/end": multipliers(EPOCHS, False, lr_policy="cosine"),
    }
    # Era B stepped today's rule at the epoch's end; era A's rule had one more +1, as a later start.
    arrays["linear/B"] = arrays["linear/D"]
    arrays["linear/A"] = multipliers(EPOCHS, False, epoch_count=2)
    common.save(output, "schedules", arrays)


def record_preprocessing(output, util):
    """Pillow's resizing, and the official conversion of an output to pixels."""
    rng = np.random.default_rng(8)

    def picture(height, width):
        """A picture of soft random colours with few levels, uint8 [height, width, 3]."""
        coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(smooth) // 16 * 17

    arrays = {}
    for name, (height, width) in {"up": (37, 50), "down": (150, 200)}.items():
        arrays[f"{name}/image"] = pixels = picture(height, width)
        for method in ["bicubic", "bilinear", "lanczos"]:
            resample = Image.Resampling[method.upper()]
            resized = Image.fromarray(pixels).resize((64, 64), resample)
            arrays[f"{name}/{method}_64x64"] = np.asarray(resized)
    values = np.linspace(-1, 1, 16 * 16 * 3, dtype=np.float32).reshape(1, 16, 16, 3)
    arrays["to_pixels/float"] = values
    arrays["to_pixels/uint8"] = util.tensor2im(to_torch(values))[None]
    common.save(output, "preprocessing", arrays)


def record_checkpoints(output, networks):
    """Checkpoints as the official code writes them, of generators and discriminators of one channel, and answers."""
    rng = np.random.default_rng(7)
    image = random_images(rng, (1, 32, 24, 3))
    large = random_images(rng, (1, 16, 16, 3)).repeat(8, axis=1).repeat(8, axis=2)
    arrays = {"input": image, "input/unet": large}
    folder = common.new_checkpoints(output, "cyclegan_*.zip")

    def make(kind, seed, **config):
        net = networks.define_G(3, 3, 1, **config) if kind == "G" else networks.define_D(3, 1, "basic", **config)
        net = randomize(net, np.random.default_rng(seed))
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.data = common.random_weights(rng, module.num_features, 0.0, 0.5)
                module.running_var.data = common.random_weights(rng, module.num_features, 1.0, 0.2).abs()
        return net.eval()

    def answer(name, net, x):
        with torch.no_grad():
            arrays[f"output/{name}"] = common.sparse(to_numpy(net(to_torch(x))))

    net = make("G", 1, netG="resnet_9blocks", norm="instance")
    released = common.with_statistics(net, rng)
    common.save_checkpoint(folder / "cyclegan_released.zip", "latest_net_G.pth", released, "old stream")
    answer("released", net, image)
    net = make("G", 2, netG="resnet_6blocks", norm="instance", use_dropout=True)
    common.save_checkpoint(folder / "cyclegan_dropout.zip", "20_net_G_B.pth", net.state_dict(), "stream")
    answer("dropout", net, image)
    net = make("G", 3, netG="unet_128", norm="instance")
    common.save_checkpoint(folder / "cyclegan_unet.zip", "latest_net_G_A.pth", net.state_dict(), "stream")
    answer("unet", net, large)
    for seed, part in enumerate(("G_A", "G_B", "D_A", "D_B"), 4):
        config = {"netG": "resnet_6blocks"} if part[0] == "G" else {}
        net = make(part[0], seed, norm="batch", **config)
        form = "stream" if part == "G_B" else "zip"
        common.save_checkpoint(folder / "cyclegan_batch.zip", f"latest_net_{part}.pth", net.state_dict(), form)
        answer(part, net, image)
    common.save(folder, "cyclegan", arrays)


def full_width(kind, checkout, folder):
    """Writes a checkpoint of the published width; returns the official translations, A to B and B to A."""
    (networks,) = common.import_official(checkout, OFFICIAL, COMMIT, ["models.networks"])
    nets = [generator(networks, input_nc=3, output_nc=3, ngf=64, netG=kind, norm="instance")]
    nets.append(randomize(networks.define_G(3, 3, 64, kind, "instance"), np.random.default_rng(2)))
    for part, net in zip(("G_A", "G_B"), nets, strict=True):
        common.save_state(
            common.with_statistics(net.eval(), np.random.default_rng(3)), folder / f"latest_net_{part}.pth"
        )
    return nets


# See tools/check_full_width.py: the lower end of the networks' range, and what there is to check.
LOW = -1
FULL_WIDTH = {kind: functools.partial(full_width, kind) for kind in ("resnet_9blocks", "unet_256")}


def record(checkout, output):
    networks, cycle_gan_model, image_pool, util = common.import_official(
        checkout, OFFICIAL, COMMIT, ["models.networks", "models.cycle_gan_model", "util.image_pool", "util.util"]
    )
    record_generators(output, networks)
    record_discriminators(output, networks)
    record_model(output, cycle_gan_model)
    record_gradient_penalty(output, networks)
    record_pool(output, image_pool)
    record_adam(output)
    record_schedules(output, networks)
    record_preprocessing(output, util)
    record_checkpoints(output, networks)
