"""`headrace suspend` and `resume` over gRPC."""

import json

from headrace.cli.exit_codes import ExitCode
from tests.contract.cli.conftest import Headrace
from tests.contract.cli.fake_control_plane import FakeControlPlane, manifest


def test_a_job_rests_and_goes_on_with_its_manifest_as_it_is(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    headrace("apply", "-f", "-", stdin=json.dumps(manifest("a", priority=7)))
    (job,) = plane.jobs.values()
    before = json.loads(job.manifest_json)["spec"]
    assert headrace("suspend", "a").stdout == "job/a suspended\n"
    (job,) = plane.jobs.values()
    assert json.loads(job.manifest_json)["spec"] == {**before, "suspend": True}
    assert headrace("suspend", "default/a").stdout == "job/a suspended already\n"
    assert headrace("resume", "a").stdout == "job/a resumed\n"
    (job,) = plane.jobs.values()
    assert json.loads(job.manifest_json)["spec"] == before


def test_who_is_not_there_is_named_and_the_others_rest(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.put("a")
    told = headrace("suspend", "x", "a", "-n", "default")
    assert told.exit_code == ExitCode.NOT_FOUND
    assert told.stderr == "headrace: no job 'default/x'; `headrace get jobs` lists all\n"
    assert told.stdout == "job/a suspended\n"
    forced = headrace("resume", "a", "--force-conflicts")
    assert forced.exit_code == ExitCode.USAGE
    assert "wanted it with --kubernetes" in forced.stderr
