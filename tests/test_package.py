import ast
import inspect
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vaelib

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (ROOT / "vaelib").glob("*.py"))


def in_a_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_cheap():
    code = "import sys, vaelib; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(in_a_fresh_python(code).split())
    assert "vaelib" in loaded
    heavy = "torch torchvision torchmetrics matplotlib sklearn scipy joblib numpy PIL ipywidgets tqdm"
    online = "kaggle kagglehub huggingface_hub requests"
    assert not loaded & set(f"{heavy} {online}".split())


def test_the_command_line_starts_without_torch():
    code = "import sys, vaelib.__main__; print('torch' in sys.modules)"
    assert in_a_fresh_python(code) == "False\n"


def test_every_public_name_is_what_it_says():
    """Also after all modules are imported: a module `prepare` would hide a function of that name."""
    for name in vaelib.__all__:
        value = getattr(vaelib, name)
        assert not inspect.ismodule(value), name
        assert getattr(value, "__name__", name) == name
        assert getattr(vaelib, name) is value
        assert inspect.getdoc(value)
    assert dir(vaelib) == vaelib.__all__ == sorted(vaelib.__all__)


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(AttributeError, match=r"module 'vaelib' has no attribute 'GAN'; it has .*VAE"):
        vaelib.GAN  # noqa: B018


def test_the_version_is_pyprojects():
    assert vaelib.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def imports_of(module: str) -> set[str]:
    """The modules of the package that one imports, at its top or inside a function."""
    tree = ast.parse((ROOT / "vaelib" / f"{module}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "vaelib":
            below = node.module.partition(".")[2]
            found |= {below} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("vaelib.")}
    return found & set(MODULES)


def test_imports_point_one_way():
    graph = {module: imports_of(module) for module in MODULES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError where two import each other
    above = {"explorer", "explorer_app", "__main__"}
    for module, imported in graph.items():
        assert not imported & above or module in above, f"{module} imports {imported & above}"
    assert graph["training"] >= {"losses", "metrics", "faces"}, "the scan sees imports"


def test_every_module_has_tests():
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    expected = {{"__init__": "package", "__main__": "main"}.get(module, module) for module in MODULES}
    assert expected <= tested
