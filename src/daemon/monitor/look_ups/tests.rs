//! The processes by themselves: when they end, and what is reported of those that fail.

use std::os::fd::AsFd;
use std::rc::Rc;

use super::process::USER;
use super::*;
use crate::ipc::Channel;
use crate::ipc::lookup::GROUPS;
use crate::sys::forked::Forked;
use crate::sys::id_number::IdNumber;
use crate::sys::passing;
use crate::sys::untrusted::tests::{LINGER, accepting_pair, lingering};

/// A process that never answers.
fn unresponsive() -> u8 {
    loop {
        std::thread::park();
    }
}

/// Returns one process that never answers, and an event loop for it.
pub(in super::super) fn one_unresponsive() -> (LookUps, mio::Poll) {
    let poll = mio::Poll::new().unwrap();
    let mut all = LookUps::new(None);
    let process = Process::launch(Some(unresponsive)).unwrap();
    all.adopt(poll.registry(), process).unwrap();
    (all, poll)
}

/// Returns the same for hosts, with this many questions asked of it.
pub(in super::super) fn asked_for_hosts(most: usize) -> (LookUps, mio::Poll) {
    let (mut all, poll) = one_unresponsive();
    for process in all.all.values_mut() {
        process.kind = Kind::Hosts;
    }
    for n in 0..most {
        let question = Question::Host(format!("hangs{n}"));
        all.ask(poll.registry(), question, Instant::now()).unwrap();
    }
    (all, poll)
}

/// Returns no process, and none for hosts can be started before this time.
pub(in super::super) fn none_until(until: Instant) -> LookUps {
    let mut all = LookUps::new(None);
    all.failed[Kind::Hosts as usize] = (FAILURES, Some(until));
    all
}

pub(in super::super) fn reap(mut all: LookUps) {
    for pid in all.finish().into_iter().chain(all.unreaped()) {
        let _ = nix::sys::wait::waitpid(pid, None);
    }
}

#[test]
fn a_process_that_is_idle_for_a_minute_ends() {
    let (mut all, poll) = one_unresponsive();
    let process = all.all.values_mut().next().unwrap();
    process.due = None;
    let until = process.idle_until;
    assert_eq!(all.deadline(), Some(until));
    all.expire(poll.registry(), until - Duration::from_millis(1));
    assert_eq!(all.all.len(), 1);
    all.expire(poll.registry(), until);
    assert!(all.all.is_empty() && all.event().is_empty());
    reap(all);
}

/// Under inetd, one had not begun when its session did: the monitor polled without a pause.
#[test]
fn a_process_that_gets_no_more_questions_ends_soon_even_if_it_was_never_ready() {
    let (mut all, poll) = one_unresponsive();
    assert!(all.all.values().all(|p| p.due.is_some()));
    let now = Instant::now();
    let after = Duration::from_millis(10);
    all.retire(after, now);
    assert_eq!(all.deadline(), Some(now + after));
    all.expire(poll.registry(), now);
    assert_eq!(all.all.len(), 1);
    all.expire(poll.registry(), now + after);
    assert!(all.all.is_empty() && all.deadline().is_none() && all.event().is_empty());
    reap(all);
}

#[test]
fn a_question_that_is_not_answered_in_time_has_failed() {
    let (mut all, poll) = one_unresponsive();
    let now = Instant::now();
    let question = Question::User("jo".into(), Vec::new());
    let number = all.ask(poll.registry(), question, now).unwrap();
    all.expire(poll.registry(), now + USER);
    let lost = LookUpEvent::Lost("it took too long".into());
    let failed = LookUpEvent::Found(number, Found::User(Ok(None)));
    assert_eq!(all.event(), [lost, failed]);
    assert!(all.all.is_empty());
    reap(all);
}

/// Such a question was in no list any more, and its client waited forever.
#[test]
fn an_answer_of_the_wrong_kind_loses_no_question() {
    let (mut all, poll) = one_unresponsive();
    let now = Instant::now();
    let question = Question::User("jo".into(), Vec::new());
    let number = all.ask(poll.registry(), question, now).unwrap();
    let id = *all.all.keys().next().unwrap();
    let wrong = Answer::Host(number, Err("no".into()));
    assert!(all.take(id, wrong, now).is_err());
    let asked = all.all[&id].asked.iter().map(|a| a.number);
    assert_eq!(asked.collect::<Vec<_>>(), [number]);
    all.expire(poll.registry(), now + USER);
    let failed = LookUpEvent::Found(number, Found::User(Ok(None)));
    assert_eq!(all.event().pop(), Some(failed));
    reap(all);
}

#[test]
fn the_pause_comes_with_the_third_failure_in_a_row_and_grows() {
    let pauses = [1, 2, 3, 4, 5, 32].map(pause);
    let [first, second, third, fourth, fifth, last] = pauses;
    assert_eq!((first, second), (None, None));
    assert_eq!(third, Some(PAUSE));
    assert_eq!((fourth, fifth), (Some(PAUSE * 2), Some(PAUSE * 4)));
    assert_eq!(last, Some(LONGEST_PAUSE));
}

/// Any user can send a compromised process a socket that lingers, and it can pass that on: the
/// process that drops it waits in close(2).
#[test]
fn descriptors_from_a_compromised_process_do_not_block_the_monitor() {
    use std::io::Read;
    let begun = Instant::now();
    // Rejected when checked; left unread behind a message that answers no question.
    for words in [&[&b"x"[..]][..], &[b"first", b"x"]] {
        let poll = mio::Poll::new().unwrap();
        let mut all = LookUps::new(None);
        let unclosed = Rc::default();
        let (ours, theirs) = accepting_pair(&unclosed);
        let child = Forked::start(|| _ = unresponsive()).unwrap();
        let process = Process::of(child.pid, ours, unclosed);
        let id = all.adopt(poll.registry(), process).unwrap();
        let (socket, mut other) = lingering();
        let (last, before) = words.split_last().unwrap();
        for words in before {
            passing::send(theirs.as_fd(), words, &[]).unwrap();
        }
        passing::send(theirs.as_fd(), last, &[socket.as_fd()]).unwrap();
        drop((socket, theirs));
        all.handle_messages(poll.registry(), id, &mut [0; 1024], begun);
        assert!(matches!(&all.event()[..], [LookUpEvent::Lost(_)]));
        all.close_unread();
        reap(all);
        // It is closed, and what was sent there arrives.
        let mut bytes = Vec::new();
        other.read_to_end(&mut bytes).unwrap();
        assert!(!bytes.is_empty());
    }
    assert!(begun.elapsed() < LINGER);
}

/// After a change of nsswitch.conf a process that was still busy once kept the next from starting.
#[test]
fn a_process_that_is_stale_leaves_room_for_the_next() {
    let (mut all, _poll) = asked_for_hosts(1);
    assert!(!all.has_room(Kind::Hosts));
    all.renew();
    assert_eq!(all.all.len(), 1, "it is busy");
    assert!(all.has_room(Kind::Hosts));
    reap(all);
}

/// Its process ID was once forgotten, and its socket closed by this process.
#[test]
fn a_process_that_cannot_be_watched_is_killed_and_its_socket_closed_elsewhere() {
    let begun = Instant::now();
    let poll = mio::Poll::new().unwrap();
    let mut all = LookUps::new(None);
    let unclosed = Rc::default();
    let (ours, theirs) = accepting_pair(&unclosed);
    let child = Forked::start(|| _ = unresponsive()).unwrap();
    let process = Process::of(child.pid, ours, unclosed);
    let (socket, _other) = lingering();
    passing::send(theirs.as_fd(), b"x", &[socket.as_fd()]).unwrap();
    drop((socket, theirs));
    process
        .watch(poll.registry(), event_source::look_up(7))
        .unwrap();
    assert!(all.adopt(poll.registry(), process).is_err(), "twice");
    assert!(all.all.is_empty());
    assert_eq!(all.unclosed.len(), 1);
    all.close_unread();
    reap(all);
    let known = nix::sys::wait::waitpid(child.pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    assert_eq!(known, Err(nix::errno::Errno::ECHILD), "it was not reaped");
    assert!(begun.elapsed() < LINGER);
}

/// It once delayed the daemon's start for as long as it liked.
#[test]
fn look_up_process_that_repeats_ready_does_not_delay_the_start() {
    const TALKS: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    let unclosed = Rc::default();
    let (ours, theirs) = untrusted::pair(0, &unclosed).unwrap();
    let child = Forked::start(|| {
        let mut channel = Channel::new(theirs);
        let ready = Answer::Ready(Confined::default()).encode().remove(0);
        while begun.elapsed() < TALKS && channel.deliver(ready.clone(), TALKS).is_ok() {}
    })
    .unwrap();
    let mut process = Process::of(child.pid, ours, unclosed);
    let limit = Duration::from_millis(200);
    let found = process.ask_and_wait(&Question::User("jo".into(), Vec::new()), limit);
    assert!(found.is_err());
    assert!(begun.elapsed() < TALKS);
    let (pid, unclosed) = process.end();
    untrusted::leave_open(unclosed);
    nix::sys::wait::waitpid(pid, None).unwrap();
}

/// One that sends each group by itself would keep the monitor busy with messages.
#[test]
fn groups_come_in_no_more_messages_than_they_need() {
    let one = IdNumber::new(1).unwrap();
    let mut groups = Vec::new();
    assert!(add_groups(&mut groups, vec![one; GROUPS]).is_ok());
    assert!(add_groups(&mut groups, vec![one; 3]).is_ok());
    assert!(add_groups(&mut groups, vec![one; 3]).is_err());
}

/// shadow(5) would be asked about the account that the record names.
#[test]
fn a_record_of_another_user_is_refused() {
    let root = UserRecord::look_up("root").unwrap().map(Box::new);
    let is_taken = |question| match record_of(&question, Ok(root.clone()), Vec::new()) {
        Ok(found) => found.is_some(),
        Err(why) => {
            assert!(why.contains("another record, of user root"), "{why}");
            false
        }
    };
    assert!(is_taken(Question::User("root".into(), Vec::new())));
    assert!(!is_taken(Question::User("alice".into(), Vec::new())));
    assert!(is_taken(Question::Number(0, Vec::new())));
    assert!(!is_taken(Question::Number(7, Vec::new())));
}
