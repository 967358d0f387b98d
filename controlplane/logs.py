"""Structured logs, set up alike in every process of the server side."""

import logging
import sys
from typing import TextIO

import structlog


def set_up_logs(*, as_json: bool = True, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Writes one line for each thing that happened.

    Args:
        as_json: JSON lines; else columns for people, in colours where the stream is a terminal.
        level: The lowest that is written: ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``.
        stream: Where to; standard error if left out.
    """
    stream = sys.stderr if stream is None else stream
    renderer: structlog.typing.Processor
    if as_json:
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks
            if as_json
            else structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
