"""What every committed notebook keeps to. That it also runs and prints the same is `pytest --nbval notebooks`."""

import re
from collections import Counter
from pathlib import Path
from statistics import median

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
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


def test_one_set_up_cell_for_all_lessons():
    first_cells = {path.name: code_cells(path)[0].source for path in PATHS if path.parent == FOLDER}
    assert len(Counter(first_cells.values())) <= 1, first_cells


def test_few_cells_may_print_something_else_each_time():
    tagged = [
        f"{path.name}, cell {cell.execution_count}"
        for path in PATHS
        for cell in code_cells(path)
        if "nbval-ignore-output" in cell.metadata.get("tags", [])
    ]
    assert len(tagged) <= 10, tagged


def test_lesson_04_trains_in_two_processes_from_a_notebook(tmp_path):
    texts = [cell.source for cell in read(FOLDER / "04_training.ipynb").cells if "notebook_launcher" in cell.source]
    code = re.search(r"```python\n(.*?)```", texts[0], re.DOTALL)[1]
    for full, small in {
        'load_faces("anime")': 'load_faces("drawn-anime", 32, 128)',
        "vaelib.VAE()": "vaelib.VAE(base_channels=2, latent_channels=4)",
        "epochs=200": "epochs=1, batch_size=32",
        "    vaelib.train(": "    run = vaelib.train(",
        'folder="runs/anime")': 'folder="runs/anime")\n    open(f"rank-{run.accelerator.process_index}", "x")',
    }.items():
        assert full in code
        code = code.replace(full, small)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": tmp_path}}).execute()
    assert sorted(path.name for path in tmp_path.glob("rank-*")) == ["rank-0", "rank-1"]
    assert (tmp_path / "runs" / "anime" / "checkpoint.safetensors").exists()
