"""What a pod of a job's own can honour."""

from headrace.api.runtime import PODS, refusals
from tests.unit.api.test_manifest import COMMAND, GPT, changed, the_job


def test_a_pod_of_its_own_has_an_image_and_claims_and_no_folder_of_its_node() -> None:
    claim = {"name": "v", "mountPath": "/v", "persistentVolumeClaim": {"claimName": "disk"}}
    folder = {"name": "w", "mountPath": "/w", "hostPath": {"path": "/w"}}
    kept = changed(changed(GPT, "spec.volumes", [claim]), "spec.checkpoint.store", "/v/jobs")
    assert refusals(the_job(kept), PODS) == ()
    assert refusals(the_job(changed(kept, "spec.checkpoint.store", "s3://b/jobs")), PODS) == ()
    assert refusals(the_job(changed(COMMAND, "spec.command.image", "mine:1")), PODS) == ()
    (lost,) = refusals(the_job(changed(kept, "spec.checkpoint.store", "/volume/jobs")), PODS)
    assert lost.field == "spec.checkpoint.store"
    assert "below the mountPath of one of the job's claims" in lost.message
    (unseen,) = refusals(the_job(changed(kept, "spec.volumes", [claim, folder])), PODS)
    assert unseen.field == "spec.volumes[1]"
    assert "sees no folder of its node" in unseen.message
