"""The document of ``podrt system info``: versions, paths and counts, for people and for bug reports.

Keys are camel case; the CLI turns them into words and shows whatever is here.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import psutil

from podrt import __version__
from podrt.api.discovery import PODRT_GROUP, PODRT_VERSION
from podrt.config import Config
from podrt.image.service import ImageStore
from podrt.model.base import format_time
from podrt.model.event import Event
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod
from podrt.store.store import Store


class SystemInfo:
    """Gathers the facts when called; blocks for milliseconds."""

    def __init__(self, config: Config, store: Store, images: ImageStore, machine: Callable[[], dict[str, Any]]) -> None:
        """``machine`` gives what only the machine wing knows (cgroup mode, supervisor's pid ...)."""
        self._config = config
        self._store = store
        self._images = images
        self._machine = machine
        self._started = time.time()

    def __call__(self) -> dict[str, Any]:
        config = self._config
        pods = self._store.list(Pod).items
        system = platform.freedesktop_os_release() if os.path.exists("/etc/os-release") else {}
        return {
            "kind": "SystemInfo",
            "apiVersion": f"{PODRT_GROUP}/{PODRT_VERSION}",
            "version": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "operatingSystem": system.get("PRETTY_NAME", "unknown"),
            "architecture": platform.machine(),
            "cpus": os.cpu_count() or 1,
            "memoryBytes": psutil.virtual_memory().total,
            "startedAt": format_time(self._started),
            "pid": os.getpid(),
            "residentBytes": psutil.Process().memory_info().rss,
            **self._machine(),
            "network": {
                "bridge": config.bridge,
                "subnetV4": config.subnet_v4,
                "subnetV6": config.subnet_v6 or "none",
                "mtu": config.mtu,
                "nftTable": config.nft_table,
            },
            "paths": {
                "socket": str(config.socket),
                "state": str(config.state_dir),
                "run": str(config.run_dir),
                "logs": str(config.log_dir),
                "networkNamespaces": str(config.netns_dir),
            },
            "objects": {
                "pods": len(pods),
                "podsRunning": sum(pod.status.phase == "Running" for pod in pods),
                "namespaces": self._store.count(Namespace),
                "events": self._store.count(Event),
                "images": len(self._images.list()),
                "resourceVersion": self._store.revision,
                "setAsideAtStart": len(self._store.broken),
            },
        }
