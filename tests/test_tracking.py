import importlib.util
import os

import pytest
import torch

from vaelib.faces import Faces, load_faces
from vaelib.model import VAE
from vaelib.recipes import TrainConfig
from vaelib.training import TrainingRun, train

QUICK = TrainConfig(epochs=2, batch_size=16, precision="float32")


@pytest.fixture(scope="module")
def small(session_cache) -> Faces:
    return load_faces("drawn-cartoon", size=32, count=50)


def network() -> VAE:
    torch.manual_seed(0)
    return VAE(base_channels=4, latent_channels=8)


def test_tensorboard_gets_every_entry(tmp_path, small):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(network(), small, QUICK, test=small, folder=tmp_path, trackers=["tensorboard"])
    events = accumulator.EventAccumulator(str(next(tmp_path.rglob("events*")).parent)).Reload()
    for name in ("loss", "rate", "test_psnr"):
        assert [event.step for event in events.Scalars(name)] == [1, 2]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([e[name] for e in run.history])


def test_a_run_that_goes_on_logs_on(tmp_path, small):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(network(), small, QUICK, folder=tmp_path, trackers=["tensorboard"]).resume(epochs=3)
    events = accumulator.EventAccumulator(str(next(tmp_path.rglob("events*")).parent)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


def test_tensorboard_needs_a_folder(small):
    with pytest.raises(ValueError, match="got tracker 'tensorboard' without a folder"):
        train(network(), small, QUICK, trackers=["tensorboard"])


def test_wandb_without_a_login_ends_before_the_training_begins(tmp_path, small, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it may remember another test's settings
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "NETRC", "WANDB_DIR"):  # nobody is logged in there
        monkeypatch.setenv(name, str(tmp_path))
    message = r"can't log to wandb \(.+\)\. For wandb, run `wandb login` once, or set WANDB_MODE=offline"
    run = TrainingRun(network(), small, QUICK, trackers=["wandb"])
    with pytest.raises(ValueError, match=message):
        run.resume()
    assert not run.history


def test_wandb_works_offline(tmp_path, small, monkeypatch):
    pytest.importorskip("wandb").teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(network(), small, QUICK, trackers=["wandb"])
    assert list(tmp_path.rglob("run-*.wandb"))


def test_an_unknown_tracker_and_one_that_is_not_installed(small):
    for name in ("papyrus", *([] if importlib.util.find_spec("mlflow") else ["mlflow"])):
        with pytest.raises(ValueError, match=f"got tracker '{name}', expected one that is installed: .*wandb"):
            train(network(), small, QUICK, trackers=[name])
