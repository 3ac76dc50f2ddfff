import numpy as np
import pytest
from PIL import Image

from vaelib.explorer_parts import AxisRow, columns, uploaded


@pytest.mark.parametrize(
    "value",
    [
        {"one.png": {"metadata": {}, "content": b"one"}, "two.png": {"metadata": {}, "content": b"two"}},
        ({"name": "one.png", "content": memoryview(b"one")}, {"name": "two.png", "content": memoryview(b"two")}),
    ],
    ids=["ipywidgets 7", "ipywidgets 8"],
)
def test_the_last_file_uploaded_counts(value):
    assert uploaded(value) == b"two"


@pytest.mark.parametrize("value", [{}, ()])
def test_nothing_uploaded(value):
    assert uploaded(value) is None


def test_two_columns_are_filled_one_after_the_other():
    strip = Image.fromarray(np.zeros((32, 160, 3), np.uint8))
    boxes = [AxisRow(str(number), strip, (-3, 3), 60).box for number in range(5)]
    left, right = columns(boxes).children
    assert left.children == tuple(boxes[:3]) and right.children == tuple(boxes[3:])
