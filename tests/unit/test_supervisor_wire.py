"""The wire between daemon and supervisor: what goes in comes out, and garbage is refused."""

from __future__ import annotations

import os
import socket
import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.supervisor import wire
from podrt.supervisor.protocol import (
    INLINE_BYTES,
    MAX_FDS,
    Credentials,
    LaunchSpec,
    Log,
    ProcessRecord,
    Stdio,
)

Pair = tuple[socket.socket, socket.socket]

texts = st.text(st.characters(exclude_characters="\0"), max_size=20)
numbers = st.integers(-1, 2**32)
maps = st.lists(st.tuples(numbers, numbers, numbers), max_size=3).map(tuple)
names = st.lists(st.text(string.ascii_uppercase, max_size=5), max_size=3).map(tuple)


def specs() -> st.SearchStrategy[LaunchSpec]:
    return st.builds(
        LaunchSpec,
        id=texts,
        kind=st.sampled_from(["container", "exec", "pause", "namespaces"]),
        cgroup_tasks=st.lists(texts, max_size=2).map(tuple),
        cgroup_fd=st.none() | numbers,
        join=st.lists(st.tuples(texts, numbers), max_size=3).map(tuple),
        unshare=names,
        uid_map=maps,
        gid_map=maps,
        hostname=texts,
        sysctls=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
        mounts=st.lists(st.tuples(texts, numbers, st.booleans()), max_size=3).map(tuple),
        rlimits=st.lists(st.tuples(texts, numbers, numbers), max_size=2).map(tuple),
        stdio=st.builds(Stdio, kind=texts, stdin=st.none() | texts | numbers),
        log=st.none() | st.builds(Log, path=texts, max_bytes=numbers, max_files=numbers),
        credentials=st.builds(Credentials, user=texts, extra_gids=st.tuples(numbers), bounding=names, ambient=names),
        argv=st.lists(texts, max_size=3).map(tuple),
        env=st.lists(texts, max_size=3).map(tuple),
        seccomp_fd=st.none() | numbers,
    )


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ours, theirs
    ours.close()
    theirs.close()


@given(specs())
def test_a_spec_survives_the_wire(spec: LaunchSpec) -> None:
    message = wire.unpack(wire.pack({"spec": wire.spec_to_wire(spec)}))
    assert wire.spec_from_wire(message["spec"]) == spec


def test_file_names_that_are_no_utf_8_survive() -> None:
    name = os.fsdecode(b"/caf\xe9")
    assert wire.unpack(wire.pack({"path": name}))["path"] == name


@given(
    st.recursive(st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner, max_size=4), max_leaves=9)
)
def test_any_value_is_no_spec_or_is_refused_cleanly(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.spec_from_wire(value)


@pytest.mark.parametrize("value", [None, 3, [], ["x"], [1, 2, 3, 4], ["a", "b", 0, False, 1.5, True, None, "x"] * 2])
def test_not_a_record(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.record_from_wire(value)


def test_a_record_survives() -> None:
    record = ProcessRecord("c", "container", 7, 8, True, 1, 0, 2.5, False)
    assert wire.record_from_wire(wire.unpack(wire.pack({"r": list(record)}))["r"]) == record


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES - 20, INLINE_BYTES, 5 * INLINE_BYTES])
def test_messages_of_any_size_and_their_descriptors(pair: Pair, size: int) -> None:
    reader, writer = os.pipe()
    try:
        wire.send(pair[0], {"text": "x" * size}, [writer, writer])
        received = wire.receive(pair[1])
    finally:
        os.close(writer)
    assert received is not None
    message, fds = received
    assert message == {"text": "x" * size} and len(fds) == 2
    assert not any(os.get_inheritable(fd) for fd in fds)
    os.write(fds[0], b"a")
    os.write(fds[1], b"b")
    wire.close_all(fds)
    assert os.read(reader, 10) == b"ab"
    os.close(reader)


def test_the_most_descriptors_and_one_more(pair: Pair) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        with pytest.raises(ValueError, match="descriptors in one message"):
            wire.send(pair[0], {}, [null] * (MAX_FDS + 1))
        wire.send(pair[0], {"x": "y" * 2 * INLINE_BYTES}, [null] * MAX_FDS)
    finally:
        os.close(null)
    received = wire.receive(pair[1])
    assert received is not None and len(received[1]) == MAX_FDS
    wire.close_all(received[1])


def test_end_of_file_and_nothing_there(pair: Pair) -> None:
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.receive(pair[1])
    pair[0].close()
    assert wire.receive(pair[1]) is None


@pytest.mark.parametrize("data", [b"nonsense", b"[1]", b"3", b'"x"', b"\xff\xfe", b"{", b"[" * 50000, b'{"memfd":10}'])
def test_garbage_is_refused_and_its_descriptors_closed(pair: Pair, data: bytes) -> None:
    pair[0].send(data)
    with pytest.raises(wire.WireError):
        wire.receive(pair[1])
    before = len(os.listdir("/proc/self/fd"))
    null = os.open(os.devnull, os.O_RDONLY)
    socket.send_fds(pair[0], [data], [null, null])
    os.close(null)
    with pytest.raises(wire.WireError):
        wire.receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("length", [3, 5, -1, 10**12, "4", None])
def test_a_memfd_of_another_length_is_refused(pair: Pair, length: Any) -> None:
    memfd = wire.sealed_memfd("test", b"{  }")
    try:
        socket.send_fds(pair[0], [wire.pack({"memfd": length})], [memfd])
    finally:
        os.close(memfd)
    with pytest.raises(wire.WireError, match="length"):
        wire.receive(pair[1])


def test_a_memfd_that_can_still_change_is_refused(pair: Pair) -> None:
    memfd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(memfd, b"{}")
    socket.send_fds(pair[0], [b'{"memfd":2}'], [memfd])
    os.close(memfd)
    with pytest.raises(wire.WireError, match="not sealed"):
        wire.receive(pair[1])
