"""How to train: `TrainConfig` and `SharpenConfig`, and `RECIPES`, the published ones in one unit beside our own."""

import math
from dataclasses import dataclass

WARM_UP_STEPS = 10  # in which the rates of a "wsd" schedule rise
MOST_FACES = 2**31  # in a batch; or epochs
DECAY = 0.2  # the part of the run in which they fall


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the published recipe of *Anime VAE*, in nats per image.

    The loss is distortion + `beta` · rate, minimised over batches of `batch_size` faces, all processes together.
    `optimizer` is "adam", at `learning_rate`, or "muon": at `muon_rate` for the matrices of the hidden layers, and Adam
    for all else. `schedule` of these rates is "constant"; "cosine": they fall to 0 over the `epochs` along half a wave;
    or "wsd" (warm-up, stable, decay): they rise over ten steps, stay, and fall to 0 in the last fifth, so that a longer
    run can go on from before the fall (Hu et al. 2024). `likelihood` is "bernoulli", "gaussian" (`sigma` is its
    standard deviation on the [0, 1] pixel scale) or "optimal-gaussian" (σ follows from each batch, in each process from
    its share). Over the first `warmup` epochs β rises from 0 in equal steps. `flip` mirrors half of the pictures, drawn
    anew each epoch. `clip_norm` above 0 bounds the norm of the gradient. `ema` above 0, such as 0.999, keeps an
    exponential moving average of the weights, with a shorter memory over the first steps, which is then what is tested
    (`run.model`). `precision` is "float32", "bfloat16", or "auto": bfloat16 where the hardware computes in it.
    `compile` spends a minute on `torch.compile` first (it needs a C++ compiler) to make each step faster.
    """

    epochs: int = 200
    batch_size: int = 256
    optimizer: str = "adam"
    learning_rate: float = 5e-4
    muon_rate: float = 6e-3
    schedule: str = "constant"
    likelihood: str = "bernoulli"
    sigma: float = 0.1
    beta: float = 0.24
    warmup: int = 0
    flip: bool = True
    clip_norm: float = 0.0
    ema: float = 0.0
    seed: int = 42
    precision: str = "auto"
    compile: bool = False

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate", "muon_rate", "sigma"):
            if not getattr(self, name) > 0:  # catches nan too
                raise ValueError(f"got {name}={getattr(self, name)}, expected a positive number")
        if not 1e-30 < self.sigma < 1e30:
            raise ValueError(f"got sigma={self.sigma}, expected a number from 1e-30 to 1e30, such as 0.1")
        if self.batch_size > MOST_FACES or self.epochs > MOST_FACES:
            raise ValueError(f"got batch_size={self.batch_size}, epochs={self.epochs}, expected at most {MOST_FACES:,}")
        for name, why in {"beta": "1 is the ELBO", "warmup": "in epochs", "clip_norm": "0 is none"}.items():
            if not getattr(self, name) >= 0:
                raise ValueError(f"got {name}={getattr(self, name)}, expected 0 or more; {why}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"got ema={self.ema}, expected 0 for none, or a decay below 1 such as 0.999")
        for name, choices in {
            "likelihood": ("bernoulli", "gaussian", "optimal-gaussian"),
            "optimizer": ("adam", "muon"),
            "schedule": ("constant", "cosine", "wsd"),
            "precision": ("auto", "float32", "bfloat16"),
        }.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"got {name}={getattr(self, name)!r}, expected one of {', '.join(choices)}")

    def rate_factor(self, step: int, steps: int) -> float:
        """The part of the highest learning rate that applies in a step, counted from 0, of a run of `steps`."""
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * step / steps))
        if self.schedule == "wsd":
            return min(1, (step + 1) / WARM_UP_STEPS, (steps - step) / (DECAY * steps))
        return 1

    @property
    def stable_epochs(self) -> int:
        """How many whole epochs are done before the rate of a "wsd" schedule falls."""
        return int((1 - DECAY) * self.epochs + 1e-9)

    def beta_in(self, epoch: int) -> float:
        """β in an epoch, counted from 1: it rises during the warm-up."""
        return self.beta * min(1, epoch / (self.warmup + 1))


DISCRIMINATORS = ("patch", "projected", "both")


@dataclass(frozen=True)
class SharpenConfig(TrainConfig):
    """How to sharpen: a `TrainConfig` with other defaults, and four weights; 0 leaves a term out.

    To the likelihood of the pixels come `pyramid` times that of a Laplacian pyramid and `features` times that of what a
    network sees (`pyramid_nll` and `feature_nll` in `vaelib.sharpening`). `matching` says how hard all decoded pictures
    together are pulled towards the set of all faces (`KernelWitness` there), and `adversarial` how hard a discriminator
    pulls: its gradient at the pictures is scaled to that multiple of the others', in every step. `judge_rate` is
    the discriminator's learning rate, well above the decoder's, so that it stays ahead (Heusel et al. 2017); it learns
    alone in the first `head_start` steps. `discriminator` is "patch" (40×40 pixels at a time), "projected" (what a
    pretrained network sees) or "both"; with `augment` it sees all pictures shifted, tinted and partly blank.
    """

    epochs: int = 6
    batch_size: int = 16
    optimizer: str = "muon"
    learning_rate: float = 3e-4
    muon_rate: float = 2e-3
    schedule: str = "wsd"
    judge_rate: float = 2e-3
    likelihood: str = "optimal-gaussian"
    beta: float = 1.0
    ema: float = 0.999
    pyramid: float = 0.0
    features: float = 1.0
    matching: float = 0.5
    adversarial: float = 0.0
    discriminator: str = "patch"
    augment: bool = True
    head_start: int = 100

    def __post_init__(self):
        super().__post_init__()
        if not self.judge_rate > 0:
            raise ValueError(f"got judge_rate={self.judge_rate}, expected a positive number")
        if self.discriminator not in DISCRIMINATORS:
            expected = ", ".join(sorted(DISCRIMINATORS))
            raise ValueError(f"got discriminator={self.discriminator!r}, expected one of {expected}")
        for name in ("pyramid", "features", "matching", "adversarial"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"got {name}={getattr(self, name)}, expected a weight of 0 or more")


# Anime VAE minimises mean BCE + 0.01 · mean KL. Times the 12,288 pixel values of a 64×64 picture, with its 512 latent
# dimensions, that is summed BCE + (0.01 · 12288 / 512) · summed KL; at 128×128 both counts grow alike.
#
# VAE-Anime-Cartoon minimises 1000 · mean squared error + summed KL. For D pixel values, 1000 / D · Σ error² is a
# Gaussian's Σ error² / 2σ² with σ² = D / 2000: σ = 9.9 for its 256×256 pictures, although pixels span only [0, 1].
RECIPES = {
    "anime-vae": TrainConfig(beta=0.01 * (64 * 64 * 3) / (128 * 2 * 2)),
    "vae-anime-cartoon": TrainConfig(
        epochs=5,
        batch_size=32,
        likelihood="gaussian",
        sigma=math.sqrt(256 * 256 * 3 / 2000),
        beta=1.0,
        flip=False,
    ),
    "gaussian": TrainConfig(epochs=20, likelihood="gaussian", sigma=0.1, beta=1.0, learning_rate=1e-3),
    "calibrated": TrainConfig(
        epochs=22,
        batch_size=32,
        learning_rate=1e-3,
        schedule="cosine",
        likelihood="optimal-gaussian",
        beta=1.0,
        ema=0.999,
    ),
    "muon": TrainConfig(
        epochs=30,
        batch_size=64,
        optimizer="muon",
        learning_rate=1e-3,
        schedule="wsd",
        likelihood="optimal-gaussian",
        beta=1.0,
    ),
}
