"""AdminService: settings are checked, tried, set, remembered and taken back."""

import json
from pathlib import Path

import grpc

from headrace.api.generated import admin_pb2
from tests.contract.grpc.harness import (
    Agent,
    an_api,
    eventually,
    launches,
    refusal,
    run,
    violations,
)


def test_policy_settings_are_checked_by_name_type_and_range(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            change = api.admin.SetPolicy
            answer = await change(
                admin_pb2.SetPolicyRequest(
                    settings={
                        "policy": '"fifo"',
                        "stop_grace_seconds": "60",
                        "finished_jobs_kept": "40",
                    }
                )
            )
            error = await refusal(
                change(
                    admin_pb2.SetPolicyRequest(
                        settings={
                            "node_grace_second": "5",
                            "period_seconds": "-1",
                            "stop_grace_seconds": '"long"',
                            "policy": '"fifi"',
                            "start_grace_seconds": "true",
                            "finished_jobs_kept": "1.5",
                        }
                    )
                )
            )
            got = await api.admin.GetPolicy(admin_pb2.GetPolicyRequest())
        assert json.loads(answer.settings["policy"]) == "fifo"
        assert json.loads(answer.settings["stop_grace_seconds"]) == 60.0
        assert answer.settings["finished_jobs_kept"] == "40"
        found = violations(error)
        assert "did you mean node_grace_seconds?" in found["settings[node_grace_second]"]
        assert "0.05 to 3600" in found["settings[period_seconds]"]
        assert "number" in found["settings[stop_grace_seconds]"]
        assert "did you mean fifo?" in found["settings[policy]"]
        assert "settings[start_grace_seconds]" in found
        assert "whole number of 0 to 100000" in found["settings[finished_jobs_kept]"]
        assert got.settings == answer.settings
        assert {"fifo", "equal-share"} <= set(got.policies)

    run(test())


def test_settings_are_kept_in_versions_and_can_be_taken_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            admin = api.admin
            for settings in (
                {"period_seconds": "2"},
                {"period_seconds": "2"},
                {"policy": '"fifo"', "period_seconds": '"default"'},
            ):
                answer = await admin.SetPolicy(admin_pb2.SetPolicyRequest(settings=settings))
            back = await admin.RollBackPolicy(admin_pb2.RollBackPolicyRequest(version=3))
            missing = await refusal(
                admin.RollBackPolicy(admin_pb2.RollBackPolicyRequest(version=9))
            )
        async with an_api(tmp_path) as api:  # Sets nothing new: it is patient already.
            request = admin_pb2.ListPolicyVersionsRequest()
            versions = (await api.admin.ListPolicyVersions(request)).versions
            got = await api.admin.GetPolicy(admin_pb2.GetPolicyRequest())
        assert (answer.version, back.version, got.version) == (4, 5, 5)
        assert answer.settings["period_seconds"] == "5.0"
        assert {each.name for each in back.changes} == {"policy", "period_seconds"}
        assert [each.version for each in versions] == [1, 2, 3, 4, 5]
        assert [each.who for each in versions] == ["", *4 * ["local"]]
        assert [each.rolls_back_to for each in versions] == [0, 0, 0, 0, 3]
        assert all(each.HasField("at") for each in versions[1:])
        assert not versions[0].HasField("at")
        (change,) = versions[2].changes
        assert (change.name, change.before, change.after) == ("period_seconds", "5.0", "2.0")
        assert got.settings["period_seconds"] == "2.0"
        assert missing.code() is grpc.StatusCode.NOT_FOUND
        assert "versions 1 to 5 are kept" in (missing.details() or "")

    run(test())


def test_settings_are_tried_without_being_set(tmp_path: Path) -> None:
    async def test() -> None:
        async with an_api(tmp_path) as api:
            attempt = api.admin.TryPolicy
            fifo = {"policy": '"fifo"'}
            await api.admin.SetPolicy(admin_pb2.SetPolicyRequest(settings=fifo))
            created = await api.submit("a")
            agent = Agent(api)
            await agent.register()
            for launch in (await agent.assigned(launches)).launches:
                await agent.started(launch)
                await agent.progressed(launch, 5, 2.0)
            await api.until_step(created.uid, 5)
            await api.submit("b")

            async def differs() -> admin_pb2.TryPolicyResponse | None:
                sharing = admin_pb2.TryPolicyRequest(settings={"policy": '"equal-share"'})
                answer: admin_pb2.TryPolicyResponse = await attempt(sharing)
                return answer if answer.differences else None

            shared = await eventually(differs)
            back = await attempt(admin_pb2.TryPolicyRequest(version=1))
            same = await attempt(admin_pb2.TryPolicyRequest(settings={"period_seconds": "2"}))
            wrong = await refusal(
                attempt(admin_pb2.TryPolicyRequest(settings={"period_seconds": "-2"}))
            )
            got = await api.admin.GetPolicy(admin_pb2.GetPolicyRequest())
        found = {each.name: each for each in shared.differences}
        assert {name: each.kind for name, each in found.items()} == {"a": "Shrinks", "b": "Starts"}
        assert (found["a"].before, found["a"].after) == (
            "2 on node-a as dp2",
            "1 on node-a as dp1",
        )
        assert found["b"].before.startswith("nothing (")
        assert [each.name for each in shared.changes] == ["policy"]
        assert back.differences == shared.differences
        assert (len(same.differences), [each.name for each in same.changes]) == (
            0,
            ["period_seconds"],
        )
        assert set(violations(wrong)) == {"settings[period_seconds]"}
        assert (json.loads(got.settings["policy"]), got.version) == ("fifo", 3)

    run(test())
