from dataclasses import replace

import pytest

from vaelib.recipes import RECIPES, TrainConfig


@pytest.mark.parametrize(
    "given, message",
    [
        ({"epochs": 0}, "got epochs=0, expected a positive number"),
        ({"batch_size": -1}, "got batch_size=-1, expected a positive number"),
        ({"learning_rate": 0.0}, "got learning_rate=0.0, expected a positive number"),
        ({"learning_rate": float("nan")}, "got learning_rate=nan, expected a positive number"),
        ({"muon_rate": 0}, "got muon_rate=0, expected a positive number"),
        ({"optimizer": "sgd"}, "got optimizer='sgd', expected one of adam, muon"),
        ({"sigma": 0}, "got sigma=0, expected a positive number"),
        ({"beta": -0.1}, "got beta=-0.1, expected 0 or more; 1 is the ELBO"),
        ({"beta": float("nan")}, "got beta=nan, expected 0 or more"),
        ({"warmup": -1}, "got warmup=-1, expected 0 or more; in epochs"),
        ({"clip_norm": -1.0}, "got clip_norm=-1.0, expected 0 or more; 0 is none"),
        ({"ema": 1.0}, "got ema=1.0, expected 0 for none, or a decay below 1"),
        ({"likelihood": "laplace"}, "got likelihood='laplace', expected one of bernoulli, gaussian, optimal-gaussian"),
        ({"schedule": "linear"}, "got schedule='linear', expected one of constant, cosine, wsd"),
        ({"precision": "float16"}, "got precision='float16', expected one of auto, float32, bfloat16"),
    ],
)
def test_a_config_says_what_is_wrong(given, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**given)


def test_the_published_recipes():
    anime, cartoon = RECIPES["anime-vae"], RECIPES["vae-anime-cartoon"]
    assert (anime.learning_rate, anime.batch_size, anime.epochs, anime.flip, anime.seed) == (5e-4, 256, 200, True, 42)
    assert (cartoon.learning_rate, cartoon.batch_size, cartoon.epochs, cartoon.flip) == (5e-4, 32, 5, False)
    assert replace(TrainConfig(), beta=anime.beta) == anime, "the defaults are Anime VAE's recipe"
    assert TrainConfig().beta == pytest.approx(anime.beta)


def test_beta_rises_in_equal_steps_and_stays():
    config = TrainConfig(beta=1.0, warmup=3)
    assert [config.beta_in(epoch) for epoch in (1, 2, 3, 4, 5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert TrainConfig().beta_in(1) == TrainConfig().beta


def test_a_cosine_schedule_falls_from_the_learning_rate_to_zero():
    config = TrainConfig(schedule="cosine")
    assert [config.rate_factor(step, 100) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert config.rate_factor(25, 100) == pytest.approx(0.5 * (1 + 2**-0.5))


def test_a_constant_schedule_stays():
    assert [TrainConfig().rate_factor(step, 100) for step in (0, 50, 100)] == [1, 1, 1]


def test_warm_up_stable_decay():
    config = TrainConfig(schedule="wsd", epochs=10)
    assert [config.rate_factor(step, 1000) for step in (0, 4, 9, 500, 800)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [config.rate_factor(step, 1000) for step in (850, 900, 999, 1000)] == pytest.approx([0.75, 0.5, 0.005, 0])
    assert config.stable_epochs == 8
    longer = [config.rate_factor(step, 2000) for step in range(801)]
    assert [config.rate_factor(step, 1000) for step in range(801)] == longer, "until it falls, its length says nothing"


@pytest.mark.parametrize("epochs, stable", [(1, 0), (4, 3), (5, 4), (7, 5), (30, 24)])
def test_the_rate_is_at_its_highest_until_the_last_stable_epoch_ends(epochs, stable):
    config = TrainConfig(schedule="wsd", epochs=epochs)
    assert config.stable_epochs == stable
    assert all(config.rate_factor(step, 100 * epochs) == 1 for step in range(9, 100 * stable))
    assert config.rate_factor(100 * (stable + 1), 100 * epochs) < 1
