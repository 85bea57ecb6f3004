"""Rules for names: DNS labels and subdomains, qualified names, label values, environment variables, ports.

Each function returns the messages of what is wrong with a value (none: it is right), in the words of Kubernetes, so
that a caller can put them behind a field's path.
"""

from __future__ import annotations

import re

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PORT_NAME = re.compile(r"[-a-z0-9]+")
_HEADER = re.compile(r"[-A-Za-z0-9]+")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")

LABEL_LENGTH = 63
SUBDOMAIN_LENGTH = 253


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} characters"


def dns_label_errors(value: str) -> list[str]:
    """RFC 1123 label: Pod hostnames, namespaces, container, volume names."""
    errors = [_too_long(LABEL_LENGTH)] if len(value) > LABEL_LENGTH else []
    if not _DNS_LABEL.fullmatch(value):
        errors.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            "end with an alphanumeric character (e.g. 'my-name',  or '123-abc')"
        )
    return errors


def dns_subdomain_errors(value: str) -> list[str]:
    """RFC 1123 subdomain: the names of most objects."""
    errors = [_too_long(SUBDOMAIN_LENGTH)] if len(value) > SUBDOMAIN_LENGTH else []
    if not _DNS_SUBDOMAIN.fullmatch(value):
        errors.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com')"
        )
    return errors


def qualified_name_errors(value: str) -> list[str]:
    """``[prefix/]name``: keys of labels and annotations, conditions, finalizers, resources."""
    prefix, slash, name = value.rpartition("/")
    errors: list[str] = []
    if slash and "/" in prefix:
        return [
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS subdomain "
            "prefix and '/' (e.g. 'example.com/MyName')"
        ]
    if slash:
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            errors.extend(f"prefix part {message}" for message in dns_subdomain_errors(prefix))
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > LABEL_LENGTH:
        errors.append(f"name part {_too_long(LABEL_LENGTH)}")
    if not _QUALIFIED.fullmatch(name):
        errors.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc')"
        )
    return errors


def label_value_errors(value: str) -> list[str]:
    """Values of labels: empty, or like the name part of a qualified name."""
    errors = [_too_long(LABEL_LENGTH)] if len(value) > LABEL_LENGTH else []
    if value and not _QUALIFIED.fullmatch(value):
        errors.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345')"
        )
    return errors


def port_name_errors(value: str) -> list[str]:
    """Names of ports (IANA service names)."""
    errors: list[str] = []
    if len(value) > 15:
        errors.append("must be no more than 15 characters")
    if not _PORT_NAME.fullmatch(value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_number_errors(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def env_name_errors(value: str) -> list[str]:
    """Names of environment variables: any printable ASCII but ``=`` (the rule since Kubernetes 1.34)."""
    if all(" " <= char <= "~" and char != "=" for char in value):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def header_name_errors(value: str) -> list[str]:
    if _HEADER.fullmatch(value):
        return []
    return ["a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')"]


def config_key_errors(value: str) -> list[str]:
    """Keys of ConfigMaps and Secrets."""
    errors = [_too_long(SUBDOMAIN_LENGTH)] if len(value) > SUBDOMAIN_LENGTH else []
    if not _CONFIG_KEY.fullmatch(value) or value in (".", "..") or value.startswith(".."):
        errors.append(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' and not begin with '..'"
        )
    return errors
