"""How far it is, for a person who waits."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter


@contextmanager
def progress_bar(
    what: str, *, after_seconds: float = 0.0
) -> Iterator[Callable[[float], None] | None]:
    """Shows a share on a terminal; nothing anywhere else.

    Args:
        what: What is being done.
        after_seconds: What is over sooner shows no bar.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=1.0)
    began, shown = perf_counter(), False

    def tell(share: float) -> None:
        nonlocal shown
        bar.update(task, completed=share)
        if not shown and perf_counter() - began >= after_seconds:
            shown = True
            bar.start()

    if not after_seconds:
        tell(0.0)
    try:
        yield tell
    finally:
        if shown:
            bar.stop()
