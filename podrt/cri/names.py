"""The names of sandboxes and containers, each given out once, as containerd does it.

A name is metadata and attempt together. It is taken from the moment that the first request for it comes until the
object is gone, so of two equal requests the second fails with ALREADY_EXISTS: the first may not have ended yet, and
nothing is made twice. A kubelet then counts up the attempt.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from podrt.engine.specs import ContainerSpec, SandboxSpec
from podrt.errors import AlreadyExistsError


def of_sandbox(spec: SandboxSpec) -> str:
    return f"{spec.name}_{spec.namespace}_{spec.uid}_{spec.attempt}"


def of_container(spec: ContainerSpec, sandbox: SandboxSpec) -> str:
    return f"{spec.name}_{sandbox.name}_{sandbox.namespace}_{sandbox.uid}_{spec.attempt}"


class Names:
    """Of one kind of object. ``exists`` says whether an id is still there: names of what is gone are free."""

    def __init__(self, what: str, exists: Callable[[str], bool]) -> None:
        self._what = what
        self._exists = exists
        self._ids: dict[str, str] = {}
        """Name -> id, "" while it is being made."""

    def found(self, name: str, identity: str) -> None:
        """An object that was there before this daemon."""
        self._ids[name] = identity

    @contextlib.contextmanager
    def reserved(self, name: str) -> Iterator[Callable[[str], None]]:
        """The name is the caller's inside, and its object's afterwards if the caller has told its id.

        Raises AlreadyExistsError."""
        holder = self._ids.get(name)
        if holder is not None and (not holder or self._exists(holder)):
            by = f"by {self._what} {holder}" if holder else f"for a {self._what} that is being made"
            raise AlreadyExistsError(f"the name {name!r} is reserved {by}")
        self._ids[name] = ""
        try:
            yield lambda identity: self._ids.__setitem__(name, identity)
        finally:
            if not self._ids[name]:
                del self._ids[name]

    def forget(self, name: str) -> None:
        """The object of this name is gone."""
        if (holder := self._ids.get(name)) and not self._exists(holder):
            del self._ids[name]
