"""What it costs to translate one image: with the Keras model, the SavedModel and each kind of LiteRT file.

  python -m benchmarks.inference --run_dir=runs/quickstart
  python -m benchmarks.inference --generator=resnet_6blocks --generator_width=32 --size=128 --formats=float32,dynamic

Without --run_dir the networks are new, by the flags of tfi2i.train. Weights hardly matter to the time, so int8 is
calibrated on noise: the files are for the clock, not for use.
"""

import pathlib
import tempfile

from absl import flags

from tfi2i import command, command_line, config, machine, settings


def define_flags(values):
    """The flags of tfi2i.train, and the benchmark's own."""
    command_line.define_train_flags(values)
    flags.DEFINE_alias("size", "crop", flag_values=values)
    flags.DEFINE_string("run_dir", None, "run directory of tfi2i.train [a new model]", flag_values=values)
    flags.DEFINE_list(
        "formats",
        ["saved_model", "float32", "float16", "dynamic", "int8"],
        "what to time beside the Keras model",
        flag_values=values,
    )
    flags.DEFINE_float("seconds", 1.0, "to spend on each, about", lower_bound=0.0, flag_values=values)


def main(_):
    """Makes or loads the model, exports it to a temporary folder, prints the table."""
    given = command_line.given_flags(flags.FLAGS)
    chosen = settings.resolve(flags.FLAGS.method, given)
    machine.import_tensorflow()
    from benchmarks import common
    from tfi2i import checkpoints

    if flags.FLAGS.run_dir:
        model = checkpoints.load(flags.FLAGS.run_dir)
        size = given.get("crop") or model.run.data.crop
    else:
        model, size = checkpoints.build(chosen, "float32"), chosen.data.crop
    print(common.machine())
    print(common.table(measure(model, size, flags.FLAGS.formats, flags.FLAGS.seconds)))


def measure(model, size, formats=("saved_model", "float32"), seconds=1.0):
    """Times one image of random pixels through each format, in the model's first direction; they take turns.

    Args:
        model: a built `Translator` that computes in float32.
        size: (height, width) of the image.
        formats: some of `tfi2i.export.FLOORS`.
        seconds: to spend on each, about.

    Returns:
        rows for `common.table`, the first one a heading.
    """
    import numpy as np
    import tensorflow as tf
    from tfi2i.export import quantization, verify

    from tfi2i import export

    unknown = [f for f in formats if f not in export.FLOORS]
    if unknown:
        raise config.UserError(f"--formats={','.join(unknown)}: expected some of {', '.join(export.FLOORS)}")
    direction = model.directions[0]
    channels = model.channels_a if direction == "a2b" else model.channels_b
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    style = [model.draw_styles(0, ["style"])[0]] if model.style_size else []

    def named(given):
        return {"style": x for x in given}

    runs = {"Keras model.translate": lambda x, *s: model.translate(x, direction, **named(s))}
    bytes_of = {}
    with tempfile.TemporaryDirectory(prefix="tfi2i-") as folder:
        if "saved_model" in formats:
            export.write_saved_model(model, folder, direction)
            serve = tf.saved_model.load(folder).signatures["serving_default"]
            runs["saved_model"] = lambda x, *s: [y.numpy() for y in serve(images=tf.constant(x), **named(s)).values()]
            bytes_of["saved_model"] = sum(p.stat().st_size for p in pathlib.Path(folder).rglob("*") if p.is_file())
        kinds = [f for f in formats if f != "saved_model"]
        if kinds:
            float32 = export.convert(model, direction, size)
        if {*kinds} & {*quantization.CALIBRATED}:
            pixels = image[None].astype(np.float32)
            calibration = [(pixels, style[0][None]) if style else pixels]
            calibrated = export.calibrate(float32, calibration, calibration)
        for kind in kinds:
            if kind in quantization.CALIBRATED:
                file = export.quantize(calibrated[0], kind, calibrated[1])
            else:
                file = float32 if kind == "float32" else export.quantize(float32, kind)
            bytes_of[f"LiteRT {kind}"] = len(file)
            runs[f"LiteRT {kind}"] = verify.LiteRT(export.with_pixels(file, "uint8"), verify.threads())
        times = verify.latencies(runs, image, *style, seconds=seconds)
    first = times["Keras model.translate"]["latency_ms"]
    rows = [[f"{size[0]}x{size[1]}, one image", "ms, median", "processor ms", "ms, Keras = 1", "MiB"]]
    for name, of in times.items():
        mib = f"{bytes_of[name] / 2**20:.1f}" if name in bytes_of else ""
        latency, processor = of["latency_ms"], of["processor_ms"]
        rows.append([name, f"{latency:.2f}", f"{processor:.2f}", f"{latency / first:.2f}", mib])
    return rows


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    command.run(main)
