"""Makes a run directory of a published checkpoint, and a published checkpoint of a run directory.

  tfi2i convert --source=horse2zebra.pth --run_dir=runs/horse2zebra
  tfi2i convert --source=checkpoints/maps_cyclegan --run_dir=runs/maps
  tfi2i convert --export=pytorch --run_dir=runs/mine --output=checkpoints/mine

--source is a file, a folder or a zip of the official PyTorch codes: CycleGAN's *_net_G[_A|_B].pth and pix2pix'
*_net_G.pth, with or without discriminators, MUNIT's and UNIT's gen_*.pt and dis_*.pt, UNIT's *_gen_*.pkl and
*_dis_*.pkl of 2017, DRIT's EPOCH.pth, U-GAT-IT's *_params_*.pt, UVCGAN's net_*.pth of v1 and v2, CartoonGAN's
*_net_G_float.pth or a folder of its arrays as .npy; or of codes in TensorFlow: AGGAN-*.index and UGATIT.model-*.index
beside their .data files, CycleGANs of Keras as .h5, .keras, the .index of a checkpoint or the folder of a SavedModel.
PyTorch is not needed, and nothing in a file is executed. The run directory translates and exports, and --init_from
trains on from it; one that has a single generator translates and exports that direction only.
"""

import dataclasses

from absl import flags

from tfi2i import command, machine
from tfi2i.config import DIRECTIONS, UserError, size_flag
from tfi2i.methods import METHODS

_PUBLISHED = {name: method for name, method in METHODS.items() if method.published}
# Own flags of methods whose values a published file cannot always say → the dataclass field.
_TOLD = {
    field.name: field
    for method in _PUBLISHED.values()
    for field in dataclasses.fields(method.config_class)
    if field.name in method.config_class.told
}


def define_flags(values):
    """Declares the flags of this command in `values`."""
    flags.DEFINE_string(
        "source", None, "published checkpoint: a file, a folder, or a zip of a folder", flag_values=values
    )
    flags.DEFINE_string(
        "run_dir", None, "run directory to make, or with --export to read", required=True, flag_values=values
    )
    flags.DEFINE_enum(
        "method", None, list(_PUBLISHED), "refuse a source that is of another method [what it is]", flag_values=values
    )
    flags.DEFINE_string(
        "epoch",
        None,
        "which epoch or style of a folder with several: latest, 200, Hayao, … [latest, or the last epoch]",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "direction",
        None,
        DIRECTIONS,
        "which way a generator translates whose file name does not say [a2b]; with --export: which one [both]",
        flag_values=values,
    )
    for name, field in _TOLD.items():
        owners = ", ".join(n for n, method in _PUBLISHED.items() if name in method.config_class.told)
        text = f"with files of {owners} that do not say: {field.metadata['help']}"
        if field.metadata["choices"]:
            flags.DEFINE_enum(name, None, field.metadata["choices"], text, flag_values=values)
        else:
            flags.DEFINE_bool(name, None, text, flag_values=values)
    flags.DEFINE_string(
        "size", None, "size of the pictures that it was trained on: N or H,W [the method's own]", flag_values=values
    )
    flags.DEFINE_enum(
        "export",
        None,
        ("pytorch",),
        "write --run_dir as the official code's checkpoints to --output",
        flag_values=values,
    )
    flags.DEFINE_string(
        "checkpoint", None, "with --export: step of a kept checkpoint, or best [the newest]", flag_values=values
    )
    flags.DEFINE_string("output", None, "with --export: folder for the files", flag_values=values)


def work(values):
    """Converts; returns the model, or with --export the paths of the files."""
    for name in ("checkpoint", "output") if not values.export else ("source", "method", "epoch", "size", *_TOLD):
        if values[name].value is not None:
            raise UserError(f"--{name} goes {'without' if values.export else 'with'} --export")
    if not values.export and not values.source:
        raise UserError("give --source=FILE, or --export=pytorch --output=FOLDER")
    if values.export and not values.output:
        raise UserError("--export=pytorch needs --output=FOLDER")
    size = size_flag(values.size)
    machine.import_tensorflow()
    from tfi2i.conversion import exchange

    if values.export:
        return exchange.export(values.run_dir, values.output, values.checkpoint, values.direction)
    names = ("source", "run_dir", "method", "epoch", "direction", *_TOLD)
    return exchange.convert(size=size, **{n: values[n].value for n in names})


def main(_):
    work(flags.FLAGS)


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
