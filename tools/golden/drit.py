"""What the official DRIT computes: losses, gradients and a step of both variants; checkpoints.

Checkout: the folder src of github.com/HsinYingLee/DRIT at commit f19f50a (2020-07). Its widths are written into the
code: they are made narrower in memory, after the hashes are checked. PyTorch refuses the code's two backward passes
through one graph, because weights have changed between them, and its additions in place: here every backward pass has a
forward pass of its own with the same noise, and additions make a new tensor.
"""

import contextlib
import re
import sys
import types
from unittest import mock

import numpy as np
import torch
from golden import common
from golden.common import gradients, random_images, random_noise, random_weights, sparse, state, to_numpy, to_torch

COMMIT = "f19f50a"
OFFICIAL = {
    "networks.py": "3c5b0ee3ff88082c1676aed2d7dbc7a407615aa9",
    "model.py": "5430633419a7d6057a60876cf9271a154dc5cbe5",
}
PARTS = ["disA", "disA2", "disB", "disB2", "disContent", "enc_c", "enc_a", "gen"]
DISCRIMINATORS = ["disA_loss", "disA2_loss", "disB_loss", "disB2_loss", "disContent_loss"]
FIRST = [
    "gan_loss_a", "gan_loss_b", "gan_loss_acontent", "gan_loss_bcontent", "kl_loss_za_a", "kl_loss_za_b",
    "kl_loss_zc_a", "kl_loss_zc_b", "l1_recon_A_loss", "l1_recon_B_loss", "l1_recon_AA_loss", "l1_recon_BB_loss",
]  # fmt: skip
SECOND = ["l1_recon_z_loss_a", "l1_recon_z_loss_b", "gan2_loss_a", "gan2_loss_b", "lz_AB", "lz_BA"]
# What each of the two updates of encoders and generator moves.
LEARNED = {1: ("enc_c", "enc_a", "gen"), 2: ("enc_c", "gen")}
VARIANTS = {"concat": 1, "feature_wise": 0}
STYLE, SIDE = 3, 44


def narrowed(checkout):
    """The module `model`, and with it `networks`, at a 32nd of the width, with styles of three numbers."""
    common.check_checkout(checkout, OFFICIAL, COMMIT)
    text = (checkout / "networks.py").read_text()
    text = re.sub(r"\b(ch|tch|dim|ndf|ini_tch) = (64|256)\b", lambda m: f"{m[1]} = {int(m[2]) // 32}", text)
    text = text.replace("256, 256, kernel_size", "8, 8, kernel_size").replace("Conv2d(256, 1,", "Conv2d(8, 1,")
    text = text.replace("Linear(8, 256)", f"Linear({STYLE}, 4)").replace("Linear(256, 256)", "Linear(4, 4)")
    text = text.replace("Linear(256, tch_add*4)", "Linear(4, tch_add*4)")
    modules = {}
    for name, source in (
        ("networks", text),
        ("model", (checkout / "model.py").read_text().replace("self.nz = 8", f"self.nz = {STYLE}")),
    ):
        modules[name] = types.ModuleType(name)
        with mock.patch.dict(sys.modules, modules):
            exec(compile(source, name, "exec"), modules[name].__dict__)
    return modules["model"]


@contextlib.contextmanager
def given(*arrays):
    """`torch.randn` gives these arrays in this order; tensors stay on the CPU; `x += y` makes a new tensor."""
    queue = [to_torch(array) if array.ndim == 4 else torch.from_numpy(array.copy()) for array in arrays]

    def randn(*size):
        drawn, size = queue.pop(0), size[0] if len(size) == 1 else size
        if tuple(drawn.shape) != tuple(size):
            raise ValueError(f"noise of shape {tuple(drawn.shape)}, but {tuple(size)} was asked for.")
        return drawn

    out_of_place = mock.patch.object(torch.Tensor, "__iadd__", lambda x, y: x + y)
    with common.on_cpu(), out_of_place, mock.patch.object(torch, "randn", randn):
        yield
    if queue:
        raise ValueError(f"{len(queue)} of {len(arrays)} arrays were left over.")


def randomize(net, rng):
    common.randomize(net, rng)
    for module in net.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = random_weights(rng, module.weight.shape, 0.0, module.in_features**-0.5)
        elif type(module).__name__ == "LayerNorm":
            module.weight.data = random_weights(rng, module.weight.shape, 1.0, 0.2)
            module.bias.data = random_weights(rng, module.bias.shape, 0.0, 0.1)


def new_model(module, concat):
    options = types.SimpleNamespace(
        concat=concat, no_ms=False, dis_scale=2, input_dim_a=3, input_dim_b=3, dis_norm="None", dis_spectral_norm=False
    )
    made = module.DRIT(options)
    made.gpu = 0
    # Small images: of the three strided layers one is left.
    made.disContent.model = torch.nn.Sequential(*list(made.disContent.model)[2:])
    made.disContent_opt = type(made.disA_opt)(
        made.disContent.parameters(), lr=0.0001 / 2.5, betas=(0.5, 0.999), weight_decay=0.0001
    )
    for seed, part in enumerate(PARTS):
        randomize(getattr(made, part), np.random.default_rng(seed))
    return made


def values(made, names):
    return np.array([getattr(made, name) for name in names], np.float32)


def step(module, variant, seed):
    """A full update of two images a domain, from random weights; dict of arrays."""
    rng = np.random.default_rng(seed)
    made = new_model(module, VARIANTS[variant])
    arrays = {f"real_{d}": random_images(rng, (2, SIDE, SIDE, 3)) for d in "ab"}
    noise = {}
    for name in ("noise_a", "noise_b", "back_noise_a", "back_noise_b"):
        noise[name] = random_noise(rng, (1, SIDE // 4, SIDE // 4, 8))
    for name in ("style", "style_2", "epsilon_a", "epsilon_b", "back_epsilon_a", "back_epsilon_b"):
        noise[name] = random_noise(rng, (1, STYLE))
    concat = variant == "concat"
    first = [noise[n] for n in (*("noise_a", "noise_b"), *(("epsilon_a", "epsilon_b") if concat else ()))]
    # What is made of A's translation is the content of B.
    back = [noise[n] for n in ("back_noise_b", "back_noise_a", *(("back_epsilon_a", "back_epsilon_b") * concat))]
    draws = [*first, noise["style"], noise["style_2"], *back]
    arrays |= {f"noise/{name}": array for name, array in noise.items()}
    for part in PARTS:
        arrays |= state(getattr(made, part), f"weights/{part}")
    with given(*draws):
        made.update_D(*(to_torch(arrays[f"real_{d}"]) for d in "ab"))
    arrays["losses/discriminators"] = values(made, DISCRIMINATORS)
    for update, backward, names in ((1, made.backward_EG, FIRST), (2, made.backward_G_alone, SECOND)):
        with given(*draws):
            made.forward()
            for part in LEARNED[update]:
                getattr(made, f"{part}_opt").zero_grad()
            backward()
        arrays[f"losses/{update}"] = values(made, names)
        for part in LEARNED[update]:
            arrays |= gradients(getattr(made, part), f"gradients{update}/{part}")
            getattr(made, f"{part}_opt").step()
    for part in PARTS:
        arrays |= state(getattr(made, part), f"after/{part}")
    arrays |= {
        "names/discriminators": np.array(DISCRIMINATORS), "names/1": np.array(FIRST), "names/2": np.array(SECOND)
    }  # fmt: skip
    return arrays


def close(arrays, others):
    """Whether two recordings agree as tests want it of gradients and losses."""

    def apart(start):
        return common.distance(arrays, others, [name for name in arrays if name.startswith(start)])

    gradients = [f"gradients{update}/{part}/" for update, parts in LEARNED.items() for part in parts]
    return max(map(apart, gradients)) <= 2e-5 and apart("losses/") <= 2e-5


def record_step(output, module, variant):
    _, arrays = common.steady(lambda seed: step(module, variant, seed), close, first=20)
    common.save(output, f"drit_{variant}", arrays)


def record_checkpoint(output, folder, module, variant):
    """A checkpoint as the official code writes it, and translations both ways with one style."""
    rng = np.random.default_rng(30)
    made = new_model(module, VARIANTS[variant])
    content = {part: getattr(made, part).state_dict() for part in PARTS}
    content |= {f"{part}_opt": getattr(made, f"{part}_opt").state_dict() for part in PARTS}
    archive = folder / f"drit_{variant}.zip"
    common.save_checkpoint(archive, "00299.pth", content | {"ep": 299, "total_it": 61500}, "stream")
    arrays = {d: random_images(rng, (1, 24, 32, 3)) for d in "ab"}
    arrays["style"] = style = random_noise(rng, (1, STYLE))
    made.eval()
    with torch.no_grad():
        for d, other in ("ab", "ba"):
            with given(style):
                arrays[f"{d}{other}"] = sparse(to_numpy(made.test_forward(to_torch(arrays[d]), d == "a")))
            seen = getattr(made.enc_a, f"forward_{d}")(to_torch(arrays[d]))
            arrays[f"style_{d}"] = to_numpy(seen[0] if variant == "concat" else seen)
            big = np.tile(arrays[d], (1, 2, 2, 1))
            for scale, logits in enumerate(getattr(made, f"dis{d.upper()}2")(to_torch(big))):
                arrays[f"judged_{d}/{scale}"] = to_numpy(logits)
    common.save(folder, f"drit_{variant}", arrays)


def record(checkout, output):
    module = narrowed(checkout)
    folder = common.new_checkpoints(output, "drit_*.zip")
    for variant in VARIANTS:
        record_step(output, module, variant)
        record_checkpoint(output, folder, module, variant)
