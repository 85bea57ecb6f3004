"""What is to be in a volume of files right now, with the tokens that are still good."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from podrt.model.configuration import ServiceAccount
from podrt.model.pod import Pod
from podrt.model.volume import ServiceAccountTokenProjection, Volume
from podrt.node.volumes import downward_api, payload, projected, token
from podrt.node.volumes.errors import Unavailable
from podrt.node.volumes.payload import Payload

if TYPE_CHECKING:
    from podrt.node.context import Context

FILE_MODE = 0o644


class _Token(NamedTuple):
    text: str
    replace_at: float


class Contents:
    """Of the volumes of one Pod."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tokens: dict[tuple[str, int], _Token] = {}

    def of(self, pod: Pod, volume: Volume) -> Payload:
        """The files of a configMap, secret, downwardAPI or projected volume. Raises Unavailable."""
        context, namespace = self._context, pod.metadata.namespace
        if volume.config_map is not None:
            one = volume.config_map
            mode = _mode(one.default_mode)
            return payload.config_map(context.store, namespace, one.name, one.items, mode, one.optional)
        if volume.secret is not None:
            two = volume.secret
            mode = _mode(two.default_mode)
            return payload.secret(context.store, namespace, two.secret_name, two.items, mode, two.optional)
        if volume.downward_api is not None:
            mode = _mode(volume.downward_api.default_mode)
            return downward_api.files(pod, volume.downward_api.items, mode, context.allocatable())
        assert volume.projected is not None

        def token_for(index: int, source: ServiceAccountTokenProjection) -> str:
            return self._token(pod, (volume.name, index), source)

        return projected.files(pod, volume.projected, context.store, context.allocatable(), token_for)

    def due(self) -> float | None:
        """When the next token is to be replaced (Unix time); None without tokens."""
        return min((one.replace_at for one in self._tokens.values()), default=None)

    def _token(self, pod: Pod, key: tuple[str, int], source: ServiceAccountTokenProjection) -> str:
        now = time.time()
        known = self._tokens.get(key)
        if known is not None and now < known.replace_at:
            return known.text
        name = pod.spec.service_account_name or "default"
        account = self._context.store.find(ServiceAccount, pod.metadata.namespace, name)
        if account is None:
            raise Unavailable(f'failed to fetch token: serviceaccounts "{name}" not found')
        seconds = source.expiration_seconds or token.DEFAULT_SECONDS
        context = self._context
        bound = token.Bound("pod", pod.metadata.name, pod.metadata.uid, context.node_name)
        audiences = (source.audience,) if source.audience else ()
        text = context.signer.sign(account, audiences, seconds, now, bound)
        self._tokens[key] = _Token(text, token.replace_at(now, now + seconds))
        return text


def _mode(mode: int | None) -> int:
    return FILE_MODE if mode is None else mode
