"""Rubick: which accelerators every job gets, and under which plan it runs there.

After Rubick (MLSys 2025), section 5 and algorithm 1: jobs are sensitive to resources in different
ways, and a job that is promised something is promised the speed of what it asks for, not its form.
Where and why this leaves the paper: docs/decisions/0011.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from controlplane.domain.ids import AcceleratorId, JobUid, NodeId, QueueName, SequenceNumber
from controlplane.domain.job import Topology
from controlplane.domain.knob import Knob
from controlplane.domain.node import Accelerator
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Decision, Optimality, Violation
from controlplane.domain.preemption import Preemption
from controlplane.domain.proposal import Proposal, ProposalUse
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import JobRecord
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_times import SourcedStepTimes, StepTimesAt, Way
from controlplane.placing.capacity import Capacity
from controlplane.placing.layout import placement_under
from controlplane.placing.shares import shares_of
from controlplane.placing.standing import Standing, Standings, undisputed
from controlplane.rubick.board import Board
from controlplane.rubick.bound import upper_bound
from controlplane.rubick.choices import Choice
from controlplane.rubick.explaining import Background, seat_of, sentences
from controlplane.rubick.freedom import Freedom
from controlplane.rubick.invariants import violations
from controlplane.rubick.proposing import found_for, take, targets_of
from controlplane.rubick.round import Round
from controlplane.rubick.search import Stopped, improved
from controlplane.rubick.seat import Given, Seat, bidder_of, kind_of
from controlplane.rubick.seating import Menu, Seats
from controlplane.rubick.settings import RubickSettings
from controlplane.rubick.trials import Trials, sentence


class Rubick:
    """The policy. It remembers only what step times answered, which does not change."""

    def __init__(
        self,
        step_times: StepTimesAt,
        settings: RubickSettings | None = None,
        freedom: Freedom = Freedom.EVERYTHING,
    ) -> None:
        """Chooses by these step times.

        Args:
            step_times: What steps take as far as is known at an instant: a table that was measured
                and is always the same, or models that are fitted meanwhile.
            settings: The knobs where people set none; the defaults if None.
            freedom: What may differ from what jobs ask for.
        """
        self._times = step_times
        self._freedom = freedom
        self._menu = Menu(freedom)
        self.settings = settings or RubickSettings()

    @property
    def knobs(self) -> Sequence[Knob]:
        """What people may turn."""
        return self.settings.knobs

    def apart(self) -> "Rubick":
        """One that decides the same and remembers for itself."""
        return Rubick(self._times, self.settings, self._freedom)

    def __call__(self, snapshot: ClusterSnapshot) -> Decision:
        """Where each job should run, and why."""
        self._menu.begin(self._times(snapshot), snapshot)
        return _Decision(snapshot, self._menu, self.settings.turned(snapshot.knobs)).decide()

    def explanation(self, snapshot: ClusterSnapshot, uid: JobUid) -> tuple[str, ...]:
        """Why the job gets what it gets, or nothing, a sentence each; none for a job of which
        there is nothing to decide.
        """
        menu, times = Menu(self._freedom), self._times(snapshot)
        menu.begin(times, snapshot)
        made = _Decision(snapshot, menu, self.settings.turned(snapshot.knobs))
        optimality = made.decide(tries=False).optimality
        seat = seat_of(made.seats.every, uid)
        if seat is None or made.dealt is None or optimality is None:
            return ()
        names = {each: record.job.full_name for each, record in snapshot.jobs.items()}
        promise = made.seats.promises.get(uid)
        record = snapshot.jobs[uid]
        behind = Background(
            promise,
            optimality,
            names,
            made.settings,
            _way_held(record, seat, menu),
            times if isinstance(times, SourcedStepTimes) else None,
        )
        told = [*sentences(seat, record, made.dealt, behind)]
        if made.use is not None and snapshot.proposal is not None:
            told += found_for(uid, made.use, snapshot.proposal)
        return (*told, *made.trials(made.dealt).explained(uid))

    def violations(self, snapshot: ClusterSnapshot, decision: Decision) -> Iterator[Violation]:
        """What the decision breaks of what must hold of every one; see ``rubick.invariants``."""
        yield from violations(
            snapshot,
            decision,
            self._times(snapshot),
            cool_down_seconds=self.settings.turned(snapshot.knobs).cool_down_seconds,
        )

    def wants_search(self, knobs: Mapping[str, float], optimality: Optimality) -> bool:
        """Whether the last round may be so much below the best that a longer search is worth it."""
        settings = self.settings.turned(knobs)
        return settings.search_beside_nodes > 0 and optimality.gap > settings.search_beside_gain

    def search(
        self, snapshot: ClusterSnapshot, made_of: SequenceNumber, stopped: Callable[[], bool]
    ) -> Proposal | None:
        """What a longer search finds that is better than the round by ``search_beside_gain``."""
        settings = self.settings.turned(snapshot.knobs)
        if not settings.search_beside_nodes or stopped():
            return None
        self._menu.begin(self._times(snapshot), snapshot)
        return _Decision(snapshot, self._menu, settings).searched(made_of, stopped)


class _Decision:
    """One decision in the making."""

    def __init__(self, snapshot: ClusterSnapshot, menu: Menu, settings: RubickSettings) -> None:
        self.snapshot = snapshot
        self.menu = menu
        self.now = Standings(snapshot, possible=self._possible, chooses_plans=True)
        self.settings = settings
        self.dealt: Round | None = None
        self.use: ProposalUse | None = None
        self.tried: dict[JobUid, Reason] = {}
        self.left = Capacity(snapshot, without=self.now.taken)
        self.jobs = undisputed(self.now.jobs, self.now.taken, self.now.quotas)
        self.seats = Seats(snapshot, self.jobs, self.now.empty, menu, settings)

    def decide(self, *, tries: bool = True) -> Decision:
        """The decision; without what is only tried, to tell what was dealt."""
        dealing, most, prices = self._deal()
        proposal, use = self.snapshot.proposal, None
        if proposal is not None and self.settings.search_beside_nodes:
            use = take(dealing, self.jobs, proposal)
        self.use = use
        worth = dealing.worth()
        if tries:
            self._try(dealing)
        self._lay_out(dealing.seats)
        self._say(dealing)
        return Decision(
            self.now.targets,
            self.now.reasons,
            Optimality(worth, most, prices),
            use,
        )

    def searched(self, made_of: SequenceNumber, stopped: Stopped) -> Proposal | None:
        dealing, most, _ = self._deal()
        before = dealing.worth()
        found = improved(dealing, self.settings.search_beside_nodes, stopped)
        value, targets = dealing.worth(), tuple(targets_of(dealing.seats))
        least = self.settings.search_beside_gain * abs(before)
        if stopped() or not targets or value - before <= least:
            return None
        return Proposal(
            made_of=made_of,
            made_at=self.snapshot.at,
            value=value,
            value_before=before,
            bound=min(most, found.bound or most),
            work_units=found.tree_nodes,
            targets=targets,
        )

    def _deal(self) -> tuple[Round, float, Mapping[str, float]]:
        """The round as it is dealt at once, what no round is worth more than, and prices."""
        seats = self.seats.every
        board = Board(self.left.by_node(), self.snapshot.racks)
        capacity = {kind: board.whole[kind] for kind in board.kinds}
        bound = upper_bound([bidder_of(seat) for seat in seats], capacity)
        dealing = Round(seats, board, self.settings, self._quotas(), bound.prices, self._own())
        dealing.deal()
        most = bound.value
        if self.settings.search_nodes:
            most = min(most, improved(dealing, self.settings.search_nodes).bound or most)
        self.dealt = dealing
        return dealing, most, bound.prices

    def _nothing_to_choose(self, record: JobRecord) -> Reason:
        """Why there is nothing that the job could be given, and what would help."""
        promise = self.seats.promises.get(record.uid)
        if promise is not None and promise.steps_per_second:
            text = (
                f"is promised {promise.steps_per_second:.3g} steps a second, and nothing in the "
                "cluster that it may use is as fast; more or other accelerators would help, or "
                "to ask for fewer"
            )
        else:
            topology = record.job.spec.accelerators.topology
            text = (
                f"none of its plans and sizes fits the nodes that it may use{topology.words}; "
                "larger nodes, or more plans in spec.plans, would help"
            )
            if topology is not Topology.ANY:
                text += ", or topology Any in its spec"
        return Reason(ReasonCode.NO_MATCHING_ACCELERATOR, text)

    def _possible(self, record: JobRecord, empty: Capacity) -> bool:
        queue = self.snapshot.queues.get(record.job.spec.queue)
        if queue is None or not queue.takes(record.job.namespace):
            return False
        offer = self.menu.offer(record, queue.limit_accelerators, empty)
        return any(
            each.accelerators <= empty.most_if_empty(record.job.spec.accelerators)
            for each in offer.choices.every[:1]
        )

    def _quotas(self) -> Mapping[QueueName, int]:
        names = self.snapshot.queues
        left = ((name, self.now.quotas.left(name)) for name in names)
        return {name: count for name, count in left if count is not None}

    def _own(self) -> Mapping[QueueName, int]:
        """What is left of the queues' quotas; empty if no queue may borrow."""
        queues = self.snapshot.queues
        if all(queue.borrowing_accelerators == 0 for queue in queues.values()):
            return {}
        left = ((name, self.now.quotas.own_left(name)) for name in queues)
        return {name: count for name, count in left if count is not None}

    # -- places ---------------------------------------------------------------------------

    def _lay_out(self, seats: Sequence[Seat]) -> None:
        """Accelerators for what was dealt: first those that are kept, then the others, which take
        of each node what they have there already before anything else.
        """
        others: list[tuple[Standing, Choice, Given]] = []
        for standing, seat in zip(self.jobs, seats, strict=True):
            given = seat.given
            if given is None:
                continue
            if given.choice is None and standing.place is not None:
                claimed = self.left.claim(standing.place.by_node())
                assert claimed is not None, "what is kept is there"
                self.now.keep(standing.record, standing.place)
            elif given.choice is not None:
                others.append((standing, given.choice, given))
        if self.left.is_divided:
            # While there is a choice it is for those whose ranks must be close to each other.
            others.sort(key=lambda each: (-each[1].plan.tensor_parallel, -each[1].accelerators))
        own = {standing.uid: _held(standing) for standing, _, _ in others}
        wanted = {
            (node, each) for held in own.values() for node, ids in held.items() for each in ids
        }
        for standing, choice, given in others:
            parts = self._parts(choice, given, own[standing.uid], wanted)
            placement = placement_under(standing.record.job.spec, choice.plan, parts)
            self.now.gets(standing.record, placement)
            self.now.quotas.use(standing.record.job.spec.queue, placement.accelerator_count)
            self.now.reasons[standing.uid] = self.tried.get(standing.uid) or _why(choice)

    def trials(self, dealing: Round) -> Trials:
        """What looks for ways that are worth trying, once the round is dealt."""
        return Trials(
            self.snapshot,
            self.menu.times,
            self.settings,
            self.seats.competition,
            [(e.record, s) for e, s in zip(self.jobs, self.seats.every, strict=True)],
            self.seats.promises,
            dealing,
        )

    def _try(self, dealing: Round) -> None:
        """Some jobs go over to another way to learn what it takes."""
        if dealing.reserved:
            return  # Somebody waits for what ends by the predictions.
        found = self.trials(dealing).chosen()
        for seat in self.seats.every if found else ():
            trial = found.get(seat.uid)
            if trial is not None and seat.given is not None:
                choice = Choice.of(trial.kind, trial.way)
                dealing.gives(seat, Given(trial.parts, seat.given.worth, choice))
                self.tried[seat.uid] = Reason(ReasonCode.TRIES_PLAN, sentence(trial))

    def _parts(
        self,
        choice: Choice,
        given: Given,
        own: Mapping[NodeId, Sequence[AcceleratorId]],
        wanted: set[tuple[NodeId, AcceleratorId]],
    ) -> dict[NodeId, list[Accelerator]]:
        counts = {node: count for (_, node), count in given.parts}
        # The node that hosts the rendezvous comes first, so that those who stay keep their ranks.
        order = [node for node in own if node in counts]
        order += [node for node in counts if node not in own]
        chosen = self.left.take_rather(
            choice.kind,
            {node: counts[node] for node in order},
            own,
            wanted,
            choice.plan.tensor_parallel,
        )
        return chosen.parts

    # -- reasons --------------------------------------------------------------------------

    def _say(self, dealing: Round) -> None:
        for standing, seat in zip(self.jobs, dealing.seats, strict=True):
            if seat.given is not None:
                continue
            record = standing.record
            if not len(seat.choices.every):
                self.now.reasons[record.uid] = self._nothing_to_choose(record)
                continue
            displaced = dealing.displaced.get(seat.uid)
            least = min(each.accelerators for each in seat.choices.every)
            if displaced is not None:
                by = self.snapshot.jobs[displaced.by].job
                why = f"makes room for {by.full_name}, which needs it less long"
                if displaced.reclaimed:
                    why = (
                        f"gives back to {by.full_name} what queue {record.job.spec.queue} borrowed "
                        f"and queue {by.spec.queue} needs now, within its quota"
                    )
                facts = Preemption(
                    *(by.uid, by.spec.queue, by.spec.priority),
                    *(record.job.spec.queue, record.job.spec.priority),
                )
                self.now.reasons[record.uid] = Reason(
                    ReasonCode.PREEMPTED, why, least, preemption=facts
                )
                continue
            if seat.uid in dealing.put_off:
                why = "makes room: others gain more by it than it loses"
                self.now.reasons[record.uid] = Reason(ReasonCode.PREEMPTED, why, least)
                continue
            slow = dealing.could_begin(seat)
            left = self.now.quotas.left(record.job.spec.queue)
            if slow is not None:
                self.now.reasons[record.uid] = _rather_later(slow, seat)
            elif left is not None and left < least:
                self.now.reasons[record.uid] = self.now.waits.for_quota(record, least, left)
            else:
                self.now.wait(record, least, self.left)


def _way_held(record: JobRecord, seat: Seat, menu: Menu) -> Way | None:
    """What is known of what the job has."""
    if record.attempt is None or seat.held is None:
        return None
    place = record.attempt.placement
    return menu.way(record.job.spec, kind_of(seat.held), place.plan, shares_of(place))


def _held(standing: Standing) -> dict[NodeId, list[AcceleratorId]]:
    attempt = standing.record.attempt
    place: Placement | None = standing.place
    if place is None and attempt is not None:
        place = attempt.placement
    return {} if place is None else place.by_node()


def _rather_later(slow: Choice, seat: Seat) -> Reason:
    """Why a job waits although it could run."""
    fastest = min(seat.choices.every, key=lambda each: each.seconds)
    return Reason(
        ReasonCode.WAITING_FOR_FASTER,
        f"would be done later with {slow.plan} on the {slow.accelerators} that are free "
        f"({slow.steps_per_second:.3g} steps a second) than if it waits for more "
        f"({fastest.steps_per_second:.3g} with {fastest.accelerators})",
    )


def _why(choice: Choice) -> Reason:
    speed = f"{choice.steps_per_second:.3g} steps a second are predicted"
    told = "nothing is known of its steps" if choice.is_guess else speed
    return Reason(ReasonCode.STARTED, told)
