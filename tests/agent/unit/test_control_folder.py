"""What ranks wrote about plans that they were asked for, read line by line."""

import json
from dataclasses import replace
from pathlib import Path

from agent.control_folder import ChangeLine, ControlFolder, MissedLine, ObservedLine
from agent.desired import UnitKey
from headrace.api.profile_rows import Asked, PlanRow, Status, flat

ROW = PlanRow(Asked("", 2, 8, 64, "fp32"), "dp2", Status.MEASURED, steps=8, iteration=0.5)


def test_lines_that_say_nothing_usable_are_passed_over(tmp_path: Path) -> None:
    folder = ControlFolder(tmp_path, UnitKey("job", 1, 0))
    folder.prepare({"plan": "dp2"})
    assert folder.changes_since(0) == ([], 0)
    good = {"from": "dp2", "to": "tp2", "step": 7, "seconds": {"build": 0.25, "stood_still": 0.5}}
    whole = [
        "no json",
        json.dumps(good | {"seconds": {"stood_still": -1}}),
        json.dumps(good | {"seconds": {"build": 0.25}}),
        json.dumps({"seconds": {"stood_still": float("nan")}} | {"from": "a", "to": "b"}),
        json.dumps([good]),
        json.dumps(good),
        json.dumps({"to": "dp9", "refused": "too many"}),
        json.dumps({"missed": 40}),
        json.dumps({"missed": 40, "reason": "CheckpointStoreFull", "message": "no room"}),
        json.dumps({"observed": 40}),
        json.dumps({"observed": -1, **flat(ROW)}),
        json.dumps({"observed": 40, **flat(replace(ROW, iteration=float("inf")))}),
        json.dumps({"observed": 40, **flat(replace(ROW, peak_process=-1))}),
        json.dumps({"observed": 40, **flat(replace(ROW, plan="dp2" * 1000))}),
        json.dumps({"observed": 40, **flat(ROW), "iteration": "fast"}),
        json.dumps({"observed": 40, **flat(ROW)}),
    ]
    text = "\n".join(whole) + "\n"
    (folder.path / "changes.jsonl").write_text(text + '{"from": "dp2", "to"')
    lines, offset = folder.changes_since(0)
    assert lines == [
        ChangeLine("dp2", "tp2", 7, 0.5, (("build", 0.25),)),
        ChangeLine("", "dp9", refused="too many"),
        MissedLine(40, "CheckpointStoreFull", "no room"),
        ObservedLine(40, ROW),
    ]
    assert offset == len(text)
    assert folder.changes_since(offset) == ([], offset)
    folder.remember_changes_told(offset)
    assert (folder.changes_told(), folder.reported_offset()) == (offset, 0)


def test_the_plan_is_the_one_asked_for_last_or_that_of_the_launch(tmp_path: Path) -> None:
    folder = ControlFolder(tmp_path, UnitKey("job", 1, 0))
    assert folder.plan() == ""
    folder.prepare({"plan": "dp2"})
    assert folder.plan() == "dp2"
    folder.ask_for_plan("tp2")
    assert folder.plan() == "tp2"
