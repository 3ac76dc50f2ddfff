"""Whether a training still makes sense, or has diverged."""

import math

from torch import Tensor

from vaelib.recipes import TrainConfig


def check_sanity(
    epoch: int,
    terms: Tensor,
    config: TrainConfig,
    pixel_values: int,
    saved: str = "",
    weights: dict[str, Tensor] | None = None,
    what: str = "",
) -> None:
    """`FloatingPointError` where distortion or rate is no number, or beyond all reason, or where the weights are lost.

    `terms` is float (steps, 2): the distortion and rate of each step of the epoch so far, of pictures with so many
    `pixel_values`. A step that ruins the `weights` shows in no loss yet, and must not reach the checkpoint. Held-out
    terms (`what`) show what the averages of the batch norms hide in training. `saved` ends the message: where to go on.
    """
    wild = (~(terms.abs() < _beyond_reason(config, pixel_values))).any(1).nonzero()
    lost = [name for name, value in (weights or {}).items() if not value.isfinite().all()]
    if not len(wild) and not lost:
        return
    step = int(wild[0]) if len(wild) else len(terms) - 1
    distortion, rate = terms[step].tolist()
    if epoch == 1 and step == 0 and len(wild) and not what:
        sigma = f" sigma={config.sigma} may be too small." if config.likelihood == "gaussian" else ""
        advice = f"Nothing was learned by then: look at the faces and the weights that it began with.{sigma}"
    else:
        advice = f"A smaller learning_rate than {config.learning_rate} may help, or clip_norm=1000."
    raise FloatingPointError(
        f"training diverged in epoch {epoch}"
        + ("" if what else f", step {step + 1}")
        + f": {what}distortion {distortion:.4g}, rate {rate:.4g} nats"
        + (f", no finite numbers in {', '.join(lost[:3])}" if lost else "")
        + f". {advice}{saved}"
    )


def _beyond_reason(config: TrainConfig, pixel_values: int) -> float:
    """Nats that no model reaches which still learns: a thousand times those of the worst guess of each pixel."""
    worst = math.log(256)
    if config.likelihood == "gaussian":
        worst += 0.5 / config.sigma**2
    return 1000 * worst * pixel_values
