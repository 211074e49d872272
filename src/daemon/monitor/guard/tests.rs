//! The table of groups, and when a guard is started again.

use super::*;
use crate::sys::forked::Forked;

fn guard(since: Instant) -> Guard {
    let (channel, _) = Channel::pair().unwrap();
    Guard { channel, since }
}

/// A guard that could not be started, or died at once, was once given up for the daemon's life.
#[test]
fn a_guard_that_fails_is_started_again_after_growing_pauses_for_ever() {
    let mut guarding = Guarding::default();
    let mut now = Instant::now();
    for failed in 0..100 {
        // A reason is logged once only.
        assert_eq!(guarding.failed("EAGAIN".into(), now), failed == 0);
        let pause = guarding.due().unwrap() - now;
        let least = PAUSE * 2_u32.saturating_pow(failed.min(10));
        assert_eq!(pause, least.min(LONGEST_PAUSE));
        now += pause;
    }
    assert!(guarding.started(guard(now)));
    assert_eq!(guarding.due(), None);
    assert!(guarding.ended(now));
    assert_eq!(guarding.due(), Some(now + LONGEST_PAUSE));
    // One that has lived is replaced at once.
    guarding.started(guard(now));
    now += LIVED;
    assert!(guarding.ended(now) && !guarding.ended(now));
    assert_eq!(guarding.due(), Some(now));
    guarding.started(guard(now));
    guarding.ended(now);
    assert_eq!(guarding.due(), Some(now + PAUSE));
}

/// The table kept the number of a leader that was reaped until the next look at its group: a
/// process that had got the number since was killed.
#[test]
fn process_that_reuses_a_reaped_leaders_pid_is_not_killed() {
    let mut groups = Groups::new();
    let numbers = groups.numbers.clone().unwrap();
    let process = Forked::start(|| std::thread::sleep(Duration::from_secs(60))).unwrap();
    let pid = process.pid;
    groups.enter(|_| Ok::<_, ()>(pid), |pid| *pid).unwrap();
    assert!(!groups.reap(pid), "it lives");
    assert_eq!(leader(numbers.get(FIRST)), Some(pid.as_raw()));
    groups.set(pid, -pid.as_raw());
    // The number is another process's now.
    assert_eq!(leader(numbers.get(FIRST)), None);
    process.end();
    // No process has it: what is left of the group is still ended.
    assert_eq!(leader(numbers.get(FIRST)), Some(pid.as_raw()));
    groups.leave(pid);
    for none in [numbers.get(FIRST), 1, -1, i32::MIN] {
        assert_eq!(leader(none), None);
    }
}
