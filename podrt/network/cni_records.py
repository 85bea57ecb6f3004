"""What is known of each attachment that CNI plugins made: ``<state_dir>/cni/<sandbox id>.json``.

Written before the first plugin runs and removed after the last has undone its part, so that whenever the daemon is
killed, the next one can undo it with the configuration and arguments that it was made with. Below the state directory:
plugins' leases outlive a reboot, so what gives them back must too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from podrt.fsutil import unlink_missing_ok, write_atomic
from podrt.network.cni_config import NetworkConfig

log = logging.getLogger(__name__)

VERSION = 1
_SUFFIX = ".json"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attachment: its parameters (CNI spec 1.1, section 3), the network as it was, and what ADD answered."""

    sandbox_id: str
    netns: str
    ifname: str
    args: str
    capabilities: dict[str, Any]
    network: NetworkConfig
    result: dict[str, Any] | None = None
    """None: ADD has not ended."""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    record: Record


class Records:
    """The files, and what is in them, in memory. :meth:`load` comes first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._known: dict[str, Record] = {}
        self._broken: set[str] = set()

    def load(self) -> None:
        """Read all files. One that can't be read is reported and stands for an attachment of unknown parameters."""
        self._known.clear()
        self._broken.clear()
        try:
            paths = sorted(path for path in self.directory.iterdir() if path.name.endswith(_SUFFIX))
        except FileNotFoundError:
            return
        for path in paths:
            sandbox_id = path.name.removesuffix(_SUFFIX)
            try:
                envelope = msgspec.json.decode(path.read_bytes(), type=_Envelope)
                if envelope.version != VERSION or envelope.record.sandbox_id != sandbox_id:
                    raise ValueError(f"version {envelope.version}, of sandbox {envelope.record.sandbox_id!r}")
            except (ValueError, OSError) as error:
                log.error("%s: broken record of a CNI attachment: %s", path, error)
                self._broken.add(sandbox_id)
            else:
                self._known[sandbox_id] = envelope.record

    def __contains__(self, sandbox_id: str) -> bool:
        return sandbox_id in self._known or sandbox_id in self._broken

    def ids(self) -> set[str]:
        return self._known.keys() | self._broken

    def get(self, sandbox_id: str) -> Record | None:
        """None: there is none that can be read."""
        return self._known.get(sandbox_id)

    def save(self, record: Record) -> None:
        """Raises OSError."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = msgspec.json.encode(_Envelope(VERSION, record))
        write_atomic(self.directory / f"{record.sandbox_id}{_SUFFIX}", data)
        self._known[record.sandbox_id] = record
        self._broken.discard(record.sandbox_id)

    def remove(self, sandbox_id: str) -> None:
        """Nothing if there is none."""
        self._known.pop(sandbox_id, None)
        self._broken.discard(sandbox_id)
        unlink_missing_ok(self.directory / f"{sandbox_id}{_SUFFIX}")
