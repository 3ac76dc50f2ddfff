"""The file that a stopped run goes on from: every tensor that training changes, and what belongs to them as JSON.

A checkpoint's facts are its `history`, its `config`, and `faces`, which tells what it was trained and tested on.
"""

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vaelib.faces import Faces
from vaelib.model import memory_format
from vaelib.storage import atomic_file, check_header, put, unfinished

CHECKPOINT = "checkpoint.safetensors"
STABLE = "stable.safetensors"  # the last state before a "wsd" schedule's rate falls: a longer run goes on from here


def write_checkpoint(folder: Path, state: dict[str, Tensor], facts: dict, stable: bool) -> None:
    """Write the checkpoint, a copy of it as the `stable` one where it is, and the history in a file of its own."""
    metadata = {name: json.dumps(fact, allow_nan=False) for name, fact in facts.items()}
    with unfinished(folder) as part:  # safetensors writes a temporary file of its own beside
        save_file({key: value.contiguous() for key, value in state.items()}, part / CHECKPOINT, metadata)
        put(part / CHECKPOINT, folder / CHECKPOINT)
    if stable:
        with atomic_file(folder / STABLE) as part:
            shutil.copyfile(folder / CHECKPOINT, part)
    with atomic_file(folder / "history.json") as part:
        part.write_text(json.dumps(facts["history"], indent=1, allow_nan=False))


def read_checkpoint(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict]:
    """(state on the device, facts). `ValueError` where the file is damaged or none of ours."""
    try:
        with open(path, "rb") as file:
            check_header(file.read(8), path)
        with safe_open(path, "pt", device=str(device)) as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            facts = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name != "format"}
            facts |= {"history": [_finite(entry) for entry in facts["history"]], "config": facts["config"]}
    except Exception as error:
        raise ValueError(f"{path} can't be read ({error}); it is damaged or no checkpoint of vaelib") from error
    return state, facts


def what_tells(faces: Faces, test: Faces | None) -> dict[str, str | int]:
    """What tells these training faces, in this order, and these test faces from all others."""
    digests = {"digest": _digest(faces.images), "test": _digest(test.images) if test is not None else ""}
    return {"name": faces.name, "count": len(faces), "size": faces.images.shape[1]} | digests


def check_faces(
    folder: Path, before: dict[str, str | int], now: dict[str, str | int], faces: Faces, test: Faces
) -> None:
    """`ValueError` where the run in `folder` knows other training faces, or new test faces are among them.

    `before` and `now` are from `what_tells`.
    """
    if before["digest"] != now["digest"]:
        told = "{count:,} {name} faces of {size} pixels"
        raise ValueError(
            f"the run in {folder} was trained on {told.format(**before)}, and these are other ones, "
            f"{told.format(**now)}: the test would no longer be of unseen faces. Go on with the same "
            "faces (name, count and size), or train in another folder (--folder)"
        )
    if before.get("test") != now["test"] and (known := _known_test_faces(faces, test)):
        raise ValueError(
            f"{known} of the {len(test)} test faces are among those that the run in {folder} was trained "
            "on: the test would not be of unseen faces. Test on others, or on those of before"
        )


def _known_test_faces(faces: Faces, test: Faces | None) -> int:
    """How many test faces are training faces, too."""
    trained = set(map(_digest, faces.images)) if test is not None else set()
    return sum(_digest(image) in trained for image in test.images) if trained else 0


def optimizer_state(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The tensors that an optimiser keeps, by names that begin with `prefix`."""
    kept = optimizer.state_dict()["state"]
    return {f"{prefix}{index}.{key}": value for index, moments in kept.items() for key, value in moments.items()}


def set_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Take over what `optimizer_state` gave, without its prefix."""
    device = optimizer.param_groups[0]["params"][0].device
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        index, name = key.split(".")
        if value.ndim == 4:  # fused Adam walks through memory: moments must lie as their weights do
            value = value.to(memory_format=memory_format(device))
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _digest(images: np.ndarray) -> str:
    return hashlib.blake2b(memoryview(np.ascontiguousarray(images)).cast("B"), digest_size=16).hexdigest()


def _finite(entry: dict[str, float]) -> dict[str, float | None]:
    """A history entry without NaN and Infinity, which earlier versions wrote, and which are no JSON."""
    return {name: value if math.isfinite(value) else None for name, value in entry.items()}
