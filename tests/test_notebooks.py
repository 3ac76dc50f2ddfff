"""What every committed notebook keeps to. That it also runs and prints the same is `pytest --nbval notebooks`."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

FOLDER = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(FOLDER))
from describe import alt_texts  # noqa: E402

LESSONS = sorted(FOLDER.glob("*.ipynb"))
PATHS = [path for path in sorted(FOLDER.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
MACHINE_PATH = re.compile(r"(?<![\w.])/(root|home|work|tmp|Users)/|[A-Z]:\\Users")


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def lines(cell) -> int:
    return len(cell.source.splitlines())


every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(FOLDER).as_posix())


@every_notebook
def test_is_a_valid_notebook(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < 1.5e6


@every_notebook
def test_was_run_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]


def strings(node) -> list[str]:
    """All text in a notebook, but not its pictures: their letters are random, and may well spell a path."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, dict):
        return [text for key, value in node.items() if not key.startswith("image/") for text in strings(value)]
    return [text for value in node for text in strings(value)] if isinstance(node, list) else []


@every_notebook
def test_holds_no_widget_state_and_no_path_of_a_machine(path):
    assert "widgets" not in read(path).metadata
    assert not [text for text in strings(read(path)) if MACHINE_PATH.search(text)]


def test_the_pattern_knows_a_machines_paths():
    for text in ("saved in /root/x", "'/home/me/faces'", "/tmp/x.png", "file:///work/a", r"C:\Users\me"):
        assert MACHINE_PATH.search(text)
    for text in ("https://example.org/home/faces", "../work/a", "notebooks/tmp/x"):
        assert not MACHINE_PATH.search(text)


@every_notebook
def test_cells_are_short(path):
    counts = [lines(cell) for cell in code_cells(path)]
    assert max(counts) <= 35
    assert median(counts) <= 8


@every_notebook
def test_each_picture_has_a_text_for_those_who_cannot_see_it(path):
    """The one that its cell's metadata hold: after a change there, notebooks/describe.py copies it to the outputs."""
    for cell in code_cells(path):
        data = [(output.metadata, kind) for output in cell.outputs for kind in output.get("data", {})]
        texts = [metadata[kind]["alt"] for metadata, kind in data if kind.startswith("image/")]
        assert texts == alt_texts(cell), cell.id
        assert all(30 <= len(text) <= 250 for text in texts), cell.id


def test_a_page_of_a_lesson_holds_these_texts():
    """By nbconvert's classic template. Its default, lab, drops such texts (7.17), as does JupyterLab (4.6)."""
    path = FOLDER / "08_explorer.ipynb"
    page, _ = HTMLExporter(template_name="classic").from_filename(path)
    shown = [picture.get("alt") for picture in BeautifulSoup(page, "html.parser").find_all("img")]
    assert shown == [text for cell in code_cells(path) for text in alt_texts(cell)]
    assert "No description has been provided" not in page


def test_one_set_up_cell_for_all_lessons():
    first_cells = {path.name: code_cells(path)[0].source for path in PATHS if path.parent == FOLDER}
    assert len(Counter(first_cells.values())) <= 1, first_cells


def ignored(cell) -> bool:
    """Whether nbval runs a cell without comparing what it prints, or not at all."""
    marks = [*cell.metadata.get("tags", []), *re.findall(r"# *(NBVAL_\w+)", cell.source)]
    return any(re.fullmatch("nbval-(ignore-output|skip)", mark.lower().replace("_", "-")) for mark in marks)


def test_few_cells_may_print_something_else_each_time():
    """notebooks/conftest.py prints their number when nbval runs."""
    cells = [(path.name, cell.execution_count) for path in PATHS for cell in code_cells(path) if ignored(cell)]
    assert len(cells) <= 10, cells


def test_nbval_says_how_many_it_does_not_compare(tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in ("1", "# NBVAL_IGNORE_OUTPUT\n2", "3")]
    cells[2].metadata["tags"] = ["nbval-skip"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "some.ipynb")
    shutil.copy(FOLDER / "conftest.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--collect-only", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "notebooks: 3 code cells, the output of 2 is ignored (10 at most)" in done.stdout, done.stdout
    assert [ignored(cell) for cell in cells] == [False, True, True]


def sections(path: Path) -> dict[str, str]:
    """The markdown of a lesson by its headings of second rank; what stands before them all is ""."""
    text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    head, *rest = re.split(r"^## ", text, flags=re.MULTILINE)
    return {"": head} | dict(section.partition("\n")[::2] for section in rest)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_a_lesson_has_the_parts_that_all_lessons_have(path):
    parts = sections(path)
    head = parts[""]
    assert re.match(rf"# {path.name[:2]} · \w.*\n\n", head)
    goals = head.partition("**You will learn**")[2].partition("**Needs**")[0]
    assert 3 <= len(re.findall("^- ", goals, re.MULTILINE)) <= 5
    assert re.search(r"^\*\*Needs\*\* .+ · \*\*Takes\*\* .*(second|minute)", head, re.MULTILINE)

    names = list(parts)
    assert names[-3:] == ["What to remember", "Exercises", "Read next"]
    assert len(re.findall(r"^\d\. ", parts["What to remember"], re.MULTILINE)) == 5
    exercises = re.findall(r"^\*\*(\d)\.\*\*", parts["Exercises"], re.MULTILINE)
    assert exercises == [str(number) for number in range(1, len(exercises) + 1)]
    assert 3 <= len(exercises) <= 5
    assert f"(solutions/{path.name})" in parts["Exercises"]
    assert (FOLDER / "solutions" / path.name).exists()
    assert len(re.findall(r"^- .+: \S", parts["Read next"], re.MULTILINE)) >= 3
    following = LESSONS[LESSONS.index(path) + 1 :][:1]
    assert all(f"({lesson.name})" in parts["Read next"] for lesson in following)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)
def test_each_exercise_has_a_check_cell_that_waits_for_an_answer(path):
    cells = read(path).cells
    start = next(i for i, cell in enumerate(cells) if "## Exercises" in cell.source)
    checks = [cell for cell in cells[start:] if cell.cell_type == "code"]
    assert len(checks) == len(re.findall(r"^\*\*\d\.\*\*", sections(path)["Exercises"], re.MULTILINE))
    assert all("None" in cell.source and cell.outputs for cell in checks)
