"""One rank from its rendezvous to its end: prove the store, agree, train."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headrace.api.plan import ExecutionPlan
from headrace.workloads.checkpoints import DAMAGED, Found, JobCheckpoints
from headrace.workloads.control import SUCCEEDED, Chronicle, ControlFolder, StopSignal
from headrace.workloads.pace import Pace
from headrace.workloads.refusal import (
    CHECKPOINT_CORRUPT,
    CHECKPOINT_STORE_FULL,
    COMMUNICATION_FAILED,
    RANK_LOST,
    START_REFUSED,
    STORE_NOT_SHARED,
    WorkloadError,
    no_room,
    reason_of,
)
from headrace.workloads.rendezvous import RankGoneError, Rendezvous
from headrace.workloads.storage import open_storage
from headrace.workloads.training import tensors
from headrace.workloads.training.blueprint import Blueprint, sizes_of
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.samples import Samples
from headrace.workloads.training.saving import Saver
from headrace.workloads.training.soundness import damage
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.task import Task
from headrace.workloads.training.trainer import Parts, Progress, Trainer
from headrace.workloads.training.world import World
from headrace.workloads.watch import Watch

_PROOF_SECONDS = 5.0
"""How long a network file system may take to show what another node wrote."""


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
    """

    uid: str
    attempt: int
    plan: ExecutionPlan
    gpu: int | None
    node: str
    base: Path


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
        begin: Fills the model before its first step; None with a checkpoint to go on from.
    """

    checkpoints: JobCheckpoints
    start: Start
    samples: Samples
    blueprint: Blueprint
    begin: Callable[[PlannedModel], None] | None


def plan_for(spec: TrainingSpec, ranks: int) -> ExecutionPlan:
    """Data parallel over ``ranks``, with as few micro-batches as the manifest allows."""
    each = -(-spec.global_batch_size // ranks)
    steps = -(-each // (spec.micro_batch_size_max or each))
    while each % steps:
        steps += 1
    return ExecutionPlan(ranks, steps)


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
        prepared = self._prepared()
        if isinstance(prepared, End):
            return prepared
        with Watch(self.rendezvous, self.control, self.spec.stall_seconds) as watch:
            try:
                return self._trained(prepared, watch.pace)
            except RankGoneError as error:
                raise self._explained(error, watch) from error

    def _explained(self, error: RankGoneError, watch: Watch) -> WorkloadError:
        """Why another rank could not be reached: it says so itself, it is gone, or neither."""
        first = self.rendezvous.first_failure()
        if first is None:
            silent = watch.silent()
            # Another rank may have come to a conclusion meanwhile, and left.
            first = self.rendezvous.first_failure(limit_seconds=0.1)
        if first is not None:
            rank, code, message = first
            return WorkloadError(code, f"rank {rank}: {message}")
        what = str(error).strip()
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
        try:
            blueprint = self.task.blueprint()
            self._check_plan(blueprint)
            checkpoints = JobCheckpoints(
                open_storage(self.spec.store, self.seat.base), self.seat.uid
            )
            start = self._sound(checkpoints, self._store_proved(checkpoints))
            if start.step >= self.spec.steps:
                return End(
                    SUCCEEDED,
                    start.step,
                    f"nothing left to do: the checkpoint has {start.step} steps already, "
                    f"{self.spec.steps} were asked for",
                )
            samples = self.task.samples()
            self._check_start(start, samples, blueprint)
            begin = None if start.location else self.task.beginning()
            self.chronicle.say("ready")
            self.rendezvous.agree(
                {
                    "data": samples.fingerprint,
                    "training": self._fixed(),
                    "initial weights": self.task.fingerprint(),
                    "plan": str(self.seat.plan),
                    "torch": torch.__version__.partition("+")[0],
                }
            )
        except (WorkloadError, OSError, RuntimeError, MemoryError) as error:
            # Whoever cannot start says so, and then no rank starts.
            self.rendezvous.refuse(*reason_of(error))
            raise
        return Prepared(checkpoints, start, samples, blueprint, begin)

    def _check_plan(self, blueprint: Blueprint) -> None:
        plan = self.seat.plan
        if plan.ranks != self.rendezvous.ranks:
            raise WorkloadError(
                START_REFUSED,
                f"plan {plan} is for {plan.ranks} ranks, but {self.rendezvous.ranks} were started",
            )
        problem = blueprint.problem_with(plan, self.spec.global_batch_size)
        if problem:
            raise WorkloadError(START_REFUSED, f"plan {plan}: {problem}")

    def _store_proved(self, checkpoints: JobCheckpoints) -> Start:
        """Claim the job's folder on rank 0, and see on every rank that it is the same folder."""
        if self.rendezvous.rank == 0:
            return self._claimed(checkpoints)
        told = self.rendezvous.await_start("proof")
        name = checkpoints.storage.name
        deadline = time.monotonic() + _PROOF_SECONDS
        while not checkpoints.sees(told["attempt"], told["nonce"]):
            if time.monotonic() > deadline:
                where = f"node {self.seat.node}" if self.seat.node else "this rank's node"
                raise WorkloadError(
                    STORE_NOT_SHARED,
                    f"the checkpoint store {name} is not shared: {where} (rank "
                    f"{self.rendezvous.rank}) does not see what rank 0 wrote there; name a store "
                    "that every node mounts at this path, or a URL",
                )
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
            code = CHECKPOINT_STORE_FULL if no_room(error) else START_REFUSED
            raise WorkloadError(
                code,
                f"the checkpoint store {checkpoints.storage.name} cannot be written: {error}; "
                "wanted a folder or URL that this job's user may write to",
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
        while start.location and start.step < self.spec.steps:
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
                raise WorkloadError(
                    START_REFUSED,
                    f"startFrom: job {wanted.uid} has no {which} in {storage.name}; there are "
                    f"steps {[found.marker.step for found in other.whole()]}",
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
        changed = [
            f"{key}: {before.get(key)} -> {now[key]}" for key in now if now[key] != before.get(key)
        ]
        if changed:
            raise WorkloadError(
                START_REFUSED,
                f"the checkpoint of step {found.marker.step} was made with other settings or data "
                f"({'; '.join(changed)}); restore them (the same Python, for its own sources), or "
                "submit a new job with startFrom",
            )

    def _trained(self, ready: Prepared, pace: Pace) -> End:
        checkpoints, start, samples = ready.checkpoints, ready.start, ready.samples
        gpu = self.seat.gpu
        device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        world = World(
            self.rendezvous.store,
            rank=self.rendezvous.rank,
            size=self.rendezvous.ranks,
            device=device,
        )
        model = self._filled(ready, world)
        if world.rank == 0:
            checkpoints.end_proof(start.attempt)
        saver = Saver(
            checkpoints,
            self.rendezvous,
            self.spec,
            self.chronicle,
            attempt=start.attempt,
            training=self._fixed(),
            fingerprint=samples.fingerprint,
            committed_step=start.step if start.own else 0,
        )
        parts = Parts(
            spec=self.spec,
            samples=samples,
            world=world,
            saver=saver,
            rendezvous=self.rendezvous,
            control=self.control,
            stop=self.stop,
            chronicle=self.chronicle,
            pace=pace,
        )
        trainer = Trainer(parts, model, Progress(start.step, start.loss))
        outcome = trainer.run()
        message = ""
        if outcome == SUCCEEDED:
            message = self.task.said_at_end(trainer.model, samples)
            if message and world.rank == 0:
                self.chronicle.say(message)
        world.part()
        return End(outcome, trainer.progress.step, message)

    def _filled(self, ready: Prepared, world: World) -> PlannedModel:
        """This rank's part of the state to begin with."""
        start = ready.start
        model = PlannedModel(
            ready.blueprint,
            self.seat.plan,
            world,
            precision=self.spec.precision,
            global_batch_size=self.spec.global_batch_size,
            weight_decay=self.spec.weight_decay,
        )
        if start.location:
            began = time.monotonic()
            storage = open_storage(start.store, self.seat.base)
            tensors.load(storage, start.location, model, start.step)
            seconds = time.monotonic() - began
            self.chronicle.say(f"read {start.location} in {seconds:.2f} s")
        elif ready.begin is not None:
            ready.begin(model)
        return model
