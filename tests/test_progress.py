"""How far a long piece of work is: lines that programs keep, and a bar that people watch."""

import sys

import pytest

from tfi2i import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; clock[0] is the time."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_ten_seconds_from_the_first_unit_on(clock, capsys):
    bar = progress.Progress(100, "steps")
    for done, at in ((1, 60), (2, 62), (5, 69), (6, 70), (7, 72), (12, 82), (99, 83), (100, 84)):
        clock[0] = at
        bar.update(done, "2.0 img/s" if done == 7 else None)
    bar.close()
    # The first step, which took 60 s, is left out of the rate: 5 steps in 10 s, then 11 in 22 s.
    assert capsys.readouterr().out.splitlines() == [
        "1/100 steps",
        "6/100 steps, 3m08s left",
        "12/100 steps, 2m56s left | 2.0 img/s",
        "100/100 steps | 2.0 img/s",
    ]


def test_notes_are_lines_of_their_own(capsys):
    bar = progress.Progress(2, "images", every=0.0)
    bar.update(1, "a.png")
    bar.note("failed: b.png")
    bar.update(2, "c.png")
    bar.close()
    assert capsys.readouterr().out.splitlines() == ["1/2 images | a.png", "failed: b.png", "2/2 images | c.png"]


def test_on_a_terminal_one_line_is_rewritten_and_notes_stand_above_it(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "72")
    bar = progress.Progress(4, "images", start=1)
    bar.update(2, "a name that is far too long for this terminal")
    bar.note("failed: b.png")
    bar.update(4, "end")
    bar.close()
    out = capsys.readouterr().out
    lines = out.replace("\r", "\n").split("\n")
    assert "failed: b.png" in lines and out.endswith("\n")
    assert all(len(line) < 72 for line in lines)
    assert "2/4 images" in out and "4/4 images" in lines[-2] and "end" in lines[-2]


def test_nothing_is_printed_by_an_inactive_one(capsys):
    bar = progress.Progress(2, "images", active=False)
    bar.update(2, "a.png")
    bar.note("failed")
    bar.close()
    assert capsys.readouterr().out == ""


def test_durations():
    said = {45: "45s", 200: "3m20s", 8000: "2h13m", 100000: "1d03h", 59.6: "1m00s"}
    assert {seconds: progress.duration(seconds) for seconds in said} == said
