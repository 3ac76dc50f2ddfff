import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from exercise_cases import Case


def cloud(seed: int) -> torch.Tensor:
    """Latents (2000, 128) in three pancakes off centre, wide in few directions."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2000, 128, generator=generator) * torch.logspace(0.6, -1, 128)
    z[:, 0] += 8 * torch.randint(3, (2000,), generator=generator)
    turn = torch.linalg.qr(torch.randn(128, 128, generator=generator)).Q
    return z @ turn + 0.5


Z = cloud(0)
MEAN, FACTOR = Z.mean(0), torch.linalg.cholesky(torch.cov(Z.T))
EPS = torch.randn(16, 128, generator=torch.Generator().manual_seed(6))
SPECTRUM = torch.linalg.eigvalsh(torch.cov(Z.T)).flip(0)
COUNT = int((SPECTRUM.cumsum(0) / SPECTRUM.sum() < 0.9).sum()) + 1
WIDEST = ((Z - Z[:1500].mean(0)) @ torch.linalg.eigh(torch.cov(Z[:1500].T)).eigenvectors.flip(1)[:, :32]).numpy()
NAMES = {"np": np, "torch": torch, "GaussianMixture": GaussianMixture, "latents": {"cartoon": Z}}


def scores(known=WIDEST[:1500], unseen=WIDEST[1500:]) -> dict:
    fits = {n: GaussianMixture(n, reg_covar=1e-3, random_state=0).fit(known) for n in (1, 4, 8, 16, 32)}
    return {n: fit.score(unseen) for n, fit in fits.items()}


RIGHT = scores()
CASES = {
    "share": Case(
        right=[2**-128, 0.5**128, np.float64(2.0**-128), torch.tensor(2.0**-128), 2.94e-39],
        wrong=[0.5, 2**128, 1 / 128, 0, -1, float("nan"), "2**-128", [0.5]],
        names=NAMES,
    ),
    "calm": Case(
        right=[MEAN + 0.5 * EPS @ FACTOR.T],
        wrong=[
            0.5 * EPS,
            MEAN + EPS @ FACTOR.T,
            0.5 * (MEAN + EPS @ FACTOR.T),
            MEAN + 0.5**0.5 * EPS @ FACTOR.T,
            cloud(1)[:16],
            MEAN + 0.5 * EPS[:8] @ FACTOR.T,
            0.5,
            "calm",
        ],
        names=NAMES,
    ),
    "count": Case(
        right=[COUNT, float(COUNT), np.int64(COUNT), torch.tensor(COUNT)],
        wrong=[COUNT + 1, COUNT - 1, 128, 0, 0.9, "12", [COUNT]],
        names=NAMES,
    ),
    "scores": Case(
        right=[RIGHT, {n: np.float64(value) for n, value in RIGHT.items()}],
        wrong=[
            scores(unseen=WIDEST[:1500]),
            {n: 500 * value for n, value in RIGHT.items()},
            dict.fromkeys((1, 4), RIGHT[1]),
            dict.fromkeys(RIGHT, "high"),
            list(RIGHT.values()),
            8,
        ],
        names=NAMES,
    ),
}
