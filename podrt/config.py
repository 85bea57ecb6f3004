"""The daemon's configuration: one frozen struct, read from a TOML file, with every default in one place.

Precedence: command line over file over default. Unknown keys are errors that name the key. Tests and side-by-side
daemons pass their own directories, bridge and subnets (:func:`Config.under` sets all paths below one directory), so
that nothing is shared between two daemons of one machine.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from podrt.errors import InvalidError

DEFAULT_CONFIG_FILE = Path("/etc/podrt/config.toml")
_THRESHOLD = re.compile(r"[0-9]+([KMGT]i?)?|[0-9]{1,2}(\.[0-9]+)?%|100%")
DEFAULT_SOCKET = Path("/run/podrt/podrt.sock")


class Address(NamedTuple):
    host: str
    port: int


def parse_loopback(key: str, text: str) -> Address:
    """``127.0.0.1:6443`` or ``[::1]:6443``; port 0: any. Raises InvalidError that names ``key`` for anything but a
    loopback address.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not colon or not loopback or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidError(f"{key}: must be a loopback address with a port such as 127.0.0.1:6443, not {text!r}")
    return Address(host, int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one daemon. Sizes are bytes, times seconds."""

    run_dir: Path = Path("/run/podrt")
    """Sockets, pinned namespaces, FIFOs, runtime records. Lost at reboot, on purpose."""
    state_dir: Path = Path("/var/lib/podrt")
    """``store.db``, ``images/``, ``pods/<uid>/`` (volumes)."""
    log_dir: Path = Path("/var/log/pods")
    netns_dir: Path = Path("/run/netns")
    """Where network namespaces are pinned by name, visible to ``ip netns``."""
    socket: Path = DEFAULT_SOCKET
    socket_group: str = "podrt"
    listen: str = ""
    """A loopback address for kubectl, such as ``127.0.0.1:6443``, with TLS and a token. Empty: the socket alone."""
    cgroup_root: str = "auto"
    """Path below each hierarchy. ``auto``: ``/podrt``."""
    node_name: str = ""
    """Empty: the host name."""
    bridge: str = "podrt0"
    subnet_v4: str = "10.86.0.0/16"
    subnet_v6: str = "fd86:7064:7274::/64"
    """Empty: no IPv6."""
    mtu: int = 1500
    nft_table: str = "podrt"
    static_pod_dir: Path = Path("/etc/podrt/manifests")
    """Manifests of Pods that the daemon keeps running; it may not exist."""
    cluster_domain: str = "cluster.local"
    log_max_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5
    log_level: str = "info"
    event_ttl: int = 3600
    registry_config_dir: Path = Path("/etc/podrt/certs.d")
    """Mirrors, plain-HTTP registries and private CAs: ``<registry>/hosts.toml``, as containerd has them."""
    registry_auth_file: str = ""
    """Credentials of registries. Empty: the files of podman and docker (containers-auth.json(5))."""
    registry_parallel: int = 3
    """Layers of one image that are fetched or pushed at once."""
    image_gc_high: int = 85
    """Percent of the disk's use above which unused images are removed; 100 for never."""
    image_gc_low: int = 80
    """Percent of the disk's use down to which they are removed."""
    image_pinned: str = "localhost/*"
    """Patterns of image names that are never collected, separated by commas."""
    seccomp_root: Path = Path("/var/lib/podrt/seccomp")
    """Where the files of ``seccompProfile.localhostProfile`` lie; it may not exist."""
    pids_limit: int = 4096
    """Default pids limit of a container; 0 for none."""
    eviction_memory_available: str = "100Mi"
    """Pods are evicted while the node has less memory available: a quantity, or percents of all; 0 for never."""
    eviction_disk_available: str = "10%"
    """The same of the disk that ``state_dir`` is on."""
    eviction_period: int = 10
    """Seconds between two looks at memory and disk, of the node and of Pods with limits."""
    eviction_pressure_transition: int = 300
    """Seconds that the node stays under pressure after the shortage is over."""
    allowed_unsafe_sysctls: str = ""
    """Sysctls that Pods may set beside the safe ones, separated by commas; ``net.core.*`` is all that begin so."""
    cri_socket: str = ""
    """Where a kubelet finds the CRI, usually ``/run/podrt/cri.sock``. Empty: no CRI."""
    cri_stream_address: str = "127.0.0.1:0"
    """Where exec, attach and port-forward of the CRI are served; port 0: any free one."""
    cri_network: str = "bridge"
    """Who connects the sandboxes of the CRI: podrt's own ``bridge``, or the ``cni`` plugins of a cluster."""
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    cni_bin_dirs: str = "/opt/cni/bin:/usr/lib/cni"
    """Directories of CNI plugins, separated by colons; the first that has a plugin wins."""

    @property
    def supervisor_socket(self) -> Path:
        return self.run_dir / "supervisor.sock"

    @classmethod
    def under(cls, root: Path, tag: str, **settings: Any) -> Self:
        """All paths below ``root``, and names of shared kernel objects made from ``tag`` (at most 8 letters).

        The cgroup is ``/podrt-<tag>``, the bridge ``pr-<tag>``, the nft table ``podrt-<tag>``.
        """
        values: dict[str, Any] = {
            "run_dir": root / "run",
            "state_dir": root / "state",
            "log_dir": root / "log",
            "socket": root / "run" / "podrt.sock",
            "cgroup_root": f"/podrt-{tag}",
            "bridge": f"pr-{tag}",
            "nft_table": f"podrt-{tag}",
            "static_pod_dir": root / "manifests",
            "registry_config_dir": root / "certs.d",
            "seccomp_root": root / "seccomp",
            "registry_auth_file": str(root / "auth.json"),
            "image_gc_high": 100,
            "eviction_memory_available": "0",
            "eviction_disk_available": "0",
            "cni_conf_dir": root / "cni" / "net.d",
            "cni_bin_dirs": str(root / "cni" / "bin"),
        }
        return cls(**(values | settings))


def load(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Config:
    """Read ``path`` (default :data:`DEFAULT_CONFIG_FILE`, which may be absent) and apply ``overrides``.

    Raises InvalidError that names the file and key.
    """
    values: dict[str, Any] = {}
    source = path or DEFAULT_CONFIG_FILE
    if path is not None or source.exists():
        try:
            values = tomllib.loads(source.read_text())
        except OSError as error:
            raise InvalidError(f"{source}: can't read the configuration: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise InvalidError(f"{source}: not valid TOML: {error}") from error
    values |= overrides or {}
    return _build(values, str(source))


def _build(values: dict[str, Any], source: str) -> Config:
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for key, value in values.items():
        field = fields.get(key)
        if field is None:
            raise InvalidError(f"{source}: unknown key {key!r}; known keys are {', '.join(sorted(fields))}")
        if field.type == "Path":
            if not isinstance(value, str | Path) or not Path(value).is_absolute():
                raise InvalidError(f"{source}: {key}: must be an absolute path, not {value!r}")
            values[key] = Path(value)
        elif type(value).__name__ != field.type:
            raise InvalidError(f"{source}: {key}: must be of type {field.type}, not {type(value).__name__}")
    config = Config(**values)
    for key in ("subnet_v4", "subnet_v6"):
        text = getattr(config, key)
        try:
            version = ipaddress.ip_network(text).version if text else None
        except ValueError as error:
            raise InvalidError(f"{source}: {key}: {error}") from error
        if version is not None and version != (4 if key == "subnet_v4" else 6):
            raise InvalidError(f"{source}: {key}: {text} is of the wrong address family")
    if not 0 < config.image_gc_low <= config.image_gc_high <= 100:
        raise InvalidError(f"{source}: image_gc_low and image_gc_high: percents, the low one not above the high one")
    for key in ("eviction_memory_available", "eviction_disk_available"):
        if not _THRESHOLD.fullmatch(getattr(config, key)):
            raise InvalidError(f"{source}: {key}: must be like 100Mi or 10%, not {getattr(config, key)!r}")
    if config.eviction_period < 1:
        raise InvalidError(f"{source}: eviction_period: must be at least 1")
    if config.cri_socket and not Path(config.cri_socket).is_absolute():
        raise InvalidError(f"{source}: cri_socket: must be an absolute path, not {config.cri_socket!r}")
    if config.cri_network not in ("bridge", "cni"):
        raise InvalidError(f"{source}: cri_network: must be bridge or cni, not {config.cri_network!r}")
    try:
        parse_loopback("cri_stream_address", config.cri_stream_address)
    except InvalidError as error:
        raise InvalidError(f"{source}: {error}") from error
    if config.registry_parallel < 1:
        raise InvalidError(f"{source}: registry_parallel: must be at least 1")
    if not config.subnet_v4:
        raise InvalidError(f"{source}: subnet_v4: required, for example 10.86.0.0/16")
    return config
