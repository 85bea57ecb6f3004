"""How a container ends: from its process's exit to its final status.

Order: the out-of-memory count is read while the cgroup still has it; what is left in the cgroup is killed (processes
that share a PID namespace outlive the first one); the rest of the output goes to the log; then the record says
exited; then the event is sent. Last the supervisor forgets the process and the cgroup goes, so a daemon that dies
anywhere in between finds the exit again."""

from __future__ import annotations

import asyncio
import errno
import logging
import time

from podrt.engine.records import Phase
from podrt.engine.specs import EventKind
from podrt.engine.state import Container, Exit, Machine
from podrt.errors import LaunchError, PodrtError, UnavailableError

log = logging.getLogger(__name__)

UNKNOWN = "ContainerStatusUnknown"
_UNKNOWN_CODE = 137
_START_ERROR_CODE = 128
_FORGET_TRIES = 50


async def exited(machine: Machine, unit: Container, how: Exit) -> None:
    """Bring a running container whose process has ended to its end. Nothing if it is not running."""
    async with unit.lock:
        if unit.record.phase is Phase.RUNNING:
            await finish(machine, unit, how)
            return
        if unit.record.phase is Phase.CREATED:
            return  # during recovery, which knows of it
    # Its start could not be recorded, so it was killed.
    await _forget(machine, unit.id)


async def finish(machine: Machine, unit: Container, how: Exit) -> None:
    """:func:`exited` for a caller that holds the lock."""
    record = unit.record
    out_of_memory = _out_of_memory(machine, record.cgroup)
    await _kill_rest(machine, unit)
    await _drain(machine, unit)
    code, reason = outcome(how, out_of_memory)
    unit.close()
    unit.change(Phase.EXITED, exit_code=code, reason=reason, message=_message(how), finished_at=how.at or time.time())
    machine.bus.send(EventKind.CONTAINER_STOPPED, record.sandbox_id, record.id, at=unit.record.finished_at)
    await clean_up(machine, unit)


async def clean_up(machine: Machine, unit: Container) -> None:
    """What an exited container needs no more."""
    machine.spawn(_forget(machine, unit.id), f"forgetting container {unit.id[:12]}")
    await _remove_cgroup(machine, unit.record.cgroup)


def outcome(how: Exit, out_of_memory: bool) -> tuple[int, str]:
    """Exit code and reason of an exit. Pure."""
    if not how.known:
        return _UNKNOWN_CODE, UNKNOWN
    code = 128 + how.signal if how.signal else how.code
    if code and out_of_memory:
        return code, "OOMKilled"
    return code, "Error" if code else "Completed"


def _message(how: Exit) -> str:
    return "" if how.known else "The container could not be located when the engine looked for it"


async def failed_to_start(machine: Machine, unit: Container, message: str) -> None:
    """A container whose command was never executed is exited; the caller holds its lock."""
    now = time.time()
    unit.close()
    unit.change(
        Phase.EXITED,
        exit_code=_START_ERROR_CODE,
        reason="StartError",
        message=message,
        started_at=0.0,
        finished_at=now,
    )
    machine.bus.send(EventKind.CONTAINER_STOPPED, unit.record.sandbox_id, unit.id, message=message, at=now)
    await _remove_cgroup(machine, unit.record.cgroup)


def _out_of_memory(machine: Machine, cgroup: str) -> bool:
    try:
        return machine.cgroups.oom_kills(cgroup) > 0
    except OSError as error:
        log.warning("cgroup %s: can't tell whether memory ran out: %s", cgroup, error)
        return False


async def _kill_rest(machine: Machine, unit: Container) -> None:
    cgroup = unit.record.cgroup
    try:
        if machine.cgroups.pids(cgroup):
            await asyncio.to_thread(machine.cgroups.kill, cgroup)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("container %s: killing what it left: %s", unit.id[:12], error)


async def _drain(machine: Machine, unit: Container) -> None:
    try:
        await machine.supervisor.drain(unit.id)
    except PodrtError as error:
        # Without the supervisor the rest of the output stays in the FIFOs; it must not keep the status from being told.
        log.warning("container %s: its last output may be missing from the log: %s", unit.id[:12], error)


async def _forget(machine: Machine, identity: str) -> None:
    """A new supervisor hears of the end of a process that it has adopted a little later than this daemon does."""
    for _ in range(_FORGET_TRIES):
        try:
            await machine.supervisor.forget(identity)
            return
        except UnavailableError:
            return  # the next daemon does it
        except LaunchError as error:
            if error.errno != errno.EBUSY:
                raise
        await asyncio.sleep(0.2)


async def _remove_cgroup(machine: Machine, cgroup: str) -> None:
    try:
        await asyncio.to_thread(machine.cgroups.remove, cgroup)
    except OSError as error:
        log.warning("cgroup %s: removing: %s; tried again when its container is removed", cgroup, error)
