"""The check cells of the exercises: each accepts every right form of the answer, and says of a wrong one what is wrong.

A check cell starts with `name = None`. It prints a hint, or a sentence that starts with "Right" if the answer is right.
"""

import contextlib
import importlib
import io
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = sorted(path.stem for path in Path(__file__).with_name("exercise_cases").glob("lesson_*.py"))


def check_cell(lesson: str, name: str) -> str:
    """The source of the cell that checks `name`, without the line that asks for it."""
    (path,) = NOTEBOOKS.glob(f"{lesson.removeprefix('lesson_')}_*.ipynb")
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    (source,) = [source for source in cells if source.startswith(f"{name} = None\n")]
    return source.partition("\n")[2]


def said(source: str, names: dict) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(source, dict(names))
    return printed.getvalue()


def cases() -> list:
    found = []
    for lesson in LESSONS:
        module = importlib.import_module(f"exercise_cases.{lesson}")
        found += [pytest.param(lesson, name, case, id=f"{lesson}-{name}") for name, case in module.CASES.items()]
    return found


@pytest.mark.parametrize(("lesson", "name", "case"), cases())
def test_check_cell(lesson, name, case):
    source = check_cell(lesson, name)
    assert not said(source, case.names | {name: None}).startswith("Right")
    for answer in case.right:
        assert said(source, case.names | {name: answer}).startswith("Right"), answer
    assert case.wrong
    for answer in case.wrong:
        told = said(source, case.names | {name: answer})
        assert len(told.split()) > 4 and not told.startswith("Right"), (answer, told)
