"""What racks in view do: the same jobs come and go on two clusters that differ in one thing, that
the nodes of one tell their racks.

    python benchmarks/racks.py [--nodes 256] [--nodes-per-rack 8] [--jobs 8000] [--seeds 5] [--csv]

Each job takes its accelerators as a policy asks for them (so many of each of its nodes, and some
wherever there is room) and holds them for a while. A job for which one of the clusters has no room
is given up on both, so that both are asked for the same and hold the same number. Told of each:

* racks that a job on several nodes spans, and the share of those in one, beside what is the least
  that its nodes can be in;
* jobs for which there was no room;
* what is left in one piece: nodes of which nothing is taken, racks likewise, and the most nodes
  that one rack could give a job whole; means over time.

Chance decides how many accelerators a job takes and for how long, so the figures are of a seed.
"""

import argparse
import csv
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from controlplane.domain.ids import NodeId
from controlplane.domain.racks import racks_spanned
from controlplane.domain.step_times import Shares
from controlplane.rubick.board import Board, Parts

KIND = "gpu"
OF_A_NODE = 8
SMALL: tuple[Shares, ...] = ((1,), (2,), (4,), (8,))
LARGE: tuple[Shares, ...] = ((4, 4), (8, 8), (4,) * 4, (8,) * 4, (8, 8, 4), (8,) * 8)
_TOLERATED = 0.001
"""Share by which what is left may be less, or those turned away more, and count as none."""
LOAD = 0.85
"""Share of the accelerators that is asked for at a time."""


@dataclass(frozen=True)
class Row:
    """One cluster.

    Attributes:
        racks: ``in view`` or ``not told``.
        spanned: Racks that a job on several nodes spans, on average.
        least: Racks that it would span if it had the nodes side by side.
        in_one: Share of these jobs that are in one rack.
        no_room: Share of all jobs for which there was none.
        whole_nodes: Share of the nodes of which nothing is taken.
        whole_racks: Share of the racks of which nothing is taken.
        nodes_in_one: The most whole nodes that one rack has free.
    """

    racks: str
    spanned: float
    least: float
    in_one: float
    no_room: float
    whole_nodes: float
    whole_racks: float
    nodes_in_one: float


class Side:
    """One of the two clusters."""

    def __init__(self, racks: dict[NodeId, str], told: bool) -> None:
        """Nobody holds anything."""
        self.racks = racks
        self.told = told
        self._in_rack: dict[str, list[NodeId]] = {}
        for node, rack in racks.items():
            self._in_rack.setdefault(rack, []).append(node)
        free = dict.fromkeys(racks, OF_A_NODE)
        self.board = Board({KIND: free}, racks if told else {})
        self.spans: list[int] = []
        self.refused = 0
        self.left: list[tuple[float, float, float]] = []

    def find(self, wish: Shares | int) -> Parts | None:
        """Room for a job: so many of each node, or so many in all."""
        if isinstance(wish, int):
            return self.board.find_anywhere(KIND, wish)
        return self.board.find(KIND, wish)

    def look(self) -> None:
        """Notes what is left."""
        free = self.board.free
        whole = {
            rack: sum(free[KIND, node] == OF_A_NODE for node in nodes)
            for rack, nodes in self._in_rack.items()
        }
        racks = sum(whole[rack] == len(nodes) for rack, nodes in self._in_rack.items())
        nodes = sum(whole.values()) / len(self.racks)
        self.left.append((nodes, racks / len(whole), max(whole.values())))

    def row(self, jobs: int, least: Sequence[int]) -> Row:
        """What it came to."""
        nodes, racks, in_one = zip(*self.left, strict=True)
        return Row(
            "in view" if self.told else "not told",
            statistics.fmean(self.spans),
            statistics.fmean(least),
            statistics.fmean(span == 1 for span in self.spans),
            self.refused / jobs,
            statistics.fmean(nodes),
            statistics.fmean(racks),
            statistics.fmean(in_one),
        )


def played(nodes: int, nodes_per_rack: int, jobs: int, seed: int) -> tuple[Row, Row]:
    """Both clusters, racks not told first.

    Args:
        nodes: How many there are.
        nodes_per_rack: How many share a rack.
        jobs: How many come.
        seed: What is drawn from.
    """
    luck = random.Random(seed)
    names = [NodeId(f"n{i}") for i in range(nodes)]
    # Nodes register in any order.
    order = luck.sample(names, nodes)
    rack_of = {name: f"r{i // nodes_per_rack}" for i, name in enumerate(names)}
    racks = {name: rack_of[name] for name in order}
    sides = (Side(racks, told=False), Side(racks, told=True))
    holds: dict[int, tuple[Parts, ...]] = {}
    ends: list[tuple[float, int]] = []
    held, at, least = 0, 0.0, list[int]()
    for job in range(jobs):
        at += 1.0
        for when, other in [each for each in ends if each[0] <= at]:
            ends.remove((when, other))
            for side, parts in zip(sides, holds.pop(other), strict=True):
                side.board.give_back(other, parts)
                held -= sum(count for _, count in parts) if side.told else 0
        shares = luck.choice(LARGE if luck.random() < 0.35 else SMALL)
        wish = sum(shares) if len(shares) > 1 and luck.random() < 0.25 else shares
        # As much is asked for at a time as is meant, whatever sizes were drawn.
        stays = luck.expovariate(1.0) * LOAD * nodes * OF_A_NODE / 9.8
        places = tuple(side.find(wish) for side in sides)
        for side, place in zip(sides, places, strict=True):
            side.refused += place is None
        if None not in places:
            found = tuple(place for place in places if place is not None)
            for side, parts in zip(sides, found, strict=True):
                side.board.take(job, parts)
                if len(parts) > 1:
                    side.spans.append(racks_spanned(racks, [node for (_, node), _ in parts]))
            if len(found[0]) > 1:
                least.append(ceil(len(found[0]) / nodes_per_rack))
            holds[job] = found
            ends.append((at + stays, job))
            held += sum(count for _, count in found[0])
        if job % 10 == 0:
            for side in sides:
                side.look()
    return sides[0].row(jobs, least), sides[1].row(jobs, least)


def main() -> int:
    """Prints a table or CSV; 1 if racks in view were of no use, or left less in one piece."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=256)
    parser.add_argument("--nodes-per-rack", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--csv", action="store_true", help="lines of CSV instead of a table")
    args = parser.parse_args()
    names = ["seed", *(each.name for each in fields(Row))]
    writer = csv.DictWriter(sys.stdout, names)
    if args.csv:
        writer.writeheader()
    else:
        print(
            f"{args.nodes} nodes of {OF_A_NODE}, {args.nodes_per_rack} in a rack, "
            f"{args.jobs} jobs a seed"
        )
        print(" ".join(f"{name:>12}" for name in names))
    pairs = []
    for seed in range(1, args.seeds + 1):
        pair = played(args.nodes, args.nodes_per_rack, args.jobs, seed)
        pairs.append(pair)
        for row in pair:
            told = {"seed": seed, **asdict(row)}
            if args.csv:
                writer.writerow(told)
            else:
                cells = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in told.values())
                print(" ".join(f"{cell:>12}" for cell in cells), flush=True)
    good = kept(pairs)
    if not args.csv:
        print(f"racks in view are of use and leave no less in one piece: {good}")
    return 0 if args.csv or good else 1


def kept(pairs: Sequence[tuple[Row, Row]]) -> bool:
    """Whether, on average over the seeds, jobs span fewer racks and more of them are in one, while
    no more are turned away and no fewer nodes and racks stay whole, within a tenth of a percent.
    """

    def more(name: str) -> float:
        """By how much it is more where racks are in view."""
        return statistics.fmean(getattr(b, name) - getattr(a, name) for a, b in pairs)

    fewer_racks = more("spanned") < 0 < more("in_one")
    whole = more("whole_nodes") >= -_TOLERATED and more("whole_racks") >= 0
    return fewer_racks and whole and more("no_room") <= _TOLERATED


if __name__ == "__main__":
    sys.exit(main())
