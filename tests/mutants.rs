//! Mutated messages: 262,144 deterministic mutants of every kind of message that a peer can send.
//! None may panic, hang or make memory grow; an accepted mutant must equal the output of its own
//! encoder, and no mutant of a sealed record may open. A mutant of a ClientHello costs a
//! Diffie-Hellman each: as many are tried only under COS_LONG, and otherwise 2,048 for each suite.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cosserver::protocol::answer::{self, Answer};
use cosserver::protocol::hello::{Hello, ServerHello, Suite};
use cosserver::protocol::name::is_service_name;
use cosserver::protocol::noise::{Direction, Initiator, Prepared, Responder};
use cosserver::protocol::opening::{Credential, Hosts, Opening};
use cosserver::protocol::prompt::{Answers, Asks, Style, Text};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{self, Command, Gui, Request, Service};
use cosserver::protocol::rest;
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::{End, Message, Signal, Stream};
use cosserver::protocol::{cbor, limits};
use cosserver::secret::{KeyPair, Secret};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// Mutants of each kind of message.
const MUTANTS: u32 = 262_144;

/// Returns the number of mutants of a ClientHello, for each suite.
fn opened_mutants() -> u32 {
    if std::env::var_os("COS_LONG").is_some() {
        MUTANTS
    } else {
        2048
    }
}

/// The most memory that any test here may take, KiB: the seeds, the harness, and a few messages at
/// a time.
const MEMORY: u64 = 64 * 1024;

/// Numbers that depend only on the message type's name (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn of(name: &str) -> Self {
        Self(
            name.bytes()
                .fold(7, |n: u64, b| n.wrapping_mul(31).wrapping_add(b.into())),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound.max(1)
    }

    /// Makes one to four changes. Bytes that have a meaning in CBOR or in the protocol's records
    /// are more frequent than others.
    fn mutate(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        const SPICE: &[u8] = &[
            0, 1, 2, 3, 6, 7, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1f, 0x20, 0x3b, 0x40, 0x58, 0x5b,
            0x5f, 0x60, 0x78, 0x7f, 0x80, 0x98, 0x9b, 0x9f, 0xa0, 0xb8, 0xbb, 0xbf, 0xc0, 0xf4,
            0xf5, 0xf6, 0xf9, 0xff,
        ];
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let spice = SPICE[self.below(SPICE.len())];
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(9) {
                _ if bytes.is_empty() => bytes.push(spice),
                0 => bytes[at] = spice,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = bytes[at].wrapping_add(if self.below(2) == 0 { 1 } else { 255 }),
                3 => bytes.insert(at, spice),
                4 => bytes.truncate(at),
                5 => drop(bytes.drain(at..end)),
                6 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                7 => {
                    let from = self.below(other.len());
                    let to = (from + self.below(32)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
                _ => bytes.extend((0..self.below(8)).map(|_| spice)),
            }
        }
        bytes
    }
}

/// Feeds the mutants of `seeds` to `read`, which returns whether it accepted one. Some must be
/// accepted and some rejected, or the mutants would show nothing.
fn feed(name: &str, seeds: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) {
    for seed in seeds {
        assert!(
            read(seed),
            "{name}: the seed itself is refused: {seed:02x?}"
        );
    }
    let taken = count(name, MUTANTS, seeds, read);
    assert!(taken < MUTANTS, "{name}: all taken");
    assert!(taken > 0, "{name}: none taken");
}

/// Returns how many of this many mutants `read` accepts.
fn count(name: &str, mutants: u32, seeds: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) -> u32 {
    let mut numbers = Numbers::of(name);
    let mut taken = 0;
    for _ in 0..mutants {
        let seed = &seeds[numbers.below(seeds.len())];
        let other = &seeds[numbers.below(seeds.len())];
        let mutant = numbers.mutate(seed, other);
        match catch_unwind(AssertUnwindSafe(|| read(&mutant))) {
            Ok(true) => taken += 1,
            Ok(false) => {}
            Err(_) => panic!("{name}: panic on {}", cosserver::secret::to_hex(&mutant)),
        }
    }
    memory_stays_small(name);
    taken
}

/// Checks the most memory that this process ever had, as the kernel reports it.
fn memory_stays_small(name: &str) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return;
    };
    let most = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let most: u64 = most
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(most < MEMORY, "{name}: memory grew to {most} KiB");
}

fn request(words: &[&[u8]]) -> Request {
    let words = words.iter().map(|w| w.to_vec()).collect();
    let environment = vec![
        ("LANG".to_owned(), b"C.UTF-8".to_vec()),
        ("LC_ALL".to_owned(), b"C".to_vec()),
    ];
    Request {
        service: Service::Exec,
        user: "root".to_owned(),
        caller_user: "alice".parse().unwrap(),
        command: request::pack_words(words).unwrap().0,
        environment,
        linger: Some(7),
    }
}

fn requests() -> Vec<Vec<u8>> {
    let words: &[&[u8]] = &[b"uptime"];
    let several: &[&[u8]] = &[b"printf", b"%s\n", b"", b"\xff"];
    let long: &[&[u8]] = &[&[b'x'; 3000]];
    let mut all = [words, several, long].map(request).to_vec();
    for (host, detach) in [(None, false), (Some("fe80::7%eth0"), true)] {
        all.push(Request {
            service: Service::Gui(Gui {
                host: host.map(str::to_owned),
                port: 9003,
                detach,
            }),
            ..request(several)
        });
    }
    all.push(Request {
        service: Service::Subsystem,
        ..request(&[b"sftp"])
    });
    all.push(Request {
        service: Service::Enrol,
        command: Command::Words(Vec::new()),
        environment: Vec::new(),
        ..request(words)
    });
    all.iter().map(|r| r.encode().unwrap()).collect()
}

fn opening(request: &[u8]) -> Vec<u8> {
    let (caller, server) = ("hosta".to_owned(), "hostb".to_owned());
    let proof = [9; 32];
    Opening {
        request,
        credential: Credential::Hash(Hosts {
            caller,
            server,
            proof,
        }),
    }
    .encode()
    .unwrap()
}

fn answers() -> Vec<Vec<u8>> {
    let text = |style, words: &str| Text {
        style,
        words: words.into(),
    };
    let told = vec![
        text(Style::Info, "Last login: never"),
        text(Style::Error, ""),
    ];
    let asked = vec![
        text(Style::Hidden, "Password: "),
        text(Style::Shown, "Code: "),
    ];
    let welcome = text(Style::Info, "Welcome");
    let name = text(Style::Shown, "Enter Your Name: ");
    let activation = text(Style::Hidden, "ACTIVATION password: ");
    let accept = |proof, texts| Answer::Accept { proof, texts };
    let prompts = |by, texts| Answer::Prompts { by, texts };
    [
        Answer::accept([5; 32], Vec::new()),
        Answer::SendCommand,
        accept(None, told.clone()),
        accept(Some([6; 32]), told.clone()),
        prompts(Asks::Login, asked.clone()),
        prompts(Asks::Login, [told, asked].concat()),
        prompts(Asks::Name, vec![welcome, name]),
        prompts(Asks::Activation, vec![activation]),
    ]
    .map(|a| a.encode().unwrap())
    .to_vec()
}

fn hello(wants_host_key: bool) -> Hello {
    Hello {
        version: 1,
        suites: vec![Suite::AesGcm, Suite::ChaChaPoly],
        wants_host_key,
    }
}

fn server_hello(host_key: bool) -> ServerHello {
    let key = KeyPair::of(Secret::new([3; 32])).public;
    ServerHello {
        version: 1,
        suite: Suite::AesGcm,
        nonce: [7; 32],
        greeting_limit: 4096,
        host_key: host_key.then_some(key),
    }
}

fn records(contents: &[Vec<u8>], kind: Kind) -> Vec<Vec<u8>> {
    contents
        .iter()
        .map(|c| record::compose(kind, c).unwrap())
        .collect()
}

#[test]
fn hellos() {
    let seeds = [false, true].map(|key| hello(key).compose().unwrap());
    feed("Hello", &seeds, |bytes| {
        let Ok(read) = Hello::parse(bytes) else {
            return false;
        };
        assert_eq!(Hello::parse(&read.compose().unwrap()), Ok(read));
        true
    });
}

#[test]
fn server_hellos() {
    let seeds = [false, true].map(|key| server_hello(key).compose().unwrap());
    feed("ServerHello", &seeds, |bytes| {
        let Ok(read) = ServerHello::parse(bytes, &hello(true)) else {
            return false;
        };
        assert_eq!(
            ServerHello::parse(&read.compose().unwrap(), &hello(true)),
            Ok(read)
        );
        true
    });
}

/// The whole envelope, for each kind that may be due.
#[test]
fn envelopes() {
    let (contents, due) = (requests(), [Kind::ClientHello, Kind::Sealed, Kind::Answer]);
    let seeds = due.map(|kind| records(&contents, kind)).concat();
    feed("envelope", &seeds, |bytes| {
        let Ok(read) = record::parse(bytes, &due) else {
            return false;
        };
        assert!(bytes.len() <= limits::LENGTH_BYTES + limits::GREETING_BODY);
        assert_eq!(record::compose(read.kind, read.content).unwrap(), bytes);
        true
    });
}

/// A ClientHello with a valid envelope must still open: no mutant does.
#[test]
fn client_hellos_do_not_open() {
    let (host, machine) = (
        KeyPair::of(Secret::new([1; 32])),
        KeyPair::of(Secret::new([2; 32])),
    );
    for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
        let mut initiator = Initiator::new(
            suite,
            &machine,
            &host.public,
            b"h",
            b"s",
            Prepared::default(),
        )
        .unwrap();
        let seed = initiator.message_1(&opening(&requests()[0])).unwrap();
        let open = |bytes: &[u8]| {
            Responder::open(suite, &host, b"h", b"s", bytes, Prepared::default()).is_ok()
        };
        assert!(open(&seed));
        let seeds = [seed.clone()];
        assert_eq!(
            count("message 1", opened_mutants(), &seeds, |bytes| {
                bytes != seed && open(bytes)
            }),
            0
        );
    }
}

#[test]
fn openings() {
    let mut seeds: Vec<Vec<u8>> = requests().iter().map(|r| opening(r)).collect();
    for credential in [Credential::Password, Credential::Machine] {
        seeds.extend(requests().iter().map(|request| {
            let opening = Opening {
                request,
                credential: credential.clone(),
            };
            opening.encode().unwrap()
        }));
    }
    feed("Opening", &seeds, |bytes| {
        let Ok(read) = Opening::decode(bytes) else {
            return false;
        };
        assert_eq!(Opening::decode(&read.encode().unwrap()).unwrap(), read);
        true
    });
}

#[test]
fn requests_in_openings() {
    feed("Request", &requests(), |bytes| {
        let Ok(read) = Request::decode(bytes) else {
            return false;
        };
        match &read.command {
            Command::Words(words) => {
                let least = usize::from(read.service != Service::Enrol);
                assert!((least..=limits::ARGUMENTS).contains(&words.len()));
                assert!(words.iter().all(|w| !w.contains(&0)));
                let is_name = |w: &Vec<u8>| is_service_name(w);
                let is_one = words.len() == 1 && words.iter().all(is_name);
                assert!(read.service != Service::Subsystem || is_one);
            }
            Command::Follows { length, .. } => {
                assert_eq!(read.service, Service::Exec);
                assert!((1..=limits::COMMAND).contains(&usize::try_from(*length).unwrap()));
            }
        }
        assert_eq!(Request::decode(&read.encode().unwrap()), Ok(read));
        true
    });
}

#[test]
fn long_commands() {
    let words = |n: usize| (0..n).map(|i| vec![b'a'; i % 60]).collect::<Vec<_>>();
    let seeds = [1, 3, 24, 100].map(|n| request::encode_words(&words(n)).unwrap());
    let with_variables = [1, 200].map(|n| {
        let environment = vec![
            ("A".to_owned(), vec![b'v'; 3_000]),
            ("B".to_owned(), Vec::new()),
        ];
        rest::pack(words(n), environment).unwrap().follows.unwrap()
    });
    feed(
        "command",
        &[&seeds[..], &with_variables].concat(),
        |bytes| {
            // As a peer can do: the announced digest is that of the data sent.
            let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes).into();
            if bytes.first().is_some_and(|b| b >> 5 == 5) {
                let Ok((words, environment)) = rest::unpack(bytes, &digest) else {
                    return false;
                };
                assert!(!words.is_empty() && words.len() <= limits::ARGUMENTS);
                assert!(
                    environment
                        .iter()
                        .all(|(n, v)| request::is_variable(n) && !v.contains(&0))
                );
                return true;
            }
            let Ok(read) = request::decode_words(bytes, &digest) else {
                return false;
            };
            assert_eq!(request::encode_words(&read).unwrap(), bytes);
            true
        },
    );
}

#[test]
fn answers_to_a_client() {
    feed("Answer", &answers(), |bytes| {
        let Ok(read) = Answer::decode(bytes) else {
            return false;
        };
        assert_eq!(Answer::decode(&read.encode().unwrap()), Ok(read));
        true
    });
}

#[test]
fn answers_to_prompts() {
    let seeds: [&[&[u8]]; 4] = [
        &[b"secret"],
        &[b"", b"4711"],
        &[&[b'x'; 300]],
        &[&b"a"[..]; 20],
    ];
    for seed in seeds {
        let replies = seed.iter().map(|a| a.to_vec().into()).collect();
        let seeds = [Answers::new(replies).unwrap().encode().unwrap().to_vec()];
        feed("Answers", &seeds, |bytes| {
            let Ok(read) = Answers::decode(bytes, seed.len()) else {
                return false;
            };
            assert_eq!(read.all().len(), seed.len());
            for reply in read.all() {
                assert!(reply.len() <= limits::REPLY && !reply.contains(&0));
            }
            let again = read.encode().unwrap();
            let again = Answers::decode(&again, seed.len()).unwrap();
            assert_eq!(again.all(), read.all());
            true
        });
    }
}

#[test]
fn denied() {
    let seeds = records(&[vec![1; 8], vec![0; 8]], Kind::Denied);
    feed("Denied", &seeds, |bytes| {
        let read = record::parse(bytes, &[Kind::Denied, Kind::Answer]);
        let Ok(reference) = read.and_then(|r| answer::parse_denied(r.content)) else {
            return false;
        };
        let back = answer::compose_denied(reference).unwrap();
        assert_eq!((&back[..6], &back[7..]), (&bytes[..6], &bytes[7..]));
        true
    });
}

#[test]
fn data_messages() {
    let data = [
        Message::Data(Stream::Main, b"some bytes of data"),
        Message::Data(Stream::Error, b"x"),
    ];
    let end = [
        Message::End(End::Exited(42)),
        Message::End(End::Killed(9)),
        Message::End(End::NotStarted("there is no such program".to_owned())),
    ];
    let kinds: [(&str, &[Message<'_>]); 6] = [
        ("Data", &data),
        (
            "Eof",
            &[Message::Eof(Stream::Main), Message::Eof(Stream::Error)],
        ),
        ("Reset", &[Message::Reset(Stream::Error)]),
        ("Credit", &[Message::Credit(Stream::Main, 262_144)]),
        ("Signal", &[Message::Signal(Signal::Terminate)]),
        ("End", &end),
    ];
    for (kind, messages) in kinds {
        let seeds: Vec<Vec<u8>> = messages.iter().map(Message::compose).collect();
        feed(kind, &seeds, |bytes| {
            let Ok(read) = Message::parse(bytes) else {
                return false;
            };
            assert_eq!(read.compose(), bytes);
            true
        });
    }
}

/// No mutant of a sealed record opens, whatever its length field.
#[test]
fn sealed_records() {
    for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
        let from = || Direction {
            key: Secret::new([8; 32]),
            counter: 5,
        };
        let seal = |text: &[u8]| Sealer::new(suite, &from()).unwrap().record(text).unwrap();
        let seeds = [seal(b"\x01\x00x"), seal(&[1; 300]), seal(b"\x02\x00")];
        let opens = |bytes: &[u8]| {
            let Some((head, rest)) = bytes.split_first_chunk() else {
                return false;
            };
            let Ok(length) = record::body_length(*head, limits::RECORD_BODY) else {
                return false;
            };
            let Some(body) = rest.get(..length) else {
                return false;
            };
            Opener::new(suite, &from())
                .unwrap()
                .open(&mut body.to_vec())
                .is_ok()
        };
        assert!(seeds.iter().all(|s| opens(s)));
        // Additional data after a whole record belongs to the next record.
        let forged = |bytes: &[u8]| opens(bytes) && !seeds.iter().any(|s| bytes.starts_with(s));
        assert_eq!(count("sealed record", MUTANTS, &seeds, forged), 0);
    }
}

/// CBOR that passes the check of the canonical form is written the same by another encoder.
#[test]
fn canonical_cbor() {
    let unknown = b"\xa3\x01\x82\xf5\x20\x18\x63\x61x\x61y\xa1\x62ab\x42\x00\x01";
    let mut seeds = [
        requests(),
        answers(),
        vec![unknown.to_vec(), b"\x80".to_vec()],
    ]
    .concat();
    seeds.push(opening(&requests()[1]));
    feed("CBOR", &seeds, |bytes| {
        if cbor::check(bytes).is_err() {
            return false;
        }
        let (mut decoder, mut encoder) = (Decoder::new(bytes), Encoder::new(Vec::new()));
        again(&mut decoder, &mut encoder);
        assert_eq!(encoder.into_writer(), bytes);
        true
    });
}

fn again(d: &mut Decoder<'_>, e: &mut Encoder<Vec<u8>>) {
    use Type::{Array, Bool, Bytes, I8, I16, I32, I64, Int, Map, String, U8, U16, U32, U64};
    let kind = d.datatype().unwrap();
    let items = match kind {
        Array => d.array().unwrap().unwrap(),
        Map => d.map().unwrap().unwrap(),
        _ => 0,
    };
    let written = match kind {
        Bool => e.bool(d.bool().unwrap()),
        U8 | U16 | U32 | U64 => e.u64(d.u64().unwrap()),
        I8 | I16 | I32 | I64 | Int => e.int(d.int().unwrap()),
        Bytes => e.bytes(d.bytes().unwrap()),
        String => e.str(d.str().unwrap()),
        Array => e.array(items),
        Map => e.map(items),
        _ => panic!("taken: {kind:?}"),
    };
    written.unwrap();
    for _ in 0..if kind == Map { items * 2 } else { items } {
        again(d, e);
    }
}
