"""What others wrote steers no terminal, whichever way it is shown."""

import io
import json
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.generated import admin_pb2, jobs_pb2
from headrace.api.plain_text import plain
from headrace.cli.explain import sentences
from headrace.cli.output import Format, document, note, say, table, write_what_streams_can
from headrace.cli.tables import Column
from headrace.cli.top import Facts, picture

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b1m\x85\x7f\rb"


def steers(text: str) -> bool:
    return any(
        ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0
        for character in text.replace("\n", "").replace("\t", "")
    )


@given(st.text(st.characters(max_codepoint=0x2FF)))
def test_only_control_characters_go(text: str) -> None:
    assert not steers(plain(text))
    if not steers(text):
        assert plain(text) == text


def test_a_sequence_goes_as_a_whole() -> None:
    told = "one\n\ttwo \x1b[1;31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x07 \x9b2Kend"
    assert plain(told) == "one\n\ttwo red link end"


def test_no_way_of_showing_lets_control_characters_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(HOSTILE)
    note(HOSTILE)
    table([Column("REASON")], [[HOSTILE]])
    told = admin_pb2.ExplainResponse(stage="Failed")
    told.reason.code, told.reason.message = "RankFailed", HOSTILE
    for line in sentences(jobs_pb2.Job(name="j"), told):
        say(line)
    document({"reason": HOSTILE}, Format.JSON)
    written = capsys.readouterr()
    assert not steers(written.out)
    assert not steers(written.err)
    assert written.out.count("ab") == 2


@pytest.mark.parametrize(
    ("form", "read"), [(Format.JSON, json.loads), (Format.YAML, yaml.safe_load)]
)
def test_a_document_is_read_back_as_it_was(
    capsys: pytest.CaptureFixture[str], form: Format, read: Callable[[str], object]
) -> None:
    document({"reason": HOSTILE}, form)
    written = capsys.readouterr().out
    assert not steers(written)
    assert read(written) == {"reason": HOSTILE}


def test_the_live_screen_shows_reasons_cut_and_without_control_characters() -> None:
    body = {
        "actions": [
            {
                "kind": "EndAttempt",
                "uid": "j",
                "attempt": 1,
                "reason": {"message": f"{HOSTILE}\n" * 40},
            }
        ]
    }
    event = jobs_pb2.LoggedEvent(sequence=1, kind="CycleDecided", body_json=json.dumps(body))
    facts = Facts(admin_pb2.GetClusterResponse(version=HOSTILE), [], [], [event], 0.0)
    lines = picture(facts, columns=80)
    assert "LAST DECISIONS" in lines
    assert not any(steers(line) or "\n" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_replaced_and_documents_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding))
    write_what_streams_can()
    say("██░ be… 日")
    document({"reason": "日"}, Format.JSON)
    bars, *rest = written.getvalue().decode(encoding).splitlines()
    assert bars == "##. be~ ?"
    assert json.loads("".join(rest)) == {"reason": "日"}
