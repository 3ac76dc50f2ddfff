"""Kaggle's real client against a server on this machine that answers as Kaggle does."""

import io
import json
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from vaelib.__main__ import main
from vaelib.downloading import DATASETS, download
from vaelib.drawn import draw_faces
from vaelib.faces import load_faces
from vaelib.preparing import prepare

SERVICE = "/v1/datasets.DatasetApiService"


def anime_zip(count=6):
    """A zip file laid out like the anime archive, its pictures drawn."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, image in enumerate(draw_faces("anime", count)[0]):
            with archive.open(f"images/{1234 + i}_2005.jpg", "w") as file:
                Image.fromarray(image).save(file, "JPEG")
    return buffer.getvalue()


class Kaggle(BaseHTTPRequestHandler):
    """Answers the two calls that a download makes, then serves the zip file, and notes every request."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body.get("datasetSlug")))
        if self.server.status != 200:
            self.answer(self.server.status, b'{"code": %d, "message": "no"}' % self.server.status)
        elif self.path == f"{SERVICE}/GetDataset":
            self.answer(200, b'{"currentVersionNumber": 3}')
        else:
            self.send_response(302)
            self.send_header("Location", "/archive.zip?signature=secret")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_GET(self):
        self.server.requests.append((self.path, None))
        self.answer(self.server.file_status, self.server.archive, "application/zip")

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """The server, with Kaggle's client sent to it, no credentials and an empty cache folder."""
    from kagglesdk import kaggle_env

    server = ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    server.requests, server.status, server.file_status, server.archive = [], 200, 200, anime_zip()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, address)
    for variable in [name for name in os.environ if name.upper().startswith(("KAGGLE", "DISABLE_", "TBE_", "COLAB"))]:
        monkeypatch.delenv(variable)
    for variable in ("HOME", "USERPROFILE", "KAGGLE_CONFIG_DIR", "VAELIB_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_download_then_prepare(kaggle, tmp_path):
    folder = download("anime")
    assert folder.is_relative_to(tmp_path / "downloads")
    assert len(list(folder.glob("images/*.jpg"))) == 6
    assert kaggle.requests[0] == (f"{SERVICE}/GetDataset", "animefacedataset")
    report = prepare(folder, progress=False)
    assert (report.name, report.kept, report.crop) == ("anime", 6, 1.0)


def test_second_call_asks_nobody(kaggle):
    first = download("anime")
    asked = len(kaggle.requests)
    assert [path for path, _ in kaggle.requests].count("/archive.zip?signature=secret") == 1
    assert download("anime") == first
    assert len(kaggle.requests) == asked


def test_unfinished_download_is_not_taken_for_a_whole_one(kaggle):
    archive, kaggle.archive = kaggle.archive, b"an error page"
    with pytest.raises(ValueError):
        download("anime")
    kaggle.archive = archive
    assert len(list(download("anime").glob("images/*.jpg"))) == 6


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_environment_is_left_as_it_was(kaggle, monkeypatch, before):
    if before:
        monkeypatch.setenv("KAGGLEHUB_CACHE", before)
    download("anime")
    assert os.environ.get("KAGGLEHUB_CACHE") == before


def test_unknown_name(kaggle):
    with pytest.raises(ValueError, match=r"'manga', expected one of: anime, cartoon"):
        download("manga")
    assert kaggle.requests == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusal_says_what_to_do_instead(kaggle, status):
    kaggle.status = status
    with pytest.raises(ConnectionError, match=f"answered {status}") as caught:
        download("cartoon")
    assert f"from {DATASETS['cartoon'].url} and run: python -m vaelib prepare FILE.zip" in str(caught.value)


def test_refused_file_keeps_the_signed_address_to_itself(kaggle):
    kaggle.file_status = 500
    with pytest.raises(ConnectionError, match="answered 500") as caught:
        download("anime")
    assert "secret" not in str(caught.value)


def test_no_server_says_what_to_do_instead(kaggle):
    kaggle.shutdown()
    kaggle.server_close()
    with pytest.raises(ConnectionError, match=r"cannot be reached .*vaelib prepare FILE.zip"):
        download("anime")


def test_command_downloads_and_prepares(kaggle, capsys):
    assert main(["download", "anime", "--size", "32"]) == 0
    assert "6 kept" in capsys.readouterr().out
    assert load_faces("anime", size=32).origin == "prepared"


def test_command_explains_a_refusal(kaggle, capsys):
    kaggle.status = 404
    assert main(["download", "anime"]) == 1
    assert "vaelib: Kaggle answered 404" in capsys.readouterr().err
