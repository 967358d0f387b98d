"""Passes connections on into the network of a node: ``nsenter --net=... python -m ... FD PORT``.

The socket that listens is inherited and stays where it was made, outside; what is connected to is
inside. So tests, kubectl and the official client reach the API server as if it were here.
"""

import asyncio
import contextlib
import socket
import sys

_CHUNK_BYTES = 65_536


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def _serve(listening: socket.socket, port: int) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_inside, to_inside = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # nobody listens there yet
            writer.close()
            return
        await asyncio.gather(_carry(reader, to_inside), _carry(from_inside, writer))

    async with await asyncio.start_server(connect, sock=listening) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
