"""The text of a Pod's /etc/hosts and /etc/resolv.conf. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

MAX_SERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARACTERS = 2048
"""What the kubelet keeps of each; resolvers ignore more."""

_HOSTS = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def hosts(ips: Iterable[str], hostname: str, fqdn: str = "", aliases: Sequence[tuple[str, Sequence[str]]] = ()) -> str:
    """/etc/hosts of a Pod: localhost, each of its addresses with its names, and hostAliases as (address, names)."""
    names = f"{fqdn}\t{hostname}" if fqdn and fqdn != hostname else hostname
    text = _HOSTS + "".join(f"{ip}\t{names}\n" for ip in ips)
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join("\t".join((ip, *others)) + "\n" for ip, others in aliases)
    return text


def resolv_conf(servers: Sequence[str], searches: Sequence[str], options: Sequence[str], host_text: str = "") -> str:
    """/etc/resolv.conf with at most 3 servers and 32 search domains of 2048 characters.

    All three empty: those of ``host_text``, the host's file, without its loopback servers, which no Pod can reach.
    """
    if not servers and not searches and not options:
        servers, searches, options = parse_resolv_conf(host_text)
        servers = [server for server in servers if not _is_loopback(server)]
    lines = [f"nameserver {server}" for server in list(dict.fromkeys(servers))[:MAX_SERVERS]]
    kept = limit_searches(searches)
    if kept:
        lines.append("search " + " ".join(kept))
    if options:
        lines.append("options " + " ".join(options))
    return "".join(f"{line}\n" for line in lines)


def limit_searches(searches: Iterable[str]) -> list[str]:
    """The first search domains, without repetition, that fit in the limits."""
    kept: list[str] = []
    length = 0
    for domain in dict.fromkeys(searches):
        length += len(domain) + bool(kept)
        if len(kept) == MAX_SEARCHES or length > MAX_SEARCH_CHARACTERS:
            break
        kept.append(domain)
    return kept


def parse_resolv_conf(text: str) -> tuple[list[str], list[str], list[str]]:
    """(servers, searches, options) of a resolv.conf(5); of several search or domain lines the last counts."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        match words[0]:
            case "nameserver" if len(words) > 1:
                servers.append(words[1])
            case "search" | "domain":
                searches = words[1:]
            case "options":
                options += words[1:]
    return servers, searches, options


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.split("%")[0]).is_loopback
    except ValueError:
        return False
