"""Whatever happens to a cluster, in whatever order it is heard of: no accelerator is held twice,
gangs are whole, nothing is lost, accounts add up, the log folds to the same state, and in the end
every job ends.
"""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controlplane.domain.action import Action, ForgetJob, StartAttempt
from controlplane.domain.clock import seconds
from controlplane.domain.codec import dump, load
from controlplane.domain.event import (
    AcceleratorHealthChanged,
    Event,
    JobProgressed,
    JobSubmitted,
    JobUpdated,
    JobWithdrawn,
    NodeDrained,
    NodeLost,
)
from controlplane.domain.ids import JobUid, Term
from controlplane.domain.job import Topology
from controlplane.domain.lifecycle import FINISHED, HOLDING, IDLE, Stage
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Outcome, Progress
from controlplane.engine.state import ClusterState
from tests.builders import JobBuilder, World, a_job, a_node
from tests.property.accounts import Accounts
from tests.property.lives import worlds
from tests.property.played_agents import PlayedAgent

NEVER_HERE = {
    ReasonCode.QUEUE_MISSING,
    ReasonCode.NO_MATCHING_ACCELERATOR,
    ReasonCode.EXCEEDS_CLUSTER,
    ReasonCode.BATCH_NOT_DIVISIBLE,
    ReasonCode.QUOTA_EXCEEDED,
}
WAITS_FOR_OTHERS = (
    ReasonCode.WAITING_FOR_ACCELERATORS,
    ReasonCode.BEHIND_EARLIER_JOB,
    ReasonCode.WAITING_FOR_RELEASE,
)
KINDS = ("small", "large")
FAILURES = st.sampled_from(
    [
        ReasonCode.RANK_FAILED,
        ReasonCode.OUT_OF_MEMORY,
        ReasonCode.RANK_HUNG,
        ReasonCode.RANK_LOST,
        ReasonCode.COMMUNICATION_FAILED,
        ReasonCode.LOSS_NOT_FINITE,
        ReasonCode.RAY_LOST,
        None,
    ]
)


PLANS = st.permutations(["dp2", "tp2", "pp2.1f1b-ga4", "dp2-ga3"]).map(lambda plans: plans[:3])
"""Plans for two accelerators; the first one is taken, so another order is another plan."""


@st.composite
def job_specs(draw: st.DrawFn) -> JobBuilder:
    job = a_job()
    minimum = draw(st.sampled_from([1, 1, 2, 3]))
    kind = draw(st.integers(0, 6))
    if kind == 0:
        job = job.wanting(minimum).running_a_command()
    elif kind <= 2:
        job = job.wanting(1, 4).with_batch(12).under(*draw(PLANS))
    else:
        maximum = minimum + draw(st.integers(0, 6))
        job = job.wanting(minimum, maximum).with_batch(draw(st.sampled_from([0, 12, 60])))
    if draw(st.integers(0, 3)) == 0:
        job = job.of_type(draw(st.sampled_from(KINDS)))
    if draw(st.integers(0, 3)) == 0:
        job = job.on_one_node() if draw(st.booleans()) else job.in_one_rack()
    if draw(st.integers(0, 3)) == 0:
        job = job.with_priority(draw(st.integers(-1, 1)))
    if draw(st.integers(0, 3)) == 0:
        job = job.guaranteed()
    if draw(st.integers(0, 3)) == 0:
        job = job.in_queue(draw(st.sampled_from(["narrow", "missing"])))
    job = job.suspended(draw(st.integers(0, 7)) == 0)
    return job.retrying(draw(st.integers(0, 3)), 5, 20).training(draw(st.floats(0, 1)))


class ClusterLife(RuleBasedStateMachine):
    policy = "equal-share"

    @initialize(
        nodes=st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from(KINDS)), min_size=1, max_size=4
        ),
        specs=st.lists(job_specs(), min_size=2, max_size=4),
    )
    def begin(self, nodes: list[tuple[int, str]], specs: list[JobBuilder]) -> None:
        self.world = World(self.policy)
        self.world.with_queue("narrow", quota=3)
        self.agents = [
            PlayedAgent(a_node(f"n{i}", count, kind, rack=("", "r0", "r1")[i % 3], island_of=2))
            for i, (count, kind) in enumerate([(4, "small"), *nodes])
        ]
        self.outbox: list[Event] = []
        self.submitted: set[JobUid] = set()
        self.may_go: set[JobUid] = set()
        self.accounts = Accounts(self.world)
        for agent in self.agents:
            self.world.tell(agent.introduces())
        self.some_submit(specs)
        self.a_while_passes(2, leave=False)

    # -- people --------------------------------------------------------------------------

    @rule(specs=st.lists(job_specs(), min_size=1, max_size=3))
    def some_submit(self, specs: list[JobBuilder]) -> None:
        for spec in specs:
            self._submits(spec)

    def _submits(self, spec: JobBuilder) -> None:
        name = f"j{len(self.submitted)}"
        job = a_job(name).job
        self.submitted.add(job.uid)
        self.outbox.append(JobSubmitted(JobBuilder(job)._spec(**_spec_of(spec)).job))
        if len(self.submitted) % 2:
            self.world.tell(self.outbox[-1])  # and once more, late

    def _some_job(self, data: st.DataObject) -> JobUid | None:
        uids = list(self.world.state.jobs)
        return data.draw(st.sampled_from(uids)) if uids else None

    @rule(data=st.data(), spec=job_specs())
    def someone_updates(self, data: st.DataObject, spec: JobBuilder) -> None:
        uid = self._some_job(data)
        if uid is not None:
            known = self.world.state.jobs[uid].job
            # A program stays a program: the door takes no other (wire.manifests.IMMUTABLE).
            kind = {name: getattr(known.spec, name) for name in ("unit_per_node", "elastic")}
            new = _spec_of(spec) | kind
            changed = JobBuilder(known)._spec(**new).generation(known.generation + 1)
            self.world.tell(JobUpdated(changed.job))

    @rule(data=st.data(), plans=PLANS, answer=st.sampled_from(["yes", "no", "nothing"]))
    def someone_changes_plans(self, data: st.DataObject, plans: list[str], answer: str) -> None:
        for agent in self.agents:
            agent.ranks_answer = answer
        named = [uid for uid, record in self.world.state.jobs.items() if record.job.spec.plans]
        if named:
            known = JobBuilder(self.world.state.jobs[data.draw(st.sampled_from(named))].job)
            others = known.under(*plans).generation(known.job.generation + 1)
            self.world.tell(JobUpdated(others.job))
            self.a_while_passes(2, leave=True)

    @rule(data=st.data())
    def someone_suspends_or_resumes(self, data: st.DataObject) -> None:
        uid = self._some_job(data)
        if uid is not None:
            known = JobBuilder(self.world.state.jobs[uid].job)
            toggled = known.suspended(not known.job.spec.suspend)
            self.world.tell(JobUpdated(toggled.generation(known.job.generation + 1).job))

    @rule(data=st.data(), purge=st.booleans())
    def someone_withdraws(self, data: st.DataObject, purge: bool) -> None:
        uid = self._some_job(data)
        if uid is not None:
            self.may_go.add(uid)
            self.world.tell(JobWithdrawn(uid, purge))

    @rule(data=st.data(), drained=st.booleans())
    def someone_drains(self, data: st.DataObject, drained: bool) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        self.world.tell(NodeDrained(agent.node.id, drained))

    @rule(quota=st.sampled_from([None, 0, 1, 3, 6]))
    def someone_changes_a_quota(self, quota: int | None) -> None:
        self.world.with_queue("narrow", quota)

    # -- hardware ------------------------------------------------------------------------

    @rule(data=st.data())
    def a_node_falls_silent_or_returns(self, data: st.DataObject) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        if agent.reachable:
            agent.reachable = False
            self.world.tell(NodeLost(agent.node.id))
        else:
            self._returns(agent)

    def _returns(self, agent: PlayedAgent) -> None:
        agent.reachable = True
        self.world.tell(agent.introduces())

    @rule(data=st.data(), problem=st.sampled_from(["", "Xid 79"]))
    def an_accelerator_changes(self, data: st.DataObject, problem: str) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        in_use = [slot for slots in agent.running.values() for slot in slots]
        slot = data.draw(st.sampled_from(in_use or [a.id for a in agent.node.accelerators]))
        agent.finds(slot, problem)
        if agent.reachable:
            self.world.tell(AcceleratorHealthChanged(agent.node.id, slot, problem))

    @rule(data=st.data(), code=FAILURES)
    def a_unit_fails(self, data: st.DataObject, code: ReasonCode | None) -> None:
        running = [(agent, key) for agent in self.agents for key in agent.running]
        if running:
            agent, key = data.draw(st.sampled_from(running))
            gone = agent.leave(key, Outcome.FAILED if code else Outcome.LOST, code)
            if agent.reachable:
                self.outbox.append(gone)

    # -- agents --------------------------------------------------------------------------

    @rule(rounds=st.integers(1, 4), leave=st.booleans())
    def a_while_passes(self, rounds: int, leave: bool) -> None:
        """Most of the time everything works, or little would ever run. What leaves does not leave
        every node at the same time.
        """
        for turn in range(rounds):
            for number, agent in enumerate(self.agents):
                if agent.reachable:
                    self.outbox += agent.obey(self.world.state)
                    self.outbox += agent.leaving() if leave and (turn + number) % 2 else []
            self.all_messages_arrive()
            for uid in list(self.world.state.jobs):
                self._report(uid, 2)
            self._cycle(2)

    @rule(data=st.data())
    def an_agent_obeys(self, data: st.DataObject) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        if agent.reachable:
            self.outbox += agent.obey(self.world.state)

    @rule(data=st.data())
    def units_leave(self, data: st.DataObject) -> None:
        agent = data.draw(st.sampled_from(self.agents))
        said = agent.leaving()
        if agent.reachable:
            self.outbox += said

    @rule()
    def those_who_handed_over_leave(self) -> None:
        """Before anybody has heard that the others went over without them."""
        for uid, record in self.world.state.jobs.items():
            attempt = record.attempt
            for unit in attempt.leaving if attempt is not None else ():
                assert attempt is not None
                key, first = (uid, attempt.number, unit.index), (uid, attempt.number, 0)
                went_over = any(
                    agent.plans[first] == str(attempt.placement.plan)
                    for agent in self.agents
                    if first in agent.running
                )
                for agent in self.agents if went_over else ():
                    if key in agent.running:
                        gone = agent.leave(key, Outcome.STOPPED)
                        self.outbox += [gone] if agent.reachable else []

    @precondition(lambda self: self.outbox)
    @rule(data=st.data(), doubled=st.booleans())
    def a_message_arrives(self, data: st.DataObject, doubled: bool) -> None:
        index = data.draw(st.integers(0, len(self.outbox) - 1))
        self.world.tell(self.outbox[index])
        if not doubled:
            del self.outbox[index]

    @rule()
    def all_messages_arrive(self) -> None:
        self.world.tell(*self.outbox)
        self.outbox = []

    @rule(data=st.data(), step=st.integers(1, 50))
    def a_job_trains(self, data: st.DataObject, step: int) -> None:
        uid = self._some_job(data)
        if uid is not None:
            self._report(uid, step)

    def _report(self, uid: JobUid, step: int) -> None:
        attempt = self.world.state.jobs[uid].attempt
        if attempt is not None and self._is_up(uid):
            progress = Progress(step=step, loss=0.5, step_seconds=1.0)
            first = attempt.placement.units[0].node
            self.world.tell(JobProgressed(uid, attempt.number, progress, node=first))

    def _is_up(self, uid: JobUid) -> bool:
        attempt = self.world.state.jobs[uid].attempt
        if attempt is None:
            return False
        up = {key for agent in self.agents if agent.reachable for key in agent.running}
        return all((uid, attempt.number, u.index) in up for u in attempt.units_in_force)

    @rule(data=st.data())
    def a_job_finishes(self, data: st.DataObject) -> None:
        uid = self._some_job(data)
        if uid is not None:
            self.outbox += self._finish(uid)

    def _finish(self, uid: JobUid) -> list[Event]:
        attempt = self.world.state.jobs[uid].attempt
        if attempt is None or not self._is_up(uid):
            return []
        return [
            agent.leave(key, Outcome.SUCCEEDED)
            for agent in self.agents
            for key in list(agent.running)
            if key[:2] == (uid, attempt.number)
        ]

    # -- the control plane ---------------------------------------------------------------

    @rule(passes=st.sampled_from([0, 1, 6, 130]), between=st.booleans())
    def a_cycle_decides(self, passes: int, between: bool) -> None:
        meanwhile: list[Event] = []
        if between and self.outbox:
            meanwhile = [self.outbox.pop()]
        self._cycle(passes, *meanwhile)

    def _cycle(self, passes: float, *meanwhile: Event) -> tuple[Action, ...]:
        before = self.world.state
        self.accounts.time_passes(seconds(passes))
        outcome = self.world.passes(passes).cycle(*meanwhile)
        for action in outcome.decided.actions:
            if isinstance(action, ForgetJob):
                assert action.uid in self.may_go
            if isinstance(action, StartAttempt):
                self._check_gang(before, action)
        for record in self.world.state.jobs.values():
            if record.stage in IDLE and not meanwhile:
                assert record.reason is not None, f"{record.uid} waits and is not told why"
                _check_told(record.reason)
        return outcome.decided.actions

    def _check_gang(self, before: ClusterState, start: StartAttempt) -> None:
        request = before.jobs[start.uid].job.spec.accelerators
        slots = list(start.placement.slots())
        assert request.minimum <= len(slots) <= request.maximum
        assert len(set(slots)) == len(slots)
        if request.topology is Topology.SAME_NODE:
            assert len(start.placement.nodes) == 1
        racks = {before.nodes[name].node.rack or name for name in start.placement.nodes}
        assert request.topology is not Topology.SAME_RACK or len(racks) == 1
        kinds = {
            a.type
            for name in start.placement.nodes
            for a in before.nodes[name].node.accelerators
            if (name, a.id) in slots
        }
        assert len(kinds) == 1
        known = before.jobs[start.uid].out_of_memory
        assert not {(kind, start.placement.plan) for kind in kinds} & set(known)

    @rule()
    def the_control_plane_restarts(self) -> None:
        replayed = self.world.replayed()
        assert replayed.after_restart() == self.world.state.after_restart()
        stored = dump(replayed, ClusterState)
        assert load(stored, ClusterState) == replayed
        assert dump(load(stored, ClusterState), ClusterState) == stored
        self.world.state = replayed.after_restart()
        self.world.term = Term(self.world.term + 1)
        for agent in self.agents:
            if agent.reachable:
                self.world.tell(agent.introduces())

    # -- what must always hold -----------------------------------------------------------

    @invariant()
    def accounts_add_up(self) -> None:
        self.accounts.of_jobs_add_up()

    @invariant()
    def nothing_is_held_twice(self) -> None:
        state = self.world.state
        held = [
            slot for node in state.nodes.values() for s in node.strays for slot in s.accelerators
        ]
        for record in state.jobs.values():
            assert (record.attempt is not None) == (record.stage in HOLDING)
            if record.attempt is not None:
                for unit in record.attempt.units:
                    if record.attempt.holds(unit.index):
                        held += unit.accelerators
        assert len(held) == len(set(held)), "an accelerator is held twice"
        snapshot = state.snapshot(self.world.now)
        assert len(held) == len(snapshot.holders)
        looked_up_anew = replace(state).snapshot(self.world.now)
        assert snapshot == looked_up_anew, "what was carried along is not what is there"
        known = {a.id for node in state.nodes.values() for a in node.node.accelerators}
        assert set(held) <= known

    @invariant()
    def nothing_is_lost(self) -> None:
        arrived = {
            item.event.job.uid for item in self.world.log if isinstance(item.event, JobSubmitted)
        }
        assert arrived - set(self.world.state.jobs) <= self.may_go

    # -- the end -------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self._everything_is_mended()
        self._comes_to_rest()
        for _ in range(60):
            done = [event for uid in list(self.world.state.jobs) for event in self._finish(uid)]
            self.world.tell(*done)
            self._comes_to_rest()
            if not done:
                break
        for record in self.world.state.jobs.values():
            assert record.reason is not None
            waits_rightly = record.stage is Stage.SUSPENDED or record.reason.code in NEVER_HERE
            assert record.stage in FINISHED or waits_rightly, (record.stage, record.reason)
        assert not any(agent.running for agent in self.agents)
        assert not self.world.state.snapshot(self.world.now).holders
        assert not self.world.state.purges
        self.accounts.of_the_cluster_add_up()

    def _everything_is_mended(self) -> None:
        self.world.tell(*self.outbox)
        self.outbox = []
        for agent in self.agents:
            for accelerator in agent.node.accelerators:
                agent.finds(accelerator.id, "")
            self._returns(agent)
            self.world.tell(NodeDrained(agent.node.id, drained=False))

    def _comes_to_rest(self) -> None:
        """With agents that behave and nothing else happening, deciding comes to an end."""
        quiet = 0
        ordered: list[str] = []
        for _ in range(60):
            said = [event for agent in self.agents for event in agent.obey(self.world.state)]
            said += [event for agent in self.agents for event in agent.leaving()]
            self.world.tell(*said)
            for uid in list(self.world.state.jobs):
                self._report(uid, 60)
            acted = self._cycle(21)
            ordered += [str(action) for action in acted]
            quiet = 0 if acted or said else quiet + 1
            if quiet == 3:
                return
        raise AssertionError("jobs are ordered about for ever:\n" + "\n".join(ordered[-8:]))


def _check_told(why: Reason) -> None:
    """Who waits for what others have is told how much that is, and who has it."""
    if why.code in (*WAITS_FOR_OTHERS, ReasonCode.QUOTA_EXCEEDED):
        assert why.deficit > 0, why
    if why.code in WAITS_FOR_OTHERS:
        assert why.holders or why.behind, why
    assert (why.code is ReasonCode.BEHIND_EARLIER_JOB) == bool(why.behind), why


def _spec_of(builder: JobBuilder) -> dict[str, object]:
    spec = builder.job.spec
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


class FifoLife(ClusterLife):
    policy = "fifo"


LIVES = settings(worlds(few=60), stateful_step_count=40)


# Passing takes seconds; a failure is first made smaller, which takes minutes and is worth it.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [ClusterLife, FifoLife])
def test_a_cluster_lives(machine: type[ClusterLife]) -> None:
    run_state_machine_as_test(machine, settings=LIVES)
