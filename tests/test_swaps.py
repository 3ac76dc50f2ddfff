"""Choices that are swapped in latents made by hand, where what each stands for is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vaelib.latents import NamedAxes, fit_attributes
from vaelib.swaps import MOST_CHOICES


@pytest.fixture(scope="module")
def labelled() -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """2,000 latents (4, 2, 2). Long hair adds to number 0 and spiky to 1; long hair is red in 2 where it is warm."""
    rng = np.random.default_rng(0)
    hair = rng.choice(["bald", "long", "spiky"], 2000)
    warm, smile = rng.uniform(-1, 1, (2, 2000)).astype(np.float32)
    z = 0.05 * rng.normal(size=(2000, 16))
    z[:, 0] += hair == "long"
    z[:, 1] += hair == "spiky"
    z[:, 2] += (hair == "long") * warm
    z[:, 3] += warm
    z[:, 4] += smile
    return torch.from_numpy(z).float().reshape(2000, 4, 2, 2), {"hair": hair, "warm": warm, "smile": smile}


@pytest.fixture(scope="module")
def axes(labelled):
    return fit_attributes(*labelled)


def test_the_new_choice_comes_in_and_the_old_one_goes(axes):
    z = torch.zeros(2, 16)
    z[:, 0] = 1.0  # long hair, cold and warm
    z[:, 2] = z[:, 3] = torch.tensor([-0.8, 0.8])
    z[:, 4] = 0.5
    swapped = axes.swaps.swap(z.reshape(2, 4, 2, 2), "hair", "spiky").flatten(1)
    expected = torch.zeros(2, 16)
    expected[:, 1], expected[:, 3], expected[:, 4] = 1.0, z[:, 3], 0.5
    torch.testing.assert_close(swapped, expected, atol=0.12, rtol=0)


def test_what_a_choice_adds_depends_on_the_rest_of_the_face(axes):
    z = torch.zeros(2, 16)
    z[:, 3] = torch.tensor([-0.8, 0.8])
    added = axes.swaps.swap(z.reshape(2, 4, 2, 2), "hair", "long").flatten(1) - z
    torch.testing.assert_close(added[:, 2], torch.tensor([-0.8, 0.8]), atol=0.15, rtol=0)
    torch.testing.assert_close(added[:, 0], torch.ones(2), atol=0.12, rtol=0)


def test_a_choice_that_is_there_changes_nothing(axes, labelled):
    z = labelled[0][labelled[1]["hair"] == "long"][:5]
    torch.testing.assert_close(axes.swaps.swap(z, "hair", "long"), z)


def test_menus_are_the_texts_that_vary(labelled):
    z, labels = labelled
    assert fit_attributes(z, labels).swaps.menus == {"hair": ["bald", "long", "spiky"]}
    assert fit_attributes(z, {"smile": labels["smile"]}).swaps is None
    names = np.array([f"face {number % (MOST_CHOICES + 1)}" for number in range(2000)])
    assert fit_attributes(z, {"name": names}).swaps is None, "a menu of more choices than anybody reads"
    assert fit_attributes(z, {"hair_style": labels["hair"]}).swaps.menus == {"hair style": ["bald", "long", "spiky"]}


def test_unknown_choices(axes, labelled):
    for label, choice in (("hair", "green"), ("beard", "long")):
        with pytest.raises(ValueError, match=f"got {label}={choice}, expected one of the choices .*'spiky'"):
            axes.swaps.swap(labelled[0], label, choice)


def test_swaps_are_saved_with_their_axes(axes, labelled):
    loaded = NamedAxes.load(axes.to_bytes())
    torch.testing.assert_close(loaded.limits, axes.limits)
    z = labelled[0][:9]
    torch.testing.assert_close(
        loaded.swaps.swap(z, "hair", "long"), axes.swaps.swap(z, "hair", "long"), atol=1e-2, rtol=0
    )
    assert axes.pick("smile").swaps is None
    vast = replace(axes, swaps=replace(axes.swaps, slopes=1e6 * axes.swaps.slopes))  # of a network just begun
    torch.testing.assert_close(NamedAxes.load(vast.to_bytes()).swaps.slopes, vast.swaps.slopes, rtol=4e-3, atol=0)


def test_a_label_gets_another_name(axes, labelled):
    renamed = axes.swaps.renamed("hair", "style")
    assert list(renamed.menus) == ["style"]
    assert torch.equal(renamed.swap(labelled[0], "style", "bald"), axes.swaps.swap(labelled[0], "hair", "bald"))


@pytest.mark.parametrize(
    "name, spoilt",
    [
        ("choices", torch.tensor(list(b"[]"), dtype=torch.uint8)),
        ("choices", torch.tensor(list(b'[["hair", "long", 99]]'), dtype=torch.uint8)),
        ("slopes", torch.zeros(3, 5, 15)),
        ("bases", torch.full((3, 16), torch.nan)),
        ("limits", torch.zeros(5)),
    ],
)
def test_damaged_swaps_are_refused(axes, name, spoilt):
    import safetensors.torch

    tensors = safetensors.torch.load(axes.to_bytes())
    assert name in tensors
    with pytest.raises(ValueError, match="the file holds no named axes"):
        NamedAxes.load(safetensors.torch.save(tensors | {name: spoilt}))
