r"""The choices of a round as an integer program, for a longer search than the greedy one.

With :math:`x_{jo} \in \{0, 1\}` for job :math:`j` and choice :math:`o` (what it has is one of
them; none of them is to wait),

    max  sum_jo w_j(o) x_jo
    s.t. sum_o x_jo <= 1                                               for every job
         sum_jo x_jo sum_i floor(share_i(o) / t) <= sum_n floor(free_n / t)   for every type and t

For ``t = 1`` the last rows are the capacities. For larger ones they say what nodes allow: a node of
8 holds one share of 5 or more, and two of 3 or more. They hold for everything that can be laid out,
so the program's bound holds for the round as well; but not every answer can be laid out.

HiGHS solves it with one thread, and stops after so many nodes of its tree and not after so many
seconds: equal rounds have equal answers. Whoever runs it beside the loop may stop it, and then has
no answer at all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from controlplane.domain.step_times import Shares
from controlplane.rubick.bound import Bidder
from controlplane.rubick.choices import Numbers
from controlplane.rubick.round import Round
from controlplane.rubick.seat import bidder_of, shares_of_parts
from controlplane.rubick.table import KEEPS, Answer, dealt_choice

_ROUNDING = 1e-9
"""So much may be lost in the solver's sums: the bound holds all the same."""


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search came to.

    Attributes:
        answer: The best choices that were found; None if it found none within its budget.
        value: What they are worth together.
        bound: No assignment is worth more.
        tree_nodes: So many nodes of the search tree were looked at.
    """

    answer: Answer | None
    value: float
    bound: float
    tree_nodes: int = 0


@dataclass(frozen=True, slots=True)
class Improvement:
    """What a search did for a round.

    Attributes:
        bound: What no round can be worth more than; None if that was not found out.
        tree_nodes: So many nodes of the search tree were looked at.
    """

    bound: float | None = None
    tree_nodes: int = 0


Stopped = Callable[[], bool]
"""Whether nobody waits for the answer any more."""


def improved(dealing: Round, tree_nodes: int, stopped: Stopped | None = None) -> Improvement:
    """Searches for other choices of a round that was dealt, which are adopted if they are worth
    more. Those of higher priority, those that starve and those that were promised something have
    what they were dealt.

    Args:
        dealing: The round.
        tree_nodes: The budget; see ``Program.solved``.
        stopped: Asked now and then; see ``Program.solved``.
    """
    seats = dealing.open_to_search()
    if not seats:
        return Improvement()
    bidders = [bidder_of(seat) for seat in seats]
    lies = [shares_of_parts(seat.held.parts) if seat.held is not None else () for seat in seats]
    start = tuple(dealt_choice(seat) for seat in seats)
    nodes = dealing.room_for(seats)
    found = Program(bidders, lies, nodes).solved(tree_nodes, start, 0.0, stopped)
    if found.answer is not None:
        dealing.adopt(seats, found.answer)
    others = [seat for seat in dealing.seats if seat not in set(seats)]
    if not all(seat.stays for seat in others):
        return Improvement(None, found.tree_nodes)
    kept = sum(seat.given.worth for seat in others if seat.given is not None)
    return Improvement(kept + found.bound, found.tree_nodes)


class Program:
    """The integer program.

    Attributes:
        columns: Bidder and choice of each column.
        worth: Of each column. Shape ``(columns,)``.
        limits: What there is, by type and ``t``.
        uses: What each column uses of that.
    """

    def __init__(
        self,
        bidders: Sequence[Bidder],
        held: Sequence[Shares],
        nodes: Mapping[str, Sequence[int]],
    ) -> None:
        """Writes it down.

        Args:
            bidders: Jobs, none of which must stay.
            held: How what they have lies; empty for nothing.
            nodes: Accelerators of each node that others do not have, by type.
        """
        self.columns: list[tuple[int, int]] = []
        self.limits = {
            (kind, size): sum(free // size for free in every)
            for kind, every in nodes.items()
            for size in range(1, max(every, default=0) + 1)
        }
        self.uses: list[dict[tuple[str, int], int]] = []
        self._bidders = len(bidders)
        worth: list[float] = []
        for j, (bidder, lies) in enumerate(zip(bidders, held, strict=True)):
            keeps = bidder.held_kind in nodes and np.isfinite(bidder.worths.of_keeping)
            if keeps and bidder.worths.of_keeping > 0.0:
                self.columns.append((j, KEEPS))
                worth.append(bidder.worths.of_keeping)
                self.uses.append(self._used(bidder.held_kind, lies))
            for i in np.flatnonzero(bidder.worths.of_choices > 0.0).tolist():
                choice = bidder.choices.every[i]
                self.columns.append((j, i))
                worth.append(float(bidder.worths.of_choices[i]))
                # What may lie anywhere uses accelerators, and no room on a node for certain.
                shares = choice.shares or (1,) * choice.accelerators
                self.uses.append(self._used(choice.kind, shares))
        self.worth = np.array(worth)

    def _used(self, kind: str, shares: Shares) -> dict[tuple[str, int], int]:
        found: dict[tuple[str, int], int] = {}
        for size in range(1, max(shares, default=0) + 1):
            if (kind, size) in self.limits:
                found[kind, size] = sum(share // size for share in shares)
        return found

    def solved(
        self,
        tree_nodes: int,
        start: Answer | None,
        relative_gap: float,
        stopped: Stopped | None = None,
    ) -> Searched:
        """Solves it within a budget.

        Args:
            tree_nodes: So many nodes of the search tree at most are looked at.
            start: Choices to begin with; None for none.
            relative_gap: It may stop when no answer can be worth more than this share more.
            stopped: Asked now and then while it runs; once that is so, it ends without an answer.
                None if it is to be solved whatever happens.
        """
        if not self.columns:
            return Searched((None,) * self._bidders, 0.0, 0.0)
        solver = _Solver()
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("random_seed", 0),
            ("mip_max_nodes", tree_nodes),
            ("mip_rel_gap", relative_gap),
            ("mip_abs_gap", 0.0),
        ):
            solver.setOptionValue(option, value)
        solver.passModel(self._model())
        if start is not None:
            first = highspy.HighsSolution()
            first.col_value = [float(start[j] == i) for j, i in self.columns]
            solver.setSolution(first)
        if stopped is not None:
            solver.ask_whether(stopped)
        solver.run()
        info = solver.getInfo()
        bound = -info.mip_dual_bound
        bound += _ROUNDING * abs(bound)
        looked_at = max(0, int(info.mip_node_count))
        solved = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        if not solved or (stopped is not None and stopped()):
            return Searched(None, 0.0, bound, looked_at)
        taken = np.flatnonzero(np.round(np.array(solver.getSolution().col_value)))
        answer: list[int | None] = [None] * self._bidders
        for place in taken.tolist():
            j, i = self.columns[place]
            answer[j] = i
        return Searched(tuple(answer), float(self.worth[taken].sum()), bound, looked_at)

    def _model(self) -> highspy.HighsLp:
        rows: list[list[tuple[int, float]]] = [[] for _ in range(self._bidders)]
        of_limit: dict[tuple[str, int], list[tuple[int, float]]] = {key: [] for key in self.limits}
        for column, ((j, _), used) in enumerate(zip(self.columns, self.uses, strict=True)):
            rows[j].append((column, 1.0))
            for key, count in used.items():
                of_limit[key].append((column, float(count)))
        rows += of_limit.values()
        upper = [1.0] * self._bidders + [float(each) for each in self.limits.values()]
        count = len(self.columns)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = count, len(rows)
        model.col_cost_ = -self.worth
        model.col_lower_, model.col_upper_ = np.zeros(count), np.ones(count)
        model.row_lower_ = np.full(len(rows), -highspy.kHighsInf)
        model.row_upper_ = np.array(upper)
        model.integrality_ = [highspy.HighsVarType.kInteger] * count
        matrix = model.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kRowwise
        matrix.start_ = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        flat = [entry for row in rows for entry in row]
        matrix.index_ = np.array([column for column, _ in flat], dtype=np.int32)
        values: Numbers = np.array([amount for _, amount in flat])
        matrix.value_ = values
        return model


class _Solver(highspy.Highs):
    """HiGHS without Python's callbacks: when it prepares for them it announces itself on standard
    output.
    """

    def __init__(self) -> None:
        super(highspy.Highs, self).__init__()

    def ask_whether(self, stopped: Stopped) -> None:
        """Ends once that is so."""

        def interrupt(_kind: Any, _text: str, _told: Any, answer: Any, _own: Any) -> None:
            if answer is not None:
                answer.user_interrupt = stopped()

        self.setCallback(interrupt, None)
        for kind in (
            highspy.cb.HighsCallbackType.kCallbackMipInterrupt,
            highspy.cb.HighsCallbackType.kCallbackSimplexInterrupt,
        ):
            self.startCallback(kind)
