"""What may change of a Pod that exists."""

from __future__ import annotations

from msgspec.structs import replace

from podrt.model.container import Container
from podrt.model.pod import Pod, PodSpec
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import object_meta_update
from podrt.model.validation.pod import pod

ALLOWED = (
    "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, "
    "`spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations), "
    "`spec.schedulingGates` (only removals)"
)


def pod_update(new: Pod, old: Pod) -> Causes:
    """The new Pod valid in itself, and different from the old one only where a live Pod can change."""
    causes = pod(new)
    object_meta_update(causes, new.metadata, old.metadata)
    _deadline(causes, new.spec, old.spec)
    if any(toleration not in new.spec.tolerations for toleration in old.spec.tolerations):
        causes.forbidden("spec.tolerations", "existing tolerations can not be modified or removed")
    for gate in new.spec.scheduling_gates:
        if gate not in old.spec.scheduling_gates:
            causes.forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate")
            break
    if not _same_names(new.spec.containers, old.spec.containers):
        causes.forbidden("spec.containers", "pod updates may not add or remove containers")
        return causes
    if not _same_names(new.spec.init_containers, old.spec.init_containers):
        causes.forbidden("spec.initContainers", "pod updates may not add or remove init containers")
        return causes
    if new.spec.ephemeral_containers != old.spec.ephemeral_containers:
        causes.forbidden(
            "spec.ephemeralContainers", "may only be changed through the pod's ephemeralcontainers subresource"
        )
    _unchanged(causes, _fixed_part(new.spec, old.spec), old.spec)
    return causes


def ephemeral_containers_update(new: Pod, old: Pod) -> Causes:
    """The new Pod through the ephemeralcontainers subresource: entries may be added, never changed or removed."""
    causes = pod(new)
    object_meta_update(causes, new.metadata, old.metadata)
    field = "spec.ephemeralContainers"
    wanted = {entry.name: entry for entry in new.spec.ephemeral_containers}
    for entry in old.spec.ephemeral_containers:
        if entry.name not in wanted:
            causes.forbidden(field, f"existing ephemeral containers {entry.name!r} may not be removed")
        elif wanted[entry.name] != entry:
            causes.forbidden(field, f"existing ephemeral containers {entry.name!r} may not be changed")
    if (
        new.spec.node_name
        and old.metadata.deletion_timestamp is not None
        and len(wanted) > len(old.spec.ephemeral_containers)
    ):
        causes.forbidden(field, "the pod is being deleted")
    return causes


def _deadline(causes: Causes, new: PodSpec, old: PodSpec) -> None:
    after, before = new.active_deadline_seconds, old.active_deadline_seconds
    if before is None:
        return
    if after is None:
        causes.invalid("spec.activeDeadlineSeconds", "null", "must not update from a positive integer to nil value")
    elif after > before:
        causes.invalid("spec.activeDeadlineSeconds", after, f"must be less than or equal to previous value ({before})")


def _same_names(new: tuple[Container, ...], old: tuple[Container, ...]) -> bool:
    return [container.name for container in new] == [container.name for container in old]


def _fixed_part(new: PodSpec, old: PodSpec) -> PodSpec:
    """The new spec with everything that may change put back."""
    return replace(
        new,
        containers=_with_images(new.containers, old.containers),
        init_containers=_with_images(new.init_containers, old.init_containers),
        ephemeral_containers=old.ephemeral_containers,
        active_deadline_seconds=old.active_deadline_seconds,
        tolerations=old.tolerations,
        scheduling_gates=old.scheduling_gates,
    )


def _with_images(new: tuple[Container, ...], old: tuple[Container, ...]) -> tuple[Container, ...]:
    return tuple(replace(container, image=before.image) for container, before in zip(new, old, strict=True))


def _unchanged(causes: Causes, new: PodSpec, old: PodSpec) -> None:
    """Name the fields that differ: of a container the field, else the field of the spec."""
    wire = dict(zip(new.__struct_fields__, new.__struct_encode_fields__, strict=True))
    for attribute, name in wire.items():
        after, before = getattr(new, attribute), getattr(old, attribute)
        if after == before:
            continue
        if attribute not in ("containers", "init_containers"):
            causes.forbidden(f"spec.{name}", ALLOWED)
            continue
        for index, (container, earlier) in enumerate(zip(after, before, strict=True)):
            for inner, inner_name in zip(container.__struct_fields__, container.__struct_encode_fields__, strict=True):
                if getattr(container, inner) != getattr(earlier, inner):
                    causes.forbidden(f"spec.{name}[{index}].{inner_name}", ALLOWED)
