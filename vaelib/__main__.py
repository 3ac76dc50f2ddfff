"""python -m vaelib download | prepare | train | sharpen | explore: from a data set to faces; `--help` explains each."""

import argparse
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import yaml
from safetensors import SafetensorError

from vaelib.recipes import RECIPES, SharpenConfig, TrainConfig
from vaelib.storage import atomic_file, cache_folder, check_side, expand, explain_disk, read_text

# What `train` can be told, by a flag or in a file: these, with their defaults ("" where the help says it in words),
# and every field of TrainConfig.
RUN_SETTINGS = {
    "recipe": ("anime-vae", "loss and optimiser; ours: muon, the fastest, and calibrated (default: anime-vae)"),
    "model": ("conv", "network: fully convolutional or dense latent (default: the recipe's own)"),
    "base_channels": (20, "width of the conv network (default: 20)"),
    "latent_channels": (128, "latent channels of the conv network (default: 128)"),
    "size": (64, "side of the faces in pixels, a multiple of 32 (default: 64)"),
    "count": (4000, "how many faces to draw, where drawn (default: 4000)"),
    "start": ("", "trained model to begin with: one that ships, or the folder of a run (default: random weights)"),
    "folder": ("", "where to write (default: runs/NAME in the cache folder)"),
    "device": ("", "cpu, cuda, mps (default: a CUDA GPU, else the CPU)"),
    "flow_steps": (3000, "steps to train the learned prior in, at the end; 0: fit no priors (default: 3000)"),
    "track": ("", "where to log to: tensorboard, wandb, or both with a comma (default: nowhere)"),
}
CONFIG_HELP = {
    "epochs": "passes over the faces",
    "batch_size": "faces per step",
    "optimizer": "adam, or muon for the hidden layers and adam for the rest",
    "learning_rate": "Adam's step size",
    "muon_rate": "Muon's step size",
    "schedule": "of the step sizes: constant, cosine, which falls to 0, or wsd, which falls to 0 in the last fifth",
    "likelihood": "bernoulli, gaussian, or optimal-gaussian: its sigma follows from each batch",
    "sigma": "the gaussian's standard deviation, where pixels span 0 to 1",
    "beta": "weight of the rate; 1 is the ELBO",
    "warmup": "epochs over which beta rises from 0",
    "flip": "mirror half of the faces, drawn anew each epoch",
    "clip_norm": "bound on the norm of the gradient; 0: none",
    "ema": "decay of a moving average of the weights, such as 0.999; 0: none",
    "seed": "of initialisation, order, flips and noise",
    "precision": "float32, bfloat16, or auto: bfloat16 where the hardware computes in it",
    "compile": "torch.compile the step: a slow start, then faster",
}
SHARPEN_HELP = {
    "pyramid": "weight of a Laplacian pyramid's likelihood",
    "features": "weight of the likelihood of what a network sees",
    "matching": "how hard all decoded faces are pulled towards the set of real ones, as a multiple of all else",
    "adversarial": "how hard a discriminator pulls, as a multiple of all else",
    "discriminator": "what it looks at: patch, projected (features of them), or both",
    "judge_rate": "the discriminator's step size",
}
MOST_SETTINGS = 100_000  # bytes of a file of settings
IDLE_SECONDS = 300  # after which the kernel behind a page that was closed ends
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0, 1 after printing what was wrong, or 130 where it was stopped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a terminal or a pipe can't show becomes a question mark
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt as stop:
        told = " ".join(getattr(stop, "__notes__", [])) or "the same command goes on from here"
        print(f"\nvaelib: stopped; {told}", file=sys.stderr)
        return 130
    except Exception as error:
        if not (sentence := _explain(error)):
            raise
        print(f"vaelib: {sentence}", file=sys.stderr)
        return 1
    return 0


def _explain(error: Exception) -> str | None:
    """What to tell a user whose input, or whose computer, caused an error; None where the fault is the program's."""
    kind, text = type(error), str(error)
    if kind.__module__.startswith(("torch._inductor", "torch._dynamo")):
        return "--compile failed. It needs a C++ compiler, such as g++ or clang++: install one, or leave --compile out"
    if isinstance(error, MemoryError) or re.search(
        "OutOfMemory|DefaultCPUAllocator|out of memory", kind.__name__ + text
    ):
        return "out of memory: try a smaller --batch-size, --size or --count, or a smaller network"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "this user has no home folder: set HOME, and VAELIB_CACHE to a folder for what is kept"
    if isinstance(error, NotImplementedError) and "lock" in text.lower() + kind.__module__:
        return f"files can't be locked on that disk ({text}): set VAELIB_CACHE, or --folder, to one on another disk"
    if isinstance(error, ValueError | OSError | FloatingPointError | SafetensorError | ModuleNotFoundError):
        return " ".join(text.split())
    return None


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

    prepare = commands.add_parser(
        "prepare", help="turn archives or folders of pictures into one array of distinct faces"
    )
    prepare.add_argument(
        "source",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="zip or tar files, or folders with pictures at any depth: several become one set",
    )
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

    train = commands.add_parser(
        "train",
        help="train a VAE on prepared or drawn faces",
        usage="%(prog)s NAME [FLAG ...]",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=36),
    )
    _add_train_flags(train)
    train.set_defaults(run=_train)

    sharpen = commands.add_parser("sharpen", help="train a model's decoder on, towards sharper faces")
    sharpen.add_argument("bundle", metavar="MODEL", help="one that ships, or the folder of a run")
    sharpen.add_argument("--faces", help="what to train on (default: the faces that the model learned from)")
    sharpen.add_argument("--count", type=int, help="how many faces to train on (default: all; 4000 where drawn)")
    sharpen.add_argument("--folder", type=Path, help="where to write (default: runs/MODEL-sharp in the cache folder)")
    sharpen.add_argument("--device", help="cpu, cuda, mps (default: a CUDA GPU, else the CPU)")
    sharpen.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    for name, default in vars(SharpenConfig()).items():
        if name in ("epochs", "batch_size", "learning_rate", "muon_rate", "ema", "seed", *SHARPEN_HELP):
            text = f"{(CONFIG_HELP | SHARPEN_HELP)[name]} (default: {default})"
            sharpen.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=text)
    sharpen.set_defaults(run=_sharpen)

    explore = commands.add_parser("explore", help="open the explorer as a page in the browser")
    explore.add_argument("--model", help="one that ships, or the folder of a run (default: all that ship)")
    explore.add_argument("--port", type=int, default=8866, help="where the page is served (default: %(default)s)")
    explore.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of this machine that the page answers to",
    )
    explore.add_argument("--no-browser", action="store_true", help="serve the page without opening it")
    explore.set_defaults(run=_explore)
    return parser


def _add_train_flags(train: argparse.ArgumentParser) -> None:
    train.add_argument(
        "faces",
        metavar="NAME",
        help="anime, cartoon, drawn-anime, drawn-cartoon, a name given to prepare, or a zip or folder of pictures",
    )
    train.add_argument("--config", type=Path, metavar="FILE", help="YAML with any of the settings below")
    train.add_argument("--resume", action="store_true", help="go on with the run in that folder")
    of_run = train.add_argument_group("settings", "A flag goes before the file of --config, that before the recipe.")
    of_config = train.add_argument_group("settings of loss and optimiser", "Their defaults are the recipe's.")
    defaults, choices = _defaults_and_choices()
    for name, default in defaults.items():
        group, text = (of_run, RUN_SETTINGS[name][1]) if name in RUN_SETTINGS else (of_config, CONFIG_HELP.get(name))
        if isinstance(default, bool):
            how = {"action": argparse.BooleanOptionalAction}
        else:
            metavar = {int: "N", float: "X"}.get(type(default))
            how = {"type": type(default), "choices": choices.get(name), "metavar": metavar}
        group.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **how)


def _defaults_and_choices() -> tuple[dict, dict[str, tuple[str, ...]]]:
    defaults = {name: default for name, (default, _) in RUN_SETTINGS.items()} | vars(TrainConfig())
    return defaults, {"recipe": tuple(RECIPES), "model": ("conv", "dense")}


def _read_settings(path: Path) -> dict:
    """The settings in a YAML file, each checked as its flag would be."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a YAML file with settings such as epochs: 20")
    try:
        content = yaml.safe_load(read_text(path, MOST_SETTINGS)) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected settings such as epochs: 20")
    defaults, choices = _defaults_and_choices()
    settings = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in defaults:
            raise ValueError(f"{path}: unknown setting {key!r}, expected one of {', '.join(defaults)}")
        kind = type(defaults[name])
        try:
            settings[name] = _convert(value, kind)
        except ValueError:
            raise ValueError(f"{path}: got {key}: {value!r}, expected {KINDS[kind]}") from None
        if settings[name] not in choices.get(name, [settings[name]]):
            raise ValueError(f"{path}: got {key}: {value!r}, expected one of {', '.join(choices[name])}")
    return settings


def _convert(value, kind: type):
    if not isinstance(value, bool if kind is bool else str | int | float):
        raise ValueError
    return value if kind is bool else kind(str(value))  # text in between: YAML reads 5e-4 as such; int() cuts no 2.5


def _download(options: argparse.Namespace) -> None:
    from vaelib.downloading import DATASETS, download
    from vaelib.preparing import prepare, read_report

    if (report := read_report(options.name, options.size)) and report.is_complete():
        print(f"{report}\nThere already: to start over, delete that folder.")
        return
    dataset = DATASETS[options.name]
    print(f"{dataset.url}: {dataset.pictures:,} pictures, licence: {dataset.licence}", flush=True)  # before any bar
    print(prepare(download(options.name), options.name, options.size))


def _prepare(options: argparse.Namespace) -> None:
    from vaelib.preparing import prepare

    print(prepare(options.source, options.name, options.size, options.crop, options.near))


def _plot_to_files() -> None:
    """The reader's own plot back end may need a window, or be missing. Call it before anything draws."""
    os.environ["MPLBACKEND"] = "Agg"
    import matplotlib

    matplotlib.use("Agg")


def _train(options: argparse.Namespace) -> None:
    _plot_to_files()
    import torch

    from vaelib.devices import default_device, describe_device, find_device
    from vaelib.faces import load_faces
    from vaelib.training import train

    settings = _settings(options)
    config = TrainConfig(**{field.name: settings[field.name] for field in fields(TrainConfig)})
    size = settings["size"]
    check_side(size, settings["count"])
    torch.manual_seed(config.seed % 2**63)  # torch takes no larger one
    vae = _network(settings)
    vae.latent_shape(size)  # an unfit size or device should fail before faces are loaded
    device = find_device(settings["device"]) if settings["device"] else None

    faces = load_faces(options.faces, size, settings["count"])
    faces, test = faces.split()
    folder = Path(settings.pop("folder") or cache_folder("runs") / faces.name)
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    print(
        f"{type(vae).__name__}, {parameters:,} parameters: {len(faces):,} {faces.name} faces to train on, "
        f"{len(test):,} to test on\n{config}\non {describe_device(device or default_device())}, writing to {folder}"
    )

    def after_epoch(run) -> None:
        with atomic_file(folder / "train.yaml") as part:
            how = f"# python -m vaelib train {options.faces!r} --config train.yaml\n"
            part.write_text(how + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
        _write_look(run)

    run = train(
        vae,
        faces,
        config,
        test=test,
        folder=folder,
        resume=options.resume,
        on_epoch=after_epoch,
        device=device,
        trackers=settings["track"].replace(",", " ").split(),
    )
    run.accelerator.end_training()  # the processes part here
    if not run.accelerator.is_main_process:
        return
    with _training_is_done():
        bundle = _write_bundle(run, _describe_recipe(settings), settings["flow_steps"])
    _say_where(bundle, folder)


def _network(settings: dict):
    """What to train: random, or that of a trained model, which has its own widths."""
    from vaelib.model import VAE, DenseVAE
    from vaelib.pretrained import load_pretrained

    if settings["start"]:
        untold = _defaults_and_choices()[0] | _recipe(settings)  # a recipe may bring a network, which nobody asked for
        told = [name for name in ("model", "base_channels", "latent_channels") if settings[name] != untold[name]]
        if told:
            raise ValueError(f"got {' and '.join(told)} with start={settings['start']!r}, which has its own: leave out")
        return load_pretrained(settings["start"]).vae
    if settings["model"] == "dense":
        return DenseVAE(image_size=settings["size"])
    return VAE(base_channels=settings["base_channels"], latent_channels=settings["latent_channels"])


@contextmanager
def _training_is_done() -> Iterator[None]:
    """Who stops what comes after the training is told how to get it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note("the training is done and saved: the same command with --resume writes the rest")
        raise


def _say_where(bundle, folder: Path) -> None:
    print(
        f"{bundle.card['scores']}\nlook at {folder}/*.png; to explore it, in a browser or in a notebook:\n"
        f"    python -m vaelib explore --model {str(folder)!r}\n"
        f"    vaelib.LatentExplorer(vaelib.load_pretrained({str(folder)!r}))"
    )


def _sharpen(options: argparse.Namespace) -> None:
    _plot_to_files()
    import numpy as np

    from vaelib.devices import default_device, describe_device, find_device
    from vaelib.faces import load_faces
    from vaelib.pretrained import load_pretrained
    from vaelib.sharpening import sharpen, split_for_sharpening

    told = vars(options)
    config = SharpenConfig(**{field.name: told[field.name] for field in fields(SharpenConfig) if field.name in told})
    device = find_device(options.device) if options.device else None
    bundle = load_pretrained(options.bundle)
    name, drawn = options.faces or bundle.card["faces"], 4000 if options.count is None else options.count
    faces, test = split_for_sharpening(load_faces(name, bundle.image_size, drawn))
    if options.count is not None and len(faces) > options.count:  # prepared ones
        faces = faces.select(np.random.default_rng(config.seed).permutation(len(faces))[: options.count])
    folder = options.folder or cache_folder("runs") / f"{expand(options.bundle).resolve().name}-sharp"
    print(f"{len(faces):,} {faces.name} faces to train on, {len(test):,} to test on\n{config}")
    print(f"on {describe_device(device or default_device())}, writing to {folder}")
    run = sharpen(
        bundle.vae,
        faces,
        config,
        prior=bundle.priors.get("flow"),
        test=test,
        folder=folder,
        resume=options.resume,
        on_epoch=_write_look,
        device=device,
    )
    with _training_is_done():
        scores = _scores(run)
    how = {"sharpened": vars(config) | {"epochs": len(run.history), "trained_on": len(faces), "tested_on": len(test)}}
    sharp = replace(bundle, vae=run.model, card=bundle.card | how | {"scores": scores})
    sharp.save(folder)
    _say_where(sharp, folder)


def _explore(options: argparse.Namespace) -> None:
    if find_spec("voila") is None:
        raise ValueError("explore needs Voilà: pip install voila; or use vaelib.LatentExplorer in a notebook")
    if not 0 < options.port < 65536:
        raise ValueError(f"got --port {options.port}, expected a number from 1 to 65535, such as 8866")
    environment = {"JUPYTER_WIDGETS_ECHO": "0"} | os.environ  # half the messages; there is one view of each slider
    if options.model:
        from vaelib.pretrained import load_pretrained, shipped

        load_pretrained(options.model)  # complains here rather than in the page
        known = options.model in shipped()
        environment["VAELIB_MODEL"] = options.model if known else str(expand(options.model).resolve())
    page = Path(__file__).with_name("app.ipynb")
    # Another site's page that has its name point here must not reach the kernel behind the page.
    names = {"allow_remote_access": False, "local_hostnames": ["localhost", *options.host]}
    flags = [f"--port={options.port}", f"--Voila.tornado_settings={names}"] + ["--no-browser"] * options.no_browser
    flags += [f"--MappingKernelManager.cull_idle_timeout={IDLE_SECONDS}", "--MappingKernelManager.cull_interval=30"]
    command = [sys.executable, "-m", "voila", str(page), *flags]
    if os.name == "nt":  # where another program can't take this one's place
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)
    os.execve(sys.executable, command, environment)  # so that what ends this process ends Voilà and its kernels


def _settings(options: argparse.Namespace) -> dict:
    """All settings: the defaults, over them the recipe's, over them the file's, over them the flags."""
    defaults, _ = _defaults_and_choices()
    told = _read_settings(options.config) if options.config else {}
    told |= {name: value for name, value in vars(options).items() if name in defaults}
    settings = defaults | _recipe(defaults | told) | told
    if settings["flow_steps"] < 0:
        raise ValueError(f"got flow_steps={settings['flow_steps']}, expected 0 for no priors, or more, such as 3000")
    unused = [name for name in ("base_channels", "latent_channels") if settings[name] != defaults[name]]
    if settings["model"] == "dense" and unused:
        raise ValueError(f"got {' and '.join(unused)} for the dense network, which has none: leave it out")
    return settings


def _recipe(settings: dict) -> dict:
    """What the chosen recipe says, for faces of the chosen size."""
    recipe = vars(RECIPES[settings["recipe"]])
    if settings["recipe"] == "vae-anime-cartoon":  # 1000 · mean squared error is another σ at another size
        recipe = recipe | {"model": "dense", "sigma": math.sqrt(3 * settings["size"] ** 2 / 2000)}
    return recipe


def _describe_recipe(settings: dict) -> str:
    """The recipe's name and, where a flag or a file said otherwise, what: "gaussian, but epochs 3, from anime"."""
    changed = [f"{name} {settings[name]}" for name, value in _recipe(settings).items() if settings[name] != value]
    start = f", from {settings['start']}" if settings["start"] else ""
    return settings["recipe"] + (f", but {', '.join(changed)}" if changed else "") + start


def _write_look(run) -> None:
    """After each epoch: its scores as a line, the curves, reconstructions of test faces, and faces from noise."""
    import matplotlib.pyplot as plt
    from tqdm.auto import tqdm

    from vaelib.plots import noise_grids, plot_history, reconstruction_grid, show_faces

    tqdm.write("  ".join(f"{name} {value:.6g}" for name, value in run.history[-1].items()))
    some = run.test.batch(range(min(32, len(run.test))))
    figures = {
        "history": plot_history(run.history),
        "reconstructions": show_faces({"originals, reconstructions under them": reconstruction_grid(run.model, some)}),
        "noise": show_faces(noise_grids(run.model, some.shape[2])),
    }
    for name, figure in figures.items():
        with explain_disk(run.folder):
            figure.savefig(run.folder / f"{name}.png", dpi=120)
        plt.close(figure)


def _write_bundle(run, recipe: str, flow_steps: int):
    from vaelib.pretrained import make_bundle

    card = {
        "recipe": recipe,
        "config": vars(run.config),
        "trained_on": len(run.faces),
        "tested_on": len(run.test),
        "scores": _scores(run),
    }
    bundle = make_bundle(run.model, run.faces, card, flow_steps=flow_steps)
    bundle.save(run.folder)
    return bundle


def _scores(run) -> dict[str, float]:
    from vaelib.metrics import evaluate

    return {name: round(value, 4) for name, value in evaluate(run.model, run.test).items()}


if __name__ == "__main__":
    sys.exit(main())
