"""Tokens of ServiceAccounts on request, and what a token is worth: the rules around ``volumes.token.Signer``.

A token is good for as long as its account and the object that it is bound to are the ones that it was made for.
"""

from __future__ import annotations

import time
from typing import Any

from podrt.errors import Cause, ConflictError, InvalidError, MalformedError
from podrt.model.base import format_time, parse_time
from podrt.model.configuration import Secret, ServiceAccount
from podrt.model.pod import Pod
from podrt.model.tokens import (
    LONGEST,
    SHORTEST,
    USUAL,
    BoundObjectReference,
    TokenRequestSpec,
    TokenRequestStatus,
    TokenReviewSpec,
    TokenReviewStatus,
    UserInfo,
)
from podrt.node.volumes.token import Bound, Signer, TokenError
from podrt.store.store import Store

LEEWAY = 60.0
"""Seconds that a token is good for after the deletionTimestamp of what it is bound to."""
_KINDS: dict[str, type[Pod] | type[Secret]] = {"Pod": Pod, "Secret": Secret}
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"


class Tokens:
    """Of all accounts of this machine."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    def issue(self, namespace: str, name: str, spec: TokenRequestSpec) -> TokenRequestStatus:
        """Raises NotFoundError (account or bound object), InvalidError, MalformedError, ConflictError."""
        account = self._store.get(ServiceAccount, namespace, name)
        seconds = USUAL if spec.expiration_seconds is None else spec.expiration_seconds
        for wrong, text in (
            (seconds < SHORTEST, "may not specify a duration less than 10 minutes"),
            (seconds > LONGEST, "may not specify a duration larger than 2^32 seconds"),
        ):
            if wrong:
                message = f"Invalid value: {seconds}: {text}"
                cause = Cause("spec.expirationSeconds", message, "FieldValueInvalid")
                raise InvalidError(f'TokenRequest "{name}" is invalid: spec.expirationSeconds: {message}', [cause])
        bound = self._bound(namespace, name, spec.bound_object_ref) if spec.bound_object_ref is not None else None
        now = time.time()
        token = self._signer.sign(account, spec.audiences, seconds, now, bound)
        return TokenRequestStatus(token=token, expiration_timestamp=format_time(now + seconds))

    def _bound(self, namespace: str, account: str, about: BoundObjectReference) -> Bound:
        kind = _KINDS.get(about.kind)
        if kind is None:
            text = f'cannot bind token for serviceaccount "{account}" to object type "{about.kind}"'
            raise MalformedError(f"{text}: only to a Pod or a Secret")
        found = self._store.get(kind, namespace, about.name)
        if about.uid and about.uid != found.metadata.uid:
            raise ConflictError(
                f"the UID in the bound object reference ({about.uid}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
        if isinstance(found, Pod) and found.spec.service_account_name != account:
            text = (
                f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
            )
            raise MalformedError(text)
        return Bound(about.kind.lower(), about.name, found.metadata.uid)

    def review(self, spec: TokenReviewSpec) -> TokenReviewStatus:
        """Whose a token is; ``error`` says why it is nobody's."""
        try:
            claims = self._signer.verify(spec.token, time.time(), spec.audiences)
            ours: dict[str, Any] = claims["kubernetes.io"]
            self._check_alive(ours)
        except TokenError as error:
            return TokenReviewStatus(error=str(error))
        namespace, account = ours["namespace"], ours["serviceaccount"]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        pod = ours.get("pod")
        extra: dict[str, tuple[str, ...]] = {}
        if pod is not None:
            extra = {_POD_NAME: (pod["name"],), _POD_UID: (pod["uid"],)}
        user = UserInfo(username=claims["sub"], uid=account["uid"], groups=groups, extra=extra)
        good = tuple(one for one in claims["aud"] if one in (spec.audiences or (self._signer.issuer,)))
        return TokenReviewStatus(authenticated=True, user=user, audiences=good)

    def _check_alive(self, ours: dict[str, Any]) -> None:
        """Raises TokenError."""
        kinds: dict[str, type[ServiceAccount] | type[Pod] | type[Secret]] = {
            "serviceaccount": ServiceAccount,
            "pod": Pod,
            "secret": Secret,
        }
        for key, kind in kinds.items():
            about = ours.get(key)
            if about is None:
                continue
            found = self._store.find(kind, ours["namespace"], about["name"])
            if found is None or found.metadata.uid != about["uid"] or _overdue(found.metadata.deletion_timestamp):
                raise TokenError(f"the {kind.__name__} of the token is gone")


def _overdue(deletion: str | None) -> bool:
    """Whether an object should have been gone a while ago."""
    return deletion is not None and parse_time(deletion).timestamp() < time.time() - LEEWAY
