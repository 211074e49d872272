#!/usr/bin/env python3
"""Makes tests/vectors/*.json with the independent implementation.

Deterministic: every key, nonce and ephemeral is SHA-256 of its name, so that
the files can be made again and compared:

    make_vectors.py            writes them
    make_vectors.py --check    says whether they are what this program makes
"""

import hashlib
import json
import pathlib
import sys
import warnings

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from noise.connection import Keypair, NoiseConnection
from noise.state import CipherState

import coswire as w

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "vectors"


def fixed(name, size=32):
    """Bytes that depend on the name alone."""
    data = b"".join(hashlib.sha256(b"cosserver vectors: %s %d" % (name.encode(), i)).digest()
                    for i in range(size // 32 + 1))
    return data[:size]


MACHINE, HOST, COOKIE = fixed("machine key"), fixed("host key"), fixed("cookie")
USER = fixed("user's key")
CLIENT_EPHEMERAL, SERVER_EPHEMERAL = fixed("client ephemeral"), fixed("server ephemeral")
NONCE = fixed("nonce")
INVITATION = w.Invitation("hosta", "hostb", "192.0.2.1", 9002, w.public(HOST), COOKIE)


def cbor(*pairs):
    """A map whose pairs stand in the order given, right or wrong, twice or not."""
    return bytes([0xA0 + len(pairs)]) + b"".join(cbor2.dumps(k) + cbor2.dumps(v) for k, v in pairs)


def server_hello(suite, key=None):
    pairs = [(1, 1), (2, suite), (3, NONCE), (4, 4096)]
    return w.framed(w.SERVER_HELLO, cbor(*pairs, *([(5, key)] if key else [])))


def bad(*named):
    return [{"why": why, "bytes": data} for why, data in named]


# --- one function a file ----------------------------------------------------

def cbor_json():
    """Single items, canonical or not (section 3)."""
    good = ["00", "17", "1818", "18ff", "190100", "1a00010000", "1b0000000100000000", "1bffffffffffffffff",
            "20", "37", "3818", "3bffffffffffffffff", "40", "4100", "5818" + "ab" * 24, "60", "6178", "62c3a9",
            "80", "820102", "a0", "a10001", "a2010102f5", "f4", "f5",
            "a3" "01" "00" "1818" "00" "6161" "00",         # keys: 1, 24, "a"
            "a2" "190100" "00" "6161" "00",                 # bytewise: 256 before "a"
            "81" * 7 + "80", "81" * 7 + "00", "a100" * 7 + "00"]
    wrong = [
        ("nothing", ""), ("two items", "0000"), ("number in a longer form", "1817"),
        ("number in a longer form", "1900ff"), ("number in a longer form", "1a0000ffff"),
        ("number in a longer form", "1b00000000ffffffff"), ("length in a longer form", "580100"),
        ("length in a longer form", "780161"), ("count in a longer form", "980100"),
        ("count in a longer form", "b8010000"), ("negative in a longer form", "3817"),
        ("reserved length", "1c"), ("reserved length", "1d"), ("reserved length", "1e"), ("reserved length", "1f"),
        ("indefinite bytes", "5f4101ff"), ("indefinite text", "7f6161ff"), ("indefinite array", "9f00ff"),
        ("indefinite map", "bf0000ff"), ("break alone", "ff"), ("key twice", "a201000100"),
        ("keys out of order", "a202000100"), ("keys out of order", "a2616100190100" "00"),
        ("key of bytes", "a1410000"), ("negative key", "a12000"), ("key of bool", "a1f500"), ("array as key", "a18000"),
        ("null", "f6"), ("undefined", "f7"), ("simple value", "e0"), ("simple value in two bytes", "f820"),
        ("true in two bytes", "f815"), ("half float", "f90000"), ("float", "fa00000000"), ("double", "fb" + "00" * 8),
        ("tag", "c000"), ("bignum that would fit", "c24101"), ("bignum", "c249010000000000000000"),
        ("text that is not UTF-8", "61ff"), ("a surrogate in text", "63eda080"), ("overlong UTF-8", "62c080"),
        ("cut number", "18"), ("cut number", "1901"), ("cut bytes", "4201"), ("cut text", "6261"), ("cut array", "8200"),
        ("cut map", "a100"), ("array longer than memory", "9bffffffffffffffff"),
        ("bytes longer than memory", "5bffffffffffffffff"), ("map longer than memory", "bbffffffffffffffff"),
        ("a ninth level", "81" * 8 + "00"), ("a ninth level", "81" * 8 + "80"), ("a ninth level", "a100" * 8 + "00"),
        ("very deep", "81" * 4000 + "00"),
    ]
    wrong = bad(*((why, bytes.fromhex(data)) for why, data in wrong))
    for data in good:
        w.decode(bytes.fromhex(data))
    refused(w.decode, wrong)
    return {"good": good, "bad": wrong}


def hello_json():
    """The Hello record (4.1)."""
    def one(content):
        return w.framed(w.HELLO, content)

    good = [
        {"name": "both suites", "version": 1, "suites": [1, 2], "ask_host_key": False, "record": w.hello((1, 2))},
        {"name": "ChaChaPoly first", "version": 1, "suites": [2, 1], "ask_host_key": False, "record": w.hello((2, 1))},
        {"name": "one suite, asks for the host key", "version": 1, "suites": [2], "ask_host_key": True,
         "record": w.hello((2,), True)},
    ]
    also = [
        {"name": "a later client, unknown suites and keys", "version": 7, "suites": [2, 1], "ask_host_key": False,
         "record": one(cbor((1, 7), (2, [99, 2, 4294967295, 1]), (9, [b"x", "y", {"z": True}, -1])))},
        {"name": "key 3 false", "version": 1, "suites": [1], "ask_host_key": False,
         "record": one(cbor((1, 1), (2, [1]), (3, False)))},
    ]
    longest = one(cbor((1, 1), (2, [1]), (9, b"x" * 242)))
    assert longest[:2] == b"\x01\x00"
    also.append({"name": "256 bytes of body", "version": 1, "suites": [1], "ask_host_key": False, "record": longest})
    both = cbor((1, 1), (2, [1, 2]))
    record = w.hello((1, 2))
    return {"made_and_read": good, "read": also, "bad": bad(
        ("no body", b"\0\0"), ("cut", record[:-1]), ("length too small", b"\0\x05" + record[2:]),
        ("wrong magic", record[:2] + b"COSS" + record[6:]), ("type 0", record[:6] + b"\0" + record[7:]),
        ("type 2", record[:6] + b"\2" + record[7:]), ("type 3", record[:6] + b"\3" + record[7:]),
        ("type 255", record[:6] + b"\xff" + record[7:]), ("no content", one(b"")), ("not a map", one(cbor2.dumps([1]))),
        ("bytes behind", one(both + b"\0")), ("version 0", one(cbor((1, 0), (2, [1])))),
        ("no version", one(cbor((2, [1])))), ("version a text", one(cbor((1, "1"), (2, [1])))),
        ("version beyond 32 bits", one(cbor((1, 1 << 32), (2, [1])))), ("no suites", one(cbor((1, 1)))),
        ("empty suites", one(cbor((1, 1), (2, [])))), ("none that we know", one(cbor((1, 1), (2, [3, 4])))),
        ("nine suites", one(cbor((1, 1), (2, [1] * 9)))), ("a suite that is a text", one(cbor((1, 1), (2, ["1"])))),
        ("a negative suite", one(cbor((1, 1), (2, [-1, 1])))), ("key 3 a number", one(cbor((1, 1), (2, [1]), (3, 1)))),
        ("a key that is a text", one(cbor((1, 1), (2, [1]), ("x", 1)))),
        ("keys out of order", one(cbor((2, [1]), (1, 1)))), ("key twice", one(cbor((1, 1), (1, 1), (2, [1])))),
        ("a key with null", one(both[:1] + both[1:].replace(b"\x01\x01", b"\x01\xf6", 1))),
        ("257 bytes of body", one(cbor((1, 1), (2, [1]), (9, b"x" * 243)))))}


def server_hello_json():
    """The ServerHello record (4.2), as answer to a Hello that offers both suites and asks for the key."""
    key = w.public(HOST)

    def one(*pairs):
        return w.framed(w.SERVER_HELLO, cbor(*pairs))

    base = {"version": 1, "nonce": NONCE, "limit": 4096}
    good = [
        {**base, "name": "AESGCM", "suite": 1, "host_key": None, "record": server_hello(1)},
        {**base, "name": "ChaChaPoly, with the host key", "suite": 2, "host_key": key, "record": server_hello(2, key)},
    ]
    wrong = bad(
        ("version 2", one((1, 2), (2, 1), (3, NONCE), (4, 4096))), ("version 0", one((1, 0), (2, 1), (3, NONCE), (4, 4096))),
        ("no version", one((2, 1), (3, NONCE), (4, 4096))), ("suite 3", one((1, 1), (2, 3), (3, NONCE), (4, 4096))),
        ("no suite", one((1, 1), (3, NONCE), (4, 4096))), ("no nonce", one((1, 1), (2, 1), (4, 4096))),
        ("nonce of 31 bytes", one((1, 1), (2, 1), (3, NONCE[:31]), (4, 4096))),
        ("nonce of 33 bytes", one((1, 1), (2, 1), (3, NONCE + b"x"), (4, 4096))),
        ("nonce a text", one((1, 1), (2, 1), (3, "x" * 32), (4, 4096))), ("no limit", one((1, 1), (2, 1), (3, NONCE))),
        ("host key of 31 bytes", one((1, 1), (2, 1), (3, NONCE), (4, 4096), (5, key[:31]))),
        ("a Hello instead", w.hello()), ("cut", server_hello(1)[:-1]))
    for item in good:
        read = w.parse_server_hello(item["record"][7:], (1, 2), item["host_key"] is not None)
        assert read == (item["suite"], NONCE, 4096, item["host_key"])

    def read(record):
        if w.body_length(record[:2], w.HELLO_MAX) != len(record) - 2:
            raise w.ProtocolError("length")
        w.parse_server_hello(w.unframe(record[2:], [w.SERVER_HELLO])[1], (1, 2), True)

    refused(read, wrong)
    return {"hello": w.hello((1, 2), True), "made_and_read": good, "bad": wrong}


def request_json():
    """The request (5.1)."""
    def one(words, user="root", calling_user="alice", env=(), display=None, linger=None, service="exec", formats=()):
        data, later = w.request(words, user, calling_user, env, display, linger, service, formats)
        return {"service": "gui" if display else service, **({"formats": list(formats)} if formats else {}), "display": display and display._asdict(),
                "user": user, "calling_user": calling_user, "words": words if later is None else None,
                "digest": hashlib.sha256(later).digest() if later else None, "length": len(later) if later else None,
                "environment": [list(pair) for pair in env], "linger": linger, "request": data}

    env = [("LANG", b"C.UTF-8"), ("LC_ALL", b""), ("_9", b"\xff\x01")]
    good = [
        {"name": "one word", **one([b"uptime"])}, {"name": "words, one of them empty", **one([b"printf", b"%s", b"", b"\xff\n"])},
        {"name": "environment", **one([b"env"], env=env)}, {"name": "names that are not ASCII", **one([b"id"], "j\u00fcrgen", "\u5f13")},
        {"name": "an encoding of 2,560 bytes", **one([b"x" * 2556])},
        {"name": "an encoding of 2,561 bytes goes by digest", **one([b"x" * 2557])},
        {"name": "by digest, with environment", **one([b"x" * 3000], env=env)},
        {"name": "names of 255 bytes", **one([b"id"], "u" * 255, "c" * 255)},
        {"name": "an application, displayed where the connection comes from", **one([b"xterm"], "alice", display=w.Display())},
        {"name": "an application with arguments, a display and a variable, that goes on by itself",
         **one([b"edit", b"-n", b"", b"a b"], "alice", env=env[:1], display=w.Display("192.0.2.7", 9103, True))},
        {"name": "a display by IPv6", **one([b"xterm"], display=w.Display("fe80::7%eth0", 65535))},
        {"name": "a display by a name of 255 bytes", **one([b"xterm"], display=w.Display("h" * 255, 1))},
        {"name": "a quiet time of 0", **one([b"id"], linger=0)},
        {"name": "a quiet time of a day, for an application", **one([b"xterm"], display=w.Display(), linger=86400)},
        {"name": "until the outputs are closed", **one([b"x" * 3000], env=env, linger=2**32 - 1)},
        {"name": "an application's words of 2,700 bytes", **one([b"xterm", b"x" * 2700], display=w.Display())},
    ]
    enrolment = {**one([b"id"], "alice"), "service": "enrol", "words": [], "request": w.enrolment("alice")}
    good.append({"name": "a machine that wants to be registered", **enrolment})
    good += [
        {"name": "a subsystem", **one([b"sftp"], "alice", env=env, linger=0, service="subsystem")},
        {"name": "a subsystem with a name of 64 bytes", **one([b"aA0._-+" + b"x" * 57], service="subsystem")},
    ]
    good += [
        {"name": "a named service", **one([b"Report", b"daily", b"month=11", b""], "alice", env=env, service="service")},
        {"name": "a named service, and the formats that are taken", **one([b"pg"], linger=5, service="service", formats=["json", "text"])},
        {"name": "the names of services", **one([], service="services")},
        {"name": "the names of services in a format", **one([], "alice", service="services", formats=["json"])},
    ]
    assert len(cbor2.dumps([b"x" * 2556])) == 2560
    head = ((1, "exec"), (2, "root"), (3, "alice"))
    words = (4, [b"id"])
    later = ((6, fixed("digest")), (7, 5000))
    gui = ((1, "gui"), *head[1:], words)
    subsystem = ((1, "subsystem"), *head[1:])
    named = ((1, "service"), *head[1:])
    names = ((1, "services"), *head[1:])
    alice = ((1, "enrol"), (2, "alice"), (3, "alice"))
    shown = one([b"id"], display=w.Display("pc", 9003))

    def pairs(count):
        return [["V%d" % i, b""] for i in range(count)]

    return {"made_and_read": good, "read": [
        {"name": "unknown keys", **{**one([b"id"]), "request": cbor(*head, words, (12, {"a": [1]}), (70000, False))}},
        {"name": "keys of gui, which mean nothing to exec",
         **{**one([b"id"]), "request": cbor(*head, words, (8, "pc"), (9, 9003), (10, True))}},
        {"name": "a port of 0, which means nothing to exec", **{**one([b"id"]), "request": cbor(*head, words, (9, 0))}},
        {"name": "key 10 false", **{**shown, "request": cbor(*gui, (8, "pc"), (9, 9003), (10, False))}},
        {"name": "an application and unknown keys", **{**shown, "request": cbor(*gui, (8, "pc"), (9, 9003), (12, [b"x"]))}},
        {"name": "a length of 131,072", **{**one([b"x" * 3000]), "digest": fixed("digest"), "length": 131072,
                                           "request": cbor(*head, (6, fixed("digest")), (7, 131072))}},
        {"name": "keys of exec and gui, which mean nothing to enrol",
         **{**enrolment, "request": cbor(*alice, words, (5, pairs(1)), *later, (8, "pc"), (9, 9003), (10, True))}},
        {"name": "another user and a port of 0, which mean nothing to enrol",
         **{**enrolment, "user": "root", "request": cbor(alice[0], (2, "root"), alice[2], (9, 0), (11, 5), (12, b""))}},
        {"name": "keys of gui, which mean nothing to a subsystem",
         **{**one([b"sftp"], service="subsystem"), "request": cbor(*subsystem, (4, [b"sftp"]), (8, "pc"), (9, 0), (10, True), (12, 0))}},
        {"name": "keys of others, which mean nothing to the names of services",
         **{**one([], service="services"), "request": cbor(*names, words, (5, pairs(1)), *later, (8, "pc"), (9, 0), (11, 5), (12, 0))}},
        {"name": "formats, which mean nothing to exec", **{**one([b"id"]), "request": cbor(*head, words, (13, ["json"]))}},
        {"name": "1,024 variables", **{**one([b"id"]), "environment": pairs(1024), "request": cbor(*head, words, (5, pairs(1024)))}},
        {"name": "a long variable, and an empty one",
         **one([b"id"], env=[("N" * 255, b"v" * 3000), ("E", b"")])},
    ], "bad": bad(
        ("a key that is a text", cbor(*head, words, ("x", 1))), ("no service", cbor(head[1], head[2], words)), ("another service", cbor((1, "exek"), *head[1:], words)),
        ("no user", cbor(head[0], head[2], words)), ("an empty user", cbor(head[0], (2, ""), head[2], words)),
        ("a user of 256 bytes", cbor(head[0], (2, "u" * 256), head[2], words)),
        ("a user of bytes", cbor(head[0], (2, b"root"), head[2], words)), ("no calling user", cbor(head[0], head[1], words)),
        ("an empty calling user", cbor(head[0], head[1], (3, ""), words)),
        *((f"a calling user that is {name!a}", cbor(head[0], head[1], (3, name), words)) for name in
          ("a\x1b[2J", "a\n", "a\x85", "a\u202e", "a b", "a/b", "a:b", "a,b", "-a", "..")), ("no command", cbor(*head)),
        ("no word", cbor(*head, (4, []))), ("a word that is a text", cbor(*head, (4, ["id"]))),
        ("a NUL in a word", cbor(*head, (4, [b"i\0d"]))),         ("words and digest", cbor(*head, words, *later)), ("words and a digest alone", cbor(*head, words, later[0])),
        ("words and a length alone", cbor(*head, words, later[1])), ("a digest alone", cbor(*head, later[0])),
        ("a length alone", cbor(*head, later[1])), ("a digest of 31 bytes", cbor(*head, (6, b"x" * 31), later[1])),
        ("words and a digest of 31 bytes", cbor(*head, words, (6, b"x" * 31))),
        ("a length of 0", cbor(*head, later[0], (7, 0))), ("a length of 131,073", cbor(*head, later[0], (7, 131073))),
        ("a variable twice", cbor(*head, words, (5, [["A", b"1"], ["A", b"2"]]))), ("1,025 variables", cbor(*head, words, (5, pairs(1025)))), ("a variable of one", cbor(*head, words, (5, [["A"]]))),
        ("a variable of three", cbor(*head, words, (5, [["A", b"", b""]]))),
        ("a variable without a name", cbor(*head, words, (5, [["", b""]]))),
        ("a name of 256 bytes", cbor(*head, words, (5, [["N" * 256, b""]]))),
        ("a digit first", cbor(*head, words, (5, [["9A", b""]]))), ("a name with =", cbor(*head, words, (5, [["A=B", b""]]))),
        ("a name with a hyphen", cbor(*head, words, (5, [["A-B", b""]]))),
        ("a name that is not ASCII", cbor(*head, words, (5, [["\u00c4", b""]]))),
        ("a value with a NUL", cbor(*head, words, (5, [["A", b"\0"]]))),
        ("a value that is a text", cbor(*head, words, (5, [["A", "x"]]))),
        ("enrol without a user", cbor(alice[0], alice[2])), ("enrol without a calling user", cbor(*alice[:2])),
        ("enrol with no word in its words", cbor(*alice, (4, []))), ("enrol with a display like an option", cbor(*alice, (8, "-x"))),
        ("Enrol", cbor((1, "Enrol"), *alice[1:])), ("an application without a display's port", cbor(*gui)), ("and with its host alone", cbor(*gui, (8, "pc"))),
        ("a port of 0", cbor(*gui, (9, 0))), ("a port of 65,536", cbor(*gui, (9, 65536))), ("a negative port", cbor(*gui, (9, -1))),
        ("a port that is a text", cbor(*gui, (9, "9003"))), ("an empty host", cbor(*gui, (8, ""), (9, 9003))),
        ("a host of 256 bytes", cbor(*gui, (8, "h" * 256), (9, 9003))), ("a host with - first", cbor(*gui, (8, "-pc"), (9, 9003))),
        ("a host with a blank", cbor(*gui, (8, "p c"), (9, 9003))), ("a host with a slash", cbor(*gui, (8, "p/c"), (9, 9003))),
        ("a host that is not ASCII", cbor(*gui, (8, "p\u00e9"), (9, 9003))), ("a host in brackets", cbor(*gui, (8, "[::1]"), (9, 9003))),
        ("a host with a line feed", cbor(*gui, (8, "pc\n"), (9, 9003))), ("a host of bytes", cbor(*gui, (8, b"pc"), (9, 9003))),
        ("key 10 a number", cbor(*gui, (9, 9003), (10, 1))), ("key 10 null", cbor(*gui, (9, 9003)).replace(b"\xa5", b"\xa6", 1) + b"\x0a\xf6"),
        ("an application that follows", cbor(*gui[:3], *later, (9, 9003))), ("an application without a name", cbor(*gui[:3], (4, []), (9, 9003))),
        ("exec and a host of bytes", cbor(*head, words, (8, b"pc"))), ("exec and a port of 65,536", cbor(*head, words, (9, 65536))),
        ("a subsystem of two words", cbor(*subsystem, (4, [b"sftp", b"-R"]))), ("a subsystem without a word", cbor(*subsystem)),
        ("a subsystem of no word", cbor(*subsystem, (4, []))), ("a subsystem that follows", cbor(*subsystem, *later)),
        *((f"a subsystem that is {name!a}", cbor(*subsystem, (4, [name]))) for name in
          (b"", b"-s", b"a b", b"/bin/sh", b"s\xc3\xa9", b"a\n", b"x" * 65)),
        ("a subsystem's name that is a text", cbor(*subsystem, (4, ["sftp"]))), ("Subsystem", cbor((1, "Subsystem"), *head[1:], (4, [b"sftp"]))),
        ("a named service without a word", cbor(*named)), ("a named service of no word", cbor(*named, (4, []))),
        ("a named service that follows", cbor(*named, *later)),
        *((f"a named service that is {name!a}", cbor(*named, (4, [name]))) for name in
          (b"", b"-s", b"a b", b"/bin/sh", b"s\xc3\xa9", b"a\n", b"x" * 65)),
        ("17 formats", cbor(*named, (4, [b"pg"]), (13, ["f%d" % i for i in range(17)]))),
        ("a format with a blank", cbor(*named, (4, [b"pg"]), (13, ["a b"]))), ("a format of bytes", cbor(*names, (13, [b"json"]))),
        ("no format", cbor(*names, (13, []))), ("an empty format", cbor(*names, (13, [""]))), ("Services", cbor((1, "Services"), *head[1:])),
        ("a quiet time of a day and a second", cbor(*head, words, (11, 86401))), ("a quiet time that is negative", cbor(*head, words, (11, -1))),
        ("a quiet time of 2^32 - 2", cbor(*head, words, (11, 2**32 - 2))), ("a quiet time that is a text", cbor(*head, words, (11, "none"))),
        ("bytes behind", cbor(*head, words) + b"\0"), ("not a map", cbor2.dumps([b"id"])))}


def opening_json():
    """The opening (section 5), and the proofs that go with it (5.2)."""
    cases = []
    for name, caller, server, words in (("plain", "hosta", "hostb", [b"uptime"]),
                                        ("names that are not ASCII", "h\u00f6st", "\u5bbf\u4e3b", [b"id", b"-u"]),
                                        ("long names", "a" * 255, "b" * 255, [b"x" * 2000])):
        inv = INVITATION._replace(caller=caller, server=server)
        request, _ = w.request(words, "root", "alice")
        proofs = {side: w.proof(side, inv, w.public(MACHINE), NONCE, request) for side in ("client", "server")}
        cases.append({"name": name, "caller": caller, "server": server, "cookie": COOKIE,
                      "client_key": w.public(MACHINE), "host_key": w.public(HOST), "nonce": NONCE, "request": request,
                      "k": HKDF(hashes.SHA256(), 32, None, b"cosserver hash v1").derive(COOKIE),
                      "client_proof": proofs["client"], "server_proof": proofs["server"],
                      "opening": w.opening(inv, request, proofs["client"])})
    parts = ((1, "hash"), (2, "hosta"), (3, "hostb"), (4, b"\xa0"), (5, fixed("proof")))

    def without(key):
        return cbor(*(pair for pair in parts if pair[0] != key))

    def with_(key, value):
        return cbor(*((k, value if k == key else v) for k, v in parts))

    wrong = bad(*(("key %d missing" % key, without(key)) for key in range(1, 6)),
                ("another mechanism", with_(1, "none")), ("mechanism of bytes", with_(1, b"hash")),
                ("empty caller", with_(2, "")), ("caller of 256 bytes", with_(2, "a" * 256)),
                ("empty server", with_(3, "")), ("server of 256 bytes", with_(3, "b" * 256)),
                ("request a map, not a byte string", with_(4, {})), ("proof of 31 bytes", with_(5, b"x" * 31)),
                ("proof of 33 bytes", with_(5, b"x" * 33)), ("bytes behind", cbor(*parts) + b"\0"),
                ("keys out of order", cbor(*reversed(parts))),
                ("password without a request", cbor((1, "password"))), ("password and a request that is a map", cbor((1, "password"), (4, {}))),
                ("password and a caller of bytes", cbor((1, "password"), (2, b"hosta"), (4, b"\xa0"))),
                ("password and a proof of 31 bytes", cbor((1, "password"), (4, b"\xa0"), (5, b"x" * 31))),
                ("Password", cbor((1, "Password"), (4, b"\xa0"))), ("machine without a request", cbor((1, "machine"))),
                ("machine and a machine key of 31 bytes", cbor((1, "machine"), (4, b"\xa0"), (6, b"x" * 31))),
                ("machines", cbor((1, "machines"), (4, b"\xa0"))))
    request, _ = w.request([b"xterm"], "alice", "al", display=w.Display())
    password = {"request": request, "opening": w.password_opening(request)}
    also = {"request": request, "opening": cbor((1, "password"), (2, "hosta"), (3, "hostb"), (4, request), (5, fixed("proof")),
                                                (6, w.public(MACHINE)), (7, "x"))}
    enrolment = w.enrolment("alice")
    machine = {"request": enrolment, "opening": w.machine_opening(enrolment)}
    more = {"request": enrolment, "opening": cbor((1, "machine"), (2, "hosta"), (4, enrolment), (5, fixed("proof")), (6, w.public(MACHINE)))}
    return {"good": cases, "password": [{"name": "plain", **password}],
            "password_read": [{"name": "with keys that mean nothing to it", **also}], "machine": [{"name": "plain", **machine}],
            "machine_read": [{"name": "with keys that mean nothing to it", **more}], "bad": wrong}


def vouch_json():
    """A user for whom his host vouches (section 17)."""
    cases = []
    for name, caller, words in (("plain", "hosta", [b"uptime"]), ("a name that is not ASCII", "h\u00f6st", [b"id", b"-u"])):
        inv = INVITATION._replace(caller=caller)
        request, _ = w.request(words, "operator", "alice")
        proofs = {side: w.vouched_proof(side, inv, w.public(USER), MACHINE, NONCE, request)
                  for side in ("client", "server")}
        cases.append({"name": name, "caller": caller, "server": inv.server, "cookie": COOKIE,
                      "machine_private": MACHINE, "machine_key": w.public(MACHINE), "host_private": HOST,
                      "client_key": w.public(USER), "host_key": w.public(HOST), "nonce": NONCE, "request": request,
                      "client_proof": proofs["client"], "server_proof": proofs["server"],
                      "opening": w.vouched_opening(inv, request, proofs["client"], w.public(MACHINE))})
    parts = ((1, "vouch"), (2, "hosta"), (3, "hostb"), (4, b"\xa0"), (5, fixed("proof")), (6, w.public(MACHINE)))

    def without(key):
        return cbor(*(pair for pair in parts if pair[0] != key))

    wrong = bad(*(("key %d missing" % key, without(key)) for key in range(1, 7)),
                ("a machine key of 31 bytes", cbor(*parts[:5], (6, b"x" * 31))), ("bytes behind", cbor(*parts) + b"\0"))
    return {"good": cases, "bad": wrong}


def responder(suite, hello, answer):
    """The server's side of the handshake, with its fixed ephemeral."""
    noise = NoiseConnection.from_name(w.SUITES[suite])
    noise.set_as_responder()
    noise.set_prologue(b"cosserver v1" + hello + answer)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, HOST)
    noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, SERVER_EPHEMERAL)
    noise.start_handshake()
    return noise


def handshake(suite, words, texts=None, by=None):
    """A whole handshake: what is common to handshake.json, long_command.json and, with texts to ask, login.json and enrol.json."""
    hello, answer = w.hello((suite, 3 - suite)), server_hello(suite)
    request, later = w.request(words, "root", "alice", display=w.Display("192.0.2.7", 9103) if texts else None)
    if by:
        request = w.enrolment("alice")
    client_proof = w.proof("client", INVITATION, w.public(MACHINE), NONCE, request)
    server_proof = w.proof("server", INVITATION, w.public(MACHINE), NONCE, request)
    noise = w.start_noise(suite, hello, answer, MACHINE, w.public(HOST), CLIENT_EPHEMERAL)
    opening = w.opening(INVITATION, request, client_proof)
    if texts:
        opening = w.machine_opening(request) if by else w.password_opening(request)
    message1 = bytes(noise.write_message(opening))
    server = responder(suite, hello, answer)
    assert bytes(server.read_message(message1)) == opening
    accept = w.encode({1: w.ACCEPT, 2: server_proof})
    payload = w.encode({1: w.PROMPTS, 3: texts, **({4: by} if by else {})}) if texts else w.encode({1: w.CONTINUE}) if later else accept
    message2 = bytes(server.write_message(payload))
    read, sending, receiving = w.read_answer(noise, w.ANSWER, message2)
    assert w.check_accept(read, server_proof) == (later is None and texts is None)
    assert sending.state.k == server.noise_protocol.cipher_state_decrypt.k
    vector = {"suite": suite, "protocol": w.SUITES[suite].decode(), "machine_private": MACHINE, "machine_public": w.public(MACHINE),
              "host_private": HOST, "host_public": w.public(HOST), "client_ephemeral_private": CLIENT_EPHEMERAL,
              "server_ephemeral_private": SERVER_EPHEMERAL, "cookie": COOKIE, "caller": "hosta", "server": "hostb",
              "hello": hello, "server_hello": answer, "prologue": b"cosserver v1" + hello + answer, "nonce": NONCE,
              "request": request, "opening": opening, "message_1": message1,
              "client_hello": w.framed(w.CLIENT_HELLO, message1), "client_proof": client_proof, "server_proof": server_proof,
              "answer_payload": payload, "message_2": message2, "answer": w.framed(w.ANSWER, message2),
              "key_to_server": sending.state.k, "key_to_client": receiving.state.k}
    other = w.Direction(server.noise_protocol.cipher_state_encrypt)
    assert other.state.k == receiving.state.k
    if texts:
        del vector["client_proof"], vector["server_proof"], vector["cookie"]
    return vector, later, accept, sending, other


def handshake_json():
    """Whole handshakes with keys after Split, and the first data records (5, 6.1, 8)."""
    cases = []
    for suite in (1, 2):
        vector, _, _, to_server, to_client = handshake(suite, [b"uptime"])
        vector["first_to_server"] = w.record(to_server.seal(bytes([w.DATA, 0]) + b"in"))
        vector["first_to_client"] = w.record(to_client.seal(bytes([w.DATA, 0]) + b"out"))
        cases.append(vector)
    return cases


def next_keys(to_server, to_client):
    """Both keys after a conversation (section 13), which are in force from now on."""
    to_server.rekey()
    to_client.rekey()
    return {"next_key_to_server": to_server.state.k, "next_key_to_client": to_client.state.k}


def long_command_json():
    """A command that follows the ClientHello (section 11)."""
    cases = []
    for suite in (1, 2):
        words = [b"printf", b"%s", fixed("long word", 5000).replace(b"\0", b"0")]
        vector, later, accept, to_server, to_client = handshake(suite, words)
        pieces = [later[i:i + w.PIECE_MAX] for i in range(0, len(later), w.PIECE_MAX)]
        vector.update(words=words, encoding=later, digest=hashlib.sha256(later).digest(), length=len(later), pieces=[
            {"counter": n, "plaintext": piece, "record": w.framed(w.SEALED, to_server.seal(piece))}
            for n, piece in enumerate(pieces)],
            accept_plaintext=accept, accept=w.framed(w.SEALED, to_client.seal(accept)), **next_keys(to_server, to_client),
            first_to_server=w.record(to_server.seal(bytes([w.EOF, 0]))),
            first_to_client=w.record(to_client.seal(bytes([w.DATA, 0]) + b"out")))
        cases.append(vector)
    words = [b"id", b"-u"]
    encoding = w.encode(words)

    def entry(why, data):
        return {"why": why, "bytes": data, "digest": hashlib.sha256(data).digest()}

    env = [["A", b"x" * 3000], ["B", b""]]

    def with_variables(data, words, environment):
        return {"encoding": data, "digest": hashlib.sha256(data).digest(), "words": words, "environment": environment}

    return {"good": cases, "with_variables": [
        with_variables(cbor((4, words), (5, env)), words, env), with_variables(cbor((4, words)), words, []),
        with_variables(cbor((4, words), (5, env), (6, True)), words, env),
    ], "bad_with_variables": [
        entry("variables alone", cbor((5, env))), entry("out of order", cbor((5, env), (4, words))),
        entry("no word", cbor((4, []), (5, env))), entry("a variable twice", cbor((4, words), (5, [env[0], env[0]]))),
        {**entry("another digest", cbor((4, words), (5, env))), "digest": hashlib.sha256(encoding).digest()},
    ], "bad_encodings": [
        {**entry("another command than the digest's", w.encode([b"id"])), "digest": hashlib.sha256(encoding).digest()},
        entry("no word", cbor2.dumps([])), entry("a NUL", cbor2.dumps([b"i\0d"])), entry("a text", cbor2.dumps(["id"])),
        entry("a map", cbor((1, b"id"))), entry("bytes behind", encoding + b"\0"), entry("cut", encoding[:-1]),
        entry("a count in a longer form", b"\x98\x02" + encoding[1:]), entry("indefinite", b"\x9f" + encoding[1:] + b"\xff"),
        entry("nothing", b"")]}


def login_json():
    """A login by password, with a second prompt, and what is told at the end (sections 12, 14)."""
    cases = []
    for suite in (1, 2):
        first = [[w.INFO, "Welcome to hostb"], [w.HIDDEN, "Password: "]]
        vector, _, _, to_server, to_client = handshake(suite, [b"xterm", b"-title", b"a b"], first)
        talk = []
        for texts, replies, padded in ((first, [b"secret"], False), ([[w.SHOWN, "Code: "], [w.ERROR, "late"], [w.HIDDEN, "PIN: "]], [b"4711", b""], True)):
            if talk:
                payload = w.encode({1: w.PROMPTS, 3: texts})
                talk.append({"by": "server", "counter": to_client.state.n, "texts": texts, "plaintext": payload,
                             "record": w.framed(w.SEALED, to_client.seal(payload))})
            said = w.answers(replies, padded)
            assert w.parse_answers(said, len(w.prompts(texts))) == replies and (not padded or len(said) % w.PADDING == 0)
            talk.append({"by": "client", "counter": to_server.state.n, "answers": replies, "plaintext": said,
                         "record": w.framed(w.SEALED, to_server.seal(said))})
        told = [[w.INFO, "Last login: never"]]
        accept = w.encode({1: w.ACCEPT, 3: told})
        assert w.check_accept(accept, None)
        talk.append({"by": "server", "counter": to_client.state.n, "texts": told, "plaintext": accept,
                     "record": w.framed(w.SEALED, to_client.seal(accept))})
        vector.update(words=[b"xterm", b"-title", b"a b"], texts=first, talk=talk, **next_keys(to_server, to_client),
                      first_to_server=w.record(to_server.seal(bytes([w.DATA, 0]) + b"in")),
                      first_to_client=w.record(to_client.seal(bytes([w.DATA, 0]) + b"out")))
        cases.append(vector)
    return cases


def enrol_json():
    """A machine is registered by what the inner door asks for (sections 15, 16)."""
    cases = []
    for suite, by, texts, reply in (
            (1, w.NAME, [[w.INFO, "This machine is not registered here yet."], [w.SHOWN, "Enter your name: "]], "Jos\u00e9".encode()),
            (2, w.ACTIVATION, [[w.HIDDEN, "ACTIVATION password: "]], b"0000-1111")):
        vector, _, _, to_server, to_client = handshake(suite, [], texts, by)
        said = w.answers([reply], True)
        talk = [{"by": "client", "counter": to_server.state.n, "answers": [reply], "plaintext": said,
                 "record": w.framed(w.SEALED, to_server.seal(said))}]
        told = [[w.INFO, "Welcome to hostb"]]
        accept = w.encode({1: w.ACCEPT, 3: told})
        talk.append({"by": "server", "counter": to_client.state.n, "texts": told, "plaintext": accept,
                     "record": w.framed(w.SEALED, to_client.seal(accept))})
        vector.update(machine_id=w.machine_id(w.public(MACHINE)), by=by, texts=texts, talk=talk, **next_keys(to_server, to_client),
                      first_to_server=w.record(to_server.seal(bytes([w.EOF, 0]))),
                      first_to_client=w.record(to_client.seal(bytes([w.END, w.EXITED, 0]))))
        cases.append(vector)
    return cases


def answers_json():
    """Answers to prompts (section 12)."""
    def one(name, replies, padded=False):
        return {"name": name, "answers": replies, "message": w.answers(replies, padded)}

    good = [one("a password", [b"secret"]), one("an empty answer", [b""]), one("two, of any bytes", [b"\xff\n", b"4711"]),
            one("as long as may be", [b"x" * 511]), one("as many as may be", [b"a"] * 32)]
    padded = [one(name, replies, True) for name, replies in (
        ("a password", [b"secret"]), ("an empty answer", [b""]), ("a name of 251 bytes", [b"n" * 251]), ("as long as may be", [b"x" * 511]),
        ("two", [b"4711", b""]), ("by 23 zeros", [b"x" * 481]), ("by 24 zeros", [b"x" * 479]), ("by none", [b"x" * 504]), ("a multiple already", [b"x" * 506]),
        ("1 byte is missing", [b"x" * 505]), ("26 are missing", [b"x" * 480]), ("259 are missing", [b"x" * 248]),
        ("more than a record holds", [b"x" * 500] * 8))]
    for item in padded:
        size = len(item["message"])
        assert size % w.PADDING == 0 or size + w.PADDING > w.PIECE_MAX
    also = [{"name": "fewer zeros", "answers": [b"secret"], "message": cbor((1, [b"secret"]), (2, bytes(3)))},
            {"name": "unknown keys", "answers": [b"x"], "message": cbor((1, [b"x"]), (2, b""), (3, ["y"]), (900, True))}]

    def wrong(why, data, expected=1):
        return {"why": why, "expected": expected, "bytes": data}

    samples = [
        wrong("nothing", b""), wrong("an array", cbor2.dumps([b"x"])), wrong("no answers", cbor((2, b""))), wrong("one too few", w.answers([b"x"]), 2),
        wrong("one too many", w.answers([b"x", b"y"])), wrong("none", w.answers([])), wrong("a text", cbor((1, ["x"]))),
        wrong("bytes, no array", cbor((1, b"x"))), wrong("an array in an array", cbor((1, [[b"x"]]))), wrong("null", b"\xa1\x01\x81\xf6"),
        wrong("512 bytes", w.answers([b"x" * 512])), wrong("a NUL", w.answers([b"x\0"])), wrong("33 answers", w.answers([b"x"] * 33), 33),
        wrong("more than memory", b"\xa1\x01\x9b" + b"\xff" * 8), wrong("a length in a longer form", b"\xa1\x01\x81\x58\x01x"),
        wrong("indefinite", b"\xa1\x01\x9f\x41x\xff"), wrong("answers twice", cbor((1, [b"x"]), (1, [b"x"]))),
        wrong("keys out of order", cbor((2, b""), (1, [b"x"]))), wrong("bytes behind", w.answers([b"x"]) + b"\0"),
        wrong("cut", w.answers([b"xyz"])[:-1]), wrong("a key that is a text", cbor((1, [b"x"]), ("1", [b"x"])))]
    for sample in samples:
        refused(lambda data, n=sample["expected"]: w.parse_answers(data, n), [sample])
    for item in good + padded + also:
        assert w.parse_answers(item["message"], len(item["answers"])) == item["answers"]
    return {"made_and_read": good, "padded": padded, "read": also, "bad": samples}


def sealed_json():
    """Records by key and counter, over the border where the key changes (section 8)."""
    cases = []
    for suite in (1, 2):
        noise = NoiseConnection.from_name(w.SUITES[suite])
        state = CipherState(noise.noise_protocol)
        key = fixed("traffic key %d" % suite)
        for start in (0, 255, (1 << 20) - 2, (1 << 21) - 1):
            state.initialize_key(key)
            for _ in range(start // w.REKEY_EVERY):
                state.rekey()
            first_key = state.k
            state.set_nonce(start)
            direction = w.Direction(state)
            records = []
            for counter in range(start, start + 4):
                plaintext = bytes([w.DATA, 0]) + b"record %d" % counter
                body = direction.seal(plaintext)
                records.append({"counter": counter, "key": state.k, "plaintext": plaintext, "record": w.record(body)})
            cases.append({"suite": suite, "initial_key": key, "key": first_key, "counter": start, "records": records})
    return cases


def messages_json():
    """Every message after acceptance, as plaintext (section 8)."""
    def one(wire_type, second, rest=b"", **fields):
        return {**fields, "second": second, "plaintext": bytes([wire_type, second]) + rest}

    good = [
        one(w.DATA, 0, b"x", kind="data", payload=b"x"), one(w.DATA, 1, b"\0\xff", kind="data", payload=b"\0\xff"),
        one(w.EOF, 0, kind="eof"), one(w.EOF, 1, kind="eof"), one(w.RESET, 0, kind="reset"), one(w.RESET, 1, kind="reset"),
        one(w.CREDIT, 0, b"\0\x04\0\0", kind="credit", bytes=262144), one(w.CREDIT, 1, b"\xff" * 4, kind="credit", bytes=4294967295),
        one(w.CREDIT, 0, b"\0\0\0\1", kind="credit", bytes=1),
        *(one(w.SIGNAL, n, kind="signal") for n in (1, 2, 3, 15)),
        one(w.END, 0, b"\0", kind="exited", number=0), one(w.END, 0, b"\xff", kind="exited", number=255),
        one(w.END, 1, b"\x09", kind="killed", number=9), one(w.END, 2, b"", kind="not_started", text=""),
        one(w.END, 2, "no such user: \u00e9".encode(), kind="not_started", text="no such user: \u00e9"),
        one(w.END, 2, b"t" * 255, kind="not_started", text="t" * 255)]
    wrong = [("empty", b""), *(("type alone", bytes([kind])) for kind in range(1, 7)), ("type 0", b"\0\0x"), ("type 7", b"\7\0x"),
             ("type 255", b"\xff\0x"), ("data of 0 bytes", b"\1\0"), ("data on stream 2", b"\1\2x"), ("data on stream 255", b"\1\xffx"),
             ("eof on stream 2", b"\2\2"), ("eof with more", b"\2\0x"), ("reset on stream 2", b"\3\2"), ("reset with more", b"\3\0x"),
             ("credit on stream 2", b"\4\2\0\0\0\1"), ("credit of 3 bytes", b"\4\0\0\0\1"), ("credit of 5 bytes", b"\4\0\0\0\0\1\0"),
             *(("signal %d" % n, bytes([5, n])) for n in (0, 4, 9, 14, 16, 19, 255)), ("signal with more", b"\5\1x"),
             ("end of kind 3", b"\6\3\0"), ("exited without a status", b"\6\0"), ("exited with two", b"\6\0\0\0"),
             ("killed without a signal", b"\6\1"), ("a text of 256 bytes", b"\6\2" + b"t" * 256), ("a text that is not UTF-8", b"\6\2\xff")]
    return {"good": good, "bad": bad(*wrong)}


def answer_json():
    """Answers and Denied (sections 6 and 7)."""
    proof = fixed("server proof")
    def one(name, status, given=None, texts=(), payload=None, by=None):
        item = {1: status, **({2: given} if given else {}), **({3: texts} if texts else {}), **({4: by} if by else {})}
        return {"name": name, "status": status, "proof": given, "texts": list(texts), "by": by, "payload": payload or w.encode(item)}

    def asks(*texts, by=None):
        return cbor((1, 2), (3, list(texts)), *([] if by is None else [(4, by)]))

    ask = [w.HIDDEN, "Password: "]
    info, name, activation = [w.INFO, "Welcome"], [w.SHOWN, "Enter your name: "], [w.HIDDEN, "ACTIVATION password: "]
    good = [one("AuthAccept", 0, proof), one("AuthContinue: send the command", 1), one("AuthAccept of a login by password", 0),
            one("AuthAccept, and something to know", 0, texts=[[w.INFO, "Last login: never"], [w.ERROR, ""]]),
            one("AuthAccept with proof and text", 0, proof, [[w.INFO, "welcome"]]), one("AuthContinue: a prompt", 2, texts=[ask]),
            one("every style", 2, texts=[[w.ERROR, "expired"], [w.INFO, "\u00fc"], ask, [w.SHOWN, "Code: "]]),
            one("a prompt of 512 bytes", 2, texts=[[w.SHOWN, "p" * 512]]), one("32 texts", 2, texts=[[w.INFO, ""]] * 31 + [ask]),
            one("the door: a name", 2, texts=[name], by=w.NAME), one("the door: a name, with a text", 2, texts=[info, name], by=w.NAME),
            one("the door: an activation password", 2, texts=[info, info, activation], by=w.ACTIVATION)]
    also = [one("unknown keys", 0, proof, payload=cbor((1, 0), (2, proof), (5, [[b"x"]]), (70000, False))),
            one("key 4 means nothing to AuthAccept", 0, proof, payload=cbor((1, 0), (2, proof), (4, 1))),
            one("no texts in key 3", 0, proof, payload=cbor((1, 0), (2, proof), (3, [])))]
    for item in good + also:
        read = w.parse_answer(item["payload"])
        assert read[:3] == (item["status"], item["proof"], [tuple(text) for text in item["texts"]])
        assert read.by == item["by"] or item["status"] == w.ACCEPT
    wrong = bad(("status 2 without a text", cbor((1, 2), (2, proof))), ("status 2 without a prompt", asks([w.INFO, "x"], [w.ERROR, "y"])),
                ("status 2 and no texts", asks()), ("status 3", cbor((1, 3), (3, [ask]))), ("AuthAccept with a prompt", cbor((1, 0), (3, [ask]))),
                ("AuthAccept with proof and a prompt", cbor((1, 0), (2, proof), (3, [[w.INFO, "x"], ask]))),
                ("style 0", asks(ask, [0, "x"])), ("style 5", asks(ask, [5, "x"])), ("style 257", asks(ask, [257, "x"])),
                ("a negative style", asks(ask, [-1, "x"])), ("a style that is a text", asks(ask, ["1", "x"])), ("words of bytes", asks([w.HIDDEN, b"x"])),
                ("a text of one", asks(ask, [w.INFO])), ("a text of three", asks(ask, [w.INFO, "x", "y"])), ("a text that is a map", asks(ask, {3: "x"})),
                ("513 bytes", asks([w.HIDDEN, "p" * 513])), ("513 bytes in 257 letters", asks([w.HIDDEN, "p" + "\u00fc" * 256])),
                ("33 texts", asks(*[ask] * 33)), ("texts in a map", cbor((1, 2), (3, {1: "x"}))), ("a text alone", cbor((1, 2), (3, "Password: "))),
                ("more texts than memory", b"\xa2\x01\x02\x03\x9b" + b"\xff" * 8), ("words that are not UTF-8", asks(ask)[:-10] + b"\xff" * 10),
                ("the door: 0 asks", asks(name, by=0)), ("the door: 3 asks", asks(name, by=3)), ("the door: 257 asks", asks(name, by=257)),
                ("the door: a text asks", asks(name, by="1")), ("the door: AuthAccept by 3", cbor((1, 0), (2, proof), (4, 3))),
                ("the door: a name that is hidden", asks(activation, by=w.NAME)), ("the door: a password that is shown", asks(name, by=w.ACTIVATION)),
                ("the door: two names", asks(name, name, by=w.NAME)), ("the door: a name and a password", asks(activation, name, by=w.NAME)),
                ("the door: a text behind the prompt", asks(name, info, by=w.NAME)), ("the door: an error before it", asks([w.ERROR, "x"], name, by=w.NAME)),
                ("the door: no prompt", asks(info, by=w.NAME)), ("the door: no texts", cbor((1, 2), (4, w.NAME))),
                ("no status", cbor((2, proof))), ("proof of nothing", cbor((1, 0), (2, b""))),
                ("proof of 31 bytes", cbor((1, 0), (2, proof[:31]))), ("proof of 33 bytes", cbor((1, 0), (2, proof + b"x"))),
                ("proof a text", cbor((1, 0), (2, "x" * 32))), ("status 256", cbor((1, 256), (2, proof))),
                ("bytes behind", cbor((1, 0), (2, proof)) + b"\0"), ("an array", cbor2.dumps([0, proof])), ("nothing", b""))
    refused(w.parse_answer, wrong)
    reference = fixed("reference", 8)
    return {"good": good, "read": also, "bad": wrong, "denied": {"reference": reference, "record": w.framed(w.DENIED, reference)},
            "bad_denied_contents": bad(("nothing", b""), ("7 bytes", reference[:7]), ("9 bytes", reference + b"x"))}


def refused(read, samples):
    """This implementation refuses them too."""
    for sample in samples:
        try:
            read(sample["bytes"])
        except w.ProtocolError:
            continue
        raise AssertionError("not refused: " + sample["why"])


def plain(value):
    """Byte strings as hexadecimal digits."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


FILES = [cbor_json, hello_json, server_hello_json, request_json, opening_json, vouch_json, handshake_json,
         long_command_json, login_json, enrol_json, sealed_json, messages_json, answer_json, answers_json]


def main():
    """Writes or checks every file."""
    warnings.filterwarnings("ignore", "One of ephemeral keypairs")     # that is what we want here
    stale = []
    for make in FILES:
        path = FOLDER / (make.__name__.replace("_json", "") + ".json")
        text = json.dumps(plain(make()), indent=1) + "\n"
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="ascii")
        elif not path.exists() or path.read_text(encoding="ascii") != text:
            stale.append(path.name)
    if stale:
        print("not what make_vectors.py makes: " + " ".join(stale), file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
