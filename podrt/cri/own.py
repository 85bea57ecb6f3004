"""What of the engine belongs to the CRI: its lists and look-ups show nothing else.

Ids may be given as in containerd by any beginning that only one object has; a kubelet gives them in full.
"""

from __future__ import annotations

from collections.abc import Iterable

from podrt.engine.api import EngineApi
from podrt.engine.specs import ContainerStatus, SandboxState, SandboxStatus
from podrt.errors import InvalidError, NotFoundError

OWNER = "cri"
"""``SandboxSpec.owner`` of all that is made through the CRI."""
_ID_LENGTH = 64


class Own:
    """The sandboxes and containers of the CRI."""

    def __init__(self, engine: EngineApi) -> None:
        self._engine = engine

    def sandboxes(self) -> list[SandboxStatus]:
        """All but those whose set-up is under way: nobody knows their ids yet, and it may fail."""
        return [
            one
            for one in self._engine.list_sandboxes()
            if one.spec.owner == OWNER and one.state is not SandboxState.CREATING
        ]

    def containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        """All, or those of one sandbox."""
        known = {one.id for one in self._engine.list_sandboxes() if one.spec.owner == OWNER}
        return [one for one in self._engine.list_containers(sandbox_id) if one.sandbox_id in known]

    def sandbox(self, identity: str) -> SandboxStatus:
        """Raises NotFoundError, InvalidError for the beginning of several ids."""
        if len(identity) == _ID_LENGTH:
            found = self._engine.sandbox_status(identity)
            if found.spec.owner != OWNER:
                raise NotFoundError(f"sandbox {identity!r} does not exist")
            return found
        full = _complete(identity, (one.id for one in self.sandboxes()), "sandbox")
        return self._engine.sandbox_status(full)

    def container(self, identity: str) -> ContainerStatus:
        """Raises NotFoundError, InvalidError for the beginning of several ids."""
        if len(identity) == _ID_LENGTH:
            found = self._engine.container_status(identity)
            try:
                self.sandbox(found.sandbox_id)
            except NotFoundError:
                raise NotFoundError(f"container {identity!r} does not exist") from None
            return found
        full = _complete(identity, (one.id for one in self.containers()), "container")
        return self._engine.container_status(full)


def _complete(beginning: str, ids: Iterable[str], what: str) -> str:
    if not beginning:
        raise InvalidError(f"the id of the {what} is missing")
    found = [one for one in ids if one.startswith(beginning)]
    if not found:
        raise NotFoundError(f"{what} {beginning!r} does not exist")
    if len(found) > 1:
        raise InvalidError(f"{what} {beginning!r}: {len(found)} ids begin so; give more of it")
    return found[0]
