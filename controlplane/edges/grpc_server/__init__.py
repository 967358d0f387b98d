"""The gRPC API: requests become events, states become streams, refusals become codes.

A call passes ``gatekeeper`` (who is it, may it), a service (``jobs``, ``nodes``, ``admin``), and
if it changes anything the ``door``, which answers when the event is durable. The loop's state
comes back through ``feed``, and to the agents through ``assignments``.
"""
