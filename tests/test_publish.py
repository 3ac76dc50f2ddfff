"""`make publish` on a copy of README.md, GUIDE.md and the notebooks."""

import shutil
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import publish as publishing  # noqa: E402

REPO = "someone/faces.vae"
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The two pages, and all notebooks without their outputs, which only take time."""
    folder = tmp_path_factory.mktemp("project")
    for page in ("README.md", "GUIDE.md"):
        shutil.copy(ROOT / page, folder)
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = []
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, copy, version=nbformat.NO_CONVERT)
    publishing.publish(folder, "")  # the project itself may be published
    return folder


def contents(project: Path) -> dict[str, bytes]:
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in project.rglob("*") if path.is_file()}


def test_it_is_undone_to_the_byte_and_a_second_call_changes_nothing(project):
    publishing.publish(project, "")
    before = contents(project)
    assert publishing.publish(project, REPO)
    published = contents(project)
    assert publishing.publish(project, REPO) == []
    assert all(before[name] != published[name] for name in before)
    assert publishing.publish(project, "other/place")
    assert not [name for name, content in contents(project).items() if REPO.encode() in content]
    assert publishing.publish(project, REPO)
    assert contents(project) == published
    assert publishing.publish(project, "")
    assert contents(project) == before


def test_until_then_no_badge_shows(project):
    publishing.publish(project, "")
    assert not [name for name, content in contents(project).items() if b"![Open in" in content]


def test_a_real_notebook_comes_back_to_the_byte():
    """Outputs and all: a notebook that is not published is written exactly as Jupyter wrote it."""
    for name in LESSONS:
        text = (ROOT / "notebooks" / name).read_text(encoding="utf-8")
        notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
        assert nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n" == text, name


@pytest.mark.parametrize("name", LESSONS)
def test_badges_open_the_lesson_and_its_first_cell_installs_from_github(project, name):
    publishing.publish(project, REPO)
    colab = f"https://colab.research.google.com/github/{REPO}/blob/main/notebooks/{name}"
    kaggle = f"https://kaggle.com/kernels/welcome?src=https://github.com/{REPO}/blob/main/notebooks/{name}"
    notebook = nbformat.read(project / "notebooks" / name, as_version=4)
    nbformat.validate(notebook)
    title, _, row, _, promise = notebook.cells[0].source.split("\n")[:5]
    assert title.startswith(f"# {name[:2]} · ")
    assert f"]({colab})" in row and f"]({kaggle})" in row
    assert promise
    set_up = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert f"%pip install --quiet git+https://github.com/{REPO}\n" in set_up
    assert "install from GitHub\n" in set_up
    assert f"]({colab})" in (project / "README.md").read_text()


def test_the_readme_and_the_guide_say_how_to_get_it(project):
    publishing.publish(project, REPO)
    clone = f"git clone --depth 1 https://github.com/{REPO} && cd faces.vae\nmake lab"
    assert clone in (project / "README.md").read_text()
    assert f"`pip install git+https://github.com/{REPO}`" in (project / "GUIDE.md").read_text()


@pytest.mark.parametrize("repo", ["faces", "https://github.com/a/b", "a/b/c", "a b/c", "a/b)"])
def test_a_name_that_github_would_not_take_changes_nothing(project, repo):
    before = contents(project)
    with pytest.raises(ValueError, match="expected owner/name"):
        publishing.publish(project, repo)
    assert contents(project) == before
