"""A blind study: people say which translation they prefer, not knowing whose it is.

OUT/index.html asks, one picture at a time, in random order, with the translations of all candidates in random order;
its files' names say nothing. Answers are saved as a file. OUT.key.json, which participants do not get, says what was
whose.
"""

import hashlib
import json
import pathlib

import numpy as np

from tfi2i import files
from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.metrics import gallery
from tfi2i.progress import Progress


def directions(candidates, asked):
    """Those directions of `asked` that any of `candidates`, name → `Candidate`, translates.

    Raises:
        UserError: in one of them there are fewer than two candidates, or none of them is translated.
    """
    counts = {d: sum(d in candidate.directions for candidate in candidates.values()) for d in asked}
    few = [d for d, count in counts.items() if count == 1 or not any(counts.values())]
    if few:
        raise UserError(
            f"--study compares at least two runs or folders, fewer translate {' and '.join(few)}: give more --run_dir "
            "or --folder, or the --direction that has two"
        )
    return [d for d in asked if counts[d]]


def translations(candidates, source, data, direction, rows, active=True):
    """Images to ask about, evenly spread over the split, in the translations of all candidates.

    They go through the networks one at a time: nothing is measured, so neither pairs nor equal sizes matter.

    Args:
        candidates: dict of name → `Candidate`; left out where it does not translate the direction.
        source: `sources.Source` of the images to translate.
        data: `config.Data`, how they are prepared, see `pipeline.eval_images`.
        direction: "a2b" or "b2a".
        rows: how many, at most.
        active: False prints nothing.

    Returns:
        list of dicts of `name`, `input` and `results`, candidate → uint8 [H, W, C].

    Raises:
        UserError: none of the images can be read.
    """
    from tfi2i.data import pipeline
    from tfi2i.metrics import held_out

    candidates = {name: candidate for name, candidate in candidates.items() if direction in candidate.directions}
    positions = held_out.evenly_spread(range(len(source)), rows)
    progress, examples = Progress(len(positions), f"images {direction}", active=active), []
    for name, pixels in pipeline.eval_images(source, data, positions):
        pixels = held_out.as_8_bits(pixels)
        results = {key: c.translate(pixels[None], direction, [name])[0] for key, c in candidates.items()}
        examples.append({"name": name, "input": pixels, "results": results})
        progress.update(len(examples))
    progress.close()
    if not examples:
        raise UserError(f"none of the {len(positions)} images {direction} can be read")
    return examples


def write(folder, examples, real, names, seed=0):
    """Writes the page and its key.

    Args:
        folder: path of the page's folder; an earlier study there is replaced.
        examples: direction → what `translations` returns.
        real: direction → list of real images of the domain that is translated to, shown above; may be empty.
        names: {"a": …, "b": …}, what the domains are called.
        seed: of both orders.

    Raises:
        UserError: the folder holds something else.
    """
    with gallery.replaced(folder, "--study") as partial:
        key, questions = _write_questions(partial, examples, real, names, seed)
        # Answers count for what was seen: any other picture or candidate makes another study.
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
        for path in sorted((partial / "images").iterdir()):
            digest.update(path.read_bytes())
        identity = digest.hexdigest()[:16]
        text = gallery.page("study.html", title="Which translation do you prefer?", study=identity, questions=questions)
        files.write_text(partial / "index.html", text)
    files.write_text(key_path(folder), json.dumps({"study": identity, "questions": key}, indent=1) + "\n")


def _write_questions(folder, examples, real, names, seed):
    """Writes the pictures; returns the key's questions, and the list of what study.html shows of each."""
    for direction, shown in real.items():
        for i, image in enumerate(shown):
            images.write_image(folder / "images" / _real_name(direction, i), image)
    draw = np.random.default_rng(seed)
    questions = [(d, e) for d, shown in examples.items() for e in shown]
    key, asked = {}, []
    for number, k in enumerate(draw.permutation(len(questions))):
        direction, example = questions[k]
        candidates = list(example["results"])
        order = [candidates[i] for i in draw.permutation(len(candidates))]
        identity = f"q{number:03d}"
        key[identity] = {"direction": direction, "name": example["name"], "methods": order}
        shown = [_real_name(direction, i) for i in range(len(real[direction]))]
        images.write_image(folder / "images" / f"{identity}_input.png", example["input"])
        choices = [f"{identity}_{i}.png" for i in range(len(order))]
        for name, candidate in zip(choices, order):
            images.write_image(folder / "images" / name, example["results"][candidate])
        question = {"identity": identity, "target": names[direction[2]], "real": shown}
        asked.append(question | {"input": f"{identity}_input.png", "choices": choices})
    return key, asked


def _real_name(direction, i):
    return f"real_{direction}_{i}.png"


def key_path(folder):
    """Where the key of a study lies: beside its folder."""
    folder = pathlib.Path(folder).resolve()  # a link has it where its target is
    return folder.with_name(f"{folder.name}.key.json")


def count(folder, answers):
    """Counts answers.

    Args:
        folder: of the study.
        answers: paths of the files that participants have saved.

    Returns:
        direction → candidate → dict of `chosen`, `n`, `share` and `interval`, (low, high): Wilson's at 95 %, as if all
        answers were independent, which those of one person are not quite.

    Raises:
        UserError: a file that cannot be read, or of another study.
    """
    key = _read(key_path(folder), "questions")
    chosen = {}
    for question in key["questions"].values():
        for candidate in question["methods"]:
            chosen.setdefault(question["direction"], {}).setdefault(candidate, 0)
    asked = dict.fromkeys(chosen, 0)
    for path in answers:
        given = _read(path, "answers")
        if given["study"] != key["study"]:
            raise UserError(f"--answers={path} belongs to another study than {folder}")
        for identity, choice in given["answers"].items():
            question = key["questions"].get(identity, {"methods": []})
            if type(choice) is not int or not 0 <= choice < len(question["methods"]):
                raise UserError(f"--answers={path}: {identity} has the answer {choice!r}, which is no choice there")
            chosen[question["direction"]][question["methods"][choice]] += 1
            asked[question["direction"]] += 1
    return {
        d: {
            candidate: {"chosen": k, "n": asked[d], "share": k / max(asked[d], 1), "interval": wilson(k, asked[d])}
            for candidate, k in candidates.items()
        }
        for d, candidates in chosen.items()
    }


def count_study(folder, answers):
    """Counts answers, prints the table, and writes the figures to FOLDER.results.json.

    Args:
        folder: of the study.
        answers: paths of the files that participants have saved.

    Returns:
        dict as `count`.

    Raises:
        UserError: see `count`.
    """
    counted = count(folder, answers)
    print(table(counted, len(answers)))
    path = pathlib.Path(folder).with_name(f"{pathlib.Path(folder).name}.results.json")
    files.write_text(path, json.dumps({"answers": list(map(str, answers)), "directions": counted}, indent=2) + "\n")
    print(f"numbers in {path}")
    return counted


def wilson(k, n, z=1.959964):
    """Wilson's confidence interval of a share of k in n, (low, high); z is the normal quantile, here of 95 %."""
    if not n:
        return 0.0, 1.0
    p, spread = k / n, z * z / n
    centre, half = (p + spread / 2) / (1 + spread), z * np.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return float(max(0, centre - half)), float(min(1, centre + half))


def table(counted, participants):
    """The result of `count` as lines of text."""
    lines = [f"{participants} participants", f"{'':5}{'':20}{'chosen':>12}  {'share':>8}  95 % interval"]
    for direction, candidates in counted.items():
        for candidate, r in sorted(candidates.items(), key=lambda item: -item[1]["chosen"]):
            low, high = (f"{100 * bound:.1f}" for bound in r["interval"])
            chosen = f"{r['chosen']} of {r['n']}"
            lines.append(f"{direction:5}{candidate:20}{chosen:>12}  {100 * r['share']:6.1f} %  {low} … {high} %")
    lines.append("The intervals are Wilson's, as if all answers were independent.")
    return "\n".join(lines)


def _read(path, field):
    try:
        content = json.loads(pathlib.Path(path).read_text())
        content["study"], content[field].items()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as a part of a study: {error}") from error
    return content
