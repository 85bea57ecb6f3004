"""TokenRequest and TokenReview (authentication.k8s.io/v1): asking for a token, and asking what one is worth. Neither is
stored.
"""

from __future__ import annotations

import msgspec

from podrt.model.base import HiddenText, Int64, Struct, Time, always, made
from podrt.model.meta import ObjectMeta

API_VERSION = "authentication.k8s.io/v1"
SHORTEST, LONGEST, USUAL = 600, 2**32, 3600
"""Seconds of a token's life."""


class BoundObjectReference(Struct, frozen=True, kw_only=True):
    """The token ends with this object."""

    kind: str = ""
    """Pod or Secret."""
    api_version: str = ""
    name: str = ""
    uid: str = ""


class TokenRequestSpec(Struct, frozen=True, kw_only=True):
    audiences: tuple[str, ...] = always(())
    expiration_seconds: Int64 | None = None
    bound_object_ref: BoundObjectReference | None = None


class TokenRequestStatus(Struct, frozen=True, kw_only=True):
    token: HiddenText = always("")
    expiration_timestamp: Time | None = None


class TokenRequest(Struct, frozen=True, kw_only=True):
    api_version: str = always(API_VERSION)
    kind: str = always("TokenRequest")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: TokenRequestSpec = made(TokenRequestSpec)
    status: TokenRequestStatus = made(TokenRequestStatus)


class TokenReviewSpec(Struct, frozen=True, kw_only=True):
    token: HiddenText = ""
    audiences: tuple[str, ...] = ()


class UserInfo(Struct, frozen=True, kw_only=True):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


class TokenReviewStatus(Struct, frozen=True, kw_only=True):
    authenticated: bool = False
    user: UserInfo = made(UserInfo)
    audiences: tuple[str, ...] = ()
    error: str = ""


class TokenReview(Struct, frozen=True, kw_only=True):
    api_version: str = always(API_VERSION)
    kind: str = always("TokenReview")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: TokenReviewSpec = made(TokenReviewSpec)
    status: TokenReviewStatus = made(TokenReviewStatus)
