"""postStart and preStop: one handler, run once. What it says is not judged, only whether it could be run to its end.

Of httpGet any answer will do; a server that does not speak TLS is asked again in plain HTTP, as a kubelet does. Hooks
have no time-out of their own: a postStart hook may take as long as it likes, a preStop hook has the grace period.
"""

from __future__ import annotations

import asyncio

from podrt.errors import PodrtError
from podrt.model.container import LifecycleHandler
from podrt.node.handlers import HandlerError, Target, http_get
from podrt.node.http_client import HttpError

HTTP_TIMEOUT = 3600.0
OUTPUT_BYTES = 1024


class HookError(Exception):
    """The hook failed; the text says how, without the command's output, which may hold secrets."""


async def run_hook(handler: LifecycleHandler, target: Target) -> None:
    """Returns when the hook is over. Raises HookError."""
    if handler.sleep is not None:
        await asyncio.sleep(handler.sleep.seconds)
    elif handler.exec is not None:
        await _exec(handler.exec.command, target)
    elif handler.http_get is not None:
        await _http(handler, target)
    else:
        # Kubernetes takes a tcpSocket hook, and no kubelet has ever run one: it fails, and its container with it.
        raise HookError("invalid handler: tcpSocket can't be run as a hook: use exec, httpGet or sleep")


async def _exec(command: tuple[str, ...], target: Target) -> None:
    try:
        found = await target.engine.exec_sync(target.container_id, command, 0, OUTPUT_BYTES)
    except (PodrtError, OSError) as error:
        raise HookError(str(error)) from error
    if found.code:
        raise HookError(f"command exited with {found.code}")


async def _http(handler: LifecycleHandler, target: Target) -> None:
    action = handler.http_get
    assert action is not None
    try:
        try:
            await http_get(action, target, HTTP_TIMEOUT)
        except HttpError as error:
            if action.scheme != "HTTPS" or ": tls: " not in str(error):
                raise
            await http_get(action, target, HTTP_TIMEOUT, "HTTP")
    except (HttpError, HandlerError) as error:
        raise HookError(str(error)) from error
