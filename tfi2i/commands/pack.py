"""Writes a trained model as one archive to hand on: weights and configuration, without this machine's paths.

  tfi2i pack --run_dir=runs/mine --output=mine.zip --weights_license=CC-BY-4.0 --data_license="my own photos"

Unpacked it is a folder that the other commands take as --run_dir, and train as --init_from. The state of training is
left out, two thirds of a checkpoint and more. The licences stand in its config.json, and in the model.json of what is
exported from it.
"""

import json
import zipfile

from absl import flags

from tfi2i import command, machine


def define_flags(values):
    """Declares the flags of this command in `values`."""
    flags.DEFINE_string("run_dir", None, "run directory of a trained model", required=True, flag_values=values)
    flags.DEFINE_string("output", None, "the archive to write, a .zip", required=True, flag_values=values)
    flags.DEFINE_string(
        "checkpoint", None, "step of a kept checkpoint, or best (default: the newest)", flag_values=values
    )
    flags.DEFINE_string(
        "weights_license", None, "under which licence others may use the weights, e.g. CC-BY-4.0", flag_values=values
    )
    flags.DEFINE_string(
        "data_license", None, "under which licence the pictures were that it learned from", flag_values=values
    )
    flags.DEFINE_bool("overwrite", False, "replace an archive that is there already", flag_values=values)


def main(_):
    values = flags.FLAGS
    machine.import_tensorflow()
    from tfi2i.archive import pack

    names = ("run_dir", "output", "checkpoint", "weights_license", "data_license", "overwrite")
    path = pack(**{n: values[n].value for n in names})
    with zipfile.ZipFile(path) as archive:
        described = json.loads(archive.read(f"{path.stem}/config.json"))
    print(f"written {path}, {path.stat().st_size / 2**20:.1f} MiB, licences: {described['licenses']}")


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
