"""Bytes as text, and what an image's first bytes say it is. Light: the gateway asks it too."""

import base64
from collections.abc import Sequence

HEADS: dict[str, tuple[bytes, ...]] = {
    "png": (b"\x89PNG\r\n\x1a\n",),
    "jpeg": (b"\xff\xd8\xff",),
    "gif": (b"GIF87a", b"GIF89a"),
    "webp": (b"RIFF",),
    "bmp": (b"BM",),
    "tiff": (b"II*\x00", b"MM\x00*"),
}
FORMATS = tuple(HEADS)


def format_of(value: bytes) -> str | None:
    """The format that the bytes begin like, or None. It proves nothing about the rest of them.

    >>> format_of(b"\\xff\\xd8\\xff\\xe0"), format_of(b"%PDF-1.7")
    ('jpeg', None)
    """
    for name, heads in HEADS.items():
        if value.startswith(heads) and (name != "webp" or value[8:12] == b"WEBP"):
            return name
    return None


def is_image(value: bytes, formats: Sequence[str]) -> bool:
    """Whether the bytes begin like one of these formats."""
    return format_of(value) in formats


def unpacked(text: str) -> bytes | None:
    """The bytes of base64 text; None when it is none.

    >>> unpacked("/9j/"), unpacked("what?")
    (b'\\xff\\xd8\\xff', None)
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def packed(value: bytes) -> str:
    """Bytes as base64 text: how JSON carries them."""
    return base64.b64encode(value).decode()
