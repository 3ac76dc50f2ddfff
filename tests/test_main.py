import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaelib.__main__ import main
from vaelib.pretrained import load_pretrained

SMALL = ["--base-channels", "2", "--latent-channels", "4", "--batch-size", "16"]


def vaelib(*arguments) -> subprocess.CompletedProcess:
    """`python -m vaelib …` as a reader types it."""
    command = [sys.executable, "-m", "vaelib", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])


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
        *("card.json", "model.safetensors", "config.json", "axes.safetensors"),
    }
    assert not any(name.startswith(".part") for name in written)
    for name in ("history.png", "reconstructions.png", "noise.png"):
        with Image.open(folder / name) as image:
            assert np.asarray(image.convert("L")).std() > 10, f"{name} shows something"

    bundle = load_pretrained(folder)
    assert bundle.card["faces"] == "mine" and bundle.card["trained_on"] == 36 and bundle.card["tested_on"] == 4
    assert bundle.card["config"]["epochs"] == 1
    assert {"psnr", "ssim", "rate", "active_units"} == bundle.card["scores"].keys()
    z = bundle.priors["normal"].sample(2, torch.Generator().manual_seed(0))
    assert bundle.vae.decode(z).shape == (2, 3, 64, 64)

    assert main(["train", "mine", "--epochs", "2", *SMALL]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main(["train", "mine", "--epochs", "2", *SMALL, "--resume"]) == 0
    assert [entry["epoch"] for entry in json.loads((folder / "history.json").read_text())] == [1, 2]
    assert load_pretrained(folder).card["config"]["epochs"] == 2


def test_drawn_faces_and_the_dense_network(tmp_path, capsys):
    arguments = ["--recipe", "vae-anime-cartoon", "--size", "32", "--count", "48", "--epochs", "1"]
    assert main(["train", "drawn-cartoon", *arguments, "--folder", str(tmp_path)]) == 0
    assert "DenseVAE" in capsys.readouterr().out
    card = load_pretrained(tmp_path).card
    assert (card["model"], card["recipe"], card["image_size"]) == ("DenseVAE", "vae-anime-cartoon", 32)
    assert (card["config"]["likelihood"], card["config"]["beta"]) == ("gaussian", 1.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["prepare", "nowhere.zip"], "nowhere.zip does not exist; expected a zip file or a folder"),
        (["prepare", "text.zip"], "text.zip is neither a folder nor a zip file"),
        (["prepare", "empty"], "empty holds no pictures"),
        (["prepare", "fake"], "fake can be read; the first, a.jpg: not a picture"),
        (["prepare", "fake", "--size", "0"], "got size=0, expected a positive number"),
        (["prepare", "fake", "--crop", "2"], "got crop=2.0, expected a fraction"),
        (["train", "nobody"], "no faces called 'nobody' at 64 pixels, and no such file or folder; there are: anime"),
        (["train", "drawn-anime", "--size", "50"], "got a side of 50 pixels, expected a multiple of 32"),
        (["train", "drawn-anime", "--size", "50", "--model", "dense"], "got image_size=50, expected a multiple of 32"),
        (["train", "drawn-anime", "--count", "20", "--resume", *SMALL], "nothing to resume"),
        (["train", "drawn-anime", "--count", "0"], "got 0 faces of which 0 are different, expected at least 2"),
        (["train", "drawn-anime", "--count", "-1"], "count=-1"),
        (["train", "drawn-anime", "--epochs", "0"], "got epochs=0, expected a positive number"),
        (["train", "drawn-anime", "--beta", "-1"], "got beta=-1.0, expected 0 or more"),
        (["train", "drawn-anime", "--device", "toaster"], "got device 'toaster'"),
    ],
)
def test_bad_input_is_one_line_on_stderr(tmp_path, monkeypatch, capsys, empty_cache, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.zip").write_text("<html>")
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


@pytest.mark.parametrize("arguments", [[], ["paint"], ["train"], ["train", "drawn-anime", "--recipe", "mine"]])
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
