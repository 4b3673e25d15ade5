"""Draw how deep the imports of two checkouts go: `python docs/adr/rooms/figure.py BEFORE AFTER`.

A room is a file or folder directly below a package. Its floor is the length of the longest chain of imports below it;
rooms that import each other in a circle share a floor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PACKAGES = ("trainables", "orchestrator")
HERE = Path(__file__).parent

# Runs in an interpreter of its own, whose path is one checkout.
_READ = """
import json, sys, grimp
package = sys.argv[1]
graph = grimp.build_graph(package, cache_dir=None)
rooms = sorted(graph.find_children(package))
inside = {room: {room, *graph.find_descendants(room)} for room in rooms}
of = {module: room for room, modules in inside.items() for module in modules}
edges = sorted({
    (of[module], of[target])
    for module in of for target in graph.find_modules_directly_imported_by(module)
    if target in of and of[target] != of[module]
})
print(json.dumps({"rooms": {room: len(inside[room]) for room in rooms}, "edges": edges}))
"""


def read(checkout: Path, package: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The modules of each room and which room imports which."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, package], cwd=checkout, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    return found["rooms"], [tuple(edge) for edge in found["edges"]]


def floors(rooms: dict[str, int], edges: list[tuple[str, str]]) -> dict[str, int]:
    """The floor of each room, 1 at the bottom. A circle counts as one room."""
    below: dict[str, set[str]] = {room: {room} for room in rooms}
    for _ in rooms:  # reachability, by as many rounds as a chain can be long
        for upper, lower in edges:
            below[upper] |= below[lower]
    level = dict.fromkeys(rooms, 1)
    for _ in rooms:
        for upper, lower in edges:
            is_circle = upper in below[lower]
            level[upper] = max(level[upper], level[lower] + (not is_circle))
    return level


def circles(rooms: dict[str, int], edges: list[tuple[str, str]]) -> int:
    """Pairs of rooms that import each other directly."""
    known = set(edges)
    return sum((lower, upper) in known for upper, lower in edges) // 2


def main(before: Path, after: Path) -> None:
    figure = Figure(figsize=(13, 9), layout="constrained")
    for column, package in enumerate(PACKAGES):
        for row, (name, checkout) in enumerate((("before", before), ("after", after))):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            rooms, edges = read(checkout, package)
            level = floors(rooms, edges)
            height = max(level.values())
            title = f"{package}, {name}: {len(rooms)} rooms on {height} floors"
            print(title, f"({len(edges)} arrows, {circles(rooms, edges)} pairs in a circle)")
            axes.set_title(title, fontsize=11, loc="left")
            places = {}
            for floor in range(1, height + 1):
                here = sorted((room for room in rooms if level[room] == floor), key=lambda room: -rooms[room])
                for place, room in enumerate(here):
                    places[room] = ((place + 1) / (len(here) + 1), floor)
            for upper, lower in edges:
                (x, y), (u, v) = places[upper], places[lower]
                axes.plot([x, u], [y, v], color="#9aa7b5", linewidth=0.5, alpha=0.6, zorder=1)
            for room, (x, y) in places.items():
                label = room.removeprefix(f"{package}.")
                axes.scatter([x], [y], s=14 + 6 * rooms[room], color="#2a6f97", zorder=2)
                axes.annotate(label, (x, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=6.5)
            axes.set_ylim(0.5, height + 0.8)
            axes.set_xlim(0, 1)
            axes.set_xticks([])
            axes.set_ylabel("floor")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(HERE / "floors.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
