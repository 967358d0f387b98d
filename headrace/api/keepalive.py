"""How often an idle gRPC connection is asked whether anybody is there, on every side alike."""

PING_SECONDS = 20.0
"""A stream on which nothing comes asks this often. A server that is asked more often than it
permits ends the connection."""
ANSWER_SECONDS = 10.0
"""Who has not answered by then is gone."""
LEAST_PING_SECONDS = 5.0
"""Whoever pings a server more often than this is sent away (too_many_pings)."""


def pings() -> tuple[tuple[str, int], ...]:
    """Options of a channel or a server that notices a dead connection."""
    return (
        ("grpc.keepalive_time_ms", round(PING_SECONDS * 1000)),
        # Not `grpc.keepalive_timeout_ms`: beside it, gRPC 1.84 waits a minute for the answer.
        ("grpc.http2.ping_timeout_ms", round(ANSWER_SECONDS * 1000)),
        # Who only reads sends nothing after its request: gRPC would ask twice, and then no more.
        ("grpc.http2.max_pings_without_data", 0),
    )


def permitted_pings() -> tuple[tuple[str, int], ...]:
    """Options of a server that puts up with these pings, and with those of idle connections."""
    return (
        ("grpc.http2.min_ping_interval_without_data_ms", round(LEAST_PING_SECONDS * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
    )
