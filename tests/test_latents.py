import numpy as np
import pytest
import torch

from vaelib.drawn import draw_faces
from vaelib.latents import (
    NamedAxes,
    between,
    encode_faces,
    fit_attributes,
    fit_attributes_of,
    fit_pca,
    interpolate,
    measure_colours,
)


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """500 latents (2, 3, 2) with a different spread in each of twelve oblique directions, away from the origin."""
    generator = torch.Generator().manual_seed(0)
    oblique, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
    spread = torch.linspace(4, 0.2, 12)
    z = torch.randn(500, 12, generator=generator) * spread @ oblique + 3
    return z.reshape(500, 2, 3, 2)


def test_axes_are_the_singular_vectors(latents):
    axes = fit_pca(latents, 5)
    flat = latents.flatten(1).double().numpy()
    _, singular, vectors = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    cosines = axes.directions.flatten(1).numpy() @ vectors[:5].T
    np.testing.assert_allclose(np.abs(cosines), np.eye(5), atol=1e-5)
    np.testing.assert_allclose(axes.scales, singular[:5] / np.sqrt(499), rtol=1e-5)
    np.testing.assert_allclose(axes.explained, (singular**2 / (singular**2).sum())[:5], rtol=1e-5)
    np.testing.assert_allclose(axes.mean.flatten(), flat.mean(0), rtol=1e-5)
    assert len(axes) == 5 and axes.mean.shape == (2, 3, 2) and axes.directions.shape == (5, 2, 3, 2)
    assert {tensor.dtype for tensor in vars(axes).values()} == {torch.float32}


def test_signs_do_not_depend_on_the_order_of_the_data(latents):
    first, second = fit_pca(latents, 5), fit_pca(latents.flip(0), 5)
    torch.testing.assert_close(first.directions, second.directions, atol=1e-5, rtol=1e-5)
    flat = first.directions.flatten(1)
    assert (flat.gather(1, flat.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_weight_is_one_standard_deviation_of_the_data(latents):
    weights = fit_pca(latents, 6).weights(latents)
    torch.testing.assert_close(weights.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(weights.std(0), torch.ones(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.corrcoef(weights.T), torch.eye(6), atol=1e-4, rtol=0)


def test_weights_and_latents_are_each_others_inverse(latents):
    axes = fit_pca(latents, 5)
    weights = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(axes.weights(axes.latents(weights)), weights, atol=1e-5, rtol=1e-4)

    every = fit_pca(latents, 12)  # with all twelve axes nothing of a latent is lost
    torch.testing.assert_close(every.latents(every.weights(latents)), latents, atol=1e-4, rtol=1e-4)


def test_weight_zero_is_the_mean(latents):
    axes = fit_pca(latents, 5)
    torch.testing.assert_close(axes.latents(torch.zeros(2, 5)), axes.mean.expand(2, 2, 3, 2))
    step = axes.latents(torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]])) - axes.mean
    torch.testing.assert_close(step[0], axes.directions[1] * axes.scales[1])


@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 3, 5)])
def test_weights_of_another_shape(latents, shape):
    with pytest.raises(ValueError, match=r"got weights of shape .*, expected \(batch, 5\)"):
        fit_pca(latents, 5).latents(torch.zeros(shape))


@pytest.mark.parametrize("rows, count, most", [(500, 0, 12), (500, 13, 12), (5, 5, 4)])
def test_more_axes_than_there_are(latents, rows, count, most):
    with pytest.raises(ValueError, match=f"got count={count}, expected 1 to {most} for latents"):
        fit_pca(latents[:rows], count)


def test_interpolate_goes_straight_from_end_to_end():
    start, end = torch.randn(2, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    line = interpolate(start, end, 5)
    assert line.shape == (5, 8, 2, 2)
    assert torch.equal(line[0], start) and torch.equal(line[-1], end)
    torch.testing.assert_close(line[2], (start + end) / 2)
    torch.testing.assert_close(line.diff(dim=0), ((end - start) / 4).expand(4, 8, 2, 2), atol=1e-5, rtol=1e-5)


def test_interpolate_wants_equal_shapes():
    with pytest.raises(ValueError, match=r"got latents of shapes \(8,\) and \(9,\), expected equal ones"):
        interpolate(torch.zeros(8), torch.zeros(9), 3)


def test_the_arc_keeps_the_length_where_the_line_loses_it():
    start, end = torch.eye(8)[:2] * 3
    line, arc = interpolate(start, end, 5), interpolate(start, end, 5, spherical=True)
    torch.testing.assert_close(arc[[0, -1]], line[[0, -1]])
    torch.testing.assert_close(arc.norm(dim=1), torch.full((5,), 3.0))
    assert line[2].norm() < 2.2
    angles = torch.cosine_similarity(arc[:-1], arc[1:]).acos()
    torch.testing.assert_close(angles, torch.full((4,), torch.pi / 8))


@pytest.mark.parametrize("factor", [2.0, -1.0, 0.0])
def test_where_there_is_no_arc_the_way_is_straight(factor):
    start = torch.randn(8, 2, 2, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.0, 0.3, 1.0])
    arc = between(start, factor * start, shares, spherical=True)
    torch.testing.assert_close(arc, between(start, factor * start, shares))


# ------------------------------------------------------------------------------------------------ attributes


@pytest.fixture(scope="module")
def labelled() -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """1,000 latents (4, 2, 2): `smile` moves them by 2 in one direction for each unit, glasses by 1 in another."""
    rng = np.random.default_rng(0)
    smile = rng.uniform(0, 1, 1000).astype(np.float32)
    glasses = np.where(rng.uniform(size=1000) < 0.2 + 0.6 * smile, "round", "none")  # who smiles wears them more often
    z = 0.1 * rng.normal(size=(1000, 16))
    z[:, 3] += 2 * smile
    z[:, 7] += glasses == "round"
    return torch.from_numpy(z).float().reshape(1000, 4, 2, 2), {"smile": smile, "glasses": glasses}


def test_an_attribute_changes_one_label_and_lets_the_others_be(labelled):
    axes = fit_attributes(*labelled)
    assert axes.names == ("smile", "glasses=none", "glasses=round")
    smile, none, some = axes.directions.flatten(1)
    assert smile[3] > 0.99 and some[7] > 0.99 and none[7] < -0.99  # although both labels go together
    assert axes.scales[0] == pytest.approx(2 * labelled[1]["smile"].std(), rel=0.05)
    torch.testing.assert_close(axes.directions.flatten(1).norm(dim=1), torch.ones(3))


def test_what_labels_leave_open_is_not_moved():
    """The columns of a text add up to a constant, so many directions fit equally well: the shortest, no other."""
    rng = np.random.default_rng(0)
    hair = rng.choice(["bald", "long", "spiky"], 600)
    z = 0.1 * rng.normal(size=(600, 8))
    for place, style in enumerate(("bald", "long", "spiky")):
        z[:, place] += 3 * (hair == style)
    axes = fit_attributes(torch.from_numpy(z).reshape(600, 2, 2, 2), {"hair": hair})
    x = np.stack([hair == name.removeprefix("hair=") for name in axes.names], 1)
    expected = np.linalg.pinv((x - x.mean(0)) / x.std(0), rcond=1e-6) @ (z - z.mean(0))
    torch.testing.assert_close(axes.offsets(torch.eye(3)).flatten(1), torch.from_numpy(expected).float())


def test_limits_hold_all_but_the_last_faces_at_each_end(latents, labelled):
    axes = fit_pca(latents, 5)
    inside = (axes.weights(latents) >= axes.limits[:, 0]) & (axes.weights(latents) <= axes.limits[:, 1])
    torch.testing.assert_close(inside.float().mean(0), torch.full((5,), 0.98), atol=0.005, rtol=0)
    named = fit_attributes(*labelled)
    low, high = named.limits[named.names.index("smile")].tolist()
    assert (low, high) == (pytest.approx(-1.7, abs=0.1), pytest.approx(1.7, abs=0.1))  # a uniform label
    glasses = labelled[1]["glasses"] == "round"
    no, yes = named.limits[named.names.index("glasses=round")].tolist()
    assert (no, yes) == pytest.approx(((0 - glasses.mean()) / glasses.std(), (1 - glasses.mean()) / glasses.std()))


def test_weights_move_along_the_directions(labelled):
    axes = fit_attributes(*labelled)
    moved = axes.offsets(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -2.0]]))
    torch.testing.assert_close(moved[0], axes.directions[0] * axes.scales[0])
    torch.testing.assert_close(moved[1], -2 * axes.directions[2] * axes.scales[2])
    with pytest.raises(ValueError, match=r"got weights of shape \(1, 2\), expected \(batch, 3\)"):
        axes.offsets(torch.zeros(1, 2))


def test_a_hue_goes_round():
    hue = np.linspace(0, 1, 400, endpoint=False)
    circle = torch.from_numpy(np.stack([np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)], 1)).float()
    axes = fit_attributes(circle, {"eye_hue": hue})
    assert sorted(axes.names) == ["eye: red", "eye: yellow"]
    torch.testing.assert_close(axes.pick("eye: red", "eye: yellow").directions, torch.eye(2), atol=1e-5, rtol=0)


def test_labels_that_can_not_be_used(labelled):
    z, labels = labelled
    assert fit_attributes(z, labels | {"same": np.ones(1000)}).names == fit_attributes(z, labels).names
    with pytest.raises(ValueError, match=r"got no label that varies among 1000 faces; there were: same"):
        fit_attributes(z, {"same": np.ones(1000)})
    with pytest.raises(ValueError, match=r"got 1000 latents and labels of other lengths: \{'short': 3\}"):
        fit_attributes(z, {"short": np.ones(3)})
    with pytest.raises(ValueError, match="not finite numbers: age"):
        fit_attributes(z, {"age": np.where(np.arange(1000) == 5, np.nan, 1)})


def test_orthogonal_axes_are_near_the_fitted_ones():
    oblique = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2, 0, 0], [0.2, 1, 0, 0], [0, 0.3, 1, 0]]))
    axes = NamedAxes(("a", "b", "c"), oblique.reshape(3, 1, 2, 2), torch.tensor([1.0, 2.0, 3.0]))
    right = axes.orthogonal()
    flat = right.directions.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(3), atol=1e-6, rtol=0)
    assert ((flat * oblique).sum(1) > 0.95).all()
    assert right.names == axes.names and torch.equal(right.scales, axes.scales)
    with pytest.raises(ValueError, match="got 5 axes in 4 dimensions, which can't be at right angles: pick fewer"):
        NamedAxes(tuple("abcde"), torch.randn(5, 4), torch.ones(5)).orthogonal()


def test_axes_can_be_picked_by_name(labelled):
    axes = fit_attributes(*labelled)
    one = axes.pick("glasses=round")
    assert one.names == ("glasses=round",) and torch.equal(one.directions[0], axes.directions[2])
    with pytest.raises(ValueError, match="no axis called frown; there are: smile, glasses=none, glasses=round"):
        axes.pick("smile", "frown")


def test_named_axes_are_saved_and_loaded(labelled, tmp_path):
    axes = fit_attributes(*labelled)
    path = axes.save(tmp_path / "axes.safetensors")
    for loaded in (NamedAxes.load(path), NamedAxes.load(axes.to_bytes())):
        assert loaded.names == axes.names
        assert torch.equal(loaded.directions, axes.directions) and torch.equal(loaded.scales, axes.scales)


def test_files_without_named_axes(tmp_path):
    with pytest.raises(FileNotFoundError):
        NamedAxes.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not axes")
    with pytest.raises(ValueError, match=r"bad.safetensors holds no named axes .*: give what NamedAxes.save wrote"):
        NamedAxes.load(tmp_path / "bad.safetensors")


def test_colours_are_measured_where_hair_and_skin_are():
    images, labels = draw_faces("anime", 60, seed=3)
    colours = measure_colours(images)
    assert sorted(colours) == ["hair lightness", "hair warmth", "skin lightness", "skin warmth"]
    assert np.corrcoef(colours["hair lightness"], labels["hair_light"])[0, 1] > 0.6
    assert np.corrcoef(colours["skin lightness"], labels["skin"])[0, 1] < -0.7  # 1 is the darkest skin


def test_faces_without_labels_get_colour_axes(tiny_vae, faces):
    axes = fit_attributes_of(tiny_vae, faces)
    assert "skin" in axes.names and "hair=long" in axes.names
    unlabelled = type(faces)(faces.images)
    assert sorted(fit_attributes_of(tiny_vae, unlabelled).names) == sorted(measure_colours(faces.images))


def test_encode_faces_is_encode_in_one_batch(tiny_vae, faces):
    posterior = encode_faces(tiny_vae.train(), faces, batch_size=25)
    assert tiny_vae.training
    with torch.no_grad():
        expected = tiny_vae.eval().encode(faces.batch())
    assert posterior.mean.shape == (96, 8, 2, 2)
    torch.testing.assert_close(posterior.mean, expected.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(posterior.log_var, expected.log_var, atol=1e-5, rtol=1e-5)
