use super::fields::{Ask, MESSAGE, Reply, Signed};
use super::*;
use crate::config::hostinfo;
use crate::config::scratch::{Numbers, Scratch};
use crate::protocol::request::{Command, Gui, Service};
use crate::secret::{KeyPair, PublicKey};

/// A joined host `hostb`, with the server's key and cookie.
struct Joined {
    scratch: Scratch,
    server: KeyPair,
    cookie: Secret,
}

impl Joined {
    fn new() -> Self {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        scratch.file(
            "hostinfo",
            "hostb cos as=hosta server=real\nhostc ssh\n",
            0o644,
        );
        scratch.folder("cookies", 0o700);
        let host = HostName::parse("hostb").unwrap();
        let (server, cookie) = (KeyPair::random().unwrap(), Secret::random().unwrap());
        known_hosts::pin(&paths, &host, &server.public).unwrap();
        cookie::write_out(&paths, &host, std::slice::from_ref(&cookie)).unwrap();
        keys::create(&paths.machine_key()).unwrap();
        Self {
            scratch,
            server,
            cookie,
        }
    }

    fn ask(&self) -> Ask {
        Ask {
            host: "hostb".into(),
            nonce: [7; 32],
            pin: self.server.public,
            key: PublicKey([9; 32]),
            which: 0,
            service: Service::Exec,
            user: "operator".into(),
            command: Command::Words(vec![b"id".to_vec(), vec![0xff]]),
            environment: vec![("LANG".into(), b"C".to_vec())],
            linger: Some(30),
        }
    }

    fn sign(&self, ask: &Ask) -> Result<Signed, String> {
        let paths = self.scratch.paths();
        let host = HostName::parse(&ask.host).unwrap();
        let entry = hostinfo::find(&paths, &host).unwrap().unwrap();
        let user = UserName::parse("alice").unwrap();
        sign(&paths, &entry, &user, ask).map_err(|e| e.to_string())
    }
}

#[test]
fn what_is_signed_has_the_users_name_and_proves_cookie_and_machine() {
    let joined = Joined::new();
    let ask = joined.ask();
    let signed = joined.sign(&ask).unwrap();
    assert_eq!(
        (signed.caller.as_str(), signed.server.as_str()),
        ("hosta", "real")
    );
    assert_eq!(signed.cookies, 1);
    let request = Request::decode(&signed.request).unwrap();
    assert_eq!(request.caller_user.as_str(), "alice");
    assert_eq!(request.user, "operator");
    assert_eq!(
        (&request.command, &request.service),
        (&ask.command, &ask.service)
    );
    assert_eq!(request.environment, ask.environment);
    assert_eq!(request.linger, ask.linger);

    // As the server verifies it: with its own private key.
    let shared = curve::agree(joined.server.private.expose(), &signed.machine.0).unwrap();
    let shared = Secret::new(*shared);
    let claim = Claim {
        caller: &signed.caller,
        server: &signed.server,
        caller_key: &ask.key,
        server_key: &joined.server.public,
        nonce: &ask.nonce,
        request: &signed.request,
        voucher: Some(Voucher {
            machine: &signed.machine,
            shared: &shared,
        }),
    };
    let verify = |claim: &Claim<'_>, side, proof| proof::verify(&joined.cookie, side, claim, proof);
    assert!(verify(&claim, Side::Client, &signed.proof));
    assert!(verify(&claim, Side::Server, &signed.expected));
    assert!(!verify(&claim, Side::Server, &signed.proof));
    // It is not a proof of the host itself, nor with another key, nonce or secret.
    let another = KeyPair::random().unwrap().private;
    for other in [
        Claim {
            voucher: None,
            ..claim
        },
        Claim {
            caller_key: &signed.machine,
            ..claim
        },
        Claim {
            nonce: &[8; 32],
            ..claim
        },
        Claim {
            caller: "hostx",
            ..claim
        },
        Claim {
            voucher: Some(Voucher {
                machine: &signed.machine,
                shared: &another,
            }),
            ..claim
        },
        Claim {
            voucher: Some(Voucher {
                machine: &ask.key,
                shared: &shared,
            }),
            ..claim
        },
    ] {
        assert!(!verify(&other, Side::Client, &signed.proof));
    }
}

#[test]
fn signer_refuses_unpinned_keys_and_hosts_reached_by_ssh() {
    let joined = Joined::new();
    let ask = joined.ask();
    let pin = PublicKey([3; 32]);
    let told = joined.sign(&Ask { pin, ..ask.clone() }).unwrap_err();
    assert!(told.contains("not one that is pinned for hostb"), "{told}");
    let told = joined
        .sign(&Ask {
            host: "hostc".into(),
            ..ask.clone()
        })
        .unwrap_err();
    assert!(told.contains("hostc is reached by ssh"), "{told}");
    let told = joined
        .sign(&Ask {
            which: 1,
            ..ask.clone()
        })
        .unwrap_err();
    assert!(told.contains("no such cookie"), "{told}");
    // A key of low order, even if it is pinned.
    let zeros = PublicKey([0; 32]);
    known_hosts::pin(
        &joined.scratch.paths(),
        &HostName::parse("hostb").unwrap(),
        &zeros,
    )
    .unwrap();
    let told = joined
        .sign(&Ask {
            pin: zeros,
            ..ask.clone()
        })
        .unwrap_err();
    assert!(told.contains("low order"), "{told}");
    // Fields that do not make a request.
    for wrong in [
        Ask {
            user: String::new(),
            ..ask.clone()
        },
        Ask {
            user: "u".repeat(256),
            ..ask.clone()
        },
        Ask {
            service: Service::Gui(Gui {
                host: None,
                port: 0,
                detach: false,
            }),
            ..ask.clone()
        },
        Ask {
            service: Service::Gui(Gui {
                host: Some("-x".into()),
                port: 9003,
                detach: false,
            }),
            ..ask.clone()
        },
        Ask {
            command: Command::Follows {
                digest: [0; 32],
                length: u32::MAX,
            },
            ..ask.clone()
        },
    ] {
        assert!(joined.sign(&wrong).is_err(), "{wrong:?}");
    }
    // A machine registers itself: the signer never vouches for that, in whatever form it is asked.
    let enrol = Ask {
        service: Service::Enrol,
        ..ask.clone()
    };
    let told = joined.sign(&enrol).unwrap_err();
    assert!(told.contains("a machine registers itself"), "{told}");
    assert!(Ask::decode(&enrol.encode().unwrap()).is_err());
    // Secrets that other users could read sign nothing.
    let paths = joined.scratch.paths();
    crate::config::scratch::chmod(&paths.machine_key(), 0o644);
    assert!(
        joined
            .sign(&ask)
            .unwrap_err()
            .contains("others can read it")
    );
}

#[test]
fn fields_round_trip_and_others_are_refused() {
    let joined = Joined::new();
    let exec = joined.ask();
    let gui = Ask {
        service: Service::Gui(Gui {
            host: Some("192.0.2.7".into()),
            port: 9003,
            detach: true,
        }),
        ..exec.clone()
    };
    let here = Ask {
        service: Service::Gui(Gui {
            host: None,
            port: 1,
            detach: false,
        }),
        environment: Vec::new(),
        linger: None,
        ..exec.clone()
    };
    let long = Ask {
        command: Command::Follows {
            digest: [5; 32],
            length: 70_000,
        },
        ..exec.clone()
    };
    let subsystem = Ask {
        service: Service::Subsystem,
        command: Command::Words(vec![b"sftp".to_vec()]),
        ..exec.clone()
    };
    for ask in [&exec, &gui, &here, &long, &subsystem] {
        let bytes = ask.encode().unwrap();
        assert_eq!(Ask::decode(&bytes).as_ref(), Ok(ask));
        assert!(Ask::decode(&[&bytes[..], &[0]].concat()).is_err());
        // One additional field of any content: a name, or bytes to be signed as they are.
        for field in [&[15, 0x61, b'x'][..], &[0x18, 99, 0x41, 0]] {
            let mut more = bytes.clone();
            more[0] += 1;
            more.extend_from_slice(field);
            assert!(Ask::decode(&more).is_err(), "{field:?}");
        }
    }
    // Key 14 is a bool: false is as if it were absent, as in a request.
    let plain = Ask {
        linger: None,
        ..gui.clone()
    };
    let mut bytes = plain.encode().unwrap();
    assert_eq!(bytes.split_off(bytes.len() - 2), [14, 0xf5]);
    bytes.extend_from_slice(&[14, 0xf4]);
    let attached = Ask::decode(&bytes).unwrap();
    assert!(matches!(
        attached.service,
        Service::Gui(Gui { detach: false, .. })
    ));
    assert!(Ask::decode(&[0; MESSAGE + 1]).is_err());
    assert!(Ask::decode(b"sign me").is_err());
    // An exec with an application's fields, and an application without its display.
    let one_word = Ask {
        command: Command::Words(vec![b"id".to_vec()]),
        ..gui
    };
    let bytes = one_word.encode().unwrap();
    let at = bytes.windows(4).position(|w| w == b"\x63gui").unwrap();
    for other in [&b"\x64exec"[..], b"\x69subsystem"] {
        let swapped = [&bytes[..at], other, &bytes[at + 4..]].concat();
        assert!(Ask::decode(&swapped).is_err());
    }

    let signed = Signed {
        caller: "a".into(),
        server: "b".into(),
        request: vec![1; 4000],
        machine: PublicKey([1; 32]),
        proof: [2; 32],
        expected: [3; 32],
        cookies: 2,
    };
    for reply in [Reply::Signed(signed), Reply::Refused("é".into())] {
        let bytes = reply.encode().unwrap();
        assert!(bytes.len() <= MESSAGE);
        assert_eq!(Reply::decode(&bytes), Ok(reply));
    }
    let long = Reply::Refused("é".repeat(10_000)).encode().unwrap();
    assert!(long.len() <= MESSAGE && Reply::decode(&long).is_ok());
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = Joined::new().ask().encode().unwrap();
    let mut numbers = Numbers(1);
    for _ in 0..20_000 {
        let bytes = numbers.mutate(&seed);
        if let Ok(ask) = Ask::decode(&bytes) {
            let again = ask.encode().unwrap();
            assert_eq!(Ask::decode(&again), Ok(ask));
        }
        let _ = Reply::decode(&bytes);
    }
}

#[test]
fn signer_refuses_overflow_and_invalid_user_ids() {
    for uid in [65_534, u32::MAX] {
        assert!(check_number(uid).is_err());
    }
    for uid in [0, 1, 1000] {
        assert!(check_number(uid).is_ok());
    }
}
