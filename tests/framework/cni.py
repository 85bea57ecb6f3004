"""CNI for tests: plugins that do as they are told, and a host of one's own for real ones.

:class:`FakePlugins` are real programs under the real protocol, so what is tested is the whole way: look-up,
environment, stdin, answer. :class:`OtherHost` has Debian's plugins do their work in a network namespace that plays the
host: their bridges and iptables rules are not this machine's, and what they leave there can be seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REAL = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins are."""

_PROGRAM = """\
#!{python} -IS
import json, os, signal, sys, time
root = {root!r}
name = os.path.basename(sys.argv[0])
command = os.environ.get("CNI_COMMAND", "")
text = sys.stdin.read()
stdin = json.loads(text) if text else None
call = {{"plugin": name, "command": command, "stdin": stdin, "environment": dict(os.environ), "pid": os.getpid()}}
calls = os.open(root + "/calls", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
os.write(calls, (json.dumps(call) + "\\n").encode())
os.close(calls)
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
            # What is being written now has no line end yet.
            lines = (self.root / "calls").read_text().split("\n")[:-1]
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


class OtherHost:
    """A network namespace that plugins take for the host's, with their programs in ``bin``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "real"
        self.bin.mkdir(parents=True)
        self.netns = root / "host-netns"
        self.netns.touch()
        subprocess.run(["unshare", f"--net={self.netns}", "ip", "link", "set", "lo", "up"], check=True)
        self.leases = root / "leases"
        for plugin in REAL.iterdir():
            wrapper = self.bin / plugin.name
            wrapper.write_text(f"#!/bin/sh\nexec nsenter --net={self.netns} {plugin}\n")
            wrapper.chmod(0o755)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command there; its stdout."""
        return subprocess.run(
            ["nsenter", f"--net={self.netns}", *command], check=check, capture_output=True, text=True
        ).stdout

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.run("ip", "-j", "link"))}

    def rules(self) -> list[str]:
        """The rules of iptables' nat tables that belong to one attachment; chains that all share stay."""
        text = self.run("iptables-save", "-t", "nat") + self.run("ip6tables-save", "-t", "nat")
        return [line for line in text.splitlines() if line.startswith(("-A CNI-DN", ":CNI-DN")) or " id: " in line]

    def leased(self) -> set[str]:
        """Addresses that host-local has given out."""
        files = [path.name for path in self.leases.rglob("*") if path.is_file()]
        return {name for name in files if name != "lock" and not name.startswith("last_reserved_ip")}

    def network(
        self, *more: dict[str, Any], version: str = "1.0.0", subnet: str = "10.77.0.0/24", **fields: Any
    ) -> Any:
        """A configuration: bridge with host-local, both families, and ``more`` plugins."""
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.leases),
                "ranges": [[{"subnet": subnet}], [{"subnet": "fd77:7064:7274::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }
        return {"cniVersion": version, "name": "cluster", "plugins": [bridge, *more]} | fields

    def left(self) -> list[str]:
        """What no attachment may leave."""
        links = sorted(self.links() - {"lo", "cni0"})
        return [*links, *sorted(self.leased()), *self.rules()]

    def destroy(self) -> None:
        subprocess.run(["umount", self.netns], check=True)


def available() -> bool:
    """Whether Debian's plugins are there."""
    return all(os.access(REAL / name, os.X_OK) for name in ("bridge", "host-local", "portmap"))
