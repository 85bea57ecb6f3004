"""The CNI driver over plugins that are real programs: order, arguments, failures, time limits, records, GC, STATUS.

Only what needs a network namespace is left out here: raising loopback, and the look whether the namespace is there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from podrt.config import Config
from podrt.errors import DeadlineError, InvalidError, UnavailableError
from podrt.network import cni, cni_plugin
from podrt.network.cni import CniNetwork
from podrt.network.cni_chain import Limits
from podrt.network.gate import Gate
from podrt.network.types import AttachRequest, Port
from tests.framework.cni import FakePlugins, write
from tests.framework.patience import scaled

ID = "a" * 64
OTHER = "b" * 64


class Rig:
    """A driver on directories of its own. ``network`` writes a configuration, ``restart`` is another daemon."""

    def __init__(self, root: Path) -> None:
        self.plugins = FakePlugins(root / "plugins")
        self.config = Config.under(root, "cni", cri_network="cni", cni_bin_dirs=f"{root}/none:{self.plugins.bin}")
        self.directory = self.config.cni_conf_dir
        self.drivers: list[CniNetwork] = []
        self.driver = self.restart()

    def restart(self, **limits: float) -> CniNetwork:
        self.driver = CniNetwork(self.config, Limits(**limits))
        self.drivers.append(self.driver)
        return self.driver

    def network(self, *plugins: dict[str, Any], version: str = "1.1.0", **fields: Any) -> None:
        body = {"cniVersion": version, "name": "net", "plugins": list(plugins)} | fields
        write(self.directory, "10-net.conflist", body)

    def records(self) -> list[str]:
        directory = self.config.state_dir / "cni"
        return sorted(path.stem for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(cni, "_raise_loopback", lambda netns: None)
    monkeypatch.setattr(cni, "_is_pinned", lambda netns: bool(netns))
    rig = Rig(tmp_path)
    rig.plugins.add("first", "second", "third")
    yield rig
    for driver in rig.drivers:
        await driver.close()


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + scaled(seconds)
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        await asyncio.sleep(0.01)


def request(sandbox_id: str = ID, **fields: Any) -> AttachRequest:
    return AttachRequest(sandbox_id, "/run/netns/x", **fields)


async def test_add_in_order_del_in_reverse(rig: Rig) -> None:
    rig.network(
        {"type": "first", "key": 1}, {"type": "second", "capabilities": {"portMappings": True}}, {"type": "third"}
    )
    asked = request(ports=(Port(80, 8080),), name="web", namespace="shop", uid="u")
    connected = await rig.driver.attach(asked)
    assert connected.ips == ("10.1.0.2",)
    assert rig.plugins.names("ADD") == ["first", "second", "third"]
    first, second, third = rig.plugins.calls()
    environment = {key: value for key, value in first["environment"].items() if key.startswith("CNI_")}
    assert environment == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": ID,
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;"
        f"K8S_POD_INFRA_CONTAINER_ID={ID};K8S_POD_UID=u",
        "CNI_PATH": rig.config.cni_bin_dirs,
    }
    assert first["stdin"] == {"cniVersion": "1.1.0", "name": "net", "type": "first", "key": 1}
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    assert second["stdin"]["runtimeConfig"] == {"portMappings": ports}
    assert "capabilities" not in second["stdin"] and "runtimeConfig" not in third["stdin"]
    final = third["stdin"]["prevResult"]
    assert final["ips"] == [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}]
    assert rig.records() == [ID]

    await rig.driver.detach(ID)
    assert rig.plugins.names("DEL") == ["third", "second", "first"]
    for call in rig.plugins.calls("DEL"):
        assert call["stdin"]["prevResult"] == final
        assert call["environment"]["CNI_ARGS"] == environment["CNI_ARGS"]
    assert rig.plugins.calls("DEL")[1]["stdin"]["runtimeConfig"] == {"portMappings": ports}
    assert rig.records() == []
    rig.plugins.forget()
    await rig.driver.detach(ID)
    assert rig.plugins.calls() == []


async def test_before_0_4_0_del_has_no_result_and_check_does_not_exist(rig: Rig) -> None:
    rig.network({"type": "first"}, version="0.3.1")
    await rig.driver.attach(request())
    await rig.driver.check(ID)
    await rig.driver.detach(ID)
    assert [call["command"] for call in rig.plugins.calls()] == ["ADD", "DEL"]
    assert "prevResult" not in rig.plugins.calls("DEL")[0]["stdin"]


async def test_a_failed_add_runs_del_for_the_whole_chain(rig: Rig) -> None:
    rig.network({"type": "first"}, {"type": "second"}, {"type": "third"})
    error = json.dumps({"cniVersion": "1.1.0", "code": 7, "msg": "no room", "details": "subnet full"})
    rig.plugins.does("second", "ADD", exit=1, stdout=error)
    rig.plugins.does("third", "DEL", exit=1, stderr="what?")
    with pytest.raises(UnavailableError) as caught:
        await rig.driver.attach(request())
    assert str(caught.value) == "CNI network net: ADD of plugin second: no room: subnet full (code 7)"
    assert rig.plugins.names("ADD") == ["first", "second"]
    assert rig.plugins.names("DEL") == ["third", "second", "first"]
    # One of them failed, so the attachment is not forgotten; the engine, which takes the sandbox back, need not wait.
    assert rig.records() == [ID]
    rig.plugins.does("third", "DEL")
    await rig.driver.detach(ID)
    assert rig.records() == [ID]
    assert await rig.driver.problem() == ""
    await until(lambda: rig.records() == [])
    assert rig.plugins.names("DEL") == ["third", "second", "first"] * 2


async def test_del_goes_on_past_failures_and_can_be_repeated(rig: Rig) -> None:
    rig.network({"type": "first"}, {"type": "second"}, {"type": "third"})
    await rig.driver.attach(request())
    for name in ("third", "second"):
        rig.plugins.does(name, "DEL", exit=1, stdout=json.dumps({"code": 100, "msg": f"{name} is stuck"}))
    with pytest.raises(UnavailableError, match=r"third is stuck .*; .*second is stuck"):
        await rig.driver.detach(ID)
    assert rig.plugins.names("DEL") == ["third", "second", "first"]
    assert await rig.driver.has(ID)
    rig.plugins.does("third", "DEL", exit=1, stdout=json.dumps({"code": 3, "msg": "unknown container"}))
    rig.plugins.does("second", "DEL")
    await rig.driver.detach(ID)
    assert not await rig.driver.has(ID)


async def test_a_plugin_that_is_missing_or_can_not_be_run(rig: Rig) -> None:
    rig.network({"type": "first"}, {"type": "absent"})
    with pytest.raises(UnavailableError, match=r"'absent' is not in .*none:.*bin: install it"):
        await rig.driver.attach(request())
    assert "'absent' is not in" in await rig.driver.problem()
    rig.network({"type": "garbage"})
    (rig.plugins.bin / "garbage").write_bytes(b"\x00\x01")
    (rig.plugins.bin / "garbage").chmod(0o755)
    with pytest.raises(UnavailableError, match=r"bin/garbage \(ADD\) can't be run: Exec format error"):
        await rig.driver.attach(request(OTHER))


async def test_a_plugin_that_hangs_is_ended_with_its_children(rig: Rig) -> None:
    driver = rig.restart(add=scaled(1.0), delete=scaled(10.0))
    rig.network({"type": "first"}, {"type": "second"})
    rig.plugins.does("second", "ADD", child=600, sleep=600)
    before = time.monotonic()
    with pytest.raises(DeadlineError, match=r"plugin .*/second \(ADD\): not done after"):
        await driver.attach(request())
    assert time.monotonic() - before < scaled(30)
    assert rig.plugins.names("DEL") == ["second", "first"]
    group = rig.plugins.calls("ADD")[1]["pid"]
    with pytest.raises(ProcessLookupError):
        await until(lambda: os.killpg(group, 0))
    assert rig.records() == []


async def test_what_a_plugin_leaves_running_keeps_no_pipe_of_ours(rig: Rig) -> None:
    """It has ended, but a daemon that it has started holds its output. A kubelet asks for the Status all the time."""
    driver = rig.restart(status=scaled(1.0))
    rig.network({"type": "first"})
    rig.plugins.does("first", "STATUS", child=600)
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        assert "not done after" in await driver.problem()
        await until(lambda: sorted(os.listdir("/proc/self/fd")) == before)  # closed in the loop's next round
    finally:
        os.killpg(rig.plugins.calls("STATUS")[0]["pid"], signal.SIGKILL)


async def test_what_plugins_write_is_bounded_and_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="podrt.network.cni_plugin")
    rig.network({"type": "first"})
    rig.plugins.does("first", "ADD", stderr="x" * 3_000_000 + "the end", exit=1, stdout="y" * 3_000_000)
    with pytest.raises(UnavailableError) as caught:
        await rig.driver.attach(request())
    assert len(str(caught.value)) < 3000
    assert all(len(record.getMessage()) < 3000 for record in caplog.records)
    rig.plugins.does("first", "ADD", stderr="a word of warning")
    caplog.clear()
    await rig.driver.attach(request())
    assert any("a word of warning" in record.getMessage() for record in caplog.records)


async def test_plugins_do_not_get_the_daemons_own_variables(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("PODRT_FAULT_AT", "x")
    monkeypatch.setenv("CNI_STRAY", "x")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("PATH", "/usr/bin")
    rig.network({"type": "first"})
    await rig.driver.attach(request())
    environment = rig.plugins.calls()[0]["environment"]
    assert {"PYTHONPATH", "PODRT_FAULT_AT", "CNI_STRAY"}.isdisjoint(environment)
    assert environment["HTTPS_PROXY"] == "http://proxy"
    assert "/usr/sbin" in environment["PATH"].split(":")


async def test_many_at_once_and_one_at_a_time_for_each(rig: Rig) -> None:
    rig.network({"type": "first"}, {"type": "second"})
    ids = [f"{number:064x}" for number in range(8)]
    await asyncio.gather(*(rig.driver.attach(request(one)) for one in ids))
    assert rig.records() == ids
    rig.plugins.forget()
    # Again for one that is there: DEL comes first, as the protocol wants it.
    await rig.driver.attach(request(ids[0]))
    await asyncio.gather(rig.driver.detach(ids[0]), rig.driver.detach(ids[0]))
    assert [call["command"] for call in rig.plugins.calls() if call["plugin"] == "first"] == ["DEL", "ADD", "DEL"]
    await asyncio.gather(*(rig.driver.detach(one) for one in ids))
    assert rig.records() == []


async def test_an_attachment_keeps_the_configuration_that_made_it(rig: Rig) -> None:
    rig.network({"type": "first", "mtu": 1400})
    await rig.driver.attach(request())
    rig.network({"type": "second"}, name="another")
    rig.restart()
    await rig.driver.check(ID)
    await rig.driver.detach(ID)
    assert [(call["plugin"], call["command"]) for call in rig.plugins.calls()] == [
        ("first", "ADD"),
        ("first", "CHECK"),
        ("first", "DEL"),
    ]
    assert rig.plugins.calls("DEL")[0]["stdin"]["mtu"] == 1400
    assert rig.plugins.calls("DEL")[0]["stdin"]["name"] == "net"


async def test_readiness_follows_the_directory(rig: Rig) -> None:
    assert await rig.driver.problem() == f"no valid CNI network configuration in {rig.directory}"
    with pytest.raises(UnavailableError, match="no valid CNI network configuration"):
        await rig.driver.attach(request())
    assert rig.records() == []
    write(rig.directory, "10-net.conflist", "{")
    assert "10-net.conflist: not JSON" in await rig.driver.problem()
    rig.network({"type": "first"})
    assert await rig.driver.problem() == ""
    assert rig.driver.info()["plugins"] == ["first"]
    write(
        rig.directory, "05-better.conflist", {"cniVersion": "1.0.0", "name": "better", "plugins": [{"type": "third"}]}
    )
    assert await rig.driver.problem() == ""
    assert rig.driver.info()["name"] == "better"
    for path in rig.directory.iterdir():
        path.unlink()
    assert "no valid CNI network configuration" in await rig.driver.problem()


async def test_plugins_added_beside_the_list_count_at_once(rig: Rig) -> None:
    rig.network({"type": "first"})
    (rig.directory / "net").mkdir()
    assert await rig.driver.problem() == ""
    write(rig.directory / "net", "10.conf", {"type": "second"})
    await rig.driver.attach(request())
    assert rig.plugins.names("ADD") == ["first", "second"]


async def test_status_makes_the_network_unready(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni, "_STATUS_SECONDS", 0.0)
    rig.network({"type": "first"}, {"type": "second"})
    error = json.dumps({"cniVersion": "1.1.0", "code": 50, "msg": "no addresses left"})
    rig.plugins.does("second", "STATUS", exit=1, stdout=error)
    problem = await rig.driver.problem()
    assert problem == (
        f"CNI network net of {rig.directory} is not ready: "
        "CNI network net: STATUS of plugin second: no addresses left (code 50)"
    )
    call = rig.plugins.calls("STATUS")[0]
    assert call["stdin"] == {"cniVersion": "1.1.0", "name": "net", "type": "first"}
    assert {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}.isdisjoint(call["environment"])
    rig.plugins.does("second", "STATUS")
    assert await rig.driver.problem() == ""
    rig.plugins.forget()
    rig.network({"type": "first"}, version="1.0.0")
    assert await rig.driver.problem() == ""
    assert rig.plugins.calls("STATUS") == []


async def test_status_is_asked_once_in_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni, "_STATUS_SECONDS", 3600.0)
    rig.network({"type": "first"})
    for _ in range(3):
        assert await rig.driver.problem() == ""
    assert rig.plugins.names("STATUS") == ["first"]


async def test_recovery_undoes_what_belongs_to_nobody_and_collects(rig: Rig) -> None:
    rig.network({"type": "first"}, {"type": "second"})
    await rig.driver.attach(request())
    await rig.driver.attach(request(OTHER))
    rig.plugins.forget()
    driver = rig.restart()
    await driver.recover({OTHER})
    await until(lambda: rig.plugins.names("CHECK") == ["first", "second"])
    assert [(call["plugin"], call["environment"]["CNI_CONTAINERID"]) for call in rig.plugins.calls("DEL")] == [
        ("second", ID),
        ("first", ID),
    ]
    assert rig.plugins.names("GC") == ["first", "second"]
    collected = rig.plugins.calls("GC")[0]
    assert collected["stdin"]["cni.dev/valid-attachments"] == [{"containerID": OTHER, "ifname": "eth0"}]
    assert "CNI_PATH" in collected["environment"] and "CNI_CONTAINERID" not in collected["environment"]
    assert rig.records() == [OTHER]
    assert rig.plugins.calls("CHECK")[0]["stdin"]["prevResult"]["ips"]


async def test_collecting_and_checking_can_be_forbidden(rig: Rig) -> None:
    rig.network({"type": "first"}, disableGC=True, disableCheck=True)
    await rig.driver.attach(request())
    await rig.driver.attach(request(OTHER))
    rig.plugins.forget()
    await rig.restart().recover({ID})
    await until(lambda: rig.records() == [ID])
    assert rig.driver._sweeping is not None
    await rig.driver._sweeping
    assert [call["command"] for call in rig.plugins.calls()] == ["DEL"]


async def test_collecting_waits_for_a_configuration(rig: Rig) -> None:
    await rig.driver.recover(set())
    assert rig.driver._sweeping is not None
    await rig.driver._sweeping
    rig.network({"type": "first"})
    assert await rig.driver.problem() == ""
    await until(lambda: rig.plugins.names("GC") == ["first"])


async def test_what_can_not_be_undone_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni, "_RETRY_SECONDS", 0.0)
    rig.network({"type": "first"})
    rig.plugins.does("first", "ADD", exit=1)
    rig.plugins.does("first", "DEL", exit=1)
    with pytest.raises(UnavailableError):
        await rig.driver.attach(request())
    assert await rig.driver.problem() == ""
    await until(lambda: rig.plugins.names("GC") == ["first"])
    assert rig.plugins.calls("GC")[0]["stdin"]["cni.dev/valid-attachments"] == []
    assert rig.records() == [ID]
    rig.plugins.does("first", "DEL")

    async def asked_again() -> bool:
        await rig.driver.problem()
        return rig.records() == []

    end = time.monotonic() + scaled(10)
    while not await asked_again():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_gc_and_add_exclude_each_other(rig: Rig, tmp_path: Path) -> None:
    rig.network({"type": "first"})
    go = tmp_path / "go"
    rig.plugins.does("first", "ADD", wait_for=str(go))
    adding = asyncio.create_task(rig.driver.attach(request()))
    await until(lambda: rig.plugins.names("ADD"))
    await rig.driver.recover({ID})
    await asyncio.sleep(0.2)
    assert rig.plugins.calls("GC") == []
    go.touch()
    await adding
    await until(lambda: "first GC" in rig.plugins.ended())
    assert rig.plugins.ended()[:2] == ["first ADD", "first GC"]
    assert rig.plugins.calls("GC")[0]["stdin"]["cni.dev/valid-attachments"] == [{"containerID": ID, "ifname": "eth0"}]


async def test_broken_records_are_undone_with_todays_network(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.network({"type": "first"})
    await rig.driver.attach(request())
    path = rig.config.state_dir / "cni" / f"{ID}.json"
    path.write_bytes(path.read_bytes()[:40])
    (path.parent / f"{OTHER}.json").write_text('{"version": 9, "record": {}}')
    await rig.restart().recover({OTHER})
    await until(lambda: rig.records() == [OTHER])
    call = rig.plugins.calls("DEL")[0]
    assert call["environment"]["CNI_CONTAINERID"] == ID
    assert "CNI_NETNS" not in call["environment"] and "prevResult" not in call["stdin"]
    assert "broken record of a CNI attachment" in caplog.text
    await rig.driver.detach(OTHER)
    assert rig.records() == []


@pytest.mark.parametrize(("command", "ended"), [("ADD", True), ("ADD", False), ("DEL", True), ("DEL", False)])
async def test_strays_of_an_earlier_daemon_are_ended_first(rig: Rig, command: str, ended: bool) -> None:
    """Not what an ADD that has ended left to run: that is the plugin's."""
    rig.network({"type": "first"})
    await rig.driver.attach(request())
    if not ended:
        path = rig.config.state_dir / "cni" / f"{ID}.json"
        body = json.loads(path.read_bytes())
        body["record"]["result"] = None
        path.write_text(json.dumps(body))
    call = cni_plugin.Call(command, ID, "/run/netns/x", "eth0")
    stray = await asyncio.create_subprocess_exec("sleep", "600", env=cni_plugin.environment(call, ["/x"]))
    others = call._replace(container=OTHER)
    stranger = await asyncio.create_subprocess_exec("sleep", "600", env=cni_plugin.environment(others, ["/x"]))
    try:
        await rig.restart().detach(ID)
        stranger.terminate()
        assert await stranger.wait() == -signal.SIGTERM
        if command == "ADD" and ended:
            stray.terminate()
            assert await stray.wait() == -signal.SIGTERM
        else:
            assert await stray.wait() == -signal.SIGKILL
    finally:
        for process in (stray, stranger):
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="making a PID namespace takes root")
def test_a_container_is_not_taken_for_a_stray() -> None:
    """Its environment is its own to choose, and it may make whoever reads that wait."""
    claim = f"import os,time; os.environ.update(CNI_CONTAINERID={ID!r}); os.execvp('sleep', ['sleep', '600'])"
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", claim]
    with subprocess.Popen(command) as outside:
        try:
            children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
            end = time.monotonic() + scaled(10)
            while not (inside := children.read_text().split()) or b"sleep" not in Path(
                f"/proc/{inside[0]}/cmdline"
            ).read_bytes().split(b"\0"):
                assert time.monotonic() < end
                time.sleep(0.01)
            assert f"CNI_CONTAINERID={ID}".encode() in Path(f"/proc/{inside[0]}/environ").read_bytes()
            assert int(inside[0]) not in cni_plugin.end_strays({ID}, ())
            assert outside.poll() is None
        finally:
            outside.kill()


async def test_annotations_are_refused_before_anything_runs(rig: Rig) -> None:
    rig.network({"type": "first"})
    with pytest.raises(InvalidError, match="ingress-bandwidth"):
        await rig.driver.attach(request(annotations={"kubernetes.io/ingress-bandwidth": "x"}))
    assert rig.plugins.calls() == [] and rig.records() == []


async def test_host_ports_that_nobody_sees_to_are_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.network({"type": "first"})
    await rig.driver.attach(request(ports=(Port(80, 8080),)))
    assert "no plugin of CNI network net has the capability portMappings" in caplog.text


async def test_gate_lets_many_in_or_one() -> None:
    gate, seen = Gate(), []

    async def many(number: int, seconds: float) -> None:
        async with gate.together():
            seen.append(f"in {number}")
            await asyncio.sleep(seconds)
            seen.append(f"out {number}")

    async def one() -> None:
        async with gate.alone():
            seen.append("alone")
            await asyncio.sleep(0.02)
            seen.append("alone no more")

    first, second = asyncio.create_task(many(1, 0.05)), asyncio.create_task(many(2, 0.05))
    await asyncio.sleep(0.01)
    alone = asyncio.create_task(one())
    await asyncio.sleep(0.01)
    late = asyncio.create_task(many(3, 0))
    await asyncio.gather(first, second, alone, late)
    assert seen[:2] == ["in 1", "in 2"]
    assert seen[4:] == ["alone", "alone no more", "in 3", "out 3"]
