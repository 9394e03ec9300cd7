"""What the official UNIT of 2018 computes: networks, layer norm, VGG features, losses, steps, schedule.

Checkout: github.com/mingyuliutw/UNIT, branch master, at commit 28d5982 (2021-09-02).
"""

import json
import sys
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import gradients, random_images, random_noise, random_weights, sparse, state, to_numpy, to_torch

COMMIT = "28d5982"
OFFICIAL = {
    "data.py": "3e8579538a17cb01536d00e00809d9b6cab04504",
    "networks.py": "8a0f786be4d967bdba3aa39af656d1f8acf7abf1",
    "trainer.py": "2694a5ddc2492005a8aa5251c04c5964fad5631a",
    "utils.py": "b7413269514e1b89cfe7faa09c8f706a60cb331f",
}
# Imported by the official code, used by none of what is run here.
ABSENT = ["torch.utils.serialization", "torchvision", "torchvision.utils", "yaml"]
NETS = ["gen_a", "gen_b", "dis_a", "dis_b"]
GEN_LOSSES = [
    f"loss_gen_{term}"
    for term in ["adv_a", "adv_b", "recon_x_a", "recon_x_b", "recon_kl_a", "recon_kl_b", "cyc_x_a", "cyc_x_b",
                 "recon_kl_cyc_aba", "recon_kl_cyc_bab", "vgg_a", "vgg_b", "total"]
]  # fmt: skip
DIS_LOSSES = ["loss_dis_a", "loss_dis_b", "loss_dis_total"]
# The order in which one step encodes, by the official code's names: each encoding draws one noise tensor.
GEN_NOISE = ["n_a", "n_b", "n_b_recon", "n_a_recon"]
DIS_NOISE = ["n_a", "n_b"]


def generator_config(**changes):
    return dict(dim=2, n_downsample=2, n_res=4, activ="relu", pad_type="reflect") | changes


def discriminator_config(**changes):
    config = dict(dim=2, n_layer=4, num_scales=3, norm="none", activ="lrelu", pad_type="reflect", gan_type="lsgan")
    return config | changes


def trainer_config(**changes):
    config = dict(
        input_dim_a=3,
        input_dim_b=3,
        lr=1e-4,
        beta1=0.5,
        beta2=0.999,
        weight_decay=1e-4,
        init="kaiming",
        lr_policy="step",
        step_size=100000,
        gamma=0.5,
        gan_w=1,
        recon_x_w=10,
        recon_kl_w=0.01,
        recon_x_cyc_w=10,
        recon_kl_cyc_w=0.01,
        vgg_w=0,
        gen=generator_config(dim=1),
        dis=discriminator_config(n_layer=2, num_scales=2),
    )
    return config | changes


def randomize(net, seed):
    rng = np.random.default_rng(seed)
    common.randomize(net, rng)
    for module in net.modules():
        if hasattr(module, "gamma"):
            module.gamma.data = random_weights(rng, module.gamma.shape, 0.75, 0.25)
            module.beta.data = random_weights(rng, module.beta.shape, 0.0, 0.1)
    return net


def record_generator(output, networks):
    config = generator_config()
    net = randomize(networks.VAEGen(3, config), 1)
    rng = np.random.default_rng(2)
    arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
    for batch, height, width in [(2, 16, 16), (1, 24, 40), (1, 30, 21)]:
        size = f"{height}x{width}"
        arrays[f"input/{size}"] = images = random_images(rng, (batch, height, width, 3))
        with torch.no_grad():
            code = net.enc(to_torch(images))
            arrays[f"code/{size}"] = to_numpy(code)
            arrays[f"output/{size}"] = sparse(to_numpy(net.decode(code)))
    common.save(output, "unit_2018_generator", arrays)


def record_discriminator(output, networks):
    config = discriminator_config()
    net = randomize(networks.MsImageDis(3, config), 3)
    rng = np.random.default_rng(4)
    arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
    for batch, height, width in [(1, 64, 64), (1, 61, 78)]:
        size = f"{height}x{width}"
        arrays[f"input/{size}"] = images = random_images(rng, (batch, height, width, 3))
        with torch.no_grad():
            for scale, logits in enumerate(net(to_torch(images))):
                arrays[f"output/{size}/{scale}"] = to_numpy(logits)
    common.save(output, "unit_2018_discriminator", arrays)


def record_layer_norm(output, networks):
    """Few numbers, where N - 1 matters; the small ones have a deviation near epsilon."""
    net = randomize(torch.nn.Sequential(networks.LayerNorm(2)), 5)[0]
    rng = np.random.default_rng(6)
    arrays = state(net, "weights")
    for name, scale in {"normal": 1.0, "small": 2.0**-16, "constant": 0.0}.items():
        images = random_images(rng, (2, 2, 2, 2)) * np.float32(scale) + np.float32(0.25)
        arrays[f"input/{name}"] = images
        with torch.no_grad():
            arrays[f"output/{name}"] = to_numpy(net(to_torch(images)))
    arrays["probe"] = probe = random_images(rng, (2, 2, 2, 2))
    for name in ["normal", "small"]:
        x = to_torch(arrays[f"input/{name}"]).requires_grad_()
        net.zero_grad()
        (net(x) * to_torch(probe)).sum().backward()
        arrays[f"gradient/{name}"] = to_numpy(x.grad)
        arrays |= gradients(net, f"gradients/{name}")
    common.save(output, "unit_2018_layer_norm", arrays)


def hashed(stream, shape):
    """Numbers from -0.5 to 0.5 that a test can make again: murmur3's last step of 2^24 `stream` + index."""
    x = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(stream << 24)
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35)]:
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x / 2.0**32 - 0.5).reshape(shape)


def hashed_vgg(networks):
    """The official VGG16 at full width with weights too many to store, as large as ReLU layers need them."""
    net = networks.Vgg16().requires_grad_(False)
    for stream, module in enumerate(net.children()):
        scale = (24 / (9 * module.in_channels)) ** 0.5  # a variance of 2 / fan_in
        module.weight.data = torch.from_numpy((scale * hashed(stream, module.weight.shape)).astype(np.float32))
        module.bias.data = torch.from_numpy((0.25 * hashed(stream + 100, module.bias.shape)).astype(np.float32))
    return net


def new_trainer(trainer, config):
    made = trainer.UNIT_Trainer(config)
    for seed, name in enumerate(NETS):
        randomize(getattr(made, name), 10 + seed)
    return made


def values(made, names):
    return np.array([float(torch.as_tensor(getattr(made, name)).detach()) for name in names], np.float32)


def record_vgg(output, networks, utils, trainer):
    """Features, and the loss with its gradient; every 8th feature channel."""
    net = hashed_vgg(networks)
    made = new_trainer(trainer, trainer_config())
    rng = np.random.default_rng(8)
    arrays = {"first_weights": net.conv1_1.weight.numpy()[0], "first_biases": net.conv1_1.bias.numpy()[:8]}
    for name in ["image", "target"]:
        arrays[name] = random_images(rng, (1, 24, 32, 3))
        with common.on_cpu():
            prepared = utils.vgg_preprocess(to_torch(arrays[name]))
        arrays[f"preprocessed/{name}"] = sparse(to_numpy(prepared))
        features = net(prepared)
        arrays[f"features/{name}"] = to_numpy(features)[..., ::8]
        arrays[f"normalized/{name}"] = to_numpy(made.instancenorm(features))[..., ::8]
    image = to_torch(arrays["image"]).requires_grad_()
    with common.on_cpu():
        loss = made.compute_vgg_loss(net, image, to_torch(arrays["target"]))
    loss.backward()
    arrays["loss"] = loss.detach().numpy()
    arrays["gradient"] = sparse(to_numpy(image.grad))
    common.save(output, "unit_2018_vgg", arrays)


def decoded_images(made):
    """What the decoders give from now on, by network, in the order of the calls."""
    images = {name: [] for name in ["gen_a", "gen_b"]}
    for name, kept in images.items():
        getattr(made, name).dec.register_forward_hook(lambda *call, kept=kept: kept.append(to_numpy(call[-1])))
    return images


def record_model(output, networks, trainer):
    """The whole trainer: every loss in two GAN modes and with VGG, from the same weights; then two iterations."""
    rng = np.random.default_rng(9)
    config = trainer_config()
    real_a, real_b = (random_images(rng, (2, 32, 32, 3)) for _ in range(2))
    noise = {f"dis/{name}": random_noise(rng, (2, 8, 8, 4)) for name in DIS_NOISE}
    noise |= {f"gen/{name}": random_noise(rng, (2, 8, 8, 4)) for name in GEN_NOISE}

    def dis_update(made, samples, **changes):
        draws = [noise[f"dis/{name}"][samples] for name in DIS_NOISE]
        with common.on_cpu(), common.given_noise(*draws):
            made.dis_update(to_torch(real_a[samples]), to_torch(real_b[samples]), config | changes)
        return values(made, DIS_LOSSES)

    def gen_update(made, samples, **changes):
        draws = [noise[f"gen/{name}"][samples] for name in GEN_NOISE]
        with common.on_cpu(), common.given_noise(*draws):
            made.gen_update(to_torch(real_a[samples]), to_torch(real_b[samples]), config | changes)
        return values(made, GEN_LOSSES)

    made = new_trainer(trainer, config)
    arrays = {
        "config": np.array(json.dumps(config)),
        "gen_loss_names": np.array(GEN_LOSSES),
        "dis_loss_names": np.array(DIS_LOSSES),
        "gen_noise_names": np.array(GEN_NOISE),
        "dis_noise_names": np.array(DIS_NOISE),
        "real_a": real_a,
        "real_b": real_b,
    }
    arrays |= {f"noise/{name}": value for name, value in noise.items()}
    for name in NETS:
        arrays |= state(getattr(made, name), f"weights/{name}")
    for gan_type in ["lsgan", "nsgan"]:
        changed = config | {"dis": config["dis"] | {"gan_type": gan_type}}
        for batch in [1, 2]:
            key = f"{gan_type}/batch{batch}"
            arrays[f"dis_losses/{key}"] = dis_update(new_trainer(trainer, changed), slice(batch))
            arrays[f"gen_losses/{key}"] = gen_update(new_trainer(trainer, changed), slice(batch))
    # The VGG term, with the network of unit_2018_vgg.
    made = new_trainer(trainer, config)
    made.vgg = hashed_vgg(networks)
    images = decoded_images(made)
    arrays["gen_losses/vgg/batch1"] = gen_update(made, slice(1), vgg_w=1)
    names = {"gen_a": ["x_a_recon", "x_ba", "x_aba"], "gen_b": ["x_b_recon", "x_ab", "x_bab"]}
    for net, keys in names.items():
        for name, image in zip(keys, images[net], strict=True):
            arrays[f"images/{name}"] = sparse(image)
    common.save(output, "unit_2018_model", arrays)

    made = new_trainer(trainer, config)
    arrays = {}
    for iteration, sample in enumerate([slice(0, 1), slice(1, 2)], 1):
        made.update_learning_rate()
        arrays[f"dis_losses{iteration}"] = dis_update(made, sample)
        if iteration == 1:
            for name in ["dis_a", "dis_b"]:
                arrays |= gradients(getattr(made, name), f"gradients1/{name}")
                arrays |= state(getattr(made, name), f"after1/{name}")
        arrays[f"gen_losses{iteration}"] = gen_update(made, sample)
        if iteration == 1:
            for name in ["gen_a", "gen_b"]:
                arrays |= gradients(getattr(made, name), f"gradients1/{name}")
                arrays |= state(getattr(made, name), f"after1/{name}")
    common.save(output, "unit_2018_steps", arrays)


def record_schedule(output, utils):
    """The rate that iteration n, counted from 1, trains with; the official loop moves the schedule first."""
    config = trainer_config()
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=config["lr"])
    scheduler = utils.get_scheduler(optimizer, config)
    optimizer.step()  # torch warns when the schedule moves before any step
    iterations = [1, 2, 99_999, 100_000, 100_001, 199_999, 200_000, 300_000]
    rates = []
    for iteration in range(1, iterations[-1] + 1):
        scheduler.step()
        if iteration in iterations:
            rates.append(optimizer.param_groups[0]["lr"])
    arrays = {"config": np.array(json.dumps({key: config[key] for key in ["lr", "step_size", "gamma"]}))}
    arrays |= {"iteration": np.array(iterations), "rate": np.array(rates)}
    common.save(output, "unit_2018_schedule", arrays)


def record_checkpoints(output, networks):
    """Checkpoints as the official code writes them, of one channel, and translations both ways."""
    rng = np.random.default_rng(7)
    arrays = {d: random_images(rng, (1, 24, 32, 3)) for d in "ab"}
    judge = discriminator_config(n_layer=2, num_scales=2)
    gen = {d: randomize(networks.VAEGen(3, generator_config(dim=1)), seed) for seed, d in enumerate("ab", 5)}
    dis = {d: randomize(networks.MsImageDis(3, judge), seed) for seed, d in enumerate("ab", 7)}
    folder = common.new_checkpoints(output, "unit_2018.zip")
    content = {d: common.with_statistics(net, rng) for d, net in gen.items()}
    common.save_checkpoint(folder / "unit_2018.zip", "gen_00000300.pt", content, "old stream")
    content = {d: net.state_dict() for d, net in dis.items()}
    common.save_checkpoint(folder / "unit_2018.zip", "dis_00000300.pt", content, "stream")
    with torch.no_grad():
        for d, other in ("ab", "ba"):
            code = gen[d].enc(to_torch(arrays[d]))
            arrays[f"{d}{other}"] = sparse(to_numpy(gen[other].decode(code)))
            for scale, logits in enumerate(dis[d](to_torch(arrays[d]))):
                arrays[f"judged_{d}/{scale}"] = to_numpy(logits)
    common.save(folder, "unit_2018", arrays)


def full_width(checkout, folder):
    """Writes a checkpoint of the published width; returns the official translations, A to B and B to A."""
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in ABSENT}):
        (networks,) = common.import_official(checkout, OFFICIAL, COMMIT, ["networks"])
    config = generator_config(dim=64)
    a, b = (randomize(networks.VAEGen(3, config), seed) for seed in (1, 2))
    rng = np.random.default_rng(3)
    common.save_state(
        {"a": common.with_statistics(a, rng), "b": common.with_statistics(b, rng)}, folder / "gen_01000000.pt"
    )
    return [lambda x: b.decode(a.enc(x)), lambda x: a.decode(b.enc(x))]


# See tools/check_full_width.py: the lower end of the networks' range, and what there is to check.
LOW = -1
FULL_WIDTH = {"VAEGen": full_width}


def record(checkout, output):
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in ABSENT}):
        networks, utils, trainer = common.import_official(checkout, OFFICIAL, COMMIT, ["networks", "utils", "trainer"])
    record_generator(output, networks)
    record_discriminator(output, networks)
    record_layer_norm(output, networks)
    record_vgg(output, networks, utils, trainer)
    record_model(output, networks, trainer)
    record_schedule(output, utils)
    record_checkpoints(output, networks)
