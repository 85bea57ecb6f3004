"""Validation: what is wrong with an object, as a list of causes with Kubernetes' field paths, reasons and words.

Objects must have their defaults. Everything that is wrong is found, not only the first. The themes have a file each;
what this version can't do *yet* is another question, answered by :mod:`podrt.model.support`.
"""

from __future__ import annotations

from podrt.errors import Cause
from podrt.model.event import Event
from podrt.model.kinds import Object
from podrt.model.meta import DeleteOptions
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import delete_options, object_meta_update
from podrt.model.validation.others import event, namespace, node
from podrt.model.validation.pod import pod
from podrt.model.validation.update import pod_update

__all__ = ["Causes", "validate", "validate_delete_options", "validate_update"]


def validate(obj: Object) -> list[Cause]:
    """Everything that is wrong with an object that is about to be created."""
    if isinstance(obj, Pod):
        return pod(obj)
    if isinstance(obj, Namespace):
        return namespace(obj)
    if isinstance(obj, Event):
        return event(obj)
    return node(obj)


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Everything that is wrong with replacing ``old`` by ``new``."""
    if isinstance(new, Pod) and isinstance(old, Pod):
        return pod_update(new, old)
    causes = Causes(validate(new))
    object_meta_update(causes, new.metadata, old.metadata)
    return causes


def validate_delete_options(options: DeleteOptions) -> list[Cause]:
    return delete_options(options)
