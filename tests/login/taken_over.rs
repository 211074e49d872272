//! A gate that is compromised during logins: what it sees of them, and what it can do with the data
//! that it carries.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use cosserver::ipc::gate::{Connection, Order, Question};

use crate::daemon::session::{Gate, ends};
use crate::daemon::{children, needs_root, until, without_doors};
use crate::login::person::{Person, Said};
use crate::login::{Logins, PASSWORD, Plan};
use crate::taken::Taken;

/// A login that passes through the test's hands; its user has been prompted, and has answered.
struct Carried {
    c: Connection,
    socket: TcpStream,
    client_hello: Vec<u8>,
    /// The answers.
    sealed: Vec<u8>,
    person: JoinHandle<Said>,
    /// Every byte that passed, and the monitor's orders.
    seen: Vec<u8>,
}

impl Carried {
    fn begin(l: &Logins, taken: &mut Taken, user: &str) -> Self {
        Self::begin_as(taken, Person::new(&l.d, user, "hello"))
    }

    fn begin_as(taken: &mut Taken, mut person: Person) -> Self {
        person.port = taken.port();
        let person = std::thread::spawn(move || person.ask().answer(&[PASSWORD]));
        let mut socket = taken.accept();
        let c = taken.number();
        let hello = record(&mut socket);
        let server_hello = taken.greet_as(c, &hello).unwrap();
        socket.write_all(&server_hello).unwrap();
        let client_hello = record(&mut socket);
        let copy = OwnedFd::from(socket.try_clone().unwrap());
        taken.ask(&Question::ClientHello(c, &client_hello), vec![copy]);
        let order = taken.order();
        let Some(Order::Prompt(to, _, prompt)) = Order::decode(&order) else {
            panic!("no prompt");
        };
        assert_eq!(to, c);
        socket.write_all(prompt).unwrap();
        let sealed = record(&mut socket);
        let seen = [&hello, &server_hello, &client_hello, &order, &sealed];
        let seen = seen.map(Vec::as_slice).concat();
        Self {
            c,
            socket,
            client_hello,
            sealed,
            person,
            seen,
        }
    }

    /// Forwards the answers to where they belong, and the login is accepted.
    fn expect_accepted(self, taken: &mut Taken) -> Vec<u8> {
        taken.ask(&Question::Sealed(self.c, &self.sealed), vec![]);
        let order = taken.order();
        assert_eq!(Order::decode(&order), Some(Order::Forget(self.c)));
        drop(self.socket);
        assert!(matches!(self.person.join().unwrap(), Said::Accepted(_)));
        [self.seen, order].concat()
    }

    /// Checks that the login is denied, or gets no further answer.
    fn gives_up(self) {
        drop(self.socket);
        assert!(self.person.join().is_err(), "his connection was cut");
    }
}

fn record(socket: &mut TcpStream) -> Vec<u8> {
    let mut record = vec![0; 2];
    socket.read_exact(&mut record).unwrap();
    let length = u16::from_be_bytes([record[0], record[1]]);
    record.resize(2 + usize::from(length), 0);
    socket.read_exact(&mut record[2..]).unwrap();
    record
}

fn has(seen: &[u8], what: &str) -> bool {
    seen.windows(what.len()).any(|w| w == what.as_bytes())
}

#[test]
fn gate_sees_no_password_user_or_application() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let mut taken = Taken::from(&l.d);
    let seen = Carried::begin(&l, &mut taken, "alice").expect_accepted(&mut taken);
    for what in [PASSWORD, "alice", "hello", "Password", "tester"] {
        assert!(!has(&seen, what), "{what} went by in the clear");
    }
    // A check that the search would have found something.
    assert!(has(&seen, "COSs"));
}

#[test]
fn answers_are_valid_once_and_only_for_their_connection() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let mut taken = Taken::from(&l.d);
    let alice = Carried::begin(&l, &mut taken, "alice");
    let bob = Carried::begin(&l, &mut taken, "bob");
    // Alice's answers as bob's: bob's login ends.
    taken.ask(&Question::Sealed(bob.c, &alice.sealed), vec![]);
    taken.denied(&l.d, bob.c, "handshake");
    // Too late for bob's own.
    taken.ask(&Question::Sealed(bob.c, &bob.sealed), vec![]);
    let (c, sealed) = (alice.c, alice.sealed.clone());
    alice.expect_accepted(&mut taken);
    bob.gives_up();
    // Once more, for a running session: they have no effect.
    taken.ask(&Question::Sealed(c, &sealed), vec![]);
    taken.greet();
    l.d.log.said_times("login session=", 1);
    assert_eq!(l.noted("opened"), 1);

    // Twice at once: the second are answers to no prompt.
    let alice = Carried::begin(&l, &mut taken, "alice");
    for _ in 0..2 {
        taken.ask(&Question::Sealed(alice.c, &alice.sealed), vec![]);
    }
    taken.denied(&l.d, alice.c, "handshake");
    alice.gives_up();
    l.d.log.said_times("login session=", 1);
}

/// Regression: only the gate enforced the deadline for answers.
#[test]
fn gate_cannot_block_a_login_forever() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        settings: "[login]\ntime = 1\n",
        ..Plan::default()
    }
    .start();
    let mut taken = Taken::from(&l.d);
    let alice = Carried::begin(&l, &mut taken, "alice");
    let worker = l.d.process("login");
    taken.denied(&l.d, alice.c, "busy");
    assert!(ends(worker), "its worker goes on");
    alice.gives_up();
}

/// Regression: the login went on, with the number of a connection that was closed.
#[test]
fn a_client_hello_during_a_login_ends_the_login() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let mut taken = Taken::from(&l.d);
    let alice = Carried::begin(&l, &mut taken, "alice");
    let worker = l.d.process("login");
    let copy = OwnedFd::from(alice.socket.try_clone().unwrap());
    let again = Question::ClientHello(alice.c, &alice.client_hello);
    taken.ask(&again, vec![copy]);
    taken.closed(alice.c, "a second ClientHello");
    assert!(ends(worker), "its worker goes on");
    alice.gives_up();
}

#[test]
fn a_login_that_was_carried_begins_no_other() {
    if !needs_root() {
        return;
    }
    let l = Logins::start();
    let mut taken = Taken::from(&l.d);
    let alice = Carried::begin(&l, &mut taken, "alice");
    let workers = without_doors(l.d.pid());
    // Her request with another nonce, and changed with her own: another user, another application.
    let mut changed: Vec<Vec<u8>> = (7..alice.client_hello.len())
        .step_by(13)
        .map(|at| {
            let mut bytes = alice.client_hello.clone();
            bytes[at] ^= 1;
            bytes
        })
        .collect();
    changed.push(alice.client_hello.clone());
    for bytes in changed {
        let (c, _) = taken.greet();
        let _peer = taken.submit(c, &bytes, "127.0.0.1");
        taken.denied(&l.d, c, "handshake");
    }
    // And her connection's number again.
    let copy = OwnedFd::from(alice.socket.try_clone().unwrap());
    taken.ask(
        &Question::ClientHello(alice.c, &alice.client_hello),
        vec![copy],
    );
    taken.closed(alice.c, "a ClientHello out of turn");
    alice.gives_up();
    assert!(without_doors(l.d.pid()) <= workers, "another worker");
    assert_eq!(l.d.log.count("login session="), 0);
}

/// Regression: it ran without being known: it was not in the limit of sessions, nor in the list of
/// sessions, nor in the log.
#[test]
fn what_is_left_running_counts_also_when_its_client_has_left_too_soon() {
    if !needs_root() {
        return;
    }
    let stack = crate::login::STACK.replace(
        "session required MODULE",
        "session required MODULE until=FOLDER/go",
    );
    let l = Plan {
        settings: "[limits]\nsessions = 1\n[daemon]\nrefusal-interval = 1\n",
        ..Plan::stack(&stack)
    }
    .start();
    let mut go = Gate::new(l.d.folder.path("go"));
    let mut taken = Taken::from(&l.d);
    let mut person = Person::new(&l.d, "alice", "stay");
    person.detach = true;
    let alice = Carried::begin_as(&mut taken, person);
    taken.ask(&Question::Sealed(alice.c, &alice.sealed), vec![]);
    until("it is being started", || l.noted("cred-established") == 1);
    taken.ask(&Question::Gone(alice.c), vec![]);
    // The monitor has read that.
    taken.greet();
    go.open();
    alice.gives_up();
    l.d.log.wait("detached=true");
    let mut bob = Person::new(&l.d, "bob", "hello");
    bob.port = taken.port();
    let bob = std::thread::spawn(move || bob.ask());
    let mut socket = taken.accept();
    let c = taken.number();
    let server_hello = taken.greet_as(c, &record(&mut socket)).unwrap();
    socket.write_all(&server_hello).unwrap();
    let client_hello = record(&mut socket);
    let copy = OwnedFd::from(socket.try_clone().unwrap());
    taken.ask(&Question::ClientHello(c, &client_hello), vec![copy]);
    taken.denied(&l.d, c, "busy");
    l.d.log.wait("too many sessions");
    drop(socket);
    assert!(bob.join().is_err(), "his connection was cut");
    let worker = l.d.process("login");
    let pid = children(worker)[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    l.d.log.wait("how=detached status=signal-9");
    l.all_closed(1);
}
