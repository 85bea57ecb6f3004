"""What the containers of a sandbox share as files: /dev/shm, and hosts, hostname and resolv.conf."""

from __future__ import annotations

import os

from podrt.engine import confinement, launch, parts
from podrt.engine.specs import NamespaceMode
from podrt.engine.state import Sandbox
from podrt.linux import abi, libc, selinux
from podrt.network import files
from podrt.network.types import Attachment, Dns


def mount_shm(sandbox: Sandbox) -> None:
    """A tmpfs that the containers share, owned by their root. Raises OSError."""
    spec = sandbox.record.spec
    sandbox.shm.mkdir(mode=0o700)
    confinement.check_labels(f"sandbox {spec.name}", spec.mount_label)
    label = f',context="{spec.mount_label}"' if spec.mount_label else ""
    owner = f",uid={launch.outside(spec.uid_maps, 0)},gid={launch.outside(spec.gid_maps, 0)}" if spec.uid_maps else ""
    flags = abi.MS_NOSUID | abi.MS_NODEV | abi.MS_NOEXEC
    libc.mount("shm", str(sandbox.shm), "tmpfs", flags, f"mode=1777,size={spec.shm_size}{owner}{label}")


def unmount_shm(sandbox: Sandbox) -> None:
    """Nothing if it is not mounted. Raises OSError."""
    try:
        libc.umount2(str(sandbox.shm), abi.MNT_DETACH | abi.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in parts.NOT_MOUNTED:
            raise


def write(sandbox: Sandbox, connected: Attachment | None) -> None:
    """hosts, hostname and resolv.conf, shared by the containers and owned by their root. Where the spec says nothing of
    DNS, the network's word counts before the host's."""
    spec = sandbox.record.spec
    confinement.check_labels(f"sandbox {spec.name}", spec.mount_label)
    own = spec.network != NamespaceMode.NODE
    hostname = spec.hostname if own and spec.hostname else os.uname().nodename
    ips = connected.ips if connected is not None else ()
    dns = Dns(spec.dns_servers, spec.dns_searches, spec.dns_options)
    if connected is not None and not any(dns):
        dns = connected.dns
    contents = {
        "hostname": f"{hostname}\n",
        "hosts": files.hosts(ips, hostname) if own else parts.host_text("/etc/hosts"),
        "resolv.conf": files.resolv_conf(*dns, parts.host_text("/etc/resolv.conf")),
    }
    uid, gid = launch.outside(spec.uid_maps, 0), launch.outside(spec.gid_maps, 0)
    sandbox.files.mkdir(mode=0o700)
    for name, text in contents.items():
        path = sandbox.files / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, text.encode())
            os.fchmod(fd, 0o644)
            if uid or gid:
                os.fchown(fd, uid, gid)
        finally:
            os.close(fd)
        if spec.mount_label:
            selinux.relabel(os.fspath(path), spec.mount_label)
