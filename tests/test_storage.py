import os
import signal
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from vaelib.storage import atomic_file, cache_folder


def test_cache_folder_is_made_under_vaelib_cache(empty_cache):
    assert cache_folder("faces") == empty_cache / "faces"
    assert (empty_cache / "faces").is_dir()
    assert cache_folder() == empty_cache


def test_a_tilde_in_vaelib_cache_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("VAELIB_CACHE", "~/faces here")
    assert cache_folder("drawn") == tmp_path / "faces here" / "drawn"


@pytest.mark.parametrize("value", [None, ""])
def test_without_vaelib_cache_it_is_the_platforms_folder(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where Linux looks
    monkeypatch.setenv("HOME", str(tmp_path))  # where macOS looks
    monkeypatch.delenv("VAELIB_CACHE")
    if value is not None:
        monkeypatch.setenv("VAELIB_CACHE", value)
    assert cache_folder() == Path(platformdirs.user_cache_dir("vaelib", appauthor=False))


def test_atomic_file_appears_when_complete(tmp_path):
    path = tmp_path / "array.npy"
    with atomic_file(path) as part:
        part.write_text("half")
        assert part.parent == tmp_path, "another disk could not be renamed from"
        assert part.suffix == ".npy", "numpy and Pillow choose a format by the ending"
        assert not path.exists()
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "history.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk on fire"), atomic_file(path) as part:
        part.write_text("half")
        raise RuntimeError("disk on fire")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_nothing_behind(tmp_path):
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError), atomic_file(path) as part:
        part.write_text("new")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights"
    path.write_text("old")
    code = f"""
import os, signal
from vaelib.storage import atomic_file
with atomic_file({str(path)!r}) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
