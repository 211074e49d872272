//! The real `cos` against a host that rejects it, breaks the protocol or does not exist: status
//! 255, one line that says what is wrong, no hang, no panic.

#[cfg(test)]
use crate::client_host;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use client_host::{Host, Said, Session, complaint, finish, gone, raw};
use cosserver::protocol::answer::Answer;
use cosserver::protocol::hello::Suite;
use cosserver::protocol::limits::{CREDIT, DATA_PAYLOAD};
use cosserver::protocol::stream::{End, Message, Signal, Stream};
use cosserver::secret::{KeyPair, Secret};

#[test]
fn denied() {
    let host = Host::new();
    let child = host.start(&["hostb", "x"]);
    host.take().greet().receive().deny();
    let ended = finish(child);
    assert_eq!((ended.status, ended.out.len()), (Some(255), 0));
    assert_eq!(
        ended.err,
        "cos: hostb: access denied (reference abababababababab)\n\
         cos: to see why, run on hostb: journalctl -t cosserver | grep abababababababab \
         (without systemd: grep abababababababab /var/log/auth.log)\n"
    );
}

#[test]
fn a_second_cookie_is_tried() {
    let host = Host::new();
    let newer = Secret::random().unwrap();
    host.cookies(&[newer, host.cookie.clone()]);
    let child = host.start(&["hostb", "x"]);
    let first = host
        .take()
        .greet()
        .try_receive()
        .unwrap_or_else(|_| panic!("not for this host"));
    assert!(!first.proven);
    first.deny();
    host.accept().end(End::Exited(6));
    let ended = finish(child);
    assert_eq!((ended.status, ended.err.as_str()), (Some(6), ""));
}

#[test]
fn the_newest_pin_first_then_the_older_ones() {
    let host = Host::new();
    let old = host.key.clone();
    host.pin(&KeyPair::random().unwrap().public);
    let child = host.start(&["hostb", "x"]);
    let Err(mut raw_connection) = host.take().greet().try_receive() else {
        panic!("the old pin first")
    };
    client_host::deny(&mut raw_connection.socket);
    host.accept().end(End::Exited(6));
    assert_eq!(finish(child).status, Some(6));

    // One key more than may be tried: the client ends.
    for _ in 0..4 {
        host.pin(&KeyPair::random().unwrap().public);
    }
    let told = complaint(&host, |h| {
        for _ in 0..4 {
            let Err(mut raw_connection) = h.take().greet().try_receive() else {
                panic!("an old pin")
            };
            client_host::deny(&mut raw_connection.socket);
        }
    });
    assert!(told.starts_with("access denied"), "{told}");
    drop(old);
}

#[test]
fn what_is_missing_is_named_with_its_file() {
    let host = Host::new();
    let told = |change: &dyn Fn()| {
        change();
        let ended = finish(host.start(&["hostb", "x"]));
        assert_eq!(ended.status, Some(255));
        ended.err
    };
    let err = told(&|| std::fs::remove_file(host.paths.known_hosts()).unwrap());
    assert!(
        err.contains("known_hosts: no key is pinned for hostb"),
        "{err}"
    );
    let err = told(&|| std::fs::remove_file(host.folder.join("cookies/hostb.out")).unwrap());
    assert!(err.contains("hostb.out: there is no cookie"), "{err}");
    let err = told(&|| host.table("hosta cos\n"));
    assert!(
        err.contains("hostinfo: ") && err.contains(" host join FILE`"),
        "{err}"
    );
    let err = told(&|| std::fs::remove_file(host.paths.hostinfo()).unwrap());
    assert!(err.contains("hostinfo: "), "{err}");
}

/// Regression: it ignored such a table, used DNS and sent the password.
#[test]
fn cos_gui_refuses_a_host_table_that_is_broken_or_writable_by_others() {
    let host = Host::new();
    host.listener.set_nonblocking(true).unwrap();
    let (port, file) = (host.port().to_string(), host.paths.hostinfo());
    for (text, mode, words) in [
        ("hostb cos\n", 0o666, "hostinfo: "),
        (
            "# one\n127.0.0.1 coss addr=127.0.0.9\n",
            0o644,
            "hostinfo:2: ",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let line = format!(
            "exec {} gui --password-fd 0 -p {port} 127.0.0.1 x",
            env!("CARGO_BIN_EXE_cos")
        );
        let ended = finish(host.shell(&line).spawn().unwrap());
        assert_eq!(ended.status, Some(255), "{text}: {}", ended.err);
        assert!(ended.err.contains(words), "{text}: {}", ended.err);
        let called = host.listener.accept().map(|_| ()).unwrap_err();
        assert_eq!(called.kind(), std::io::ErrorKind::WouldBlock, "{text}");
    }
}

#[test]
fn connection_refused_is_reported() {
    let host = Host::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ended = finish(host.start(&["-p", &closed.to_string(), "hostb", "x"]));
    assert_eq!(ended.status, Some(255));
    assert!(
        ended
            .err
            .contains("connection refused; is cosserver running there"),
        "{}",
        ended.err
    );
}

/// The variables of a subsystem are in its request, which has no room for long ones.
#[test]
fn variables_that_do_not_fit_a_request_for_a_subsystem_are_named() {
    for length in [2_900, 200_000] {
        let host = Host::new();
        let mut command = host.cosrsh(&["hostb", "-s", "sftp"]);
        command.env_clear().env("COS_CONFIG_DIR", &host.folder);
        // Two of them: the kernel accepts none longer than 128 KiB.
        let value = "v".repeat(length / 2);
        command
            .env("LC_LONG", format!("{value}v"))
            .env("LC_A", value);
        let ended = finish(command.spawn().unwrap());
        assert_eq!(ended.status, Some(255));
        let told = "cos: hostb: SendEnv: \"LC_LONG\" (";
        assert!(ended.err.starts_with(told), "{}", ended.err);
    }
}

#[test]
fn another_service_answers() {
    let host = Host::new();
    let answers: [&[u8]; 6] = [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0, 0],
        &[0, 9, b'C', b'O', b'S', b's', 2, 0xa0, 0xa0, 0xa0, 0xa0],
        &[0, 6, b'C', b'O', b'S', b's', 1, 0xa0],
        &[0, 6, b'c', b'o', b's', b's', 2, 0xa0],
    ];
    for answer in answers {
        let told = complaint(&host, |h| {
            let mut connection = h.take();
            connection.socket.write_all(answer).unwrap();
            // Until the client has hung up.
            let _ = std::io::copy(&mut connection.socket, &mut std::io::sink());
        });
        assert!(
            told.contains("does not speak cosserver's protocol"),
            "{told}"
        );
    }
}

#[test]
fn missing_hello_times_out() {
    let host = Host::new();
    let child = host.start(&["-oConnectTimeout=1", "hostb", "x"]);
    let connection = host.take();
    let ended = finish(child);
    assert_eq!(ended.status, Some(255));
    assert!(
        ended.err.contains("no hello came within 1 s"),
        "{}",
        ended.err
    );
    drop(connection);
}

#[test]
fn truncated_connection_is_an_error() {
    let host = Host::new();
    let told = complaint(&host, |h| drop(h.take()));
    assert!(told.contains("before the handshake"), "{told}");
    let told = complaint(&host, |h| drop(h.take().greet().receive()));
    assert!(told.contains("instead of answering"), "{told}");
    let told = complaint(&host, |h| {
        let mut session = h.accept();
        session.expect(&Said::Eof);
        session.say(&Message::Data(Stream::Error, b""));
    });
    assert!(!told.is_empty());
    // In the middle of a record, and between two.
    for cut in [0, 1, 10] {
        let told = complaint(&host, |h| {
            let mut session = h.accept();
            session.expect(&Said::Eof);
            let record = session
                .sealer
                .record(&Message::End(End::Exited(0)).compose())
                .unwrap();
            session.socket.write_all(&record[..cut]).unwrap();
        });
        assert!(told.contains("before the command's end"), "{told}");
    }
}

#[test]
fn a_hello_that_offers_what_we_did_not() {
    let host = Host::new();
    let told = complaint(&host, |h| {
        drop(h.take().greet_with(|hello| hello.version = 2))
    });
    assert!(told.contains("version"), "{told}");
    let told = complaint(&host, |h| {
        h.take()
            .greet_with(|hello| hello.greeting_limit = 100)
            .try_hear_nothing();
    });
    assert!(
        told.contains("the host accepts at most 100 bytes"),
        "{told}"
    );
    // Either suite is accepted, since both were offered.
    for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
        let child = host.start(&["hostb", "x"]);
        host.take()
            .greet_with(|hello| hello.suite = suite)
            .receive()
            .accept()
            .end(End::Exited(8));
        assert_eq!(finish(child).status, Some(8));
    }
}

#[test]
fn answer_not_from_the_host_is_refused() {
    let host = Host::new();
    let told = complaint(&host, |h| {
        let asked = h.take().greet().receive();
        let (mut socket, _, record) = asked.answer(&Answer::accept([7; 32], Vec::new()));
        socket.write_all(&record).unwrap();
        gone(&mut socket);
    });
    assert!(told.contains("proof"), "{told}");
    let told = complaint(&host, |h| {
        let asked = h.take().greet().receive();
        let proof = asked.our_proof;
        let (mut socket, _, mut record) = asked.answer(&Answer::accept(proof, Vec::new()));
        let last = record.len() - 1;
        record[last] ^= 1;
        socket.write_all(&record).unwrap();
        gone(&mut socket);
    });
    assert!(
        told.contains("not from the host whose key is pinned"),
        "{told}"
    );
    let told = complaint(&host, |h| {
        let (mut socket, _, record) = h.take().greet().receive().answer(&Answer::SendCommand);
        socket.write_all(&record).unwrap();
        gone(&mut socket);
    });
    assert!(told.contains("asks for a command"), "{told}");
}

/// What a compromised host might send after it has accepted.
#[test]
fn a_server_that_breaks_the_protocol() {
    type Fault = fn(&mut Session);
    let faults: &[(&str, Fault)] = &[
        ("a record that was changed", |s| {
            let mut record = s
                .sealer
                .record(&Message::Eof(Stream::Main).compose())
                .unwrap();
            record[5] ^= 1;
            s.socket.write_all(&record).unwrap();
        }),
        ("noise", |s| {
            let _ = s.socket.write_all(&[0x55; 100_000]);
        }),
        ("a record of no length", |s| {
            s.socket.write_all(&[0, 0]).unwrap()
        }),
        ("a record shorter than its tag", |s| {
            s.socket.write_all(&[0, 3, 1, 2, 3]).unwrap()
        }),
        ("data beyond the credit", |s| {
            let mut left = usize::try_from(CREDIT).unwrap() + 1;
            // Standard output is a pipe that is not read yet: the client grants no more than the
            // pipe holds, and keeps count.
            while left > 0 {
                let n = left.min(DATA_PAYLOAD);
                s.say(&Message::Data(Stream::Error, &vec![b'e'; n]));
                s.say(&Message::Data(Stream::Main, &vec![b'o'; n]));
                left -= n;
            }
        }),
        ("credit for a stream that we do not send", |s| {
            s.say(&Message::Credit(Stream::Error, 1))
        }),
        ("a reset of a stream that we do not send", |s| {
            s.say(&Message::Reset(Stream::Error))
        }),
        ("a signal", |s| s.say(&Message::Signal(Signal::Interrupt))),
        ("an end twice", |s| {
            s.say(&Message::Eof(Stream::Main));
            s.say(&Message::Eof(Stream::Main));
        }),
        ("data after the end", |s| {
            s.say(&Message::Eof(Stream::Main));
            s.say(&Message::Data(Stream::Main, b"late"));
        }),
        ("an unknown type", |s| raw(s, &[9, 0])),
        ("an unknown stream", |s| raw(s, &[1, 2, 65])),
        ("data without data", |s| raw(s, &[1, 0])),
        ("an empty text", |s| raw(s, &[])),
        ("an end of unknown form", |s| raw(s, &[6, 7, 0])),
        ("an end with a reason that is no text", |s| {
            raw(s, &[6, 2, 0xff])
        }),
    ];
    let host = Host::new();
    for (what, fault) in faults {
        let child = host.start(&["hostb", "x"]);
        let mut session = host.accept();
        session.expect(&Said::Eof);
        fault(&mut session);
        // Only its hang-up, with the credit for what was read before.
        while let Some(said) = session.receive() {
            assert!(matches!(said, Said::Credit(..)), "{what}: {said:?}");
        }
        let ended = finish(child);
        assert_eq!(ended.status, Some(255), "{what}: {:?}", ended.err);
        assert!(
            ended.err.ends_with('\n') && !ended.err.contains("panicked"),
            "{what}"
        );
        let last = ended.err.rsplit("cos: hostb: ").next().unwrap();
        assert!(
            last.starts_with("it broke the protocol: "),
            "{what}: {last}"
        );
    }
}

/// Too much credit must not be granted for a stream that continues; for one that has ended, any
/// grant is ignored.
#[test]
fn excess_credit_is_an_error_while_there_is_input() {
    let host = Host::new();
    let mut child = host.start_with_input(&["hostb", "x"]);
    let input = child.stdin.take();
    let mut session = host.accept();
    session.say(&Message::Credit(Stream::Main, 16 << 20));
    assert!(session.receive().is_none());
    drop(input);
    let ended = finish(child);
    assert_eq!(ended.status, Some(255), "{:?}", ended.err);
    assert!(
        ended.err.contains("it broke the protocol: "),
        "{}",
        ended.err
    );

    let child = host.start(&["hostb", "x"]);
    let mut session = host.accept();
    session.expect(&Said::Eof);
    session.say(&Message::Credit(Stream::Main, 16 << 20));
    session.say(&Message::End(End::Exited(5)));
    assert!(session.receive().is_none());
    assert_eq!(finish(child).status, Some(5));
}
