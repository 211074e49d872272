//! The guard: ends all of a job's processes when the daemon ends, however that happens.
//!
//! When a monitor dies, the kernel hangs up only the leader of each of its jobs. So a separate
//! process with the monitor's privileges waits for the monitor's end, and then does what the
//! monitor would have done: it hangs up every remaining group and kills it after the grace.
//!
//! In the monitor run [`Groups`], which owns the table of the jobs' groups, and [`Guard`] and
//! [`Guarding`], which own the channel to the guard, start it, and replace it when it dies. They
//! must not drop the channel of a living guard while there are jobs: the guard would end them.
//!
//! In the guard runs `wait_and_end`, in a standby guard [`standby_main`]. The guard is a fork of
//! the monitor from before any secret was read (later under inetd, or if it replaces one that
//! died). It must not signal anything while the monitor lives, and takes no requests. It learns of
//! the groups from memory that the monitor writes and it only reads, so a command costs no message;
//! no other fork of the monitor has that memory. Under inetd it is forked when the command has run
//! for a moment. Until then there is a standby guard ([`Standby`]), which is cheaper to start. What
//! a login has started is ended by its worker.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::AtomicI32;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::event_source;
use super::ground::Ground;
use crate::fault::Fault;
use crate::ipc::{Channel, Incoming};
use crate::log::log;
use crate::sys::guard::{Numbers, run_alone};
use crate::sys::process::CHANNEL;
use crate::sys::standby::{self, Places, Standby};
use crate::sys::{pidfd, process, session, signals, socket};

/// Most groups: the maximum of `[limits] sessions`.
const GROUPS: usize = 1_000_000;

/// How often it checks whether a process is left.
const LOOKING: Duration = Duration::from_millis(50);

/// How often it looks, while it kills, for processes that those have started.
const LOOKS: usize = 100;

/// A guard that lived this long is replaced at once when it dies.
const LIVED: Duration = Duration::from_secs(1);
/// First and longest delay before the next start, after one that failed or did not live.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The entries of the table: the grace in milliseconds, the last entry that was ever used, and from
/// here on the leaders' process IDs, 0 for none. The ID of a leader that was reaped is negative.
const GRACE: usize = 0;
const LAST: usize = 1;
const FIRST: usize = 2;

/// The process groups of the jobs, which the guard reads.
pub(super) struct Groups {
    numbers: Option<Rc<Numbers>>,
    places: HashMap<Pid, usize>,
    free: Vec<usize>,
    next: usize,
}

impl Default for Groups {
    fn default() -> Self {
        Self::new()
    }
}

impl Groups {
    /// Returns an empty table. Without memory for it, no table is kept.
    pub(super) fn new() -> Self {
        let length = NonZeroUsize::MIN.saturating_add(LAST + GROUPS);
        Self {
            numbers: Numbers::new(length).ok().map(Rc::new),
            places: HashMap::new(),
            free: Vec::new(),
            next: FIRST,
        }
    }

    /// Starts a job and enters its leader. `start` gets the entry, and has the leader's process ID
    /// written to it before the leader runs, if the system supports that. Then the guard knows the
    /// job even if the monitor is killed at that moment.
    ///
    /// # Errors
    /// Those of `start`.
    pub(super) fn enter<T, E>(
        &mut self,
        start: impl FnOnce(Option<&AtomicI32>) -> Result<T, E>,
        leader: impl FnOnce(&T) -> Pid,
    ) -> Result<T, E> {
        let Some(numbers) = &self.numbers else {
            return start(None);
        };
        let place = self.free.pop().unwrap_or(self.next);
        let Some(entry) = numbers.word(place) else {
            // The table is full: it has the maximum of `[limits] sessions`.
            return start(None);
        };
        if place == self.next {
            numbers.set(LAST, i32::try_from(place).unwrap_or(0));
            self.next += 1;
        }
        let started = start(Some(entry));
        if let Ok(started) = &started {
            let leader = leader(started);
            // The system may not support that.
            numbers.set(place, leader.as_raw());
            self.places.insert(leader, place);
        } else {
            numbers.set(place, 0);
            self.free.push(place);
        }
        started
    }

    /// Removes a job, before its leader's process ID can be reused.
    pub(super) fn leave(&mut self, leader: Pid) {
        if let (Some(numbers), Some(place)) = (&self.numbers, self.places.remove(&leader)) {
            numbers.set(place, 0);
            self.free.push(place);
        }
    }

    /// Reaps a job's leader that has ended while others of its group may live. From then on its
    /// process ID may be reused. Returns whether it was reaped.
    pub(super) fn reap(&self, leader: Pid) -> bool {
        // Before reaping: the process ID may be reused at once.
        self.set(leader, -leader.as_raw());
        let reaped = process::reap(leader);
        if !reaped {
            self.set(leader, leader.as_raw());
        }
        reaped
    }

    fn set(&self, leader: Pid, number: i32) {
        if let (Some(numbers), Some(place)) = (&self.numbers, self.places.get(&leader)) {
            numbers.set(*place, number);
        }
    }

    /// Goes into the background and keeps the table.
    ///
    /// # Errors
    /// Fails if no process is available.
    pub(super) fn to_background(&self) -> nix::Result<OwnedFd> {
        match &self.numbers {
            Some(numbers) => numbers.in_fork(process::to_background),
            None => process::to_background(),
        }
    }

    /// Starts a standby guard, which ends the first of these groups when this process has ended.
    ///
    /// # Errors
    /// Those of [`Standby::start`].
    fn start_standby(&self) -> nix::Result<Standby> {
        let numbers = self.numbers.as_ref().ok_or(Errno::ENOMEM)?;
        let places = Places {
            grace: GRACE,
            leader: FIRST,
        };
        Standby::start(c"cosserver: guard", numbers, places)
    }

    /// Sets the time between hang-up and kill of a group.
    pub(super) fn set_grace(&self, grace: Duration) {
        if let Some(numbers) = &self.numbers {
            numbers.set(GRACE, i32::try_from(grace.as_millis()).unwrap_or(i32::MAX));
        }
    }
}

/// The guard as the monitor sees it.
pub(super) struct Guard {
    channel: Channel,
    since: Instant,
}

impl Guard {
    /// Starts a guard for these groups. Registers its channel with the event loop if there is one
    /// already: later there may be jobs, which a guard would end if its channel were dropped.
    ///
    /// # Errors
    /// Fails if there is no process, no memory to share with it, or no room in the event loop.
    pub(super) fn start(groups: &Groups, registry: Option<&Registry>) -> Result<Self, Fault> {
        let (channel, theirs) = Channel::pair()?;
        let numbers = groups.numbers.clone();
        let numbers = numbers.ok_or_else(|| Fault::new("no memory for its table"))?;
        let guard = Self {
            channel,
            since: Instant::now(),
        };
        registry.map_or(Ok(()), |registry| guard.watch(registry))?;
        run_alone(wait_and_end, &numbers, theirs.as_fd())?;
        Ok(guard)
    }

    /// Registers its channel with the event loop, to notice its end.
    ///
    /// # Errors
    /// Fails if the event loop takes no more.
    fn watch(&self, registry: &Registry) -> Result<(), Fault> {
        let fd = self.channel.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), event_source::GUARD, Interest::READABLE)?;
        Ok(())
    }
}

/// The guard, while it lives, or when the next one is started.
#[derive(Default)]
pub(super) struct Guarding {
    guard: Option<Guard>,
    /// The standby guard, until the first guard has been started.
    standby: Option<Standby>,
    due: Option<Instant>,
    /// How many in a row could not be started or did not live.
    failures: u32,
    /// Why the last start failed, as logged.
    told: Option<String>,
}

impl Guarding {
    /// Returns when the next one is started.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes a guard that was started. `true`: the log has said that none could be started.
    fn started(&mut self, guard: Guard) -> bool {
        (self.guard, self.due) = (Some(guard), None);
        if let Some(standby) = self.standby.take() {
            standby.dismiss();
        }
        self.told.take().is_some()
    }

    /// Notes that none could be started. `true`: the log has not said so yet.
    fn failed(&mut self, why: String, now: Instant) -> bool {
        self.fall_due(now);
        let is_new = self.told.as_ref() != Some(&why);
        self.told = Some(why);
        is_new
    }

    /// Notes that it is dead. `false`: there was none.
    fn ended(&mut self, now: Instant) -> bool {
        let Some(guard) = self.guard.take() else {
            return false;
        };
        if now.saturating_duration_since(guard.since) >= LIVED {
            self.failures = 0;
            self.due = Some(now);
        } else {
            self.fall_due(now);
        }
        true
    }

    /// Has the first one started after a delay, unless one is due before. A job that ends sooner
    /// would wait for two forks that it does not need.
    pub(super) fn begin_later(&mut self, after: Duration, now: Instant) {
        if self.guard.is_none() {
            self.due = self.due.or(Some(now + after));
        }
    }

    fn fall_due(&mut self, now: Instant) {
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
        self.due = Some(now + pause.min(LONGEST_PAUSE));
        self.failures = self.failures.saturating_add(1);
    }
}

impl Guarding {
    /// Starts a guard if there is none. The daemon serves without one, too.
    pub(super) fn start(&mut self, ground: &mut Ground, groups: &Groups) {
        if self.guard.is_some() {
            return;
        }
        groups.set_grace(ground.kill_after());
        let started = Guard::start(groups, Some(ground.registry()));
        self.note_start(ground, groups, started);
    }

    /// Under inetd, starts a standby guard before the one job: it ends the job if this process is
    /// killed before there is a guard. If the system does not support that, the guard is started at
    /// once.
    pub(super) fn start_standby(&mut self, ground: &mut Ground, groups: &Groups) {
        let standby = self.standby.take_if(|standby| standby.has_ended());
        if let Some(ended) = standby {
            ended.dismiss();
        }
        if self.guard.is_some() || self.standby.is_some() {
            return;
        }
        groups.set_grace(ground.kill_after());
        match groups.start_standby() {
            Ok(standby) => self.standby = Some(standby),
            // Starting a guard would fail too, and takes two processes.
            Err(e @ (Errno::EAGAIN | Errno::ENOMEM)) => {
                let e = Fault::from(e).while_doing("the standby guard");
                log!(ground.log, Error, "fault", why = e);
            }
            Err(_) => self.start(ground, groups),
        }
    }

    /// Takes a guard that was started before there was an event loop, or a job.
    pub(super) fn take(
        &mut self,
        ground: &mut Ground,
        groups: &Groups,
        started: Result<Guard, Fault>,
    ) {
        let watched = started.and_then(|g| g.watch(ground.registry()).map(|()| g));
        self.note_start(ground, groups, watched);
    }

    fn note_start(&mut self, ground: &mut Ground, groups: &Groups, started: Result<Guard, Fault>) {
        match started {
            Ok(guard) => {
                if self.started(guard) {
                    log!(ground.log, Info, "started", process = "guard");
                }
            }
            Err(e) => {
                let why = e.while_doing("the guard").to_string();
                if self.failed(why.clone(), Instant::now()) {
                    log!(ground.log, Error, "fault", why);
                }
                if self.standby.is_some() {
                    self.start_standby(ground, groups);
                }
            }
        }
    }

    /// Notes that the guard is dead, since it never sends anything. The next one is started when it
    /// is due.
    pub(super) fn handle_end(&mut self, ground: &mut Ground, now: Instant) {
        if self.ended(now) {
            log!(ground.log, Error, "lost", process = "guard");
        }
    }
}

/// Runs the guard.
fn wait_and_end(numbers: &Numbers) -> u8 {
    process::set_name("cos: guard");
    process::quiet();
    // Keep no file system busy.
    let _ = nix::unistd::chdir("/");
    let Ok(channel) = socket::inherited(CHANNEL).map(Channel::new) else {
        return process::FAILURE;
    };
    if signals::leave_to_the_monitor().is_err() {
        return process::FAILURE;
    }
    while let Ok(Incoming::Message(..) | Incoming::Nothing) = channel.receive(&mut [0; 16]) {
        channel.wait();
    }
    let last = usize::try_from(numbers.get(LAST)).unwrap_or(0);
    let all = (FIRST..=last).map(|place| numbers.get(place));
    end_all(all, grace(numbers.get(GRACE)));
    process::SUCCESS
}

/// Ends the one job of a monitor that has ended: the program of a standby guard ([`Standby`]). Its
/// arguments are the grace in milliseconds and the leader's process ID, as in the table. Every
/// signal is blocked.
pub fn standby_main() -> u8 {
    process::set_name("cos: guard");
    let _ = nix::unistd::chdir("/");
    let process = standby::init_process();
    let mut numbers = std::env::args().skip(1).map(|n| n.parse::<i32>());
    let (Some(Ok(after)), Some(Ok(number))) = (numbers.next(), numbers.next()) else {
        return process::FAILURE;
    };
    // The process ID of a leader that was reaped since may have been reused.
    let is_reaped = process.is_some_and(|process| !pidfd::is_there(&process));
    let number = if is_reaped { -number.abs() } else { number };
    end_all([number], grace(after));
    process::SUCCESS
}

/// Returns the grace, as in the table.
fn grace(milliseconds: i32) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

/// Hangs up every group, and the processes of its session in other groups, and kills after the
/// grace what is left. `numbers`: the leaders' process IDs, as in the table.
fn end_all(numbers: impl IntoIterator<Item = i32>, grace: Duration) {
    let until = Instant::now() + grace;
    let leaders: BTreeSet<i32> = numbers.into_iter().filter_map(leader).collect();
    if leaders.is_empty() {
        return;
    }
    let groups = leaders.iter().map(|leader| Pid::from_raw(*leader));
    let mut left: Vec<Group> = groups.map(Group::of).collect();
    let mut apart = session::apart(&leaders);
    for group in &left {
        group.signal(Signal::SIGHUP);
    }
    for process in &apart {
        process.signal(Signal::SIGHUP);
    }
    loop {
        left.retain(Group::is_there);
        apart.retain(|process| !process.has_ended());
        if left.is_empty() && apart.is_empty() {
            // Processes that were started since.
            apart = session::apart(&leaders);
            if apart.is_empty() {
                return;
            }
            for process in &apart {
                process.signal(Signal::SIGHUP);
            }
        }
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(LOOKING);
    }
    for group in &left {
        group.signal(Signal::SIGKILL);
    }
    // The next look, or the one after it, stops a process that is starting others.
    for _ in 0..LOOKS {
        let apart = session::apart(&leaders);
        if apart.is_empty() {
            return;
        }
        for process in &apart {
            process.signal(Signal::SIGKILL);
        }
    }
}

/// Returns the leader of a number in the table. `None`: there is none, or it was reaped and its
/// group is gone, so that another process has its number.
fn leader(number: i32) -> Option<i32> {
    match number {
        2.. => Some(number),
        // While its group has a member, no process gets its number.
        ..=-2 => {
            let is_free = kill(Pid::from_raw(number.checked_neg()?), None) == Err(Errno::ESRCH);
            is_free.then_some(number.checked_neg()?)
        }
        -1..=1 => None,
    }
}

/// A process group whose leader's parent is dead.
struct Group {
    leader: Pid,
    /// `None`: it has ended, and its new parent has reaped it.
    pidfd: Option<OwnedFd>,
}

impl Group {
    fn of(leader: Pid) -> Self {
        let pidfd = pidfd::open(leader);
        Self { leader, pidfd }
    }

    fn signal(&self, signal: Signal) {
        match &self.pidfd {
            Some(leader) => pidfd::signal_led(leader, self.leader, signal),
            // While its group has a member, no other has its number.
            None if kill(self.leader, None) == Err(Errno::ESRCH) => {
                let _ = killpg(self.leader, signal);
            }
            None => {}
        }
    }

    fn is_there(&self) -> bool {
        match self
            .pidfd
            .as_ref()
            .map(|leader| pidfd::signal_group(leader, None))
        {
            Some(Ok(())) => true,
            Some(Err(Errno::ESRCH)) => false,
            // The system does not support that.
            Some(Err(_)) | None => killpg(self.leader, None).is_ok(),
        }
    }
}
