//! Tests of a session's thread with descriptors that fail.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::pipe;

use super::session::Serving;
use crate::ipc::relay::{Closing, Failure, MonitorToRelay, Part, RelayToMonitor, Session};
use crate::ipc::{Channel, Incoming};
use crate::protocol::hello::Suite;
use crate::protocol::limits::CREDIT;
use crate::protocol::noise::{Direction, Keys};
use crate::protocol::seal::{Opener, Sealer};
use crate::protocol::stream::{End, Message, Stream};
use crate::secret::Secret;
use crate::sys::socket::set_nonblocking;

const SUITE: Suite = Suite::ChaChaPoly;

fn direction(n: u8) -> Direction {
    Direction {
        key: Secret::new([n; 32]),
        counter: 0,
    }
}

/// A session that is served, with the client's and the monitor's ends for the test.
struct Fixture {
    client: TcpStream,
    monitor: Channel,
    to_server: Sealer,
    from_server: Opener,
    thread: std::thread::JoinHandle<()>,
}

impl Fixture {
    fn with(stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        let limit = Some(Duration::from_secs(30));
        client.set_read_timeout(limit).unwrap();
        let (monitor, channel) = Channel::pair().unwrap();
        for fd in [&stdin, &stdout, &stderr] {
            set_nonblocking(fd).unwrap();
        }
        let session = Session {
            answer: Vec::new(),
            keys: Keys {
                suite: SUITE,
                to_server: direction(1),
                to_client: direction(2),
            },
            linger: 1000,
            windows: 0,
            is_backend: false,
        };
        let fds = [socket.into(), channel, stdin, stdout, stderr];
        let serving = Serving::new(&session, fds, &Arc::default()).unwrap();
        Self {
            client,
            monitor,
            to_server: Sealer::new(SUITE, &direction(1)).unwrap(),
            from_server: Opener::new(SUITE, &direction(2)).unwrap(),
            thread: std::thread::spawn(move || serving.run(&AtomicUsize::new(0))),
        }
    }

    fn say(&mut self, message: &Message<'_>) {
        let record = self.to_server.record(&message.compose()).unwrap();
        self.client.write_all(&record).unwrap();
    }

    /// Returns the end that the client was sent, and the closing that the monitor was sent.
    fn ends(mut self) -> (End, Closing) {
        let end = loop {
            let mut head = [0; 2];
            self.client.read_exact(&mut head).unwrap();
            let mut body = vec![0; u16::from_be_bytes(head).into()];
            self.client.read_exact(&mut body).unwrap();
            let text = self.from_server.open(&mut body).unwrap();
            if let Message::End(end) = Message::parse(text).unwrap() {
                break end;
            }
        };
        self.monitor.wait();
        let Incoming::Message(word, _) = self.monitor.receive(&mut [0; 512]).unwrap() else {
            panic!("no last word");
        };
        let Some(RelayToMonitor::Over(how, ..)) = RelayToMonitor::decode(&word) else {
            panic!("{word:?}");
        };
        drop((self.client, self.monitor));
        self.thread.join().unwrap();
        (end, how)
    }
}

fn failed(part: Part, errno: Errno, words: &str) -> (End, Closing) {
    let end = End::NotStarted(format!("the host failed: {words}"));
    (end, Closing::Failed(Failure::new(part, errno)))
}

/// Regression test: a relay without memory cut a job's input and reported status 0, because any
/// write error was taken for a reader that is gone.
#[test]
fn stdin_write_error_is_not_taken_for_a_closed_reader() {
    let (out, _held) = pipe().unwrap();
    let (err, _held_too) = pipe().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut fixture = Fixture::with(full.into(), out, err);
    fixture.say(&Message::Data(Stream::Main, b"input"));
    let wanted = failed(
        Part::Input,
        Errno::ENOSPC,
        "standard input: No space left on device",
    );
    assert_eq!(fixture.ends(), wanted);
}

#[test]
fn output_read_error_is_not_taken_for_its_end() {
    for (which, part, name) in [
        (0, Part::Output, "standard output"),
        (1, Part::Error, "standard error"),
    ] {
        let (_reader, stdin) = pipe().unwrap();
        let (good, _held) = pipe().unwrap();
        let bad: OwnedFd = File::open("/").unwrap().into();
        let [out, err] = if which == 0 { [bad, good] } else { [good, bad] };
        let wanted = failed(part, Errno::EISDIR, &format!("{name}: Is a directory"));
        assert_eq!(Fixture::with(stdin, out, err).ends(), wanted);
    }
}

/// Only EPIPE means that no process reads.
#[test]
fn a_reader_that_is_gone_resets_the_input_and_the_session_goes_on() {
    let (reader, stdin) = pipe().unwrap();
    let (out, writer) = pipe().unwrap();
    let (err, _held) = pipe().unwrap();
    drop(reader);
    let mut fixture = Fixture::with(stdin, out, err);
    fixture.say(&Message::Data(Stream::Main, b"input"));
    nix::unistd::write(&writer, b"output").unwrap();
    drop(writer);
    let mut all = Vec::new();
    while all.len() < 3 {
        let mut head = [0; 2];
        fixture.client.read_exact(&mut head).unwrap();
        let mut body = vec![0; u16::from_be_bytes(head).into()];
        fixture.client.read_exact(&mut body).unwrap();
        let text = fixture.from_server.open(&mut body).unwrap();
        let message = Message::parse(text).unwrap();
        let named = [
            (Message::Reset(Stream::Main), "reset"),
            (Message::Data(Stream::Main, b"output"), "output"),
            (Message::Eof(Stream::Main), "end"),
        ];
        let name = named.iter().find(|(which, _)| *which == message);
        all.push(name.unwrap_or_else(|| panic!("{message:?}")).1);
    }
    all.sort_unstable();
    assert_eq!(all, ["end", "output", "reset"]);
    drop(fixture.client);
    drop(fixture.monitor);
    fixture.thread.join().unwrap();
}

/// Regression test: the session was over when its end was sent. A client that was stopped for
/// longer than the kernel keeps a closed connection lost the end of the output, and the status.
#[cfg(target_os = "linux")]
#[test]
fn session_stays_until_its_end_message_is_sent() {
    let (_reader, stdin) = pipe().unwrap();
    let (out, writer) = pipe().unwrap();
    let (err, held) = pipe().unwrap();
    let mut fixture = Fixture::with(stdin, out, err);
    // More than the client's system takes, and less than it has credit for.
    let much = vec![0; (CREDIT / 4 * 3).try_into().unwrap()];
    File::from(writer).write_all(&much).unwrap();
    drop(held);
    let message = MonitorToRelay::Ended(End::Exited(7));
    fixture.monitor.send(message.encode(), Vec::new()).unwrap();
    let mut word = [PollFd::new(fixture.monitor.as_fd(), PollFlags::POLLIN)];
    // The relay checks every half second.
    assert_eq!(poll(&mut word, 1_500_u16), Ok(0), "it was over");
    let told = Closing::Told { cut_off: false };
    assert_eq!(fixture.ends(), (End::Exited(7), told));
}

/// As above, but the client goes without having read anything.
#[cfg(target_os = "linux")]
#[test]
fn client_that_leaves_before_the_end_message_is_gone() {
    let (_reader, stdin) = pipe().unwrap();
    let (out, writer) = pipe().unwrap();
    let (err, held) = pipe().unwrap();
    let mut fixture = Fixture::with(stdin, out, err);
    let much = vec![0; (CREDIT / 4 * 3).try_into().unwrap()];
    File::from(writer).write_all(&much).unwrap();
    drop(held);
    let message = MonitorToRelay::Ended(End::Exited(7));
    fixture.monitor.send(message.encode(), Vec::new()).unwrap();
    let mut word = [PollFd::new(fixture.monitor.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut word, 1_000_u16), Ok(0), "it was over");
    drop(fixture.client);
    fixture.monitor.wait();
    let Incoming::Message(word, _) = fixture.monitor.receive(&mut [0; 512]).unwrap() else {
        panic!("no last word");
    };
    let word = RelayToMonitor::decode(&word);
    assert!(
        matches!(word, Some(RelayToMonitor::Over(Closing::ClientGone, ..))),
        "{word:?}"
    );
    drop(fixture.monitor);
    fixture.thread.join().unwrap();
}

/// Returns how many bytes of standard output arrive before the first data on standard error.
fn before_the_error(fixture: &mut Fixture) -> usize {
    let mut before = 0;
    loop {
        let mut head = [0; 2];
        fixture.client.read_exact(&mut head).unwrap();
        let mut body = vec![0; u16::from_be_bytes(head).into()];
        fixture.client.read_exact(&mut body).unwrap();
        let text = fixture.from_server.open(&mut body).unwrap();
        let Message::Data(stream, bytes) = Message::parse(text).unwrap() else {
            panic!("{text:?}");
        };
        if stream == Stream::Error {
            assert_eq!(bytes, b"error");
            return before;
        }
        before += bytes.len();
    }
}

/// Regression test: with outputs served in strict rotation, a prompt on standard error arrived
/// before the output of the command before it.
#[test]
fn an_error_that_was_written_after_output_comes_after_it() {
    const MUCH: usize = 900_000;
    let (_reader, stdin) = pipe().unwrap();
    let (out, main) = pipe().unwrap();
    super::pipe::widen(&main);
    assert_eq!(nix::unistd::write(&main, &vec![b'x'; MUCH]), Ok(MUCH));
    let (err, writer) = pipe().unwrap();
    nix::unistd::write(&writer, b"error").unwrap();
    let mut fixture = Fixture::with(stdin, out, err);
    assert_eq!(before_the_error(&mut fixture), MUCH);
    drop(fixture.client);
    drop(fixture.monitor);
    fixture.thread.join().unwrap();
}

/// Regression test: an output that always had data, and credit, silenced the other one.
#[test]
fn continuous_output_does_not_starve_the_other_stream() {
    let (_reader, stdin) = pipe().unwrap();
    let zeros = File::open("/dev/zero").unwrap();
    let (err, writer) = pipe().unwrap();
    nix::unistd::write(&writer, b"error").unwrap();
    let mut fixture = Fixture::with(stdin, zeros.into(), err);
    fixture.say(&Message::Credit(Stream::Main, 14 * CREDIT));
    let before = before_the_error(&mut fixture);
    // The size of a job's pipe, and two reads of an output.
    assert!(before <= 1536 * 1024, "{before}");
    drop(fixture.client);
    drop(fixture.monitor);
    fixture.thread.join().unwrap();
}
