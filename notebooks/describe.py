"""Give each picture in the notebooks its text for those who cannot see it, as the last step of `make notebooks`.

    python notebooks/describe.py

The metadata of a cell that shows pictures holds them: `"alt"` is a text, or a list of texts where it shows several.
Running a notebook keeps that and drops what stood in the metadata of its outputs, so this copies the texts there,
where IPython's `Image(..., alt=...)` puts its own and nbconvert's classic template looks for them. It also takes out
what running adds to the metadata of a notebook, such as the version of Python.
"""

import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def image_types(output: nbformat.NotebookNode) -> list[str]:
    """The MIME types in which an output holds a picture: image/png, image/jpeg, image/gif, ..."""
    return [kind for kind in output.get("data", {}) if kind.startswith("image/")]


def alt_texts(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell's metadata say of its pictures, in their order."""
    alt = cell.metadata.get("alt", [])
    return [alt] if isinstance(alt, str) else alt


def describe(notebook: nbformat.NotebookNode) -> list[str]:
    """Copy each cell's texts to its pictures. Returns what is wrong, a line for each cell with another number."""
    wrong = []
    for cell in notebook.cells:
        pictures = [output for output in cell.get("outputs", []) if image_types(output)]
        texts = alt_texts(cell)
        if len(texts) != len(pictures):
            wrong.append(f"{cell.id}: pictures: {len(pictures)}, alt texts in the cell's metadata: {len(texts)}")
            continue
        for output, text in zip(pictures, texts, strict=True):
            for kind in image_types(output):
                output.metadata[kind] = output.metadata.get(kind, {}) | {"alt": text}
    return wrong


def describe_all(folder: Path) -> list[str]:
    """Rewrite all notebooks under `folder`. Returns what is wrong, each line with its notebook."""
    wrong = []
    for path in sorted(folder.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
            wrong += [f"{path.relative_to(folder).as_posix()}, {line}" for line in describe(notebook)]
            notebook.metadata = METADATA
            path.write_text(nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n", encoding="utf-8")
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(describe_all(FOLDER)) or None)
