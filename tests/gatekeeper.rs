//! A compromised gate: the real gate is stopped, the test takes over its end of the channel, and
//! sends the monitor whatever an attacker might. Nothing is started and nothing is learned.
//!
//! Needs root, for the descriptor of another process; for an ordinary user these tests report that
//! and pass.
#![allow(
    clippy::undocumented_unsafe_blocks,
    unsafe_code,
    reason = "a test panics where something is not as it should be, and takes what an attacker would"
)]

use crate::daemon;
use crate::taken;
#[path = "login/taken_over.rs"]
mod taken_over;

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use cosserver::config::cookie;
use cosserver::config::name::HostName;
use cosserver::config::paths::Paths;
use cosserver::ipc::gate::{Complaint, Order, Question};
use cosserver::protocol::hello::{Hello, ServerHello};
use cosserver::protocol::request::{self, Command};
use cosserver::protocol::stream::{Message, Stream};
use cosserver::secret::Secret;
use daemon::hostile::{Caller, Greeting, RawConnection, hello};
use daemon::{Daemon, PATIENCE, needs_root};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use taken::{Taken, sockets_of};

/// A daemon, a known client, and what that client would start if it were allowed: a file that does
/// not exist.
struct Scene {
    d: Daemon,
    caller: Caller,
    marker: PathBuf,
    command: String,
}

impl Scene {
    /// Starts one with these settings. `None`: not root, and nothing to do.
    fn set(settings: &str) -> Option<Self> {
        needs_root().then(|| {
            let d = Daemon::start_as(settings, "");
            let marker = d.folder.path("started");
            Self {
                caller: Caller::of(&d),
                command: format!("touch {}", marker.display()),
                marker,
                d,
            }
        })
    }

    /// Returns the client with an invalid cookie.
    fn with_wrong_cookie(&self) -> Caller {
        Caller {
            cookie: Secret::random().unwrap(),
            ..self.caller.clone()
        }
    }

    /// Checks that nothing was started, or begun.
    fn started_nothing(&self) {
        assert!(!self.marker.exists(), "something was started");
        assert_eq!(self.d.log.count("exec session="), 0);
    }
}

#[test]
fn a_clienthello_needs_its_own_hello_its_own_nonce_and_its_own_socket() {
    let Some(scene) = Scene::set("") else {
        return;
    };
    let (d, caller) = (&scene.d, &scene.caller);
    let request = caller.request(&scene.command);
    let mut gate = Taken::from(d);

    // Never greeted.
    let (_, socket) = gate.unauthenticated_connection("127.0.0.1");
    let (_, other) = gate.greet();
    let good = caller.client_hello(&other, &request).0;
    gate.ask(&Question::ClientHello(77, &good), vec![socket]);
    gate.closed(77, "never greeted");

    // Twice for one Hello: the first attempt consumes it, whether or not it succeeds.
    let (c, greeting) = gate.greet();
    let thief = scene.with_wrong_cookie();
    let wrong = thief.client_hello(&greeting, &request).0;
    let good = caller.client_hello(&greeting, &request).0;
    let (_peer, socket) = gate.unauthenticated_connection("127.0.0.1");
    let copy = socket.try_clone().unwrap();
    gate.ask(&Question::ClientHello(c, &wrong), vec![socket]);
    gate.denied(d, c, "proof");
    gate.ask(&Question::ClientHello(c, &good), vec![copy]);
    gate.closed(c, "a second ClientHello");

    // Two greetings with the same number discard both.
    let (c, greeting) = gate.greet();
    let from = [127, 0, 0, 1].into();
    gate.ask(&Question::Hello(c, from, &greeting.hello), vec![]);
    gate.closed(c, "a second Hello");
    let good = caller.client_hello(&greeting, &request).0;
    let _peer = gate.submit(c, &good, "127.0.0.1");
    gate.closed(c, "after a second Hello");

    // The nonce of one connection on another.
    let (_, stale) = gate.greet();
    let (c, _) = gate.greet();
    let old = caller.client_hello(&stale, &request).0;
    let _peer = gate.submit(c, &old, "127.0.0.1");
    gate.denied(d, c, "handshake");

    // The address of another host, the cookie of another host.
    let (c, greeting) = gate.greet();
    let good = caller.client_hello(&greeting, &request).0;
    let _peer = gate.submit(c, &good, "127.9.9.9");
    gate.denied(d, c, "address");
    let invite = [
        "host",
        "invite",
        "hostc",
        "--addr",
        "127.0.0.1",
        "--run-as",
        "root",
    ];
    daemon::must(
        std::process::Command::new(daemon::COSADM)
            .arg("-C")
            .arg(d.server())
            .args(invite),
    );
    let hostc = HostName::parse("hostc").unwrap();
    let mut thief = caller.clone();
    thief.cookie = cookie::load_in(&Paths::of_dir(&d.server()), &hostc)
        .unwrap()
        .remove(0);
    let (c, greeting) = gate.greet();
    let good = thief.client_hello(&greeting, &request).0;
    let _peer = gate.submit(c, &good, "127.0.0.1");
    gate.denied(d, c, "proof");

    scene.started_nothing();
}

/// A valid handshake, submitted again by a gate that kept its bytes and a copy of its socket: its
/// nonce is used up, and another connection's does not match.
#[test]
fn a_handshake_that_succeeded_is_worth_nothing_again() {
    let Some(scene) = Scene::set("") else {
        return;
    };
    let (d, caller) = (&scene.d, &scene.caller);
    let count = d.folder.path("count");
    let mut gate = Taken::from(d);
    let (c, greeting) = gate.greet();
    let request = caller.request(&format!("echo x >>{}", count.display()));
    let (bytes, noise) = caller.client_hello(&greeting, &request);
    let (peer, socket) = gate.unauthenticated_connection("127.0.0.1");
    let copy = socket.try_clone().unwrap();
    gate.ask(&Question::ClientHello(c, &bytes), vec![socket]);
    gate.taken(c);
    let mut session = RawConnection { socket: peer }.session(noise);
    assert!(session.finish().1.is_some());

    // With its own number, with the original socket and with another.
    gate.ask(&Question::ClientHello(c, &bytes), vec![copy]);
    gate.closed(c, "the same again");
    let _peer = gate.submit(c, &bytes, "127.0.0.1");
    gate.closed(c, "the same on another socket");
    // With a new greeting, and with one that reuses its number.
    let (new, _) = gate.greet();
    let _peer = gate.submit(new, &bytes, "127.0.0.1");
    gate.denied(d, new, "handshake");
    gate.greet_as(c, &greeting.hello).expect("a ServerHello");
    let _peer = gate.submit(c, &bytes, "127.0.0.1");
    gate.denied(d, c, "handshake");
    d.log.said_times("exec session=", 1);
    assert_eq!(fs::read(&count).unwrap(), b"x\n");
}

/// The gate changes what passes through it, one byte at a time: the Hello that it forwards to the
/// monitor, the ServerHello that it forwards to the client, the ClientHello.
#[test]
fn byte_changed_by_the_gate_is_detected() {
    let Some(scene) = Scene::set("") else {
        return;
    };
    let (d, caller) = (&scene.d, &scene.caller);
    let request = caller.request(&scene.command);
    let mut gate = Taken::from(d);
    let sent = hello();
    let mut denied = [0; 2];

    for at in 0..sent.len() {
        let mut told = sent.clone();
        told[at] ^= 1;
        let c = gate.number();
        let Some(server_hello) = gate.greet_as(c, &told) else {
            continue;
        };
        let seen = Greeting {
            hello: sent.clone(),
            server_hello,
        };
        let bytes = caller.client_hello(&seen, &request).0;
        let _peer = gate.submit(c, &bytes, "127.0.0.1");
        gate.refused(c, "another Hello");
        denied[0] += 1;
    }
    let (_, sample) = gate.greet();
    let parsed = Hello::parse(&sent).unwrap();
    for at in 0..sample.server_hello.len() {
        let (c, mut seen) = gate.greet();
        seen.server_hello[at] ^= 1;
        if ServerHello::parse(&seen.server_hello, &parsed).is_err() {
            gate.ask(&Question::Gone(c), vec![]);
            continue;
        }
        let bytes = caller.client_hello(&seen, &request).0;
        let _peer = gate.submit(c, &bytes, "127.0.0.1");
        gate.refused(c, "another ServerHello");
        denied[1] += 1;
    }
    let length = caller.client_hello(&sample, &request).0.len();
    for at in 0..length {
        let (c, greeting) = gate.greet();
        let mut bytes = caller.client_hello(&greeting, &request).0;
        bytes[at] ^= 1 << (at % 8);
        let _peer = gate.submit(c, &bytes, "127.0.0.1");
        gate.refused(c, "another ClientHello");
    }
    // Some changes of the hellos leave a valid hello; none of them goes unnoticed.
    assert!(denied[0] > 1 && denied[1] >= 32, "{denied:?}");
    // The log has as many lines as it allows for unauthenticated peers.
    d.log.wait("denied ref=");
    let all = d.log.count("denied ref=");
    assert!(all > 0 && d.log.count(" cause=handshake ") == all);
    scene.started_nothing();
}

/// No delay, and a probe of a silent peer, on both sides of a connection, while it waits in the
/// gate and while it runs.
#[test]
fn a_connection_has_no_delay_and_is_probed_on_both_sides() {
    let Some(scene) = Scene::set("daemon.keep-alive = 44\n") else {
        return;
    };
    let d = &scene.d;
    // Returns the settings of a process's connected sockets.
    let of = |pid: i32| -> Vec<(bool, bool, u32)> {
        let connected = |s: &OwnedFd| cosserver::sys::socket::peer(s.as_fd()).is_ok();
        let told = |s: OwnedFd| {
            (
                getsockopt(&s, sockopt::TcpNoDelay).unwrap(),
                getsockopt(&s, sockopt::KeepAlive).unwrap(),
                getsockopt(&s, sockopt::TcpKeepIdle).unwrap(),
            )
        };
        let all = sockets_of(pid, SockType::Stream, libc::AF_INET);
        all.into_iter().filter(connected).map(told).collect()
    };
    let mut held = RawConnection::connect(d.port);
    held.greet();
    assert_eq!(of(d.process("gate")), [(true, true, 44)]);
    drop(held);
    let mut job = d.session(&["echo ready; read x"]);
    job.out.wait("ready");
    assert_eq!(of(d.process("relay")), [(true, true, 44)]);
    assert_eq!(of(job.pid()), [(true, true, 60)]);
    job.say("go");
    assert_eq!(job.finish().status, Some(0));
}

#[test]
fn what_comes_with_a_clienthello_must_be_a_connected_tcp_socket() {
    let Some(scene) = Scene::set("") else {
        return;
    };
    let (d, caller) = (&scene.d, &scene.caller);
    let request = caller.request(&scene.command);
    let mut gate = Taken::from(d);
    let (unix, _other_end) = UnixStream::pair().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect("127.0.0.1:9").unwrap();
    let (hung_up, left) = gate.unauthenticated_connection("127.0.0.1");
    left_with_reset(hung_up);
    let (peer, ahead) = gate.unauthenticated_connection("127.0.0.1");
    std::io::Write::write_all(&mut &peer, b"x").unwrap();
    let (_kept, many) = gate.unauthenticated_connection("127.0.0.1");
    let many: Vec<OwnedFd> = (0..20).map(|_| many.try_clone().unwrap()).collect();
    let cases: Vec<(&str, Vec<OwnedFd>)> = vec![
        ("no descriptor", vec![]),
        (
            "a file",
            vec![fs::File::open("/etc/passwd").unwrap().into()],
        ),
        (
            "/dev/null",
            vec![fs::File::open("/dev/null").unwrap().into()],
        ),
        (
            "a pipe",
            vec![nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap().0],
        ),
        ("a Unix socket", vec![unix.into()]),
        ("UDP", vec![udp.into()]),
        (
            "a listening socket",
            vec![TcpListener::bind("127.0.0.1:0").unwrap().into()],
        ),
        ("one that has left", vec![left]),
        ("bytes behind", vec![ahead]),
        ("too many", many),
    ];
    let before = daemon::descriptors(d.pid());
    for (what, fds) in cases {
        let (c, greeting) = gate.greet();
        let good = caller.client_hello(&greeting, &request).0;
        // By hand: the channel itself would not send that many.
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let message = Question::ClientHello(c, &good).encode();
        cosserver::sys::passing::send(gate.channel.as_fd(), &message, &borrowed).unwrap();
        match fds.len() {
            1 => gate.closed(c, what),
            // For the monitor it looks like a shortage of its own descriptors.
            _ => gate.denied(d, c, "busy"),
        }
    }
    daemon::until("the monitor keeps none of them", || {
        daemon::descriptors(d.pid()) <= before
    });
    scene.started_nothing();
    assert_eq!(d.log.count("lost process=gate"), 0);
}

/// Closes the connection in such a way that the other side is no longer connected.
fn left_with_reset(socket: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&socket, sockopt::Linger, &linger).unwrap();
    drop(socket);
}

/// A gate that kept a copy of a connection which the relay now serves gains nothing by it, and the
/// session is not affected.
#[test]
fn the_socket_of_a_running_session_opens_nothing() {
    let Some(scene) = Scene::set("") else {
        return;
    };
    let (d, caller) = (&scene.d, &scene.caller);
    let mut session = caller.accepted(d.port, "cat");
    session.send(&Message::Data(Stream::Main, b"one\n"));
    session.until(b"one\n");
    let relay = d.process("relay");
    let mut sockets = sockets_of(relay, SockType::Stream, libc::AF_INET);
    assert_eq!(sockets.len(), 1);
    let mut gate = Taken::from(d);
    let thief = scene.with_wrong_cookie();
    let (c, greeting) = gate.greet();
    let bytes = thief
        .client_hello(&greeting, &thief.request(&scene.command))
        .0;
    gate.ask(&Question::ClientHello(c, &bytes), vec![sockets.remove(0)]);
    gate.denied(d, c, "proof");
    session.send(&Message::Data(Stream::Main, b"two\n"));
    session.until(b"two\n");
    assert!(!scene.marker.exists(), "something was started");
}

#[test]
fn questions_out_of_order_start_nothing_and_the_monitor_continues() {
    let Some(scene) = Scene::set("limits.silent = 4\nlimits.reserved = 1\n") else {
        return;
    };
    let (d, caller) = (&scene.d, &scene.caller);
    let mut gate = Taken::from(d);
    let from = [127, 0, 0, 1].into();
    // Answers that the monitor did not ask for are ignored, whatever their number.
    for c in [0, 1, u64::MAX] {
        gate.ask(&Question::Sealed(c, &hello()), vec![]);
        gate.ask(&Question::Gone(c), vec![]);
        gate.ask(&Question::ClientHello(c, b""), vec![]);
        gate.closed(c, "a ClientHello that is none");
        gate.ask(&Question::Hello(c, from, b""), vec![]);
        gate.closed(c, "a Hello that is none");
        gate.ask(&Question::Hello(c, from, &[0xff; 60_000]), vec![]);
        gate.closed(c, "a Hello of 60,000 bytes");
    }
    // A piece of a command when the whole was due, and the reverse.
    let (c, greeting) = gate.greet();
    gate.ask(&Question::Sealed(c, &hello()), vec![]);
    let long = vec![vec![b'x'; 5000]];
    let (follows, rest) = request::pack_words(long).unwrap();
    let (bytes, noise) = caller.client_hello(&greeting, &caller.request_of(follows));
    let (_peer, socket) = gate.unauthenticated_connection("127.0.0.1");
    let copy = socket.try_clone().unwrap();
    gate.ask(&Question::ClientHello(c, &bytes), vec![socket]);
    let order = gate.order();
    assert!(matches!(Order::decode(&order), Some(Order::Continue(..))));
    drop((noise, rest));
    // When asked for more, it answers with a ClientHello, and then with arbitrary data.
    gate.ask(&Question::ClientHello(c, &bytes), vec![copy]);
    gate.closed(c, "a ClientHello in place of a piece");
    gate.ask(&Question::Sealed(c, &[0; 4000]), vec![]);

    // A flood of Hellos: the monitor keeps a limited number.
    let mut kept = 0;
    for c in 1000..1100 {
        gate.ask(&Question::Hello(c, from, &hello()), vec![]);
        match Order::decode(&gate.order()) {
            Some(Order::ServerHello(..)) => kept += 1,
            Some(Order::Close(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((4..=8).contains(&kept), "{kept} were kept");
    for c in 1000..1100 {
        gate.ask(&Question::Gone(c), vec![]);
    }
    // It learned nothing new, and can still do its normal work.
    let (c, greeting) = gate.greet();
    let (mut peer, socket) = gate.unauthenticated_connection("127.0.0.1");
    let words = Command::Words(vec![scene.command.clone().into_bytes()]);
    let (bytes, noise) = caller.client_hello(&greeting, &caller.request_of(words));
    assert!(!scene.marker.exists(), "something was started");
    gate.ask(&Question::ClientHello(c, &bytes), vec![socket]);
    gate.taken(c);
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let raw_connection = RawConnection {
        socket: peer.try_clone().unwrap(),
    };
    raw_connection.session(noise).finish();
    assert!(scene.marker.exists());
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

/// An invalid question ends this gate, and a new one serves.
#[test]
fn garbage_on_the_channel_replaces_the_gate() {
    let Some(scene) = Scene::set("") else {
        return;
    };
    let d = &scene.d;
    let honest = Question::Gone(1).encode();
    let cases: [(&str, Vec<u8>); 6] = [
        ("an unknown kind", vec![99, 0, 0]),
        ("cut short", honest[..5].to_vec()),
        ("bytes behind", [&honest[..], b"x"].concat()),
        (
            "a length beyond its message",
            vec![
                1, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255,
            ],
        ),
        ("an unknown complaint", {
            let mut q = Question::Rejected(Complaint::Probe, [127, 0, 0, 1].into()).encode();
            assert_eq!(q[1], 8);
            q[1] = 99;
            q
        }),
        ("too long", vec![1; cosserver::ipc::MESSAGE + 1]),
    ];
    for (what, bytes) in cases {
        let old = d.process("gate");
        let gate = Taken::from(d);
        let lines = d.log.all().len();
        cosserver::sys::passing::send(gate.channel.as_fd(), &bytes, &[]).unwrap();
        gate.given_up();
        d.log.wait_from(lines, |l| l == "lost process=gate");
        d.log
            .wait_from(lines, |l| l.starts_with("started process=gate"));
        daemon::until(&format!("another gate after {what}"), || {
            d.process("gate") != old
        });
        d.says(0, &["true"]);
    }
    assert!(!scene.marker.exists());
    // None of them is left, not even as a zombie.
    daemon::until("two children", || daemon::without_doors(d.pid()) == 2);
}

/// A gate that sends questions without end does not prevent the monitor from serving the others.
#[test]
fn a_flood_of_questions_does_not_stop_the_monitor() {
    let Some(scene) = Scene::set("") else {
        return;
    };
    let (d, caller) = (&scene.d, &scene.caller);
    let mut session = caller.accepted(d.port, "read x; echo $x");
    let gate = Taken::from(d);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let flood = Question::Gone(5).encode();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = cosserver::sys::passing::send(gate.channel.as_fd(), &flood, &[]);
            }
        });
        // The job's end goes through the monitor.
        session.send(&Message::Data(Stream::Main, b"done\n"));
        let (output, end) = session.finish();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(output, b"done\n");
        assert!(end.is_some());
    });
}
