//! The documents and the code agree: the limits and times of the protocol, the tests that guard
//! against threats, links, versions, and the targets of `make`.

use crate::tree;

use std::fs;

use cosserver::config::settings::KEYS;
use cosserver::protocol::limits;
use tree::{Set, agree, files, relative, set, text};

/// Reads a document with each run of white space replaced by one space.
fn flat(path: &str) -> String {
    text(path).split_whitespace().collect::<Vec<_>>().join(" ")
}

// ---- the protocol ----

/// Formats a number as the page does: 65,535.
fn grouped_digits(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[test]
fn the_limits_of_the_protocol() {
    let page = flat("docs/PROTOCOL.md");
    // Each constant with the sentences of the page that state it; {} is its value.
    let said: &[(&str, u64, &[&str])] = &[
        (
            "LENGTH_BYTES",
            limits::LENGTH_BYTES as u64 * 8,
            &["a length of {} bits"],
        ),
        (
            "RECORD_BODY",
            limits::RECORD_BODY as u64,
            &["| accepted | data | data | {} |", "| running | data | {} |"],
        ),
        (
            "GREETING_BODY",
            limits::GREETING_BODY as u64,
            &[
                "ClientHello ({} at most)",
                "| greeted | ClientHello | {} |",
                "| asked for the command | Sealed | {} |",
                "| prompting | Sealed | {} |",
            ],
        ),
        (
            "HELLO_BODY",
            limits::HELLO_BODY as u64,
            &[
                "Hello (body of {} bytes at most)",
                "| accepted by TCP | Hello | {} |",
            ],
        ),
        (
            "SUITES_OFFERED",
            limits::SUITES_OFFERED as u64,
            &["array of 1 to {} unsigned"],
        ),
        (
            "TAG",
            limits::TAG as u64,
            &["ciphertext and {} bytes of tag"],
        ),
        (
            "NONCE",
            limits::NONCE as u64,
            &["| 3 | bytes, {} | the nonce"],
        ),
        (
            "REFERENCE",
            limits::REFERENCE as u64,
            &["a reference of {} bytes", "a random reference of {} bytes"],
        ),
        ("DATA_HEADER", limits::DATA_HEADER as u64, &[]),
        (
            "DATA_PAYLOAD",
            limits::DATA_PAYLOAD as u64,
            &["1 to {} bytes of the stream"],
        ),
        (
            "CREDIT",
            u64::from(limits::CREDIT),
            &["begins with {} bytes of credit"],
        ),
        (
            "CREDIT_MAX",
            u64::from(limits::CREDIT_MAX),
            &["after which more than {} bytes could be sent"],
        ),
        (
            "RECORDS_PER_KEY",
            limits::RECORDS_PER_KEY,
            &["multiple of {}, the direction's key is replaced"],
        ),
        (
            "COMMAND",
            limits::COMMAND as u64,
            &["the length of that encoding in bytes, 1 to {}"],
        ),
        (
            "COMMAND_IN_HELLO",
            limits::COMMAND_IN_HELLO as u64,
            &["longer than {} bytes"],
        ),
        (
            "COMMAND_PIECE",
            limits::COMMAND_PIECE as u64,
            &["pieces of 1 to {} bytes", "of {} bytes at most: | key"],
        ),
        (
            "ARGUMENTS",
            limits::ARGUMENTS as u64,
            &["array of 1 to {} byte strings"],
        ),
        ("NAME", limits::NAME as u64, &["text, 1 to {} bytes"]),
        (
            "FORMATS",
            limits::FORMATS as u64,
            &["array of 1 to {} texts"],
        ),
        (
            "SERVICE_NAME",
            limits::SERVICE_NAME as u64,
            &["its name, 1 to {} of the ASCII letters, digits and"],
        ),
        (
            "VARIABLES",
            limits::VARIABLES as u64,
            &["array of at most {} pairs"],
        ),
        (
            "VARIABLE_NAME",
            limits::VARIABLE_NAME as u64,
            &["1 to {} of the ASCII letters"],
        ),
        (
            "VARIABLES_IN_HELLO",
            limits::VARIABLES_IN_HELLO as u64,
            &["variables of at most {} bytes"],
        ),
        (
            "PROMPTS",
            limits::PROMPTS as u64,
            &[
                "array of at most {} texts, section 12",
                "array of at most {} byte strings | an answer",
            ],
        ),
        (
            "PROMPT",
            limits::PROMPT as u64,
            &["| words | text, at most {} bytes"],
        ),
        (
            "PROMPTS_BYTES",
            limits::PROMPTS_BYTES as u64,
            &["so that the words of one message have {} bytes at most"],
        ),
        (
            "REPLY",
            limits::REPLY as u64,
            &["in their order; each at most {} bytes, without NUL"],
        ),
        (
            "ANSWERS_PADDING",
            limits::ANSWERS_PADDING as u64,
            &["the map is the smallest multiple of {} bytes"],
        ),
        (
            "ROUNDS",
            limits::ROUNDS as u64,
            &["It asks {} times at most"],
        ),
        (
            "CBOR_DEPTH",
            limits::CBOR_DEPTH as u64,
            &["at most {} levels: the outermost item is level 1"],
        ),
        (
            "NOT_STARTED_TEXT",
            limits::NOT_STARTED_TEXT as u64,
            &["a text of at most {} bytes"],
        ),
        (
            "LINGER",
            limits::LINGER.into(),
            &["the quiet time before End (section 8), in seconds, at most {};"],
        ),
        (
            "UNTIL_CLOSED",
            limits::UNTIL_CLOSED.into(),
            &["or {}: until the outputs are closed"],
        ),
    ];
    for (name, value, sentences) in said {
        for sentence in *sentences {
            let (plain, grouped) = (
                sentence.replace("{}", &value.to_string()),
                sentence.replace("{}", &grouped_digits(*value)),
            );
            assert!(
                page.contains(&plain) || page.contains(&grouped),
                "PROTOCOL.md does not say {grouped:?} ({name})"
            );
        }
    }
    // The page states DATA_HEADER by the layout: type, one byte, then one byte.
    assert_eq!(limits::DATA_HEADER, 2);
    assert!(page.contains("The plaintext is type, one byte, then one byte, then the rest"));

    // The manual page has the most important ones too.
    let short = flat("docs/man/cosserver-protocol.7");
    for (value, sentence) in [
        (limits::GREETING_BODY as u64, "{} bytes in all at most"),
        (limits::HELLO_BODY as u64, "and {} for the hellos"),
        (limits::RECORD_BODY as u64, "of at most {} bytes. .Ss"),
        (limits::NONCE as u64, "3 a nonce of {} bytes"),
        (limits::REFERENCE as u64, "a reference of {} bytes"),
        (limits::CBOR_DEPTH as u64, "at most {} levels deep"),
        (
            limits::COMMAND_PIECE as u64,
            "in pieces of at most {} bytes",
        ),
        (limits::REPLY as u64, "a byte string of at most {} bytes"),
        (u64::from(limits::CREDIT), "has {} bytes of credit"),
        (u64::from(limits::CREDIT_MAX), "and {} at most"),
        (limits::RECORDS_PER_KEY, "is a multiple of {}, but 0"),
    ] {
        let sentence = sentence.replace("{}", &value.to_string());
        assert!(
            short.contains(&sentence),
            "cosserver-protocol(7) does not say {sentence:?}"
        );
    }

    let source = text("src/protocol/limits.rs");
    let constants = source
        .lines()
        .filter_map(|l| l.strip_prefix("pub const ")?.split(':').next());
    agree(
        &set(constants),
        &set(said.iter().map(|(name, ..)| *name)),
        "the limits that this test knows",
    );
}

/// Returns the seconds of a constant that is not a setting, from its source.
fn seconds(source: &str, constant: &str) -> String {
    let text = text(source);
    let start = format!("const {constant}: Duration = Duration::from_secs(");
    let (_, rest) = text
        .split_once(&start)
        .unwrap_or_else(|| panic!("{source} has no {constant} in seconds"));
    rest.split(')').next().unwrap().to_owned()
}

#[test]
fn the_times_of_the_protocol() {
    let page = flat("docs/PROTOCOL.md");
    let default = |table: &str, name: &str| {
        KEYS.iter()
            .find(|key| (key.table, key.name) == (table, name))
            .unwrap()
            .default
    };
    let sentences = [
        format!(
            "| accepted by TCP | Hello | 256 | {} s |",
            default("limits", "hello")
        ),
        format!(
            "| greeted | ClientHello | 4,096 | {} s",
            default("limits", "handshake")
        ),
        format!(
            "It leaves at the next multiple of {} seconds",
            default("daemon", "refusal-interval")
        ),
        format!(
            "| asked for the command | Sealed | 4,096 | {} s from its AuthContinue",
            default("limits", "handshake")
        ),
        format!(
            "| ended | the client to close | – | {} s | closed |",
            seconds("src/daemon/relay/lingering_close.rs", "LINGERING_CLOSE")
        ),
        format!(
            "a client SHOULD give up after some {} seconds without the answer",
            seconds("src/client/greet.rs", "ANSWER_WITHIN")
        ),
        format!(
            "once it has asked for `gui`, after some {}",
            seconds("src/client/greet.rs", "VERDICT_WITHIN")
        ),
        format!(
            "| prompting | Sealed | 4,096 | {} s from when the machine is admitted",
            default("login", "time")
        ),
        format!(
            "| prompting at the door | Sealed | 4,096 | {} s from its question",
            default("login", "time")
        ),
        format!(
            "| deciding on a login | nothing | – | {} s of PAM between two questions",
            default("login", "check")
        ),
        format!("KILL {} seconds later", default("exec", "hup-to-kill")),
        format!("port {} unless told otherwise", default("", "port")),
    ];
    for sentence in sentences {
        assert!(
            page.contains(&sentence),
            "PROTOCOL.md does not say {sentence:?}"
        );
    }
    let short = flat("docs/man/cosserver-protocol.7");
    for sentence in [
        format!("port {} unless told otherwise", default("", "port")),
        format!(
            "at the next multiple of {} seconds",
            default("daemon", "refusal-interval")
        ),
    ] {
        assert!(
            short.contains(&sentence),
            "cosserver-protocol(7) does not say {sentence:?}"
        );
    }
    let cos = flat("docs/man/cos.1");
    let reply = limits::REPLY;
    assert!(cos.contains(&format!("An answer has at most {reply} bytes.")));
    let arguments = limits::COMMAND_IN_HELLO;
    assert!(cos.contains(&format!("They have at most {arguments} bytes in all.")));
    let page = flat("docs/man/cosserver.8");
    let connecting = seconds("src/daemon/monitor/backends.rs", "LIMIT");
    let sentence = format!("Connecting may take {connecting} seconds for all addresses together.");
    assert!(page.contains(&sentence), "cosserver(8): {sentence:?}");
    assert!(cos.contains(&format!(
        ".Dv SIGKILL {} seconds later",
        default("exec", "hup-to-kill")
    )));
    assert!(cos.contains(&format!("else {}.", default("", "port"))));
}

// ---- the other documents ----

/// Regression: the page did not describe the card's format and checksum.
#[test]
fn card_of_the_protocol_page_round_trips_exactly() {
    use cosserver::config::card::Card;
    use sha2::Digest as _;
    let page = text("docs/PROTOCOL.md");
    let lines = page.lines().map(|l| l.strip_prefix("    "));
    let (mut card, mut inside) = (String::new(), false);
    for line in lines.flatten() {
        inside |= line.starts_with("-----BEGIN COSSERVER");
        if inside {
            card += line;
            card.push('\n');
        }
        inside &= !line.starts_with("-----END COSSERVER");
    }
    let read = Card::parse(card.as_bytes()).unwrap();
    assert_eq!(*read.print(), card);
    assert_eq!((read.addresses.len(), read.port), (2, 9002));
    // By the page's own rule.
    let between: Vec<&str> = card.lines().skip(1).collect();
    let covered: String = between[..6].iter().map(|l| format!("{l}\n")).collect();
    let sum = sha2::Sha256::digest(covered.as_bytes());
    let digits: String = sum[..4].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(between[6], format!("check: {digits}"));
    // Differences that the page ignores, and differences that it does not.
    let loose = format!(
        "Hello,\n\n{}\r\n\n{}bye\n",
        "-----BEGIN COSSERVER INVITATION-----",
        card.lines()
            .skip(1)
            .map(|l| match l.split_once(": ") {
                Some((name, value)) => format!(" {} :  {} \r\n", name.to_uppercase(), value),
                None => format!("{l}\n"),
            })
            .collect::<String>()
            .replace(",2001", " , 2001")
            .replace(":  9002", ":  09002")
            .replace(":  hosta", ":  HostA")
    );
    assert_eq!(*Card::parse(loose.as_bytes()).unwrap().print(), card);
    for wrong in [
        card.replace("9002", "9003"),
        card.replace("port: 9002\n", ""),
        card.replace("port: 9002\n", "port: 9002\nport: 9002\n"),
        card.replace("port: 9002\n", "port: 9002\nnote: x\n"),
        card.replace("port: 9002\n", "port: 0\n"),
        format!("{card}{card}"),
        format!("{card}{}", " ".repeat(65_536)),
    ] {
        assert!(Card::parse(wrong.as_bytes()).is_err(), "{wrong:.300}");
    }
    assert!(page.contains("more than 65,536 bytes") && page.contains("1 to 32 IP addresses"));
    let limits = (
        cosserver::config::card::TEXT_MAX,
        cosserver::config::card::ADDRESSES_MAX,
    );
    assert_eq!(limits, (65_536, 32));
}

#[test]
fn links_have_existing_targets() {
    let mut links = 0;
    for path in files()
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(path).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(
                path.parent().unwrap().join(target).exists(),
                "{}: {target} is not there",
                relative(path)
            );
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}

#[test]
fn tests_named_in_documents_exist() {
    for document in ["docs/THREATS.md", "docs/LESSONS.md"] {
        let mut named = 0;
        for (number, line) in (1..).zip(text(document).lines()) {
            let Some(row) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
                continue;
            };
            let guard = row.rsplit('|').next().unwrap();
            assert!(
                !guard.trim().is_empty(),
                "{document}:{number}: nothing guards this"
            );
            // `src/protocol/hello.rs` `a_test`, `another`; `tests/x.rs` `a_third`
            let mut file = None;
            for word in guard.split('`').skip(1).step_by(2) {
                if word.ends_with(".rs") || word.ends_with(".py") {
                    file = Some(text(word));
                } else if let Some(file) = &file {
                    let there = file.contains(&format!("fn {word}("))
                        || file.contains(&format!("def {word}("));
                    assert!(there, "{document}:{number}: there is no test {word}");
                    named += 1;
                }
            }
        }
        assert!(named > 10, "{document} names only {named} tests");
    }
}

#[test]
fn make_has_what_the_documents_name() {
    let makefile = text("Makefile");
    let mut named = 0;
    for document in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile"] {
        let page = text(document);
        // In the text as `make test`, in examples at the beginning of a line.
        for start in ["`make ", "\n    make ", "&& make ", "'make "] {
            for (at, _) in page.match_indices(start) {
                let rest = page[at + start.len()..].chars();
                let word: String = rest
                    .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                    .collect();
                let there = word.is_empty() || makefile.contains(&format!("\n{word}:"));
                assert!(there, "{document}: there is no `make {word}`");
                named += 1;
            }
        }
    }
    assert!(named > 10, "only {named} were found");
}

#[test]
fn fuzz_targets_are_built_and_documented() {
    let sources = files().into_iter().filter_map(|path| {
        let name = relative(&path).strip_prefix("fuzz/fuzz_targets/")?;
        Some(name.strip_suffix(".rs")?.to_owned())
    });
    let sources: Set = sources.collect();
    let built = text("fuzz/Cargo.toml");
    let built = built.lines().filter_map(|line| {
        let name = line.strip_prefix("name = \"")?.strip_suffix('"')?;
        (name != "cosserver-fuzz").then_some(name)
    });
    agree(&sources, &set(built), "fuzz/Cargo.toml");
    let told = text("fuzz/README.md");
    let told = told
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    agree(&sources, &set(told), "fuzz/README.md");
}

/// Under inetd the daemon itself does not limit the number of connections.
#[test]
fn xinetd_example_limits_connections() {
    let example = text("etc/xinetd");
    for (key, words) in [("instances", 1), ("per_source", 1), ("cps", 2)] {
        let line = example
            .lines()
            .find_map(|l| l.trim().strip_prefix(key)?.trim_start().strip_prefix('='));
        let numbers: Vec<&str> = line.unwrap().split_whitespace().collect();
        assert!(
            numbers.len() == words && numbers.iter().all(|n| n.parse::<u32>().is_ok()),
            "etc/xinetd, {key}: {numbers:?}"
        );
    }
}

#[test]
fn first_version_in_news_is_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let news = text("NEWS");
    let first = news
        .lines()
        .find(|l| l.chars().next().is_some_and(|c| c.is_ascii_digit()));
    assert_eq!(first, Some(version), "the first version in NEWS");
    let minor = version.rsplit_once('.').unwrap().0;
    assert!(
        text("SECURITY.md").contains(&format!("| {minor} | yes |")),
        "SECURITY.md does not support {minor}"
    );
}
