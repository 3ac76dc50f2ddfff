"""What a lesson builds inline is what the package does, number for number: the lessons' own cells run here."""

import ast
import copy
import math
import re
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import begun
from nbclient import NotebookClient
from PIL import Image
from torch.distributions import ContinuousBernoulli, MultivariateNormal, kl_divergence

import vaelib
from vaelib import sharpening
from vaelib.drawn import FACTORS
from vaelib.families import NEAR, block_averages, find_families
from vaelib.metrics import _sliced
from vaelib.model import Downsample, Posterior
from vaelib.plots import face_grid
from vaelib.priors import VelocityField, fit_gaussian, published_priors

FOLDER = Path(__file__).parents[1] / "notebooks"


def inline(lesson: str, *names: str, **given) -> dict:
    """A lesson's imports and, of all that its cells define, `names`: functions, classes and variables.

    `given` is what the cells before have made of the faces.
    """
    notebook = nbformat.read(FOLDER / f"{lesson}.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    statements = [s for source in cells for s in ast.parse(source.replace("%pip", "# %pip")).body]
    wanted = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom) or defined(s) & set(names)]
    assert set(names) <= set().union(*map(defined, wanted)), f"lesson {lesson} does not define all of {names}"
    namespace = dict(given)
    exec(compile(ast.Module(wanted, type_ignores=[]), lesson, "exec"), namespace)
    return namespace


def block(lesson: str, word: str, changes: dict[str, str]) -> str:
    """The Python in the one text of a lesson that holds `word`, each key of `changes` replaced by what it names."""
    notebook = nbformat.read(FOLDER / f"{lesson}.ipynb", as_version=4)
    (text,) = (cell.source for cell in notebook.cells if cell.cell_type == "markdown" and word in cell.source)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    for full, small in changes.items():
        assert full in code
        code = code.replace(full, small)
    return code


def defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.For | ast.With):
        return set().union(*map(defined, statement.body))
    targets = getattr(statement, "targets", [getattr(statement, "target", statement)])  # x, y = ... and x += ... too
    names = [node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


@pytest.fixture
def logits(x) -> torch.Tensor:
    return 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def same_groups(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a[:, None] == a, b[:, None] == b)


def test_lesson_01_batch_by_hand(faces):
    assert torch.equal(inline("01_faces", "by_hand", anime=faces)["by_hand"], faces.batch(range(8)))


def test_lesson_01_slider_shows_the_bent_faces():
    bundles = {style: vaelib.load_pretrained(f"drawn-{style}") for style in ("anime", "cartoon")}
    lesson = inline("01_faces", "bend", "show", "picture", bundles=bundles)
    shown = []
    for amount in -3.0, 3.0:
        lesson["show"]({"new": amount})
        shown.append(np.asarray(Image.open(BytesIO(lesson["picture"].value)), dtype=float))
        assert np.abs(shown[-1] - face_grid(lesson["bend"](amount), scale=3)).mean() < 4  # what JPEG changes
    assert np.abs(shown[1] - shown[0]).mean() > 20


def test_lesson_02_rate():
    mean, log_var = torch.randn(4, 6), torch.randn(4, 6)
    kl = inline("02_maths", "kl")["kl"]
    assert torch.equal(kl(mean, log_var), vaelib.kl_divergence(Posterior(mean, log_var)))


def test_lesson_02_likelihoods(logits, x):
    lesson = inline("02_maths", "bce", "squared_error", "gaussian_nll", "optimal_gaussian_nll")
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
        torchs = ContinuousBernoulli(lam).log_prob(x.double()).flatten(1).sum(1)
        torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(2))
def test_lesson_02_toy_has_the_losses_of_the_package(seed):
    names = "kl", "draw", "squared_error", "optimal_gaussian_nll", "vae_loss", "calibrated_loss"
    lesson = inline("02_maths", "TinyVAE", *names)
    torch.manual_seed(seed)
    vae, x = lesson["TinyVAE"](), torch.rand(5, 3, 32, 32)
    posterior = Posterior(*vae.encode(x))
    rate = vaelib.kl_divergence(posterior).mean()
    torch.manual_seed(seed)
    logits = vae.decoder(posterior.sample()).logit()

    torch.manual_seed(seed)
    constant = x[0].numel() / 2 * math.log(2 * math.pi * 0.6**2)
    package = vaelib.gaussian_nll(logits, x, 0.6).mean() - constant + rate
    torch.testing.assert_close(lesson["vae_loss"](vae, x), package)
    torch.manual_seed(seed)
    package = vaelib.optimal_gaussian_nll(logits, x).mean() + rate
    torch.testing.assert_close(lesson["calibrated_loss"](vae, x), package)


def test_lesson_02_innocent_means_are_the_package_with_another_sigma(logits, x):
    """F.mse_loss + kl.mean() has the gradient of a Gaussian with σ² = D / 2d, over the number of latents."""
    logits.requires_grad_()
    log_var = torch.randn(len(x), 6, requires_grad=True)
    values, latents = x[0].numel(), 6
    posterior = Posterior(torch.zeros_like(log_var), log_var)
    innocent = F.mse_loss(logits.sigmoid(), x) + vaelib.kl_divergence(posterior).mean() / latents
    elbo = vaelib.gaussian_nll(logits, x, math.sqrt(values / latents / 2)) + vaelib.kl_divergence(posterior)
    ours = torch.autograd.grad(innocent, (logits, log_var))
    package = torch.autograd.grad(elbo.mean() / latents, (logits, log_var))
    torch.testing.assert_close(ours, package)


def test_lesson_02_page_states_the_sigmas_that_the_lesson_computes():
    """Each row of the page's table beside the claim of the lesson: √(b / 2a)."""
    claims = inline("02_maths", "losses", "claims")["losses"]
    stated = re.findall(r"^\|.*\| ([\d.]+) \|$", (FOLDER / "which_sigma.md").read_text(encoding="utf-8"), re.MULTILINE)
    for a, b in claims.values():
        sigma = math.sqrt(b / (2 * a))
        assert any(float(number) == round(sigma, len(number.partition(".")[2])) for number in stated), sigma


def test_lesson_02_linear_vae_is_the_best_of_its_sigma(x):
    """Its negative ELBO is the negative log likelihood of probabilistic PCA, which only the best posterior reaches."""
    faces, sigma = x.double(), 0.5
    through, kept, rate = inline("02_maths", "linear_vae")["linear_vae"](faces, sigma)
    rows = faces.flatten(1) - faces.flatten(1).mean(0)
    lam = torch.linalg.svdvals(rows).square() / len(rows)
    assert kept == (lam > sigma**2).sum()
    lam, dropped = lam[:kept], lam[kept:].sum()
    values = rows.shape[1]
    evidence = (lam.log().sum() + (values - kept) * math.log(sigma**2) + kept + dropped / sigma**2) / 2
    # E_q of the error: what shrinking takes away, the noise of the posterior, what was dropped
    error = (sigma**4 / lam).sum() + ((lam - sigma**2) * sigma**2 / lam).sum() + dropped
    torch.testing.assert_close(error / (2 * sigma**2) + values / 2 * math.log(sigma**2) + rate, evidence)
    mean_error = (through(faces) - faces).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(mean_error, (sigma**4 / lam).sum() + dropped)


def test_lesson_03_stage():
    lesson = inline("03_model", "look", "halve", "stage")
    h, ours = torch.randn(2, 20, 16, 16), Downsample(20, 40)
    weights = [*lesson["look"].state_dict().values(), *lesson["halve"].state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    assert torch.equal(ours(h), lesson["stage"](h))


@pytest.mark.parametrize("depth", [2, 4])
def test_lesson_03_receptive_field_is_that_of_the_package(depth):
    lesson = inline("03_model", "receptive_field", "layers_of", "measured_field")
    encoder = begun(vaelib.VAE(base_channels=2, depth=depth, latent_channels=2)).eval().encoder
    computed = lesson["receptive_field"]([*lesson["layers_of"](depth), (3, 1)])
    assert lesson["measured_field"](encoder, size=160) == computed


def test_lesson_04_step(tiny_vae, faces):
    lesson, few = inline("04_training", "terms", "step"), faces.select(range(16))
    config = vaelib.TrainConfig(
        epochs=3, batch_size=16, likelihood="gaussian", sigma=0.1, beta=1, flip=False, precision="float32"
    )
    run = vaelib.train(copy.deepcopy(tiny_vae), few, config, device="cpu")
    optimizer = torch.optim.Adam(tiny_vae.parameters(), config.learning_rate)
    losses = []
    for epoch in 1, 2, 3:
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        losses.append(sum(lesson["step"](tiny_vae.train(), optimizer, few.batch(torch.randperm(16).numpy()))))
    assert losses == pytest.approx([entry["loss"] for entry in run.history], rel=1e-5)


def test_lesson_05_psnr(logits, x):
    x_hat = logits.sigmoid()
    torch.testing.assert_close(inline("05_reconstruction", "psnr")["psnr"](x_hat, x), vaelib.psnr(x_hat, x))


def test_lesson_05_linear_vae_costs_what_its_posteriors_cost():
    """For data with the variances λ: means of variance 1 - σ²/λ, variances of σ²/λ, and σ²/λ of a component lost."""
    torch.manual_seed(0)
    variances = torch.tensor([9.0, 4.0, 2.0, 1.0])
    x = torch.randn(200_000, 4) * variances.sqrt()
    pca = SimpleNamespace(explained_variance_=variances.numpy())
    lesson = inline("05_reconstruction", "linear_code", "decibels", linear={"anime": (pca, None, x.numpy(), 0)})
    share = 2.0 / variances[:3]
    mean, log_var = (variances[:3] - 2).sqrt() / variances[:3] * x[:, :3], share.log().expand(len(x), 3)
    lost = x[:, 3].square() + (share * x[:, :3]).square().sum(1)
    _, by_mean, nats = lesson["linear_code"]("anime", 3)
    assert nats == pytest.approx(vaelib.kl_divergence(Posterior(mean, log_var)).mean().item(), rel=0.01)
    assert by_mean == pytest.approx(lesson["decibels"](lost.numpy()), rel=1e-4)


def test_lesson_05_skill_is_one_for_what_is_there_and_none_for_what_is_not():
    skill = inline("05_reconstruction", "skill", "as_targets")["skill"]
    rng = np.random.default_rng(0)
    labels = {
        "hair": rng.choice(["bob", "long"], 2000),
        "hair_hue": rng.random(2000),
        "skin": rng.random(2000),
    }
    angle = 2 * np.pi * labels["hair_hue"]
    told = np.stack([8.0 * (labels["hair"] == "bob"), 9 * np.cos(angle), 9 * np.sin(angle), 9 * labels["skin"]], 1)
    for z, least, most in (told, 0.95, 1.001), (rng.normal(size=told.shape), -0.1, 0.1):
        for name, values in labels.items():
            score = skill(FACTORS["anime"][name], z[:1500], values[:1500], z[1500:], values[1500:])
            assert least < score < most, name


@pytest.mark.parametrize("kind", ["normal", "wide", "exponential"])
def test_lesson_06_noise(kind):
    prior = published_priors((5, 2, 2))[kind]
    ours = inline("06_noise", "noise")["noise"](kind, (5, 2, 2), seed=3)
    assert torch.equal(ours, prior.sample(8, torch.Generator().manual_seed(3)))


def test_lesson_06_kl_from_normal():
    z = torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) @ torch.randn(5, 5) + 0.3
    fitted = MultivariateNormal(z.mean(0), torch.cov(z.T))
    standard = MultivariateNormal(torch.zeros(5), torch.eye(5))
    ours = inline("06_noise", "kl_from_normal")["kl_from_normal"](z)
    torch.testing.assert_close(ours, kl_divergence(fitted, standard), rtol=1e-4, atol=1e-4)


def test_lesson_06_gaussian():
    """The lesson's Cholesky factor and the package's axes are roots of one covariance: over N - 1, and over N."""
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6) + torch.arange(6.0)
    package = fit_gaussian(Posterior(z, torch.full_like(z, -50)))  # posteriors that are points
    drawn = inline("06_noise", "draw_from")["draw_from"](z, 100, seed=3).double()
    eps = torch.randn(100, 6, generator=torch.Generator().manual_seed(3)).double()
    *factor, mean = torch.linalg.lstsq(torch.cat([eps, torch.ones(100, 1)], dim=1), drawn).solution
    ours, theirs = torch.stack(factor).T, package.factor.double()
    torch.testing.assert_close(mean.float(), package.mean)
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T * 50 / 49, rtol=1e-5, atol=1e-5)


def test_lesson_06_follows_a_field_as_the_package_does():
    """A midpoint step of the package is a step of the lesson with the velocity of half-way."""
    torch.manual_seed(0)
    field, noise, steps = VelocityField(torch.full((2,), 0.7), width=16, depth=1), torch.randn(9, 2), 10
    torch.nn.init.normal_(field.write.weight)

    def half_way(x_and_t):
        x, t = x_and_t.split([2, 1], dim=1)
        return field(x + field(x, t) / (2 * steps), t + 1 / (2 * steps))

    path = inline("06_noise", "follow")["follow"](half_way, noise, steps)
    assert len(path) == steps + 1
    torch.testing.assert_close(path[-1], field.flow(noise, steps))


def test_lesson_06_flow_learns_the_field_that_the_packages_flow_starts_from():
    """For data that are N(0, I) already: untrained, the package's network is that field exactly."""
    data = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    network = inline("06_noise", "train_flow")["train_flow"](data, steps=200)
    field, points = VelocityField(torch.ones(2), width=4, depth=1), data[:1000]
    for share in 0.0, 0.5, 1.0:
        t = torch.full((1000, 1), share)
        difference = network(torch.cat([points, t], dim=1)) - field(points, t)
        assert difference.square().mean() < 0.03, share


def test_lesson_06_wasserstein_distance():
    """On one dimension all the package's random directions are this one, there or back."""
    lesson = inline("06_noise", "a", "b", "by_sorting")
    a, b = (lesson[name].float()[None] for name in ("a", "b"))
    assert _sliced(a, b, torch.Generator()) == pytest.approx(lesson["by_sorting"].item(), rel=1e-5)


@pytest.fixture
def latents(tiny_vae, faces) -> torch.Tensor:
    return vaelib.encode_faces(tiny_vae, faces).mean


def test_lesson_08_principal_axes(latents):
    lesson = inline("08_explorer", "X", "mean", "S", "directions", "sigma", latents={"drawn-anime": latents})
    package, variances = vaelib.fit_pca(latents), lesson["sigma"].square()
    ours = lesson["directions"][:12].float()
    signs = (package.directions.flatten(1) * ours).sum(1, keepdim=True).sign()  # an axis has no front and no back
    torch.testing.assert_close(package.mean.flatten(), lesson["mean"].float())
    torch.testing.assert_close(package.directions.flatten(1), signs * ours)
    torch.testing.assert_close(package.scales, lesson["sigma"][:12].float())
    torch.testing.assert_close(package.explained, (variances / variances.sum())[:12].float())


def test_lesson_08_point_on_the_axes(latents):
    axes = vaelib.fit_pca(latents)
    lesson = inline("08_explorer", "w", "point", axes=axes, mean=axes.mean.flatten())
    torch.testing.assert_close(axes.latents(lesson["w"][None])[0].flatten(), lesson["point"])


def test_lesson_08_named_axes(latents, faces):
    lesson = inline("08_explorer", "columns", "x", "ones", "b", labels=faces.labels, X=latents.flatten(1).double())
    axes = vaelib.fit_attributes(latents, lesson["columns"]).pick(*lesson["columns"])
    torch.testing.assert_close(axes.offsets(torch.eye(4)).flatten(1), lesson["b"].float())


def test_lesson_08_axes_at_right_angles(latents, faces):
    axes = vaelib.fit_attributes(latents, faces.labels)
    lesson = inline("08_explorer", "Q", attributes={"drawn-anime": axes})
    package = axes.pick(*axes.names[:12]).orthogonal()
    torch.testing.assert_close(lesson["Q"].float(), package.directions.flatten(1))


def test_lesson_08_arc():
    z_from, z_to, shares = torch.randn(5, 2, 2), 3 * torch.randn(5, 2, 2), torch.linspace(0, 1, 7)
    arc = inline("08_explorer", "arc")["arc"]
    ours = torch.stack([arc(z_from, z_to, share) for share in shares])
    torch.testing.assert_close(ours, vaelib.interpolate(z_from, z_to, 7, spherical=True))


def test_lesson_07_terms_beside_the_likelihood():
    lesson = inline("07_sharper", "pyramid_nll", "feature_nll")
    x, x_hat = torch.rand(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(lesson["pyramid_nll"](x_hat, x), sharpening.pyramid_nll(x_hat, x).mean())
    maps = sharpening.unit_maps
    package = sharpening.feature_nll(maps(x_hat), maps(x), x[0].numel()).mean()
    torch.testing.assert_close(lesson["feature_nll"](x_hat, x), package)


def test_lesson_07_balance_of_the_discriminator(faces):
    pulled = inline("07_sharper", "pulled")["pulled"]
    config = vaelib.SharpenConfig(features=0, matching=0, adversarial=0.7, augment=False)
    run = sharpening.SharpeningRun(vaelib.VAE(base_channels=2, latent_channels=2), faces, config)
    (discriminator,) = run.discriminators.eval()  # a spectral norm learns with each look
    shown, gradient = torch.randn(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    shown.requires_grad_()
    share = config.adversarial
    package = gradient + share * run._pull(discriminator(shown.sigmoid()).mean(), shown, gradient, len(shown))
    lesson = pulled(gradient, shown, lambda logits: discriminator(logits.sigmoid()), share)
    torch.testing.assert_close(lesson, package)
    assert (lesson - gradient).norm() / gradient.norm() == pytest.approx(share)


def test_lesson_07_witness():
    witness = inline("07_sharper", "witness")["witness"]
    real, decoded, seen = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(4))
    deviation, mean = torch.std_mean(real, 0)
    package = sharpening.KernelWitness()
    package.remember(real, decoded)
    lesson = witness(*((some - mean) / deviation for some in (seen, real, decoded)))
    torch.testing.assert_close(lesson, package(seen))


def test_lesson_07_lets_vgg_look(faces):
    """Its block of code, but with a VGG that has learned nothing, as the weights would have to be downloaded."""
    changes = {
        "vgg16(weights=weights)": "vgg16(weights=None)",
        ".cuda()": "",
        'load_pretrained("anime")': 'load_pretrained("drawn-anime")',
        'vaelib.load_faces("anime")': "faces",
        "SharpenConfig(features=1)": "SharpenConfig(epochs=1, batch_size=8, adversarial=0, features=1)",
        'device="cuda"': 'device="cpu"',
    }
    namespace = {"vaelib": vaelib, "torch": torch, "sharpen": sharpening.sharpen, "faces": faces.select(range(8))}
    exec(block("07_sharper", "vgg16", changes), namespace)
    assert [tuple(seen.shape[1:]) for seen in namespace["maps"](faces.batch(range(1)))] == [
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
    ]
    assert len(namespace["run"].history) == 1


def test_lesson_10_families_of_exact_copies(faces):
    images = faces.images[[0, 1, 2, 1, 3, 0, 0]]
    assert same_groups(inline("10_appendix", "families")["families"](images), find_families(images, near=0))


def test_lesson_10_near_copies(faces):
    averages = inline("10_appendix", "block_averages")["block_averages"](faces.images)
    package = torch.from_numpy(block_averages(faces.images)).double().flatten(1)
    torch.testing.assert_close(averages, package, rtol=0, atol=1e-6)
    assert NEAR == 0.07  # the line that the lesson draws


def test_lesson_10_trains_in_two_processes_from_a_notebook(tmp_path):
    changes = {
        'load_faces("anime")': 'load_faces("drawn-anime", 32, 128)',
        "vaelib.VAE()": "vaelib.VAE(base_channels=2, latent_channels=4)",
        "epochs=200": "epochs=1, batch_size=32",
        "    vaelib.train(": "    run = vaelib.train(",
        'folder="runs/anime")': 'folder="runs/anime")\n    open(f"rank-{run.accelerator.process_index}", "x")',
    }
    code = block("10_appendix", "notebook_launcher", changes)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    assert sorted(path.name for path in tmp_path.glob("rank-*")) == ["rank-0", "rank-1"]
    assert (tmp_path / "runs" / "anime" / "checkpoint.safetensors").exists()
