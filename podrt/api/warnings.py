"""Warnings about new Pods: hooks that can't work, and what the namespace's level wants warned of."""

from __future__ import annotations

from podrt.model import podsecurity
from podrt.model.base import wire_name
from podrt.model.kinds import Object
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod
from podrt.store.store import Store


def hooks_that_fail(sent: Object) -> tuple[str, ...]:
    """One line for each tcpSocket hook of a Pod, for ``Warning`` headers: no kubelet has ever run one."""
    if not isinstance(sent, Pod):
        return ()
    found = []
    for field in ("init_containers", "containers"):
        for index, container in enumerate(getattr(sent.spec, field)):
            for hook in ("post_start", "pre_stop"):
                handler = getattr(container.lifecycle, hook, None)
                if handler is not None and handler.tcp_socket is not None:
                    path = f"spec.{wire_name(field)}[{index}].lifecycle.{wire_name(hook)}.tcpSocket"
                    found.append(f"{path}: fails when it is run, as under a kubelet: use exec, httpGet or sleep")
    return tuple(found)


def below_warned_level(created: Object, store: Store) -> tuple[str, ...]:
    """What the ``pod-security.kubernetes.io/warn`` label of a new Pod's namespace has to say about it."""
    if not isinstance(created, Pod):
        return ()
    namespace = store.find(Namespace, "", created.metadata.namespace)
    wanted = podsecurity.level(namespace.metadata.labels if namespace is not None else {}, "warn")
    text = podsecurity.refusal(created.spec, wanted)
    return (f"would {text.replace('violates', 'violate', 1)}",) if text else ()
