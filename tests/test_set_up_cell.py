"""The first cell of every lesson on a machine like Colab: PyTorch and ipywidgets 7.7 are there, vaelib is not."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
MISSING = {"vaelib", "torchinfo", "torchmetrics", "lightning_utilities"}  # what Colab does not bring
WIDGETS = "7.7.1"  # what it does bring


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """A virtual environment that sees all packages of this one but those missing there, and has its own ipywidgets."""
    folder = tmp_path_factory.mktemp("colab")
    system = folder / "system"
    system.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        package = entry.name.split("-")[0].lower()
        if package not in MISSING | {"ipywidgets"} and "vaelib" not in package:
            (system / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "python"], check=True)
    (packages(folder) / "system.pth").write_text(f"{system}\n")
    done = run(folder, folder, "pip", "install", "--quiet", "--retries", "0", f"ipywidgets=={WIDGETS}")
    if done.returncode:
        pytest.skip(f"needs a package index: {done.stderr.strip().splitlines()[-1]}")
    return folder


def packages(colab: Path) -> Path:
    return next((colab / "python").glob("lib/python*/site-packages"))


def installed(colab: Path) -> set[str]:
    return {path.name.split("-")[0] for path in packages(colab).glob("*.dist-info")}


def run(colab: Path, folder: Path, *module: str) -> subprocess.CompletedProcess:
    """python -m … of that environment, in `folder`."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [colab / "python" / "bin" / "python", "-m", *module],
        cwd=folder,
        env=env | {"IPYTHONDIR": str(colab / "ipython")},
        capture_output=True,
        text=True,
    )


def set_up_cell() -> str:
    lesson = nbformat.read(ROOT / "notebooks" / "08_explorer.ipynb", as_version=4)
    return next(cell.source for cell in lesson.cells if cell.cell_type == "code")


def test_without_a_clone_it_says_what_to_do(colab, tmp_path):
    folder = tmp_path / "far" / "from" / "all"  # the cell looks two folders up
    folder.mkdir(parents=True)
    (folder / "lesson.ipy").write_text(set_up_cell())
    done = run(colab, folder, "IPython", "lesson.ipy")
    assert "put the project's whole folder beside this notebook, or into /content" in done.stdout + done.stderr
    assert not installed(colab) & MISSING


@pytest.mark.timeout(1800)
def test_it_installs_what_is_missing_and_nothing_else(colab):
    clone = colab / "clone"
    shutil.copytree(ROOT / "vaelib", clone / "vaelib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    look = """
import json, ipywidgets, torch
explorer = vaelib.LatentExplorer(vaelib.load_pretrained("drawn-anime"))
seen = {"widgets": ipywidgets.__version__, "bytes": len(explorer.picture.value)}
print("\\n" + json.dumps(seen | {module.__name__: module.__file__ for module in (vaelib, torch)}))
"""
    (colab / "lesson.ipy").write_text(set_up_cell() + look)  # as in /content: the clone is a folder beside it
    before = installed(colab)
    assert not before & MISSING
    done = run(colab, colab, "IPython", "lesson.ipy")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert installed(colab) - before == MISSING
    assert Path(seen["vaelib"]).is_relative_to(packages(colab))
    assert Path(seen["torch"]).is_relative_to(colab / "system")
    assert seen["widgets"] == WIDGETS
    assert seen["bytes"] > 1000


@pytest.mark.parametrize(
    "clones, stands, found",
    [
        (["my clone"], ".", "my clone"),  # as in /content
        (["my clone"], "my clone", "my clone"),
        (["my clone"], "my clone/notebooks", "my clone"),
        (["my clone"], "my clone/notebooks/solutions", "my clone"),
        (["a", "b"], "b", "b"),
        (["a", "b"], "b/notebooks", "b"),
        (["a", "near/b"], "near/sub", "near/b"),
    ],
)
def test_the_nearest_clone_is_found_from_wherever_the_kernel_stands(tmp_path, clones, stands, found):
    top = tmp_path / "far" / "from" / "all"
    for clone in clones:
        (top / clone / "vaelib").mkdir(parents=True)
        (top / clone / "vaelib" / "recipes.py").touch()
    (top / stands).mkdir(parents=True, exist_ok=True)
    begin, end = (set_up_cell().index(text) for text in ("    places", "    %pip"))
    script = tmp_path / "look.ipy"
    script.write_text(textwrap.dedent(set_up_cell()[begin:end]) + "print(clones[0])\n")
    command = [sys.executable, "-m", "IPython", script]
    done = subprocess.run(command, cwd=top / stands, capture_output=True, text=True)
    assert (top / stands / done.stdout.strip()).resolve() == top / found / "vaelib" / "recipes.py", done.stderr
