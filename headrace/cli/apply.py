"""``headrace apply``: manifests to the control plane, all of them or none."""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headrace.api.generated import jobs_pb2
from headrace.api.manifest import TrainingJob, canonical_json
from headrace.api.manifest_model import BUILT_IN_DATA
from headrace.api.manifest_queue import Queue
from headrace.api.manifest_source import (
    Finding,
    Keys,
    Manifests,
    SourcedClusterObject,
    SourcedJob,
    read_objects,
)
from headrace.api.refusal import Problem
from headrace.api.runtime import refusals
from headrace.cli import large_on_cpu, views
from headrace.cli.apply_cluster import label, not_taken, put, queues_of, refused
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, document, note, say
from headrace.cli.session import Session, refuse_force
from headrace.cli.wait import FINISHED, wait_for
from headrace.client.client import Client
from headrace.client.context import Context, NoContextError
from headrace.client.trouble import CallError, Kind


def apply(
    session: Session,
    files: tuple[str, ...],
    *,
    dry_run: bool,
    wait: bool,
    timeout_seconds: float,
    output: Format,
    force: bool = False,
) -> None:
    """Submits every job of the files, and sets queues and policy; if one is wrong, nothing is done.

    Raises:
        CommandError: A manifest is wrong, or a job that was waited for failed.
    """
    text = sys.stdin.read() if "-" in files else ""
    read = read_objects(files, text)
    refuse(read.findings)
    jobs, cluster = read.jobs, read.cluster
    if session.writes_custom_resources:
        waited = timeout_seconds if wait and not dry_run else None
        _write_objects(session, read, waited, output, dry_run=dry_run, force=force)
        return
    refuse_force(force)
    try:
        context = session.context()
    except NoContextError:
        if not dry_run:
            raise
        # Whoever has no cluster yet starts one here: its rules for paths are those to check.
        _check_alone(resolved(jobs, Context("", local=True), session.home), cluster, output)
        return
    jobs = resolved(jobs, context, session.home)
    with session.client() as client:
        try:
            refuse(_refused_by_any(client, jobs, cluster))
        except CallError as trouble:
            if not dry_run or trouble.kind is not Kind.UNREACHABLE:
                raise
            _check_alone(jobs, cluster, output)
            return
        if dry_run:
            of_cluster = [_told_of(each, _DRY) for each in cluster]
            results = [_Result(each.job, _DRY) for each in jobs]
        else:
            of_cluster = [_told_of(each, put(client, each.object)) for each in cluster]
            results = [_submit(client, each) for each in jobs]
        _tell([*of_cluster, *map(_told, results)], output)
        _note_what_stands_in_the_way(client, results, queues_of(cluster))
        if wait and not dry_run:
            names = {each.uid: each.job.metadata.name for each in results}
            wait_for(client, names, timeout_seconds)


def _write_objects(
    session: Session,
    read: Manifests,
    wait_seconds: float | None,
    output: Format,
    *,
    dry_run: bool,
    force: bool,
) -> None:
    """Applies custom resources; waits so long for their jobs, or not at all with None."""
    from headrace.cli import apply_kubernetes

    resources = session.custom_resources()
    # As for kubectl: what a path is relative to on the nodes nobody knows.
    elsewhere = Context(f"the cluster of {resources.kubeconfig}")
    resolved(read.jobs, elsewhere, session.home)
    written, findings = apply_kubernetes.apply_objects(
        resources, read, dry_run=dry_run, force=force
    )
    refuse(findings)
    _tell([(each.label, {**each.document()}) for each in written], output)
    if wait_seconds is None:
        return
    apply_kubernetes.wait_until_known(resources, written, wait_seconds)
    jobs = [each.found["metadata"] for each in written if each.kind == "job"]
    with session.client() as client:
        wait_for(client, {each["uid"]: each["name"] for each in jobs}, wait_seconds)


_DRY = "would be accepted (dry run)"
_VALID = "is valid"


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one job."""

    job: TrainingJob
    result: str
    uid: str = ""


_Told = tuple[str, dict[str, Any]]
"""What a line calls an object, and what became of it as a document."""


def _told(result: _Result) -> _Told:
    metadata = result.job.metadata
    name = f"{metadata.namespace}/{metadata.name}"
    document = {"job": name, "uid": result.uid, "result": result.result}
    return f"job/{metadata.name}", document


def _told_of(sourced: SourcedClusterObject, result: str) -> _Told:
    name = label(sourced.object)
    kind, _, own = name.partition("/")
    return name, {kind: own, "result": result}


def _tell(results: Sequence[_Told], output: Format) -> None:
    """A line each; as one document for programs: of several jobs a list, as kubectl has it."""
    if output in (Format.JSON, Format.YAML):
        documents = [each for _, each in results]
        document(documents[0] if len(documents) == 1 else views.listed(documents), output)
        return
    for name, told in results:
        say(name if output is Format.NAME else f"{name} {told['result']}")


def _note_what_stands_in_the_way(
    client: Client, results: Sequence[_Result], applied: Mapping[str, Queue]
) -> None:
    """Says of accepted jobs why they will not run, where that is plain already."""
    queues = {each.name for each in client.queues()} | applied.keys()
    for sentence in _on_cpu_alone(client, results):
        note(sentence)
    for each in results:
        name, queue = each.job.metadata.name, each.job.spec.queue
        if queue not in queues:
            note(
                f"job/{name} will wait: there is no queue {queue}; `headrace queue set {queue}` "
                "creates it"
            )
        if each.result == "unchanged":
            # By uid, and none is no error: it may just have been forgotten.
            for job in client.list_jobs(jobs_pb2.JobSelector(uid=each.uid)):
                _note_that_it_is_over(job)


def _on_cpu_alone(client: Client, results: Sequence[_Result]) -> Iterator[str]:
    large = large_on_cpu.large(each.job for each in results if each.result != "unchanged")
    return large_on_cpu.notes(large, client.nodes()) if large else iter(())


def _note_that_it_is_over(job: jobs_pb2.Job) -> None:
    status = job.status
    if status.stage not in FINISHED:
        return
    note(
        f"job/{job.name} is over ({status.reason.code or status.stage}) and does not run again; "
        f"`headrace delete {job.name}` and apply it once more"
    )
    if status.progress.checkpoint_step:
        note(
            f"a new job begins at step 0, or with spec.checkpoint.startFrom.uid: {job.uid} at "
            f"step {status.progress.checkpoint_step}"
        )


def refuse(findings: tuple[Finding, ...], done: str = "applied") -> None:
    """Ends the command if there are findings.

    Args:
        findings: What is wrong with manifests.
        done: What was not done because of them.

    Raises:
        CommandError: With every one of them.
    """
    if findings:
        told = "\n".join(f"  {finding}" for finding in findings)
        # A name that was mistyped is no manifest that is wrong.
        mistyped = all(map(_is_of_no_file, findings))
        code = ExitCode.USAGE if mistyped else ExitCode.REFUSED
        raise CommandError(code, f"nothing was {done}:\n{told}")


def _is_of_no_file(finding: Finding) -> bool:
    named = not finding.line and finding.file != "standard input"
    return named and not Path(finding.file).exists()


def _check_alone(
    jobs: tuple[SourcedJob, ...], cluster: tuple[SourcedClusterObject, ...], output: Format
) -> None:
    """A dry run without a control plane: what can be said from here."""
    refuse(tuple(each.source.finding(problem) for each in jobs for problem in refusals(each.job)))
    told = [_told_of(each, _VALID) for each in cluster]
    _tell([*told, *(_told(_Result(each.job, _VALID)) for each in jobs)], output)
    note("not checked against a control plane: none answers")


# What the control plane has to say, by line.


def _refused_by_any(
    client: Client, jobs: tuple[SourcedJob, ...], cluster: tuple[SourcedClusterObject, ...]
) -> tuple[Finding, ...]:
    """Why the control plane would not take all of it."""
    queues = queues_of(cluster)
    found = list(refused(client, cluster))
    for job in jobs:
        by_plane = _refused_by(client, job)
        if job.job.spec.queue in queues:
            # It knows the queue as it is, not as it will be.
            by_plane = tuple(each for each in by_plane if each.problem.field != "spec.queue")
        found += [*not_taken(job, queues), *by_plane]
    return tuple(found)


def _refused_by(client: Client, sourced: SourcedJob) -> tuple[Finding, ...]:
    """Why the control plane would not take the job; nothing if it would."""
    metadata = sourced.job.metadata
    if metadata.uid is not None:
        there = client.get_job(metadata.namespace, metadata.name)
        if there.uid != metadata.uid:
            sentence = (
                f"{metadata.name} is {there.uid} now, and this manifest is about "
                f"{metadata.uid}; leave the uid out to change the present job"
            )
            return (sourced.source.finding(Problem(("metadata", "uid"), sentence)),)
    try:
        client.submit(canonical_json(sourced.job), dry_run=True)
    except CallError as trouble:
        if trouble.kind is not Kind.REFUSED or not trouble.violations:
            raise
        return tuple(
            sourced.source.finding(Problem(keys_of(each.field), each.description))
            for each in trouble.violations
        )
    return ()


def _submit(client: Client, sourced: SourcedJob) -> _Result:
    response = client.submit(canonical_json(sourced.job))
    return _Result(sourced.job, response.result, response.uid)


def keys_of(field: str) -> Keys:
    """``spec.env[0].name`` as the path of keys that it is."""
    keys: list[str | int] = []
    for name, index in re.findall(
        r"([^.\[\]]+)|\[([0-9]+)\]", field.removeprefix("manifest_json.")
    ):
        keys.append(int(index) if index else name)
    return tuple(keys)


# Paths mean something only on a known machine.


def resolved(
    jobs: tuple[SourcedJob, ...], context: Context, home: Path, done: str = "applied"
) -> tuple[SourcedJob, ...]:
    """The jobs with absolute paths.

    Relative checkpoint stores lie in the local cluster's home, the one folder that all of its
    nodes share; relative data and working directories are meant from the manifest's folder.

    Raises:
        CommandError: A relative path was meant for a cluster elsewhere.
    """
    findings: list[Finding] = []
    found = []
    for sourced in jobs:
        manifest = sourced.job.model_dump(mode="json", by_alias=True, exclude_none=True)
        folder = Path(sourced.source.file).absolute().parent
        for keys, base in _relative_paths(sourced.job, home, folder):
            part: Any = manifest
            for key in keys[:-1]:
                part = part[key]
            problem = _path_problem(keys, part[keys[-1]], context, base)
            if problem is not None:
                findings.append(sourced.source.finding(problem))
            part[keys[-1]] = str((base / part[keys[-1]]).resolve())
        found.append(SourcedJob(TrainingJob.model_validate(manifest), sourced.source))
    refuse(tuple(findings), done)
    return tuple(found)


def _relative_paths(job: TrainingJob, home: Path, folder: Path) -> list[tuple[Keys, Path]]:
    """Every relative path in the manifest, and the folder that it is meant from."""
    spec = job.spec
    candidates: list[tuple[Keys, str | None, Path]] = []
    if spec.checkpoint is not None:
        candidates.append((("spec", "checkpoint", "store"), spec.checkpoint.store, home))
        if spec.checkpoint.start_from is not None:
            start = spec.checkpoint.start_from.store
            candidates.append((("spec", "checkpoint", "startFrom", "store"), start, home))
    if spec.model is not None:
        candidates.append((("spec", "model", "weights"), spec.model.weights, folder))
    if spec.data is not None and spec.data.source not in BUILT_IN_DATA:
        candidates.append((("spec", "data", "source"), spec.data.source, folder))
    if spec.script is not None:
        directory = spec.script.working_directory
        candidates.append((("spec", "script", "workingDirectory"), directory, folder))
    if spec.command is not None:
        directory = spec.command.working_directory
        candidates.append((("spec", "command", "workingDirectory"), directory, folder))
    return [
        (keys, base)
        for keys, value, base in candidates
        if value is not None and not urlsplit(value).scheme and not Path(value).is_absolute()
    ]


def _path_problem(keys: Keys, value: str, context: Context, base: Path) -> Problem | None:
    """Why a relative path cannot be used, if so."""
    if keys[-1] == "source" and not (context.local and (base / value).exists()):
        near = difflib.get_close_matches(value, BUILT_IN_DATA, n=1)
        built_in = ", ".join(BUILT_IN_DATA)
        sentence = f"wanted {built_in} or an absolute path, got {value!r}"
        if context.local:
            there = (base / value).resolve()
            sentence = f"wanted {built_in} or a path, got {value!r}, and there is no {there}"
        return Problem(keys, sentence, near[0] if near else "")
    if not context.local:
        return Problem(
            keys,
            f"{value!r} is a relative path, and nobody knows what it is relative to on the nodes "
            f"of {context.server}; wanted an absolute path or a URL that all of them see",
        )
    return None
