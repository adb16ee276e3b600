"""Frames between a gateway and a model process: four bytes of length, big-endian, then MessagePack."""

import asyncio
from typing import Any

import msgspec

MAX_FRAME = 256 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def frame(message: Any) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next message. Raises: EOFError at the end of the stream, ConnectionError for a frame that is too long."""
    head = await reader.readexactly(4)
    length = int.from_bytes(head, "big")
    if length > MAX_FRAME:
        raise ConnectionError(f"a frame of {length:,} bytes")
    return _decoder.decode(await reader.readexactly(length))
