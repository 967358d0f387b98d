"""Every rule of the custom resources, broken once on a real API server, which says it in words."""

import copy
import json
import uuid
from typing import Any, cast

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from headrace.api.credentials import has_password
from headrace.api.manifest import TrainingJob, parse
from headrace.api.runtime import refusals
from operators.crds.__main__ import DEFINITIONS
from operators.crds.definition import GROUP, VERSION, Definition
from operators.crds.rule import Rule
from operators.crds.training_job_rules import MANAGERS
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.crd_cases import (
    CREATED,
    GPT,
    MAY_CHANGE,
    RIGHT,
    UPDATED,
    Broken,
    Change,
    Document,
    changed,
    drop,
    put,
)

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("custom_resources")]

OF_KIND = {definition.kind: definition for definition in DEFINITIONS}
_INVALID = 422


def rule_of(case: Broken) -> Rule:
    """The one rule that the case is about."""
    rules = OF_KIND[case.kind].rules.get(case.place, ())
    assert isinstance(rules, tuple)
    (rule,) = (rule for rule in rules if case.words in f"{rule.field} {rule.message}")
    return rule


def create(api_server: ApiServer, document: Document, *, dry_run: bool = True) -> Document:
    """As kubectl does: what the API server does not know is refused."""
    definition, api = OF_KIND[document["kind"]], client.CustomObjectsApi(api_server.client)
    options: dict[str, Any] = {"field_validation": "Strict"}
    if dry_run:
        options["dry_run"] = "All"
    if definition.namespaced:
        made = api.create_namespaced_custom_object(
            GROUP,
            VERSION,
            document["metadata"].get("namespace", "default"),
            definition.plural,
            document,
            **options,
        )
    else:
        made = api.create_cluster_custom_object(
            GROUP, VERSION, definition.plural, document, **options
        )
    return dict(cast(Document, made))


def causes(error: ApiException) -> list[dict[str, str]]:
    """What is wrong, by field."""
    assert error.status == _INVALID, error.body
    assert error.body
    return list(json.loads(error.body)["details"]["causes"])


def is_told(rule: Rule, told: list[dict[str, str]]) -> bool:
    """Whether the rule's sentence is among them, at its field."""
    return any(
        rule.message in each["message"] and each["field"].endswith(rule.field) for each in told
    )


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_but_for_nothing_is_taken(api_server: ApiServer, name: str) -> None:
    assert create(api_server, RIGHT[name])


@pytest.mark.parametrize(
    "case", [pytest.param(each, id=f"{each.place}: {each.words}") for each in CREATED]
)
def test_a_broken_rule_is_refused_with_its_sentence(api_server: ApiServer, case: Broken) -> None:
    rule = rule_of(case)
    with pytest.raises(ApiException) as refused:
        create(api_server, case.document)
    told = causes(refused.value)
    assert is_told(rule, told), told
    if case.kind == "TrainingJob":
        # The command line refuses the same file.
        job = parse(case.document)
        assert not isinstance(job, TrainingJob) or refusals(job)


@pytest.fixture
def jobs(api_server: ApiServer, namespace: str) -> "Jobs":
    return Jobs(api_server, namespace)


class Jobs:
    """Makes jobs in a namespace, and tries changes of them."""

    def __init__(self, api_server: ApiServer, namespace: str) -> None:
        self._api_server = api_server
        self._api = client.CustomObjectsApi(api_server.client)
        self._namespace = namespace

    def make(self, document: Document) -> Document:
        """Makes the job under a name of its own."""
        own = copy.deepcopy(document)
        own["metadata"] |= {"name": f"job-{uuid.uuid4().hex[:8]}", "namespace": self._namespace}
        return create(self._api_server, own, dry_run=False)

    def become(self, job: Document, *changes: Change) -> Document:
        """Replaces it by what it is with these changes, without keeping that."""
        found = self._api.replace_namespaced_custom_object(
            GROUP,
            VERSION,
            self._namespace,
            "trainingjobs",
            job["metadata"]["name"],
            changed(job, *changes),
            dry_run="All",
        )
        return cast(Document, found)


@pytest.mark.parametrize(
    "case", [pytest.param(each, id=f"{each.place}: {each.words}") for each in UPDATED]
)
def test_what_a_job_keeps_for_life_cannot_change(jobs: Jobs, case: Broken) -> None:
    job = jobs.make(case.base)
    with pytest.raises(ApiException) as refused:
        jobs.become(job, *case.changes)
    assert is_told(rule_of(case), causes(refused.value))


@pytest.mark.parametrize("field", ["spec.data", "spec.training", "spec.checkpoint"])
def test_what_a_job_keeps_for_life_cannot_be_taken_away(jobs: Jobs, field: str) -> None:
    job = jobs.make(GPT)
    with pytest.raises(ApiException) as refused:
        jobs.become(job, drop(field))
    assert any("cannot change" in each["message"] for each in causes(refused.value))


def test_everything_else_may_change(jobs: Jobs) -> None:
    job = jobs.make(GPT)
    for change in MAY_CHANGE:
        assert jobs.become(job, change)
    assert jobs.become(job, *MAY_CHANGE)["spec"]["priority"] == 7


def test_a_command_may_be_suspended_and_its_environment_changed(jobs: Jobs) -> None:
    job = jobs.make(RIGHT["command"])
    variables: Any = [{"name": "EPOCHS", "value": "3"}]
    assert jobs.become(job, put("spec.suspend", True), put("spec.env", variables))


def test_a_password_in_a_variable_is_refused_without_a_rule(api_server: ApiServer) -> None:
    """There may be so many and so long ones that a rule in CEL would cost too much."""
    value = "redis://user:secret@host/0"
    assert has_password(value)
    with pytest.raises(ApiException) as refused:
        create(api_server, changed(GPT, put("spec.env", [{"name": "A", "value": value}])))
    (told,) = causes(refused.value)
    assert "spec.env[0].value" in told["message"]
    assert create(
        api_server, changed(GPT, put("spec.env", [{"name": "A", "value": "redis://h:1/"}]))
    )


@pytest.mark.parametrize("field", ["env", "volumes"])
def test_names_in_a_list_stand_once(api_server: ApiServer, field: str) -> None:
    entry = {
        "env": {"name": "a", "value": ""},
        "volumes": {"name": "a", "mountPath": "/v", "hostPath": {"path": "/v"}},
    }[field]
    with pytest.raises(ApiException) as refused:
        create(api_server, changed(GPT, put(f"spec.{field}", [entry, entry])))
    assert any(each["reason"] == "FieldValueDuplicate" for each in causes(refused.value))


@pytest.mark.parametrize("manager", MANAGERS)
def test_jobs_are_managed_by_headrace_or_by_multikueue(api_server: ApiServer, manager: str) -> None:
    assert create(api_server, changed(GPT, put("spec.managedBy", manager)))


def _rules(definition: Definition) -> set[tuple[str, str, str]]:
    return {
        (definition.kind, place, f"{rule.field} {rule.message}")
        for place, rules in definition.rules.items()
        if isinstance(rules, tuple)
        for rule in rules
    }


def test_every_rule_has_a_case() -> None:
    cases = {
        (case.kind, case.place, f"{(rule := rule_of(case)).field} {rule.message}")
        for case in (*CREATED, *UPDATED)
    }
    assert {rule for each in DEFINITIONS for rule in _rules(each)} == cases
