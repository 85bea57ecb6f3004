"""The client of the supervisor against one that never answers."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from podrt.config import Config
from podrt.engine import supervisor
from podrt.engine.supervisor import SupervisorClient
from podrt.errors import UnavailableError
from podrt.supervisor import wire
from podrt.supervisor.protocol import LaunchSpec


async def test_a_launch_that_is_not_answered_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LAUNCH_SECONDS", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client = SupervisorClient(Config.under(tmp_path, "unit"))
    client._link.use(ours)
    try:
        with pytest.raises(UnavailableError, match=r"did not answer launch in 0\.05 s"):
            await client.launch(LaunchSpec(id="slow", kind="container"))
        received = wire.receive(theirs)
        assert received is not None
        # What starts after all is killed: nobody would know of it.
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        pidfd = os.pidfd_open(process.pid)
        reply = {"seq": received[0]["seq"], "pid": process.pid, "start_time": 1, "terminal": False, "warnings": []}
        wire.send(theirs, reply, [pidfd])
        os.close(pidfd)
        assert await asyncio.wait_for(process.wait(), 10) == -9
    finally:
        await client.close()
        theirs.close()
