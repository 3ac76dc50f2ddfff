"""python -m vaelib download | prepare | train: from a Kaggle data set to a trained model; `--help` explains each."""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from vaelib.storage import cache_folder


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0, or 1 after printing what was wrong with the input."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, FloatingPointError, SafetensorError) as error:  # the last: a disk that is full
        print(f"vaelib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvaelib: stopped; the same command goes on from here, `train` with --resume", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vaelib", description="Faces in, faces out: the command line of vaelib."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    download = commands.add_parser("download", help="fetch a Kaggle data set (no account needed) and prepare it")
    download.add_argument("name", choices=("anime", "cartoon"), help="which data set")
    download.add_argument(
        "--size", type=int, default=64, help="side of the square faces in pixels (default: %(default)s)"
    )
    download.set_defaults(run=_download)

    prepare = commands.add_parser("prepare", help="turn a zip or a folder of pictures into one array of distinct faces")
    prepare.add_argument("source", metavar="FILE_OR_FOLDER", help="a zip file, or a folder with pictures at any depth")
    prepare.add_argument(
        "--name", help="what load_faces and train call them (default: known by layout, or the file's name)"
    )
    prepare.add_argument(
        "--size", type=int, default=64, help="side of the square faces in pixels (default: %(default)s)"
    )
    prepare.add_argument(
        "--crop", type=float, help="middle part of each picture to keep, 0 to 1 (default: by layout, or 1)"
    )
    prepare.add_argument(
        "--near", type=float, help="how near two copies of one picture are, 0: equal (default: by layout, or 0.07)"
    )
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser("train", help="train a VAE on prepared or drawn faces")
    train.add_argument(
        "faces",
        metavar="NAME",
        help="anime, cartoon, drawn-anime, drawn-cartoon, a name given to prepare, or a zip or folder of pictures",
    )
    train.add_argument(
        "--recipe",
        choices=("anime-vae", "vae-anime-cartoon", "gaussian"),
        default="anime-vae",
        help="loss and optimiser: one of the two published ones, or gaussian: σ 0.1, β 1 (default: %(default)s)",
    )
    train.add_argument(
        "--model",
        choices=("conv", "dense"),
        help="network: fully convolutional or dense latent (default: the recipe's own)",
    )
    train.add_argument("--base-channels", type=int, default=20, help="width of the conv network (default: %(default)s)")
    train.add_argument(
        "--latent-channels",
        type=int,
        default=128,
        help="latent channels of the conv network (default: %(default)s)",
    )
    train.add_argument(
        "--size",
        type=int,
        default=64,
        help="side of the faces in pixels, a multiple of 32 (default: %(default)s)",
    )
    train.add_argument("--epochs", type=int, help="passes over the faces (default: the recipe's)")
    train.add_argument("--batch-size", type=int, help="faces per step (default: the recipe's)")
    train.add_argument("--learning-rate", type=float, help="Adam's step size (default: the recipe's)")
    train.add_argument("--beta", type=float, help="weight of the rate; 1 is the ELBO (default: the recipe's)")
    train.add_argument(
        "--seed",
        type=int,
        default=42,
        help="of initialisation, order, flips and noise (default: %(default)s)",
    )
    train.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="auto: bfloat16 where the hardware computes in it",
    )
    train.add_argument("--compile", action="store_true", help="torch.compile the step: a slow start, then faster")
    train.add_argument("--device", help="cpu, cuda, mps (default: the best there is)")
    train.add_argument("--folder", type=Path, help="where to write (default: runs/NAME in the cache folder)")
    train.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    train.add_argument(
        "--count", type=int, default=4000, help="how many faces to draw, where drawn (default: %(default)s)"
    )
    train.set_defaults(run=_train)
    return parser


def _download(options: argparse.Namespace) -> None:
    from vaelib.downloading import DATASETS, download
    from vaelib.preparing import prepare, read_report

    if report := read_report(options.name, options.size):
        print(f"{report}\nThere already: to start over, delete that folder.")
        return
    dataset = DATASETS[options.name]
    print(f"{dataset.url}: {dataset.pictures:,} pictures, licence: {dataset.licence}", flush=True)  # before any bar
    print(prepare(download(options.name), options.name, options.size))


def _prepare(options: argparse.Namespace) -> None:
    from vaelib.preparing import prepare

    print(prepare(options.source, options.name, options.size, options.crop, options.near))


def _train(options: argparse.Namespace) -> None:
    import torch

    from vaelib.faces import load_faces
    from vaelib.model import VAE, DenseVAE
    from vaelib.training import RECIPES, train

    config = RECIPES[options.recipe]
    given = {
        name: getattr(options, name)
        for name in ("epochs", "batch_size", "learning_rate", "beta", "seed", "precision", "compile")
    }
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    if options.recipe == "vae-anime-cartoon":  # 1000 · mean squared error is another σ at another size
        config = replace(config, sigma=math.sqrt(3 * options.size**2 / 2000))
    dense = options.model == "dense" or (options.model is None and options.recipe == "vae-anime-cartoon")
    torch.manual_seed(config.seed)
    if dense:
        vae = DenseVAE(image_size=options.size)
    else:
        vae = VAE(base_channels=options.base_channels, latent_channels=options.latent_channels)
    vae.latent_shape(options.size)  # an unfit size should fail before faces are loaded
    device = _device(options.device)

    faces = load_faces(options.faces, options.size, options.count)
    faces, test = faces.split(test_fraction=min(0.1, 1000 / max(1, len(faces))))  # more than 1,000 would only cost time
    folder = options.folder or cache_folder("runs") / faces.name
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    print(
        f"{type(vae).__name__}, {parameters:,} parameters, on {device}: {len(faces):,} {faces.name} faces to train on, "
        f"{len(test):,} to test on\n{config}\nwriting to {folder}"
    )
    run = train(vae.to(device), faces, config, test=test, folder=folder, resume=options.resume, on_epoch=_write_look)
    bundle = _write_bundle(run, options)
    print(
        f"{bundle.card['scores']}\nlook at {folder}/*.png; to explore it, in a notebook:\n"
        f"    vaelib.LatentExplorer(vaelib.load_pretrained({str(folder)!r}))"
    )


def _device(name: str | None):
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # what torch raises for an unknown or a missing one
        raise ValueError(f"got device {name!r}, expected one that this computer has, such as cpu") from error


def _write_look(run) -> None:
    """After each epoch: its scores as a line, the curves, reconstructions of test faces, and faces from noise."""
    import matplotlib.pyplot as plt
    from tqdm.auto import tqdm

    from vaelib.plots import noise_grids, plot_history, reconstruction_grid, show_faces

    tqdm.write("  ".join(f"{name} {value:.6g}" for name, value in run.history[-1].items()))
    some = run.test.batch(range(min(32, len(run.test))))
    figures = {
        "history": plot_history(run.history),
        "reconstructions": show_faces({"originals, reconstructions under them": reconstruction_grid(run.vae, some)}),
        "noise": show_faces(noise_grids(run.vae, some.shape[2])),
    }
    for name, figure in figures.items():
        figure.savefig(run.folder / f"{name}.png", dpi=120)
        plt.close(figure)


def _write_bundle(run, options: argparse.Namespace):
    from vaelib.metrics import evaluate
    from vaelib.pretrained import make_bundle

    scores = {name: round(value, 4) for name, value in evaluate(run.vae, run.test).items()}
    card = {
        "recipe": options.recipe,
        "config": vars(run.config),
        "trained_on": len(run.faces),
        "tested_on": len(run.test),
        "scores": scores,
    }
    bundle = make_bundle(run.vae, run.faces, card)
    bundle.save(run.folder)
    return bundle


if __name__ == "__main__":
    sys.exit(main())
