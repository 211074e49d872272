//! The table's names: when each is asked for, and what an answer means.

use super::*;
use crate::config::scratch::Scratch;

fn name(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const TABLE: &str = "one cos run-as=root\ntwo cos run-as=root\n";

/// A table of which this was known, and whose names are being looked up, as 1, 2 and on.
fn looking(table: &str) -> Hosts {
    let scratch = Scratch::new();
    scratch.file("hostinfo", table, 0o600);
    let mut hosts = Hosts::load(&scratch.place());
    for (n, last) in [("one", "192.0.2.1"), ("two", "192.0.2.2")] {
        hosts.resolved.insert(name(n), vec![ip(last)]);
    }
    let mut waiting: Vec<HostName> = hosts.waiting.drain(..).collect();
    waiting.sort_by_key(ToString::to_string);
    hosts.looking = (1..).zip(waiting).collect();
    hosts
}

#[test]
fn a_name_that_does_not_resolve_for_once_keeps_its_addresses() {
    let mut hosts = looking(TABLE);
    let new = vec![ip("192.0.2.9"), ip("192.0.2.10")];
    let now = hosts.told;
    assert_eq!(hosts.heard(1, Ok(new.clone()), now).0, Names::Same);
    assert_eq!(hosts.addresses_of(&name("one")), Some(new));
    assert!(hosts.is_resolving());
    let (names, unresolved) = hosts.heard(2, Err("away".into()), now);
    assert_eq!(
        (names, unresolved),
        (Names::All, Some((name("two"), "away".into())))
    );
    assert_eq!(
        hosts.addresses_of(&name("two")),
        Some(vec![ip("192.0.2.2")])
    );
    // One that is no longer in the table has none.
    hosts.table = Ok(HostTable::parse(b"", Path::new("hostinfo")));
    hosts.list_names();
    assert_eq!(hosts.addresses_of(&name("two")), None);
}

/// One name that takes long was once waited for before the others counted.
#[test]
fn a_slow_name_does_not_hold_up_those_that_are_resolved() {
    let mut hosts = looking(TABLE);
    let later = hosts.told + TOLD;
    assert_eq!(
        hosts.heard(2, Ok(vec![ip("192.0.2.9")]), later).0,
        Names::Some
    );
    assert_eq!(
        hosts.addresses_of(&name("two")),
        Some(vec![ip("192.0.2.9")])
    );
    // One that was asked for before the table changed is not asked for twice.
    hosts.list_names();
    assert_eq!(hosts.waiting, [name("two")]);
}

/// After 5 s, then twice as long, and so on; and at once where a connection needs it.
#[test]
fn a_name_that_does_not_resolve_is_asked_for_again() {
    let mut hosts = looking(TABLE);
    let (two, mut now) = (name("two"), hosts.told);
    let mut which = 2;
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        let (_, unresolved) = hosts.heard(which, Err("away".into()), now);
        // That is told once.
        assert_eq!(unresolved.is_some(), seconds == 5);
        let due = now + Duration::from_secs(seconds);
        assert_eq!(hosts.deadline(), Some(due));
        hosts.tend(due - Duration::from_millis(1));
        assert!(hosts.waiting.is_empty());
        hosts.tend(due);
        assert_eq!(hosts.waiting.pop_front().as_ref(), Some(&two));
        now = due;
        which += 1;
        hosts.looking.insert(which, two.clone());
    }
    assert!(hosts.want(&two, now), "it is being looked up");
    hosts.heard(which, Ok(vec![ip("192.0.2.9")]), now);
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
    let mut hosts = Hosts::load(&scratch.place());
    let now = hosts.told;
    hosts
        .waiting
        .retain(|n| *n != name("one") && *n != name("two"));
    let mut which = 0;
    let mut ask = |hosts: &mut Hosts| {
        let name = hosts.next()?;
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
    hosts.heard(1, Err("away".into()), now);
    assert_eq!(ask(&mut hosts), Some(third));
}

/// No slot is reserved, and no penalty softened, for a host that may ask nothing.
#[test]
fn a_line_without_run_as_reserves_nothing() {
    let table = "one cos run-as=root\ntwo cos\nthree cos addr=192.0.2.0/28\n\
                 four cos addr=198.51.100.0/24 run-as=root\n";
    let hosts = looking(table);
    let reserved = hosts.networks();
    assert_eq!(reserved, [(ip("192.0.2.1"), 32), (ip("198.51.100.0"), 24)]);
}
