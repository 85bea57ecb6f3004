"""What CNI plugins answer (CNI spec 1.1, section 5). Pure.

Between the versions of the protocol only one field differs: up to 0.4.0 each address says its family (``version``).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from podrt.errors import UnavailableError
from podrt.network.cni_config import VERSIONS
from podrt.network.types import INTERFACE, Attachment, Dns

MAX_SHOWN = 2000
"""Characters of a plugin's answer or log that are shown."""

_HINTS = {
    1: "it does not speak the cniVersion of the configuration",
    11: "it asks to be tried again later",
}


def parse(data: bytes, version: str, what: str) -> dict[str, Any]:
    """The result of an ADD, in the protocol's ``version``. Raises UnavailableError that begins with ``what``."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"{what}: its answer is not JSON: {error}: {shown(data)!r}") from error
    if not isinstance(body, dict):
        raise UnavailableError(f"{what}: its answer is not an object: {shown(data)!r}")
    said = body.get("cniVersion", version)
    if said not in VERSIONS:
        raise UnavailableError(f"{what}: its answer is of cniVersion {said!r}; known are {', '.join(VERSIONS)}")
    for key in ("interfaces", "ips", "routes"):
        entries = body.get(key)
        if entries is not None and (not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries)):
            raise UnavailableError(f"{what}: {key} of its answer is not a list of objects")
    addresses = [_with_address(entry, version, what) for entry in body.get("ips") or ()]
    if addresses:
        body["ips"] = addresses
    return body | {"cniVersion": version}


def _with_address(entry: dict[str, Any], version: str, what: str) -> dict[str, Any]:
    try:
        family = ipaddress.ip_interface(entry.get("address", "")).version
    except ValueError as error:
        raise UnavailableError(f"{what}: ips of its answer: {error}") from error
    rest = {key: value for key, value in entry.items() if key != "version"}
    if VERSIONS.index(version) < VERSIONS.index("1.0.0"):
        return rest | {"version": str(family)}
    return rest


def failure(what: str, code: int, stdout: bytes, stderr: bytes) -> str:
    """Why a plugin failed: its error object if it wrote one, else what it wrote."""
    try:
        body = json.loads(stdout)
        text = str(body["msg"])
    except (ValueError, RecursionError, TypeError, KeyError):
        said = shown(stderr) or shown(stdout) or "it said nothing"
        how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        return f"{what}: {how}: {said}"
    details = str(body.get("details") or "")
    if details and details not in text:
        text = f"{text}: {details}"
    number = body.get("code")
    hint = _HINTS.get(number) if isinstance(number, int) else None
    notes = [f"code {number}"] if number is not None else []
    return f"{what}: {text[:MAX_SHOWN]}" + (f" ({', '.join([*notes, *([hint] if hint else [])])})" if notes else "")


def error_code(stdout: bytes) -> int:
    """The code of an error object; 0 if there is none."""
    try:
        code = json.loads(stdout)["code"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return 0
    return code if isinstance(code, int) else 0


def shown(data: bytes) -> str:
    """The end of a text, for a message."""
    return data.decode(errors="replace").strip()[-MAX_SHOWN:]


def attachment(result: Mapping[str, Any], network: str) -> Attachment:
    """What a sandbox got. The addresses of eth0 come first, of each interface IPv4 first; those of the host's
    interfaces don't count.

    Raises UnavailableError if eth0 has no address.
    """
    interfaces = result.get("interfaces") or []
    own: list[str] = []
    others: list[str] = []
    gateways: list[str] = []
    for entry in result.get("ips") or ():
        place = _interface(interfaces, entry.get("interface"))
        # Plugins of the first versions leave the sandbox out.
        if place is not None and not place.get("sandbox") and place.get("name") != INTERFACE:
            continue
        address = str(ipaddress.ip_interface(entry["address"]).ip)
        if place is None or place.get("name") == INTERFACE:
            own.append(address)
            if entry.get("gateway"):
                gateways.append(str(entry["gateway"]))
        else:
            others.append(address)
    if not own:
        raise UnavailableError(f"CNI network {network}: its plugins gave {INTERFACE} no address")
    eth0: dict[str, Any] = next((one for one in interfaces if one.get("name") == INTERFACE), {})
    on_host = [one for one in interfaces if not one.get("sandbox") and one.get("name") != INTERFACE]
    return Attachment(
        ips=tuple(dict.fromkeys((*_sorted(own), *_sorted(others)))),
        mac=str(eth0.get("mac") or ""),
        # The bridge itself is among them; the end of a pair comes last.
        host_ifname=str(on_host[-1].get("name") or "") if on_host else "",
        gateways=tuple(_sorted(gateways)),
        dns=_dns(result.get("dns")),
    )


def _interface(interfaces: list[dict[str, Any]], index: Any) -> dict[str, Any] | None:
    """The interface of an address; None where the plugin does not say, which means the one that was asked for."""
    if isinstance(index, int) and 0 <= index < len(interfaces):
        return interfaces[index]
    return None


def _sorted(addresses: list[str]) -> list[str]:
    return sorted(addresses, key=lambda address: ":" in address)


def _dns(body: Any) -> Dns:
    if not isinstance(body, dict):
        return Dns()

    def strings(key: str) -> tuple[str, ...]:
        value = body.get(key)
        # They become lines of a file: what has a space or a line end in it is no name and no address.
        return (
            tuple(one for one in value if isinstance(one, str) and one.split() == [one])
            if isinstance(value, list)
            else ()
        )

    searches = strings("search")
    domain = body.get("domain")
    if not searches and isinstance(domain, str) and domain.split() == [domain]:
        searches = (domain,)
    return Dns(strings("nameservers"), searches, strings("options"))
