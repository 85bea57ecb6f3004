"""Jobs and CronJobs in virtual time: each rule, each counted once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from podrt.model.base import format_time, parse_time
from podrt.model.batch import TRACKING, CronJob, Job
from podrt.model.indexes import IndexesError, format_indexes, parse_indexes
from podrt.model.meta import DeleteOptions
from podrt.model.pod import Pod
from podrt.model.schedule import Schedule, ScheduleError
from tests.framework.workloads import World, job


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "store.db")
    yield made
    made.close()


def over(world: World, name: str = "work") -> tuple[str, str]:
    """(type, reason) of the final condition, or ("", "")."""
    for condition in world.get(Job, name).status.conditions:
        if condition.type in ("Complete", "Failed") and condition.status == "True":
            return condition.type, condition.reason
    return "", ""


def end_all(world: World, phase: str = "Succeeded", code: int = 0) -> int:
    found = [pod for pod in world.active() if pod.status.phase == "Running"]
    for pod in found:
        world.finish(pod, phase, code)
    world.settle()
    return len(found)


def test_completions_and_parallelism(world: World) -> None:
    world.apply(job(completions=5, parallelism=2))
    world.settle()
    sizes = []
    while (count := end_all(world)) and len(sizes) < 10:
        sizes.append(count)
    assert sizes == [2, 2, 1]
    done = world.get(Job, "work")
    assert over(world) == ("Complete", "CompletionsReached")
    assert (done.status.succeeded, done.status.failed, done.status.active) == (5, 0, 0)
    assert done.status.completion_time and done.status.uncounted_terminated_pods is None
    assert not any(TRACKING in pod.metadata.finalizers for pod in world.pods())


def test_failures_are_made_anew_with_backoff_up_to_the_limit(world: World) -> None:
    world.apply(job(backoffLimit=2))
    world.settle()
    waits = []
    for _ in range(3):
        end_all(world, "Failed", 1)
        start = world.now
        while not world.active() and world.now - start < 700 and not over(world)[0]:
            world.sleep(1)
        waits.append(round(world.now - start))
    assert waits[:2] == [10, 20]
    assert over(world) == ("Failed", "BackoffLimitExceeded")
    assert world.get(Job, "work").status.failed == 3


def test_restarts_count_with_onfailure(world: World) -> None:
    world.apply(job(restart="OnFailure", backoffLimit=3))
    world.settle()
    world.run(world.pods()[0], restarts=2)
    world.settle()
    assert over(world) == ("", "")
    world.run(world.pods()[0], restarts=3)
    world.settle()
    assert over(world) == ("Failed", "BackoffLimitExceeded")
    assert not world.active()


def test_a_deleted_pod_is_replaced_at_once(world: World) -> None:
    world.apply(job(restart="OnFailure"))
    world.settle()
    first = world.pods()[0]
    world.registry.delete(Pod, "default", first.metadata.name)
    world.settle()
    assert [pod.metadata.uid for pod in world.active()] != [first.metadata.uid]
    assert len(world.active()) == 1
    assert world.get(Job, "work").status.failed == 1


def test_suspend_stops_the_clock(world: World) -> None:
    world.apply(job(activeDeadlineSeconds=100, backoffLimit=0))
    world.settle()
    world.sleep(60)
    world.change(Job, "work", suspend=True)
    world.settle()
    assert not world.active() and over(world) == ("", "")
    world.sleep(500)
    world.change(Job, "work", suspend=False)
    world.settle()
    world.sleep(60)
    assert len(world.active()) == 1 and over(world) == ("", "")
    world.sleep(60)
    assert over(world) == ("Failed", "DeadlineExceeded") and not world.active()


def test_ttl_removes_the_job_and_its_pods(world: World) -> None:
    world.apply(job(ttlSecondsAfterFinished=30))
    world.settle()
    end_all(world)
    world.sleep(20)
    assert world.get(Job, "work") is not None
    world.sleep(20)
    assert world.get(Job, "work") is None and not world.pods()


def test_indexed(world: World) -> None:
    world.apply(job(completions=3, parallelism=3, completionMode="Indexed"))
    world.settle()
    by_index = {pod.metadata.annotations["batch.kubernetes.io/job-completion-index"]: pod for pod in world.pods()}
    assert sorted(by_index) == ["0", "1", "2"]
    pod = by_index["1"]
    assert pod.spec.hostname == "work-1" and pod.metadata.name.startswith("work-1-")
    assert any(entry.name == "JOB_COMPLETION_INDEX" for entry in pod.spec.containers[0].env)
    world.finish(pod, "Succeeded")
    world.finish(by_index["2"], "Failed", 1)
    world.settle()
    assert world.get(Job, "work").status.completed_indexes == "1"
    world.sleep(11)
    assert sorted(p.metadata.annotations["batch.kubernetes.io/job-completion-index"] for p in world.active()) == [
        "0",
        "2",
    ]
    end_all(world)
    assert over(world) == ("Complete", "CompletionsReached")
    assert world.get(Job, "work").status.completed_indexes == "0-2"


def test_backoff_limit_per_index_and_max_failed(world: World) -> None:
    world.apply(job(completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1, maxFailedIndexes=2))
    world.settle()

    def fail(index: str) -> None:
        for pod in world.active():
            if pod.metadata.annotations["batch.kubernetes.io/job-completion-index"] == index:
                world.finish(pod, "Failed", 1)
        world.settle()
        world.sleep(11)

    fail("0")
    fail("0")
    assert world.get(Job, "work").status.failed_indexes == "0"
    fail("0")
    for index in "12":
        for pod in world.active():
            if pod.metadata.annotations["batch.kubernetes.io/job-completion-index"] == index:
                world.finish(pod, "Succeeded")
    world.settle()
    assert over(world) == ("Failed", "FailedIndexes")
    assert world.get(Job, "work").status.completed_indexes == "1,2"


def policy(action: str, **rule: Any) -> dict[str, Any]:
    codes = {"onExitCodes": {"operator": "In", "values": [42]}} | rule
    return {"podFailurePolicy": {"rules": [{"action": action} | codes]}}


@pytest.mark.parametrize(
    ("action", "code", "expected", "failed"),
    [
        ("FailJob", 42, ("Failed", "PodFailurePolicy"), 1),
        ("FailJob", 1, ("", ""), 1),
        ("Ignore", 42, ("", ""), 0),
        ("Count", 42, ("", ""), 1),
    ],
)
def test_pod_failure_policy(world: World, action: str, code: int, expected: tuple[str, str], failed: int) -> None:
    world.apply(job(backoffLimit=5, **policy(action)))
    world.settle()
    end_all(world, "Failed", code)
    assert over(world) == expected
    assert world.get(Job, "work").status.failed == failed
    world.sleep(11)
    assert len(world.active()) == (0 if expected[0] else 1)


def test_success_policy_ends_the_rest(world: World) -> None:
    rules = {"rules": [{"succeededIndexes": "0,2", "succeededCount": 1}]}
    world.apply(job(completions=4, parallelism=4, completionMode="Indexed", successPolicy=rules))
    world.settle()
    pod = next(p for p in world.pods() if p.metadata.name.startswith("work-2-"))
    world.finish(pod, "Succeeded")
    world.settle()
    assert over(world) == ("Complete", "SuccessPolicy")
    assert not world.active() and world.get(Job, "work").status.failed == 0


def test_a_job_that_is_deleted_lets_its_pods_go(world: World) -> None:
    world.apply(job(parallelism=3, completions=3))
    world.settle()
    world.registry.delete(Job, "default", "work", DeleteOptions(propagation_policy="Background"))
    world.settle()
    assert not world.pods() and world.get(Job, "work") is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    completions=st.integers(1, 6),
    parallelism=st.integers(1, 4),
    indexed=st.booleans(),
    choices=st.lists(st.sampled_from(["good", "bad", "delete", "crash"]), max_size=14),
)
def test_each_success_is_counted_once(
    tmp_path_factory: Any, completions: int, parallelism: int, indexed: bool, choices: list[str]
) -> None:
    """Whatever ends, is deleted or crashes in whatever order: as many successes as asked for, never more at work."""
    world = World(tmp_path_factory.mktemp("job") / "store.db")
    try:
        mode = "Indexed" if indexed else "NonIndexed"
        world.apply(job(completions=completions, parallelism=parallelism, completionMode=mode, backoffLimit=100))
        most = []
        world.watch(lambda: most.append(len(world.active())))
        for choice in [*choices, *["good"] * (completions + 1)]:
            world.sleep(700)
            live = [pod for pod in world.active() if pod.status.phase == "Running"]
            if choice == "crash":
                world.control(2)
                world.restart()
                world.watch(lambda: most.append(len(world.active())))
            elif live and choice == "delete":
                world.registry.delete(Pod, "default", live[0].metadata.name)
            elif live:
                world.finish(live[0], "Succeeded" if choice == "good" else "Failed", int(choice == "bad"))
        world.sleep(700)
        assert over(world)[0] == "Complete"
        status = world.get(Job, "work").status
        assert status.succeeded == completions
        if not indexed:
            assert sum(pod.status.phase == "Succeeded" for pod in world.pods()) == completions
        assert max(most) <= parallelism
    finally:
        world.close()


# CronJobs


def cron(schedule: str = "*/5 * * * *", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick"},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": job()["spec"]}, **spec},
    }


def test_a_cronjob_runs_and_keeps_its_history(world: World) -> None:
    world.apply(cron("* * * * *"))
    for _ in range(6):
        world.sleep(60)
        end_all(world)
    jobs = world.all(Job)
    assert len(jobs) == 3
    last = world.get(CronJob, "tick").status
    assert last.last_schedule_time and last.last_successful_time
    run = parse_time(last.last_schedule_time).timestamp()
    assert max(entry.metadata.name for entry in jobs) == f"tick-{int(run) // 60}"


@pytest.mark.parametrize(("policy", "jobs"), [("Allow", 3), ("Forbid", 1), ("Replace", 1)])
def test_concurrency(world: World, policy: str, jobs: int) -> None:
    world.apply(cron("* * * * *", concurrencyPolicy=policy))
    world.sleep(60)
    first = {entry.metadata.name for entry in world.all(Job)}
    world.sleep(120)
    found = {entry.metadata.name for entry in world.all(Job)}
    assert len(found) == jobs
    assert (first <= found) == (policy != "Replace")
    assert len(world.get(CronJob, "tick").status.active) == jobs


def test_of_missed_runs_only_the_latest_starts(world: World) -> None:
    world.apply(cron("* * * * *"))
    world.settle()
    world.now += 3600
    world.settle()
    assert len(world.all(Job)) == 1
    assert world.all(Job)[0].metadata.name == f"tick-{int(world.now) // 60}"


def test_a_run_that_is_too_late_is_skipped(world: World) -> None:
    world.apply(cron("0 0 1 1 *", startingDeadlineSeconds=10))
    old = world.get(CronJob, "tick")
    stamp = format_time(world.now - 2 * 366 * 86400)
    world.store.update(replace(old, status=replace(old.status, last_schedule_time=stamp)))
    world.settle()
    assert not world.all(Job)


def test_a_crash_between_job_and_status_starts_no_second(world: World) -> None:
    world.apply(cron("* * * * *"))
    world.settle()
    before = world.get(CronJob, "tick").status
    world.sleep(61)
    assert len(world.all(Job)) == 1
    stored = world.get(CronJob, "tick")
    world.store.update(replace(stored, status=before))
    world.restart()
    world.settle()
    assert len(world.all(Job)) == 1
    assert world.get(CronJob, "tick").status.last_schedule_time


def test_suspended_cronjobs_rest(world: World) -> None:
    world.apply(cron("* * * * *", suspend=True))
    world.sleep(300)
    assert not world.all(Job)


@pytest.mark.parametrize(
    ("zone", "moment", "expected"),
    [
        ("Europe/Berlin", "2026-01-10T00:00:00Z", "2026-01-10T05:30:00Z"),
        ("Europe/Berlin", "2026-07-10T00:00:00Z", "2026-07-10T04:30:00Z"),
        ("Asia/Kolkata", "2026-01-10T00:00:00Z", "2026-01-10T01:00:00Z"),
        (None, "2026-01-10T00:00:00Z", "2026-01-10T06:30:00Z"),
    ],
)
def test_time_zones(zone: str | None, moment: str, expected: str) -> None:
    found = Schedule("30 6 * * *", zone).after(parse_time(moment).timestamp())
    assert format_time(found) == expected


def test_hours_that_a_clock_change_skips_or_repeats() -> None:
    spring = parse_time("2026-03-28T12:00:00Z").timestamp()
    # 02:30 does not exist on 29 March in Berlin.
    assert format_time(Schedule("30 2 * * *", "Europe/Berlin").after(spring)) == "2026-03-30T00:30:00Z"
    autumn = parse_time("2026-10-24T12:00:00Z").timestamp()
    schedule = Schedule("30 2 * * *", "Europe/Berlin")
    first = schedule.after(autumn)
    assert format_time(first) == "2026-10-25T00:30:00Z"
    assert format_time(schedule.after(first)) == "2026-10-26T01:30:00Z"


@pytest.mark.parametrize("text", ["", "* * * *", "61 * * * *", "@never", "@every", "@every 0s", "TZ=UTC * * * * *"])
def test_bad_schedules(text: str) -> None:
    with pytest.raises(ScheduleError):
        Schedule(text)


@given(st.sets(st.integers(0, 40)))
def test_indexes_round_trip(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes


@pytest.mark.parametrize("text", ["a", "3,1", "1-0", "5", "1,,2", "0-9"])
def test_bad_indexes(text: str) -> None:
    with pytest.raises(IndexesError):
        parse_indexes(text, 5)
