"""The plan that the agent asks for while the ranks train."""

import contextlib
import time

from headrace.api.plan import ExecutionPlan
from headrace.workloads.training.blueprint import Blueprint
from headrace.workloads.training.joining import Admission, Newcomers
from headrace.workloads.training.parts import Parts
from headrace.workloads.training.planned import PlannedModel

_PATIENCE_SECONDS = 30.0
"""How long a change of the number of ranks waits for a step at which nothing is being saved."""


class Wish:
    """What is asked for, as rank 0 sees it.

    Attributes:
        plan: What was asked for and is possible; None if nothing was.
        prepare_seconds: How long the newcomers of the last change took to be ready.
    """

    def __init__(self, given: Parts, blueprint: Blueprint) -> None:
        self.plan: ExecutionPlan | None = None
        self.prepare_seconds = 0.0
        self._given = given
        self._blueprint = blueprint
        self._asked = ("", 0)
        self._newcomers: Newcomers | None = None
        self._next_unit = 0
        self._possible_since: float | None = None

    def look(self, model: PlannedModel, step: int, *, nothing_saved: bool) -> bool:
        """Whether all shall go over to another plan after this step.

        Args:
            model: What is trained now.
            step: The step that is under way.
            nothing_saved: Whether no state is being written, and none will be after this step.
        """
        given = self._given
        if given.rendezvous.rank != 0:
            return False
        asked = given.control.wanted_plan()
        if asked != self._asked:
            self._asked = asked
            self._forget()
            text, _ = asked
            self.plan = self._read(text, model.world.size) if text else None
            if self.plan == model.plan:
                # Whatever was asked for before is not waited for any more, which is to be known.
                self._keep(text, step)
        if self.plan is None or self.plan == model.plan:
            return False
        if self.plan.ranks == model.world.size:
            return True
        if not self._all_are_there():
            return False
        now = time.monotonic()
        self._possible_since = self._possible_since or now
        return nothing_saved or now - self._possible_since > _PATIENCE_SECONDS

    def taken_up(self, plan: ExecutionPlan, step: int, loss: float | None) -> bool:
        """All go over to a plan now, newcomers too; False if those are not there any more."""
        self.prepare_seconds = 0.0
        if self._newcomers is not None:
            if not self._all_are_there(now=True):
                return False
            self._newcomers.take_in(Admission(str(plan), step, loss))
            self.prepare_seconds = self._newcomers.prepare_seconds
        self._forget()
        return True

    def close(self) -> None:
        """Training ends: nobody is waited for any more."""
        if self._given.rendezvous.rank == 0:
            with contextlib.suppress(RuntimeError):  # a board that is gone has no readers
                self._forget()
                self._given.rendezvous.put("join/over", True)

    def _read(self, text: str, ranks: int) -> ExecutionPlan | None:
        try:
            plan = ExecutionPlan.parse(text)
            problem = self._blueprint.problem_with(plan, self._given.spec.global_batch_size)
            if problem:
                raise ValueError(f"plan {text}: {problem}")
            if plan.ranks > ranks:
                self._invite(range(ranks, plan.ranks))
        except ValueError as error:
            self._refuse(str(error))
            return None
        return plan

    def _invite(self, ranks: range) -> None:
        given = self._given
        if given.control.path is None:
            raise ValueError(f"there is nobody who would start rank {ranks[0]}")
        try:
            nonce = given.checkpoints.prove(given.attempt)
        except OSError as error:
            name = given.checkpoints.storage.name
            raise ValueError(
                f"newcomers could not be shown the checkpoint store {name}, which cannot be "
                f"written: {error}"
            ) from error
        given.rendezvous.put("join/proof", {"attempt": given.attempt, "nonce": nonce})
        self._newcomers = Newcomers(
            given.rendezvous, given.facts, ranks, first_unit=self._next_unit
        )
        given.chronicle.say(f"waiting for ranks {ranks[0]} to {ranks[-1]} to join")

    def _all_are_there(self, *, now: bool = False) -> bool:
        if self._newcomers is None:
            return True
        try:
            return self._newcomers.are_there(now=now)
        except ValueError as error:
            self._refuse(str(error))
            return False

    def _keep(self, plan: str, step: int) -> None:
        self._given.chronicle.say(f"keeps the plan {plan}")
        seconds = {"stood_still": 0.0}
        self._given.control.changed({"from": plan, "to": plan, "step": step, "seconds": seconds})

    def _refuse(self, why: str) -> None:
        # Training goes on as it was: a wish is no reason to lose work.
        self._given.chronicle.say(f"no change of plan: {why}")
        self._given.control.changed({"to": self._asked[0], "refused": why})
        self.plan = None
        self._forget()

    def _forget(self) -> None:
        self._possible_since = None
        if self._newcomers is not None:
            self._next_unit = self._newcomers.next_unit
            self._newcomers = None
            self._given.rendezvous.take_down("join/proof")
            with contextlib.suppress(OSError):  # the next attempt removes it
                self._given.checkpoints.end_proof(self._given.attempt)
