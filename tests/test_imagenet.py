import shutil

import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn.functional import batch_norm, conv2d, interpolate

from vaelib import imagenet
from vaelib.imagenet import FEATURES, WEIGHTS, Conv, LiteNet, judge_features, load_lite, take_over


@pytest.fixture
def other_weights(tmp_path, monkeypatch):
    """A copy of the weights to damage; what was read is forgotten before and after."""
    imagenet.load_lite.cache_clear()
    folder = shutil.copytree(WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr(imagenet, "WEIGHTS", folder)
    yield folder
    imagenet.load_lite.cache_clear()


def photograph(name: str) -> torch.Tensor:
    """The middle of one of scikit-learn's photographs, (1, 3, 128, 128) in [0, 1]."""
    image = torch.tensor(load_sample_image(name)).permute(2, 0, 1)[None, :, :, 107:533] / 255
    return imagenet.resized(image, 128)


@pytest.mark.parametrize(
    ("side", "kernel", "stride"), [(8, 3, 1), (8, 3, 2), (8, 5, 2), (7, 3, 2), (7, 5, 2), (9, 1, 1)]
)
def test_a_convolution_gives_side_over_stride_rounded_up_and_adds_the_odd_row_at_the_end(side, kernel, stride):
    conv, x = Conv(2, 3, kernel, stride), torch.randn(1, 2, side, side)
    wide = nn.functional.pad(x, (10, 10, 10, 10))
    out = -(-side // stride)
    before = max(0, (out - 1) * stride + kernel - side) // 2
    expected = conv2d(wide[:, :, 10 - before :, 10 - before :], conv.weight, conv.bias, stride)[:, :, :out, :out]
    torch.testing.assert_close(conv(x), expected)


def test_the_stages_that_ship_and_what_they_see(x):
    maps = load_lite("lite0").maps(interpolate(x[:2], scale_factor=2))
    assert [tuple(seen.shape[1:]) for seen in maps] == [
        (16, 64, 64), (24, 32, 32), (40, 16, 16), (80, 8, 8), (112, 8, 8),
    ]  # fmt: skip
    assert load_lite("lite0").head is None
    assert len(load_lite("lite1").stages) == 7


@pytest.mark.parametrize("name", ["lite0", "lite1"])
def test_the_first_look_takes_no_random_numbers(name):
    load_lite.cache_clear()
    before = torch.get_rng_state()
    load_lite(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_reach_the_pictures_and_no_weight():
    x = photograph("flower.jpg").requires_grad_()
    sum(seen.square().mean() for seen in load_lite("lite0").maps(x)).backward()
    assert x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in load_lite("lite0").parameters())


def test_the_judge_takes_a_blurred_photograph_for_the_same_thing_and_another_for_another():
    flower, palace = photograph("flower.jpg"), photograph("china.jpg")
    softer = imagenet.resized(imagenet.resized(flower, 96), 128)
    a, b, c = judge_features(torch.cat([flower, softer, palace]), batch_size=2)
    assert a.shape == (FEATURES,) and a.dtype == torch.float32
    near, far = (torch.cosine_similarity(a, other, dim=0) for other in (b, c))
    assert near > 0.8 and far < 0.4


def test_pictures_of_another_size_are_enlarged(x):
    torch.testing.assert_close(judge_features(x[:2]), judge_features(imagenet.resized(x[:2], 128)))


def test_taking_over_folds_each_batch_norm_into_the_convolution_before_it():
    """The first two layers, by hand, from made-up weights under the published names."""
    torch.manual_seed(0)
    net = LiteNet("lite0", 1)
    published = {}
    convs = [module for module in net.modules() if isinstance(module, Conv)]
    names = [("_conv_stem", "_bn0"), ("_blocks.0._depthwise_conv", "_blocks.0._bn1")]
    names += [("_blocks.0._project_conv", "_blocks.0._bn2"), ("_conv_head", "_bn1")]
    for (conv, norm), shape in zip(names, [*(c.weight.shape for c in convs), (5, 16, 1, 1)], strict=True):
        published[f"{conv}.weight"] = torch.randn(shape)
        for part in ("weight", "bias", "running_mean", "running_var"):
            published[f"{norm}.{part}"] = torch.rand(shape[0]) + 0.1
    take_over(net, published)
    x = torch.rand(2, 3, 16, 16)
    stem = net.stem[0](x)
    raw = conv2d(nn.functional.pad(x, (0, 1, 0, 1)), published["_conv_stem.weight"], stride=2)
    norm = [published[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    torch.testing.assert_close(stem, batch_norm(raw, *norm, eps=1e-3), atol=1e-4, rtol=1e-4)
    scale = published["_blocks.0._bn2.weight"] / (published["_blocks.0._bn2.running_var"] + 1e-3).sqrt()
    weight = published["_blocks.0._project_conv.weight"] * scale.view(-1, 1, 1, 1)
    torch.testing.assert_close(net.stages[0][0][-1].weight, weight)


@pytest.mark.parametrize("damage", ["truncated", "of another network", "missing"])
def test_damaged_weights(other_weights, damage, x):
    path = other_weights / "lite1.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "of another network":
        shutil.copy(other_weights / "lite0.safetensors", path)
    else:
        path.unlink()
    with pytest.raises(ValueError, match=r"(?s)the weights in .*lite1.safetensors are damaged .*install vaelib again"):
        judge_features(x)


def test_the_licence_lies_beside_the_weights():
    assert "Apache License" in (WEIGHTS / "LICENSE.md").read_text()
    assert "ML Illustrated" in (WEIGHTS / "NOTICE.md").read_text()
