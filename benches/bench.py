#!/usr/bin/env python3
"""Measures cosserver and other remote execution daemons on this machine.

Runs as root, in its own network namespace. `scripts/need bench` installs the
peers that Debian has. The benchmark runs benches/peers.sh, which sets them up.
A peer that is not installed is skipped. Prints a Markdown table, with the
ratios of the main figures to the reference's. Absolute figures depend on the
machine; compare the ratios of one run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from measure import QUIET, TESTS, Running, measure
from peers import TOP, WORK, built_in, from_file
from system import machine, own_network

# figure: its label, its format, whether its ratio is shown
ROWS = {
    "exec_p50": ("exec latency p50, ms", "{:.2f}", True),
    "exec_p95": ("exec latency p95, ms", "{:.2f}", True),
    "exec_p99": ("exec latency p99, ms", "{:.2f}", False),
    "startup_p50": ("client start-up alone, ms", "{:.2f}", False),
    "exec_server_cpu": ("server CPU an exec, ms", "{:.2f}", True),
    "exec_client_cpu": ("client CPU an exec, ms", "{:.2f}", True),
    "exec_errors": ("exec errors", "{}", False),
    "rate": ("execs/s, 8 clients", "{:.0f}", True),
    "rate_errors": ("errors at that", "{}", False),
    "stdout_mbs": ("stdout, MB/s", "{:.0f}", True),
    "stdout_server_user": ("  server user s/GiB", "{:.2f}", False),
    "stdout_server_sys": ("  server sys s/GiB", "{:.2f}", False),
    "stdout_client_user": ("  client user s/GiB", "{:.2f}", False),
    "stdout_client_sys": ("  client sys s/GiB", "{:.2f}", False),
    "stdout_errors": ("  failed runs", "{}", False),
    "stdin_mbs": ("stdin, MB/s", "{:.0f}", True),
    "stdin_server_user": ("  server user s/GiB", "{:.2f}", False),
    "stdin_server_sys": ("  server sys s/GiB", "{:.2f}", False),
    "stdin_client_user": ("  client user s/GiB", "{:.2f}", False),
    "stdin_client_sys": ("  client sys s/GiB", "{:.2f}", False),
    "stdin_errors": ("  failed runs", "{}", False),
    "idle_pss": ("server idle PSS, KiB", "{:.0f}", True),
    "idle_rss": ("server idle RSS, KiB", "{:.0f}", False),
    "held": ("sessions held of 100", "{}", False),
    "first_pss": ("PSS that the first session adds, KiB", "{:.0f}", True),
    "held_pss": ("PSS a further held session, KiB", "{:.0f}", True),
    "held_procs": ("server processes a session", "{:.0f}", False),
    "flood_kept": ("{silent} silent connections: held once all are open", "{}", False),
    "flood_pending": ("  lost to a full backlog", "{}", False),
    "flood_dropped": ("  dropped by the server by then", "{}", False),
    "flood_procs": ("  server processes added", "{}", False),
    "flood_threads": ("  server threads added", "{}", False),
    "flood_pss": ("  server PSS added, KiB", "{:.0f}", False),
    "flood_served": ("  legitimate execs served of 5", "{}", False),
    "flood_exec": ("  their latency, ms", "{:.2f}", False),
    "flood_quiet": ("  their latency before the flood, ms", "{:.2f}", False),
    "flood_p99": ("  p99 of 100 more, ms", "{:.2f}", False),
    "flood_quiet_p99": ("  p99 of 100 before the flood, ms", "{:.2f}", False),
    "flood_half_gone_s": ("  half of all dropped after, s", "{:.0f}", False),
    "flood_all_gone_s": ("  all dropped after, s", "{:.0f}", False),
    "flood_left": ("  still there at the end", "{}", False),
    "flood_recovers": ("  execs served after it, of 3", "{}", False),
    "stderr_at": ("remote stderr arrives at", "{}", False),
    "exit_status": ("exit 42 arrives as", "{}", False),
    "stdin_intact": ("64 MiB random stdin intact", "{}", False),
    "stdout_intact": ("64 MiB random stdout intact", "{}", False),
    "dies_on_int": ("remote command dies: client SIGINT", "{}", False),
    "dies_on_term": ("  client SIGTERM", "{}", False),
    "dies_on_kill": ("  client SIGKILL", "{}", False),
    "size_bin": ("server binaries, KiB", "{:.0f}", True),
    "size_libs": ("  shared libraries but libc, KiB", "{:.0f}", False),
    "size_nlibs": ("  their number", "{}", False),
    "size_client": ("client binary, KiB", "{:.0f}", False),
    "size_client_libs": ("  shared libraries but libc, KiB", "{:.0f}", False),
}


def version(peer):
    if not peer.version:
        return None
    try:
        said = subprocess.run(peer.version, capture_output=True, text=True, timeout=5)
        return (said.stdout + said.stderr).strip().splitlines()[0].replace("\t", " ")
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "?"


def cell(figures, key, reference):
    _, form, ratio = ROWS[key]
    value = figures.get(key)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = form.format(value)
    if ratio and figures is not reference and reference.get(key):
        text += f" ({value / reference[key]:.2f})"
    return text


def table(doc, reference):
    peers = doc["peers"]
    print(f"\n{doc['machine']}\n\n|  | " + " | ".join(peers) + " |\n|---|" + "---|" * len(peers))
    for key, (label, _, _) in ROWS.items():
        if any(figures.get(key) is not None for figures in peers.values()):
            cells = [cell(figures, key, peers.get(reference, {})) for figures in peers.values()]
            label = label.replace("{silent}", str(doc.get("silent", 1000))).replace("  ", "&nbsp;&nbsp;")
            print(f"| {label} | " + " | ".join(cells) + " |")
    print(f"\nIn brackets: the ratio to {reference}. -: cannot, or not measured. MB is 10^6 bytes. "
          "Server CPU has the remote command in it, PSS has not.")
    for name, figures in peers.items():
        noisy = [test for test, (_, spoils, _) in TESTS.items() if spoils and figures.get(f"outside_{test}", 0) > QUIET]
        if noisy:
            print(f"Other load on the machine during {name}: {', '.join(noisy)}.")
    print()
    for name, figures in peers.items():
        if figures.get("version"):
            print(f"- {name}: {figures['version']}")


def keep(path, doc):
    if path:
        with open(path + ".new", "w") as f:
            json.dump(doc, f, indent=1)
        os.replace(path + ".new", path)


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--quick", action="store_true", help="fewer runs, smaller transfers")
    a.add_argument("--peers", help="only these, with commas between them")
    a.add_argument("--peer-file", action="append", default=[], help="more peers, TOML; peer.toml is an example")
    a.add_argument("--tests", help="of: " + ",".join(TESTS))
    a.add_argument("--silent", type=int, default=10000,
                   help="connections of the flood (%(default)s); some peers start a process for each")
    a.add_argument("--ref", default="ref-auth", help="the peer the ratios are taken to (%(default)s)")
    a.add_argument("--json", help="keep the figures in this file, and add to what it has")
    a.add_argument("--report", action="store_true", help="only print the table of --json")
    return a, a.parse_args()


def main():
    parser, o = arguments()
    doc = {"machine": "", "peers": {}}
    if o.json and os.path.exists(o.json):
        with open(o.json) as f:
            doc = json.load(f)
    if o.report:
        return table(doc, o.ref)
    if os.geteuid() != 0:
        raise SystemExit("bench: run it as root: it gives the daemons a network of their own")
    subprocess.run([f"{TOP}/benches/peers.sh"], check=True, stdout=sys.stderr)

    peers = built_in()
    for path in o.peer_file:
        peers.update(from_file(path))
    chosen = o.peers.split(",") if o.peers else list(peers)
    tests = o.tests.split(",") if o.tests else list(TESTS)
    for name in [c for c in chosen if c not in peers] + [t for t in tests if t not in TESTS]:
        parser.error(f"no such peer or test: {name}")
    # A background job of a shell ignores SIGINT, and the clients would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # and so clean up
    own_network()
    doc.update(machine=machine(), silent=o.silent)
    for name in chosen:
        peer = peers[name]
        if missing := peer.missing():
            print(f"bench: {name}: skipped, there is no {missing}", file=sys.stderr)
            continue
        figures = doc["peers"].setdefault(name, {})
        figures["version"] = version(peer)
        for test in tests:
            if peer.same_server_as and TESTS[test][2]:
                continue
            print(f"bench: {name}: {test}", file=sys.stderr, flush=True)
            try:
                with Running(peer, o.quick, o.silent) as running:
                    figures.update(measure(running, test))
            except (RuntimeError, subprocess.SubprocessError, OSError) as e:
                print(f"bench: {name}: {test}: {e}", file=sys.stderr)
            keep(o.json, doc)
    table(doc, o.ref)


if __name__ == "__main__":
    main()
