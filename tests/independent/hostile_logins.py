#!/usr/bin/env python3
"""Clients that do not keep to the protocol while they log in, against a real server.

    hostile_logins.py --card FILE --port N --machine-key FILE --user NAME --password TEXT [CASE…]

PAM asks that user for this password and no more; there are the applications
`hello` and `stay`, neither of them remote; and the host itself may be root.  All
else is as in hostile.py.
"""

import socket
import struct
import sys
import time

import cbor2

import coswire as w
from cosclient import read_framed
from hostile import Session, Stranger, case, main, refused

LOGINS = {}


def login_case(expected):
    """Registers a case of a login."""
    return case(expected, LOGINS)


class Login(Stranger):
    """A login by password: the server has asked."""

    def __init__(self, setting, application=b"hello", **changes):
        super().__init__(setting)
        self.greet().say(self.client_hello([application], display=w.Display(), password=True, **changes))
        payload, self.sealing, self.opening = self.answer()
        asked = w.parse_answer(payload)
        assert asked.status == w.PROMPTS and w.prompts(asked.texts) == [(w.HIDDEN, "Password: ")], asked

    def seal(self, plaintext):
        """The record that carries this."""
        self.asked_at = time.monotonic()       # from the last answer on
        return w.framed(w.SEALED, self.sealing.seal(plaintext))

    def reply(self, *replies):
        """Answers, and the outcome."""
        return self.say(self.seal(w.answers(replies))).outcome()


def password(s):
    """The right one."""
    return s.password.encode()


@login_case("end 1 15")
def right_password(s):
    c = Login(s, b"stay")
    return Session(s, c.say(c.seal(w.answers([password(s)], True)))).send(w.SIGNAL, 15).outcome()


@login_case("denied")
def wrong_password(s):
    return Login(s).reply(b"wrong")


@login_case("denied")
def unknown_user(s):
    return Login(s, user="nobody-i-know").reply(password(s))


@login_case("denied")
def user_like_an_option(s):
    return refused(s, [b"hello"], display=w.Display(), password=True, user="-froot")


@login_case("denied")
def user_like_a_path(s):
    # What can be no user's name is shown to no module.
    return refused(s, [b"hello"], display=w.Display(), password=True, user="../root")


@login_case("denied")
def unknown_application(s):
    return Login(s, b"nothing").reply(password(s))


@login_case("denied")
def application_with_a_slash(s):
    return Login(s, b"../hello").reply(password(s))


@login_case("denied")
def application_not_in_utf_8(s):
    return Login(s, b"\xff\n").reply(password(s))


@login_case("denied")
def a_command_for_a_password(s):
    c = Stranger(s).greet()
    return c.say(c.client_hello([b"true"], password=True)).outcome()


@login_case("denied")
def an_application_that_follows(s):
    request = cbor2.dumps({1: "gui", 2: s.user, 3: "hostile", 6: b"d" * 32, 7: 5000, 9: 9003})
    return refused(s, opening=w.password_opening(request))


@login_case("denied")
def a_display_like_an_option(s):
    return refused(s, [b"hello"], display=w.Display("-display", 9003), password=True)


@login_case("denied")
def another_mechanism(s):
    request, _ = w.request([b"hello"], s.user, "hostile", display=w.Display())
    return refused(s, opening=w.encode({1: "none", 4: request}))


@login_case("denied")
def an_application_by_hash_that_is_not_remote(s):
    return refused(s, [b"hello"], display=w.Display(), user="root")


@login_case("denied")
def an_application_by_hash_for_another(s):
    return refused(s, [b"hello"], display=w.Display(), user="nobody-i-know")


@login_case("denied")
def replayed_login(s):
    first = Stranger(s).greet()
    record = first.client_hello([b"hello"], display=w.Display(), password=True)
    payload, _, _ = first.say(record).answer()
    assert w.parse_answer(payload).status == w.PROMPTS
    return Stranger(s).greet().say(record).outcome()


@login_case("denied")
def no_answer(s):
    return Login(s).reply()


@login_case("denied")
def an_answer_too_many(s):
    return Login(s).reply(password(s), b"")


@login_case("denied")
def very_many_answers(s):
    return Login(s).reply(password(s), *[b""] * 4000)


@login_case("denied")
def an_answer_too_long(s):
    return Login(s).reply(b"x" * 512)


@login_case("denied")
def an_answer_with_nul(s):
    return Login(s).reply(password(s) + b"\0")


@login_case("denied")
def an_answer_that_is_a_text(s):
    c = Login(s)
    return c.say(c.seal(w.encode({1: [s.password]}))).outcome()


@login_case("denied")
def answers_not_canonical(s):
    c = Login(s)
    return c.say(c.seal(b"\xbf" + w.answers([password(s)])[1:] + b"\xff")).outcome()


@login_case("denied")
def answers_of_rubbish(s):
    c = Login(s)
    return c.say(c.seal(b"\xff" * 100)).outcome()


@login_case("denied")
def answers_of_nothing(s):
    c = Login(s)
    return c.say(c.seal(b"")).outcome()


@login_case("denied")
def answers_that_do_not_open(s):
    c = Login(s)
    record = bytearray(c.seal(w.answers([password(s)])))
    record[-1] ^= 1
    return c.say(bytes(record)).outcome()


@login_case("denied")
def answers_of_another_connection(s):
    return Login(s).say(Login(s).seal(w.answers([password(s)]))).outcome()


@login_case("denied")
def a_command_for_a_prompt(s):
    c = Login(s)
    return c.say(c.seal(w.encode([b"true"]))).outcome()


@login_case("closed")
def unrequested_answers(s):
    c = Stranger(s).greet()
    record = c.client_hello([b"hello"], display=w.Display(), password=True)
    return c.say(record + w.framed(w.SEALED, b"x" * 40)).outcome()


@login_case("closed")
def answers_twice_the_first_wrong(s):
    c = Login(s)
    return c.say(c.seal(w.answers([b"wrong"])) + c.seal(w.answers([password(s)]))).outcome()


@login_case("cut")
def answers_twice_the_first_right(s):
    c = Login(s, b"stay")
    c.say(c.seal(w.answers([password(s)])) + c.seal(w.answers([password(s)])))
    try:
        # What came with the answers closes the connection; what came later ends the session.
        kind, content, _ = read_framed(c.sock, [w.SEALED], w.GREETING_MAX)
        assert kind == w.SEALED and w.check_accept(c.opening.open(content), None)
        c.opening.rekey()
        while head := c.sock.recv(2, socket.MSG_WAITALL):   # its output may come, and no End
            body = c.sock.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
            if c.opening.open(body)[0] == w.END:
                return "ended", ""
    except ConnectionResetError:
        pass
    except w.ProtocolError as error:
        assert "closed the connection" in str(error), error
    return "cut", ""


@login_case("closed")
def answers_in_a_record_too_long(s):
    c = Login(s)
    record = c.seal(w.encode({1: [password(s)], 2: bytes(4062)}))
    assert len(record) == 2 + w.GREETING_MAX + 1
    return c.say(record).outcome()


@login_case("end 1 15")
def answers_in_the_longest_record(s):
    c = Login(s, b"stay")
    record = c.seal(w.encode({1: [password(s)], 2: bytes(4061)}))
    assert len(record) == 2 + w.GREETING_MAX
    return Session(s, c.say(record)).send(w.SIGNAL, 15).outcome()


@login_case("closed")
def data_instead_of_answers(s):
    c = Login(s)
    return c.say(w.record(c.sealing.seal(bytes([w.DATA, 0]) + b"x"))).outcome()


@login_case("closed")
def client_hello_instead_of_answers(s):
    return Login(s).say(w.framed(w.CLIENT_HELLO, b"x" * 200)).outcome()


@login_case("closed")
def half_of_the_answers(s):
    c = Login(s)
    c.say(c.seal(w.answers([password(s)]))[:-1])
    c.sock.shutdown(socket.SHUT_WR)
    return c.outcome()


@login_case("closed")
def bytes_while_a_login_is_refused(s):
    c = Login(s)
    return c.say(c.seal(w.answers([b"wrong"]))).say(b"x").outcome()


@login_case("cut")
def answers_after_acceptance(s):
    c = Login(s, b"stay")
    session = Session(s, c.say(c.seal(w.answers([password(s)]))))
    return session.say(c.seal(w.answers([password(s)]))).outcome()


if __name__ == "__main__":
    sys.exit(main(LOGINS, __doc__))
