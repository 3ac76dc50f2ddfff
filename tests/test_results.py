"""RESULTS.md against the logs that it links: every number of a table stands in the log of that table."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table, its head first, without the rule under it."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return [row for row in rows if set("".join(row)) - set("- ")]


def numbers(table: str) -> list[str]:
    """Those of all rows but the head, without the names in the first column."""
    return [number for row in cells(table)[1:] for cell in row[1:] for number in NUMBER.findall(cell)]


def tables_with_logs() -> list:
    """(log, table) for each table of RESULTS.md whose paragraph before links a Markdown log."""
    paragraphs = (ROOT / "RESULTS.md").read_text(encoding="utf-8").split("\n\n")
    return [
        pytest.param(log, after, id=log)
        for before, after in pairwise(paragraphs)
        for log in re.findall(r"\]\((results/[\w-]+\.md)\)", before)
        if after.startswith("|")
    ]


@pytest.mark.parametrize("log, table", tables_with_logs())
def test_a_table_says_what_its_log_says(log, table):
    logged, said = numbers((ROOT / log).read_text(encoding="utf-8")), numbers(table)
    assert len(said) > 8 and not [number for number in said if number not in logged]


def test_every_log_is_linked():
    linked = set(re.findall(r"\]\((results/[\w.-]+)\)", (ROOT / "RESULTS.md").read_text(encoding="utf-8")))
    assert linked == {path.relative_to(ROOT).as_posix() for path in (ROOT / "results").iterdir()}
