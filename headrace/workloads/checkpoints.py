"""The checkpoints of a job in its store: which are whole, who may write, which are kept.

``<store>/<uid>/claim``                        highest attempt that has ever written here
``<store>/<uid>/step-00000050/COMMITTED``      the marker, written last: no marker, no checkpoint
``<store>/<uid>/step-00000050/attempt-00003/`` the tensors, as torch.distributed.checkpoint files
``<store>/<uid>/damaged-step-00000050-by-00003/`` set aside by attempt 3; ``suspect-`` likewise

Each attempt writes tensors into a folder of its own, so that a fenced attempt which does not know
it yet can never damage what a newer one wrote: the marker names the folder that counts.

No torch in here: ``python -m headrace.workloads.checkpoints list|purge`` answers at once.
"""

import argparse
import hashlib
import json
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headrace.workloads.refusal import (
    CANNOT_BE_TRAINED,
    CHECKPOINT_FAILED,
    FENCED,
    WorkloadError,
    is_full,
)
from headrace.workloads.storage import Storage, open_storage

FORMAT_VERSION = 2
"""Version of layout, marker and names of tensors. Those of any other are refused.

Before version 2 query, key and value were one matrix, which ranks cannot share.
"""

MARKER = "COMMITTED"
CLAIM = "claim"
METADATA = ".metadata"
DAMAGED = "damaged"
"""Prefix of what was committed once and is not what was written any more."""
SUSPECT = "suspect"
"""Prefix of a checkpoint after which the loss was not finite."""
LISTING_SECONDS = 60.0
"""How long it may take until what another node wrote is seen: NFS keeps listings so long."""
_LOOK_SECONDS = 0.5
_STEP_FOLDER = re.compile(r"step-([0-9]{8,})")
_SUSPECT_FOLDER = re.compile(rf"{SUSPECT}-step-([0-9]{{8,}})-by-[0-9]+")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Marker:
    """What a committed checkpoint says of itself.

    Attributes:
        step: Optimizer steps done.
        attempt: Attempt that wrote it.
        plan: Plan under which it was written; it can be loaded under any other.
        loss: Training loss of its step; None for a checkpoint before the first step.
        data_fingerprint: Of the data that was trained on.
        training: What must not change within a job: model, batch, seed and the like.
        folder: Folder below the step's that holds the tensors.
        files: Size in bytes of each file in it, so that a truncated one is noticed.
        metadata_sha256: Of the file that says where each tensor lies; the tensors have their own
            checksums.
        format_version: Version of layout and marker.
    """

    step: int
    attempt: int
    plan: str
    loss: float | None
    data_fingerprint: str
    training: dict[str, Any]
    folder: str
    files: dict[str, int] = field(default_factory=dict)
    metadata_sha256: str = ""
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class Found:
    """A whole checkpoint: its marker, and where torch finds its tensors."""

    marker: Marker
    location: str


def is_folder_name(text: str) -> bool:
    """Whether a job's folder in a store can be called so: by its uid, or by who runs a script."""
    return _FOLDER_NAME.fullmatch(text) is not None


class JobCheckpoints:
    """One job's folder in a store."""

    def __init__(self, storage: Storage, uid: str) -> None:
        if not is_folder_name(uid):
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                "wanted a job's uid (letters, digits, -, _ and .) as folder name, got " + repr(uid),
            )
        self.storage = storage
        self.uid = uid

    def _step_folder(self, step: int) -> str:
        return f"{self.uid}/step-{step:08d}"

    def claimed_by(self) -> int:
        """Highest attempt that claimed the folder; 0 for none."""
        content = self.storage.read(f"{self.uid}/{CLAIM}")
        if content is None:
            return 0
        try:
            return int(json.loads(content)["attempt"])
        except (ValueError, KeyError, TypeError) as error:
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"the claim of job {self.uid} in {self.storage.name} cannot be read ({error}); "
                "remove that file if no attempt of the job runs",
            ) from error

    def claim(self, attempt: int) -> None:
        """Take the folder for this attempt, which ends every older attempt's right to commit.

        Raises:
            WorkloadError: A newer attempt holds it already.
        """
        self.check_claim(attempt)
        content = json.dumps({"attempt": attempt, "format_version": FORMAT_VERSION}).encode()
        try:
            self.storage.write(f"{self.uid}/{CLAIM}", content)
        except OSError as error:
            # What takes the room may be what an attempt, which has ended since, did not finish.
            if not is_full(error) or not self._remove_uncommitted():
                raise
            self.storage.write(f"{self.uid}/{CLAIM}", content)

    def check_claim(self, attempt: int) -> None:
        """Refuse if a newer attempt holds the folder."""
        holder = self.claimed_by()
        if holder > attempt:
            raise WorkloadError(
                FENCED,
                f"attempt {attempt} of job {self.uid} may not write to {self.storage.name}: "
                f"attempt {holder} has taken over",
            )

    def prove(self, attempt: int) -> str:
        """Leave a fresh nonce that every rank must be able to read; returns it."""
        nonce = secrets.token_hex(16)
        self.storage.write(f"{self.uid}/proof-{attempt:05d}", nonce.encode())
        return nonce

    def sees(self, attempt: int, nonce: str) -> bool:
        """Whether this process sees what another rank wrote."""
        return self.storage.read(f"{self.uid}/proof-{attempt:05d}") == nonce.encode()

    def end_proof(self, attempt: int) -> None:
        """Remove the nonce."""
        self.storage.remove(f"{self.uid}/proof-{attempt:05d}")

    def steps(self) -> list[int]:
        """Steps with a folder, whole or not, ascending."""
        found = (_STEP_FOLDER.fullmatch(name) for name in self.storage.names(self.uid))
        return sorted(int(match[1]) for match in found if match)

    def whole(self) -> list[Found]:
        """Every checkpoint that can be loaded, oldest first.

        Raises:
            WorkloadError: One was written by a newer release.
        """
        return [found for step in self.steps() if (found := self.at(step)) is not None]

    def at(self, step: int) -> Found | None:
        """The checkpoint of a step; None if it is not there, not committed or not complete."""
        folder = self._step_folder(step)
        marker = self._marker(folder)
        if marker is None or marker.step != step:
            return None
        there = self.storage.sizes_bytes(f"{folder}/{marker.folder}")
        if any(there.get(name) != size for name, size in marker.files.items()):
            return None
        return Found(marker, self.storage.location(f"{folder}/{marker.folder}"))

    def _marker(self, folder: str) -> Marker | None:
        content = self.storage.read(f"{folder}/{MARKER}")
        if content is None:
            return None
        try:
            loaded = json.loads(content)
            version = int(loaded["format_version"])
        except (ValueError, KeyError, TypeError):
            return None  # torn: the marker was being written when the power went
        if version != FORMAT_VERSION:
            which = "newer" if version > FORMAT_VERSION else "older"
            raise WorkloadError(
                CANNOT_BE_TRAINED,
                f"the checkpoint {folder} in {self.storage.name} has format {version}, this "
                f"release reads {FORMAT_VERSION}: run the job with the {which} release",
            )
        try:
            return Marker(**loaded)
        except TypeError:
            return None

    def clean(self) -> list[int]:
        """Remove what is not whole; only the attempt that holds the claim may. Returns steps."""
        removed = []
        for step in self.steps():
            found = self.at(step)
            if found is None:
                self._remove(step)
                removed.append(step)
                continue
            # Tensors that another attempt left unfinished beside those that count.
            folder = self._step_folder(step)
            for name in self.storage.names(folder):
                if name not in (MARKER, found.marker.folder):
                    self.storage.remove(f"{folder}/{name}")
        for name in self.storage.names(self.uid):
            if name.startswith(("proof-", f".{CLAIM}.")):
                self.storage.remove(f"{self.uid}/{name}")
        return removed

    def _remove_uncommitted(self) -> list[int]:
        """Remove what has no marker; returns its steps."""
        folders = {step: self._step_folder(step) for step in self.steps()}
        found = [s for s, at in folders.items() if self.storage.read(f"{at}/{MARKER}") is None]
        for step in found:
            self.storage.remove(folders[step])
        return found

    def set_damaged_aside(self, attempt: int) -> list[int]:
        """Move away what was committed and lacks something now: people may want to look at it."""
        damaged = [
            step
            for step in self.steps()
            if self.storage.read(f"{self._step_folder(step)}/{MARKER}") is not None
            and self.at(step) is None
        ]
        for step in damaged:
            self.set_aside(step, DAMAGED, attempt)
        return damaged

    def set_aside(self, step: int, why: str, attempt: int) -> str:
        """Make a checkpoint not count without removing it; returns the name that it has now."""
        name = f"{why}-step-{step:08d}-by-{attempt:05d}"
        self.storage.move(self._step_folder(step), f"{self.uid}/{name}")
        return name

    def doubt(self, attempt: int) -> int | None:
        """Set the newest checkpoint aside after a loss that was not finite; returns its step.

        None, and nothing is done, if there is none before it, or if one as new was doubted
        already: then the fault was not in the checkpoint.
        """
        self.check_claim(attempt)
        steps = [found.marker.step for found in self.whole()]
        names = (_SUSPECT_FOLDER.fullmatch(name) for name in self.storage.names(self.uid))
        doubted = max((int(match[1]) for match in names if match), default=-1)
        if len(steps) < 2 or doubted >= steps[-1]:
            return None
        self.set_aside(steps[-1], SUSPECT, attempt)
        return steps[-1]

    def draft_folder(self, step: int, attempt: int) -> str:
        """The place of an attempt's tensors of a step, relative to the store."""
        return f"{self._step_folder(step)}/attempt-{attempt:05d}"

    def commit(self, marker: Marker, written: Mapping[str, int]) -> Marker:
        """Make the written tensors count.

        Args:
            marker: Without ``files``, which are taken from what lies in the folder.
            written: Bytes that each file has at least, as those say who wrote it.

        Raises:
            WorkloadError: A newer attempt has taken over, or not all that was written is here.
        """
        folder = self._step_folder(marker.step)
        values = asdict(marker)
        values["files"] = self._seen(f"{folder}/{marker.folder}", written)
        metadata = self.storage.read(f"{folder}/{marker.folder}/{METADATA}")
        if metadata is not None:
            values["metadata_sha256"] = hashlib.sha256(metadata).hexdigest()
        # torch has seen to its files, and nobody to the names of their folders.
        self.storage.sync(f"{folder}/{marker.folder}")
        # Last look before the marker: what is written after a newer claim must not count.
        self.check_claim(marker.attempt)
        content = json.dumps(values, sort_keys=True, indent=1)
        self.storage.write(f"{folder}/{MARKER}", content.encode())
        return Marker(**values)

    def _seen(self, folder: str, written: Mapping[str, int]) -> dict[str, int]:
        """Size of each file, once all that other ranks wrote is seen from here too."""
        deadline = time.monotonic() + LISTING_SECONDS
        while True:
            sizes = self.storage.sizes_bytes(folder)
            lacking = {name: size for name, size in written.items() if sizes.get(name, 0) < size}
            if not lacking:
                return sizes
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        told = ", ".join(
            f"{name} ({sizes[name]} of {size} bytes)" if name in sizes else name
            for name, size in sorted(lacking.items())[:4]
        )
        raise WorkloadError(
            CHECKPOINT_FAILED,
            f"the checkpoint {folder} was not committed: ranks say that they wrote it, and rank 0 "
            f"does not see {told} in {self.storage.name}; look whether all nodes of the job still "
            "have the store mounted. Earlier checkpoints are untouched",
        )

    def keep_newest(self, count: int) -> list[int]:
        """Remove all but the ``count`` newest whole checkpoints; returns the removed steps."""
        steps = [found.marker.step for found in self.whole()]
        for step in steps[:-count]:
            self._remove(step)
        return steps[:-count]

    def purge(self) -> int:
        """Remove everything of this job; returns how many checkpoints there were."""
        count = len(self.steps())
        self.storage.remove(self.uid)
        return count

    def _remove(self, step: int) -> None:
        # The marker first: a removal that is cut short leaves no checkpoint, not a broken one.
        self.storage.remove(f"{self._step_folder(step)}/{MARKER}")
        self.storage.remove(self._step_folder(step))


def main(arguments: Sequence[str] | None = None) -> int:
    """``list`` prints one JSON line a checkpoint, of one job or of all that have any in the store;
    ``purge`` removes all of a job's.
    """
    parser = argparse.ArgumentParser(prog="python -m headrace.workloads.checkpoints")
    parser.add_argument("verb", choices=["list", "purge"])
    parser.add_argument("--store", required=True, help="path or fsspec URL")
    parser.add_argument("--uid", help="the job's uid; `list` without one lists all jobs")
    parser.add_argument("--base", type=Path, help="what a relative path is relative to")
    chosen = parser.parse_args(arguments)
    if chosen.verb == "purge" and chosen.uid is None:
        parser.error("purge: wanted --uid, got none; `list` shows the uids")
    try:
        storage = open_storage(chosen.store, chosen.base)
        if chosen.verb == "purge":
            job = JobCheckpoints(storage, chosen.uid)
            sys.stdout.write(json.dumps({"uid": job.uid, "purged": job.purge()}) + "\n")
            return 0
        for uid in [chosen.uid] if chosen.uid else filter(is_folder_name, storage.names("")):
            for found in JobCheckpoints(storage, uid).whole():
                line = {"uid": uid, "location": found.location, **asdict(found.marker)}
                sys.stdout.write(json.dumps(line) + "\n")
    except WorkloadError as error:
        sys.stderr.write(error.message + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
