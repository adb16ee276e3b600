"""How a CSV file is written: declared, or found out once by `fairway new` and written down."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

from fairway.contract.settings import DataSettings, SourceSettings

_LOOK = 65_536  # characters that a guess looks at
_DELIMITERS = (",", ";", "\t", "|")
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_KEYS = ("delimiter", "quote", "encoding")


@dataclass(frozen=True)
class Dialect:
    """delimiter, quote: one character each; quote "": quotes are plain characters. encoding: Python's name."""

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"

    @classmethod
    def of(cls, settings: DataSettings | SourceSettings) -> "Dialect":
        """As the settings declare it."""
        return cls(settings.delimiter, settings.quote, settings.encoding)

    def declared(self) -> dict[str, Any]:
        """The keys of [data] that say what is not the default."""
        return {key: getattr(self, key) for key in _KEYS if getattr(self, key) != getattr(Dialect, key)}

    def words(self) -> str:
        """For a person."""
        names = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
        said = [f"fields are separated by {names.get(self.delimiter, repr(self.delimiter))}"]
        said += [f"the encoding is {self.encoding}"] * (self.encoding != "utf-8")
        said += ["quotes are plain characters"] * (not self.quote)
        return ", ".join(said)


def detect(data: bytes, whole: bool) -> Dialect:
    """The dialect of a CSV by its beginning. whole: `data` is all of it.

    The separator is the one that cuts every line into the same number of fields, two or more; with none or several of
    them, the comma. It is a guess: `new` writes it down, and the strict reader refuses what it does not fit.
    """
    encoding = encoding_of(data, whole=whole)
    text = data.decode(encoding, errors="replace").lstrip("\ufeff")[:_LOOK]
    lines = text.splitlines()[: None if whole and len(text) < _LOOK else -1] or text.splitlines()
    return Dialect(delimiter=_delimiter("\n".join(lines)), encoding=encoding)


def encoding_of(data: bytes, *, whole: bool) -> str:
    """utf-8 where it decodes; utf-16 by its mark; else Windows-1252, which has a letter for nearly every byte."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as exc:
        if whole or exc.start < len(data) - 4:  # else a character was cut in two by the end of what was read
            try:
                data.decode("cp1252")
            except UnicodeDecodeError:
                return "latin-1"
            return "cp1252"
    return "utf-8"


def _delimiter(text: str) -> str:
    fits = {}
    for delimiter in _DELIMITERS:
        try:
            widths = Counter(len(record) for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        except csv.Error:
            continue
        if len(widths) == 1 and next(iter(widths)) > 1:
            fits[delimiter] = next(iter(widths))
    if "," in fits and len(fits) > 1 and fits[","] < max(fits.values()):
        del fits[","]  # "1,5;2,5": the comma that fits too is a decimal mark
    return next(iter(fits)) if fits else ","
