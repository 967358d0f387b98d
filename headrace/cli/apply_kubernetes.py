"""What commands about jobs and manifests do where they write custom resources."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.api.manifest import API_VERSION
from headrace.api.manifest_source import Finding, Manifests, SourceDocument
from headrace.api.refusal import Problem
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.get import split
from headrace.cli.output import say
from headrace.client.custom_resources import (
    CustomResources,
    FieldConflictError,
    Object,
    own_fields,
    who_has_set,
)
from headrace.client.trouble import CallError, FieldViolation, Kind

_LOOK_AGAIN_SECONDS = 0.5
_WORDS = {"TrainingJob": "job", "Queue": "queue", "ClusterPolicy": "policy"}
_OF_PEOPLE = ("name", "namespace", "uid", "labels", "annotations")
"""What a manifest may say of an object's identity; the rest the API server writes."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of an object.

    Attributes:
        kind: As lines call it: ``job``, ``queue`` or ``policy``.
        name: Of a job also the namespace.
        result: What was done.
        found: As the API server has it.
    """

    kind: str
    name: str
    result: str
    found: Object

    @property
    def label(self) -> str:
        """What a line calls it."""
        return f"{self.kind}/{self.found['metadata']['name']}"

    def document(self) -> dict[str, Any]:
        """It for programs."""
        told = {self.kind: self.name, "result": self.result}
        if self.kind == "job":
            told["uid"] = str(self.found["metadata"]["uid"])
        return told


def apply_objects(
    resources: CustomResources, read: Manifests, *, dry_run: bool, force: bool
) -> tuple[list[Written], tuple[Finding, ...]]:
    """Applies everything that manifests describe, or nothing if some of it is refused.

    As kubectl would: exactly the fields that the files name, in the kubeconfig's namespace where
    they name none.
    """
    sources = [each.source for each in read.cluster] + [each.source for each in read.jobs]
    documents = [_document(each, resources.namespace) for each in sources]
    findings: list[Finding] = []
    for document, source in zip(documents, sources, strict=True):
        try:
            resources.apply(document, dry_run=True, force=force)
        except CallError as trouble:
            findings += _findings(trouble, source)
    if findings:
        return [], tuple(findings)
    if dry_run:
        done = "would be accepted (dry run)"
        return [_written(each, done, _before(resources, each)) for each in documents], ()
    return [_apply(resources, each, force=force) for each in documents], ()


def _document(source: SourceDocument, namespace: str) -> Object:
    """What is to be applied: what people wrote, without what only Kubernetes writes."""
    value: Any = source.value
    metadata = {key: value["metadata"][key] for key in _OF_PEOPLE if key in value["metadata"]}
    if value["kind"] == "TrainingJob":
        metadata.setdefault("namespace", namespace)
    return {
        "apiVersion": value["apiVersion"],
        "kind": value["kind"],
        "metadata": metadata,
        "spec": value["spec"],
    }


def _before(resources: CustomResources, document: Object) -> Object | None:
    metadata = document["metadata"]
    return resources.get(document["kind"], metadata["name"], metadata.get("namespace", ""))


def _apply(resources: CustomResources, document: Object, *, force: bool) -> Written:
    before = _before(resources, document)
    after = resources.apply(document, force=force)
    if before is None or before["metadata"]["uid"] != after["metadata"]["uid"]:
        result = "created"
    else:
        result = "unchanged" if _said(before) == _said(after) else "updated"
    return _written(document, result, after)


def _said(found: Object) -> tuple[Any, ...]:
    """What people say of an object."""
    metadata = found["metadata"]
    return found.get("spec"), metadata.get("labels"), metadata.get("annotations")


def _written(document: Object, result: str, found: Object | None) -> Written:
    metadata = document["metadata"]
    name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
    kind = _WORDS[document["kind"]]
    return Written(kind, name, result, found or {"metadata": {**metadata, "uid": ""}})


def _findings(trouble: CallError, source: SourceDocument) -> Iterator[Finding]:
    """A refusal by line.

    Raises:
        CallError: It is about no field.
    """
    if isinstance(trouble, FieldConflictError):
        for field, manager in trouble.others.items():
            sentence = (
                f"{manager} has set it to something else; change it there, leave it out here, or "
                "take it over with --force-conflicts"
            )
            yield source.finding(Problem(_keys(field), sentence))
    elif trouble.kind is Kind.REFUSED and trouble.violations:
        yield from (source.finding(_problem(each)) for each in trouble.violations)
    else:
        raise trouble


def _problem(violation: FieldViolation) -> Problem:
    return Problem(_keys(violation.field), violation.description)


def _keys(field: str) -> tuple[str | int, ...]:
    """``spec.env[0].name`` as the path of keys that it is; entries by key stay as they are."""
    from headrace.cli.apply import keys_of

    if "[" in field and not field.partition("[")[2].partition("]")[0].isdigit():
        before, _, rest = field.partition("[")
        *above, last = before.split(".")
        return (*above, f"{last}[{rest}")
    return keys_of(field) if field != "<nil>" else ()


def wait_until_known(
    resources: CustomResources, written: Sequence[Written], timeout_seconds: float
) -> None:
    """Returns when the operator has told the control plane of every job.

    Args:
        resources: Who is asked.
        written: What was applied.
        timeout_seconds: How long at most; 0 for ever.

    Raises:
        CommandError: One was refused or is gone, or time is up.
    """
    end = time.monotonic() + timeout_seconds if timeout_seconds else None
    for each in written:
        if each.kind != "job":
            continue
        namespace, _, name = each.name.partition("/")
        uid = each.found["metadata"]["uid"]
        while not _is_known(resources.get("TrainingJob", name, namespace), uid, name):
            if end is not None and time.monotonic() > end:
                raise CommandError(
                    ExitCode.TIMED_OUT,
                    f"{name} was not taken over by the operator after {timeout_seconds:g} s; does "
                    "one run in this cluster?",
                )
            time.sleep(_LOOK_AGAIN_SECONDS)


def _is_known(found: Object | None, uid: str, name: str) -> bool:
    if found is None or found["metadata"]["uid"] != uid:
        raise CommandError(ExitCode.JOB_FAILED, f"{name} was deleted")
    accepted: Mapping[str, Any] = next(
        (
            each
            for each in found.get("status", {}).get("conditions", ())
            if each["type"] == "Accepted"
        ),
        {},
    )
    if accepted.get("observedGeneration") != found["metadata"]["generation"]:
        return False
    if accepted.get("status") == "False":
        raise CommandError(ExitCode.REFUSED, f"{name} was refused: {accepted.get('message')}")
    return accepted.get("status") == "True"


def delete_objects(
    resources: CustomResources, wanted: Sequence[tuple[str, str, str]]
) -> tuple[list[Object], list[str]]:
    """Has objects deleted.

    Args:
        resources: Where.
        wanted: Kind, namespace and name of each; without a namespace, the kubeconfig's.

    Returns:
        Those that will go, and what is not there.
    """
    going: list[Object] = []
    missing: list[str] = []
    for kind, namespace, name in wanted:
        is_job = kind == "TrainingJob"
        namespace = (namespace or resources.namespace) if is_job else ""
        found = resources.get(kind, name, namespace)
        if found is None:
            missing.append(f"{namespace}/{name}" if is_job else name)
            continue
        resources.delete(found)
        going.append(found)
        stays = {"TrainingJob": "; its checkpoints stay", "ClusterPolicy": "; its settings stay"}
        say(f"{_WORDS[kind]}/{name} deleted{stays.get(kind, '')}")
    return going, missing


def wait_until_gone(
    resources: CustomResources, going: Sequence[Object], timeout_seconds: float
) -> None:
    """Returns when none of these objects is there any more.

    Raises:
        CommandError: Time is up, or somebody pressed Ctrl-C.
    """
    end = time.monotonic() + timeout_seconds if timeout_seconds else None
    left = list(going)
    try:
        while left := [each for each in left if _is_there(resources, each)]:
            if end is not None and time.monotonic() > end:
                names = ", ".join(each["metadata"]["name"] for each in left)
                sentence = f"{names} not gone after {timeout_seconds:g} s"
                raise CommandError(ExitCode.TIMED_OUT, sentence)
            time.sleep(_LOOK_AGAIN_SECONDS)
    except KeyboardInterrupt:
        names = ", ".join(each["metadata"]["name"] for each in left)
        raise CommandError(
            ExitCode.INTERRUPTED, f"interrupted; {names} will go all the same"
        ) from None


def _is_there(resources: CustomResources, found: Object) -> bool:
    now = _before(resources, found)
    return now is not None and now["metadata"]["uid"] == found["metadata"]["uid"]


def change(
    resources: CustomResources,
    found: Object,
    changes: Mapping[tuple[str, ...], Any],
    *,
    force: bool,
) -> Object:
    """Changes some fields of an object's spec and leaves all others as they are.

    Args:
        resources: Where.
        found: The object.
        changes: Values by their path below ``spec``; None leaves a field out from now on.
        force: Takes over fields that others have set to something else.

    Raises:
        CallError: It is refused.
        CommandError: A field was to be left out that others have set.
    """
    own = own_fields(found)
    spec = own.get("spec", {})
    for path, value in changes.items():
        _put(spec, path, value)
    metadata = found["metadata"]
    identity = {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata}
    document = {
        "apiVersion": API_VERSION,
        "kind": found["kind"],
        "metadata": {**own.get("metadata", {}), **identity},
        "spec": spec,
    }
    after = resources.apply(document, force=force)
    for path in (path for path, value in changes.items() if value is None):
        if others := who_has_set(after, "spec", *path):
            raise CommandError(
                ExitCode.REFUSED,
                f"spec.{'.'.join(path)} stays as it is: {', '.join(others)} has set it too; take "
                "it out there",
            )
    return after


def _put(spec: Object, path: tuple[str, ...], value: Any) -> None:
    *above, last = path
    for name in above:
        spec = spec.setdefault(name, {})
    if value is None:
        spec.pop(last, None)
    else:
        spec[last] = value


def set_suspended(
    resources: CustomResources,
    names: Sequence[str],
    namespace: str,
    *,
    suspended: bool,
    force: bool,
) -> list[str]:
    """Suspends jobs or lets them go on; returns those that are not there."""
    missing = []
    for each in names:
        space, name = split(each, namespace or resources.namespace)
        found = resources.get("TrainingJob", name, space)
        if found is None:
            missing.append(f"{space}/{name}")
            continue
        change(resources, found, {("suspend",): suspended}, force=force)
        was = bool(found["spec"].get("suspend")) is suspended
        say(f"job/{name} {'suspended' if suspended else 'resumed'}{' already' if was else ''}")
    return missing


def objects_not_there(missing: Sequence[str]) -> CommandError:
    """What is missing among the custom resources."""
    names = ", ".join(map(repr, missing))
    return CommandError(
        ExitCode.NOT_FOUND, f"no custom resource {names}; `kubectl get headrace -A` lists all"
    )
