//! The crate's wire format against the vectors of `tests/vectors`, which the independent
//! implementation in `tests/independent` made.

use std::sync::Arc;

use cosserver::protocol::answer::{self, Answer, Reference};
use cosserver::protocol::hello::{Hello, ServerHello, Suite};
use cosserver::protocol::noise::{Direction, Initiator, Prepared, Responder};
use cosserver::protocol::opening::{Credential, Opening};
use cosserver::protocol::prompt::{Answers, Asks, Style, Text};
use cosserver::protocol::proof::{self, Claim, Side, Voucher};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{self, Command, Gui, Offer, Request, Service};
use cosserver::protocol::rest;
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::{End, Message, Signal, Stream};
use cosserver::protocol::{cbor, limits};
use cosserver::secret::{KeyPair, PublicKey, Secret};
use serde_json::Value;
use zeroize::Zeroizing;

fn load(name: &str) -> Value {
    let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).expect(&path)).expect(&path)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    let items = value[key].as_array().expect(key);
    assert!(!items.is_empty(), "{key} is empty");
    items
}

fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    unhex(text(value, key))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} of {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} of {value}"))
}

fn array<const N: usize>(value: &Value, key: &str) -> [u8; N] {
    bytes(value, key).try_into().expect(key)
}

fn suite(value: &Value) -> Suite {
    suite_of(number(value, "suite"))
}

fn suite_of(number: u64) -> Suite {
    match number {
        1 => Suite::AesGcm,
        2 => Suite::ChaChaPoly,
        n => panic!("suite {n}"),
    }
}

/// Checks that each of the file's bad samples is rejected.
fn refuses(samples: &[Value], read: impl Fn(&[u8]) -> bool) {
    for sample in samples {
        assert!(!read(&bytes(sample, "bytes")), "taken: {sample}");
    }
}

#[test]
fn cbor_accepts_only_canonical_items() {
    let file = load("cbor");
    for good in list(&file, "good") {
        let good = unhex(good.as_str().unwrap());
        assert_eq!(cbor::check(&good), Ok(()), "{good:02x?}");
    }
    refuses(list(&file, "bad"), |b| cbor::check(b).is_ok());
}

fn hello_of(value: &Value) -> Hello {
    Hello {
        version: number(value, "version").try_into().unwrap(),
        suites: list(value, "suites")
            .iter()
            .map(|s| suite_of(s.as_u64().unwrap()))
            .collect(),
        wants_host_key: value["ask_host_key"].as_bool().unwrap(),
    }
}

#[test]
fn hello() {
    let file = load("hello");
    for vector in list(&file, "made_and_read") {
        let record = bytes(vector, "record");
        assert_eq!(Hello::parse(&record), Ok(hello_of(vector)));
        assert_eq!(hello_of(vector).compose(), Ok(record));
    }
    for vector in list(&file, "read") {
        assert_eq!(Hello::parse(&bytes(vector, "record")), Ok(hello_of(vector)));
    }
    refuses(list(&file, "bad"), |b| Hello::parse(b).is_ok());
}

#[test]
fn server_hello() {
    let file = load("server_hello");
    let hello = Hello::parse(&bytes(&file, "hello")).unwrap();
    for vector in list(&file, "made_and_read") {
        let record = bytes(vector, "record");
        let expected = ServerHello {
            version: number(vector, "version").try_into().unwrap(),
            suite: suite(vector),
            nonce: array(vector, "nonce"),
            greeting_limit: number(vector, "limit").try_into().unwrap(),
            host_key: vector["host_key"].as_str().and_then(PublicKey::from_hex),
        };
        assert_eq!(ServerHello::parse(&record, &hello).as_ref(), Ok(&expected));
        assert_eq!(expected.compose(), Ok(record));
    }
    refuses(list(&file, "bad"), |b| {
        ServerHello::parse(b, &hello).is_ok()
    });
    // A suite that this Hello did not offer.
    let only = Hello {
        suites: vec![Suite::AesGcm],
        ..hello
    };
    let chacha = bytes(&list(&file, "made_and_read")[1], "record");
    assert!(ServerHello::parse(&chacha, &only).is_err());
}

fn hex(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap())
}

fn offer_of(value: &Value) -> Offer {
    let formats = value["formats"].as_array();
    let formats = formats.into_iter().flatten();
    Offer {
        formats: formats.map(|f| f.as_str().unwrap().to_owned()).collect(),
    }
}

fn request_of(value: &Value) -> Request {
    let command = match value["words"].as_array() {
        Some(words) => Command::Words(words.iter().map(|w| unhex(w.as_str().unwrap())).collect()),
        None => Command::Follows {
            digest: array(value, "digest"),
            length: number(value, "length").try_into().unwrap(),
        },
    };
    let environment = value["environment"].as_array().unwrap().iter().map(|pair| {
        let part = |i: usize| pair[i].as_str().unwrap();
        (part(0).to_owned(), unhex(part(1)))
    });
    let service = match text(value, "service") {
        "exec" => Service::Exec,
        "enrol" => Service::Enrol,
        "subsystem" => Service::Subsystem,
        "service" => Service::Named(offer_of(value)),
        "services" => Service::List(offer_of(value)),
        _ => {
            let display = &value["display"];
            Service::Gui(Gui {
                host: display["host"].as_str().map(str::to_owned),
                port: number(display, "port").try_into().unwrap(),
                detach: display["detach"].as_bool().unwrap(),
            })
        }
    };
    Request {
        service,
        user: text(value, "user").to_owned(),
        caller_user: text(value, "calling_user").parse().unwrap(),
        command,
        environment: environment.collect(),
        linger: value["linger"].as_u64().map(|n| n.try_into().unwrap()),
    }
}

#[test]
fn request() {
    let file = load("request");
    for vector in list(&file, "made_and_read") {
        let (encoded, expected) = (bytes(vector, "request"), request_of(vector));
        assert_eq!(Request::decode(&encoded).as_ref(), Ok(&expected));
        assert_eq!(expected.encode(), Ok(encoded));
    }
    for vector in list(&file, "read") {
        assert_eq!(
            Request::decode(&bytes(vector, "request")),
            Ok(request_of(vector))
        );
    }
    refuses(list(&file, "bad"), |b| Request::decode(b).is_ok());
}

#[test]
fn words_at_their_limits() {
    let head = [
        &[0xa4, 1, 0x64][..],
        b"exec",
        &[2, 0x61],
        b"u",
        &[3, 0x61],
        b"c",
        &[4],
    ]
    .concat();
    let words = |n: u16| [&head[..], &[0x99], &n.to_be_bytes(), &vec![0x40; n.into()]].concat();
    assert!(Request::decode(&words(16_384)).is_ok());
    assert!(Request::decode(&words(16_385)).is_err());
    // The longest encoding: 131,072 bytes, of which 6 are not the word's.
    let longest = vec![vec![b'x'; limits::COMMAND - 6]];
    assert_eq!(
        request::encode_words(&longest).unwrap().len(),
        limits::COMMAND
    );
    assert!(request::encode_words(&[vec![b'x'; limits::COMMAND - 5]]).is_err());
    // 2,560 bytes fit into the request; one more is sent by digest.
    assert!(
        request::pack_words(vec![vec![b'x'; 2_556]])
            .unwrap()
            .1
            .is_none()
    );
    assert!(
        request::pack_words(vec![vec![b'x'; 2_557]])
            .unwrap()
            .1
            .is_some()
    );
}

#[test]
fn opening_and_proofs() {
    let file = load("opening");
    for vector in list(&file, "good") {
        let encoded = bytes(vector, "opening");
        let opening = Opening::decode(&encoded).unwrap();
        let hosts = opening.credential.hosts().unwrap();
        assert_eq!(hosts.caller, text(vector, "caller"));
        assert_eq!(hosts.server, text(vector, "server"));
        assert_eq!(opening.request, bytes(vector, "request"));
        assert_eq!(hosts.proof, array(vector, "client_proof"));
        assert_eq!(opening.encode().as_ref(), Ok(&encoded));
        proofs_match(vector, "client_key", "host_key");
    }
    for (list_of, credential, is_ours) in [
        ("password", Credential::Password, true),
        ("password_read", Credential::Password, false),
        ("machine", Credential::Machine, true),
        ("machine_read", Credential::Machine, false),
    ] {
        for vector in list(&file, list_of) {
            let (encoded, request) = (bytes(vector, "opening"), bytes(vector, "request"));
            let opening = Opening::decode(&encoded).unwrap();
            assert_eq!(opening.credential, credential);
            assert_eq!(opening.request, request);
            assert!(Request::decode(&request).is_ok());
            assert_eq!(opening.encode().as_ref() == Ok(&encoded), is_ours);
        }
    }
    refuses(list(&file, "bad"), |b| Opening::decode(b).is_ok());
}

/// Checks that both proofs match the vector, and that neither is valid as the other.
fn proofs_match(vector: &Value, client_key: &str, host_key: &str) {
    let cookie = Secret::new(array(vector, "cookie"));
    let (request, nonce) = (bytes(vector, "request"), array(vector, "nonce"));
    let claim = Claim {
        caller: text(vector, "caller"),
        server: text(vector, "server"),
        caller_key: &PublicKey(array(vector, client_key)),
        server_key: &PublicKey(array(vector, host_key)),
        nonce: &nonce,
        request: &request,
        voucher: None,
    };
    for (side, other, key) in [
        (Side::Client, Side::Server, "client_proof"),
        (Side::Server, Side::Client, "server_proof"),
    ] {
        let expected = array(vector, key);
        assert_eq!(proof::make(&cookie, side, &claim), Ok(expected));
        assert!(proof::verify(&cookie, side, &claim, &expected));
        assert!(!proof::verify(&cookie, other, &claim, &expected));
    }
}

#[test]
fn vouched_openings_and_their_proofs() {
    let file = load("vouch");
    for vector in list(&file, "good") {
        let encoded = bytes(vector, "opening");
        let opening = Opening::decode(&encoded).unwrap();
        assert_eq!(opening.encode().as_ref(), Ok(&encoded));
        let machine = PublicKey(array(vector, "machine_key"));
        assert!(matches!(opening.credential, Credential::Vouch(_, key) if key == machine));
        // Both sides compute the same secret.
        let agree = |private: &str, public: &str| {
            let shared = cosserver::curve::agree(&array(vector, private), &array(vector, public));
            Secret::new(*shared.unwrap())
        };
        let shared = agree("machine_private", "host_key");
        assert!(shared.same(&agree("host_private", "machine_key")));
        let (request, nonce) = (bytes(vector, "request"), array(vector, "nonce"));
        assert_eq!(opening.request, request);
        let claim = Claim {
            caller: text(vector, "caller"),
            server: text(vector, "server"),
            caller_key: &PublicKey(array(vector, "client_key")),
            server_key: &PublicKey(array(vector, "host_key")),
            nonce: &nonce,
            request: &request,
            voucher: Some(Voucher {
                machine: &machine,
                shared: &shared,
            }),
        };
        let cookie = Secret::new(array(vector, "cookie"));
        let made = |side| proof::make(&cookie, side, &claim);
        assert_eq!(made(Side::Client), Ok(array(vector, "client_proof")));
        assert_eq!(made(Side::Server), Ok(array(vector, "server_proof")));
        assert_eq!(
            opening.credential.hosts().unwrap().proof,
            array(vector, "client_proof")
        );
    }
    refuses(list(&file, "bad"), |b| Opening::decode(b).is_ok());
}

fn texts_of(value: &Value) -> Vec<Text> {
    let texts = value["texts"].as_array().unwrap().iter();
    let text = |pair: &Value| Text {
        style: Style::of(pair[0].as_u64().unwrap() as u8).unwrap(),
        words: pair[1].as_str().unwrap().to_owned(),
    };
    texts.map(text).collect()
}

fn asks_of(value: &Value) -> Asks {
    let number = value["by"].as_u64();
    number.map_or(Asks::Login, |n| Asks::of(n as u8).unwrap())
}

fn answer_of(value: &Value) -> Answer {
    match number(value, "status") {
        0 => Answer::Accept {
            proof: value["proof"].as_str().map(|_| array(value, "proof")),
            texts: texts_of(value),
        },
        1 => Answer::SendCommand,
        _ => Answer::Prompts {
            by: asks_of(value),
            texts: texts_of(value),
        },
    }
}

#[test]
fn answers_and_denied() {
    let file = load("answer");
    for vector in list(&file, "good") {
        let (payload, expected) = (bytes(vector, "payload"), answer_of(vector));
        assert_eq!(Answer::decode(&payload).as_ref(), Ok(&expected));
        assert_eq!(expected.encode(), Ok(payload));
    }
    for vector in list(&file, "read") {
        let payload = bytes(vector, "payload");
        assert_eq!(Answer::decode(&payload), Ok(answer_of(vector)));
    }
    refuses(list(&file, "bad"), |b| Answer::decode(b).is_ok());
    let reference = Reference(array(&file["denied"], "reference"));
    let denied = bytes(&file["denied"], "record");
    assert_eq!(answer::compose_denied(reference).as_ref(), Ok(&denied));
    let content = record::parse(&denied, &[Kind::Denied]).unwrap().content;
    assert_eq!(answer::parse_denied(content), Ok(reference));
    refuses(list(&file, "bad_denied_contents"), |b| {
        answer::parse_denied(b).is_ok()
    });
}

fn replies_of(value: &Value) -> Vec<Zeroizing<Vec<u8>>> {
    let replies = list(value, "answers").iter();
    let reply = |r: &Value| Zeroizing::new(unhex(r.as_str().unwrap()));
    replies.map(reply).collect()
}

#[test]
fn answers_to_prompts() {
    let file = load("answers");
    for (list_of, is_ours) in [("made_and_read", true), ("read", false)] {
        for vector in list(&file, list_of) {
            let (message, replies) = (bytes(vector, "message"), replies_of(vector));
            let read = Answers::decode(&message, replies.len()).unwrap();
            assert_eq!(read.all(), &replies);
            assert!(Answers::decode(&message, replies.len() + 1).is_err());
            let made = Answers::new(replies).unwrap().encode().unwrap();
            assert_eq!(*made == message, is_ours);
        }
    }
    // Regression: their lengths were not those of the page, and `cos` had others.
    for vector in list(&file, "padded") {
        let (message, replies) = (bytes(vector, "message"), replies_of(vector));
        let read = Answers::decode(&message, replies.len()).unwrap();
        assert_eq!(read.all(), &replies);
        let made = Answers::new(replies).unwrap().encode_padded().unwrap();
        assert_eq!(*made, message, "{}", text(vector, "name"));
    }
    for sample in list(&file, "bad") {
        let expected = number(sample, "expected") as usize;
        let read = Answers::decode(&bytes(sample, "bytes"), expected);
        assert!(read.is_err(), "taken: {sample}");
    }
}

/// Opens message 1 of the vector as the responder, and reads its contents.
fn open_message_1(vector: &Value) {
    let host = KeyPair::of(Secret::new(array(vector, "host_private")));
    assert_eq!(host.public.0, array(vector, "host_public"));
    let (hello, server_hello) = (bytes(vector, "hello"), bytes(vector, "server_hello"));
    let greeting = Hello::parse(&hello).unwrap();
    let answer = ServerHello::parse(&server_hello, &greeting).unwrap();
    assert_eq!(answer.suite, suite(vector));
    assert_eq!(answer.nonce, array(vector, "nonce"));

    let record = bytes(vector, "client_hello");
    let message = record::parse(&record, &[Kind::ClientHello])
        .unwrap()
        .content;
    assert_eq!(message, bytes(vector, "message_1"));
    let open = |host: &KeyPair, hello: &[u8], server_hello: &[u8], message: &[u8]| {
        Responder::open(
            suite(vector),
            host,
            hello,
            server_hello,
            message,
            Prepared::default(),
        )
    };
    let opened = open(&host, &hello, &server_hello, message).unwrap();
    assert_eq!(opened.machine.0, array(vector, "machine_public"));
    assert_eq!(*opened.payload, bytes(vector, "opening"));
    let opening = Opening::decode(&opened.payload).unwrap();
    assert_eq!(opening.request, bytes(vector, "request"));
    match opening.credential.hosts() {
        Some(hosts) => {
            assert_eq!(hosts.proof, array(vector, "client_proof"));
            proofs_match(vector, "machine_public", "host_public");
        }
        None => {
            let is_machine = vector["machine_id"].is_string();
            let password = [Credential::Password, Credential::Machine];
            assert_eq!(opening.credential, password[usize::from(is_machine)]);
        }
    }

    // A changed byte anywhere, or another host's key, prevents it from opening.
    for (i, whole) in [&hello[..], &server_hello, message].into_iter().enumerate() {
        for at in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] ^= 0x40;
            let mut parts = [&hello[..], &server_hello, message];
            parts[i] = &changed;
            let [hello, server_hello, message] = parts;
            assert!(
                open(&host, hello, server_hello, message).is_err(),
                "part {i}, byte {at}"
            );
        }
    }
    let other = KeyPair::of(Secret::new([1; 32]));
    assert!(open(&other, &hello, &server_hello, message).is_err());
}

/// Checks that the crate's handshake, as initiator and as responder, gives the bytes and keys of
/// the vectors, which the independent implementation made with the same ephemeral keys.
fn replay(vector: &Value) {
    let pair = |key: &str| KeyPair::of(Secret::new(array(vector, key)));
    let prepared = |key: &str| Prepared::new(Some(pair(key)), Arc::default());
    let prologue = bytes(vector, "prologue");
    let hello = prologue.strip_prefix(b"cosserver v1").unwrap();
    let mut initiator = Initiator::new(
        suite(vector),
        &pair("machine_private"),
        &PublicKey(array(vector, "host_public")),
        hello,
        b"",
        prepared("client_ephemeral_private"),
    )
    .unwrap();
    let message_1 = initiator.message_1(&bytes(vector, "opening")).unwrap();
    assert_eq!(message_1, bytes(vector, "message_1"));
    let opened = Responder::open(
        suite(vector),
        &pair("host_private"),
        hello,
        b"",
        &message_1,
        prepared("server_ephemeral_private"),
    )
    .unwrap_or_else(|m| panic!("{}", m.0));
    assert_eq!(*opened.payload, bytes(vector, "opening"));
    let answer = bytes(vector, "answer_payload");
    let (message_2, ours) = opened.responder.message_2(&answer).unwrap();
    assert_eq!(message_2, bytes(vector, "message_2"));
    let (payload, theirs) = initiator.read_2(&message_2).unwrap();
    assert_eq!(*payload, answer);
    let to_server = Secret::new(array(vector, "key_to_server"));
    let to_client = Secret::new(array(vector, "key_to_client"));
    for keys in [ours, theirs] {
        assert!(keys.to_server.key.same(&to_server) && keys.to_client.key.same(&to_client));
    }
}

fn direction(vector: &Value, key: &str, counter: u64) -> Direction {
    Direction {
        key: Secret::new(array(vector, key)),
        counter,
    }
}

/// Checks that a whole record after acceptance opens to this text, and is made of it.
fn sealed(sealer: &mut Sealer, opener: &mut Opener, text: &[u8], record: &[u8]) {
    assert_eq!(sealer.record(text).unwrap(), record);
    let head = [record[0], record[1]];
    let mut body = record[2..].to_vec();
    assert_eq!(
        record::body_length(head, limits::RECORD_BODY),
        Ok(body.len())
    );
    assert_eq!(opener.open(&mut body).unwrap(), text);
}

/// The prompts are over: both sides continue with this key.
fn next_key(sealer: &mut Sealer, opener: &mut Opener, key: [u8; 32]) {
    let key = Secret::new(key);
    assert!(sealer.successor().unwrap().key.same(&key));
    assert!(opener.successor().unwrap().key.same(&key));
    sealer.rekey().unwrap();
    opener.rekey().unwrap();
}

fn pair(vector: &Value, key: &str) -> (Sealer, Opener) {
    let from = direction(vector, key, 0);
    (
        Sealer::new(suite(vector), &from).unwrap(),
        Opener::new(suite(vector), &from).unwrap(),
    )
}

#[test]
fn handshake() {
    let file = load("handshake");
    let vectors = file.as_array().unwrap();
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        open_message_1(vector);
        replay(vector);
        let answer = bytes(vector, "answer");
        let content = record::parse(&answer, &[Kind::Answer]).unwrap().content;
        assert_eq!(content, bytes(vector, "message_2"));
        let accept = Answer::accept(array(vector, "server_proof"), Vec::new());
        assert_eq!(Answer::decode(&bytes(vector, "answer_payload")), Ok(accept));
        for (key, record, text) in [
            ("key_to_server", "first_to_server", &b"\x01\x00in"[..]),
            ("key_to_client", "first_to_client", b"\x01\x00out"),
        ] {
            let (mut sealer, mut opener) = pair(vector, key);
            sealed(&mut sealer, &mut opener, text, &bytes(vector, record));
        }
    }
}

#[test]
fn long_command() {
    let file = load("long_command");
    for vector in list(&file, "good") {
        open_message_1(vector);
        replay(vector);
        assert_eq!(
            Answer::decode(&bytes(vector, "answer_payload")),
            Ok(Answer::SendCommand)
        );
        let request = bytes(vector, "request");
        let Command::Follows { digest, length } = Request::decode(&request).unwrap().command else {
            panic!("the words are in the request");
        };
        assert_eq!(digest, array(vector, "digest"));
        assert_eq!(u64::from(length), number(vector, "length"));

        let words: Vec<Vec<u8>> = list(vector, "words")
            .iter()
            .map(|w| unhex(w.as_str().unwrap()))
            .collect();
        let encoding = bytes(vector, "encoding");
        assert_eq!(request::encode_words(&words).as_ref(), Ok(&encoding));
        assert_eq!(
            request::decode_words(&encoding, &digest).as_ref(),
            Ok(&words)
        );
        let (command, later) = request::pack_words(words).unwrap();
        assert_eq!(command, Command::Follows { digest, length });
        assert_eq!(later.as_ref(), Some(&encoding));

        let (mut sealer, mut opener) = pair(vector, "key_to_server");
        let mut arrived = Vec::new();
        for piece in list(vector, "pieces") {
            assert_eq!(
                opener.successor().unwrap().counter,
                number(piece, "counter")
            );
            let record = bytes(piece, "record");
            let mut body = record::parse(&record, &[Kind::Sealed])
                .unwrap()
                .content
                .to_vec();
            arrived.extend_from_slice(opener.open(&mut body).unwrap());
            let mut text = bytes(piece, "plaintext");
            let tag = sealer.seal(&mut text).unwrap();
            text.extend_from_slice(&tag);
            assert_eq!(record::compose(Kind::Sealed, &text), Ok(record));
        }
        assert_eq!(arrived, encoding);
        // The counters continue into the data, with the next keys.
        next_key(
            &mut sealer,
            &mut opener,
            array(vector, "next_key_to_server"),
        );
        sealed(
            &mut sealer,
            &mut opener,
            b"\x02\x00",
            &bytes(vector, "first_to_server"),
        );

        let (mut sealer, mut opener) = pair(vector, "key_to_client");
        let accept = bytes(vector, "accept");
        let mut body = record::parse(&accept, &[Kind::Sealed])
            .unwrap()
            .content
            .to_vec();
        let text = opener.open(&mut body).unwrap();
        assert_eq!(text, bytes(vector, "accept_plaintext"));
        let proof = array(vector, "server_proof");
        assert_eq!(Answer::decode(text), Ok(Answer::accept(proof, Vec::new())));
        sealer.record(text).unwrap();
        next_key(
            &mut sealer,
            &mut opener,
            array(vector, "next_key_to_client"),
        );
        sealed(
            &mut sealer,
            &mut opener,
            b"\x01\x00out",
            &bytes(vector, "first_to_client"),
        );
    }
    for good in list(&file, "with_variables") {
        let (encoding, digest) = (bytes(good, "encoding"), array(good, "digest"));
        let words: Vec<_> = list(good, "words").iter().map(hex).collect();
        // One has none.
        let environment: Vec<_> = good["environment"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap().to_owned(), hex(&pair[1])))
            .collect();
        let read = rest::unpack(&encoding, &digest).unwrap();
        assert_eq!(read, (words.clone(), environment.clone()));
    }
    let [first, ..] = list(&file, "with_variables") else {
        panic!("no variables");
    };
    let (words, environment) =
        rest::unpack(&bytes(first, "encoding"), &array(first, "digest")).unwrap();
    let packed = rest::pack(words, environment).unwrap();
    assert_eq!(packed.follows, Some(bytes(first, "encoding")));
    let bad = [
        list(&file, "bad_encodings"),
        list(&file, "bad_with_variables"),
    ];
    for bad in bad.into_iter().flatten() {
        let digest = array(bad, "digest");
        assert!(
            rest::unpack(&bytes(bad, "bytes"), &digest).is_err(),
            "taken: {bad}"
        );
    }
}

#[test]
fn login() {
    for vector in load("login").as_array().unwrap() {
        let request = Request::decode(&bytes(vector, "request")).unwrap();
        assert!(matches!(request.service, Service::Gui(_)));
        conversation(vector, [b"\x01\x00in", b"\x01\x00out"]);
    }
}

#[test]
fn enrol() {
    for vector in load("enrol").as_array().unwrap() {
        let request = Request::decode(&bytes(vector, "request")).unwrap();
        assert_eq!(request.service, Service::Enrol);
        let key = PublicKey(array(vector, "machine_public"));
        assert_eq!(
            cosserver::config::keys::fingerprint(&key),
            text(vector, "machine_id")
        );
        conversation(vector, [b"\x02\x00", b"\x06\x00\x00"]);
    }
}

/// Checks a handshake, the prompts and answers after it, and the first records then.
fn conversation(vector: &Value, first: [&[u8]; 2]) {
    open_message_1(vector);
    replay(vector);
    let mut asked = texts_of(vector);
    let prompts = Answer::Prompts {
        by: asks_of(vector),
        texts: asked.clone(),
    };
    assert_eq!(
        Answer::decode(&bytes(vector, "answer_payload")),
        Ok(prompts)
    );

    let mut to_server = pair(vector, "key_to_server");
    let mut to_client = pair(vector, "key_to_client");
    let mut last = None;
    for said in list(vector, "talk") {
        let by_client = text(said, "by") == "client";
        let (sealer, opener) = match by_client {
            true => &mut to_server,
            false => &mut to_client,
        };
        assert_eq!(opener.successor().unwrap().counter, number(said, "counter"));
        let record = bytes(said, "record");
        let envelope = record::parse(&record, &[Kind::Sealed]).unwrap();
        let mut body = envelope.content.to_vec();
        let plaintext = opener.open(&mut body).unwrap();
        assert_eq!(plaintext, bytes(said, "plaintext"));
        if by_client {
            let expected = asked.iter().filter(|t| t.style.is_prompt()).count();
            let read = Answers::decode(plaintext, expected).unwrap();
            assert_eq!(read.all(), &replies_of(said));
        } else {
            asked = texts_of(said);
            last = Some(Answer::decode(plaintext).unwrap());
        }
        let mut again = plaintext.to_vec();
        let tag = sealer.seal(&mut again).unwrap();
        again.extend_from_slice(&tag);
        assert_eq!(record::compose(Kind::Sealed, &again), Ok(record));
    }
    let told = Answer::Accept {
        proof: None,
        texts: asked,
    };
    assert_eq!(last, Some(told));
    // The counters continue into the data, with the next keys.
    for (ends, side, text) in [
        (&mut to_server, "to_server", first[0]),
        (&mut to_client, "to_client", first[1]),
    ] {
        let (sealer, opener) = ends;
        next_key(sealer, opener, array(vector, &format!("next_key_{side}")));
        sealed(
            sealer,
            opener,
            text,
            &bytes(vector, &format!("first_{side}")),
        );
    }
}

#[test]
fn sealed_records_over_the_border_of_a_key() {
    for case in load("sealed").as_array().unwrap() {
        let from = direction(case, "key", number(case, "counter"));
        let mut sealer = Sealer::new(suite(case), &from).unwrap();
        let mut opener = Opener::new(suite(case), &from).unwrap();
        for record in list(case, "records") {
            assert_eq!(
                sealer.successor().unwrap().counter,
                number(record, "counter")
            );
            let (text, whole) = (bytes(record, "plaintext"), bytes(record, "record"));
            sealed(&mut sealer, &mut opener, &text, &whole);
        }
    }
}

/// Returns the message that the vector describes.
fn message_of<'a>(vector: &Value, payload: &'a [u8]) -> Message<'a> {
    let second = number(vector, "second") as u8;
    let stream = match second {
        0 => Stream::Main,
        _ => Stream::Error,
    };
    match text(vector, "kind") {
        "data" => Message::Data(stream, payload),
        "eof" => Message::Eof(stream),
        "reset" => Message::Reset(stream),
        "credit" => Message::Credit(stream, number(vector, "bytes") as u32),
        "signal" => Message::Signal(Signal::of(second).unwrap()),
        "exited" => Message::End(End::Exited(number(vector, "number") as u8)),
        "killed" => Message::End(End::Killed(number(vector, "number") as u8)),
        "not_started" => Message::End(End::NotStarted(text(vector, "text").to_owned())),
        kind => panic!("kind {kind}"),
    }
}

#[test]
fn messages() {
    let file = load("messages");
    for vector in list(&file, "good") {
        let plaintext = bytes(vector, "plaintext");
        let payload = vector["payload"].as_str().map(unhex).unwrap_or_default();
        let expected = message_of(vector, &payload);
        assert_eq!(Message::parse(&plaintext).as_ref(), Ok(&expected));
        assert_eq!(expected.compose(), plaintext);
    }
    refuses(list(&file, "bad"), |b| Message::parse(b).is_ok());
}
