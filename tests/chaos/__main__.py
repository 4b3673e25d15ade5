"""Sweeps on which everything is broken on purpose: `python -m tests.chaos --rounds 40 --seed 0`."""

# ruff: noqa: T201  a command line

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from tests.chaos.rounds import Result
from tests.chaos.session import Session


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--round", type=int, action="append", help="play this round alone; may be given again")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), help="folder for what is kept")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and its drivers, ignore it
    # Drivers hear of hang-ups, as a handler is not handed on as being deaf to them is; the rounds go on.
    signal.signal(signal.SIGHUP, lambda number, frame: None)
    results: list[Result] = []
    began = time.monotonic()
    with Session((asked.out / f"seed-{asked.seed}").absolute(), asked.seed) as session:
        undisturbed = session.undisturbed()
        _tell(undisturbed, asked.seed)
        numbers = asked.round if asked.round is not None else range(asked.rounds)
        with contextlib.suppress(KeyboardInterrupt):  # what was played by then counts
            for number in numbers if not undisturbed.violations else ():
                results.append(session.play(number))
                _tell(results[-1], asked.seed)
                _keep(asked.out / f"seed-{asked.seed}.json", asked.seed, results)
    bad = [result.number for result in [undisturbed, *results] if result.violations]
    met = Counter(name for result in results for name in result.met)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{len(results)} rounds in {minutes:.1f} min, {met.total()} faults met, {len(bad)} rounds with violations {bad}"
    )
    print(", ".join(f"{name} {count}" for name, count in sorted(met.items())))
    return 1 if bad or len(results) < len(numbers) else 0


def _tell(result: Result, seed: int) -> None:
    name = "undisturbed" if result.number < 0 else f"round {result.number}"
    verdict = f"{len(result.violations)} VIOLATIONS" if result.violations else "as it should be"
    faults = ", ".join(result.met) or "none met"
    print(f"{name}: {verdict}; {result.seconds:.0f} s, {result.drivers} drivers; faults: {faults}", flush=True)
    if result.violations:
        print(*(f"    {line}" for line in [*result.faults, "", *result.log, "", *result.violations]), sep="\n")
        print(f"    play it alone: python -m tests.chaos --seed {seed} --round {result.number}", flush=True)


def _keep(file: Path, seed: int, results: list[Result]) -> None:
    content = {"seed": seed, "rounds": [result.to_json() for result in results]}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
