#!/usr/bin/env python3
"""Fills fuzz/corpus/ from tests/vectors/, so that fuzzing starts with real messages."""

import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
# Target: the vector files, and the keys in them whose byte strings are its input.
SOURCES = {
    "record": [("hello", "record bytes"), ("server_hello", "record bytes"), ("answer", "record"),
               ("handshake", "hello server_hello client_hello answer"), ("long_command", "record")],
    "hello": [("hello", "record bytes"), ("server_hello", "record bytes")],
    "message_1": [("handshake", "client_hello"), ("login", "client_hello"), ("enrol", "client_hello"), ("opening", "opening bytes")],
    "opening": [("opening", "opening bytes"), ("vouch", "opening bytes"), ("login", "opening"), ("enrol", "opening"), ("request", "request bytes"), ("long_command", "encoding bytes")],
    "answer": [("answer", "payload bytes reference"), ("login", "answer_payload plaintext"), ("enrol", "answer_payload plaintext")],
    "answers": [("answers", "message bytes"), ("login", "plaintext"), ("enrol", "plaintext")],
    "message": [("messages", "plaintext bytes")],
    "signer": [("request", "request bytes")],
    "cbor": [("cbor", "good bytes"), ("request", "request bytes"), ("opening", "opening bytes")],
}
TEXTS = {
    "hostinfo": ["# name method options\nhosta cos addr=192.0.2.1,2001:db8::/64 run-as=root,operator\n",
                 "hostb ssh\nhostc cos addr=192.0.2.7 run-as=root commands=\"/usr/bin/uptime;/bin/ls *\" subsystems=sftp,a.b\n"],
    "settings": ["[listen]\nport = 9002\n[limits]\nhello = 10\n",
                 "[subsystem]\nsftp = \"\"\nx = \"'/opt/my x' -d '' # a\"\n",
                 "[service.pg]\nkind = \"forward\"\nto = \"tcp:[::1]:5432\"\nallow = [{ group = \"dba\", time = \"Mon-Fri 07:00-19:00\" }]\n",
                 "[service.x]\nkind = \"command\"\ncommand = [\"/bin/x\"]\nargs = [\"daily month=*\"]\nas = \"nobody\"\n"],
    "card": ["-----BEGIN COSSERVER INVITATION-----\ncaller: hosta\nserver: hostb\naddr: 192.0.2.1\nport: 9002\nkey: "
             + "0" * 64 + "\ncookie: " + "0" * 64 + "\ncheck: 00000000\n-----END COSSERVER INVITATION-----\n"],
}


def found(value, keys, key=""):
    """Yields every byte string in a vector file under one of the keys."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from found(inner, keys, name)
    elif isinstance(value, list):
        for inner in value:
            yield from found(inner, keys, key)
    elif isinstance(value, str) and key in keys:
        yield bytes.fromhex(value)


def keep(target, data):
    """Writes one seed, named by the hash of its content."""
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


for target, files in SOURCES.items():
    for name, keys in files:
        vectors = json.loads((HERE.parent / "tests" / "vectors" / (name + ".json")).read_text("ascii"))
        for data in found(vectors, keys.split()):
            keep(target, data)
for target, texts in TEXTS.items():
    for text in texts:
        keep(target, text.encode())
