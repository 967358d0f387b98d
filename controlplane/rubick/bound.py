r"""No assignment of a round is worth more than this: the Lagrangian dual of the capacities.

Give every accelerator of type :math:`k` a price :math:`\mu_k \ge 0` and let every job take what is
worth most to it after paying. Whatever the prices,

    D(mu) = sum_j max(0, max_o w_j(o) - mu_k(o) a(o)) + sum_k mu_k A_k

is at least the worth of every assignment that keeps to the capacities :math:`A_k`, so also of
every one that keeps to nodes as well. ``D`` is convex; its least value is sought by bisection of
the price where there is one type, and by subgradients over several. A job that must stay where it
is has no choice but that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.rubick.choices import Choices, Numbers
from controlplane.rubick.worth import Worths

_BISECTIONS = 40
_SUBGRADIENT_STEPS = 120

_ROUNDING = 1e-12
"""So much of the sums may be lost where numbers are rounded: the bound holds all the same."""


@dataclass(frozen=True, slots=True)
class Bidder:
    """A job as the bound sees it.

    Attributes:
        choices: What it can be given.
        worths: What that is worth.
        held_kind: Type of what it has; empty if it has nothing.
        held_accelerators: How many it has.
        stays: Whether it must keep that.
    """

    choices: Choices
    worths: Worths
    held_kind: str = ""
    held_accelerators: int = 0
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound and the prices that prove it.

    Attributes:
        value: No assignment is worth more.
        prices: Of an accelerator, by type.
    """

    value: float
    prices: Mapping[str, float]


def upper_bound(bidders: Sequence[Bidder], capacity: Mapping[str, int]) -> Bound:
    """The least bound that was found.

    Args:
        bidders: All jobs of the round.
        capacity: Accelerators of each type.
    """
    market = _Market(bidders, capacity)
    if len(market.kinds) == 1:
        return market.by_bisection()
    return market.by_subgradients()


class _Market:
    """All bids in one table: a row for each choice of each job, jobs one after the other."""

    def __init__(self, bidders: Sequence[Bidder], capacity: Mapping[str, int]) -> None:
        self.kinds = tuple(capacity)
        number = {kind: i for i, kind in enumerate(self.kinds)}
        self.capacity = np.array([float(capacity[kind]) for kind in self.kinds])
        self.constant = 0.0
        fixed = np.zeros(len(self.kinds))
        worth: list[Numbers] = []
        amount: list[Numbers] = []
        kind: list[Numbers] = []
        starts: list[int] = []
        rows = 0
        kinds_of: dict[Choices, Numbers] = {}
        for bidder in bidders:
            held = number.get(bidder.held_kind)
            if bidder.stays:
                if held is not None and np.isfinite(bidder.worths.of_keeping):
                    self.constant += bidder.worths.of_keeping
                    fixed[held] += bidder.held_accelerators
                continue
            # Waiting is a bid as well: it is worth nothing and takes nothing.
            own_worth, own_amount, own_kind = [np.zeros(1)], [np.zeros(1)], [np.zeros(1)]
            if held is not None and np.isfinite(bidder.worths.of_keeping):
                own_worth.append(np.array([bidder.worths.of_keeping]))
                own_amount.append(np.array([float(bidder.held_accelerators)]))
                own_kind.append(np.array([float(held)]))
            key = bidder.choices
            if key not in kinds_of:
                kinds_of[key] = np.array([float(number[e.kind]) for e in bidder.choices.every])
            worth += [*own_worth, bidder.worths.of_choices]
            amount += [*own_amount, bidder.choices.accelerators]
            kind += [*own_kind, kinds_of[key]]
            starts.append(rows)
            rows += sum(map(len, own_worth)) + len(bidder.choices.every)
        self.capacity = np.maximum(0.0, self.capacity - fixed)
        self.worth = np.concatenate(worth) if worth else np.empty(0)
        self.amount = np.concatenate(amount) if amount else np.empty(0)
        self.kind = np.concatenate(kind).astype(np.intp) if kind else np.empty(0, dtype=np.intp)
        self.starts = np.array(starts, dtype=np.intp)

    def value_and_demand(self, prices: Numbers) -> tuple[float, Numbers]:
        """The dual's value, and how much of each type is asked for at these prices."""
        value = self.constant + float(prices @ self.capacity)
        demand = np.zeros(len(self.kinds))
        if not len(self.starts):
            return value, demand
        net = self.worth - prices[self.kind] * self.amount
        best = np.maximum.reduceat(net, self.starts)
        value += float(best.sum())
        counts = np.diff(np.append(self.starts, len(net)))
        is_best = net >= np.repeat(best, counts)
        # Of equally good bids the first one: mostly the one that takes nothing or stays.
        rows = np.flatnonzero(is_best)
        owner = np.searchsorted(self.starts, rows, side="right")
        chosen = rows[np.unique(owner, return_index=True)[1]]
        np.add.at(demand, self.kind[chosen], self.amount[chosen])
        return value, demand

    def by_bisection(self) -> Bound:
        low, high = 0.0, float(max(0.0, self.worth.max(initial=0.0)))
        best, price = self.value_and_demand(np.array([0.0]))[0], 0.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            value, demand = self.value_and_demand(np.array([middle]))
            if value < best:
                best, price = value, middle
            if demand[0] > self.capacity[0]:
                low = middle
            else:
                high = middle
        return Bound(_safe(best), {self.kinds[0]: price})

    def by_subgradients(self) -> Bound:
        prices = np.zeros(len(self.kinds))
        best, best_prices = np.inf, prices
        step = float(self.worth.max(initial=0.0)) / 4
        for _ in range(_SUBGRADIENT_STEPS if len(self.starts) else 1):
            value, demand = self.value_and_demand(prices)
            if value < best:
                best, best_prices = value, prices
            excess = (demand - self.capacity) / np.maximum(1.0, self.capacity)
            norm = float(np.abs(excess).max(initial=0.0))
            if norm == 0.0:
                break
            prices = np.maximum(0.0, prices + step * excess / norm)
            step *= 0.95
        return Bound(_safe(float(best)), dict(zip(self.kinds, best_prices.tolist(), strict=True)))


def _safe(value: float) -> float:
    return value + _ROUNDING * abs(value)
