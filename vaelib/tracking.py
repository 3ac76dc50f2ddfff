"""Where a run logs to beside its folder: TensorBoard, Weights & Biases and whatever else accelerate knows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers


def check_trackers(names: Sequence[str], folder: Path | None) -> None:
    """`ValueError` for a tracker that is not installed, or that needs a folder and has none."""
    available = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in available:  # accelerate would leave it out without a word
            raise ValueError(
                f"got tracker {name!r}, expected one that is installed: {', '.join(available) or 'there is none'}. "
                "pip install tensorboard wandb brings these two."
            )
        if LOGGER_TYPE_TO_CLASS[name].requires_logging_directory and not folder:
            raise ValueError(f"got tracker {name!r} without a folder, expected the folder that it should write to")


@contextmanager
def tracking(accelerator: Accelerator, names: Sequence[str], config: dict) -> Iterator[None]:
    """The trackers are started before, and finished after, whatever happens between."""
    accelerator.trackers.clear()
    if names:
        try:
            accelerator.init_trackers("vaelib", config)
        except Exception as error:  # each package has its own
            raise ValueError(
                f"can't log to {' and '.join(names)} ({error}). For wandb, run `wandb login` once, or set "
                "WANDB_MODE=offline in the environment; or train without trackers."
            ) from error
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # not end_training(), after which no processes could train again
            tracker.finish()
