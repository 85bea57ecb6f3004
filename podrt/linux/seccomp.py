"""Compiled system call filters. The only file that imports pyseccomp; the daemon compiles, the child only loads.

A program is the kernel's ``struct sock_filter`` array as bytes, shortened by :mod:`podrt.linux.seccomp_compact`.
Compiling takes milliseconds, so results are kept; the library is loaded on first use.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from podrt.errors import InvalidError, UnsupportedError
from podrt.linux import inroot
from podrt.linux import seccomp_default as default
from podrt.linux.seccomp_compact import compact
from podrt.linux.seccomp_default import Condition

RUNTIME_DEFAULT = "RuntimeDefault"

_MAX_PROFILE_BYTES = 1 << 20
_COMPATIBLE = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3, "ppc64le": 0xC0000015}
_OPERATORS = {
    "==": "SCMP_CMP_EQ",
    "!=": "SCMP_CMP_NE",
    "<": "SCMP_CMP_LT",
    ">": "SCMP_CMP_GT",
    "&": "SCMP_CMP_MASKED_EQ",
}

Profile = Mapping[str, Any]


def compile(kind: str, capabilities: Collection[str] = (), root: str = "/") -> bytes:
    """The program of ``RuntimeDefault``, or of an OCI profile (config-linux.md, seccomp) in the JSON file ``kind``.

    A relative ``kind`` lies below ``root``, which neither ``..`` nor a link leads out of. ``capabilities`` are those of
    the container, with prefix: some calls are allowed along with them. Raises InvalidError that names the file and key,
    UnsupportedError if libseccomp is missing, OSError if the file can't be read.
    """
    if kind == RUNTIME_DEFAULT:
        guards = frozenset(default.BY_CAPABILITY) & frozenset(capabilities)
        return _compile_default(guards)
    with open(_open(kind, root), "rb") as file:
        data = file.read(_MAX_PROFILE_BYTES + 1)
    if len(data) > _MAX_PROFILE_BYTES:
        raise InvalidError(f"seccomp profile {kind}: larger than {_MAX_PROFILE_BYTES} bytes")
    return _compile_file(kind, data, frozenset(capabilities))


def _open(path: str, root: str) -> int:
    # A FIFO must not block: it reads as empty, which is no profile.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if path.startswith("/"):
        return os.open(path, flags)
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return inroot.open_in_root(root_fd, path, flags)
    finally:
        os.close(root_fd)


@functools.lru_cache(maxsize=64)
def _compile_default(capabilities: frozenset[str]) -> bytes:
    return compile_profile(default_profile(capabilities), "the default seccomp profile")


@functools.lru_cache(maxsize=64)
def _compile_file(path: str, data: bytes, capabilities: frozenset[str]) -> bytes:
    name = f"seccomp profile {path}"
    try:
        profile = json.loads(data)
    except ValueError as error:
        raise InvalidError(f"{name}: not valid JSON: {error}") from error
    return compile_profile(profile, name, capabilities)


def default_profile(capabilities: Collection[str]) -> dict[str, Any]:
    """The default filter in OCI form."""
    machine = platform.machine()
    names = [*default.ALWAYS, *default.BY_MACHINE.get(machine, ())]
    for capability, more in default.BY_CAPABILITY.items():
        if capability in capabilities:
            names += more
    rules: list[dict[str, Any]] = [{"names": names, "action": "SCMP_ACT_ALLOW"}]
    conditional = list(default.CONDITIONAL)
    if "CAP_SYS_ADMIN" not in capabilities:
        conditional += default.WITHOUT_SYS_ADMIN
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    rules += [
        {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [_oci_argument(condition)]}
        for name, condition in conditional
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": list(_COMPATIBLE.get(machine, ())),
        "syscalls": rules,
    }


def _oci_argument(condition: Condition) -> dict[str, Any]:
    return {
        "index": condition.argument,
        "op": _OPERATORS[condition.op],
        "value": condition.value,
        "valueTwo": condition.value_two,
    }


def compile_profile(profile: Profile, name: str, capabilities: Collection[str] = ()) -> bytes:
    """Compile an OCI profile; ``name`` stands in messages. Raises InvalidError, UnsupportedError."""
    library = _library()
    if not isinstance(profile, dict):
        raise InvalidError(f"{name}: must be a JSON object")
    default_action = _action(
        library, profile.get("defaultAction"), profile.get("defaultErrnoRet"), f"{name}: defaultAction"
    )
    result = library.SyscallFilter(default_action)
    # A binary tree over the numbers: a call costs about ten comparisons instead of hundreds.
    result.set_attr(library.Attr.CTL_OPTIMIZE, 2)
    _add_architectures(library, result, profile, name)
    allowed = -1
    rules = profile.get("syscalls", [])
    if not isinstance(rules, list):
        raise InvalidError(f"{name}: syscalls: must be a list")
    for index, rule in enumerate(rules):
        allowed = max(
            allowed, _add_rule(library, result, rule, f"{name}: syscalls[{index}]", default_action, capabilities)
        )
    program = _export(result)
    if default_action >> 16 == 0x0005:
        program = _answer_enosys_beyond(allowed) + program
    return compact(program)


def _library() -> Any:
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise UnsupportedError(f"system call filters need libseccomp: {error}; install libseccomp2") from error
    return pyseccomp


def _action(library: Any, action: object, errno_value: object, where: str) -> int:
    number = errno_value if isinstance(errno_value, int) and 0 < errno_value < 4096 else errno.EPERM
    actions = {
        "SCMP_ACT_ALLOW": library.ALLOW,
        "SCMP_ACT_ERRNO": library.ERRNO(number),
        "SCMP_ACT_KILL": library.KILL_THREAD,
        "SCMP_ACT_KILL_THREAD": library.KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS": library.KILL_PROCESS,
        "SCMP_ACT_TRAP": library.TRAP,
        "SCMP_ACT_TRACE": library.TRACE(number),
        "SCMP_ACT_LOG": library.LOG,
    }
    if action not in actions:
        raise InvalidError(f"{where}: {action!r} is not one of {', '.join(actions)}")
    result: int = actions[str(action)]
    return result


def _add_architectures(library: Any, result: Any, profile: Profile, name: str) -> None:
    names = list(profile.get("architectures") or ())
    native = _COMPATIBLE.get(platform.machine(), ("",))[0]
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == native:
            names += [native, *(entry.get("subArchitectures") or ())]
    for architecture in names:
        number = getattr(library.Arch, str(architecture).removeprefix("SCMP_ARCH_"), None)
        if number is None:
            raise InvalidError(f"{name}: architectures: unknown architecture {architecture!r}")
        try:
            result.add_arch(number)
        except FileExistsError:
            continue
        except OSError as error:
            raise InvalidError(
                f"{name}: architectures: {architecture} can't be added here: {error.strerror}"
            ) from error


def _add_rule(
    library: Any, result: Any, rule: Any, where: str, default_action: int, capabilities: Collection[str]
) -> int:
    """Returns the highest number of a native system call that the rule names, -1 if none."""
    if not isinstance(rule, dict) or not isinstance(rule.get("names"), list):
        raise InvalidError(f"{where}: must be an object with a list of names")
    if not _applies(rule, capabilities):
        return -1
    action = _action(library, rule.get("action"), rule.get("errnoRet"), f"{where}: action")
    alternatives = _arguments(library, rule.get("args") or (), where)
    highest = -1
    for name in rule["names"]:
        try:
            number = library.resolve_syscall(library.Arch.NATIVE, str(name))
        except OSError:
            continue  # A call that this libseccomp doesn't know.
        if number == -1:
            continue
        highest = max(highest, number)
        if action == default_action:
            continue
        try:
            for arguments in alternatives:
                result.add_rule(action, number, *arguments)
        except OSError as error:
            raise InvalidError(f"{where}: {name}: {error.strerror}") from error
    return highest


def _applies(rule: Profile, capabilities: Collection[str]) -> bool:
    """The ``includes`` and ``excludes`` of docker's form of a profile."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    arches = {"x86_64": ("amd64", "x86", "x32"), "aarch64": ("arm64", "arm")}.get(platform.machine(), ())

    def some(names: Iterable[str] | None, of: Collection[str]) -> bool:
        return any(name in of for name in names or ())

    if includes.get("caps") and not all(name in capabilities for name in includes["caps"]):
        return False
    if includes.get("arches") and not some(includes["arches"], arches):
        return False
    return not some(excludes.get("caps"), capabilities) and not some(excludes.get("arches"), arches)


def _arguments(library: Any, args: Any, where: str) -> list[list[Any]]:
    """Lists of comparisons, any of which lets the rule apply; within a list all must hold.

    Several comparisons of one argument are alternatives, as runc has it, because libseccomp takes one of each argument.
    """
    comparisons: list[Any] = []
    indexes: list[int] = []
    for argument in args:
        try:
            operator = getattr(library, str(argument["op"]).removeprefix("SCMP_CMP_"))
            value, index = int(argument["value"]), int(argument["index"])
            comparisons.append(library.Arg(index, operator, value, int(argument.get("valueTwo") or 0)))
            indexes.append(index)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidError(f"{where}: args: {argument!r} is not a comparison") from error
        if not 0 <= index <= 5:
            raise InvalidError(f"{where}: args: index {index} is not one of 0 to 5")
    if len(set(indexes)) < len(indexes):
        return [[comparison] for comparison in comparisons]
    return [comparisons]


def _export(result: Any) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with open(fd, "r+b", buffering=0) as file:
        result.export_bpf(file)
        file.seek(0)
        return file.readall()


def _answer_enosys_beyond(number: int) -> bytes:
    """Instructions for the front of a program: a native call with a higher number than any that the profile names gets
    ENOSYS and not EPERM, because libraries try new calls first and fall back only on ENOSYS."""
    arch = _AUDIT_ARCH.get(platform.machine())
    if arch is None or number < 0:
        return b""
    load, jump_equal, jump_greater, jump_at_least, answer = 0x20, 0x15, 0x25, 0x35, 0x06
    rows = [
        (load, 0, 0, 4),
        (jump_equal, 0, 4, arch),
        (load, 0, 0, 0),
        (jump_at_least, 2, 0, 0x40000000),
        (jump_greater, 0, 1, number),
        (answer, 0, 0, 0x00050000 | errno.ENOSYS),
    ]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)
