"""Who may use the door on loopback: only those who show its token, whatever else they send."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from podrt.api.access import Access
from podrt.api.status import UnauthorizedError
from podrt.model.configuration import ServiceAccount
from podrt.model.meta import ObjectMeta
from podrt.node.volumes.token import Signer

TOKEN = "the-token-of-this-door"


@pytest.fixture
def access(tmp_path: Path) -> Access:
    made = Access(tmp_path, "")
    made._token = TOKEN.encode()
    return made


def request(authorization: str | None, family: int = socket.AF_INET) -> Any:
    """As aiohttp gives it: bytes that are no UTF-8 come as surrogates."""
    peer = SimpleNamespace(get_extra_info=lambda name: SimpleNamespace(family=family))
    headers = {} if authorization is None else {"Authorization": authorization}
    return SimpleNamespace(transport=peer, headers=headers)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_opens(access: Access, scheme: str) -> None:
    access.check(request(f"{scheme} {TOKEN}"))


def test_the_socket_is_its_own_lock(access: Access) -> None:
    access.check(request(None, socket.AF_UNIX))


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \udcff", "Bearer é"],
)
def test_nothing_else_does(access: Access, authorization: str | None) -> None:
    with pytest.raises(UnauthorizedError):
        access.check(request(authorization))


def test_no_token_of_an_account_does(access: Access, tmp_path: Path) -> None:
    account = ServiceAccount(metadata=ObjectMeta(name="default", namespace="kube-system", uid="u"))
    given = Signer(tmp_path / "key", "https://issuer").sign(account, (), 600, 0.0)
    with pytest.raises(UnauthorizedError):
        access.check(request(f"Bearer {given}"))


def test_a_door_without_a_token_stays_shut(tmp_path: Path) -> None:
    with pytest.raises(UnauthorizedError):
        Access(tmp_path, "").check(request("Bearer "))
