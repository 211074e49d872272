//! Addresses that refuse, are silent or are not tried, and the messages about them.

use std::io::Read;
use std::net::TcpListener;

use nix::sys::socket::{Backlog, bind, listen};

use super::*;

const TIMES: Times = within(ConnectTime::Each(Duration::from_secs(60)));

const fn within(connect: ConnectTime) -> Times {
    Times {
        connect,
        keep_alive: 60,
    }
}

#[test]
fn the_next_address_is_tried_when_one_refuses() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap();
    let addresses = [closed, open];
    let mut dialing = Dialing::begin(&addresses, TIMES);
    dialing.greet(b"hello");
    let dialed = dialing.finish(b"hello").unwrap();
    assert_eq!(dialed.peer, Peer::At(open));
    let mut got = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}

#[test]
fn every_address_is_named_when_all_fail() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let addresses = [closed, closed];
    let dialing = Dialing::begin(&addresses, TIMES);
    let e = dialing.finish(b"").err().unwrap();
    let told = e.to_string();
    assert_eq!(told.matches(&closed.to_string()).count(), 2, "{told}");
    assert!(told.contains("is cosserver running there"), "{told}");
}

#[test]
fn a_wait_ends_at_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let e = wait_for(&one, PollFlags::POLLIN, Instant::now()).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_connect_timeout_is_for_all_addresses_and_the_hello_together() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let full = silent.local_addr().unwrap();
    let time = Duration::from_millis(300);
    let addresses = [full];
    let mut dialing = Dialing::begin(&addresses, within(ConnectTime::Together(time)));
    dialing.greet(b"hello");
    let dialed = dialing.finish(b"hello").unwrap();
    assert!(dialed.time_for_hello() < time);
    let dialing = Dialing::begin(&addresses, within(ConnectTime::Each(time)));
    assert_eq!(dialing.finish(b"hello").unwrap().time_for_hello(), time);
    // Once the time is over no other address is tried.
    let addresses = [full; 3];
    let dialing = Dialing::begin(&addresses, within(ConnectTime::Together(Duration::ZERO)));
    let told = dialing.finish(b"").err().unwrap().to_string();
    let not_tried = format!("{full}, {full}, {full}: not tried, no time was left");
    assert_eq!(told, not_tried);
}

/// Regression: the message was "no answer within 3 s" for an address that had one second, or none.
#[test]
fn an_address_that_was_not_tried_is_not_said_to_be_silent() {
    // A listener without room for another connection answers none.
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(listener.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(listener);
    let silent = listener.local_addr().unwrap();
    let room = || TcpStream::connect_timeout(&silent, Duration::from_millis(200)).ok();
    let all: Vec<TcpStream> = std::iter::from_fn(room).take(16).collect();
    assert!(all.len() < 16);
    let other: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let time = Duration::from_millis(300);
    let addresses = [silent, other];
    let dialing = Dialing::begin(&addresses, within(ConnectTime::Together(time)));
    let fault = dialing.finish(b"").err().unwrap();
    let silent = format!("{silent}: no answer within 0.3 s; is the host up?");
    assert_eq!(
        fault.to_string(),
        format!("{silent}; {other}: not tried, no time was left")
    );
}

#[test]
fn a_connection_comes_from_where_it_is_to_come() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [listener.local_addr().unwrap()];
    let from = |sources: &[&str]| {
        let sources: Vec<SocketAddr> = sources.iter().map(|s| s.parse().unwrap()).collect();
        Dialing::begin_from(&addresses, &sources, TIMES).finish(b"x")
    };
    let told = |sources: &[&str]| from(sources).err().unwrap().to_string();
    let dialed = from(&["[::1]:0", "127.0.0.9:0"]).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.9");
    drop(dialed);
    assert!(told(&["192.0.2.1:0"]).contains("from 192.0.2.1: "));
    assert!(told(&["[::1]:0"]).contains("no source address of its family"));
}
