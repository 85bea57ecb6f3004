"""What a namespace's LimitRanges and ResourceQuotas have to say about new objects, and what is used of quotas; the
classes and accounts of Pods are :mod:`podrt.store.class_admission`'s and :mod:`podrt.store.account_admission`'s.

Usage is summed up from the stored objects each time, which a namespace without a quota does not pay for; the status of
a quota is that sum, written when it changes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TypeVar

from msgspec.structs import replace

from podrt.errors import ForbiddenError
from podrt.model import limits, podsecurity, quota
from podrt.model.classes import PriorityClass
from podrt.model.defaults import new_pod_status
from podrt.model.event import Event
from podrt.model.kinds import RESOURCES, Object, resource_of
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod
from podrt.model.policy import LimitRange, ResourceQuota, ResourceQuotaStatus
from podrt.model.storage import PersistentVolumeClaim
from podrt.store.account_admission import with_account
from podrt.store.class_admission import Refused, check_default, with_classes
from podrt.store.store import Store
from podrt.store.watch import Change

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)
_COUNTED = tuple(one.name for one in RESOURCES if one.namespaced and one.struct is not Event)


class Admission:
    """Asked by the registry about each new object; keeps the status of quotas."""

    def __init__(self, store: Store) -> None:
        self._store = store
        for one in store.list(ResourceQuota).items:
            self._write_used(one)
        store.subscribe(self._on_change)

    def defaulted(self, obj: T, sent: Object) -> T:
        """A new object with what its namespace and the classes that it names give; ``sent``: before its defaults.

        Raises ForbiddenError.
        """
        if not isinstance(obj, Pod) or not isinstance(sent, Pod):
            return obj
        try:
            filled = with_account(self._store, limits.with_defaults(obj, self._ranges(obj)))
            filled = with_classes(self._store, filled, sent.spec)
        except Refused as error:
            raise self._forbidden(obj, str(error)) from None
        # The QoS class hangs on what was filled in.
        return obj if filled is obj else new_pod_status(filled)  # type: ignore[return-value]

    def check(self, obj: Object) -> None:
        """Raises ForbiddenError for an object outside of its namespace's limits, too much for a quota, or below its
        level of the Pod Security Standards.
        """
        if isinstance(obj, Pod):
            labels = self._labels(obj.metadata.namespace)
            if text := podsecurity.refusal(obj.spec, podsecurity.level(labels, "enforce")):
                raise self._forbidden(obj, text)
            if text := podsecurity.refusal(obj.spec, podsecurity.level(labels, "audit")):
                logger.warning("pod %s/%s %s", obj.metadata.namespace, obj.metadata.name, text)
        self.check_update(obj)
        if isinstance(obj, Pod | PersistentVolumeClaim):
            wrong = limits.violations(obj, self._ranges(obj))
            if wrong:
                raise self._forbidden(obj, wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
        if not resource_of(obj).namespaced or isinstance(obj, Event):
            return
        for one in self._quotas(obj.metadata.namespace):
            text = quota.refusal(one, obj, quota.total(one, self._objects(obj.metadata.namespace)))
            if text:
                raise self._forbidden(obj, text)

    def check_update(self, obj: Object) -> None:
        """What holds at each change. Raises ForbiddenError."""
        if isinstance(obj, PriorityClass):
            try:
                check_default(self._store, obj)
            except Refused as error:
                raise self._forbidden(obj, str(error)) from None

    def check_resize(self, new: Pod, old: Pod) -> None:
        """The same of a Pod that asks for other resources. Raises ForbiddenError."""
        wrong = limits.violations(new, self._ranges(new))
        if wrong:
            raise self._forbidden(new, wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
        before = quota.usage(old)
        if all(name in before and amount <= before[name] for name, amount in quota.usage(new).items()):
            return
        for one in self._quotas(new.metadata.namespace):
            others = (obj for obj in self._objects(new.metadata.namespace) if obj.metadata.uid != new.metadata.uid)
            if text := quota.refusal(one, new, quota.total(one, others)):
                raise self._forbidden(new, text)

    def _labels(self, namespace: str) -> dict[str, str]:
        found = self._store.find(Namespace, "", namespace)
        return found.metadata.labels if found is not None else {}

    def _forbidden(self, obj: Object, why: str) -> ForbiddenError:
        name = obj.metadata.name or obj.metadata.generate_name
        return ForbiddenError(f'{resource_of(obj).qualified} "{name}" is forbidden: {why}')

    def _ranges(self, obj: Object) -> list[LimitRange]:
        if not self._store.count(LimitRange):
            return []
        return self._store.list(LimitRange, obj.metadata.namespace).items

    def _quotas(self, namespace: str) -> list[ResourceQuota]:
        return self._store.list(ResourceQuota, namespace).items if self._store.count(ResourceQuota) else []

    def _objects(self, namespace: str) -> Iterator[Object]:
        for name in _COUNTED:
            yield from self._store.list(name, namespace).items

    def _on_change(self, change: Change) -> None:
        if change.resource not in _COUNTED or not self._store.count(ResourceQuota):
            return
        before, after = change.old, change.new
        if isinstance(after, ResourceQuota) or before is None or after is None or _used(before) != _used(after):
            for one in self._quotas(change.object.metadata.namespace):
                self._write_used(one)

    def _write_used(self, one: ResourceQuota) -> None:
        used = quota.total(one, self._objects(one.metadata.namespace))
        status = ResourceQuotaStatus(hard=one.spec.hard, used={name: str(amount) for name, amount in used.items()})
        if status != one.status:
            self._store.update(replace(one, status=status))


def admitted(new: Pod, old: Pod) -> Pod:
    """A changed Pod with what admission gave to the old one, where the client left it out."""
    spec = new.spec
    kept = replace(
        spec,
        priority=old.spec.priority if spec.priority is None else spec.priority,
        preemption_policy=spec.preemption_policy or old.spec.preemption_policy,
        service_account_name=spec.service_account_name or spec.service_account or old.spec.service_account_name,
        image_pull_secrets=spec.image_pull_secrets or old.spec.image_pull_secrets,
    )
    return replace(new, spec=kept)


def _used(obj: Object) -> dict[str, str]:
    return {name: str(amount) for name, amount in quota.usage(obj).items()}
