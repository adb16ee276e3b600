"""Where a table is and how its text is written: the keys that [data] and [sources.NAME] share."""

import codecs
import re
from datetime import timedelta
from typing import Any

from fairway.contract.settings import DataSettings
from fairway.contract.toml import Table

ADDRESS = ("sql", "url", "version", "delimiter", "quote", "encoding", "decimal", "owner", "expect_every", "shrink")
_CSV = ("delimiter", "quote", "encoding", "decimal")
_PASSWORD = re.compile(r"//[^/@:]*:[^/@]+@")


def address(table: Table, *, place: str | None) -> dict[str, Any]:
    """The shared keys as arguments of DataSettings and SourceSettings. place: its file or address, if it has one.

    Raises: SettingsError with line, key, what was found and what is allowed.
    """
    base = DataSettings()
    return {
        "sql": table.text("sql"),
        "url": _url(table),
        "version": table.whole("version", 0, low=0, high=2**62) if table.has("version") else None,
        **_dialect(table, place, base),
        "owner": table.text("owner"),
        "expect_every": table.duration("expect_every", None, low=timedelta(seconds=1), high=timedelta(days=3660)),
        "shrink": table.share("shrink", base.shrink),
    }


def _url(table: Table) -> str | None:
    url: str | None = table.text("url")
    if table.has("sql") and url is None:
        raise table.document.error(table.path, f'{table.name("url")} is missing: url = "env:NAME" names a variable')
    if url is None:
        return None
    if not table.has("sql"):
        raise table.wrong("url", "is of a query's database, and there is no sql")
    if not url.startswith("env:") and "://" not in url:
        raise table.wrong("url", f'is "{url}"; write "env:NAME" or a URL such as sqlite:///warehouse.db')
    if _PASSWORD.search(url):
        raise table.wrong("url", 'holds a password; put the URL into a variable and write url = "env:NAME"')
    return url


def _dialect(table: Table, place: str | None, base: DataSettings) -> dict[str, Any]:
    given = [key for key in _CSV if table.has(key)]
    if given and place is None:
        raise table.wrong(given[0], "is for CSV files, and there is none")
    delimiter = table.text("delimiter", base.delimiter)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in "\r\n\"' 0":
        raise table.wrong("delimiter", f'is "{delimiter}"; it must be one character such as ";"')
    quote = table.text("quote", base.quote, empty=True)
    if len(quote) > 1 or not quote.isascii() or quote == delimiter:
        raise table.wrong("quote", f'is "{quote}"; it must be one character, or "" when quotes are plain characters')
    encoding = table.text("encoding", base.encoding)
    try:
        codecs.lookup(encoding)
    except LookupError as exc:
        raise table.wrong("encoding", f'is "{encoding}"; known are utf-8, utf-16, latin-1, cp1252 …') from exc
    return {
        "delimiter": delimiter,
        "quote": quote,
        "encoding": encoding,
        "decimal": table.text("decimal", base.decimal, known=(".", ",")),
    }
