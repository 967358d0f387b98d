"""Tables fit, whatever is in them."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.tables import ELLIPSIS, STAGE_COLOURS, Column, age, bar, laid_out

COLUMNS = (
    Column("NAME", gives_way=1),
    Column("STATE", colours=STAGE_COLOURS),
    Column("ACC", right=True),
    Column("REASON", gives_way=2),
)
CELLS = st.text(st.characters(categories=["L", "N", "P", "Zs", "Cc"]), max_size=120)
ROWS = st.lists(
    st.tuples(CELLS, st.sampled_from(["Running", "BackingOff"]), st.just("65536"), CELLS),
    max_size=6,
)


@given(ROWS)
def test_a_table_is_never_wider_than_the_terminal(rows: list[tuple[str, ...]]) -> None:
    lines = laid_out(COLUMNS, rows, width=80)
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) <= 80


@given(ROWS)
def test_colour_changes_nothing_but_colour(rows: list[tuple[str, ...]]) -> None:
    plain = laid_out(COLUMNS, rows, width=80)
    coloured = laid_out(COLUMNS, rows, width=80, colour=True)
    for code in {*STAGE_COLOURS.values(), "0"}:
        coloured = [line.replace(f"\x1b[{code}m", "") for line in coloured]
    assert coloured == plain


def test_long_texts_give_way_before_names_do() -> None:
    rows = [("a-name-of-thirty-characters-xyz", "Running", "4", "because " * 20)]
    _, line = laid_out(COLUMNS, rows, width=80)
    assert line.startswith("a-name-of-thirty-characters-xyz  Running")
    assert line.endswith(ELLIPSIS)


def test_without_a_width_nothing_is_cut() -> None:
    _, line = laid_out(COLUMNS, [("n", "Running", "4", "because " * 40)], width=None)
    assert ELLIPSIS not in line


def test_rows_that_come_later_stand_under_those_above() -> None:
    seen: list[int] = []
    above = laid_out(COLUMNS, [("a-long-name", "Running", "4", "-")], width=80, seen=seen)
    (below,) = laid_out(COLUMNS, [("b", "Queued", "0", "why")], width=80, heading=False, seen=seen)
    assert below.index("Queued") == above[1].index("Running") == above[0].index("STATE")
    assert below.index("why") == above[0].index("REASON")


def test_an_empty_cell_is_a_dash_and_a_line_break_stays_in_its_row() -> None:
    lines = laid_out(COLUMNS, [("", "Running", "4", "one\ntwo")], width=80)
    assert lines[1].split() == ["-", "Running", "4", "one", "two"]


def test_ages_and_bars() -> None:
    assert [age(each) for each in (-1, 59, 119, 120, 7200, 200_000)] == [
        "0s", "59s", "119s", "2m", "2h", "2d",
    ]  # fmt: skip
    assert (bar(0, 4), bar(0.5, 4), bar(7, 4)) == ("░░░░", "██░░", "████")


SENTENCES = (
    Column("SEQ", right=True),
    Column("STATE", colours=STAGE_COLOURS),
    Column("ORDERED", gives_way=1, wraps=True),
    Column("BECAUSE", gives_way=2, wraps=True),
)


@given(st.lists(st.tuples(st.just("8"), st.just("Running"), CELLS, CELLS), min_size=1, max_size=4))
def test_sentences_go_on_below_and_nothing_of_them_is_lost(rows: list[tuple[str, ...]]) -> None:
    lines = laid_out(SENTENCES, rows, width=60)
    assert max(map(len, lines)) <= 60
    whole = laid_out(SENTENCES, rows, width=None)
    assert sorted("".join("".join(lines).split())) == sorted("".join("".join(whole).split()))


def test_a_sentence_goes_on_under_its_own_column() -> None:
    rows = [("812", "Running", "start attempt 3 with dp4", "WaitsFor: " + "all of them " * 4)]
    title, *lines = laid_out(SENTENCES, rows, width=66, colour=False)
    assert [line[: title.index("BECAUSE")].split() for line in lines] == [
        ["812", "Running", "start", "attempt", "3", "with", "dp4"],
        [],
        [],
    ]
    because = [line[title.index("BECAUSE") :] for line in lines]
    assert because == ["WaitsFor: all of them all", "of them all of them all of", "them"]
