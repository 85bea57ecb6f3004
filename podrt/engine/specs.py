"""What the engine is asked to run, and what it says about it: plain data in the CRI's terms.

Both the Pod worker and the CRI server translate into these types; nothing here knows a Kubernetes object. Sizes are
bytes, times are seconds since the epoch (float), ids are 64 hexadecimal digits."""

from __future__ import annotations

import enum

import msgspec

from podrt.linux.cgroup.io import DeviceIO
from podrt.linux.cgroup.pressure import Pressure
from podrt.linux.netdev import Interface


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the specs and records: immutable, and encodable as JSON for the records on disk."""


class Protocol(enum.StrEnum):
    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class PortMapping(Struct, frozen=True, kw_only=True):
    container_port: int
    host_port: int
    protocol: Protocol = Protocol.TCP
    host_ip: str = ""


class IdMap(Struct, frozen=True, kw_only=True):
    """One line of a uid_map or gid_map, see user_namespaces(7)."""

    inside: int
    outside: int
    count: int


class Resources(Struct, frozen=True, kw_only=True):
    """Limits of one cgroup in v1 units; 0 or None leaves the kernel's default. ``linux.cgroup`` converts for v2."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    """Microseconds in each ``cpu_period``; 0: no limit."""
    cpu_period: int = 100_000
    memory_limit: int = 0
    memory_swap: int = 0
    """Memory plus swap; 0: equal to ``memory_limit`` where swap is accounted."""
    pids_limit: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepages: dict[str, int] = {}
    unified: dict[str, str] = {}
    """File name -> value, cgroup v2 only."""
    oom_group: bool = True
    """When memory runs out all processes of the container are killed, cgroup v2 only."""


class NamespaceMode(enum.StrEnum):
    POD = "pod"
    CONTAINER = "container"
    NODE = "node"


class SandboxSpec(Struct, frozen=True, kw_only=True):
    """A Pod's shared part: RunPodSandbox's PodSandboxConfig."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    hostname: str = ""
    log_directory: str = ""
    """Absolute; containers' ``log_path`` lies below it. Empty: containers have no log."""
    network: NamespaceMode = NamespaceMode.POD
    """POD or NODE (hostNetwork)."""
    pid: NamespaceMode = NamespaceMode.CONTAINER
    """CONTAINER (one each), POD (shared, with a pause process as PID 1) or NODE (hostPID)."""
    ipc: NamespaceMode = NamespaceMode.POD
    """POD or NODE (hostIPC)."""
    uid_maps: tuple[IdMap, ...] = ()
    """Not empty: the sandbox gets a user namespace of its own with these maps."""
    gid_maps: tuple[IdMap, ...] = ()
    dns_servers: tuple[str, ...] = ()
    dns_searches: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    """All three empty: the host's resolv.conf is used."""
    port_mappings: tuple[PortMapping, ...] = ()
    sysctls: dict[str, str] = {}
    cgroup_parent: str = ""
    """Path of the Pod's cgroup below each hierarchy, made by the engine. Empty: ``<cgroup_root>/pod<uid>``.

    With an ``owner`` it is the owner's, who limits and removes it: the sandbox gets a cgroup of its own in it, named by
    its id."""
    resources: Resources = Resources()
    shm_size: int = 64 * 1024 * 1024
    owner: str = ""
    """Whose it is: "" of the Pods of the API, ``cri`` of a kubelet. Nobody touches another's sandboxes."""
    runtime_handler: str = ""
    privileged: bool = False
    """It may have privileged containers (only asked by the CRI)."""
    mount_label: str = ""
    """The SELinux label of what its containers share: /dev/shm, hosts, hostname and resolv.conf; empty for none."""


class Propagation(enum.StrEnum):
    PRIVATE = "private"
    HOST_TO_CONTAINER = "slave"
    BIDIRECTIONAL = "shared"


class Mount(Struct, frozen=True, kw_only=True):
    """A bind mount into a container."""

    source: str
    """Absolute path on the host; must exist. Resolved in the daemon, handed down as a descriptor."""
    image: str = ""
    """Instead of ``source``: a reference or id of an image, whose files are shown; read-only."""
    image_path: str = ""
    """What of the image: a path below its root; empty for all."""
    destination: str
    read_only: bool = False
    recursive_read_only: bool = False
    propagation: Propagation = Propagation.PRIVATE
    create: bool = False
    """Make a directory where ``source`` is missing, as other runtimes of the CRI do."""
    idmap: bool = True
    """In a sandbox with a user namespace: show the files with the ids that they have on the host."""
    relabel: bool = False
    """Give all files of the source the container's ``mount_label``, if it has one."""


class Device(Struct, frozen=True, kw_only=True):
    host_path: str
    container_path: str
    permissions: str = "rwm"


class SeccompKind(enum.StrEnum):
    RUNTIME_DEFAULT = "RuntimeDefault"
    UNCONFINED = "Unconfined"
    LOCALHOST = "Localhost"


class Security(Struct, frozen=True, kw_only=True):
    """LinuxContainerSecurityContext of the CRI, with the defaults of a plain container."""

    privileged: bool = False
    user: str = ""
    """``uid``, ``name``, ``uid:gid``, ``name:group``; empty: the image's USER, else 0."""
    group: str = ""
    """runAsGroup; overrides the group of ``user``."""
    supplemental_groups: tuple[int, ...] = ()
    merge_image_groups: bool = True
    run_as_non_root: bool = False
    add_capabilities: tuple[str, ...] = ()
    """Without prefix as in Kubernetes, ``NET_ADMIN``; ``ALL`` means all."""
    drop_capabilities: tuple[str, ...] = ()
    add_ambient_capabilities: tuple[str, ...] = ()
    read_only_root: bool = False
    no_new_privs: bool = False
    """allowPrivilegeEscalation: false."""
    seccomp: SeccompKind = SeccompKind.RUNTIME_DEFAULT
    seccomp_profile: str = ""
    """Path of the profile for LOCALHOST."""
    apparmor: str = ""
    """A profile that is loaded, ``unconfined`` or ``runtime/default``; empty: the last, if there is one."""
    unmasked_proc: bool = False
    masked_paths: tuple[str, ...] | None = None
    """None: those of a plain container. Nothing is masked in a privileged one."""
    read_only_paths: tuple[str, ...] | None = None
    process_label: str = ""
    """The SELinux label of its processes; empty: as the host's policy has it."""
    mount_label: str = ""
    """That of its files."""


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """One container: CreateContainer's ContainerConfig."""

    name: str
    attempt: int = 0
    image: str
    """A reference or id that the image store resolves."""
    user_image: str = ""
    """What the user calls the image, where ``image`` is an id; only told."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    command: tuple[str, ...] = ()
    """Replaces the image's ENTRYPOINT (and drops its CMD)."""
    args: tuple[str, ...] = ()
    """Replaces the image's CMD."""
    working_dir: str = ""
    env: tuple[tuple[str, str], ...] = ()
    """On top of the image's."""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    log_path: str = ""
    """Relative to the sandbox's ``log_directory``."""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    oom_score_adj: int = 0
    security: Security = Security()
    stop_signal: str = ""
    """Empty: the image's, else SIGTERM."""
    rlimits: dict[str, tuple[int, int]] = {}
    target: str = ""
    """Id of a running container of the sandbox whose PID namespace it joins (CRI: NamespaceMode TARGET)."""
    pid: NamespaceMode | None = None
    """None: as the sandbox's says. POD needs a sandbox whose PID namespace is shared or the host's."""


class SandboxState(enum.StrEnum):
    CREATING = "creating"
    READY = "ready"
    NOT_READY = "notready"


class SandboxStatus(Struct, frozen=True, kw_only=True):
    id: str
    spec: SandboxSpec
    state: SandboxState
    created_at: float
    ips: tuple[str, ...] = ()
    """IPv4 first; empty with the host's network."""
    netns: str = ""
    """Path of the pinned network namespace; empty with the host's network."""
    pause_pid: int = 0
    cgroup: str = ""


class ContainerState(enum.StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


class ContainerStatus(Struct, frozen=True, kw_only=True):
    id: str
    sandbox_id: str
    spec: ContainerSpec
    state: ContainerState
    image_id: str
    image_ref: str
    created_at: float
    started_at: float = 0.0
    finished_at: float = 0.0
    pid: int = 0
    exit_code: int = 0
    """128 + signal for a killed process."""
    reason: str = ""
    """``Completed``, ``Error``, ``OOMKilled``, ``ContainerStatusUnknown``, ``StartError``, ``ContainerCannotRun``."""
    message: str = ""
    log_path: str = ""
    """Absolute; empty without a log."""
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    stop_signal: str = ""
    """The spec's, else the image's, else SIGTERM."""
    cgroup: str = ""


class EventKind(enum.StrEnum):
    CONTAINER_CREATED = "container_created"
    CONTAINER_STARTED = "container_started"
    CONTAINER_STOPPED = "container_stopped"
    CONTAINER_DELETED = "container_deleted"
    SANDBOX_READY = "sandbox_ready"
    SANDBOX_STOPPED = "sandbox_stopped"
    SANDBOX_DELETED = "sandbox_deleted"
    WARNING = "warning"


class EngineEvent(Struct, frozen=True, kw_only=True):
    kind: EventKind
    sandbox_id: str
    container_id: str = ""
    at: float
    message: str = ""


class Stats(Struct, frozen=True, kw_only=True):
    """Usage of one cgroup, read now."""

    at: float
    cpu_usage_ns: int = 0
    memory_usage: int = 0
    memory_working_set: int = 0
    memory_rss: int = 0
    memory_page_faults: int = 0
    memory_major_page_faults: int = 0
    memory_limit: int = 0
    """0: none of its own."""
    swap_usage: int = 0
    swap_limit: int = -1
    """-1: none, or swap is not counted here."""
    pids: int = 0
    """Processes and threads."""
    processes: int = 0
    cpu_throttled_ns: int = 0
    oom_kills: int = 0
    pressure: dict[str, Pressure] = {}
    """By ``cpu``, ``memory`` and ``io``; empty without pressure information."""
    network: tuple[Interface, ...] = ()
    """Of a sandbox with a network of its own; with the loopback interface."""
    rootfs_at: float = 0.0
    """When the next two were measured; 0: not yet."""
    rootfs_bytes: int = 0
    rootfs_inodes: int = 0
    devices: tuple[DeviceIO, ...] = ()
    """Only in detailed readings, on cgroup v2."""
    more: dict[str, int] = {}
    """Only in detailed readings: further numbers, as the files of ``linux.cgroup`` name them."""
