"""Times one training step of the authors' PyTorch code at the published widths, on the CPU: see `benchmarks.table`.

  PYTHON_WITH_TORCH benchmarks/official.py --method=cyclegan --checkout=checkouts/cyclegan --size=128 --batch=1

Runs where torch, numpy, Pillow and absl-py are, and needs no tfi2i: the recorders of golden values in tools/golden know
which checkout it takes, and how its code is called. Images are random. --compile compiles every network by
`torch.compile`. Prints one line of JSON: seconds of the first step, the median of later ones in ms, GiB of the process.
"""

import contextlib
import importlib
import itertools
import json
import pathlib
import resource
import statistics
import sys
import time
import types
from unittest import mock

from absl import app, flags

# `benchmarks.table` reads ROWS and PRECISIONS where there is no torch, so the functions that need it import it.


def cyclegan(recorder, checkout, size, images):
    """CycleGAN: ResNet of 9 blocks."""
    official = recorder.common.import_official(checkout, recorder.OFFICIAL, recorder.COMMIT, ["models.cycle_gan_model"])
    options = recorder.cyclegan_options(ngf=64, ndf=64, netG="resnet_9blocks")
    model = official[0].CycleGANModel(options)

    def step():
        model.set_input(dict(zip("AB", images), A_paths=[], B_paths=[]))
        model.optimize_parameters()

    return step, [model.netG_A, model.netG_B, model.netD_A, model.netD_B]


def pix2pix(recorder, checkout, size, images):
    """pix2pix: the U-Net that brings images of this size down to one pixel."""
    official = recorder.common.import_official(checkout, recorder.OFFICIAL, recorder.COMMIT, ["models.pix2pix_model"])
    options = dict(netG=f"unet_{size}", ngf=64, ndf=64, norm="batch", gan_mode="vanilla", lambda_L1=100.0)
    options |= dict(no_dropout=False)
    model = official[0].Pix2PixModel(recorder.cyclegan.cyclegan_options(**options))

    def step():
        model.set_input(dict(zip("AB", images), A_paths=[], B_paths=[]))
        model.optimize_parameters()

    return step, [model.netG, model.netD]


def unit_2018(recorder, checkout, size, images):
    """UNIT's later code, without the perceptual loss, whose weights few have."""
    config = recorder.trainer_config(
        gen=recorder.generator_config(dim=64), dis=recorder.discriminator_config(dim=64, n_layer=4, num_scales=3)
    )
    return _trainer(recorder, checkout, config, "UNIT_Trainer", images)


def munit(recorder, checkout, size, images):
    """MUNIT, without the perceptual loss."""
    config = recorder.trainer_config(
        gen=recorder.generator_config(dim=64, mlp_dim=256, style_dim=8),
        dis=recorder.discriminator_config(dim=64, n_layer=4, num_scales=3),
    )
    return _trainer(recorder, checkout, config, "MUNIT_Trainer", images)


def _trainer(recorder, checkout, config, name, images):
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in recorder.ABSENT}):
        (trainer,) = recorder.common.import_official(checkout, recorder.OFFICIAL, recorder.COMMIT, ["trainer"])
    with recorder.common.on_cpu():
        made = getattr(trainer, name)(config)

    def step():
        with recorder.common.on_cpu():
            made.dis_update(*images, config)
            made.gen_update(*images, config)

    return step, [getattr(made, net) for net in recorder.NETS]


def unit(recorder, checkout, size, images):
    """The code of the UNIT paper."""
    import torch

    with mock.patch.dict(sys.modules, {"cv2": types.SimpleNamespace()}):
        (module,) = recorder.common.import_official(
            checkout, recorder.OFFICIAL, recorder.COMMIT, ["trainers.cocogan_trainer"], "src"
        )
    config = recorder.trainer_config("COCODis") | {
        "gen": recorder.generator_config(ch=64),
        "dis": recorder.discriminator_config("COCODis") | {"ch": 64, "n_layer": 5},
    }
    trainer = module.COCOGANTrainer(config)
    trainer.gpu = None
    entropy = torch.nn.functional.binary_cross_entropy

    def step():
        # The official code adds to the first cross-entropy in place, which autograd refuses today.
        kept = mock.patch.object(torch.nn.functional, "binary_cross_entropy", lambda *given: entropy(*given).clone())
        with recorder.of_2017(), kept:
            trainer.dis_update(*images, config)
            trainer.gen_update(*images, config)

    return step, [trainer.gen, trainer.dis]


def ugatit(recorder, checkout, size, images, light=False):
    """U-GAT-IT, full."""
    import torch

    networks, module = recorder.official_modules(checkout)
    model = object.__new__(module.UGATIT)
    weights = dict(adv_weight=1, cycle_weight=10, identity_weight=10, cam_weight=1000, lr=1e-4)
    for key, value in weights.items():
        setattr(model, key, value)
    for name in recorder.NAMES:
        if name.startswith("gen"):
            net = networks.ResnetGenerator(3, 3, 64, 4, size, light)
        else:
            net = networks.Discriminator(3, 64, {"G": 7, "L": 5}[name[3]])
        setattr(model, name, net)
    model.device, model.resume, model.decay_flag = "cpu", False, False
    model.iteration, model.print_freq, model.save_freq = 1, 10, 10
    model.L1_loss, model.MSE_loss = torch.nn.L1Loss(), torch.nn.MSELoss()
    model.BCE_loss = torch.nn.BCEWithLogitsLoss()
    model.Rho_clipper = networks.RhoClipper(0, 1)

    def optimizer(names):
        parameters = itertools.chain(*(getattr(model, name).parameters() for name in names))
        return torch.optim.Adam(parameters, lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4)

    model.G_optim, model.D_optim = optimizer(recorder.NAMES[:2]), optimizer(recorder.NAMES[2:])

    def step():
        batches = [recorder.Images(recorder.to_numpy(x)) for x in images]
        model.trainA_loader, model.trainB_loader = batches
        with contextlib.redirect_stdout(sys.stderr):
            model.train()

    return step, [getattr(model, name) for name in recorder.NAMES]


def ugatit_light(recorder, checkout, size, images):
    """U-GAT-IT, light."""
    return ugatit(recorder, checkout, size, images, light=True)


def uvcgan2(recorder, checkout, size, images):
    """UVCGAN v2, with the head that looks at standard deviations."""
    official, *_ = recorder.import_official(checkout)
    _, config = recorder.published_generator(2, size)
    for name in ("input_shape", "output_shape"):  # which the official code adds
        del config[name]
    model = recorder.build(official, "bsd", config, size, ndf=64, n_layers=3)

    def step():
        model.set_input([(x + 1) / 2 for x in images])
        model.optimization_step()

    return step, [model.models[name] for name in ("gen_ab", "gen_ba", "disc_a", "disc_b")]


# What can be run. Row of benchmarks.table → (function of this file, recorder in tools/golden).
ROWS = {
    "cyclegan": (cyclegan, "cyclegan"),
    "pix2pix": (pix2pix, "pix2pix"),
    "munit": (munit, "munit"),
    "unit": (unit, "unit"),
    "unit_2018": (unit_2018, "unit_2018"),
    "ugatit": (ugatit, "ugatit"),
    "ugatit_light": (ugatit_light, "ugatit"),
    "uvcgan2": (uvcgan2, "uvcgan2"),
}
PRECISIONS = ("float32", "mixed_bfloat16")


def main(_):
    """Times, and prints the line."""
    import torch

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))
    values = flags.FLAGS
    make, recorder = ROWS[values.method]
    recorder = importlib.import_module(f"golden.{recorder}")
    generator = torch.Generator().manual_seed(0)
    shape = (values.batch, 3, values.size, values.size)
    images = [2 * torch.rand(shape, generator=generator) - 1 for _ in range(2)]
    step, networks = make(recorder, pathlib.Path(values.checkout).resolve(), values.size, images)
    if values.compile:
        for network in networks:
            network.compile()
    times = []
    for _ in range(2 + values.repeats):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=values.precision == "mixed_bfloat16"):
            step()
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"first": times[0], "ms": 1e3 * statistics.median(times[2:]), "memory": memory}))


if __name__ == "__main__":
    flags.DEFINE_enum("method", "cyclegan", list(ROWS), "whose code")
    flags.DEFINE_string("checkout", None, "folder of the official code", required=True)
    flags.DEFINE_integer("size", 128, "side of the images", lower_bound=16)
    flags.DEFINE_integer("batch", 1, "images of each domain", lower_bound=1)
    flags.DEFINE_enum("precision", "float32", PRECISIONS, "float32, or with autocast")
    flags.DEFINE_integer("repeats", 5, "steps to time, after two", lower_bound=1)
    flags.DEFINE_bool("compile", False, "compile the networks")
    app.run(main)
