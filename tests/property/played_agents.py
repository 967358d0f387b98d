"""Agents as a machine plays them: they obey their assignments, and their messages come late,
doubled and out of order. What really runs is known here, so holding twice is seen here.
"""

from dataclasses import dataclass, field, replace

from controlplane.domain.event import (
    Event,
    NodeRegistered,
    PlanChanged,
    PlanRefused,
    RendezvousBound,
    UnitExited,
    UnitStarted,
)
from controlplane.domain.ids import AcceleratorId, Attempt, JobUid, NodeId
from controlplane.domain.launch import Launch
from controlplane.domain.node import Node
from controlplane.domain.placement import LaunchUnit
from controlplane.domain.reason import Reason, ReasonCode
from controlplane.domain.record import Intent, Outcome, RunningUnit, UnitExit
from controlplane.engine.state import ClusterState
from tests.builders import launches_for

Key = tuple[JobUid, Attempt, int]


@dataclass
class PlayedAgent:
    """One node's agent, with what it remembers on disk and what runs on its node."""

    node: Node
    running: dict[Key, tuple[AcceleratorId, ...]] = field(default_factory=dict)
    intents: dict[Key, Intent] = field(default_factory=dict)
    ended: dict[Key, UnitExit] = field(default_factory=dict)
    highest: dict[JobUid, Attempt] = field(default_factory=dict)
    plans: dict[Key, str] = field(default_factory=dict)
    asked: dict[Key, str] = field(default_factory=dict)
    ranks_answer: str = "yes"
    purged: list[JobUid] = field(default_factory=list)
    reachable: bool = True

    def obey(self, state: ClusterState) -> list[Event]:
        """Compares the assignment with what runs, and acts; returns what it says."""
        said: list[Event] = []
        for launch in launches_for(state, self.node.id):
            if launch.purge:
                self.purged.append(launch.uid)
                said.append(self._exit((launch.uid, launch.attempt, 0), Outcome.NEVER_STARTED))
            for unit in launch.units:
                said += self._towards(state, launch, unit)
        return said

    def _towards(self, state: ClusterState, launch: Launch, unit: LaunchUnit) -> list[Event]:
        key = (launch.uid, launch.attempt, unit.index)
        if key in self.running:
            self.intents[key] = launch.intent
            return self._asked_for_plan(state, key, launch)
        if key in self.ended:
            return [UnitExited(key[0], key[1], self.ended[key], self.node.id)]
        if launch.intent is not Intent.RUN:
            return [self._exit(key, Outcome.NEVER_STARTED)]
        if launch.attempt < self.highest.get(launch.uid, 0):
            return [self._exit(key, Outcome.FAILED, ReasonCode.FENCED)]
        if unit.index and not launch.rendezvous:
            return []
        self.plans[key] = self.asked[key] = str(launch.plan)
        return self._start(key, unit)

    def _asked_for_plan(self, state: ClusterState, key: Key, launch: Launch) -> list[Event]:
        """Unit 0's ranks are asked once for each plan, and say yes, no or nothing. Before they say
        yes to more ranks, those are there.
        """
        before, plan = self.plans[key], str(launch.plan)
        if key[2] or launch.intent is not Intent.RUN or self.asked[key] == plan:
            return []
        attempt = state.jobs[key[0]].attempt
        says_yes = self.ranks_answer == "yes"
        if says_yes and attempt is not None and not attempt.joining <= attempt.units_up:
            return []
        self.asked[key] = plan
        if self.ranks_answer == "yes" or (before == plan and self.ranks_answer == "no"):
            self.plans[key] = plan
            return [PlanChanged(key[0], key[1], before, plan, 1, 0.5, (), self.node.id)]
        if self.ranks_answer == "no":
            return [PlanRefused(key[0], key[1], plan, "as played", self.node.id)]
        return []

    def _start(self, key: Key, unit: LaunchUnit) -> list[Event]:
        in_use = {slot: who for who, slots in self.running.items() for slot in slots}
        for slot in unit.accelerators:
            assert slot not in in_use, f"{slot} is held by {in_use[slot]} and given to {key}"
        self.running[key] = unit.accelerators
        self.intents[key] = Intent.RUN
        self.highest[key[0]] = key[1]
        said: list[Event] = [UnitStarted(*key, node=self.node.id)]
        if unit.index == 0:
            address = f"{self.node.address}:1"
            said.append(RendezvousBound(key[0], key[1], address, node=self.node.id))
        return said

    def _exit(self, key: Key, outcome: Outcome, code: ReasonCode | None = None) -> UnitExited:
        reason = Reason(code, "as played") if code is not None else None
        self.ended[key] = UnitExit(key[2], outcome, reason=reason)
        return UnitExited(key[0], key[1], self.ended[key], self.node.id)

    def leave(self, key: Key, outcome: Outcome, code: ReasonCode | None = None) -> UnitExited:
        """The unit's processes are gone; this says so."""
        del self.running[key]
        return self._exit(key, outcome, code)

    def leaving(self) -> list[Event]:
        """Everything that was told to go goes."""
        told = [key for key in self.running if self.intents[key] is not Intent.RUN]
        return [
            self.leave(key, Outcome.STOPPED)
            if self.intents[key] is Intent.STOP
            else self.leave(key, Outcome.LOST)
            for key in told
        ]

    def introduces(self) -> NodeRegistered:
        """What it says when it comes to the control plane."""
        alive = tuple(RunningUnit(*key, slots) for key, slots in self.running.items())
        return NodeRegistered(self.node, alive, tuple(self.highest.items()))

    def finds(self, accelerator: AcceleratorId, problem: str) -> None:
        """Its own view of an accelerator's health changes."""
        mended = tuple(
            replace(a, unhealthy=problem) if a.id == accelerator else a
            for a in self.node.accelerators
        )
        self.node = replace(self.node, accelerators=mended)


def name_of(agent: PlayedAgent) -> NodeId:
    """The node's name."""
    return agent.node.id
