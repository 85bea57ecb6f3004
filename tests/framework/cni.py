"""CNI plugins for tests: programs that note how they were called and do as they are told.

They are real programs under the real protocol, so what is tested is the whole way: look-up, environment, stdin, answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """\
#!{python} -IS
import json, os, signal, sys, time
root = {root!r}
name = os.path.basename(sys.argv[0])
command = os.environ.get("CNI_COMMAND", "")
text = sys.stdin.read()
stdin = json.loads(text) if text else None
call = {{"plugin": name, "command": command, "stdin": stdin, "environment": dict(os.environ), "pid": os.getpid()}}
with open(root + "/calls", "a") as file:
    file.write(json.dumps(call) + "\\n")
does = {{}}
for key in (name + ".json", name + "." + command + ".json"):
    try:
        with open(os.path.join(root, "does", key)) as file:
            does = json.load(file)
    except FileNotFoundError:
        pass
for pid_file in does.get("kill", ()):
    with open(pid_file) as file:
        os.kill(int(file.read()), signal.SIGKILL)
if "child" in does and not os.fork():
    time.sleep(does["child"])
    os._exit(0)
if does.get("wait_for"):
    while not os.path.exists(does["wait_for"]):
        time.sleep(0.005)
time.sleep(does.get("sleep", 0))
sys.stderr.write(does.get("stderr", ""))
sys.stderr.flush()
if "exec" in does:
    environment = dict(os.environ)
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    os.dup2(reading, 0)
    os.execve(does["exec"], [does["exec"]], environment)
if "stdout" in does:
    sys.stdout.write(does["stdout"])
elif command == "ADD" and not does.get("exit"):
    print(json.dumps(stdin.get("prevResult") or does.get("result") or {{
        "cniVersion": stdin["cniVersion"],
        "interfaces": [{{"name": "eth0", "mac": "0a:58:0a:01:00:02", "sandbox": os.environ["CNI_NETNS"]}}],
        "ips": [{{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}}],
    }}))
with open(root + "/ended", "a") as file:
    file.write(name + " " + command + "\\n")
sys.exit(does.get("exit", 0))
"""


class FakePlugins:
    """Plugins in ``<root>/bin``. ``does`` tells one what to do at a command (all commands: empty):

    exit, stdout, stderr, result (of ADD), sleep (seconds), wait_for (a file), child (seconds that a child holds the
    pipes), kill (files with pids), exec (the program that does the real work).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        for directory in (self.bin, root / "does"):
            directory.mkdir(parents=True, exist_ok=True)
        self._program = root / "program"
        self._program.write_text(_PROGRAM.format(python=sys.executable, root=str(root)))
        self._program.chmod(0o755)

    def add(self, *names: str) -> None:
        for name in names:
            (self.bin / name).symlink_to(self._program)

    def does(self, name: str, command: str = "", **what: Any) -> None:
        path = self.root / "does" / f"{name}{'.' + command if command else ''}.json"
        path.write_text(json.dumps(what))

    def calls(self, command: str = "") -> list[dict[str, Any]]:
        try:
            lines = (self.root / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if not command or call["command"] == command]

    def names(self, command: str) -> list[str]:
        """Which plugins were called, in order."""
        return [call["plugin"] for call in self.calls(command)]

    def ended(self) -> list[str]:
        """``<plugin> <command>`` of each call that went to its end."""
        try:
            return (self.root / "ended").read_text().splitlines()
        except FileNotFoundError:
            return []

    def forget(self) -> None:
        """Forget the calls so far."""
        for name in ("calls", "ended"):
            (self.root / name).unlink(missing_ok=True)


def write(directory: Path, file: str, body: Any) -> Path:
    """A configuration file, written in one step as installers do."""
    directory.mkdir(parents=True, exist_ok=True)
    text = body if isinstance(body, str) else json.dumps(body)
    temporary = directory / f".{file}.new"
    temporary.write_text(text)
    return temporary.rename(directory / file)
