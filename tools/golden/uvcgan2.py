"""What the official code of UVCGAN v2 computes, which holds v1 too: networks, penalties, steps.

Checkout: github.com/LS4GAN/uvcgan2 at commit 871b2b9 (2025-03-11).
"""

import functools
import json
import sys
import types
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import gradients, random_weights, sparse, state, to_numpy, to_torch

COMMIT = "871b2b9"
OFFICIAL = {
    "uvcgan2/base/losses.py": "5e4e90f5b543fbe3a51f84f335b5794b5cf90c41",
    "uvcgan2/base/networks.py": "7be2106d809519d3e3f8b5f6ae7ed56071cfb1e4",
    "uvcgan2/cgan/model_base.py": "8b5048be963130c853d306c56f7fa4630b4e1ea9",
    "uvcgan2/cgan/uvcgan2.py": "d840d3f3637bd4d8e74b5604cfabb9e9880cfc26",
    "uvcgan2/models/funcs.py": "bd3f4ad87cb86bc9c6a244212571991dc81cc59a",
    "uvcgan2/models/generator/vitmodnet.py": "4b9b55f2dcfe7733f36704a979ef9bf8c511f05e",
    "uvcgan2/models/generator/vitunet.py": "72d3d633be032a2a24196fc3b71c720e2f901080",
    "uvcgan2/torch/funcs.py": "7c2c26f83b2d48109a2d7b44b2f10a122ce2ec74",
    "uvcgan2/torch/gradient_penalty.py": "bec979c73ec1615d654ee905859c59dbadf3533c",
    "uvcgan2/torch/image_masking.py": "cffc0c14bb24e0917a6f4ab4ca33a067dc852a5d",
    "uvcgan2/torch/layers/batch_head.py": "ea751826d2bdf4b317fe898eba12a71dc7a8b22d",
    "uvcgan2/torch/layers/cnn.py": "96fc1f9688a8ee86fd60fefcdc00badaed747168",
    "uvcgan2/torch/layers/modnet.py": "6a6058be553220aa8267f94ee0e556eb2dd1d7a4",
    "uvcgan2/torch/layers/transformer.py": "551c14b1a15972fb29b30ff8eab65d917899c565",
    "uvcgan2/torch/layers/unet.py": "15e3a7d55c6dfdf467ac69973341b9ccd520c588",
    "uvcgan2/torch/queue.py": "0434dbab0d2b388a53ec56720bca03680622fcbb",
    "uvcgan2/torch/spectr_norm.py": "f71420483ca898521921554a678f3a5158a8cd93",
}
MODULES = [
    "uvcgan2.cgan.uvcgan2", "uvcgan2.models.generator", "uvcgan2.models.discriminator",
    "uvcgan2.torch.layers.batch_head", "uvcgan2.torch.gradient_penalty", "uvcgan2.base.losses",
    "uvcgan2.torch.spectr_norm",
]  # fmt: skip
HEADS = {"bsd": "batch-stdev", "bn": "batch-norm-2d"}
VIT = dict(features=8, n_heads=2, n_blocks=2, ffn_features=12, embed_features=8, activ="gelu", norm="layer")
GENERATORS = {
    "vit-modnet": dict(modnet_features_list=[1, 2, 4, 8], modnet_activ="leakyrelu"),
    "vit-unet": dict(unet_features_list=[1, 2, 4, 8], unet_activ="leakyrelu", unet_norm="instance"),
}
STEP_GENERATOR = VIT | dict(
    features=4,
    n_blocks=1,
    ffn_features=6,
    embed_features=4,
    activ_output="sigmoid",
    modnet_features_list=[2, 4],
    modnet_activ="leakyrelu",
)

# Six heads: what the converter has to assume.
CHECKPOINT_VIT = dict(features=12, n_heads=6, n_blocks=1, ffn_features=8, embed_features=12, activ="gelu", norm="layer")
CHECKPOINT_GENERATORS = {
    "vit-modnet": dict(modnet_features_list=[2, 4], modnet_activ="leakyrelu"),
    "vit-unet": dict(unet_features_list=[2, 4], unet_activ="leakyrelu", unet_norm="instance"),
}


class Resize(torch.nn.Module):
    """torchvision 0.13's on tensors: bilinear without antialiasing."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return torch.nn.functional.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)


def import_official(checkout):
    """Without the package's training code, which needs more than torch."""
    package = types.ModuleType("uvcgan2")
    package.__path__ = [str(checkout / "uvcgan2")]
    transforms = types.ModuleType("torchvision.transforms")
    transforms.Resize, transforms.GaussianBlur = Resize, None
    stubs = {"uvcgan2": package, "torchvision": types.ModuleType("torchvision"), "torchvision.transforms": transforms}
    sys.modules.update(stubs)
    return common.import_official(checkout, OFFICIAL, COMMIT, MODULES)


def randomize(net, rng):
    """Random weights of a scale that every layer notices, also where training starts from 0."""
    for name, weight in net.named_parameters():
        norm = name.rsplit(".", 1)[0].endswith("norm") or ".norm" in name
        if weight.ndim >= 2:
            mean, std = 0.0, float(np.prod(weight.shape[1:])) ** -0.5
        elif name.endswith("weight") and norm:
            mean, std = 1.0, 0.2
        else:
            mean, std = (0.5, 0.1) if name.endswith("re_alpha") else (0.0, 0.1)
        weight.data = random_weights(rng, weight.shape, mean, std)
    return net


def random_images(rng, shape):
    """Random images [N, H, W, C] in [0, 1], multiples of 1/16."""
    return (np.round(rng.uniform(0, 16, shape)) / 16).astype(np.float32)


def record_generators(output, generator):
    rng = np.random.default_rng(3)
    for name, own in GENERATORS.items():
        config = VIT | own | {"activ_output": "sigmoid"}
        arrays, weights = {"config": np.array(json.dumps(config))}, None
        for batch, side in ((2, 32), (1, 48)):
            shape = (3, side, side)
            net = generator.select_generator(name, input_shape=shape, output_shape=shape, **config)
            if weights is None:
                weights = dict(randomize(net, np.random.default_rng(1)).named_parameters())
                arrays |= state(net, "weights")
            for key, weight in net.named_parameters():
                weight.data = weights[key].data
            images = random_images(rng, (batch, side, side, 3))
            with torch.no_grad():
                arrays |= {f"input/{side}": images, f"output/{side}": sparse(to_numpy(net(to_torch(images))))}
        common.save(output, f"uvcgan2_generator_{name.removeprefix('vit-')}", arrays)


def head(batch_head, kind, features):
    return batch_head.get_batch_head(
        {"name": HEADS[kind], "input_features": features, "output_features": 1, "activ": "leakyrelu"}
    )


def record_discriminators(output, discriminator, batch_head, spectr_norm, gradient_penalty, losses):
    """Both heads, in training mode, each pass from the same weights: outputs, features, penalties."""
    rng = np.random.default_rng(4)
    real, fake = (random_images(rng, (2, 32, 32, 3)) for _ in range(2))
    arrays = {"real": real, "fake": fake}
    for kind in HEADS:
        body = discriminator.select_discriminator("basic", image_shape=(3, 32, 32), ndf=2, shrink_output=False)
        net = batch_head.BatchHeadWrapper(body, head(batch_head, kind, 16))
        randomize(net, np.random.default_rng(2))
        torch.manual_seed(0)  # start of u and v
        spectr_norm.apply_sn(body)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        arrays |= state(net, f"weights/{kind}")
        cached = {}
        for name in ("real", "fake"):
            cached[name] = random_weights(rng, (3, 16, 3, 3), 0.3, 0.5)
            arrays[f"cache/{kind}/{name}"] = to_numpy(cached[name])
        for filled in (0, 1, 3):
            net.load_state_dict(before)
            extra = cached["real"][3 - filled :] if filled else None
            with torch.no_grad():
                logits, features = net(to_torch(real), extra_bodies=extra, return_body=True)
            arrays[f"logits/{kind}/{filled}"] = to_numpy(logits)
        arrays[f"features/{kind}"] = to_numpy(features)
        for key in net.state_dict():
            if key.endswith(("_u", "_v")):
                arrays[f"after/{kind}/{key}"] = net.state_dict()[key].numpy().copy()
        for center in (0, 1):
            for filled in (0, 3):
                net.load_state_dict(before)
                net.zero_grad()
                penalty = gradient_penalty.GradientPenalty("real-fake", center, 1.0, seed=0)
                extra = {name: {"extra_bodies": x[3 - filled :] if filled else None} for name, x in cached.items()}
                value = penalty(net, to_torch(fake), to_torch(real), extra["fake"], extra["real"])
                arrays[f"penalty/{kind}/{center}/{filled}"] = value.detach().numpy()
        value.backward()  # centre 1, full cache
        for key, weight in net.named_parameters():
            if key.startswith("_body") and weight.ndim == 4:
                arrays[f"penalty_gradients/{kind}/{key}"] = weight.grad.numpy().copy()
    arrays["alpha"] = torch.rand(1, generator=torch.Generator().manual_seed(0)).numpy()
    net = discriminator.select_discriminator("basic", image_shape=(3, 32, 32), ndf=2)
    randomize(net, np.random.default_rng(5))
    arrays |= state(net, "weights/v1")
    with torch.no_grad():
        arrays["logits/v1"] = to_numpy(net(to_torch(real)))
    alpha = np.array([0.25, 0.625], np.float32)
    with mock.patch.object(torch, "rand", lambda *_, **__: torch.from_numpy(alpha)[:, None]):
        value, _ = losses.cal_gradient_penalty(
            net, to_torch(real), to_torch(fake), "cpu", constant=10.0, lambda_gp=0.1 / 10.0**2
        )
    arrays |= {"alpha/v1": alpha, "penalty/v1": value.detach().numpy()}
    common.save(output, "uvcgan2_discriminator", arrays)


def build(uvcgan2, kind, generator, side=32, ndf=2, n_layers=2):
    """The model of the training scripts, small unless the widths are given."""

    def part(model, model_args, **more):
        optimizer = {"name": "Adam", "lr": 1e-3, "betas": (0.5, 0.99)}
        return types.SimpleNamespace(
            model=model, model_args=model_args, weight_init=None, optimizer=optimizer, **{"spectr_norm": None} | more
        )

    dataset = types.SimpleNamespace(shape=(3, side, side))
    config = types.SimpleNamespace(
        data=types.SimpleNamespace(datasets=[dataset, dataset]),
        generator=part("vit-modnet", generator),
        discriminator=part("n_layers", {"ndf": ndf, "n_layers": n_layers, "shrink_output": False}, spectr_norm=True),
        loss="lsgan",
        gradient_penalty={"center": 0, "lambda_gp": 1.0, "mix_type": "real-fake", "reduction": "mean"},
        scheduler=None,
    )
    torch.manual_seed(0)
    return uvcgan2.UVCGAN2(
        None,
        config,
        True,
        "cpu",
        lambda_a=10.0,
        lambda_b=5.0,
        lambda_idt=0.5,
        lambda_consist=0.2,
        head_queue_size=3,
        avg_momentum=0.75,
        consistency={"name": "resize", "size": 8},
        head_config={
            "name": HEADS[kind],
            "input_features": ndf * 2**n_layers,
            "output_features": 1,
            "activ": "leakyrelu",
        },
    )


def record_steps(output, uvcgan2):
    """Three steps of batch 1, with either head: caches are empty, hold one sample, hold two.

    What both heads' models have in common, and all that a step changes, is recorded once.
    """
    rng = np.random.default_rng(6)
    real = {f"real_{d}": random_images(rng, (3, 32, 32, 3)) for d in "ab"}
    arrays = {"config": np.array(json.dumps(STEP_GENERATOR)), **real}
    nets = ("gen_ab", "gen_ba", "disc_a", "disc_b")
    for kind in HEADS:
        model = build(uvcgan2, kind, STEP_GENERATOR)
        for i, name in enumerate(nets):
            weights = state(randomize(model.models[name], np.random.default_rng(10 + i)), f"weights/{name}")
            if kind == "bsd":
                arrays |= weights
            elif name.startswith("disc"):
                own = [key for key in weights if "_head" in key or key.endswith(("_u", "_v"))]
                arrays |= {key.replace("weights", "weights_bn"): weights[key] for key in own}
        for name in ("ab", "ba"):
            model.models[f"avg_gen_{name}"].load_state_dict(model.models[f"gen_{name}"].state_dict())
        for i in range(3):
            model.set_input([to_torch(real[f"real_{d}"][i : i + 1]) for d in "ab"])
            model.optimization_step()
            names = [k for k, v in model.losses.items() if v is not None]
            arrays[f"losses{i + 1}/{kind}"] = np.array([model.losses[k].item() for k in names], np.float32)
            if (i, kind) == (0, "bsd"):
                arrays["loss_names"] = np.array(names)
                for name in nets:
                    arrays |= gradients(model.models[name], f"gradients1/{name}")
                for name in ("gen_ab", "disc_b"):
                    arrays |= state(model.models[name], f"after1/{name}")
                key = "net.layer_input.0.weight"
                arrays[f"average1/{key}"] = model.models.avg_gen_ab.state_dict()[key].numpy().copy()
    generator = torch.Generator().manual_seed(0)
    arrays["alpha"] = np.array([torch.rand(1, generator=generator).item() for _ in range(6)], np.float32)
    common.save(output, "uvcgan2_steps", arrays)


def record_checkpoints(output, uvcgan2, generator, discriminator):
    """Checkpoints as the official codes write them, translations both ways, and judgements.

    Forms differ within each. Discriminators are in training mode, as always: spectral norm iterates, and the
    statistics of batch norm are not read. One discriminator of v1 has the names of v1's own code.
    """
    rng, shape = np.random.default_rng(7), (3, 24, 24)
    arrays = {d: random_images(rng, (1, 24, 24, 3)) for d in "ab"}
    folder = common.new_checkpoints(output, "uvcgan*.zip")
    config = {name: CHECKPOINT_VIT | own | {"activ_output": "sigmoid"} for name, own in CHECKPOINT_GENERATORS.items()}
    models = {"uvcgan2": dict(build(uvcgan2, "bn", config["vit-modnet"], 24).models.items()), "uvcgan": {}}
    for part in ("gen_ab", "gen_ba", "disc_a", "disc_b"):
        net = (
            generator.select_generator("vit-unet", input_shape=shape, output_shape=shape, **config["vit-unet"])
            if part.startswith("gen")
            else discriminator.select_discriminator("basic", image_shape=shape, ndf=2)
        )
        models["uvcgan"][part] = net
    for version, nets in models.items():
        for i, (part, net) in enumerate(sorted(nets.items())):
            randomize(net, np.random.default_rng(20 + i)).train(part.startswith("disc"))
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.data = random_weights(rng, module.num_features, 3.0, 1.0)
            content = net.state_dict()
            if (version, part) == ("uvcgan", "disc_b"):
                content = {key.replace("shrink_conv", "model.11"): value for key, value in content.items()}
            form = "stream" if i % 2 else "zip"
            common.save_checkpoint(folder / f"{version}.zip", f"net_{part}.pth", content, form)
            with torch.no_grad():
                answer = net(to_torch(arrays[part[-2] if "gen" in part else part[-1]]))
            arrays[f"{version}/{part}"] = sparse(to_numpy(answer)) if "gen" in part else to_numpy(answer)
    common.save(folder, "uvcgan", arrays)


def published_generator(version, side):
    """Name and arguments of the generator that the papers trained, for images of `side` pixels."""
    widths = [48, 96, 192, 384]
    config = dict(features=384, n_heads=6, n_blocks=12, ffn_features=1536, embed_features=384, activ="gelu")
    config |= dict(norm="layer", activ_output="sigmoid", input_shape=(3, side, side), output_shape=(3, side, side))
    if version == 1:
        return "vit-unet", config | dict(unet_features_list=widths, unet_activ="leakyrelu", unet_norm="instance")
    return "vit-modnet", config | dict(modnet_features_list=widths, modnet_activ="leakyrelu")


def full_width(version, checkout, folder):
    """Writes a checkpoint of the published width; returns the official translations, A to B and B to A.

    v1 is of the code of v2, which has its networks too; of v2 there are the generators and their averages, which
    translate.
    """
    _, generator, *_ = import_official(checkout)
    name, config = published_generator(version, 256)
    seeds, nets = iter(range(1, 5)), []
    for part in ("gen",) if version == 1 else ("gen", "avg_gen"):
        nets = []
        for ends in ("ab", "ba"):
            net = randomize(generator.select_generator(name, **config), np.random.default_rng(next(seeds)))
            # LeakyReLU halves the variance, and without norms the picture would fade.
            for weight in net.parameters():
                weight.data *= 2**0.5 if weight.ndim == 4 else 1
            common.save_state(net.state_dict(), folder / f"net_{part}_{ends}.pth")
            nets.append(net.eval())
    return nets


# See tools/check_full_width.py: the lower end of the networks' range, and what there is to check.
LOW = 0
FULL_WIDTH = {"v1": functools.partial(full_width, 1), "v2": functools.partial(full_width, 2)}


def record(checkout, output):
    uvcgan2, generator, discriminator, batch_head, gradient_penalty, losses, spectr_norm = import_official(checkout)
    record_generators(output, generator)
    record_discriminators(output, discriminator, batch_head, spectr_norm, gradient_penalty, losses)
    record_steps(output, uvcgan2)
    record_checkpoints(output, uvcgan2, generator, discriminator)
