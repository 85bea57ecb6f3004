"""Usage as the CRI tells it: messages from readings, rates from two of them, filters, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api

from podrt.config import Config
from podrt.cri import metric_families as families
from podrt.cri import stats as messages
from podrt.cri.metric_families import BASE_LABELS, FAMILIES, Volume
from podrt.cri.metrics import MetricsService
from podrt.cri.own import Own
from podrt.cri.rates import Rates
from podrt.cri.stats import StatsService
from podrt.engine.specs import (
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    Resources,
    SandboxSpec,
    SandboxState,
    SandboxStatus,
    Stats,
)
from podrt.errors import ConflictError, NotFoundError
from podrt.linux.cgroup.io import DeviceIO
from podrt.linux.cgroup.pressure import Pressure, Stall
from podrt.linux.netdev import Interface

NOW = 1000.0
PRESSURE = {name: Pressure(Stall(2_500_000, 1.5, 2.5, 3.5), Stall(1_000_000)) for name in ("cpu", "memory", "io")}
MORE = {
    "cpu_user_ns": 2_500_000_000,
    "cpu_system_ns": 1_000_000_000,
    "cpu_periods": 4,
    "cpu_throttled_periods": 3,
    "memory_page_faults_own": 5,
    "files_limit": 1024,
    "files": 9,
    "sockets": 2,
    "pids_limit": 100,
}


def reading(**fields: Any) -> Stats:
    values = {
        "at": NOW,
        "cpu_usage_ns": 3_500_000_000,
        "memory_usage": 1000,
        "memory_working_set": 600,
        "memory_rss": 300,
        "memory_page_faults": 7,
        "memory_major_page_faults": 1,
        "swap_usage": 16,
        "pids": 5,
        "processes": 3,
        "rootfs_at": 990.0,
        "rootfs_bytes": 4096,
        "rootfs_inodes": 2,
    }
    return Stats(**(values | fields))


def identity(letter: str) -> str:
    return letter * 64


class FakeEngine:
    def __init__(self) -> None:
        self.sandboxes: dict[str, SandboxStatus] = {}
        self.containers: dict[str, ContainerStatus] = {}
        self.readings: dict[str, Stats] = {}

    def add_sandbox(self, letter: str, owner: str = "cri", state: SandboxState = SandboxState.READY) -> None:
        spec = SandboxSpec(name=f"pod-{letter}", namespace="ns", uid="u", owner=owner, labels={"pod": letter})
        key = identity(letter)
        self.sandboxes[key] = SandboxStatus(id=key, spec=spec, state=state, created_at=900.0)
        self.readings[key] = reading(network=(Interface("lo", 1), Interface("eth0", 11, 1, 2, 3, 12, 4, 5, 6)))

    def add(self, letter: str, sandbox: str, state: ContainerState = ContainerState.RUNNING) -> None:
        spec = ContainerSpec(name=f"c-{letter}", image="img", labels={"c": letter}, annotations={"a": "b"}, attempt=2)
        key = identity(letter)
        self.containers[key] = ContainerStatus(
            id=key,
            sandbox_id=identity(sandbox),
            spec=spec,
            state=state,
            image_id="i",
            image_ref="",
            created_at=900.0,
            started_at=901.5,
        )
        self.readings[key] = reading()

    def list_sandboxes(self, uid: str = "") -> list[SandboxStatus]:
        return list(self.sandboxes.values())

    def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        return [one for one in self.containers.values() if sandbox_id in ("", one.sandbox_id)]

    def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        if sandbox_id not in self.sandboxes:
            raise NotFoundError(sandbox_id)
        return self.sandboxes[sandbox_id]

    def container_status(self, container_id: str) -> ContainerStatus:
        if container_id not in self.containers:
            raise NotFoundError(container_id)
        return self.containers[container_id]

    async def all_stats(self, containers: Any, sandboxes: Any, *, detailed: bool = False) -> dict[str, Stats]:
        found = {one: self.readings[one] for one in (*containers, *sandboxes) if one in self.readings}
        if detailed:
            return {key: _detailed(value) for key, value in found.items()}
        return found


def _detailed(stats: Stats) -> Stats:
    values = {name: getattr(stats, name) for name in stats.__struct_fields__}
    return Stats(**(values | {"more": MORE, "pressure": PRESSURE, "devices": (DeviceIO(8, 0, 1, 2, 3, 4),)}))


@pytest.fixture
def engine() -> FakeEngine:
    """Two sandboxes of the CRI, one that is stopped, one of the API; containers of all kinds."""
    made = FakeEngine()
    made.add_sandbox("a")
    made.add_sandbox("b")
    made.add_sandbox("c", state=SandboxState.NOT_READY)
    made.add_sandbox("d", owner="")
    made.add("1", "a")
    made.add("2", "a", ContainerState.CREATED)
    made.add("3", "a", ContainerState.EXITED)
    made.add("4", "b")
    made.add("5", "d")
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config.under(tmp_path, "x")
    for name in ("images", "containers"):
        (made.state_dir / name).mkdir(parents=True)
    return made


@pytest.fixture
def service(engine: FakeEngine, config: Config) -> StatsService:
    faked: Any = engine
    return StatsService(config, faked, Own(faked))


async def listed(service: StatsService, **wanted: Any) -> str:
    """First letters of the containers that are listed."""
    request = api.ListContainerStatsRequest(filter=api.ContainerStatsFilter(**wanted) if wanted else None)
    return "".join(one.attributes.id[0] for one in (await service.ListContainerStats(request)).stats)


async def pods(service: StatsService, **wanted: Any) -> list[api.PodSandboxStats]:
    request = api.ListPodSandboxStatsRequest(filter=api.PodSandboxStatsFilter(**wanted) if wanted else None)
    return list((await service.ListPodSandboxStats(request)).stats)


# -- lists and single ones


async def test_filters_of_containers(service: StatsService) -> None:
    assert await listed(service) == "124"
    assert await listed(service, id=identity("1")) == "1"
    assert await listed(service, id="1111") == "1"
    assert await listed(service, id=identity("3")) == "", "it has ended"
    assert await listed(service, id=identity("5")) == "", "it is not the CRI's"
    assert await listed(service, id=identity("9")) == ""
    assert await listed(service, pod_sandbox_id=identity("a")) == "12"
    assert await listed(service, pod_sandbox_id=identity("d")) == ""
    assert await listed(service, pod_sandbox_id=identity("a"), label_selector={"c": "2"}) == "2"
    assert await listed(service, label_selector={"c": "1", "x": "y"}) == ""


async def test_filters_of_sandboxes(service: StatsService) -> None:
    assert [one.attributes.id[0] for one in await pods(service)] == ["a", "b"]
    assert [one.attributes.id[0] for one in await pods(service, id=identity("b"))] == ["b"]
    assert [one.attributes.id[0] for one in await pods(service, label_selector={"pod": "a"})] == ["a"]
    assert await pods(service, id=identity("c")) == [] == await pods(service, id=identity("d"))


async def test_a_container_whole(service: StatsService, config: Config) -> None:
    request = api.ContainerStatsRequest(container_id=identity("1"))
    found = (await service.ContainerStats(request)).stats
    assert found.attributes.metadata == api.ContainerMetadata(name="c-1", attempt=2)
    assert found.attributes.labels == {"c": "1"} and found.attributes.annotations == {"a": "b"}
    assert found.cpu.timestamp == found.memory.timestamp == found.swap.timestamp == 1_000_000_000_000
    assert found.cpu.usage_core_nano_seconds.value == 3_500_000_000
    assert found.cpu.usage_nano_cores.value == 35_000_000, "since it was made, 100 seconds ago"
    layer = found.writable_layer
    assert (layer.used_bytes.value, layer.inodes_used.value, layer.timestamp) == (4096, 2, 990_000_000_000)
    assert layer.fs_id.mountpoint == str(config.state_dir)
    assert not found.HasField("io") and not found.cpu.HasField("psi")


async def test_an_ended_container_has_its_layer_only(service: StatsService) -> None:
    found = (await service.ContainerStats(api.ContainerStatsRequest(container_id=identity("3")))).stats
    assert found.writable_layer.used_bytes.value == 4096
    assert not found.HasField("cpu") and not found.HasField("memory") and not found.HasField("swap")


async def test_a_layer_that_was_not_measured_yet_is_unset(service: StatsService, engine: FakeEngine) -> None:
    engine.readings[identity("1")] = reading(rootfs_at=0.0)
    found = (await service.ContainerStats(api.ContainerStatsRequest(container_id=identity("1")))).stats
    assert not found.HasField("writable_layer")


async def test_a_sandbox_whole(service: StatsService) -> None:
    found = (await service.PodSandboxStats(api.PodSandboxStatsRequest(pod_sandbox_id=identity("a")))).stats
    assert found.attributes.metadata == api.PodSandboxMetadata(name="pod-a", uid="u", namespace="ns")
    assert found.attributes.labels == {"pod": "a"}
    assert [one.attributes.id[0] for one in found.linux.containers] == ["1", "2"]
    assert found.linux.process.process_count.value == 3 and found.linux.process.timestamp > 0
    assert found.linux.cpu.usage_nano_cores.value == 35_000_000
    assert found.linux.network.default_interface.name == "eth0"


async def test_single_ones_that_are_not_there(service: StatsService) -> None:
    for letter in ("9", "5"):
        with pytest.raises(NotFoundError):
            await service.ContainerStats(api.ContainerStatsRequest(container_id=identity(letter)))
    with pytest.raises(NotFoundError):
        await service.PodSandboxStats(api.PodSandboxStatsRequest(pod_sandbox_id=identity("d")))
    with pytest.raises(ConflictError, match="not ready"):
        await service.PodSandboxStats(api.PodSandboxStatsRequest(pod_sandbox_id=identity("c")))


async def test_what_goes_while_it_is_read_is_left_out(service: StatsService, engine: FakeEngine) -> None:
    del engine.readings[identity("1")], engine.readings[identity("b")]
    assert await listed(service) == "24"
    (only,) = await pods(service)
    assert [one.attributes.id[0] for one in only.linux.containers] == ["2"]


# -- messages


def test_memory() -> None:
    found = messages.memory(reading(memory_limit=1024, pressure=PRESSURE))
    assert found.available_bytes.value == 424 and found.working_set_bytes.value == 600
    assert (found.usage_bytes.value, found.rss_bytes.value) == (1000, 300)
    assert (found.page_faults.value, found.major_page_faults.value) == (7, 1)
    assert not messages.memory(reading()).HasField("available_bytes"), "no limit"
    over = messages.memory(reading(memory_limit=500))
    assert over.HasField("available_bytes") and over.available_bytes.value == 0


def test_swap() -> None:
    assert messages.swap(reading(swap_limit=20)).swap_available_bytes.value == 4
    assert messages.swap(reading(swap_limit=0)).HasField("swap_available_bytes")
    unlimited = messages.swap(reading())
    assert not unlimited.HasField("swap_available_bytes") and unlimited.swap_usage_bytes.value == 16


def test_pressure_is_in_nanoseconds() -> None:
    psi = messages.io(reading(pressure=PRESSURE)).psi
    assert psi.Some == api.PsiData(Total=2_500_000_000, Avg10=1.5, Avg60=2.5, Avg300=3.5)
    assert psi.Full == api.PsiData(Total=1_000_000_000)
    assert messages.cpu(reading(pressure=PRESSURE), None).psi == psi


@pytest.mark.parametrize(
    ("names", "default", "others"),
    [
        (["lo", "net1", "eth0"], "eth0", ["net1"]),
        (["lo", "net1", "net2"], "net1", ["net2"]),
        (["lo"], "", []),
    ],
)
def test_network(names: list[str], default: str, others: list[str]) -> None:
    found = messages.network(reading(network=tuple(Interface(name, 1, 2, 3, 4, 5, 6, 7, 8) for name in names)))
    assert found.default_interface.name == default and [one.name for one in found.interfaces] == others
    if default:
        one = found.default_interface
        assert (one.rx_bytes.value, one.rx_errors.value, one.tx_bytes.value, one.tx_errors.value) == (1, 3, 5, 7)


# -- rates


def test_the_first_window_begins_with_the_birth() -> None:
    rates = Rates()
    assert rates.of("a", 100.5, 250_000_000, 100.0) == 500_000_000
    assert rates.of("b", 100.0, 5, 100.0) is None, "no time has passed"


def test_later_windows_begin_at_least_a_second_ago() -> None:
    rates = Rates()
    assert rates.of("a", 110.0, 1_000_000_000, 100.0) == 100_000_000
    assert rates.of("a", 120.0, 21_000_000_000, 100.0) == 2_000_000_000
    for at in (120.1, 120.5, 120.9):  # a second client does not shorten the window
        assert rates.of("a", at, 21_000_000_000, 100.0) == round(20e9 / (at - 110.0))
    assert rates.of("a", 121.0, 21_500_000_000, 100.0) == 500_000_000


def test_clocks_and_counters_that_go_back() -> None:
    rates = Rates()
    assert rates.of("a", 110.0, 1_000, 100.0) == 100
    assert rates.of("a", 112.0, 10, 100.0) is None
    assert rates.of("a", 105.0, 1_000, 100.0) == 200, "from the birth again"
    assert rates.of("a", 99.0, 1_000, 100.0) is None


def test_readings_of_what_is_gone_are_forgotten() -> None:
    rates = Rates()
    for one in ("a", "b"):
        rates.of(one, 110.0, 0, 100.0)
    rates.keep(["a"])
    assert rates.of("b", 120.0, 2_000_000_000, 119.0) == 2_000_000_000


# -- metrics


async def _metrics(engine: FakeEngine, config: Config) -> tuple[list[Any], list[Any]]:
    faked: Any = engine
    service = MetricsService(config, faked, Own(faked), lambda status: f"image-of-{status.spec.name}")
    descriptors = (await service.ListMetricDescriptors(api.ListMetricDescriptorsRequest())).descriptors
    answer = await service.ListPodSandboxMetrics(api.ListPodSandboxMetricsRequest())
    return list(descriptors), list(answer.pod_metrics)


async def test_each_metric_is_described_and_each_description_is_used(engine: FakeEngine, config: Config) -> None:
    spec = engine.containers[identity("1")].spec
    limited = ContainerSpec(name=spec.name, image="img", resources=Resources(cpu_quota=5000, memory_limit=10))
    status = engine.containers[identity("1")]
    values = {name: getattr(status, name) for name in status.__struct_fields__} | {"spec": limited}
    engine.containers[identity("1")] = ContainerStatus(**values)
    descriptors, found = await _metrics(engine, config)
    keys = {one.name: list(one.label_keys) for one in descriptors}
    assert len(keys) == len(descriptors) and all(one.help for one in descriptors)
    used = set()
    for pod in found:
        for metric in (*pod.metrics, *(one for some in pod.container_metrics for one in some.metrics)):
            assert len(metric.label_values) == len(keys[metric.name]), metric.name
            used.add(metric.name)
    assert used == set(keys)
    assert [one.pod_sandbox_id[0] for one in found] == ["a", "b"]
    assert [one.container_id[0] for one in found[0].container_metrics] == ["1"], "those that run"


async def test_values_and_labels(engine: FakeEngine, config: Config) -> None:
    _, found = await _metrics(engine, config)
    values: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for metric in (*found[0].metrics, *found[0].container_metrics[0].metrics):
        key = (metric.name.removeprefix("container_"), *metric.label_values)
        assert key not in values, "no series twice"
        values[key] = (metric.value.value, metric.metric_type, metric.timestamp)
    of_container = (identity("1"), "image-of-c-1", "ns", "pod-a", "c-1")
    of_sandbox = (identity("a"), "", "ns", "pod-a", "")
    counter, gauge = api.COUNTER, api.GAUGE
    assert values["cpu_usage_seconds_total", *of_container, "total"] == (3, counter, 0)
    assert values["cpu_usage_seconds_total", *of_sandbox, "total"] == (3, counter, 0)
    assert values["cpu_user_seconds_total", *of_container] == (2, counter, 0)
    assert values["memory_working_set_bytes", *of_container] == (600, gauge, 0)
    assert values["memory_failures_total", *of_container, "pgfault", "container"] == (5, counter, 0)
    assert values["memory_failures_total", *of_container, "pgfault", "hierarchy"] == (7, counter, 0)
    assert values["memory_failures_total", *of_container, "pgmajfault", "container"] == (1, counter, 0)
    assert values["pressure_io_waiting_seconds_total", *of_container] == (2, counter, 0)
    assert values["pressure_io_stalled_seconds_total", *of_container] == (1, counter, 0)
    assert values["fs_reads_bytes_total", *of_container, "8:0"] == (1, counter, 0)
    assert values["blkio_device_usage_total", *of_container, "8:0", "8", "0", "Write"] == (2, counter, 0)
    assert values["network_receive_bytes_total", *of_sandbox, "eth0"] == (11, counter, 0)
    assert values["network_transmit_packets_dropped_total", *of_sandbox, "eth0"] == (6, counter, 0)
    assert values["processes", *of_container] == (3, gauge, 0) and values["threads", *of_container] == (5, gauge, 0)
    assert values["start_time_seconds", *of_container] == (901, gauge, 0)
    assert values["spec_cpu_shares", *of_container] == (1024, gauge, 0)
    assert not any("lo" in key for key in values)
    (usage,) = [value for key, value in values.items() if key[0] == "fs_usage_bytes"]
    assert usage == (4096, gauge, 990_000_000_000), "the time at which it was measured"


def test_what_is_not_known_has_no_value() -> None:
    without = Stats(at=1.0, more={"pids_limit": 0, "files_limit": -1})
    names = {one.family for one in families.of_cgroup(without)}
    assert not {one for one in names if "pressure" in one or "_fs_" in one or "cfs" in one or "ulimits" in one}
    assert list(families.of_cgroup(Stats(at=1.0))) == [], "the cgroup is gone"
    spec = ContainerSpec(name="c", image="i")
    some = {one.family for one in families.of_container(Stats(at=1.0), spec, 1.0, Volume("/dev/vda", 1, 1, 1))}
    assert "container_fs_usage_bytes" not in some and "container_spec_cpu_quota" not in some


def test_names_of_families_are_of_one_kind() -> None:
    for family in FAMILIES:
        assert family.name.startswith("container_") and len({*BASE_LABELS, *family.labels}) == 5 + len(family.labels)
        cumulative = family.name.endswith("_total") and family.name != "container_fs_inodes_total"
        assert family.counter == (cumulative or family.name == "container_memory_failcnt"), family.name
