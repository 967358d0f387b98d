r"""No assignment of a round is worth more than this: the Lagrangian dual of the capacities.

Give every accelerator of type :math:`k` a price :math:`\mu_k \ge 0` and let every job take what is
worth most to it after paying. Whatever the prices,

    D(mu) = sum_j max(0, max_o w_j(o) - mu_k(o) a(o)) + sum_k mu_k A_k

is at least the worth of every assignment that keeps to the capacities :math:`A_k`, so also of
every one that keeps to nodes as well. ``D`` is convex; its least value is found by tangents where
there is one type, and sought by subgradients over several. A job that must stay where it
is has no choice but that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.rubick.choices import Choices, Numbers
from controlplane.rubick.worth import Worths

_TANGENTS = 60
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
    if not capacity:
        return Bound(0.0, {})
    market = _Market(bidders, capacity)
    if len(market.kinds) == 1:
        return market.by_tangents()
    return market.by_subgradients()


class _Market:
    """All bids in one table: a row for each job, waiting (which is worth nothing and takes nothing)
    and what it has first; filled up with bids that nobody takes.
    """

    def __init__(self, bidders: Sequence[Bidder], capacity: Mapping[str, int]) -> None:
        self.kinds = tuple(capacity)
        number = {kind: i for i, kind in enumerate(self.kinds)}
        self.constant = 0.0
        left = np.array([float(capacity[kind]) for kind in self.kinds])
        free: list[Bidder] = []
        for bidder in bidders:
            if not bidder.stays:
                free.append(bidder)
            elif bidder.held_kind in number and bidder.worths.of_keeping > -np.inf:
                self.constant += bidder.worths.of_keeping
                left[number[bidder.held_kind]] -= bidder.held_accelerators
        self.capacity = np.maximum(0.0, left)
        alike: dict[Choices, list[int]] = {}
        for row, bidder in enumerate(free):
            alike.setdefault(bidder.choices, []).append(row)
        width = 2 + max((len(choices.every) for choices in alike), default=0)
        self.worth = np.full((len(free), width), -np.inf)
        self.worth[:, 0] = 0.0
        self.amount = np.zeros((len(free), width))
        self.kind = np.zeros((len(free), width), dtype=np.intp)
        for choices, rows in alike.items():
            end = 2 + len(choices.every)
            if end == 2:
                continue
            self.worth[rows, 2:end] = np.array([free[row].worths.of_choices for row in rows])
            self.amount[rows, 2:end] = choices.accelerators
            self.kind[rows, 2:end] = [number[each.kind] for each in choices.every]
        for row, bidder in enumerate(free):
            if bidder.held_kind in number:
                self.worth[row, 1] = bidder.worths.of_keeping
                self.amount[row, 1] = bidder.held_accelerators
                self.kind[row, 1] = number[bidder.held_kind]
        self._rows = np.arange(len(free))

    def value_and_demand(self, prices: Numbers) -> tuple[float, Numbers]:
        """The dual's value, and how much of each type is asked for at these prices."""
        value = self.constant + float(prices @ self.capacity)
        paid = self.amount * (prices[0] if len(prices) == 1 else prices[self.kind])
        net = self.worth - paid
        # Of equally good bids the first one: mostly the one that takes nothing or stays.
        best = net.argmax(axis=1)
        value += float(net[self._rows, best].sum())
        demand = np.zeros(len(self.kinds))
        np.add.at(demand, self.kind[self._rows, best], self.amount[self._rows, best])
        return value, demand

    def by_tangents(self) -> Bound:
        """Where the tangents to the left and to the right of the least value meet, is the next
        price. The dual is made of straight pieces, so soon the value lies on both.
        """
        low, high = 0.0, float(max(0.0, self.worth.max(initial=0.0)))
        low_value, demand = self.value_and_demand(np.array([low]))
        best, price = low_value, low
        low_slope = float(self.capacity[0] - demand[0])
        high_value, demand = self.value_and_demand(np.array([high]))
        high_slope = float(self.capacity[0] - demand[0])
        for _ in range(_TANGENTS if low_slope < 0.0 < high_slope else 0):
            middle = (low_value - low_slope * low - high_value + high_slope * high) / (
                high_slope - low_slope
            )
            if not low < middle < high:
                break
            value, demand = self.value_and_demand(np.array([middle]))
            slope = float(self.capacity[0] - demand[0])
            if value < best:
                best, price = value, middle
            if value <= low_value + low_slope * (middle - low) + _ROUNDING * abs(value):
                break
            if slope < 0.0:
                low, low_value, low_slope = middle, value, slope
            else:
                high, high_value, high_slope = middle, value, slope
        return Bound(_safe(best), {self.kinds[0]: price})

    def by_subgradients(self) -> Bound:
        prices = np.zeros(len(self.kinds))
        best, best_prices = np.inf, prices
        step = float(self.worth.max(initial=0.0)) / 4
        for _ in range(_SUBGRADIENT_STEPS if len(self.worth) else 1):
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
