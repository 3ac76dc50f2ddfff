import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
from safetensors import SafetensorError

from vaelib.storage import atomic_file, cache_folder, check_side, expand, explain_disk, locked, read_text


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


def test_what_a_killed_process_left_is_swept_by_the_next_save(tmp_path):
    code = f"""
import os, signal
from vaelib.storage import atomic_file
with atomic_file({str(tmp_path / "weights")!r}) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code])
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_file(tmp_path / "card.json") as part:
        part.write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_two_that_write_the_same_file_do_not_meet(tmp_path):
    with atomic_file(tmp_path / "a") as mine, atomic_file(tmp_path / "a") as other:
        mine.write_text("mine")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize(
    "error, told",
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.npy"), "can't write x.npy: the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "your share of the disk is used up"),
        (OSError(errno.EROFS, "Read-only file system"), "that disk can only be read"),
        (PermissionError(errno.EACCES, "Permission denied"), "that is not allowed"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
    ],
)
def test_a_disk_that_takes_nothing_says_why_and_what_to_do(tmp_path, error, told):
    message = f"{told}.*run the same again, or choose another folder: VAELIB_CACHE"
    with pytest.raises(OSError, match=message), explain_disk(tmp_path):
        raise error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), SafetensorError("bad header")])
def test_other_errors_are_let_through(tmp_path, error):
    with pytest.raises(type(error)) as caught, explain_disk(tmp_path):
        raise error
    assert caught.value is error


def test_who_waits_for_a_lock_is_told(tmp_path, capsys):
    code = f"""
import sys
from filelock import FileLock
with FileLock({str(tmp_path / ".lock")!r}):
    print("locked", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "locked\n"

    def let_go(text: str) -> None:
        told.append(text)
        holder.stdin.close()

    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vaelib.storage.tqdm.write", let_go)
        with locked(tmp_path / ".lock", "the set 'mine'"):
            pass
    holder.wait()
    assert told[0].startswith("the set 'mine' is in the hands of another process: waiting until that ends")


@pytest.mark.parametrize("path", ["~nosuchuser/faces", "~"])
def test_a_tilde_without_a_home_is_a_name(monkeypatch, tmp_path, path):
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    assert expand(path) == Path(path)


def test_a_folder_called_tilde_is_found(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("~faces").mkdir()
    assert expand("~faces") == Path("~faces")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("VAELIB_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(ValueError, match="no home folder to keep a cache in: set VAELIB_CACHE"):
        cache_folder()


@pytest.mark.parametrize("size", [0, -1])
def test_a_side_of_nothing(size):
    with pytest.raises(ValueError, match=f"got size={size}, expected a positive number"):
        check_side(size)


def test_a_home_of_nobody_is_no_cache(monkeypatch):
    monkeypatch.setenv("VAELIB_CACHE", "~nosuchuser/x")
    with pytest.raises(ValueError, match="got VAELIB_CACHE='~nosuchuser/x', expected a folder: there is no such home"):
        cache_folder()


def test_a_number_of_faces_beyond_reason():
    with pytest.raises(ValueError, match=r"got size=64, expected .* 1,000 GB in all: 1,000,000,000,000 faces"):
        check_side(64, 10**12)


def test_a_side_beyond_reason_says_what_it_would_take():
    check_side(4096)
    with pytest.raises(ValueError, match=r"got size=60000, expected at most 4,096 pixels.*: 10 faces .* take 108.0 GB"):
        check_side(60000, 10)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no endless device here")
def test_text_is_read_from_ordinary_files_of_bounded_size(tmp_path):
    with pytest.raises(ValueError, match="is no ordinary file"):
        read_text(Path("/dev/zero"))
    (tmp_path / "large").write_bytes(b" " * 4_000_001)
    with pytest.raises(ValueError, match="is larger than 4,000,000 bytes"):
        read_text(tmp_path / "large")
