"""ConfigMaps, Secrets and ServiceAccounts. No message shows a value of a Secret."""

from __future__ import annotations

from podrt.model.configuration import ConfigMap, Secret, ServiceAccount
from podrt.model.names import config_key_errors, dns_subdomain_errors
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import object_meta

MAX_SIZE = 1024 * 1024
_NEEDED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_IMMUTABLE = "field is immutable when `immutable` is set"


def config_map(value: ConfigMap) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    for field, table in (("data", value.data), ("binaryData", value.binary_data)):
        for key in table:
            causes.check(f"{field}[{key}]", key, config_key_errors(key))
    for key in value.data:
        if key in value.binary_data:
            causes.invalid(f"data[{key}]", key, f"duplicate of key present in binaryData[{key}]")
    if sum(map(len, value.content().values())) > MAX_SIZE:
        causes.too_long("", MAX_SIZE)
    return causes


def config_map_update(causes: Causes, new: ConfigMap, old: ConfigMap) -> None:
    if not old.immutable:
        return
    if not new.immutable:
        causes.forbidden("immutable", _IMMUTABLE)
    if new.data != old.data:
        causes.forbidden("data", _IMMUTABLE)
    if new.binary_data != old.binary_data:
        causes.forbidden("binaryData", _IMMUTABLE)


def secret(value: Secret) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    for key in value.data:
        causes.check(f"data[{key}]", key, config_key_errors(key))
    if sum(map(len, value.content().values())) > MAX_SIZE:
        causes.too_long("data", MAX_SIZE)
    for key in _NEEDED_KEYS.get(value.type, ()):
        if key not in value.data:
            causes.required(f"data[{key}]")
    if value.type == "kubernetes.io/basic-auth" and not {"username", "password"} & set(value.data):
        causes.required("data[username]")
        causes.required("data[password]")
    return causes


def secret_update(causes: Causes, new: Secret, old: Secret) -> None:
    if new.type != old.type:
        causes.invalid("type", new.type, "field is immutable")
    if not old.immutable:
        return
    if not new.immutable:
        causes.forbidden("immutable", _IMMUTABLE)
    if new.data != old.data:
        causes.forbidden("data", _IMMUTABLE)


def service_account(value: ServiceAccount) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    return causes
