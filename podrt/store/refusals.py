"""The errors of writing objects, in Kubernetes' words: what is invalid, and what is not as the client believed."""

from __future__ import annotations

from podrt.errors import Cause, ConflictError, InvalidError
from podrt.model.kinds import Object, Resource
from podrt.model.meta import DeleteOptions, ObjectMeta


def refuse_invalid(resource: Resource, metadata: ObjectMeta, causes: list[Cause], kind: str = "") -> None:
    if causes:
        raise invalid(kind or resource.kind, metadata.name or metadata.generate_name, causes)


def invalid(kind: str, name: str, causes: list[Cause]) -> InvalidError:
    """The error of an object with these causes, in Kubernetes' words."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return InvalidError(f'{kind} "{name}" is invalid: {text}', causes)


def check_version(resource: Resource, old: Object, version: str) -> None:
    if version and version != old.metadata.resource_version:
        raise ConflictError(
            f'Operation cannot be fulfilled on {resource.qualified} "{old.metadata.name}": '
            "the object has been modified; please apply your changes to the latest version and try again"
        )


def check_preconditions(resource: Resource, old: Object, options: DeleteOptions) -> None:
    wanted = options.preconditions
    if wanted is None:
        return
    if wanted.uid is not None and wanted.uid != old.metadata.uid:
        raise precondition(resource, old, "UID", wanted.uid, old.metadata.uid)
    if wanted.resource_version is not None and wanted.resource_version != old.metadata.resource_version:
        raise precondition(resource, old, "ResourceVersion", wanted.resource_version, old.metadata.resource_version)


def precondition(resource: Resource, old: Object, what: str, wanted: str, found: str) -> ConflictError:
    return ConflictError(
        f'Operation cannot be fulfilled on {resource.qualified} "{old.metadata.name}": Precondition failed: '
        f"{what} in precondition: {wanted}, {what} in object meta: {found}"
    )
