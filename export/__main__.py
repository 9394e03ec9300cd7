"""Exports a trained translator as a SavedModel and LiteRT files, and measures how close to it each of them is.

  tfi2i export --run_dir=runs/quickstart --direction=a2b --output=exported

OUTPUT/1 is the SavedModel for TF Serving, OUTPUT/*.tflite are for phones and browsers. README.md
says which one to take and how to call it, model.json how to feed them, report.json and report.png
how close each one is. With --formats=web, OUTPUT/web is a page for browsers. A file below its
floors means exit status 1, and the folder is called OUTPUT.failed. With --formats=saved_model, a
later export adds OUTPUT/2, OUTPUT/3 and so on.
"""

from absl import flags

from tfi2i import command, machine, run_directory
from tfi2i.config import DIRECTIONS, UserError, size_flag

from . import FLOORS, FORMATS, SAMPLE, USUAL, resolve_floors, web


def define_flags(values):
    """Declares the flags of this command in `values`."""
    flags.DEFINE_string("run_dir", None, "run directory of a trained model", required=True, flag_values=values)
    flags.DEFINE_string("checkpoint", None, "step of the checkpoint, or best [the newest]", flag_values=values)
    flags.DEFINE_string(
        "direction",
        None,
        "which way the files translate: a2b, b2a, or by the folders of --a and --b, photos2paintings "
        "[the model's first]; or sample, for methods such as CoGAN: the files draw pairs of images from noise",
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "folder to make", required=True, flag_values=values)
    flags.DEFINE_list("formats", list(USUAL), f"some of {', '.join(FORMATS)}", flag_values=values)
    flags.DEFINE_string(
        "litert_js",
        None,
        f"with --formats=web: the .tgz file that 'npm pack {web.PACKAGE}' downloads, or the unpacked folder",
        flag_values=values,
    )
    flags.DEFINE_string(
        "size", None, "size of the LiteRT images: N or H,W [the crop of the training]", flag_values=values
    )
    flags.DEFINE_enum(
        "fit",
        None,
        ("pad", "resize"),
        "what the SavedModel does with other sizes: mirror the edges and cut back, or resize to --size "
        "and back [pad; resize where the networks take one size only]",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_side",
        2048,
        "longest side in pixels of the encoded pictures that the SavedModel takes; each larger one gets an error, and "
        "cannot use up a server's memory",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "io",
        "uint8",
        ("uint8", "int8", "float32"),
        "pixels of the LiteRT files: levels 0 to 255, of int8 less 128. With int8, int8_full has no conversion at its "
        "ends; nor has int16x8, whose ends are int16. gpu always has float32",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "norm_bits",
        "8",
        ("8", "16"),
        "bits of int8_full's norms and additions; 16 is closer, for NPUs that mix both",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data",
        None,
        "folder to take images from: one with testA and testB, or any pictures to translate [the run's own]",
        flag_values=values,
    )
    flags.DEFINE_string(
        "a",
        None,
        "with --b: where the pictures of a run of --a and --b are now, split as in training",
        flag_values=values,
    )
    flags.DEFINE_string(
        "b",
        None,
        "with --a: where the pictures of a run of --a and --b are now, split as in training",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "calibration_images", 100, "training images that set the scales of quantized files", flag_values=values
    )
    flags.DEFINE_integer("verification_images", None, "held-out images to verify on [all]", flag_values=values)
    flags.DEFINE_list(
        "min_psnr",
        [],
        "least PSNR in dB against the model, of all images pooled and of the worst image: POOLED/WORST or POOLED for "
        "all formats, or FORMAT:POOLED/WORST, …; without /WORST it is the format's own, or 10 below POOLED if that is "
        f"lower [{','.join(f'{kind}:{pooled:g}/{worst:g}' for kind, (pooled, worst) in FLOORS.items())}]",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "model_version",
        None,
        "number of the SavedModel's folder, by which TF Serving knows the version [the next one in --output]",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "replace the files of an earlier export in --output, and its SavedModel of this version; other versions stay",
        flag_values=values,
    )


def main(_):
    values = flags.FLAGS
    formats = tuple(dict.fromkeys(f.strip() for f in values.formats))
    floors = parse_floors(values.min_psnr)
    size = size_flag(values.size)
    for name in ("calibration_images", "verification_images"):
        if values[name].value is not None and values[name].value < 1:
            raise UserError(f"--{name}={values[name].value}: expected 1 or more")
    if values.data and (values.a or values.b) or bool(values.a) != bool(values.b):
        raise UserError("give --data=FOLDER, or both --a=FOLDER and --b=FOLDER")
    direction = values.direction
    if direction not in (None, SAMPLE, *DIRECTIONS):
        # What draws pairs has no directions; `export` says so.
        if not hasattr(run_directory.read(values.run_dir).model, "latent_size"):
            direction = run_directory.direction(direction, values.run_dir)
    from tfi2i.data import sources

    sources.check_named(data=values.data, a=values.a, b=values.b)  # which need not wait for TensorFlow
    machine.import_tensorflow()
    import tfi2i
    from tfi2i import checkpoints

    from .exporter import export

    model = tfi2i.load(values.run_dir, checkpoint=values.checkpoint)
    data = model.run.data.in_folders(values.a, values.b) if values.a else values.data
    export(
        model,
        values.output,
        direction=direction,
        formats=formats,
        size=size,
        fit=values.fit,
        max_side=values.max_side,
        model_version=values.model_version,
        io=values.io,
        norm_bits=int(values.norm_bits),
        data=data,
        calibration_images=values.calibration_images,
        verification_images=values.verification_images,
        floors=floors,
        overwrite=values.overwrite,
        litert_js=values.litert_js,
    )
    print(
        f"exported step {model.checkpoint_step} to {values.output}: close to the model (see README.md there); "
        "how good the model is, tfi2i evaluate says"
    )
    best = checkpoints.best(values.run_dir) if values.checkpoint is None else None
    if best and best["step"] != model.checkpoint_step:
        print(f"note: the best step by {best['metric']} is {best['step']}, which --checkpoint=best exports")


def parse_floors(texts):
    """["30"] or ["int8:30/20", "dynamic:38"] → what `resolve_floors` makes of it.

    Raises:
        UserError: not of that form, or a format that does not exist.
    """
    floors = {}
    for text in texts:
        kind, colon, numbers = text.rpartition(":")
        if colon and kind not in FLOORS:
            raise UserError(f"--min_psnr={text}: the format is one of {', '.join(FLOORS)}")
        try:
            pooled, *worst = map(float, numbers.split("/"))
        except ValueError as error:
            raise UserError(
                f"--min_psnr={text}: expected decibels, as in 35, 35/25 or int8:35/25,dynamic:40"
            ) from error
        floors |= dict.fromkeys([kind] if colon else FLOORS, (pooled, *worst) if worst else pooled)
    return resolve_floors(floors)


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
