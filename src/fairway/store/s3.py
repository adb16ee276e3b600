"""Blobs in a bucket that speaks S3: FAIRWAY_BLOBS=s3://bucket/prefix, through obstore (extra `s3`).

Endpoint, region and credentials come from the usual AWS_* variables (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or the machine's role.

Two rings of retries: obstore repeats single requests (500, 503 slow-down, lost connections, time-outs, each part of a
large upload alone), and around it whole operations are repeated for what it can't see: a body that ends early, bytes
with another hash, a conditional put that met another one. Both end after a number of tries and a time. Every request
is signed with the hash of its body, so a store that follows S3 refuses what arrived otherwise than it was sent.
"""

import hashlib
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fairway import _optional, clock, fingerprint
from fairway.errors import StoreError, StoreUnavailable, TamperFound, UsageError
from fairway.store.blob_cache import BlobCache
from fairway.store.blobs import (
    GRACE,
    PAGE,
    BlobEntry,
    changed,
    checked,
    checked_name,
    is_digest,
    missing,
    pieces,
    trouble,
    write_verified,
)

PART_BYTES = 8 * 1024 * 1024  # S3 wants 5 MiB or more, and at most 10,000 parts
CACHE_BYTES = 4 * 1024**3
CACHED_BYTES = 16 * 1024 * 1024  # what `get` keeps a copy of: packages and small tables, read again and again
_MAX_PARTS = 9000
_CONCURRENCY = 4
_LIMIT_S = 60.0  # no further try after this long

T = TypeVar("T")
log = logging.getLogger(__name__)


class S3Blobs:
    """s3://bucket/prefix/<workspace>/ab/abcdef…

    A put is idempotent: what is there with the right size is not sent again (unless it would soon count as left over,
    see `blobs.GRACE`), a small blob is created conditionally (If-None-Match), a large one as multipart, which S3 shows
    only when it is whole. What a killed multipart upload leaves is invisible and costs storage: give the bucket a
    lifecycle rule that aborts incomplete uploads.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        cache: Path,
        workspace: str = "default",
        cache_bytes: int = CACHE_BYTES,
        part_bytes: int = PART_BYTES,
        attempts: int = 3,
        timeout_s: float = 30.0,
    ) -> None:
        """cache: folder for verified local copies, bounded to about `cache_bytes`. attempts: of a whole operation;
        within each, a request is tried up to four times. timeout_s: without progress of one request.

        Raises: UsageError for a URL that is none, MissingExtra without obstore. Nothing is asked of the bucket yet.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise UsageError(f"{url!r} names no bucket: write s3://bucket/prefix", field="FAIRWAY_BLOBS")
        self._obstore = _optional.need("obstore", extra="s3")
        exceptions = _optional.need("obstore.exceptions", extra="s3")
        self._denied = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
        self._exists = exceptions.AlreadyExistsError
        self._unsupported = exceptions.NotSupportedError
        self._errors: tuple[type[Exception], ...] = (exceptions.BaseError, OSError)
        self._repeated: tuple[type[Exception], ...] = (TamperFound, _Again, *self._errors)
        self._bucket, prefix = parts.netloc, parts.path.strip("/")
        self.where = f"s3://{self._bucket}/{prefix}" if prefix else f"s3://{self._bucket}"
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._part_bytes, self._attempts = part_bytes, attempts
        root = f"{prefix}/{checked_name(workspace)}" if prefix else checked_name(workspace)
        self._store = _optional.need("obstore.store", extra="s3").S3Store(
            self._bucket,
            prefix=root,
            client_options={
                "allow_http": self._endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=min(5.0, timeout_s)),
                "read_timeout": timedelta(seconds=timeout_s),
                "timeout": timedelta(hours=1),  # a large body takes what it takes; it must only go on
            },
            retry_config={
                "max_retries": 3,
                "retry_timeout": timedelta(seconds=_LIMIT_S),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=3),
                    "base": 2,
                },
            },
        )
        self._cache = BlobCache(cache / checked_name(workspace), cache_bytes)

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, data: bytes) -> str:
        digest = fingerprint.of_bytes(data)
        self._put(digest, len(data), lambda: data, lambda: iter((data,)))
        return digest

    def put_file(self, path: Path) -> str:
        """Raises, besides: StoreUnavailable when the file changes while it is read."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = os.fstat(file.fileno()).st_size

            def whole() -> bytes:
                file.seek(0)
                data = file.read()
                if fingerprint.of_bytes(data) != digest:
                    raise _FileChanged
                return data

            def in_pieces() -> Iterator[bytes]:
                file.seek(0)
                found = hashlib.sha256()
                for piece in pieces(file):
                    found.update(piece)
                    yield piece
                if found.hexdigest() != digest:
                    raise _FileChanged  # obstore then aborts the upload: nothing gets the name

            try:
                self._put(digest, size_bytes, whole, in_pieces)
            except _FileChanged as exc:
                raise StoreUnavailable(f"{path} changed while it was stored; nothing was kept, try again") from exc
        return digest

    def _put(
        self, digest: str, size_bytes: int, whole: Callable[[], bytes], in_pieces: Callable[[], Iterator[bytes]]
    ) -> None:
        key, what = _key(digest), f"blob {digest[:12]} can't be written to {self.where}"

        def once() -> None:
            found = self._head(digest)
            if found is not None and found.size_bytes == size_bytes:
                if clock.machine_now() - found.stored_at < GRACE / 2:
                    return
                mode = "overwrite"  # the same bytes: renews `stored_at`
            else:
                mode = "create" if found is None else "overwrite"  # of another size: damaged, and written anew
            if size_bytes > self._part_bytes:
                part = max(self._part_bytes, -(-size_bytes // _MAX_PARTS))
                self._obstore.put(self._store, key, in_pieces(), chunk_size=part, max_concurrency=_CONCURRENCY)
                return
            try:
                self._obstore.put(self._store, key, whole(), mode=mode, use_multipart=False)
            except self._exists as exc:  # another put came first, or one still runs that may fail (409)
                if self._head(digest) is None:
                    raise _Again("another put of the same blob failed") from exc
            except self._unsupported:  # a store without If-None-Match: to overwrite with the same bytes is as good
                self._obstore.put(self._store, key, whole(), use_multipart=False)

        self._tried(once, what)

    def delete(self, digest: str, *, before: datetime | None = None) -> bool:
        """As in a folder; between looking at `before` and deleting, S3 has no lock: hence GRACE."""

        def once() -> bool:
            found = self._head(digest)
            if found is None or (before is not None and found.stored_at >= before):
                return False
            self._obstore.delete(self._store, _key(digest))
            return True

        gone = self._tried(once, f"blob {digest[:12]} can't be deleted from {self.where}")
        if gone:
            self._cache.drop(digest)
        return gone

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, digest: str) -> bytes:
        """From the local copy when there is a good one."""
        checked(digest)
        cached = self._cache.read(digest)
        if cached is not None:
            return cached

        def once() -> bytes:
            data = bytes(self._obstore.get(self._store, _key(digest)).bytes())
            if fingerprint.of_bytes(data) != digest:
                raise changed(digest, self.where)
            return data

        data = self._tried(once, f"blob {digest[:12]} can't be read from {self.where}", digest=digest)
        if len(data) <= CACHED_BYTES:
            try:
                self._cache.keep(digest, iter((data,)))
            except StoreError as exc:  # a full disk here does not make the blob unreadable
                log.debug("%s", exc)
        return data

    def path(self, digest: str) -> Path:
        checked(digest)
        found = self._cache.find(digest)
        if found is not None:
            return found

        def once() -> Path:
            return self._cache.keep(digest, self._stream(digest))

        return self._tried(once, f"blob {digest[:12]} can't be fetched from {self.where}", digest=digest)

    def open(self, digest: str) -> BufferedReader:
        return self.path(digest).open("rb")

    def fetch(self, digest: str, target: Path) -> int:
        def once() -> int:
            return write_verified(target, self._stream(digest), digest, self.where)

        return self._tried(once, f"blob {digest[:12]} can't be fetched from {self.where}", digest=digest)

    def size(self, digest: str) -> int:
        return self._entry(digest).size_bytes

    def verify(self, digest: str) -> int:
        def once() -> int:
            found, size_bytes = hashlib.sha256(), 0
            for piece in self._stream(digest):
                found.update(piece)
                size_bytes += len(piece)
            if found.hexdigest() != digest:
                raise changed(digest, self.where)
            return size_bytes

        return self._tried(once, f"blob {digest[:12]} can't be read from {self.where}", digest=digest)

    def pages(self, *, size: int = PAGE, after: str = "") -> Iterator[list[BlobEntry]]:
        """A listing that breaks goes on behind the last blob that it gave."""
        place, page = [f"{after[:2]}/{after}" if after else ""], list[BlobEntry]()

        def chunks() -> Iterator[Any]:
            options = {"offset": place[0]} if place[0] else {}
            return iter(self._obstore.list(self._store, chunk_size=min(size, PAGE), **options))

        listing = self._tried(chunks, f"{self.where} can't be listed")
        failures = 0
        while True:
            try:
                found = next(listing, None)
                failures = 0
            except self._errors as exc:
                failures += 1
                if failures >= self._attempts:
                    raise self._explain(exc, f"{self.where} can't be listed") from exc
                _wait(failures)
                listing = chunks()
                continue
            if found is None:
                break
            for meta in found:
                place[0], name = meta["path"], meta["path"].rpartition("/")[2]
                if is_digest(name) and meta["path"] == f"{name[:2]}/{name}":
                    page.append(BlobEntry(name, meta["size"], meta["last_modified"]))
            while len(page) >= size:
                yield page[:size]
                page = page[size:]
        if page:
            yield page

    def sweep(self, before: datetime) -> int:
        """Of the local copies only: S3 itself ends incomplete uploads, by a lifecycle rule of the bucket."""
        return self._cache.sweep(before)

    def __contains__(self, digest: str) -> bool:
        return self._tried(lambda: self._head(digest), f"{self.where} can't be read") is not None

    def __iter__(self) -> Iterator[str]:
        return (entry.digest for page in self.pages() for entry in page)

    def _entry(self, digest: str) -> BlobEntry:
        found = self._tried(lambda: self._head(digest), f"{self.where} can't be read")
        if found is None:
            raise missing(digest, self.where)
        return found

    def _head(self, digest: str) -> BlobEntry | None:
        try:
            meta = self._obstore.head(self._store, _key(digest))
        except FileNotFoundError:
            return None
        return BlobEntry(digest, meta["size"], meta["last_modified"])

    def _stream(self, digest: str) -> Iterator[bytes]:
        for piece in self._obstore.get(self._store, _key(digest)).stream(min_chunk_size=1024 * 1024):
            yield bytes(piece)

    # -- trouble -----------------------------------------------------------------------------------------------------

    def _tried(self, operation: Callable[[], T], what: str, *, digest: str | None = None) -> T:
        """The operation's result, repeated as long as that may help. Raises: StoreError, TamperFound."""
        until_s = clock.elapsed() + _LIMIT_S
        for attempt in range(1, self._attempts + 1):
            try:
                return operation()
            except FileNotFoundError as exc:
                if "NoSuchBucket" not in str(exc) and digest is not None:
                    raise missing(digest, self.where) from exc
                raise self._explain(exc, what) from exc
            except self._repeated as exc:
                # Wrong bytes once may be the way here; wrong bytes each time are the blob's own.
                last = attempt == self._attempts or clock.elapsed() > until_s
                if last or isinstance(exc, self._denied) or _refused(exc):
                    if isinstance(exc, TamperFound):
                        raise
                    raise self._explain(exc, what) from exc
                log.debug("%s, attempt %d: %s", what, attempt, _line(exc))
                _wait(attempt)
        raise AssertionError("unreachable")

    def _explain(self, error: Exception, what: str) -> StoreError:
        text = str(error)
        code = re.search(r"<Code>([A-Za-z0-9]+)</Code>", text)
        said = code[1] if code else ""
        at = f" at {self._endpoint}" if self._endpoint else ""
        if isinstance(error, self._denied) or said in ("ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"):
            reason = {
                "ExpiredToken": "the token in AWS_SESSION_TOKEN has ended: get new credentials",
                "RequestTimeTooSkewed": "this machine's clock is wrong by more than S3 allows",
                "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID",
                "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is unknown there",
            }.get(said, "the credentials may have ended, or lack s3:GetObject, PutObject, DeleteObject or ListBucket")
            return StoreUnavailable(f"{what}: access denied{at} ({said or '403'}): {reason}")
        if said == "NoSuchBucket" or (isinstance(error, FileNotFoundError) and not said):
            return StoreUnavailable(f"{what}: there is no bucket {self._bucket!r}{at}")
        if isinstance(error, OSError) and error.errno is not None:
            return trouble(error, what)
        return StoreUnavailable(f"{what}: {_line(error)}; tried {self._attempts} times, nothing half was kept")


class _Again(Exception):
    """The operation met another one; the same again may succeed."""


class _FileChanged(Exception):
    pass


def _key(digest: str) -> str:
    return f"{checked(digest)[:2]}/{digest}"


def _refused(error: Exception) -> bool:
    """Whether the store said no for good: 4xx, except to wait (408, 409, 425, 429)."""
    found = re.search(r"status code: (4\d\d)", str(error))
    return found is not None and found[1] not in ("408", "409", "425", "429")


def _line(error: Exception) -> str:
    """The first line of an error, without the body that a server sent."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(": <?xml")[0].strip()[:300]


def _wait(attempt: int) -> None:
    time.sleep(min(0.2 * 2 ** (attempt - 1), 3.0) * random.uniform(0.5, 1.5))
