"""What the official MUNIT computes: generators, losses, steps.

Checkout: github.com/NVlabs/MUNIT at commit a82e222 (2021-11). Its discriminators, layer norm, VGG features and schedule
are those of `unit_2018`.
"""

import contextlib
import json
import sys
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import gradients, random_images, random_noise, random_weights, sparse, state, to_numpy, to_torch

COMMIT = "a82e222"
OFFICIAL = {
    "data.py": "3e8579538a17cb01536d00e00809d9b6cab04504",
    "networks.py": "099877f9580b682090169628154fb163335bc5f0",
    "trainer.py": "2694a5ddc2492005a8aa5251c04c5964fad5631a",
    "utils.py": "299bc48e2d2f913e98a2f3e0eeacb77ae6b0d121",
}
# Imported by the official code, used by none of what is run here.
ABSENT = ["torch.utils.serialization", "torchvision", "torchvision.utils", "yaml"]
NETS = ["gen_a", "gen_b", "dis_a", "dis_b"]
GEN_LOSSES = [
    f"loss_gen_{term}"
    for term in ["adv_a", "adv_b", "recon_x_a", "recon_x_b", "recon_s_a", "recon_s_b", "recon_c_a", "recon_c_b",
                 "cycrecon_x_a", "cycrecon_x_b", "total"]
]  # fmt: skip
DIS_LOSSES = ["loss_dis_a", "loss_dis_b", "loss_dis_total"]


def generator_config(**changes):
    config = dict(dim=2, mlp_dim=4, style_dim=3, n_downsample=2, n_res=4, activ="relu", pad_type="reflect")
    return config | changes


def discriminator_config(**changes):
    config = dict(dim=2, n_layer=2, num_scales=2, norm="none", activ="lrelu", pad_type="reflect", gan_type="lsgan")
    return config | changes


def trainer_config(**changes):
    config = dict(
        input_dim_a=3,
        input_dim_b=3,
        display_size=1,
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
        recon_s_w=1,
        recon_c_w=1,
        recon_x_cyc_w=0,
        vgg_w=0,
        gen=generator_config(dim=1),
        dis=discriminator_config(),
    )
    return config | changes


def randomize(net, seed):
    rng = np.random.default_rng(seed)
    common.randomize(net, rng)
    for module in net.modules():
        if hasattr(module, "gamma"):
            module.gamma.data = random_weights(rng, module.gamma.shape, 0.75, 0.25)
            module.beta.data = random_weights(rng, module.beta.shape, 0.0, 0.1)
        elif isinstance(module, torch.nn.Linear):
            module.weight.data = random_weights(rng, module.weight.shape, 0.0, module.in_features**-0.5)
    return net


def as_style(array):
    """[N, S] → torch [N, S, 1, 1]."""
    return torch.from_numpy(array.copy())[:, :, None, None]


@contextlib.contextmanager
def given_styles(*arrays):
    """`torch.randn` gives these [N, S] arrays in this order; `tensor.cuda()` stays on the CPU."""
    queue = [as_style(array) for array in arrays]

    def randn(*size):
        drawn = queue.pop(0)
        if tuple(drawn.shape) != size:
            raise ValueError(f"styles of shape {tuple(drawn.shape)}, but {size} was asked for.")
        return drawn

    with common.on_cpu(), mock.patch.object(torch, "randn", randn):
        yield
    if queue:
        raise ValueError(f"{len(queue)} of {len(arrays)} arrays of styles were left over.")


def record_generator(output, networks):
    """Content and style of images, and what is decoded of that content with a style of the images' own and another."""
    config = generator_config()
    net = randomize(networks.AdaINGen(3, config), 1)
    rng = np.random.default_rng(2)
    arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
    for batch, height, width in [(2, 16, 16), (1, 24, 40), (1, 30, 21)]:
        size = f"{height}x{width}"
        arrays[f"input/{size}"] = images = random_images(rng, (batch, height, width, 3))
        arrays[f"drawn/{size}"] = drawn = random_noise(rng, (batch, config["style_dim"]))
        with torch.no_grad():
            content, style = net.encode(to_torch(images))
            arrays |= {f"content/{size}": to_numpy(content), f"style/{size}": to_numpy(style)[:, 0, 0]}
            arrays[f"same/{size}"] = sparse(to_numpy(net.decode(content, style)))
            arrays[f"other/{size}"] = sparse(to_numpy(net.decode(content, as_style(drawn))))
    common.save(output, "munit_generator", arrays)


def new_trainer(trainer, config):
    none = np.zeros((config["display_size"], config["gen"]["style_dim"]), np.float32)
    with given_styles(none, none):  # those that the official code shows pictures with
        made = trainer.MUNIT_Trainer(config)
    for seed, name in enumerate(NETS):
        randomize(getattr(made, name), 10 + seed)
    return made


def values(made, names):
    return np.array([float(torch.as_tensor(getattr(made, name)).detach()) for name in names], np.float32)


def inputs(config, seed):
    """Two images a domain, and the styles that each update draws for them."""
    rng = np.random.default_rng(seed)
    real = {d: random_images(rng, (2, 32, 32, 3)) for d in "ab"}
    styles = {
        f"{step}/{d}": random_noise(rng, (2, config["gen"]["style_dim"])) for step in ("dis", "gen") for d in "ab"
    }
    return real, styles


def update(made, step, config, real, styles, samples):
    """An update of the discriminators or generators from these samples; the values of its losses."""
    draws = [styles[f"{step}/{d}"][samples] for d in "ab"]
    with given_styles(*draws):
        getattr(made, f"{step}_update")(*(to_torch(real[d][samples]) for d in "ab"), config)
    return values(made, {"dis": DIS_LOSSES, "gen": GEN_LOSSES}[step])


def two_steps(trainer, config, seed):
    """Two iterations; dict of arrays."""
    made, arrays = new_trainer(trainer, config), {}
    for iteration, sample in enumerate([slice(0, 1), slice(1, 2)], 1):
        made.update_learning_rate()
        for step, names in (("dis", ["dis_a", "dis_b"]), ("gen", ["gen_a", "gen_b"])):
            arrays[f"{step}_losses{iteration}"] = update(made, step, config, *inputs(config, seed), sample)
            for name in names if iteration == 1 else []:
                arrays |= gradients(getattr(made, name), f"gradients1/{name}")
                arrays |= state(getattr(made, name), f"after1/{name}")
    return arrays


def close(arrays, others):
    """Whether two recordings agree as tests want it of losses, gradients and weights after a step."""
    steps = [name for name in arrays if "_losses" in name]
    nets = [[name for name in arrays if name.startswith(f"gradients1/{net}/")] for net in NETS]
    weights = [name for name in arrays if name.startswith("after1/") and not before_norm(name)]
    return (
        max(common.distance(arrays, others, [name]) for name in steps) <= 2e-5
        and max(common.distance(arrays, others, names) for names in nets) <= 1e-4
        and max(np.abs(arrays[name] - others[name]).max() for name in weights) <= 2e-6
    )


def before_norm(name):
    """Whether the array is of a bias whose true gradient is 0: a norm follows."""
    key = name.split("/", 2)[-1]
    return key.endswith("bias") and key.startswith(("enc_content.", "dec.model.0.", "dec.model.4."))


def record_model(output, trainer):
    """The whole trainer: two iterations; then every loss in two GAN modes and with the cycle, from the same weights."""
    config = trainer_config()
    with_cycle = config | {"recon_x_cyc_w": 10}  # in the iterations, so that its gradients are seen
    seed, steps = common.steady(lambda seed: two_steps(trainer, with_cycle, seed), close, first=9)
    common.save(output, "munit_steps", steps)

    real, styles = inputs(config, seed)
    arrays = {
        "config": np.array(json.dumps(config)),
        "gen_loss_names": np.array(GEN_LOSSES),
        "dis_loss_names": np.array(DIS_LOSSES),
        **{f"real_{d}": real[d] for d in "ab"},
        **{f"styles/{name}": value for name, value in styles.items()},
    }
    made = new_trainer(trainer, config)
    for name in NETS:
        arrays |= state(getattr(made, name), f"weights/{name}")
    for gan_type in ["lsgan", "nsgan"]:
        changed = config | {"dis": config["dis"] | {"gan_type": gan_type}}
        for batch in [1, 2]:
            key = f"{gan_type}/batch{batch}"
            for step in ("dis", "gen"):
                made = new_trainer(trainer, changed)
                arrays[f"{step}_losses/{key}"] = update(made, step, config, real, styles, slice(batch))
    made = new_trainer(trainer, config)
    arrays["gen_losses/cycle/batch1"] = update(made, "gen", with_cycle, real, styles, slice(1))
    common.save(output, "munit_model", arrays)


def record_checkpoints(output, networks):
    """Checkpoints as the official code writes them, of one channel, and translations both ways with one style."""
    rng = np.random.default_rng(7)
    arrays = {d: random_images(rng, (1, 24, 32, 3)) for d in "ab"}
    arrays["style"] = style = random_noise(rng, (1, 3))
    gen = {d: randomize(networks.AdaINGen(3, generator_config(dim=1)), seed) for seed, d in enumerate("ab", 5)}
    dis = {d: randomize(networks.MsImageDis(3, discriminator_config()), seed) for seed, d in enumerate("ab", 7)}
    folder = common.new_checkpoints(output, "munit.zip")
    content = {d: common.with_statistics(net, rng) for d, net in gen.items()}
    common.save_checkpoint(folder / "munit.zip", "gen_00000300.pt", content, "old stream")
    content = {d: net.state_dict() for d, net in dis.items()}
    common.save_checkpoint(folder / "munit.zip", "dis_00000300.pt", content, "zip")
    with torch.no_grad():
        for d, other in ("ab", "ba"):
            code, own = gen[d].encode(to_torch(arrays[d]))
            arrays[f"style_{d}"] = to_numpy(own)[:, 0, 0]
            arrays[f"{d}{other}"] = sparse(to_numpy(gen[other].decode(code, as_style(style))))
            for scale, logits in enumerate(dis[d](to_torch(arrays[d]))):
                arrays[f"judged_{d}/{scale}"] = to_numpy(logits)
    common.save(folder, "munit", arrays)


def record(checkout, output):
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in ABSENT}):
        networks, trainer = common.import_official(checkout, OFFICIAL, COMMIT, ["networks", "trainer"])
    record_generator(output, networks)
    record_model(output, trainer)
    record_checkpoints(output, networks)
