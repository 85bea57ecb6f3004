"""The table, and the pictures in ``docs/``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import cri

Results = dict[str, Any]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def targets(results: Results) -> Iterator[tuple[str, float, float, bool]]:
    """(what, measured, target, reached) for each figure that a target is set for."""
    floor = median(results["floor"]["create_ms"])
    one = median(results["one"]["create_ms"])
    yield "one Pod: podrt / floor", one / floor, 2.0, one <= 2 * floor
    if isinstance(results["podman"], dict):
        ratio = median(results["podman"]["apply_ms"]) / median(results["command"]["apply_ms"])
        yield "apply: podman / podrt (at least)", ratio, 4.0, ratio >= 4
    memory = sum(results["memory"]["empty"].values())
    yield "memory of both processes, MiB", memory, 100.0, memory < 100
    yield "each idle Pod, MiB", results["memory"]["per_pod"], 0.3, results["memory"]["per_pod"] < 0.3
    ratio = median(results["full"]["create_ms"]) / one
    yield f"create with {results['full']['count']} Pods / with none", ratio, 1.3, ratio <= 1.3
    scaled = results["scaled"]
    for way in ("up", "down"):
        ratio = median(scaled[f"{way}_ms"]) / median(scaled[f"single_{way}_ms"])
        yield f"scaled {way}: Pod of a Deployment / single", ratio, 1.0, ratio <= 1
    for name, value in results["cpu_ms"].items():
        yield f"CPU of `{name}`, ms", value, 120.0, value < 120
    if isinstance(results["cri"]["containerd"], dict):
        ratio = cri.ratio(results["cri"], cri.TO_RUNNING)
        yield "CRI to running: containerd / podrt (at least)", ratio, 10.0, ratio >= 10
        least = cri.per_pod(results["cri"]["containerd"]) / 10
        memory = cri.per_pod(results["cri"]["podrt"])
        yield "CRI: each idle Pod, MiB (containerd / 10)", memory, least, memory <= least


def table(results: Results) -> str:
    lines = [f"{'ms':46} {'median':>8} {'best':>8} {'p90':>8} {'n':>4}"]

    def row(name: str, values: Sequence[float]) -> None:
        figures = (median(values), min(values), percentile(values, 0.9))
        lines.append(f"{name:46} " + " ".join(f"{figure:8.1f}" for figure in figures) + f" {len(values):4}")

    batch, full, command = results["batch"], results["full"], results["command"]
    all_of_them = f"    all {batch['count']} of them"
    row("(a) floor in C: create", results["floor"]["create_ms"])
    row("(b) podrt, API call to both running, one by one", results["one"]["create_ms"])
    row(f"(b) with {full['count']} Pods running", full["create_ms"])
    row(f"(b) each of {batch['count']} at once", batch["create_ms"])
    lines.append(f"{all_of_them:46} {batch['create_all_ms']:8.1f}")
    for way, done in (("up", "ready"), ("down", "gone")):
        row(f"(b) Deployment of {results['scaled']['count']} {done}, per Pod", results["scaled"][f"{way}_ms"])
        row(f"    {results['scaled']['singles']} single Pods at once, per Pod", results["scaled"][f"single_{way}_ms"])
    row("(c) podrt apply, whole process and both running", command["apply_ms"])
    row("    podrt apply, the process alone", command["apply_exit_ms"])
    if isinstance(results["podman"], dict):
        row("(d) podman kube play", results["podman"]["apply_ms"])
    else:
        lines.append(f"(d) podman kube play: not measured: {results['podman']}")
    row("(f) floor in C: delete", results["floor"]["delete_ms"])
    row("(f) podrt, API call to gone, one by one", results["one"]["delete_ms"])
    row(f"(f) with {full['count']} Pods running", full["delete_ms"])
    row(f"(f) each of {batch['count']} at once", batch["delete_ms"])
    lines.append(f"{all_of_them:46} {batch['delete_all_ms']:8.1f}")
    row("(f) podrt delete, whole process and gone", command["delete_ms"])
    if isinstance(results["podman"], dict):
        row("(f) podman pod rm -f -t 0", results["podman"]["delete_ms"])
    empty, filled = results["memory"]["empty"], results["memory"]["full"]
    lines.append(f"\n{'(e) PSS, MiB':46} {'daemon':>8} {'superv.':>8} {'both':>8}")
    for name, figures in (("no Pod", empty), (f"{full['count']} idle Pods", filled)):
        both = sum(figures.values())
        lines.append(f"    {name:42} {figures['daemon']:8.1f} {figures['supervisor']:8.1f} {both:8.1f}")
    lines.append(f"    {'each idle Pod adds':42} {'':8} {'':8} {results['memory']['per_pod']:8.3f}")
    lines += ["", cri.table(results["cri"])]
    lines.append(f"\n{'targets':46} {'measured':>8} {'target':>8}")
    for what, measured, target, reached in targets(results):
        lines.append(f"    {what:42} {measured:8.2f} {target:8.2f}  {'reached' if reached else 'MISSED'}")
    return "\n".join(lines)


def pictures(results: Results, directory: Path) -> list[Path]:
    """Draw ``bench-create.svg``, ``bench-spread.svg``, ``bench-memory.svg`` and, if containerd was measured,
    ``bench-cri.svg``; returns what was written."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "podrt"
    from matplotlib import pyplot
    from matplotlib.ticker import ScalarFormatter

    written = []

    def save(name: str) -> None:
        path = directory / f"bench-{name}.svg"
        pyplot.tight_layout()
        pyplot.savefig(path, metadata={"Date": None})
        pyplot.close()
        written.append(path)

    bars = [
        ("floor: C, no runtime", results["floor"], "create_ms", "#999999"),
        ("podrt, API", results["one"], "create_ms", "#1f6fb4"),
        (f"podrt, API, {results['full']['count']} Pods running", results["full"], "create_ms", "#1f6fb4"),
        ("podrt apply, whole process", results["command"], "apply_ms", "#5fa2d8"),
    ]
    if isinstance(results["podman"], dict):
        bars.append(("podman kube play", results["podman"], "apply_ms", "#b4581f"))
    pyplot.figure(figsize=(8, 0.6 * len(bars) + 1))
    values = [median(source[key]) for _, source, key, _ in bars]
    drawn = pyplot.barh([name for name, *_ in bars], values, color=[color for *_, color in bars])
    pyplot.bar_label(drawn, fmt=" %.1f ms")
    pyplot.gca().invert_yaxis()
    pyplot.xlim(0, max(values) * 1.15)
    pyplot.xlabel("ms, median")
    pyplot.title("A Pod of two containers, until both run")
    save("create")

    pyplot.figure(figsize=(8, 5))
    for name, source, key, color in bars:
        ordered = sorted(source[key])
        parts = [(number + 1) / len(ordered) for number in range(len(ordered))]
        style = "--" if source is results["full"] else "-"
        pyplot.step(ordered, parts, style, where="post", label=name, color=color)
    pyplot.xscale("log")
    pyplot.gca().xaxis.set_major_formatter(ScalarFormatter())
    pyplot.xlabel("ms (logarithmic)")
    pyplot.ylabel("part of the runs that took at most this long")
    pyplot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)
    pyplot.title("The spread")
    save("spread")

    pyplot.figure(figsize=(6, 4))
    kinds = [("no Pod", results["memory"]["empty"]), (f"{results['full']['count']} Pods", results["memory"]["full"])]
    bottom = [0.0, 0.0]
    for part, color in (("daemon", "#1f6fb4"), ("supervisor", "#5fa2d8")):
        heights = [figures[part] for _, figures in kinds]
        drawn = pyplot.bar([name for name, _ in kinds], heights, bottom=bottom, label=part, color=color)
        pyplot.bar_label(drawn, fmt="%.1f", label_type="center", color="white")
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    pyplot.ylabel("MiB (PSS)")
    pyplot.ylim(0, max(bottom) * 1.2)
    pyplot.legend(loc="upper left", ncols=2)
    pyplot.title("Memory of podrt's two processes")
    save("memory")

    if isinstance(results["cri"]["containerd"], dict):
        names = [*cri.STEPS, cri.TO_RUNNING]
        pyplot.figure(figsize=(8, 4.5))
        for offset, (runtime, color) in enumerate((("podrt", "#1f6fb4"), ("containerd", "#b4581f"))):
            values = [median(results["cri"][runtime][name]) for name in names]
            places = [number + 0.4 * offset for number in range(len(names))]
            label = "containerd + runc" if runtime == "containerd" else runtime
            drawn = pyplot.barh(places, values, height=0.38, label=label, color=color)
            pyplot.bar_label(drawn, fmt=" %.1f ms")
        pyplot.yticks([number + 0.2 for number in range(len(names))], names)
        pyplot.gca().invert_yaxis()
        pyplot.margins(x=0.15)
        pyplot.xlabel("ms, median")
        pyplot.legend(loc="upper right", bbox_to_anchor=(1, 0.75), frameon=False)
        pyplot.title("The CRI's calls, and a Pod of two containers until both run")
        save("cri")
    return written
