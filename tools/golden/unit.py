"""What the code of the UNIT paper computes: networks, losses, steps.

Checkout: github.com/mingyuliutw/UNIT, branch version_02, at commit 96def6b (2018-03-11).
"""

import contextlib
import functools
import itertools
import json
import sys
import types
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import gradients, random_images, random_noise, randomize, sparse, state, to_numpy, to_torch

COMMIT = "96def6b"
OFFICIAL = {
    "src/trainers/__init__.py": "68b26d3bc7b558e75eedce6e96671e5e62e3379b",
    "src/trainers/cocogan_nets.py": "22b984ae56f8bac1368a43593e2153b39db7c81d",
    "src/trainers/cocogan_nets_da.py": "6e509dc457a01a4fd16842726a0c27d2eb091421",
    "src/trainers/cocogan_trainer.py": "026a9144b651fb169efe3eaff898572454cf037e",
    "src/trainers/cocogan_trainer_da.py": "ff56ba0d9a2822679dde5a1506d83aabc18c0802",
    "src/trainers/common_net.py": "4105a2b5f51ec7d71b5ce0fe27e14c37999cfda4",
    "src/trainers/helpers.py": "34d5ff91917c93dbde10ee4a46da0904fc64df45",
    "src/trainers/init.py": "43298e804de1f34d061d6a042f60a4d66bf89fd3",
}
GEN_LOSSES = [
    f"gen_{term}"
    for term in ["ad_loss_a", "ad_loss_b", "ll_loss_a", "ll_loss_b", "ll_loss_aba", "ll_loss_bab",
                 "enc_loss", "enc_aba_loss", "enc_bab_loss", "total_loss"]
]  # fmt: skip
# The noise tensors of one step in the order of the draws. The first draw is of both domains, A's samples first.
GEN_NOISE = ["a", "b", "bab", "aba"]
DIS_NOISE = ["a", "b"]
IMAGES = ["x_aa", "x_ba", "x_ab", "x_bb", "x_aba", "x_bab"]
DISCRIMINATORS = {
    "COCODis": dict(n_layer=3),
    "COCOSharedDis": dict(n_front_layer=2, n_shared_layer=2),
    "COCOMsDis": dict(n_layer=2),
}


def generator_config(**changes):
    config = dict(
        name="COCOResGen2",
        ch=2,
        input_dim_a=3,
        input_dim_b=3,
        n_enc_front_blk=3,
        n_enc_res_blk=3,
        n_enc_shared_blk=1,
        n_gen_shared_blk=1,
        n_gen_res_blk=3,
        n_gen_front_blk=3,
    )
    return config | changes


def discriminator_config(name):
    return dict(name=name, ch=2, input_dim_a=3, input_dim_b=3) | DISCRIMINATORS[name]


def trainer_config(discriminator):
    return dict(
        lr=1e-4,
        ll_direct_link_w=100,
        kl_direct_link_w=0.1,
        ll_cycle_link_w=100,
        kl_cycle_link_w=0.1,
        gan_w=10,
        gen=generator_config(ch=1),
        dis=discriminator_config(discriminator),
    )


def smoothing_kernel(size, sigma):
    """What cv2.getGaussianKernel gives for size 3 when no sigma is named."""
    if (size, sigma) != (3, -1):
        raise ValueError(f"unknown kernel {size}, {sigma}.")
    return np.array([[0.25], [0.5], [0.25]])


@contextlib.contextmanager
def of_2017():
    """Python 2 and the torch of the time: izip, and scalars that are arrays [1]."""
    to_array = torch.Tensor.numpy
    with (
        common.on_cpu(),
        mock.patch.object(itertools, "izip", zip, create=True),
        mock.patch.object(torch.Tensor, "numpy", lambda tensor: np.atleast_1d(to_array(tensor))),
    ):
        yield


def discriminator(nets, name):
    net = randomize(getattr(nets, name)(discriminator_config(name)), np.random.default_rng(2))
    if name == "COCOMsDis":
        net.downsampler.pad = 1  # Python 2 divides (3 - 1) / 2 to an integer
    return net


def record_generators(output, nets):
    """Two kinds with the same weights, in evaluation mode: codes, and what both decoders make of both codes."""
    rng = np.random.default_rng(3)
    arrays = {"config": np.array(json.dumps(generator_config()))}
    sizes = {"COCOResGen2": [(2, 16, 16), (1, 24, 40), (1, 30, 21)], "COCOResGen": [(2, 16, 24)]}
    for name, shapes in sizes.items():
        net = randomize(getattr(nets, name)(generator_config(name=name)), np.random.default_rng(1)).eval()
        arrays |= state(net, "weights")
        for batch, height, width in shapes:
            size = f"{height}x{width}"
            a, b = (random_images(rng, (batch, height, width, 3)) for _ in range(2))
            arrays |= {f"input/{size}/a": a, f"input/{size}/b": b}
            with torch.no_grad():
                *images, codes = net(to_torch(a), to_torch(b))
            for key, code in zip("ab", codes.split(batch), strict=True):
                arrays[f"code/{name}/{size}/{key}"] = to_numpy(code)
            for key, image in zip(["x_aa", "x_ba", "x_ab", "x_bb"], images, strict=True):
                arrays[f"output/{name}/{size}/{key}"] = sparse(to_numpy(image))
    common.save(output, "unit_paper_generator", arrays)


def record_discriminators(output, nets):
    """Logits [N, h, w, 1] of each scale; the official code gives them as one row of numbers in this order."""
    for name in DISCRIMINATORS:
        net = discriminator(nets, name)
        rng = np.random.default_rng(4)
        config = discriminator_config(name)
        arrays = {"config": np.array(json.dumps(config)), **state(net, "weights")}
        layers = config.get("n_layer") or config["n_front_layer"] + config["n_shared_layer"]
        # The multi-scale kind takes squares only.
        sizes = [(1, 24, 24), (2, 17, 17)] if name == "COCOMsDis" else [(2, 16, 16), (1, 45, 38)]
        for batch, height, width in sizes:
            size = f"{height}x{width}"
            a, b = (random_images(rng, (batch, height, width, 3)) for _ in range(2))
            arrays |= {f"input/{size}/a": a, f"input/{size}/b": b}
            with torch.no_grad():
                judged = net(to_torch(a), to_torch(b))
            for key, scales in zip("ab", judged, strict=True):
                for scale, logits in enumerate(scales):
                    h, w = (-(-side // 2 ** (layers + scale)) for side in (height, width))
                    arrays[f"output/{size}/{key}/{scale}"] = logits.numpy().reshape(batch, h, w, 1)
            if name == "COCOMsDis":
                arrays[f"downsampled/{size}/a"] = to_numpy(net.downsample(to_torch(a)))
        common.save(output, f"unit_paper_{name.lower()}", arrays)


def record_checkpoints(output, nets):
    """Checkpoints as the official code writes them, of one channel, translations both ways, and judgements."""
    rng = np.random.default_rng(7)
    arrays = {d: random_images(rng, (1, 24, 24, 3)) for d in "ab"}
    folder = common.new_checkpoints(output, "unit_COCO*.zip")
    cases = {"COCOResGen": ("COCOMsDis", "old stream"), "COCOResGen2": ("COCOSharedDis", "stream")}
    for seed, (name, (judge, form)) in enumerate(cases.items(), 5):
        net = randomize(getattr(nets, name)(generator_config(name=name, ch=1)), np.random.default_rng(seed)).eval()
        archive = folder / f"unit_{name}.zip"
        content = common.with_statistics(net, rng) if form == "old stream" else net.state_dict()
        common.save_checkpoint(archive, "animals_gen_00000400.pkl", content, form)
        dis = discriminator(nets, judge)
        common.save_checkpoint(archive, "animals_dis_00000400.pkl", dis.state_dict(), "zip")
        with torch.no_grad():
            _, x_ba, x_ab, *_ = net(*(to_torch(arrays[d]) for d in "ab"))
            judged = dis(*(to_torch(arrays[d]) for d in "ab"))
        arrays |= {f"{name}/ab": sparse(to_numpy(x_ab)), f"{name}/ba": sparse(to_numpy(x_ba))}
        for d, scales in zip("ab", judged, strict=True):
            arrays |= {f"{judge}/{d}/{i}": logits.numpy() for i, logits in enumerate(scales)}
    common.save(folder, "unit", arrays)


def record_model(output, nets, cocogan_trainer):
    """The whole trainer with each discriminator: every loss, from the same weights; then two iterations."""
    rng = np.random.default_rng(5)
    real_a, real_b = (random_images(rng, (2, 32, 32, 3)) for _ in range(2))
    noise = {f"dis/{name}": random_noise(rng, (2, 8, 8, 4)) for name in DIS_NOISE}
    noise |= {f"gen/{name}": random_noise(rng, (2, 8, 8, 4)) for name in GEN_NOISE}

    def new_trainer(name):
        trainer = cocogan_trainer.COCOGANTrainer(trainer_config(name))
        randomize(trainer.gen, np.random.default_rng(10))
        trainer.dis.load_state_dict(discriminator(nets, name).state_dict())
        if name == "COCOMsDis":
            trainer.dis.downsampler.pad = 1
        trainer.gpu = None
        return trainer

    def update(trainer, name, step, samples):
        """One update; the images it returns, and its cross-entropies in the order in which they are computed."""
        entropies = []
        cross_entropy = torch.nn.functional.binary_cross_entropy

        def kept(*args):
            entropies.append(cross_entropy(*args))
            # The official code adds to the first one in place.
            return entropies[-1].clone()

        draws = {key: value[samples] for key, value in noise.items()}
        first = np.concatenate([draws[f"{step}/a"], draws[f"{step}/b"]])
        others = [draws["gen/bab"], draws["gen/aba"]] if step == "gen" else []
        with (
            of_2017(),
            common.given_noise(first, *others),
            mock.patch.object(torch.nn.functional, "binary_cross_entropy", kept),
        ):
            method = getattr(trainer, f"{step}_update")
            images = method(to_torch(real_a[samples]), to_torch(real_b[samples]), trainer_config(name))
        return images, np.array([value.item() for value in entropies], np.float32)

    def gen_losses(trainer):
        return np.array([getattr(trainer, name) for name in GEN_LOSSES], np.float32)

    trainer = new_trainer("COCODis")
    arrays = {
        "config": np.array(json.dumps(trainer_config("COCODis"))),
        "gen_loss_names": np.array(GEN_LOSSES),
        "real_a": real_a,
        "real_b": real_b,
        **{f"noise/{name}": value for name, value in noise.items()},
        **state(trainer.gen, "weights/gen"),
        **state(trainer.dis, "weights/dis"),
    }
    for name in DISCRIMINATORS:
        for batch in [1, 2]:
            trainer, key = new_trainer(name), f"{name}/batch{batch}"
            _, entropies = update(trainer, name, "dis", slice(batch))
            arrays[f"dis_cross_entropies/{key}"] = entropies.reshape(-1, 4)
            arrays[f"dis_loss/{key}"] = np.float32(trainer.dis_loss)
            trainer = new_trainer(name)
            images, entropies = update(trainer, name, "gen", slice(batch))
            arrays[f"gen_cross_entropies/{key}"] = entropies.reshape(-1, 2)
            arrays[f"gen_losses/{key}"] = gen_losses(trainer)
            if (name, batch) == ("COCODis", 1):
                for image_name, image in zip(IMAGES, images, strict=True):
                    arrays[f"images/{image_name}"] = sparse(to_numpy(image))
    common.save(output, "unit_paper_model", arrays)

    trainer, arrays = new_trainer("COCODis"), {}
    for iteration, sample in enumerate([slice(0, 1), slice(1, 2)], 1):
        for step in ["dis", "gen"]:
            update(trainer, "COCODis", step, sample)
            if iteration == 1:
                arrays |= gradients(getattr(trainer, step), f"gradients1/{step}")
                arrays |= state(getattr(trainer, step), f"after1/{step}")
        arrays[f"dis_loss{iteration}"] = np.float32(trainer.dis_loss)
        arrays[f"gen_losses{iteration}"] = gen_losses(trainer)
    common.save(output, "unit_paper_steps", arrays)


def full_width(kind, checkout, folder):
    """Writes a checkpoint of the published width; returns the official translations, A to B and B to A."""
    with mock.patch.dict(sys.modules, {"cv2": types.SimpleNamespace()}):
        (networks,) = common.import_official(checkout, OFFICIAL, COMMIT, ["trainers.cocogan_nets"], "src")
    net = getattr(networks, kind)(generator_config(name=kind, ch=64))
    net = randomize(net, np.random.default_rng(1)).eval()
    common.save_state(common.with_statistics(net, np.random.default_rng(2)), folder / "animals_gen_00500000.pkl")
    return [lambda x: net.forward_a2b(x)[0], lambda x: net.forward_b2a(x)[0]]


# See tools/check_full_width.py: the lower end of the networks' range, and what there is to check.
LOW = -1
FULL_WIDTH = {kind: functools.partial(full_width, kind) for kind in ("COCOResGen", "COCOResGen2")}


def record(checkout, output):
    cv2 = types.SimpleNamespace(getGaussianKernel=smoothing_kernel)
    with mock.patch.dict(sys.modules, {"cv2": cv2}):
        nets, trainer = common.import_official(
            checkout, OFFICIAL, COMMIT, ["trainers.cocogan_nets", "trainers.cocogan_trainer"], "src"
        )
        record_generators(output, nets)
        record_discriminators(output, nets)
        record_model(output, nets, trainer)
        record_checkpoints(output, nets)
