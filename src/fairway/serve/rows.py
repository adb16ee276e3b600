"""One request on its way: rows assigned to versions, looked up, scored by all that must, and written down."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fairway import clock, fingerprint
from fairway.contract.request import Decoded
from fairway.data.segment import Predictions, VersionAnswers
from fairway.errors import RequestError
from fairway.serve.endpoint import Endpoint, LoadedVersion
from fairway.serve.lookups import FAILED, as_columns
from fairway.serve.predictor import PredictFailed, PredictTimeout, RowEvents
from fairway.stats.assignment import assign

_SHED_AFTER, _SHED_S = 3, 5.0

# What a caller is told; what the project's code said is in the log only.
_SAID = {
    "model_error": "the model failed on this row",
    "timeout": "the model did not answer within the endpoint's deadline",
    "shed": "too many rows wait for the model",
}


@dataclass(frozen=True)
class Assigned:
    """Which version serves each row, and why. Lists have one item per row."""

    ids: list[str]
    at_us: list[int]
    entities: list[str | None]
    units: list[str]
    arms: list[int]
    propensities: list[float]


def assign_rows(endpoint: Endpoint, decoded: Decoded, request_id: str, *, workspace: str, now_us: int) -> Assigned:
    """Raises: RequestError 422 at_out_of_range when a row's `at` is too far from now."""
    desired, settings = endpoint.desired, endpoint.settings
    assert settings is not None
    at_us = [now_us if at is None else at for at in decoded.ats]
    if not desired.staging:
        skew_us = int(settings.endpoint.max_skew.total_seconds() * 1_000_000)
        for row, at in enumerate(at_us):
            if abs(at - now_us) > skew_us:
                raise RequestError(
                    f"rows[{row}].{settings.at}: {clock.iso(clock.from_us(at))} is more than "
                    f"{settings.endpoint.max_skew} from now ({clock.iso(clock.from_us(now_us))})",
                    code="at_out_of_range",
                    status=422,
                    field=f"rows[{row}].{settings.at}",
                )
    values = decoded.columns.get(settings.entity) if settings.entity else None
    entities = [None if v is None else str(v) for v in (values if values is not None else [None] * decoded.n)]
    units = [e if e is not None else f"{request_id}/{row}" for row, e in enumerate(entities)]
    shares = {version: share for version, share in desired.shares.items() if share > 0}
    if len(shares) == 1:
        only = int(next(iter(shares)))
        arms, propensities = [only] * decoded.n, [1.0] * decoded.n
    else:
        arms = [int(assign(unit, desired.salt, shares)) for unit in units]
        propensities = [shares[str(arm)] for arm in arms]
    ids = [fingerprint.prediction_id(workspace, endpoint.name, request_id, row) for row in range(decoded.n)]
    return Assigned(ids, at_us, entities, units, arms, propensities)


class Scorer:
    """Asks the versions. A shadow that keeps failing to answer in time is left out for a while (`shed`)."""

    def __init__(self, *, patient: bool) -> None:
        """patient: shadows get the whole deadline (virtual clock: what is logged must not depend on speed)."""
        self._patient = patient
        self._late: dict[str, int] = {}
        self._shed_until_s: dict[str, float] = {}

    async def score(
        self, endpoint: Endpoint, columns: dict[str, list[Any]], assigned: Assigned, events: RowEvents
    ) -> tuple[list[VersionAnswers], list[dict[str, Any] | None]]:
        """Answers of every version that serves or shadows a row, and what the serving version looked up, per row."""
        asked: dict[int, list[int]] = {}
        for row, arm in enumerate(assigned.arms):
            asked.setdefault(arm, []).append(row)
        for shadow in endpoint.desired.shadows:
            asked[shadow] = list(range(len(assigned.arms)))
        looked_up: list[dict[str, Any] | None] = [None] * len(assigned.arms)
        order = sorted(asked)
        blocks = await asyncio.gather(
            *(self._ask(endpoint, v, asked[v], columns, assigned, events, looked_up) for v in order)
        )
        return list(blocks), looked_up

    async def _ask(
        self,
        endpoint: Endpoint,
        number: int,
        rows: list[int],
        columns: dict[str, list[Any]],
        assigned: Assigned,
        events: RowEvents,
        looked_up: list[dict[str, Any] | None],
    ) -> VersionAnswers:
        assert endpoint.settings is not None
        version = endpoint.versions[number]
        served = [assigned.arms[row] == number for row in rows]
        limits = endpoint.settings.endpoint
        deadline_s, shadow_only = limits.deadline.total_seconds(), not any(served)
        started_s = clock.elapsed()
        if shadow_only and not self._patient:
            deadline_s = min(deadline_s, limits.p99.total_seconds())
            if self._shed_until_s.get(version.artifact, 0.0) > started_s:
                return _failed(number, rows, served, "shed", "left out for a while: too slow in shadow", 0.0)
        try:
            answer = await version.predictor.predict(
                *_part(version, rows, columns, assigned.at_us, events), deadline_s=deadline_s
            )
        except PredictTimeout as error:
            if shadow_only:
                self._was_late(version.artifact)
            return _failed(number, rows, served, "timeout", str(error), _ms(started_s))
        except PredictFailed as error:
            return _failed(number, rows, served, "shed" if error.shed else "model_error", str(error), _ms(started_s))
        self._late.pop(version.artifact, None)
        for row, mine, found in zip(rows, served, answer["looked_up"], strict=True):
            if mine:
                looked_up[row] = found
        return VersionAnswers(
            number, rows, served, answer["status"], answer["outputs"], answer["errors"], _ms(started_s)
        )

    def _was_late(self, artifact: str) -> None:
        self._late[artifact] = self._late.get(artifact, 0) + 1
        if self._late[artifact] >= _SHED_AFTER:
            self._shed_until_s[artifact] = clock.elapsed() + _SHED_S
            self._late[artifact] = 0


def record(
    endpoint: Endpoint,
    decoded: Decoded,
    assigned: Assigned,
    answers: list[VersionAnswers],
    looked_up: list[dict[str, Any] | None],
    failed: list[list[str]],
    *,
    gateway: str,
    request_id: str,
    body: str,
    received_us: int,
) -> Predictions:
    """The request as the log keeps it. failed: views whose look-up failed, by row."""
    desired, note = endpoint.desired, endpoint.note
    assert note is not None
    return Predictions(
        endpoint=endpoint.name,
        model=desired.model,
        gateway=gateway,
        contract=note.contract,
        request_id=request_id,
        body=body,
        received_us=received_us,
        rollout=desired.rollout,
        share_epoch=desired.share_epoch,
        ids=assigned.ids,
        at_us=assigned.at_us,
        entities=assigned.entities,
        units=assigned.units,
        arms=assigned.arms,
        propensities=assigned.propensities,
        flags=[f + [f"{FAILED}:{view}" for view in views] for f, views in zip(decoded.flags, failed, strict=True)],
        columns={
            column.name: decoded.columns[column.name] for column in note.columns if column.name in decoded.columns
        },
        looked_up=looked_up,
        answers=answers,
    )


def outputs(endpoint: Endpoint, assigned: Assigned, answers: Sequence[VersionAnswers]) -> list[dict[str, Any]]:
    """One answer per row, from the version that serves it.

    Raises: RequestError 504 timeout, 503 overloaded or model_unavailable when no row has an answer.
    """
    replies: list[dict[str, Any]] = [{} for _ in assigned.ids]
    failures: set[str] = set()
    answered = 0
    for block in answers:
        version = endpoint.versions[block.version]
        for place, row in enumerate(block.rows):
            if not block.served[place]:
                continue
            head = {"id": assigned.ids[row], "version": block.version}
            if block.status[place] == "ok":
                replies[row] = head | version.output(block.outputs[place])
                answered += 1
            else:
                failures.add(block.status[place])
                replies[row] = head | {"error": _SAID[block.status[place]], "code": block.status[place]}
    if not answered and failures == {"timeout"}:
        raise RequestError("the model did not answer within the endpoint's deadline", code="timeout", status=504)
    if not answered and failures == {"shed"}:
        raise RequestError("too many requests wait for the model; try again", code="overloaded", status=503)
    return replies


def _part(
    version: LoadedVersion, rows: list[int], columns: dict[str, list[Any]], at_us: list[int], events: RowEvents
) -> tuple[dict[str, list[Any]], list[int], RowEvents]:
    """What one version gets: the columns of its own contract, of its own rows."""
    whole = len(rows) == len(at_us)
    empty: list[Any] = [None] * len(at_us)
    picked = {name: columns.get(name, empty) for name in version.columns}
    if whole:
        return picked, at_us, events
    return (
        {name: [values[row] for row in rows] for name, values in picked.items()},
        [at_us[row] for row in rows],
        None if events is None else [events[row] for row in rows],
    )


def _failed(number: int, rows: list[int], served: list[bool], status: str, error: str, ms: float) -> VersionAnswers:
    n = len(rows)
    return VersionAnswers(number, rows, served, [status] * n, [None] * n, [error] * n, ms)


def _ms(started_s: float) -> float:
    return round((clock.elapsed() - started_s) * 1000, 3)


def staged_events(body: bytes) -> tuple[list[dict[str, dict[str, list[Any]]] | None] | None, bytes]:
    """Events that a staging request brings with it, in place of the online look-up, and the body without them."""
    if b'"events"' not in body:
        return None, body
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None, body  # the decoder says what is wrong with it
    if not isinstance(value, dict) or "events" not in value:
        return None, body
    try:
        events = [
            {source: as_columns(found) for source, found in row.items() if found} or None if row else None
            for row in value.pop("events")
        ]
    except (AttributeError, TypeError) as exc:
        raise RequestError(
            "events: one object of source: rows per row", code="wrong_type", status=422, field="events"
        ) from exc
    if len(events) != len(value.get("rows", ())):
        raise RequestError("events: as many as rows", code="wrong_length", status=422, field="events")
    return events, msgspec.json.encode(value)
