"""What a Parquet file says about its own size, from its footer alone: before any of it is unpacked.

The footer is Thrift in its compact form; only the few numbers that are needed are kept, the rest is skipped.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
_MOST = 2**28  # bytes of a footer
_DEEPEST = 32
_WIDTHS = {0: 1, 6: 16}  # bytes of a value by its type, where not 8: true or false, texts
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


@dataclass(frozen=True)
class Size:
    """rows; unpacked_bytes: what the column chunks say they hold when they are neither compressed nor encoded: a
    billion equal numbers are a few bytes in the file.
    """

    rows: int
    unpacked_bytes: int


def size_of(file: BinaryIO) -> Size:
    """Raises: ValueError with what is wrong with the file, for a person."""
    head = file.read(4)
    end = file.seek(0, 2)
    if head != _MAGIC or end < 12:
        raise ValueError("is no Parquet file")
    file.seek(end - 8)
    tail = file.read(8)
    if tail[4:] != _MAGIC:
        raise ValueError("is cut short: its end is missing")
    length = struct.unpack("<I", tail[:4])[0]
    if length > min(end - 12, _MOST):
        raise ValueError("is damaged: its footer can't be that long")
    file.seek(end - 8 - length)
    try:
        meta = dict(_Reader(file.read(length)).fields(keep={3, 4}))
        groups = [dict(group) for group in meta.get(4, [])]
        return Size(int(meta[3]), sum(max(int(group.get(2, 0)), _decoded(group)) for group in groups))
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as exc:
        raise ValueError("is damaged: its footer can't be read") from exc


def _decoded(group: Mapping[int, Any]) -> int:
    """Bytes of a row group's values in memory, as far as their number tells: texts count as what points to them."""
    chunks: list[dict[int, Any]] = [dict(dict(chunk).get(3, [])) for chunk in group.get(1, [])]
    return sum(int(chunk.get(5, 0)) * _WIDTHS.get(chunk.get(1, -1), 8) for chunk in chunks)


class _Reader:
    """FileMetaData: field 3 num_rows, 4 row_groups; RowGroup: 1 columns, 2 total_byte_size (not compressed, but
    encoded); ColumnChunk: 3 meta_data; ColumnMetaData: 1 type, 5 num_values.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def fields(self, *, keep: set[int] | None = None, depth: int = 0) -> Iterator[tuple[int, Any]]:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        number = 0
        while True:
            byte = self._byte()
            if byte == 0:
                return
            kind, step = byte & 15, byte >> 4
            number = number + step if step else self._signed()
            value = self._value(kind, depth + 1)
            if keep is None or number in keep:
                yield number, value

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind <= 6:  # 16, 32 and 64 bits
            return self._signed()
        if kind == _DOUBLE:
            self._skip(8)
            return None
        if kind == _BINARY:
            self._skip(self._unsigned())
            return None
        if kind in (_LIST, _SET):
            head = self._byte()
            size, inner = head >> 4, head & 15
            size = self._unsigned() if size == 15 else size
            if size > len(self._data):
                raise ValueError("a list is longer than the footer")
            return [self._byte() if inner in (_TRUE, _FALSE) else self._value(inner, depth + 1) for _ in range(size)]
        if kind == _MAP:
            size = self._unsigned()
            if size > len(self._data):
                raise ValueError("a map is longer than the footer")
            kinds = self._byte() if size else 0
            for _ in range(size):
                self._value(kinds >> 4, depth + 1)
                self._value(kinds & 15, depth + 1)
            return None
        if kind == _STRUCT:
            return list(self.fields(depth=depth + 1))
        raise ValueError(f"no type {kind}")

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("ends early")
