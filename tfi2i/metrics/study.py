"""A blind study: people say which translation they prefer, not knowing whose it is.

OUT/index.html asks, one picture at a time, in random order, with the translations of all methods in random order; its
files' names say nothing. Answers are saved as a file. OUT.key.json, which participants do not get, says what was whose.
"""

import html
import json
import pathlib

import numpy as np

from tfi2i.config import UserError
from tfi2i.data import images
from tfi2i.metrics import gallery

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; color: #222; }
figure { display: inline-block; margin: 4px; text-align: center; }
img { width: 200px; image-rendering: pixelated; display: block; }
button.choice { border: 4px solid transparent; padding: 0; background: none; cursor: pointer; }
button.choice:hover, button.choice:focus { border-color: #0072b2; }
section { display: none; }
section.now { display: block; }
"""
# Shows one question after the other; at the end offers the answers as a file. Nothing is sent anywhere.
_SCRIPT = """
const sections = [...document.querySelectorAll("section.question")], answers = {};
let at = 0;
function show() {
  sections.forEach((s, i) => s.classList.toggle("now", i === at));
  document.getElementById("end").classList.toggle("now", at === sections.length);
  document.getElementById("count").textContent = Math.min(at + 1, sections.length) + " of " + sections.length;
}
sections.forEach(s => s.querySelectorAll("button.choice").forEach(b => b.addEventListener("click", () => {
  answers[s.id] = Number(b.value); at += 1; show();
})));
document.getElementById("back").addEventListener("click", () => { at = Math.max(0, at - 1); show(); });
document.getElementById("save").addEventListener("click", () => {
  const text = JSON.stringify({study: document.body.dataset.study, answers: answers}, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = "answers.json"; link.click();
});
show();
"""


def write(folder, examples, real, names, seed=0):
    """Writes the page and its key.

    Args:
        folder: path of the page's folder; an earlier study there is replaced.
        examples: direction → list of dicts of `name`, `input` and `results`, method → uint8 [H, W, C].
        real: direction → list of real images of the domain that is translated to, shown above; may be empty.
        names: {"a": …, "b": …}, what the domains are called.
        seed: of both orders.

    Raises:
        UserError: fewer than two methods, or the folder holds something else.
    """
    folder = pathlib.Path(folder)
    few = [d for d, shown in examples.items() if min((len(e["results"]) for e in shown), default=0) < 2]
    if few or not examples:
        raise UserError(f"--study compares at least two methods, {' and '.join(few)} has fewer: give more --run_dir")
    partial = gallery.begin(folder)
    draw = np.random.default_rng(seed)
    questions = [(d, e) for d, shown in examples.items() for e in shown]
    key, sections = {}, []
    for number, k in enumerate(draw.permutation(len(questions))):
        direction, example = questions[k]
        methods = list(example["results"])
        order = [methods[i] for i in draw.permutation(len(methods))]
        identity = f"q{number:03d}"
        key[identity] = {"direction": direction, "name": example["name"], "methods": order}
        sections.append(_question(partial, identity, example, order, real[direction], names[direction[2]], direction))
    title = "Which translation do you prefer?"
    study = f"{draw.integers(2**63):016x}"
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n<style>{_STYLE}</style>'
        f'</head>\n<body data-study="{study}"><h1>{title}</h1>\n<p id="count"></p>\n' + "\n".join(sections)
        + '\n<section id="end"><p>Thank you. Save your answers and send the file back.</p>'
        + '<button id="save">Save</button></section>\n<p><button id="back">Back</button></p>\n'
        + f"<script>{_SCRIPT}</script></body></html>\n"
    )  # fmt: skip
    gallery.finish(partial, folder, text)
    key_path(folder).write_text(json.dumps({"study": study, "questions": key}, indent=1) + "\n")


def _question(folder, identity, example, order, real, target, direction):
    def figure(image, name, caption):
        images.write_image(folder / "images" / name, image)
        return f'<figure><img src="images/{name}" alt=""><figcaption>{caption}</figcaption></figure>'

    shown = "".join(figure(image, f"real_{direction}_{i}.png", "") for i, image in enumerate(real))
    shown = f"<p>Real examples of <b>{html.escape(target)}</b>:</p>{shown}" if shown else ""
    choices = []
    for i, method in enumerate(order):
        name = f"{identity}_{i}.png"
        images.write_image(folder / "images" / name, example["results"][method])
        choices.append(f'<button class="choice" value="{i}"><img src="images/{name}" alt="choice {i + 1}"></button>')
    asked = f"Which is the best translation of this picture to <b>{html.escape(target)}</b>?"
    return (
        f'<section class="question" id="{identity}">{shown}<p>{asked}</p>'
        f"{figure(example['input'], f'{identity}_input.png', 'to translate')}<div>{''.join(choices)}</div></section>"
    )


def key_path(folder):
    """Where the key of a study lies: beside its folder."""
    folder = pathlib.Path(folder)
    return folder.with_name(f"{folder.name}.key.json")


def count(folder, answers):
    """Counts answers.

    Args:
        folder: of the study.
        answers: paths of the files that participants have saved.

    Returns:
        direction → method → dict of `chosen`, `n`, `share` and `interval`, (low, high): Wilson's at 95 %, as if all
        answers were independent, which those of one person are not quite.

    Raises:
        UserError: a file that cannot be read, or of another study.
    """
    key = _read(key_path(folder), "questions")
    found = {}
    for question in key["questions"].values():
        for method in question["methods"]:
            found.setdefault(question["direction"], {}).setdefault(method, 0)
    asked = dict.fromkeys(found, 0)
    for path in answers:
        given = _read(path, "answers")
        if given["study"] != key["study"]:
            raise UserError(f"--answers={path} belongs to another study than {folder}")
        for identity, choice in given["answers"].items():
            question = key["questions"].get(identity, {"methods": []})
            if type(choice) is not int or not 0 <= choice < len(question["methods"]):
                raise UserError(f"--answers={path}: {identity} has the answer {choice!r}, which is no choice there")
            found[question["direction"]][question["methods"][choice]] += 1
            asked[question["direction"]] += 1
    return {
        d: {
            method: {"chosen": k, "n": asked[d], "share": k / max(asked[d], 1), "interval": wilson(k, asked[d])}
            for method, k in methods.items()
        }
        for d, methods in found.items()
    }


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
    for direction, methods in counted.items():
        for method, r in sorted(methods.items(), key=lambda item: -item[1]["chosen"]):
            low, high = (f"{100 * bound:.1f}" for bound in r["interval"])
            chosen = f"{r['chosen']} of {r['n']}"
            lines.append(f"{direction:5}{method:20}{chosen:>12}  {100 * r['share']:6.1f} %  {low} … {high} %")
    lines.append("intervals by Wilson, as if all answers were independent")
    return "\n".join(lines)


def _read(path, field):
    try:
        content = json.loads(pathlib.Path(path).read_text())
        content["study"], content[field].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as a part of a study: {error}") from error
    return content
