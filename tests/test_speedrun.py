import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from vaelib.model import VAE

ROOT = Path(__file__).parents[1]


@pytest.fixture
def speedrun(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    return importlib.import_module("speedrun")


def test_a_run_sees_as_many_faces_as_it_says(speedrun, faces):
    training, test = faces.split()
    config = replace(speedrun.OURS, batch_size=16)
    run = speedrun.one_run(VAE(base_channels=2), training, test, config, seen=160)
    assert run["steps"] == run["config"]["epochs"] * 5 == 10, "160 of 86 faces: two epochs of 80"
    assert run["faces_seen"] == 160
    assert 5 < run["psnr"] < 20 and run["cpu_seconds"] > 0 and run["tested_on"] == len(test)


def test_the_log_holds_what_the_results_say():
    runs = [json.loads(line) for line in (ROOT / "results" / "speedrun.jsonl").read_text().splitlines()]
    ours = [run for run in runs if run["way"] == "ours, 14.6 dB"]
    assert {run["config"]["seed"] for run in ours} == {0, 1, 2}
    assert {run["parameters"] for run in runs} == {17_089_539}
    mean = sum(run["psnr"] for run in ours) / len(ours)
    assert mean > 14.6
    published = next(run for run in runs if run["way"] == "published" and run["faces_seen"] == 10_240)
    for page, ours_says, published_says in (
        ("RESULTS.md", f"| {ours[0]['faces_seen']:,} | {mean:.2f} ±", f"| {published['psnr']:.2f} |"),
        ("README.md", f"| {ours[0]['faces_seen']:,} | ", f"| {published['psnr']:.2f} dB |"),
    ):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert ours_says in text and published_says in text and f"{mean:.2f} ±" in text
