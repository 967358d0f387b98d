"""Numbers of things as people say them: one of a thing is not many."""


def counted(count: int, word: str, ending: str = "s") -> str:
    """So many things, in words.

    Args:
        count: How many.
        word: One of them.
        ending: What is added for several, ``es`` for words such as batch.
    """
    return f"{count} {word}" if count == 1 else f"{count} {word}{ending}"
