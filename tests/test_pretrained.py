import copy
import hashlib
import json
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vaelib import pretrained
from vaelib.faces import Faces
from vaelib.latents import encode_faces, fit_attributes, fit_pca
from vaelib.model import DenseVAE
from vaelib.pretrained import Bundle, load_pretrained, make_bundle, shipped
from vaelib.priors import FlowPrior

NO_PICKLE = {".safetensors", ".json", ".md"}


@pytest.fixture
def bundle(tiny_vae, faces) -> Bundle:
    return make_bundle(tiny_vae, faces, {"recipe": "none", "scores": {"psnr": 12.5}})


def test_a_bundle_knows_what_it_holds(bundle, faces):
    assert bundle.card == {
        "model": "VAE",
        "image_size": 64,
        "faces": "drawn-anime",
        "recipe": "none",
        "scores": {"psnr": 12.5},
    }
    assert not bundle.vae.training
    expected = fit_pca(encode_faces(bundle.vae, faces).mean, 12)
    torch.testing.assert_close(bundle.axes.directions, expected.directions)


def test_its_priors_are_the_published_ones(bundle):
    priors = bundle.priors
    assert {name: prior.scale for name, prior in priors.items()} == {"normal": 1.0, "wide": 2.0, "exponential": 0.7}
    for prior in priors.values():
        z = prior.sample(2, torch.Generator().manual_seed(0))
        assert bundle.vae.decode(z).shape == (2, 3, 64, 64)


def test_save_and_load_bit_for_bit_without_a_network(tmp_path, monkeypatch, bundle):
    monkeypatch.setattr(socket, "socket", lambda *args, **options: pytest.fail("no network needed"))
    assert bundle.save(tmp_path / "mine") == tmp_path / "mine"
    loaded = load_pretrained(tmp_path / "mine")
    assert loaded.card == bundle.card
    assert loaded.vae.state_dict().keys() == bundle.vae.state_dict().keys()
    assert all(torch.equal(value, loaded.vae.state_dict()[name]) for name, value in bundle.vae.state_dict().items())
    assert all(torch.equal(value, vars(loaded.axes)[name]) for name, value in vars(bundle.axes).items())
    assert not loaded.vae.training
    assert {path.suffix for path in (tmp_path / "mine").iterdir()} <= NO_PICKLE


def test_a_dense_network_too(tmp_path, faces):
    small = DenseVAE(image_size=64, latent_dim=5)
    make_bundle(small, faces, {}).save(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert isinstance(loaded.vae, DenseVAE)
    assert len(loaded.axes) == 5, "five latents have no twelve axes"
    z = torch.randn(2, 5)
    assert torch.equal(loaded.vae.decode(z), small.decode(z))


def test_few_faces_give_few_axes(tiny_vae, faces):
    assert len(make_bundle(tiny_vae, faces.select(range(6)), {}).axes) == 5


def test_float16_halves_the_file_and_hardly_changes_the_faces(tmp_path, bundle, x):
    bundle.save(tmp_path / "full")
    bundle.save(tmp_path / "half", torch.float16)
    full, half = (tmp_path / name / "model.safetensors" for name in ("full", "half"))
    assert half.stat().st_size < 0.6 * full.stat().st_size
    loaded = load_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.vae.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in bundle.vae.parameters()} == {torch.float32}, "the bundle stays as it was"
    for name, value in bundle.vae.state_dict().items():
        torch.testing.assert_close(loaded.vae.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        faces, expected = (vae.decode(vae.encode(x).mean) for vae in (loaded.vae, bundle.vae))
    torch.testing.assert_close(faces, expected, atol=0.01, rtol=0)


def test_int8_is_a_quarter_of_the_file_and_hardly_changes_the_faces(tmp_path, bundle, x):
    """Its card lists the file that it has, and one that was there before goes."""
    bundle.save(tmp_path)
    full = (tmp_path / "model.safetensors").stat().st_size
    bundle.save(tmp_path, torch.int8)
    assert not (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "model-int8.safetensors").stat().st_size < 0.4 * full  # tiny: names and biases weigh, too
    loaded = load_pretrained(tmp_path)
    for name, value in bundle.vae.state_dict().items():
        if value.ndim > 1:  # rounded to 255 steps of its channel's range
            half_a_step = value.flatten(1).abs().amax(1) / 127 / 2
            assert ((loaded.vae.state_dict()[name] - value).flatten(1).abs().amax(1) <= 1.001 * half_a_step).all()
        else:
            assert torch.equal(loaded.vae.state_dict()[name], value)
    with torch.no_grad():
        faces, expected = (vae.decode(vae.encode(x).mean) for vae in (loaded.vae, bundle.vae))
    torch.testing.assert_close(faces, expected, atol=0.02, rtol=0)


def test_a_sharpened_decoder_shares_all_else_with_the_bundle_it_comes_from(tmp_path):
    base = load_pretrained("drawn-anime")
    sharp = replace(base, vae=copy.deepcopy(base.vae), card=base.card | {"recipe": "sharpened"})
    with torch.no_grad():
        sharp.vae.decoder.head.weight.mul_(1.5)
    loaded = load_pretrained(sharp.save_decoder(tmp_path, "drawn-anime"))
    assert {path.name for path in tmp_path.iterdir()} == {"card.json", "decoder-int8.safetensors"}
    assert loaded.card == sharp.card, "the card tells of the model, not of how it is stored"
    torch.testing.assert_close(loaded.axes.directions, base.axes.directions)
    assert list(loaded.priors) == list(base.priors)
    z = base.priors["flow"].sample(4, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        faces, expected, before = (vae.decode(z) for vae in (loaded.vae, sharp.vae, base.vae))
    assert (faces - expected).abs().mean() < 0.01 < (faces - before).abs().mean()

    with torch.no_grad():
        sharp.vae.encoder.head.bias.add_(1)
    with pytest.raises(ValueError, match="another encoder than 'drawn-anime'"):
        sharp.save_decoder(tmp_path, "drawn-anime")


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_a_sharpened_bundle_that_is_saved_whole_opens(tmp_path, dtype):
    sharp = load_pretrained("drawn-anime-sharp")
    loaded = load_pretrained(sharp.save(tmp_path, dtype))
    assert loaded.card == sharp.card
    z = sharp.priors["flow"].sample(2, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(loaded.vae.decode(z), sharp.vae.decode(z), atol=0.01, rtol=0)


def test_one_whose_card_names_a_base_beside_a_whole_model_opens_too(tmp_path):
    """As an earlier version wrote it."""
    sharp = load_pretrained("drawn-anime-sharp")
    replace(sharp, card=sharp.card | {"base": "drawn-anime"}).save(tmp_path)
    assert json.loads((tmp_path / "card.json").read_text())["base"] == "drawn-anime"
    loaded = load_pretrained(tmp_path)
    assert torch.equal(loaded.vae.decoder.head.weight, sharp.vae.decoder.head.weight)


def test_a_decoder_on_a_base_that_does_not_ship(tmp_path):
    base = load_pretrained("drawn-anime")
    base.save_decoder(tmp_path, "drawn-anime")
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"base": str(tmp_path)}))  # itself: no end of opening
    with pytest.raises(ValueError, match=r"damaged \(it stands on .*, expected a bundle that ships"):
        load_pretrained(tmp_path)


def test_attributes_come_from_labels_and_travel_with_the_bundle(tmp_path, bundle, tiny_vae, faces):
    loaded = load_pretrained(bundle.save(tmp_path / "labelled")).attributes
    expected = fit_attributes(encode_faces(tiny_vae, faces).mean, faces.labels)
    assert loaded.names == expected.names
    assert torch.equal(loaded.directions, expected.directions) and torch.equal(loaded.scales, expected.scales)
    unlabelled = make_bundle(tiny_vae, Faces(faces.images, "mine"), {}).attributes
    assert set(unlabelled.names) == {"hair lightness", "hair warmth", "skin lightness", "skin warmth"}


def test_faces_that_are_all_alike_have_no_attributes(tmp_path, tiny_vae):
    grey = Faces(np.full((4, 64, 64, 3), 99, np.uint8), "grey")
    assert load_pretrained(make_bundle(tiny_vae, grey, {}).save(tmp_path)).attributes is None


def test_fitted_priors_travel_with_the_bundle(tmp_path, tiny_vae, faces):
    bundle = make_bundle(tiny_vae, faces, {}, flow_steps=3)
    assert list(bundle.priors) == ["normal", "wide", "exponential", "gaussian", "mixture", "flow"]
    loaded = load_pretrained(bundle.save(tmp_path))
    for name, prior in bundle.priors.items():
        mine, theirs = (kind.sample(4, torch.Generator().manual_seed(1)) for kind in (prior, loaded.priors[name]))
        torch.testing.assert_close(theirs, mine, atol=0.01, rtol=0.01)  # kept in float16
        assert bundle.vae.decode(mine).shape == (4, 3, 64, 64)


def test_its_flow_can_be_asked_for_the_faces_labels(tmp_path, tiny_vae, faces):
    loaded = load_pretrained(make_bundle(tiny_vae, faces, {}, flow_steps=3).save(tmp_path))
    flow = loaded.priors["flow"]
    assert list(flow.questions.factors) == list(faces.labels)
    z = flow.sample(4, torch.Generator().manual_seed(1), {"hair": "twintails", "smile": 0.5}, guidance=2.0)
    assert loaded.vae.decode(z).shape == (4, 3, 64, 64)
    with pytest.raises(ValueError, match="hair='pigtails' is not one of bob, buns, long"):
        flow.sample(1, asked={"hair": "pigtails"})


def test_without_labels_it_can_be_asked_for_measured_colours(tmp_path, tiny_vae, faces):
    unlabelled = Faces(faces.images)
    flow = make_bundle(tiny_vae, unlabelled, {}, flow_steps=3).priors["flow"]
    assert list(flow.questions.factors) == ["hair lightness", "hair warmth", "skin lightness", "skin warmth"]


def test_bundles_whose_flow_can_not_be_asked_still_open(tmp_path, tiny_vae, faces):
    alike = Faces(np.full((12, 64, 64, 3), 128, np.uint8))
    bundle = make_bundle(tiny_vae, alike, {}, flow_steps=3)
    assert type(load_pretrained(bundle.save(tmp_path)).priors["flow"]) is FlowPrior


@pytest.mark.parametrize("file", [f"{name}.safetensors" for name in ("model", "axes", "attributes", "priors")])
def test_one_wrong_bit_is_noticed(tmp_path, tiny_vae, faces, file):
    path = make_bundle(tiny_vae, faces, {}, flow_steps=3).save(tmp_path) / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"is damaged \\({file} is not what was saved\\): install or train it again"):
        load_pretrained(tmp_path)


def test_saving_again_replaces_the_first(tmp_path, bundle):
    bundle.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    newer = replace(bundle, card=bundle.card | {"recipe": "another"})
    newer.save(tmp_path)
    assert load_pretrained(tmp_path).card["recipe"] == "another"
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing temporary stays"


@pytest.mark.parametrize("name", ["no-such-model", "~/no/such/folder", "empty"])
def test_an_unknown_name_says_which_there_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no bundle called '{name}': those that ship are") as error:
        load_pretrained(name)
    assert all(known in str(error.value) for known in shipped())


@pytest.mark.parametrize("file", ["model.safetensors", "axes.safetensors", "attributes.safetensors", "card.json"])
@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing"])
def test_damaged_files(tmp_path, bundle, file, damage):
    path = bundle.save(tmp_path) / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"[1]", "empty": b""}[damage])
    no_card = (file, damage) == ("card.json", "missing")
    with pytest.raises(
        FileNotFoundError if no_card else ValueError, match="no bundle called" if no_card else "damaged"
    ):
        load_pretrained(tmp_path)


def change(folder: Path, file: str, **tensors: torch.Tensor) -> None:
    """Put other tensors into a bundle's file, in a way that its digests agree with."""
    save_file(load_file(folder / file) | tensors, folder / file)
    card = json.loads((folder / "card.json").read_text())
    card["sha256"][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


def names(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    "file, tensors, message",
    [
        ("axes", {"mean": torch.zeros(3, 2, 2)}, "axes: mean: got float32 \\(3, 2, 2\\)"),
        ("axes", {"mean": torch.zeros(8, 2, 2, dtype=torch.complex64)}, "axes: mean: got complex64"),
        ("axes", {"scales": torch.ones(12, dtype=torch.bool)}, "axes: scales: got bool"),
        ("axes", {"scales": torch.full((12,), torch.nan)}, "axes: scales: .* 12 of its numbers not finite"),
        ("axes", {"more": torch.zeros(1)}, "more"),
        ("attributes", {"names": names("[1, 2]")}, "its names are \\(1, 2\\), expected different texts"),
        ("attributes", {"names": names('["a", "a"]')}, "expected different texts"),
        ("attributes", {"names": names("null")}, "holds no named axes"),
        ("attributes", {"names": names('{"a": 1}')}, "directions: got"),
        ("priors", {"gaussian.mean": torch.zeros(9, 2, 2)}, "gaussian.factor: got float32 .* \\(36, 36\\)"),
        ("priors", {"mixture.weights": torch.ones(2)}, "mixture.weights: got float32 \\(2,\\)"),
        ("priors", {"mixture.weights": torch.full((1,), -1.0)}, "weights that add to -1"),
        ("priors", {"flow.spread": torch.zeros(32)}, "flow.spread: got numbers that are not above 0"),
        ("priors", {"flow.center": torch.zeros(31)}, "flow.center: got"),
        ("model", {"decoder.head.bias": torch.tensor([0, 0, torch.inf])}, "decoder.head.bias holds numbers"),
        (
            "model",
            {"decoder.head.bias": torch.zeros(3, dtype=torch.complex64)},
            "decoder.head.bias: got torch.complex64",
        ),
        ("model", {"decoder.head.bias": torch.zeros(3, dtype=torch.int32)}, "decoder.head.bias: got torch.int32"),
        ("model", {"encoder.stem.1.running_var": -torch.ones(4)}, "encoder.stem.1.running_var holds .* below 0"),
        ("axes", {"scales": -torch.ones(12)}, "axes: got none, or scales below 0"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, tiny_vae, faces, file, tensors, message):
    make_bundle(tiny_vae, faces, {}, flow_steps=3).save(tmp_path)
    change(tmp_path, f"{file}.safetensors", **tensors)
    with pytest.raises(ValueError, match=f"is damaged.*{message}"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"faces": 7}, {"faces": None}, {"sha256": {}}, {"sha256": {"../b": "c"}}])
def test_a_card_that_names_other_things(tmp_path, bundle, change):
    bundle.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(ValueError, match="is damaged"):
        load_pretrained(tmp_path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless device here")
def test_an_endless_file(tmp_path, bundle):
    path = bundle.save(tmp_path) / "model.safetensors"
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"model.safetensors is no ordinary file"):
        load_pretrained(tmp_path)


def test_scales_of_another_rank(tmp_path, bundle):
    bundle.save(tmp_path, torch.int8)
    change(tmp_path, "model-int8.safetensors", **{"decoder.head.weight.scale": torch.ones(3, 1)})
    with pytest.raises(ValueError, match=r"decoder.head.weight.scale: got float32 \(3, 1\)"):
        load_pretrained(tmp_path)


def test_float64_is_taken_as_float32(tmp_path, bundle):
    bundle.save(tmp_path)
    change(tmp_path, "axes.safetensors", scales=bundle.axes.scales.double())
    assert load_pretrained(tmp_path).axes.scales.dtype == torch.float32


def test_a_list_of_tensors_beyond_reason_is_not_read(tmp_path, bundle):
    path = bundle.save(tmp_path) / "axes.safetensors"
    header = b"{" + b" " * 20_000_000 + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    change_digest = json.loads((tmp_path / "card.json").read_text())
    change_digest["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps(change_digest))
    with pytest.raises(ValueError, match="lists its tensors in 20,000,002 bytes, expected at most 8,000,000"):
        load_pretrained(tmp_path)


def test_a_card_beyond_reason_is_not_read(tmp_path, bundle):
    (bundle.save(tmp_path) / "card.json").write_text(" " * 5_000_000)
    with pytest.raises(ValueError, match=r"card.json is larger than 4,000,000 bytes"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"model": "GAN"}, {"model": "DenseVAE"}, {"model": None}])
def test_a_card_of_another_model(tmp_path, bundle, change):
    bundle.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(ValueError, match="is damaged"):
        load_pretrained(tmp_path)


def test_a_damaged_config(tmp_path, bundle):
    (bundle.save(tmp_path) / "config.json").write_text('{"base_channels": 6}')
    with pytest.raises(ValueError, match="is damaged"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", shipped())
def test_what_ships_loads_by_name_and_makes_faces(name, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *args, **options: pytest.fail("no network needed"))
    bundle = load_pretrained(name)
    assert len(bundle.axes) == 12
    with torch.no_grad():
        mean_face, other = bundle.vae.decode(bundle.axes.latents(torch.tensor([[0.0] * 12, [2.0] + [0.0] * 11])))
    assert mean_face.shape == (3, bundle.image_size, bundle.image_size)
    assert mean_face.std() > 0.05, "a face, not a flat colour"
    assert (mean_face - other).abs().mean() > 0.01, "the first axis moves it"


def test_no_pickle_ships():
    files = [path for path in Path(pretrained.SHIPPED).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= NO_PICKLE
    assert all(path.read_bytes()[:2] != b"PK" for path in files)  # torch.save writes a zip
