"""The first cell of every lesson on a machine like Colab: PyTorch and ipywidgets 7.7 are there, vaelib is not."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
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


@pytest.mark.timeout(900)
def test_it_installs_what_is_missing_and_nothing_else(colab):
    clone = colab / "clone"
    shutil.copytree(ROOT / "vaelib", clone / "vaelib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    lesson = nbformat.read(ROOT / "notebooks" / "07_explorer.ipynb", as_version=4)
    set_up = next(cell.source for cell in lesson.cells if cell.cell_type == "code")
    look = """
import json, ipywidgets, torch
explorer = vaelib.LatentExplorer(vaelib.load_pretrained("drawn-anime"))
seen = {"widgets": ipywidgets.__version__, "bytes": len(explorer.picture.value)}
print("\\n" + json.dumps(seen | {module.__name__: module.__file__ for module in (vaelib, torch)}))
"""
    (clone / "notebooks").mkdir()
    (clone / "notebooks" / "lesson.ipy").write_text(set_up + look)
    before = installed(colab)
    assert not before & MISSING
    done = run(colab, clone / "notebooks", "IPython", "lesson.ipy")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert installed(colab) - before == MISSING
    assert Path(seen["vaelib"]).is_relative_to(packages(colab))
    assert Path(seen["torch"]).is_relative_to(colab / "system")
    assert seen["widgets"] == WIDGETS
    assert seen["bytes"] > 1000
