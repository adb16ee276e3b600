"""Natural batching, deadlines and deaths between a gateway and a model process; the process is a small real server."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fairway.data.segment import VersionAnswers
from fairway.serve import wire
from fairway.serve.predictor import MAX_WAITING, PredictFailed, PredictTimeout, SocketPredictor

Answer = Callable[[dict[str, Any]], Awaitable[None]]


class Server:
    """Answers each row with its own `x`; `before` may wait, or raise to drop the connection."""

    def __init__(self, path: Path, before: Answer) -> None:
        self.path, self.before = path, before
        self.batches: list[int] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Server":
        self.server = await asyncio.start_unix_server(self.client, path=str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0.01)  # lets the connections' tasks see their end

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                message = await wire.receive(reader)
                if message["op"] == "predict":
                    self.batches.append(message["n"])
                    await self.before(message)
                n = message.get("n", 0)
                answer = {"ok": True, "outputs": message.get("columns", {}).get("x"), "status": ["ok"] * n}
                writer.write(wire.frame(answer | {"errors": [None] * n, "looked_up": [None] * n, "ms": 0.0}))
        except (EOFError, ConnectionError):
            writer.close()


async def nothing(message: dict[str, Any]) -> None:
    return None


def ask(predictor: SocketPredictor, *values: float, deadline_s: float = 5.0) -> Awaitable[dict[str, Any]]:
    return predictor.predict({"x": list(values)}, [0] * len(values), None, deadline_s=deadline_s)


def test_what_arrives_during_a_batch_makes_the_next_one(tmp_path: Path) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def wait(message: dict[str, Any]) -> None:
            await gate.wait()

        async with Server(tmp_path / "s", wait) as server:
            predictor = SocketPredictor(server.path)
            await predictor.warm()
            first = asyncio.ensure_future(ask(predictor, 0.0))
            while not server.batches:
                await asyncio.sleep(0.001)
            others = [asyncio.ensure_future(ask(predictor, float(i), float(-i))) for i in range(1, 20)]
            await asyncio.sleep(0.01)
            gate.set()
            assert (await first)["outputs"] == [0.0]
            for i, answer in enumerate(await asyncio.gather(*others), 1):
                assert answer["outputs"] == [float(i), float(-i)]
            assert server.batches == [1, 38]
            await predictor.close()

    asyncio.run(run())


def test_a_deadline_ends_the_call_and_not_the_next_one(tmp_path: Path) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def wait(message: dict[str, Any]) -> None:
            await gate.wait()

        async with Server(tmp_path / "s", wait) as server:
            predictor = SocketPredictor(server.path)
            with pytest.raises(PredictTimeout):
                await ask(predictor, 1.0, deadline_s=0.05)
            gate.set()
            assert (await ask(predictor, 2.0))["outputs"] == [2.0]
            await predictor.close()

    asyncio.run(run())


def test_a_row_that_kills_its_process_fails_alone(tmp_path: Path) -> None:
    async def run() -> None:
        async def die(message: dict[str, Any]) -> None:
            if 13.0 in message["columns"]["x"]:
                raise ConnectionError

        async with Server(tmp_path / "s", die) as server:
            predictor = SocketPredictor(server.path)
            answers = await asyncio.gather(*(ask(predictor, x) for x in (1.0, 13.0, 2.0)), return_exceptions=True)
            assert isinstance(answers[1], PredictFailed)
            assert [a["outputs"] for a in (answers[0], answers[2]) if isinstance(a, dict)] == [[1.0], [2.0]]
            await predictor.close()

    asyncio.run(run())


def test_a_process_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        predictor = SocketPredictor(tmp_path / "s")
        call = asyncio.ensure_future(ask(predictor, 1.0))
        await asyncio.sleep(0.1)
        async with Server(tmp_path / "s", nothing):
            assert (await call)["outputs"] == [1.0]
            await predictor.close()

    asyncio.run(run())


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def wait(message: dict[str, Any]) -> None:
            await gate.wait()

        async with Server(tmp_path / "s", wait) as server:
            predictor = SocketPredictor(server.path)
            calls = [asyncio.ensure_future(ask(predictor, *([0.0] * 1000))) for _ in range(MAX_WAITING // 1000)]
            await asyncio.sleep(0.01)
            with pytest.raises(PredictFailed) as refused:
                await ask(predictor, 1.0)
            assert refused.value.shed
            gate.set()
            await asyncio.gather(*calls)
            await predictor.close()

    asyncio.run(run())


def test_a_slow_shadow_is_given_up_and_then_left_out(tmp_path: Path, packages: dict[int, Path]) -> None:
    from fairway.contract.request import Decoded
    from fairway.serve import endpoint, rows
    from fairway.serve.endpoint import Desired, VersionSpec

    async def run() -> None:
        end = asyncio.Event()

        async def never(message: dict[str, Any]) -> None:
            await end.wait()

        class Same(SocketPredictor):
            async def predict(self, columns: Any, at_us: Any, events: Any, *, deadline_s: float) -> dict[str, Any]:
                if self.socket.name == "slow":
                    return await super().predict(columns, at_us, events, deadline_s=deadline_s)
                n = len(at_us)
                return {"outputs": [0.5] * n, "status": ["ok"] * n, "errors": [None] * n, "looked_up": [None] * n}

        async with Server(tmp_path / "slow", never) as server:
            specs = {
                "1": VersionSpec("one", str(packages[1]), str(tmp_path / "fast")),
                "2": VersionSpec("two", str(packages[2]), str(server.path)),
            }
            desired = Desired(
                "small", "small", 1, 1, 1, 2, "rollout-1", {"1": 1.0}, [2], "s", "live", False, specs
            )  # fmt: skip
            loaded = endpoint.load(desired, lambda spec: Same(Path(spec.socket)))
            decoded = Decoded(None, {"who": ["a"], "size": [1.0], "color": ["red"]}, [[]], [None], 1)
            assigned = rows.assign_rows(loaded, decoded, "r1", workspace="default", now_us=0)
            scorer = rows.Scorer(patient=False)
            statuses = []
            for _ in range(5):
                blocks, _ = await scorer.score(loaded, decoded.columns, assigned, None)
                served: VersionAnswers = blocks[0]
                assert (served.version, served.status, served.outputs) == (1, ["ok"], [0.5])
                statuses.append(blocks[1].status[0])
            end.set()
            assert statuses == ["timeout", "timeout", "timeout", "shed", "shed"]

    asyncio.run(run())
