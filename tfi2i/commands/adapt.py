"""Learns to recognise digits without their labels, from other digits that have labels: domain adaptation.

  tfi2i adapt --preset=unit/mnist_to_optdigits --source=mnist.npz --run_dir=runs/adapted
  tfi2i adapt --source=mnist.npz --target=usps.h5 --run_dir=runs/usps
  tfi2i adapt --method=cogan_adaptation --source=mnist.npz --target=usps.h5 --run_dir=runs/cogan

--method=adaptation is UNIT, cogan_adaptation is CoGAN. The same command resumes. --source and --target are digits in
one of these forms:

  tfds:NAME    prepared by TFDS (tfds:mnist, tfds:svhn_cropped with --source_split=extra), or with --download
  optdigits    the 8x8 digits of scikit-learn
  FILE.npz     x_train, y_train, x_test, y_test as Keras' mnist.npz, or x and y
  FILE.h5      groups train and test of data and target, as USPS on Kaggle
  FILE.bz2     lines as of usps.bz2 on the LIBSVM page, then --target_test=usps.t.bz2
  FOLDER       MNIST's idx files
  FILE.mat     SVHN's matrices

At the end the last weights, whatever they are, classify the target's test digits; RUN/metrics.json has the result. No
label of the target is looked at before. (The published code tests every 100 steps and reports the best.) To compare
settings without the target's labels, there is translated_accuracy: the source's test digits, translated (not with
methods that translate by a search).
"""

import json
import pathlib

from absl import flags

from tfi2i import command, command_line, files, machine, settings
from tfi2i.config import UserError
from tfi2i.methods import trained_by


def define_flags(values):
    """Declares the flags of this command in `values`."""
    command_line.define_train_flags(values, command="adapt")
    command_line.define_preset(values)
    command_line.define_run_flags(values)


def main(_):
    method, able = flags.FLAGS.method, trained_by("adapt")
    if method not in able:
        raise UserError(f"--method={method} adapts no digits: expected one of {', '.join(able)}")
    run = settings.resolve(method, command_line.given_flags(flags.FLAGS))
    if flags.FLAGS.print_config:
        print(run.to_json())
        return
    machine.import_tensorflow()
    if flags.FLAGS.dry_run:
        from tfi2i.training import loop

        loop.train(run, flags.FLAGS.run_dir, dry_run=True)
        return
    adapt(run, flags.FLAGS.run_dir)


def adapt(run, run_dir):
    """Trains, or resumes, and measures.

    Args:
        run: `tfi2i.settings.Run` of a method that this command trains.
        run_dir: folder of the run; gets metrics.json.

    Returns:
        dict of `target_accuracy` and `source_accuracy` on the test digits, `target_digits` and `source_digits`, how
        many these are, `translated_accuracy` on the source's, translated to the target and classified as such (not
        with `baseline`, nor where the method translates by a search), `step` and `baseline`; None on workers that are
        not the chief.

    Raises:
        UserError, FloatingPointError: as `training.loop.train`.
    """
    from tfi2i.data import digits
    from tfi2i.training import loop, strategies

    model = loop.train(run, run_dir)
    if not strategies.is_chief(model.distribute_strategy):
        return None
    metrics = {"step": int(model.step.numpy()), "baseline": run.model.baseline}
    for name, letter in (("target", "b"), ("source", "a")):
        channels = run.data.channels_a if run.model.baseline else None
        test = digits.open_domain(run.data, name, "test", channels)
        metrics[f"{name}_accuracy"] = round(model.accuracy(test.images, test.labels, letter), 6)
        metrics[f"{name}_digits"] = len(test)
        print(f"{name}: {metrics[f'{name}_accuracy']:.2%} of {test.description}, are recognised")
    if not run.model.baseline and model.latent_size is None:
        translated = model.translate(test.images, "a2b", batch_size=256)
        metrics["translated_accuracy"] = round(model.accuracy(translated, test.labels, "b"), 6)
        print(f"source as target: {metrics['translated_accuracy']:.2%} are recognised")
    files.write_text(pathlib.Path(run_dir) / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


def run():
    """Console entry point."""
    define_flags(flags.FLAGS)
    command.run(main)


if __name__ == "__main__":
    run()
