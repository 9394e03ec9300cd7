"""Files and folders that appear whole."""

import pathlib

import pytest

from tfi2i import files


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "deep" / "out"
    for content in ("first", "second"):
        with files.beside(folder) as partial:
            (partial / content).touch()
            files.swap(partial, folder)
        assert [p.name for p in folder.iterdir()] == [content]
    with pytest.raises(ZeroDivisionError), files.beside(folder) as partial:
        (partial / str(1 / 0)).touch()
    with files.beside(folder):
        pass  # not swapped
    assert [p.name for p in folder.parent.iterdir()] == ["out"] and (folder / "second").is_file()


def test_two_folders_of_one_are_swapped(tmp_path):
    for content in ("first", "second"):
        with files.beside(tmp_path / "out") as partial:
            for name in ("a", "b"):
                (partial / name).mkdir()
                (partial / name / content).touch()
                files.swap(partial / name, tmp_path / name)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["a", "a/second", "b", "b/second"]


def test_what_was_there_comes_back_when_the_new_cannot_have_its_name(tmp_path, monkeypatch):
    folder, rename = tmp_path / "out", pathlib.Path.rename

    def refuse(self, target):
        if self.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    folder.mkdir()
    (folder / "mine.txt").touch()
    monkeypatch.setattr(pathlib.Path, "rename", refuse)
    with pytest.raises(PermissionError), files.beside(folder) as partial:
        files.swap(partial, folder)
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and (folder / "mine.txt").is_file()


def test_an_empty_folder_that_cannot_be_replaced_is_filled(tmp_path, monkeypatch):
    """As a mount point is, or a folder in one that may not be written; the current folder is such a one."""
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert files.is_fixed(folder) and files.is_fixed(".") and not files.is_fixed(tmp_path / "other")
    with files.beside(folder) as partial:
        assert partial.is_relative_to(folder)
        (partial / "deep").mkdir()
        (partial / "deep" / "x").touch()
        (partial / "y").touch()
        files.swap(partial, folder)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == ["deep", "deep/x", "y"]
    with pytest.raises(OSError, match="not empty"), files.beside(folder):
        pass
    assert len(list(folder.iterdir())) == 2


def test_filling_is_taken_back_where_it_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rename = pathlib.Path.rename

    def failing(self, target):
        if self.name == "y":
            raise OSError("no space")
        return rename(self, target)

    with files.beside(tmp_path) as partial:
        (partial / "x").touch()
        (partial / "y").touch()
        monkeypatch.setattr(pathlib.Path, "rename", failing)
        with pytest.raises(OSError, match="no space"):
            files.swap(partial, tmp_path)
        assert sorted(p.name for p in partial.iterdir()) == ["x", "y"]
    assert list(tmp_path.iterdir()) == []


def test_text_is_whole_utf_8_and_of_any_name(tmp_path):
    path = tmp_path / ("写" * 83 + ".json")
    for text in ("Zürich 写\n", "again\n"):
        files.write_text(path, text)
        assert path.read_bytes() == text.encode() and [p.name for p in tmp_path.iterdir()] == [path.name]
    name = b"/photos/\xff.jpg".decode(errors="surrogateescape")  # a path that is not UTF-8
    files.write_text(path, name)
    assert path.read_bytes() == b"/photos/\xff.jpg"
    with pytest.raises(ZeroDivisionError), files.whole(path) as partial:
        partial.write_text(str(1 / 0))
    assert path.read_bytes() == b"/photos/\xff.jpg" and len(list(tmp_path.iterdir())) == 1


def test_the_reason_is_the_first_line_without_tensorflow_s_operation():
    error = OSError(
        "{{function_node __wrapped__SaveV2_dtypes_8_device_/job:x}} /d/state; No space left on device [Op:S]\n…"
    )
    assert files.reason(error) == "/d/state; No space left on device [Op:S]"
    assert files.reason(OSError()) == "OSError"
