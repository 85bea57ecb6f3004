"""Stock kubectl through ``podrt kubeconfig``, and podrt's own verbs for workloads, on a real daemon."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.framework.daemon import Daemon, eventually
from tests.framework.kubectl import Kubectl, needs_kubectl
from tests.framework.patience import scaled
from tests.framework.pods import BUSYBOX, container, pod


def manifest(kind: str = "Deployment", name: str = "web", **spec: Any) -> str:
    labels = {"app": name}
    spec_of_pod = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container(script="echo up; trap 'exit' TERM; sleep 9999 & wait")],
    }
    template = {"metadata": {"labels": labels}, "spec": spec_of_pod}
    document = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }
    return yaml.safe_dump(document)


@pytest.fixture
def served(daemon_factory: Any) -> Daemon:
    daemon: Daemon = daemon_factory(listen="127.0.0.1:0")
    if daemon.process is None:
        daemon.start()
    return daemon


def reach(daemon: Daemon, token: str) -> int:
    access = daemon.api("GET", "/apis/podrt.dev/v1alpha1/access")
    import base64

    context = ssl.create_default_context(cadata=base64.b64decode(access["certificateAuthorityData"]).decode())
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(access["server"] + "/api/v1/pods", headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=scaled(10)) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_loopback_door_wants_its_token(served: Daemon) -> None:
    token = served.api("GET", "/apis/podrt.dev/v1alpha1/access")["token"]
    assert reach(served, token) == 200
    assert reach(served, "") == 401
    assert reach(served, token[:-1]) == 401
    directory = served.config.state_dir / "access"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.iterdir() if path.name != "certificate.pem")
    served.restart()
    assert served.api("GET", "/apis/podrt.dev/v1alpha1/access")["token"] == token


@needs_kubectl
def test_stock_kubectl(served: Daemon, tmp_path: Path) -> None:
    kubectl = Kubectl(served, tmp_path)
    assert kubectl.config.stat().st_mode & 0o777 == 0o600
    pods(kubectl)
    resized(kubectl)
    rolled_out(kubectl)
    jobs(kubectl)
    sets(kubectl)
    generated(kubectl)
    named(kubectl)


def named(kubectl: Kubectl) -> None:
    """What Pods are named by: accounts, and classes of priority and runtime."""
    assert kubectl("create", "serviceaccount", "robot") == "serviceaccount/robot created\n"
    assert kubectl("create", "token", "robot", "--duration=10m").count(".") == 2
    assert kubectl("create", "priorityclass", "high", "--value=100").startswith("priorityclass.scheduling.k8s.io/high")
    assert kubectl("get", "pc", "high", "--no-headers").split()[:3] == ["high", "100", "false"]
    assert kubectl("get", "runtimeclass", "podrt", "--no-headers").split()[:2] == ["podrt", "podrt"]
    robot = pod("robotic", serviceAccountName="robot", automountServiceAccountToken=True, priorityClassName="high")
    kubectl("apply", "-f", "-", input=yaml.safe_dump(robot))
    kubectl("wait", "--for=condition=Ready", "pod/robotic", "--timeout=60s")
    published = kubectl("get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}")
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert "BEGIN CERTIFICATE" in published
    assert kubectl("exec", "robotic", "--", "cat", f"{place}/ca.crt").strip() == published.strip()
    described = kubectl("describe", "pod", "robotic")
    assert "Priority Class Name:  high" in described and "kube-api-access-" in described


def pods(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", input=yaml.safe_dump(pod("one"))) == "pod/one created\n"
    assert "condition met" in kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
    assert kubectl("get", "pod", "one", "--no-headers").split()[:4] == ["one", "1/1", "Running", "0"]
    assert kubectl("exec", "one", "--", "sh", "-c", "echo inside") == "inside\n"
    assert "exit code 7" in kubectl("exec", "one", "--", "sh", "-c", "exit 7", code=7)
    assert kubectl("exec", "-i", "one", "--", "cat", input="typed").startswith("typed")
    described = kubectl("describe", "pod", "one")
    assert "Container ID:" in described and "Started" in described
    assert "Started" in kubectl("events", "--for", "pod/one")
    assert f"node/{kubectl('get', 'nodes', '-o', 'name').strip()[5:]}" in kubectl("get", "nodes", "-o", "name")
    assert "one" in kubectl("top", "pod", "one")
    assert "deployments" in kubectl("api-resources", "--api-group=apps")
    assert 'pod "one" deleted' in kubectl("delete", "pod", "one")


def resized(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", input=yaml.safe_dump(pod("two", container(resources={"requests": {"cpu": "10m"}}))))
    kubectl("wait", "--for=condition=Ready", "pod/two", "--timeout=60s")
    wanted = '{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"20m"}}}]}}'
    assert kubectl("patch", "pod", "two", "--subresource", "resize", "--patch", wanted) == "pod/two patched\n"
    where = "jsonpath={.status.containerStatuses[0].resources.requests.cpu}=20m"
    assert "condition met" in kubectl("wait", f"--for={where}", "pod/two", "--timeout=60s")
    kubectl("delete", "pod", "two")


def rolled_out(kubectl: Kubectl) -> None:
    web = manifest(replicas=2)
    assert kubectl("apply", "-f", "-", input=web) == "deployment.apps/web created\n"
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    rows = kubectl("get", "deployments").splitlines()
    assert rows[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert rows[1].split()[:4] == ["web", "2/2", "2", "2"]
    assert kubectl("apply", "-f", "-", input=web) == "deployment.apps/web unchanged\n"
    assert "CONTAINERS" in kubectl("get", "deploy", "web", "-o", "wide")
    assert kubectl("get", "rs").splitlines()[0].split() == ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]
    assert len(kubectl("get", "pods", "-l", "app=web", "--no-headers").splitlines()) == 2
    described = kubectl("describe", "deployment", "web")
    assert "ScalingReplicaSet" in described and "25% max unavailable, 25% max surge" in described
    assert kubectl("scale", "deployment/web", "--replicas=3") == "deployment.apps/web scaled\n"
    assert "condition met" in kubectl("wait", "--for=jsonpath={.status.readyReplicas}=3", "deployment/web")
    assert kubectl("set", "env", "deployment/web", "A=1") == "deployment.apps/web env updated\n"
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert "REVISION" in kubectl("rollout", "history", "deployment/web")
    assert kubectl("rollout", "undo", "deployment/web").startswith("deployment.apps/web rolled back\n")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert kubectl("rollout", "pause", "deployment/web") == "deployment.apps/web paused\n"
    assert kubectl("rollout", "resume", "deployment/web") == "deployment.apps/web resumed\n"
    assert kubectl("rollout", "restart", "deployment/web") == "deployment.apps/web restarted\n"
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert kubectl("label", "deployment", "web", "tier=front") == "deployment.apps/web labeled\n"
    assert kubectl("annotate", "deployment", "web", "note=x") == "deployment.apps/web annotated\n"
    patch = '{"spec":{"revisionHistoryLimit":3}}'
    assert kubectl("patch", "deployment", "web", "-p", patch) == "deployment.apps/web patched\n"
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.revisionHistoryLimit}") == "3"
    wrong = web.replace("replicas: 2", "replicaz: 2")
    assert 'unknown field "spec.replicaz"' in kubectl("apply", "-f", "-", input=wrong, code=1)
    assert "selector" in kubectl("apply", "-f", "-", input=web.replace("app: web", "app: other", 1), code=1)
    assert "strategy" in kubectl("explain", "deployment.spec")
    assert eventually(lambda: "up\n" in kubectl("logs", "deployment/web"))
    assert 'deployment.apps "web" deleted' in kubectl("delete", "deployment", "web")


def jobs(kubectl: Kubectl) -> None:
    spec = {"restartPolicy": "Never", "containers": [container(script="echo done")]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": {"spec": spec}}}
    assert kubectl("create", "-f", "-", input=yaml.safe_dump(job)) == "job.batch/once created\n"
    assert "condition met" in kubectl("wait", "--for=condition=complete", "job/once", "--timeout=60s")
    assert kubectl("logs", "job/once") == "done\n"
    row = kubectl("get", "jobs", "--no-headers").split()
    assert row[:3] == ["once", "Complete", "1/1"]
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick"},
        "spec": {"schedule": "0 0 1 1 *", "timeZone": "Asia/Tokyo", "jobTemplate": {"spec": job["spec"]}},
    }
    assert kubectl("apply", "-f", "-", input=yaml.safe_dump(cron)) == "cronjob.batch/tick created\n"
    assert kubectl("get", "cj", "--no-headers").split()[:8] == ["tick", "0", "0", "1", "1", "*", "Asia/Tokyo", "False"]
    assert 'job.batch "once" deleted' in kubectl("delete", "job", "once")
    assert 'cronjob.batch "tick" deleted' in kubectl("delete", "cronjob", "tick")


def sets(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", input=manifest("StatefulSet", "st", replicas=2, serviceName="st"))
    assert "partitioned roll out complete: 2 new pods" in kubectl("rollout", "status", "sts/st", "--timeout=60s")
    assert kubectl("get", "statefulset", "--no-headers").split()[:2] == ["st", "2/2"]
    kubectl("apply", "-f", "-", input=manifest("DaemonSet", "ds"))
    assert "successfully rolled out" in kubectl("rollout", "status", "ds/ds", "--timeout=60s")
    assert kubectl("get", "ds", "--no-headers").split()[:6] == ["ds", "1", "1", "1", "1", "1"]
    names = kubectl("get", "all", "-o", "name").split()
    assert {"pod/st-0", "pod/st-1", "daemonset.apps/ds", "statefulset.apps/st"} <= set(names)
    assert "deleted" in kubectl("delete", "sts,ds", "--all")


def generated(kubectl: Kubectl) -> None:
    """What ``kubectl create`` makes itself and sends as protobuf."""
    command = ("--", "sh", "-c", "echo up; sleep 9999")
    image = f"--image={BUSYBOX}"
    made = kubectl("create", "deployment", "made", image, "--replicas=0", "--port=80", *command)
    assert made == "deployment.apps/made created\n"
    stored = yaml.safe_load(kubectl("get", "deployment", "made", "-o", "yaml"))
    assert stored["spec"]["replicas"] == 0
    (found,) = stored["spec"]["template"]["spec"]["containers"]
    assert found["command"] == list(command[1:]) and found["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert kubectl("create", "job", "made", image, "--", "true") == "job.batch/made created\n"
    assert "condition met" in kubectl("wait", "--for=condition=complete", "job/made", "--timeout=60s")
    cron = ("create", "cronjob", "made", image, "--schedule=0 0 1 1 *", "--restart=Never", "--", "echo", "done")
    assert kubectl(*cron) == "cronjob.batch/made created\n"
    assert kubectl("create", "job", "now", "--from=cronjob/made") == "job.batch/now created\n"
    assert "condition met" in kubectl("wait", "--for=condition=complete", "job/now", "--timeout=60s")
    assert kubectl("logs", "job/now") == "done\n"
    (owner,) = yaml.safe_load(kubectl("get", "job", "now", "-o", "yaml"))["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("CronJob", "made")
    assert kubectl("create", "quota", "made", "--hard=cpu=1500m,pods=10") == "resourcequota/made created\n"
    assert "hard: {cpu: 1500m, pods: '10'}" in yaml.safe_dump(
        yaml.safe_load(kubectl("get", "quota", "made", "-o", "yaml"))["spec"], default_flow_style=None
    )
    kubectl("delete", "deployment/made", "job/made", "cronjob/made", "quota/made")


def test_podrts_own_verbs(shared_daemon: Daemon, tmp_path: Path) -> None:
    def podrt(*args: str, code: int = 0) -> str:
        ran = shared_daemon.cli(*args, check=False)
        assert ran.returncode == code, f"podrt {args}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    command = ("--", "sh", "-c", "echo up; sleep 9999")
    made = podrt("create", "deployment", "own", f"--image={BUSYBOX}", "--replicas=2", *command)
    assert made == "deployment.apps/own created\n"
    assert podrt("rollout", "status", "deployment/own").endswith('deployment "own" successfully rolled out\n')
    assert podrt("get", "deploy", "own").splitlines()[1].split()[:4] == ["own", "2/2", "2", "2"]
    assert eventually(lambda: podrt("logs", "deploy/own") == "up\n")
    assert podrt("exec", "deployment/own", "--", "echo", "in") == "in\n"
    assert podrt("scale", "deployment/own", "--replicas=1") == "deployment.apps/own scaled\n"
    shared_daemon.cli("image", "tag", BUSYBOX, "localhost/podrt/other:1")
    assert podrt("set", "image", "deployment/own", "busybox=localhost/podrt/other:1").endswith("image updated\n")
    assert podrt("rollout", "status", "deployment/own").endswith("successfully rolled out\n")
    history = podrt("rollout", "history", "deployment/own").splitlines()
    assert [line.split()[0] for line in history[2:] if line] == ["1", "2"]
    assert podrt("rollout", "undo", "deployment/own") == "deployment.apps/own rolled back\n"
    assert podrt("rollout", "restart", "deployment/own") == "deployment.apps/own restarted\n"
    assert podrt("rollout", "pause", "deployment/own") == "deployment.apps/own paused\n"
    assert podrt("rollout", "resume", "deployment/own") == "deployment.apps/own resumed\n"
    described = podrt("describe", "deployment", "own")
    assert "StrategyType:" in described and "NewReplicaSet:" in described and "ScalingReplicaSet" in described
    live = yaml.safe_load(podrt("get", "deployment", "own", "-o", "yaml"))
    target = {key: live[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "own"}}
    target["spec"]["replicas"] = 4
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(target))
    changes = podrt("diff", "-f", str(path), code=1)
    assert "-  replicas: 1" in changes and "+  replicas: 4" in changes
    assert "FIELD: replicas <integer>" in podrt("explain", "deployment.spec.replicas")
    assert podrt("create", "job", "once", f"--image={BUSYBOX}", "--", "true") == "job.batch/once created\n"
    assert "condition met" in podrt("wait", "--for=condition=Complete", "job/once", "--timeout=60s")
    made = podrt("create", "cronjob", "tick", f"--image={BUSYBOX}", "--schedule=0 0 1 1 *", "--", "true")
    assert made == "cronjob.batch/tick created\n"
    assert podrt("create", "job", "now", "--from=cronjob/tick") == "job.batch/now created\n"
    assert "Completed" in podrt("describe", "job", "once") and "Schedule:" in podrt("describe", "cj", "tick")
    assert podrt("create", "configmap", "cm", "--from-literal=a=1") == "configmap/cm created\n"
    assert podrt("create", "secret", "generic", "s", "--from-literal=a=1") == "secret/s created\n"
    assert podrt("delete", "cm/cm", "secret/s").count("deleted") == 2
    assert "deployment.apps/own" in podrt("get", "all", "-o", "name")
    assert 'deployment.apps "own" deleted' in podrt("delete", "deployment", "own")
