"""Ports, host names, /etc/hosts entries and DNS of a Pod."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from podrt.model.container import Container
from podrt.model.names import dns_label_errors, dns_subdomain_errors, port_name_errors, port_number_errors
from podrt.model.pod import HostAlias, PodDNSConfig, PodSpec
from podrt.model.validation.causes import Causes

PROTOCOLS = ("SCTP", "TCP", "UDP")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARACTERS = 2048


def container_ports(causes: Causes, field: str, container: Container, *, host_network: bool) -> None:
    """Numbers in range, names unique in the container, host ports the same as the container's on the host's network."""
    names: set[str] = set()
    for index, port in enumerate(container.ports):
        where = f"{field}.ports[{index}]"
        if port.name:
            causes.check(f"{where}.name", port.name, port_name_errors(port.name))
            if port.name in names:
                causes.duplicate(f"{where}.name", port.name)
            names.add(port.name)
        if port.container_port == 0:
            causes.required(f"{where}.containerPort")
        else:
            causes.check(f"{where}.containerPort", port.container_port, port_number_errors(port.container_port))
        if port.host_port:
            causes.check(f"{where}.hostPort", port.host_port, port_number_errors(port.host_port))
            if host_network and port.host_port != port.container_port:
                causes.invalid(
                    f"{where}.hostPort", port.host_port, "must match `containerPort` when `hostNetwork` is true"
                )
        causes.one_of(f"{where}.protocol", port.protocol, PROTOCOLS, required=True)
        if port.host_ip:
            ip_address(causes, f"{where}.hostIP", port.host_ip)


def host_port_conflicts(causes: Causes, field: str, containers: Iterable[Container]) -> None:
    """No two containers that run together may ask for one port of the host."""
    taken: set[tuple[str, str, int]] = set()
    for index, container in enumerate(containers):
        for number, port in enumerate(container.ports):
            if not port.host_port:
                continue
            key = (port.protocol, port.host_ip, port.host_port)
            if key in taken:
                causes.duplicate(
                    f"{field}[{index}].ports[{number}].hostPort", f"{port.protocol}/{port.host_ip}/{port.host_port}"
                )
            taken.add(key)


def ip_address(causes: Causes, field: str, text: str) -> None:
    try:
        if "%" in text:
            raise ValueError
        ipaddress.ip_address(text)
    except ValueError:
        causes.invalid(field, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")


def pod_network(causes: Causes, spec: PodSpec) -> None:
    """Host names, aliases, DNS."""
    if spec.hostname:
        causes.check("spec.hostname", spec.hostname, dns_label_errors(spec.hostname))
    if spec.subdomain:
        causes.check("spec.subdomain", spec.subdomain, dns_label_errors(spec.subdomain))
    if spec.hostname_override is not None:
        _hostname_override(causes, spec, spec.hostname_override)
    host_aliases(causes, "spec.hostAliases", spec.host_aliases)
    causes.one_of("spec.dnsPolicy", spec.dns_policy, DNS_POLICIES, required=True)
    if spec.dns_policy == "None" and (spec.dns_config is None or not spec.dns_config.nameservers):
        causes.required(
            "spec.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
        )
    if spec.dns_config is not None:
        dns_config(causes, "spec.dnsConfig", spec.dns_config)


def _hostname_override(causes: Causes, spec: PodSpec, name: str) -> None:
    if len(name) > 64:
        causes.too_long("spec.hostnameOverride", 64)
    causes.check("spec.hostnameOverride", name, dns_subdomain_errors(name))
    if spec.set_hostname_as_fqdn:
        causes.forbidden("spec.hostnameOverride", "may not be set when setHostnameAsFQDN is true")
    if spec.host_network:
        causes.forbidden("spec.hostnameOverride", "may not be set when hostNetwork is true")


def host_aliases(causes: Causes, field: str, aliases: tuple[HostAlias, ...]) -> None:
    for index, alias in enumerate(aliases):
        where = f"{field}[{index}]"
        if not alias.ip:
            causes.required(f"{where}.ip")
        else:
            ip_address(causes, f"{where}.ip", alias.ip)
        for number, name in enumerate(alias.hostnames):
            causes.check(f"{where}.hostnames[{number}]", name, dns_subdomain_errors(name))


def dns_config(causes: Causes, field: str, config: PodDNSConfig) -> None:
    """The bounds that resolvers have."""
    if len(config.nameservers) > MAX_NAMESERVERS:
        causes.too_many(f"{field}.nameservers", len(config.nameservers), MAX_NAMESERVERS)
    for index, server in enumerate(config.nameservers):
        ip_address(causes, f"{field}.nameservers[{index}]", server)
    if len(config.searches) > MAX_SEARCHES:
        causes.too_many(f"{field}.searches", len(config.searches), MAX_SEARCHES)
    if len(" ".join(config.searches)) > MAX_SEARCH_CHARACTERS:
        causes.invalid(
            f"{field}.searches",
            "...",
            f"must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list",
        )
    for index, search in enumerate(config.searches):
        if search != ".":
            plain = search.removesuffix(".").replace("_", "-")
            causes.check(f"{field}.searches[{index}]", search, dns_subdomain_errors(plain.strip("-") or "-"))
    for index, option in enumerate(config.options):
        if not option.name:
            causes.required(f"{field}.options[{index}].name")
        for part, text in (("name", option.name), ("value", option.value or "")):
            # Each becomes a word of resolv.conf.
            if re.search(r"\s|\0", text):
                causes.invalid(f"{field}.options[{index}].{part}", text, "must not contain white space")
