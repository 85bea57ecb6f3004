"""Image references are read the way docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.errors import InvalidError
from podrt.image.reference import Reference, parse

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest", "bitnami/redis:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
        ("host:5000/a/b_c/d--e:v1", "host:5000/a/b_c/d--e:v1", "host:5000/a/b_c/d--e:v1"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("Host/x", "Host/x:latest", "Host/x:latest"),
        ("quay.io/a/b", "quay.io/a/b:latest", "quay.io/a/b:latest"),
        ("docker.io/foo.bar/x", "docker.io/foo.bar/x:latest", "docker.io/foo.bar/x:latest"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}", f"busybox:1@{DIGEST}"),
    ],
)
def test_normal_form(text: str, canonical: str, familiar: str) -> None:
    reference = parse(text)
    assert str(reference) == canonical
    assert reference.familiar() == familiar
    assert parse(canonical) == reference == parse(familiar)


def test_parts() -> None:
    reference = parse(f"localhost:5000/a/b:1@{DIGEST}")
    assert reference == Reference("localhost:5000/a/b", "1", DIGEST)
    assert (reference.domain, reference.path) == ("localhost:5000", "a/b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("Busybox", "must be lower case"),
        ("a/Busybox", "must be lower case"),
        ("busybox:", "tag ''"),
        ("busybox:-x", "tag '-x'"),
        ("busybox:" + "x" * 129, "tag"),
        ("busybox@sha256:12", "digest 'sha256:12'"),
        (f"busybox@{DIGEST.upper()}", "digest"),
        ("busybox@", "digest ''"),
        ("ab" * 32, "image id"),
        ("a//b", "empty part"),
        ("/a", "empty part"),
        ("a/", "empty part"),
        ("a b", "may have lower-case"),
        ("-a", "may have lower-case"),
        ("a__.b", "may have lower-case"),
        ("ho_st.x/a", "registry 'ho_st.x'"),
        ("host:port/a", "registry 'host:port'"),
        ("a/" * 130 + "b", "characters"),
        ("a\n", "may have lower-case"),
        ("a:1\n", "tag"),
        ("../../etc/passwd", "registry '..'"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        parse(text)


@given(st.text(alphabet="aA0._-/:@[]\n é", max_size=30))
def test_any_text_is_a_reference_with_a_stable_form_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidError:
        return
    assert parse(str(reference)) == parse(reference.familiar()) == reference
