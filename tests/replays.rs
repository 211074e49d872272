//! Replays of recordings of accepted connections: whole handshakes, a nonce with a new handshake,
//! and a signature that vouched for a user; to the same daemon, to a restarted one, and to those
//! that inetd starts. A hundred thousand times in `make soak`.

use crate::daemon;

use cosserver::protocol::opening::{Credential, Hosts, Opening};
use cosserver::protocol::proof::{self, Claim, Side};
use cosserver::secret::KeyPair;
use daemon::hostile::{Caller, Greeting, RawConnection, nonce, shake, vouch};
use daemon::{Daemon, configured};

const SETTINGS: &str = "limits.silent-per-source = 5000\ndaemon.refusal-interval = 1\n";

/// The threads that replay, and how many connections each has at a time: a daemon that inetd starts
/// has three processes.
const THREADS: usize = 4;
const AT_ONCE: usize = 500;
const AT_ONCE_BY_INETD: usize = 50;

/// What an eavesdropper has recorded, and more: the attacker also has the client's keys, so that
/// only the nonce prevents the replay.
struct Recorded {
    caller: Caller,
    greeting: Greeting,
    handshake: Vec<u8>,
    request: Vec<u8>,
    /// The signature of the caller's signer about a user, for this key of the user.
    vouched: Vec<u8>,
    user_key: KeyPair,
    marker: std::path::PathBuf,
}

impl Recorded {
    /// Records two connections that are accepted.
    fn of(d: &Daemon) -> Self {
        let caller = Caller::of(d);
        let marker = d.folder.path("count");
        let request = caller.request(&format!("echo x >> {}", marker.display()));
        let mut s = RawConnection::connect(d.port);
        let greeting = s.greet();
        let (handshake, noise) = caller.client_hello(&greeting, &request);
        s.send(&handshake);
        s.session(noise).finish();

        let user_key = KeyPair::random().unwrap();
        let mut s = RawConnection::connect(d.port);
        let theirs = s.greet();
        let vouched = vouch(&caller, &user_key, &nonce(&theirs), &request);
        let (message, noise) = shake(&caller, &user_key, &theirs, &vouched);
        s.send(&message);
        s.session(noise).finish();
        let recorded = Self {
            caller,
            greeting,
            handshake,
            request,
            vouched,
            user_key,
            marker,
        };
        recorded.was_run_twice();
        // A line may come later than its event: these two are not the replays'.
        d.log.said_at_least("exec session=", 2);
        recorded
    }

    fn was_run_twice(&self) {
        let text = std::fs::read_to_string(&self.marker).unwrap();
        assert_eq!(text, "x\nx\n", "a replay was run");
    }

    /// Sends one replay of each kind in turn; its answer has not arrived yet.
    fn replay(&self, n: usize, port: u16) -> RawConnection {
        let mut s = RawConnection::connect(port);
        let theirs = s.greet();
        match n % 3 {
            // The unchanged handshake.
            0 => s.send(&self.handshake),
            // The nonce in a proof, with a new handshake for this connection around it.
            1 => {
                let old = Greeting {
                    hello: theirs.hello.clone(),
                    server_hello: self.greeting.server_hello.clone(),
                };
                let claim = Claim {
                    caller: &self.caller.name,
                    server: &self.caller.server,
                    caller_key: &self.caller.machine.public,
                    server_key: &self.caller.host,
                    nonce: &nonce(&old),
                    request: &self.request,
                    voucher: None,
                };
                let hosts = Hosts {
                    caller: self.caller.name.clone(),
                    server: self.caller.server.clone(),
                    proof: proof::make(&self.caller.cookie, Side::Client, &claim).unwrap(),
                };
                let opening = Opening {
                    request: &self.request,
                    credential: Credential::Hash(hosts),
                };
                let opening = opening.encode().unwrap();
                let key = &self.caller.machine;
                s.send(&shake(&self.caller, key, &theirs, &opening).0);
            }
            // The signature, in the user's own new handshake.
            _ => s.send(&shake(&self.caller, &self.user_key, &theirs, &self.vouched).0),
        }
        s
    }

    /// Makes this many replays, each of which must be denied.
    fn replay_all(&self, count: usize, port: u16, at_once: usize) {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mine: Vec<usize> = (thread..count).step_by(THREADS).collect();
                    for part in mine.chunks(at_once) {
                        let mut all: Vec<_> = part.iter().map(|n| self.replay(*n, port)).collect();
                        all.iter_mut().for_each(|s| drop(s.denied()));
                    }
                });
            }
        });
        self.was_run_twice();
    }
}

fn count() -> usize {
    if daemon::long() { 100_000 } else { 300 }
}

/// Returns which host may vouch for which users.
fn options() -> String {
    format!("users=tester:{}", daemon::me())
}

/// Checks that the daemon has run only what its client requested, and has denied each replay for
/// its own reason. A daemon's log has a limited number of denials of unauthenticated peers a
/// second, and a count of the others.
fn refused(d: &Daemon, from: usize, each_is_logged: bool) {
    let count = count();
    let lines = d.log.all();
    let causes = |cause: &str| {
        let denied = lines
            .iter()
            .skip(from)
            .filter(|l| l.contains("denied ref="));
        denied.filter(|l| l.contains(cause)).count()
    };
    let (handshakes, proofs) = (causes("cause=handshake"), causes("cause=proof"));
    if each_is_logged {
        let wanted = (count.div_ceil(3), count - count.div_ceil(3));
        assert_eq!((handshakes, proofs), wanted);
    }
    assert!(handshakes > 0 && proofs > 0, "{handshakes}, {proofs}");
    let run = lines
        .iter()
        .skip(from)
        .filter(|l| l.contains("exec session="));
    assert_eq!(run.count(), 0);
}

#[test]
fn recording_is_refused_also_by_a_restarted_daemon() {
    let mut d = Daemon::start_in(configured(SETTINGS, &options()), &[]);
    let recorded = Recorded::of(&d);
    let from = d.log.all().len();
    recorded.replay_all(count(), d.port, AT_ONCE);
    refused(&d, from, false);
    // While its client is served.
    d.says(0, &["true"]);
    d.signal(nix::sys::signal::Signal::SIGTERM);
    d.child.wait().unwrap();
    let folder = std::mem::take(&mut d.folder);
    drop(d);
    let d = Daemon::start_in(folder, &[]);
    recorded.replay_all(count(), d.port, AT_ONCE);
    refused(&d, 0, false);
    d.says(0, &["true"]);
}

#[test]
fn recording_is_refused_by_another_daemon_of_inetd() {
    let d = Daemon::inetd_in(configured(SETTINGS, &options()), &[]);
    let recorded = Recorded::of(&d);
    let from = d.log.all().len();
    recorded.replay_all(count(), d.port, AT_ONCE_BY_INETD);
    refused(&d, from, true);
    d.says(0, &["true"]);
}
