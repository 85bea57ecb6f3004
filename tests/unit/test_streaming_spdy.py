"""SPDY frames: whatever pieces they come in, and whatever is wrong with them."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podrt.streaming import spdy

NUMBERS = st.integers(1, spdy.MAX_NUMBER)
WORDS = st.text(st.characters(max_codepoint=255), max_size=40)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
FRAMES = st.one_of(
    st.builds(spdy.Opened, NUMBERS, st.dictionaries(NAMES, WORDS, max_size=5), st.just(False)),
    st.builds(spdy.Replied, NUMBERS),
    st.builds(spdy.Data, NUMBERS, st.binary(max_size=300), st.booleans()),
    st.builds(spdy.Reset, NUMBERS, st.integers(0, 11)),
    st.builds(spdy.Ping, st.integers(0, 2**32 - 1)),
    st.builds(spdy.GoAway, st.integers(0, spdy.MAX_NUMBER)),
)


def encoded(frames: list[spdy.Frame]) -> bytes:
    encoder = spdy.Encoder()
    sent = b""
    for frame in frames:
        match frame:
            case spdy.Opened(stream, headers, _):
                sent += encoder.open(stream, headers)
            case spdy.Replied(stream):
                sent += encoder.reply(stream)
            case spdy.Data(stream, content, last):
                sent += spdy.data(stream, content, last)
            case spdy.Reset(stream, status):
                sent += spdy.reset(stream, status)
            case spdy.Ping(number):
                sent += spdy.ping(number)
            case spdy.GoAway(last_stream):
                sent += spdy.go_away(last_stream, spdy.GOAWAY_OK)
    return sent


def joined(frames: list[spdy.Frame]) -> list[spdy.Frame]:
    """Neighbouring pieces of data as one; data without bytes and end is nothing."""
    found: list[spdy.Frame] = []
    for frame in frames:
        before = found[-1] if found else None
        if isinstance(frame, spdy.Data):
            if isinstance(before, spdy.Data) and before.stream == frame.stream and not before.last:
                found[-1] = spdy.Data(frame.stream, before.data + frame.data, frame.last)
                continue
            if not frame.data and not frame.last:
                continue
        found.append(frame)
    return found


@given(st.lists(FRAMES, max_size=12), st.data())
def test_frames_in_any_pieces(frames: list[spdy.Frame], draw: st.DataObject) -> None:
    sent = encoded(frames)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(sent)), max_size=30)))
    decoder = spdy.Decoder()
    found: list[spdy.Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        found += decoder.feed(sent[start:end])
    assert joined(found) == joined(frames)


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(max_examples=300)
def test_any_bytes_are_frames_or_a_protocol_error(sent: bytes, size: int) -> None:
    decoder = spdy.Decoder()
    with contextlib.suppress(spdy.ProtocolError):
        for start in range(0, len(sent), size):
            list(decoder.feed(sent[start : start + size]))


def test_the_dictionary_is_the_one_that_zlib_streams_name() -> None:
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_names_are_in_lower_case_and_other_frames_are_passed_over() -> None:
    encoder = spdy.Encoder()
    first = encoder.open(1, {"streamType": "error"})
    # HEADERS, whose block is a part of the one compressed stream: what follows can't be read without it.
    block = encoder.open(1, {"More": "headers"})[18:]
    headers = struct.pack(">HHI", 0x8003, 8, 4 + len(block)) + struct.pack(">I", 1) + block
    window = struct.pack(">HHIII", 0x8003, 9, 8, 1, 65536)
    settings_ = struct.pack(">HHII", 0x8003, 4, 4, 0)
    sent = first + headers + window + settings_ + encoder.open(3, {"StreamType": "data", "Port": "80"})
    assert list(spdy.Decoder().feed(sent)) == [
        spdy.Opened(1, {"streamtype": "error"}, False),
        spdy.Opened(3, {"streamtype": "data", "port": "80"}, False),
    ]


def test_a_large_frame_of_data_goes_through_in_pieces() -> None:
    decoder = spdy.Decoder()
    head = struct.pack(">II", 5, 1 << 24 | 0xFFFFFF)
    pieces = list(decoder.feed(head + b"a" * 1000))
    assert pieces == [spdy.Data(5, b"a" * 1000, False)]
    sent = 1000
    while sent < 0xFFFFFF:
        piece = min(1 << 20, 0xFFFFFF - sent)
        sent += piece
        assert list(decoder.feed(b"b" * piece)) == [spdy.Data(5, b"b" * piece, sent == 0xFFFFFF)]
    assert list(decoder.feed(spdy.ping(1))) == [spdy.Ping(1)]


def _opening(block: bytes) -> bytes:
    return struct.pack(">HHI", 0x8003, 1, 10 + len(block)) + struct.pack(">IIH", 1, 0, 0) + block


def _packed(text: bytes) -> bytes:
    packer = zlib.compressobj(zdict=spdy.DICTIONARY)
    return packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (struct.pack(">HHI", 0x8002, 6, 4) + b"1234", "version 2"),
        (struct.pack(">HHI", 0x8003, 1, (1 << 24) - 1), "too large"),
        (struct.pack(">HHI", 0x8003, 6, 2) + b"12", "too short"),
        (struct.pack(">HHI", 0x8003, 1, 0), "too short"),
        (struct.pack(">HHII", 0x8003, 3, 4, 1), "too short"),
        (struct.pack(">II", 0, 1), "no stream 0"),
        (struct.pack(">HHIII", 0x8003, 3, 8, 0, 1), "no stream 0"),
        (_opening(b"not zlib"), "can't be read"),
        (_opening(zlib.compress(b"without the dictionary")), "too short|can't be read"),
        (_opening(_packed(struct.pack(">II", 1, 1 << 31))), "too short"),
        (_opening(_packed(struct.pack(">I", 1 << 30))), "too short"),
        (_opening(_packed(b"\0" * (1 << 20))), "too large"),
    ],
)
def test_what_breaks_the_protocol_is_said(sent: bytes, words: str) -> None:
    with pytest.raises(spdy.ProtocolError, match=words):
        list(spdy.Decoder().feed(sent))
