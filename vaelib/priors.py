"""Where to draw a latent from when there is no picture to encode.

Every prior has `sample(count, generator) -> (count, *shape)`, ready for `vae.decode`, and all but the flows have
`log_prob(z) -> (B,)`. Two kinds:

- said in advance: `NormalPrior`, `ExponentialPrior`;
- fitted to where a trained encoder puts its faces, that is, to the aggregate posterior, the mean over the data of
  q(z|x): `fit_gaussian`, `fit_mixture`, `fit_flow`, each closer to it than the one before, or `fit_priors`, all three.
  Fitted to the faces' labels too, the flow draws faces as asked: `ConditionalFlow`.

The aggregate posterior is the prior that makes the ELBO largest (Hoffman & Johnson 2016, "ELBO surgery"; Tomczak &
Welling 2018, "VAE with a VampPrior"): drawing from N(0, I) instead falls into holes where the decoder learned nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Exponential, MixtureSameFamily, MultivariateNormal, Normal
from torch.nn import functional as F
from tqdm.auto import trange

from vaelib.asking import Questions
from vaelib.model import Posterior
from vaelib.storage import checked_tensor

FREQUENCIES = 16  # of the sines and cosines by which the flow's network knows the time


@dataclass(frozen=True)
class NormalPrior:
    """N(0, scale²·I) over latents of `shape`. scale = 1 is the prior that a VAE is trained towards.

    *Anime VAE* advises to draw from a wider normal, since its loose KL lets the posteriors spread beyond N(0, I).
    """

    shape: tuple[int, ...]
    scale: float = 1.0

    def __post_init__(self):
        _check_scale(self.scale)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` latents, float32 (count, *shape)."""
        return self.scale * torch.randn(count, *self.shape, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of each of `z` (B, *shape): (B,)."""
        scale = torch.as_tensor(self.scale, dtype=z.dtype, device=z.device)
        return Normal(0.0, scale).log_prob(z).flatten(1).sum(1)


@dataclass(frozen=True)
class ExponentialPrior:
    """Independent exponentials of mean `scale` over latents of `shape`: all positive, so one corner of the space.

    *VAE-Anime-Cartoon* draws from it with scale 0.7.
    """

    shape: tuple[int, ...]
    scale: float = 0.7

    def __post_init__(self):
        _check_scale(self.scale)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` latents, float32 (count, *shape), each number above 0."""
        return torch.empty(count, *self.shape).exponential_(1 / self.scale, generator=generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of each of `z` (B, *shape): (B,); -inf where any number is negative."""
        rate = torch.as_tensor(1 / self.scale, dtype=z.dtype, device=z.device)
        return Exponential(rate, validate_args=False).log_prob(z).where(z >= 0, -torch.inf).flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """N(mean, factor·factorᵀ): one Gaussian with the aggregate posterior's mean and full covariance.

    `mean` is float32 (*shape), `factor` float32 (D, D) with D the numbers of one latent: its columns are the principal
    axes, longest first, each as long as its standard deviation. So z = mean + factor·w for whitened w ~ N(0, I).
    """

    mean: Tensor
    factor: Tensor

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` latents, float32 (count, *shape)."""
        return self.unwhiten(torch.randn(count, len(self.factor), generator=generator))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of each of `z` (B, *shape): (B,), by float64 on the CPU."""
        w = self.whiten(z)
        return (Normal(0.0, 1.0).log_prob(w).sum(1) - self.log_volume).to(z)

    def unwhiten(self, w: Tensor) -> Tensor:
        """Latents (B, *shape) at whitened coordinates `w` (B, D), which count standard deviations along each axis."""
        return self.mean + (w @ self.factor.T).unflatten(1, self.mean.shape)

    def whiten(self, z: Tensor) -> Tensor:
        """The inverse: float64 (B, D), on the CPU, from latents `z` (B, *shape)."""
        if z.shape[1:] != self.mean.shape:
            shape = ", ".join(map(str, self.mean.shape))
            raise ValueError(f"got latents of shape {tuple(z.shape)}, expected (batch, {shape}), as fitted")
        return (z.cpu().double() - self.mean).flatten(1) @ self.inverse.T

    @cached_property
    def log_volume(self) -> Tensor:
        """ln |det factor|: a density of z in nats is one of the whitened w minus this."""
        return torch.linalg.slogdet(self.factor.double()).logabsdet

    @cached_property
    def inverse(self) -> Tensor:
        """The inverse of `factor`, float64 (D, D)."""
        # Of the factor as it is, not as it was fitted: half precision bends the axes a little off right angles.
        return torch.linalg.inv(self.factor.double())


@dataclass(frozen=True, eq=False)
class MixturePrior:
    """A mixture of C Gaussians in the first K whitened coordinates of `gaussian`, N(0, I) in the others.

    `weights` is float32 (C,) and sums to 1, `means` float32 (C, K), `factors` float32 (C, K, K) the lower triangular
    Cholesky factors of the covariances. The other coordinates keep their spread: nothing is cut off.
    """

    gaussian: GaussianPrior
    weights: Tensor
    means: Tensor
    factors: Tensor

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` latents, float32 (count, *shape)."""
        w = torch.randn(count, len(self.gaussian.factor), generator=generator)
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        main = self.means.shape[1]
        w[:, :main] = self.means[chosen] + torch.einsum("nij,nj->ni", self.factors[chosen], w[:, :main])
        return self.gaussian.unwhiten(w)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats of each of `z` (B, *shape): (B,), by float64 on the CPU."""
        main, rest = self.gaussian.whiten(z).tensor_split([self.means.shape[1]], dim=1)
        components = MultivariateNormal(self.means.double(), scale_tril=self.factors.double())
        log_prob = MixtureSameFamily(Categorical(self.weights.double()), components).log_prob(main)
        return (log_prob + Normal(0.0, 1.0).log_prob(rest).sum(1) - self.gaussian.log_volume).to(z)


class TimedBlock(nn.Module):
    """h + MLP(LayerNorm(h) + time), all (B, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        return h + self.mlp(F.layer_norm(h, h.shape[1:]) + time)


class VelocityField(nn.Module):
    """The velocity (B, D) of points `w` (B, D) at times `t` (B, 1) in [0, 1]: a residual MLP of `width` units.

    It starts as the exact field of data that is N(0, I), and learns how the data differ: untrained, the flow draws
    from the `GaussianPrior`. `signal` (D,) in (0, 1] is each coordinate's share of variance that tells faces apart; the
    rest is the posteriors' own noise, Gaussian already, which the network should neither listen to nor change.
    `center` and `spread` (D,) are the mean and standard deviation of where the field alone would take noise.
    With `asked` above 0 it also listens to codes (B, asked), of which 0 says nothing.
    """

    def __init__(self, signal: Tensor, width: int, depth: int, asked: int = 0):
        super().__init__()
        self.register_buffer("signal", signal)
        self.register_buffer("center", torch.zeros_like(signal))
        self.register_buffer("spread", torch.ones_like(signal))
        self.read = nn.Linear(len(signal), width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU())
        self.blocks = nn.ModuleList(TimedBlock(width) for _ in range(depth))
        self.listen = nn.Linear(asked, width, bias=False) if asked else None
        self.write = nn.Linear(width, len(signal))
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, w: Tensor, t: Tensor, code: Tensor | None = None) -> Tensor:
        angles = math.pi / 2 * t * torch.arange(1, FREQUENCIES + 1, device=t.device)  # (B, FREQUENCIES)
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))  # (B, width)
        if code is not None:
            time = time + self.listen(code)
        h = self.read(w * self.signal / self.signal.square().mean().sqrt())  # as large as without `signal`
        for block in self.blocks:
            h = block(h, time)
        # E[data - noise | w], where both are N(0, I) and w = (1 - t)·noise + t·data
        gaussian_velocity = (2 * t - 1) / (t**2 + (1 - t) ** 2) * w
        return gaussian_velocity + self.signal * self.write(F.layer_norm(h, h.shape[1:]))

    def guided(self, w: Tensor, t: Tensor, code: Tensor | None, guidance: float) -> Tensor:
        """The velocity without `code`, and `guidance` times what the code changes in it: 1 is the code's own."""
        if code is None or guidance == 0:
            return self(w, t)
        if guidance == 1:
            return self(w, t, code)
        return torch.lerp(self(w, t), self(w, t, code), guidance)

    @torch.no_grad()
    def flow(self, w: Tensor, steps: int, code: Tensor | None = None, guidance: float = 1.0) -> Tensor:
        """Where noise `w` (B, D) ends: `steps` midpoint steps from t = 0 to t = 1, then mean 0 and deviation 1."""
        step = 1 / steps
        for index in range(steps):
            t = torch.full((len(w), 1), index * step)
            middle = w + 0.5 * step * self.guided(w, t, code, guidance)
            w = w + step * self.guided(middle, t + 0.5 * step, code, guidance)
        return (w - self.center) / self.spread

    def calibrate(self, steps: int, generator: torch.Generator) -> None:
        """Set `center` and `spread`: a briefly trained field draws its ends together, by a tenth on drawn faces."""
        ends = self.flow(torch.randn(4096, len(self.signal), generator=generator), steps)
        self.center.copy_(ends.mean(0))
        self.spread.copy_(ends.std(0))


@dataclass(frozen=True, eq=False)
class FlowPrior:
    """A learned prior: noise that flows along the velocity field of `network`, in whitened coordinates of `gaussian`.

    Flow matching with straight paths (Lipman et al. 2023, "Flow matching for generative modeling"; Liu et al. 2023,
    "Flow straight and fast"). It has no `log_prob`: that takes the trace of the field's Jacobian at every step.
    """

    gaussian: GaussianPrior
    network: VelocityField
    steps: int = 16

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` latents, float32 (count, *shape), by `steps` steps of the midpoint rule."""
        noise = torch.randn(count, len(self.gaussian.factor), generator=generator)
        return self.gaussian.unwhiten(self.network.flow(noise, self.steps))


@dataclass(frozen=True, eq=False)
class ConditionalFlow(FlowPrior):
    """A flow that draws faces as asked: its network has learned which labels, of `questions`, go with which latents.

    Classifier-free guidance (Ho & Salimans 2021): the velocity is v + guidance · (v_asked - v), where v is that with
    nothing asked. Guidance 0 ignores what is asked, 1 draws from the faces that have it, and more exaggerates it, at
    the cost of variety.
    """

    questions: Questions = field(kw_only=True)

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        asked: Mapping[str, object] | None = None,
        guidance: float = 2.0,
    ) -> Tensor:
        """`count` latents, float32 (count, *shape), of faces as `asked`, such as {"hair": "long", "smile": 0.8}.

        A value is one for all faces, or an array of one for each; what is not asked is drawn. Raises `ValueError` for
        labels or values that there are not (`questions` has them), and for a guidance below 0.
        """
        if not 0 <= guidance < math.inf:
            raise ValueError(f"got guidance={guidance}, expected 0 or more, such as 2")
        code = self.questions.code(asked, count) if asked else None
        noise = torch.randn(count, len(self.gaussian.factor), generator=generator)
        return self.gaussian.unwhiten(self.network.flow(noise, self.steps, code, guidance))


FittedPrior = GaussianPrior | MixturePrior | FlowPrior
Prior = NormalPrior | ExponentialPrior | FittedPrior
KINDS = {"gaussian": GaussianPrior, "mixture": MixturePrior, "flow": FlowPrior}
QUESTIONS = "flow.questions"  # the one stored tensor that holds text


def fit_gaussian(posterior: Posterior) -> GaussianPrior:
    """The Gaussian with the mean and the covariance of the aggregate posterior, both exact.

    `posterior` is what `encode_faces` gives: mean and log_var float (N, *shape). The covariance of the means alone
    misses the posteriors' own variances; by the law of total variance their mean is added.
    Raises `ValueError` unless N > 1 and every number is finite.
    """
    _check_posterior(posterior)
    means, variances = posterior.mean.flatten(1).double(), posterior.log_var.flatten(1).double().exp()
    covariance = torch.cov(means.T, correction=0).reshape(2 * means.shape[1:]) + variances.mean(0).diag()
    variances, axes = torch.linalg.eigh(covariance)  # smallest first
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # the sign is arbitrary: repeatable
    factor = (axes * variances.sqrt()).flip(1)
    return GaussianPrior(means.mean(0).float().reshape(posterior.mean.shape[1:]), factor.float().contiguous())


def fit_mixture(posterior: Posterior, components: int = 32, dims: int = 32, seed: int = 0) -> MixturePrior:
    """scikit-learn's GaussianMixture of `components`, fitted to one draw from each of N posteriors.

    `posterior`: as for `fit_gaussian`. `dims` is how many of the main whitened coordinates get the mixture (all, where
    there are fewer). Raises `ValueError` for fewer faces than components, or what `fit_gaussian` raises.
    """
    from sklearn.mixture import GaussianMixture

    gaussian = fit_gaussian(posterior)
    w = gaussian.whiten(posterior.sample(torch.Generator().manual_seed(seed)))[:, :dims]
    if not 1 <= components <= len(w):
        raise ValueError(f"got components={components}, expected 1 to {len(w)}, the number of faces")
    mixture = GaussianMixture(components, reg_covar=1e-3, random_state=seed).fit(w.numpy())
    factors = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_))
    return MixturePrior(
        gaussian,
        torch.from_numpy(mixture.weights_).float(),
        torch.from_numpy(mixture.means_).float(),
        factors.float(),
    )


def fit_flow(
    posterior: Posterior,
    steps: int = 3000,
    width: int = 384,
    depth: int = 3,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: bool = True,
    labels: Mapping[str, np.ndarray] | None = None,
) -> FlowPrior:
    """Train a flow from N(0, I) to the aggregate posterior, with new draws from the posteriors at every step.

    `posterior`: as for `fit_gaussian`. Minutes on one CPU core; the learning rate falls to 0 along a cosine.
    With `labels`, arrays of N texts or numbers by name, such as `faces.labels`, it learns what they go with, too, and
    a `ConditionalFlow` comes back. At every step each face loses some of its labels, or all.
    Same seed, same CPU, same flow. Raises `ValueError` as `fit_gaussian` and `Questions.of` do, and for labels of
    another length.
    """
    gaussian = fit_gaussian(posterior)
    means, deviations = posterior.mean.flatten(1), (0.5 * posterior.log_var.flatten(1)).exp()
    to_whitened = gaussian.inverse.float()
    noise_share = to_whitened.square() @ deviations.square().mean(0)  # of each whitened coordinate's variance of 1
    questions = Questions.of(labels) if labels else None
    codes = questions.code({name: labels[name] for name in questions.factors}, len(means)) if labels else None
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        signal = (1 - noise_share).clamp(1e-3, 1)
        network = VelocityField(signal, width, depth, asked=codes.shape[1] if labels else 0)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in trange(steps, desc="flow", unit="step", disable=not progress):
        rows = torch.randint(len(means), (batch_size,), generator=generator)
        data = means[rows] + deviations[rows] * torch.randn(batch_size, means.shape[1], generator=generator)
        data = (data - gaussian.mean.flatten()) @ to_whitened.T
        noise = torch.randn(data.shape, generator=generator)
        t = torch.rand(batch_size, 1, generator=generator)
        code = questions.drop(codes[rows], generator) if labels else None
        loss = F.mse_loss(network(torch.lerp(noise, data, t), t, code), data - noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.requires_grad_(False).calibrate(FlowPrior.steps, generator)
    return ConditionalFlow(gaussian, network, questions=questions) if labels else FlowPrior(gaussian, network)


def fit_priors(
    posterior: Posterior,
    flow_steps: int = 3000,
    seed: int = 0,
    progress: bool = True,
    labels: Mapping[str, np.ndarray] | None = None,
) -> dict[str, FittedPrior]:
    """All three fitted priors by name: "gaussian", "mixture" and "flow", which is a `ConditionalFlow` with `labels`.

    The mixture has 32 components, or one for every 100 faces where that is less. Raises as `fit_flow` does.
    """
    gaussian = fit_gaussian(posterior)  # first: it checks the posterior
    return {
        "gaussian": gaussian,
        "mixture": fit_mixture(posterior, components=max(1, min(32, len(posterior.mean) // 100)), seed=seed),
        "flow": fit_flow(posterior, flow_steps, seed=seed, progress=progress, labels=labels),
    }


def priors_to_tensors(priors: dict[str, FittedPrior], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The fitted `priors` as one flat dict of tensors, ready for safetensors: `priors_from_tensors` reads it.

    The Gaussian that all of them stand on is stored once. In float16 a latent moves by about a thousandth of its size.
    Raises `ValueError` for priors fitted to different latents, and for names other than those of `fit_priors`.
    """
    if not priors or any(not isinstance(prior, KINDS.get(name, ())) for name, prior in priors.items()):
        raise ValueError(f"got priors {priors}, expected some of those that fit_priors gives: {', '.join(KINDS)}")
    gaussian, *others = (prior if name == "gaussian" else prior.gaussian for name, prior in priors.items())
    if any(not torch.equal(gaussian.factor, other.factor) for other in others):
        raise ValueError("got priors fitted to different latents, expected one data set: fit them with fit_priors")
    tensors = {"gaussian.mean": gaussian.mean, "gaussian.factor": gaussian.factor}
    if mixture := priors.get("mixture"):
        tensors |= {f"mixture.{name}": getattr(mixture, name) for name in ("weights", "means", "factors")}
    if flow := priors.get("flow"):
        tensors |= {f"flow.{name}": tensor for name, tensor in flow.network.state_dict().items()}
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    return tensors | ({QUESTIONS: flow.questions.to_tensor()} if isinstance(flow, ConditionalFlow) else {})


def priors_from_tensors(tensors: dict[str, Tensor]) -> dict[str, FittedPrior]:
    """The inverse of `priors_to_tensors`: the Gaussian, and the mixture and the flow where they were stored.

    Raises `ValueError` for tensors that miss some or that do not fit together.
    """
    parts = {kind: {} for kind in KINDS}
    try:
        questions = Questions.from_tensor(tensors[QUESTIONS]) if QUESTIONS in tensors else None
        for name, tensor in tensors.items():
            if name == QUESTIONS:
                continue
            kind, _, part = name.partition(".")
            parts[kind][part] = checked_tensor(name, tensor, tensor.shape)
        gaussian = GaussianPrior(**parts["gaussian"])
        latents = gaussian.mean.numel()
        checked_tensor("gaussian.factor", gaussian.factor, (latents, latents))
        priors = {"gaussian": gaussian}
        if parts["mixture"]:
            mixture = MixturePrior(gaussian, **parts["mixture"])
            count, main = mixture.means.shape
            checked_tensor("mixture.weights", mixture.weights, (count,))
            checked_tensor("mixture.factors", mixture.factors, (count, main, main))
            if main > latents or mixture.weights.min() < 0 or not abs(mixture.weights.sum() - 1) < 0.01:
                raise ValueError(
                    f"mixture: got {main} coordinates of {latents}, weights that add to "
                    f"{mixture.weights.sum():.3g}, expected 1 and none below 0"
                )
            priors["mixture"] = mixture
        if weights := parts["flow"]:
            depth = sum(name.endswith("mlp.0.weight") for name in weights)
            for name in ("signal", "center", "spread"):
                checked_tensor(f"flow.{name}", weights[name], (latents,))
            if not weights["spread"].min() > 0:
                raise ValueError("flow.spread: got numbers that are not above 0")
            asked = len(questions.label_of) if questions else 0
            network = VelocityField(weights["signal"], len(weights["read.weight"]), depth, asked)
            network.load_state_dict(weights)
            network.requires_grad_(False)
            flow = ConditionalFlow(gaussian, network, questions=questions) if asked else FlowPrior(gaussian, network)
            priors["flow"] = flow
        for prior in priors.values():
            prior.sample(1, torch.Generator())  # sizes that do not fit together show here, not in the reader's hands
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the stored priors are damaged ({error!r}): fit and store them again") from error
    return priors


def published_priors(shape: tuple[int, ...]) -> dict[str, NormalPrior | ExponentialPrior]:
    """Where the two published systems draw latents of `shape` from: N(0, I), a wider normal, an exponential."""
    return {
        "normal": NormalPrior(shape),
        "wide": NormalPrior(shape, scale=2.0),
        "exponential": ExponentialPrior(shape, scale=0.7),
    }


def _check_posterior(posterior: Posterior) -> None:
    mean, log_var = posterior.mean, posterior.log_var
    if mean.shape != log_var.shape or mean.ndim < 2 or len(mean) < 2:
        raise ValueError(
            f"got means of shape {tuple(mean.shape)} and log-variances of {tuple(log_var.shape)}, expected both "
            "(N, *shape) with N of 2 or more: what encode_faces gives"
        )
    bad = ~(mean.isfinite() & log_var.isfinite()).flatten(1).all(1)
    if bad.any():
        raise ValueError(
            f"got {int(bad.sum())} of {len(mean)} posteriors with numbers that are not finite, the first in row "
            f"{int(bad.nonzero()[0])}: look at the model's weights and at the faces given to it"
        )


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise ValueError(f"got scale={scale}, expected a positive number")
