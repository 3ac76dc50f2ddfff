"""The page: all models that ship, each loaded when it is chosen."""

from vaelib.explorer_app import app
from vaelib.pretrained import load_pretrained, shipped


def test_models_that_ship_are_loaded_when_they_are_chosen(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "vaelib.explorer_app.load_pretrained", lambda name: loaded.append(name) or load_pretrained(name)
    )
    monkeypatch.delenv("VAELIB_MODEL", raising=False)
    page = app()
    assert loaded == [shipped()[0]]
    (chooser,) = [w for w in page.children[0].children[0].children if getattr(w, "description", "") == "model"]
    assert list(chooser.options) == shipped()
    chooser.value = "drawn-cartoon"
    assert loaded == [shipped()[0], "drawn-cartoon"]


def test_the_app_shows_all_models_that_ship():
    page = app()
    assert page.layout.align_items == "center"
