"""What the tests share: a cache folder of their own, a few drawn faces, a tiny network, real faces where they are."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from vaelib.faces import Faces, load_faces
from vaelib.latents import fit_pca
from vaelib.model import VAE, Residual
from vaelib.pretrained import Bundle

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)  # small networks gain nothing from more, and on a busy machine they wait for each other


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory) -> Path:
    """No test reads or writes the cache folder of whoever runs them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_CACHE", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")  # the same for processes that tests start
        yield folder


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache folder with nothing in it, for one test."""
    monkeypatch.setenv("VAELIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def faces(session_cache) -> Faces:
    """96 drawn anime faces of 64×64 pixels."""
    return load_faces("drawn-anime", size=64, count=96)


@pytest.fixture(scope="session")
def x(faces) -> torch.Tensor:
    """16 of them as the models take them: float32 (16, 3, 64, 64) in [0, 1]."""
    return faces.batch(slice(16))


def begun(network: nn.Module) -> nn.Module:
    """`network` with residual blocks that add something, as after some training: at first they are the identity."""
    for module in network.modules():
        if isinstance(module, Residual):
            nn.init.ones_(module.block[1].weight)
    return network


@pytest.fixture
def tiny_vae(x) -> VAE:
    """A small network, the same in each test; its batch norms have seen faces, so that latents matter."""
    torch.manual_seed(0)
    vae = begun(VAE(base_channels=4, latent_channels=8))
    with torch.no_grad():
        for _ in range(10):
            vae(x)
    return vae


@pytest.fixture(scope="session")
@torch.no_grad()
def bundle() -> Bundle:
    """A tiny untrained decoder, which draws coloured spots, and axes of unit length, which move many of them."""
    torch.manual_seed(0)
    vae = begun(VAE(base_channels=4, latent_channels=8))
    for parameter in vae.parameters():
        parameter *= 3  # more contrast
    latents = torch.randn(100, *vae.latent_shape(64))
    for _ in range(20):
        vae.decode(latents)  # lets the batch norms see what comes
    return Bundle(vae.eval(), fit_pca(latents), {"model": "VAE", "image_size": 64, "faces": "drawn-anime"})


@pytest.fixture(scope="session")
def real_faces() -> Path:
    """The folder with the two Kaggle archives: VAELIB_REAL_FACES, or ../shared/faces beside the project."""
    given = os.environ.get("VAELIB_REAL_FACES")
    folder = Path(given) if given else ROOT.parent / "shared" / "faces"
    if not (folder / "animefacedataset.zip").exists():
        pytest.skip(f"no real faces in {folder}: set VAELIB_REAL_FACES to the folder with the two Kaggle archives")
    return folder


@pytest.fixture(scope="session")
def real_prepared(real_faces, tmp_path_factory) -> dict:
    """Both archives prepared, once for all tests: {"anime": Report, "cartoon": Report}, in a cache of their own."""
    from vaelib.preparing import prepare

    archives = {"anime": "animefacedataset.zip", "cartoon": "cartoon-faces-googles-cartoon-set.zip"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_CACHE", str(tmp_path_factory.mktemp("real")))
        reports = {style: prepare(real_faces / archive, progress=False) for style, archive in archives.items()}
    yield reports
    for report in reports.values():  # 300 MB that pytest would keep for three runs
        report.images_path.unlink()
