"""Train a VAE: one loop, one config, one checkpoint file that a stopped run goes on from.

python -m vaelib train anime --epochs 20
python -m vaelib train anime --epochs 40 --resume
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from vaelib.faces import Faces, to_float
from vaelib.losses import bernoulli_nll, gaussian_nll, kl_divergence
from vaelib.metrics import psnr
from vaelib.storage import atomic_file

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the published recipe of *Anime VAE*, in nats per image.

    `likelihood` is "bernoulli" or "gaussian"; `sigma` is the Gaussian's standard deviation on the [0, 1] pixel scale.
    The loss is distortion + `beta` · rate, minimised by Adam. `flip` mirrors half of the pictures, drawn anew each
    epoch. `precision` is "float32", "bfloat16", or "auto": bfloat16 where the hardware computes in it. `compile` spends
    a minute on `torch.compile` first (it needs a C++ compiler) to make each step faster.
    """

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 5e-4
    likelihood: str = "bernoulli"
    sigma: float = 0.1
    beta: float = 0.24
    flip: bool = True
    seed: int = 42
    precision: str = "auto"
    compile: bool = False

    def __post_init__(self):
        for name in ("epochs", "batch_size", "learning_rate", "sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"got {name}={getattr(self, name)}, expected a positive number")
        if not self.beta >= 0:  # catches nan too
            raise ValueError(f"got beta={self.beta}, expected 0 or more; 1 is the ELBO")
        for name, choices in {
            "likelihood": ("bernoulli", "gaussian"),
            "precision": ("auto", "float32", "bfloat16"),
        }.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"got {name}={getattr(self, name)!r}, expected one of {', '.join(choices)}")


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
}


def loss_terms(vae: nn.Module, x: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, distortion, rate) of `x`, float (B, 3, H, W) in [0, 1]: means over the batch, in nats per image."""
    logits, posterior = vae(x)
    if config.likelihood == "bernoulli":
        distortion = bernoulli_nll(logits, x).mean()
    else:
        distortion = gaussian_nll(logits, x, config.sigma).mean()
    rate = kl_divergence(posterior).mean()
    return distortion + config.beta * rate, distortion, rate


@dataclass
class TrainingRun:
    """A model in training: `history` holds one dict per finished epoch; `resume()` goes on from there.

    Keys of a history entry: epoch, loss, distortion, rate (training means, nats per image), faces_per_second, and with
    test faces test_loss, test_distortion, test_rate (nats) and test_psnr (dB, posterior mean).
    """

    vae: nn.Module
    faces: Faces
    config: TrainConfig
    test: Faces | None = None
    folder: Path | None = None
    on_epoch: Callable[["TrainingRun"], None] | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self):
        self.device = next(self.vae.parameters()).device
        self.vae.to(memory_format=torch.channels_last)  # the layout that convolutions are fastest in
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=self.config.learning_rate, fused=True)
        self.dtype = _compute_dtype(self.config.precision, self.device)
        self.loss_terms = torch.compile(loss_terms) if self.config.compile else loss_terms

    def resume(self, epochs: int | None = None) -> "TrainingRun":
        """Train until `epochs` epochs (default: the config's) are done in all, and save after each. Returns itself."""
        if epochs is not None:
            self.config = replace(self.config, epochs=epochs)
        images = torch.from_numpy(np.array(self.faces.images)).to(self.device)
        batches = max(1, len(images) // self.config.batch_size)
        with tqdm(total=self.config.epochs * batches, initial=len(self.history) * batches, unit="step") as bar:
            while len(self.history) < self.config.epochs:
                self.history.append(self._train_epoch(images, bar) | self._test())
                self._check_finite()
                if self.folder:
                    self._save()
                if self.on_epoch:
                    self.on_epoch(self)
        self.vae.eval()
        return self

    def _train_epoch(self, images: Tensor, bar: tqdm) -> dict[str, float]:
        epoch, started = len(self.history) + 1, time.perf_counter()
        bar.set_description(f"epoch {epoch}/{self.config.epochs}")
        self.vae.train()
        sums = torch.zeros(3, device=self.device)
        # All that is random in an epoch follows from the seed and its number, so a resumed run repeats it exactly.
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed * 1_000_003 + epoch)
            batches = _batches(len(images), self.config.batch_size)
            for rows in batches:
                x = to_float(images[rows.to(self.device)])
                if self.config.flip:
                    x = _flip_half(x)
                sums += self._step(x)
                bar.update()
        loss, distortion, rate = (sums / len(batches)).tolist()
        bar.set_postfix(loss=f"{loss:.0f}", rate=f"{rate:.0f}")
        seen = sum(len(rows) for rows in batches)
        return {
            "epoch": epoch,
            "loss": loss,
            "distortion": distortion,
            "rate": rate,
            "faces_per_second": seen / (time.perf_counter() - started),
        }

    def _step(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss, distortion, rate = self.loss_terms(self.vae, x, self.config)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return torch.stack([loss, distortion, rate]).detach()

    @torch.inference_mode()
    def _test(self) -> dict[str, float]:
        if self.test is None:
            return {}
        self.vae.eval()
        sums = torch.zeros(4, device=self.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            for start in range(0, len(self.test), self.config.batch_size):
                x = self.test.batch(slice(start, start + self.config.batch_size)).to(self.device)
                terms = torch.stack(loss_terms(self.vae, x, self.config)) * len(x)
                scores = psnr(self.vae.decode(self.vae.encode(x).mean), x).sum()
                sums += torch.cat([terms, scores[None]])
        names = ("test_loss", "test_distortion", "test_rate", "test_psnr")
        return dict(zip(names, (sums / len(self.test)).tolist(), strict=True))

    def _check_finite(self) -> None:
        # The weights too: a last step that ruins them shows in no loss yet, and must not reach the checkpoint.
        last, weights = self.history[-1], self.vae.state_dict().values()
        if math.isfinite(last["loss"]) and all(value.isfinite().all() for value in weights):
            return
        saved = self.folder and (self.folder / CHECKPOINT).exists()
        raise FloatingPointError(
            f"training diverged in epoch {last['epoch']}: the loss is {last['loss']} (distortion {last['distortion']}, "
            f"rate {last['rate']}). A smaller learning_rate than {self.config.learning_rate} may help."
            + (f" The last good state is in {self.folder / CHECKPOINT}." if saved else "")
        )

    def _save(self) -> None:
        state = {f"model.{key}": value.contiguous() for key, value in self.vae.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{key}": value.contiguous() for key, value in moments.items()}
        metadata = {"history": json.dumps(self.history), "config": json.dumps(asdict(self.config))}
        with atomic_file(self.folder / CHECKPOINT) as part:
            save_file(state, part, metadata)
        with atomic_file(self.folder / "history.json") as part:
            part.write_text(json.dumps(self.history, indent=1))

    def _load(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise FileNotFoundError(f"no {CHECKPOINT} in {self.folder}: nothing to resume. Train without resume first.")
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata()
        except Exception as error:
            raise ValueError(f"{path} can't be read ({error}); it is damaged or no checkpoint of vaelib") from error
        model = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
        try:
            self.vae.load_state_dict(model)
        except RuntimeError as error:
            raise ValueError(
                f"{path} does not fit this {type(self.vae).__name__}: it belongs to another network or other widths"
            ) from error
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                if value.ndim == 4:  # fused Adam walks through memory: moments must lie as their weights do
                    value = value.to(memory_format=torch.channels_last)
                moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.history = json.loads(metadata["history"])


def train(
    vae: nn.Module,
    faces: Faces,
    config: TrainConfig | None = None,
    *,
    test: Faces | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[TrainingRun], None] | None = None,
) -> TrainingRun:
    """Train `vae` on `faces` where it is (move it to a GPU first to train there), and return the run.

    `test` faces are scored after each epoch. With a `folder`, each epoch writes a checkpoint and the history there,
    and `resume=True` goes on from it: the same weights as without the break, bit for bit on one machine.
    `on_epoch(run)` is called after each epoch.

    Raises `FileExistsError` if `folder` holds a checkpoint and `resume` is False, `FileNotFoundError` if there is none
    to resume, `ValueError` if it does not fit, `FloatingPointError` if the loss stops being finite.
    """
    run = TrainingRun(vae, faces, config or TrainConfig(), test, Path(folder) if folder else None, on_epoch)
    if resume and not run.folder:
        raise ValueError("got resume=True without a folder, expected the folder that the run was saved in")
    vae.latent_shape(faces.images.shape[1])
    if resume:
        run._load()
    elif run.folder:
        if (run.folder / CHECKPOINT).exists():
            raise FileExistsError(
                f"{run.folder} already holds a run: pass resume=True to go on with it, or choose another folder"
            )
        run.folder.mkdir(parents=True, exist_ok=True)
    return run.resume()


def _batches(count: int, batch_size: int) -> list[Tensor]:
    """Row numbers in random order, cut into full batches; the few left over come up in another epoch."""
    batches = torch.randperm(count).split(batch_size)
    return list(batches[:-1] if len(batches) > 1 and len(batches[-1]) < batch_size else batches)


def _flip_half(x: Tensor) -> Tensor:
    """Mirror each picture of (B, C, H, W) left to right with probability ½."""
    chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(chosen, x.flip(3), x)


def _compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # A CPU without these instructions emulates bfloat16, at half the speed of float32.
        instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        fast = device.type == "cpu" and instructions
    return torch.bfloat16 if fast else torch.float32
