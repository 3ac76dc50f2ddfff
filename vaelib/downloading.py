"""Fetch the two Kaggle data sets with Kaggle's own clients; no account is needed.

python -m vaelib download anime       # fetches, then prepares

Without credentials `kagglehub` fetches and unpacks; with credentials the official client `kaggle` fetches the zip file,
and `prepare` reads it as it is. Both go on where an earlier call stopped.
"""

import io
import json
import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from vaelib.storage import atomic_file, cache_folder, expand

KAGGLE_INPUT = Path("/kaggle/input")  # where a Kaggle notebook finds the data sets attached to it
TIME_LIMITS = (10, 60)  # seconds until a connection stands, and between two pieces of an answer


@dataclass(frozen=True)
class Dataset:
    """Where a data set lives on Kaggle, its pictures, roughly the room it needs, and what is known of its licence."""

    handle: str
    pictures: int
    gigabytes: int  # zip file and unpacked pictures together
    licence: str

    @property
    def url(self) -> str:
        return f"https://www.kaggle.com/datasets/{self.handle}"


DATASETS = {
    "anime": Dataset("splcher/animefacedataset", 63_565, 1, "see its page"),
    "cartoon": Dataset("brendanartley/cartoon-faces-googles-cartoon-set", 100_000, 3, "CC BY 4.0, Google LLC"),
}

ADVICE = {
    401: "set the environment variable KAGGLE_API_TOKEN to a new token from https://www.kaggle.com/settings/api",
    403: "open {url} while logged in, accept its terms, and try again with a token of that account in the environment "
    "variable KAGGLE_API_TOKEN",
    404: "the data set was moved or withdrawn; look for its new place on Kaggle",
    429: "too many requests came from here; wait some minutes and try again, the download goes on where it stopped",
    500: "the trouble is on Kaggle's side; try again later, the download goes on where it stopped",
}


class UnusableCredentials(PermissionError):
    """The official client finds credentials and cannot sign in with them."""


def download(name: str) -> Path:
    """Fetch the data set "anime" or "cartoon" and return its zip file or the folder of its pictures, for `prepare`.

    What is attached to a Kaggle notebook or was fetched before is returned at once. Otherwise it goes to `downloads` in
    the cache folder: by the official client where there are credentials for it, else by kagglehub without an account.
    A download that was cut short goes on where it stopped.

    Raises `ValueError` for another name, `ConnectionError` where Kaggle cannot be reached, refuses, or sends something
    that is no whole zip file, and `OSError` where the disk is full. Each says what to do; none holds a credential.
    """
    if name not in DATASETS:
        raise ValueError(f"got the data set {name!r}, expected one of: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    owner, slug = dataset.handle.split("/")
    home = cache_folder("downloads", "datasets", owner, slug)  # kagglehub's choice; the official client works there too
    if found := _attached(owner, slug) or _completed(home):
        return found
    credentials = _credentials()
    fetch = _fetch_with_account if credentials else _fetch_without_account
    try:
        with _logs_muted(), _time_limits():
            return fetch(dataset, home)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the next call goes on where this one stopped") from None
    except (ImportError, MemoryError):
        raise
    except OSError as error:  # all errors of requests are
        problem = _explain(error, dataset, home, credentials)
    except Exception as error:  # of zipfile, zlib, the clients: no zip file, or a damaged one
        shutil.rmtree(home, ignore_errors=True)  # nothing in there was complete
        problem = ConnectionError(
            f"what arrived is no whole zip file ({type(error).__name__}); it was removed, so try again from the start"
        )
    # Raised out here, so that the traceback does not show the first error: it may hold a credential or signed address.
    raise type(problem)(
        f"Could not fetch the {name} faces: {problem}. Or download the zip file in a browser from {dataset.url} "
        "and run: python -m vaelib prepare FILE.zip"
    )


def _attached(owner: str, slug: str) -> Path | None:
    """The folder of a data set in a Kaggle notebook, in the newer or in the older place."""
    folders = KAGGLE_INPUT / "datasets" / owner / slug, KAGGLE_INPUT / slug
    return next((folder for folder in folders if folder.is_dir()), None)


def _completed(home: Path) -> Path | None:
    """The official client's zip file, or kagglehub's newest whole version: N.complete marks versions/N."""
    archive = home / f"{home.name}.zip"
    if archive.is_file():
        return archive
    versions = sorted((int(marker.stem) for marker in home.glob("*.complete")), reverse=True)
    folders = (home / "versions" / str(version) for version in versions)
    return next((folder for folder in folders if folder.is_dir()), None)


def _credentials() -> list[str]:
    """Where the official client finds credentials, in words; files that it could not use do not count."""
    user = expand("~")  # where this user has no home, a name that no file has
    home = user / ".kaggle"
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or user / ".config") / "kaggle"
    usual = settings if sys.platform == "linux" and not home.exists() else home
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or usual)
    variables = ["KAGGLE_API_TOKEN"] if os.environ.get("KAGGLE_API_TOKEN") else []
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        variables += ["KAGGLE_USERNAME", "KAGGLE_KEY"]
    files = [file for file in (home / "access_token", home / "access_token.txt") if _text(file).strip()]
    files += [folder / "kaggle.json"] if {"username", "key"} <= _json(folder / "kaggle.json").keys() else []
    files += [home / "credentials.json"] if _json(home / "credentials.json").get("refresh_token") else []
    return [f"the environment variable {name}" for name in variables] + [f"the file {file}" for file in files]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _json(file: Path) -> dict:
    try:
        content = json.loads(_text(file))
    except json.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _fetch_with_account(dataset: Dataset, home: Path) -> Path:
    """Let the official client fetch the zip file, and give it its name once every picture in it is whole."""
    arrived = home / "unfinished" / f"{home.name}.zip"
    with redirect_stdout(io.StringIO()):  # it prints advice and signed addresses; its bar goes to stderr
        _sign_in().dataset_download_files(dataset.handle, path=str(arrived.parent), quiet=False)
    with zipfile.ZipFile(arrived) as archive:
        if broken := archive.testzip():
            raise zipfile.BadZipFile(broken)
    with atomic_file(home / arrived.name) as part:
        arrived.replace(part)
    shutil.rmtree(arrived.parent)
    return home / arrived.name


def _sign_in():
    """The official client, signed in with the credentials that it finds for itself."""
    import requests
    from kaggle import api  # tries to sign in as it is imported, and passes over what went wrong: so once more

    try:
        api.authenticate()
    except (requests.ConnectionError, requests.Timeout, requests.HTTPError):
        raise
    except (Exception, SystemExit):  # it calls exit(), which in a notebook is a NameError
        raise UnusableCredentials from None
    return api


def _fetch_without_account(dataset: Dataset, home: Path) -> Path:
    import kagglehub

    # In `home` there is no kaggle.json: one that is damaged elsewhere would stop kagglehub.
    with _environment(KAGGLEHUB_CACHE=str(cache_folder("downloads")), KAGGLE_CONFIG_DIR=str(home)):
        return Path(kagglehub.dataset_download(dataset.handle))


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _logs_muted() -> Iterator[None]:
    """Log nothing for a while: at some levels the clients and urllib3 log credentials and signed addresses."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _time_limits() -> Iterator[None]:
    """Let requests give up on a silent server: it would wait for ever, and the clients offer no setting for it."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send
    HTTPAdapter.send = lambda self, request, **options: send(self, request, **options | {"timeout": TIME_LIMITS})
    try:
        yield
    finally:
        HTTPAdapter.send = send


def _explain(error: OSError, dataset: Dataset, home: Path, credentials: list[str]) -> OSError:
    """What happened and what to do, as an error that holds nothing of the given one but its kind."""
    import requests

    refused = f"renew or remove the credentials in {' or '.join(credentials)}; these faces need no account"
    if isinstance(error, UnusableCredentials):
        return ConnectionError(f"Kaggle's client cannot sign in: {refused}")
    if isinstance(error, requests.HTTPError):
        status = error.response.status_code
        advice = ADVICE.get(min(status, 500), "try again later").format(url=dataset.url)
        advice = refused if status == 401 and credentials else advice
        return ConnectionError(f"Kaggle answered {status} {error.response.reason}: {advice}")
    if isinstance(error, requests.RequestException):
        return ConnectionError(
            f"Kaggle cannot be reached, or the connection broke off ({type(error).__name__}); look after the network "
            "and try again, the download goes on where it stopped"
        )
    reason = ": ".join(str(part) for part in (error.strerror, error.filename) if part) or type(error).__name__
    return OSError(
        f"{reason}; about {dataset.gigabytes} GB are needed in {home}, so make room there, or choose another folder "
        "with the environment variable VAELIB_CACHE"
    )
