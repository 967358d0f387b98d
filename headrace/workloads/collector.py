"""What Python's garbage collector need not look through in a rank."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """While torch and what is built on it are imported, which is there for good.

    They are 750,000 objects. The collector would look through those again and again while they
    come, a fifth of the time that importing takes, and for 0.3 s in each full collection later,
    while training stands still.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


# What is frozen when the interpreter ends is not taken down, of which some libraries complain.
atexit.register(gc.unfreeze)
