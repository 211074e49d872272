//! Tests of the pump's wait; the test acts as the server.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use super::*;
use crate::protocol::hello::Suite;
use crate::protocol::noise::Direction;
use crate::protocol::seal::Sealer;
use crate::secret::Secret;

/// Returns a pump over a connection, and the server's end of it.
fn pump() -> (Pump<'static>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let direction = Direction {
        key: Secret::new([7; 32]),
        counter: 0,
    };
    let pump = Pump {
        socket,
        inbox: Inbox::default(),
        opener: Opener::new(Suite::ChaChaPoly, &direction).unwrap(),
        outbox: Outbox::new(Sealer::new(Suite::ChaChaPoly, &direction).unwrap()),
        unsent: Unsent::default(),
        is_watched: false,
        looked: Instant::now(),
        overdue: None,
        sending_ended: false,
        input: None,
        unread: None,
        allowance: Allowance::default(),
        sinks: sinks(None),
        signals: Signals::catch().unwrap(),
        receiver: SignalReceiver::default(),
        end: None,
        cut_off: false,
        lost: None,
        notes: Vec::new(),
        host: "hostb",
    };
    (pump, listener.accept().unwrap().0)
}

/// Regression: a client that was stopped for some seconds gave up, although the host had answered.
#[test]
fn answer_received_before_the_deadline_is_read_after_it() {
    let (mut pump, mut server) = pump();
    let long_ago = Instant::now()
        .checked_sub(Duration::from_secs(100))
        .unwrap();
    let _ = pump.receiver.take(Signal::Terminate, long_ago);
    server.write_all(b"x").unwrap();
    while !crate::client::dial::has_news(pump.socket.as_fd()) {}
    assert!(pump.wait().unwrap().socket);
    // Not forever: a host that keeps sending has a limit.
    let begin = Instant::now();
    let fault = loop {
        match pump.wait() {
            Ok(_) => assert!(begin.elapsed() < Duration::from_secs(30)),
            Err(fault) => break fault,
        }
    };
    assert!(begin.elapsed() >= Duration::from_millis(900));
    assert!(fault.to_string().contains("the signal"), "{fault}");

    // If nothing has come, the wait ends at once.
    let (mut pump, _server) = self::pump();
    let _ = pump.receiver.take(Signal::Terminate, long_ago);
    let begin = Instant::now();
    let fault = pump.wait().err().unwrap();
    assert!(begin.elapsed() < Duration::from_millis(900));
    assert!(fault.to_string().contains("does not answer"), "{fault}");
    assert!(fault.remedy().unwrap().contains("cosadm who"), "{fault:?}");

    // A command that is hung up does not continue: there is nothing to check.
    let (mut pump, _server) = self::pump();
    let _ = pump.receiver.take(Signal::Terminate, long_ago);
    pump.receiver.answered();
    let fault = pump.wait().err().unwrap();
    assert!(fault.to_string().contains("it is hung up now"), "{fault}");
    assert_eq!(fault.remedy(), None);
}

/// Each message is on one line, after the program's and the host's name.
#[test]
fn what_is_said_of_a_signal_is_short() {
    let begin = Instant::now();
    let mut receiver = SignalReceiver::default();
    let _ = receiver.take(Signal::Terminate, begin);
    let silent = receiver.deadline().unwrap().1;
    receiver.answered();
    let runs_on = receiver.deadline().unwrap().1;
    let unread = receiver.deadline_after_the_end().unwrap().1;
    for words in [silent, runs_on, unread] {
        assert!(format!("cos: hostb: {words}").len() <= 160, "{words}");
    }
}
