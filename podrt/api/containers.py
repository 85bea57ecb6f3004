"""Which container of a Pod a request for logs, exec or attach means: pure."""

from __future__ import annotations

from collections.abc import Sequence

from podrt.errors import MalformedError
from podrt.model.container import Container
from podrt.model.pod import Pod

DEFAULT_ANNOTATION = "kubectl.kubernetes.io/default-container"


def find_container(pod: Pod, name: str) -> Container:
    """The container ``name``; without a name the annotated default, else the only one.

    Raises MalformedError (as Kubernetes does, 400) in its words.
    """
    spec = pod.spec
    everything = (*spec.containers, *spec.init_containers, *spec.ephemeral_containers)
    wanted = name or pod.metadata.annotations.get(DEFAULT_ANNOTATION, "")
    for container in everything:
        if container.name == wanted:
            return container
    if name:
        raise MalformedError(f"container {name} is not valid for pod {pod.metadata.name}")
    if len(everything) == 1:
        return everything[0]
    message = (
        f"a container name must be specified for pod {pod.metadata.name}, choose one of: {_names(spec.containers)}"
    )
    if spec.init_containers:
        message += f" or one of the init containers: {_names(spec.init_containers)}"
    if spec.ephemeral_containers:
        message += f" or one of the ephemeral containers: {_names(spec.ephemeral_containers)}"
    raise MalformedError(message)


def _names(containers: Sequence[Container]) -> str:
    return "[" + " ".join(container.name for container in containers) + "]"
