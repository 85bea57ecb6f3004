"""Patch formats by table: RFC 6902, RFC 7386, and strategic merge with its directives."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.api.patch import json_patch, merge_patch
from podrt.api.strategic import strategic_merge
from podrt.errors import InvalidError, MalformedError
from podrt.model.node import Node
from podrt.model.pod import Pod

Json = Any


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # The examples of RFC 7386, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Json, patch: Json, result: Json) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == result
    assert target == before


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["a", "c"]}, [{"op": "add", "path": "/foo/1", "value": "b"}], {"foo": ["a", "b", "c"]}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": ["b"]}], {"foo": ["a", ["b"]]}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/1", "value": "b"}], {"foo": ["a", "b"]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/1"}], {"a": [1, 3]}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/0", "value": 9}], {"a": [9, 2]}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        (
            {"a/b": 1, "m~n": 2},
            [{"op": "remove", "path": "/a~1b"}, {"op": "test", "path": "/m~0n", "value": 2}],
            {"m~n": 2},
        ),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": None}, [{"op": "test", "path": "/a", "value": None}], {"a": None}),
        ({"": 1}, [{"op": "test", "path": "/", "value": 1}], {"": 1}),
        ({"a": 1.0}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1.0}),
    ],
)
def test_json_patch(target: Json, patch: Json, result: Json) -> None:
    before = copy.deepcopy(target)
    assert json_patch(target, patch) == result
    assert target == before


@pytest.mark.parametrize(
    ("patch", "error", "words"),
    [
        ({}, MalformedError, "must be a list"),
        (["x"], MalformedError, r"\[0\]"),
        ([{"op": "add", "path": "a", "value": 1}], MalformedError, "JSON pointer"),
        ([{"op": "add", "path": "/a"}], MalformedError, "value of the JSON patch is missing"),
        ([{"op": "frob", "path": "/a"}], MalformedError, "'frob' is none of"),
        ([{"op": "move", "from": "/a", "path": "/a/b"}], MalformedError, "into itself"),
        ([{"op": "remove", "path": "/x"}], InvalidError, "/x: no such value"),
        ([{"op": "remove", "path": ""}], InvalidError, "whole object"),
        ([{"op": "replace", "path": "/x", "value": 1}], InvalidError, "/x"),
        ([{"op": "add", "path": "/l/3", "value": 1}], InvalidError, "shorter"),
        ([{"op": "add", "path": "/l/01", "value": 1}], InvalidError, "not an index"),
        ([{"op": "add", "path": "/l/-1", "value": 1}], InvalidError, "not an index"),
        ([{"op": "add", "path": "/a/b/c", "value": 1}], InvalidError, "/a/b"),
        ([{"op": "test", "path": "/a", "value": True}], InvalidError, "test failed"),
        ([{"op": "test", "path": "/a", "value": "1"}], InvalidError, "test failed"),
        ([{"op": "test", "path": "/a", "value": 1}] * 10_001, MalformedError, "at most"),
    ],
)
def test_json_patch_errors(patch: Json, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        json_patch({"a": 1, "l": [1, 2]}, patch)


def containers(*items: Json) -> Json:
    return {"spec": {"containers": list(items)}}


A, B, C = ({"name": name, "image": f"{name}:1"} for name in "abc")


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # Merged by key, in place; what the patch adds comes first, as in Kubernetes.
        (containers(A, B), containers({"name": "b", "image": "x"}), containers(A, B | {"image": "x"})),
        (containers(A, B), containers(C), containers(C, A, B)),
        # Deleted by key.
        (containers(A, B), containers({"name": "a", "$patch": "delete"}), containers(B)),
        # Replaced as a whole.
        (containers(A, B), containers({"$patch": "replace"}, C), containers(C)),
        (
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"$patch": "replace", "c": "3"}}},
            {"metadata": {"labels": {"c": "3"}}},
        ),
        (
            {"metadata": {"labels": {"a": "1"}}},
            {"metadata": {"labels": {"$patch": "delete"}}},
            {"metadata": {"labels": {}}},
        ),
        # Null removes, in maps.
        (
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None}}},
            {"metadata": {"labels": {"b": "2"}}},
        ),
        # The order of the client, with what it does not know kept in place.
        (
            containers(A, B),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            containers(B, A),
        ),
        (
            containers(A, B),
            {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}, {"name": "b"}], "containers": [C]}},
            containers(A, C, B),
        ),
        (
            containers(A, B),
            {"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "b", "image": "x"}]}},
            containers(A, B | {"image": "x"}),
        ),
        # Atomic lists are replaced.
        (
            containers(A | {"command": ["a", "b"]}),
            containers({"name": "a", "command": ["c"]}),
            containers(A | {"command": ["c"]}),
        ),
        (
            {"spec": {"tolerations": [{"key": "a"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
        ),
        # Other merge keys: ports by containerPort, mounts by mountPath, env by name, nested in a container.
        (
            containers(A | {"ports": [{"containerPort": 80, "name": "x"}, {"containerPort": 81}]}),
            containers({"name": "a", "ports": [{"containerPort": 80, "name": "y"}]}),
            containers(A | {"ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}]}),
        ),
        (
            containers(A | {"volumeMounts": [{"mountPath": "/a", "name": "v"}]}),
            containers({"name": "a", "volumeMounts": [{"mountPath": "/a", "readOnly": True}]}),
            containers(A | {"volumeMounts": [{"mountPath": "/a", "name": "v", "readOnly": True}]}),
        ),
        # A union: the new source drives out the old.
        (
            {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}},
            {
                "spec": {
                    "volumes": [{"name": "v", "emptyDir": {}, "hostPath": None, "$retainKeys": ["name", "emptyDir"]}]
                }
            },
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
        ),
        # Sets of scalars.
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["c"]}},
            {"metadata": {"finalizers": ["a", "b", "c"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b"]}},
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$setElementOrder/finalizers": ["b", "a"]}},
            {"metadata": {"finalizers": ["b", "a"]}},
        ),
        # Nothing there yet: directives leave no trace.
        ({}, {"spec": {"nodeSelector": {"$patch": "merge", "a": "b"}}}, {"spec": {"nodeSelector": {"a": "b"}}}),
        ({"spec": {}}, containers({"name": "z", "$patch": "delete"}), containers()),
        # What the model does not know merges plainly, to be refused by name later.
        ({"spec": {"x": {"a": 1}}}, {"spec": {"x": {"b": 2}}}, {"spec": {"x": {"a": 1, "b": 2}}}),
    ],
)
def test_strategic_merge(target: Json, patch: Json, result: Json) -> None:
    before = copy.deepcopy((target, patch))
    assert strategic_merge(target, patch, Pod) == result
    assert (target, patch) == before


def test_strategic_merge_of_conditions_by_type() -> None:
    target = {"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]}}
    patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert strategic_merge(target, patch, Node)["status"]["conditions"] == [
        {"type": "Ready", "status": "True"},
        {"type": "X", "status": "True"},
    ]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ([], "must be an object"),
        ({"spec": {"$patch": "frob"}}, "must be replace, delete or merge"),
        (containers({"image": "x"}), "does not have it"),
        (containers("x"), "must be objects"),
        (containers({"name": {}}), "plain value"),
        ({"spec": {"$setElementOrder/containers": {}}}, "must be a list"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}, "must be a list"),
        ({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "$retainKeys": ["name"]}]}}, "does not list 'emptyDir'"),
    ],
)
def test_strategic_merge_errors(patch: Json, words: str) -> None:
    target = containers(A) | {"metadata": {"finalizers": ["a"]}}
    with pytest.raises(MalformedError, match=words):
        strategic_merge(target, patch, Pod)


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "name", "delete", "replace"])
FIELDS = ("metadata", "spec", "containers", "name", "env", "ports", "containerPort", "finalizers", "labels", "volumes")
DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers")
keys = st.sampled_from((*FIELDS, *DIRECTIVES))
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))


@given(st.dictionaries(keys, documents, max_size=4), documents)
def test_strategic_merge_of_anything_ends_in_a_document_or_a_refusal(target: Json, patch: Json) -> None:
    before = copy.deepcopy((target, patch))
    with contextlib.suppress(MalformedError):
        assert isinstance(strategic_merge(target, patch, Pod), dict)
    assert (target, patch) == before


pointers = st.lists(st.sampled_from(["a", "b", "0", "1", "-", "", "~01"]), max_size=3).map(lambda p: "/".join(["", *p]))
operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": pointers},
    optional={"from": pointers, "value": documents},
)


@given(documents, st.lists(operations, max_size=4))
def test_json_patch_of_anything_ends_in_a_document_or_a_refusal(target: Json, patch: Json) -> None:
    before = copy.deepcopy((target, patch))
    with contextlib.suppress(MalformedError, InvalidError):
        json_patch(target, patch)
    assert (target, patch) == before


@given(documents, documents)
def test_merge_patch_is_idempotent(target: Json, patch: Json) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
