"""The generated custom resources: current, complete, bounded, and as the manifests are."""

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.edges.grpc_server.policy_settings import SettingsBook
from controlplane.live import live_policies
from controlplane.wire.manifests import IMMUTABLE
from headrace.api.credentials import has_password
from headrace.api.manifest_policy import ClusterPolicy, ClusterPolicySpec, RubickKnobs
from headrace.api.plan import SHORT_FORM, ExecutionPlan
from operators.crds.__main__ import DEFINITIONS, files
from operators.crds.audit import counted, definitions_in, nodes_of
from operators.crds.definition import Definition
from operators.crds.rule import Elsewhere, Rule
from operators.crds.structural import structural
from operators.crds.training_job_rules import PASSWORD, RULES
from tests.architecture.source_tree import ROOT, definitions, tree_of

FOLDER = ROOT / "deploy/helm/headrace/files/crds"
OURS = definitions_in(sorted(FOLDER.glob("*.yaml")))
NODES = [
    (one["spec"]["names"]["kind"], place, node)
    for one in OURS
    for place, node in nodes_of(one["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
]
OF_EACH = pytest.mark.parametrize("one", OURS, ids=[one["metadata"]["name"] for one in OURS])


def test_the_files_are_current() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yaml")}
    assert there == dict(files()), "run `make crds`"


def test_the_files_are_plain_and_kept_when_a_chart_goes() -> None:
    for path in FOLDER.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "{{" not in text
        (document,) = yaml.safe_load_all(text)
        assert document["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_every_box_of_the_audit_is_filled() -> None:
    count = counted(OURS)
    assert count.definitions == len(DEFINITIONS) == len(OURS)
    for told in (
        count.with_status,
        count.with_short_names,
        count.with_categories,
        count.with_condition_map,
        count.with_observed_generation,
    ):
        assert told == count.definitions
    assert count.described == 1
    assert count.unknown_kept == 0
    assert count.columns >= 5
    assert min(count.rules, count.defaults) > 50


def test_the_table_of_the_documents_has_what_is_counted() -> None:
    text = (ROOT / "docs/kubernetes/audits.md").read_text(encoding="utf-8")
    assert counted(OURS).row("**Headrace**") in text.splitlines()


def test_everything_is_bounded() -> None:
    unbounded = []
    for kind, place, node in NODES:
        match node.get("type"):
            case "string":
                right = "maxLength" in node or "enum" in node
            case "array":
                right = "maxItems" in node
            case "integer":
                right = {"minimum", "maximum"} <= node.keys()
            case "number":
                right = {"minimum", "maximum"} <= node.keys() or place.startswith("status.")
            case "object":
                right = "properties" in node or "maxProperties" in node
            case "boolean":
                right = True
            case _:
                right = bool(node.get("x-kubernetes-int-or-string")) and "maxLength" in node
        if not right:
            unbounded.append((kind, place))
    assert unbounded == []


def test_every_list_says_whose_it_is() -> None:
    lists = [(place, node) for _, place, node in NODES if node.get("type") == "array"]
    assert [place for place, node in lists if "x-kubernetes-list-type" not in node] == []


def test_every_rule_has_a_sentence() -> None:
    rules = [rule for _, _, node in NODES for rule in node.get("x-kubernetes-validations", ())]
    assert [rule for rule in rules if len(rule.get("message", "")) < 10] == []
    assert [rule for rule in rules if "\n" in rule["message"]] == []


@OF_EACH
def test_conditions_are_those_of_kubernetes(one: Any) -> None:
    schema = one["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    status = schema["properties"]["status"]["properties"]
    conditions = status["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    six = {"type", "status", "reason", "message", "observedGeneration", "lastTransitionTime"}
    assert set(conditions["items"]["required"]) == set(conditions["items"]["properties"]) == six
    assert "observedGeneration" in status
    assert "phase" not in status
    # A newer control plane may have more reasons than this schema would list.
    assert "enum" not in conditions["items"]["properties"]["reason"]


def fields_of(path: str) -> list[str]:
    """The fields that a path of a column goes through."""
    return re.findall(r"\.(\w+)", re.sub(r"\[\?\([^)]*\)\]", "", path))


@OF_EACH
def test_columns_show_what_there_is(one: Any) -> None:
    (version,) = one["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    assert columns[-1]["name"] == "AGE"
    shown = [column["name"] for column in columns if not column["priority"]]
    assert 4 <= len(shown) <= 8
    for column in columns:
        assert column["description"]
        here = version["schema"]["openAPIV3Schema"]
        if column["jsonPath"] == ".metadata.creationTimestamp":
            continue
        for field in fields_of(column["jsonPath"]):
            here = here.get("items", here)["properties"][field]
        assert "?" in column["jsonPath"] or here["type"] in (column["type"], "array")


def test_a_job_is_shown_as_was_agreed() -> None:
    job = next(one for one in OURS if one["spec"]["names"]["kind"] == "TrainingJob")
    (version,) = job["spec"]["versions"]
    names = [(each["name"], each["priority"]) for each in version["additionalPrinterColumns"]]
    assert [name for name, wide in names if not wide] == [
        *("QUEUE", "PLAN", "GPUS", "PROGRESS", "ETA", "STATE", "AGE")
    ]
    assert [name for name, wide in names if wide] == ["THROUGHPUT", "RECONFIGS", "REASON"]


@OF_EACH
def test_short_names_are_nobody_elses(one: Any) -> None:
    names = one["spec"]["names"]
    assert all(name.startswith("hr") for name in names["shortNames"])
    assert names["categories"] == ["headrace"]


def test_a_rule_about_nothing_is_noticed() -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {}}}}
    with pytest.raises(LookupError, match="nothing"):
        structural(schema, {"spec.nothing": (Rule("true", "never"),)})


@pytest.mark.parametrize("path", IMMUTABLE, ids=".".join)
def test_what_the_control_plane_keeps_the_api_server_keeps(path: tuple[str, ...]) -> None:
    place = ".".join(("spec", *path[:-1]))
    rules = [
        rule
        for where in {place, "spec"}
        if isinstance(found := RULES.get(where, ()), tuple)
        for rule in found
    ]
    name = ".".join(("self", path[-1])) if len(path) == 1 else path[-1]
    assert any("oldSelf" in rule.expression and name in rule.expression for rule in rules)


ELSEWHERE = [told for definition in DEFINITIONS for told in definition.elsewhere]


@pytest.mark.parametrize("told", ELSEWHERE, ids=lambda told: told.rule[:40])
def test_what_is_checked_elsewhere_is_checked_there(told: Elsewhere) -> None:
    module, _, name = told.checked_by.rpartition(".")
    file = f"{module.replace('.', '/')}.py"
    if (ROOT / file).exists():
        assert name in {each.rpartition(".")[2] for each, _ in definitions(tree_of(file))}
    else:
        assert (ROOT / f"{told.checked_by.replace('.', '/')}.py").exists()


_ORDER = ("dp", "tp", "pp", "z", "ga", "gc", "of")


def in_order(parts: list[str]) -> list[str]:
    """As the short form has them, mostly."""
    named = [part for part in parts if part]
    return sorted(named, key=lambda part: [part.startswith(name) for name in _ORDER].index(True))


SIZES = st.integers(1, 70_000)


@given(
    parts=st.lists(
        st.one_of(
            st.builds("dp{}".format, SIZES),
            st.builds("tp{}".format, SIZES),
            st.builds(
                "pp{}.{}".format, SIZES, st.sampled_from(["gpipe", "1f1b", "zb", "interleaved"])
            ),
            st.builds("z{}".format, st.integers(0, 4)),
            st.builds("ga{}".format, SIZES),
            st.sampled_from(["gc", "offload", "dp1", "dp2", "tp2", "pp2.1f1b", "z2", ""]),
        ),
        max_size=7,
    ).map(in_order)
)
def test_the_pattern_of_plans_takes_what_is_a_plan_and_nothing_else(parts: list[str]) -> None:
    text = "-".join(parts)
    try:
        is_plan = bool(ExecutionPlan.parse(text))
    except ValueError:
        is_plan = False
    assert (re.fullmatch(SHORT_FORM, text) is not None) == is_plan


@given(st.lists(st.sampled_from([*"/?#@:; '[1a", "://", "12345", "@h"]), max_size=12))
def test_the_pattern_of_passwords_finds_what_the_manifest_refuses(parts: list[str]) -> None:
    text = "s3://" + "".join(parts)
    assert (re.search(PASSWORD, text) is not None) == has_password(text)


def test_the_policys_settings_are_the_control_planes() -> None:
    book = SettingsBook(live_policies())
    ours = {
        **ClusterPolicySpec.model_fields,
        **{f"rubick.{name}": field for name, field in RubickKnobs.model_fields.items()},
    }
    del ours["rubick"]
    described = {each.name: each for each in book.descriptions()}
    assert ours.keys() == described.keys()
    properties = ClusterPolicy.model_json_schema()["$defs"]
    for name, setting in described.items():
        if name == "policy":
            assert tuple(properties["ClusterPolicySpec"]["properties"]["policy"]["enum"]) == (
                book.policies
            )
            continue
        *prefix, own = name.split(".")
        part = properties["RubickKnobs" if prefix else "ClusterPolicySpec"]["properties"]
        field = part[ours[name].alias or own]
        told = field["anyOf"][0]
        assert (told["minimum"], told["maximum"]) == (setting.lowest, setting.highest)
        assert told["type"] == ("integer" if setting.whole else "number")
        default = f"{float(setting.default_value):.10f}".rstrip("0").rstrip(".")
        assert " ".join(field["description"].split()) == f"{setting.meaning} Default: {default}."


def test_a_policy_says_something_of_every_setting() -> None:
    manifest = {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ClusterPolicy",
        "metadata": {"name": "default"},
        "spec": {"periodSeconds": 2, "rubick": {"coolDownSeconds": 7}},
    }
    settings = ClusterPolicy.model_validate(manifest).spec.settings()
    book = SettingsBook(live_policies())
    assert settings.keys() == {each.name for each in book.descriptions()}
    assert {name: value for name, value in settings.items() if value != "default"} == {
        "policy": "rubick",
        "period_seconds": 2,
        "rubick.cool_down_seconds": 7,
    }


def test_every_definition_is_written_the_same_twice() -> None:
    def texts(definition: Definition) -> set[str]:
        return {json.dumps(definition.document()) for _ in range(2)}

    assert all(len(texts(definition)) == 1 for definition in DEFINITIONS)
