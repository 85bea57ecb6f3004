"""hosts and resolv.conf as the kubelet writes them."""

from __future__ import annotations

from podrt.network import files


def test_hosts() -> None:
    text = files.hosts(["10.1.2.3", "fd00::3"], "web", "web.sub.default.svc.cluster.local", [("1.2.3.4", ["a", "b"])])
    lines = text.splitlines()
    assert lines[0] == "# Kubernetes-managed hosts file."
    assert "127.0.0.1\tlocalhost" in lines
    assert "10.1.2.3\tweb.sub.default.svc.cluster.local\tweb" in lines
    assert "fd00::3\tweb.sub.default.svc.cluster.local\tweb" in lines
    assert lines[-2:] == ["# Entries added by HostAliases.", "1.2.3.4\ta\tb"]


def test_hosts_without_a_domain() -> None:
    text = files.hosts(["10.1.2.3"], "web")
    assert text.endswith("10.1.2.3\tweb\n")
    assert "HostAliases" not in text


def test_resolv_conf_of_its_own() -> None:
    text = files.resolv_conf(["1.1.1.1", "127.0.0.1"], ["a.b", "c"], ["ndots:5"], "nameserver 9.9.9.9\n")
    assert text == "nameserver 1.1.1.1\nnameserver 127.0.0.1\nsearch a.b c\noptions ndots:5\n"


def test_resolv_conf_of_the_host() -> None:
    host = "# comment\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n"
    host += "domain old\nsearch new.example x\noptions edns0 trust-ad\n; end\n"
    expected = "nameserver 10.0.0.1\nnameserver fe80::1%eth0\nsearch new.example x\noptions edns0 trust-ad\n"
    assert files.resolv_conf((), (), (), host) == expected
    assert files.resolv_conf((), (), (), "") == ""


def test_limits() -> None:
    text = files.resolv_conf([f"10.0.0.{n}" for n in range(9)], [f"domain{n}" for n in range(40)], ())
    assert text.count("nameserver") == 3
    assert len(text.splitlines()[-1].split()) == 33
    assert files.limit_searches(["a" * 1500, "b" * 547, "c"]) == ["a" * 1500, "b" * 547]
    assert files.limit_searches(["a" * 1500, "b" * 548]) == ["a" * 1500]
    assert files.limit_searches(["a", "a", "b"]) == ["a", "b"]
