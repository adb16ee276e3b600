"""Objects of a bucket: fetched as they were at one moment, then read like files of this machine.

Credentials, region and endpoint come from the AWS_* variables of the environment (AWS_ENDPOINT_URL for another S3).
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairway import _optional
from fairway.data.source_files import SUFFIXES, is_pattern, kind_of, one_kind
from fairway.errors import DataError, SettingsError

_PIECE = 8 * 2**20


@dataclass(frozen=True)
class Address:
    """s3://bucket/key."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises: SettingsError."""
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not bucket or not key.strip("/"):
            raise SettingsError(
                f"{text} names no object; write s3://bucket/path", file="fairway.toml", field="data.source"
            )
        return cls(bucket, key.strip("/"))

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1]


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """obstore's errors as ours, with the address that was asked for."""
    errors = _optional.need("obstore.exceptions", extra="s3")
    try:
        yield
    except (FileNotFoundError, errors.NotFoundError) as exc:
        raise DataError("there is no such object or bucket", file=name) from exc
    except (errors.BaseError, OSError) as exc:
        lines = str(exc).strip().splitlines()
        raise DataError(f"can't be read: {lines[0] if lines else type(exc).__name__}", file=name) from exc


def find(text: str) -> dict[str, Any]:
    """Shown name -> facts (path, size, e_tag) of an object, of a folder of objects or of a glob. Raises: DataError."""
    address = Address.parse(text)
    with refusals(text):
        store = _store(address.bucket)
        if is_pattern(address.key):
            fixed = address.key[: next(i for i, c in enumerate(address.key) if c in "*?[")]
            prefix = fixed.rsplit("/", 1)[0] if "/" in fixed else None
            wanted = re.compile(_pattern(address.key))
            listed = {m["path"]: m for m in _listed(store, prefix) if wanted.fullmatch(m["path"])}
            what = "glob"
        elif kind_of(address.name) is not None:
            return {address.name: store.head(address.key)}
        else:
            listed = {m["path"]: m for m in _listed(store, address.key + "/")}
            what = "folder"
            if not listed:
                raise DataError(f"there is no such object or folder (objects are {', '.join(SUFFIXES)})", file=text)
    base = address.key.rsplit("/", 1)[0] + "/" if what == "folder" and "/" in address.key else ""
    return {path.removeprefix(base): listed[path] for path in one_kind(list(listed), what, text)}


def is_delta(text: str) -> bool:
    """Whether a Delta table is at this address."""
    address = Address.parse(text)
    if is_pattern(address.key) or kind_of(address.name) is not None:
        return False
    with refusals(text):
        return any(True for _ in _listed(_store(address.bucket), address.key + "/_delta_log/"))


@contextmanager
def fetched(text: str, name: str, facts: Any) -> Iterator[Path]:
    """A copy of one object, as it was when it was listed. Raises: DataError when it is another by now."""
    address = Address.parse(text)
    with tempfile.TemporaryDirectory(prefix="fairway-s3-") as folder:
        path = Path(folder) / name.rsplit("/", 1)[-1]
        with refusals(name):
            store = _store(address.bucket)
            got = store.get(facts["path"])
            size = 0
            with path.open("wb") as file:
                for piece in got.stream(min_chunk_size=_PIECE):
                    size += len(piece)
                    file.write(piece)
            _refuse_other(name, facts, got.meta)
            if size != facts["size"]:
                raise DataError(f"ended after {size:,} of {facts['size']:,} bytes; try again", file=name)
        yield path
        with refusals(name):
            _refuse_other(name, facts, store.head(facts["path"]))


def storage_options() -> dict[str, str]:
    """The environment's AWS_* for the engines that read tables themselves (Delta)."""
    found = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    found["AWS_REGION"] = _region()
    if _endpoint().startswith("http://"):
        found["AWS_ALLOW_HTTP"] = "true"
    return found


def _refuse_other(name: str, facts: Any, now: Any) -> None:
    if (facts["e_tag"], facts["size"]) != (now["e_tag"], now["size"]):
        raise DataError("was replaced or changed while it was read; nothing was kept, try again", file=name)


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _store(bucket: str) -> Any:
    module = _optional.need("obstore.store", extra="s3")
    options: dict[str, Any] = {"region": _region()}
    if _endpoint():
        options |= {"endpoint": _endpoint(), "client_options": {"allow_http": _endpoint().startswith("http://")}}
    return module.S3Store(bucket, **options)


def _listed(store: Any, prefix: str | None) -> Iterator[Any]:
    for page in store.list(prefix=prefix):
        yield from page


def _pattern(glob: str) -> str:
    """A glob as a regular expression: * and ? stay within one part of the path, ** does not."""
    made = ""
    place = 0
    while place < len(glob):
        if glob.startswith("**/", place):
            made, place = made + "(?:.*/)?", place + 3
        elif glob[place] == "*":
            made, place = made + "[^/]*", place + 1
        elif glob[place] == "?":
            made, place = made + "[^/]", place + 1
        elif glob[place] == "[" and "]" in glob[place:]:
            end = glob.index("]", place)
            made, place = made + "[" + glob[place + 1 : end].replace("!", "^", 1) + "]", end + 1
        else:
            made, place = made + re.escape(glob[place]), place + 1
    return made
