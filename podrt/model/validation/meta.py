"""ObjectMeta, labels and label selectors."""

from __future__ import annotations

from collections.abc import Callable

from podrt.model.meta import DeleteOptions, LabelSelector, ObjectMeta
from podrt.model.names import dns_label_errors, label_value_errors, qualified_name_errors
from podrt.model.validation.causes import Causes

ANNOTATIONS_SIZE = 256 * 1024
SELECTOR_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
STANDARD_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")


def object_meta(
    causes: Causes, metadata: ObjectMeta, name_errors: Callable[[str], list[str]], *, namespaced: bool
) -> None:
    """Name, namespace, labels, annotations, owners, finalizers."""
    if metadata.generate_name:
        # The suffix takes the place of a trailing dash.
        causes.check("metadata.generateName", metadata.generate_name, name_errors(metadata.generate_name + "a"))
    if not metadata.name:
        causes.required("metadata.name", "name or generateName is required")
    else:
        causes.check("metadata.name", metadata.name, name_errors(metadata.name))
    if namespaced:
        if not metadata.namespace:
            causes.required("metadata.namespace")
        else:
            causes.check("metadata.namespace", metadata.namespace, dns_label_errors(metadata.namespace))
    elif metadata.namespace:
        causes.forbidden("metadata.namespace", "not allowed on this type")
    causes.at_least("metadata.generation", metadata.generation, 0)
    label_map(causes, "metadata.labels", metadata.labels)
    annotation_map(causes, "metadata.annotations", metadata.annotations)
    _owners(causes, metadata)
    for finalizer in metadata.finalizers:
        causes.check("metadata.finalizers", finalizer, qualified_name_errors(finalizer))
        if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
            causes.invalid(
                "metadata.finalizers", finalizer, "name is neither a standard finalizer name nor is it fully qualified"
            )


def label_map(causes: Causes, field: str, values: dict[str, str]) -> None:
    for key, value in values.items():
        causes.check(field, key, qualified_name_errors(key))
        causes.check(field, value, label_value_errors(value))


def annotation_map(causes: Causes, field: str, values: dict[str, str]) -> None:
    for key in values:
        causes.check(field, key, qualified_name_errors(key.lower()))
    if sum(len(key.encode()) + len(value.encode()) for key, value in values.items()) > ANNOTATIONS_SIZE:
        causes.too_long(field, ANNOTATIONS_SIZE)


def _owners(causes: Causes, metadata: ObjectMeta) -> None:
    controllers = 0
    for index, owner in enumerate(metadata.owner_references):
        field = f"metadata.ownerReferences[{index}]"
        for name, value in (("apiVersion", owner.api_version), ("kind", owner.kind), ("name", owner.name)):
            if not value:
                causes.invalid(f"{field}.{name}", value, "must not be empty")
        if not owner.uid:
            causes.invalid(f"{field}.uid", owner.uid, "must not be empty")
        controllers += bool(owner.controller)
    if controllers > 1:
        causes.invalid("metadata.ownerReferences", controllers, "only one reference can have controller set to true")


def label_selector(causes: Causes, field: str, selector: LabelSelector | None) -> None:
    if selector is None:
        return
    label_map(causes, f"{field}.matchLabels", selector.match_labels)
    for index, expression in enumerate(selector.match_expressions):
        where = f"{field}.matchExpressions[{index}]"
        causes.check(f"{where}.key", expression.key, qualified_name_errors(expression.key))
        if expression.operator not in SELECTOR_OPERATORS:
            causes.invalid(f"{where}.operator", expression.operator, "not a valid selector operator")
        elif expression.operator in ("In", "NotIn"):
            if not expression.values:
                causes.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif expression.values:
            causes.forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        for value in expression.values:
            causes.check(f"{where}.values", value, label_value_errors(value))


def object_meta_update(causes: Causes, new: ObjectMeta, old: ObjectMeta) -> None:
    """What can't change once an object exists."""
    for name, given, kept in (
        ("name", new.name, old.name),
        ("namespace", new.namespace, old.namespace),
        ("uid", new.uid, old.uid),
        ("creationTimestamp", new.creation_timestamp, old.creation_timestamp),
    ):
        if given != kept:
            causes.invalid(f"metadata.{name}", given, "field is immutable")
    if old.deletion_timestamp is not None:
        for finalizer in new.finalizers:
            if finalizer not in old.finalizers:
                causes.forbidden(
                    "metadata.finalizers",
                    f"no new finalizers can be added if the object is being deleted, found new finalizers {finalizer}",
                )


def delete_options(options: DeleteOptions) -> Causes:
    causes = Causes()
    causes.one_of("propagationPolicy", options.propagation_policy, ("Orphan", "Background", "Foreground"))
    if options.orphan_dependents is not None and options.propagation_policy is not None:
        causes.invalid(
            "propagationPolicy",
            options.propagation_policy,
            "orphanDependents and propagationPolicy cannot be both set",
        )
    for value in options.dry_run:
        causes.one_of("dryRun", value, ("All",))
    return causes
