"""Does this node have a container's image, and if not, get it: ``imagePullPolicy``, in the kubelet's words.

``Always`` asks the registry each time a container is to be started; what is here is not fetched again. A registry that
can't be asked is then an error, as the kubelet has it. Names below ``localhost/`` (without a port) are of this machine
only: they are taken from the store under every policy and never pulled.

A pull goes on beside the Pod's worker, so that the Pod's other containers don't wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from podrt.errors import ConflictError, ImageError, InvalidError, NotFoundError, PodrtError
from podrt.image.reference import Reference, parse
from podrt.image.registry_config import is_local
from podrt.model.configuration import Secret
from podrt.model.container import Container
from podrt.model.pod import Pod
from podrt.node.context import Context

PULL_FAILURES = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
"""Waiting reasons about images; events name these and the status has the message."""
_PATIENCE = 0.05
"""Seconds that a worker waits for a pull before it turns to other things: a look at a near registry takes less."""
_SECRET_KEYS = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


class ImageFailure(Exception):
    """``reason`` is the waiting reason: InvalidImageName, ErrImageNeverPull, ErrImagePull, ImageInspectError."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImagePending(Exception):
    """The image is being pulled; who waits for it will be told."""


class PodImages:
    """The images of one Pod's containers and volumes. ``ready`` is called when a pull has ended."""

    def __init__(self, context: Context, ready: Callable[[], None]) -> None:
        self._context = context
        self._ready = ready
        self._pulls: dict[str, tuple[str, asyncio.Task[str]]] = {}

    async def ensure(self, pod: Pod, container: Container, *, key: str = "") -> str:
        """The id of the container's image. Raises ImagePending while it is being pulled, ImageFailure.

        ``key``: what the image is for, if it is not the container's own; several containers may wait for one pull.
        """
        name = key or container.name
        image, task = self._pulls.get(name, ("", None))
        if task is not None and image != container.image:
            task.cancel()
            del self._pulls[name]
            task = None
        if task is None:
            found = present(self._context, pod, container)
            if found is not None:
                return found
            task = asyncio.create_task(pull(self._context, pod, container), name=f"image of {name}")
            self._pulls[name] = (container.image, task)
            task.add_done_callback(self._ended)
        if not (await asyncio.wait([task], timeout=_PATIENCE))[0]:
            raise ImagePending
        self._pulls.pop(name, None)
        return task.result()

    def _ended(self, task: asyncio.Task[str]) -> None:
        if not task.cancelled():
            task.exception()  # whether or not somebody asks for it
        self._ready()

    def close(self) -> None:
        """End pulls that nobody else waits for."""
        for _, task in self._pulls.values():
            task.cancel()
        self._pulls.clear()


async def ensure_image(context: Context, pod: Pod, container: Container) -> str:
    """The id of the container's image, which is pulled if need be. Raises ImageFailure."""
    found = present(context, pod, container)
    return await pull(context, pod, container) if found is None else found


def present(context: Context, pod: Pod, container: Container) -> str | None:
    """The id of an image that is in the store and need not be asked for; None if it is to be pulled.

    Raises ImageFailure where there is no way to have it.
    """
    reference = _parse(container.image)
    policy = container.image_pull_policy
    if policy == "Always" and not is_local(reference):
        return None
    try:
        image = context.images.resolve(container.image)
    except NotFoundError:
        if policy == "Never":
            text = f'Container image "{container.image}" is not present with pull policy of Never'
            raise ImageFailure("ErrImageNeverPull", text) from None
        return None
    except (ImageError, ConflictError) as error:
        raise ImageFailure("ImageInspectError", str(error)) from error
    text = f'Container image "{container.image}" already present on machine'
    context.event(pod, "Normal", "Pulled", text, container.name)
    return image.id


async def pull(context: Context, pod: Pod, container: Container) -> str:
    """Pull, with the kubelet's events; the image's id. Raises ImageFailure."""
    name = container.image
    context.event(pod, "Normal", "Pulling", f'Pulling image "{name}"', container.name)
    start = time.monotonic()
    try:
        if context.puller is None:
            raise NotFoundError("this node has no registry client; load the image with `podrt image load`")
        image = await context.puller.pull(name, secrets=_secrets(context, pod))
    except PodrtError as error:
        context.event(pod, "Warning", "Failed", f'Failed to pull image "{name}": {error}', container.name)
        raise ImageFailure("ErrImagePull", f'failed to pull image "{name}": {error}') from error
    except OSError as error:
        context.event(pod, "Warning", "Failed", f'Failed to pull image "{name}": {error}', container.name)
        raise ImageFailure("ErrImagePull", str(error)) from error
    took = _duration(time.monotonic() - start)
    text = f'Successfully pulled image "{name}" in {took} ({took} including waiting). Image size: {image.size} bytes.'
    context.event(pod, "Normal", "Pulled", text, container.name)
    return image.id


def _parse(name: str) -> Reference:
    try:
        return parse(name)
    except InvalidError as error:
        text = f"Failed to apply default image tag {name!r}: {error}"
        raise ImageFailure("InvalidImageName", text) from None


def _secrets(context: Context, pod: Pod) -> list[bytes]:
    """The documents of the Pod's imagePullSecrets; what is missing is passed over, as the kubelet does."""
    found = []
    for reference in pod.spec.image_pull_secrets:
        secret = context.store.find(Secret, pod.metadata.namespace, reference.name)
        key = _SECRET_KEYS.get(secret.type) if secret is not None else None
        if secret is None or key is None:
            text = f"Unable to retrieve some image pull secrets ({reference.name})"
            text += "; attempting to pull the image may not succeed."
            context.event(pod, "Warning", "FailedToRetrieveImagePullSecret", text)
            continue
        with contextlib.suppress(KeyError, ValueError):
            found.append(secret.content()[key])
    return found


def _duration(seconds: float) -> str:
    """As Go prints a duration rounded to milliseconds: ``53ms``, ``1.5s``, ``2m3.25s``."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{text}" if minutes else text
