#!/usr/bin/env python3
"""Draws what `make bench` measured as charts (SVG), for the README.

Reads the figures that benches/bench.py --json has written, and writes one chart into
docs/figures/, with the date and the machine in it; a later run on another machine replaces
it. Needs matplotlib (python3-matplotlib), which `scripts/need bench` installs.
Usage: benches/figures.py FIGURES.json [FOLDER]    (docs/figures)
"""

import json
import os
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What is drawn: the figure, its title, its unit, and how a bar is labelled.
PANELS = [
    ("exec_p50", "a command, from start to end", "ms, median; shorter is better", "{:.1f}"),
    ("rate", "commands, 8 clients at once", "per second; longer is better", "{:.0f}"),
    ("stdout_mbs", "1 GiB of output", "MB/s; longer is better", "{:.0f}"),
]
# The floors that the benchmark compares with are no programs that people run.
FLOORS = ("ref-plain", "ref-auth")
SYSTEMS = "/usr/bin/python3"
OURS, OTHERS = "#1f5fa8", "#b9c4cf"


def plain(pyplot):
    """Text stays text, and the same figures give the same file."""
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cosserver", "font.size": 9,
                            "font.family": "sans-serif"})


def bars(axes, peers, figure, title, unit, label):
    """One panel: a bar for each peer that has this figure."""
    found = [(name, figures[figure]) for name, figures in peers.items()
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


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__.strip().rsplit("\n", 1)[-1])
    try:
        import matplotlib
    except ImportError:
        # Debian's package serves Debian's Python alone.
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
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(10, 2.9), layout="constrained")
    for axes, panel in zip(panels, PANELS):
        bars(axes, doc["peers"], *panel)
    figure.supxlabel(doc["machine"], fontsize=7, color="#555555")
    figure.savefig(f"{folder}/bench.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
