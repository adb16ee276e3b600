"""The supervisor's hold on its child processes."""

import asyncio
import time
from pathlib import Path

from fairway.process.children import Child


def test_a_child_that_keeps_dying_can_be_stopped_between_two_lives(tmp_path: Path) -> None:
    async def go() -> float:
        child = Child("zen", "this", [], output=tmp_path / "out.log")  # prints and ends
        child.deaths = 20  # as after many: the next pause is the longest
        while child.last_exit is None:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await child.stop(grace_s=1.0)
        return time.monotonic() - began

    assert asyncio.run(go()) < 5  # the pause itself is 10 s
    assert b"Zen" in (tmp_path / "out.log").read_bytes()
