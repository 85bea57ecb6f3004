"""exec, attach, cp and logs through the CLI, with and without a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.framework.daemon import Daemon, cli_command, eventually
from tests.framework.pods import TOOLS, container, pod


def tool(name: str = "main", script: str = "", **fields: Any) -> dict[str, Any]:
    return container(name, script, image=TOOLS, **fields)


@pytest.fixture(scope="module")
def ready(module_daemon: Daemon) -> Daemon:
    module_daemon.apply(pod("box", tool("main", env=[{"name": "GREETING", "value": "hi"}]), tool("second")))
    module_daemon.wait_for("box", "Running")
    return module_daemon


class Terminal:
    """The CLI on a terminal, as a user has it."""

    def __init__(self, daemon: Daemon, *args: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            command = [*cli_command(), *args]
            os.execvpe(command[0], command, {**daemon.cli_env, "TERM": "dumb"})
        self.seen = ""

    def wait_for(self, text: str, timeout: float = 15.0) -> None:
        import select

        deadline = time.monotonic() + timeout
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come; seen: {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    assert text in self.seen, self.seen
                    return

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        import termios

        termios.tcsetwinsize(self.fd, (rows, columns))

    def end(self) -> int:
        """Wait for the CLI's end; its exit code."""
        _, result = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(result)


def test_output_and_exit_code(ready: Daemon) -> None:
    result = ready.cli("exec", "box", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (result.stdout, result.returncode) == ("out\n", 7)
    assert "err" in result.stderr


def test_environment_and_directory(ready: Daemon) -> None:
    assert ready.exec("box", "sh", "-c", "echo $GREETING $HOME; pwd", container="main") == "hi /root\n/\n"


def test_stdin_to_the_end(ready: Daemon) -> None:
    data = "".join(f"{number}\n" for number in range(100_000))
    result = ready.cli("exec", "-i", "box", "-c", "main", "--", "sort", "-n", input=data)
    assert result.stdout == data


def test_a_command_that_does_not_exist(ready: Daemon) -> None:
    result = ready.cli("exec", "box", "-c", "main", "--", "no-such-program", check=False)
    assert result.returncode in (126, 127)
    assert "executable file not found" in result.stderr


def test_an_unknown_container(ready: Daemon) -> None:
    result = ready.cli("exec", "box", "-c", "nobody", "--", "true", check=False)
    assert result.returncode == 1
    assert "nobody" in result.stderr


def test_a_command_killed_by_a_signal(ready: Daemon) -> None:
    assert ready.cli("exec", "box", "-c", "main", "--", "sh", "-c", "kill -9 $$", check=False).returncode == 137


def test_exec_runs_inside_the_containers_cgroup(ready: Daemon) -> None:
    text = ready.exec("box", "cat", "/proc/self/cgroup", container="main")
    assert all(line.endswith(":/") for line in text.split() if "name=" not in line), text


def test_a_terminal(ready: Daemon) -> None:
    terminal = Terminal(ready, "exec", "-it", "box", "-c", "main", "--", "sh")
    terminal.resize(33, 111)
    terminal.wait_for("# ")
    terminal.type("tty; stty size; echo do''ne\n")
    terminal.wait_for("done")
    assert "/dev/pts/" in terminal.seen
    assert "33 111" in terminal.seen
    terminal.type("exit 5\n")
    assert terminal.end() == 5


@pytest.mark.fields("spec.containers[].tty", "spec.containers[].stdin")
def test_attach_to_a_terminal(ready: Daemon) -> None:
    ready.apply(pod("shell", tool("main", command=["sh"], stdin=True, tty=True)))
    ready.wait_for("shell", "Running")
    terminal = Terminal(ready, "attach", "-it", "shell")
    terminal.wait_for("press")
    time.sleep(0.5)  # the hint is printed just before the connection is made
    terminal.type("\n")
    terminal.wait_for("# ")
    terminal.type("echo $((40 + 2))\n")
    terminal.wait_for("42")
    terminal.type("exit 3\n")
    terminal.end()
    ready.wait_for("shell", lambda found: found["status"]["containerStatuses"][0]["restartCount"] >= 1)
    assert "42" in ready.logs("shell", previous=True)
    ready.delete("shell", grace=0)


def test_run_interactively_and_remove(ready: Daemon) -> None:
    result = ready.cli(
        "run",
        "once",
        "--image",
        TOOLS,
        "--restart=Never",
        "-i",
        "--rm",
        "--command",
        "--",
        "tr",
        "a-z",
        "A-Z",
        input="shout\n",
    )
    assert "SHOUT" in result.stdout
    eventually(lambda: not ready.exists("once"))


def test_cp_both_ways(ready: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(bytes(range(256)) * 5000)
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o755)
    ready.cli("cp", "-c", "main", str(source), "box:/tmp/copied")
    assert ready.exec("box", "stat", "-c", "%a %s", "/tmp/copied/script", container="main") == "755 10\n"
    ready.cli("cp", "-c", "main", "box:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == bytes(range(256)) * 5000


def test_cp_of_a_hostile_tree_stays_inside(ready: Daemon, tmp_path: Path) -> None:
    """CVE-2018-15664, CVE-2019-11246: links and dots in what the container sends lead nowhere else."""
    script = "mkdir -p /tmp/evil && ln -sfn /etc /tmp/evil/link && echo x > /tmp/evil/plain"
    ready.exec("box", "sh", "-c", script, container="main")
    (tmp_path / "target").mkdir()
    ready.cli("cp", "-c", "main", "box:/tmp/evil", str(tmp_path / "target"), check=False)
    assert not list(tmp_path.glob("target/**/passwd"))
    assert not (tmp_path / "plain").exists()


def test_logs_options(ready: Daemon) -> None:
    script = "for i in 1 2 3 4 5; do echo line $i; done; sleep 1000"
    ready.apply(pod("talks", tool("main", script)))
    ready.wait_for("talks", "Running")
    eventually(lambda: "line 5" in ready.logs("talks"))
    assert ready.cli("logs", "talks", "--tail=2").stdout == "line 4\nline 5\n"
    stamped = ready.cli("logs", "talks", "--timestamps").stdout.splitlines()
    assert stamped[0].endswith("Z line 1")
    assert ready.cli("logs", "talks", "--since=1h").stdout.count("line") == 5
    ready.delete("talks", grace=0)


def test_logs_follow_to_the_end(ready: Daemon) -> None:
    ready.apply(
        pod("counts", tool("main", "for i in $(seq 20); do echo n $i; sleep 0.05; done"), restartPolicy="Never")
    )
    ready.wait_for("counts", lambda found: found["status"]["phase"] != "Pending")
    result = ready.cli("logs", "-f", "counts", timeout=30)
    assert result.stdout == "".join(f"n {number}\n" for number in range(1, 21))
    ready.delete("counts", grace=0)


def test_logs_follow_across_rotation(daemon_factory: Any) -> None:
    daemon = daemon_factory(log_max_bytes=20_000, log_max_files=3)
    daemon.apply(pod("floods", tool("main", "testtool chatter 5000 500; sleep 1"), restartPolicy="Never"))
    daemon.wait_for("floods", lambda found: found["status"]["phase"] != "Pending")
    process = subprocess.run(
        [*cli_command(), "logs", "-f", "floods"], capture_output=True, text=True, env=daemon.cli_env, timeout=60
    )
    lines = process.stdout.splitlines()
    assert len(lines) == 5000, f"{len(lines)} lines: {lines[:3]} ... {lines[-3:]}"
    files = list(daemon.config.log_dir.rglob("0.log*"))
    assert 2 <= len(files) <= 3


def test_a_long_line_is_whole_again(ready: Daemon) -> None:
    ready.apply(pod("long", tool("main", "head -c 100000 /dev/zero | tr '\\0' x; echo; sleep 1000")))
    ready.wait_for("long", "Running")
    eventually(lambda: len(ready.logs("long")) >= 100_001)
    assert ready.logs("long") == "x" * 100_000 + "\n"
    ready.delete("long", grace=0)


def test_top(ready: Daemon) -> None:
    eventually(lambda: ready.cli("top", "pod", check=False).returncode == 0, 20)
    lines = ready.cli("top", "pod").stdout.splitlines()
    assert lines[0].split() == ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert any(line.startswith("box ") for line in lines)
