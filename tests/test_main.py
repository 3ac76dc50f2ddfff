import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from vaelib.__main__ import CONFIG_HELP, RUN_SETTINGS, _describe_recipe, _explain, _parser, _settings, main
from vaelib.pretrained import load_pretrained
from vaelib.recipes import RECIPES, TrainConfig

SMALL = ["--base-channels", "2", "--latent-channels", "4", "--batch-size", "16", "--flow-steps", "2"]


ROOT = Path(__file__).parents[1]


def vaelib(*arguments, **environment: str) -> subprocess.CompletedProcess:
    """`python -m vaelib …` as a reader types it."""
    command = [sys.executable, "-m", "vaelib", *map(str, arguments)]
    encoding = environment.get("PYTHONIOENCODING")
    return subprocess.run(
        command, capture_output=True, text=True, encoding=encoding, cwd=ROOT, env=os.environ | environment
    )


@pytest.fixture
def pictures(tmp_path, faces) -> Path:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for row, image in enumerate(faces.images[:40]):
        Image.fromarray(image).save(folder / f"{row}.png")
    return folder


def test_from_a_folder_of_pictures_to_an_explorable_model(empty_cache, capsys, pictures):
    done = vaelib("prepare", pictures, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "40 kept, each different, 64×64 pixels" in done.stdout

    done = vaelib("train", "mine", "--epochs", 1, *SMALL)
    assert done.returncode == 0, done.stderr
    folder = empty_cache / "runs" / "mine"
    assert str(folder) in done.stdout and "36 mine faces to train on, 4 to test on" in done.stdout
    written = {path.name for path in folder.iterdir()}
    assert written >= {
        *("checkpoint.safetensors", "history.json", "history.png", "reconstructions.png", "noise.png"),
        *("card.json", "model.safetensors", "config.json", "axes.safetensors", "priors.safetensors", "train.yaml"),
    }
    assert not any(name.startswith(".part") for name in written)
    for name in ("history.png", "reconstructions.png", "noise.png"):
        with Image.open(folder / name) as image:
            assert np.asarray(image.convert("L")).std() > 10, f"{name} shows something"

    bundle = load_pretrained(folder)
    assert bundle.card["faces"] == "mine" and bundle.card["trained_on"] == 36 and bundle.card["tested_on"] == 4
    assert bundle.card["config"]["epochs"] == 1
    assert {"psnr", "ssim", "rate", "active_units"} == bundle.card["scores"].keys()
    for name in ("normal", "flow"):
        z = bundle.priors[name].sample(2, torch.Generator().manual_seed(0))
        assert bundle.vae.decode(z).shape == (2, 3, 64, 64)

    assert main(["train", "mine", "--epochs", "2", *SMALL]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main(["train", "mine", "--epochs", "2", *SMALL, "--resume"]) == 0
    assert [entry["epoch"] for entry in json.loads((folder / "history.json").read_text())] == [1, 2]
    assert load_pretrained(folder).card["config"]["epochs"] == 2

    some = ["--count", "8", "--epochs", "1", "--batch-size", "8"]
    assert main(["sharpen", str(folder), *some]) == 0
    assert load_pretrained(empty_cache / "runs" / "mine-sharp").card["sharpened"]["trained_on"] == 8


def test_drawn_faces_and_the_dense_network(tmp_path, capsys):
    arguments = ["--recipe", "vae-anime-cartoon", "--size", "32", "--count", "48", "--epochs", "1"]
    arguments += ["--flow-steps", "0"]
    assert main(["train", "drawn-cartoon", *arguments, "--folder", str(tmp_path)]) == 0
    assert "DenseVAE" in capsys.readouterr().out
    card = load_pretrained(tmp_path).card
    assert (card["model"], card["image_size"]) == ("DenseVAE", 32)
    assert card["recipe"] == "vae-anime-cartoon, but epochs 1"
    assert (card["config"]["likelihood"], card["config"]["beta"]) == ("gaussian", 1.0)


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What `train` is told by a file (its text) and flags: (the network, the config, the keywords)."""

    def told(*flags: str, file: str = "") -> tuple:
        (tmp_path / "my.yaml").write_text(file)
        heard = []

        def listen(vae, faces, config, **keywords):
            heard.append((vae, config, keywords))
            raise KeyboardInterrupt  # instead of training

        monkeypatch.setattr("vaelib.training.train", listen)
        assert main(["train", "drawn-anime", "--count", "30", "--config", str(tmp_path / "my.yaml"), *flags]) == 130
        return heard[0]

    return told


def test_a_recipe_then_the_file_then_the_flags(told):
    assert told()[1] == RECIPES["anime-vae"]
    assert told(file="# nothing but a comment")[1] == RECIPES["anime-vae"]
    assert told("--recipe", "gaussian")[1] == RECIPES["gaussian"] != RECIPES["anime-vae"]

    vae, config, _ = told(file="recipe: gaussian\nmodel: dense\nsize: 32\nepochs: 7\nbatch-size: 8\n")
    assert config == TrainConfig(**vars(RECIPES["gaussian"]) | {"epochs": 7, "batch_size": 8})
    assert type(vae).__name__ == "DenseVAE" and vae.latent_shape(32)

    file = "epochs: 7\nlearning_rate: 5e-3\nflip: false\ncompile: true\n"
    _, config, _ = told("--epochs", "9", "--recipe", "vae-anime-cartoon", "--size", "32", "--no-compile", file=file)
    assert (config.epochs, config.learning_rate, config.flip, config.compile) == (9, 5e-3, False, False)
    assert config.likelihood == "gaussian" and config.sigma == pytest.approx((32 * 32 * 3 / 2000) ** 0.5)
    assert told("--recipe", "vae-anime-cartoon", file="sigma: 2")[1].sigma == 2


def test_device_trackers_and_folder(told, empty_cache):
    _, _, keywords = told()
    assert keywords["device"] is None and not keywords["trackers"]
    assert keywords["folder"] == empty_cache / "runs" / "drawn-anime"
    _, _, keywords = told("--device", "cpu", "--track", "tensorboard,wandb", "--folder", "here")
    assert (str(keywords["device"]), list(keywords["trackers"])) == ("cpu", ["tensorboard", "wandb"])
    assert keywords["folder"] == Path("here")
    _, _, keywords = told(file="device: cpu\ntrack: tensorboard, wandb\nfolder: there\n")
    assert (str(keywords["device"]), list(keywords["trackers"])) == ("cpu", ["tensorboard", "wandb"])
    assert keywords["folder"] == Path("there")


@pytest.mark.parametrize(
    "flags, file, recipe",
    [
        ([], "", "anime-vae"),
        (["--recipe", "vae-anime-cartoon", "--size", "128"], "", "vae-anime-cartoon"),
        (["--recipe", "gaussian", "--beta", "0.5"], "", "gaussian, but beta 0.5"),
        ([], "recipe: gaussian\nepochs: 3\nflip: false\n", "gaussian, but epochs 3, flip False"),
        (["--recipe", "gaussian"], "likelihood: bernoulli\n", "gaussian, but likelihood bernoulli"),
        (["--recipe", "vae-anime-cartoon", "--model", "conv"], "", "vae-anime-cartoon, but model conv"),
    ],
)
def test_the_recipe_is_told_with_all_that_differs_from_it(tmp_path, flags, file, recipe):
    (tmp_path / "my.yaml").write_text(file)
    options = _parser().parse_args(["train", "anime", "--config", str(tmp_path / "my.yaml"), *flags])
    assert _describe_recipe(_settings(options)) == recipe


def test_the_settings_of_a_run_repeat_it(tmp_path, told):
    once, again = tmp_path / "once", tmp_path / "again"
    flags = ["--recipe", "gaussian", "--epochs", "1", "--beta", "0.7", "--learning-rate", "1e-5", "--size", "32"]
    flags += ["--no-flip", "--seed", "3", "--count", "40", *SMALL]
    assert main(["train", "drawn-anime", *flags, "--folder", str(once)]) == 0
    assert main(["train", "drawn-anime", "--config", str(once / "train.yaml"), "--folder", str(again)]) == 0
    assert (once / "train.yaml").read_bytes() == (again / "train.yaml").read_bytes()
    assert (once / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    recipe = "gaussian, but epochs 1, batch_size 16, learning_rate 1e-05, beta 0.7, flip False, seed 3"
    assert load_pretrained(once).card["recipe"] == load_pretrained(again).card["recipe"] == recipe
    settings = yaml.safe_load((once / "train.yaml").read_text())
    assert settings.keys() == {*RUN_SETTINGS, *vars(TrainConfig())} - {"folder"}
    assert settings["recipe"] == "gaussian" and settings["sigma"] == 0.1 and settings["beta"] == 0.7


@pytest.mark.parametrize(
    "text, message",
    [
        ("batch_sise: 5", "my.yaml: unknown setting 'batch_sise', expected one of recipe, model, "),
        ("1: 5", "my.yaml: unknown setting 1, expected one of "),
        ("epochs: lots", "my.yaml: got epochs: 'lots', expected a whole number"),
        ("epochs: 2.5", "my.yaml: got epochs: 2.5, expected a whole number"),
        ("epochs: true", "my.yaml: got epochs: True, expected a whole number"),
        ("epochs: [1, 2]", "my.yaml: got epochs: [1, 2], expected a whole number"),
        ("epochs: 0", "got epochs=0, expected a positive number"),
        ("beta: high", "my.yaml: got beta: 'high', expected a number"),
        ("flip: 3", "my.yaml: got flip: 3, expected true or false"),
        ("folder:", "my.yaml: got folder: None, expected text"),
        ("recipe: mine", "my.yaml: got recipe: 'mine', expected one of anime-vae, vae-anime-cartoon, gaussian"),
        ("precision: float8", "got precision='float8', expected one of auto, float32, bfloat16"),
        ("- epochs", "my.yaml holds a list, expected settings such as epochs: 20"),
        ("epochs", "my.yaml holds a str, expected settings such as epochs: 20"),
        ("epochs: [1", "my.yaml is not YAML: while parsing a flow sequence"),
        ("epochs: !!python/name:os.system", "my.yaml is not YAML: could not determine a constructor"),
        (b"epochs: \xff", "my.yaml is not YAML: "),
        (None, "my.yaml does not exist; expected a YAML file with settings such as epochs: 20"),
    ],
)
def test_a_bad_file_is_one_line_on_stderr(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("my.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["train", "drawn-anime", "--config", "my.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vaelib: ") and message in line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["prepare", "nowhere.zip"], "nowhere.zip does not exist; expected a zip file or a folder"),
        (["prepare", "text.zip"], "text.zip is neither a folder nor a zip file"),
        (["prepare", "empty"], "empty holds no pictures"),
        (["prepare", "fake"], "fake can be read; the first, a.jpg: not a picture"),
        (["prepare", "fake", "--size", "0"], "got size=0, expected a positive number"),
        (["prepare", "fake", "--crop", "2"], "got crop=2.0, expected a fraction"),
        (["train", "nobody"], "no faces called 'nobody' at 64 pixels; there are: anime"),
        (["train", "drawn-anime", "--size", "50"], "got a side of 50 pixels, expected a multiple of 32"),
        (["train", "drawn-anime", "--size", "50", "--model", "dense"], "got image_size=50, expected a multiple of 32"),
        (["train", "drawn-anime", "--count", "20", "--resume", *SMALL], "nothing to resume"),
        (["train", "drawn-anime", "--count", "0"], "got 0 faces of which 0 are different, expected at least 2"),
        (["train", "drawn-anime", "--count", "-1"], "count=-1"),
        (["train", "drawn-anime", "--epochs", "0"], "got epochs=0, expected a positive number"),
        (["train", "drawn-anime", "--beta", "-1"], "got beta=-1.0, expected 0 or more"),
        (["train", "drawn-anime", "--precision", "float8"], "got precision='float8', expected one of auto, float32"),
        (["train", "drawn-anime", "--count", "2"], "got 1 faces to train on and batch_size=256, expected at least 2"),
        (["train", "drawn-anime", "--base-channels", "0"], "got base_channels=0, expected at least 1"),
        (["train", "drawn-anime", "--latent-channels", "0"], "got latent_channels=0, expected at least 1"),
        (["train", "drawn-anime", "--device", "toaster"], "got device 'toaster', expected one that is here: cpu"),
        (["train", "drawn-anime", "--count", "20", "--track", "paper", *SMALL], "got tracker 'paper', expected one"),
        (["train", "drawn-anime", "--flow-steps", "-5"], "got flow_steps=-5, expected 0 for no priors, or more"),
        (
            ["train", "drawn-anime", "--model", "dense", "--base-channels", "9"],
            "got base_channels for the dense network",
        ),
        (["train", "drawn-anime", "--start", "nobody"], "no bundle called 'nobody'"),
        (["train", "drawn-anime", "--start", "anime", "--base-channels", "9"], "got base_channels with start='anime'"),
        (["train", "drawn-anime", "--size", "60000"], "got size=60000, expected at most 4,096 pixels"),
        (["train", "drawn-anime", "--size", "999999999999"], "expected at most 4,096 pixels"),
        (["train", "drawn-anime", "--config", "/dev/zero"], "/dev/zero is no ordinary file"),
        (["train", "drawn-anime", "--config", "deep.yaml"], "deep.yaml is not YAML"),
        (["train", "drawn-anime", "--config", "large.yaml"], "large.yaml is larger than 100,000 bytes"),
        (["train", "drawn-anime", "--sigma", "1e300"], "got sigma=1e+300, expected a number from 1e-30 to 1e30"),
        (["train", "drawn-anime", "--sigma", "1e-200"], "got sigma=1e-200, expected a number from 1e-30"),
        (["train", "drawn-anime", "--batch-size", "9" * 23], "expected at most 2,147,483,648"),
        (["train", "drawn-anime", "--latent-channels", "9" * 19], "expected at least 1 and at most 100,000"),
        (["explore", "--port", "-1"], "got --port -1, expected a number from 1 to 65535"),
        (["explore", "--port", "70000"], "got --port 70000, expected a number from 1 to 65535"),
        (["explore", "--model", "~nobody/run"], "no bundle called '~nobody/run'"),
        (["prepare", "~nosuchuser/faces"], "~nosuchuser/faces does not exist"),
    ],
)
def test_bad_input_is_one_line_on_stderr(tmp_path, monkeypatch, capsys, empty_cache, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.zip").write_text("<html>")
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    (tmp_path / "large.yaml").write_text("#" * 100_001)
    (tmp_path / "empty").mkdir()
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "a.jpg").write_text("no pixels here")
    assert main(arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line and not line.startswith("prepare:")]
    assert len(lines) == 1  # beside the progress bar
    assert lines[0].startswith("vaelib: ") and message in lines[0]


def test_bad_input_ends_the_process_with_1_and_no_traceback():
    done = vaelib("prepare", "nowhere.zip")
    assert (done.returncode, done.stdout) == (1, "")
    where = Path.cwd() / "nowhere.zip"
    assert done.stderr == f"vaelib: {where} does not exist; expected a zip file or a folder of pictures\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["train"],
        ["train", "drawn-anime", "--recipe", "mine"],
        ["train", "drawn-anime", "--epochs", "lots"],
        ["train", "drawn-anime", "--batch-sise", "5"],
    ],
)
def test_a_command_it_does_not_know(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m vaelib" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_help_names_the_default(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "default: 64" in capsys.readouterr().out


def test_every_setting_is_a_flag_with_a_line_of_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for name in [*RUN_SETTINGS, *vars(TrainConfig())]:
        assert sum(line.startswith(f"--{name.replace('_', '-')}") for line in lines) == 1, name
    assert CONFIG_HELP.keys() == vars(TrainConfig()).keys(), "a field of TrainConfig without help, or help without one"


def test_a_training_begins_with_a_trained_model(tmp_path):
    small = ["drawn-anime", "--count", "40", "--epochs", "1", "--batch-size", "8", "--flow-steps", "0"]
    assert main(["train", *small, "--recipe", "gaussian", "--start", "drawn-anime", "--folder", str(tmp_path)]) == 0
    trained = load_pretrained(tmp_path)
    assert trained.vae.latent_shape(64) == load_pretrained("drawn-anime").vae.latent_shape(64)
    assert trained.card["recipe"].endswith("from drawn-anime")
    assert trained.card["scores"]["psnr"] > 15  # one epoch from random weights: 7


def test_sharpen_trains_the_decoder_on_and_writes_what_explore_opens(empty_cache):
    assert main(["sharpen", "drawn-anime", "--count", "40", "--epochs", "1"]) == 0
    folder = empty_cache / "runs" / "drawn-anime-sharp"
    before, sharp = load_pretrained("drawn-anime"), load_pretrained(folder)
    assert sharp.card["sharpened"]["epochs"] == 1 and sharp.card["sharpened"]["features"] == 1
    assert torch.equal(sharp.vae.encoder.head.weight, before.vae.encoder.head.weight)
    assert not torch.equal(sharp.vae.decoder.head.weight, before.vae.decoder.head.weight)
    again = ["sharpen", "drawn-anime", "--count", "40", "--epochs", "2"]
    assert main(again) == 1  # there is a run already
    assert main([*again, "--resume"]) == 0
    assert load_pretrained(folder).card["sharpened"]["epochs"] == 2


def test_a_sharpened_model_is_sharpened_again_and_opens(tmp_path, monkeypatch, empty_cache):
    monkeypatch.chdir(tmp_path)
    again = ["--count", "40", "--epochs", "1", "--batch-size", "8"]
    assert main(["sharpen", "drawn-anime-sharp", *again, "--folder", "once"]) == 0
    assert load_pretrained("once").card["sharpened"]["epochs"] == 1
    monkeypatch.chdir("once")
    assert main(["sharpen", ".", *again]) == 0
    assert load_pretrained(empty_cache / "runs" / "once-sharp").card["sharpened"]["batch_size"] == 8


@pytest.mark.skipif(os.name == "nt", reason="Windows can't put another program in a process's place")
def test_explore_opens_voila_on_the_model_of_a_run(monkeypatch, tmp_path, bundle):
    started = []
    monkeypatch.setattr("os.execve", lambda path, command, environment: started.append((command, environment)))
    monkeypatch.chdir(bundle.save(tmp_path / "run").parent)
    assert main(["explore", "--model", "run", "--port", "9999", "--no-browser"]) == 0
    assert main(["explore"]) == 0
    (command, environment), (_, plain) = started
    assert command[1:3] == ["-m", "voila"] and {"--port=9999", "--no-browser"} < {*command}
    assert environment["VAELIB_MODEL"] == str(tmp_path / "run") and "VAELIB_MODEL" not in plain
    assert Path(command[3]).read_text().count("app()") == 1


# ------------------------------------------------------------------------------- what a computer may lack, or refuse


def test_compile_without_a_compiler(tmp_path):
    flags = ["--count", 40, "--epochs", 1, "--size", 32, *SMALL, "--compile", "--folder", tmp_path / "run"]
    nowhere = {"PATH": str(tmp_path), "CXX": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = vaelib("train", "drawn-anime", *flags, **nowhere)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("vaelib: --compile failed. It needs a C++ compiler")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9.00 TiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory(error):
    assert _explain(error).startswith("out of memory: try a smaller --batch-size")


def test_a_user_without_a_home():
    assert "set HOME, and VAELIB_CACHE" in _explain(RuntimeError("Could not determine home directory."))


def test_a_disk_that_locks_no_files():
    assert "can't be locked on that disk" in _explain(
        NotImplementedError("FileSystem does not appear to support flock")
    )


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), KeyError("x"), AttributeError("no such"), TypeError()]
)
def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch, error):
    def fail(options):
        raise error

    assert _explain(error) is None
    monkeypatch.setattr("vaelib.__main__._prepare", fail)
    with pytest.raises(type(error)):
        main(["prepare", "x"])


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_a_pipe_that_knows_few_letters(encoding, pictures):
    shown = vaelib("train", "--help", PYTHONIOENCODING=encoding)
    assert shown.returncode == 0 and "--sigma" in shown.stdout
    done = vaelib("prepare", pictures, "--name", "mine", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and "40 kept" in done.stdout


@pytest.mark.parametrize("backend", ["module://backend_interagg", "nonsense"])
def test_a_plot_back_end_that_is_missing(tmp_path, backend):
    flags = ["--count", 40, "--epochs", 1, "--size", 32, *SMALL, "--folder", tmp_path / "run"]
    done = vaelib("train", "drawn-anime", *flags, MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "history.png").exists()


def stop_in(monkeypatch, where: str) -> None:
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, stop)


def test_ctrl_c_says_what_goes_on_and_what_begins_anew(tmp_path, monkeypatch, capsys):
    flags = [
        "train",
        "drawn-anime",
        "--count",
        "40",
        "--size",
        "32",
        "--epochs",
        "1",
        *SMALL,
        "--folder",
        str(tmp_path),
    ]
    with monkeypatch.context() as patch:
        stop_in(patch, "vaelib.training.TrainingRun._step")
        assert main(flags) == 130
    assert "0 of 1 epochs are done. Nothing was saved yet: the same call begins anew." in capsys.readouterr().err
    with monkeypatch.context() as patch:
        stop_in(patch, "vaelib.__main__._write_bundle")
        assert main(flags) == 130  # as it said: without --resume
    assert "the training is done and saved: the same command with --resume writes" in capsys.readouterr().err
    assert main([*flags, "--resume"]) == 0
    assert load_pretrained(tmp_path).card["config"]["epochs"] == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_the_page_answers_to_its_own_names_and_its_end_is_the_end_of_its_server(tmp_path):
    def status(host: str, path: str = "/") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("GET", path, headers={"Host": host, "Origin": f"http://{host}"})
        return connection.getresponse().status

    pytest.importorskip("voila")
    psutil = pytest.importorskip("psutil")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vaelib", "explore", "--no-browser", "--port", str(port)]
    command += ["--host", "faces.example", "--model", "drawn-anime"]
    explore = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert any("is running at" in line for line in explore.stderr)
    channels = "/api/kernels/11111111-1111-1111-1111-111111111111/channels"
    assert {status("evil.example"), status("evil.example", channels), status(f"evil.example:{port}")} == {403}
    assert status(f"localhost:{port}") == status(f"127.0.0.1:{port}") == status("faces.example") == 200
    family = [psutil.Process(explore.pid), *psutil.Process(explore.pid).children(recursive=True)]
    explore.terminate()
    gone, alive = psutil.wait_procs(family, timeout=600)
    assert not alive and len(gone) == len(family)


@pytest.mark.parametrize(
    "model, has_voila, message", [("nowhere", True, "no bundle called"), ("", False, "pip install voila")]
)
def test_explore_says_what_is_missing(monkeypatch, capsys, model, has_voila, message):
    monkeypatch.setattr("vaelib.__main__.find_spec", lambda name: name if has_voila else None)
    assert main(["explore", "--model", model]) == 1
    assert message in capsys.readouterr().err
