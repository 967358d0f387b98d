"""At most one choice for each of many, so that all together cost least and keep within limits.

An integer program, solved to the end by HiGHS with one thread. What Sia and Synergy-Opt need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray

_SLACK = 1e-6
"""So much more may a second solution cost and still count as equally cheap. Costs that differ at
all should differ by more.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that may be chosen.

    Attributes:
        cost: What it costs.
        uses: How much it uses of which limits.
        tie: Of equally cheap solutions the one with the least sum of these is taken.
    """

    cost: float
    uses: tuple[tuple[str, float], ...] = ()
    tie: float = 0.0


def cheapest(
    rows: Sequence[Sequence[Choice]], limits: Mapping[str, float], none_costs: float | None = None
) -> tuple[int | None, ...]:
    """Which choice of each row is taken; None for no choice.

    Args:
        rows: The choices of each.
        limits: How much there is of what choices use. What has no limit here is not counted.
        none_costs: What it costs to choose nothing from a row; None if that is not allowed.

    Raises:
        ValueError: Nothing keeps within the limits.
    """
    # What costs more than nothing is never taken.
    kept = [
        (i, j, choice)
        for i, row in enumerate(rows)
        for j, choice in enumerate(row)
        if none_costs is None or choice.cost <= none_costs
    ]
    if none_costs is None and len({i for i, _, _ in kept}) < len(rows):
        raise ValueError("a choice is wanted from every row, and one has none")
    found: list[int | None] = [None] * len(rows)
    if not kept:
        return tuple(found)
    program = _Program([(i, choice) for i, _, choice in kept], len(rows), limits, none_costs)
    for (i, j, _), taken in zip(kept, program.solved(), strict=True):
        if taken:
            found[i] = j
    return tuple(found)


class _Solver(highspy.Highs):
    """HiGHS without callbacks: when it prepares for them it announces itself on standard output."""

    def __init__(self) -> None:
        super(highspy.Highs, self).__init__()


class _Program:
    """The rows of the integer program: one choice each, and the limits."""

    def __init__(
        self,
        columns: Sequence[tuple[int, Choice]],
        rows: int,
        limits: Mapping[str, float],
        none_costs: float | None,
    ) -> None:
        per_limit: dict[str, list[tuple[int, float]]] = {name: [] for name in limits}
        per_row: list[list[tuple[int, float]]] = [[] for _ in range(rows)]
        for column, (row, choice) in enumerate(columns):
            per_row[row].append((column, 1.0))
            for name, amount in choice.uses:
                if name in per_limit:
                    per_limit[name].append((column, amount))
        self.entries = [*per_row, *per_limit.values()]
        least = 1.0 if none_costs is None else 0.0
        self.lower = [least] * rows + [-highspy.kHighsInf] * len(limits)
        self.upper = [1.0] * rows + list(limits.values())
        self.costs = np.array([choice.cost for _, choice in columns]) - (none_costs or 0.0)
        self.ties = np.array([choice.tie for _, choice in columns])

    def solved(self) -> list[bool]:
        """Which columns are taken."""
        best = self._minimum(self.costs)
        if not self.ties.any():
            return [bool(taken) for taken in best]
        # Of all that cost as little, the one that the tie rule likes best.
        self.entries.append([(i, float(cost)) for i, cost in enumerate(self.costs)])
        self.lower.append(-highspy.kHighsInf)
        self.upper.append(float(self.costs @ best) + _SLACK)
        return [bool(taken) for taken in self._minimum(self.ties)]

    def _minimum(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        solver = _Solver()
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("random_seed", 0),
            ("mip_rel_gap", 0.0),
            ("mip_abs_gap", 0.0),
        ):
            solver.setOptionValue(option, value)
        solver.passModel(self._model(costs))
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise ValueError(
                "no choices keep within the limits: the solver says "
                f"{solver.modelStatusToString(solver.getModelStatus())}"
            )
        return np.round(np.array(solver.getSolution().col_value))

    def _model(self, costs: NDArray[np.float64]) -> highspy.HighsLp:
        count = len(costs)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = count, len(self.entries)
        model.col_cost_ = costs
        model.col_lower_, model.col_upper_ = np.zeros(count), np.ones(count)
        model.row_lower_, model.row_upper_ = np.array(self.lower), np.array(self.upper)
        model.integrality_ = [highspy.HighsVarType.kInteger] * count
        matrix = model.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kRowwise
        matrix.start_ = np.cumsum([0, *map(len, self.entries)], dtype=np.int32)
        flat = [entry for row in self.entries for entry in row]
        matrix.index_ = np.array([column for column, _ in flat], dtype=np.int32)
        matrix.value_ = np.array([amount for _, amount in flat])
        return model
