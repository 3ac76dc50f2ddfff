"""The explorer as a page of its own, of all models that ship: what `python -m vaelib explore` serves."""

import os
from collections.abc import Iterator, Mapping

import ipywidgets as widgets

from vaelib.explorer import LatentExplorer
from vaelib.pretrained import Bundle, load_pretrained, shipped


class _ShippedModels(Mapping):
    """The bundles that ship, by name, each loaded when it is asked for: all together take half a gigabyte."""

    def __getitem__(self, name: str) -> Bundle:
        if name not in shipped():
            raise KeyError(name)
        return load_pretrained(name)  # once: the explorer keeps what it opened

    def __iter__(self) -> Iterator[str]:
        return iter(shipped())

    def __len__(self) -> int:
        return len(shipped())

    def __contains__(self, name: object) -> bool:
        return name in shipped()


def app() -> widgets.Widget:
    """The page that `python -m vaelib explore` serves: the model named in VAELIB_MODEL, else all that ship."""
    name = os.environ.get("VAELIB_MODEL")
    models = load_pretrained(name) if name else _ShippedModels()
    return widgets.VBox([LatentExplorer(models).box], layout={"align_items": "center"})
