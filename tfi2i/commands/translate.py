"""Translates image files with a trained model.

  tfi2i translate --run_dir=runs/mine --input=photo.jpg --output=painting.png
  tfi2i translate --run_dir=runs/mine --input=photos --output=paintings --direction=b2a
  tfi2i translate --run_dir=runs/mine --input='scans/**/*.tif' --output=out --fit=tile
  tfi2i translate --run_dir=runs/munit --input=photo.jpg --output=many.png --samples=8

Names and sub-folders are kept, and so are 16 bits, transparency and, unless --metadata=strip, what of the metadata
stays true. The extension is kept where its format can hold the picture, otherwise the result is a .png (GIF always: it
has 256 colours). Results have the size of their inputs unless --nokeep_size is given. A method that takes a style draws
one for each picture, or takes that of --reference. A file that fails is reported, the rest is done, and the exit status
is 1. Files that are there already are replaced with --overwrite only, inputs never.
"""

import sys

from absl import flags

from tfi2i import command, machine
from tfi2i.config import size_flag


def define_flags(values):
    """Declares the flags of this command in `values`."""
    flags.DEFINE_string("run_dir", None, "run directory of the trained model", required=True, flag_values=values)
    flags.DEFINE_string(
        "checkpoint", None, "step of a kept checkpoint, or best (default: the newest)", flag_values=values
    )
    flags.DEFINE_string(
        "input",
        None,
        "an image, a folder with its sub-folders, or a pattern in quotes",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_string(
        "output", None, "a folder; or an image file, when --input is one file", required=True, flag_values=values
    )
    flags.DEFINE_bool(
        "overwrite", False, "replace files that are there already, such as those of an earlier call", flag_values=values
    )
    flags.DEFINE_string(
        "direction",
        None,
        "from which domain to which: a2b, b2a, or by the folders of --a and --b, photos2paintings (default: the "
        "model's first)",
        flag_values=values,
    )
    flags.DEFINE_string(
        "size",
        None,
        "resize to N or H,W (height, width) before translating (default: as it is, or with --fit=resize the crop of "
        "the training)",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "fit",
        None,
        ("pad", "resize", "tile"),
        "how an image of any size meets the networks: pad by reflection to the multiple that they take and cut back; "
        "resize to --size and back; or overlapping tiles, for images too large for memory (default: pad, or resize "
        "where the networks take one size only)",
        flag_values=values,
    )
    flags.DEFINE_integer("tile", 512, "with --fit=tile: side of a tile", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "overlap", 64, "with --fit=tile: pixels that neighbours share and blend", lower_bound=0, flag_values=values
    )
    flags.DEFINE_bool("keep_size", True, "bring results back to the size of the input after --size", flag_values=values)
    flags.DEFINE_bool("side_by_side", False, "write input and result beside each other", flag_values=values)
    flags.DEFINE_bool(
        "heatmaps",
        False,
        "also write where the generator looks, over the input: NAME_attention.png",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "discriminator_heatmaps",
        False,
        "also write where the discriminators look in the result: NAME_attention_global.png and _local.png",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "style_seed",
        None,
        "seed of the styles that are drawn, one for each picture by its name, for methods that take a style (default: "
        "0)",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "reference",
        None,
        "a picture of the domain translated to, whose style all translations take, for methods that take a style",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "samples",
        None,
        "write a grid for each picture: the picture and this many translations of it, with the styles of --style_seed "
        "and of the seeds that follow it",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "metadata",
        "keep",
        ("keep", "strip"),
        "keep: write again what stays true, such as place, time and resolution; strip: pixels alone",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        1,
        "consecutive images of equal size that are translated at once",
        lower_bound=1,
        flag_values=values,
    )


def work(values):
    """Translates; returns the model, the direction, (paths written, (input path, reason) of those that failed)."""
    size = size_flag(values.size)
    from tfi2i import run_directory, translation

    # A mistyped path need not wait for TensorFlow, nor a folder that is no run.
    translation.check_styles(values.style_seed, values.reference, values.samples, values.side_by_side)
    translation.plan(values.input, values.output, values.heatmaps, values.discriminator_heatmaps, values.overwrite)
    run_directory.read(values.run_dir).check_translates(f"--run_dir={values.run_dir}")
    direction = values.direction and run_directory.direction(values.direction, values.run_dir)
    machine.import_tensorflow()
    from tfi2i import checkpoints

    model = checkpoints.load(values.run_dir, values.checkpoint)
    direction = model.resolve_direction(direction)
    names = [
        "input", "output", "fit", "tile", "overlap", "keep_size", "side_by_side", "batch_size",
        "heatmaps", "discriminator_heatmaps", "overwrite", "metadata", "style_seed", "reference", "samples",
    ]  # fmt: skip
    return (
        model,
        direction,
        translation.translate_files(model, direction=direction, size=size, **{n: values[n].value for n in names}),
    )


def main(_):
    values = flags.FLAGS
    model, direction, (written, failed) = work(values)
    print(
        f"translated {len(written)} of {len(written) + len(failed)} images {direction} "
        f"with step {model.checkpoint_step} of {values.run_dir} into {values.output}"
    )
    if model.translation_note:
        print(f"note: {model.translation_note}")
    if failed:
        print(f"error: {len(failed)} failed:", file=sys.stderr)
        for path, reason in failed:
            print(f"  {path}: {reason}", file=sys.stderr)
        return 1


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
