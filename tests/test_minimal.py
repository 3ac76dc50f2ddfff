import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from vaelib import minimal
from vaelib.faces import load_faces
from vaelib.losses import kl_divergence, optimal_gaussian_nll
from vaelib.metrics import psnr
from vaelib.model import Posterior
from vaelib.priors import fit_gaussian


@pytest.fixture
def vae() -> minimal.VAE:
    torch.manual_seed(0)
    return minimal.VAE(latents=6, width=4).eval()


@pytest.fixture
def faces(session_cache) -> torch.Tensor:
    return load_faces("drawn-cartoon", size=32, count=200, verbose=False).batch()


def test_it_fits_on_a_page_and_imports_nothing_of_the_package():
    source = Path(minimal.__file__).read_text()
    assert len(source.splitlines()) <= 100
    assert [
        line.strip() for line in source.splitlines() if line.strip().startswith(("from vaelib", "import vaelib"))
    ] == ["from vaelib.faces import load_faces  # your own instead: any float tensor (N, 3, 32, 32) in [0, 1]"]


def test_its_loss_is_the_packages(vae, faces):
    x = faces[:8]
    torch.manual_seed(1)
    distortion, rate = vae.loss(x)
    posterior = Posterior(*vae.encode(x))
    torch.manual_seed(1)
    logits = vae.decoder(posterior.mean + (0.5 * posterior.log_var).exp() * torch.randn_like(posterior.mean))
    torch.testing.assert_close(distortion, optimal_gaussian_nll(logits, x).mean())
    torch.testing.assert_close(rate, kl_divergence(posterior).mean())


def test_it_samples_from_the_gaussian_that_the_package_fits(vae, faces):
    with torch.no_grad():
        posterior = Posterior(*vae.encode(faces))
    prior = fit_gaussian(posterior)
    torch.manual_seed(0)
    mine = minimal.latents(vae, faces, 50_000)
    torch.testing.assert_close(mine.mean(0), prior.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(mine.T.cov(), prior.factor @ prior.factor.T, atol=0.1, rtol=0.05)


def test_it_learns(faces):
    torch.manual_seed(0)
    vae = minimal.train(minimal.VAE(width=8), faces, epochs=20, batch_size=20)
    with torch.no_grad():
        x_hat = vae.decode(vae.encode(faces)[0])
    grey = faces.mean(0, keepdim=True).expand_as(faces)
    assert psnr(x_hat, faces).mean() > psnr(grey, faces).mean() + 1


def test_it_runs_as_a_file_of_its_own(tmp_path, session_cache):
    """A copy of the file, pasted elsewhere, with fewer steps."""
    source = Path(minimal.__file__).read_text()
    (tmp_path / "mine.py").write_text(source.replace("epochs: int = 8", "epochs: int = 1").replace("4000", "400"))
    subprocess.run([sys.executable, "mine.py", "--style", "cartoon"], cwd=tmp_path, check=True, capture_output=True)
    assert Image.open(tmp_path / "minimal.png").size == (16 * 34 + 2, 4 * 34 + 2)
