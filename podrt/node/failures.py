"""What failed of a Pod before there was a container or a sandbox: told in events, remembered between two tries.

The waiting reason and its message are made of it (``facts.Failure``), and the plan waits for ``retry_at``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from podrt.model.container import Container
from podrt.model.pod import Pod
from podrt.node import backoff
from podrt.node.context import Context
from podrt.node.facts import Failure
from podrt.node.images import PULL_FAILURES, ImageFailure

PULLING = "ContainerCreating"
"""The waiting reason of a container while an image that it needs is being pulled."""
PULL_FAILURE_SHOWN = 2.0
"""Seconds that ErrImagePull is shown before ImagePullBackOff."""


class Failures:
    """Of one Pod, by container; "" is its sandbox. ``poke`` wakes its worker."""

    def __init__(self, context: Context, poke: Callable[[], None]) -> None:
        self._context = context
        self._poke = poke
        self._found: dict[str, Failure] = {}

    def of(self, specs: Mapping[str, Container]) -> dict[str, Failure]:
        """Those that still hold: what failed with another image says nothing of the one that is wanted now."""
        return {
            name: failure
            for name, failure in self._found.items()
            if name not in specs or failure.image == specs[name].image
        }

    def over(self, name: str) -> None:
        """It has been started."""
        self._found.pop(name, None)

    def retry(self, *reasons: str) -> None:
        """What made these fail has changed: their next try is now."""
        for name, failure in self._found.items():
            if failure.reason in reasons:
                self._found[name] = failure._replace(retry_at=0.0)
        self._poke()

    def sandbox(self, pod: Pod, reason: str, text: str) -> None:
        """The Pod's sandbox could not be made."""
        self._context.event(pod, "Warning", reason, text)
        self._remember("", reason, text, "")

    def container(self, pod: Pod, spec: Container, reason: str, text: str) -> None:
        """A container could not be made or started."""
        told = reason if reason in PULL_FAILURES else text
        self._context.event(pod, "Warning", "Failed", f"Error: {told}", spec.name)
        self._remember(spec.name, reason, text, spec.image)

    def image(self, pod: Pod, spec: Container, wanted: str, error: ImageFailure) -> None:
        """A container has to wait because it can't have the image ``wanted``: its own, or that of a volume."""
        self.container(pod, spec, error.reason, str(error))
        if error.reason == "ErrImagePull":
            loop = asyncio.get_running_loop()
            loop.call_later(PULL_FAILURE_SHOWN, self._tell_pull_back_off, pod, spec.name, wanted)

    def pulling(self, spec: Container) -> None:
        """A container waits for an image that is being pulled; :meth:`retry` with PULLING ends that."""
        before = self._found.get(spec.name)
        count = before.failures if before is not None else 0
        self._found[spec.name] = Failure(PULLING, "", time.time(), count, math.inf, spec.image)

    def _remember(self, name: str, reason: str, text: str, image: str) -> None:
        now, before = time.time(), self._found.get(name)
        count = before.failures + 1 if before else 1
        if name:
            delay = backoff.retry_delay(count)
        else:
            delay = backoff.retry_delay(count, backoff.SANDBOX_INITIAL, backoff.SANDBOX_MAXIMUM)
        self._found[name] = Failure(reason, text, now, count, now + delay, image)

    def _tell_pull_back_off(self, pod: Pod, name: str, wanted: str) -> None:
        """A failed pull is shown as such for a moment, and then that it waits for its next try."""
        failure = self._found.get(name)
        if failure is None or failure.reason != "ErrImagePull":
            return
        text = f'Back-off pulling image "{wanted}"'
        self._context.event(pod, "Normal", "BackOff", text, name)
        self._context.event(pod, "Warning", "Failed", "Error: ImagePullBackOff", name)
        message = f"{text}: ErrImagePull: {failure.message}"
        self._found[name] = failure._replace(reason="ImagePullBackOff", message=message)
        self._poke()
