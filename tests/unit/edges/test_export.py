"""An export is the state as the codec writes it, in pieces, with each manifest redacted once."""

import json

import pytest

from controlplane.domain import codec
from controlplane.domain.changing import changed
from controlplane.domain.event import JobSubmitted
from controlplane.edges.grpc_server import export
from controlplane.engine.state import ClusterState
from controlplane.wire import redact
from tests.builders import a_cluster, a_job

SECRET = '"hunter2", \\ and "manifest_json":"{'


def a_state() -> ClusterState:
    """Jobs that run and one that waits, all of one manifest with a secret in it."""
    env = [{"name": "API_KEY", "value": SECRET}]
    manifest = json.dumps({"kind": "TrainingJob", "spec": {"env": env}})
    world = a_cluster().with_nodes(2, 1)
    for name in ("one", "two", "three"):
        job = a_job(name).job
        spec = changed(job.spec, manifest_json=manifest)
        world.tell(JobSubmitted(changed(job, spec=spec)))
    world.cycle()
    return world.state


def test_the_pieces_are_the_state_but_for_what_is_redacted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = a_state()
    monkeypatch.setattr(export, "PIECE_BYTES", 100)
    pieces = list(export.pieces(state))
    text = b"".join(pieces).decode()
    assert len(pieces) > 3
    assert "hunter" not in text
    assert text == redact.manifests_in(codec.dump(state, ClusterState))
    there = json.loads(text)["jobs"]["one"]["job"]["spec"]["manifest_json"]
    assert json.loads(there)["spec"]["env"] == [{"name": "API_KEY", "value": redact.REDACTED}]


def test_an_empty_state_is_whole() -> None:
    empty = ClusterState.empty()
    assert codec.load(b"".join(export.pieces(empty)), ClusterState) == empty


def test_equal_manifests_are_redacted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = redact.manifest

    def noted(manifest_json: str) -> str:
        asked.append(manifest_json)
        return plain(manifest_json)

    monkeypatch.setattr(redact, "manifest", noted)
    list(export.pieces(a_state()))
    assert len(asked) == 1
