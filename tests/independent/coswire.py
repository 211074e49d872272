"""The messages of the cosserver protocol, written from docs/PROTOCOL.md alone.

Each function makes or reads one message, so that a test can send them changed,
twice, or at the wrong time.  Section numbers are those of the page.
"""

import collections
import hashlib
import hmac
import struct

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from noise.connection import Keypair, NoiseConnection

VERSION = 1
MAGIC = b"COSs"
HELLO, SERVER_HELLO, CLIENT_HELLO, ANSWER, DENIED, SEALED = range(1, 7)
SUITES = {1: b"Noise_IK_25519_AESGCM_SHA256", 2: b"Noise_IK_25519_ChaChaPoly_SHA256"}
ACCEPT, CONTINUE, PROMPTS = 0, 1, 2
NAME, ACTIVATION = 1, 2                      # what the inner door asks for, section 15
HIDDEN, SHOWN, INFO, ERROR = range(1, 5)     # styles, section 12
DATA, EOF, RESET, CREDIT, SIGNAL, END = range(1, 7)
EXITED, KILLED, NOT_STARTED = range(3)

HELLO_MAX = 256            # bytes of a record's body, section 9
GREETING_MAX = 4096
BODY_MAX = 65535
TAG = 16
DATA_MAX = BODY_MAX - TAG - 2
PIECE_MAX = GREETING_MAX - 5 - TAG      # section 11
INLINE_MAX = 2560          # the longest encoding that goes into key 4, section 5.1
TEXTS_MAX = 32             # texts, or answers, in one message, section 12
TEXT_MAX = 512             # bytes of a text
REPLY_MAX = 511            # bytes of an answer
PADDING = 512              # its message is a multiple of so many, section 12
WINDOW = 1 << 20           # the credit that a stream begins with, section 8
CREDIT_MAX = 1 << 24       # the most that it may ever have
REKEY_EVERY = 1 << 20      # messages

Invitation = collections.namedtuple("Invitation", "caller server addr port host_key cookie")
ServerHello = collections.namedtuple("ServerHello", "suite nonce limit host_key")
Display = collections.namedtuple("Display", "host port detach", defaults=(None, 9003, False))
Answer = collections.namedtuple("Answer", "status proof texts by")      # by: None for PAM


class ProtocolError(Exception):
    """The other side did not keep to the protocol."""


class Denied(Exception):
    """The server refused, section 7; the argument is its reference."""


# --- Section 2: records -----------------------------------------------------

def record(body):
    """A record: the length, then the body."""
    if not 0 < len(body) <= BODY_MAX:
        raise ValueError("a body of %d bytes" % len(body))
    return struct.pack(">H", len(body)) + body


def framed(kind, content):
    """The record of a message before acceptance: magic and type go first."""
    return record(MAGIC + bytes([kind]) + content)


def body_length(head, limit):
    """The length that the two bytes of a record's head say."""
    length = struct.unpack(">H", head)[0]
    if not 0 < length <= limit:
        raise ProtocolError("a body of %d bytes" % length)
    return length


def unframe(body, kinds):
    """(type, content) of a message before acceptance, which must be one of `kinds`."""
    if len(body) < 5 or body[:4] != MAGIC or body[4] not in kinds:
        raise ProtocolError("not the message that is due")
    return body[4], body[5:]


# --- Section 3: CBOR --------------------------------------------------------

def encode(item):
    """CBOR; maps are written in the order given, which below is always ascending."""
    return cbor2.dumps(item)


def decode(data):
    """The one item that `data` holds, which must be in the form of section 3."""
    try:
        item = cbor2.loads(data)
        check_item(item, 1)
        same = cbor2.dumps(item) == data   # shortest, definite, no duplicates, nothing behind
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise ProtocolError("malformed CBOR") from error
    if not same:
        raise ProtocolError("CBOR that is not canonical")
    return item


def check_item(item, depth):
    """Refuses what section 3 does; the outermost item has depth 1."""
    if depth > 8:
        raise ValueError("nested too deep")
    if type(item) in (bool, bytes, str):
        return
    if type(item) is int and -(1 << 64) <= item < 1 << 64:
        return
    if type(item) is dict:
        keys = list(item)
        if any(type(key) not in (int, str) or type(key) is int and key < 0 for key in keys):
            raise ValueError("a key that is neither unsigned nor text")
        if keys != sorted(keys, key=cbor2.dumps):
            raise ValueError("keys out of order")
        inner = [*keys, *item.values()]
    elif type(item) is list:
        inner = item
    else:
        raise ValueError("not one of our types")
    for one in inner:
        check_item(one, depth + 1)


def decode_map(data):
    """Every message is a map with unsigned keys."""
    item = decode(data)
    if type(item) is not dict or any(type(key) is not int for key in item):
        raise ProtocolError("not a map with unsigned keys")
    return item


def field(item, key, kind, length=None):
    """The value of a key that must be there, of that type and length; a number has 32 bits."""
    value = item.get(key)
    if (type(value) is not kind or length is not None and len(value) != length
            or kind is int and not 0 <= value < 1 << 32):
        raise ProtocolError("key %d is missing or wrong" % key)
    return value


# --- Section 4: the hellos --------------------------------------------------

def hello(suites=(1, 2), ask_host_key=False):
    """The Hello record."""
    item = {1: VERSION, 2: list(suites)}
    if ask_host_key:
        item[3] = True
    return framed(HELLO, encode(item))


def parse_server_hello(content, suites=(1, 2), ask_host_key=False):
    """A ServerHello."""
    item = decode_map(content)
    suite = field(item, 2, int)
    if field(item, 1, int) != VERSION or suite not in suites:
        raise ProtocolError("a version or suite that was not offered")
    host_key = field(item, 5, bytes, 32) if ask_host_key else None
    return ServerHello(suite, field(item, 3, bytes, 32), field(item, 4, int), host_key)


# --- Section 5: ClientHello -------------------------------------------------

def public(private):
    """The public half of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def request(words, user, calling_user, env=(), display=None, linger=None, service="exec", formats=()):
    """(the request's exact bytes, the command's encoding to send later or None), section 5.1.

    With a display it is for an application, whose words come with it, like those of a subsystem
    and of a named service. The names of services need no words."""
    command = list(words)
    encoding = encode(command)
    item = {1: "gui" if display else service, 2: user, 3: calling_user}
    if service == "services":
        if formats:
            item[13] = list(formats)
        return encode(item), None
    later = len(encoding) > INLINE_MAX and not display and service == "exec"
    if not later:
        item[4] = command
    if env:
        item[5] = [list(pair) for pair in env]
    if later:
        item[6], item[7] = hashlib.sha256(encoding).digest(), len(encoding)
    if display:
        if display.host is not None:
            item[8] = display.host
        item[9] = display.port
        if display.detach:
            item[10] = True
    if linger is not None:
        item[11] = linger
    if formats:
        item[13] = list(formats)
    return encode(item), encoding if later else None


def proof(side, invitation, client_key, nonce, request_bytes):
    """The proof of section 5.2; `side` is "client" or "server"."""
    key = HKDF(hashes.SHA256(), 32, salt=None, info=b"cosserver hash v1").derive(invitation.cookie)
    parts = [("cosserver hash v1 " + side).encode(), invitation.caller.encode(),
             invitation.server.encode(), client_key, invitation.host_key, nonce, request_bytes]
    covered = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return hmac.digest(key, covered, "sha256")


def opening(invitation, request_bytes, client_proof):
    """The payload of message 1."""
    return encode({1: "hash", 2: invitation.caller, 3: invitation.server,
                   4: request_bytes, 5: client_proof})


def vouched_proof(side, invitation, client_key, machine_private, nonce, request_bytes):
    """The proof of section 17, as the signer of the machine with that key makes it."""
    shared = X25519PrivateKey.from_private_bytes(machine_private).exchange(
        X25519PublicKey.from_public_bytes(invitation.host_key))
    key = HKDF(hashes.SHA256(), 32, salt=shared, info=b"cosserver vouch v1").derive(invitation.cookie)
    parts = [("cosserver vouch v1 " + side).encode(), invitation.caller.encode(), invitation.server.encode(),
             client_key, public(machine_private), invitation.host_key, nonce, request_bytes]
    covered = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return hmac.digest(key, covered, "sha256")


def vouched_opening(invitation, request_bytes, client_proof, machine_key):
    """The payload of message 1, where a host vouches for its user."""
    return encode({1: "vouch", 2: invitation.caller, 3: invitation.server,
                   4: request_bytes, 5: client_proof, 6: machine_key})


def password_opening(request_bytes):
    """The payload of message 1 of somebody whom the server is to ask, section 14."""
    return encode({1: "password", 4: request_bytes})


def enrolment(calling_user):
    """The request of a machine that wants to be registered, section 16."""
    return encode({1: "enrol", 2: calling_user, 3: calling_user})


def machine_opening(request_bytes):
    """The payload of its message 1."""
    return encode({1: "machine", 4: request_bytes})


def machine_id(machine_key):
    """The ID of a machine, by its public key, section 1."""
    return hashlib.sha256(machine_key).hexdigest()[:32]


def start_noise(suite, hello_record, server_hello_record, machine_key, host_key, ephemeral=None):
    """The client's side of the handshake; a fixed ephemeral is for test vectors alone."""
    noise = NoiseConnection.from_name(SUITES[suite])
    noise.set_as_initiator()
    noise.set_prologue(b"cosserver v1" + hello_record + server_hello_record)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, machine_key)
    noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, host_key)
    if ephemeral:
        noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    noise.start_handshake()
    return noise


# --- Sections 6.1, 8 and 13: sealing --------------------------------------------

class Direction:
    """One direction's key and counter."""

    def __init__(self, cipher_state):
        self.state = cipher_state          # Noise's CipherState: k, and the counter n

    def _rekey_when_due(self):
        if self.state.n and self.state.n % REKEY_EVERY == 0:
            self.state.rekey()             # the counter goes on

    def seal(self, plaintext):
        """The body of the next record."""
        self._rekey_when_due()
        return self.state.encrypt_with_ad(b"", plaintext)

    def rekey(self):
        """After a conversation, section 13; the counter goes on."""
        self.state.rekey()

    def open(self, body):
        """The plaintext of the next record."""
        self._rekey_when_due()
        try:
            return self.state.decrypt_with_ad(b"", body)
        except Exception as error:
            raise ProtocolError("a record that does not open") from error


# --- Section 6: the answer --------------------------------------------------

def read_answer(noise, kind, content):
    """Of an Answer: (the payload, what seals, what opens); of a Denied: raises it."""
    if kind == DENIED:
        raise Denied(content.hex())
    try:
        payload = bytes(noise.read_message(content))
    except Exception as error:
        raise ProtocolError("the server did not prove its key") from error
    return (payload, Direction(noise.noise_protocol.cipher_state_encrypt),
            Direction(noise.noise_protocol.cipher_state_decrypt))


def parse_answer(payload):
    """The map of section 6.1: what the server says to a request."""
    item = decode_map(payload)
    status = field(item, 1, int)
    proof_given = field(item, 2, bytes, 32) if 2 in item else None
    texts = [parse_text(text) for text in field(item, 3, list)] if 3 in item else []
    by = field(item, 4, int) if 4 in item else None
    styles = [style for style, _ in texts]
    asks = HIDDEN in styles or SHOWN in styles
    if status > PROMPTS or len(texts) > TEXTS_MAX or status == PROMPTS and not asks or status == ACCEPT and asks:
        raise ProtocolError("an answer that is none")
    if by is not None and by not in (NAME, ACTIVATION):
        raise ProtocolError("somebody asks who does not exist")
    if by and status == PROMPTS and (styles[-1] != {NAME: SHOWN, ACTIVATION: HIDDEN}[by] or set(styles[:-1]) - {INFO}):
        raise ProtocolError("the door asks for something else")
    return Answer(status, proof_given, texts, by)


def parse_text(text):
    """(style, words) of a text, section 12."""
    if type(text) is not list or len(text) != 2 or [type(part) for part in text] != [int, str]:
        raise ProtocolError("a text that is none")
    style, words = text
    if not HIDDEN <= style <= ERROR or len(words.encode()) > TEXT_MAX:
        raise ProtocolError("a text that is none")
    return style, words


def check_accept(payload, expected_proof):
    """True for AuthAccept with the right proof, False for AuthContinue; no proof is expected with `password`."""
    answer = parse_answer(payload)
    if answer.status != ACCEPT:
        return False
    if (answer.proof is None) != (expected_proof is None) or (
            expected_proof and not hmac.compare_digest(answer.proof, expected_proof)):
        raise ProtocolError("the server's proof is wrong")
    return True


def prompts(texts):
    """The texts that must be answered."""
    return [(style, words) for style, words in texts if style in (HIDDEN, SHOWN)]


def answers(replies, padded=False):
    """The message of section 12; where wanted, padded to the multiple of 512 bytes that the page says."""
    plain = encode({1: list(replies)})
    size = -(-len(plain) // PADDING) * PADDING
    while padded and len(plain) < size <= PIECE_MAX:
        for head in (2, 3, 4):      # of key 2 and the length of its zeros
            zeros = size - len(plain) - head
            message = encode({1: list(replies), 2: bytes(zeros)}) if zeros >= 0 else b""
            if len(message) == size:
                return message
        size += PADDING
    return plain


def parse_answers(payload, expected):
    """The replies to so many prompts."""
    replies = field(decode_map(payload), 1, list)
    if len(replies) != expected or len(replies) > TEXTS_MAX or any(
            type(reply) is not bytes or len(reply) > REPLY_MAX or b"\0" in reply for reply in replies):
        raise ProtocolError("answers that are none")
    return replies
