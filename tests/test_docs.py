"""The pages: every link leads somewhere, and the tutorials' code blocks run as they stand.

A block of `bash` or `python` in a tutorial is run, all pages one after the other in one folder that is empty at first.
Comments right above a block make it smaller, or leave it out:

  <!-- test: --steps=2000 → --steps=2 -->
  <!-- test: skip, needs docker -->
"""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TUTORIALS = ("quickstart", "photos_to_phone", "compare_methods", "serve", "notebook")
RUN = ("bash", "python")
SHOWN = ("text", "json", "kotlin", "swift", "groovy", "ruby")

_FENCE = re.compile(r"^ *(`{3,}|~{3,}) *(\w*) *$")
_COMMENT = re.compile(r"^<!-- test: (.+) -->$")
_LINK = re.compile(
    r"""\]\(<?([^)>\s]+)>?(?:\s+"[^"]*")?\)|^\[[^\]]+\]: *(\S+)|\b(?:src|href)="([^"]+)\"""", re.MULTILINE
)


@dataclasses.dataclass
class Block:
    """A code block of a page: where its first line stands, its language, its text, the comments above it."""

    line: int
    language: str
    code: str
    comments: list

    def skipped(self):
        """Whether a comment leaves it out."""
        return any(comment.startswith("skip, ") for comment in self.comments)

    def replacements(self):
        """(what stands there, what is run instead) of each comment that makes it smaller."""
        return [tuple(comment.split(" → ")) for comment in self.comments if not comment.startswith("skip, ")]

    def as_run(self):
        """The code with the replacements."""
        code = self.code
        for old, new in self.replacements():
            code = code.replace(old, new)
        return code


def blocks(text):
    """The code blocks of a page, and the numbers of the lines with a comment that is above none of them."""
    found, comments, stray, fence = [], [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        mark = _FENCE.match(line)
        if fence and mark and mark[1] == fence and not mark[2]:
            fence = None
        elif fence:
            found[-1].code += line + "\n"
        elif mark:
            fence = mark[1]
            found.append(Block(number + 1, mark[2], "", [comment for _, comment in comments]))
            comments = []
        elif _COMMENT.match(line):
            comments.append((number, _COMMENT.match(line)[1]))
        else:
            stray += [n for n, _ in comments]
            comments = []
    return found, stray + [n for n, _ in comments]


def without_code(text):
    """A page without its code blocks and code spans."""
    kept, fence = [], None
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if mark and (fence is None or mark[1] == fence):
            fence = None if fence else mark[1]
        elif not fence:
            kept.append(line)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", "\n".join(kept))


def anchors(text):
    """What `#…` in a link to a page may be: GitHub's names of its headings, and ids."""
    names, seen, fence = set(re.findall(r'\bid="([^"]+)"', text)), {}, None
    for line in text.splitlines():
        mark, heading = _FENCE.match(line), re.match(r"#{1,6} +(.+?)[ #]*$", line)
        if mark and (fence is None or mark[1] == fence):
            fence = None if fence else mark[1]
        elif heading and not fence:
            title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            count = seen.get(name, 0)
            seen[name] = count + 1
            names.add(f"{name}-{count}" if count else name)
    return names


def broken_links(page):
    """The links of a page that lead to no file, folder or heading."""
    broken = []
    for groups in _LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        target = next(filter(None, groups))
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / urllib.parse.unquote(path)).resolve() if path else page
        if not file.exists() or anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            broken.append(target)
    return broken


def pages():
    """All Markdown files of this repository."""
    places = (".", "docs", "tests", "tools", "benchmarks", "configs", "tfi2i", "export", "examples", "requirements")
    return sorted({p for place in places for p in (ROOT / place).glob("*.md" if place == "." else "**/*.md")})


def test_every_link_leads_somewhere():
    broken = {str(page.relative_to(ROOT)): links for page in pages() if (links := broken_links(page))}
    assert not broken


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "there.md").write_text(
        '# A `heading`: here\n## Twice\n## Twice\n```\n# no heading\n```\n<a id="own">\n'
    )
    good = "[x](there.md) [x](there.md#a-heading-here) [x](there.md#twice-1) [x](there.md#own) [x](#top) [x](https://x.y/z)"
    bad = '[x](gone.md) ![x](gone.png "title") [x](there.md#no-heading) [x](#gone) <img src="gone.jpg">'
    page = tmp_path / "page.md"
    page.write_text(f"# Top\n{good}\n{bad} `[x](code.md)`\n```text\n[x](block.md)\n```\n[later]: gone.txt\n")
    assert broken_links(page) == ["gone.md", "gone.png", "there.md#no-heading", "#gone", "gone.jpg", "gone.txt"]


def test_blocks_are_found_with_their_comments():
    smaller = "<!-- test: 20 → 2 -->\n<!-- test: b → c -->\n```bash\na --steps=20 b\n```\n"
    (first, second), stray = blocks(smaller + "<!-- test: skip, needs x -->\n\n```text\n")
    assert (first.line, first.language, first.as_run()) == (4, "bash", "a --steps=2 c\n")
    assert (second.language, second.comments, stray) == ("text", [], [6])
    assert Block(1, "bash", "", ["skip, needs x"]).skipped()


@pytest.mark.parametrize("name", TUTORIALS)
def test_what_a_tutorial_says_to_its_test_is_understood(name):
    found, stray = blocks((ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8"))
    assert not stray, f"no block stands right below the comments in lines {stray}"
    assert {block.language for block in found} <= {*RUN, *SHOWN}
    for block in found:
        for replacement in block.replacements():
            assert len(replacement) == 2 and replacement[0] in block.code, f"line {block.line}: {replacement}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the blocks of all tutorials are run, one page after the other."""
    return tmp_path_factory.mktemp("tutorials")


@pytest.mark.docs
@pytest.mark.parametrize("name", TUTORIALS)
def test_the_blocks_of_a_tutorial_run(name, folder, tmp_path):
    found, _ = blocks((ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8"))
    scripts = []
    for block in found:
        if block.language not in RUN or block.skipped():
            continue
        # Code keeps its line of the page, which an error then names.
        code = "\n" * (block.line - 1) + block.as_run()
        if block.language == "python" and scripts and scripts[-1][0] == "python":
            scripts[-1][1] += code[scripts[-1][1].count("\n") :]  # one after the other they share their variables
        else:
            scripts.append([block.language, code])
    bin_folder = str(pathlib.Path(sys.executable).parent)
    environment = os.environ | {"PATH": bin_folder + os.pathsep + os.environ["PATH"], "HOME": str(folder)}
    for number, (language, code) in enumerate(scripts):
        file = tmp_path / f"{number}_{name}.md"
        file.write_text(code, encoding="utf-8")
        command = ["bash", "-euo", "pipefail"] if language == "bash" else [sys.executable]
        done = subprocess.run(
            [*command, str(file)],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            first = len(code) - len(code.lstrip("\n")) + 1
            said = f"the block of {name}.md that begins in line {first} failed:\n{done.stdout[-3000:]}"
            pytest.fail(said, pytrace=False)
