"""Which files of a model could run code when they are read: pickles, whatever they are called and packed in."""

import bz2
import io
import lzma
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairway.errors import TamperFound

_NAMES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth")
_HEAD = 1 << 16
_OPCODES = 20_000
_CALLS = ("GLOBAL", "INST", "STACK_GLOBAL", "REDUCE", "OBJ", "NEWOBJ")
_OBJECTS = re.compile(rb"'descr':[^}]*['\"][|<>=]?O")  # an array of objects: its elements are pickled


def refuse_pickles(folder: Path) -> None:
    """Raises: TamperFound when a file of the folder is a pickle, by its name or by its bytes."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        why = pickled(path)
        if why is not None:
            name = path.relative_to(folder).as_posix()
            raise TamperFound(
                f"{name} {why}: reading one runs whatever it holds. Store JSON, text, arrays (.npy, safetensors), "
                "or a library's own format"
            )


def pickled(path: Path) -> str | None:
    """Why the file counts as a pickle, or None. It is not read as one; only its head and the names within are seen."""
    if path.suffix.lower() in _NAMES:
        return f"has the name of a pickle ({path.suffix})"
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if zipfile.is_zipfile(path):
        return _in_zip(path)
    return _in_bytes(head)


def _in_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if Path(info.filename).suffix.lower() in _NAMES:
                    return f"holds {info.filename}, as torch.save() writes it"
                with archive.open(info) as member:
                    if (why := _in_bytes(member.read(_HEAD))) is not None:
                        return f"holds {info.filename}, which {why}"
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error):
        return None  # no archive after all: whoever reads it will say so
    return None


def _in_bytes(head: bytes, *, packed: bool = False) -> str | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a pickle"
    if head[:6] == b"\x93NUMPY" and _OBJECTS.search(head[:1024]):
        return "is an array of pickled objects"
    if head[:1] in b"(clidISV]}" and _calls(head):
        return "is a pickle"
    if not packed and (inner := _unpacked(head)) is not None:
        return _in_bytes(inner, packed=True)
    return None


def _calls(head: bytes) -> bool:
    """Whether the bytes are a pickle of the old, textual kind that names something to call."""
    called = False
    try:
        for number, (opcode, _, _) in enumerate(pickletools.genops(io.BytesIO(head))):
            called = called or opcode.name in _CALLS
            if opcode.name == "STOP" or number > _OPCODES:
                return called
    except Exception:  # not a pickle, or one that is cut: genops raises whatever its parts raise
        return False
    return False


def _unpacked(head: bytes) -> bytes | None:
    """The first bytes of what is compressed, as joblib does it."""
    readers: dict[bytes, Callable[[], Any]] = {
        b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
        b"\x78": zlib.decompressobj,
        b"BZh": bz2.BZ2Decompressor,
        b"\xfd7zXZ": lzma.LZMADecompressor,
        b"\x5d\x00\x00": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_ALONE),
    }
    for magic, make in readers.items():
        if head.startswith(magic):
            try:
                return bytes(make().decompress(head, 4096))
            except (zlib.error, OSError, EOFError, lzma.LZMAError):
                return None
    return None
