"""What a user should know before the first step of a run, and after the last."""

from tfi2i import command_line, machine, settings
from tfi2i.methods import METHODS


def before(run, folder, model, validation):
    """Notes and warnings about a run that is about to begin.

    Args:
        run: `settings.Run`.
        folder: its run directory.
        model: its `Translator`.
        validation: its `Validation`, or None.

    Returns:
        List of lines.
    """
    training, lines = run.training, []
    cuda = machine.cuda_advice()
    if cuda:
        lines.append(f"warning: {cuda}")
    published = run.model.recipe.get("batch_size", training.batch_size)
    if training.batch_size != published and METHODS[run.method].command != "distill":
        lines.append(
            f"note: published results use batch {published}; {training.batch_size} may need another learning rate (not "
            "changed)"
        )
    if validation and validation.split == "test":
        lines.append(
            "note: there are no val images, so best/ is chosen on the test images, which then look better than others"
        )
    if training.task == "translate" and METHODS[run.method].pretraining:
        if not training.pretrained and not training.init_from:
            lines += _without_pretraining(run, folder, model.advice.get("no pre-training"))
    return lines


def _without_pretraining(run, folder, why):
    first, pretrained = settings.pretraining(run), f"{folder}-pretrain"
    then = settings.differing(run) | {"pretrained": pretrained}
    return [
        f"warning: {run.method} starts without pre-training" + (f"; {why}" if why else "") + ". Better are these two:",
        "  " + command_line.command(run.method, settings.differing(first), pretrained),
        "  " + command_line.command(run.method, then, f"{folder}-pretrained"),
        f"  or both in one command: --pretrain_steps={first.training.steps}, fewer for a try, and a new --run_dir",
    ]


def too_large(run, step, replicas):
    """What to do where a step does not fit into the memory of the device, in one line.

    Args:
        run: `settings.Run`.
        step: the step's number.
        replicas: how many replicas share the batch.
    """
    t, crop = run.training, getattr(run.data, "crop", None)
    part = t.batch_size // replicas
    finer = next((n for n in range(t.accumulate + 1, part + 1) if part % n == 0), None)
    ways = ["--remat, with which this run can go on"] if not t.remat else []
    ways += [f"--accumulate={finer} in a new --run_dir"] if finer else []
    ways += [f"a smaller --crop than {','.join(map(str, crop))} in a new --run_dir"] if crop else []
    return f"step {step} needs more memory than the device has: give {', or '.join(ways or ['smaller networks'])}"


def finished(training, folder, step, open_ended):
    """What can be done with a run that is trained to its end, in one line.

    Args:
        training: `config.Training`.
        folder: the run directory.
        step: the last step.
        open_ended: whether its schedule of learning rates has no end.
    """
    if open_ended:
        name = next(n for n in settings.DURATIONS if getattr(training, n) is not None)
        return f"{folder} is finished at step {step}: nothing to do; a longer --{name} goes on"
    return (
        f"{folder} is finished at step {step}: nothing to do. The learning rate has come down to the end of "
        f"--lr_schedule={training.lr_schedule}; to learn on, start anew from it: --init_from={folder} --run_dir=NEW"
    )
