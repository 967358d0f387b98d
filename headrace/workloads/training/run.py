"""One rank from its rendezvous to its end: prove the store, agree, train."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from headrace.api.plan import ExecutionPlan
from headrace.workloads.checkpoints import DAMAGED, Found, JobCheckpoints
from headrace.workloads.control import SUCCEEDED, Chronicle, ControlFolder, StopSignal
from headrace.workloads.pace import SWITCH_SECONDS
from headrace.workloads.refusal import (
    CANNOT_BE_TRAINED,
    CHECKPOINT_CORRUPT,
    CHECKPOINT_STORE_FULL,
    COMMUNICATION_FAILED,
    RANK_LOST,
    START_REFUSED,
    WorkloadError,
    no_room,
)
from headrace.workloads.rendezvous import RankGoneError, Rendezvous
from headrace.workloads.storage import open_storage
from headrace.workloads.training import tensors
from headrace.workloads.training.blueprint import Blueprint, sizes_of
from headrace.workloads.training.joining import (
    PROOF_SECONDS,
    Admission,
    Newcomer,
    store_not_shared,
)
from headrace.workloads.training.parts import Parts
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Samples
from headrace.workloads.training.saving import Saver
from headrace.workloads.training.soundness import damage
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.switching import carried
from headrace.workloads.training.task import Task
from headrace.workloads.training.trainer import RESIZING, Progress, Trainer
from headrace.workloads.training.warming import warm_up
from headrace.workloads.training.world import World, lost_contact, meeting
from headrace.workloads.watch import Watch

_GLOO_PLACE = re.compile(r"\[[^\]\s]*gloo/[^\]\s]*\] ")
_GLOO_ADVICE = "This is typically caused by"


@dataclass(frozen=True, slots=True)
class Seat:
    """What this rank is told from outside, by an actor or by torchrun.

    Attributes:
        uid: The job's; names its folder in the store.
        attempt: Number of this start; 0 lets rank 0 take the next free one (torchrun).
        plan: Execution plan.
        gpu: Index of the visible GPU to use; None for the CPU.
        node: Where this is, for people.
        base: What a relative store is relative to.
        joins: Whether others train already, and this rank joins them.
    """

    uid: str
    attempt: int
    plan: ExecutionPlan
    gpu: int | None
    node: str
    base: Path
    joins: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """How the rank ended."""

    outcome: str
    step: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """What rank 0 found in the store and told the others.

    Attributes:
        attempt: Attempt that holds the claim.
        step: Step to go on from; 0 for the beginning.
        loss: Loss of that step.
        own: Whether that checkpoint is this job's own.
        location: Where torch finds its tensors; empty for the beginning.
        store: The store in which it lies, which may be another job's.
        found: The checkpoint; only rank 0 looks at it.
    """

    attempt: int
    step: int = 0
    loss: float | None = None
    own: bool = True
    location: str = ""
    store: str = ""
    found: Found | None = None

    def told(self) -> dict[str, Any]:
        """What the other ranks need of it."""
        names = ("attempt", "step", "loss", "own", "location", "store")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a rank has before it touches a GPU.

    Attributes:
        checkpoints: The job's folder in its store.
        start: What to go on from.
        samples: The data.
        blueprint: The model.
        begin: Fills the model before its first step; None with a checkpoint to go on from, or
            with the state of others.
        facts: What must be the same on all ranks.
        admission: For a newcomer: what it was told when it was taken in.
    """

    checkpoints: JobCheckpoints
    start: Start
    samples: Samples
    blueprint: Blueprint
    begin: Callable[[PlannedModel], None] | None
    facts: dict[str, Any]
    admission: Admission | None = None


def plainly(error: BaseException) -> str:
    """What an error says, without the place in gloo's sources and the advice that goes with it."""
    return _GLOO_PLACE.sub("", str(error)).partition(_GLOO_ADVICE)[0].strip(". \n")


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank of an attempt."""

    seat: Seat
    spec: TrainingSpec
    task: Task
    rendezvous: Rendezvous
    control: ControlFolder
    stop: StopSignal
    chronicle: Chronicle

    def run(self) -> End:
        """Run this rank to its end.

        Raises:
            WorkloadError: It failed for a reason that it can name.
            StoppedBeforeTraining: It was asked to stop before the first step.
        """
        if self.seat.joins:
            return self._run_as_newcomer()
        prepared = self._prepared()
        if isinstance(prepared, End):
            return prepared
        return self._watched(prepared, self._watch())

    def _run_as_newcomer(self) -> End:
        # It connects now: when all have been told to meet, rank 0 may be gone.
        watch = self._watch()
        prepared = self._prepared_to_join()
        assert prepared.admission is not None
        watch.meet(str(prepared.admission.step), self.rendezvous.ranks)
        return self._watched(prepared, watch)

    def _watch(self) -> Watch:
        return Watch(self.rendezvous, self.control, self.spec.stall_seconds)

    def _watched(self, prepared: Prepared, watch: Watch) -> End:
        with watch:
            try:
                return self._trained(prepared, watch)
            except (RankGoneError, RuntimeError) as error:
                if isinstance(error, RankGoneError) or lost_contact(error):
                    raise self._explained(error, watch) from error
                raise

    def _explained(self, error: Exception, watch: Watch) -> WorkloadError:
        """Why another rank could not be reached: it says so itself, it is gone, or neither."""
        first = self.rendezvous.first_failure()
        if first is None:
            silent = watch.silent()
            # Another rank may have come to a conclusion meanwhile, and left.
            first = self.rendezvous.first_failure(limit_seconds=0.1)
        if first is not None:
            rank, code, message = first
            return WorkloadError(code, f"rank {rank}: {message}")
        what = plainly(error)
        if silent:
            self.rendezvous.do_without(silent)
            who = " and ".join(f"rank {rank}" for rank in silent)
            return WorkloadError(RANK_LOST, f"lost contact with {who}: {what}")
        return WorkloadError(
            COMMUNICATION_FAILED,
            f"a connection between ranks broke, although all {self.rendezvous.ranks} are alive: "
            f"{what}; look at the network between their nodes",
        )

    def _prepared(self) -> End | Prepared:
        """All that can be done without a process group and without touching a GPU."""
        blueprint = self.task.blueprint()
        self._check_plan(blueprint)
        checkpoints = JobCheckpoints(open_storage(self.spec.store, self.seat.base), self.seat.uid)
        start = self._sound(checkpoints, self._store_proved(checkpoints))
        samples = self.task.samples()
        self._check_start(start, samples, blueprint)
        begin = None if start.location else self.task.beginning()
        self.chronicle.say("ready")
        facts = self._facts(samples)
        self.rendezvous.agree({**facts, "plan": str(self.seat.plan)})
        if start.step >= self.spec.steps:
            return self._nothing_left(checkpoints, start)
        return Prepared(checkpoints, start, samples, blueprint, begin, facts)

    def _nothing_left(self, checkpoints: JobCheckpoints, start: Start) -> End:
        """The end of an attempt whose checkpoint has all steps; all ranks have come, and hear it
        before rank 0 takes the rendezvous away.
        """
        if self.rendezvous.rank == 0:
            checkpoints.end_proof(start.attempt)
        self.rendezvous.end_together()
        message = (
            f"nothing left to do: the checkpoint has {start.step} steps already, "
            f"{self.spec.steps} were asked for"
        )
        return End(SUCCEEDED, start.step, message)

    def _prepared_to_join(self) -> Prepared:
        """All that can be done while others train, the use of this rank's own GPU included; then
        wait for them.
        """
        newcomer = Newcomer(self.rendezvous, self.stop)
        blueprint = self.task.blueprint()
        self._check_plan(blueprint)
        checkpoints = JobCheckpoints(open_storage(self.spec.store, self.seat.base), self.seat.uid)
        samples = self.task.samples()
        attempt = newcomer.sees_store(checkpoints, self.seat.node)
        facts = self._facts(samples)
        warm_up(self._device())
        newcomer.tell_ready(facts)
        self.chronicle.say("ready to join")
        admission = newcomer.admitted(facts)
        self.rendezvous.ranks = ExecutionPlan.parse(admission.plan).ranks
        start = Start(attempt, admission.step, admission.loss)
        return Prepared(checkpoints, start, samples, blueprint, None, facts, admission)

    def _facts(self, samples: Samples) -> dict[str, Any]:
        """What must be the same on all ranks, or they would not train the same thing."""
        return {
            "data": samples.fingerprint,
            "training": self._fixed(),
            "initial weights": self.task.fingerprint(),
            "torch": torch.__version__.partition("+")[0],
        }

    def _check_plan(self, blueprint: Blueprint) -> None:
        plan = self.seat.plan
        if plan.ranks != self.rendezvous.ranks:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"plan {plan} is for {plan.ranks} ranks, but {self.rendezvous.ranks} were started",
            )
        problem = blueprint.problem_with(plan, self.spec.global_batch_size)
        if problem:
            raise WorkloadError(CANNOT_BE_TRAINED, f"plan {plan}: {problem}")

    def _store_proved(self, checkpoints: JobCheckpoints) -> Start:
        """Claim the job's folder on rank 0, and see on every rank that it is the same folder."""
        if self.rendezvous.rank == 0:
            return self._claimed(checkpoints)
        told = self.rendezvous.await_start("proof")
        deadline = time.monotonic() + PROOF_SECONDS
        while not checkpoints.sees(told["attempt"], told["nonce"]):
            if time.monotonic() > deadline:
                name = checkpoints.storage.name
                raise store_not_shared(name, self.seat.node, self.rendezvous.rank)
            if self.stop.wait_seconds(0.2):
                self.rendezvous.await_start("go")
        told.pop("nonce")
        return Start(**told)

    def _claimed(self, checkpoints: JobCheckpoints) -> Start:
        try:
            attempt = self.seat.attempt or checkpoints.claimed_by() + 1
            checkpoints.claim(attempt)
            damaged = checkpoints.set_damaged_aside(attempt)
            removed = checkpoints.clean()
            nonce = checkpoints.prove(attempt) if self.rendezvous.ranks > 1 else ""
            start = self._start(checkpoints, attempt)
        except OSError as error:
            name = checkpoints.storage.name
            if no_room(error):
                raise WorkloadError(
                    CHECKPOINT_STORE_FULL,
                    f"the checkpoint store {name} has no room: {error}; free some",
                ) from error
            raise WorkloadError(
                START_REFUSED,
                f"the checkpoint store {name} cannot be written: {error}; wanted a folder or URL "
                "that this job's user may write to",
            ) from error
        if damaged:
            self.chronicle.say(
                f"WARNING {CHECKPOINT_CORRUPT}: the checkpoints of steps {damaged} lack files or "
                "bytes and were set aside"
            )
        if removed:
            self.chronicle.say(f"removed unfinished checkpoints of steps {removed}")
        self.rendezvous.put("proof", {**start.told(), "nonce": nonce})
        return start

    def _sound(self, checkpoints: JobCheckpoints, start: Start) -> Start:
        """The start, or an older one where its bytes are not those that were written."""
        turn = 0
        while start.location:
            turn += 1
            began = time.monotonic()
            storage = open_storage(start.store, self.seat.base)
            rank, ranks = self.rendezvous.rank, self.rendezvous.ranks
            wrong = damage(storage, start.location, start.found, rank=rank, ranks=ranks)
            if rank != 0:
                self.rendezvous.put(f"checked/{turn}/{rank}", wrong)
                told = self.rendezvous.await_start(f"start/{turn}")
                if told is None:
                    return start
                start = Start(**told)
                continue
            wrong = next(filter(None, [wrong, *self.rendezvous.answers(f"checked/{turn}")]), "")
            if not wrong:
                self.rendezvous.put(f"start/{turn}", None)
                seconds = time.monotonic() - began
                self.chronicle.say(f"checked {start.location} in {seconds:.2f} s")
                return start
            start = self._without(checkpoints, start, wrong)
            self.rendezvous.put(f"start/{turn}", start.told())
        return start

    def _without(self, checkpoints: JobCheckpoints, start: Start, wrong: str) -> Start:
        """What to go on from instead of a damaged checkpoint."""
        told = f"the checkpoint {start.location} is damaged: {wrong}"
        if not start.own:
            raise WorkloadError(
                CHECKPOINT_CORRUPT, f"startFrom: {told}; name another step of that job"
            )
        name = checkpoints.set_aside(start.step, DAMAGED, start.attempt)
        before = self._start(checkpoints, start.attempt)
        self.chronicle.say(
            f"WARNING {CHECKPOINT_CORRUPT}: {told}. It was set aside as {name}; training goes on "
            f"from step {before.step}"
        )
        return before

    def _start(self, checkpoints: JobCheckpoints, attempt: int) -> Start:
        """The newest checkpoint of the job, else the one it shall start from, else nothing."""
        whole = checkpoints.whole()
        store, own = self.spec.store, True
        wanted = self.spec.start_from
        if not whole and wanted is not None:
            own = False
            store = wanted.store or store
            storage = open_storage(store, self.seat.base)
            other = JobCheckpoints(storage, wanted.uid)
            whole = other.whole()
            if wanted.step is not None:
                whole = [found for found in whole if found.marker.step == wanted.step]
            if not whole:
                which = "checkpoint" if wanted.step is None else f"checkpoint of step {wanted.step}"
                there = [str(found.marker.step) for found in other.whole()]
                raise WorkloadError(
                    CANNOT_BE_TRAINED,
                    f"startFrom: job {wanted.uid} has no {which} in {storage.name}; "
                    + (f"there are steps {', '.join(there)}" if there else "there are none at all"),
                )
        if not whole:
            return Start(attempt)
        newest = whole[-1]
        marker = newest.marker
        return Start(attempt, marker.step, marker.loss, own, newest.location, store, newest)

    def _check_start(self, start: Start, samples: Samples, blueprint: Blueprint) -> None:
        """What lies in the store is of this model, and of this training if it is the job's own."""
        if start.found is None:
            return
        if start.own:
            self._check_continues(start.found, samples)
        storage = open_storage(start.store, self.seat.base)
        tensors.check(storage, start.location, sizes_of(blueprint))
        if not start.own and start.step >= self.spec.steps:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"startFrom: {start.step} steps were done there, {self.spec.steps} were asked for; "
                f"training.steps counts those too, so ask for more than {start.step}",
            )

    def _fixed(self) -> dict[str, Any]:
        """What must stay the same while the job trains."""
        return {
            **self.task.fixed(),
            "globalBatchSize": self.spec.global_batch_size,
            "seed": self.spec.seed,
        }

    def _check_continues(self, found: Found, samples: Samples) -> None:
        """A job's own checkpoint may only go on with what it began with."""
        now = {**self._fixed(), "data": samples.fingerprint}
        before = {**found.marker.training, "data": found.marker.data_fingerprint}
        changed = [key for key in now if now[key] != before.get(key)]
        if not changed:
            return
        told = "; ".join(
            # Two fingerprints tell nobody anything.
            "data: other samples" if key == "data" else f"{key}: {before.get(key)} -> {now[key]}"
            for key in changed
        )
        anew = "submit a new job with startFrom" if self.seat.attempt else "take another folder"
        raise WorkloadError(
            CANNOT_BE_TRAINED,
            f"the checkpoint of step {found.marker.step} was made with other settings or data "
            f"({told}); restore them (the same Python, for its own sources), or {anew}",
        )

    def _device(self) -> torch.device:
        gpu = self.seat.gpu
        device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        return device

    def _trained(self, ready: Prepared, watch: Watch) -> End:
        start, samples = ready.start, ready.samples
        if ready.admission is None:
            model = self._begun(ready)
        else:
            with watch.pace.during(RESIZING, SWITCH_SECONDS, needs_all=True):
                model = self._taken_in(ready, ready.admission)
        trainer = Trainer(self._parts(ready, watch), model, Progress(start.step, start.loss))
        outcome, message = trainer.run(), ""
        if trainer.left_to is not None:
            # Without taking the process group apart, which the others are still in.
            left = f"left: training goes on on {trainer.left_to} ranks"
            return End(outcome, trainer.progress.step, left)
        world = trainer.model.world
        if outcome == SUCCEEDED:
            message = self.task.said_at_end(trainer.model, samples)
            if message and world.rank == 0:
                self.chronicle.say(message)
        world.part()
        return End(outcome, trainer.progress.step, message)

    def _parts(self, ready: Prepared, watch: Watch) -> Parts:
        start, samples = ready.start, ready.samples
        saver = Saver(
            ready.checkpoints,
            self.rendezvous,
            self.spec,
            self.chronicle,
            self.control,
            attempt=start.attempt,
            training=self._fixed(),
            fingerprint=samples.fingerprint,
            committed_step=start.step if start.own else 0,
        )
        return Parts(
            spec=self.spec,
            samples=samples,
            sequence_length=self.task.positions(),
            saver=saver,
            checkpoints=ready.checkpoints,
            attempt=start.attempt,
            facts=ready.facts,
            try_together=self.task.try_together,
            rendezvous=self.rendezvous,
            control=self.control,
            stop=self.stop,
            chronicle=self.chronicle,
            watch=watch,
        )

    def _laid_out(self, ready: Prepared, plan: ExecutionPlan, store: dist.Store) -> PlannedModel:
        """The model, still without memory, in a new world."""
        world = World(
            store,
            rank=self.rendezvous.rank,
            size=self.rendezvous.ranks,
            device=self._device(),
        )
        self.task.try_together(world)
        return PlannedModel(
            ready.blueprint,
            plan,
            world,
            precision=self.spec.precision,
            global_batch_size=self.spec.global_batch_size,
            weight_decay=self.spec.weight_decay,
        )

    def _taken_in(self, ready: Prepared, admission: Admission) -> PlannedModel:
        """A newcomer's part of the state that the others have."""
        store = meeting(self.rendezvous, admission.step)
        model = self._laid_out(ready, ExecutionPlan.parse(admission.plan), store)
        carried(None, model)
        self.chronicle.say(f"joined after step {admission.step} under {admission.plan}")
        return model

    def _begun(self, ready: Prepared) -> PlannedModel:
        """This rank's part of the state to begin with."""
        start = ready.start
        model = self._laid_out(ready, self.seat.plan, self.rendezvous.store)
        if start.location:
            began = time.monotonic()
            storage = open_storage(start.store, self.seat.base)
            tensors.load(storage, start.location, model, start.step)
            seconds = time.monotonic() - began
            self.chronicle.say(f"read {start.location} in {seconds:.2f} s")
        elif ready.begin is not None:
            ready.begin(model)
        if model.world.rank == 0:
            ready.checkpoints.end_proof(start.attempt)
            # All have seen it. A unit that comes later, of a release that does not know how to
            # join, waits for it and disturbs nobody.
            self.rendezvous.take_down("proof")
        return model
