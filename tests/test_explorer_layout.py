"""The explorer's widgets before anything listens to them."""

from vaelib import explorer_layout
from vaelib.explorer_layout import ExplorerLayout


def named(layout):
    return [getattr(each, "description", "") for each in layout.box.children[0].children]


def test_there_is_a_tab_for_each_thing_to_do():
    tabs = ExplorerLayout(["one"]).tabs
    titles = [tabs.get_title(index) for index in range(len(tabs.children))]
    assert titles == ["Axes", "Attributes", "Morph", "Grid", "Ask"]


def test_only_several_models_are_to_choose_from():
    assert named(ExplorerLayout(["one"])) == ["sharp", "draw from", "spread", "speed"]
    several = ExplorerLayout(["one", "two"])
    assert named(several)[0] == "model" and list(several.model_choice.options) == ["one", "two"]


def test_without_pyav_mp4_is_off_and_says_why(monkeypatch):
    monkeypatch.setattr(explorer_layout, "find_spec", lambda name: None)
    buttons = ExplorerLayout(["one"]).record_buttons
    assert buttons["MP4"].disabled and "pip install av" in buttons["MP4"].tooltip
    assert not buttons["GIF"].disabled
