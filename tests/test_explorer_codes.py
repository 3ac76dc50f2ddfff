import pytest
import torch

from vaelib.explorer_codes import Draw, Encoded, Number, model_of, read_code, write_code


def test_a_code_is_read_as_it_was_written():
    code = write_code("vae1", "my:run", "flow", 12345, b"weights")
    assert read_code(f" {code}\n") == ("vae1", "my:run", "flow", 12345)
    assert model_of(code) == "my:run"
    assert write_code("vae1", "my:run", "flow", 12345, b"other weights") != code


@pytest.mark.parametrize(
    "text", ["", "hello", "vae1:anime:axes:", "vae1:anime:axes:é234567", "vae1:anime:axes:abcde1234"]
)
def test_what_is_no_number(text):
    assert read_code(text)[-1] is None


@pytest.mark.parametrize(
    "draw", [Draw("flow", 2**32 - 1, 1.3), Encoded(bytes(range(250, 256)))], ids=["drawn", "encoded"]
)
def test_digits_pop_in_the_other_order(draw):
    number = Number()
    number.push(300, 601)
    number.push_draw(draw)
    number.push(2, 3)
    again = Number(number.value)
    assert again.pop(3) == 2
    assert again.pop_draw("picture" if isinstance(draw, Encoded) else "flow", 6) == draw
    assert again.pop(601) == 300


def test_the_grid_of_an_encoded_latent():
    z = torch.tensor([[[0.0, 1 / 16], [-1.03, 100.0]]])
    latent = Encoded.of(z).latent((1, 2, 2))
    assert latent.tolist() == [[[[0.0, 0.0625], [-1.0, 127 / 16]]]]
