"""Small adapters between the engine and the parts it stands on."""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from podrt.engine import trees
from podrt.engine.records import Phase, SandboxRecord
from podrt.engine.specs import ContainerSpec
from podrt.engine.state import Machine
from podrt.errors import ConflictError
from podrt.linux.cgroup import DEFAULT_RULES, DeviceRule
from podrt.network import forward
from podrt.network.types import Attachment, AttachRequest, Dns, Port

T = TypeVar("T", bound=msgspec.Struct)

NOT_MOUNTED = (errno.EINVAL, errno.ENOENT, errno.ENOTDIR)
"""What umount2(2) says of a path where nothing is mounted."""


def replaced(struct: T, **fields: Any) -> T:
    """A copy with other fields."""
    return msgspec.structs.replace(struct, **fields)


def cgroup_path(machine: Machine, name: str) -> str:
    return f"{machine.cgroups.root.rstrip('/')}/{name}"


def is_cgroup(path: str) -> bool:
    """Whether ``path`` names a cgroup below the hierarchies' roots, and can't name another by way of ``..``."""
    return path.startswith("/") and path != "/" and posixpath.normpath(path) == path and not path.startswith("//")


def device_rules(spec: ContainerSpec) -> tuple[DeviceRule, ...] | None:
    """Which devices a container may open; None: all."""
    if spec.security.privileged:
        return None
    added = []
    for device in spec.devices:
        for node in trees.nodes([device]):
            added.append(DeviceRule(node.kind, node.major, node.minor, device.permissions))
    return (*DEFAULT_RULES, *added)


async def attach(machine: Machine, record: SandboxRecord, netns: str) -> Attachment:
    """Connect a sandbox's network namespace. Raises PodrtError (addresses, host ports, plugins), OSError."""
    spec = record.spec
    request = AttachRequest(
        sandbox_id=record.id,
        netns=netns,
        ports=tuple(
            Port(one.container_port, one.host_port, one.protocol.value, one.host_ip) for one in spec.port_mappings
        ),
        name=spec.name,
        namespace=spec.namespace,
        uid=spec.uid,
        annotations=spec.annotations,
        dns=Dns(spec.dns_servers, spec.dns_searches, spec.dns_options),
        cgroup=spec.cgroup_parent or record.cgroup,
    )
    return await machine.network.attach(spec.owner, request)


async def detach(machine: Machine, sandbox_id: str) -> None:
    """Undo :func:`attach`; nothing if it is undone."""
    await machine.network.detach(sandbox_id)


async def connect_port(record: SandboxRecord, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """TCP to localhost:``port`` of a sandbox. Raises OSError, ConflictError if the sandbox is not ready."""
    if record.phase is not Phase.CREATED:
        raise ConflictError(f"sandbox {record.spec.name} ({record.id[:12]}) is not ready: no port of it can be reached")
    return await forward.connect_port(record.namespaces.get("net"), port)


async def recover_network(machine: Machine, live: set[str]) -> None:
    """Have the network drop what belongs to no sandbox of ``live``."""
    await machine.network.recover(live)


async def wait_pidfd(pidfd: int, timeout: float) -> bool:
    """Whether the process has ended within ``timeout`` seconds."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    # A copy, so that the caller may close its own meanwhile.
    copy = os.dup(pidfd)
    loop.add_reader(copy, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), timeout)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(copy)
        os.close(copy)
    return True


def host_text(path: str) -> str:
    """A text file of the host; "" if it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
