"""A bare grpc.aio server that answers with what it was sent: what submitting is compared with."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headrace.api.generated import jobs_pb2

METHOD = "/bench.Echo/Echo"


async def _echo(request: jobs_pb2.SubmitJobRequest, context: Any) -> jobs_pb2.SubmitJobRequest:
    return request


async def _serve() -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        _echo,
        request_deserializer=jobs_pb2.SubmitJobRequest.FromString,
        response_serializer=jobs_pb2.SubmitJobRequest.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
