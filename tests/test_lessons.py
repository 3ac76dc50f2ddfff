"""What a lesson builds inline is what the package does, number for number: the lessons' own cells run here."""

import ast
import math
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import ContinuousBernoulli

import vaelib
from vaelib.families import NEAR, block_averages, find_families
from vaelib.model import Downsample, Posterior

FOLDER = Path(__file__).parents[1] / "notebooks"


def inline(lesson: str, *names: str) -> dict:
    """A lesson's imports and, of all that its cells define, `names`: functions, classes and variables."""
    notebook = nbformat.read(FOLDER / f"{lesson}.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    statements = [s for source in cells for s in ast.parse(source.replace("%pip", "# %pip")).body]
    wanted = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom) or defined(s) & set(names)]
    assert set(names) <= set().union(*map(defined, wanted)), f"lesson {lesson} does not define all of {names}"
    namespace = {}
    exec(compile(ast.Module(wanted, type_ignores=[]), lesson, "exec"), namespace)
    return namespace


def defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def same_groups(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a[:, None] == a, b[:, None] == b)


def test_lesson_01_families_of_exact_copies(faces):
    images = faces.images[[0, 1, 2, 1, 3, 0, 0]]
    assert same_groups(inline("01_faces", "families")["families"](images), find_families(images, near=0))


def test_lesson_01_near_copies(faces):
    averages = inline("01_faces", "block_averages")["block_averages"](faces.images)
    package = torch.from_numpy(block_averages(faces.images)).double().flatten(1)
    torch.testing.assert_close(averages, package, rtol=0, atol=1e-6)
    assert NEAR == 0.07  # the line that the lesson draws


def test_lesson_02_rate():
    mean, log_var = torch.randn(4, 6), torch.randn(4, 6)
    kl = inline("02_maths", "kl")["kl"]
    assert torch.equal(kl(mean, log_var), vaelib.kl_divergence(Posterior(mean, log_var)))


def test_lesson_02_likelihoods(logits, x):
    lesson = inline("02_maths", "bce", "gaussian_nll", "optimal_gaussian_nll")
    x_hat = logits.sigmoid()
    torch.testing.assert_close(lesson["bce"](x_hat, x), vaelib.bernoulli_nll(logits, x))
    for sigma in 0.05, 0.1, 9.9:
        torch.testing.assert_close(lesson["gaussian_nll"](x_hat, x, sigma), vaelib.gaussian_nll(logits, x, sigma))
    package = vaelib.optimal_gaussian_nll(logits, x).mean()
    torch.testing.assert_close(lesson["optimal_gaussian_nll"](x_hat, x), package)


def test_lesson_02_normaliser_of_the_continuous_bernoulli(x):
    lesson = inline("02_maths", "bce", "log_normaliser")
    for value in 0.01, 0.3, 0.9:
        lam = torch.full_like(x, value, dtype=torch.float64)
        ours = lesson["log_normaliser"](lam).flatten(1).sum(1) - lesson["bce"](lam, x)
        torch.testing.assert_close(ours, ContinuousBernoulli(lam).log_prob(x.double()).flatten(1).sum(1))


@pytest.mark.parametrize("seed", range(2))
def test_lesson_02_toy_has_the_loss_of_the_package(seed):
    lesson = inline("02_maths", "kl", "optimal_gaussian_nll", "TinyVAE")
    torch.manual_seed(seed)
    vae, x = lesson["TinyVAE"](), torch.rand(5, 3, 32, 32)
    torch.manual_seed(seed)
    distortion, rate = vae(x)
    posterior = Posterior(*vae.encode(x))
    torch.manual_seed(seed)
    x_hat = vae.decoder(posterior.sample())
    torch.testing.assert_close(rate, vaelib.kl_divergence(posterior).mean())
    torch.testing.assert_close(distortion, vaelib.optimal_gaussian_nll(x_hat.logit(), x).mean())


def test_lesson_02_innocent_means_are_the_package_with_another_sigma(logits, x):
    """mse_loss + kl.mean() has the gradient of a Gaussian with σ² = D / 2d, over the number of latents."""
    logits.requires_grad_()
    log_var = torch.randn(4, 6, requires_grad=True)
    values, latents = x[0].numel(), 6
    posterior = Posterior(torch.zeros(4, 6), log_var)
    innocent = F.mse_loss(logits.sigmoid(), x) + vaelib.kl_divergence(posterior).mean() / latents
    elbo = vaelib.gaussian_nll(logits, x, math.sqrt(values / latents / 2)) + vaelib.kl_divergence(posterior)
    ours = torch.autograd.grad(innocent, (logits, log_var))
    package = torch.autograd.grad(elbo.mean() / latents, (logits, log_var))
    torch.testing.assert_close(ours, package)


def test_lesson_03_stage():
    lesson = inline("03_model", "look", "halve", "stage")
    h, ours = torch.randn(2, 20, 16, 16), Downsample(20, 40)
    weights = [*lesson["look"].state_dict().values(), *lesson["halve"].state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    assert torch.equal(ours(h), lesson["stage"](h))


@pytest.mark.parametrize("depth", [2, 4])
def test_lesson_03_receptive_field_is_that_of_the_package(depth):
    lesson = inline("03_model", "receptive_field", "layers_of", "measured_field")
    encoder = vaelib.VAE(base_channels=2, depth=depth, latent_channels=2).eval().encoder
    computed = lesson["receptive_field"]([*lesson["layers_of"](depth), (3, 1)])
    assert lesson["measured_field"](encoder, size=160) == computed
