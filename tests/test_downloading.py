"""Kaggle's real clients against a server on this machine that answers as Kaggle does."""

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import traceback
import zipfile
from pathlib import Path

import pytest
from kaggle_server import SIGNATURE, KaggleServer, anime_zip, cartoon_zip

import vaelib.downloading
from vaelib.__main__ import main
from vaelib.downloading import DATASETS, download
from vaelib.faces import load_faces
from vaelib.preparing import prepare

SECRET = "secret-that-nobody-may-see"
WAY_ROUND = "download the zip file in a browser from {url} and run: python -m vaelib prepare FILE.zip"


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """The server, with Kaggle's clients sent to it, no credentials, an empty home and an empty cache folder."""
    from kagglesdk import kaggle_env

    server = KaggleServer()
    for variable in [name for name in os.environ if name.upper().startswith(("KAGGLE", "DISABLE_", "TBE_", "COLAB"))]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setenv("VAELIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.address)
    monkeypatch.setattr(vaelib.downloading, "KAGGLE_INPUT", tmp_path / "input")
    for module in [name for name in sys.modules if name.split(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, module)  # it looks for its settings as it is imported
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))  # between two attempts
    yield server
    server.stop()


@pytest.fixture(params=["kagglehub", "kaggle"])
def client(request, kaggle, monkeypatch):
    """Each of the two clients in turn: the official one is taken where there are credentials."""
    if request.param == "kaggle":
        monkeypatch.setenv("KAGGLE_USERNAME", "learner")
        monkeypatch.setenv("KAGGLE_KEY", SECRET)
    return request.param


@pytest.fixture
def home(tmp_path):
    """Where both clients keep what they fetch of the anime faces."""
    return tmp_path / "cache" / "downloads" / "datasets" / DATASETS["anime"].handle


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def content(path):
    """Every file in a zip file or a folder, by name."""
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def content_served(kaggle, tmp_path):
    (tmp_path / "served.zip").write_bytes(kaggle.archive)
    return content(tmp_path / "served.zip")


def failure(name="anime"):
    """What a notebook would keep of a download that fails: the message, and the whole traceback."""
    with pytest.raises(OSError) as caught:
        download(name)
    message = str(caught.value)
    assert message.endswith(WAY_ROUND.format(url=DATASETS[name].url))
    assert "\n" not in message
    assert caught.value.__context__ is None
    return message, "".join(traceback.format_exception(caught.value))


def run_python(kaggle, *arguments, **variables):
    """Start Python in a process of its own, with the clients sent to the server in the way that they offer."""
    kaggle.file_address = "http://localhost"
    environment = {name: value for name, value in os.environ.items() if name.upper() != "NO_PROXY"}
    environment |= {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": kaggle.address, **variables}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


# What arrives


@pytest.mark.parametrize(("name", "archive", "crop"), [("anime", anime_zip, 1.0), ("cartoon", cartoon_zip, 0.7)])
def test_download_then_prepare(kaggle, client, tmp_path, name, archive, crop):
    kaggle.serve(archive())
    path = download(name)
    assert path.is_relative_to(tmp_path / "cache" / "downloads")
    assert path.is_file() == (client == "kaggle")  # a zip file stays one
    assert content(path) == content_served(kaggle, tmp_path)
    assert kaggle.requests[0].body["datasetSlug"] == DATASETS[name].handle.split("/")[1]
    report = prepare(path, progress=False)
    assert (report.name, report.kept, report.crop) == (name, 6, crop)


def test_second_call_asks_nobody(kaggle, client):
    first = download("anime")
    assert len(kaggle.files_sent) == 1
    asked = len(kaggle.requests)
    assert download("anime") == first
    assert len(kaggle.requests) == asked


def test_half_unpacked_pictures_are_not_taken_for_all(kaggle, home, tmp_path):
    write(home / "versions" / "3" / "images" / "1234_2005.jpg", "half of a pict")
    assert content(download("anime")) == content_served(kaggle, tmp_path)


@pytest.mark.parametrize("place", ["animefacedataset", "datasets/splcher/animefacedataset"])
def test_attached_to_a_kaggle_notebook(kaggle, tmp_path, place):
    folder = tmp_path / "input" / place
    folder.mkdir(parents=True)
    assert download("anime") == folder
    assert kaggle.requests == []


def test_unknown_name(kaggle):
    with pytest.raises(ValueError, match=r"'manga', expected one of: anime, cartoon"):
        download("manga")
    assert kaggle.requests == []


def test_everything_is_left_as_it_was(kaggle, client, monkeypatch):
    from requests.adapters import HTTPAdapter

    monkeypatch.setenv("KAGGLEHUB_CACHE", "elsewhere")
    before = dict(os.environ), sys.stdout, HTTPAdapter.send, logging.root.manager.disable
    download("anime")
    assert (dict(os.environ), sys.stdout, HTTPAdapter.send, logging.root.manager.disable) == before


# Going on where it stopped


def test_download_goes_on_after_the_connection_breaks(kaggle, client, tmp_path):
    kaggle.serve(anime_zip(noise=1200))
    half = len(kaggle.archive) // 2
    kaggle.cuts = [half]
    if client == "kagglehub":  # the official client tries again by itself
        assert "broke off (ChunkedEncodingError)" in failure()[0]
    assert content(download("anime")) == content_served(kaggle, tmp_path)
    (first, *_, (start, sent)) = kaggle.files_sent
    assert first == (0, half)
    assert start >= 2**20
    assert start + sent == len(kaggle.archive)


def test_download_goes_on_after_the_process_is_killed(kaggle, client, home, tmp_path):
    kaggle.serve(anime_zip(noise=1200))
    kaggle.cuts, kaggle.stalls = [len(kaggle.archive) // 2], True
    process = run_python(kaggle, "-c", "import vaelib; vaelib.download('anime')")
    part = home / {"kagglehub": "3.archive", "kaggle": "unfinished/animefacedataset.zip"}[client]
    deadline = time.monotonic() + 600
    while not (part.exists() and part.stat().st_size >= 2**20):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    kaggle.file_address = kaggle.address

    assert content(download("anime")) == content_served(kaggle, tmp_path)
    start, sent = kaggle.files_sent[-1]
    assert start >= 2**20
    assert start + sent == len(kaggle.archive)


@pytest.mark.parametrize("checksum", [False, True])
def test_file_that_changes_between_two_calls_is_never_mixed(kaggle, client, tmp_path, checksum):
    kaggle.checksum = checksum
    kaggle.serve(anime_zip(noise=1200))
    kaggle.cuts = [len(kaggle.archive) // 2] * 6  # the official client's first attempt, and five more
    assert "broke off" in failure()[0]
    kaggle.serve(anime_zip(noise=1201))
    if client == "kagglehub":  # the version is the same: it sees what happened only at the end
        assert "no whole zip file" in failure()[0]
    assert content(download("anime")) == content_served(kaggle, tmp_path)


def test_silent_server_does_not_hold_the_download_for_ever(kaggle, client, tmp_path, monkeypatch):
    monkeypatch.setattr(vaelib.downloading, "TIME_LIMITS", (5, 0.5))
    kaggle.cuts, kaggle.stalls = [len(kaggle.archive) // 2], True
    if client == "kagglehub":
        assert "broke off (ConnectionError)" in failure()[0]
    assert content(download("anime")) == content_served(kaggle, tmp_path)


def test_real_archive_arrives_whole_although_the_connection_breaks(kaggle, client, real_faces):
    kaggle.serve((real_faces / "animefacedataset.zip").read_bytes())
    kaggle.cuts = [len(kaggle.archive) // 2]
    if client == "kaggle":
        with open(download("anime"), "rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(kaggle.archive).digest()
    else:
        failure()
        assert len(list(download("anime").glob("images/*.jpg"))) == 24_735
    assert kaggle.files_sent[-1][0] > len(kaggle.archive) // 2 - 2**20


# What goes wrong


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (403, "open https://www.kaggle.com/datasets/splcher/animefacedataset while logged in, accept its terms"),
        (404, "moved or withdrawn"),
        (429, "wait some minutes and try again, the download goes on where it stopped"),
        (500, "on Kaggle's side"),
        (502, "on Kaggle's side"),
        (503, "on Kaggle's side"),
    ],
)
@pytest.mark.parametrize("who", ["status", "file_status"])
def test_refusal_says_what_to_do(kaggle, client, status, advice, who):
    setattr(kaggle, who, status)
    message, shown = failure()
    assert f"Kaggle answered {status} " in message
    assert advice in message
    assert SIGNATURE not in shown
    setattr(kaggle, who, 200)
    assert len(content(download("anime"))) == 6


def test_refused_credentials_are_named(kaggle, client):
    kaggle.status = 401
    message, _ = failure()
    if client == "kaggle":
        assert "renew or remove the credentials in the environment variable KAGGLE_USERNAME or the" in message
        assert "need no account" in message
    else:
        assert "set the environment variable KAGGLE_API_TOKEN to a new token" in message


def damaged(archive):
    """The same zip file with a picture that is not what it was."""
    middle = len(archive) // 2
    return archive[:middle] + bytes(64) + archive[middle + 64 :]


@pytest.mark.parametrize(
    "damage",
    [lambda archive: archive[:-100], damaged, lambda archive: b"<html>Please log in</html>", lambda archive: b""],
    ids=["cut off", "damaged", "a page", "nothing"],
)
def test_what_is_no_whole_zip_file_is_removed(kaggle, client, home, damage):
    good = kaggle.archive
    kaggle.serve(damage(good))
    assert "what arrived is no whole zip file" in failure()[0]
    assert not home.exists()
    kaggle.serve(good)
    assert len(content(download("anime"))) == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the file that no byte fits in")
def test_full_disk_says_how_much_is_needed_where(kaggle, client, home):
    part = home / {"kagglehub": "3.archive", "kaggle": "unfinished/animefacedataset.zip"}[client]
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    message, _ = failure()
    assert os.strerror(errno.ENOSPC) in message
    assert f"about 1 GB are needed in {home}" in message
    assert "VAELIB_CACHE" in message
    part.unlink()
    assert len(content(download("anime"))) == 6


def test_no_server(kaggle, client):
    kaggle.shutdown()
    kaggle.server_close()
    assert "Kaggle cannot be reached" in failure()[0]


# Credentials: found where the clients look for them, and never shown


KEY = {"username": "learner", "key": SECRET}
LOGIN = {"username": "learner", "refresh_token": SECRET, "access_token": SECRET}
SOURCES = {
    "variable KAGGLE_API_TOKEN": {"KAGGLE_API_TOKEN": SECRET},
    "variable KAGGLE_KEY": {"KAGGLE_USERNAME": "learner", "KAGGLE_KEY": SECRET},
    "file {home}/.kaggle/access_token": {".kaggle/access_token": SECRET},
    "file {home}/.kaggle/access_token.txt": {".kaggle/access_token.txt": SECRET},
    "file {home}/.kaggle/kaggle.json": {".kaggle/kaggle.json": KEY},
    "file {home}/.config/kaggle/kaggle.json": {".config/kaggle/kaggle.json": KEY},
    "file {home}/own/kaggle.json": {"KAGGLE_CONFIG_DIR": "{home}/own", "own/kaggle.json": KEY},
    "file {home}/.kaggle/credentials.json": {".kaggle/credentials.json": LOGIN},
}
UNFIT_SOURCES = {
    "token with a line break": {"KAGGLE_API_TOKEN": f"{SECRET}\n"},
    "token longer than a file name": {"KAGGLE_API_TOKEN": SECRET * 20},
    "token that is not ASCII": {"KAGGLE_API_TOKEN": f"{SECRET}–"},
}
USELESS_SOURCES = {
    "empty token": {"KAGGLE_API_TOKEN": ""},
    "empty token file": {".kaggle/access_token": "\n"},
    "user without key": {"KAGGLE_USERNAME": "learner"},
    "damaged kaggle.json": {".kaggle/kaggle.json": f'{{"username": "learner", "key": "{SECRET}'},
    "kaggle.json without key": {".kaggle/kaggle.json": {"username": "learner"}},
    "damaged kaggle.json elsewhere": {"KAGGLE_CONFIG_DIR": "{home}/own", "own/kaggle.json": SECRET},
    "damaged credentials.json": {".kaggle/credentials.json": SECRET},
}


@pytest.fixture
def configure(kaggle, tmp_path, monkeypatch):
    """Set environment variables (in capitals) and write files in the home folder."""
    home = tmp_path / "home"

    def set_up(source):
        for name, value in source.items():
            if name.isupper():
                monkeypatch.setenv(name, value.format(home=home))
            else:
                write(home / name, value)
        return home

    return set_up


@pytest.mark.parametrize("source", SOURCES)
def test_credentials_are_used(kaggle, configure, source):
    kaggle.token = SECRET
    configure(SOURCES[source])
    assert download("anime").name == "animefacedataset.zip"  # the official client was at work


@pytest.mark.parametrize("source", USELESS_SOURCES)
def test_credentials_that_are_none_do_not_matter(kaggle, configure, source, capfd):
    configure(USELESS_SOURCES[source])
    assert len(list(download("anime").glob("images/*.jpg"))) == 6
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("source", SOURCES | UNFIT_SOURCES)
def test_refused_credentials_are_named_and_not_shown(kaggle, configure, source, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    home = configure((SOURCES | UNFIT_SOURCES)[source])
    kaggle.status = 401
    message, shown = failure()
    assert (source if source in SOURCES else "variable KAGGLE_API_TOKEN").format(home=home) in message
    assert "renew or remove" in message
    assert SECRET not in shown + "".join(capfd.readouterr()) + caplog.text


def test_signed_address_is_not_shown(kaggle, client, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    kaggle.serve(anime_zip(noise=1200))
    kaggle.cuts = [len(kaggle.archive) // 2] * 6
    _, shown = failure()
    kaggle.cuts = []
    download("anime")
    output = capfd.readouterr()
    assert "%|" in output.err  # the progress bar
    assert SIGNATURE not in shown + output.out + output.err + caplog.text


def test_signed_address_is_not_shown_when_interrupted(kaggle, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setenv("KAGGLE_USERNAME", "learner")
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    kaggle.cuts = [100]
    while_waiting = iter([kaggle.stop, interrupt])  # before the second and before the third attempt
    monkeypatch.setattr(time, "sleep", lambda seconds: next(while_waiting)())
    with pytest.raises(KeyboardInterrupt, match="goes on where this one stopped") as caught:
        download("anime")
    assert SIGNATURE in str(caught.value.__context__.__context__)
    assert SIGNATURE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("file_status", [200, 500])
def test_nothing_is_shown_by_a_client_told_to_be_verbose(kaggle, file_status):
    kaggle.token, kaggle.file_status = SECRET, file_status
    process = run_python(kaggle, "-m", "vaelib", "download", "anime", VERBOSE="1", KAGGLE_API_TOKEN=SECRET)
    output = process.communicate(timeout=600)[0]
    assert "kaggle.com/datasets/splcher/animefacedataset" in output
    assert SECRET not in output
    assert SIGNATURE not in output
    assert process.returncode == (file_status == 500), output


# The command


def test_command_downloads_and_prepares(kaggle, client, capsys):
    assert main(["download", "anime", "--size", "32"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{DATASETS['anime'].url}: 63,565 pictures, licence: see its page\n")
    assert "6 kept" in output.out
    assert "100%" in output.err
    assert load_faces("anime", size=32).origin == "prepared"


def test_command_asks_nobody_for_what_is_prepared(kaggle, tmp_path, capsys):
    assert main(["download", "anime"]) == 0
    asked = len(kaggle.requests)
    shutil.rmtree(tmp_path / "cache" / "downloads")  # who is short of room
    assert main(["download", "anime"]) == 0
    assert "6 kept" in capsys.readouterr().out.rpartition("licence")[2]
    assert len(kaggle.requests) == asked


def test_command_explains_a_refusal(kaggle, capsys):
    kaggle.status = 404
    assert main(["download", "anime"]) == 1
    assert "vaelib: Could not fetch the anime faces: Kaggle answered 404 " in capsys.readouterr().err
