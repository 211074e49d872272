//! Windows on a line with a long delay: `cos` and the daemon with a delay between them, and a host
//! simulated by the test that answers late. A window grows only if the sender would have to wait
//! for credit; the daemon's budget limits it; granted credit is honoured, and memory is released.

use crate::client_host;
use crate::daemon;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use client_host::{Host, Said, ends_well, pattern};
use cosserver::protocol::limits::{CREDIT, CREDIT_MAX, DATA_PAYLOAD};
use cosserver::protocol::stream::{Allowance, Message, Stream};
use daemon::session::{self, Gate, Later, Patient, later, status_number};
use daemon::{Daemon, until};

const MIB: usize = 1 << 20;
/// One way. No scheduling delay is as long as such a round trip.
const DELAY: Duration = Duration::from_millis(50);
/// More than a small window holds, including the records' headers and tags.
const MORE: usize = MIB + MIB / 8;
/// The bytes to transfer: some windows, and some more round trips.
const VOLUME: usize = 48 * MIB;

/// What passed through a line in one direction.
#[derive(Default)]
struct Count {
    all: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Count {
    fn all(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Returns the most that was in the line at the same time.
    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Waits until nothing more arrives for some round trips.
    fn rests(&self) -> usize {
        let mut before = usize::MAX;
        until("the line rests", || {
            let now = self.all();
            let rests = now == before;
            before = now;
            if !rests {
                std::thread::sleep(10 * DELAY);
            }
            rests
        });
        before
    }
}

/// A line with a long delay to a port of this machine, in both directions.
struct Line {
    port: u16,
    up: Arc<Count>,
    down: Arc<Count>,
}

impl Line {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            up: Arc::default(),
            down: Arc::default(),
        };
        let counts = [Arc::clone(&line.up), Arc::clone(&line.down)];
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let [up, down] = counts.clone();
                carry(&near, &far, up);
                carry(&far, &near, down);
            }
        });
        line
    }
}

/// Copies data from one connection to the other, each byte after the delay.
fn carry(from: &TcpStream, to: &TcpStream, count: Arc<Count>) {
    from.set_nodelay(true).unwrap();
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let (put, take): (_, Receiver<(Instant, Vec<u8>)>) = channel();
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut block = vec![0; 256 * 1024];
        while let Ok(n @ 1..) = from.read(&mut block) {
            counted.all.fetch_add(n, Ordering::Relaxed);
            let now = counted.under_way.fetch_add(n, Ordering::Relaxed) + n;
            counted.most.fetch_max(now, Ordering::Relaxed);
            if put
                .send((Instant::now() + DELAY, block[..n].to_vec()))
                .is_err()
            {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in take {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
            count.under_way.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Starts a daemon at the end of a long line.
fn far(settings: &str) -> (Daemon, Line) {
    let mut d = Daemon::start_with(settings, "");
    let line = Line::to(d.port);
    d.port = line.port;
    (d, line)
}

fn piped(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Writes this much of a pattern to a client, and then the end of input.
fn give(client: &mut Child, length: usize) -> Later<bool> {
    let mut stdin = client.stdin.take().unwrap();
    later(move || stdin.write_all(&pattern(length)).is_ok())
}

/// Reads everything that a client writes to its standard output.
fn all_of(client: &mut Child) -> Later<Vec<u8>> {
    let mut out = client.stdout.take().unwrap();
    later(move || {
        let mut all = Vec::new();
        out.read_to_end(&mut all).unwrap();
        all
    })
}

fn exits(mut client: Child) {
    assert_eq!(session::wait(&mut client).code(), Some(0));
}

#[test]
fn distant_host_gets_more_than_a_small_window_in_flight() {
    let (d, line) = far("");
    let mut up = piped(&mut d.cos(&["wc -c"]));
    let given = give(&mut up, VOLUME);
    let said = all_of(&mut up);
    assert_eq!(said.get(), format!("{VOLUME}\n").into_bytes());
    assert!(given.get());
    exits(up);
    assert!(line.up.most() > 2 * MIB, "{}", line.up.most());
    assert!(line.down.most() < MIB);

    let (d, line) = far("");
    let mut down = piped(&mut d.cos(&[&format!("head -c {VOLUME} /dev/zero")]));
    assert_eq!(all_of(&mut down).get().len(), VOLUME);
    exits(down);
    assert!(line.down.most() > 2 * MIB, "{}", line.down.most());
    assert!(line.up.most() < MIB);
}

#[test]
fn distant_host_transfers_both_ways_at_once_completely() {
    let (d, line) = far("");
    let mut client = piped(&mut d.cos(&["cat"]));
    let given = give(&mut client, VOLUME);
    assert!(all_of(&mut client).get() == pattern(VOLUME));
    assert!(given.get());
    exits(client);
    assert!(line.up.most() > MORE, "{}", line.up.most());
    assert!(line.down.most() > MORE, "{}", line.down.most());
}

/// If the line is short, the initial window is large enough.
#[test]
fn without_a_distance_no_window_grows() {
    let host = Host::new();
    let mut child = host.start(&["hostb", "x"]);
    let out = all_of(&mut child);
    let mut granted = Grants::new(&host, Duration::ZERO);
    granted.send(VOLUME);
    assert_eq!(granted.most, CREDIT as usize);
    granted.finish(child);
    assert_eq!(out.get().len(), VOLUME);
}

#[test]
fn the_setting_keeps_windows_small() {
    let (d, line) = far("[limits]\nwindows = 0\n");
    let mut up = piped(&mut d.cos(&["wc -c"]));
    let given = give(&mut up, VOLUME / 4);
    all_of(&mut up).get();
    assert!(given.get());
    exits(up);
    assert!(line.up.most() <= MORE, "{}", line.up.most());
}

#[test]
fn a_job_that_does_not_read_is_promised_no_more() {
    let (d, line) = far("");
    let mut gate = Gate::new(d.folder.path("gate"));
    let script = format!("read x <{}; wc -c", gate.name());
    let mut client = piped(&mut d.cos(&[&script]));
    let given = give(&mut client, 16 * MIB);
    // The job's pipe, which holds a mebibyte at most, and a window.
    let sent = line.up.rests();
    assert!((MIB..=2 * MIB + MIB / 4).contains(&sent), "{sent}");
    gate.open();
    assert_eq!(
        all_of(&mut client).get(),
        format!("{}\n", 16 * MIB).into_bytes()
    );
    assert!(given.get());
    exits(client);
}

/// Granted credit is honoured while the job pauses, the rest of the session continues, and the
/// memory is released.
#[test]
fn a_job_that_pauses_gets_all_of_its_input_and_its_memory_goes_back() {
    let (d, line) = far("");
    let relay = d.process("relay");
    let mut gate = Gate::new(d.folder.path("gate"));
    let mut end = Gate::new(d.folder.path("end"));
    let script = format!(
        "head -c {VOLUME} | wc -c; echo paused >&2; read x <{}; head -c {VOLUME} | wc -c; \
         echo read >&2; read x <{}",
        gate.name(),
        end.name()
    );
    let mut client = piped(&mut d.cos(&[&script]));
    let mut err = BufReader::new(Patient(client.stderr.take().unwrap()));
    let mut receive = || {
        let mut line = String::new();
        err.read_line(&mut line).unwrap();
        line
    };
    let mut stdin = client.stdin.take().unwrap();
    let (release, held) = channel::<()>();
    let given = later(move || {
        let all = stdin.write_all(&pattern(2 * VOLUME)).is_ok();
        let _ = held.recv();
        all
    });
    // Standard error is not blocked by the waiting input.
    assert_eq!(receive(), "paused\n");
    let sent = line.up.rests() - VOLUME;
    let memory = || usize::try_from(status_number(relay, "RssAnon")).unwrap() * 1024;
    let stalled = memory();
    assert!(sent > 3 * MIB, "{sent}");
    assert!(stalled > sent - 2 * MIB, "{stalled} of {sent}");
    gate.open();
    assert_eq!(receive(), "read\n");
    until("the memory is back", || memory() + sent / 2 < stalled);
    until("all of it", || memory() < 2 * MIB);
    end.open();
    assert!(all_of(&mut client).get() == format!("{VOLUME}\n{VOLUME}\n").into_bytes());
    release.send(()).unwrap();
    assert!(given.get());
    exits(client);
}

/// Regression: each of a hundred sessions that had transferred much left some 30 KiB among memory
/// that others still used, and 6 KiB in its own thread's cache.
#[test]
fn idle_sessions_after_much_data_free_their_memory() {
    const SESSIONS: usize = 64;
    const CARRIED: usize = 8 * MIB;
    let d = Daemon::start_with("", "");
    let relay = d.process("relay");
    let memory = || usize::try_from(status_number(relay, "RssAnon")).unwrap() * 1024;
    let script = format!("head -c {CARRIED} | wc -c; head -c {CARRIED} /dev/zero; exec sleep 600");
    let mut clients: Vec<Child> = (0..SESSIONS)
        .map(|_| piped(&mut d.cos(&[&script])))
        .collect();
    until("all are there", || d.log.count("exec session=") == SESSIONS);
    let mut before = 0;
    until("they rest", || {
        std::mem::replace(&mut before, memory()) == memory()
    });
    for eight in clients.chunks_mut(8) {
        let inputs: Vec<_> = eight.iter_mut().map(|c| give(c, CARRIED)).collect();
        for client in &mut *eight {
            let count = format!("{CARRIED}\n").len();
            let mut all = vec![0; count + CARRIED];
            client
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut all)
                .unwrap();
        }
        assert!(inputs.iter().all(Later::get));
    }
    until("the memory is back", || {
        memory() < before + SESSIONS * 3 * 1024
    });
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[test]
fn a_reader_that_pauses_gets_all_of_the_output() {
    let (d, line) = far("");
    let mut gate = Gate::new(d.folder.path("gate"));
    let script = format!(
        "head -c {} /dev/zero & read x <{}; echo here >&2; wait",
        2 * VOLUME,
        gate.name()
    );
    let mut client = piped(&mut d.cos(&[&script]));
    let mut out = Patient(client.stdout.take().unwrap());
    let mut first = vec![0; VOLUME];
    out.read_exact(&mut first).unwrap();
    let sent = line.down.rests() - VOLUME;
    assert!(sent > 3 * MIB, "{sent}");
    // The output is not read, and the rest of the session continues.
    gate.open();
    let mut err = BufReader::new(Patient(client.stderr.take().unwrap()));
    let mut said = String::new();
    err.read_line(&mut said).unwrap();
    assert_eq!(said, "here\n");
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), VOLUME);
    exits(client);
}

/// The second session gets as much as the first one, whose client left in the middle.
#[test]
fn a_client_that_goes_in_the_middle_gives_its_share_back() {
    let (d, line) = far("[limits]\nwindows = 2\n");
    for round in 0..4 {
        let mut gate = Gate::new(d.folder.path(&format!("gate{round}")));
        let script = format!("head -c {VOLUME} | wc -c >&2; read x <{}", gate.name());
        let before = line.up.all();
        let mut client = piped(&mut d.cos(&[&script]));
        let given = give(&mut client, 2 * VOLUME);
        let mut err = BufReader::new(Patient(client.stderr.take().unwrap()));
        err.read_line(&mut String::new()).unwrap();
        // The job's pipe, and a window that took half of the budget.
        let sent = line.up.rests() - before - VOLUME;
        let wanted = 2 * MIB + MIB * 3 / 4..=3 * MIB + MIB / 4;
        assert!(wanted.contains(&sent), "{sent} in round {round}");
        client.kill().unwrap();
        client.wait().unwrap();
        given.get();
        d.log.wait(&format!("end session={round} "));
        gate.open();
    }
}

/// A host that answers a client's credit late.
struct Grants {
    session: client_host::Session,
    allowance: Allowance,
    lag: Duration,
    late: VecDeque<(Instant, u32)>,
    /// The most that was granted and not sent, including grants in transit.
    most: usize,
}

impl Grants {
    fn new(host: &Host, lag: Duration) -> Self {
        Self {
            session: host.accept(),
            allowance: Allowance::default(),
            lag,
            late: VecDeque::new(),
            most: CREDIT as usize,
        }
    }

    fn outstanding(&self) -> usize {
        let late: u32 = self.late.iter().map(|(_, n)| n).sum();
        self.allowance.left() + late as usize
    }

    /// Sends this much, as far as there is credit, and waits for grants if there is none.
    fn send(&mut self, volume: usize) {
        let zeros = vec![0; DATA_PAYLOAD];
        let mut left = volume;
        while left > 0 {
            let now = Instant::now();
            while self.late.front().is_some_and(|(due, _)| *due <= now) {
                let (_, n) = self.late.pop_front().unwrap();
                self.allowance.granted(n).unwrap();
            }
            let n = left.min(zeros.len()).min(self.allowance.left());
            if n > 0 {
                let message = Message::Data(Stream::Main, &zeros[..n]);
                self.session.say(&message);
                self.allowance.spend(n);
                left -= n;
                continue;
            }
            if let Some((due, _)) = self.late.front() {
                // A grant that arrived in the meantime counts from its arrival.
                let rest = due.saturating_duration_since(now);
                let limit = Some(rest.max(Duration::from_millis(1)));
                self.session.socket.set_read_timeout(limit).unwrap();
                if self.session.socket.peek(&mut [0]).is_err() {
                    continue;
                }
                let limit = Some(Duration::from_secs(60));
                self.session.socket.set_read_timeout(limit).unwrap();
            }
            match self.session.receive() {
                Some(Said::Credit(Stream::Main, n)) => {
                    self.late.push_back((Instant::now() + self.lag, n));
                    self.most = self.most.max(self.outstanding());
                    assert!(self.outstanding() <= CREDIT_MAX as usize);
                }
                Some(Said::Eof) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn finish(self, child: Child) {
        ends_well(self.session, child);
    }
}

#[test]
fn a_client_grants_more_to_a_host_that_waits_for_it() {
    let host = Host::new();
    let mut child = host.start(&["hostb", "x"]);
    let out = all_of(&mut child);
    // At so long a distance, even a slow machine fills more than a small window.
    let mut granted = Grants::new(&host, 4 * DELAY);
    granted.send(VOLUME);
    assert!(granted.most > 4 * MIB, "{}", granted.most);
    granted.finish(child);
    assert_eq!(out.get().len(), VOLUME);
}

/// It also grants no more if its own reader is slow.
#[test]
fn client_with_a_slow_reader_grants_no_more() {
    let host = Host::new();
    let mut child = host.start(&["hostb", "x"]);
    let mut out = child.stdout.take().unwrap();
    let reader = later(move || {
        let (mut block, mut all) = (vec![0; 64 * 1024], 0);
        // A sixteenth of a mebibyte in 8 ms: less than half a mebibyte in a round trip.
        loop {
            match out.read(&mut block).unwrap() {
                0 => return all,
                n => all += n,
            }
            std::thread::sleep(Duration::from_millis(8));
        }
    });
    let mut granted = Grants::new(&host, DELAY);
    granted.send(6 * MIB);
    assert_eq!(granted.most, CREDIT as usize);
    granted.finish(child);
    assert_eq!(reader.get(), 6 * MIB);
}
