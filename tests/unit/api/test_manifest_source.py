"""Manifests as text: lines, documents, folders, and the traps of YAML."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.manifest_source import documents_in, jobs_in, read_jobs

JOB = """\
apiVersion: headrace.dev/v1alpha1
kind: TrainingJob
metadata:
  name: a
spec:
  model: {name: gpt2}
  data:
    source: python-stdlib
  training:
    globalBatchSize: 8
    steps: 10
  checkpoint: {store: /c}
"""


def told(text: str) -> list[str]:
    return [str(finding) for finding in jobs_in(text, "job.yaml")[1]]


def test_a_right_manifest_is_read() -> None:
    jobs, findings = jobs_in(JOB, "job.yaml")
    assert findings == ()
    assert jobs[0].job.metadata.name == "a"


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("  model: {name: gpt2}", "  modle: {name: gpt2}", "job.yaml:6: spec.modle"),
        ("    steps: 10\n", "", "job.yaml:9: spec.training.steps: is required"),
        ("    steps: 10", "    steps: 1.5", "job.yaml:11: spec.training.steps"),
        ("name: gpt2", "name: gpt3", "job.yaml:6: spec.model.name"),
        (
            "/c}",
            "/c}\n  env:\n  - {name: A, value: ''}\n  - {name: '1', value: ''}",
            "job.yaml:15: spec.env[1].name",
        ),
        (
            "    steps: 10",
            "    steps: 10\n    steps: 11",
            "job.yaml:12: spec.training.steps: stands twice",
        ),
        ("  name: a", "  name: [a", "job.yaml:5: document: is not YAML"),
        ("  name: a", "  <<: *x", "is not YAML"),
        (
            "kind: TrainingJob",
            "kind: TrainingJob\n? [a]\n: b",
            "job.yaml:3: document: wanted text as a key",
        ),
    ],
)
def test_the_line_is_told(before: str, after: str, place: str) -> None:
    assert before in JOB
    assert any(place in line for line in told(JOB.replace(before, after))), told(
        JOB.replace(before, after)
    )


def test_documents_of_a_file_have_their_own_lines() -> None:
    text = f"---\n{JOB}---\n# nothing here\n---\n{JOB.replace('name: a', 'name: B')}"
    jobs, findings = jobs_in(text, "job.yaml")
    assert [each.job.metadata.name for each in jobs] == ["a"]
    line = text.splitlines().index("  name: B") + 1
    assert str(findings[0]).startswith(f"job.yaml:{line}: metadata.name")


def test_numbers_and_words_are_what_people_mean() -> None:
    text = "{a: 1e-3, b: 2026-11-26, c: 1:30, d: 0x10, e: -4, f: .5, g: 1., h: 1_000, i: 010}"
    assert documents_in(text, "f")[0][0].value == {
        "a": 0.001, "b": "2026-11-26", "c": "1:30", "d": 16, "e": -4, "f": 0.5, "g": 1.0,
        "h": "1_000", "i": "010",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "&a [*a]",
        "&a {x: *a}",
        "[" * 200 + "]" * 200,
        "a: &a [x, x, x, x, x, x, x, x]\n"
        + "\n".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "!!python/object/apply:os.system [true]",
        "a: \x07",
        "\t- x",
        "a" * (5 * 2**20),
    ],
)
def test_hostile_text_is_a_finding_and_not_a_crash(text: str) -> None:
    _, findings = documents_in(text, "f")
    assert len(findings) == 1


@given(st.text(max_size=200))
def test_any_text_gives_jobs_or_findings(text: str) -> None:
    jobs, findings = jobs_in(text, "f")
    documents, _ = documents_in(text, "f")
    assert jobs == ()
    assert bool(findings) or not documents


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.text("abc xyz:-#01", max_size=8),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text("abcdef", min_size=1, max_size=4), below, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abcdefgh"), VALUES, min_size=1))
def test_json_and_yaml_read_alike_and_every_place_has_its_line(value: dict[str, Any]) -> None:
    (as_json,), wrong = documents_in(json.dumps(value), "f")
    assert wrong == ()
    assert as_json.value == value
    text = yaml.safe_dump(value, default_flow_style=False)
    (as_yaml,), _ = documents_in(text, "f")
    assert as_yaml.value == value
    for path, line in as_yaml.lines.items():
        if path and isinstance(path[-1], str):
            assert f"{path[-1]}" in text.splitlines()[line - 1]


def test_folders_files_and_standard_input_are_read_together(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(JOB.replace("name: a", "name: b"))
    (tmp_path / "a.json").write_text(json.dumps(yaml.safe_load(JOB)))
    (tmp_path / "README.md").write_text("text")
    jobs, findings = read_jobs((str(tmp_path), "-"), JOB.replace("name: a", "name: c"))
    assert findings == ()
    assert [each.job.metadata.name for each in jobs] == ["a", "b", "c"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    _, findings = read_jobs(
        (str(tmp_path / "empty"), str(tmp_path / "missing.yaml"), str(tmp_path / "binary.yaml")), ""
    )
    lines = [str(each) for each in findings]
    assert "found none" in lines[0]
    assert "No such file" in lines[1]
    assert "cannot be read" in lines[2]


def test_the_same_job_twice_is_refused() -> None:
    _, findings = read_jobs(("-",), f"{JOB}---\n{JOB}")
    assert "default/a is described twice, first at standard input:4" in str(findings[0])
