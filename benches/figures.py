#!/usr/bin/env python3
"""Draws the results of `make bench` and `make distances` as charts (SVG), for the README.

Reads the figures that benches/bench.py --json or benches/distance.py --json has written, and
writes bench.svg or distance.svg, which name the date and the machine. A later run replaces the
file. Needs matplotlib (python3-matplotlib), which `scripts/need bench` installs.
Usage: benches/figures.py FIGURES.json [FOLDER]    (docs/figures)
"""

import json
import os
import statistics
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The panels: the figure, its title, its unit, and the format of a bar's label.
PANELS = [
    ("exec_p50", "a command, from start to end", "ms, median; shorter is better", "{:.1f}"),
    ("rate", "commands, 8 clients at once", "per second; longer is better", "{:.0f}"),
    ("stdout_mbs", "1 GiB of output", "MB/s; longer is better", "{:.0f}"),
]
# The floors of the benchmark are not drawn: they are not programs for use.
FLOORS = ("ref-plain", "ref-auth")
SYSTEMS = "/usr/bin/python3"
OURS, OTHERS = "#1f5fa8", "#b9c4cf"
STYLES = {"cosserver": (OURS, "-"), "OpenSSH": ("#c2703d", "-"), "TCP": ("#777777", "--")}
NAMES = {"openssh": "OpenSSH", "openssh-lean": "OpenSSH, lean", "dropbear": "Dropbear",
         "rsh-redone": "rsh, in the clear", "TCP": "plain TCP"}


def plain(pyplot):
    """Keeps text as text, and makes the file reproducible from the same figures."""
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cosserver", "font.size": 9,
                            "font.family": "sans-serif"})


def bars(axes, peers, figure, title, unit, label):
    """Draws one panel: a bar for each peer that has this figure."""
    found = [(NAMES.get(name, name), figures[figure]) for name, figures in peers.items()
             if name not in FLOORS and figures.get(figure) is not None]
    names, values = [name for name, _ in found][::-1], [value for _, value in found][::-1]
    drawn = axes.barh(names, values, color=[OURS if name == "cosserver" else OTHERS for name in names])
    axes.bar_label(drawn, [label.format(value) for value in values], padding=3)
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel(unit, fontsize=8)
    axes.set_xlim(0, max(values, default=1) * 1.2)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def lines(pyplot, doc):
    """Draws the throughput against the round trip, in each direction."""
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 2.9), layout="constrained", sharey=True)
    named = {}
    for axes, (way, title) in zip(panels, (("down", "output"), ("up", "standard input"))):
        rates = {}
        for line in doc["lines"]:
            for found in line["figures"]:
                if found["way"] == way:
                    rate = statistics.median(found["rates"])
                    rates.setdefault(found["peer"], []).append((line["round_trip"], rate))
        for peer, points in rates.items():
            color, style = STYLES.get(peer, (OTHERS, ":"))
            drawn = axes.plot(*zip(*sorted(points)), style, color=color, marker="o", markersize=3)
            named.setdefault(NAMES.get(peer, peer), drawn[0])
        axes.set_title(f"{title}, {doc['bytes'] / 1e6:g} MB at {doc['rate']:g} Mbit/s", loc="left", fontsize=9,
                       fontweight="bold")
        axes.set_xlabel("round trip, ms", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("MB/s", fontsize=8)
    panels[1].legend(named.values(), named.keys(), frameon=False, fontsize=8)
    return figure


def compared(pyplot, doc):
    """Draws the figures of all peers side by side."""
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(10, 2.9), layout="constrained")
    for axes, panel in zip(panels, PANELS):
        bars(axes, doc["peers"], *panel)
    return figure


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__.strip().rsplit("\n", 1)[-1])
    try:
        import matplotlib
    except ImportError:
        # Debian's package works only with Debian's Python.
        if os.path.realpath(sys.executable) != os.path.realpath(SYSTEMS) and os.access(SYSTEMS, os.X_OK):
            os.execv(SYSTEMS, [SYSTEMS, *sys.argv])
        raise SystemExit("figures.py: no matplotlib: scripts/need bench installs it") from None
    matplotlib.use("svg")
    from matplotlib import pyplot
    with open(sys.argv[1]) as f:
        doc = json.load(f)
    folder = sys.argv[2] if len(sys.argv) > 2 else f"{TOP}/docs/figures"
    os.makedirs(folder, exist_ok=True)
    plain(pyplot)
    figure, name = (lines(pyplot, doc), "distance") if "lines" in doc else (compared(pyplot, doc), "bench")
    figure.supxlabel(doc["machine"], fontsize=7, color="#555555")
    figure.savefig(f"{folder}/{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
