import math

import pytest
import torch

from vaelib.recipes import TrainConfig
from vaelib.sanity import check_sanity

STEPS = torch.tensor([[-5000.0, 200.0], [-5100.0, 210.0], [-5200.0, 220.0]])


def said(terms: torch.Tensor, **options) -> str:
    with pytest.raises(FloatingPointError) as error:
        check_sanity(**{"epoch": 2, "terms": terms, "config": TrainConfig(), "pixel_values": 12_288} | options)
    return str(error.value)


def test_numbers_of_a_training_that_learns_pass():
    check_sanity(1, STEPS, TrainConfig(), 12_288, weights={"head": torch.ones(3)})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e12])
def test_the_first_step_that_makes_no_sense_is_named(wrong):
    terms = STEPS.clone()
    terms[1:, 1] = wrong
    assert said(terms).startswith("training diverged in epoch 2, step 2: distortion -5100, rate ")


def test_how_much_is_beyond_reason_depends_on_sigma():
    """At σ 0.001 a picture that is wrong everywhere costs half a million nats a pixel value, and that is no fault."""
    terms = torch.tensor([[0.5e6 * 12_288, 1.0]])
    check_sanity(1, terms, TrainConfig(likelihood="gaussian", sigma=0.001), 12_288)
    assert "diverged" in said(terms)


def test_lost_weights_show_before_the_loss_does():
    weights = {"stem": torch.ones(2), "head": torch.tensor([1.0, math.nan])}
    assert "no finite numbers in head. A smaller learning_rate than 0.0005" in said(STEPS, weights=weights)


def test_the_message_ends_with_where_to_go_on_from():
    assert said(STEPS * math.nan, saved=" Nothing was saved yet.").endswith(" Nothing was saved yet.")
    assert "epoch 2: held-out distortion nan" in said(STEPS[:1] * math.nan, what="held-out ")
