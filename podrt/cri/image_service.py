"""The CRI's ImageService over podrt's image store and registry client.

An image's id is the digest of its configuration, in all answers. Names are those that were asked for, also where a
mirror gave the image. An image held by Pods of podrt's own API is told to be pinned: the kubelet, which doesn't know
them, takes what no container of its own uses for rubbish.

Removing follows the CRI, which differs from ``podrt image rm``: by any one name all of the image's names go, and a
container that uses it is no obstacle; it keeps its layers (see :meth:`podrt.image.service.ImageStore.retire`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import time
from collections.abc import Collection
from typing import Any

from cri_api.v1 import api_pb2 as api

from podrt.config import Config
from podrt.cri.filesystems import filesystem, mountpoints
from podrt.engine.api import EngineApi
from podrt.errors import InvalidError, NotFoundError, PodrtError, UnavailableError
from podrt.image.collect import is_pinned, patterns
from podrt.image.registry_auth import Credential, Login
from podrt.image.registry_pull import Puller
from podrt.image.service import ImageStore
from podrt.image.types import Image

_UID_DIGITS = 20


class RegistryUnavailableError(PodrtError):
    """No registry could be reached. The kubelet knows it by the beginning of the message (cri-api, pkg/errors), and
    looks there only with the code UNKNOWN, which errors that the edge doesn't know by name get."""

    def __init__(self, message: str) -> None:
        super().__init__(f"RegistryUnavailable: {message}")


class ImageService:
    """The five RPCs; ``handlers`` are the names of runtime handlers that an ImageSpec may have."""

    def __init__(
        self,
        config: Config,
        engine: EngineApi,
        images: ImageStore,
        puller: Puller,
        handlers: Collection[str] = ("",),
    ) -> None:
        self._config = config
        self._engine = engine
        self._images = images
        self._puller = puller
        self._handlers = frozenset(handlers)
        self._patterns = patterns(config.image_pinned)

    async def ListImages(self, request: api.ListImagesRequest, context: Any) -> api.ListImagesResponse:
        """All images, or the one that ``filter.image.image`` names, if it is there."""
        wanted = request.filter.image.image
        found = [self._find(wanted)] if wanted else self._images.list()
        used = self._used_by_others()
        return api.ListImagesResponse(images=[self._image(one, used) for one in found if one is not None])

    async def ImageStatus(self, request: api.ImageStatusRequest, context: Any) -> api.ImageStatusResponse:
        """Nothing in it where the image is not there. ``verbose``: its configuration, as JSON under ``info``."""
        image = self._find(_name(request.image))
        if image is None:
            return api.ImageStatusResponse()
        info = {}
        if request.verbose:
            document = await asyncio.to_thread(self._images.configuration, image.id)
            info["info"] = json.dumps(
                {"chainID": image.chain_ids[-1] if image.chain_ids else "", "imageSpec": document}
            )
        return api.ImageStatusResponse(image=self._image(image, self._used_by_others()), info=info)

    async def PullImage(self, request: api.PullImageRequest, context: Any) -> api.PullImageResponse:
        """The id of the image, which is asked of its registry even if it is here.

        Raises RegistryUnavailableError where none can be reached, else what ``Puller.pull`` raises.
        """
        name = _name(request.image)
        if request.image.runtime_handler not in self._handlers:
            raise InvalidError(f"image {name}: runtime_handler: {request.image.runtime_handler!r} is unknown")
        try:
            image = await self._puller.pull(name, login=login_of(request.auth))
        except UnavailableError as error:
            raise RegistryUnavailableError(str(error)) from error
        return api.PullImageResponse(image_ref=image.id)

    async def RemoveImage(self, request: api.RemoveImageRequest, context: Any) -> api.RemoveImageResponse:
        """Remove an image with all its names; no error if it is not there."""
        image = self._find(_name(request.image))
        if image is not None:
            await asyncio.to_thread(self._remove, image)
        return api.RemoveImageResponse()

    async def ImageFsInfo(self, request: api.ImageFsInfoRequest, context: Any) -> api.ImageFsInfoResponse:
        """What images, and what writable layers take. One mount point for both where they share a file system: the
        kubelet takes different ones for different disks."""
        of_images, of_containers = mountpoints(self._config)
        usage = await asyncio.to_thread(self._images.usage)
        layers = await self._engine.writable_layers()
        return api.ImageFsInfoResponse(
            image_filesystems=[filesystem(of_images, time.time(), usage.blob_bytes + usage.layer_bytes, usage.inodes)],
            container_filesystems=[filesystem(of_containers, layers.at, layers.bytes, layers.inodes)],
        )

    # Inside

    def _find(self, reference: str) -> Image | None:
        """None also for what no image can be called. Raises ConflictError for a beginning of several ids."""
        try:
            return self._images.resolve(reference)
        except (NotFoundError, InvalidError):
            return None

    def _remove(self, image: Image) -> None:
        with contextlib.suppress(NotFoundError):  # another call was faster
            self._images.retire(image.id)

    def _used_by_others(self) -> set[str]:
        """Ids of the images that Pods of the API hold."""
        others = {one.id for one in self._engine.list_sandboxes() if not one.spec.owner}
        return {one.image_id for one in self._engine.list_containers() if one.sandbox_id in others} if others else set()

    def _image(self, image: Image, used: Collection[str]) -> api.Image:
        uid, username = user_of(image.config.user)
        return api.Image(
            id=image.id,
            repo_tags=image.names,
            repo_digests=image.digests,
            size=self._images.disk_size(image),
            uid=None if uid is None else api.Int64Value(value=uid),
            username=username,
            pinned=image.id in used or is_pinned(image, self._patterns),
        )


def login_of(auth: api.AuthConfig) -> Login | None:
    """What the kubelet says of who we are; None where it says nothing. Raises InvalidError."""
    if auth.username:
        credential = Credential(auth.username, auth.password)
    elif auth.identity_token:
        credential = Credential(identity_token=auth.identity_token)
    elif auth.auth:
        credential = _decoded(auth.auth)
    elif auth.registry_token:
        credential = Credential(registry_token=auth.registry_token)
    else:
        return None
    return Login(credential, auth.server_address)


def _decoded(text: str) -> Credential:
    """``user:password`` in base64, as auth files have it."""
    try:
        username, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise InvalidError("auth.auth: is not base64 of user:password") from None
    if not colon:
        raise InvalidError("auth.auth: is not base64 of user:password")
    return Credential(username, password.strip("\0"))


def user_of(user: str) -> tuple[int | None, str]:
    """The uid or else the name in an image's USER (``user``, ``uid``, either with ``:group``); (None, "") for none."""
    name = user.partition(":")[0]
    # Python refuses to read numbers of thousands of digits.
    if name.isascii() and name.isdigit() and len(name) < _UID_DIGITS and int(name) < 1 << 63:
        return int(name), ""
    return None, name


def _name(spec: api.ImageSpec) -> str:
    if not spec.image:
        raise InvalidError("image.image: required: a name, or the id of an image")
    return spec.image
