"""One rank from its rendezvous to its end: prove the store, agree, train."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from headrace.api.plan import ExecutionPlan
from headrace.workloads.checkpoints import Found, JobCheckpoints
from headrace.workloads.control import SUCCEEDED, Chronicle, ControlFolder, StopSignal
from headrace.workloads.refusal import (
    CHECKPOINT_FAILED,
    RANK_LOST,
    START_REFUSED,
    STORE_NOT_SHARED,
    WorkloadError,
    no_room,
    reason_of,
)
from headrace.workloads.rendezvous import RankGoneError, Rendezvous
from headrace.workloads.storage import Storage, open_storage
from headrace.workloads.training import tensors
from headrace.workloads.training.models import build, sizes_of
from headrace.workloads.training.optimiser import FlatModel
from headrace.workloads.training.replicas import Replicas
from headrace.workloads.training.samples import (
    DIGIT_CLASSES,
    DIGIT_SIDE,
    Digits,
    Samples,
    open_samples,
)
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.trainer import EXTRA, Parts, Progress, Trainer

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
        found: The checkpoint; only rank 0 needs it.
        storage: Where it lies, which may be another job's store.
    """

    attempt: int
    step: int = 0
    loss: float | None = None
    own: bool = True
    found: Found | None = None
    storage: Storage | None = None


def plan_for(spec: TrainingSpec, ranks: int) -> ExecutionPlan:
    """Data parallel over ``ranks``, with as few micro-batches as the manifest allows."""
    each = -(-spec.global_batch_size // ranks)
    most = spec.micro_batch_size_max or each
    return ExecutionPlan(ranks, -(-each // most))


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank of a built-in model's attempt."""

    seat: Seat
    spec: TrainingSpec
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
        try:
            prepared = self._prepared()
            return prepared if isinstance(prepared, End) else self._trained(*prepared)
        except RankGoneError as error:
            first = self.rendezvous.first_failure()
            if first is None:
                raise WorkloadError(
                    RANK_LOST, f"lost contact with another rank: {str(error).strip()}"
                ) from error
            rank, code, message = first
            raise WorkloadError(code, f"rank {rank}: {message}") from error

    def _prepared(self) -> End | tuple[JobCheckpoints, Start, Samples, FlatModel]:
        """All that can be done without a process group and without touching a GPU."""
        try:
            self._check_plan()
            checkpoints = JobCheckpoints(
                open_storage(self.spec.store, self.seat.base), self.seat.uid
            )
            start = self._store_proved(checkpoints)
            if start.step >= self.spec.steps:
                return End(
                    SUCCEEDED,
                    start.step,
                    f"nothing left to do: the checkpoint has {start.step} steps already, "
                    f"{self.spec.steps} were asked for",
                )
            samples = open_samples(self.spec.data_source, sizes_of(self.spec).sequence_length)
            flat = self._model(start, samples)
            self.chronicle.say("ready")
            self.rendezvous.agree(
                {
                    "data": samples.fingerprint,
                    "training": self.spec.fixed(),
                    "torch": torch.__version__.partition("+")[0],
                }
            )
        except (WorkloadError, OSError, RuntimeError, MemoryError) as error:
            # Whoever cannot start says so, and then no rank starts.
            self.rendezvous.refuse(*reason_of(error))
            raise
        return checkpoints, start, samples, flat

    def _check_plan(self) -> None:
        plan, batch = self.seat.plan, self.spec.global_batch_size
        if plan.ranks != self.rendezvous.ranks:
            raise WorkloadError(
                START_REFUSED,
                f"plan {plan} is for {plan.ranks} ranks, but {self.rendezvous.ranks} were started",
            )
        if plan.ranks > batch:
            raise WorkloadError(
                START_REFUSED,
                f"wanted a sample for each of {plan.ranks} ranks, got a globalBatchSize of {batch}",
            )

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
        return Start(told["attempt"], told["step"], told["loss"], told["own"])

    def _claimed(self, checkpoints: JobCheckpoints) -> Start:
        try:
            attempt = self.seat.attempt or checkpoints.claimed_by() + 1
            checkpoints.claim(attempt)
            removed = checkpoints.clean()
            nonce = checkpoints.prove(attempt) if self.rendezvous.ranks > 1 else ""
            start = self._start(checkpoints, attempt)
        except OSError as error:
            code = CHECKPOINT_FAILED if no_room(error) else START_REFUSED
            raise WorkloadError(
                code,
                f"the checkpoint store {checkpoints.storage.name} cannot be written: {error}; "
                "wanted a folder or URL that this job's user may write to",
            ) from error
        if removed:
            self.chronicle.say(f"removed unfinished checkpoints of steps {removed}")
        told = {"attempt": attempt, "nonce": nonce, "step": start.step}
        self.rendezvous.put("proof", {**told, "loss": start.loss, "own": start.own})
        return start

    def _start(self, checkpoints: JobCheckpoints, attempt: int) -> Start:
        """The newest checkpoint of the job, else the one it shall start from, else nothing."""
        whole = checkpoints.whole()
        storage, own = checkpoints.storage, True
        wanted = self.spec.start_from
        if not whole and wanted is not None:
            own = False
            if wanted.store:
                storage = open_storage(wanted.store, self.seat.base)
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
        return Start(attempt, marker.step, marker.loss, own, newest, storage)

    def _model(self, start: Start, samples: Samples) -> FlatModel:
        """The state to begin with, on rank 0; an empty one on the ranks that will be given it."""
        main = self.rendezvous.rank == 0
        module = build(self.spec, image_side=DIGIT_SIDE, classes=DIGIT_CLASSES, empty=not main)
        flat = FlatModel(module, extra=EXTRA)
        flat.step = start.step
        if start.found is None or start.storage is None:
            return flat
        if start.own:
            self._check_continues(start.found, samples)
        began = time.monotonic()
        tensors.load(start.storage, start.found.location, flat)
        seconds = time.monotonic() - began
        self.chronicle.say(f"read {start.found.location} in {seconds:.2f} s")
        return flat

    def _check_continues(self, found: Found, samples: Samples) -> None:
        """A job's own checkpoint may only go on with what it began with."""
        now = {**self.spec.fixed(), "data": samples.fingerprint}
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

    def _trained(
        self, checkpoints: JobCheckpoints, start: Start, samples: Samples, flat: FlatModel
    ) -> End:
        gpu = self.seat.gpu
        device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            flat.move(device)
        replicas = Replicas(self.rendezvous, device)
        replicas.give_out(flat.state)
        if self.rendezvous.rank == 0:
            checkpoints.end_proof(start.attempt)

        def save_tensors(folder: str) -> None:
            tensors.save(checkpoints.storage, folder, flat.state_dict())

        parts = Parts(
            spec=self.spec,
            flat=flat,
            samples=samples,
            replicas=replicas,
            checkpoints=checkpoints,
            rendezvous=self.rendezvous,
            control=self.control,
            stop=self.stop,
            chronicle=self.chronicle,
            attempt=start.attempt,
            plan=str(self.seat.plan),
            accumulation_steps=self.seat.plan.accumulation_steps,
            save_tensors=save_tensors,
        )
        progress = Progress(start.step, start.loss, start.step if start.own else 0)
        outcome = Trainer(parts, progress).run()
        message = ""
        if outcome == SUCCEEDED and isinstance(samples, Digits) and self.rendezvous.rank == 0:
            message = f"{_accuracy(flat, samples):.1%} of the held-out digits are read right"
            self.chronicle.say(message)
        replicas.part()
        return End(outcome, progress.step, message)


@torch.no_grad()
def _accuracy(flat: FlatModel, samples: Digits) -> float:
    images, labels = (part.to(flat.device) for part in samples.held_out)
    right: torch.Tensor = flat.model(images).argmax(dim=1) == labels
    return float(right.float().mean())
