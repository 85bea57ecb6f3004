"""The workload kinds as objects: defaults, refusals by field, what may change; the queue; pure parts of the verbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podrt.cli import generators
from podrt.cli.cmd_rollout import judge
from podrt.cli.errors import CliError
from podrt.config import parse_loopback
from podrt.controllers.queue import Key, WorkQueue
from podrt.errors import ConflictError, InvalidError
from podrt.model import codec
from podrt.model.apps import DaemonSet, Deployment, StatefulSet
from podrt.model.batch import CronJob, Job
from podrt.store.objects import Registry
from podrt.store.store import Store
from tests.framework.workloads import job, workload


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def cron(**spec: Any) -> dict[str, Any]:
    whole = {"schedule": "* * * * *", "jobTemplate": {"spec": job()["spec"]}, **spec}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": whole}


def create(registry: Registry, document: dict[str, Any]) -> Any:
    return registry.create(codec.decode_document(document).object)


def test_defaults(registry: Registry) -> None:
    deployment: Deployment = create(registry, workload("Deployment"))
    spec = deployment.spec
    assert (spec.replicas, spec.revision_history_limit, spec.progress_deadline_seconds) == (1, 10, 600)
    rolling = spec.strategy.rolling_update
    assert rolling is not None and (rolling.max_surge, rolling.max_unavailable) == ("25%", "25%")
    assert spec.template.spec.restart_policy == "Always" and deployment.metadata.generation == 1
    stateful: StatefulSet = create(registry, workload("StatefulSet"))
    assert stateful.spec.pod_management_policy == "OrderedReady"
    daemon: DaemonSet = create(registry, workload("DaemonSet"))
    assert daemon.spec.update_strategy.rolling_update is not None
    assert daemon.spec.update_strategy.rolling_update.max_unavailable == 1
    work: Job = create(registry, job())
    assert (work.spec.completions, work.spec.parallelism, work.spec.backoff_limit) == (1, 1, 6)
    assert work.spec.selector is not None
    assert work.spec.selector.match_labels == {"batch.kubernetes.io/controller-uid": work.metadata.uid}
    tick: CronJob = create(registry, cron())
    assert (tick.spec.successful_jobs_history_limit, tick.spec.failed_jobs_history_limit) == (3, 1)
    assert tick.spec.concurrency_policy == "Allow"


REFUSED = [
    (workload("Deployment", selector={"matchLabels": {"app": "x"}}), "spec.template.metadata.labels"),
    (workload("Deployment", selector={}), "spec.selector"),
    (workload("Deployment", replicas=-1), "spec.replicas"),
    (
        workload("Deployment", template={"metadata": {"labels": {"app": "web"}}, "spec": {}}),
        "spec.template.spec.containers",
    ),
    (
        workload("Deployment", strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
        "spec.strategy.rollingUpdate.maxUnavailable",
    ),
    (
        workload("Deployment", strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
        "spec.strategy.rollingUpdate",
    ),
    (workload("Deployment", progressDeadlineSeconds=5, minReadySeconds=9), "spec.progressDeadlineSeconds"),
    (workload("StatefulSet", podManagementPolicy="Wild"), "spec.podManagementPolicy"),
    (
        workload("DaemonSet", updateStrategy={"rollingUpdate": {"maxUnavailable": 0}}),
        "spec.updateStrategy.rollingUpdate.maxUnavailable",
    ),
    (job(restart="Always"), "spec.template.spec.restartPolicy"),
    (job(completionMode="Indexed", parallelism=1), "spec.completions"),
    (job(backoffLimitPerIndex=1), "spec.backoffLimitPerIndex"),
    (job(maxFailedIndexes=1), "spec.backoffLimitPerIndex"),
    (job(podFailurePolicy={"rules": [{"action": "Never"}]}), "spec.podFailurePolicy.rules[0].action"),
    (job(successPolicy={"rules": [{"succeededCount": 1}]}), "spec.successPolicy"),
    (cron(schedule="61 * * * *"), "spec.schedule"),
    (cron(timeZone="Mars/Olympus"), "spec.timeZone"),
    (cron(concurrencyPolicy="Maybe"), "spec.concurrencyPolicy"),
    (cron(jobTemplate={"spec": job(restart="Always")["spec"]}), "spec.jobTemplate.spec.template.spec.restartPolicy"),
]


@pytest.mark.parametrize(("document", "field"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refusals_name_the_field(registry: Registry, document: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        create(registry, document)
    assert field in [cause.field for cause in caught.value.causes]


def test_restart_policies_other_than_always(registry: Registry) -> None:
    document = workload("Deployment")
    document["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    with pytest.raises(InvalidError, match=r'spec.template.spec.restartPolicy: Unsupported value: "Never"'):
        create(registry, document)


@pytest.mark.parametrize(
    ("document", "change", "field"),
    [
        (workload("Deployment"), {"selector": {"matchLabels": {"app": "web", "x": "y"}}}, "spec.selector"),
        (workload("StatefulSet"), {"serviceName": "other"}, "spec"),
        (job(), {"completions": 7}, "spec.completions"),
        (job(), {"completionMode": "Indexed"}, "spec.completionMode"),
    ],
)
def test_immutable_fields(registry: Registry, document: dict[str, Any], change: dict[str, Any], field: str) -> None:
    stored = codec.to_document(create(registry, document))
    stored["spec"] |= change
    if "selector" in change:
        stored["spec"]["template"]["metadata"]["labels"] = {"app": "web", "x": "y"}
    with pytest.raises(InvalidError) as caught:
        registry.update(codec.decode_document(stored).object)
    assert field in [cause.field for cause in caught.value.causes]


def test_the_generation_counts_changes_of_the_spec_alone(registry: Registry) -> None:
    stored = codec.to_document(create(registry, workload("Deployment")))
    stored["metadata"]["labels"] = {"a": "b"}
    same: Any = registry.update(codec.decode_document(stored).object)
    assert same.metadata.generation == 1
    again = codec.to_document(same)
    again["spec"]["replicas"] = 3
    assert registry.update(codec.decode_document(again).object).metadata.generation == 2


# The queue


def test_a_key_is_in_the_queue_once_and_backs_off() -> None:
    now, seen = [0.0], []

    def sync(key: Key) -> float | None:
        seen.append(now[0])
        if len(seen) < 4:
            raise ConflictError("not yet")
        return None

    queue = WorkQueue(sync, lambda: now[0])
    key = Key("x", "default", "a")
    queue.add(key)
    queue.add(key)
    assert queue.step() and not queue.step()
    for _ in range(3):
        wait = queue.next_due()
        assert wait is not None
        now[0] += wait
        assert queue.step()
    assert seen == pytest.approx([0.0, 0.005, 0.015, 0.035])
    assert queue.next_due() is None


def test_a_defect_of_one_object_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def sync(key: Key) -> float | None:
        seen.append(key.name)
        if key.name == "bad":
            raise ZeroDivisionError
        return None

    queue = WorkQueue(sync, lambda: 0.0)
    for name in ("bad", "good"):
        queue.add(Key("x", "default", name))
    assert queue.step() and queue.step() and seen == ["bad", "good"]
    assert "x default/bad: failed" in caplog.text and queue.next_due() == pytest.approx(0.005)


def test_the_earliest_time_counts() -> None:
    now = [0.0]
    queue = WorkQueue(lambda key: None, lambda: now[0])
    key = Key("x", "default", "a")
    queue.add_after(key, 10)
    queue.add_after(key, 5)
    queue.add_after(key, 20)
    assert queue.next_due() == 5
    now[0] = 5
    assert queue.step() and not queue.step()
    now[0] = 30
    assert not queue.step()


def test_after_a_long_sync_changes_wait_but_what_it_asks_for_does_not() -> None:
    now, began = [0.0], []
    more = [0.0, None, None, None]

    def sync(key: Key) -> float | None:
        began.append(now[0])
        now[0] += 0.002
        queue.add(key)  # its own write
        return more[len(began) - 1]

    queue = WorkQueue(sync, lambda: now[0])
    key = Key("x", "default", "a")
    queue.add(key)
    assert queue.step() and queue.step() and not queue.step()
    # The second asked for nothing, so its own write waits until the first has rested: twenty times 2 ms, from its end.
    assert began == pytest.approx([0.0, 0.002]) and queue.next_due() == pytest.approx(0.042 - 0.004)
    queue.add(key)
    assert not queue.step()
    queue.add(Key("x", "default", "other"))
    assert queue.step()
    now[0] = 0.0421
    assert queue.step() and began[-1] == 0.0421
    now[0] = 10.0
    queue.add(key)
    assert queue.step()


# The CLI's pure parts


def status(**values: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "generation": 1},
        "spec": {"replicas": 3},
        "status": {"observedGeneration": 1, **values},
    }


@pytest.mark.parametrize(
    ("value", "message", "done"),
    [
        ({**status(), "status": {}}, "Waiting for deployment spec update to be observed...", False),
        (status(updatedReplicas=1), "1 out of 3 new replicas have been updated...", False),
        (status(updatedReplicas=3, replicas=4), "1 old replicas are pending termination...", False),
        (status(updatedReplicas=3, replicas=3, availableReplicas=2), "2 of 3 updated replicas are available...", False),
        (status(updatedReplicas=3, replicas=3, availableReplicas=3), 'deployment "web" successfully rolled out', True),
    ],
)
def test_rollout_status(value: dict[str, Any], message: str, done: bool) -> None:
    verdict = judge("Deployment", value)
    assert verdict.message.endswith(message) and verdict.done is done


def test_a_rollout_past_its_deadline_fails() -> None:
    late = status(conditions=[{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}])
    with pytest.raises(CliError, match="exceeded its progress deadline"):
        judge("Deployment", late)


def test_generated_objects_are_valid(registry: Registry, tmp_path: Path) -> None:
    made = generators.deployment("web", ["localhost/a/nginx:1", "busybox"], 2, 80, ())
    assert [one["name"] for one in made["spec"]["template"]["spec"]["containers"]] == ["nginx", "busybox"]
    create(registry, made)
    create(registry, generators.job("once", "busybox", ("true",)))
    tick = create(registry, generators.cron_job("tick", "busybox", "@daily", "Never", ()))
    now = create(registry, generators.job_from("now", codec.to_document(tick)))
    assert now.metadata.owner_references[0].name == "tick"
    (tmp_path / "key").write_bytes(b"\xff\x00")
    values = generators.data(["a=1", "b='x y'"], [str(tmp_path / "key")], [])
    made = generators.config_map("cm", values)
    assert made["data"] == {"a": "1", "b": "x y"} and list(made["binaryData"]) == ["key"]
    create(registry, made)
    create(registry, generators.registry_secret("r", "https://example.test", "me", "secret", ""))


@pytest.mark.parametrize("text", ["0.0.0.0:6443", "192.168.0.1:1", "localhost:1", "127.0.0.1", "127.0.0.1:x", "[::]:1"])
def test_only_loopback_addresses_are_served(text: str) -> None:
    with pytest.raises(InvalidError, match="loopback"):
        parse_loopback("listen", text)


def test_loopback_addresses() -> None:
    assert parse_loopback("listen", "127.0.0.1:6443") == ("127.0.0.1", 6443)
    assert parse_loopback("listen", "[::1]:0") == ("::1", 0)
