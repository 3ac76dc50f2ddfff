import pytest
import torch

from vaelib.devices import default_device, describe_device, find_device


@pytest.mark.parametrize(("best", "expected"), [("cuda:1", "cuda:1"), ("cpu", "cpu"), ("mps", "cpu")])
def test_only_devices_that_were_compared_are_taken_unasked(best, expected):
    assert default_device(torch.device(best)) == torch.device(expected)


def test_the_default_is_a_device_that_is_here():
    assert find_device(default_device()) == default_device()


def test_who_asks_for_apples_gpu_is_told_that_nobody_compared_it(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *shape, device: torch.zeros(*shape))  # as if it were here
    with pytest.warns(UserWarning, match="nobody has compared training on Apple's GPU"):
        assert find_device("mps").type == "mps"


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [
        (False, False, "cpu (PyTorch finds no GPU here)"),
        (False, True, "cpu (Apple's GPU was not compared with it: --device mps takes it)"),
        (True, False, "cpu"),
    ],
)
def test_a_log_says_why_it_was_taken(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert describe_device(torch.device("cpu")) == expected


@pytest.mark.parametrize("device", ["toaster", "cuda:99", "meta"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match=f"got device '{device}', expected one that is here: cpu"):
        find_device(device)
