"""`headrace get fits`, `describe fit` and `fit import`, against a control plane that tests play."""

import csv
import json
import re
import time
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.generated import admin_pb2
from headrace.api.profile_rows import Asked, LinkRow, Machine, PlanRow, Row, Status, flat
from headrace.cli import profile
from headrace.cli.exit_codes import ExitCode
from tests.contract.cli.conftest import Headrace
from tests.contract.cli.fake_control_plane import FakeControlPlane

MACHINE = Machine("NVIDIA H100 80GB HBM3", 16, "2.11.0", "13.0", "2.28", "580.1", "0.1.0")


def ago(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(time.time() - seconds))


def a_fit(model: str = "gpt2-1.26b", batch: str = "16x1024") -> admin_pb2.Fit:
    return admin_pb2.Fit(
        model_type=f"{model} bf16 batch {batch}",
        accelerator_type="nvidia-h100-80gb-hbm3",
        rows=14,
        rows_since=1,
        fitted_at=ago(7000),
        sources=[
            admin_pb2.FitSource(who="ann@example.org", rows=12, last_at=ago(9000)),
            admin_pb2.FitSource(uid="9b1f", rows=3, last_at=ago(60)),
        ],
        error=0.0412,
        error_median=0.03,
        error_highest=0.11,
        error_since=0.5,
        held=0.93,
        coverage=0.9,
        noise=0.06,
        outliers=[
            admin_pb2.FitOutlier(
                plan="dp2-z2-ga4-gc-offload",
                placement="2",
                measured_seconds=9.0,
                predicted_seconds=0.9,
                reason="10 times what is predicted; the other rows do not bear it out; told by "
                "job 9b1f, and came after the fit",
            )
        ],
        compared=[
            a_comparison("dp1-tp2", "1+1", uid="9b1f", is_news=True),
            a_comparison("pp2.1f1b-ga4", "2", who="ann@example.org"),
        ],
        parameters=[
            admin_pb2.FitParameter(name="flops_per_second", value=4.2e14, factor=1.06),
            admin_pb2.FitParameter(
                name="accumulated_offload_seconds_per_byte", value=3e-10, factor=1.9
            ),
        ],
    )


def a_comparison(
    plan: str, placement: str, *, uid: str = "", who: str = "", is_news: bool = False
) -> admin_pb2.ComparedRow:
    return admin_pb2.ComparedRow(
        uid=uid,
        who=who,
        plan=plan,
        placement=placement,
        measured_seconds=0.1234,
        predicted_seconds=0.0456,
        lower_seconds=0.005,
        upper_seconds=0.25,
        guessed_seconds=0.01234,
        is_news=is_news,
    )


def a_row(plan: str, seconds: float | None, placement: str = "2") -> PlanRow:
    status = Status.MEASURED if seconds else Status.INFEASIBLE
    asked = Asked("gpt2-1.26b", 2, 16, 1024, "bf16")
    return PlanRow(asked, plan, status, placement, iteration=seconds, machine=MACHINE)


def test_fits_are_listed_within_eighty_columns(headrace: Headrace, plane: FakeControlPlane) -> None:
    assert headrace("get", "fits").stderr == "no fits\n"
    plane.fits = [a_fit(), a_fit("llama-2-7b", "8x1024")]
    table = headrace("get", "fits").stdout
    assert headrace("fit", "list").stdout == table
    assert max(map(len, table.splitlines())) <= 80
    heads, first, _ = (line.split() for line in table.splitlines())
    assert heads == ["MODEL", "BATCH", "IN", "ON", "ROWS", "NEW", "ERROR", "HELD", "OFF", "AGE"]
    assert [first[0], *first[1:3], *first[4:]] == [
        "gpt2-1.26b", "16x1024", "bf16", "14", "1", "4.1%", "93%", "1", "116m",
    ]  # fmt: skip
    wide = headrace("get", "fits", "-o", "wide").stdout
    assert "ann@example.org (imported), job 9b1f" in wide
    (item,) = json.loads(headrace("get", "fits", "llama-2-7b", "-o", "json").stdout)["items"]
    assert (item["acceleratorType"], item["error"]) == ("nvidia-h100-80gb-hbm3", 0.0412)
    named = headrace("get", "fits", "t5-small", "-o", "name")
    assert named.exit_code == ExitCode.NOT_FOUND
    assert "there are some of gpt2-1.26b, llama-2-7b" in named.stderr


def test_one_model_is_told_about_with_outliers_and_parameters(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.fits = [a_fit(), a_fit("llama-2-7b")]
    told = headrace("describe", "fit", "gpt2-1.26b").stdout
    assert max(map(len, told.splitlines())) <= 80
    flowing = " ".join(told.split())
    assert "Fit: gpt2-1.26b bf16 batch 16x1024 on nvidia-h100-80gb-hbm3" in flowing
    assert "Rows: 14, 1 more since" in flowing
    assert "Error: 4.1% on average, median 3.0%, highest 11.0%" in flowing
    assert "Error of new: 50.0% on average" in flowing
    assert "93% of rows within intervals meant for 90%" in flowing
    assert "ann@example.org (imported) 12" in flowing
    assert "9 s 0.9 s" in flowing
    assert "flops_per_second 4.2e+14 x 1.06" in flowing
    assert "llama" not in told
    name = headrace("describe", "fit", "gpt2-1.26b", "-o", "name").stdout.strip()
    assert headrace("describe", "fit", name.removeprefix("fit/")).stdout == told
    nothing = headrace("describe", "fit", "vit-large")
    assert nothing.exit_code == ExitCode.NOT_FOUND
    assert "no fit of 'vit-large'" in nothing.stderr


def test_what_is_predicted_is_told_beside_what_was_measured_and_guessed_before(
    headrace: Headrace, plane: FakeControlPlane
) -> None:
    plane.fits = [a_fit()]
    told = headrace("describe", "fit", "gpt2-1.26b").stdout.splitlines()
    rows = [re.split("  +", line) for line in told]
    heads = ["PLAN", "ON", "GUESSED", "MEASURED", "FITTED", "BETWEEN"]
    figures = ["12.3", "123", "45.6", "5 to 250"]
    place = rows.index(heads)
    assert rows[place + 1 : place + 4] == [
        ["pp2.1f1b-ga4", "2", *figures],
        ["dp1-tp2", "1+1", *figures],
        [""],
    ]
    wide = headrace("describe", "fit", "gpt2-1.26b", "-o", "wide").stdout
    told = [line for line in wide.splitlines() if "5 to 250" in line]
    assert [re.split("  +", line)[6:] for line in told] == [
        ["-", "ann@example.org (imported)"],
        ["+", "job 9b1f"],
    ]
    (item,) = json.loads(headrace("get", "fits", "-o", "json").stdout)["items"]
    assert [each["plan"] for each in item["compared"]] == ["dp1-tp2", "pp2.1f1b-ga4"]


def test_files_of_a_profile_are_imported(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    link = LinkRow("all-reduce", 2, 2**26, 0.001, 350e9, MACHINE)
    rows: list[Row] = [a_row("dp2", 0.2), a_row("tp2", None), link, a_row("dp2", 0.3)]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(flat(row)) + "\n" for row in rows))
    table = tmp_path / "rows.csv"
    apart = [flat(a_row("dp2", 0.4, "1+1")), flat(a_row("dp2", 0.5))]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, apart[0])
        writer.writeheader()
        writer.writerows(apart)
    plane.imported = admin_pb2.ImportMeasurementsResponse(taken=1, known=1, doubts=["is far off"])
    done = headrace("fit", "import", str(lines), str(table), "--dry-run")
    assert done.exit_code == ExitCode.OK
    assert done.stdout == "1 measurement would be imported, 1 was known already\n"
    assert "1 plan has no figures and is left out" in done.stderr
    assert "1 row is about the same plan as later ones, which count" in done.stderr
    assert "is far off" in done.stderr
    (request,) = [message for name, message in plane.asked if name == "ImportMeasurements"]
    assert request.dry_run
    assert [(row.placement, row.iteration) for row in request.rows] == [("2", 0.5), ("1+1", 0.4)]


def test_what_is_no_profile_is_refused_before_anything_is_sent(
    headrace: Headrace, plane: FakeControlPlane, tmp_path: Path
) -> None:
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps(flat(a_row("dp2", 0.2))) + "\n")
    bad = tmp_path / "bad.csv"
    bad.write_text("kind,model\nplan,gpt2-1.26b\n")
    nothing = tmp_path / "nothing.jsonl"
    nothing.write_text(json.dumps(flat(a_row("dp2", None))) + "\n")
    for name, wanted in (
        ("bad.csv", "line 2: wanted a row of a profile below its heading"),
        ("nothing.jsonl", "wanted measured plans, found none"),
    ):
        files = [str(good)] * (name == "bad.csv") + [str(tmp_path / name)]
        refused = headrace("fit", "import", *files)
        assert refused.exit_code == ExitCode.REFUSED
        assert wanted in refused.stderr
    missing = headrace("fit", "import", str(tmp_path / "none.csv"))
    assert (missing.exit_code, "there is no such file" in missing.stderr) == (ExitCode.USAGE, True)
    assert not [name for name, _ in plane.asked if name == "ImportMeasurements"]


def test_a_profile_tells_the_control_plane_what_it_measured(
    headrace: Headrace,
    plane: FakeControlPlane,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Asked("gpt2-tiny", 1, 16, 64, "fp32")
    measured = PlanRow(asked, "dp1", Status.MEASURED, "1", iteration=0.2, machine=MACHINE)
    failed = PlanRow(asked, "dp1-gc", Status.FAILED, reason="boom")
    output = tmp_path / "rows.jsonl"

    def run(*_: object) -> tuple[str, bool]:
        output.write_text("".join(json.dumps(flat(row)) + "\n" for row in (measured, failed)))
        return "", False

    monkeypatch.setattr(profile, "gpus", lambda: ())
    monkeypatch.setattr(profile, "missing_packages", lambda names: [])
    monkeypatch.setattr(profile, "_run", run)
    plane.imported = admin_pb2.ImportMeasurementsResponse(taken=1)
    command = ("profile", "gpt2-tiny", "--plans", "dp1,dp1-gc", "--output", str(output))
    assert "imported" not in headrace(*command).stdout
    told = headrace(*command, "--report")
    assert told.exit_code == ExitCode.OK
    assert told.stdout.endswith("1 measurement imported\n")
    (request,) = [message for name, message in plane.asked if name == "ImportMeasurements"]
    assert [(row.plan, row.iteration) for row in request.rows] == [("dp1", 0.2)]
