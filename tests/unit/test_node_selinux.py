"""SELinux labels: of Pods and containers, and the files of the policy that say the defaults."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from podrt.engine.labels import Labels, level, level_of
from podrt.linux import libc, overlay, selinux
from podrt.linux.selinux import Defaults, parse_contexts
from podrt.model.container import Container, VolumeMount
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.security import PodSecurityContext, SecurityContext, SELinuxOptions
from podrt.model.volume import Volume
from podrt.node.selinux import mounted_with, of_container, of_pod

DEFAULTS = Defaults("system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0", usable=True)
UNUSABLE = DEFAULTS._replace(usable=False)
OWN = "s0:c1,c2"


def pod(
    shared: SELinuxOptions | None = None,
    *own: SELinuxOptions | None,
    policy: str | None = None,
    privileged: bool = False,
    host_pid: bool = False,
    host_ipc: bool = False,
) -> Pod:
    """With a container for each of ``own``, which all mount the volume ``v``."""
    return Pod(
        metadata=ObjectMeta(name="p", uid="u"),
        spec=PodSpec(
            security_context=PodSecurityContext(se_linux_options=shared, se_linux_change_policy=policy),
            host_pid=host_pid,
            host_ipc=host_ipc,
            containers=tuple(
                Container(
                    name=f"c{index}",
                    security_context=SecurityContext(se_linux_options=one, privileged=privileged),
                    volume_mounts=(VolumeMount(name="v", mount_path="/v"),),
                )
                for index, one in enumerate(own or (None,))
            ),
            volumes=(Volume(name="v"),),
        ),
    )


PLAIN = Labels(f"system_u:system_r:container_t:{OWN}", f"system_u:object_r:container_file_t:{OWN}")
SUPER = Labels(f"system_u:system_r:spc_t:{OWN}", PLAIN.file)
OTHER = Labels("system_u:system_r:container_t:s0:c7,c8", "system_u:object_r:container_file_t:s0:c7,c8")
TYPE, LEVEL = SELinuxOptions(type="spc_t"), SELinuxOptions(level="s0:c7,c8")
WHOLE = SELinuxOptions(user="staff_u", role="staff_r", type="staff_t", level="s0")


@pytest.mark.parametrize(
    ("given", "defaults", "expected"),
    [
        (pod(), None, Labels()),
        (pod(LEVEL), None, Labels()),
        (pod(), DEFAULTS, PLAIN),
        (pod(), UNUSABLE, Labels()),
        (pod(LEVEL), UNUSABLE, OTHER),
        (pod(SELinuxOptions()), UNUSABLE, Labels()),
        (pod(TYPE), DEFAULTS, SUPER),
        (pod(None, LEVEL), DEFAULTS, OTHER),
        # The container's stand instead of the Pod's, as a whole.
        (pod(TYPE, LEVEL), DEFAULTS, OTHER),
        (pod(LEVEL, TYPE), DEFAULTS, SUPER),
        (
            pod(None, WHOLE),
            DEFAULTS,
            Labels("staff_u:staff_r:staff_t:s0", "staff_u:object_r:container_file_t:s0"),
        ),
        (pod(privileged=True), DEFAULTS, Labels()),
        (pod(host_pid=True), DEFAULTS, Labels()),
        (pod(host_ipc=True), DEFAULTS, Labels()),
        (pod(TYPE, host_pid=True, privileged=True), DEFAULTS, SUPER),
        (
            pod(),
            Defaults("system_u:system_r:container_t", "system_u:object_r:container_file_t", usable=True),
            Labels("system_u:system_r:container_t", "system_u:object_r:container_file_t"),
        ),
    ],
)
def test_a_container(given: Pod, defaults: Defaults | None, expected: Labels) -> None:
    assert of_container(given, given.spec.containers[0], defaults, OWN) == expected


@pytest.mark.parametrize(
    ("given", "defaults", "expected"),
    [
        (pod(), DEFAULTS, PLAIN),
        (pod(), UNUSABLE, Labels()),
        (pod(LEVEL), UNUSABLE, OTHER),
        (pod(None, LEVEL), UNUSABLE, PLAIN),
        (pod(None, None, TYPE), UNUSABLE, PLAIN),
        (pod(host_ipc=True), DEFAULTS, Labels()),
        (pod(LEVEL), None, Labels()),
    ],
)
def test_what_a_pods_containers_share(given: Pod, defaults: Defaults | None, expected: Labels) -> None:
    assert of_pod(given, defaults, OWN) == expected


@pytest.mark.parametrize(
    ("given", "defaults", "expected"),
    [
        (pod(), DEFAULTS, PLAIN.file),
        (pod(policy="MountOption"), DEFAULTS, PLAIN.file),
        (pod(policy="Recursive"), DEFAULTS, ""),
        (pod(None, None, LEVEL), DEFAULTS, ""),
        (pod(None, LEVEL, LEVEL), DEFAULTS, OTHER.file),
        (pod(LEVEL), None, ""),
        (pod(), UNUSABLE, ""),
    ],
)
def test_mounting_with_a_label(given: Pod, defaults: Defaults | None, expected: str) -> None:
    assert mounted_with(given, given.spec.volumes[0], defaults, OWN) == expected


def test_levels_are_stable_and_distinct() -> None:
    found: list[str] = []
    for number in range(300):
        found.append(level(f"uid-{number}", found))
    assert len(set(found)) == 300
    assert level("uid-0", ()) == found[0] != level("uid-0", {found[0]})
    for one in found:
        match = re.fullmatch(r"s0:c(\d+),c(\d+)", one)
        assert match and int(match[1]) < int(match[2]) < 1024


def test_the_level_of_a_label() -> None:
    assert level_of("system_u:system_r:container_t:s0:c1,c2") == "s0:c1,c2"
    assert level_of("system_u:system_r:container_t") == level_of("") == ""


def test_the_policys_file() -> None:
    text = '# process = "x"\nprocess = "a_u:a_r:a_t:s0"\n\nfile="a_u:o_r:f_t:s0"\ncontent = "c"\n'
    assert parse_contexts(text) == ("a_u:a_r:a_t:s0", "a_u:o_r:f_t:s0")
    assert parse_contexts("") == (DEFAULTS.process, DEFAULTS.file)


def test_files_are_labelled_and_links_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an attribute that files may have without SELinux, too; links can't have one, so those are only told of."""
    outside, top = tmp_path / "outside", tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").touch()
    for name in ("file", "a/file", "a/b/file"):
        (top / name).touch()
    (top / "to-file").symlink_to(outside / "kept")
    (top / "a/to-directory").symlink_to(outside)
    monkeypatch.setattr(selinux, "ATTRIBUTE", "user.podrt-test")
    links: list[str] = []
    really = selinux._set

    def spy(path: str, label: str, *, follow: bool = True) -> None:
        if not follow and os.path.islink(path):
            links.append(os.path.basename(path))
            return
        really(path, label, follow=follow)

    try:
        os.setxattr(outside, selinux.ATTRIBUTE, b"own")
    except OSError:
        pytest.skip("this file system has no user attributes")
    monkeypatch.setattr(selinux, "_set", spy)
    selinux.relabel(os.fspath(top), "wanted")
    labels = {path: os.getxattr(path, selinux.ATTRIBUTE) for path in (top, *top.rglob("*")) if not path.is_symlink()}
    assert len(labels) == 6 and set(labels.values()) == {b"wanted"}
    assert sorted(links) == ["to-directory", "to-file"]
    assert os.getxattr(outside, selinux.ATTRIBUTE) == b"own" and os.listxattr(outside / "kept") == []
    selinux.relabel(os.fspath(top / "file"), "other")
    assert os.getxattr(top / "file", selinux.ATTRIBUTE) == b"other"


def test_a_label_with_commas_is_one_option_of_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    monkeypatch.setattr(libc, "mount", lambda *args: told.append(args[-1]))
    overlay._by_page(os.fspath(tmp_path), [os.fspath(tmp_path)], ["upperdir=/u", "context=a:b:c:s0:c1,c2"])
    assert told[0].startswith('upperdir=/u,context="a:b:c:s0:c1,c2",lowerdir=')
