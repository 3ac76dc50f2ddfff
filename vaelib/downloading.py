"""Fetch the two Kaggle data sets with Kaggle's own client; no account is needed.

python -m vaelib download anime       # fetches, then prepares
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vaelib.storage import cache_folder


@dataclass(frozen=True)
class Dataset:
    """Where a data set lives on Kaggle, how many pictures it holds, and what is known of its licence."""

    handle: str
    pictures: int
    licence: str

    @property
    def url(self) -> str:
        return f"https://www.kaggle.com/datasets/{self.handle}"


DATASETS = {
    "anime": Dataset("splcher/animefacedataset", 63_565, "see its page"),
    "cartoon": Dataset("brendanartley/cartoon-faces-googles-cartoon-set", 100_000, "CC BY 4.0, Google LLC"),
}


def download(name: str) -> Path:
    """Fetch the data set "anime" or "cartoon" and return the folder of its pictures, ready for `prepare`.

    It goes to `downloads` in the cache folder; once there, it is not asked for again, and a download that was cut short
    goes on where it stopped. Raises `ValueError` for another name, `ConnectionError` where Kaggle cannot be reached or
    refuses.
    """
    if name not in DATASETS:
        raise ValueError(f"got the data set {name!r}, expected one of: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    if folder := _downloaded(dataset.handle):
        return folder

    import kagglehub
    import requests

    try:
        with _kagglehub_cache(cache_folder("downloads")):
            return Path(kagglehub.dataset_download(dataset.handle))
    except requests.RequestException as error:
        raise ConnectionError(
            f"{_reason(error)}, so the {name} faces could not be fetched. Instead, download the zip file in a browser "
            f"from {dataset.url} and run: python -m vaelib prepare FILE.zip"
        ) from error


def _downloaded(handle: str) -> Path | None:
    """The newest version of a data set that kagglehub completed in the cache folder: N.complete marks versions/N."""
    home = cache_folder("downloads") / "datasets" / handle
    versions = sorted(int(marker.stem) for marker in home.glob("*.complete"))
    folders = [home / "versions" / str(version) for version in versions]
    return next((folder for folder in reversed(folders) if folder.is_dir()), None)


@contextmanager
def _kagglehub_cache(folder: Path) -> Iterator[None]:
    """Let kagglehub, which reads its folder from the environment at each call, work in `folder`."""
    before = os.environ.get("KAGGLEHUB_CACHE")
    os.environ["KAGGLEHUB_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["KAGGLEHUB_CACHE"]
        else:
            os.environ["KAGGLEHUB_CACHE"] = before


def _reason(error) -> str:
    # Not the error's own text: it may hold a signed address.
    if error.response is not None:
        return f"Kaggle answered {error.response.status_code} {error.response.reason}"
    return f"Kaggle cannot be reached ({type(error).__name__})"
