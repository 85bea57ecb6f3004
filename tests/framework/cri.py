"""A client of the CRI for tests and the bench: the generated stubs, and the calls that nearly every test makes.

Synchronous, one channel for each client. ``runtime`` and ``images`` are the stubs themselves for everything else; a
call that fails raises grpc.RpcError, whose ``code()`` tests compare (:func:`refused`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

# Before grpc is imported: its fork handlers are not for a process that only ever execs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

import grpc
import pytest
from cri_api.v1 import api_pb2, api_pb2_grpc

from tests.framework.patience import scaled
from tests.framework.pods import BUSYBOX

_numbers = itertools.count()
MAX_MESSAGE = 16 * 1024 * 1024
"""As a kubelet has it."""
SLEEP = ("sleep", "1000000")


class CriClient:
    """A connection to the socket ``path``. Use as a context manager, or :meth:`close` it."""

    def __init__(self, path: str | Path, timeout: float = 60.0) -> None:
        self.timeout = scaled(timeout)
        self.channel = grpc.insecure_channel(f"unix:{path}", options=[("grpc.max_receive_message_length", MAX_MESSAGE)])
        stubs: Any = api_pb2_grpc
        self.runtime = stubs.RuntimeServiceStub(self.channel)
        self.images = stubs.ImageServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.channel.close()

    def call(self, method: str, **fields: Any) -> Any:
        """One RPC of either service by name, its request made of ``fields``; the answer."""
        stub = self.runtime if hasattr(self.runtime, method) else self.images
        request = getattr(api_pb2, f"{method}Request")(**fields)
        return getattr(stub, method)(request, timeout=self.timeout, wait_for_ready=True)

    # ---- sandboxes

    def run_sandbox(self, config: Any = None, *, handler: str = "", **fields: Any) -> str:
        """RunPodSandbox of ``config``, or of a :func:`sandbox` with these fields; the sandbox's id."""
        config = config if config is not None else sandbox(**fields)
        sandbox_id: str = self.call("RunPodSandbox", config=config, runtime_handler=handler).pod_sandbox_id
        return sandbox_id

    def stop_sandbox(self, sandbox_id: str) -> None:
        self.call("StopPodSandbox", pod_sandbox_id=sandbox_id)

    def remove_sandbox(self, sandbox_id: str) -> None:
        self.call("RemovePodSandbox", pod_sandbox_id=sandbox_id)

    def sandbox_status(self, sandbox_id: str) -> Any:
        return self.call("PodSandboxStatus", pod_sandbox_id=sandbox_id).status

    def sandboxes(self, **wanted: Any) -> list[Any]:
        """ListPodSandbox with a filter of these fields."""
        return list(self.call("ListPodSandbox", filter=api_pb2.PodSandboxFilter(**wanted)).items)

    # ---- containers

    def create(self, sandbox_id: str, pod: Any, config: Any = None, **fields: Any) -> str:
        """CreateContainer of ``config``, or of a :func:`container` with these fields; the container's id."""
        config = config if config is not None else container(**fields)
        answer = self.call("CreateContainer", pod_sandbox_id=sandbox_id, config=config, sandbox_config=pod)
        container_id: str = answer.container_id
        return container_id

    def start(self, container_id: str) -> None:
        self.call("StartContainer", container_id=container_id)

    def run(self, sandbox_id: str, pod: Any, config: Any = None, **fields: Any) -> str:
        """Create a container and start it; its id."""
        container_id = self.create(sandbox_id, pod, config, **fields)
        self.start(container_id)
        return container_id

    def stop(self, container_id: str, timeout: int = 0) -> None:
        self.call("StopContainer", container_id=container_id, timeout=timeout)

    def remove(self, container_id: str) -> None:
        self.call("RemoveContainer", container_id=container_id)

    def status(self, container_id: str) -> Any:
        return self.call("ContainerStatus", container_id=container_id).status

    def containers(self, **wanted: Any) -> list[Any]:
        """ListContainers with a filter of these fields."""
        return list(self.call("ListContainers", filter=api_pb2.ContainerFilter(**wanted)).containers)

    def exec(self, container_id: str, *command: str, timeout: int = 0) -> tuple[int, str, str]:
        """ExecSync: exit code, stdout, stderr."""
        answer = self.call("ExecSync", container_id=container_id, cmd=command, timeout=timeout)
        return answer.exit_code, answer.stdout.decode(), answer.stderr.decode()

    def clear(self) -> None:
        """Stop and remove every sandbox, with its containers."""
        for one in self.sandboxes():
            self.stop_sandbox(one.id)
            self.remove_sandbox(one.id)


def sandbox(name: str = "", log_directory: str | Path = "", **fields: Any) -> Any:
    """A PodSandboxConfig with a uid of its own. ``linux`` and the rest as the message has them."""
    name = name or f"pod-{next(_numbers)}"
    metadata = api_pb2.PodSandboxMetadata(name=name, uid=str(uuid.uuid4()), namespace="default", attempt=0)
    return api_pb2.PodSandboxConfig(metadata=metadata, log_directory=str(log_directory), **fields)


def container(
    name: str = "main", command: Sequence[str] = SLEEP, *, image: str = BUSYBOX, attempt: int = 0, **fields: Any
) -> Any:
    """A ContainerConfig that runs ``command``, or sleeps."""
    metadata = api_pb2.ContainerMetadata(name=name, attempt=attempt)
    return api_pb2.ContainerConfig(
        metadata=metadata, image=api_pb2.ImageSpec(image=image), command=list(command), **fields
    )


@contextlib.contextmanager
def refused(code: str, match: str = "") -> Iterator[None]:
    """What runs in here must be answered with the gRPC status ``code`` (such as ``NOT_FOUND``) and say ``match``."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    answer: Any = caught.value
    assert answer.code().name == code, f"{answer.code().name}: {answer.details()}"
    assert match in answer.details(), answer.details()
