"""The cgroups of the QoS classes, laid out and weighted as by a kubelet.

Guaranteed Pods are right below the daemon's root, the others below ``burstable`` and ``besteffort``. When CPU is short
a group gets its part as a whole: besteffort the least there is, burstable what its Pods request together. The daemon
makes both groups at its start and keeps them.
"""

from __future__ import annotations

import asyncio
import logging
import math

from podrt.engine.api import EngineApi
from podrt.engine.specs import Resources
from podrt.linux.cgroup.hierarchy import DEFAULT_ROOT
from podrt.model.pod import Pod
from podrt.model.resources import pod_requests, qos_class
from podrt.node.resources import MIN_SHARES, cpu_shares

logger = logging.getLogger(__name__)

GROUPS = {"Burstable": "burstable", "BestEffort": "besteffort"}


def top(cgroup_root: str) -> str:
    """The daemon's own cgroup for the setting ``cgroup_root``, without a slash at its end."""
    return DEFAULT_ROOT if cgroup_root == "auto" else cgroup_root.rstrip("/")


def pod_cgroup(pod: Pod, cgroup_root: str) -> str:
    """``<root>[/burstable|/besteffort]/pod<uid>``."""
    group = GROUPS.get(pod.status.qos_class or qos_class(pod.spec), "")
    return f"{top(cgroup_root)}/{group}/pod{pod.metadata.uid}".replace("//", "/")


def burstable_milli_cpu(pod: Pod) -> int:
    """Thousandths of a CPU that a Pod counts in the group of the burstable ones."""
    if pod.status.phase in ("Succeeded", "Failed") or (pod.status.qos_class or qos_class(pod.spec)) != "Burstable":
        return 0
    cpu = pod_requests(pod.spec).get("cpu")
    return math.ceil(cpu.value * 1000) if cpu is not None else 0


class QosGroups:
    """Keeps the weights of the groups as the Pods of this node come and go."""

    def __init__(self, engine: EngineApi, cgroup_root: str) -> None:
        self._engine = engine
        self._top = top(cgroup_root)
        self._amounts: dict[str, int] = {}
        self._total = 0
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Make the groups. Raises OSError."""
        await self._engine.set_group(f"{self._top}/besteffort", Resources(cpu_shares=MIN_SHARES))
        await self._write()

    def note(self, old: Pod | None, new: Pod | None) -> None:
        """Hear of every change of a Pod; one without a node takes nothing."""
        if old is not None and new is not None and old.spec is new.spec and old.status.phase == new.status.phase:
            return
        known = new or old
        assert known is not None
        amount = burstable_milli_cpu(new) if new is not None and new.spec.node_name else 0
        before = self._amounts.pop(known.metadata.uid, 0)
        if amount:
            self._amounts[known.metadata.uid] = amount
        self._total += amount - before
        if amount != before:
            self._changed.set()

    async def run(self) -> None:
        """Write the weight when it has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._write()
            except OSError as error:
                logger.warning("the weight of burstable Pods can't be set: %s", error)

    async def _write(self) -> None:
        await self._engine.set_group(f"{self._top}/burstable", Resources(cpu_shares=cpu_shares(self._total)))
