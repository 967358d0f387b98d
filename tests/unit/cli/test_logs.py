"""A stream that begins anew shows what is new, exactly once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.logs import unseen


def cut(text: bytes, at: list[int]) -> list[bytes]:
    """``text`` in pieces."""
    places = sorted({place % (len(text) + 1) for place in at} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


LINES = st.integers(1, 40).map(lambda count: b"".join(b"step %d\n" % n for n in range(count)))


@given(LINES, st.integers(1, 400), st.integers(0, 400), st.lists(st.integers(0, 400), max_size=6))
def test_nothing_is_lost_and_nothing_repeated(
    text: bytes, shown: int, rotated: int, places: list[int]
) -> None:
    shown = min(shown, len(text))
    last = text[:shown][-32:]
    kept = text[min(rotated, max(0, shown - len(last))) :]  # the oldest bytes may be gone
    assert b"".join(unseen(iter(cut(kept, places)), last, len(kept))) == text[shown:]


def test_everything_is_shown_if_what_was_shown_is_no_longer_kept() -> None:
    pieces = [b"step 100\n", b"step 101\n", b"step 102\n"]
    assert b"".join(unseen(iter(pieces), b"step 1\n", 18)) == b"".join(pieces)


def test_nothing_shown_before_skips_nothing() -> None:
    assert list(unseen(iter([b"a", b"b"]), b"", 0)) == [b"a", b"b"]
