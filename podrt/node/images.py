"""Does this node have a container's image? The rules of ``imagePullPolicy``.

There is no registry client yet, so what is not in the store can't be had, and what is there is used under every policy.
The pull goes in here.
"""

from __future__ import annotations

from podrt.errors import ImageError, InvalidError, NotFoundError
from podrt.image.reference import parse
from podrt.model.container import Container
from podrt.model.pod import Pod
from podrt.node.context import Context


class ImageFailure(Exception):
    """``reason`` is the waiting reason: InvalidImageName, ErrImageNeverPull, ErrImagePull, ImageInspectError."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def ensure_image(context: Context, pod: Pod, container: Container) -> str:
    """The id of the container's image. Raises ImageFailure."""
    try:
        parse(container.image)
    except InvalidError as error:
        raise ImageFailure(
            "InvalidImageName", f"Failed to apply default image tag {container.image!r}: {error}"
        ) from None
    try:
        image = context.images.resolve(container.image)
    except NotFoundError:
        if container.image_pull_policy == "Never":
            text = f'Container image "{container.image}" is not present with pull policy of Never'
            raise ImageFailure("ErrImageNeverPull", text) from None
        text = (
            f'Failed to pull image "{container.image}": podrt does not pull from registries yet; '
            "put the image into the store with `podrt image load -i <archive>`"
        )
        raise ImageFailure("ErrImagePull", text) from None
    except ImageError as error:
        raise ImageFailure("ImageInspectError", str(error)) from error
    text = f'Container image "{container.image}" already present on machine'
    context.event(pod, "Normal", "Pulled", text, container.name)
    return image.id
