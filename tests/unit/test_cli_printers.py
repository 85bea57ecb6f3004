"""Tables, JSONPath, YAML, times, tab stops: pure functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podrt.cli import printers
from podrt.cli.errors import CliError
from podrt.cli.jsonpath import Template, relaxed
from podrt.cli.tabs import align
from podrt.cli.times import human_duration, human_size, parse_duration, quantity
from podrt.cli.yamlio import dump, load_all

TABLE: dict[str, Any] = {
    "kind": "Table",
    "columnDefinitions": [
        {"name": "Name", "priority": 0},
        {"name": "Ready", "priority": 0},
        {"name": "Nominated Node", "priority": 1},
    ],
    "rows": [
        {
            "cells": ["web", "2/2", None],
            "object": {"metadata": {"name": "web", "namespace": "a", "labels": {"x/app": "w", "b": "c"}}},
        },
        {"cells": ["a-longer-name", True, "two\nlines"], "object": {"metadata": {"namespace": "b"}}},
    ],
}


def test_table_is_padded_by_three_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    printers.Table(["NAME", "READY", "X"]).write([["web", "2/2", "1"], ["a-longer-name", "0/1", ""]])
    assert capsys.readouterr().out == (
        "NAME            READY   X\nweb             2/2     1\na-longer-name   0/1     \n"
    )


def test_widths_are_remembered_in_a_watch(capsys: pytest.CaptureFixture[str]) -> None:
    table = printers.Table(["A", "B"])
    table.write([["0123456789", "x"]])
    table.write([["1", "y"]])
    assert capsys.readouterr().out == "A            B\n0123456789   x\n1            y\n"


def test_no_colours_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printers.Table(["NAME", "STATUS"], 1).write([["a", "Error"]])
    assert "\x1b" not in capsys.readouterr().out


def test_colours_keep_the_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(printers, "colored", lambda: True)
    printers.Table(["NAME", "STATUS", "AGE"], 1).write([["a", "Running", "5s"], ["b", "CrashLoopBackOff", "5s"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("\x1b[32mRunning\x1b[0m            5s")
    assert "\x1b[31mCrashLoopBackOff\x1b[0m   5s" in lines[2]


def test_rows_by_priority_with_labels_and_namespace() -> None:
    headers, rows = printers.table_rows(TABLE, wide=False)
    assert headers == ["NAME", "READY"]
    assert rows == [["web", "2/2"], ["a-longer-name", "true"]]
    headers, rows = printers.table_rows(TABLE, True, True, ("x/app",), True, "pod")
    assert headers == ["NAMESPACE", "NAME", "READY", "NOMINATED NODE", "APP", "LABELS"]
    assert rows[0] == ["a", "pod/web", "2/2", "", "w", "b=c,x/app=w"]
    assert rows[1] == ["b", "pod/a-longer-name", "true", "two...", "", "<none>"]


POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "x"}},
    "spec": {"containers": [{"name": "a", "image": "i1"}, {"name": "b", "image": "i2"}]},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}],
        "restarts": 3,
        "ok": True,
    },
}
LIST: dict[str, Any] = {"kind": "List", "items": [POD, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "db"}}]}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.metadata.name}", "web"),
        ("name={.metadata.name}\n", "name=web\n"),
        ("{.spec.containers[*].name}", "a b"),
        ("{.spec.containers[0].image}", "i1"),
        ("{.spec.containers[-1].image}", "i2"),
        ("{.spec.containers[0:1].name}", "a"),
        ("{.spec.containers[0,1].name}", "a b"),
        ("{range .spec.containers[*]}{.name}={.image}{'\\n'}{end}", "a=i1\nb=i2\n"),
        ('{range .spec.containers[*]}{.name}{"\\t"}{end}', "a\tb\t"),
        ('{.status.conditions[?(@.type=="Ready")].status}', "True"),
        ("{.status.conditions[?(@.status!='True')].type}", "Other"),
        ("{.spec.containers[?(@.missing)].name}", ""),
        ("{..image}", "i1 i2"),
        ("{.metadata.labels.app\\.kubernetes\\.io/name}", "x"),
        ("{.metadata.labels['app.kubernetes.io/name']}", "x"),
        ("{['metadata']['name']}", "web"),
        ("{.status.restarts}{.status.ok}", "3true"),
        ("{.metadata}", '{"name":"web","labels":{"app.kubernetes.io/name":"x"}}'),
        ("{.nothing.here}", ""),
        ("{$.metadata.name}", "web"),
        ("{@.metadata.name}", "web"),
    ],
)
def test_jsonpath(template: str, text: str) -> None:
    assert Template(template).render(POD) == text


def test_jsonpath_comparisons() -> None:
    value = {"items": [{"n": 1, "s": "a"}, {"n": 5, "s": "b"}, {"n": True}]}
    assert Template("{.items[?(@.n>=2)].s}").render(value) == "b"
    assert Template("{.items[?(@.n<2)].s}").render(value) == "a"
    assert Template('{.items[?(@.s=~"^b")].n}').render(value) == "5"
    assert Template("{.items[?(@.n>'x')].s}").render(value) == ""


@pytest.mark.parametrize(
    "template",
    ["{.a", "{range .a[*]}x", "{end}", "{.a[?(@.b=='c]}", "{.a[x]}", "{.a[?(@.b ~ 'c')]}", "{'open}", "{.a[::0]}"],
)
def test_bad_jsonpath_is_an_error_of_the_user(template: str) -> None:
    with pytest.raises(CliError):
        Template(template)


def test_relaxed_paths() -> None:
    assert [relaxed(text) for text in (".a.b", "a.b", "{.a.b}")] == ["{.a.b}"] * 3


def render(output: str, value: dict[str, Any]) -> str:
    printer = printers.object_printer(output)
    assert printer is not None
    return printer(value)


def test_output_formats() -> None:
    assert render("name", LIST) == "pod/web\npod/db\n"
    assert render("name", {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"}}) == (
        "deployment.apps/d\n"
    )
    assert json.loads(render("json", POD)) == POD
    assert render("json", POD).startswith('{\n    "kind"')
    assert list(load_all(render("yaml", POD), "x")) == [POD]
    assert render("jsonpath={.items[*].metadata.name}", LIST) == "web db"
    columns = "custom-columns=NAME:.metadata.name,IMAGES:.spec.containers[*].image"
    assert render(columns, LIST) == "NAME   IMAGES\nweb    i1,i2\ndb     <none>\n"
    assert printers.object_printer("wide", wide_ok=True) is None


@pytest.mark.parametrize(
    "output", ["xml", "jsonpath", "jsonpath=", "custom-columns=NAME", "wide", "go-template={{.x}}"]
)
def test_unknown_formats_are_errors(output: str) -> None:
    with pytest.raises(CliError):
        printers.object_printer(output)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\n---\n---\nb: x\n", [{"a": 1}, {"b": "x"}]),
        ("p: 22:22", [{"p": "22:22"}]),
        ("d: 2026-01-02", [{"d": "2026-01-02"}]),
        ("m: 0644", [{"m": 0o644}]),
        ("m: 0o644", [{"m": 0o644}]),
        ("f: 1e3", [{"f": 1000}]),
        ("f: 0.5", [{"f": 0.5}]),
        ("v: 1.20", [{"v": 1.2}]),
        ("v: 1.2.3", [{"v": "1.2.3"}]),
        ("1: a\ntrue: b", [{"1": "a", "true": "b"}]),
        ("a: yes\nb: null\nc: ~\nd: ''", [{"a": True, "b": None, "c": None, "d": ""}]),
        ("a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  k: 2", [{"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 2}}]),
        ("a: -7\nb: 0x1f\nc: 100m\nd: +5", [{"a": -7, "b": 31, "c": "100m", "d": 5}]),
    ],
)
def test_yaml_scalars_are_kubernetes_own(text: str, value: list[Any]) -> None:
    assert list(load_all(text, "f")) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", r'error parsing f: .*line 2: key "a" already set in map'),
        ("a: [1", r"error parsing f: .*yaml: line"),
        ("a: .nan", "no form in JSON"),
        ("? [1]\n: 2", r"error parsing f"),
        ("a: &a [*a]", "contains itself"),
        ("a: !!python/object:os.system x", "error parsing f"),
        ("a: !!binary aGk=", "no form in JSON"),
        ("\x00", "error parsing f"),
    ],
)
def test_bad_yaml_names_the_file(text: str, message: str) -> None:
    with pytest.raises(CliError, match=message):
        list(load_all(text, "f"))


def test_many_aliases_are_refused_before_memory_is_full() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(CliError, match="too large"):
        list(load_all("\n".join(lines), "bomb"))


def test_yaml_output() -> None:
    text = dump({"b": ["x", {"k": "true"}], "a": "l1\nl2\n", "n": None})
    assert text == "a: |\n  l1\n  l2\nb:\n- x\n- k: 'true'\nn: null\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (195, "3m15s"), (3600, "60m"), (3 * 3600, "3h"), (3 * 3600 + 300, "3h5m"),
     (30 * 3600, "30h"), (49 * 3600, "2d1h"), (9 * 86400, "9d"), (800 * 86400, "2y70d"), (-5, "<invalid>")],
)  # fmt: skip
def test_ages(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def test_durations_quantities_sizes() -> None:
    assert parse_duration("1h30m") == 5400
    assert parse_duration("1.5s") == 1.5
    assert parse_duration("-1s") == -1
    assert parse_duration("30") == 30
    for bad in ("", "5x", "h", "1h 2m"):
        with pytest.raises(CliError, match="invalid duration"):
            parse_duration(bad)
    assert quantity("100m") == pytest.approx(0.1)
    assert quantity("64Mi") == 64 << 20
    assert quantity("1e3") == 1000
    with pytest.raises(CliError, match="is not a quantity"):
        quantity("lots")
    assert [human_size(n) for n in (0, 999, 12_345_678, 999_999)] == ["0B", "999B", "12.3MB", "1MB"]


def test_tab_stops_are_by_block() -> None:
    assert align(["a:\tb", "long:\tc", "", "x\ty\tz", "xx\tyyyy\tz"]) == (
        "a:     b\nlong:  c\n\nx   y     z\nxx  yyyy  z\n"
    )
