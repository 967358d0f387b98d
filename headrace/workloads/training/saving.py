"""When a state becomes a checkpoint: written in the background, committed when all of it lies
there.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.workloads.checkpoints import JobCheckpoints, Marker
from headrace.workloads.control import Chronicle, ControlFolder
from headrace.workloads.refusal import (
    CHECKPOINT_FAILED,
    CHECKPOINT_STORE_FULL,
    WorkloadError,
    no_room,
)
from headrace.workloads.rendezvous import Rendezvous
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.spec import TrainingSpec
from headrace.workloads.training.tensors import Saving, save_begun

_SAVE_LIMIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Draft:
    """A state on its way to the store."""

    step: int
    loss: float | None
    plan: str
    folder: str
    saving: Saving
    began: float


class Saver:
    """Writes one state at a time. Rank 0 commits; all ranks end alike if it cannot.

    A full store costs a checkpoint and not the training, as long as there is a next one: the save
    that is due then is the next try. Only the last one of an attempt must succeed.

    Attributes:
        committed_step: Step of the newest checkpoint of this job, as rank 0 knows it.
    """

    def __init__(
        self,
        checkpoints: JobCheckpoints,
        rendezvous: Rendezvous,
        spec: TrainingSpec,
        chronicle: Chronicle,
        control: ControlFolder,
        *,
        attempt: int,
        training: dict[str, Any],
        fingerprint: str,
        committed_step: int,
    ) -> None:
        self.committed_step = committed_step
        self._checkpoints = checkpoints
        self._rendezvous = rendezvous
        self._spec = spec
        self._chronicle = chronicle
        self._control = control
        self._attempt = attempt
        self._training = training
        self._fingerprint = fingerprint
        self._draft: _Draft | None = None

    def begin(self, model: PlannedModel, loss: float | None) -> None:
        """Copy the state and begin to write it, once the one before is committed."""
        if self._draft is not None:
            self._commit(self._draft)
        began = time.monotonic()
        store = self._checkpoints
        folder = store.draft_folder(model.step, self._attempt)
        if self._rendezvous.rank == 0:
            with self._writing(model.step):
                store.check_claim(self._attempt)
                store.storage.remove(folder)
        saving = save_begun(store.storage, folder, model)
        self._draft = _Draft(model.step, loss, str(model.plan), folder, saving, began)

    def look(self) -> None:
        """Commit what has been written meanwhile."""
        if self._draft is not None and self._draft.saving.is_over:
            self._commit(self._draft)
            self._draft = None

    @property
    def is_busy(self) -> bool:
        """Whether a state is being written."""
        return self._draft is not None

    def settle(self) -> None:
        """Wait until what was begun is committed, or given up; all ranks call it at the same step.

        Ranks may come and go afterwards.
        """
        draft, self._draft = self._draft, None
        if draft is not None:
            self._commit(draft)

    def finish(self) -> None:
        """Wait until what was begun is committed; all ranks call it at the same step.

        Raises:
            WorkloadError: It could not be, and there is no later save to hope for.
        """
        draft, self._draft = self._draft, None
        if draft is None:
            return
        self._commit(draft, last=True)
        if self._rendezvous.rank != 0:
            self._obey(draft)

    def doubted(self) -> str:
        """Do without the newest state that was saved, after which the loss was not finite: what led
        there may be in it already. A checkpoint is set aside, and what is still being written is
        never committed. A sentence about that; empty if it was not done.
        """
        if self._rendezvous.rank != 0:
            return ""
        draft, self._draft = self._draft, None
        if draft is not None:
            return (
                f" The state of step {draft.step} was being saved and does not count; the next "
                "attempt begins before it"
            )
        try:
            step = self._checkpoints.doubt(self._attempt)
        except (WorkloadError, OSError):
            return ""  # the loss is the news, and a newer attempt's checkpoints are not ours
        if step is None:
            return ""
        return f" The checkpoint of step {step} was set aside; the next attempt begins before it"

    def _obey(self, draft: _Draft) -> None:
        """What rank 0 says of a draft."""
        refused = self._rendezvous.outcome(_key(draft.step), _SAVE_LIMIT_SECONDS)
        if refused is not None:
            raise WorkloadError(str(refused[0]), str(refused[1]))

    def _commit(self, draft: _Draft, *, last: bool = False) -> None:
        """What becomes of a draft that is written; rank 0 decides and tells.

        Nobody waits for rank 0 here, which may be a step behind, and then waits for us.
        """
        if self._rendezvous.rank != 0:
            with contextlib.suppress(WorkloadError):  # torch tells every rank, rank 0 knows why
                draft.saving.wait()
            return
        try:
            draft.saving.wait()
            self._mark(draft)
        except WorkloadError as error:
            if error.code == CHECKPOINT_STORE_FULL:
                with contextlib.suppress(OSError):
                    self._checkpoints.storage.remove(draft.folder)  # it takes room itself
            self._rendezvous.put(_key(draft.step), [error.code, error.message])
            if error.code != CHECKPOINT_STORE_FULL or last:
                raise
            self._do_without(draft, error)
            return
        self._rendezvous.put(_key(draft.step), None)

    def _do_without(self, draft: _Draft, error: WorkloadError) -> None:
        """Say what it means that a checkpoint is not there."""
        known = self.committed_step
        newest = f"the newest is that of step {known}" if known else "there is none yet"
        self._chronicle.say(
            f"WARNING {error.code}: no checkpoint of step {draft.step}, {newest}. "
            f"Training goes on; the next save is the next try. {error.message}"
        )
        self._control.missed(
            step=draft.step, reason=error.code, message=f"{newest}; {error.message}"
        )

    def _mark(self, draft: _Draft) -> None:
        marker = Marker(
            step=draft.step,
            attempt=self._attempt,
            plan=draft.plan,
            loss=draft.loss,
            data_fingerprint=self._fingerprint,
            training=self._training,
            folder=draft.folder.rpartition("/")[2],
        )
        with self._writing(draft.step):
            self._checkpoints.commit(marker, draft.saving.written())
        self.committed_step = draft.step
        seconds = time.monotonic() - draft.began
        self._chronicle.say(f"checkpoint of step {draft.step} committed in {seconds:.2f} s")
        try:
            self._checkpoints.keep_newest(self._spec.keep)
        except OSError as error:
            self._chronicle.say(
                f"WARNING: not all checkpoints before step {draft.step} were removed that are no "
                f"longer kept; a later save or attempt will: {error}"
            )

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Say what it means that the store cannot be written."""
        try:
            yield
        except OSError as error:
            full = no_room(error) is not None
            what = "has no room, free some" if full else "cannot be written"
            raise WorkloadError(
                CHECKPOINT_STORE_FULL if full else CHECKPOINT_FAILED,
                f"the checkpoint of step {step} was not committed: "
                f"{self._checkpoints.storage.name} {what}: {error}. Earlier checkpoints are "
                "untouched",
            ) from error


def _key(step: int) -> str:
    return f"checkpoint/{step}"
