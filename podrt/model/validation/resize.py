"""What may change of a Pod through its subresource ``resize``: cpu and memory of containers that run for long."""

from __future__ import annotations

from msgspec.structs import replace

from podrt.model.container import Container
from podrt.model.pod import Pod
from podrt.model.resources import qos_class
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import object_meta_update
from podrt.model.validation.pod import pod

RESIZABLE = ("cpu", "memory")


def resized(old: Pod, sent: Pod) -> Pod:
    """The old Pod with the resources and resize policies of ``sent``; nothing else of what was sent counts."""
    spec = replace(
        old.spec,
        containers=_taken(old.spec.containers, sent.spec.containers),
        init_containers=_taken(old.spec.init_containers, sent.spec.init_containers),
    )
    return replace(old, spec=spec)


def _taken(old: tuple[Container, ...], sent: tuple[Container, ...]) -> tuple[Container, ...]:
    wanted = {one.name: one for one in sent}
    return tuple(
        replace(one, resources=wanted[one.name].resources, resize_policy=wanted[one.name].resize_policy)
        if one.name in wanted
        else one
        for one in old
    )


def resize_update(new: Pod, old: Pod) -> Causes:
    """The new Pod valid in itself, of the same QoS class, and different only in cpu and memory."""
    causes = pod(new)
    object_meta_update(causes, new.metadata, old.metadata)
    if qos_class(new.spec) != (old.status.qos_class or qos_class(old.spec)):
        causes.invalid("spec", qos_class(new.spec), "Pod QOS Class may not change as a result of resizing")
    if old.spec.resources is not None:
        causes.forbidden("spec.resources", "a Pod with resources of its own can not be resized")
    if old.status.phase in ("Succeeded", "Failed"):
        causes.forbidden("spec", "the Pod has ended")
    for field, after, before in (
        ("spec.containers", new.spec.containers, old.spec.containers),
        ("spec.initContainers", new.spec.init_containers, old.spec.init_containers),
    ):
        for index, (one, earlier) in enumerate(zip(after, before, strict=True)):
            _container(causes, f"{field}[{index}].resources", one, earlier, init=field == "spec.initContainers")
    return causes


def _container(causes: Causes, field: str, new: Container, old: Container, *, init: bool) -> None:
    if new.resources == old.resources:
        return
    if init and old.restart_policy != "Always":
        causes.forbidden(field, "resources for non-sidecar init containers are immutable")
        return
    for part in ("limits", "requests"):
        after, before = getattr(new.resources, part), getattr(old.resources, part)
        for name in {*after, *before}:
            if name not in RESIZABLE and after.get(name) != before.get(name):
                causes.forbidden(f"{field}.{part}", "only cpu and memory resources are mutable")
            elif name not in after:
                causes.forbidden(f"{field}.{part}", f"resource {part} cannot be removed")
    if new.resources.claims != old.resources.claims:
        causes.forbidden(f"{field}.claims", "only cpu and memory resources are mutable")
