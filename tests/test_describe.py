"""The last step of `make notebooks`, on a notebook that really runs."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
from describe import METADATA, describe, describe_all  # noqa: E402

SQUARE = "from PIL import Image\nblack = Image.new('L', (2, 2))\n"
SOURCES = SQUARE + "black", "display(black)\nprint('and')\ndisplay(black.resize((4, 4)))", "1 + 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A notebook that was run: its code cells show one picture, two and none."""
    folder = tmp_path_factory.mktemp("notebooks")
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(SOURCES)]
    cells[0].metadata["alt"] = "A black square."
    cells[1].metadata["alt"] = ["A small black square.", "A larger one."]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Squares"), *cells], metadata=METADATA)
    NotebookClient(notebook, timeout=600).execute()
    nbformat.write(notebook, folder / "squares.ipynb")
    return folder


def read(folder: Path) -> nbformat.NotebookNode:
    return nbformat.read(folder / "squares.ipynb", as_version=4)


def test_each_picture_gets_its_text_and_nothing_else_does(folder):
    assert describe_all(folder) == []
    described = read(folder)
    outputs = [output for cell in described.cells for output in cell.get("outputs", []) if "metadata" in output]
    texts = [output.metadata.get("image/png", {}).get("alt") for output in outputs]
    assert texts == ["A black square.", "A small black square.", "A larger one.", None]
    assert described.metadata == METADATA
    before = (folder / "squares.ipynb").read_bytes()
    assert describe_all(folder) == []
    assert (folder / "squares.ipynb").read_bytes() == before


def test_running_drops_what_it_puts_back(folder):
    describe_all(folder)
    notebook = read(folder)
    NotebookClient(notebook, timeout=600).execute()
    assert not [output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("metadata")]
    assert notebook.metadata != METADATA
    assert notebook.cells[1].metadata.alt == "A black square."


def test_it_names_the_notebook_and_the_cell_whose_texts_are_missing_or_too_many(folder):
    notebook = read(folder)
    del notebook.cells[1].metadata["alt"]
    notebook.cells[2].metadata["alt"] = "Two black squares."
    notebook.cells[3].metadata["alt"] = "No picture at all."
    numbers = [(1, 0), (2, 1), (0, 1)]
    lines = [f"cell-{i}: pictures: {n}, alt texts in the cell's metadata: {m}" for i, (n, m) in enumerate(numbers)]
    assert describe(notebook) == lines
    nbformat.write(notebook, folder / "wrong.ipynb")
    assert describe_all(folder) == [f"wrong.ipynb, {line}" for line in lines]
    (folder / "wrong.ipynb").unlink()
