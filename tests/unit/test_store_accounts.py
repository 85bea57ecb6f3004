"""ServiceAccounts: what a new Pod gets of its own, the certificate of the API's door, and tokens on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from podrt.errors import ConflictError, ForbiddenError, InvalidError, MalformedError, NotFoundError
from podrt.model.base import format_time
from podrt.model.configuration import ConfigMap, Secret, ServiceAccount
from podrt.model.container import Container, VolumeMount
from podrt.model.meta import ObjectMeta
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod, PodSpec
from podrt.model.tokens import BoundObjectReference, TokenRequestSpec, TokenReviewSpec
from podrt.model.volume import EmptyDirVolumeSource, LocalObjectReference, Volume
from podrt.node import tokens
from podrt.node.tokens import Tokens
from podrt.node.volumes.token import Signer
from podrt.store.account_admission import PLACE
from podrt.store.objects import Registry
from podrt.store.store import Store

ISSUER = "https://issuer"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def pod(name: str = "p", *containers: Container, **spec: Any) -> Pod:
    made = containers or (Container(name="c", image="i:1"),)
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=PodSpec(containers=made, **spec))


def account(registry: Registry, name: str, **fields: Any) -> ServiceAccount:
    return registry.create(ServiceAccount(metadata=ObjectMeta(name=name), **fields))


@pytest.mark.fields("spec.serviceAccountName", "spec.serviceAccount")
def test_a_pod_has_the_account_default(registry: Registry) -> None:
    made = registry.create(pod()).spec
    assert (made.service_account_name, made.service_account) == ("default", "default")
    with pytest.raises(ForbiddenError, match='error looking up service account default/robot: serviceaccount "robot"'):
        registry.create(pod("other", service_account_name="robot"))


@pytest.mark.fields("spec.imagePullSecrets")
def test_pull_secrets_of_the_account(registry: Registry) -> None:
    account(registry, "robot", image_pull_secrets=(LocalObjectReference(name="ours"),))
    assert registry.create(pod(service_account_name="robot")).spec.image_pull_secrets[0].name == "ours"
    own = (LocalObjectReference(name="mine"),)
    made = registry.create(pod("own", service_account_name="robot", image_pull_secrets=own))
    assert made.spec.image_pull_secrets == own


@pytest.mark.fields("spec.automountServiceAccountToken")
@pytest.mark.parametrize(
    ("of_account", "of_pod", "mounted"),
    [
        (None, None, False),
        (None, True, True),
        (None, False, False),
        (True, None, True),
        (True, False, False),
        (False, None, False),
        (False, True, True),
    ],
)
def test_when_a_token_is_mounted(registry: Registry, of_account: Any, of_pod: Any, mounted: bool) -> None:
    account(registry, "robot", automount_service_account_token=of_account)
    made = registry.create(pod(service_account_name="robot", automount_service_account_token=of_pod)).spec
    assert [one.mount_path for one in made.containers[0].volume_mounts] == ([PLACE] if mounted else [])
    assert len(made.volumes) == int(mounted)


def test_what_is_mounted(registry: Registry) -> None:
    own = Container(name="own", image="i:1", volume_mounts=(VolumeMount(name="v", mount_path=PLACE),))
    first = Container(name="first", image="i:1")
    containers = (Container(name="c", image="i:1"), own)
    volumes = (Volume(name="v", empty_dir=EmptyDirVolumeSource()),)
    made = registry.create(
        pod("p", *containers, init_containers=(first,), volumes=volumes, automount_service_account_token=True)
    ).spec
    volume = made.volumes[-1]
    assert volume.name.startswith("kube-api-access-") and volume.projected is not None
    assert volume.projected.default_mode == 0o644
    token, certificate, namespace = volume.projected.sources
    assert token.service_account_token is not None and token.service_account_token.expiration_seconds == 3607
    assert certificate.config_map is not None and certificate.config_map.name == "kube-root-ca.crt"
    assert namespace.downward_api is not None and namespace.downward_api.items[0].path == "namespace"
    mount = VolumeMount(name=volume.name, mount_path=PLACE, read_only=True)
    assert (made.init_containers[0].volume_mounts, made.containers[0].volume_mounts) == ((mount,), (mount,))
    assert [one.name for one in made.containers[1].volume_mounts] == ["v"]


def test_a_static_pod_has_no_account(registry: Registry) -> None:
    static = pod(automount_service_account_token=True)
    marked = replace(static, metadata=replace(static.metadata, annotations={"kubernetes.io/config.mirror": "x"}))
    made = registry.create(marked).spec
    assert made.service_account_name == "" and made.volumes == ()


def test_the_certificate_is_in_every_namespace(registry: Registry) -> None:
    store = registry.store
    assert store.find(ConfigMap, "default", "kube-root-ca.crt") is None
    registry.publish_certificate("PEM")
    registry.create(Namespace(metadata=ObjectMeta(name="later")))
    registry.delete(ConfigMap, "default", "kube-root-ca.crt")
    for name in ("default", "kube-system", "later"):
        assert store.get(ConfigMap, name, "kube-root-ca.crt").data == {"ca.crt": "PEM"}
    forged = store.get(ConfigMap, "later", "kube-root-ca.crt")
    registry.update(replace(forged, data={"ca.crt": "FORGED"}))
    assert store.get(ConfigMap, "later", "kube-root-ca.crt").data == {"ca.crt": "PEM"}
    registry.publish_certificate("NEW")
    assert store.get(ConfigMap, "later", "kube-root-ca.crt").data == {"ca.crt": "NEW"}
    registry.delete(Namespace, "", "later")
    assert store.find(Namespace, "", "later") is None


# Tokens


@pytest.fixture
def given(registry: Registry, tmp_path: Path) -> Tokens:
    return Tokens(registry.store, Signer(tmp_path / "key", ISSUER))


def test_a_token_and_what_it_is_worth(registry: Registry, given: Tokens) -> None:
    robot = account(registry, "robot")
    status = given.issue("default", "robot", TokenRequestSpec(expiration_seconds=600))
    review = given.review(TokenReviewSpec(token=status.token))
    assert review.authenticated and review.audiences == (ISSUER,) and review.error == ""
    assert (review.user.username, review.user.uid) == ("system:serviceaccount:default:robot", robot.metadata.uid)
    assert review.user.groups == (
        "system:serviceaccounts",
        "system:serviceaccounts:default",
        "system:authenticated",
    )
    registry.delete(ServiceAccount, "default", "robot")
    account(registry, "robot")
    assert given.review(TokenReviewSpec(token=status.token)).error == "the ServiceAccount of the token is gone"


def test_audiences(registry: Registry, given: Tokens) -> None:
    status = given.issue("default", "default", TokenRequestSpec(audiences=("vault", "other")))
    review = given.review(TokenReviewSpec(token=status.token, audiences=("vault", "third")))
    assert review.authenticated and review.audiences == ("vault",)
    assert not given.review(TokenReviewSpec(token=status.token)).authenticated


def test_a_token_ends_in_time(registry: Registry, given: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    status = given.issue("default", "default", TokenRequestSpec())
    now = time.time()
    monkeypatch.setattr(tokens.time, "time", lambda: now + 3590)
    assert given.review(TokenReviewSpec(token=status.token)).authenticated
    monkeypatch.setattr(tokens.time, "time", lambda: now + 3610)
    assert given.review(TokenReviewSpec(token=status.token)).error == "the token has expired"


def test_a_token_ends_with_what_it_is_bound_to(registry: Registry, given: Tokens) -> None:
    made = registry.create(pod("web"))
    registry.create(Secret(metadata=ObjectMeta(name="s")))
    about = BoundObjectReference(kind="Pod", name="web", uid=made.metadata.uid)
    status = given.issue("default", "default", TokenRequestSpec(bound_object_ref=about))
    review = given.review(TokenReviewSpec(token=status.token))
    assert review.user.extra["authentication.kubernetes.io/pod-name"] == ("web",)
    registry.delete(Pod, "default", "web")
    assert given.review(TokenReviewSpec(token=status.token)).error == "the Pod of the token is gone"
    secret = TokenRequestSpec(bound_object_ref=BoundObjectReference(kind="Secret", name="s"))
    assert given.review(TokenReviewSpec(token=given.issue("default", "default", secret).token)).authenticated


@pytest.mark.parametrize(
    ("name", "spec", "error"),
    [
        ("none", TokenRequestSpec(), NotFoundError),
        ("default", TokenRequestSpec(expiration_seconds=599), InvalidError),
        ("default", TokenRequestSpec(expiration_seconds=2**33), InvalidError),
        ("default", TokenRequestSpec(bound_object_ref=BoundObjectReference(kind="Pod", name="x")), NotFoundError),
        ("default", TokenRequestSpec(bound_object_ref=BoundObjectReference(kind="Job", name="x")), MalformedError),
        (
            "default",
            TokenRequestSpec(bound_object_ref=BoundObjectReference(kind="Pod", name="web", uid="old")),
            ConflictError,
        ),
    ],
)
def test_tokens_that_are_not_given(
    registry: Registry, given: Tokens, name: str, spec: TokenRequestSpec, error: type[Exception]
) -> None:
    registry.create(pod("web"))
    with pytest.raises(error):
        given.issue("default", name, spec)


def test_a_token_is_bound_to_no_pod_of_another_account(registry: Registry, given: Tokens) -> None:
    """It would say that the Pod is who it is not."""
    account(registry, "robot")
    registry.create(pod("web"))
    spec = TokenRequestSpec(bound_object_ref=BoundObjectReference(kind="Pod", name="web"))
    with pytest.raises(MalformedError, match=r'"robot" to pod running with different serviceaccount name\.'):
        given.issue("default", "robot", spec)


@pytest.mark.parametrize(("seconds", "good"), [(50, True), (70, False)])
def test_a_token_ends_a_minute_after_its_pod_should_have(
    registry: Registry, given: Tokens, monkeypatch: pytest.MonkeyPatch, seconds: int, good: bool
) -> None:
    made = registry.create(pod("web"))
    status = given.issue(
        "default", "default", TokenRequestSpec(bound_object_ref=BoundObjectReference(kind="Pod", name="web"))
    )
    now = time.time()
    metadata = replace(made.metadata, deletion_timestamp=format_time(now), finalizers=("example.com/keep",))
    registry.store.update(replace(made, metadata=metadata))
    monkeypatch.setattr(tokens.time, "time", lambda: now + seconds)
    assert given.review(TokenReviewSpec(token=status.token)).authenticated is good


def test_what_is_no_token(given: Tokens) -> None:
    for text in ("", "a.b.c", "a"):
        assert not given.review(TokenReviewSpec(token=text)).authenticated
