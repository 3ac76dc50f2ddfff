import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate

from vaelib import features
from vaelib.drawn import FACTORS, draw_faces
from vaelib.faces import to_float
from vaelib.features import FEATURES, WEIGHTS, FactorNet, face_features, read_labels, score, train_features


@pytest.fixture
def fresh_load():
    """The weights are read once; a test that changes them needs that forgotten before and after."""
    features.load_factor_net.cache_clear()
    yield
    features.load_factor_net.cache_clear()


def test_features_are_one_unit_wide_over_drawn_faces(x):
    x = torch.cat([x, to_float(torch.from_numpy(draw_faces("cartoon", 16)[0]))])
    found = face_features(x, batch_size=5)
    assert (found.shape, found.dtype) == ((32, FEATURES), torch.float32)
    torch.testing.assert_close(found[7:8], face_features(x[7:8]), atol=1e-4, rtol=0)
    assert found.square().mean().item() == pytest.approx(1, abs=0.5)


def test_another_size_is_resized(x):
    doubled = face_features(interpolate(x, scale_factor=2, mode="nearest"))
    near = (doubled - face_features(x)).norm(dim=1)
    apart = torch.pdist(face_features(x)).min()
    assert (near < 0.5 * apart).all()


def test_the_first_look_takes_no_random_numbers(fresh_load):
    before = torch.get_rng_state()
    features.load_factor_net()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("style", FACTORS)
def test_the_shipped_weights_tell_factors_of_unseen_faces(style):
    net = features.load_factor_net()
    found = score(net, style, count=200, seed=5)
    assert list(found) == list(FACTORS[style])
    for name in ("hair", "mouth", "eyes"):
        assert found[name] > 0.65, name  # by guessing: at most 1 in 4
    for name in ("skin", "tilt", "face_width", "smile"):
        assert found[name] > 0.65, name  # by guessing: 0
    shipped = json.loads((WEIGHTS / "scores.json").read_text())[style]
    assert np.mean(list(found.values())) == pytest.approx(np.mean(list(shipped.values())), abs=0.05)


def test_targets_turn_hues_into_angles():
    labels = {"hair": np.array(["bob", "long"]), "hair_hue": np.float32([0, 0.25]), "tilt": np.float32([-12, 12])}
    targets = features._targets("anime", labels)
    choices = FACTORS["anime"]["hair"].choices
    assert targets["hair"].tolist() == [choices.index("bob"), choices.index("long")]
    torch.testing.assert_close(targets["hair_hue"], 2**0.5 * torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(targets["tilt"], torch.tensor([[-(3**0.5)], [3**0.5]]))


def test_an_augmented_face_is_a_face_and_knows_its_blur(x):
    torch.manual_seed(0)
    y, blur = features._augment(x.repeat(8, 1, 1, 1))
    assert (y.shape, blur.shape) == ((128, 3, 64, 64), (128, 1))
    assert y.min() >= -1e-5 and y.max() <= 1 + 1e-5
    detail = (y[..., 1:] - y[..., :-1]).abs().mean((1, 2, 3))
    assert torch.corrcoef(torch.stack([detail, blur[:, 0]]))[0, 1] < -0.5


def test_training_repeats():
    first, again = (train_features(count=32, epochs=1, batch_size=16, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_training_learns():
    net = train_features(count=128, epochs=4, batch_size=16)
    found = score(net, "anime", count=64)
    assert found["tilt"] > 0.2 and found["hair_light"] > 0.2  # by guessing: 0


def test_the_command_writes_what_is_loaded(tmp_path, monkeypatch, fresh_load, x):
    monkeypatch.setattr(features, "WEIGHTS", tmp_path / "weights")
    torch.manual_seed(0)
    net = FactorNet().eval()
    monkeypatch.setattr(features, "train_features", lambda: net)
    monkeypatch.setattr(features, "score", lambda net, style: {"hair": 0.5})
    features.main()
    written = load_file(tmp_path / "weights" / "model.safetensors")
    assert {value.dtype for value in written.values()} == {torch.float16, torch.int64}
    assert (tmp_path / "weights" / "model.safetensors").stat().st_size < 1_000_000
    with torch.no_grad():
        torch.testing.assert_close(face_features(x), net(x), atol=0.01, rtol=0)


@pytest.mark.parametrize("damage", ["truncated", "another net", "missing"])
def test_damaged_weights(tmp_path, monkeypatch, fresh_load, damage, x):
    path = tmp_path / "model.safetensors"
    if damage == "truncated":
        path.write_bytes((WEIGHTS / "model.safetensors").read_bytes()[:1000])
    elif damage == "another net":
        save_file({"weight": torch.zeros(1)}, path)
    monkeypatch.setattr(features, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match=f"the weights in {tmp_path} are damaged"):
        face_features(x)


@pytest.mark.parametrize("style", FACTORS)
def test_labels_are_read_in_the_form_in_which_faces_are_drawn(style):
    images, labels = draw_faces(style, 100, 64, seed=8)
    read = read_labels(to_float(torch.from_numpy(images)), style)
    assert list(read) == list(labels)
    for name, values in labels.items():
        assert read[name].shape == values.shape and read[name].dtype.kind == values.dtype.kind
    assert (read["hair"] == labels["hair"]).mean() > 0.9
    tilts = FACTORS[style]["tilt"]
    assert np.abs(read["tilt"] - labels["tilt"]).mean() < 0.1 * (tilts.high - tilts.low)
    turns = np.abs(read["eye_hue"] - labels["eye_hue"])
    assert np.minimum(turns, 1 - turns).mean() < 0.15  # a quarter, by chance


def test_labels_of_an_unknown_style():
    with pytest.raises(ValueError, match="style='manga' is not one of anime, cartoon"):
        read_labels(torch.rand(1, 3, 64, 64), "manga")
