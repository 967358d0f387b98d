"""The jobs of a round: what each can be given, what it has, and what it was dealt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from controlplane.domain.ids import JobUid, QueueName
from controlplane.domain.job import Topology
from controlplane.domain.step_times import Shares
from controlplane.placing.racks import Allowed
from controlplane.rubick.board import Parts
from controlplane.rubick.bound import Bidder
from controlplane.rubick.choices import Choice, Choices
from controlplane.rubick.in_place import Ranks, could_be_in_place, is_in_place
from controlplane.rubick.worth import Worths
from headrace.api.plan import ExecutionPlan

FOR_NOTHING: Mapping[str, float] = MappingProxyType({})
"""The prices where nobody competes."""

UNKNOWN_SECONDS_LEFT = 3600.0
"""How long a job is taken to need of which nobody knows (a user's own command)."""

PAID_SHARE = 0.5
"""So much of the market's price is paid for what an exchange takes besides. With nothing, who is
served first takes what others are to get (first rounds of 1,536 jobs end 2.4 % below the bound,
with this 0.3 %); with all of it, places stay small that are kept for long where a switch is dear
(Rubick's base trace at 260 s a switch: 0.42 h on average, with this 0.36 h).
"""


@dataclass(frozen=True, slots=True)
class Given:
    """What a job has been dealt.

    Attributes:
        parts: Which accelerators, by node.
        worth: What that is worth.
        choice: The choice; None for what it has already.
    """

    parts: Parts
    worth: float
    choice: Choice | None = None

    @property
    def accelerators(self) -> int:
        """How many."""
        return sum(count for _, count in self.parts)


@dataclass(slots=True, eq=False)
class Seat:
    """A job of the round.

    Attributes:
        number: Its position.
        uid: The job.
        queue: Whose quota it counts against.
        choices: What it can be given.
        worths: What that is worth.
        rank: Who comes first: lower ranks are served before higher ones, and displace them.
        promised: Whether its minimum is promised: it is not put off for others.
        allowed: Nodes that it may use, by type; a type that is missing is not for it.
        rooms: Nodes that have room for a plan, by type, for plans that do not fit everywhere.
        rather: ``allowed`` without nodes that it keeps off while there is room elsewhere; None if
            there are no such nodes.
        held: What it has, as something to keep; None if it has nothing.
        held_seconds_left: How long it needs that still.
        ends_within: In how many seconds it has left that, as far as is known; infinite where nobody
            knows its end.
        steps_left: Steps that it still needs.
        switch_seconds: What it costs it to start; of a job that has something, to change in memory.
        restart_seconds: What it costs it to end and start somewhere else.
        ranks: Where its ranks are, in their order, if they could change in memory; else none.
        stays: Whether it cannot be changed now.
        tries: Whether it has what it has to try it, and goes back for any gain.
        starves_since: Since when it starves, in seconds of any clock; None if it does not.
        starves_long: Whether it stood still for twice as long as it takes to starve.
        topology: How far apart its accelerators may be.
        given: What it has been dealt so far.
    """

    number: int
    uid: JobUid
    queue: QueueName
    choices: Choices
    worths: Worths
    rank: tuple[float, ...] = ()
    promised: bool = False
    allowed: Mapping[str, Allowed] = field(default_factory=dict)
    rather: Mapping[str, Allowed] | None = None
    rooms: Mapping[ExecutionPlan, Mapping[str, Allowed]] = field(default_factory=dict)
    held: Given | None = None
    held_seconds_left: float = 0.0
    ends_within: float = 0.0
    steps_left: float = 0.0
    switch_seconds: float = 0.0
    restart_seconds: float = 0.0
    ranks: Ranks = ()
    stays: bool = False
    tries: bool = False
    starves_since: float | None = None
    starves_long: bool = False
    topology: Topology = Topology.ANY
    given: Given | None = None

    def least_gain(self, least: float) -> float:
        """The share of the time that it still needs which a change must save: so much at ``least``,
        but anything of a job that only tries what it has.
        """
        return 0.0 if self.tries else least

    @property
    def keeps_place(self) -> bool:
        """Whether it is looked for room where it is before anywhere else: a restart is dearer, it
        is to be as it was, or it runs and may not keep its plan.
        """
        may_not_stay = self.held is None
        dearer = self.worths.of_restarts is not None
        return bool(self.ranks) and (self.tries or dearer or may_not_stay)

    def dealt(self, index: int, parts: Parts) -> Given:
        """A choice on these accelerators, with what it is worth there."""
        choice, worths = self.choices.every[index], self.worths
        dear = worths.of_restarts
        if dear is None or is_in_place(self.ranks, parts, choice.plan.tensor_parallel):
            return Given(parts, float(worths.of_choices[index]), choice)
        return Given(parts, float(dear[index]), choice)

    @property
    def switching(self) -> float:
        """What it costs it, in worth, to go over to what it has been dealt, or to give back what it
        has and start again later.
        """
        worths, given = self.worths, self.given
        if worths.of_restarts is None:
            return worths.switching
        if given is None:
            return worths.restarting
        group = given.choice.plan.tensor_parallel if given.choice is not None else 1
        in_memory = is_in_place(self.ranks, given.parts, group)
        return worths.switching if in_memory else worths.restarting

    def seconds_to(self, choice: Choice) -> float:
        """What it costs it to go over to a choice, if there is room wherever that is cheapest."""
        in_memory = self.held is None or could_be_in_place(self.ranks, choice)
        return self.switch_seconds if in_memory else self.restart_seconds

    def nodes_for(self, choice: Choice) -> Mapping[str, Allowed]:
        """Nodes that it may use for a choice, by type."""
        return self.rooms.get(choice.plan, self.allowed) if self.rooms else self.allowed


@dataclass(frozen=True, slots=True)
class Displaced:
    """A job that had to make room.

    Attributes:
        uid: The job.
        by: For whom.
        gained: By how much the sum of worths rose.
        reclaimed: Whether it held what its queue borrowed, and the other one's queue owns.
    """

    uid: JobUid
    by: JobUid
    gained: float
    reclaimed: bool = False


def bidder_of(seat: Seat) -> Bidder:
    """The job as the bound sees it."""
    held = seat.held
    return Bidder(
        seat.choices,
        seat.worths,
        held.parts[0][0][0] if held is not None else "",
        held.accelerators if held is not None else 0,
        seat.stays,
    )


def worth_of(given: Given | None) -> float:
    """What it is worth; nothing is worth 0."""
    return 0.0 if given is None else given.worth


def shares_of_parts(parts: Parts) -> Shares:
    """How they lie, most first."""
    return tuple(sorted((count for _, count in parts), reverse=True))


def price_of(given: Given | None, prices: Mapping[str, float]) -> float:
    """What the market takes for it."""
    return 0.0 if given is None else given.accelerators * prices.get(kind_of(given), 0.0)


def kind_of(given: Given | None) -> str:
    """Type of its accelerators; empty for nothing."""
    return given.parts[0][0][0] if given is not None and given.parts else ""


def count_of(seat: Seat) -> int:
    """Accelerators that the seat has been dealt."""
    return 0 if seat.given is None else seat.given.accelerators
