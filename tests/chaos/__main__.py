"""Sweeps on which everything is broken on purpose: `python -m tests.chaos --rounds 40 --seed 0`."""

# ruff: noqa: T201  a command line

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.rounds import Result
from tests.chaos.session import Session


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument("--round", type=int, action="append", help="play this round alone; may be given again")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), help="folder for what is kept")
    parser.add_argument(
        "--at-once", type=int, default=1, help="so many rounds side by side, each on a cluster of its own"
    )
    parser.add_argument(
        "--go-on", action="store_true", help="keep what an earlier run played, and play what it did not"
    )
    asked = parser.parse_args()
    numbers = list(asked.round if asked.round is not None else range(asked.rounds))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and its drivers, ignore it
    # Drivers hear of hang-ups, as a handler is not handed on as being deaf to them is; the rounds go on.
    signal.signal(signal.SIGHUP, lambda number, frame: None)
    began = time.monotonic()
    if asked.at_once > 1:
        results, undisturbed = _side_by_side(asked.at_once, numbers, asked.seed, asked.out, go_on=asked.go_on)
    else:
        results, undisturbed = _one_by_one(numbers, asked.seed, asked.out, go_on=asked.go_on)
    bad = [result.number for result in [*undisturbed, *results] if result.violations]
    met = Counter(name for result in results for name in result.met)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{len(results)} rounds in {minutes:.1f} min, {met.total()} faults met, {len(bad)} rounds with violations {bad}"
    )
    print(", ".join(f"{name} {count}" for name, count in sorted(met.items())))
    return 1 if bad or len(results) < len(numbers) else 0


def _one_by_one(
    numbers: Sequence[int], seed: int, out: Path, *, go_on: bool = False
) -> tuple[list[Result], list[Result]]:
    """Play rounds; returns what came of them, and of the sweep that nothing happened to."""
    results = _kept(out, seed)[0] if go_on else []
    left = [number for number in numbers if number not in {result.number for result in results}]
    with Session((out / f"seed-{seed}").absolute(), seed) as session:
        undisturbed = session.undisturbed()
        _tell(undisturbed, seed)
        _keep(out, seed, undisturbed, results)
        with contextlib.suppress(KeyboardInterrupt):  # what was played by then counts
            for number in left if not undisturbed.violations else ():
                results.append(session.play(number))
                _tell(results[-1], seed)
                _keep(out, seed, undisturbed, results)
    return results, [undisturbed]


def _side_by_side(
    count: int, numbers: Sequence[int], seed: int, out: Path, *, go_on: bool = False
) -> tuple[list[Result], list[Result]]:
    """The same in so many processes of this command, which share the machine."""
    parts = [(out / f"part-{part}", numbers[part::count]) for part in range(count) if numbers[part::count]]
    players, readers = [], []
    for folder, own in parts:
        rounds = [word for number in own for word in ("--round", str(number))]
        command = [sys.executable, "-m", "tests.chaos", "--seed", str(seed), "--out", str(folder), *rounds]
        command += ["--go-on"] if go_on else []
        # In sessions of their own, so that Ctrl-C comes to them once, from here.
        player = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        players.append(player)
        readers.append(threading.Thread(target=_pass_on, args=(player,)))
        readers[-1].start()
    try:
        for player in players:
            player.wait()
    except KeyboardInterrupt:
        for player in players:
            player.send_signal(signal.SIGINT)
    for reader in readers:
        reader.join()
    kept = [_kept(folder, seed) for folder, _ in parts]
    results = sorted((result for rounds, _ in kept for result in rounds), key=lambda result: result.number)
    return results, [result for _, undisturbed in kept for result in undisturbed]


def _pass_on(player: subprocess.Popen[str]) -> None:
    assert player.stdout is not None
    for line in player.stdout:
        print(line, end="", flush=True)


def _tell(result: Result, seed: int) -> None:
    name = "undisturbed" if result.number < 0 else f"round {result.number}"
    verdict = f"{len(result.violations)} VIOLATIONS" if result.violations else "as it should be"
    faults = ", ".join(result.met) or "none met"
    print(f"{name}: {verdict}; {result.seconds:.0f} s, {result.drivers} drivers; faults: {faults}", flush=True)
    if result.violations:
        print(*(f"    {line}" for line in [*result.faults, "", *result.log, "", *result.violations]), sep="\n")
        print(f"    play it alone: python -m tests.chaos --seed {seed} --round {result.number}", flush=True)


def _keep(out: Path, seed: int, undisturbed: Result, results: list[Result]) -> None:
    rounds = [result.to_json() for result in results]
    content = {"seed": seed, "undisturbed": undisturbed.to_json(), "rounds": rounds}
    (out / f"seed-{seed}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _kept(out: Path, seed: int) -> tuple[list[Result], list[Result]]:
    """The rounds that are kept, and the sweep that nothing happened to, if any is."""
    file = out / f"seed-{seed}.json"
    if not file.exists():
        return [], []
    content = json.loads(file.read_text(encoding="utf-8"))
    return [Result(**each) for each in content["rounds"]], [Result(**content["undisturbed"])]


if __name__ == "__main__":
    sys.exit(main())
