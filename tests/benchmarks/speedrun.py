"""The speed run: how few faces, and how few seconds, until unseen anime faces come back at 14.6, 16 and 17.5 dB?

Each way below is a whole training of the published network, of 17,089,539 parameters, with its schedule; it counts
where the mean over the seeds reaches its target. "published" is Anime VAE's recipe as it is. The PSNR is that of the
posterior mean over up to 500 held-out faces. Beside it stands what EfficientNet-Lite1, the neutral judge, says of one
half of them, decoded: the Fréchet and the kernel distance from the other half. The clock runs while it trains: CPU
seconds of the process, and seconds on the wall, without loading and scoring.

    python -m vaelib download anime
    python tests/benchmarks/speedrun.py                                        # all but the published one, three seeds
    python tests/benchmarks/speedrun.py --ways published --faces-seen 10240    # the published recipe, for so long

Each run adds a line of JSON to results/speedrun.jsonl: way, seed, hardware, versions, date and every number.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from quality import halves

from vaelib.devices import compute_dtype
from vaelib.faces import Faces, load_faces
from vaelib.imagenet import judge_features
from vaelib.metrics import compare_features, evaluate, reconstruct
from vaelib.model import VAE, Residual
from vaelib.recipes import RECIPES, TrainConfig
from vaelib.training import train

PUBLISHED, OURS = RECIPES["anime-vae"], RECIPES["muon"]
SMALL_BATCHES = replace(OURS, batch_size=32, muon_rate=4e-3)
WAYS = {  # name: recipe, faces seen, decibels to reach, whether residual blocks start as PyTorch starts them
    "published": (PUBLISHED, 389_120, 14.6, True),
    "ours, 14.6 dB": (SMALL_BATCHES, 2_624, 14.6, False),
    "ours, 16 dB": (OURS, 8_000, 16.0, False),
    "ours, 17.5 dB": (OURS, 40_000, 17.5, False),
    "ours, 14.6 dB, PyTorch's start": (SMALL_BATCHES, 2_624, 14.6, True),
}
LOG = Path(__file__).parents[2] / "results" / "speedrun.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=[name for name in WAYS if name != "published"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--faces", default="anime", help="what load_faces takes (default: %(default)s)")
    parser.add_argument("--faces-seen", type=int, help="stop there instead of at the way's own number")
    parser.add_argument("--base-channels", type=int, default=20, help="20 is the published network")
    parser.add_argument("--log", type=Path, default=LOG, help="where each run adds its line (default: %(default)s)")
    options = parser.parse_args()
    training, test = load_faces(options.faces, verbose=False).split()
    test = test.select(range(min(500, len(test))))
    print("| way | faces seen | PSNR, dB | judge's FD | KID | CPU seconds | seconds | seeds |\n" + "| --- " * 8 + "|")
    for name in options.ways:
        config, seen, target, as_pytorch = WAYS[name]
        runs = []
        for seed in options.seeds:
            torch.manual_seed(seed)
            vae = VAE(base_channels=options.base_channels)
            if as_pytorch:
                pytorchs_start(vae)
            run = one_run(vae, training, test, replace(config, seed=seed), options.faces_seen or seen)
            runs.append({"way": name, "target": target} | run)
            options.log.parent.mkdir(exist_ok=True)
            with options.log.open("a") as log:
                log.write(json.dumps(runs[-1]) + "\n")
        print(row(name, runs), flush=True)


def pytorchs_start(vae: torch.nn.Module) -> None:
    """Residual blocks as PyTorch starts them, and *Anime VAE* too: not as the identity, which is ours."""
    for block in vae.modules():
        if isinstance(block, Residual):
            torch.nn.init.ones_(block.block[1].weight)


def one_run(vae: VAE, training: Faces, test: Faces, config: TrainConfig, seen: int) -> dict:
    """Train from nothing on `seen` faces, in equal epochs of as many different ones as there are."""
    epochs = -(-seen // len(training))
    faces = training.select(range(seen // epochs))
    config = replace(config, epochs=epochs)
    cpu, wall = time.process_time(), time.perf_counter()
    run = train(vae, faces, config)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    steps = epochs * max(1, len(faces) // config.batch_size)
    return {
        "psnr": evaluate(run.model, test)["psnr"],
        **judged(run.model, test),
        "faces_seen": steps * min(config.batch_size, len(faces)),
        "cpu_seconds": cpu,
        "seconds": wall,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in vae.parameters()),
        "faces": faces.name,
        "tested_on": len(test),
        "config": asdict(config),
        "dtype": str(compute_dtype(config.precision, next(run.model.parameters()).device)),
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": str(datetime.date.today()),
    }


def judged(vae: torch.nn.Module, test: Faces) -> dict[str, float]:
    judges, others = (half.batch() for half in halves(test))
    return compare_features(judge_features(reconstruct(vae, others)), judge_features(judges))


def processor() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def row(name: str, runs: list[dict]) -> str:
    cells = [name, f"{runs[0]['faces_seen']:,}"]
    for key, digits in {"psnr": 2, "judge_fd": 0, "judge_kid": 2, "cpu_seconds": 0, "seconds": 0}.items():
        cells.append(mean_and_spread([run[key] for run in runs], digits))
    return f"| {' | '.join([*cells, str(len(runs))])} |"


def mean_and_spread(values: list[float], digits: int) -> str:
    """The mean ± the standard deviation over the seeds; the mean alone where there is one."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
