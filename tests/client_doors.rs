//! `cos enrol`, and what the inner door asks of every subcommand: hosts simulated by the test send
//! the prompts, and the test checks who answers. Also `cos key show`.

#[cfg(test)]
use crate::client_host;
use crate::daemon;
use crate::seat;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use cosserver::config::keys;
use cosserver::protocol::answer::Answer;
use cosserver::protocol::hello::{Hello, ServerHello};
use cosserver::protocol::limits;
use cosserver::protocol::noise::{Prepared, Responder};
use cosserver::protocol::opening::{Credential, Opening};
use cosserver::protocol::prompt::{Answers, Asks, Style, Text};
use cosserver::protocol::proof::{self, Claim, Side};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{Command as Words, Request, Service};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::{End, Message, Stream};
use cosserver::secret::random;

use client_host::{Host, deny, gone, script, whole_record};
use daemon::session::{Ended, Session};
use daemon::{COS, until};
use seat::Seat;

/// Longer than anything in these tests takes; a process that hangs fails the test.
const HANGS: Duration = Duration::from_secs(60);

const REGISTRATION: &str = "Welcome to the Authorization Registration";
const NAME: &str = "Enter Your Name: ";
const ACTIVATION: &str = "Please enter your ACTIVATION password: ";

/// A client that has sent a request to the simulated host.
struct Called {
    socket: TcpStream,
    responder: Option<Responder>,
    keys: Option<(Sealer, Opener)>,
    credential: Credential,
    request: Request,
    proof: Option<[u8; 32]>,
    talked: bool,
}

impl Called {
    /// Waits for the next client, and reads its request.
    fn take(host: &Host) -> Self {
        host.listener.set_nonblocking(true).unwrap();
        let mut came = None;
        until("the client connects", || {
            came = host.listener.accept().ok();
            came.is_some()
        });
        let (mut socket, _) = came.unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(HANGS)).unwrap();
        let hello = whole_record(&mut socket);
        let said = Hello::parse(&hello).unwrap();
        let ours = ServerHello {
            version: 1,
            suite: said.suites[0],
            nonce: random().unwrap(),
            greeting_limit: 4096,
            host_key: said.wants_host_key.then_some(host.key.public),
        };
        let record = ours.compose().unwrap();
        socket.write_all(&record).unwrap();
        let asked = whole_record(&mut socket);
        let message = record::parse(&asked, &[Kind::ClientHello]).unwrap().content;
        let prepared = Prepared::default();
        let opened = Responder::open(ours.suite, &host.key, &hello, &record, message, prepared);
        let opened = opened.unwrap();
        let opening = Opening::decode(&opened.payload).unwrap();
        let proof = opening.credential.hosts().map(|hosts| {
            let claim = Claim {
                caller: &hosts.caller,
                server: &hosts.server,
                caller_key: &opened.machine,
                server_key: &host.key.public,
                nonce: &ours.nonce,
                request: opening.request,
                voucher: None,
            };
            proof::make(&host.cookie, Side::Server, &claim).unwrap()
        });
        Self {
            socket,
            responder: Some(opened.responder),
            keys: None,
            credential: opening.credential.clone(),
            request: Request::decode(opening.request).unwrap(),
            proof,
            talked: false,
        }
    }

    /// Sends message 2 with this answer, or a sealed record.
    fn says(&mut self, answer: &Answer) {
        let payload = answer.encode().unwrap();
        let record = match (self.responder.take(), &mut self.keys) {
            (Some(responder), _) => {
                let (message, keys) = responder.message_2(&payload).unwrap();
                let sealer = Sealer::new(keys.suite, &keys.to_client).unwrap();
                let opener = Opener::new(keys.suite, &keys.to_server).unwrap();
                self.keys = Some((sealer, opener));
                record::compose(Kind::Answer, &message).unwrap()
            }
            (None, Some((sealer, _))) => {
                let mut text = payload;
                let tag = sealer.seal(&mut text).unwrap();
                text.extend_from_slice(&tag);
                record::compose(Kind::Sealed, &text).unwrap()
            }
            (None, None) => panic!("nothing to say it with"),
        };
        self.socket.write_all(&record).unwrap();
    }

    fn asks(&mut self, by: Asks, texts: &[(Style, &str)]) {
        let texts = texts.iter().map(|(style, words)| text(*style, words));
        let texts = texts.collect();
        self.says(&Answer::Prompts { by, texts });
    }

    fn asks_name(&mut self) {
        self.asks(
            Asks::Name,
            &[(Style::Info, REGISTRATION), (Style::Shown, NAME)],
        );
    }

    fn asks_activation(&mut self) {
        let told = (Style::Info, "You have not been authorized");
        self.asks(Asks::Activation, &[told, (Style::Hidden, ACTIVATION)]);
    }

    /// Returns the next record's text.
    fn receives(&mut self) -> Vec<u8> {
        let record = whole_record(&mut self.socket);
        let sealed = record::parse(&record, &[Kind::Sealed]).unwrap();
        let mut text = sealed.content.to_vec();
        let (_, opener) = self.keys.as_mut().unwrap();
        let text = opener.open(&mut text).unwrap().to_vec();
        self.talked = true;
        text
    }

    /// Returns the single answer.
    fn answer(&mut self) -> String {
        let text = self.receives();
        let answers = Answers::decode(&text, 1).unwrap();
        String::from_utf8(answers.all()[0].to_vec()).unwrap()
    }

    /// Sends AuthAccept with these texts, and ends the session.
    fn accepts(mut self, texts: &[(Style, &str)]) {
        let texts = texts.iter().map(|(style, words)| text(*style, words));
        let (proof, texts) = (self.proof, texts.collect());
        self.says(&Answer::Accept { proof, texts });
        let (mut sealer, _) = self.keys.unwrap();
        if self.talked {
            sealer.rekey().unwrap();
        }
        let ends = [
            Message::Eof(Stream::Main),
            Message::Eof(Stream::Error),
            Message::End(End::Exited(0)),
        ];
        for message in ends {
            let record = sealer.record(&message.compose()).unwrap();
            self.socket.write_all(&record).unwrap();
        }
        gone(&mut self.socket);
    }

    fn denies(mut self) {
        deny(&mut self.socket);
        gone(&mut self.socket);
    }

    /// Checks that the client hangs up without sending anything else.
    fn leaves(mut self) {
        let mut rest = Vec::new();
        let _ = self.socket.read_to_end(&mut rest);
        assert_eq!(rest.len(), 0, "something was sent");
    }
}

fn text(style: Style, words: &str) -> Text {
    Text {
        style,
        words: words.to_owned(),
    }
}

/// Creates `cos WORDS…` with the host's directory, and nothing of this test's environment.
fn cos(host: &Host, words: &[&str]) -> Command {
    let mut command = Command::new(COS);
    command.arg("-C").arg(&host.folder).args(words);
    for name in ["GUI_HOST", "GUI_PORT", "COS_ASKPASS", "COS_CONFIG_DIR"] {
        command.env_remove(name);
    }
    command
}

/// Creates the same without a terminal.
fn without_terminal(host: &Host, words: &[&str]) -> Command {
    let inner = cos(host, words);
    let mut command = Command::new("setsid");
    command
        .arg("--wait")
        .arg(inner.get_program())
        .args(inner.get_args());
    for name in ["GUI_HOST", "GUI_PORT", "COS_ASKPASS", "COS_CONFIG_DIR"] {
        command.env_remove(name);
    }
    command
}

fn id(host: &Host) -> String {
    let key = keys::load_machine_key(&host.paths).unwrap();
    keys::fingerprint(&key.public)
}

/// Checks that the status is 255, and that its one line contains this text.
fn failed(ended: &Ended, words: &str) {
    assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
    // The line of the failure, which a remedy of two lines may follow.
    let is_it = |line: &String| line.starts_with("cos: hostb: ") && line.contains(words);
    assert!(ended.err.iter().rev().take(3).any(is_it), "{ended:?}");
}

#[test]
fn a_machine_is_registered_by_the_name_of_the_command_line() {
    let host = Host::new();
    let client = Session::spawn(&mut without_terminal(
        &host,
        &["enrol", "--name", "PC 17", "hostb"],
    ));
    let mut called = Called::take(&host);
    assert_eq!(called.credential, Credential::Machine);
    assert_eq!(called.request.service, Service::Enrol);
    assert_eq!(called.request.command, Words::Words(Vec::new()));
    assert_eq!(called.request.user, called.request.caller_user.as_str());
    called.asks_name();
    assert_eq!(called.answer(), "PC 17");
    called.accepts(&[(Style::Info, "Welcome, PC\u{1b}[2J 17")]);
    let ended = client.finish();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(
        ended.out,
        [format!("hostb has registered this machine: {}", id(&host))]
    );
    assert_eq!(ended.err, ["Welcome, PC?[2J 17"]);
}

#[test]
fn allowed_machine_is_not_prompted() {
    let host = Host::new();
    let client = Session::spawn(&mut without_terminal(&host, &["enrol", "hostb", "-v"]));
    Called::take(&host).accepts(&[]);
    let ended = client.finish();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let id = id(&host);
    assert_eq!(
        ended.out,
        [format!("hostb already allows this machine: {id}")]
    );
    let step = format!("the ID of this machine is {id}");
    assert!(ended.err.iter().any(|l| l.ends_with(&step)), "{ended:?}");
}

/// Step 8 of the seed.
#[test]
fn user_types_a_machine_name_and_confirms_it() {
    let host = Host::new();
    let mut seat = Seat::take(&cos(&host, &["enrol", "hostb"]));
    let mut called = Called::take(&host);
    called.asks_name();
    for (name, correct) in [
        (&b"J\xff\n"[..], None),
        (b"\n", None),
        (b"Jo\n", Some(b"N\n")),
    ] {
        seat.sees(&format!("hostb: {NAME}"));
        seat.seen.clear();
        seat.types(name);
        if let Some(answer) = correct {
            seat.sees("Correct? (Y/N) ");
            seat.types(b"perhaps\n");
            seat.seen.clear();
            seat.sees("Correct? (Y/N) ");
            seat.types(answer);
        } else {
            seat.sees("is not valid: ");
        }
    }
    seat.sees(&format!("hostb: {NAME}"));
    seat.seen.clear();
    seat.types(b"  Joan \n");
    seat.sees("Correct? (Y/N) ");
    seat.types(b"Y\n");
    assert_eq!(called.answer(), "Joan");
    called.accepts(&[]);
    let ended = seat.ends();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(ended.err, [REGISTRATION]);
}

#[test]
fn activation_password_comes_from_a_descriptor_a_program_or_a_terminal() {
    let host = Host::new();
    let registered = |ended: Ended| {
        assert_eq!(ended.status, Some(0), "{ended:?}");
        assert!(
            ended.out[0].starts_with("hostb has registered this machine: "),
            "{ended:?}"
        );
    };
    let mut client = Session::spawn(&mut without_terminal(
        &host,
        &["enrol", "--password-fd", "0", "hostb"],
    ));
    client.say("1234-5678");
    client.say("the next line");
    let mut called = Called::take(&host);
    called.asks_activation();
    assert_eq!(called.answer(), "1234-5678");
    called.accepts(&[]);
    registered(client.finish());

    let program = script(
        &host.folder,
        "askpass",
        "#!/bin/sh\necho \"$1\" | wc -c; exit 0",
    );
    let mut command = without_terminal(&host, &["enrol", "hostb"]);
    let client = Session::spawn(command.env("COS_ASKPASS", &program));
    let mut called = Called::take(&host);
    called.asks_activation();
    let prompt = format!("hostb: {ACTIVATION}\n");
    assert_eq!(called.answer().trim(), prompt.len().to_string());
    called.accepts(&[]);
    registered(client.finish());

    let mut seat = Seat::take(&cos(&host, &["enrol", "hostb"]));
    let mut called = Called::take(&host);
    called.asks_activation();
    seat.sees(&format!("hostb: {ACTIVATION}"));
    seat.types_unseen(b"1234-5678\n");
    assert_eq!(called.answer(), "1234-5678");
    called.accepts(&[]);
    assert!(!seat.seen.contains("1234"));
    registered(seat.ends());

    // An empty password is a guess that cannot be right.
    let mut client = Session::spawn(&mut without_terminal(
        &host,
        &["enrol", "--password-fd", "0", "hostb"],
    ));
    client.say("");
    let mut called = Called::take(&host);
    called.asks_activation();
    called.leaves();
    failed(&client.finish(), "the activation password is empty");
}

/// A script that gives an activation password has not given a name.
#[test]
fn a_name_is_no_line_of_the_descriptor() {
    let host = Host::new();
    for flags in [&["--password-fd", "0"][..], &["-o", "BatchMode=yes"], &[]] {
        let words = [&["enrol"][..], flags, &["hostb"]].concat();
        let mut client = Session::spawn(&mut without_terminal(&host, &words));
        client.say("1234-5678");
        let mut called = Called::take(&host);
        called.asks_name();
        called.leaves();
        failed(&client.finish(), "give --name NAME");
    }
}

#[test]
fn denied_machine_sees_possible_causes() {
    let host = Host::new();
    let enrol = || {
        Session::spawn(&mut without_terminal(
            &host,
            &["enrol", "--name", "PC", "--password-fd", "0", "hostb"],
        ))
    };
    let reference = "access denied (reference abababababababab)";
    let client = enrol();
    Called::take(&host).denies();
    let ended = client.finish();
    let lets_in = |ended: &Ended| {
        failed(ended, reference);
        // The machine may be authorized, and PAM or an exclusion the reason.
        let log = "cos: to see why, run on hostb: journalctl -t cosserver | grep abababababababab \
                   (without systemd: grep abababababababab /var/log/auth.log)"
            .to_owned();
        let command = format!(
            "cos: if the log says unknown-machine: cosadm machine add {} --name NAME",
            id(&host)
        );
        assert!(ended.err.ends_with(&[log, command]), "{ended:?}");
    };
    lets_in(&ended);
    let client = Session::spawn(&mut without_terminal(&host, &["gui", "hostb", "hello"]));
    Called::take(&host).denies();
    let ended = client.finish();
    lets_in(&ended);
    for is_name in [true, false] {
        let mut client = enrol();
        client.say("1234-5678");
        let mut called = Called::take(&host);
        if is_name {
            called.asks_name();
        } else {
            called.asks_activation();
        }
        called.answer();
        called.denies();
        let ended = client.finish();
        // Then the manager decides on the name.
        let is_told = |l: &String| l.starts_with("cos: hostb: --name is not used: ");
        assert_eq!(ended.err.iter().any(is_told), !is_name, "{ended:?}");
        let words = if is_name {
            "the name was not accepted"
        } else {
            "the activation password was not accepted"
        };
        failed(&ended, &format!("{reference}: {words}"));
    }
}

/// What a script has prepared for its login is not used here.
#[test]
fn script_gets_no_registration_prompt() {
    let host = Host::new();
    let program = script(
        &host.folder,
        "askpass",
        "#!/bin/sh\necho asked > \"$0.asked\"; echo secret",
    );
    for words in [
        &["gui", "--password-fd", "0", "hostb", "hello"][..],
        &["gui", "hostb", "hello"],
        &["run", "hostb", "true"],
        &["run", "-o", "BatchMode=yes", "hostb", "true"],
    ] {
        for is_name in [true, false] {
            let mut command = without_terminal(&host, words);
            let mut client = Session::spawn(command.env("COS_ASKPASS", &program));
            let _ = client.stdin.as_mut().unwrap().write_all(b"secret\nmore\n");
            let mut called = Called::take(&host);
            if is_name {
                called.asks_name();
            } else {
                called.asks_activation();
            }
            called.leaves();
            failed(
                &client.finish(),
                &format!(
                    "this machine is not known to hostb; `cos -C {} enrol hostb` first",
                    host.folder.display()
                ),
            );
        }
    }
    assert!(!host.folder.join("askpass.asked").exists());
    // Nor is a user prompted who has named a source of the answers, or said that no user is
    // present.
    for words in [
        &["gui", "--password-fd", "0", "hostb", "hello"][..],
        &["run", "-o", "BatchMode=yes", "hostb", "true"],
    ] {
        let seat = Seat::take(&cos(&host, words));
        let mut called = Called::take(&host);
        called.asks_activation();
        called.leaves();
        failed(&seat.ends(), "this machine is not known to hostb");
    }
}

/// First the inner door, then PAM, each with its own answer.
#[test]
fn user_at_a_terminal_answers_registration_then_pam() {
    let host = Host::new();
    let mut seat = Seat::take(&cos(&host, &["gui", "-l", "alice", "hostb", "hello"]));
    let mut called = Called::take(&host);
    assert_eq!(called.credential, Credential::Password);
    called.asks_activation();
    seat.sees(&format!("hostb: {ACTIVATION}"));
    seat.types_unseen(b"1234-5678\n");
    assert_eq!(called.answer(), "1234-5678");
    called.asks(Asks::Login, &[(Style::Hidden, "Password: ")]);
    seat.sees("alice@hostb: Password: ");
    seat.types_unseen(b"secret\n");
    assert_eq!(called.answer(), "secret");
    called.accepts(&[(Style::Info, "welcome")]);
    let ended = seat.ends();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(ended.err.last().map(String::as_str), Some("welcome"));
}

/// A user at a prompt is told when the host has gone, whatever prompted and whatever is half typed.
#[test]
fn user_at_a_prompt_sees_that_the_host_hung_up() {
    let host = Host::new();
    let gui = &["gui", "-l", "alice", "hostb", "hello"][..];
    let enrol = &["enrol", "hostb"][..];
    let closed = "closed the connection instead of going on";
    for (words, by, style, prompt) in [
        (gui, Asks::Login, Style::Hidden, "Password: "),
        (gui, Asks::Login, Style::Shown, "Code: "),
        (gui, Asks::Activation, Style::Hidden, ACTIVATION),
        (enrol, Asks::Activation, Style::Hidden, ACTIVATION),
        (enrol, Asks::Name, Style::Shown, NAME),
    ] {
        for is_denied in [false, true] {
            let mut seat = Seat::take(&cos(&host, words));
            let mut called = Called::take(&host);
            called.asks(by, &[(style, prompt)]);
            seat.sees(prompt);
            if style == Style::Hidden {
                seat.types_unseen(b"half");
            } else {
                seat.types(b"half");
                seat.sees("half");
            }
            let told = if is_denied {
                called.denies();
                "access denied (reference abababababababab): it did not wait for the answer"
            } else {
                drop(called);
                closed
            };
            failed(&seat.ends(), told);
        }
    }
    let mut seat = Seat::take(&cos(&host, enrol));
    let mut called = Called::take(&host);
    called.asks_name();
    seat.sees(NAME);
    seat.types(b"Joan\n");
    seat.sees("Correct? (Y/N) ");
    drop(called);
    failed(&seat.ends(), closed);
}

/// Also before the host asks for the rest of a command.
#[test]
fn user_answers_registration_for_a_command() {
    let host = Host::new();
    let long = "x".repeat(limits::COMMAND_IN_HELLO);
    let mut seat = Seat::take(&cos(&host, &["run", "hostb", "true", &long]));
    let mut called = Called::take(&host);
    assert!(matches!(called.credential, Credential::Hash(_)));
    called.asks_name();
    seat.sees(&format!("hostb: {NAME}"));
    seat.types(b"Joan\n");
    seat.sees("Correct? (Y/N) ");
    seat.types(b"y\n");
    assert_eq!(called.answer(), "Joan");
    called.says(&Answer::SendCommand);
    assert!(called.receives().len() > limits::COMMAND_IN_HELLO);
    called.accepts(&[]);
    let ended = seat.ends();
    assert_eq!(ended.status, Some(0), "{ended:?}");

    // After a denial it does not connect again with another cookie.
    host.cookies(&[host.cookie.clone(), host.cookie.clone()]);
    let mut seat = Seat::take(&cos(&host, &["run", "hostb", "true"]));
    let mut called = Called::take(&host);
    called.asks_activation();
    seat.sees(ACTIVATION);
    seat.types_unseen(b"wrong\n");
    assert_eq!(called.answer(), "wrong");
    called.denies();
    failed(&seat.ends(), "the activation password was not accepted");
}

#[test]
fn prompt_out_of_order_gets_no_answer() {
    let host = Host::new();
    let told = "it asks for answers out of turn";
    let enrol = ["enrol", "--name", "PC", "--password-fd", "0", "hostb"];
    let start = |words: &[&str]| {
        let mut client = Session::spawn(&mut without_terminal(&host, words));
        let _ = client.stdin.as_mut().unwrap().write_all(b"secret\nmore\n");
        client
    };
    // The inner door, twice.
    let client = start(&enrol);
    let mut called = Called::take(&host);
    called.asks_name();
    called.answer();
    called.asks_activation();
    called.leaves();
    failed(&client.finish(), told);
    // PAM, where no login takes place.
    for words in [&enrol[..], &["run", "hostb", "true"]] {
        let client = start(words);
        let mut called = Called::take(&host);
        called.asks(Asks::Login, &[(Style::Hidden, "Password: ")]);
        called.leaves();
        failed(&client.finish(), told);
    }
    // The inner door after PAM.
    let client = start(&["gui", "--password-fd", "0", "hostb", "hello"]);
    let mut called = Called::take(&host);
    called.asks(Asks::Login, &[(Style::Hidden, "Password: ")]);
    assert_eq!(called.answer(), "secret");
    called.asks_activation();
    called.leaves();
    failed(&client.finish(), told);
    // The inner door after the rest of a command.
    let long = "x".repeat(limits::COMMAND_IN_HELLO);
    let mut seat = Seat::take(&cos(&host, &["run", "hostb", "true", &long]));
    let mut called = Called::take(&host);
    called.says(&Answer::SendCommand);
    called.receives();
    called.asks_name();
    called.leaves();
    seat.types(b"\n");
    failed(&seat.ends(), told);
}

/// A script's standard error contains only what its command writes.
#[test]
fn welcome_is_shown_only_to_interactive_or_verbose_calls() {
    let host = Host::new();
    let welcome = [(Style::Info, "Welcome to hostb")];
    for (words, is_told) in [
        (&["run", "hostb", "true"][..], false),
        (&["run", "-v", "hostb", "true"], true),
        (&["gui", "--password-fd", "0", "hostb", "hello"], true),
    ] {
        let client = Session::spawn(&mut without_terminal(&host, words));
        Called::take(&host).accepts(&welcome);
        let ended = client.finish();
        assert_eq!(ended.status, Some(0), "{ended:?}");
        let told = ended.err.iter().any(|l| l == "Welcome to hostb");
        assert_eq!(told, is_told, "{ended:?}");
    }
    // At a terminal the welcome is shown there.
    let inner = cos(&host, &["run", "hostb", "true"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>/dev/tty", "sh"]);
    shell.arg(inner.get_program()).args(inner.get_args());
    let mut seat = Seat::take(&shell);
    Called::take(&host).accepts(&welcome);
    seat.sees("Welcome to hostb");
    assert_eq!(seat.ends().status, Some(0));
}

#[test]
fn a_key_is_made_and_shown() {
    let host = Host::new();
    let folder = host.folder.join("new");
    let file = folder.join("machine.key");
    let show = |words: &[&str]| {
        let mut command = Command::new(COS);
        command
            .arg("-C")
            .arg(&folder)
            .args(["key", "show"])
            .args(words);
        command.stdin(Stdio::null());
        String::from_utf8(daemon::must(&mut command)).unwrap()
    };
    let id = show(&[]);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key = keys::load_machine_key(&cosserver::config::paths::Paths::of_dir(&folder));
    let key = key.unwrap().public;
    assert_eq!(id, format!("{}\n", keys::fingerprint(&key)));
    assert_eq!(show(&[]), id);
    let json = format!(
        "{{\"id\":\"{}\",\"key\":\"{}\",\"file\":\"{}\"}}\n",
        id.trim_end(),
        key.to_hex(),
        file.display()
    );
    assert_eq!(show(&["--json"]), json);
    // A key that others can read is not used.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = Session::spawn(&mut cos(
        &host,
        &["-C", folder.to_str().unwrap(), "key", "show"],
    ));
    let ended = ended.finish();
    assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
    assert!(ended.err.concat().contains("machine.key: "), "{ended:?}");
}
