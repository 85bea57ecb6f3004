"""hosts.toml directories and credentials: tables in, endpoints and credentials out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from podrt.errors import InvalidError
from podrt.image.reference import parse
from podrt.image.registry_auth import ANONYMOUS, Credential, Login, credentials, from_document
from podrt.image.registry_config import Endpoint, endpoints, is_local, is_loopback
from podrt.image.registry_http import proxy_for
from podrt.image.registry_repository import repositories_of
from podrt.image.registry_transport import Settings, Transport


def write(root: Path, domain: str, text: str) -> None:
    (root / domain).mkdir(parents=True)
    (root / domain / "hosts.toml").write_text(text)


def urls(found: list[Endpoint]) -> list[str]:
    return [one.url for one in found]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("docker.io", ["https://registry-1.docker.io/v2"]),
        ("registry.example", ["https://registry.example/v2"]),
        ("registry.example:5000", ["https://registry.example:5000/v2"]),
        ("127.0.0.1:5000", ["https://127.0.0.1:5000/v2", "http://127.0.0.1:5000/v2"]),
        ("localhost:5000", ["https://localhost:5000/v2", "http://localhost:5000/v2"]),
        ("[::1]:5000", ["https://[::1]:5000/v2", "http://[::1]:5000/v2"]),
    ],
)
def test_without_configuration(tmp_path: Path, domain: str, expected: list[str]) -> None:
    assert urls(endpoints(tmp_path, domain, "pull")) == expected


def test_mirrors_come_first_and_the_registry_last(tmp_path: Path) -> None:
    write(
        tmp_path,
        "docker.io",
        'server = "https://registry-1.docker.io"\n'
        '[host."http://mirror:5000"]\ncapabilities = ["pull", "resolve"]\n'
        '[host."https://deep/v2/hub"]\noverride_path = true\ncapabilities = ["pull"]\n'
        '[host."https://deep/v2/hub".header]\nx-a = ["1", "2"]\n',
    )
    found = endpoints(tmp_path, "docker.io", "pull")
    assert urls(found) == ["http://mirror:5000/v2", "https://deep/v2/hub", "https://registry-1.docker.io/v2"]
    assert found[1].headers == (("x-a", "1"), ("x-a", "2"))
    assert [one.mirror_of for one in found] == ["docker.io", "docker.io", ""]
    assert urls(endpoints(tmp_path, "docker.io", "push")) == ["https://registry-1.docker.io/v2"]


@pytest.mark.parametrize("directory", ["r.example:5000", "r.example_5000_", "r.example", "_default"])
def test_names_of_directories(tmp_path: Path, directory: str) -> None:
    write(tmp_path, directory, '[host."http://mirror"]\n')
    assert urls(endpoints(tmp_path, "r.example:5000", "pull"))[0] == "http://mirror/v2"


def test_certificates_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "r.example").mkdir()
    for name in ("ca.crt", "client.cert", "client.key"):
        (tmp_path / "r.example" / name).touch()
    (found,) = endpoints(tmp_path, "r.example", "pull")
    assert found.ca == (tmp_path / "r.example" / "ca.crt",)
    assert found.client == ((tmp_path / "r.example" / "client.cert", tmp_path / "r.example" / "client.key"),)


def test_ca_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    write(tmp_path, "r", 'ca = "ca.pem"\nskip_verify = true\n[host."https://m"]\nca = ["/etc/a.pem", "b.pem"]\n')
    mirror, own = endpoints(tmp_path, "r", "pull")
    assert mirror.ca == (Path("/etc/a.pem"), tmp_path / "r" / "b.pem") and not mirror.skip_verify
    assert own.ca == (tmp_path / "r" / "ca.pem",) and own.skip_verify


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = 1", "server a URL"),
        ('[host."ftp://x"]', "URL"),
        ('[host."http://x"]\nfoo = 1', "unknown key 'foo'"),
        ('[host."http://x"]\ncapabilities = ["fly"]', "capabilities"),
        ('[host."http://x"]\nskip_verify = 1', "skip_verify"),
        ('[host."http://x"]\nca = 1', "ca"),
        ("=", "can't be read"),
    ],
)
def test_errors_name_the_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, "r", text)
    with pytest.raises(InvalidError) as caught:
        endpoints(tmp_path, "r", "pull")
    assert words in str(caught.value) and "hosts.toml" in str(caught.value)


def test_a_ca_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"r\.example"):
        Endpoint("https://r.example/v2", ca=(tmp_path / "none.pem",)).ssl_context()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:5", True),
        ("10.0.0.1", False),
        ("lo.example", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_local_names() -> None:
    assert is_local(parse("localhost/x")) and is_local(parse("localhost/a/b:1"))
    assert not is_local(parse("localhost:5000/x")) and not is_local(parse("x"))


# credentials


def auth(user: str, password: str = "p") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("https://index.docker.io/v1/", "busybox", True),
        ("docker.io", "busybox", True),
        ("registry.example", "registry.example/a/b", True),
        ("https://registry.example/v2/", "registry.example/a", True),
        ("registry.example:5000", "registry.example/a", False),
        ("registry.example", "registry.example:5000/a", False),
        ("registry.example/a", "registry.example/a/b", True),
        ("registry.example/a/b", "registry.example/a/b", True),
        ("registry.example/a/b", "registry.example/a/bc", False),
        ("*.example", "registry.example/a", True),
        ("*.example", "a.registry.example/a", False),
        ("*.registry.*", "a.registry.example/x", True),
        ("registry.example", "evil-registry.example/a", False),
    ],
)
def test_which_entries_fit(key: str, image: str, fits: bool) -> None:
    found = from_document({"auths": {key: auth("u")}}, parse(image))
    assert found == ([Credential("u", "p")] if fits else [])


def test_the_most_specific_comes_first() -> None:
    auths = {"r.example": auth("a"), "r.example/x/y": auth("c"), "r.example/x": auth("b")}
    found = from_document({"auths": auths}, parse("r.example/x/y"))
    assert [one.username for one in found] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "u", "password": "p"}, [Credential("u", "p")]),
        ({"auth": base64.b64encode(b"u:p:q").decode()}, [Credential("u", "p:q")]),
        ({"identitytoken": "t"}, [Credential(identity_token="t")]),
        ({}, []),
        ({"auth": "!!"}, []),
        ({"auth": base64.b64encode(b"no colon").decode()}, []),
        ({"username": 1, "password": []}, []),
    ],
)
def test_forms_of_entries(entry: dict[str, Any], expected: list[Credential]) -> None:
    assert from_document({"auths": {"r.example": entry}}, parse("r.example/x")) == expected
    assert from_document({"r.example": entry}, parse("r.example/x")) == expected, "the older dockercfg form"


async def test_secrets_come_before_files_and_nobody_last(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    file.write_text(json.dumps({"auths": {"r.example": auth("file")}}))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    secret = json.dumps({"auths": {"r.example": auth("secret")}}).encode()
    found = await credentials(parse("r.example/x"), [tmp_path / "none", broken, file], [b"nonsense", secret])
    assert found == [Credential("secret", "p"), Credential("file", "p"), ANONYMOUS]


async def test_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread -r server\necho "{\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"credHelpers": {"r.example": "test"}}))
    assert (await credentials(parse("r.example/x"), [file]))[0] == Credential("r.example", "s")
    assert await credentials(parse("other.example/x"), [file]) == [ANONYMOUS]
    file.write_text(json.dumps({"credsStore": "test"}))
    assert (await credentials(parse("busybox"), [file]))[0] == Credential("https://index.docker.io/v1/", "s")
    file.write_text(json.dumps({"credsStore": "../../bin/evil"}))
    assert await credentials(parse("busybox"), [file]) == [ANONYMOUS]
    file.write_text(json.dumps({"credsStore": "absent"}))
    assert await credentials(parse("busybox"), [file]) == [ANONYMOUS]


def test_no_password_in_a_log() -> None:
    assert "secret" not in repr(Credential("u", "secret")) + str([Credential("u", "secret", "secret")])


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("https://registry.example/v2") == (None, None)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p%40ss@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    proxy, headers = proxy_for("https://registry.example/v2")
    assert str(proxy) == "http://proxy.example:3128"
    assert headers == {"Authorization": Credential("user", "p@ss").basic()}
    assert proxy_for("https://inside.example/v2") == (None, None)
    assert proxy_for("https://127.0.0.1:5000/v2") == (None, None)
    assert proxy_for("http://registry.example/v2") == (None, None)


SECRET = Credential("alice", "p")


@pytest.mark.parametrize(
    ("server", "mirror", "own"),
    [
        ("", [ANONYMOUS], [SECRET]),
        ("r.example", [ANONYMOUS], [SECRET]),
        ("https://r.example/v2/", [ANONYMOUS], [SECRET]),
        ("mirror:5000", [SECRET], [ANONYMOUS]),
        ("other.example", [ANONYMOUS], [ANONYMOUS]),
    ],
)
async def test_a_login_goes_to_one_server_and_is_alone_there(
    tmp_path: Path, server: str, mirror: list[Credential], own: list[Credential]
) -> None:
    write(tmp_path, "r.example", '[host."http://mirror:5000"]')
    transport = Transport(Settings(tmp_path, ()))
    found = await repositories_of(transport, "r.example/a/b", "pull", login=Login(SECRET, server))
    assert [one._identity.credentials for one in found] == [mirror, own]


def test_a_login_for_docker_hub() -> None:
    assert Login(SECRET, "https://index.docker.io/v1/").fits("docker.io")
    assert not Login(SECRET, "https://index.docker.io/v1/").fits("registry.example")
