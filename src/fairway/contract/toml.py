"""Reading a TOML file strictly: every key known, every value checked, every complaint with its line."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from fairway.contract.view import format_duration, parse_duration
from fairway.errors import SettingsError

Path = tuple[str, ...]
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word a typo most likely meant, if any is close."""
    found = difflib.get_close_matches(word.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    return next((k for k in known if found and k.lower() == found[0]), None)


def one_of(known: Sequence[str]) -> str:
    return ", ".join(known[:-1]) + f" or {known[-1]}" if len(known) > 1 else known[0]


class Document:
    """A parsed file that can say on which line a key stands. Raises: SettingsError when it is not TOML."""

    def __init__(self, text: str, *, file: str) -> None:
        self.text, self.file = text, file
        try:
            self.data: dict[str, Any] = tomllib.loads(text.removeprefix("\ufeff"))
        except (tomllib.TOMLDecodeError, RecursionError) as exc:
            found = _AT_LINE.search(str(exc))
            reason = _AT_LINE.sub("", str(exc)).strip() or "nested too deeply"
            if "Cannot overwrite" in reason:
                reason = "this key was given before; each key may stand once"
            raise SettingsError(
                f"not readable as TOML: {reason}", file=file, line=int(found[1]) if found else None
            ) from exc
        self._lines: dict[Path, int] | None = None

    def line(self, path: Path) -> int | None:
        """Where the key, or else the nearest table above it, is written."""
        if self._lines is None:
            self._lines = _key_lines(self.text.removeprefix("\ufeff"))
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return None

    def error(self, path: Path, message: str) -> SettingsError:
        return SettingsError(message, file=self.file, line=self.line(path), field=".".join(path) or None)

    def table(self) -> "Table":
        return Table(self, (), self.data)


def _key_lines(text: str) -> dict[Path, int]:
    """Line of every key and table: statements are cut where the text so far is TOML again."""
    lines: dict[Path, int] = {}
    header: Path = ()
    statement, start = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        statement = f"{statement}\n{line}" if statement else line
        start = start if statement != line else number
        try:
            found = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        paths = list(_paths(found))
        if statement.lstrip().startswith("["):
            header = paths[-1] if paths else header
            lines.setdefault(header, start)
        else:
            for path in paths:
                lines.setdefault(header + path, start)
        statement = ""
    return lines


def _paths(data: Mapping[str, Any]) -> Iterable[Path]:
    for key, value in data.items():
        yield (key,)
        if isinstance(value, Mapping):
            yield from ((key, *rest) for rest in _paths(value))


class Table:
    """One table of the file. Each reader method checks one key and returns its value or the default."""

    def __init__(self, document: Document, path: Path, data: Any) -> None:
        self.document, self.path = document, path
        if not isinstance(data, dict):
            raise document.error(path, f"{'.'.join(path)} must be a table, got {kind_of(data)}")
        self.data: dict[str, Any] = data

    def name(self, key: str) -> str:
        return ".".join((*self.path, key))

    def wrong(self, key: str, message: str) -> SettingsError:
        return self.document.error((*self.path, key), f"{self.name(key)} {message}")

    def allow(self, *known: str) -> None:
        """Raises: SettingsError for a key that is not known, naming the nearest one."""
        for key in self.data:
            if key not in known:
                hint = nearest(key, known)
                says = f"; did you mean {hint}?" if hint else f"; known here: {', '.join(known)}"
                raise self.document.error((*self.path, key), f"unknown key {self.name(key)}{says}")

    def sub(self, key: str) -> "Table":
        return Table(self.document, (*self.path, key), self.data.get(key, {}))

    def has(self, key: str) -> bool:
        return key in self.data

    def text(self, key: str, default: Any = None, *, known: Sequence[str] = (), empty: bool = False) -> Any:
        value = self.data.get(key, default)
        if key not in self.data:
            return value
        if not isinstance(value, str):
            raise self.wrong(key, f"must be text in quotes, got {kind_of(value)}")
        if known and value not in known:
            hint = nearest(value, known)
            raise self.wrong(
                key, f'is "{value}"; it must be {one_of(known)}' + (f" (did you mean {hint}?)" if hint else "")
            )
        if not value and not empty:
            raise self.wrong(key, "is empty")
        return value

    def need_text(self, key: str, **rules: Any) -> str:
        if key not in self.data:
            raise self.document.error(self.path, f"{self.name(key)} is missing")
        value: str = self.text(key, **rules)
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false (no quotes), got {kind_of(value)}")
        return value

    def whole(self, key: str, default: int, *, low: int, high: int) -> int:
        value = self.data.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(key, f"must be a whole number from {low:,} to {high:,}, got {kind_of(value)}")
        if not low <= value <= high:
            raise self.wrong(key, f"is {value:,}; allowed is {low:,} to {high:,}")
        return value

    def share(self, key: str, default: Any, *, low: float = 0.0, high: float = 1.0, above: bool = False) -> Any:
        """A number between low and high, or a percentage as text ("5%")."""
        if key not in self.data:
            return default
        return self.as_share(key, self.data[key], low=low, high=high, above=above)

    def as_share(self, key: str, value: Any, *, low: float = 0.0, high: float = 1.0, above: bool = False) -> float:
        bounds = f'{"above " if above else ""}{low:g} to {high:g} (or a percentage such as "5%")'
        number = value
        if isinstance(value, str):
            found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)
            if found is None:
                raise self.wrong(key, f'is "{value}"; it must be a number {bounds}')
            number = float(found[1]) / 100
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise self.wrong(key, f"must be a number {bounds}, got {kind_of(value)}")
        if not low <= number <= high or (above and number == low):
            raise self.wrong(key, f"is {value}; allowed is {bounds}")
        return float(number)

    def number(self, key: str, default: Any, *, low: float) -> Any:
        if key not in self.data:
            return default
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"must be a number above {low:g}, got {kind_of(value)}")
        if not low < value < float("inf"):
            raise self.wrong(key, f"is {value}; allowed is any finite number above {low:g}")
        return float(value)

    def duration(
        self,
        key: str,
        default: Any,
        *,
        low: timedelta = timedelta(0),
        high: timedelta = timedelta(days=3660),
        words: Mapping[str, Any] | None = None,
    ) -> Any:
        """A length of time as text ("6h"), or one of `words` with what it stands for."""
        if key not in self.data:
            return default
        value, also = self.data[key], "".join(f' or "{w}"' for w in words or {})
        if not isinstance(value, str):
            raise self.wrong(key, f'must be a duration in quotes such as "6h"{also}, got {kind_of(value)}')
        if words is not None and value in words:
            return words[value]
        try:
            length = parse_duration(value)
        except (ValueError, OverflowError) as exc:
            raise self.wrong(key, f'is "{value}"; it must be a duration such as 30s, 15min, 6h or 30d{also}') from exc
        if not low <= length <= high:
            raise self.wrong(key, f'is "{value}"; allowed is {format_duration(low)} to {format_duration(high)}{also}')
        return length

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        if key not in self.data:
            return default
        value = self.data[key]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, f"must be a list of texts, got {kind_of(value)}")
        if len(set(value)) != len(value):
            twice = next(item for place, item in enumerate(value) if item in value[:place])
            raise self.wrong(key, f'names "{twice}" twice')
        return tuple(value)


def kind_of(value: Any) -> str:
    """What a value is, in the reader's words, with the value when it is short."""
    if isinstance(value, bool):
        return f"{value}".lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the text "{value}"' if len(value) <= 40 and value.isprintable() else "a text"
    if isinstance(value, datetime | date):
        return "a date without quotes"
    return "a list" if isinstance(value, list) else "a table"


def check_format(top: "Table", newest: int) -> None:
    """Raises: SettingsError for a file without a format, or of one that is newer than this fairway."""
    if not top.has("format"):
        raise top.document.error((), f"format is missing; write format = {newest} at the top")
    found = top.whole("format", newest, low=1, high=1_000_000)
    if found > newest:
        raise top.wrong("format", f"is {found}; this fairway reads up to {newest}: install a newer one")
