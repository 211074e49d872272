"""A link with a delay and a rate between two network namespaces.

Both ends are TUN devices. A separate process reads packets at one end and writes them at the other
when they are due. The kernel passes up to 64 KiB in one packet (IFF_VNET_HDR, TSO), so a Gbit/s
needs only some thousand packets a second. netem does the same on kernels that have it. This link
needs only TUN, and behaves the same everywhere. It loses packets only if its queue is full.
"""

import collections
import ctypes
import fcntl
import os
import select
import signal
import struct
import subprocess
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4

LARGEST = 65536 + 64
HEADER = 10                 # of virtio, before each packet
MTU = 1500
FRAME = 38                  # what Ethernet adds to a packet
SEGMENT = 52                # TCP's and IP's headers, which each segment of a large packet would have

NEAR, FAR = "10.77.0.1", "10.77.0.2"

libc = ctypes.CDLL(None, use_errno=True)


def check(done, what):
    if done != 0:
        raise SystemExit(f"{what}: {os.strerror(ctypes.get_errno())}; run it as root")


def tun(address, peer):
    """Creates a TUN device in a new network namespace, into which this process moves."""
    check(libc.unshare(CLONE_NEWNET), "a network of its own")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"line", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    for words in (["link", "set", "lo", "up"], ["addr", "add", address, "peer", peer, "dev", "line"],
                  ["link", "set", "line", "mtu", str(MTU), "txqueuelen", "10000", "up"]):
        subprocess.run(["ip", *words], check=True)
    return fd, os.open("/proc/self/ns/net", os.O_RDONLY)


class Way:
    """One direction."""

    def __init__(self, source, sink, delay, rate, queue):
        self.source, self.sink, self.delay, self.rate, self.room = source, sink, delay, rate, queue
        self.packets, self.free, self.lost = collections.deque(), 0.0, 0

    def take(self):
        for _ in range(64):
            try:
                packet = os.read(self.source, LARGEST)
            except BlockingIOError:
                return
            now = time.monotonic()
            size = len(packet) - HEADER
            segments = max(1, -(-(size - SEGMENT) // (MTU - SEGMENT)))
            bits = 8 * (size + FRAME + (segments - 1) * (SEGMENT + FRAME))
            begin = max(now, self.free)
            if begin - now > self.room:
                self.lost += segments
                continue
            self.free = begin + bits / self.rate
            self.packets.append((self.free + self.delay, packet))

    def give(self):
        now = time.monotonic()
        while self.packets and self.packets[0][0] <= now:
            try:
                os.write(self.sink, self.packets.popleft()[1])
            except OSError:
                self.lost += 1


def carry(ways):
    poll = select.epoll()
    by_fd = {way.source: way for way in ways}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    while True:
        for way in ways:
            way.give()
        due = [way.packets[0][0] for way in ways if way.packets]
        # epoll's timeout, in whole milliseconds, is too coarse for a packet that is due sooner.
        left = min(due) - time.monotonic() if due else None
        if left is None or left > 0.002:
            ready = [fd for fd, _ in poll.poll(None if left is None else left - 0.001)]
        else:
            ready = select.select(list(by_fd), [], [], max(0, left))[0]
        for fd in ready:
            by_fd[fd].take()


class Line:
    """The link, as a context manager. subprocess's preexec_fn takes what `at` returns."""

    def __init__(self, round_trip, rate, queue=0.1):
        """Takes the round trip in seconds, the rate in bits a second, and the queue in seconds."""
        self.round_trip, self.rate, self.queue = round_trip, rate, queue

    def __enter__(self):
        old = os.open("/proc/self/ns/net", os.O_RDONLY)
        near, self.near = tun(NEAR, FAR)
        far, self.far = tun(FAR, NEAR)
        check(libc.setns(old, CLONE_NEWNET), "back to the network")
        os.close(old)
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with_ends = (self.round_trip / 2, self.rate, self.queue)
            try:
                carry([Way(near, far, *with_ends), Way(far, near, *with_ends)])
            finally:
                os._exit(1)
        os.close(near)
        os.close(far)
        return self

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.near)
        os.close(self.far)

    def at(self, end):
        """Returns a function that moves a child into the network namespace of one end."""
        network = self.near if end == NEAR else self.far
        return lambda: check(libc.setns(network, CLONE_NEWNET), "the line's end")


class Here:
    """No link: the loopback device of a separate network namespace."""

    def __enter__(self):
        old = os.open("/proc/self/ns/net", os.O_RDONLY)
        check(libc.unshare(CLONE_NEWNET), "a network of its own")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in (NEAR, FAR):
            subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
        self.network = os.open("/proc/self/ns/net", os.O_RDONLY)
        check(libc.setns(old, CLONE_NEWNET), "back to the network")
        os.close(old)
        return self

    def __exit__(self, *_):
        os.close(self.network)

    def at(self, _):
        return lambda: check(libc.setns(self.network, CLONE_NEWNET), "the network")
