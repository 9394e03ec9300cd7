"""Folders that appear whole."""

import pathlib

import pytest

from tfi2i import folders


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "deep" / "out"
    for content in ("first", "second"):
        with folders.beside(folder) as partial:
            (partial / content).touch()
            folders.swap(partial, folder)
        assert [p.name for p in folder.iterdir()] == [content]
    with pytest.raises(ZeroDivisionError), folders.beside(folder) as partial:
        (partial / str(1 / 0)).touch()
    with folders.beside(folder):
        pass  # not swapped
    assert [p.name for p in folder.parent.iterdir()] == ["out"] and (folder / "second").is_file()


def test_what_was_there_comes_back_when_the_new_cannot_have_its_name(tmp_path, monkeypatch):
    folder, rename = tmp_path / "out", pathlib.Path.rename

    def refuse(self, target):
        if self.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    folder.mkdir()
    (folder / "mine.txt").touch()
    monkeypatch.setattr(pathlib.Path, "rename", refuse)
    with pytest.raises(PermissionError), folders.beside(folder) as partial:
        folders.swap(partial, folder)
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and (folder / "mine.txt").is_file()
