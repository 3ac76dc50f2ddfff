"""Tell README, guide and notebooks where the project lives on GitHub, or that it lives nowhere: `make publish`.

    python notebooks/publish.py owner/name      badges that open the lessons on Colab and Kaggle, and install lines
    python notebooks/publish.py                 takes all of them out again

A second call changes nothing; a call with another name writes that one instead. Commit and push what it changed: the
badges open the branch `main`.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
COLAB = "https://colab.research.google.com"
KAGGLE = "https://kaggle.com"
BADGE = re.compile(r" *\[!\[Open in (?:Colab|Kaggle)\]\([^)]*\)\]\([^)]*\)")
CLONE = re.compile(r"^git clone --depth 1 https://github\.com/.*\n", re.MULTILINE)
PIP_ROW = re.compile(r"^\| pip alone \|.*\n", re.MULTILINE)
SET_UP = re.compile(
    r"^try:\n    import vaelib\nexcept ModuleNotFoundError:.*?\n    import vaelib$", re.MULTILINE | re.DOTALL
)
FROM_CLONE = """\
try:
    import vaelib
except ModuleNotFoundError:  # Colab or Kaggle: install from a clone of the project, wherever it lies
    places = ". .. ../.. ./* ../* ../../* /content/* /content/drive/MyDrive/* "
    clones = get_ipython().getoutput("ls -U " + places.replace(" ", "/vaelib/recipes.py ") + "2>/dev/null")
    assert clones, "put the project's whole folder beside this notebook, or into /content"
    %pip install --quiet "{clones[0].removesuffix('/vaelib/recipes.py')}"
    import vaelib"""
FROM_GITHUB = """\
try:
    import vaelib
except ModuleNotFoundError:  # Colab or Kaggle: install from GitHub
    %pip install --quiet {address}
    import vaelib"""


def badges(repo: str, notebook: str) -> str:
    """Two badges in a row; `notebook` is a path from the top of the repository."""
    page = f"github.com/{repo}/blob/main/{notebook}"
    colab = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/{page.replace('.com', '', 1)})"
    kaggle = (
        f"[![Open in Kaggle]({KAGGLE}/static/images/open-in-kaggle.svg)]({KAGGLE}/kernels/welcome?src=https://{page})"
    )
    return f"{colab} {kaggle}"


def address(repo: str) -> str:
    return f"git+https://github.com/{repo}"


def publish_page(text: str, repo: str) -> str:
    """Badges after each lesson's link in the table, `git clone` before `make lab`, a row on pip."""
    text = PIP_ROW.sub("", CLONE.sub("", BADGE.sub("", text)))
    if not repo:
        return text
    name = repo.partition("/")[2]
    clone = f"git clone --depth 1 https://github.com/{repo} && cd {name}\n"
    row = f"| pip alone | `pip install {address(repo)}`, then `import vaelib` anywhere |\n"
    text = re.sub(r"^(?=make lab\b)", clone, text, count=1, flags=re.MULTILINE)
    text = re.sub(r"^(?=\| Colab or Kaggle \|)", row, text, count=1, flags=re.MULTILINE)
    lesson = re.compile(r"^(\|.*\[[^]]*\]\((notebooks/\d\d_\w+\.ipynb)\)\*{0,2})", re.MULTILINE)
    return lesson.sub(lambda found: f"{found[1]} {badges(repo, found[2])}", text)


def publish_notebook(notebook: nbformat.NotebookNode, repo: str, path: str) -> None:
    """Badges under the title of a lesson, and where its set-up cell installs from: the address, or a clone."""
    title = notebook.cells[0]
    title.source = re.sub(rf"^{BADGE.pattern}.*\n\n", "", title.source, flags=re.MULTILINE)
    if repo:
        title.source = re.sub(r"^(# .*\n\n)", rf"\1{badges(repo, path)}\n\n", title.source, count=1)
    set_up = FROM_GITHUB.format(address=address(repo)) if repo else FROM_CLONE
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = SET_UP.sub(lambda _: set_up, cell.source)


def publish(root: Path, repo: str) -> list[Path]:
    """Rewrite README, guide and notebooks under `root` for `repo`, "owner/name" or "". Returns what changed.

    `ValueError` for a name that GitHub would not take.
    """
    if repo and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", repo):
        raise ValueError(f"got {repo!r}, expected owner/name as on GitHub, or nothing")
    pages = [root / "README.md", root / "GUIDE.md"]
    new = {page: publish_page(page.read_text(encoding="utf-8"), repo) for page in pages}
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
            publish_notebook(notebook, repo, path.relative_to(root).as_posix())
            new[path] = nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n"
    changed = [path for path, text in new.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        path.write_text(new[path], encoding="utf-8")
    return changed


if __name__ == "__main__":
    try:
        for changed in publish(ROOT, sys.argv[1] if len(sys.argv) > 1 else ""):
            print(changed.relative_to(ROOT))
    except ValueError as error:
        sys.exit(f"publish: {error}")
