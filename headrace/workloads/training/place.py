"""Where a rank trains: under Headrace, under torchrun, or alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from headrace.api.plan import ExecutionPlan, data_parallel_plan
from headrace.workloads.control import Chronicle, ControlFolder, StopSignal
from headrace.workloads.refusal import (
    CANNOT_BE_TRAINED,
    StoppedBeforeTraining,
    WorkloadError,
    reason_of,
)
from headrace.workloads.rendezvous import Rendezvous
from headrace.workloads.training.run import End, Rank, Seat
from headrace.workloads.training.spec import TrainingSpec

if TYPE_CHECKING:
    from headrace.workloads.training.task import Task


@dataclass(slots=True)
class Place:
    """A rank's seat, with all that it needs to train one task.

    Attributes:
        end: How the training ended; None before.
    """

    seat: Seat
    spec: TrainingSpec
    rendezvous: Rendezvous
    control: ControlFolder
    stop: StopSignal
    chronicle: Chronicle
    end: End | None = None

    def trained(self, task: "Task") -> End:
        """Train to the end, a stop, or a failure."""
        if self.end is not None:
            raise WorkloadError(
                CANNOT_BE_TRAINED, "wanted one training in a script, got another one"
            )
        rank = Rank(
            self.seat,
            self.spec,
            task,
            self.rendezvous,
            self.control,
            self.stop,
            self.chronicle,
        )
        self.end = rank.run()
        return self.end


@contextmanager
def without_headrace(
    uid: str, spec: TrainingSpec, *, plan: str, control: ControlFolder, stop: StopSignal
) -> Iterator[Place]:
    """The place that torchrun's variables describe; a single rank without them.

    Args:
        uid: Name of the folder in the store.
        spec: How to train.
        plan: In short form; empty for data parallel.
        control: Where rank 0 tells how far it is.
        stop: Whether a stop was asked for.
    """
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    seat = Seat(
        uid=uid,
        attempt=0,
        plan=_for_ranks(_plan(plan), ranks) if plan else _data_parallel(spec, ranks),
        gpu=int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.device_count() else None,
        node="",
        base=Path(),
    )
    # The elastic agent's store outlives a restart of the ranks, so each restart has its own keys.
    prefix = f"{uid}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    rendezvous = Rendezvous(_store(ranks), rank=rank, ranks=ranks, prefix=prefix, stop=stop)
    chronicle = Chronicle(f"rank {rank} of {ranks}")
    try:
        yield Place(seat, spec, rendezvous, control, stop, chronicle)
    except StoppedBeforeTraining:
        raise
    except BaseException as error:
        rendezvous.report_failure(*reason_of(error))
        raise
    finally:
        rendezvous.leave()


def _data_parallel(spec: TrainingSpec, ranks: int) -> ExecutionPlan:
    return data_parallel_plan(ranks, spec.global_batch_size, spec.micro_batch_size_max)


def _for_ranks(plan: ExecutionPlan, ranks: int) -> ExecutionPlan:
    """The plan.

    Raises:
        WorkloadError: It is one of another number of ranks than were started.
    """
    if plan.ranks == ranks:
        return plan
    each = f"plan {plan} is for {plan.ranks} ranks, but {ranks} {'was' if ranks == 1 else 'were'}"
    raise WorkloadError(
        CANNOT_BE_TRAINED,
        f"{each} started; start it with `torchrun --nproc-per-node={plan.ranks} {sys.argv[0]}`, or "
        f"take a plan for {ranks} in settings.plan, which is data parallel if left out",
    )


def _plan(text: str) -> ExecutionPlan:
    try:
        return ExecutionPlan.parse(text)
    except ValueError as error:
        raise WorkloadError(CANNOT_BE_TRAINED, f"plan: {error}") from error


def _store(ranks: int) -> Any:
    if ranks == 1:
        return dist.HashStore()
    store, _, _ = next(dist.rendezvous("env://"))
    return store
