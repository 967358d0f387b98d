"""How people are told to start the next command."""

from pathlib import Path

from headrace.cli.output import typed


def a_folder_with_uv(folder: Path) -> str:
    program = folder / "uv"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(folder)


def test_the_bare_name_is_told_where_it_is_what_was_typed() -> None:
    assert typed({"PATH": "/bin"}) == "headrace"


def test_under_uv_run_the_bare_name_would_not_be_found(tmp_path: Path) -> None:
    within = {"UV_RUN_RECURSION_DEPTH": "1", "PATH": a_folder_with_uv(tmp_path)}
    assert typed(within) == "uv run headrace"


def test_a_uv_that_is_not_on_the_path_is_not_told(tmp_path: Path) -> None:
    told = typed({"UV_RUN_RECURSION_DEPTH": "1", "PATH": str(tmp_path)})
    assert told.endswith("/headrace")
    assert "uv run" not in told
