"""A server on this machine that answers as Kaggle does, for the real clients to download from."""

import hashlib
import io
import json
import threading
import zipfile
from base64 import b64encode
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from vaelib.drawn import draw_faces

SIGNATURE = "signature-that-nobody-may-see"


def as_jpeg(image, quality=75):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@cache
def anime_zip(count=6, noise=0):
    """A zip file laid out like the anime archive, of drawn faces; `noise` adds a picture of that side, hard to pack."""
    files = {f"images/{1234 + i}_2005.jpg": as_jpeg(face) for i, face in enumerate(draw_faces("anime", count)[0])}
    if noise:
        pixels = np.random.default_rng(noise).integers(0, 256, (noise, noise, 3), dtype=np.uint8)
        files["images/9999_2019.jpg"] = as_jpeg(pixels, quality=98)
    return make_zip(files)


@cache
def cartoon_zip(count=6):
    """A zip file laid out like the cartoon archive, of drawn faces."""
    faces = draw_faces("cartoon", count)[0]
    return make_zip({f"cartoonset100k_jpg/{i % 2}/cs{4567 + i}.jpg": as_jpeg(face) for i, face in enumerate(faces)})


@dataclass
class Request:
    """What one request asked for and got. `start` is the first byte it asked for, `sent` how many it got."""

    path: str
    body: dict | None = None
    start: int = 0
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """Signs in, names the version, redirects to the signed address of the file, and sends that or the rest of it."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service, _, call = urlsplit(self.path).path.rpartition("/")
        self.server.requests.append(Request(call, body))
        if call == "IntrospectToken":
            active = self.server.token is not None and body["token"] == self.server.token
            self.answer(200, json.dumps({"active": active, "username": "learner" if active else ""}).encode())
        elif self.server.status != 200:
            self.answer(self.server.status, json.dumps({"code": self.server.status, "message": str(body)}).encode())
        elif call == "GenerateAccessToken":
            self.answer(200, json.dumps({"token": self.server.token, "expiresIn": 3600}).encode())
        elif call == "GetDataset":
            self.answer(200, json.dumps({"currentVersionNumber": self.server.version}).encode())
        elif call == "DownloadDataset" and service.endswith("datasets.DatasetApiService"):
            self.answer(302, b"", Location=f"{self.server.file_address}/archive.zip?signature={SIGNATURE}")
        else:
            self.answer(404, b'{"code": 404, "message": "no such call"}')

    def do_GET(self):
        archive = self.server.archive
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        if self.headers.get("If-Range", self.server.etag) != self.server.etag:
            start = 0  # the file has changed since: all of it
        request = Request("archive.zip", start=start)
        self.server.requests.append(request)
        if self.server.file_status != 200:
            self.answer(self.server.file_status, b"<html>no</html>", "text/html")
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(len(archive) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", self.server.etag)
        self.send_header("Last-Modified", self.server.last_modified)
        if self.server.checksum:
            self.send_header("x-goog-hash", "md5=" + b64encode(hashlib.md5(archive).digest()).decode())
        self.end_headers()
        end = self.server.cuts.pop(0) if self.server.cuts else len(archive)
        self.wfile.write(archive[start:end])
        request.sent = max(0, end - start)
        if end < len(archive) and self.server.stalls:
            self.server.going.wait(60)

    def answer(self, status, body, kind="application/json", **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class KaggleServer(ThreadingHTTPServer):
    """Set its attributes to make it refuse, cut an answer short, fall silent or serve another file."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = self.file_address = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[Request] = []
        self.status = self.file_status = 200
        self.token = None  # the one API token that counts
        self.version, self.checksum = 3, False
        self.stalls = False  # whether answers that are cut fall silent instead of breaking off
        self.going = threading.Event()  # until this is set
        self.serve(anime_zip())
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def serve(self, archive):
        """Send this file from now on. `cuts` says at which byte the next answers with it break off."""
        self.archive = archive
        self.cuts = []
        self.etag = f'"{hashlib.md5(archive).hexdigest()}"'
        self.last_modified = formatdate(usegmt=True)

    @property
    def files_sent(self) -> list[tuple[int, int]]:
        """(first byte, number of bytes) of each answer with the file."""
        return [(request.start, request.sent) for request in self.requests if request.path == "archive.zip"]

    def handle_error(self, request, client_address):
        pass  # a client that has gone away

    def stop(self):
        self.going.set()
        self.shutdown()
        self.server_close()
