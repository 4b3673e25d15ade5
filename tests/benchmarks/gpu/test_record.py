"""What is on disk at any time, and as a table."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.record import Record, maybe, measured, unmeasured
from benchmarks.gpu.table import render

ROOT = Path(__file__).parents[3]
HEADER = {
    "kind": "a test",
    "processor": "a processor",
    "versions": {"torch": "2", "triton": None, "transformers": "5"},
    "commit": measured("abc", ""),
    "card": {"name": unmeasured("", "run on a CPU"), "driver": unmeasured("", "run on a CPU")},
}


def read(path: Path) -> dict:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_finite_number_is_null_with_its_reason(value, tmp_path):
    record = Record(tmp_path / "r.json", HEADER, ["a"])
    record.add("a", {"K": 1}, {"speed": measured(value, "m/s")})
    (point,) = read(tmp_path / "r.json")["parts"]["a"]["points"]
    assert point["measured"]["speed"] == {"value": None, "unit": "m/s", "reason": f"it came out as {value}"}


def test_zero_is_a_value_and_none_is_not():
    assert maybe(0, "s", "why") == {"value": 0, "unit": "s"}
    assert maybe(None, "s", "why") == {"value": None, "unit": "s", "reason": "why"}


def test_every_step_of_a_part_is_on_disk_at_once(tmp_path):
    path = tmp_path / "r.json"
    record = Record(path, HEADER, ["a", "b"])
    record.begin("a")
    assert [part["status"] for part in read(path)["parts"].values()] == ["running", "waiting"]
    record.note("a", "mind this")
    record.add("a", {"K": 1}, {"step": measured(0.5, "s")})
    assert read(path)["parts"]["a"]["points"] == [{"where": {"K": 1}, "measured": {"step": measured(0.5, "s")}}]
    record.end("a", "finished", 2.0)
    part = read(path)["parts"]["a"]
    assert (part["status"], part["seconds"], part["notes"]) == ("finished", measured(2.0, "s"), ["mind this"])
    assert not path.with_suffix(".tmp").exists()


def test_a_process_killed_while_it_writes_leaves_a_whole_file(tmp_path):
    path = tmp_path / "r.json"
    code = f"""
from pathlib import Path
from benchmarks.gpu.record import Record, measured
record = Record(Path({str(path)!r}), {{}}, ["a"])
record.begin("a")
print("begun", flush=True)
while True:
    record.add("a", {{"K": 1}}, {{"step": measured(0.5, "s")}})
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(20):
        assert read(path)["parts"]["a"]["status"] == "running"
    process.kill()
    process.wait()
    process.stdout.close()
    assert read(path)["parts"]["a"]["status"] == "running"


def test_a_table_shows_values_with_units_and_a_dash_with_its_reason(tmp_path):
    record = Record(tmp_path / "r.json", HEADER, ["packing"])
    record.begin("packing")
    record.add("packing", {"K": 1}, {"step": measured(0.25, "s"), "peak": measured(3 * 2**20, "bytes")})
    record.add("packing", {"K": 32}, {"step": unmeasured("s", "no time was left"), "peak": measured(5, "bytes")})
    record.end("packing", "cut short", 1.5, "no time was left for: K 32")
    lines = render(record.content).splitlines()
    table = [line.split() for line in lines if line.split()[:1] in (["K"], ["1"], ["32"])]
    assert table == [["K", "step", "[s]", "peak", "[bytes]"], ["1", "0.25", "3.0Mi"], ["32", "-", "5"]]
    assert "- no time was left" in lines
    assert "== packing: cut short after 1.5 s" in lines
