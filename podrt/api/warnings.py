"""Warnings about new Pods: fields without effect on one machine, and what the namespace's level wants warned of."""

from __future__ import annotations

from podrt.model import podsecurity
from podrt.model.defaults import PRIORITY_CLASSES
from podrt.model.kinds import Object
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod
from podrt.model.support import POD, State
from podrt.store.store import Store

# Where the field asks for something that a user may rely on; the rest of the accepted ones (service account ...)
# ask for nothing that is missing.
_TOLD = ("priorityClassName",)


def accepted_without_effect(sent: Object) -> tuple[str, ...]:
    """One line for each such field of a Pod as it was sent, for ``Warning`` headers."""
    if not isinstance(sent, Pod):
        return ()
    values = zip(sent.spec.__struct_encode_fields__, sent.spec.__struct_fields__, strict=True)
    return tuple(
        f"spec.{name}: has no effect here: {POD[name].note}"
        for name, attribute in values
        if name in _TOLD
        and POD[name].state is State.ACCEPTED
        and getattr(sent.spec, attribute)
        and getattr(sent.spec, attribute) not in PRIORITY_CLASSES
    )


def below_warned_level(created: Object, store: Store) -> tuple[str, ...]:
    """What the ``pod-security.kubernetes.io/warn`` label of a new Pod's namespace has to say about it."""
    if not isinstance(created, Pod):
        return ()
    namespace = store.find(Namespace, "", created.metadata.namespace)
    wanted = podsecurity.level(namespace.metadata.labels if namespace is not None else {}, "warn")
    text = podsecurity.refusal(created.spec, wanted)
    return (f"would {text.replace('violates', 'violate', 1)}",) if text else ()
