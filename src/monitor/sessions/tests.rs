use std::net::Ipv4Addr;

use mio::{Events, Poll};

use super::*;

/// The thread of a session does not read while the job ends: it hears the end all the same,
/// once it reads again, and nothing but room on the channel has to come for that.
#[test]
fn an_end_that_could_not_be_sent_at_once_is_sent_when_there_is_room() {
    let mut poll = Poll::new().unwrap();
    let (channel, theirs) = Channel::pair().unwrap();
    let thread = Channel::new(theirs);
    let whose = Whose {
        host: "hosta".into(),
        user: "root".into(),
        peer: Ipv4Addr::LOCALHOST.into(),
        caller: "root".into(),
        service: "exec".into(),
        machines: Vec::new(),
        command: String::new(),
        holders: Vec::new(),
    };
    let mut sessions = Sessions::default();
    let (now, grace) = (Instant::now(), Duration::from_secs(5));
    let id = sessions.number();
    let registry = poll.registry();
    let leader = Leader::Nobody;
    sessions
        .add(registry, id, whose, leader, channel, now)
        .unwrap();
    let session = sessions.all.get_mut(&id).unwrap();
    while !session.send(&News::Count) {}
    assert!(sessions.told(id, End::Exited(7), now).is_none());
    assert!(sessions.watch_unsent(registry, grace, now).is_empty());

    let mut buffer = [0; 256];
    let mut hear = || match thread.receive(&mut buffer).unwrap() {
        Incoming::Message(message, _) => News::decode(&message),
        Incoming::Nothing | Incoming::Gone => None,
    };
    let mut events = Events::with_capacity(4);
    let end = loop {
        match hear() {
            Some(News::Count) => continue,
            Some(News::Ended(end)) => break end,
            None => {}
        }
        poll.poll(&mut events, Some(Duration::from_secs(30)))
            .unwrap();
        assert!(!events.is_empty(), "nothing tells that there is room");
        let registry = poll.registry();
        assert!(sessions.hear(registry, id, grace, now).is_none());
    };
    assert_eq!(end, End::Exited(7));
}
