"""Warnings about a Pod's fields that are accepted without effect on one machine: the user must not think they work."""

from __future__ import annotations

from podrt.model.kinds import Object
from podrt.model.pod import Pod
from podrt.model.support import POD, State

# Where the field asks for something that a user may rely on; the rest of the accepted ones (service account ...)
# ask for nothing that is missing.
_TOLD = ("imagePullSecrets", "priorityClassName")


def accepted_without_effect(sent: Object) -> tuple[str, ...]:
    """One line for each such field of a Pod as it was sent, for ``Warning`` headers."""
    if not isinstance(sent, Pod):
        return ()
    values = zip(sent.spec.__struct_encode_fields__, sent.spec.__struct_fields__, strict=True)
    return tuple(
        f"spec.{name}: has no effect here: {POD[name].note}"
        for name, attribute in values
        if name in _TOLD and POD[name].state is State.ACCEPTED and getattr(sent.spec, attribute)
    )
