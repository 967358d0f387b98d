"""A round in the shape of Rubick's artifact, as a yardstick of time: Algorithm 1 of the paper.

Jobs in order of their slope, each goes from node to node, takes what is free there, and then one
accelerator after the other from the job with the lowest slope on that node, as long as that slope
is below its own. Only accelerators are dealt; steps of 1, 2, 4 and 8 are looked ahead, and a job
takes no more than what makes it 1 % faster, as in the artifact.
"""

from collections.abc import Sequence

from controlplane.rubick.seat import Seat

_MOST = 64
_AHEAD = (1, 2, 4, 8)


class Dealing:
    """One round from an empty cluster."""

    def __init__(self, seats: Sequence[Seat], nodes: Sequence[int]) -> None:
        """Begins with nothing dealt.

        Args:
            seats: The jobs.
            nodes: Accelerators of each node.
        """
        curves = {}
        for seat in seats:
            if seat.choices not in curves:
                curves[seat.choices] = _curve(seat)
        self.speeds = [curves[seat.choices] for seat in seats]
        self.least = [min((c.accelerators for c in s.choices.every), default=0) for s in seats]
        self.most = [max(range(_MOST + 1), key=curve.__getitem__) for curve in self.speeds]
        self.free = list(nodes)
        self.there: list[dict[int, int]] = [{} for _ in nodes]
        self.held = [0] * len(seats)

    def deal(self) -> None:
        """The pass over all jobs, the steepest first."""
        for job in sorted(range(len(self.held)), key=lambda j: -self.gain(j)):
            if self.least[job]:
                self.schedule(job)

    def gain(self, job: int) -> float:
        """What one more would give, looking ahead."""
        curve, n = self.speeds[job], self.held[job]
        return max(((curve[min(_MOST, n + d)] - curve[n]) / d for d in _AHEAD), default=0.0)

    def loss(self, job: int) -> float:
        """What one less would take, looking ahead."""
        curve, n = self.speeds[job], self.held[job]
        return min((curve[n] - curve[n - d]) / d for d in _AHEAD if d <= n)

    def schedule(self, job: int) -> None:
        """ScheduleJob: takes from node after node; all is given back if it is too little."""
        undo: list[tuple[int, int, int]] = []
        for node in sorted(range(len(self.free)), key=lambda n: -self.free[n]):
            if self.held[job] >= self.most[job]:
                break
            part = min(self.free[node], self.most[job] - self.held[job])
            if part:
                self.move(node, job, part)
                undo.append((node, -1, part))
            while self.held[job] < self.most[job]:
                others = [v for v in self.there[node] if v != job]
                if not others:
                    break
                victim = min(others, key=self.loss)
                if self.held[job] >= self.least[job] and self.loss(victim) >= self.gain(job):
                    break
                self.move(node, victim, -1)
                self.move(node, job, 1)
                undo.append((node, victim, 1))
        if self.held[job] < self.least[job]:
            for node, victim, count in reversed(undo):
                self.move(node, job, -count)
                if victim >= 0:
                    self.move(node, victim, count)

    def move(self, node: int, job: int, count: int) -> None:
        """So many of the node's accelerators go from what is free to the job, or back."""
        self.free[node] -= count
        self.held[job] += count
        here = self.there[node]
        here[job] = here.get(job, 0) + count
        if not here[job]:
            del here[job]


def _curve(seat: Seat) -> list[float]:
    """Speeds for each number of accelerators, in multiples of the slowest."""
    best = [0.0] * (_MOST + 1)
    for choice in seat.choices.every:
        best[choice.accelerators] = max(best[choice.accelerators], choice.steps_per_second)
    unit = min((speed for speed in best if speed), default=1.0)
    for n in range(1, _MOST + 1):
        best[n] = best[n] / unit if best[n] > best[n - 1] * unit * 1.01 else best[n - 1]
    return best
