//! The table's names: when each is looked up, and what an answer means.

use super::super::look_ups::tests::{asked_for_hosts, none_until, reap};
use super::*;
use crate::config::scratch::Scratch;

fn name(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const TABLE: &str = "one cos run-as=root\ntwo cos run-as=root\n";

/// Returns a table with known addresses, whose names are being looked up as 1, 2 and so on.
fn looking(table: &str) -> Hosts {
    let scratch = Scratch::new();
    scratch.file("hostinfo", table, 0o600);
    let mut hosts = Hosts::load(&scratch.paths());
    for (n, last) in [("one", "192.0.2.1"), ("two", "192.0.2.2")] {
        hosts.resolved.insert(name(n), vec![ip(last)]);
    }
    let mut waiting: Vec<HostName> = hosts.waiting.drain(..).collect();
    waiting.sort_by_key(ToString::to_string);
    hosts.looking = (1..).zip(waiting).collect();
    hosts
}

#[test]
fn name_keeps_its_addresses_after_one_failed_look_up() {
    let mut hosts = looking(TABLE);
    let new = vec![ip("192.0.2.9"), ip("192.0.2.10")];
    let now = hosts.told;
    assert_eq!(
        hosts.look_up_ended(1, Ok(new.clone()), now).0,
        Resolution::Same
    );
    assert_eq!(hosts.addresses_of(&name("one")), Some(new));
    assert!(hosts.is_resolving());
    let (names, unresolved) = hosts.look_up_ended(2, Err("away".into()), now);
    assert_eq!(
        (names, unresolved),
        (Resolution::All, Some((name("two"), "away".into())))
    );
    assert_eq!(
        hosts.addresses_of(&name("two")),
        Some(vec![ip("192.0.2.2")])
    );
    // A name that is no longer in the table has none.
    hosts.table = Ok(HostTable::parse(b"", Path::new("hostinfo")));
    hosts.list_names();
    assert_eq!(hosts.addresses_of(&name("two")), None);
}

/// One slow name once kept the others from counting.
#[test]
fn slow_name_does_not_delay_resolved_names() {
    let mut hosts = looking(TABLE);
    let later = hosts.told + TOLD;
    assert_eq!(
        hosts.look_up_ended(2, Ok(vec![ip("192.0.2.9")]), later).0,
        Resolution::Some
    );
    assert_eq!(
        hosts.addresses_of(&name("two")),
        Some(vec![ip("192.0.2.9")])
    );
    // One that was asked for before the table changed is not asked for twice.
    hosts.list_names();
    assert_eq!(hosts.waiting, [name("two")]);
}

/// After 5 s, then twice as long, and so on; and at once if a connection needs it.
#[test]
fn a_name_that_does_not_resolve_is_asked_for_again() {
    let mut hosts = looking(TABLE);
    let (two, mut now) = (name("two"), hosts.told);
    let mut which = 2;
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        let (_, unresolved) = hosts.look_up_ended(which, Err("away".into()), now);
        // It is reported once.
        assert_eq!(unresolved.is_some(), seconds == 5);
        let due = now + Duration::from_secs(seconds);
        assert_eq!(hosts.deadline(), Some(due));
        hosts.queue_due_names(due - Duration::from_millis(1));
        assert!(hosts.waiting.is_empty());
        hosts.queue_due_names(due);
        assert_eq!(hosts.waiting.pop_front().as_ref(), Some(&two));
        now = due;
        which += 1;
        hosts.looking.insert(which, two.clone());
    }
    assert!(hosts.want(&two, now), "it is being looked up");
    hosts.look_up_ended(which, Ok(vec![ip("192.0.2.9")]), now);
    assert_eq!(hosts.deadline(), None);
    assert!(!hosts.want(&two, now), "it was looked up a moment ago");
    assert!(hosts.want(&two, now + ON_DEMAND));
    assert_eq!(hosts.wanted.front(), Some(&two));
}

/// Names for which the resolver does not answer once took every slot.
#[test]
fn background_look_ups_leave_slots_to_a_name_that_a_connection_needs() {
    let lines = (0..HOSTS + 4).map(|n| format!("hangs{n} cos run-as=root\n"));
    let scratch = Scratch::new();
    let table = lines.collect::<String>() + TABLE;
    scratch.file("hostinfo", &table, 0o600);
    let mut hosts = Hosts::load(&scratch.paths());
    let now = hosts.told;
    hosts
        .waiting
        .retain(|n| *n != name("one") && *n != name("two"));
    let mut which = 0;
    let mut ask = |hosts: &mut Hosts| {
        let name = hosts.next_queue()?.pop_front()?;
        which += 1;
        hosts.looking.insert(which, name.clone());
        Some(name)
    };
    while ask(&mut hosts).is_some() {}
    assert_eq!(hosts.looking.len(), HOSTS - KEPT);
    for needed in ["one", "two"] {
        assert!(hosts.want(&name(needed), now));
        assert!(hosts.is_resolving());
        assert_eq!(ask(&mut hosts), Some(name(needed)));
    }
    // No more at a time than one process takes: it is asked for when one of them has ended.
    let third = hosts.waiting.front().cloned().unwrap();
    assert!(hosts.want(&third, now));
    assert_eq!(ask(&mut hosts), None);
    hosts.look_up_ended(1, Err("away".into()), now);
    assert_eq!(ask(&mut hosts), Some(third));
}

fn table_of(hosts: &mut Hosts, text: &str) {
    hosts.table = Ok(HostTable::parse(text.as_bytes(), Path::new("hostinfo")));
    hosts.list_names();
}

/// Starts look-ups. Returns whether that succeeded and how many are under way.
fn resolve(hosts: &mut Hosts, asked: &mut (LookUps, mio::Poll), now: Instant) -> (bool, usize) {
    let (look_ups, poll) = asked;
    let resolved = hosts.resolve(look_ups, poll.registry(), now);
    (resolved.is_ok(), hosts.looking.len())
}

/// A table that was empty for a moment, while it was written, once had more names asked for than
/// the process takes, and every name was marked as failed.
#[test]
fn names_that_left_the_table_hold_their_slots_until_their_answers_come() {
    let lines = (0..HOSTS + 4).map(|n| format!("hangs{n} cos run-as=root\n"));
    let table = lines.collect::<String>();
    let mut hosts = looking("");
    let mut asked = asked_for_hosts(0);
    let now = hosts.told;
    table_of(&mut hosts, &table);
    let most = HOSTS - KEPT;
    assert_eq!(resolve(&mut hosts, &mut asked, now), (true, most));
    for text in ["", &table, TABLE] {
        table_of(&mut hosts, text);
        assert_eq!(resolve(&mut hosts, &mut asked, now), (true, most));
        assert!(hosts.ended.is_empty() && hosts.deadline().is_none());
        assert_eq!(hosts.is_resolving(), !text.is_empty());
    }
    // An answer for a name that is not in the table makes room, and has no other effect.
    let which = *hosts.looking.keys().next().unwrap();
    let look_up_ended = hosts.look_up_ended(which, Ok(vec![ip("192.0.2.9")]), now);
    assert_eq!(look_up_ended, (Resolution::Same, None));
    assert!(hosts.resolved.is_empty() && hosts.ended.is_empty());
    assert!(hosts.want(&name("one"), now));
    assert!(hosts.next_queue().is_some());
    reap(asked.0);
}

/// They were once refused for 5 s, and then for longer.
#[test]
fn names_without_a_free_slot_stay_queued() {
    let mut hosts = looking("");
    let mut asked = asked_for_hosts(HOSTS);
    let now = hosts.told;
    table_of(&mut hosts, TABLE);
    assert!(hosts.want(&name("two"), now));
    assert_eq!(resolve(&mut hosts, &mut asked, now), (true, 0));
    let left = (&hosts.wanted, &hosts.waiting);
    assert_eq!(left, (&[name("two")].into(), &[name("one")].into()));
    assert!(hosts.ended.is_empty() && hosts.is_resolving());
    reap(asked.0);
}

/// A name server's failure after a process's failure once counted as known, and was not logged.
#[test]
fn names_without_a_look_up_process_stay_queued_and_new() {
    let mut hosts = looking("");
    let now = hosts.told;
    table_of(&mut hosts, TABLE);
    assert!(hosts.want(&name("two"), now));
    let poll = mio::Poll::new().unwrap();
    let mut failing = (none_until(now + LONGEST_PAUSE * 2), poll);
    let mut due = now;
    for (failed, seconds) in [0.5, 1.0, 2.0, 4.0, 5.0].into_iter().enumerate() {
        // It is reported once.
        let told = (failed > 0, 0);
        assert_eq!(resolve(&mut hosts, &mut failing, due), told);
        let next = due + Duration::from_secs_f64(seconds);
        assert_eq!(hosts.deadline(), Some(next));
        let early = next - Duration::from_millis(1);
        assert_eq!(resolve(&mut hosts, &mut failing, early), (true, 0));
        assert_eq!(hosts.deadline(), Some(next));
        due = next;
        failing.0 = none_until(due + LONGEST_PAUSE);
    }
    // No connection waits for them, and they are not logged as unresolved.
    assert!(!hosts.is_resolving() && hosts.ended.is_empty());
    let mut asked = asked_for_hosts(0);
    assert_eq!(resolve(&mut hosts, &mut asked, due), (true, 2));
    assert_eq!(hosts.deadline(), None);
    let which = *hosts.looking.keys().next().unwrap();
    let (_, unresolved) = hosts.look_up_ended(which, Err("away".into()), due);
    assert!(unresolved.is_some());
    reap(asked.0);
}

/// No slot is reserved, and no penalty softened, for a host that may ask nothing.
#[test]
fn entry_without_run_as_reserves_no_slot() {
    let table = "one cos run-as=root\ntwo cos\nthree cos addr=192.0.2.0/28\n\
                 four cos addr=198.51.100.0/24 run-as=root\n";
    let hosts = looking(table);
    let reserved = hosts.networks();
    assert_eq!(reserved, [(ip("192.0.2.1"), 32), (ip("198.51.100.0"), 24)]);
}
