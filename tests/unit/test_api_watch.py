"""Watches over the socket: events, tables, bookmarks, expiry, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from podrt.api import watching
from tests.unit.test_api_server import PODS, Harness, eventually, serving

Json = Any
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Harness]:
    async with serving(tmp_path) as harness:
        yield harness


class Watch:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Json:
        line = await asyncio.wait_for(self.response.content.readline(), 5)
        return json.loads(line) if line else None

    async def names(self, count: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


@contextlib.asynccontextmanager
async def watch(api: Harness, query: str = "", path: str = PODS, accept: str = "*/*") -> AsyncIterator[Watch]:
    url = f"http://podrt{path}?watch=true&{query}"
    async with api.http.get(url, headers={"Accept": accept}) as response:
        assert response.status == 200, await response.text()
        yield Watch(response)


async def test_from_nothing_then_every_change(api: Harness) -> None:
    await api.pod("a")
    async with watch(api) as seen:
        assert await seen.names(1) == [("ADDED", "a")]
        await api.pod("b")
        patch = {"metadata": {"labels": {"x": "y"}}}
        await api.call("PATCH", f"{PODS}/a", patch, kind="application/merge-patch+json")
        await api.call("DELETE", f"{PODS}/b")
        assert await seen.names(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_from_a_revision(api: Harness) -> None:
    await api.pod("a")
    revision = (await api.call("GET", PODS))[1]["metadata"]["resourceVersion"]
    await api.pod("b")
    async with watch(api, f"resourceVersion={revision}") as seen:
        event = await seen.next()
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")
        assert event["object"]["kind"] == "Pod" and event["object"]["apiVersion"] == "v1"


async def test_selectors_and_one_object(api: Harness) -> None:
    revision = (await api.call("GET", PODS))[1]["metadata"]["resourceVersion"]
    await api.pod("a")
    await api.pod("b")
    for query, path in (
        ("labelSelector=app=b", PODS),
        ("fieldSelector=metadata.name=b", PODS),
        ("", f"{PODS}/b"),
        ("labelSelector=app=b", "/api/v1/pods"),
    ):
        async with watch(api, f"resourceVersion={revision}&{query}", path) as seen:
            assert await seen.names(1) == [("ADDED", "b")]


async def test_table_events(api: Harness) -> None:
    async with watch(api, accept=TABLE) as seen:
        await api.pod("a")
        event = await seen.next()
        assert event["type"] == "ADDED" and event["object"]["kind"] == "Table"
        assert event["object"]["rows"][0]["cells"][0] == "a"
        assert event["object"]["columnDefinitions"][0]["name"] == "Name"


async def test_bookmarks(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_INTERVAL", 0.05)
    async with watch(api, "allowWatchBookmarks=true") as seen:
        event = await seen.next()
        assert event["type"] == "BOOKMARK"
        assert event["object"]["kind"] == "Pod" and "spec" not in event["object"]
        assert event["object"]["metadata"]["resourceVersion"] == str(api.store.revision)
    async with watch(api, "allowWatchBookmarks=true", accept=TABLE) as seen:
        event = await seen.next()
        assert event["type"] == "BOOKMARK" and event["object"]["metadata"]["resourceVersion"]


async def test_timeout_ends_it_in_order(api: Harness) -> None:
    async with watch(api, "timeoutSeconds=1") as seen:
        assert await seen.next() is None


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", 422, "Invalid"),
        ("sendInitialEvents=false", 422, "Invalid"),
        ("resourceVersion=x", 400, "BadRequest"),
        ("resourceVersion=999999", 410, "Expired"),
        ("timeoutSeconds=x", 400, "BadRequest"),
        ("labelSelector=a%20of", 400, "BadRequest"),
    ],
)
async def test_refusals(api: Harness, query: str, code: int, reason: str) -> None:
    found = await api.call("GET", f"{PODS}?watch=true&{query}")
    assert found[0] == found[1]["code"] == code and found[1]["reason"] == reason
    if "sendInitialEvents" in query:
        assert found[1]["details"]["causes"][0]["field"] == "sendInitialEvents"


async def test_revision_out_of_the_window_is_410(api: Harness) -> None:
    await api.pod("old")
    revision = api.store.revision
    for index in range(60):
        patch = {"metadata": {"labels": {"n": str(index)}}}
        await api.call("PATCH", f"{PODS}/old", patch, kind="application/merge-patch+json")
    code, found = await api.call("GET", f"{PODS}?watch=true&resourceVersion={revision}")
    assert (code, found["reason"]) == (410, "Expired") and "too old resource version" in found["message"]


async def test_watcher_that_fell_behind_gets_an_error_event(api: Harness) -> None:
    async with watch(api) as seen:
        await eventually(lambda: api.store.watchers() == 1, "the watch is open")
        (watcher,) = api.store._hub._watchers["pods"]
        watcher._queue_size = 0
        await api.pod("a")
        event = await seen.next()
        assert event["type"] == "ERROR"
        assert (event["object"]["kind"], event["object"]["code"], event["object"]["reason"]) == (
            "Status",
            410,
            "Expired",
        )
        assert await seen.next() is None


async def test_client_that_goes_away_leaves_no_watcher(api: Harness) -> None:
    async with watch(api):
        await eventually(lambda: api.store.watchers() == 1, "the watch is open")
    await eventually(lambda: api.store.watchers() == 0, "the watch is closed")


async def test_server_closes_open_watches_in_order(api: Harness) -> None:
    async with watch(api):
        await eventually(lambda: api.store.watchers() == 1, "the watch is open")
        await asyncio.wait_for(api.server.close(), 5)
        assert api.store.watchers() == 0
