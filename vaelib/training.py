"""Train a VAE: one loop, one config, one checkpoint file that a stopped run goes on from.

python -m vaelib train anime --epochs 20
python -m vaelib train anime --epochs 40 --resume
torchrun --nproc-per-node 4 -m vaelib train anime        # the same on four GPUs
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from vaelib.checkpoints import (
    CHECKPOINT,
    STABLE,
    check_faces,
    optimizer_state,
    part_of,
    read_checkpoint,
    set_optimizer_state,
    what_tells,
    write_checkpoint,
)
from vaelib.devices import compute_dtype, default_device, find_device, layout_of, near, take
from vaelib.faces import Faces
from vaelib.losses import bernoulli_nll, gaussian_nll, kl_divergence, optimal_gaussian_nll
from vaelib.metrics import psnr
from vaelib.model import inference, memory_format
from vaelib.muon import Muon
from vaelib.recipes import TrainConfig
from vaelib.sanity import check_sanity
from vaelib.storage import explain_disk
from vaelib.tracking import check_trackers, tracking

CHECK_EVERY = 50  # steps between two looks at whether the loss still is a number


def loss_terms(vae: nn.Module, x: Tensor, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """(distortion, rate) of `x`, float (B, 3, H, W) in [0, 1]: means over the batch, in nats per image."""
    logits, posterior = vae(x)
    if config.likelihood == "bernoulli":
        distortion = bernoulli_nll(logits, x)
    elif config.likelihood == "gaussian":
        distortion = gaussian_nll(logits, x, config.sigma)
    else:
        distortion = optimal_gaussian_nll(logits, x)
    return distortion.mean(), kl_divergence(posterior).mean()


@dataclass
class TrainingRun:
    """A model in training: `history` holds one dict per finished epoch; `resume()` goes on from there.

    It always stands at the end of an epoch: where one is stopped or diverges, what it changed is taken back.

    `model` is what to use: the average of the weights where the config asks for one, else `vae` itself. Keys of a
    history entry: epoch, loss, distortion, rate (training means, nats per image), faces_per_second, and with test faces
    test_loss, test_distortion, test_rate (nats) and test_psnr (dB, posterior mean).
    """

    vae: nn.Module
    faces: Faces
    config: TrainConfig
    test: Faces | None = None
    folder: Path | None = None
    on_epoch: Callable[["TrainingRun"], None] | None = None
    device: torch.device | str | None = None
    trackers: Sequence[str] = ()
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self):
        check_trackers(self.trackers, self.folder)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else it overlooks that there are several processes
            mixed_precision="no",
            log_with=list(self.trackers) or None,
            project_dir=self.folder,
        )
        self.processes = self.accelerator.num_processes
        self.device = find_device(self.device or default_device(self.accelerator.device))
        self._check_input()
        self.optimizer = make_optimizer(self.vae, self.config)
        self.dtype = compute_dtype(self.config.precision, self.device)
        self.loss_terms = torch.compile(loss_terms) if self.config.compile else loss_terms
        self.average = AveragedModel(self.vae, use_buffers=True) if self.config.ema else None
        self.trained_on = what_tells(self.faces, self.test) if self.folder else None
        self.lock = FileLock(self.folder / ".lock") if self.folder and self.accelerator.is_main_process else None

    @property
    def model(self) -> nn.Module:
        return self.average.module if self.average else self.vae

    def resume(self, epochs: int | None = None) -> "TrainingRun":
        """Train until `epochs` epochs (default: the config's) are done in all, and save after each. Returns itself.

        With more `epochs` than before, a "wsd" schedule whose rate has begun to fall returns to the last state before
        that, kept in the folder: the run is then, bit for bit, one that was that long from its beginning. A cosine is
        stretched: the rate of a run that is done, at 0, rises again.
        """
        if epochs is not None:
            self._return_to_stable(epochs)
            self.config = replace(self.config, epochs=epochs)
        try:
            with self.alone(), tracking(self.accelerator, self.trackers, asdict(self.config)), self._on_device():
                self._train(self.accelerator.prepare(self.vae) if self.processes > 1 else self.vae)
        except KeyboardInterrupt as stop:
            stop.add_note(f"{len(self.history)} of {self.config.epochs} epochs are done.{self._where_saved()}")
            raise
        finally:
            self.vae.eval()
            self.model.eval()
        return self

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process trains in the folder meanwhile. `ValueError` where one does."""
        if not self.lock:
            yield
            return
        with explain_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self.lock.acquire(timeout=0)
            except Timeout:
                raise ValueError(
                    f"another process trains in {self.folder} at this moment: wait until it ends, or choose another "
                    "folder (--folder on the command line)"
                ) from None
        try:
            yield
        finally:
            self.lock.release()

    def _check_input(self) -> None:
        for faces in (self.faces, self.test):
            if faces is not None:
                self.vae.latent_shape(faces.images.shape[1])
        if self.test is not None and not len(self.test):
            raise ValueError("got no test faces, expected some, or test=None")
        batch_size, processes, own = self.config.batch_size, self.processes, self.accelerator.device
        if batch_size % processes:
            raise ValueError(f"got batch_size={batch_size}, expected a multiple of the {processes} processes")
        if min(batch_size, len(self.faces)) < 2 * processes:  # a batch norm compares the faces of a batch
            raise ValueError(
                f"got {len(self.faces)} faces to train on and batch_size={batch_size}, expected at least "
                f"{2 * processes} of both: two for each process"
            )
        if processes > 1 and str(self.device) not in (str(own), own.type):
            raise ValueError(f"got device '{self.device}' for {processes} processes, expected '{own.type}' or none")

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """The weights are on the device, in its fastest layout, and then where and as they were before."""
        home, layout = next(self.vae.parameters()).device, layout_of(self.vae)
        self._move(self.device, memory_format(self.device))
        try:
            yield
        finally:
            self._move(home, layout)

    def _move(self, device: torch.device, layout: torch.memory_format) -> None:
        self.vae.to(device, memory_format=layout)
        self.model.to(
            device, memory_format=layout
        )  # not all of `average`: its count stays on the CPU, where reading it waits for nothing

    @contextmanager
    def _whole_epoch(self) -> Iterator[None]:
        """What is begun in it is finished, or taken back."""
        before, done = {name: value.clone() for name, value in self._state().items()}, len(self.history)
        try:
            yield
        except BaseException:
            self._set_state(before)
            del self.history[done:]
            raise

    def _train(self, network: nn.Module) -> None:
        images = near(self.device, self.faces.images)
        steps = max(1, len(images) // self.config.batch_size)
        done, main = len(self.history), self.accelerator.is_main_process
        with tqdm(total=self.config.epochs * steps, initial=done * steps, unit="step", disable=not main) as bar:
            while len(self.history) < self.config.epochs:
                with self._whole_epoch():
                    self.history.append(self._train_epoch(network, images, bar) | self._test())
                self.accelerator.log(self.history[-1], step=len(self.history))
                if main and self.folder:
                    self._save()
                if main and self.on_epoch:
                    self.on_epoch(self)
                self.accelerator.wait_for_everyone()

    def _train_epoch(self, network: nn.Module, images: Tensor, bar: tqdm) -> dict[str, float]:
        epoch, started = len(self.history) + 1, time.perf_counter()
        bar.set_description(f"epoch {epoch}/{self.config.epochs}")
        network.train()
        process, beta = self.accelerator.process_index, self.config.beta_in(epoch)
        # All that is random in an epoch follows from the seed and its number, so a resumed run repeats it exactly.
        with seeded(_epoch_seed(self.config.seed, epoch)):
            batches = _batches(len(images), self.config.batch_size, images.device)
            if process:  # one order of the faces for all processes, but other flips and other noise for each
                torch.manual_seed(_epoch_seed(self.config.seed, epoch, process))
            terms = torch.zeros(len(batches), 2, device=self.device)
            for step, rows in enumerate(batches):
                x = take(images, rows[process :: self.processes], self.device)
                if self.config.flip:
                    x = _flip_half(x)
                self._set_rate((epoch - 1) * len(batches) + step, self.config.epochs * len(batches))
                terms[step] = self._step(network, x, beta)
                bar.update()
                if step % CHECK_EVERY == CHECK_EVERY - 1:
                    self._check_sanity(terms[: step + 1])
            self._check_sanity(terms, self.vae.state_dict())
        distortion, rate = self.accelerator.reduce(terms.mean(0), "mean").tolist()
        loss = distortion + beta * rate
        bar.set_postfix(loss=f"{loss:.0f}", rate=f"{rate:.0f}")
        return {
            "epoch": epoch,
            "loss": loss,
            "distortion": distortion,
            "rate": rate,
            "faces_per_second": sum(map(len, batches)) / (time.perf_counter() - started),
        }

    def _set_rate(self, step: int, steps: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.config.rate_factor(step, steps)

    def _step(self, network: nn.Module, x: Tensor, beta: float) -> Tensor:
        with self._autocast():
            distortion, rate = self.loss_terms(network, x, self.config)
        self.optimizer.zero_grad()
        (distortion + beta * rate).backward()
        self._update()
        return torch.stack([distortion, rate]).detach()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _update(self) -> None:
        """From gradients to weights, and to their average."""
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.vae.parameters(), self.config.clip_norm)
        with self._autocast():  # for Muon's matrices
            self.optimizer.step()
        if self.average:
            steps = int(self.average.n_averaged)
            decay = min(self.config.ema, (1 + steps) / (10 + steps))  # else the first weights, random, stay for long
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self.average.update_parameters(self.vae)

    def _test(self) -> dict[str, float]:
        if self.test is None:
            return {}
        sums = torch.zeros(3, device=self.device)
        with seeded(self.config.seed), inference(self.model):
            for start in range(0, len(self.test), self.config.batch_size):
                x = self.test.batch(slice(start, start + self.config.batch_size)).to(self.device)
                scores = psnr(self.model.decode(self.model.encode(x).mean), x).mean()
                sums += torch.stack([*loss_terms(self.model, x, self.config), scores]) * len(x)
        self._check_sanity((sums / len(self.test))[None, :2], what="held-out ")
        distortion, rate, score = (sums / len(self.test)).tolist()
        loss = distortion + self.config.beta * rate
        return {"test_loss": loss, "test_distortion": distortion, "test_rate": rate, "test_psnr": score}

    def _check_sanity(self, terms: Tensor, weights: dict[str, Tensor] | None = None, what: str = "") -> None:
        epoch, pixel_values = len(self.history) + 1, self.faces.images[0].size
        check_sanity(epoch, terms, self.config, pixel_values, self._where_saved(), weights, what)

    def _where_saved(self) -> str:
        if self.folder and (self.folder / CHECKPOINT).exists():
            return f" The last good state is in {self.folder / CHECKPOINT}: resume=True (--resume) goes on from it."
        return " Nothing was saved yet: the same call begins anew." if self.folder else ""

    def _state(self) -> dict[str, Tensor]:
        """All tensors that training changes, by name."""
        state = {f"model.{key}": value for key, value in self.vae.state_dict().items()}
        if self.average:
            state |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        return state | optimizer_state(self.optimizer, "optimizer.")

    def _set_state(self, state: dict[str, Tensor]) -> None:
        """Take the tensors over, the optimiser's as they are. They, and the weights, must be on the device."""
        self.vae.load_state_dict(part_of(state, "model."))
        if self.average:
            self.average.load_state_dict(part_of(state, "average."))
        set_optimizer_state(self.optimizer, part_of(state, "optimizer."))

    def _save(self) -> None:
        facts = {"history": self.history, "config": asdict(self.config), "faces": self.trained_on}
        stable = self.config.schedule == "wsd" and len(self.history) == self.config.stable_epochs
        write_checkpoint(self.folder, self._state(), facts, stable)

    def _return_to_stable(self, epochs: int) -> None:
        """Where `epochs`, more than before, come too late for a rate that falls: take that back."""
        falling = self.config.schedule == "wsd" and len(self.history) > self.config.stable_epochs
        if falling and epochs > self.config.epochs and self.folder and (self.folder / STABLE).exists():
            done = len(self.history)
            self._read(self.folder / STABLE)
            tqdm.write(f"{done} epochs are done; on from the {len(self.history)} before the rate fell")

    def _load(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise FileNotFoundError(
                f"no {CHECKPOINT} in {self.folder}: nothing to resume. Train without resume (--resume) first."
            )
        now = self.config
        before = self._read(path)
        changed = [
            f"{name} {before.get(name)} -> {value}"
            for name, value in asdict(now).items()
            if name not in ("epochs", "compile") and before.get(name, value) != value
        ]
        if changed:
            warnings.warn(f"going on with other settings than before: {', '.join(changed)}", stacklevel=3)
        self.config = replace(now, epochs=before["epochs"])
        self._return_to_stable(now.epochs)
        self.config = now

    def _read(self, path: Path) -> dict:
        """Stand where the checkpoint at `path` was written. Returns the config of then."""
        state, facts = read_checkpoint(path, self.device)
        if facts.get("faces") is None:
            warnings.warn(
                f"{path} does not say which faces it was trained on: make sure that it was these", stacklevel=4
            )
            self.trained_on = None  # nor does the next one say so
        else:
            check_faces(self.folder, facts["faces"], self.trained_on, self.faces, self.test)
        try:
            with self._on_device():  # where the optimiser's tensors then stay
                self._set_state(state)
        except RuntimeError as error:
            raise ValueError(
                f"{path} does not fit this {type(self.vae).__name__}: it belongs to another network, other widths, or "
                "a run with or without ema"
            ) from error
        self.history = facts["history"]
        return facts["config"]


def train(
    vae: nn.Module,
    faces: Faces,
    config: TrainConfig | None = None,
    *,
    test: Faces | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[TrainingRun], None] | None = None,
    device: str | None = None,
    trackers: Sequence[str] = (),
) -> TrainingRun:
    """Train `vae` on `faces` and return the run.

    It trains on `device` ("cpu", "cuda", "mps"; default: a CUDA GPU, else the CPU) and comes back to where it was.
    Started by `torchrun` or accelerate's `notebook_launcher`, each process trains on its share of every batch.

    `test` faces are scored after each epoch. With a `folder`, each epoch writes a checkpoint and the history there,
    and `resume=True` goes on from it: on a CPU the same weights as without the break, bit for bit. `on_epoch(run)` is
    called after each epoch. `trackers` are names that accelerate knows, such as "tensorboard" or "wandb": they get
    every history entry.

    Stopped by Ctrl-C or a notebook's stop button, it leaves `vae` as the last whole epoch did and raises
    `KeyboardInterrupt`. To go on without a `folder` too, keep the run: `run = TrainingRun(vae, faces, config)`, then
    `run.resume()`, again after each stop.

    Raises `FileExistsError` if `folder` holds a checkpoint and `resume` is False, `FileNotFoundError` if there is none
    to resume, `ValueError` if it does not fit, for fewer than two faces, an unknown device, or a tracker that does not
    start, `FloatingPointError` if the loss stops being finite: `vae` is then as the last good epoch left it.
    """
    folder = Path(folder) if folder else None
    run = TrainingRun(vae, faces, config or TrainConfig(), test, folder, on_epoch, device, trackers)
    return start(run, resume)


def start(run: TrainingRun, resume: bool) -> TrainingRun:
    """Train a run from its beginning, or from its checkpoint; errors as `train` says."""
    if resume and not run.folder:
        raise ValueError("got resume=True without a folder, expected the folder that the run was saved in")
    with run.alone():
        if resume:
            run._load()
        elif run.folder and (run.folder / CHECKPOINT).exists():
            raise FileExistsError(
                f"{run.folder} already holds a run: pass resume=True (--resume) to go on with it, or choose another "
                "folder (--folder)"
            )
        return run.resume()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers follow from `seed`, and the caller's own go on afterwards."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # by default it warns where there are several
        torch.manual_seed(seed % 2**63)  # torch takes no larger one
        yield


def _epoch_seed(seed: int, epoch: int, process: int = 0) -> int:
    return (seed * 1_000_003 + epoch + process * 1_000_000_007) % 2**63


def _batches(count: int, batch_size: int, device: torch.device | str = "cpu") -> list[Tensor]:
    """Row numbers in random order, cut into full batches; the few left over come up in another epoch.

    They lie on `device`, sent there at once: a copy in each step would wait for the step before.
    """
    batches = torch.randperm(count).to(device).split(batch_size)
    return list(batches[:-1] if len(batches) > 1 and len(batches[-1]) < batch_size else batches)


def make_optimizer(vae: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The config's optimiser; each parameter group keeps its highest rate as "initial_lr", as torch's schedules do."""
    if config.optimizer == "muon":
        optimizer = Muon(vae, config.muon_rate, config.learning_rate)
    else:
        optimizer = torch.optim.Adam(vae.parameters(), lr=config.learning_rate, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _flip_half(x: Tensor) -> Tensor:
    """Mirror each picture of (B, C, H, W) left to right with probability ½."""
    chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(chosen, x.flip(3), x)
