#!/usr/bin/env python3
"""A client for the cosserver protocol, written from docs/PROTOCOL.md alone.

It runs one command on a server, or logs in and starts an application there:
standard input, output and error, signals and the exit status.  It is there to
prove that the page is complete, and as an example to read; the messages
themselves are in coswire.py.
"""

import argparse
import os
import select
import signal
import socket
import struct
import sys
import time

import coswire
from coswire import (ANSWER, CLIENT_HELLO, CREDIT, DATA, DENIED, END, EOF, EXITED, KILLED,
                     NOT_STARTED, RESET, SEALED, SERVER_HELLO, SIGNAL, Denied, ProtocolError)

PATIENCE = 30              # seconds that this client waits for an answer,
LOGIN_PATIENCE = 180       # and in a login


def read_exactly(sock, count):
    """That many bytes; a connection that ends before them is a failure."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ProtocolError("the server closed the connection")
        data += piece
    return data


def read_framed(sock, kinds, limit):
    """The next message before acceptance: (type, content, the whole record)."""
    head = read_exactly(sock, 2)
    whole = head + read_exactly(sock, coswire.body_length(head, limit))
    return (*coswire.unframe(whole[2:], kinds), whole)


def connect(invitation):
    """A connected socket."""
    sock = socket.create_connection((invitation.addr, invitation.port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def call(sock, invitation, machine_key, words, user, calling_user, env=(), suites=(1, 2), display=None, asker=None,
         door=None, enrol=False, service="exec", formats=()):
    """From the Hello to AuthAccept, sections 4 to 6: (what seals, what opens).

    With a display it asks for an application; with an asker it logs in by password,
    else it proves the cookie, or has its machine registered.  The door answers what the
    inner door asks, and nobody else does."""
    hello_record = coswire.hello(suites)
    sock.sendall(hello_record)
    _, content, server_record = read_framed(sock, [SERVER_HELLO], coswire.HELLO_MAX)
    server = coswire.parse_server_hello(content, suites)

    request, later = coswire.request(words, user, calling_user, env, display, service=service, formats=formats)
    if enrol:
        request, later = coswire.enrolment(calling_user), None
        opening, expected = coswire.machine_opening(request), None
    elif asker:
        opening, expected = coswire.password_opening(request), None
    else:
        proof, expected = (coswire.proof(side, invitation, coswire.public(machine_key), server.nonce, request)
                           for side in ("client", "server"))
        opening = coswire.opening(invitation, request, proof)
    noise = coswire.start_noise(server.suite, hello_record, server_record, machine_key, invitation.host_key)
    message1 = bytes(noise.write_message(opening))
    client_hello = coswire.framed(CLIENT_HELLO, message1)
    if len(client_hello) - 2 > min(server.limit, coswire.GREETING_MAX):
        raise ValueError("names and environment are too long for a ClientHello")
    sock.settimeout(LOGIN_PATIENCE if display else PATIENCE)
    sock.sendall(client_hello)

    kind, content, _ = read_framed(sock, [ANSWER, DENIED], coswire.GREETING_MAX)
    payload, sending, receiving = coswire.read_answer(noise, kind, content)
    talked = False
    while not coswire.check_accept(payload, expected):
        answer = coswire.parse_answer(payload)
        if answer.status == coswire.PROMPTS and answer.by and door is not None and not talked:
            tell(answer.texts)
            sock.sendall(coswire.framed(SEALED, sending.seal(coswire.answers([door], True))))
        elif answer.status == coswire.PROMPTS and not answer.by and display and asker:
            said = coswire.answers(asker(answer.texts), True)
            sock.sendall(coswire.framed(SEALED, sending.seal(said)))
        elif answer.status == coswire.CONTINUE and later:
            for start in range(0, len(later), coswire.PIECE_MAX):
                piece = later[start:start + coswire.PIECE_MAX]
                sock.sendall(coswire.framed(SEALED, sending.seal(piece)))
            later = None
        else:
            raise ProtocolError("asked for what was not to be asked")
        talked = True
        kind, content, _ = read_framed(sock, [SEALED, DENIED], coswire.GREETING_MAX)
        if kind == DENIED:
            raise Denied(content.hex())
        payload = receiving.open(content)
    if later:
        raise ProtocolError("accepted what it has not seen")
    tell(coswire.parse_answer(payload).texts)
    if talked:
        sending.rekey()
        receiving.rekey()
    return sending, receiving


def tell(texts):
    """Shows texts, without what could steer a terminal."""
    for _, words in texts:
        print("".join(c if c.isprintable() or c == "\n" else "?" for c in words), file=sys.stderr)


def answers_of(file):
    """An asker that takes a line of a file for each prompt."""
    def ask(texts):
        tell(texts)
        replies = []
        for _ in coswire.prompts(texts):
            line = file.readline()
            if not line:
                raise ValueError("no answer is left")
            replies.append(line.removesuffix(b"\n"))
        return replies
    return ask


class Output:
    """What the server sends on one stream, on its way to one of our descriptors."""

    def __init__(self, fd):
        self.fd, self.queue = fd, bytearray()
        self.credit = coswire.WINDOW               # what the server may still send
        self.consumed = 0                  # written, and not yet granted again
        self.gone = False                  # our reader went away: Reset was sent
        self.ended = False                 # Eof came


class Relay:
    """An accepted connection: carries the bytes until End."""

    def __init__(self, sock, sending, receiving, stdin=0, stdout=1, stderr=2, lag=0.0):
        self.sock, self.sending, self.receiving, self.stdin = sock, sending, receiving, stdin
        self.lag, self.late = lag, []              # grants that count from a time on
        self.outputs = {0: Output(stdout), 1: Output(stderr)}
        self.inbox, self.outbox = bytearray(), bytearray()
        self.credit = coswire.WINDOW               # what we may still send on stream 0
        self.most = self.credit                    # the most that it ever was
        self.end = None

    def send(self, kind, second, rest=b""):
        """Queues one message."""
        self.outbox += coswire.record(self.sending.seal(bytes([kind, second]) + rest))

    def run(self, signals=None):
        """Until End has come and both outputs are written; `signals` is a descriptor of signal numbers."""
        self.sock.setblocking(False)
        while self.end is None or any(out.queue for out in self.outputs.values()):
            readers, writers = [], [out.fd for out in self.outputs.values() if out.queue]
            if self.end is None:
                readers.append(self.sock)
                if signals is not None:
                    readers.append(signals)
                if self.stdin is not None and self.credit and len(self.outbox) < coswire.WINDOW:
                    readers.append(self.stdin)
                if self.outbox:
                    writers.append(self.sock)
            wait = max(0, self.late[0][0] - time.monotonic()) if self.late else None
            readable, writable, _ = select.select(readers, writers, [], wait)
            while self.late and self.late[0][0] <= time.monotonic():
                self.credit += self.late.pop(0)[1]
            if self.sock in writable:
                self.write_socket()
            if self.sock in readable:
                self.receive()
            if self.stdin is not None and self.stdin in readable:
                self.read_stdin()
            if signals is not None and signals in readable:
                for number in os.read(signals, 64):
                    self.send(SIGNAL, number)
            for stream, out in self.outputs.items():
                if out.queue and out.fd in writable:
                    self.write_output(stream, out)
        return self.end

    def write_socket(self):
        try:
            del self.outbox[:self.sock.send(self.outbox)]
        except (BrokenPipeError, ConnectionResetError):
            self.outbox.clear()            # End may still stand in what arrived before
            self.stdin = None

    def read_stdin(self):
        data = os.read(self.stdin, min(coswire.DATA_MAX, self.credit))
        if data:
            self.credit -= len(data)
            self.send(DATA, 0, data)
        else:
            self.send(EOF, 0)
            self.stdin = None              # the other direction goes on

    def write_output(self, stream, out):
        try:
            count = os.write(out.fd, out.queue[:select.PIPE_BUF])   # so much never blocks
        except BrokenPipeError:
            out.queue.clear()
            out.gone = True
            self.send(RESET, stream)
            return
        del out.queue[:count]
        out.consumed += count
        if out.consumed >= coswire.WINDOW // 4 and not out.ended and self.end is None:
            self.send(CREDIT, stream, struct.pack(">I", out.consumed))
            out.credit, out.consumed = out.credit + out.consumed, 0

    def receive(self):
        data = self.sock.recv(1 << 18)
        if not data:
            raise ProtocolError("the connection ended before the command did")
        self.inbox += data
        start = 0
        while self.end is None and len(self.inbox) - start >= 2:
            length = struct.unpack_from(">H", self.inbox, start)[0]
            if len(self.inbox) - start < 2 + length:
                break
            body = bytes(self.inbox[start + 2:start + 2 + length])
            start += 2 + length
            self.message(self.receiving.open(body))
        del self.inbox[:start]

    def message(self, plaintext):
        """One message of the server's."""
        if len(plaintext) < 2:
            raise ProtocolError("a message of %d bytes" % len(plaintext))
        kind, second, rest = plaintext[0], plaintext[1], plaintext[2:]
        out = self.outputs.get(second)
        if kind == DATA and out and rest and not out.ended and len(rest) <= out.credit:
            out.credit -= len(rest)
            if not out.gone:
                out.queue += rest
        elif kind == EOF and out and not rest and not out.ended:
            out.ended = True
        elif kind == RESET and second == 0 and not rest:
            self.stdin = None
        elif kind == CREDIT and second == 0 and len(rest) == 4:
            self.late.append((time.monotonic() + self.lag, struct.unpack(">I", rest)[0]))
            granted = self.credit + sum(bytes for _, bytes in self.late)
            self.most = max(self.most, granted)
            if granted > coswire.CREDIT_MAX:
                raise ProtocolError("more credit than a stream may have")
        elif kind == END and (second in (EXITED, KILLED) and len(rest) == 1
                              or second == NOT_STARTED and len(rest) <= 255):
            self.end = (second, rest)
        else:
            raise ProtocolError("a message out of place")


def exit_status(end):
    """Section 10."""
    how, rest = end
    if how == NOT_STARTED:
        text = "".join(c if c.isprintable() else "?" for c in rest.decode("utf-8", "replace"))
        print("cosclient: not started: " + text, file=sys.stderr)
        return 255
    return rest[0] if how == EXITED else 128 + rest[0]


def watch_signals():
    """A descriptor on which the signals to pass on arrive, a byte each."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer)
    return reader


def key_argument(text):
    """32 bytes in hexadecimal, or a file that holds them so."""
    if os.path.exists(text):
        with open(text, encoding="ascii") as file:
            text = file.read().split()[-1]
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError("a key has 32 bytes")
    return key


def display_of(text):
    """HOST:PORT or :PORT."""
    host, port = text.rsplit(":", 1)
    return coswire.Display(host.strip("[]") or None, int(port))


def invitation_of(args):
    """The invitation: from the card of section 1, where options do not say otherwise."""
    card = {}
    if args.card:
        with open(args.card, encoding="ascii") as file:
            card = dict(line.strip().split(": ", 1) for line in file if ": " in line)
    return coswire.Invitation(
        args.caller or card.get("caller", ""), args.server or card.get("server", ""),
        args.addr or card.get("addr", "127.0.0.1").split(",")[0],
        args.port or int(card.get("port", 9002)),
        args.host_key or bytes.fromhex(card.get("key", "")),
        args.cookie or bytes.fromhex(card.get("cookie", "")))


def main():
    """The command line."""
    user = os.environ.get("USER", "root")
    parser = argparse.ArgumentParser(description="run a command or an application on a cosserver host")
    parser.add_argument("--card", metavar="FILE", help="the invitation; or its lines as options:")
    parser.add_argument("--caller", help="this host's name")
    parser.add_argument("--server", help="the server's name")
    parser.add_argument("--addr")
    parser.add_argument("--port", type=int)
    parser.add_argument("--host-key", type=key_argument, metavar="HEX")
    parser.add_argument("--cookie", type=key_argument, metavar="HEX", help="HEX or FILE; others can see a HEX")
    parser.add_argument("--machine-key", type=key_argument, default=b"", metavar="FILE")
    parser.add_argument("--user", default=user, help="the user to run as")
    parser.add_argument("--suite", type=int, choices=[1, 2], help="offer this one alone")
    parser.add_argument("--gui", action="store_true", help="start the application that the words name")
    parser.add_argument("--subsystem", dest="service", action="store_const", const="subsystem", default="exec",
                        help="start the subsystem that the word names")
    parser.add_argument("--service", dest="service", action="store_const", const="service",
                        help="use the named service that the first word names")
    parser.add_argument("--services", dest="service", action="store_const", const="services",
                        help="ask for the names of services")
    parser.add_argument("--format", action="append", default=[], help="a format to take, the preferred one first")
    parser.add_argument("--display", type=display_of, default=coswire.Display(), metavar="[HOST]:PORT")
    parser.add_argument("--detach", action="store_true", help="it goes on by itself")
    parser.add_argument("--answers", type=argparse.FileType("rb"), metavar="FILE",
                        help="log in by password: a line for each prompt")
    parser.add_argument("--enrol", action="store_true", help="have this machine registered, and nothing else")
    parser.add_argument("--door", type=os.fsencode, metavar="TEXT", help="the name or activation password for the inner door")
    parser.add_argument("--env", action="append", default=[], metavar="K=V")
    parser.add_argument("--ask-host-key", action="store_true", help="print it and stop")
    parser.add_argument("--lag", type=float, default=0.0, metavar="SECONDS",
                        help="let each grant count so much later, as if it came from afar, and say what was granted")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    suites = (args.suite,) if args.suite else (1, 2)
    try:
        invitation = invitation_of(args)
        with connect(invitation) as sock:
            if args.ask_host_key:
                sock.sendall(coswire.hello(suites, True))
                _, content, _ = read_framed(sock, [SERVER_HELLO], coswire.HELLO_MAX)
                print(coswire.parse_server_hello(content, suites, True).host_key.hex())
                return 0
            env = [(name, value.encode()) for name, value in (pair.split("=", 1) for pair in args.env)]
            words = [os.fsencode(word) for word in args.words]
            display = args.display._replace(detach=args.detach) if args.gui else None
            asker = answers_of(args.answers) if args.answers else None
            machine_key = args.machine_key or (os.urandom(32) if asker else b"")   # where the doors ask for none, any will do
            directions = call(sock, invitation, machine_key, words, args.user, user, env, suites, display, asker,
                              args.door, args.enrol, args.service, args.format)
            relay = Relay(sock, *directions, lag=args.lag)
            end = relay.run(watch_signals())
            if args.lag:
                print("cosclient: the most credit was %d" % relay.most, file=sys.stderr)
            return exit_status(end)
    except Denied as reference:
        print("cosclient: denied, reference %s" % reference, file=sys.stderr)
    except (ProtocolError, OSError, ValueError) as error:
        print("cosclient: %s" % error, file=sys.stderr)
    return 255


if __name__ == "__main__":
    sys.exit(main())
