"""CNI network configurations: read, checked, and turned into what each plugin gets (CNI spec 1.1, sections 1 and 3).

Of the files ``*.conf``, ``*.conflist`` and ``*.json`` of the directory, in the order of their names, the first valid
one is the network; those before it are reported. Whether a file holds a list or a single plugin is told by its content.
Fields that are not the protocol's go through to the plugin as they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from podrt.errors import InvalidError

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Of the protocol, oldest first."""
SUFFIXES = (".conf", ".conflist", ".json")
MAX_BYTES = 1 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOT_PASSED = ("capabilities", "runtimeConfig", "prevResult")


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checked network configuration."""

    name: str
    version: str
    """The highest of its versions that this runtime speaks."""
    plugins: tuple[dict[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    source: str = ""
    """The file that it came from."""

    def speaks(self, version: str) -> bool:
        """Whether its version is ``version`` or a later one."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)


class Found(NamedTuple):
    """What a directory holds."""

    network: NetworkConfig | None
    problems: tuple[str, ...] = ()
    """One line for each file that was skipped."""


def load(directory: Path) -> Found:
    """Read the directory; one that can't be read is a problem, one that is not there is empty."""
    problems: list[str] = []
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIXES))
    except FileNotFoundError:
        return Found(None)
    except OSError as error:
        return Found(None, (f"{directory}: {error.strerror}",))
    for name in names:
        path = directory / name
        if path.is_dir():
            continue
        try:
            return Found(load_file(path), tuple(problems))
        except InvalidError as error:
            problems.append(str(error))
    return Found(None, tuple(problems))


def load_file(path: Path) -> NetworkConfig:
    """Read one configuration and, for a list, the plugins that lie beside it. Raises InvalidError naming the file."""
    body = _read(path)
    if "plugins" not in body and "type" in body:
        body = {key: body[key] for key in ("cniVersion", "name", "disableCheck", "disableGC") if key in body} | {
            "plugins": [body],
            "loadOnlyInlinedPlugins": True,
        }
    network = parse(body, path)
    only_inlined = _flag(body, "loadOnlyInlinedPlugins", path)
    if only_inlined and "plugins" not in body:
        raise InvalidError(f"{path}: loadOnlyInlinedPlugins is true, but there is no key plugins")
    if not only_inlined:
        network = msgspec.structs.replace(network, plugins=(*network.plugins, *_beside(path.parent / network.name)))
    if not network.plugins:
        folder = path.parent / network.name
        raise InvalidError(f"{path}: it names no plugin, and {folder} has no *.conf with one")
    return network


def parse(body: Mapping[str, Any], path: Path) -> NetworkConfig:
    """Check a network configuration. It may be without plugins. Raises InvalidError that names file and key."""
    name = body.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidError(
            f"{path}: name: must begin with a letter or digit and go on with those, '_', '.' or '-', not {name!r}"
        )
    plugins = body.get("plugins", [])
    if not isinstance(plugins, list) or ("plugins" in body and not plugins):
        raise InvalidError(f"{path}: plugins: must be a list with at least one plugin")
    return NetworkConfig(
        name=name,
        version=_version(body, path),
        plugins=tuple(_plugin(plugin, f"{path}: plugins[{index}]") for index, plugin in enumerate(plugins)),
        disable_check=_flag(body, "disableCheck", path),
        disable_gc=_flag(body, "disableGC", path),
        source=str(path),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidError(f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise InvalidError(f"{path}: over {MAX_BYTES} bytes, which no network configuration has")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{path}: not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidError(f"{path}: must be a JSON object")
    return body


def _beside(folder: Path) -> list[dict[str, Any]]:
    """The plugins of a network that packages have put into the folder of the network's name."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".conf"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidError(f"{folder}: {error.strerror}") from error
    paths = [folder / name for name in names]
    return [_plugin(_read(path), str(path)) for path in paths if not path.is_dir()]


def _version(body: Mapping[str, Any], path: Path) -> str:
    several = body.get("cniVersions", [])
    if not isinstance(several, list) or not all(isinstance(one, str) for one in several):
        raise InvalidError(f"{path}: cniVersions: must be a list of strings")
    one = body.get("cniVersion", "")
    wanted = {one, *several} - {""} if isinstance(one, str) else {one}
    known = [version for version in VERSIONS if version in wanted]
    if not known:
        said = ", ".join(sorted(map(str, wanted))) or "none"
        raise InvalidError(f"{path}: cniVersion: must be one of {', '.join(VERSIONS)}, not {said}")
    return known[-1]


def _flag(body: Mapping[str, Any], key: str, path: Path) -> bool:
    value = body.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InvalidError(f"{path}: {key}: must be true or false, not {value!r}")
    return value


def _plugin(plugin: Any, where: str) -> dict[str, Any]:
    if not isinstance(plugin, dict):
        raise InvalidError(f"{where}: must be an object")
    _program(plugin.get("type"), f"{where}: type")
    ipam = plugin.get("ipam", {})
    if not isinstance(ipam, dict):
        raise InvalidError(f"{where}: ipam: must be an object")
    if "type" in ipam:
        _program(ipam["type"], f"{where}: ipam.type")
    capabilities = plugin.get("capabilities", {})
    if not isinstance(capabilities, dict) or not all(isinstance(value, bool) for value in capabilities.values()):
        raise InvalidError(f"{where}: capabilities: must be an object of true and false")
    return plugin


def _program(value: Any, where: str) -> None:
    """A plugin is looked up by this name in the plugin directories; it must not lead out of them."""
    if not isinstance(value, str) or value in ("", ".", "..") or any(sign in value for sign in "/\\\0"):
        raise InvalidError(f"{where}: must be the name of a plugin's program, without a path, not {value!r}")


def requested(plugin: Mapping[str, Any], capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Of the capability arguments, those that the plugin says it takes."""
    taken = plugin.get("capabilities", {})
    return {name: value for name, value in capabilities.items() if taken.get(name) and value}


def request(
    network: NetworkConfig,
    plugin: Mapping[str, Any],
    *,
    capabilities: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    valid: Sequence[tuple[str, str]] | None = None,
) -> bytes:
    """What one plugin gets on its stdin: its own configuration with the protocol's keys.

    ``valid``: for GC, (container id, interface) of each attachment that is left.
    """
    body = {
        key: value for key, value in plugin.items() if key not in _NOT_PASSED and not key.startswith("cni.dev/")
    } | {"cniVersion": network.version, "name": network.name}
    if capabilities:
        chosen = requested(plugin, capabilities)
        if chosen:
            body["runtimeConfig"] = chosen
    if previous is not None:
        body["prevResult"] = previous
    if valid is not None:
        body["cni.dev/valid-attachments"] = [{"containerID": one, "ifname": ifname} for one, ifname in valid]
    return json.dumps(body).encode()
