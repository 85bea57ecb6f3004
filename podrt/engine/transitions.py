"""Which phase may follow which. Pure."""

from __future__ import annotations

from podrt.engine.records import ContainerRecord, Phase, SandboxRecord
from podrt.errors import ConflictError

CONTAINER: dict[Phase, frozenset[Phase]] = {
    Phase.CREATING: frozenset({Phase.CREATED, Phase.REMOVING}),
    Phase.CREATED: frozenset({Phase.RUNNING, Phase.EXITED, Phase.REMOVING}),
    Phase.RUNNING: frozenset({Phase.EXITED}),
    Phase.EXITED: frozenset({Phase.REMOVING}),
    Phase.REMOVING: frozenset(),
}
"""CREATED -> EXITED is a start that failed, or a stop before the start."""

SANDBOX: dict[Phase, frozenset[Phase]] = {
    Phase.CREATING: frozenset({Phase.CREATED, Phase.REMOVING}),
    Phase.CREATED: frozenset({Phase.EXITED, Phase.REMOVING}),
    Phase.EXITED: frozenset({Phase.REMOVING}),
    Phase.REMOVING: frozenset(),
}


def check(record: ContainerRecord | SandboxRecord, to: Phase) -> None:
    """Raise ConflictError, naming both ends, if ``record`` can't go to the phase ``to``."""
    table = CONTAINER if isinstance(record, ContainerRecord) else SANDBOX
    if to not in table.get(record.phase, frozenset()):
        kind = "container" if isinstance(record, ContainerRecord) else "sandbox"
        raise ConflictError(f"{kind} {record.spec.name} ({record.id[:12]}) cannot go from {record.phase} to {to}")
