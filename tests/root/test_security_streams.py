"""What a hostile container can do to the process that keeps everyone's output, through the streams that it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.framework.supervisor import SupervisorBox

STEAL = r"""
import os, time
os.set_blocking(1, False)
end = time.time() + 0.8
if os.fork() == 0:
    while time.time() < end:
        try: os.read(1, 1 << 16)
        except BlockingIOError: pass
    os._exit(0)
while time.time() < end:
    try: os.write(1, b"x\n" * 100)
    except BlockingIOError: pass
"""


@pytest_asyncio.fixture
async def box() -> AsyncIterator[SupervisorBox]:
    made = SupervisorBox()
    await made.start()
    yield made
    problems = await made.destroy()
    assert not problems, "\n".join(problems)


async def test_a_container_that_reads_its_own_output(box: SupervisorBox) -> None:
    """It competes with the supervisor for its own FIFO and ends in the middle of it: others are served all the same,
    its exit is told, and no internal error happens (the fixture looks for one)."""
    for number in range(3):
        name = f"thief{number}"
        await box.launch(box.spec(name, "/usr/bin/python3", "-S", "-c", STEAL))
        assert await box.run(f"other{number}", "echo here") == "here\n"
        assert (await box.ended(name)).code == 0
