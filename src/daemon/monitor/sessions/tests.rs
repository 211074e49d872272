use std::net::Ipv4Addr;

use mio::{Events, Poll};

use super::*;

fn info() -> SessionInfo {
    SessionInfo {
        host: "hosta".into(),
        user: "root".into(),
        peer: Ipv4Addr::LOCALHOST.into(),
        caller: "root".into(),
        service: "exec".into(),
        machines: Vec::new(),
        command: String::new(),
        holders: Vec::new(),
    }
}

/// The thread of a session does not read while the job ends. It still gets the end once it reads
/// again; only room on the channel is needed for that.
#[test]
fn an_end_that_could_not_be_sent_at_once_is_sent_when_there_is_room() {
    let mut poll = Poll::new().unwrap();
    let (channel, theirs) = Channel::pair().unwrap();
    let thread = Channel::new(theirs);
    let mut sessions = Sessions::default();
    let (now, grace) = (Instant::now(), Duration::from_secs(5));
    let id = sessions.number();
    let registry = poll.registry();
    let leader = Leader::Detached;
    sessions
        .add(registry, id, info(), leader, channel, now)
        .unwrap();
    let session = sessions.all.get_mut(&id).unwrap();
    while !session.send(&MonitorToRelay::Count) {}
    assert!(
        sessions
            .application_ended(id, End::Exited(7), now)
            .is_none()
    );
    assert!(sessions.watch_unsent(registry, grace, now).is_empty());

    let mut buffer = [0; 256];
    let mut handle_messages = || match thread.receive(&mut buffer).unwrap() {
        Incoming::Message(message, _) => MonitorToRelay::decode(&message),
        Incoming::Nothing | Incoming::Gone => None,
    };
    let mut events = Events::with_capacity(4);
    let end = loop {
        match handle_messages() {
            Some(MonitorToRelay::Count) => continue,
            Some(MonitorToRelay::Ended(end)) => break end,
            None => {}
        }
        poll.poll(&mut events, Some(Duration::from_secs(30)))
            .unwrap();
        assert!(!events.is_empty(), "nothing tells that there is room");
        let registry = poll.registry();
        assert!(sessions.handle_messages(registry, id, grace, now).is_none());
    };
    assert_eq!(end, End::Exited(7));
}

/// What a command starts to handle SIGHUP would be found, and hung up, too.
#[test]
fn a_session_is_looked_for_before_it_is_sent_anything() {
    use nix::sys::signal::{Signal, kill};

    // It makes a session in the process that it is.
    let sleep = || {
        let _ = nix::unistd::setsid();
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
        std::thread::sleep(Duration::from_secs(60));
    };
    let child = crate::sys::forked::Forked::start(sleep).unwrap();
    let pid = child.pid;
    let status = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let end = Instant::now() + Duration::from_secs(30);
    let until = |is: &dyn Fn() -> bool| {
        while !is() {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
    };
    until(&|| nix::unistd::getsid(Some(pid)) == Ok(pid));
    // A stopped process shows the signals it was sent.
    kill(pid, Signal::SIGSTOP).unwrap();
    until(&|| status("State") == "T");

    let poll = Poll::new().unwrap();
    let (channel, thread) = Channel::pair().unwrap();
    let mut sessions = Sessions::default();
    let (now, grace) = (Instant::now(), Duration::from_secs(5));
    let (id, leader) = (sessions.number(), Leader::Ours(pid));
    sessions
        .add(poll.registry(), id, info(), leader, channel, now)
        .unwrap();
    sessions.hang_up(id, grace, now);
    sessions.disconnect(id);
    let hangup = "0000000000000001";
    assert_ne!(status("ShdPnd"), hangup);
    assert!(sessions.all[&id].channel.is_some(), "its pipes are closed");
    while status("ShdPnd") != hangup {
        assert_eq!(sessions.deadline(), Some(now));
        sessions.advance_hung(now);
    }
    assert!(sessions.all[&id].channel.is_none());
    drop(thread);
    kill(pid, Signal::SIGCONT).unwrap();
    until(&|| process::ended(pid).is_some());
    assert!(sessions.job_ended(id, now).is_none());
    let mut finished = Vec::new();
    while finished.is_empty() {
        assert!(Instant::now() < end);
        finished = sessions.advance_hung(Instant::now());
    }
    assert_eq!(finished[0].end, Some(End::Killed(1)));
    let reaped = nix::sys::wait::waitpid(pid, None);
    assert_eq!(reaped, Err(nix::errno::Errno::ECHILD));
}
