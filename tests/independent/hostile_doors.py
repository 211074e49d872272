#!/usr/bin/env python3
"""Clients that do not keep to the protocol at the doors, against a real server.

    hostile_doors.py --card FILE --port N --machine-key FILE --user NAME --asks WHAT [CASE…]

The outer door is open.  WHAT the inner one asks of an unknown machine is `name` or
`activation`, and then the password is `open sesame`, a backdoor's.  The host of the
card is known; whoever else calls has a key of his own.  All else is as in hostile.py.
"""

import os
import socket
import sys
import time

import coswire as w
from cosclient import read_framed
from hostile import Stranger, case, main, refused

BOTH, NAMES, ACTIVATIONS = {}, {}, {}
PASSWORD = b"open sesame"


def door_case(expected, cases=BOTH):
    """Registers a case of the doors."""
    return case(expected, cases)


class Newcomer(Stranger):
    """A machine that nobody knows, after the hellos."""

    def __init__(self, setting):
        super().__init__(setting)
        self.key = os.urandom(32)
        self.greet()

    def hello_of(self, request=None, opening=None):
        """The ClientHello of a machine that shows its key alone."""
        request = request or w.enrolment("hostile")
        return self.client_hello(machine=self.key, opening=opening or w.machine_opening(request))


class Asked(Newcomer):
    """The same, which the door has asked."""

    def __init__(self, setting):
        super().__init__(setting)
        payload, self.sealing, self.opening = self.say(self.hello_of()).answer()
        asked = w.parse_answer(payload)
        assert asked.status == w.PROMPTS and asked.by == by(setting), asked

    def seal(self, plaintext):
        """The record that carries this."""
        self.asked_at = time.monotonic()       # from the answer on
        return w.framed(w.SEALED, self.sealing.seal(plaintext))

    def reply(self, *replies):
        """Answers, and the outcome."""
        return self.say(self.seal(w.answers(replies))).outcome()

    def is_accepted(self):
        """What comes with an acceptance: End, and no data."""
        kind, content, _ = read_framed(self.sock, [w.SEALED, w.DENIED], w.GREETING_MAX)
        if kind == w.DENIED:
            return "denied", content.hex()
        assert w.check_accept(self.opening.open(content), None)
        self.opening.rekey()
        stream = self.sock.makefile("rb")
        while head := stream.read(2):
            message = self.opening.open(stream.read(w.body_length(head, w.BODY_MAX)))
            if message[0] == w.END:
                return "end %d %d" % (message[1], message[2]), ""
            assert message[0] in (w.EOF, w.RESET), message
        return "cut", ""


def by(s):
    """Who asks, as the answer has it."""
    return {"name": w.NAME, "activation": w.ACTIVATION}[s.asks]


def right(s):
    """What opens the door."""
    return b"a name" if by(s) == w.NAME else PASSWORD


@door_case("end 0 0")
def the_right_answer(s):
    c = Asked(s)
    return c.say(c.seal(w.answers([right(s)], True))).is_accepted()


@door_case("denied")
def a_command_by_a_machine(s):
    c = Newcomer(s)
    request, _ = w.request([b"true"], s.user, "hostile")
    return c.say(c.hello_of(request)).outcome()


@door_case("denied")
def an_application_by_a_machine(s):
    c = Newcomer(s)
    request, _ = w.request([b"hello"], s.user, "hostile", display=w.Display())
    return c.say(c.hello_of(request)).outcome()


@door_case("denied")
def enrol_by_password(s):
    c = Newcomer(s)
    return c.say(c.hello_of(opening=w.password_opening(w.enrolment("hostile")))).outcome()


@door_case("denied")
def enrol_by_hash(s):
    return refused(s, request=w.enrolment("hostile"))


@door_case("denied")
def enrol_by_a_wrong_hash(s):
    return refused(s, request=w.enrolment("hostile"), side="server")


@door_case("denied")
def a_command_by_hash_of_an_unknown_machine(s):
    # The cookie is right, and the key is another than the one that was recorded.
    return refused(s, [b"true"], machine=os.urandom(32))


@door_case("denied")
def no_answer(s):
    return Asked(s).reply()


@door_case("denied")
def two_answers(s):
    return Asked(s).reply(right(s), right(s))


@door_case("denied")
def very_many_answers(s):
    return Asked(s).reply(right(s), *[b""] * 4000)


@door_case("denied")
def an_empty_answer(s):
    return Asked(s).reply(b"")


@door_case("denied")
def an_answer_too_long(s):
    return Asked(s).reply(b"x" * 512)


@door_case("denied")
def the_longest_answer(s):
    return Asked(s).reply(b"x" * 511)


@door_case("denied")
def an_answer_with_nul(s):
    return Asked(s).reply(right(s) + b"\0")


@door_case("denied")
def an_answer_that_is_a_text(s):
    c = Asked(s)
    return c.say(c.seal(w.encode({1: [right(s).decode()]}))).outcome()


@door_case("denied")
def an_answer_in_a_map(s):
    c = Asked(s)
    return c.say(c.seal(w.encode({1: {1: right(s)}}))).outcome()


@door_case("denied")
def an_answer_of_rubbish(s):
    c = Asked(s)
    return c.say(c.seal(b"\xff" * 100)).outcome()


@door_case("denied")
def an_answer_of_nothing(s):
    c = Asked(s)
    return c.say(c.seal(b"")).outcome()


@door_case("denied")
def an_answer_that_does_not_open(s):
    c = Asked(s)
    record = bytearray(c.seal(w.answers([right(s)])))
    record[-1] ^= 1
    return c.say(bytes(record)).outcome()


@door_case("denied")
def an_answer_of_another_connection(s):
    return Asked(s).say(Asked(s).seal(w.answers([right(s)]))).outcome()


@door_case("denied")
def a_command_for_an_answer(s):
    c = Asked(s)
    return c.say(c.seal(w.encode([right(s)]))).outcome()


@door_case("closed")
def unrequested_answer(s):
    c = Newcomer(s)
    return c.say(c.hello_of() + w.framed(w.SEALED, b"x" * 40)).outcome()


@door_case("closed")
def an_answer_twice_the_first_wrong(s):
    c = Asked(s)
    return c.say(c.seal(w.answers([b"\x1b"])) + c.seal(w.answers([right(s)]))).outcome()


@door_case("closed")
def an_answer_in_the_clear(s):
    return Asked(s).say(w.framed(w.ANSWER, w.answers([right(s)]))).outcome()


@door_case("closed")
def a_second_client_hello(s):
    c = Asked(s)
    return c.say(w.framed(w.CLIENT_HELLO, b"x" * 200)).outcome()


@door_case("closed")
def data_for_an_answer(s):
    c = Asked(s)
    return c.say(w.record(c.sealing.seal(bytes([w.DATA, 0]) + b"x"))).outcome()


@door_case("closed")
def half_an_answer(s):
    c = Asked(s)
    c.say(c.seal(w.answers([right(s)]))[:-1])
    c.sock.shutdown(socket.SHUT_WR)
    return c.outcome()


@door_case("denied")
def a_replay(s):
    first = Newcomer(s)
    record = first.hello_of()
    payload, _, _ = first.say(record).answer()
    assert w.parse_answer(payload).status == w.PROMPTS
    return Newcomer(s).say(record).outcome()


@door_case("denied", NAMES)
def a_name_of_control_characters(s):
    return Asked(s).reply(b"\x1b[2J")


@door_case("denied", NAMES)
def a_name_of_two_lines(s):
    return Asked(s).reply(b"one\ntwo")


@door_case("denied", NAMES)
def name_with_a_bidirectional_override(s):
    return Asked(s).reply("a\u202eb".encode())


@door_case("denied", NAMES)
def a_name_of_blanks(s):
    return Asked(s).reply(b"  ")


@door_case("denied", NAMES)
def a_name_that_is_not_utf_8(s):
    return Asked(s).reply(b"\xff\xfe")


@door_case("denied", NAMES)
def a_name_of_252_bytes(s):
    return Asked(s).reply(b"n" * 252)


@door_case("end 0 0", NAMES)
def a_name_of_251_bytes(s):
    c = Asked(s)
    return c.say(c.seal(w.answers([b"n" * 251]))).is_accepted()


@door_case("denied", ACTIVATIONS)
def a_wrong_password(s):
    return Asked(s).reply(b"open says me")


@door_case("denied", ACTIVATIONS)
def the_right_password_and_a_blank(s):
    return Asked(s).reply(PASSWORD + b" ")


@door_case("denied", ACTIVATIONS)
def a_password_that_looks_made(s):
    return Asked(s).reply(b"00000000-00000000000000000000000000")


def cases_of(args):
    """The cases, by what the door asks."""
    return {**BOTH, **(NAMES if by(args) == w.NAME else ACTIVATIONS)}


if __name__ == "__main__":
    sys.exit(main(cases_of, __doc__))
