"""What a node shall run against what it runs: every case, and what must hold in all of them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import desired
from agent.desired import (
    AskForPlan,
    Assignment,
    Command,
    EndUnit,
    Local,
    LocalUnit,
    Memory,
    PurgeCheckpoints,
    ReportExit,
    RequestStop,
    StartUnit,
    UnitEnd,
    UnitKey,
    WantedLaunch,
    WantedUnit,
)
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome

KEY = UnitKey("job", 2, 0)
UNIT = WantedUnit(0, ("a",))
HEALTHY = {"a": "", "b": ""}
KNOWN_END = UnitEnd(Outcome.FAILED, 7, Reason(ReasonCode.RANK_FAILED, "it failed"))


def launch(intent: Intent = Intent.RUN, **changes: Any) -> WantedLaunch:
    return replace(WantedLaunch("job", 2, intent, (UNIT,)), **changes)


def ordered(
    *launches: WantedLaunch, local: Local | None = None, memory: Memory | None = None
) -> tuple[Command, ...]:
    return desired.commands(
        Assignment(1, 1, launches), local or Local(accelerators=HEALTHY), memory or Memory()
    )


def running(**flags: Any) -> Local:
    return Local(running={KEY: LocalUnit(("a",), **flags)}, accelerators=HEALTHY)


STARTED = Memory(started={KEY}, highest_attempts={"job": 2})


@pytest.mark.parametrize(
    ("intent", "local", "memory", "expected"),
    [
        pytest.param(Intent.RUN, None, None, StartUnit, id="new"),
        pytest.param(Intent.STOP, None, None, Outcome.NEVER_STARTED, id="stop-of-unknown"),
        pytest.param(Intent.END, None, None, Outcome.NEVER_STARTED, id="end-of-unknown"),
        pytest.param(Intent.RUN, running(), STARTED, None, id="runs"),
        pytest.param(Intent.STOP, running(), STARTED, RequestStop, id="stop"),
        pytest.param(Intent.END, running(), STARTED, EndUnit, id="end"),
        pytest.param(Intent.STOP, running(stop_requested=True), STARTED, None, id="stop-was-asked"),
        pytest.param(
            Intent.END, running(stop_requested=True), STARTED, EndUnit, id="stop-is-too-slow"
        ),
        pytest.param(Intent.END, running(end_requested=True), STARTED, None, id="end-was-told"),
        pytest.param(
            Intent.STOP, running(end_requested=True), STARTED, None, id="end-outdoes-stop"
        ),
        pytest.param(Intent.RUN, None, STARTED, Outcome.LOST, id="started-and-gone"),
        pytest.param(Intent.STOP, None, STARTED, Outcome.LOST, id="stop-of-gone"),
        pytest.param(Intent.END, None, STARTED, Outcome.LOST, id="end-of-gone"),
        pytest.param(
            Intent.RUN,
            Local(ends={KEY: KNOWN_END}, accelerators=HEALTHY),
            STARTED,
            Outcome.FAILED,
            id="known-end-is-told-again",
        ),
        pytest.param(
            Intent.RUN,
            Local(ends={KEY: KNOWN_END}, ends_pending={KEY}, accelerators=HEALTHY),
            STARTED,
            None,
            id="end-is-on-its-way",
        ),
        pytest.param(
            Intent.RUN, None, Memory(highest_attempts={"job": 3}), Outcome.FAILED, id="fenced"
        ),
        pytest.param(Intent.RUN, None, Memory(highest_attempts={"job": 1}), StartUnit, id="next"),
    ],
)
def test_one_unit(
    intent: Intent,
    local: Local | None,
    memory: Memory | None,
    expected: type[Command] | Outcome | None,
) -> None:
    answer = ordered(launch(intent), local=local, memory=memory)
    if expected is None:
        assert answer == ()
    elif isinstance(expected, Outcome):
        (told,) = answer
        assert isinstance(told, ReportExit)
        assert (told.key, told.end.outcome) == (KEY, expected)
    else:
        assert [type(command) for command in answer] == [expected]
        assert answer[0].key == KEY


@pytest.mark.parametrize(
    ("memory", "obeyed"),
    [
        (Memory(highest=(0, 9)), True),
        (Memory(highest=(1, 1)), True),
        (Memory(highest=(1, 2)), False),
        (Memory(highest=(2, 0)), False),
    ],
)
def test_an_older_assignment_moves_nothing(memory: Memory, obeyed: bool) -> None:
    assert bool(ordered(launch(), memory=memory)) is obeyed
    assert bool(desired.refusal(Assignment(1, 1), memory)) is not obeyed


@pytest.mark.parametrize("term", [2**62, 2**63 - 1])
def test_an_absurd_term_is_never_obeyed(term: int) -> None:
    assert "no control plane has such a term" in desired.refusal(Assignment(term, 1), Memory())
    assert not desired.refusal(Assignment(2**62 - 1, 1), Memory())


@pytest.mark.parametrize(
    ("accelerators", "code", "says"),
    [
        ({"b": ""}, ReasonCode.START_REFUSED, "not on this node, which has b"),
        ({}, ReasonCode.START_REFUSED, "no accelerators"),
        ({"a": "Xid 79"}, ReasonCode.ACCELERATOR_UNHEALTHY, "Xid 79"),
    ],
)
def test_what_cannot_be_used_is_refused(
    accelerators: dict[str, str], code: ReasonCode, says: str
) -> None:
    (told,) = ordered(launch(), local=Local(accelerators=accelerators))
    assert isinstance(told, ReportExit)
    assert told.end.reason is not None
    assert told.end.reason.code is code
    assert says in told.end.reason.message
    # Not NeverStarted: that would be tried again at once, for ever.
    assert told.end.outcome is Outcome.FAILED


def test_a_held_accelerator_is_waited_for_if_its_holder_leaves() -> None:
    holder = UnitKey("other", 1, 0)
    there = Local(running={holder: LocalUnit(("a",))}, accelerators=HEALTHY)
    leaving = WantedLaunch("other", 1, Intent.STOP, (UNIT,))
    assert ordered(leaving, launch(), local=there) == (RequestStop(holder),)
    (told,) = ordered(launch(), local=there)
    assert isinstance(told, ReportExit)
    assert told.end.reason is not None
    assert "held by unit other/1/0" in told.end.reason.message


def test_no_accelerator_is_started_on_twice_in_one_assignment() -> None:
    twin = WantedLaunch("twin", 1, Intent.RUN, (UNIT,))
    first, second = ordered(launch(), twin)
    assert isinstance(first, StartUnit)
    assert isinstance(second, ReportExit)


def test_units_other_than_the_first_wait_for_the_address() -> None:
    second = launch(units=(WantedUnit(1, ("b",)),))
    assert ordered(second) == ()
    (started,) = ordered(replace(second, rendezvous="h:1"))
    assert isinstance(started, StartUnit)


def test_a_unit_waits_for_the_pod_of_its_job_and_is_refused_when_that_is_overdue() -> None:
    wanted = launch(own_pod=True)
    assert ordered(wanted) == ()
    assert ordered(wanted, local=Local(accelerators=HEALTHY, pods_up={("job", 9)})) == ()
    (started,) = ordered(wanted, local=Local(accelerators=HEALTHY, pods_up={("job", 2)}))
    assert isinstance(started, StartUnit)
    (told,) = ordered(wanted, local=Local(accelerators=HEALTHY, pods_overdue={("job", 2)}))
    assert isinstance(told, ReportExit)
    assert told.end.reason is not None
    assert told.end.reason.code is ReasonCode.POD_NOT_STARTED
    # It was never begun, so it can be taken back.
    (told,) = ordered(replace(wanted, intent=Intent.STOP))
    assert isinstance(told, ReportExit)
    assert told.end.outcome is Outcome.NEVER_STARTED


def test_strays_are_kept() -> None:
    assert ordered(local=running(), memory=STARTED) == ()


def test_checkpoints_are_purged_once_and_only_when_nothing_runs() -> None:
    gone = WantedLaunch("job", 2, Intent.END, manifest_json="{}", purge=True)
    assert ordered(gone) == (PurgeCheckpoints(KEY, "{}"),)
    assert ordered(gone, local=running()) == ()
    assert ordered(gone, memory=Memory(purged={"job"})) == (
        ReportExit(KEY, UnitEnd(Outcome.NEVER_STARTED)),
    )


UIDS = st.sampled_from(["x", "y"])
SLOTS = st.sampled_from(["a", "b", "c", "elsewhere"])
KEYS = st.builds(UnitKey, UIDS, st.integers(1, 3), st.integers(0, 2))
LAUNCHES = st.builds(
    WantedLaunch,
    uid=UIDS,
    attempt=st.integers(1, 3),
    intent=st.sampled_from(Intent),
    units=st.lists(
        st.builds(WantedUnit, st.integers(0, 2), st.lists(SLOTS, max_size=2).map(tuple)),
        max_size=3,
        unique_by=lambda unit: unit.index,
    ).map(tuple),
    rendezvous=st.sampled_from(["", "h:1"]),
)
ASSIGNMENTS = st.builds(
    Assignment,
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(LAUNCHES, max_size=4, unique_by=lambda one: (one.uid, one.attempt)).map(tuple),
)
LOCALS = st.builds(
    Local,
    running=st.dictionaries(
        KEYS,
        st.builds(LocalUnit, st.lists(SLOTS, max_size=1).map(tuple), st.booleans(), st.booleans()),
        max_size=3,
    ),
    ends=st.dictionaries(KEYS, st.just(KNOWN_END), max_size=2),
    ends_pending=st.sets(KEYS, max_size=2),
    accelerators=st.just({"a": "", "b": "", "c": "Xid 79"}),
)
MEMORIES = st.builds(
    Memory,
    highest=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    highest_attempts=st.dictionaries(UIDS, st.integers(0, 3)),
    started=st.sets(KEYS, max_size=4),
)


@given(ASSIGNMENTS, LOCALS, MEMORIES)
def test_what_always_holds(assignment: Assignment, local: Local, memory: Memory) -> None:
    answer = desired.commands(assignment, local, memory)
    starts = [command for command in answer if isinstance(command, StartUnit)]
    if (assignment.term, assignment.number) < memory.highest:
        assert answer == ()
    for start in starts:
        assert start.key not in memory.started
        assert start.key not in local.running
        assert start.key not in local.ends
        assert start.key.attempt >= memory.highest_attempts.get(start.key.uid, 0)
        assert all(local.accelerators[slot] == "" for slot in start.unit.accelerators)
        assert start.launch.rendezvous or start.key.unit == 0
    held = [slot for unit in local.running.values() for slot in unit.accelerators]
    taken = [slot for start in starts for slot in set(start.unit.accelerators)]
    assert not set(held) & set(taken)
    assert len(taken) == len(set(taken))
    touched = {command.key for command in answer if isinstance(command, RequestStop | EndUnit)}
    listed = {one.key(unit) for one in assignment.launches for unit in one.units}
    assert touched <= local.running.keys() & listed
    for told in answer:
        if isinstance(told, ReportExit):
            assert told.key not in local.running
            assert told.key not in local.ends_pending
            assert told.key in listed


@given(ASSIGNMENTS, LOCALS, MEMORIES)
def test_carrying_it_out_leaves_nothing_to_do(
    assignment: Assignment, local: Local, memory: Memory
) -> None:
    """Level-based: once every command is carried out, the same assignment asks for no more."""
    running_, pending = dict(local.running), set(local.ends_pending)
    started = set(memory.started)
    for command in desired.commands(assignment, local, memory):
        match command:
            case StartUnit(key, _, unit):
                running_[key] = LocalUnit(unit.accelerators)
                started.add(key)
            case RequestStop(key):
                running_[key] = replace(running_[key], stop_requested=True)
            case EndUnit(key):
                running_[key] = replace(running_[key], end_requested=True)
            case ReportExit(key, _):
                pending.add(key)
    after = replace(local, running=running_, ends_pending=frozenset(pending))
    assert desired.commands(assignment, after, replace(memory, started=frozenset(started))) == ()


@pytest.mark.parametrize(
    ("unit", "local", "asked"),
    [
        (0, {"plan": "dp2"}, True),
        (0, {"plan": "tp2"}, False),
        (1, {"plan": "dp2"}, False),
        (0, {"plan": "dp2", "stop_requested": True}, False),
        (0, {"plan": "dp2", "end_requested": True}, False),
    ],
)
def test_unit_0_is_asked_for_a_plan_that_it_was_not_given(
    unit: int, local: dict[str, Any], asked: bool
) -> None:
    key = UnitKey("job", 2, unit)
    there = Local(running={key: LocalUnit(("a",), **local)}, accelerators=HEALTHY)
    memory = Memory(started={key})
    wanted = launch(units=(WantedUnit(unit, ("a",)),), plan="tp2")
    found = ordered(wanted, local=there, memory=memory)
    assert found == ((AskForPlan(key, "tp2"),) if asked else ())
    found = ordered(replace(wanted, intent=Intent.STOP), local=there, memory=memory)
    assert not any(isinstance(command, AskForPlan) for command in found)
