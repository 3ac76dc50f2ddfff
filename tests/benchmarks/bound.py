"""How many bits a value of an unseen face costs: the ELBO, and importance-weighted bounds with 10 and 100 draws.

Each model's σ is one number, the root of the mean squared error of sampled reconstructions over faces that it may have
learned from. Pictures get a step's worth of uniform noise, so that 8 bits a value is what no model at all costs.

    python tests/benchmarks/bound.py                    # the bundles that ship
    python tests/benchmarks/bound.py anime --count 100
    python tests/benchmarks/bound.py --digits           # a dense VAE on scikit-learn's digits, to place us elsewhere
"""

import argparse
import datetime
from functools import partial

import torch
from quality import unseen_faces
from sklearn.datasets import load_digits
from torch import Tensor, nn

from vaelib.faces import load_faces
from vaelib.losses import bernoulli_nll, bits_per_dimension, gaussian_nll, importance_weighted_bound, kl_divergence
from vaelib.model import Posterior, inference
from vaelib.pretrained import load_pretrained, shipped

DRAWS = (1, 10, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", default=shipped(), help="names or folders (default: what ships)")
    parser.add_argument("--count", type=int, default=200, help="unseen faces at most (default: %(default)s)")
    parser.add_argument("--digits", action="store_true", help="digits instead: three seeds")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {datetime.date.today()}\n")
    if options.digits:
        return digits()
    print("| model | faces | σ | bits a value, 1 draw | 10 draws | 100 draws |")
    print("| --- " * 6 + "|")
    for name in options.bundles:
        bundle = load_pretrained(name)
        try:
            x = unseen_faces(bundle, options.count).batch()
        except FileNotFoundError as error:
            print(f"| {name} | left out: {error} |")
            continue
        x = (x * 255 + torch.rand(x.shape, generator=torch.Generator().manual_seed(0))) / 256
        learned = load_faces(bundle.card["faces"], bundle.image_size, 500, verbose=False).batch(slice(500))
        sigma = root_mean_squared_error(bundle.vae, learned)
        bounds = bounds_of(bundle.vae, x, partial(gaussian_nll, sigma=sigma))
        bits = [f"{bits_per_dimension(-bound, x).mean():.3f}" for bound in bounds]
        print(f"| {name} | {len(x)} | {sigma:.4f} | " + " | ".join(bits) + " |", flush=True)


def root_mean_squared_error(vae: nn.Module, x: Tensor) -> float:
    with inference(vae):
        z = vae.encode(x).sample(torch.Generator().manual_seed(0))
        return (vae.decode(z) - x).square().mean().sqrt().item()


def bounds_of(vae: nn.Module, x: Tensor, nll) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    parts = [[importance_weighted_bound(vae, some, nll, draws, generator) for draws in DRAWS] for some in x.split(50)]
    return [torch.cat(bounds) for bounds in zip(*parts, strict=True)]


class DigitsVAE(nn.Module):
    """The usual shape for binary digits: one hidden layer of 200 each way, 20 latents; pictures (B, 1, 8, 8)."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.Tanh(), nn.Linear(200, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 200), nn.Tanh(), nn.Linear(200, 64), nn.Unflatten(1, (1, 8, 8)))

    def encode(self, x: Tensor) -> Posterior:
        return Posterior(*self.encoder(x).chunk(2, 1))


def digits() -> None:
    """Pixels are on with the probability of their grey value, drawn anew at each step (Burda et al. 2016)."""
    pictures = torch.tensor(load_digits().images / 16).float()[:, None]
    pictures = pictures[torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))]
    test = torch.bernoulli(pictures[1500:], generator=torch.Generator().manual_seed(0))
    print("| scikit-learn's digits, 1,500 to learn from, 297 unseen | nats a digit, 1 draw | 10 draws | 100 draws |")
    print("| --- " * 4 + "|")
    rows = []
    for seed in range(3):
        torch.manual_seed(seed)
        vae = DigitsVAE()
        optimizer = torch.optim.Adam(vae.parameters(), 1e-3)
        for _ in range(400):
            for x in pictures[torch.randperm(1500)].split(50):
                x = torch.bernoulli(x)
                posterior = vae.encode(x)
                loss = (bernoulli_nll(vae.decoder(posterior.sample()), x) + kl_divergence(posterior)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        rows.append(torch.stack([bound.mean() for bound in bounds_of(vae, test, bernoulli_nll)]))
        print(f"| seed {seed} | " + " | ".join(f"{bound:.2f}" for bound in rows[-1]) + " |", flush=True)
    spread = zip(torch.stack(rows).mean(0), torch.stack(rows).std(0), strict=True)
    print("| mean ± spread | " + " | ".join(f"{mean:.2f} ± {std:.2f}" for mean, std in spread) + " |")


if __name__ == "__main__":
    main()
