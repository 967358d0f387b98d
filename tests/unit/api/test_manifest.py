"""Every rule of the manifest: what is accepted, what is refused, and in which words."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.manifest import (
    TrainingJob,
    canonical_json,
    json_schema,
    parse,
)
from headrace.api.manifest_fields import quantity_bytes
from headrace.api.models import PRESETS
from headrace.api.refusal import Problem, field_paths
from headrace.api.runtime import Runtime, refusals

GPT: dict[str, Any] = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "gpt"},
    "spec": {
        "accelerators": {"minimum": 2, "maximum": 4},
        "model": {"name": "gpt2"},
        "data": {"source": "python-stdlib"},
        "training": {"globalBatchSize": 16, "steps": 100},
        "checkpoint": {"store": "/checkpoints"},
    },
}
COMMAND: dict[str, Any] = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "own"},
    "spec": {"accelerators": {"minimum": 2}, "command": {"program": ["python", "train.py"]}},
}
SCRIPT: dict[str, Any] = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "own"},
    "spec": {
        "accelerators": {"minimum": 2, "maximum": 4},
        "script": {"file": "/train.py"},
        "training": {"globalBatchSize": 16, "steps": 100},
        "checkpoint": {"store": "/checkpoints"},
    },
}
ABSENT = object()


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field set, or removed if ``value`` is ABSENT."""
    document = copy.deepcopy(base)
    *parents, last = path.split(".")
    part = document
    for key in parents:
        part = part.setdefault(key, {})
    if value is ABSENT:
        del part[last]
    else:
        part[last] = value
    return document


def the_job(document: dict[str, Any]) -> TrainingJob:
    found = parse(document)
    assert isinstance(found, TrainingJob), found
    return found


def the_problem(document: object) -> Problem:
    found = parse(document)
    assert isinstance(found, tuple), "it was accepted"
    assert len(found) == 1, found
    return found[0]


def test_defaults_are_filled_in() -> None:
    job = the_job(GPT)
    assert (job.metadata.namespace, job.spec.queue, job.spec.suspend) == (
        "default",
        "default",
        False,
    )
    assert (job.spec.retries.max, job.spec.checkpoint and job.spec.checkpoint.keep) == (3, 3)
    assert the_job(COMMAND).spec.accelerators.most == 2


REFUSED: list[tuple[dict[str, Any], str, Any, str]] = [
    # One field at a time.
    (GPT, "apiVersion", "v1", "wanted 'headrace.dev/v1alpha1', got \"v1\""),
    (GPT, "kind", "Job", "wanted 'TrainingJob'"),
    (GPT, "kind", ABSENT, "is required"),
    (GPT, "metadata.name", "Gpt_X", 'a letter or digit, got "Gpt_X"; did you mean gpt-x?'),
    (GPT, "metadata.name", "Capital", "wanted lower-case letters, digits and dashes, beginning"),
    (GPT, "metadata.name", "a" * 64, "wanted at most 63 characters"),
    (GPT, "metadata.name", "ends-in-newline\n", "did you mean ends-in-newline?"),
    (GPT, "metadata.name", "___", 'got "___"'),
    (GPT, "metadata.labels", {f"l{n}": "" for n in range(65)}, "wanted at most 64 entries"),
    (GPT, "metadata.generation", 0, "wanted at least 1"),
    (GPT, "spec.priority", 2**31, "wanted less than 2147483648"),
    (GPT, "spec.suspend", "yes", "wanted true or false"),
    (GPT, "spec.serviceClass", "Garanteed", "wanted 'Guaranteed' or 'BestEffort'"),
    (GPT, "spec.accelerators.minimum", "2", "wanted a whole number"),
    (GPT, "spec.accelerators.minimum", True, "wanted a whole number"),
    (GPT, "spec.accelerators.minimum", 0, "wanted at least 1"),
    (GPT, "spec.accelerators.topology", "Rack", "wanted 'Any', 'SameRack' or 'SameNode'"),
    (GPT, "spec.accelerators.hostMemoryBytesEach", "16GB", "16Gi"),
    (GPT, "spec.accelerators.hostMemoryBytesEach", "9999Pi", "wanted at most"),
    (GPT, "spec.accelerators.tolerations", [{"value": "x"}], "is required"),
    (GPT, "spec.model.name", "gpt", "wanted 'gpt2', 'llama'"),
    (GPT, "spec.model.preset", "Huge", "wanted text that matches"),
    (GPT, "spec.plans", [], "wanted at least 1 entries"),
    (GPT, "spec.plans", ["dp4"] * 65, "wanted at most 64 entries"),
    (GPT, "spec.plans", ["dp4", "pp2"], "spec.plans[1]: wanted a plan such as"),
    (GPT, "spec.plans", ["ga1-dp4"], "spec.plans[0]: wanted a plan such as"),
    (GPT, "spec.plans", ["dp04"], "spec.plans[0]: wanted a plan such as"),
    (GPT, "spec.training.learningRate", float("inf"), "wanted a finite number"),
    (GPT, "spec.training.learningRate", 0, "wanted more than 0"),
    (GPT, "spec.training.precision", "fp8", "wanted 'fp32'"),
    (GPT, "spec.training.steps", ABSENT, "is required: Optimizer steps"),
    (GPT, "spec.deadlineSeconds", 0, "wanted at least 1"),
    (GPT, "spec.env", [{"name": "A B", "value": ""}], "wanted a variable's name"),
    (GPT, "spec.phase", "Running", "is not a field here"),
    (COMMAND, "spec.command.program", [], "wanted at least 1 entries"),
    (COMMAND, "spec.command.program", [True], "wanted text (put it in quotes), got true"),
    # Rules across fields.
    (GPT, "spec.accelerators.maximum", 1, "wanted at least the minimum of 2"),
    (GPT, "spec.model", ABSENT, "exactly one of model, script and command, got none"),
    (
        GPT,
        "spec.command",
        {"program": ["x"]},
        "exactly one of model, script and command, got model and command",
    ),
    (GPT, "spec.data", ABSENT, "is required with the built-in model gpt2"),
    (GPT, "spec.training", ABSENT, "is required with the built-in model gpt2"),
    (GPT, "spec.checkpoint", ABSENT, "is required with the built-in model gpt2"),
    (GPT, "spec.data.source", "digits", "gpt2 learns from python-stdlib, random or a path"),
    (GPT, "spec.model.name", "vit", "vit learns from digits or random, got 'python-stdlib'"),
    (
        GPT,
        "spec.model.preset",
        "huge",
        "spec.model.preset: wanted one of tiny, small, 124m, 1.26b, 1.5b for gpt2, got 'huge'",
    ),
    (GPT, "spec.model.config", {"patchSize": 2}, "spec.model.config.patchSize: wanted none"),
    (
        GPT,
        "spec.model.config",
        {"hiddenSize": 128, "numAttentionHeads": 3},
        "spec.model.config.numAttentionHeads: wanted a divisor of the hidden width 128",
    ),
    (GPT, "spec.model.config", {"numDecoderLayers": 2}, "config.numDecoderLayers: wanted 0 for"),
    (GPT, "spec.model.config", {"numKeyValueHeads": 2}, "config.numKeyValueHeads: wanted as many"),
    (
        GPT,
        "spec.model",
        {"name": "bert", "config": {"tieWordEmbeddings": False}},
        "config.tieWordEmbeddings: wanted true for bert",
    ),
    (GPT, "spec.model.config", {"vocabSize": 255}, "vocabSize: text is read as bytes"),
    (GPT, "spec.model", {"name": "gpt2", "weights": "/w", "preset": "tiny"}, "none beside weights"),
    (
        GPT,
        "spec.model",
        {"name": "gpt2", "weights": "/w", "config": {"hiddenSize": 64}},
        "spec.model.config: wanted none beside weights",
    ),
    (GPT, "spec.plans", ["dp4", "dp2", "dp4"], "spec.plans[2]: wanted every plan once, got dp4"),
    (GPT, "spec.plans", ["dp4", "dp8"], "spec.plans[1]: dp8 takes 8 accelerators, the job 2 to 4"),
    (GPT, "spec.plans", ["dp4", "pp4.1f1b-ga4"], "spec.plans[1]: pp4.1f1b-ga4: wanted"),
    (COMMAND, "spec.plans", ["dp2"], "a command reads its own arguments"),
    (SCRIPT, "spec.plans", ["tp4", "pp2.1f1b-ga2"], "plans[1]: wanted data or tensor parallelism"),
    (SCRIPT, "spec.plans", ["dp3"], "spec.plans[0]: dp3: wanted a global batch that 3 divides"),
    (SCRIPT, "spec.plans", ["dp8"], "spec.plans[0]: dp8 takes 8 accelerators, the job 2 to 4"),
    (SCRIPT, "spec.training", ABSENT, "spec.training: is required with a script"),
    (SCRIPT, "spec.checkpoint", ABSENT, "spec.checkpoint: is required with a script"),
    (SCRIPT, "spec.data", {"source": "digits"}, "a script opens its own data"),
    (SCRIPT, "spec.training.globalBatchSize", 1, "wanted a sample for each of at least 2"),
    (SCRIPT, "spec.script.file", "train.py", "spec.script.file: wanted an absolute path, or a"),
    (SCRIPT, "spec.command", {"program": ["x"]}, "got script and command"),
    (GPT, "spec.training.warmupSteps", 101, "wanted at most 100"),
    (GPT, "spec.training.globalBatchSize", 1, "a sample for each of at least 2"),
    (GPT, "spec.retries", {"backoffSeconds": 9, "backoffMaxSeconds": 8}, "wanted at least backoff"),
    (GPT, "spec.env", [{"name": "A"}], "exactly one of value and valueFrom"),
    (GPT, "spec.env", [{"name": "RANK", "value": "0"}], "is set by Headrace"),
    (GPT, "spec.env", [{"name": "HEADRACE_X", "value": "0"}], "is set by Headrace"),
    (COMMAND, "spec.env", [{"name": "PET_NNODES", "value": "9"}], "is set by Headrace"),
    (COMMAND, "spec.env", [{"name": "ROLE_RANK", "value": "9"}], "is set by torchrun"),
    (GPT, "spec.env", [{"name": "A", "value": ""}] * 2, "wanted every name once, got A"),
    (GPT, "spec.volumes", [{"name": "v", "mountPath": "/v"}], "wanted exactly one of hostPath"),
    (
        COMMAND,
        "spec.training",
        {"globalBatchSize": 1, "steps": 1},
        "belongs to a built-in model or",
    ),
    (COMMAND, "spec.data", {"source": "digits"}, "belongs to a built-in model"),
    (COMMAND, "spec.accelerators.maximum", 4, "a command runs at one size"),
]


@pytest.mark.parametrize(("base", "path", "value", "words"), REFUSED)
def test_each_rule_refuses_with_its_words(
    base: dict[str, Any], path: str, value: Any, words: str
) -> None:
    assert words in str(the_problem(changed(base, path, value)))


def test_a_rigid_job_needs_a_batch_that_divides() -> None:
    rigid = changed(GPT, "spec.accelerators", {"minimum": 3})
    assert "wanted a multiple of the 3 accelerators" in str(the_problem(rigid))
    assert the_job(changed(GPT, "spec.accelerators", {"minimum": 3, "maximum": 4}))


VIT = changed(changed(GPT, "spec.model.name", "vit"), "spec.data.source", "digits")


def test_a_vit_has_no_sequence() -> None:
    assert the_job(VIT)
    problem = the_problem(changed(VIT, "spec.data.sequenceLength", 8))
    assert problem.field == "spec.data.sequenceLength"


def test_who_learns_digits_has_their_size() -> None:
    large = changed(VIT, "spec.model.preset", "86m")
    assert (
        "8x8 pixels of one colour in 10 classes, the model reads 224x224 pixels of 3 in 1000"
        in (the_problem(large).message)
    )
    assert the_job(changed(large, "spec.data.source", "random"))
    sizes = {"imageSize": 8, "patchSize": 4, "numChannels": 1, "vocabSize": 10}
    assert the_job(changed(large, "spec.model.config", sizes))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_named(preset: str) -> None:
    family, _, name = preset.partition("-")
    job = changed(GPT, "spec.model", {"name": family, "preset": name})
    model = the_job(changed(job, "spec.data.source", "random")).spec.model
    assert model is not None
    assert model.shape() == PRESETS[preset]
    if family != "vit":
        assert the_job(job)


def test_the_smallest_preset_is_taken_unless_there_are_weights() -> None:
    model = the_job(GPT).spec.model
    assert model is not None
    assert (model.preset, model.shape()) == ("tiny", PRESETS["gpt2-tiny"])
    written = changed(GPT, "spec.model.preset", "tiny")
    assert canonical_json(the_job(GPT)) == canonical_json(the_job(written))
    own = the_job(changed(GPT, "spec.model", {"name": "llama", "weights": "/models/own"}))
    assert own.spec.model is not None
    assert (own.spec.model.preset, own.spec.model.shape()) == (None, None)
    assert TrainingJob.model_validate_json(canonical_json(own)) == own


def test_plans_take_the_place_of_the_rules_for_data_parallel_sizes() -> None:
    rigid = changed(GPT, "spec.accelerators", {"minimum": 3})
    rigid = changed(rigid, "spec.model.config.numHiddenLayers", 3)
    assert the_job(changed(rigid, "spec.plans", ["pp3.1f1b-ga4"])).spec.plans == ("pp3.1f1b-ga4",)


def test_a_plan_must_keep_micro_batches_small() -> None:
    job = changed(GPT, "spec.training.microBatchSizeMax", 4)
    assert the_job(changed(job, "spec.plans", ["dp4", "dp2-ga2"]))
    problem = the_problem(changed(job, "spec.plans", ["dp4", "dp2"]))
    assert (problem.path, problem.message) == (
        ("spec", "plans", 1),
        "dp2 means micro-batches of 8 samples, microBatchSizeMax is 4",
    )


@pytest.mark.parametrize(
    ("family", "plan", "words"),
    [
        ("gpt2", "tp4", ""),
        ("llama", "tp2-ga2", ""),
        ("t5", "dp4-z3-gc", ""),
        ("gpt2", "dp3", "dp3: wanted a global batch that 3 divides"),
        ("gpt2", "dp2-tp2-z1", "wanted ZeRO-1 with replicas only"),
        ("bert", "pp2.1f1b-ga4", "only gpt2 and llama are split"),
    ],
)
def test_what_can_be_said_of_a_plan_without_knowing_sizes_is_said(
    family: str, plan: str, words: str
) -> None:
    job = changed(GPT, "spec.model", {"name": family, "weights": "/w"})
    found = parse(changed(job, "spec.plans", [plan]))
    assert words in str(found[0]) if isinstance(found, tuple) else not words


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("spec.acelerators", "accelerators"),
        ("spec.service_class", "serviceClass"),
        ("spec.training.learning-rate", "learningRate"),
        ("spec.globalBatchSize", "spec.training.globalBatchSize"),
        ("spec.model.config.numLayers", "numHiddenLayers"),
        ("spec.zzz", ""),
    ],
)
def test_the_nearest_right_name_is_told(path: str, nearest: str) -> None:
    problem = the_problem(changed(GPT, path, 1))
    assert (problem.field, problem.nearest) == (path, nearest)


def test_all_problems_are_told_at_once() -> None:
    document = changed(changed(GPT, "spec.trainin", {}), "spec.model.name", "gpt3")
    found = parse(document)
    assert isinstance(found, tuple)
    assert {each.field for each in found} == {"spec.trainin", "spec.model.name"}


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(document: object) -> None:
    assert "wanted a mapping with apiVersion and kind" in the_problem(document).message


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("512Mi", 512 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("16G", 16 * 10**9),
        ("1000", 1000),
        ("0.1k", 100),
    ],
)
def test_quantities_are_bytes(text: str, number: int) -> None:
    assert quantity_bytes(text) == number
    job = the_job(changed(GPT, "spec.accelerators.hostMemoryBytesEach", text))
    assert job.spec.accelerators.host_memory_bytes_each == number


@given(st.integers(min_value=0, max_value=2**50))
def test_a_quantity_in_kibibytes_loses_no_byte(number: int) -> None:
    assert quantity_bytes(f"{number}Ki") == number * 1024


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SPECS = st.fixed_dictionaries(
    {
        "model": st.just({"name": "gpt2"}),
        "data": st.just({"source": "python-stdlib"}),
        "training": st.fixed_dictionaries(
            {
                "globalBatchSize": st.integers(8, 512),
                "steps": st.integers(1, 10**6),
                "learningRate": st.floats(1e-6, 1, allow_nan=False),
            }
        ),
        "checkpoint": st.fixed_dictionaries(
            {"store": TEXTS.filter(bool)}, optional={"everySeconds": st.integers(1, 10**6)}
        ),
        "accelerators": st.fixed_dictionaries(
            {"minimum": st.integers(1, 4), "maximum": st.integers(5, 8)}
        ),
    },
    optional={
        "priority": st.integers(-(2**31), 2**31 - 1),
        "suspend": st.booleans(),
        "env": st.lists(st.builds(lambda value: {"name": "A", "value": value}, TEXTS), max_size=1),
        "ttlSecondsAfterFinish": st.integers(0, 10**6),
        "serviceClass": st.sampled_from(["Guaranteed", "BestEffort"]),
    },
)


@given(SPECS)
def test_canonical_json_means_the_same_and_is_stable(spec: dict[str, Any]) -> None:
    job = the_job({**GPT, "spec": spec})
    text = canonical_json(job)
    again = TrainingJob.model_validate_json(text)
    assert again == job
    assert canonical_json(again) == text
    assert json.loads(text)["metadata"]["namespace"] == "default"


def test_canonical_json_leaves_out_what_the_owner_mints() -> None:
    minted = changed(changed(GPT, "metadata.uid", "u-1"), "metadata.generation", 3)
    minted["status"] = {"plan": "dp2"}
    assert canonical_json(the_job(minted)) == canonical_json(the_job(GPT))


# What this runtime cannot honour.


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        (
            changed(GPT, "spec.managedBy", "kueue.x-k8s.io/multikueue"),
            "spec.managedBy",
            "runs this job",
        ),
        (
            changed(COMMAND, "spec.command.image", "me/train:1"),
            "spec.command.image",
            "no containers",
        ),
        (changed(COMMAND, "spec.checkpoint.store", "/c"), "spec.checkpoint", "program of yours"),
        (
            changed(GPT, "spec.checkpoint.store", "foo://bucket/jobs"),
            "spec.checkpoint.store",
            "s3a, sftp, smb, ssh, tos, tosfs, webdav, webhdfs, got foo://",
        ),
        (
            changed(GPT, "spec.checkpoint.startFrom", {"uid": "old", "store": "s4://bucket"}),
            "spec.checkpoint.startFrom.store",
            "got s4://",
        ),
        (
            changed(GPT, "spec.training.precision", "fp16"),
            "spec.training.precision",
            "loss scaling",
        ),
        (
            changed(
                GPT,
                "spec.volumes",
                [{"name": "v", "mountPath": "/v", "persistentVolumeClaim": {"claimName": "c"}}],
            ),
            "spec.volumes[0]",
            "mounts nothing",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_reason(
    document: dict[str, Any], field: str, words: str
) -> None:
    (problem,) = refusals(the_job(document))
    assert problem.field == field
    assert words in problem.message


@pytest.mark.parametrize("store", ["/c", "runs", "s3://bucket/c", "simplecache::gs://bucket/c"])
def test_stores_that_a_node_may_be_able_to_open_are_taken(store: str) -> None:
    assert refusals(the_job(changed(GPT, "spec.checkpoint.store", store))) == ()


URLS = [
    "s3://AKIA:hush@bucket/jobs",
    "s3://AKIA:hu/sh+hush@bucket",
    "simplecache::sftp://me:hush@host:22/jobs",
    "http://:hush@host",
    "https://me:8080hush@host/x",
    "https://me:1234@hush@host/x",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("base", "path"),
    [
        (GPT, "metadata.annotations.a"),
        (GPT, "spec.checkpoint.store"),
        (GPT, "spec.checkpoint.startFrom.store"),
        (GPT, "spec.data.source"),
        (COMMAND, "spec.command.program"),
        (COMMAND, "spec.env"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(
    base: dict[str, Any], path: str, url: str
) -> None:
    value: Any = url
    if path.endswith("program"):
        value = ["train", f"--data={url}"]
    if path.endswith("env"):
        value = [{"name": "DATABASE", "value": url}]
    document = changed(base, path, value)
    if "startFrom" in path:
        document["spec"]["checkpoint"]["startFrom"]["uid"] = "u"
    problem = the_problem(document)
    assert problem.field.startswith(path)
    assert "secretKeyRef" in problem.message
    assert "hu" not in problem.message
    assert "1234" not in problem.message


@pytest.mark.parametrize("url", URLS)
def test_no_other_refusal_repeats_a_password(url: str) -> None:
    for path, value in (
        ("spec.checkpoint.store", url + "x" * 1024),
        ("spec.checkpoint", url),
        ("spec.model.preset", url),
        ("spec.volumes", [{"name": url, "mountPath": "/v", "hostPath": {"path": "/v"}}]),
    ):
        problem = the_problem(changed(GPT, path, value))
        assert "(redacted)" in problem.message
        assert "hush" not in str(problem)


@pytest.mark.parametrize(
    "store",
    [
        "/shared/a:b@c",
        "s3://bucket/a:b@c",
        "abfs://container@account.dfs.core.windows.net/jobs",
        "sftp://me@host:22/jobs@home",
        "http://host:8080?mail=a@b",
        "http://[::1]:8080/a@b",
        "simplecache::s3://bucket/jobs",
    ],
)
def test_urls_without_a_password_are_accepted(store: str) -> None:
    assert the_job(changed(GPT, "spec.checkpoint.store", store))


def test_what_can_be_honoured_is_not_refused() -> None:
    same_path = [{"name": "v", "mountPath": "/v", "hostPath": {"path": "/v"}}]
    secret = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    for document in (
        changed(GPT, "spec.managedBy", "headrace.dev/control-plane"),
        changed(GPT, "spec.volumes", same_path),
        changed(GPT, "spec.env", secret),
        COMMAND,
    ):
        assert refusals(the_job(document)) == ()
    job = the_job(changed(GPT, "spec.env", secret))
    assert refusals(job, Runtime("elsewhere", secrets=False))[0].field == "spec.env[0].valueFrom"


# The schema, as CRDs need it.


def parts() -> list[tuple[str, dict[str, Any]]]:
    """Every object of the schema, by name."""
    schema = json_schema()
    return [("TrainingJob", schema), *schema["$defs"].items()]


def fields() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{name}.{field}", found)
        for name, part in parts()
        for field, found in part.get("properties", {}).items()
    ]


def leaves(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema's own leaves, without what it refers to."""
    below = [*schema.get("anyOf", []), *filter(None, [schema.get("items")])]
    if isinstance(schema.get("additionalProperties"), dict):
        below.append(schema["additionalProperties"])
    return [schema, *(leaf for each in below for leaf in leaves(each))]


def test_every_field_is_described() -> None:
    # A field that says the same as the part it refers to leaves the words to that.
    definitions = json_schema()["$defs"]
    silent = [
        name
        for name, field in fields()
        if not field.get("description")
        and not definitions[field.get("$ref", "/?").rsplit("/", 1)[-1]].get("description")
    ]
    assert silent == []


def test_everything_is_bounded() -> None:
    unbounded = [
        name
        for name, field in fields()
        for leaf in leaves(field)
        if "x-kubernetes-int-or-string" not in field
        and (
            (leaf.get("type") == "string" and not {"maxLength", "enum", "const"} & leaf.keys())
            or (leaf.get("type") == "array" and "maxItems" not in leaf)
            or (leaf.get("type") == "object" and "maxProperties" not in leaf and "$ref" not in leaf)
            or (leaf.get("type") == "integer" and not {"maximum", "exclusiveMaximum"} & leaf.keys())
        )
    ]
    assert unbounded == []


def test_objects_are_closed_and_there_is_no_phase() -> None:
    assert all(
        part.get("additionalProperties") is False for _, part in parts() if "properties" in part
    )
    assert not [path for path in field_paths(json_schema()) if path.endswith("phase")]
    durations = [path for path in field_paths(json_schema()) if "seconds" in path.lower()]
    assert durations
    assert all(path.endswith(("Seconds", "SecondsAfterFinish")) for path in durations)
