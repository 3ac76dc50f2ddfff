import json
import subprocess
import sys
from pathlib import Path

import pytest

from vaelib import served
from vaelib.served import seats, sorry, take_seat


@pytest.fixture(autouse=True)
def give_back():
    yield
    while served._held:
        served._held.pop().release()


def test_each_visitor_has_a_seat_until_none_is_left(empty_cache):
    assert [take_seat(3) for _ in range(4)] == [True, True, True, False]
    served._held.pop().release()
    assert take_seat(3)


def test_a_seat_is_free_when_its_process_ends(empty_cache):
    code = "from vaelib.served import take_seat; print(take_seat(1), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    assert not take_seat(1)
    other.kill()
    other.wait()
    assert take_seat(1)


def cell_of_the_page() -> str:
    page = json.loads((Path(served.__file__).parent / "app.ipynb").read_text())
    return "".join(page["cells"][0]["source"])


def test_who_comes_when_all_seats_are_taken_is_told_so(empty_cache, monkeypatch):
    monkeypatch.setenv("VAELIB_VISITORS", "1")
    assert take_seat()
    names = {}
    exec(cell_of_the_page(), names)
    assert names["app"] is sorry
    assert "1 pages are open, which is all that this machine has memory for" in sorry().value


def test_whose_seat_is_free_gets_the_explorer(empty_cache):
    names = {}
    exec(cell_of_the_page(), names)
    assert names["app"].__module__ == "vaelib.explorer_app"


def test_the_number_of_seats(monkeypatch):
    monkeypatch.delenv("VAELIB_VISITORS", raising=False)
    monkeypatch.setattr(served, "_memory_bytes", lambda: 24_000_000_000)
    assert seats() == int(0.8 * 24_000_000_000 / served.VISITOR_BYTES)
    monkeypatch.setattr(served, "_memory_bytes", lambda: 1)
    assert seats() == 1
    monkeypatch.setenv("VAELIB_VISITORS", "7")
    assert seats() == 7


@pytest.mark.parametrize("told", ["0", "-1", "many", ""])
def test_a_wrong_number_of_seats(monkeypatch, told):
    monkeypatch.setenv("VAELIB_VISITORS", told)
    with pytest.raises(ValueError, match=f"got VAELIB_VISITORS='{told}', expected a number of visitors"):
        seats()


@pytest.mark.parametrize(("limit", "expected"), [("3000000000", 2), ("max", 19), (None, 19)])
def test_a_container_bounds_the_seats(tmp_path, monkeypatch, limit, expected):
    monkeypatch.delenv("VAELIB_VISITORS", raising=False)
    monkeypatch.setattr(served.os, "sysconf", {"SC_PHYS_PAGES": 24_000_000, "SC_PAGE_SIZE": 1000}.get)
    monkeypatch.setattr(served, "CONTAINER_LIMIT", tmp_path / "memory.max")
    if limit:
        (tmp_path / "memory.max").write_text(limit + "\n")
    assert seats() == expected
