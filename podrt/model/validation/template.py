"""Pod templates and selectors, as every workload kind has them. The rules are the Pod's; only the paths differ."""

from __future__ import annotations

from podrt.model.base import IntOrString
from podrt.model.intorstr import scaled
from podrt.model.meta import LabelSelector
from podrt.model.pod import PodTemplateSpec
from podrt.model.selectors import LabelSelection
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import annotation_map, label_map, label_selector
from podrt.model.validation.pod import pod_spec


def pod_template(causes: Causes, field: str, value: PodTemplateSpec) -> None:
    """Labels, annotations and the Pod's spec below ``field``."""
    label_map(causes, f"{field}.metadata.labels", value.metadata.labels)
    annotation_map(causes, f"{field}.metadata.annotations", value.metadata.annotations)
    inner = Causes()
    pod_spec(inner, value.spec)
    causes.extend(cause._replace(field=f"{field}.{cause.field}") for cause in inner)
    if value.spec.ephemeral_containers:
        causes.forbidden(f"{field}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")


def always_restarted(causes: Causes, value: PodTemplateSpec, kind: str) -> None:
    """Pods that are kept running: restartPolicy Always, no deadline."""
    if value.spec.restart_policy != "Always":
        causes.not_supported("spec.template.spec.restartPolicy", value.spec.restart_policy, ("Always",))
    if value.spec.active_deadline_seconds is not None:
        causes.forbidden(
            "spec.template.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported"
        )


def selector(causes: Causes, value: LabelSelector | None, template: PodTemplateSpec, kind: str) -> None:
    """There must be one, not empty, and it must select the template's Pods."""
    if value is None:
        causes.required("spec.selector")
        return
    before = len(causes)
    label_selector(causes, "spec.selector", value)
    if not value.match_labels and not value.match_expressions:
        causes.invalid("spec.selector", "{}", f"empty selector is invalid for {kind}")
    if len(causes) == before and not LabelSelection.of(value).matches(template.metadata.labels):
        shown = ",".join(f"{key}={text}" for key, text in sorted(template.metadata.labels.items()))
        causes.invalid("spec.template.metadata.labels", shown, "`selector` does not match template `labels`")


def selector_update(causes: Causes, new: LabelSelector | None, old: LabelSelector | None) -> None:
    if new != old:
        shown = ",".join(f"{key}={text}" for key, text in sorted(new.match_labels.items())) if new else "null"
        causes.invalid("spec.selector", shown, "field is immutable")


def count_or_percent(causes: Causes, field: str, value: IntOrString | None, *, limited: bool) -> None:
    """A count of 0 or more, or a percentage; ``limited`` to 100 %."""
    if value is None:
        return
    if isinstance(value, int):
        causes.at_least(field, value, 0)
        return
    try:
        percent = scaled(value, 100, round_up=True)
    except ValueError:
        causes.invalid(field, value, "a valid percent string must be a numeric string followed by an ending '%'")
        return
    if limited and percent > 100:
        causes.invalid(field, value, "must not be greater than 100%")


def is_zero(value: IntOrString | None) -> bool:
    return value in (0, None) or (isinstance(value, str) and value.rstrip("%").strip("0") == "")
