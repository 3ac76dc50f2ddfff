import math

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from vaelib.asking import Questions
from vaelib.model import Posterior
from vaelib.priors import ConditionalFlow, FlowPrior, fit_flow, fit_gaussian, priors_from_tensors, priors_to_tensors

LABELS = {
    "hair": np.array(["long", "bald", "long", "bob"]),
    "smile": np.array([0.0, 1.0, 0.5, 0.25], np.float32),
    "eye_hue": np.array([0.0, 0.25, 0.5, 0.75]),
}


@pytest.fixture
def questions() -> Questions:
    return Questions.of(LABELS)


def test_a_code_has_a_column_for_each_choice_and_says_which_numbers_were_asked(questions):
    code = questions.code(LABELS, 4)
    assert code.dtype == torch.float32 and code.shape == (4, 3 + 2 + 3)
    assert code[:, :3].tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]  # bald, bob, long
    assert code[2, 3:5].tolist() == pytest.approx([0, 1], abs=1e-6)  # half a smile, and asked for
    assert code[:, 3].diff().sign().tolist() == [1, -1, -1]
    torch.testing.assert_close(code[1, 5:], torch.tensor([0.0, 1.0, 1.0]))  # a quarter of the way round


def test_what_is_not_asked_is_zero(questions):
    assert not questions.code({}, 2).any()
    code = questions.code({"smile": 0.5}, 2)
    assert code[:, :3].tolist() == code[:, 5:].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert code[:, 4].tolist() == [1, 1]


def test_one_value_holds_for_all_faces(questions):
    one, each = questions.code({"hair": "bob"}, 3), questions.code({"hair": np.array(["bob"] * 3)}, 3)
    assert torch.equal(one, each)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"nose": 1.0}, "can't ask for nose; these can be asked for: hair, smile, eye_hue"),
        ({"hair": "green"}, "hair='green' is not one of bald, bob, long"),
        ({"hair": ["bob", "green"]}, "hair='green' is not one of bald, bob, long"),
        ({"smile": 2.0}, r"smile=2.0 is not a number from -0.01 to 1.01"),
        ({"smile": "broad"}, "smile='broad' is not a number from -0.01 to 1.01"),
        ({"smile": math.nan}, "smile=nan is not a number"),
        ({"hair": ["bob"] * 3}, r"hair: got values of shape \(3,\), expected one, or one for each of 2"),
    ],
)
def test_what_can_not_be_asked_is_said_so(questions, asked, message):
    with pytest.raises(ValueError, match=message):
        questions.code(asked, 2)


def test_labels_that_do_not_vary_can_not_be_asked_for():
    labels = LABELS | {"skin": np.full(4, 0.3), "beard": np.array(["none"] * 4)}
    assert list(Questions.of(labels).factors) == ["hair", "smile", "eye_hue"]
    with pytest.raises(ValueError, match="got no label that varies, so nothing can be asked; there were: skin"):
        Questions.of({"skin": np.full(4, 0.3)})
    with pytest.raises(ValueError, match="got labels 'smile' that are not all finite numbers"):
        Questions.of({"smile": np.array([0.0, np.nan])})


def test_each_label_is_dropped_whole_and_all_of_them_at_times(questions):
    code = questions.code({"hair": "bob", "smile": 0.1, "eye_hue": 0.1}, 4000)
    dropped = questions.drop(code, torch.Generator().manual_seed(0))
    parts = torch.stack([part.any(1) for part in dropped.split([3, 2, 3], dim=1)], dim=1)  # (4000, 3) what is left
    assert all(torch.equal(d[kept], c[kept]) for d, c, kept in zip(
        dropped.split([3, 2, 3], 1), code.split([3, 2, 3], 1), parts.T, strict=True))  # fmt: skip
    by_count = torch.bincount(parts.sum(1), minlength=4) / 4000
    # A share uniform in (0, 1) leaves 0, 1, 2 or 3 of three labels equally often; a tenth of the faces lose all.
    torch.testing.assert_close(by_count, torch.tensor([0.325, 0.225, 0.225, 0.225]), atol=0.03, rtol=0)


def ring(count: int, modes: int = 4) -> tuple[Posterior, dict[str, np.ndarray]]:
    """Posteriors around points on a circle, and two labels that tell which point: up or down, and how far right."""
    angles = 2 * math.pi * (torch.arange(count) % modes + 0.5) / modes
    points = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = {"height": np.where(points[:, 1] > 0, "up", "down"), "right": points[:, 0].numpy()}
    return Posterior(points, torch.full_like(points, 2 * math.log(0.2))), labels


@pytest.fixture(scope="module")
def flow() -> ConditionalFlow:
    posterior, labels = ring(1200)
    return fit_flow(posterior, steps=400, width=64, depth=2, learning_rate=1e-2, progress=False, labels=labels)


def draw(flow, asked=None, guidance=1.0, count=1000):
    return flow.sample(count, torch.Generator().manual_seed(3), asked, guidance)


def test_any_subset_of_the_labels_can_be_asked_for(flow):
    z = draw(flow, {"height": "up"})
    assert (z[:, 1] > 0).float().mean() > 0.95
    assert (z[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.1)  # not asked: drawn
    z = draw(flow, {"height": "down", "right": 1.41})
    assert ((z[:, 1] < 0) & (z[:, 0] > 0)).float().mean() > 0.95
    z = draw(flow)
    assert (z > 0).float().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.1)


def test_each_face_can_be_asked_for_another_thing(flow):
    heights = np.array(["up", "down"] * 500)
    z = draw(flow, {"height": heights})
    assert ((z[:, 1] > 0).numpy() == (heights == "up")).mean() > 0.95


def test_guidance_goes_from_not_listening_to_exaggerating(flow):
    ups = [draw(flow, {"height": "up"}, guidance) for guidance in (0.0, 1.0, 3.0)]
    assert torch.equal(ups[0], draw(flow))
    heights, spreads = (torch.stack([measure(z[:, 1]) for z in ups]) for measure in (torch.mean, torch.std))
    assert heights.diff().min() > 0.1
    assert spreads[1] < spreads[0]


def test_guided_is_the_formula(flow):
    torch.manual_seed(0)
    w, t, code = torch.randn(5, 2), torch.rand(5, 1), flow.questions.code({"height": "up"}, 5)
    without, with_it = flow.network(w, t), flow.network(w, t, code)
    torch.testing.assert_close(flow.network.guided(w, t, code, 2.5), without + 2.5 * (with_it - without))


def test_asked_for_nothing_it_is_a_flow_prior(flow):
    plain = FlowPrior(flow.gaussian, flow.network)
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    assert torch.equal(flow.sample(9, generators[0]), plain.sample(9, generators[1]))


def test_it_survives_safetensors_with_its_questions(flow):
    tensors = load(save(priors_to_tensors({"gaussian": fit_gaussian(ring(1200)[0]), "flow": flow}, torch.float32)))
    restored = priors_from_tensors(tensors)["flow"]
    assert restored.questions.factors.keys() == flow.questions.factors.keys()
    assert torch.equal(
        draw(restored, {"height": "up", "right": 0.5}, 2.0), draw(flow, {"height": "up", "right": 0.5}, 2.0)
    )


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '[["hair", ["a", 1], 0, 1]]', '[["smile", [], 1, 1]]', "[[1, [], 0, 1]]", '[["hair"]]', "7"]
)
def test_damaged_questions_are_said_so(flow, text):
    tensors = priors_to_tensors({"flow": flow})
    tensors["flow.questions"] = torch.tensor([*text.encode()], dtype=torch.uint8)
    with pytest.raises(ValueError, match="the stored priors are damaged"):
        priors_from_tensors(tensors)


@pytest.mark.parametrize("guidance", [-1.0, math.nan, math.inf])
def test_guidance_is_0_or_more(flow, guidance):
    with pytest.raises(ValueError, match=f"got guidance={guidance}, expected 0 or more, such as 2"):
        draw(flow, {"height": "up"}, guidance)


def test_labels_of_other_lengths_are_refused():
    posterior, labels = ring(12)
    with pytest.raises(ValueError, match=r"height: got values of shape \(11,\), expected one, or one for each of 12"):
        fit_flow(posterior, steps=1, progress=False, labels={"height": labels["height"][1:]})
