"""Volumes without a kernel's help: contents, atomic replacement, ownership, sub paths, tokens, references."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.engine.specs import Mount
from podrt.errors import InvalidError
from podrt.model.configuration import ConfigMap, Secret, ServiceAccount
from podrt.model.container import (
    ConfigMapKeySelector,
    Container,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    FileKeySelector,
    SecretEnvSource,
    SecretKeySelector,
    VolumeMount,
)
from podrt.model.kinds import Object
from podrt.model.meta import LabelSelector, ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.security import PodSecurityContext, SecurityContext
from podrt.model.storage import PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec
from podrt.model.volume import (
    ConfigMapProjection,
    ConfigMapVolumeSource,
    EmptyDirVolumeSource,
    EphemeralVolumeSource,
    KeyToPath,
    PersistentVolumeClaimSpec,
    ProjectedVolumeSource,
    SecretProjection,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
    VolumeResourceRequirements,
)
from podrt.node import env_file
from podrt.node.claims import fits
from podrt.node.env import environment
from podrt.node.volumes import atomic, downward_api, ownership, payload, projected, references, subpath, token, usage
from podrt.node.volumes.contents import Contents
from podrt.node.volumes.directory import PodDirectory
from podrt.node.volumes.errors import Unavailable, VolumeError
from podrt.node.volumes.payload import File
from podrt.node.volumes.pod_volumes import PodVolumes

SECRET = "not-to-be-shown"


class Objects:
    """A store of these objects."""

    def __init__(self, *objects: Object) -> None:
        self.objects = objects

    def find(self, kind: type[Any], namespace: str, name: str) -> Any:
        for one in self.objects:
            if isinstance(one, kind) and (one.metadata.namespace, one.metadata.name) == (namespace, name):
                return one
        return None


class Places:
    def __init__(self, path: Path | None) -> None:
        self.path = path

    def path_of(self, name: str) -> Path | None:
        return self.path


def meta(name: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace="ns", uid=f"uid-{name}")


def config_map(name: str = "c", **data: str) -> ConfigMap:
    return ConfigMap(metadata=meta(name), data=data)


def secret(name: str = "s", **data: bytes) -> Secret:
    return Secret(metadata=meta(name), data={key: base64.b64encode(value).decode() for key, value in data.items()})


def pod(*volumes: Volume, **spec: Any) -> Pod:
    return Pod(metadata=meta("p"), spec=PodSpec(volumes=volumes, **spec))


# Contents


def test_all_keys_or_chosen_ones() -> None:
    objects = Objects(config_map(a="1", b="2"))
    assert payload.config_map(objects, "ns", "c", (), 0o644, None) == {"a": File(b"1", 0o644), "b": File(b"2", 0o644)}
    items = (KeyToPath(key="b", path="x/y", mode=0o400),)
    assert payload.config_map(objects, "ns", "c", items, 0o644, None) == {"x/y": File(b"2", 0o400)}


def test_what_is_missing() -> None:
    with pytest.raises(Unavailable, match='configmap "none" not found'):
        payload.config_map(Objects(), "ns", "none", (), 0o644, None)
    with pytest.raises(Unavailable, match='secret "c" not found'):
        payload.secret(Objects(config_map()), "ns", "c", (), 0o644, False)
    items = (KeyToPath(key="z", path="z"),)
    with pytest.raises(Unavailable, match="references non-existent config key: z"):
        payload.config_map(Objects(config_map(a="1")), "ns", "c", items, 0o644, None)
    assert payload.config_map(Objects(), "ns", "none", (), 0o644, True) == {}
    assert payload.config_map(Objects(config_map(a="1")), "ns", "c", items, 0o644, True) == {}
    text = str(VolumeError("v", 'configmap "none" not found'))
    assert text == 'MountVolume.SetUp failed for volume "v" : configmap "none" not found'


def test_a_file_does_not_show_its_bytes() -> None:
    assert SECRET not in repr({"k": File(SECRET.encode(), 0o600)})


def test_projected_sources_overlay_each_other() -> None:
    sources = (
        VolumeProjection(config_map=ConfigMapProjection(name="c")),
        VolumeProjection(secret=SecretProjection(name="s", items=(KeyToPath(key="k", path="a"),))),
        VolumeProjection(service_account_token=ServiceAccountTokenProjection(path="token")),
    )
    source = ProjectedVolumeSource(sources=sources, default_mode=0o440)
    objects = Objects(config_map(a="1", b="2"), secret(k=b"over"))
    found = projected.files(pod(), source, objects, {}, lambda index, _: f"token{index}")
    assert found == {"a": File(b"over", 0o440), "b": File(b"2", 0o440), "token": File(b"token2", 0o440)}
    assert projected.holds_secrets(source)
    assert not projected.holds_secrets(ProjectedVolumeSource(sources=sources[:1]))
    user = pod(
        containers=(Container(name="a"), Container(name="b", security_context=SecurityContext(run_as_user=7))),
        security_context=PodSecurityContext(run_as_user=7),
    )
    assert projected.files(user, source, objects, {}, lambda *_: "t")["token"] == File(b"t", 0o600, 7)


def test_downward_pairs_are_quoted_as_go_does() -> None:
    assert downward_api.pairs({"b": 'x"y\\\n', "a": "ä\x01\u2028"}) == 'a="ä\\x01\\u2028"\nb="x\\"y\\\\\\n"'


# Atomic replacement


def files(**content: str) -> dict[str, File]:
    return {name.replace("__", "/"): File(text.encode(), 0o640) for name, text in content.items()}


def shown(target: Path) -> dict[str, str]:
    return {
        str(Path(root, name).relative_to(target)): Path(root, name).read_text()
        for root, _, names in os.walk(target, followlinks=True)
        for name in names
        if not str(Path(root).relative_to(target)).startswith("..")
    }


def test_write_replace_and_leave_alone(tmp_path: Path) -> None:
    assert atomic.write(tmp_path, files(a="1", d__e__f="2", d__g="3"))
    assert shown(tmp_path) == {"a": "1", "d/e/f": "2", "d/g": "3"}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    first = os.readlink(tmp_path / "..data")
    assert not atomic.write(tmp_path, files(a="1", d__e__f="2", d__g="3"))
    assert os.readlink(tmp_path / "..data") == first
    assert atomic.write(tmp_path, files(a="new"))
    assert shown(tmp_path) == {"a": "new"}
    assert sorted(os.listdir(tmp_path)) == sorted([os.readlink(tmp_path / "..data"), "..data", "a"])
    assert atomic.write(tmp_path, {}) and shown(tmp_path) == {}


def test_a_change_of_mode_is_a_change(tmp_path: Path) -> None:
    atomic.write(tmp_path, {"a": File(b"1", 0o600)})
    assert atomic.write(tmp_path, {"a": File(b"1", 0o644)})
    # What fsGroup added stays.
    (tmp_path / "a").chmod(0o664)
    assert not atomic.write(tmp_path, {"a": File(b"1", 0o644)})


@pytest.mark.parametrize("path", ["..", "../x", "a/../b", "/etc/x", "..data", "..data/x", "", "a//b", "a/.", "a\0b"])
def test_paths_that_leave(tmp_path: Path, path: str) -> None:
    target = tmp_path / "v"
    target.mkdir()
    atomic.write(target, files(a="1"))
    with pytest.raises(InvalidError):
        atomic.write(target, {path: File(b"x", 0o644)})
    assert shown(target) == {"a": "1"} and os.listdir(tmp_path) == ["v"]


def test_a_failure_leaves_the_old_content(tmp_path: Path) -> None:
    atomic.write(tmp_path, files(a="1"))

    def fail(_: Path) -> None:
        raise OSError(1, "no")

    with pytest.raises(OSError, match="no"):
        atomic.write(tmp_path, files(a="2"), fail)
    assert shown(tmp_path) == {"a": "1"} and len(os.listdir(tmp_path)) == 3
    # A name that is file and directory at once can't be written.
    with pytest.raises(OSError):
        atomic.write(tmp_path, {"x": File(b"", 0o644), "x/y": File(b"", 0o644)})
    assert shown(tmp_path) == {"a": "1"}


def test_after_a_crash_in_the_middle(tmp_path: Path) -> None:
    atomic.write(tmp_path, files(a="1"))
    (tmp_path / "..2020_half").mkdir()
    os.symlink("..2020_half", tmp_path / "..data_tmp")
    os.unlink(tmp_path / "a")
    assert not atomic.write(tmp_path, files(a="1")) and shown(tmp_path) == {"a": "1"}
    assert atomic.write(tmp_path, files(a="2", b="2")) and shown(tmp_path) == {"a": "2", "b": "2"}


def test_readers_see_one_version(tmp_path: Path) -> None:
    atomic.write(tmp_path, files(a="0", b="0"))
    torn: list[tuple[str, str]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                fd = os.open(tmp_path / "..data", os.O_PATH)
            except FileNotFoundError:
                # What the link named may have been replaced and removed before it was reached; the link never is.
                if not os.path.lexists(tmp_path / "..data"):
                    torn.append(("nothing", ""))
                continue
            try:
                texts = [Path(f"/proc/self/fd/{fd}", name).read_text() for name in "ab"]
                if texts[0] != texts[1]:
                    torn.append((texts[0], texts[1]))
            except FileNotFoundError:
                pass  # Replaced and removed meanwhile.
            finally:
                os.close(fd)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        atomic.write(tmp_path, files(a=str(number), b=str(number)))
    stop.set()
    reader.join()
    assert not torn


# Ownership and sub paths


def test_fs_group_bits(tmp_path: Path) -> None:
    root, outside = tmp_path / "v", tmp_path / "outside"
    (root / "d").mkdir(parents=True)
    for path in (root / "d" / "f", outside):
        path.write_text("x")
        path.chmod(0o600)
    os.symlink(outside, root / "d" / "link")
    ownership.apply(root, os.getgid())
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (root, root / "d", root / "d" / "f", outside)]
    assert modes == [0o2775, 0o2775, 0o660, 0o600]
    (root / "d" / "f").chmod(0o600)
    ownership.apply(root, os.getgid(), on_root_mismatch=True)
    assert stat.S_IMODE((root / "d" / "f").stat().st_mode) == 0o600
    ownership.apply(root, os.getgid(), read_only=True)
    assert stat.S_IMODE((root / "d" / "f").stat().st_mode) == 0o640


def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    volume, outside = tmp_path / "v", tmp_path / "outside"
    volume.mkdir(mode=0o750)
    outside.mkdir()
    (outside / "f").write_text(SECRET)
    for name, target in (("abs", str(outside)), ("up", "../outside"), ("proc", "/proc/self/root")):
        os.symlink(target, volume / name)
    for path in ("abs/f", "up/f", "new/deep"):
        fd = subpath.open_(volume, path, make=True)
        try:
            place = os.readlink(f"/proc/self/fd/{fd}")
            assert place.startswith(f"{volume}/"), place
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o750
        finally:
            os.close(fd)
    assert os.listdir(outside) == ["f"]
    with pytest.raises(FileNotFoundError):
        subpath.open_(volume, "missing", make=False)
    with pytest.raises(OSError, match="Too many levels"):
        subpath.open_(volume, "proc/etc", make=True)


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        ("a/$(X)", {"X": "1"}, "a/1"),
        ("$$(X)", {}, "$(X)"),
        ("$(X)", {}, None),
        ("$(X)/y", {"X": ".."}, None),
        ("$(X)", {"X": "/etc"}, None),
        ("$(X)", {"X": "a\0b"}, None),
    ],
)
def test_sub_path_expressions(expression: str, values: dict[str, str], expected: str | None) -> None:
    mount = VolumeMount(name="v", mount_path="/v", sub_path_expr=expression)
    if expected is not None:
        assert subpath.wanted(mount, values, "c") == expected
        return
    with pytest.raises(InvalidError) as caught:
        subpath.wanted(mount, values, "c")
    assert not any(value in str(caught.value) for value in values.values() if value not in ("..",))


def test_disk_usage(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"x" * 100_000)
    empty = usage.disk_usage(tmp_path)
    assert 100_000 <= empty < 130_000
    os.link(tmp_path / "d" / "f", tmp_path / "again")
    os.symlink("/", tmp_path / "root")
    assert usage.disk_usage(tmp_path) - empty < 5_000
    watched = {"v": (tmp_path, "1Ki"), "w": (tmp_path / "gone", "1")}
    assert usage.excess(watched) == 'Usage of EmptyDir volume "v" exceeds the limit "1Ki". '
    assert usage.excess({"v": (tmp_path, "1Mi")}) == ""


async def test_mounts_take_the_place_of_the_extra_ones(tmp_path: Path) -> None:
    context = SimpleNamespace(node_memory=1 << 30, store=Objects(), selinux=None, selinux_level=lambda _: "")
    volumes = PodVolumes(context, PodDirectory(tmp_path, "u"))  # type: ignore[arg-type]
    mounts = (
        VolumeMount(name="e", mount_path="/etc/hosts/", read_only=True),
        VolumeMount(name="e", mount_path="/part", sub_path="a", recursive_read_only="IfPossible", read_only=True),
    )
    await volumes.set_up(pod(Volume(name="e", empty_dir=EmptyDirVolumeSource())))
    extra = [Mount(source="/x", destination="/etc/hosts"), Mount(source="/y", destination="/dev/termination-log")]
    found = await volumes.mounts(Container(name="c", volume_mounts=mounts), {}, extra)
    shown = [(one.destination, one.read_only, one.recursive_read_only) for one in found]
    assert shown == [("/etc/hosts/", True, False), ("/part", True, True), ("/dev/termination-log", False, False)]
    fd = int(found[1].source.rpartition("/")[2])
    assert os.readlink(found[1].source) == f"{volumes.path_of('e')}/a"
    volumes.release("c")
    with pytest.raises(OSError):
        os.fstat(fd)
    volumes.close()


# Environment


def variables(container: Container, *objects: Object, path: Path | None = None) -> dict[str, str]:
    return environment(
        pod(), container, host_ips=(), pod_ips=(), allocatable={}, objects=Objects(*objects), volumes=Places(path)
    )


def key(name: str, **source: Any) -> EnvVar:
    return EnvVar(name=name, value_from=EnvVarSource(**source))


def test_env_from_goes_first_and_env_refers_to_it() -> None:
    from_all = EnvFromSource(prefix="S_", secret_ref=SecretEnvSource(name="s"))
    env = (EnvVar(name="B", value="$(S_A)!"), EnvVar(name="S_Z", value="own"))
    one = Container(name="c", env_from=(from_all,), env=env)
    assert variables(one, secret(A=b"1", Z=b"2")) == {"S_A": "1", "S_Z": "own", "B": "1!"}


@pytest.mark.parametrize("data", [b"\xff", b"a\0b"])
def test_bytes_that_are_no_text_are_refused_without_showing_them(data: bytes) -> None:
    one = Container(name="c", env=(key("A", secret_key_ref=SecretKeySelector(name="s", key="k")),))
    with pytest.raises(InvalidError, match='key k of secret "s" is not UTF-8 text'):
        variables(one, secret(k=data))


def test_optional_keys() -> None:
    for optional in (True, False):
        selector = ConfigMapKeySelector(name="c", key="k", optional=optional)
        one = Container(name="c", env=(key("A", config_map_key_ref=selector),))
        for objects, text in (
            ((), 'configmap "c" not found'),
            ((config_map(x="1"),), "couldn't find key k in ConfigMap ns/c"),
        ):
            if optional:
                assert variables(one, *objects) == {}
            else:
                with pytest.raises(InvalidError, match=text):
                    variables(one, *objects)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A='b'\n", {"A": "b"}),
        ("# c\n\n A='x y' # z\nB=''", {"A": "x y", "B": ""}),
        ("A='two\nlines'\nB=plain  \n", {"A": "two\nlines", "B": "plain"}),
        ("A='1'\r\nA='2'\r\n", {"A": "2"}),
        ("", {}),
        ("no assignment", None),
        ("A='open", None),
        ("A='b'c\n", None),
        ("A=\0", None),
    ],
)
def test_env_files(text: str, expected: dict[str, str] | None) -> None:
    if expected is None:
        with pytest.raises(InvalidError, match="line 1 is not of the form"):
            env_file.parse(text)
    else:
        assert env_file.parse(text) == expected


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,8}", fullmatch=True),
        st.text().filter(lambda t: "'" not in t and "\r" not in t and "\0" not in t),
    )
)
def test_what_is_written_in_quotes_is_read_back(values: dict[str, str]) -> None:
    assert env_file.parse("".join(f"{name}='{text}'\n" for name, text in values.items())) == values


def test_env_files_of_containers_are_not_trusted(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text(f"K='{SECRET}'\n")
    volume = tmp_path / "v"
    volume.mkdir()
    os.symlink(outside, volume / "link")
    os.mkfifo(volume / "fifo")
    (volume / "dir").mkdir()
    (volume / "large").write_text("# " + "x" * env_file.MAX_BYTES)
    (volume / "bad").write_text(f"{SECRET}\n")
    for path in ("link", "fifo", "dir", "large", "bad", "none"):
        reference = FileKeySelector(volume_name="v", path=path, key="K")
        one = Container(name="c", env=(key("A", file_key_ref=reference),))
        with pytest.raises(InvalidError) as caught:
            variables(one, path=volume)
        assert SECRET not in str(caught.value) and path in str(caught.value)


# Tokens


def test_tokens(tmp_path: Path) -> None:
    signer = token.Signer(tmp_path / "key", "https://issuer")
    account = ServiceAccount(metadata=meta("default"))
    text = signer.sign(account, (), 600, 1000.5, token.Bound("pod", "p", "uid-p", "node"))
    claims = token.Signer(tmp_path / "key", "https://issuer").verify(text, 1300)
    assert claims["sub"] == "system:serviceaccount:ns:default" and claims["exp"] == 1600
    assert claims["kubernetes.io"]["pod"] == {"name": "p", "uid": "uid-p"}
    for wrong, now, audience in (
        (text, 1600, ""),
        (text, 999, ""),
        (text, 1300, "other"),
        (text[:-2] + "xx", 1300, ""),
        ("", 0, ""),
    ):
        with pytest.raises(token.TokenError) as caught:
            signer.verify(wrong, now, (audience,) if audience else ())
        assert not wrong or wrong not in str(caught.value)
    head, body, signature = text.split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "root"}).encode()).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for wrong in (f"{head}.{forged}.{signature}", f"{none}.{body}.", f"{none}.{body}.{signature}"):
        with pytest.raises(token.TokenError):
            signer.verify(wrong, 1300)
    with pytest.raises(token.TokenError):
        token.Signer(tmp_path / "other", "https://issuer").verify(text, 1300)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_when_a_token_is_replaced() -> None:
    assert token.replace_at(1000, 1600) == 1480
    assert token.replace_at(0, 1_000_000) == 24 * 3600


# References and claims


def test_which_volumes_hang_on_an_object() -> None:
    sources = (
        VolumeProjection(secret=SecretProjection(name="s")),
        VolumeProjection(config_map=ConfigMapProjection(name="c")),
    )
    mixed = Volume(name="m", projected=ProjectedVolumeSource(sources=sources))
    plain = Volume(name="c", config_map=ConfigMapVolumeSource(name="c"))
    brief = Volume(name="d", ephemeral=EphemeralVolumeSource())
    one = pod(mixed, plain, brief)
    cases: list[tuple[Object, list[bool]]] = [
        (config_map("c"), [True, True, False]),
        (config_map("other"), [False, False, False]),
        (secret("s"), [True, False, False]),
        (ConfigMap(metadata=ObjectMeta(name="c", namespace="elsewhere")), [False, False, False]),
        (PersistentVolumeClaim(metadata=meta("p-d")), [False, False, True]),
        (one, [True, False, False]),
    ]
    for obj, expected in cases:
        assert [references.uses(volume, one, obj) for volume in one.spec.volumes] == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"storage_class_name": "other"}, False),
        ({"access_modes": ("ReadOnlyMany",)}, False),
        ({"capacity": {"storage": "1Gi"}}, False),
        ({"capacity": {"storage": "2048Mi"}, "access_modes": ("ReadOnlyMany", "ReadWriteOnce")}, True),
    ],
)
def test_which_volume_fits_a_claim(change: dict[str, Any], expected: bool) -> None:
    spec = PersistentVolumeClaimSpec(
        access_modes=("ReadWriteOnce",),
        resources=VolumeResourceRequirements(requests={"storage": "2Gi"}),
        selector=LabelSelector(match_labels={"a": "b"}),
    )
    values: dict[str, Any] = {
        "capacity": {"storage": "2Gi"},
        "access_modes": ("ReadWriteOnce",),
        "storage_class_name": "x",
    }
    metadata = ObjectMeta(name="v", labels={"a": "b"})
    volume = PersistentVolume(metadata=metadata, spec=PersistentVolumeSpec(**(values | change)))
    assert fits(PersistentVolumeClaim(metadata=meta("c"), spec=spec), volume, "x") is expected
    unlabeled = PersistentVolume(spec=volume.spec)
    assert not fits(PersistentVolumeClaim(metadata=meta("c"), spec=spec), unlabeled, "x")


def test_a_token_is_kept_until_it_is_to_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = ServiceAccount(metadata=meta("default"))
    context = SimpleNamespace(
        store=Objects(account), signer=token.Signer(tmp_path / "key", "i"), node_name="n", allocatable=dict
    )
    contents = Contents(context)  # type: ignore[arg-type]
    source = VolumeProjection(service_account_token=ServiceAccountTokenProjection(path="t", expiration_seconds=600))
    volume = Volume(name="v", projected=ProjectedVolumeSource(sources=(source,)))
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    first = contents.of(pod(), volume)["t"].data
    assert contents.due() == 1480
    clock[0] = 1479
    assert contents.of(pod(), volume)["t"].data == first
    clock[0] = 1480
    second = contents.of(pod(), volume)["t"].data
    assert second != first and contents.due() == 1960
    assert context.signer.verify(second.decode(), 1481)["exp"] == 2080
    with pytest.raises(Unavailable, match='serviceaccounts "other" not found'):
        Contents(context).of(pod(service_account_name="other"), volume)  # type: ignore[arg-type]
