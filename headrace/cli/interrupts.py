"""Signals that end a command which has started things, and the time in which they must not."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

Handler = Callable[[int, FrameType | None], None] | signal.Handlers

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interruptible() -> contextlib.AbstractContextManager[None]:
    """SIGTERM and a hang-up interrupt as Ctrl-C does, so that what was started ends with us."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    return _handled({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt})


def deaf() -> contextlib.AbstractContextManager[None]:
    """Nothing interrupts, not even a second Ctrl-C: ending must not stop halfway."""
    return _handled(dict.fromkeys(_ENDING, signal.SIG_IGN))


@contextlib.contextmanager
def _handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
