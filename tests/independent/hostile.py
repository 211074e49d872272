#!/usr/bin/env python3
"""Clients that do not keep to the protocol, against a real server.

    hostile.py --card FILE --port N --machine-key FILE --user NAME [CASE…]

Each case says what it does and what docs/PROTOCOL.md has the server do: close
without a word, refuse with Denied at a multiple of the interval, or cut an
accepted connection and hang up its job.  A line for each on standard output:
case, outcome, reference of the refusal.  Exit status 1 when one went otherwise.
"""

import argparse
import concurrent.futures
import hashlib
import os
import select
import socket
import struct
import sys
import time

import cbor2

import coswire as w
from cosclient import invitation_of, key_argument, read_framed

PATIENCE = 60              # seconds until a server that does nothing has failed
REFUSAL = 2                # seconds, section 7
CASES = {}


def case(expected, cases=CASES):
    """Registers a case under its function's name."""
    def register(function):
        cases[function.__name__.replace("_", "-")] = (function, expected)
        return function
    return register


class Connection:
    """What can be said on any connection."""

    def say(self, data):
        """Sends bytes; a server that has closed already is looked at later."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self


class Stranger(Connection):
    """A connection before acceptance."""

    def __init__(self, setting):
        self.setting, self.invitation, self.machine = setting, setting.invitation, setting.machine_key
        self.sock = socket.create_connection((self.invitation.addr, self.invitation.port), PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked_at = None

    def greet(self, hello=None):
        """Hello and ServerHello."""
        self.hello = hello or w.hello()
        self.sock.sendall(self.hello)
        _, content, self.server_hello = read_framed(self.sock, [w.SERVER_HELLO], w.HELLO_MAX)
        self.server = w.parse_server_hello(content)
        return self

    def client_hello(self, words=(b"true",), **changes):
        """A ClientHello record, right but for the changes."""
        inv = self.invitation._replace(**changes.get("invitation", {}))
        machine = changes.get("machine", self.machine)
        request, self.later = w.request(words, changes.get("user", self.setting.user), "hostile", display=changes.get("display"))
        request = changes.get("request", request)
        nonce = changes.get("nonce", self.server.nonce)
        proof = w.proof(changes.get("side", "client"), inv, w.public(machine), nonce, request)
        self.expected = w.proof("server", inv, w.public(machine), nonce, request)
        opening = changes.get("opening", w.opening(inv, request, proof))
        if changes.get("password"):
            self.expected, opening = None, w.password_opening(request)
        self.noise = w.start_noise(changes.get("suite", self.server.suite), changes.get("hello", self.hello),
                                   changes.get("server_hello", self.server_hello), machine, inv.host_key)
        record = w.framed(w.CLIENT_HELLO, bytes(self.noise.write_message(opening)))
        self.asked_at = time.monotonic()
        return record

    def outcome(self):
        """What the server does: "closed", "denied" with its reference, or what it says."""
        # From before the ClientHello went out: the server counts from its arrival.
        asked = self.asked_at if self.asked_at is not None else time.monotonic()
        data = b""
        try:
            while piece := self.sock.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
        except TimeoutError:
            return "nothing", ""
        if not data:
            return "closed", ""
        if len(data) == 15 and data[2:7] == w.MAGIC + bytes([w.DENIED]):
            early = time.monotonic() - asked < REFUSAL - 0.05
            return "denied-early" if early else "denied", data[7:].hex()
        return "answered", data[:32].hex()

    def answer(self):
        """Answer: (payload, what seals, what opens)."""
        kind, content, _ = read_framed(self.sock, [w.ANSWER, w.DENIED], w.GREETING_MAX)
        return w.read_answer(self.noise, kind, content)

    def asked(self, words):
        """Until AuthContinue: what seals the pieces."""
        self.greet().say(self.client_hello(words))
        payload, sealing, _ = self.answer()
        assert not w.check_accept(payload, self.expected)
        return sealing


class Session(Connection):
    """An accepted connection with a job that does nothing."""

    def __init__(self, setting, stranger=None):
        if stranger is None:
            stranger = Stranger(setting).greet()
            stranger.say(stranger.client_hello([b"echo $$; exec sleep 1000"]))
            payload, self.sealing, self.opening = stranger.answer()
        else:
            kind, content, _ = read_framed(stranger.sock, [w.SEALED], w.GREETING_MAX)
            assert kind == w.SEALED
            self.sealing, self.opening = stranger.sealing, stranger.opening
            payload = self.opening.open(content)
            self.sealing.rekey()
            self.opening.rekey()
        assert w.check_accept(payload, stranger.expected)
        self.stream = stranger.sock.makefile("rb")
        self.sock = stranger.sock
        self.pid = os.pidfd_open(int(self.read()[2:]))

    def read(self):
        """The next message; nothing when the connection is over."""
        try:
            head = self.stream.read(2)
            if len(head) < 2:
                return b""
            return self.opening.open(self.stream.read(struct.unpack(">H", head)[0]))
        except (ConnectionResetError, w.ProtocolError):
            return b""

    def send(self, kind, second, rest=b""):
        """One message."""
        return self.say(w.record(self.sealing.seal(bytes([kind, second]) + rest)))

    def outcome(self):
        """"cut" when the server closes without End and the job ends."""
        try:
            while message := self.read():
                if message[0] == w.END:
                    return "end %d %d" % (message[1], message[2]), ""
        except TimeoutError:
            return "nothing", ""
        gone, _, _ = select.select([self.pid], [], [], PATIENCE)
        return "cut" if gone else "cut, but the job runs", ""


# --- instead of a Hello -------------------------------------------------------

@case("closed")
def another_protocol(s):
    return Stranger(s).say(b"GET / HTTP/1.0\r\n\r\n").outcome()


@case("closed")
def empty_body(s):
    return Stranger(s).say(b"\0\0").outcome()


@case("closed")
def wrong_magic(s):
    return Stranger(s).say(w.hello().replace(b"COSs", b"COSx")).outcome()


@case("closed")
def client_hello_first(s):
    return Stranger(s).say(w.framed(w.CLIENT_HELLO, b"x" * 200)).outcome()


@case("closed")
def hello_too_long(s):
    return Stranger(s).say(w.framed(w.HELLO, b"\xa3\x01\x01\x02\x81\x01\x09\x58\xf3" + b"x" * 243)).outcome()


@case("closed")
def hello_not_canonical(s):
    return Stranger(s).say(w.framed(w.HELLO, b"\xa2\x02\x81\x01\x01\x01")).outcome()


@case("closed")
def hello_of_unknown_suites(s):
    return Stranger(s).say(w.hello((3, 9))).outcome()


@case("closed")
def bytes_behind_hello(s):
    return Stranger(s).say(w.hello() + b"x").outcome()


# --- instead of a ClientHello -------------------------------------------------

@case("closed")
def hello_twice(s):
    return Stranger(s).greet().say(w.hello()).outcome()


@case("closed")
def sealed_instead_of_client_hello(s):
    return Stranger(s).greet().say(w.framed(w.SEALED, b"x" * 64)).outcome()


@case("closed")
def client_hello_too_long(s):
    return Stranger(s).greet().say(w.framed(w.CLIENT_HELLO, b"x" * 4092)).outcome()


@case("denied")
def client_hello_of_rubbish(s):
    return Stranger(s).greet().say(w.framed(w.CLIENT_HELLO, b"x" * 4091)).outcome()


@case("closed")
def bytes_behind_client_hello(s):
    c = Stranger(s).greet()
    return c.say(c.client_hello() + b"x").outcome()


@case("closed")
def half_a_client_hello(s):
    c = Stranger(s).greet().say(Stranger(s).greet().client_hello()[:-1])
    c.sock.shutdown(socket.SHUT_WR)
    return c.outcome()


@case("closed")
def bytes_while_refused(s):
    c = Stranger(s).greet()
    return c.say(c.client_hello(nonce=b"n" * 32)).say(b"x").outcome()


# --- a ClientHello that must be refused ---------------------------------------

def refused(setting, *words, hello=None, **changes):
    """The outcome of a ClientHello with these changes."""
    c = Stranger(setting).greet(hello)
    return c.say(c.client_hello(*words, **changes)).outcome()


@case("denied")
def changed_byte(s):
    c = Stranger(s).greet()
    record = bytearray(c.client_hello())
    record[len(record) // 2] ^= 1
    return c.say(bytes(record)).outcome()


@case("denied")
def replayed_client_hello(s):
    first = Stranger(s).greet()
    record = first.client_hello()
    payload, _, _ = first.say(record).answer()
    assert w.check_accept(payload, first.expected)
    return Stranger(s).greet().say(record).outcome()


@case("denied")
def hello_changed_on_the_way(s):
    c = Stranger(s).greet(w.hello((2,)))       # what arrived
    return c.say(c.client_hello(hello=w.hello((1, 2)))).outcome()


@case("denied")
def another_suite(s):
    return refused(s, hello=w.hello((1, 2)), suite=2)


@case("denied")
def nonce_of_another_connection(s):
    return refused(s, nonce=Stranger(s).greet().server.nonce)


@case("denied")
def wrong_cookie(s):
    return refused(s, invitation={"cookie": b"c" * 32})


@case("denied")
def another_machine_key(s):
    return refused(s, machine=hashlib.sha256(b"another machine").digest())


@case("denied")
def another_host_key(s):
    return refused(s, invitation={"host_key": w.public(b"h" * 32)})


@case("denied")
def unknown_caller(s):
    return refused(s, invitation={"caller": "nobody-knows-me"})


@case("denied")
def caller_no_name(s):
    return refused(s, invitation={"caller": "../hosta"})


@case("denied")
def another_server(s):
    return refused(s, invitation={"server": "another-host"})


@case("denied")
def server_label(s):
    return refused(s, side="server")


@case("denied")
def user_not_allowed(s):
    return refused(s, user="nobody-i-know")


@case("denied")
def user_like_an_option(s):
    return refused(s, user="-froot")


@case("denied")
def opening_of_rubbish(s):
    return refused(s, opening=b"\xff" * 100)


@case("denied")
def request_not_canonical(s):
    request, _ = w.request([b"true"], s.user, "hostile")
    return refused(s, request=b"\xbf" + request[1:] + b"\xff")


@case("denied")
def request_of_another_service(s):
    return refused(s, request=cbor2.dumps({1: "shell", 2: s.user, 3: "hostile", 4: [b"true"]}))


@case("denied")
def request_with_nul(s):
    return refused(s, words=[b"tr\0ue"])


@case("denied")
def empty_command(s):
    return refused(s, words=[])


# --- the rest of a long command -----------------------------------------------

LONG = [b"x" * 9000]


@case("denied")
def another_long_command(s):
    c = Stranger(s)
    sealing = c.asked(LONG)
    other = w.encode([b"y" * 9000])
    for i in range(0, len(other), w.PIECE_MAX):
        c.say(w.framed(w.SEALED, sealing.seal(other[i:i + w.PIECE_MAX])))
    return c.outcome()


@case("denied")
def long_command_too_long(s):
    c = Stranger(s)
    sealing = c.asked(LONG)
    for piece in (4075, 4075, 4075):
        c.say(w.framed(w.SEALED, sealing.seal(b"x" * piece)))
    return c.outcome()


@case("denied")
def empty_piece(s):
    c = Stranger(s)
    return c.say(w.framed(w.SEALED, c.asked(LONG).seal(b""))).outcome()


@case("denied")
def piece_that_does_not_open(s):
    c = Stranger(s)
    c.asked(LONG)
    return c.say(w.framed(w.SEALED, b"x" * 200)).outcome()


@case("closed")
def data_instead_of_a_piece(s):
    c = Stranger(s)
    return c.say(w.record(c.asked(LONG).seal(b"\x01\x00x"))).outcome()


@case("closed")
def half_a_long_command(s):
    c = Stranger(s)
    c.say(w.framed(w.SEALED, c.asked(LONG).seal(b"x" * 4075)))
    c.sock.shutdown(socket.SHUT_WR)
    return c.outcome()


# --- after acceptance ---------------------------------------------------------

def sent(*messages):
    """A case that sends these messages."""
    def run(setting):
        session = Session(setting)
        for message in messages:
            session.send(*message)
        return session.outcome()
    return run


FULL = [(w.DATA, 0, b"x" * 65000)] * 16 + [(w.DATA, 0, b"x" * ((1 << 20) - 16 * 65000))]
for name, messages in {
        "data-over-credit": FULL * 4,         # far beyond what pipes may have taken
        "data-after-eof": [(w.EOF, 0), (w.DATA, 0, b"x")],
        "eof-twice": [(w.EOF, 0), (w.EOF, 0)],
        "eof-of-stderr": [(w.EOF, 1)],
        "data-on-stderr": [(w.DATA, 1, b"x")],
        "data-on-stream-2": [(w.DATA, 2, b"x")],
        "data-of-nothing": [(w.DATA, 0)],
        "reset-of-stream-2": [(w.RESET, 2)],
        "credit-of-3-bytes": [(w.CREDIT, 0, b"\0\0\1")],
        "credit-too-much": [(w.CREDIT, 0, struct.pack(">I", (15 << 20) + 1 + 64))],
        "signal-kill": [(w.SIGNAL, 9)],
        "signal-0": [(w.SIGNAL, 0)],
        "end-from-a-client": [(w.END, 0, b"\0")],
        "type-0": [(0, 0)],
        "type-7": [(7, 0)],
}.items():
    CASES[name] = (sent(*messages), "cut")

# What a peer may do, beside what it may not: the job is there until its signal. None of these
# is SIGQUIT, which bash ignores until it has executed the command.
CASES["all-of-the-credit"] = (sent(*FULL, (w.SIGNAL, 15)), "end 1 15")
CASES["credit-to-the-brim"] = (sent((w.CREDIT, 0, struct.pack(">I", 15 << 20)), (w.SIGNAL, 1)), "end 1 1")
CASES["both-outputs-reset"] = (sent((w.RESET, 0), (w.RESET, 1), (w.CREDIT, 1, b"\0\0\0\1"), (w.SIGNAL, 15)), "end 1 15")


@case("end 1 15")
def over_the_border_of_a_key(s):
    session = Session(s)
    while session.sealing.state.n < w.REKEY_EVERY + 4:      # grants of nothing mean nothing
        grant = bytes([w.CREDIT, 0, 0, 0, 0, 0])
        session.say(b"".join(w.record(session.sealing.seal(grant)) for _ in range(4096)))
    return session.send(w.SIGNAL, 15).outcome()


@case("cut")
def record_of_rubbish(s):
    return Session(s).say(w.record(b"x" * 100)).outcome()


@case("cut")
def record_shorter_than_a_tag(s):
    return Session(s).say(w.record(b"x" * 15)).outcome()


@case("cut")
def record_without_body(s):
    return Session(s).say(b"\0\0").outcome()


@case("cut")
def plaintext_of_one_byte(s):
    session = Session(s)
    return session.say(w.record(session.sealing.seal(b"\x01"))).outcome()


@case("cut")
def changed_record(s):
    session = Session(s)
    record = bytearray(w.record(session.sealing.seal(b"\x01\x00abc")))
    record[-1] ^= 1
    return session.say(bytes(record)).outcome()


@case("cut")
def replayed_record(s):
    session = Session(s)
    return session.say(w.record(session.sealing.seal(b"\x01\x00abc")) * 2).outcome()


@case("cut")
def skipped_record(s):
    session = Session(s)
    session.sealing.seal(b"\x01\x00lost")
    return session.send(w.DATA, 0, b"late").outcome()


@case("cut")
def half_closed(s):
    session = Session(s)
    session.sock.shutdown(socket.SHUT_WR)
    return session.outcome()


def run(setting, cases, name):
    """One case: (name, outcome, reference, expected)."""
    function, expected = cases[name]
    try:
        outcome, reference = function(setting)
    except Exception as error:  # pylint: disable=broad-except
        outcome, reference = "failed: %r" % error, ""
    return name, outcome, reference, expected


def main(cases, about):
    """The command line."""
    parser = argparse.ArgumentParser(description=about.split("\n", 1)[0])
    parser.add_argument("--card", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--machine-key", type=key_argument, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", help="of the user, for logins")
    parser.add_argument("--asks", choices=["name", "activation"], help="what the inner door asks for")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--addr")
    parser.set_defaults(caller=None, server=None, host_key=None, cookie=None)
    args = parser.parse_args()
    args.invitation = invitation_of(args)
    cases = cases(args) if callable(cases) else cases
    wrong = 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for name, outcome, reference, expected in pool.map(lambda n: run(args, cases, n), args.cases or cases):
            print(name, outcome.replace(" ", "_"), reference, sep="\t")
            if outcome != expected:
                wrong += 1
                print("%s: %s, not %s" % (name, outcome, expected), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(CASES, __doc__))
