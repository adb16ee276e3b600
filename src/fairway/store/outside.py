"""Small files in a place outside the workspace: a folder, or an s3:// path. Only ever added and read."""

import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fairway import _optional
from fairway.errors import StoreError

_LIMIT_S = 30.0


def put(place: str, name: str, data: bytes) -> None:
    """Add a file, durably; one of this name with other bytes is not overwritten. Raises: StoreError."""
    if place.startswith("s3://"):
        _bucket_put(place, name, data)
        return
    folder = Path(place)
    target, temporary = folder / name, folder / f".{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{target} can't be written: {exc.strerror}") from exc


def listing(place: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files in a place, by name. Raises: StoreError."""
    if place.startswith("s3://"):
        yield from _bucket_listing(place)
        return
    try:
        for path in sorted(Path(place).iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield path.name, path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StoreError(f"{place} can't be read: {exc.strerror}") from exc


# -- a bucket --------------------------------------------------------------------------------------------------------


def _bucket(place: str) -> Any:
    """Endpoint, region and credentials come from the usual AWS_* variables, as for FAIRWAY_BLOBS."""
    parts = urlsplit(place)
    if not parts.netloc:
        raise StoreError(f"{place!r} names no bucket: write s3://bucket/prefix")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return _optional.need("obstore.store", extra="s3").S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        client_options={"allow_http": endpoint.startswith("http://"), "timeout": timedelta(seconds=_LIMIT_S)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_LIMIT_S)},
    )


def _bucket_put(place: str, name: str, data: bytes) -> None:
    obstore, errors = _optional.need("obstore", extra="s3"), _optional.need("obstore.exceptions", extra="s3")
    try:
        obstore.put(_bucket(place), name, data, mode="create", use_multipart=False)
    except errors.AlreadyExistsError:
        return
    except (errors.BaseError, OSError) as exc:
        raise StoreError(f"{place.rstrip('/')}/{name} can't be written: {_line(exc)}") from exc


def _bucket_listing(place: str) -> Iterator[tuple[str, bytes]]:
    obstore, errors = _optional.need("obstore", extra="s3"), _optional.need("obstore.exceptions", extra="s3")
    bucket = _bucket(place)
    try:
        names = sorted(str(item["path"]) for page in obstore.list(bucket) for item in page)
        for name in names:
            yield name, bytes(obstore.get(bucket, name).bytes())
    except (errors.BaseError, OSError) as exc:
        raise StoreError(f"{place} can't be read: {_line(exc)}") from exc


def _line(error: Exception) -> str:
    """An engine's error as one line."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
