import copy
import json
import math
import os
import random
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from vaelib.checkpoints import CHECKPOINT
from vaelib.devices import take
from vaelib.faces import Faces, load_faces
from vaelib.losses import bernoulli_nll, kl_divergence
from vaelib.metrics import evaluate
from vaelib.model import VAE, DenseVAE, memory_format
from vaelib.recipes import TrainConfig
from vaelib.training import TrainingRun, _batches, _flip_half, loss_terms, train

QUICK = TrainConfig(epochs=2, batch_size=16, learning_rate=2e-3, precision="float32")


@pytest.fixture(scope="module")
def small(session_cache) -> Faces:
    """50 drawn faces of 32×32 pixels: three batches of 16 and two faces left over."""
    return load_faces("drawn-cartoon", size=32, count=50)


def network(kind: type = VAE, seed: int = 0):
    torch.manual_seed(seed)
    if kind is VAE:
        return VAE(base_channels=4, latent_channels=8)
    return DenseVAE(image_size=32, latent_dim=8)


def same_weights(a, b) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def losses(history: list[dict]) -> list[dict]:
    """A history without its only entry that a clock decides."""
    return [{name: value for name, value in entry.items() if name != "faces_per_second"} for entry in history]


def files(folder: Path) -> set[str]:
    """What is in a folder, without the lock that holds no data."""
    return {path.name for path in folder.iterdir()} - {".lock"}


# ------------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "optimal-gaussian"])
def test_the_loss_goes_down(small, likelihood):
    run = train(network(), small, replace(QUICK, epochs=6, likelihood=likelihood), test=small.select(range(20)))
    first, last = run.history[0], run.history[-1]
    assert last["loss"] < first["loss"]
    assert last["distortion"] < first["distortion"]
    assert last["test_loss"] < first["test_loss"]
    assert last["test_psnr"] > first["test_psnr"]


@pytest.mark.parametrize("style", ["anime", "cartoon"])
def test_the_loss_of_real_faces_that_it_never_saw_goes_down(real_prepared, style):
    images = np.load(real_prepared[style].images_path, mmap_mode="r")[:512]
    faces, test = Faces(images, style).split(test_fraction=0.125)
    config = replace(QUICK, epochs=3, batch_size=64)
    run = train(network(), faces, config, test=test)
    test_losses = [entry["test_loss"] for entry in run.history]
    assert test_losses[-1] < test_losses[0]
    assert run.history[-1]["test_psnr"] > run.history[0]["test_psnr"]


def test_bfloat16_learns_too_and_keeps_float32_weights(small):
    run = train(network(), small, replace(QUICK, epochs=4, precision="bfloat16"))
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert {parameter.dtype for parameter in run.vae.parameters()} == {torch.float32}


def test_a_larger_beta_lowers_the_rate(small):
    rates = [train(network(), small, replace(QUICK, epochs=4, beta=beta)).history[-1]["rate"] for beta in (0.1, 100)]
    assert rates[1] < 0.5 * rates[0]


def test_a_history_entry_says_what_it_measured(small):
    test = small.select(range(20))
    run = train(network(), small, QUICK, test=test)
    assert [entry["epoch"] for entry in run.history] == [1, 2]
    last = run.history[-1]
    assert last["loss"] == pytest.approx(last["distortion"] + QUICK.beta * last["rate"], rel=1e-5)
    scores = evaluate(run.vae, test)
    assert last["test_psnr"] == pytest.approx(scores["psnr"], rel=1e-5)
    assert last["test_rate"] == pytest.approx(scores["rate"], rel=1e-5)
    assert last["faces_per_second"] > 0
    assert "test_psnr" not in train(network(), small, QUICK).history[-1]


def test_the_model_comes_back_ready_to_use(small):
    run = train(network(), small, QUICK)
    assert not run.vae.training
    calls = []
    train(network(), small, QUICK, on_epoch=lambda run: calls.append(len(run.history)))
    assert calls == [1, 2]


def test_loss_terms_are_means_over_the_batch(small):
    vae, x = network().eval(), small.batch(slice(8))
    generator = torch.Generator().manual_seed(0)
    logits, posterior = vae(x, generator)
    distortion, rate = loss_terms(lambda x: (logits, posterior), x, QUICK)
    torch.testing.assert_close(distortion, bernoulli_nll(logits, x).mean())
    torch.testing.assert_close(rate, kl_divergence(posterior).mean())
    assert distortion.requires_grad and rate.requires_grad


# --------------------------------------------------------------------------------------------------- determinism


def test_same_seed_same_weights(small):
    first, second = (train(network(), small, QUICK) for _ in range(2))
    assert same_weights(first.vae, second.vae)
    assert losses(first.history) == losses(second.history)
    other = train(network(), small, replace(QUICK, seed=7))
    assert not same_weights(first.vae, other.vae)


def test_training_leaves_the_callers_random_numbers_alone(small):
    vae = network()
    torch.manual_seed(5)
    train(vae, small, QUICK, test=small)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


# -------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    "kind, optimizer",
    [(VAE, "adam"), (VAE, "muon"), (DenseVAE, "adam")],  # DenseVAE has dropout: more randomness to repeat
)
def test_resume_from_disk_is_as_if_it_had_never_stopped(tmp_path, small, kind, optimizer):
    config, test = replace(QUICK, epochs=4, optimizer=optimizer), small.select(range(20))
    whole = train(network(kind), small, config, test=test)

    train(network(kind), small, replace(config, epochs=2), test=test, folder=tmp_path)
    resumed = train(network(kind, seed=99), small, config, test=test, folder=tmp_path, resume=True)
    assert losses(resumed.history) == losses(whole.history)
    assert same_weights(resumed.vae, whole.vae)


def test_resume_in_memory_is_as_if_it_had_never_stopped(small):
    whole = train(network(), small, replace(QUICK, epochs=4))
    stopped = train(network(), small, QUICK)
    assert stopped.resume(epochs=4) is stopped
    assert losses(stopped.history) == losses(whole.history)
    assert same_weights(stopped.vae, whole.vae)


def test_resume_of_a_cosine_schedule_is_as_if_it_had_never_stopped(tmp_path, small):
    class Enough(Exception):
        pass

    def stop(run):
        if len(run.history) == 2:
            raise Enough

    config = replace(QUICK, epochs=4, schedule="cosine")
    whole = train(network(), small, config)
    with pytest.raises(Enough):
        train(network(), small, config, folder=tmp_path, on_epoch=stop)
    resumed = train(network(seed=99), small, config, folder=tmp_path, resume=True)
    assert losses(resumed.history) == losses(whole.history)
    assert same_weights(resumed.vae, whole.vae)


def test_resume_for_more_epochs_stretches_a_cosine_schedule(small):
    """Three steps in an epoch; the last one of epoch n is the one at n - ⅓ epochs."""
    rates = []
    config = replace(QUICK, schedule="cosine", epochs=2)
    run = train(network(), small, config, on_epoch=lambda run: rates.append(run.optimizer.param_groups[0]["lr"]))
    run.resume(epochs=4)
    falling = [0.5 * (1 + math.cos(math.pi * progress)) for progress in (2 / 3 / 2, 5 / 3 / 2, 8 / 3 / 4, 11 / 3 / 4)]
    assert rates == pytest.approx([QUICK.learning_rate * part for part in falling])
    assert rates[0] > rates[2] > rates[1] > rates[3]


@pytest.mark.parametrize("how", ["from disk", "in memory"])
def test_a_longer_run_returns_to_before_the_rate_fell(tmp_path, small, how, capsys):
    """Of five epochs the last lowers the rate, of ten the last two: the longer run goes on after the fourth."""
    config = replace(QUICK, epochs=5, schedule="wsd", optimizer="muon")
    long = replace(config, epochs=10)
    whole = train(network(), small, long)
    run = train(network(), small, config, folder=tmp_path)
    if how == "from disk":
        run = train(network(seed=99), small, long, folder=tmp_path, resume=True)
    else:
        run.resume(epochs=10)
    assert "5 epochs are done; on from the 4 before the rate fell" in capsys.readouterr().out
    assert losses(run.history) == losses(whole.history)
    assert same_weights(run.vae, whole.vae)


def test_a_run_that_is_stopped_in_any_step_stands_at_the_end_of_an_epoch(small):
    """Three steps of training and two batches to test in each epoch: a stop at each in turn, then on in memory."""
    config, test = replace(QUICK, epochs=2, ema=0.9), small.select(range(20))
    whole = train(network(), small, config, test=test)
    run = TrainingRun(network(), small, config, test)
    ahead = 0  # encodings until the stop: 3 in training, then 2 for each of 2 batches to test

    def press_stop(*_):
        nonlocal ahead
        ahead -= 1
        if ahead == 0:
            raise KeyboardInterrupt

    for part in (run.vae, run.model):
        part.encoder.register_forward_hook(press_stop)
    for done, places in ((0, range(1, 8)), (1, (9, 3))):
        for place in places:
            ahead = place
            with pytest.raises(KeyboardInterrupt) as stop:
                run.resume()
            assert stop.value.__notes__ == [f"{done} of 2 epochs are done."] and len(run.history) == done
            assert done or same_weights(run.vae, network())
            assert not run.vae.training and not run.model.training
    run.resume()
    assert losses(run.history) == losses(whole.history)
    assert same_weights(run.vae, whole.vae) and same_weights(run.average, whole.average)


def test_a_stop_says_where_to_go_on_from(tmp_path, small):
    def press_stop(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        train(network(), small, QUICK, folder=tmp_path, on_epoch=press_stop)
    saved = tmp_path / CHECKPOINT
    assert stop.value.__notes__ == [
        f"1 of 2 epochs are done. The last good state is in {saved}: resume=True (--resume) goes on from it."
    ]


CELLS = {
    "set up": """
        import torch, vaelib
        torch.set_num_threads(1)
        faces = vaelib.load_faces("drawn-cartoon", size=32, count=50)
        config = vaelib.TrainConfig(epochs=8, batch_size=16, precision="float32")
        def begin():
            torch.manual_seed(0)
            return vaelib.TrainingRun(vaelib.VAE(base_channels=4, latent_channels=8), faces, config)
        whole = begin().resume()
        run = begin()
        """,
    "train": "run.resume()",
    "compare": """
        same = all(torch.equal(value, run.vae.state_dict()[name]) for name, value in whole.vae.state_dict().items())
        print(len(run.history), same)
        """,
}


def test_a_notebook_cell_that_is_stopped_at_random_goes_on_when_run_again():
    manager = pytest.importorskip("jupyter_client.manager")
    choose, output, stops = random.Random(0), [], 0

    def listen(message):
        output.append(message["content"].get("text") or " ".join(message["content"].get("traceback", [])))

    def execute(cell):
        return client.execute_interactive(textwrap.dedent(CELLS[cell]), output_hook=listen, timeout=600)["content"]

    kernel, client = manager.start_new_kernel()
    try:
        assert execute("set up")["status"] == "ok", output
        for _ in range(3):
            stopper = threading.Timer(choose.uniform(0.05, 0.5), kernel.interrupt_kernel)
            stopper.start()
            stops += execute("train").get("ename") == "KeyboardInterrupt"
            stopper.join()
        execute("train")
        execute("compare")
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert stops and "epochs are done." in "".join(output)
    assert "".join(output).endswith("8 True\n")


def test_resume_after_an_interrupt(tmp_path, small):
    def press_stop(run):
        if len(run.history) == 2:
            raise KeyboardInterrupt

    config = replace(QUICK, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(network(), small, config, folder=tmp_path, on_epoch=press_stop)
    resumed = train(network(), small, config, folder=tmp_path, resume=True)
    assert same_weights(resumed.vae, train(network(), small, config).vae)


def test_resume_of_a_finished_run_changes_nothing(tmp_path, small):
    done = train(network(), small, QUICK, folder=tmp_path)
    again = train(network(seed=99), small, QUICK, folder=tmp_path, resume=True)
    assert same_weights(done.vae, again.vae)
    assert again.history == done.history


def test_a_folder_holds_the_checkpoint_and_the_history(tmp_path, small):
    run = train(network(), small, QUICK, folder=tmp_path / "runs" / "first")
    assert files(tmp_path / "runs" / "first") == {CHECKPOINT, "history.json"}
    assert json.loads((tmp_path / "runs" / "first" / "history.json").read_text()) == run.history


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, small):
    resource = pytest.importorskip("resource", reason="no file size limit on Windows")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(run):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # too little for the next checkpoint

    try:
        with pytest.raises((SafetensorError, OSError), match="larger than is allowed there"):
            train(network(), small, replace(QUICK, epochs=3), folder=tmp_path, on_epoch=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == {CHECKPOINT, "history.json"}
    resumed = train(network(), small, replace(QUICK, epochs=1), folder=tmp_path, resume=True)
    assert len(resumed.history) == 1
    assert same_weights(resumed.vae, train(network(), small, replace(QUICK, epochs=1)).vae)


KILLED_AT_RANDOM = """
import os, random, shutil, signal, sys, threading, time
from pathlib import Path
import torch
from tqdm.auto import tqdm
from vaelib.faces import load_faces
from vaelib.model import VAE
from vaelib.training import TrainConfig, train
from vaelib.checkpoints import CHECKPOINT

faces = load_faces("drawn-cartoon", size=32, count=50)
config = TrainConfig(epochs=6, batch_size=16, precision="float32", ema=0.9)
torch.set_num_threads(1)  # a forked process must not wait for threads that stayed behind
tqdm.set_lock(threading.RLock())  # its own lock goes round all forked processes: one that is killed may hold it

def go_on(folder):
    torch.manual_seed(0)
    vae = VAE(base_channels=4, latent_channels=8)
    return train(vae, faces, config, folder=folder, resume=(folder / CHECKPOINT).exists())

def start(folder):
    pid = os.fork()
    if pid == 0:
        go_on(folder)
        os._exit(0)
    return pid

def same(a, b):
    return all(torch.equal(a.state_dict()[name], value) for name, value in b.state_dict().items())

folder = Path(sys.argv[1])
begin = time.monotonic()
whole = go_on(folder / "whole")
duration, choose = time.monotonic() - begin, random.Random(int(sys.argv[2]))
kills = finished = 0
while kills < 10:
    pid = start(folder / "killed")
    time.sleep(choose.uniform(0, duration / 2))
    os.kill(pid, signal.SIGKILL)
    if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
        kills += 1
    else:
        finished += 1
        run = go_on(folder / "killed")
        assert same(run.vae, whole.vae) and same(run.model, whole.model), "other weights"
        shutil.rmtree(folder / "killed")
run = go_on(folder / "killed")
assert same(run.vae, whole.vae) and same(run.model, whole.model), "other weights"
print(kills, "killed,", finished + 1, "finished")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, to start ten times in a few seconds")
def test_ten_kills_change_no_weight(tmp_path):
    command = [sys.executable, "-c", KILLED_AT_RANDOM, str(tmp_path), "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 killed")


def test_resume_with_other_settings_says_so(tmp_path, small):
    train(network(), small, QUICK, folder=tmp_path)
    with pytest.warns(UserWarning, match="other settings than before: learning_rate 0.002 -> 0.001, beta 0.24 -> 1"):
        train(network(), small, replace(QUICK, epochs=3, learning_rate=1e-3, beta=1), folder=tmp_path, resume=True)


# --------------------------------------------------------------------------------------- warm-up, average, clipping


def test_beta_rises_during_the_warm_up(small):
    for entry in train(network(), small, replace(QUICK, epochs=4, beta=1.0, warmup=3)).history:
        assert entry["loss"] == pytest.approx(entry["distortion"] + entry["epoch"] / 4 * entry["rate"], rel=1e-5)


def test_the_average_of_the_weights_moves_by_its_decay(small):
    """Two runs with the same steps: by hand from the weights after each, and as the config asks for it."""
    config = replace(QUICK, batch_size=50, epochs=5)  # one step in an epoch
    steps = []
    train(network(), small, config, on_epoch=lambda run: steps.append(copy.deepcopy(run.vae.state_dict())))
    run = train(network(), small, replace(config, ema=0.3))
    name = "encoder.head.weight"
    expected = steps[0][name]  # the average begins with the first weights
    for decay, after in zip((2 / 11, 3 / 12, 0.3, 0.3), steps[1:], strict=True):  # a shorter memory at first
        expected = decay * expected + (1 - decay) * after[name]
    torch.testing.assert_close(run.model.state_dict()[name], expected)
    torch.testing.assert_close(run.vae.state_dict()[name], steps[-1][name])
    assert train(network(), small, QUICK).model is not run.vae


def test_the_average_is_what_is_tested_and_kept(tmp_path, small):
    config, test = replace(QUICK, ema=0.9, epochs=3), small.select(range(20))
    run = train(network(), small, config, test=test, folder=tmp_path)
    assert not same_weights(run.model, run.vae)
    assert run.history[-1]["test_psnr"] == pytest.approx(evaluate(run.model, test)["psnr"], rel=1e-5)
    again = train(network(seed=9), small, config, test=test, folder=tmp_path, resume=True)
    assert same_weights(again.model, run.model) and same_weights(again.vae, run.vae)


def test_clipping_bounds_the_step(small):
    """Adam hides the length of a gradient, except that of the first one against the later ones: so look at it."""
    lengths = []

    def note(run):
        lengths.append(torch.stack([p.grad.norm() for p in run.vae.parameters()]).norm().item())

    train(network(), small, QUICK, on_epoch=note)
    train(network(), small, replace(QUICK, clip_norm=1.0), on_epoch=note)
    assert min(lengths[:2]) > 10
    assert max(lengths[2:]) == pytest.approx(1.0, rel=1e-3)


# ------------------------------------------------------------------------------------------- processes and trackers

TWO_PROCESSES = """
import json, sys, torch
from vaelib.faces import load_faces
from vaelib.model import VAE
from vaelib.recipes import TrainConfig
from vaelib.training import train

faces = load_faces("drawn-cartoon", size=32, count=256)
for likelihood, optimizer in (("bernoulli", "adam"), ("optimal-gaussian", "muon")):
    torch.manual_seed(0)
    vae = VAE(base_channels=4, latent_channels=8)
    how = {"likelihood": likelihood, "optimizer": optimizer, "precision": "float32"}
    config = TrainConfig(epochs=2, batch_size=64, learning_rate=2e-3, **how)
    run = train(vae, faces, config, test=faces.select(range(64)), folder=f"{sys.argv[1]}-{likelihood}")
    run.resume(epochs=4)
    weights = sum(value.double().sum().item() for value in run.vae.parameters())
    rank = run.accelerator.process_index
    with open(f"{sys.argv[1]}-{likelihood}-{rank}.json", "w") as file:
        json.dump([likelihood, rank, run.processes, weights, run.history], file)
"""

ONE_OF_TWO_DIVERGES = """
import torch
from vaelib import training
from vaelib.faces import load_faces
from vaelib.model import VAE

def spoil(network, inputs, outputs):
    spoil.calls += 1
    if spoil.calls == 2 and torch.distributed.get_rank() == 1:
        return outputs[0] * torch.nan, outputs[1]

spoil.calls, training.CHECK_EVERY = 0, 2
vae = VAE(base_channels=4, latent_channels=8)
vae.register_forward_hook(spoil)
training.train(vae, load_faces("drawn-cartoon", size=32, count=256), training.TrainConfig(batch_size=32))
"""


def start_processes(count: int, folder: Path, code: str = TWO_PROCESSES) -> subprocess.CompletedProcess:
    script = folder / "script.py"
    script.write_text(code)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command = [sys.executable, *(launch if count > 1 else []), str(script), str(folder / f"run-{count}")]
    return subprocess.run(command, capture_output=True, text=True)


def run_processes(count: int, folder: Path) -> list:
    done = start_processes(count, folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"run-{count}-*.json"))]


def test_two_processes_learn_as_one_does(tmp_path):
    """Not the same numbers: each normalises its half of the batch, takes σ from it, and draws its own noise. So within
    0.02 nats per pixel value in training, 0.04 where the running averages count."""
    alone, together = run_processes(1, tmp_path), run_processes(2, tmp_path)
    assert [said[:3] for said in alone] == [["bernoulli", 0, 1], ["optimal-gaussian", 0, 1]]
    assert [said[:3] for said in together] == [
        *(["bernoulli", 0, 2], ["bernoulli", 1, 2]),
        *(["optimal-gaussian", 0, 2], ["optimal-gaussian", 1, 2]),
    ]
    for (likelihood, *_, single), first, second in zip(alone, together[::2], together[1::2], strict=True):
        assert first[3] == second[3], "both processes should end with the same weights"
        for ours, theirs in zip(first[4], single, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.02 * 3 * 32**2)
            assert ours["test_distortion"] == pytest.approx(theirs["test_distortion"], abs=0.04 * 3 * 32**2)
        assert files(tmp_path / f"run-2-{likelihood}") == {CHECKPOINT, "history.json"}


def test_one_of_two_processes_diverges_and_both_end(tmp_path):
    """Process 1 sees it in step 2 and stops; process 0 waits for it in step 3, until the launcher ends it."""
    done = start_processes(2, tmp_path, ONE_OF_TWO_DIVERGES)
    assert done.returncode != 0
    assert "training diverged in epoch 1, step 2: distortion nan" in done.stderr


def test_a_batch_that_the_processes_cannot_share(tmp_path):
    done = start_processes(2, tmp_path, TWO_PROCESSES.replace("batch_size=64", "batch_size=63"))
    assert "got batch_size=63, expected a multiple of the 2 processes" in done.stderr


# ----------------------------------------------------------------------------------------------------- bad input


def test_too_few_faces(small):
    with pytest.raises(ValueError, match="got 1 faces to train on and batch_size=16, expected at least 2 of both"):
        train(network(), small.select([0]), QUICK)
    with pytest.raises(ValueError, match="got 50 faces to train on and batch_size=1, expected at least 2 of both"):
        train(network(), small, replace(QUICK, batch_size=1))
    with pytest.raises(ValueError, match="got no test faces, expected some, or test=None"):
        train(network(), small, QUICK, test=small.select([]))


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, small):
    train(network(), small, replace(QUICK, epochs=1), folder=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run: pass resume=True"):
        train(network(), small, QUICK, folder=tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_nothing_to_resume(tmp_path, small):
    with pytest.raises(FileNotFoundError, match=f"no {CHECKPOINT} in .*nothing to resume"):
        train(network(), small, QUICK, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="got resume=True without a folder"):
        train(network(), small, QUICK, resume=True)


def test_a_checkpoint_of_another_network(tmp_path, small):
    train(network(), small, replace(QUICK, epochs=1), folder=tmp_path)
    for other in (VAE(base_channels=6, latent_channels=8), network(DenseVAE)):
        with pytest.raises(ValueError, match=f"does not fit this {type(other).__name__}: .*another network"):
            train(other, small, QUICK, folder=tmp_path, resume=True)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_checkpoint(tmp_path, small, damage):
    train(network(), small, replace(QUICK, epochs=1), folder=tmp_path)
    content = (tmp_path / CHECKPOINT).read_bytes()
    damaged = {"truncated": content[: len(content) // 2], "text": b"not tensors", "empty": b""}[damage]
    (tmp_path / CHECKPOINT).write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{CHECKPOINT} can't be read .*damaged"):
        train(network(), small, QUICK, folder=tmp_path, resume=True)


def test_pictures_of_a_size_that_does_not_fit(tmp_path, small):
    faces = Faces(np.zeros((20, 48, 48, 3), np.uint8))
    for train_faces, test in ((faces, None), (small, faces)):
        with pytest.raises(ValueError, match="got a side of 48 pixels, expected a multiple of 32"):
            train(network(), train_faces, QUICK, test=test, folder=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_loss_that_explodes_stops_the_run_and_spares_the_checkpoint(tmp_path, small):
    good = train(network(), small, replace(QUICK, epochs=1), folder=tmp_path)
    weights = copy.deepcopy(good.vae)
    wild = replace(QUICK, epochs=5, learning_rate=1e6)
    message = r"diverged in epoch 2, step \d.*smaller learning_rate than 1000000.0 .* last good state is in"
    with pytest.raises(FloatingPointError, match=message), pytest.warns(UserWarning, match="learning_rate"):
        train(network(), small, wild, folder=tmp_path, resume=True)
    resumed = train(network(), small, replace(QUICK, epochs=1), folder=tmp_path, resume=True)
    assert len(resumed.history) == 1
    assert same_weights(resumed.vae, weights)


def test_an_explosion_in_the_first_epoch_promises_no_checkpoint(tmp_path, small):
    vae = network()
    with pytest.raises(FloatingPointError, match="in epoch 1") as error:
        train(vae, small, replace(QUICK, learning_rate=math.inf), folder=tmp_path)
    assert same_weights(vae, network()), "the weights are those before the epoch"
    assert "Nothing was saved yet: the same call begins anew." in str(error.value)
    assert files(tmp_path) == set()


def test_weights_that_the_last_step_ruined_are_not_saved(tmp_path, small):
    """One batch per epoch: the loss is still finite, since it was computed before the step."""
    config = replace(QUICK, batch_size=50, learning_rate=math.inf)
    with pytest.raises(FloatingPointError, match="training diverged in epoch 1"):
        train(network(), small, config, folder=tmp_path)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("seed", [-1, 2**63, 1732598400123456789, 2**64 + 5])
def test_any_whole_number_is_a_seed(small, seed):
    first, second = (train(network(), small, replace(QUICK, epochs=1, seed=seed), test=small) for _ in range(2))
    assert same_weights(first.vae, second.vae)


def test_a_model_that_is_ruined_in_evaluation_is_not_trained(tmp_path, session_cache):
    """Batch norm hides it in training: the averages that it keeps make log-variances overflow."""
    torch.manual_seed(0)
    faces, test = load_faces("drawn-anime", 32, 120).split()
    config = replace(QUICK, epochs=1, batch_size=32, flip=False, learning_rate=0.1)
    vae = VAE(base_channels=4, latent_channels=8)
    with pytest.raises(FloatingPointError, match=r"diverged in epoch 1: held-out distortion .*A smaller learning_rate"):
        train(vae, faces, config, test=test, folder=tmp_path)
    assert files(tmp_path) == set()


def test_what_is_saved_is_json_that_everybody_reads(tmp_path, small):
    def forbid(name):
        raise AssertionError(f"{name} is no JSON")

    train(network(), small, QUICK, test=small, folder=tmp_path)
    assert len(json.loads((tmp_path / "history.json").read_text(), parse_constant=forbid)) == 2


@pytest.mark.parametrize("sigma", [0.002, 0.001])
def test_a_small_sigma_is_no_divergence(small, sigma):
    config = replace(QUICK, epochs=1, likelihood="gaussian", sigma=sigma, learning_rate=1e-7, clip_norm=1000)
    assert math.isfinite(train(network(), small, config).history[0]["loss"])


def test_a_sigma_beyond_all_numbers_is_named(small):
    config = replace(QUICK, epochs=1, likelihood="gaussian", sigma=1e-20)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 1: .*Nothing was learned by then.*sigma=1e-20 may be"):
        train(network(), small, config)


# ----------------------------------------------------------------------------------------------- whose faces, layout


def other_faces(small: Faces) -> dict[str, tuple[Faces, Faces | None]]:
    """Training and test faces that a run on rows 0 to 29, tested on 30 to 39, must not go on with."""
    return {
        "train and test exchanged": (small.select(range(30, 40)), small.select(range(30))),
        "a grown set": (small.select(range(45)), small.select(range(45, 50))),
        "another split": (small.select(range(5, 35)), small.select(range(5))),
        "another order": (small.select([*range(1, 30), 0]), small.select(range(30, 40))),
        "another style": (load_faces("drawn-anime", 32, 30), None),
        "another size": (load_faces("drawn-cartoon", 64, 30), None),
    }


@pytest.mark.parametrize(
    "what",
    ["train and test exchanged", "a grown set", "another split", "another order", "another style", "another size"],
)
def test_a_run_goes_on_with_no_other_faces(tmp_path, small, what):
    train(network(), small.select(range(30)), QUICK, test=small.select(range(30, 40)), folder=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    faces, test = other_faces(small)[what]
    with pytest.raises(ValueError, match="was trained on 30 drawn-cartoon faces of 32 pixels, and these are"):
        train(network(), faces, replace(QUICK, epochs=4), test=test, folder=tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_run_is_not_tested_on_what_it_was_trained_on(tmp_path, small):
    faces, test = small.select(range(30)), small.select(range(30, 40))
    train(network(), faces, replace(QUICK, epochs=1), test=test, folder=tmp_path)
    with pytest.raises(ValueError, match=r"8 of the 10 test faces are among those that the run in .* was trained on"):
        train(network(), faces, QUICK, test=small.select([*range(8), 30, 31]), folder=tmp_path, resume=True)
    other = small.select(range(40, 50))
    assert len(train(network(), faces, QUICK, test=other, folder=tmp_path, resume=True).history) == 2


def test_a_history_with_numbers_that_are_no_json_goes_on(tmp_path, small):
    """As an earlier version wrote it."""
    train(network(), small, replace(QUICK, epochs=1), folder=tmp_path)
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    history = json.loads(metadata["history"])
    save_file(tensors, tmp_path / CHECKPOINT, metadata | {"history": json.dumps([history[0] | {"loss": math.nan}])})
    run = train(network(), small, QUICK, folder=tmp_path, resume=True)
    assert [entry["loss"] is None for entry in run.history] == [True, False]


def test_a_checkpoint_that_does_not_know_its_faces_goes_on_with_a_warning(tmp_path, small):
    """As an earlier version wrote it."""
    train(network(), small, replace(QUICK, epochs=1), folder=tmp_path)
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {name: text for name, text in file.metadata().items() if name != "faces"}
    save_file(tensors, tmp_path / CHECKPOINT, metadata)
    with pytest.warns(UserWarning, match="does not say which faces it was trained on"):
        assert len(train(network(), small, QUICK, folder=tmp_path, resume=True).history) == 2
    with pytest.warns(UserWarning, match="does not say which faces it was trained on"):  # still
        train(network(), small, replace(QUICK, epochs=3), folder=tmp_path, resume=True)


def test_one_run_in_one_folder(tmp_path, small):
    """A second process holds the folder: nothing is read or written before that is known."""
    code = f"""
import sys
from vaelib.faces import load_faces
from vaelib.model import VAE
from vaelib.recipes import TrainConfig
from vaelib.training import TrainingRun
from pathlib import Path
vae, faces = VAE(base_channels=4, latent_channels=8), load_faces("drawn-cartoon", 32, 50)
run = TrainingRun(vae, faces, TrainConfig(), folder=Path({str(tmp_path)!r}))
with run.alone():
    print("alone", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "alone\n"
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"another process trains in .* at this moment: wait until it ends, or"):
            train(network(), small, QUICK, folder=tmp_path, resume=resume)
    assert files(tmp_path) == set()
    other.communicate()
    assert len(train(network(), small, QUICK, folder=tmp_path).history) == 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_network_comes_back_in_the_layout_it_came_in(small, layout):
    vae = network().to(memory_format=layout)
    run = train(vae, small, replace(QUICK, ema=0.9))
    for network_after in (vae, run.model):
        assert network_after.decoder.stages[1][1].weight.is_contiguous(memory_format=layout)
    run.resume(epochs=3)
    if layout == torch.contiguous_format:
        save(vae.state_dict())  # safetensors takes no other


def test_batch_norms_on_apples_gpu_get_contiguous_pictures(small, monkeypatch):
    """PyTorch computes wrong gradients there from others. One rule says so, and all that trains goes by it."""
    assert memory_format(torch.device("mps")) == torch.contiguous_format
    assert {memory_format(torch.device(kind)) for kind in ("cpu", "cuda:1")} == {torch.channels_last}

    seen, forward = [], torch.nn.BatchNorm2d.forward
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda self, x: seen.append(x.clone()) or forward(self, x))
    for module in ("model", "training", "devices", "checkpoints"):
        monkeypatch.setattr(f"vaelib.{module}.memory_format", lambda device: memory_format(torch.device("mps")))
    train(network(), small, replace(QUICK, ema=0.9), test=small)
    assert len(seen) > 100 and all(x.is_contiguous() for x in seen)


# ------------------------------------------------------------------------------------------------- batches, flips


@pytest.mark.parametrize("count, batch_size", [(50, 16), (48, 16), (10, 16), (16, 16), (17, 16), (3, 1)])
def test_batches_cover_the_rows_without_repeats(count, batch_size):
    batches = _batches(count, batch_size)
    rows = torch.cat(batches).tolist()
    assert len(set(rows)) == len(rows), "no face twice in an epoch"
    assert set(rows) <= set(range(count))
    if count < batch_size:
        assert len(rows) == count, "a set smaller than a batch is one batch"
    else:
        assert {len(batch) for batch in batches} == {batch_size}
        assert count - len(rows) < batch_size, "only what fills no batch waits for another epoch"


def test_every_row_comes_up_sooner_or_later():
    torch.manual_seed(0)
    seen = {row for _ in range(30) for batch in _batches(50, 16) for row in batch.tolist()}
    assert seen == set(range(50))


def test_half_of_the_pictures_are_mirrored():
    torch.manual_seed(0)
    x = torch.rand(1000, 3, 2, 4)
    flipped = _flip_half(x)
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    kept = (flipped == x).flatten(1).all(1)
    assert (mirrored ^ kept).all(), "each is one or the other"
    assert 400 < mirrored.sum() < 600


# ---------------------------------------------------------------------------------------------------------- a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])  # the first is what accelerate calls the only one
def test_pictures_that_lie_on_the_device_stay_there(device):
    with FakeTensorMode():  # tensors that only know their shape and device: it needs no GPU
        images, rows = torch.zeros(50, 32, 32, 3, dtype=torch.uint8, device="cuda"), torch.arange(16, device="cuda")
        try:
            images[rows]
        except RuntimeError as error:
            pytest.skip(f"this PyTorch asks the driver even so: {error}")
        x = take(images, rows, torch.device(device))
    assert x.shape == (16, 3, 32, 32) and x.device == images.device


@needs_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_resumes_too(tmp_path, small, device):
    """From disk and in memory. Not the same weights: its kernels add in any order."""
    config = replace(QUICK, epochs=4, ema=0.9)
    whole = train(network(), small, config, test=small, device=device)
    train(network(), small, replace(config, epochs=2), test=small, folder=tmp_path, device=device)
    vae, three = network(seed=99), replace(config, epochs=3)
    resumed = train(vae, small, three, test=small, folder=tmp_path, resume=True, device=device)
    resumed.resume(epochs=4)
    assert next(vae.parameters()).device.type == "cpu"
    assert resumed.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=0.01)


@needs_gpu
def test_a_gpu_takes_pictures_that_do_not_fit_from_memory(small, monkeypatch):
    near = train(network(), small, QUICK, device="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    far = train(network(), small, QUICK, device="cuda")
    for ours, theirs in zip(far.history, near.history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.01)
