"""The gateway: what it answers to each request. No HTTP, no store: bytes in, bytes out, desired state from outside."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fairway import clock, fingerprint
from fairway.contract.request import decode_feedback, decode_source
from fairway.data import segment
from fairway.data.segment import EventRow, Events, LabelRow, Labels, kept_event, kept_key
from fairway.errors import FairwayError, RequestError
from fairway.serve import endpoint as endpoints
from fairway.serve import metrics, rows
from fairway.serve.access import PUBLIC, Access, Token
from fairway.serve.answers import BAD_ID, JSON, Answer, as_json, event_id, failure, is_request_id
from fairway.serve.endpoint import STAGING, Desired, Endpoint, SourceTable, VersionSpec
from fairway.serve.lookups import Looked, Lookups
from fairway.serve.online import open_online
from fairway.serve.openapi import DOCUMENT
from fairway.serve.predictor import Predictor, RowEvents
from fairway.serve.replies import Replies
from fairway.serve.spool import Spool

MAX_BODY = 10 * 1024 * 1024
MAX_IN_FLIGHT = 512  # requests
LOADING_WAIT_S = 5.0
SEAL_ROLLOUT_S, SEAL_S = 1.0, 10.0
PRUNE_EVERY = 10_000  # events
DAY_US = 86_400_000_000

log = logging.getLogger(__name__)

_NO_COLUMNS = segment.Columns("", "", [])


class Gateway:
    """One gateway. All methods belong to one event loop.

    online: the online state's file or URL. predictor: makes the connection to a version (a model process, or a model in
    this process). access: None lets everyone in, for use without HTTP.
    """

    def __init__(
        self,
        *,
        workspace: str,
        name: str,
        spool: Path,
        online: str | Path,
        predictor: Callable[[VersionSpec], Predictor],
        access: Access | None,
    ) -> None:
        self.workspace, self.name, self.access = workspace, name, access
        self.spool = Spool(spool, name)
        self.lookups = Lookups(lambda: open_online(online, workspace=workspace), patient=clock.is_virtual())
        self.metrics = metrics.Metrics()
        self.stale = False  # the supervisor can't reach the store: what is active may be out of date
        self.peers: Callable[[], Awaitable[list[tuple[str, dict[str, Any]]]]] | None = None
        self._predictor = predictor
        self._predictors: dict[str, Predictor] = {}  # by artifact: one connection, however many endpoints and epochs
        self._prepared: dict[str, Endpoint] = {}
        self._active: dict[str, Endpoint] = {}
        self._sources: dict[str, SourceTable] = {}
        self._feedback: dict[str, Endpoint] = {}  # latest of each model that had a contract: what labels look like
        self._expected: list[str] | None = None
        self._changed = asyncio.Event()
        self._replies = Replies()
        self._scorer = rows.Scorer(patient=clock.is_virtual())
        self._in_flight = 0
        self._until_prune = PRUNE_EVERY
        self._closing: set[asyncio.Task[None]] = set()

    # -- desired state -----------------------------------------------------------------------------------------------

    def expect(self, names: Sequence[str], tokens: Sequence[Token] | None = None) -> None:
        """Endpoints that should be able to answer (for readiness), and the tokens that are let in."""
        self._expected = list(names)
        if tokens is not None and self.access is not None:
            self.access.tokens = tuple(tokens)

    async def prepare(self, desired: Desired) -> None:
        """Load and warm an epoch beside the active one; changes no answer. Raises: FairwayError."""
        held = self._prepared.get(desired.endpoint) or self._active.get(desired.endpoint)
        if held is not None and held.desired == desired:
            self._prepared[desired.endpoint] = held
            return
        made: dict[str, Predictor] = {}

        def predictor(spec: VersionSpec) -> Predictor:
            if spec.artifact not in self._predictors and spec.artifact not in made:
                made[spec.artifact] = self._predictor(spec)
            return self._predictors.get(spec.artifact) or made[spec.artifact]

        try:
            loaded = await asyncio.to_thread(endpoints.load, desired, predictor)
            await asyncio.gather(*(p.warm() for p in made.values()))
        except Exception as error:
            for unused in made.values():
                await unused.close()
            if isinstance(error, FairwayError):
                raise
            raise FairwayError(f"{desired.endpoint} epoch {desired.epoch} can't be prepared: {error}") from error
        for artifact, new in made.items():
            if self._predictors.setdefault(artifact, new) is not new:
                await new.close()
                loaded = endpoints.load(desired, lambda spec: self._predictors[spec.artifact])
        await self.lookups.watch(loaded)
        self._prepared[desired.endpoint] = loaded

    def activate(self, name: str, epoch: int) -> None:
        """Answer by a prepared epoch from the next request on. Raises: FairwayError when it is not prepared."""
        if (active := self._active.get(name)) is not None and active.desired.epoch == epoch:
            return
        prepared = self._prepared.get(name)
        if prepared is None or prepared.desired.epoch != epoch:
            raise FairwayError(f"{name}: epoch {epoch} is not prepared here")
        self._active[name] = prepared
        if prepared.contract is not None:
            self._sources.update(prepared.sources)
            if not prepared.desired.staging:
                self._feedback[prepared.desired.model] = prepared
        self.metrics.set("fairway_endpoint_epoch", epoch, endpoint=name)
        self._changed.set()
        self._changed = asyncio.Event()
        self._release()

    def drop(self, name: str) -> None:
        """Forget an endpoint (a staging endpoint that is no longer wanted)."""
        self._prepared.pop(name, None)
        self._active.pop(name, None)
        self._release()

    def _release(self) -> None:
        used = {v.artifact for e in (*self._active.values(), *self._prepared.values()) for v in e.versions.values()}
        for artifact in [a for a in self._predictors if a not in used]:
            self._close_later(self._predictors.pop(artifact))

    def _close_later(self, predictor: Predictor) -> None:
        async def close() -> None:
            await asyncio.sleep(10.0)  # requests that began on the old epoch may still ask for it
            await predictor.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def report(self) -> dict[str, Any]:
        """Epochs by endpoint, for the supervisor."""
        return {
            "prepared": {name: e.desired.epoch for name, e in self._prepared.items()},
            "active": {name: e.desired.epoch for name, e in self._active.items()},
            "in_flight": self._in_flight,
        }

    @property
    def loading(self) -> list[str]:
        """Endpoints that should answer and can't yet."""
        if self._expected is None:
            return ["desired state"]
        return [name for name in self._expected if name not in self._active]

    async def maintain(self) -> None:
        """Seal what is due by the machine's clock; called about four times a second. Not with a virtual clock."""
        in_rollout = any(e.desired.rollout is not None for e in self._active.values())
        if self.spool.age_s >= (SEAL_ROLLOUT_S if in_rollout else SEAL_S):
            await self.spool.seal()

    async def close(self) -> None:
        """End: what was answered is sealed, connections are closed."""
        for task in list(self._closing):
            task.cancel()
        await self.spool.close()
        for predictor in self._predictors.values():
            await predictor.close()
        self.lookups.close()

    # -- requests ----------------------------------------------------------------------------------------------------

    async def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request; header names are lower case, the path has no query. Never raises."""
        request_id = headers.get("x-request-id", "")
        if not is_request_id(request_id):
            request_id = f"r-{uuid.uuid4().hex[:16]}"
        try:
            route, role = self._route(method, path)
            if self.access is not None:
                if role is not None and self._expected is None:
                    await self._told()
                self.access.check(method, path, headers, role=role)
            if len(body) > MAX_BODY:
                raise RequestError(f"the body exceeds {MAX_BODY:,} bytes", code="body_too_large", status=413)
            if "x-request-id" in headers and not is_request_id(headers["x-request-id"]):
                raise RequestError(BAD_ID, code="bad_request_id", status=422, field="x-request-id")
            return await route(request_id, body)
        except RequestError as error:
            return failure(error, request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            return failure(RequestError("an error of ours; see the log", code="internal", status=500), request_id)

    def _route(self, method: str, path: str) -> tuple[Callable[[str, bytes], Awaitable[Answer]], str | None]:
        plain: dict[str, tuple[str, Callable[[str, bytes], Awaitable[Answer]], str | None]] = {
            "/healthz": ("GET", self._health, None),
            "/readyz": ("GET", self._ready, None),
            "/metrics": ("GET", self._metrics, "any"),
            "/openapi.json": ("GET", self._openapi, "any"),
            "/v1/feedback": ("POST", self._take_feedback, "feedback"),
        }
        wanted, route, role = plain.get(path, ("", self._health, None))
        parts = path.split("/")
        if not wanted and len(parts) == 5 and parts[:3] == ["", "v1", "models"] and parts[4] == "predict":
            name = parts[3]
            wanted, role = "POST", "scientist" if name.endswith(STAGING) else "predict"

            async def route(request_id: str, body: bytes) -> Answer:
                return await self._predict(name, request_id, body)

        elif not wanted and len(parts) == 4 and parts[:3] == ["", "v1", "sources"]:
            source = parts[3]
            wanted, role = "POST", "feedback"

            async def route(request_id: str, body: bytes) -> Answer:
                return await self._take_events(source, body)

        if not wanted:
            raise RequestError(f"nothing is at {path[:200]}; see /openapi.json", code="not_found", status=404)
        if method != wanted and not (method == "HEAD" and wanted == "GET" and path in PUBLIC):
            raise RequestError(f"{path[:200]} takes {wanted}, not {method[:20]}", code="method", status=405)
        return route, role

    async def _health(self, request_id: str, body: bytes) -> Answer:
        return as_json(200, {"status": "ok"})

    async def _ready(self, request_id: str, body: bytes) -> Answer:
        loading = self.loading
        if loading:
            return as_json(503, {"ready": False, "loading": loading})
        return as_json(200, {"ready": True, "stale": True} if self.stale else {"ready": True})

    async def _metrics(self, request_id: str, body: bytes) -> Answer:
        self.metrics.set("fairway_in_flight_requests", self._in_flight)
        self.metrics.set("fairway_stale", float(self.stale))
        own = [(self.name, self.metrics.snapshot())]
        others = await self.peers() if self.peers is not None else []
        text = metrics.render(sorted(own + others, key=lambda pair: pair[0]))
        return 200, {"content-type": "text/plain; version=0.0.4; charset=utf-8"}, text.encode()

    async def _openapi(self, request_id: str, body: bytes) -> Answer:
        return as_json(200, DOCUMENT)

    # -- predictions -------------------------------------------------------------------------------------------------

    async def _predict(self, name: str, request_id: str, body: bytes) -> Answer:
        if self._in_flight >= MAX_IN_FLIGHT:
            raise RequestError("too many requests are being answered; try again", code="overloaded", status=503)
        self._in_flight += 1
        started_s, status = clock.elapsed(), 500
        try:
            answer = await self._predict_known(await self._endpoint(name), request_id, body)
            status = answer[0]
            return answer
        except RequestError as error:
            status = error.status
            raise
        finally:
            self._in_flight -= 1
            known = name if name in self._active else "unknown"
            self.metrics.add("fairway_requests_total", endpoint=known, status=str(status))
            self.metrics.observe(clock.elapsed() - started_s, endpoint=known)

    async def _endpoint(self, name: str) -> Endpoint:
        """The active epoch; while the gateway starts, requests wait for it. Raises: RequestError."""
        until_s = clock.elapsed() + LOADING_WAIT_S
        while name not in self._active and (self._expected is None or name in self._expected):
            changed, left_s = self._changed, until_s - clock.elapsed()
            if left_s <= 0:
                raise RequestError(f"{name!r} is still loading; try again", code="loading", status=503)
            try:
                await asyncio.wait_for(changed.wait(), min(left_s, 0.25))
            except TimeoutError:
                continue
        active = self._active.get(name)
        if active is None:
            known = ", ".join(n for n in sorted(self._active) if not n.endswith(STAGING)) or "none yet"
            raise RequestError(
                f"no model {name[:100]!r} is served here; known: {known}", code="model_not_found", status=404
            )
        if active.desired.state == "retired":
            raise RequestError(f"{name!r} is retired", code="retired", status=410)
        if active.decoder is None or not active.desired.shares:
            raise RequestError(f"{name!r} has no champion, so nothing answers", code="no_champion", status=503)
        return active

    async def _predict_known(self, endpoint: Endpoint, generated: str, body: bytes) -> Answer:
        assert endpoint.decoder is not None
        given = None
        if endpoint.desired.staging:
            given, body = rows.staged_events(body)
        received_us = clock.to_us(clock.now())
        decoded = endpoint.decoder.decode(body)
        request_id = decoded.request_id if decoded.request_id is not None else generated
        if not is_request_id(request_id):
            raise RequestError(BAD_ID, code="bad_request_id", status=422, field="request_id")
        digest = fingerprint.of_bytes(body)
        if (earlier := await self._replies.earlier(endpoint.name, request_id, digest)) is not None:
            return earlier[0], JSON, earlier[1]
        self._replies.begin(endpoint.name, request_id, digest)
        status, answer = 500, b""
        try:
            assigned = rows.assign_rows(endpoint, decoded, request_id, workspace=self.workspace, now_us=received_us)
            looked = await self._look_up(endpoint, decoded.columns, assigned.at_us, given)
            answers, looked_up = await self._scorer.score(endpoint, decoded.columns, assigned, looked.events)
            if not endpoint.desired.staging:
                assert endpoint.note is not None
                written = rows.record(
                    endpoint, decoded, assigned, answers, looked_up, looked.failed,
                    gateway=self.name, request_id=request_id, body=digest, received_us=received_us,
                )  # fmt: skip
                await self.spool.commit(written, endpoint.note)
            self._count(endpoint, answers)
            outputs = rows.outputs(endpoint, assigned, answers)
            said = {"model": endpoint.desired.model, "request_id": request_id, "outputs": outputs}
            status, answer = 200, msgspec.json.encode(said)
        except RequestError as error:
            status, _, answer = failure(error, request_id)
            if error.status < 500:
                raise
        finally:
            self._replies.end(endpoint.name, request_id, status, answer)
        return status, JSON if status == 200 else JSON | {"retry-after": "1"}, answer

    async def _look_up(
        self, endpoint: Endpoint, columns: dict[str, list[Any]], at_us: list[int], given: RowEvents
    ) -> Looked:
        if given is not None:
            return Looked(given, [[] for _ in at_us])
        try:
            looked = await self.lookups.find(endpoint, columns, at_us)
        except RequestError:
            self.metrics.add("fairway_lookups_failed_total", len(at_us), endpoint=endpoint.name, outcome="refused")
            raise
        if failed := sum(1 for views in looked.failed if views):
            self.metrics.add("fairway_lookups_failed_total", failed, endpoint=endpoint.name, outcome="null")
        return looked

    def _count(self, endpoint: Endpoint, answers: Sequence[segment.VersionAnswers]) -> None:
        counts: dict[tuple[int, bool, str], int] = {}
        for block in answers:
            for served, status in zip(block.served, block.status, strict=True):
                key = (block.version, served, status)
                counts[key] = counts.get(key, 0) + 1
        for (version, served, status), n in counts.items():
            role = "served" if served else "shadow"
            self.metrics.add(
                "fairway_predictions_total", n, endpoint=endpoint.name, version=str(version), role=role, status=status
            )

    # -- labels and events -------------------------------------------------------------------------------------------

    async def _take_feedback(self, request_id: str, body: bytes) -> Answer:
        if not self._feedback:
            await self._any_endpoint()
        given = None
        refused: RequestError | None = None
        for active in self._feedback.values():
            assert active.settings is not None and active.contract is not None
            try:
                given = decode_feedback(active.settings, active.contract, body)
                break
            except RequestError as error:
                refused = refused or error
        if given is None:
            raise refused or RequestError(
                "no model has answered here, so there is nothing to give feedback on", code="no_champion", status=503
            )
        now_us = clock.to_us(clock.now())
        found = [
            LabelRow(
                row.id,
                row.name,
                row.event if row.event is not None else event_id(row.id, row.name, row.value, row.at),
                row.value,
                row.at if row.at is not None else now_us,
            )
            for row in given
        ]
        await self.spool.commit(Labels(now_us, found), _NO_COLUMNS)
        self.metrics.add("fairway_feedback_total", len(found))
        return as_json(202, {"accepted": len(found)})

    async def _take_events(self, source: str, body: bytes) -> Answer:
        if source not in self._sources:
            await self._any_endpoint()
        table = self._sources.get(source)
        if table is None:
            known = ", ".join(sorted(self._sources)) or "none yet"
            raise RequestError(
                f"no live model reads a source {source[:100]!r}; known: {known}", code="source_not_found", status=404
            )
        data = decode_source(table.columns, body)
        now_us = clock.to_us(clock.now())
        events = []
        for place, row in enumerate(data):
            key, at = row[table.key], row[table.at]
            for name, value in ((table.key, key), (table.at, at)):
                if value is None:
                    field = f"rows[{place}].{name}"
                    raise RequestError(f"{field} must not be null", code="missing_field", status=422, field=field)
            if key == "":
                field = f"rows[{place}].{table.key}"
                raise RequestError(f"{field} must not be empty", code="missing_field", status=422, field=field)
            said = row.get(table.known_at) if table.known_at is not None else None
            key = kept_key(key, table.key, table.note.columns)
            events.append(EventRow(key, at, row, table.known_us(at, now_us, said)))
        # The log first: an event that is looked up and then lost could never be repeated in training.
        await self.spool.commit(Events(source, table.note.contract, now_us, events), table.note)
        kept = [kept_event(event, table.note.columns, plain=self.lookups.columns_of(source)) for event in events]
        await self.lookups.put(source, kept)
        await self._prune(len(events), now_us)
        self.metrics.add("fairway_source_events_total", len(events))
        return as_json(202, {"accepted": len(events)})

    async def _prune(self, n: int, now_us: int) -> None:
        """Now and then forget events that no view of a live version reaches any more, with a day to spare."""
        self._until_prune -= n
        if self._until_prune <= 0:
            self._until_prune = PRUNE_EVERY
            await self.lookups.prune(self._active.values(), horizon_us=now_us - DAY_US)

    async def _told(self) -> None:
        """A gateway that has just started does not know the tokens yet. Raises: RequestError 503 loading."""
        until_s = clock.elapsed() + LOADING_WAIT_S
        while self._expected is None:
            if clock.elapsed() >= until_s:
                raise RequestError("the gateway is starting; try again", code="loading", status=503)
            await asyncio.sleep(0.02)

    async def _any_endpoint(self) -> None:
        """While the gateway starts, wait until what it should serve is there."""
        until_s = clock.elapsed() + LOADING_WAIT_S
        while self.loading and clock.elapsed() < until_s:
            await asyncio.sleep(0.02)
