"""One endpoint as a gateway holds it: an epoch of desired state with everything loaded that it needs to answer."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from fairway.contract.columns import Column, Contract
from fairway.contract.request import RequestDecoder, compile_request
from fairway.contract.settings import Settings
from fairway.contract.text import parse_contract, parse_settings
from fairway.data import segment
from fairway.errors import FairwayError, StoreError
from fairway.serve.predictor import Predictor

STAGING = ".staging"


class VersionSpec(msgspec.Struct, frozen=True):
    """Where a version is. dir: its unpacked package. socket: its model process."""

    artifact: str
    dir: str
    socket: str


class Desired(msgspec.Struct, frozen=True):
    """What an endpoint should be, as the supervisor sends it; see serve.desired."""

    endpoint: str
    model: str
    epoch: int
    share_epoch: int
    champion: int | None
    challenger: int | None
    rollout: str | None
    shares: dict[str, float]
    shadows: list[int]
    salt: str
    state: str  # live | no_champion | retired
    staging: bool
    versions: dict[str, VersionSpec]


@dataclass(frozen=True)
class View:
    """What a version looks up before it predicts. latest: only the last event within its window counts."""

    name: str
    source: str
    entity: str
    window_us: int
    latest: bool


@dataclass(frozen=True)
class LoadedVersion:
    """One version, ready to answer. columns: names of what its contract takes from a request."""

    version: int
    artifact: str
    predictor: Predictor
    columns: tuple[str, ...]
    views: tuple[View, ...]
    classes: tuple[Any, ...]
    class_names: tuple[str, ...]
    positive: int | None  # place of the positive class

    def output(self, value: Any) -> dict[str, Any]:
        """One raw output as the answer says it."""
        if not self.classes:
            return {"value": value}
        if self.positive is not None:
            place = self.positive if value >= 0.5 else 1 - self.positive
            return {"label": self.classes[place], "probability": {self.class_names[self.positive]: value}}
        best = max(range(len(value)), key=value.__getitem__)
        return {"label": self.classes[best], "probability": dict(zip(self.class_names, value, strict=True))}


@dataclass(frozen=True)
class SourceTable:
    """How events of a source table are read: columns, and which of them are the key and the time.

    skew_us: how far back a caller's word counts for when an event was known; 0: it is known when it is received.
    known_at: the column that says when an event became known, where it is not its own time.
    """

    columns: tuple[Column, ...]
    key: str
    at: str
    note: segment.Columns
    skew_us: int
    known_at: str | None = None

    def known_us(self, at_us: int, now_us: int, said_us: int | None = None) -> int:
        """An event within the allowed skew was known when it happened, as in its history file; else it is now.

        said_us: of the known_at column, which counts in place of the event's time, and may be a time to come.
        """
        if said_us is not None and said_us > now_us:
            return said_us
        known_us = at_us if said_us is None else max(said_us, at_us)
        return known_us if now_us - self.skew_us <= known_us <= now_us else now_us


@dataclass(frozen=True)
class Endpoint:
    """Immutable: requests that began on an epoch end on it."""

    desired: Desired
    settings: Settings | None = None
    contract: Contract | None = None
    decoder: RequestDecoder | None = None
    note: segment.Columns | None = None
    versions: Mapping[int, LoadedVersion] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, SourceTable] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.desired.endpoint


def load(desired: Desired, predictor: Callable[[VersionSpec], Predictor]) -> Endpoint:
    """Read the packages of an epoch; predictors are made but not warmed. Raises: FairwayError."""
    if not desired.versions or desired.champion is None:
        return Endpoint(desired)
    versions, parts = {}, {}
    for number, spec in desired.versions.items():
        folder = Path(spec.dir)
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            settings = parse_settings((folder / "fairway.toml").read_text(), file="fairway.toml")
            contract = parse_contract((folder / "contract.toml").read_text(), file="contract.toml")
        except OSError as exc:
            raise StoreError(f"the package of {desired.model}@{number} can't be read: {exc.strerror}") from exc
        if desired.staging:
            endpoint = dataclasses.replace(settings.endpoint, at_from_caller=True)
            settings = dataclasses.replace(settings, endpoint=endpoint)
        contract = with_roles(contract, settings)
        parts[int(number)] = settings, contract
        names = tuple(manifest["classes"])
        target = contract.column(settings.target)
        positive = names.index(manifest["positive"]) if manifest["task"] == "binary" else None
        versions[int(number)] = LoadedVersion(
            version=int(number),
            artifact=spec.artifact,
            predictor=predictor(spec),
            columns=tuple(c.name for c in contract.request_columns if c.role != "at"),
            views=tuple(
                View(v["name"], v["source"], v["entity"], int(v["window_us"]), bool(v.get("latest")))
                for v in manifest["views"]
            ),
            classes=tuple(_class_value(name, target) for name in names),
            class_names=names,
            positive=positive,
        )
    if desired.champion not in versions:
        raise FairwayError(f"{desired.endpoint}: champion {desired.champion} is not among the versions to load")
    settings, contract = parts[desired.champion]
    columns = [c for c in contract.request_columns if c.role != "at"]
    return Endpoint(
        desired,
        settings,
        contract,
        compile_request(contract, settings),
        segment.Columns(contract.version, "", segment.column_notes(columns) + segment.lookup_notes(contract.columns)),
        versions,
        source_tables(contract, settings),
    )


def with_roles(contract: Contract, settings: Settings) -> Contract:
    """The contract with the roles that the settings name (see data.project.agree, which also checks them)."""
    roles = {name: role for role, name in _roles(settings) if name is not None}

    def named(column: Column) -> Column:
        if column.name not in roles:
            return column
        known = "later" if roles[column.name] == "target" else column.known
        return dataclasses.replace(column, role=roles[column.name], known=known)  # type: ignore[arg-type]

    return dataclasses.replace(contract, columns=tuple(named(c) for c in contract.columns))


def source_tables(contract: Contract, settings: Settings) -> dict[str, SourceTable]:
    skew = settings.endpoint.max_skew if settings.endpoint.at_from_caller else timedelta(0)
    return {
        name: SourceTable(
            columns,
            settings.sources[name].key,
            settings.sources[name].at,
            segment.Columns(contract.version, name, segment.column_notes(columns)),
            skew // timedelta(microseconds=1),
            settings.sources[name].known_at,
        )
        for name, columns in contract.sources
        if name in settings.sources
    }


def _roles(settings: Settings) -> tuple[tuple[str, str | None], ...]:
    return ("target", settings.target), ("entity", settings.entity), ("at", settings.at)


def _class_value(name: str, target: Column) -> Any:
    """A class in the target's own type, as a label in a training table and in feedback has it."""
    if target.type == "bool":
        return name == "true"
    return int(name) if target.type == "int" else name
