"""Label and field selectors: parsed once, then matched against many objects.

Label selectors are the API's strings (``app=web,tier in (a, b),!old``) or LabelSelector objects; field selectors know
the same few fields of each kind as Kubernetes does. Raises MalformedError that names the selector and the part of it
that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from podrt.errors import Cause, InvalidError, MalformedError
from podrt.model.apps import ReplicaSet
from podrt.model.batch import Job
from podrt.model.configuration import Secret
from podrt.model.event import Event
from podrt.model.kinds import BY_NAME, Object
from podrt.model.meta import LabelSelector
from podrt.model.names import label_value_errors, qualified_name_errors
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod

IN, NOT_IN, EXISTS, NOT_EXISTS, GREATER, LESS = "in", "notin", "exists", "!", "gt", "lt"

_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|<|>|,|\(|\))|([^\s=!<>,()]+))")


class Requirement(NamedTuple):
    """One condition on one label."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == IN:
            return value is not None and value in self.values
        if self.operator == NOT_IN:
            return value is None or value not in self.values
        if self.operator == EXISTS:
            return value is not None
        if self.operator == NOT_EXISTS:
            return value is None
        if value is None or not re.fullmatch(r"[+-]?[0-9]+", value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if self.operator == GREATER else int(value) < int(bound)


@dataclass(frozen=True, slots=True)
class LabelSelection:
    """All of these must match. An empty one matches everything, and is false."""

    requirements: tuple[Requirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    @classmethod
    def parse(cls, text: str) -> LabelSelection:
        """A selector in the API's text form. Raises MalformedError."""
        return cls(_LabelParser(text).parse())

    @classmethod
    def of(cls, selector: LabelSelector) -> LabelSelection:
        """A selector from a (validated) LabelSelector object. Raises InvalidError for an unknown operator."""
        operators = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": NOT_EXISTS}
        found = [Requirement(key, IN, frozenset([value])) for key, value in selector.match_labels.items()]
        for index, expression in enumerate(selector.match_expressions):
            operator = operators.get(expression.operator)
            if operator is None:
                message = f'"{expression.operator}" is not a valid label selector operator'
                raise InvalidError(message, [Cause(f"matchExpressions[{index}].operator", message)])
            found.append(Requirement(expression.key, operator, frozenset(expression.values)))
        return cls(tuple(found))


class _LabelParser:
    """Recursive descent over the tokens of one selector."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise self.error(f"can't read {stripped[position:]!r}")
            self.tokens.append(match.group(1) or match.group(2))
            position = match.end()

    def error(self, message: str) -> MalformedError:
        message = f'unable to parse label selector "{self.text}": {message}'
        return MalformedError(message, [Cause("labelSelector", message)])

    def next(self, expected: str) -> str:
        if not self.tokens:
            raise self.error(f"found the end, expected {expected}")
        return self.tokens.pop(0)

    def parse(self) -> tuple[Requirement, ...]:
        found: list[Requirement] = []
        while self.tokens:
            found.append(self.requirement())
            if self.tokens and (token := self.tokens.pop(0)) != ",":
                raise self.error(f"found '{token}', expected: ',' or the end")
            if not self.tokens and self.text.rstrip().endswith(","):
                raise self.error("found the end, expected a label key after ','")
        return tuple(found)

    def requirement(self) -> Requirement:
        token = self.next("a label key")
        if token == "!":
            return Requirement(self.key(self.next("a label key")), NOT_EXISTS)
        key = self.key(token)
        if not self.tokens or self.tokens[0] == ",":
            return Requirement(key, EXISTS)
        operator = self.tokens.pop(0)
        if operator in ("=", "=="):
            return Requirement(key, IN, frozenset([self.value()]))
        if operator == "!=":
            return Requirement(key, NOT_IN, frozenset([self.value()]))
        if operator in ("in", "notin"):
            return Requirement(key, operator, self.values())
        if operator in ("<", ">"):
            bound = self.value()
            if not re.fullmatch(r"[+-]?[0-9]+", bound):
                raise self.error(f"for '{operator}' the value must be an integer, not '{bound}'")
            return Requirement(key, GREATER if operator == ">" else LESS, frozenset([bound]))
        raise self.error(f"found '{operator}', expected: in, notin, =, ==, !=, >, <")

    def key(self, token: str) -> str:
        for message in qualified_name_errors(token):
            raise self.error(f"key '{token}': {message}")
        return token

    def value(self) -> str:
        # "a=" and "a=,b" select the empty value.
        if not self.tokens or self.tokens[0] in (",", ")"):
            return ""
        token = self.tokens.pop(0)
        for message in label_value_errors(token):
            raise self.error(f"value '{token}': {message}")
        return token

    def values(self) -> frozenset[str]:
        if (token := self.next("'('")) != "(":
            raise self.error(f"found '{token}', expected: '('")
        found = [self.value()]
        while (token := self.next("',' or ')'")) == ",":
            found.append(self.value())
        if token != ")":
            raise self.error(f"found '{token}', expected: ',' or ')'")
        return frozenset(found)


def _pod(pod: Pod) -> dict[str, str]:
    return {
        "spec.nodeName": pod.spec.node_name,
        "spec.restartPolicy": pod.spec.restart_policy,
        "spec.schedulerName": pod.spec.scheduler_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "spec.hostNetwork": str(pod.spec.host_network).lower(),
        "status.phase": pod.status.phase,
        "status.podIP": pod.status.pod_ip,
        "status.podIPs": pod.status.pod_ip,
        "status.nominatedNodeName": pod.status.nominated_node_name,
    }


def _event(event: Event) -> dict[str, str]:
    about = event.involved_object
    return {
        "involvedObject.kind": about.kind,
        "involvedObject.namespace": about.namespace,
        "involvedObject.name": about.name,
        "involvedObject.uid": about.uid,
        "involvedObject.apiVersion": about.api_version,
        "involvedObject.resourceVersion": about.resource_version,
        "involvedObject.fieldPath": about.field_path,
        "reason": event.reason,
        "reportingComponent": event.reporting_component,
        "source": event.source.component or event.reporting_component,
        "type": event.type,
    }


def _namespace(namespace: Namespace) -> dict[str, str]:
    return {"status.phase": namespace.status.phase, "name": namespace.metadata.name}


def _node(node: Node) -> dict[str, str]:
    return {"spec.unschedulable": str(node.spec.unschedulable).lower()}


def fields_of(obj: Object) -> dict[str, str]:
    """The fields of an object that a field selector can name, with their values."""
    fields = {"metadata.name": obj.metadata.name, "metadata.namespace": obj.metadata.namespace}
    if isinstance(obj, Pod):
        return fields | _pod(obj)
    if isinstance(obj, Event):
        return fields | _event(obj)
    if isinstance(obj, Namespace):
        return fields | _namespace(obj)
    if isinstance(obj, Node):
        return fields | _node(obj)
    if isinstance(obj, ReplicaSet):
        return fields | {"status.replicas": str(obj.status.replicas)}
    if isinstance(obj, Job):
        return fields | {"status.successful": str(obj.status.succeeded)}
    return fields | {"type": obj.type} if isinstance(obj, Secret) else fields


@dataclass(frozen=True, slots=True)
class FieldSelection:
    """``(field, wanted, value)`` each; ``wanted`` False for ``!=``. An empty one matches everything, and is false."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    def matches(self, obj: Object) -> bool:
        fields = fields_of(obj)
        return all((fields[name] == value) == wanted for name, wanted, value in self.terms)

    @classmethod
    def parse(cls, resource: str, text: str) -> FieldSelection:
        """``a=b,c!=d``; a backslash makes ``,`` and ``=`` plain. Raises MalformedError for an unknown field."""
        known = fields_of(BY_NAME[resource].struct())
        terms: list[tuple[str, bool, str]] = []
        for term in re.findall(r"(?:\\.|[^,\\])+", text):
            match = re.fullmatch(r"([^=!]+)(==|!=|=)((?:\\.|[^=\\])*)", term.strip())
            if match is None:
                raise _field_error(text, f"'{term}' is not of the form field=value, field==value or field!=value")
            name, operator, value = match.groups()
            if name not in known:
                raise _field_error(text, f'"{name}" is not a known field selector: only {_quoted(known)}')
            terms.append((name, operator != "!=", re.sub(r"\\(.)", r"\1", value)))
        return cls(tuple(terms))


def _quoted(names: Mapping[str, str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))


def _field_error(text: str, message: str) -> MalformedError:
    message = f'unable to parse field selector "{text}": {message}'
    return MalformedError(message, [Cause("fieldSelector", message)])
