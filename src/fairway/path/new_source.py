"""What `fairway new` is given as its table: a frame, a file, a folder, a glob, an address or a query."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from fairway.contract.settings import DataSettings
from fairway.data.source import Place, Raw, read_table, with_dialect
from fairway.errors import UsageError

_QUERY = re.compile(r"\s*(select|with)\s", re.IGNORECASE)


def read(data: Any, here: Path, *, url: str | None = None) -> tuple[Raw, Place | None]:
    """The table and where it is, with the dialect of a CSV found out; None for a frame in memory.

    url: of the database, when `data` is a query. Raises: UsageError, DataError, SettingsError.
    """
    if isinstance(data, str | Path):
        place = with_dialect(_place(str(data), url), here)
        return read_table(place, here), place
    if url is not None:
        raise UsageError("a url belongs to a query; data is a table", field="url")
    if type(data).__module__.split(".")[0] == "pandas":
        data = pl.from_pandas(data)
    elif not isinstance(data, pl.DataFrame) and hasattr(data, "__arrow_c_stream__"):
        data = pl.DataFrame(data)
    if not isinstance(data, pl.DataFrame):
        raise UsageError(
            f"data is {type(data).__name__}; give a path, or a Polars, pandas or Arrow table", field="data"
        )
    return Raw(data, {"the frame": ""}, (data.height,)), None


def settings_of(place: Place | None, *, here: Path, root: Path, name: str) -> DataSettings:
    """[data] of the new project at `root`, where relative paths start. None: the frame that is written into it."""
    if place is None:
        return DataSettings(source=f"data/{name}.parquet")
    if place.at is None:
        return DataSettings(sql=place.sql, url=_from(place.url or "", here, root))
    at = place.at if "://" in place.at else _moved(place.at, here, root)
    return replace(DataSettings(source=at), **place.dialect.declared())


def from_anywhere(data: str, url: str | None) -> tuple[str, str | None]:
    """Both so that they mean the same from another folder."""
    if url is not None:
        url = _from(url, Path.cwd(), Path("/"))
        url = url.replace("sqlite:///", "sqlite:////", 1) if re.match(r"sqlite:///[^/:]", url) else url
    return (data if _QUERY.match(data) or "://" in data else str(Path(data).absolute())), url


def _place(data: str, url: str | None) -> Place:
    if _QUERY.match(data):
        if url is None:
            raise UsageError('a query needs the URL of its database: --url env:NAME names a variable that holds it',
                             field="url")  # fmt: skip
        if not url.startswith("env:") and re.search(r"//[^/@:]*:[^/@]+@", url):
            raise UsageError("the URL holds a password; put it into a variable and give --url env:NAME", field="url")
        return Place(None, data.strip(), url, field="data")
    if url is not None:
        raise UsageError(f"a url belongs to a query (select ...); {data} is none", field="url")
    return Place.of(data)


def _moved(text: str, here: Path, root: Path) -> str:
    # Not resolved: a glob's or a link's own name is what a person wrote.
    return Path(os.path.relpath(here / text, root)).as_posix()


def _from(url: str, here: Path, root: Path) -> str:
    file = url.removeprefix("sqlite:///")
    if file == url or file.startswith(("/", ":", "file:")):
        return url
    return f"sqlite:///{_moved(file, here, root)}"
