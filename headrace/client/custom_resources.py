"""Custom resources, written as the person whose kubeconfig it is.

The one place of the public package that knows Kubernetes. What is written here an operator reads
and tells the control plane. Everything is written by server-side apply, so that fields which others
have set are not changed unasked.

The package ``kubernetes`` is an extra, and loaded when a command asks for it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api.manifest import API_VERSION
from headrace.client.trouble import CallError, FieldViolation, Kind

Object = dict[str, Any]

FIELD_MANAGER = "headrace-cli"
"""Who owns, in server-side apply, the fields that the command line writes."""
GROUP, _, VERSION = API_VERSION.partition("/")
PLURALS = {"TrainingJob": "trainingjobs", "Queue": "queues", "ClusterPolicy": "clusterpolicies"}
"""What URLs call each kind."""
NAMESPACED = frozenset({"TrainingJob"})
_APPLY = "application/apply-patch+yaml"
_ANSWER_SECONDS = 30.0
_NOT_FOUND, _ERROR = 404, 400
_KINDS = {401: Kind.REFUSED, 403: Kind.REFUSED, 404: Kind.NOT_FOUND, 409: Kind.REFUSED}
_KINDS |= {400: Kind.REFUSED, 422: Kind.REFUSED, 504: Kind.TIMED_OUT}


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """How to reach an API server, as kubectl finds it.

    Attributes:
        file: Empty for what kubectl takes: ``$KUBECONFIG``, else ``~/.kube/config``.
        context: Which of its contexts; empty for the current one.
    """

    file: str = ""
    context: str = ""

    def __str__(self) -> str:
        named = self.file or "kubectl's kubeconfig"
        return f"{named}, context {self.context}" if self.context else named


class FieldConflictError(CallError):
    """Others have set fields to something else.

    Attributes:
        others: Who, by field.
    """

    def __init__(self, others: Mapping[str, str]) -> None:
        told = ", ".join(f"{field} (by {manager})" for field, manager in others.items())
        super().__init__(
            Kind.REFUSED,
            f"others have set {told} to something else; change it where it was set, leave it out "
            "here, or take it over with --force-conflicts",
        )
        self.others = others


class CustomResources:
    """The custom resources of one cluster, for one person."""

    def __init__(self, kubeconfig: Kubeconfig) -> None:
        """Reads where the API server is and who asks; opens no connection yet.

        Raises:
            CallError: The kubeconfig cannot be used, or the package ``kubernetes`` is not there.
        """
        self.kubeconfig = kubeconfig
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise CallError(
                Kind.FAILED,
                f"writing custom resources needs the package kubernetes: {error}; "
                "`pip install 'headrace[kubernetes]'` brings it",
            ) from error
        file = kubeconfig.file or os.environ.get("KUBECONFIG") or None
        context = kubeconfig.context or None
        try:
            contexts, current = config.list_kube_config_contexts(config_file=file)
            own = config.new_client_from_config(config_file=file, context=context)
        except (config.ConfigException, OSError, KeyError, TypeError, ValueError) as error:
            raise CallError(
                Kind.UNREACHABLE, f"{kubeconfig} does not say how to reach a cluster: {error}"
            ) from error
        chosen = next((each for each in contexts if each["name"] == context), current)
        self.namespace = str(chosen["context"].get("namespace") or "default")
        """The context's: where what names no namespace is."""
        self._api = client.CustomObjectsApi(own)

    def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """An object; None if there is none."""
        return self._call("get", kind, name, namespace)

    def apply(self, document: Object, *, dry_run: bool = False, force: bool = False) -> Object:
        """Server-side apply: exactly these fields are the command line's.

        Args:
            document: An object with those fields alone.
            dry_run: Only asks what would become of it.
            force: Takes over fields that others have set to something else.

        Raises:
            FieldConflictError: There are such fields, and they are not to be taken over.
            CallError: The API server refused, or does not answer.
        """
        metadata = document["metadata"]
        options: dict[str, Any] = {
            "body": document,
            "field_manager": FIELD_MANAGER,
            "field_validation": "Strict",
            "force": force,
            "_content_type": _APPLY,
        }
        if dry_run:
            options["dry_run"] = "All"
        kind, name = str(document["kind"]), str(metadata["name"])
        namespace = str(metadata.get("namespace", ""))
        answer = self._call("patch", kind, name, namespace, **options)
        if answer is None:
            place = f"no namespace {namespace!r}, or " if namespace else ""
            raise CallError(
                Kind.NOT_FOUND,
                f"the cluster of {self.kubeconfig} takes no {kind} {name}: there is {place}no "
                f"custom resource {PLURALS[kind]}.{GROUP}, which Headrace's chart installs",
            )
        return answer

    def delete(self, found: Object) -> None:
        """Asks that this very object goes; harmless if it has gone."""
        metadata = found["metadata"]
        body = {"preconditions": {"uid": metadata["uid"]}}
        where = found["kind"], metadata["name"], metadata.get("namespace", "")
        self._call("delete", *where, body=body)

    def _call(
        self, verb: str, kind: str, name: str, namespace: str, **options: Any
    ) -> Object | None:
        """The answer; None if there is nothing of that name."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        scope = "namespaced" if kind in NAMESPACED else "cluster"
        # The client's own reading of answers loses those of objects that were just created.
        call = getattr(self._api, f"{verb}_{scope}_custom_object")
        where = (GROUP, VERSION, *((namespace,) if kind in NAMESPACED else ()), PLURALS[kind], name)
        try:
            response = call(
                *where, **options, _preload_content=False, _request_timeout=_ANSWER_SECONDS
            )
            status, told = int(response.status), _document(response.data)
        except ApiException as error:
            status, told = int(error.status or 0), _document(error.body or b"")
        except (HTTPError, OSError) as error:
            why = getattr(error, "reason", None) or error
            raise CallError(
                Kind.UNREACHABLE, f"the API server of {self.kubeconfig} does not answer: {why}"
            ) from error
        if status == _NOT_FOUND:
            return None
        if not status or status >= _ERROR:
            raise _trouble(status, told)
        return told


def _document(said: bytes | str) -> Object:
    text = said if isinstance(said, str) else said.decode(errors="replace")
    try:
        told = json.loads(text)
    except ValueError:
        return {"message": text[:500]}
    return told if isinstance(told, dict) else {}


def _trouble(status: int, told: Object) -> CallError:
    """What the API server's ``Status`` means."""
    causes = (told.get("details") or {}).get("causes") or ()
    others = {
        str(cause.get("field", "")).removeprefix("."): _who_conflicts(cause.get("message", ""))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    }
    if others:
        return FieldConflictError(others)
    sentence = told.get("message") or f"the API server answered {status}"
    violations = tuple(
        FieldViolation(str(cause["field"]), str(cause.get("message", "")))
        for cause in causes
        if cause.get("field")
    )
    return CallError(_KINDS.get(status, Kind.FAILED), sentence, violations)


def _who_conflicts(message: str) -> str:
    """Who, in ``conflict with "kubectl" using headrace.dev/v1alpha1``."""
    return message.partition('"')[2].partition('"')[0] or message


# Whose fields are whose. https://kubernetes.io/docs/reference/using-api/server-side-apply/ has the
# form of managedFields.


def own_fields(found: Object) -> Object:
    """What the command line has applied of an object, to apply it again with a change."""
    for entry in _entries(found):
        if entry["manager"] == FIELD_MANAGER and entry["operation"] == "Apply":
            kept = _kept(found, entry["fieldsV1"])
            return kept if isinstance(kept, dict) else {}
    return {}


def who_has_set(found: Object, *path: str) -> list[str]:
    """Who has set a field."""
    others = []
    for entry in _entries(found):
        owned: Any = entry["fieldsV1"]
        for name in path:
            owned = owned.get(f"f:{name}") if owned is not None else None
        if owned is not None:
            others.append(str(entry["manager"]))
    return others


def _entries(found: Object) -> Iterator[Mapping[str, Any]]:
    for entry in found["metadata"].get("managedFields") or ():
        if not entry.get("subresource") and "fieldsV1" in entry:
            yield entry


def _kept(value: Any, owned: Mapping[str, Any]) -> Any:
    """The part of a value that a set of fields covers."""
    if not owned:  # a leaf, or what is owned as a whole
        return value
    if isinstance(value, dict):
        named = {key[2:]: below for key, below in owned.items() if key.startswith("f:")}
        return {name: _kept(value[name], below) for name, below in named.items() if name in value}
    entries: list[Any] = []
    for key, below in owned.items():
        if key.startswith("k:"):
            names = json.loads(key[2:])
            entries += [
                names | _kept(each, below) for each in value if names.items() <= each.items()
            ]
        elif key.startswith("v:"):
            entries.append(json.loads(key[2:]))
    return entries
