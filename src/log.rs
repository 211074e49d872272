//! The log: one line per decision, with a stable event name and `key=value` pairs.
//!
//! Only the monitor writes it: to syslog (authpriv) or, with `-e`, to stderr. A peer's bytes are
//! escaped. A line that the log does not take is dropped and counted; the log must never stop the
//! daemon.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use syslog::{Facility, LogFormat, Logger, Severity};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something the administrator must act on.
    Error,
    /// A refusal, or a fault that the daemon survived.
    Warning,
    /// A decision.
    Info,
    /// For `-d`.
    Debug,
}

/// The period of the rate limits.
const SECOND: Duration = Duration::from_secs(1);
/// Most rate-limited lines a second that unauthenticated peers can cause; the rest is only counted.
const NOISE: u32 = 100;
/// Most rate-limited lines a second about one local user; the rest is only counted.
const OF_ONE: u32 = 10;
/// Most users whose lines are counted individually at a time.
const USERS: usize = 1024;

/// Where lines go.
enum Sink {
    /// Standard error, and how many lines it has not taken.
    Stderr(u64),
    Syslog(Box<Logger<Syslog, Line>>),
}

/// The log of one process.
pub struct Log {
    sink: Sink,
    most: Level,
    rate_limit: RateLimit,
    users: HashMap<u32, RateLimit>,
}

/// The lines of one second.
struct RateLimit {
    second: Instant,
    lines: u32,
    /// The lines over the limit, by event, that were not reported yet.
    suppressed: Suppressed,
}

/// How many lines of each event were suppressed.
type Suppressed = BTreeMap<&'static str, u64>;

impl RateLimit {
    fn new() -> Self {
        Self {
            second: Instant::now(),
            lines: 0,
            suppressed: Suppressed::new(),
        }
    }

    fn is_past(&self) -> bool {
        self.second.elapsed() >= SECOND
    }

    /// Whether one more line of this event may be written, with at most `most` lines a second. If
    /// so, returns the lines that were suppressed in an earlier second.
    fn may(&mut self, event: &'static str, most: u32) -> Option<Suppressed> {
        let mut earlier = Suppressed::new();
        if self.is_past() {
            (self.second, self.lines) = (Instant::now(), 0);
            earlier = std::mem::take(&mut self.suppressed);
        }
        if self.lines >= most {
            let lines = self.suppressed.entry(event).or_default();
            *lines = lines.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(earlier)
    }

    /// Returns when the suppressed lines are to be reported.
    fn due(&self) -> Option<Instant> {
        (!self.suppressed.is_empty()).then(|| self.second + SECOND)
    }
}

/// Logs one event: `log!(log, Info, "killed", session = id, uid)`. A key alone is the name of its
/// value. The values are computed only if the level is on.
macro_rules! log {
    (@ $key:ident) => {
        $key
    };
    (@ $key:ident = $value:expr) => {
        $value
    };
    ($log:expr, $level:ident, $event:literal $(, $key:ident $(= $value:expr)?)* $(,)?) => {
        if $log.is_on($crate::log::Level::$level) {
            $log.say(
                $crate::log::Level::$level,
                $event,
                &[$((stringify!($key), &$crate::log::log!(@ $key $(= $value)?))),*],
            );
        }
    };
}

/// Like `log!`, for an event that unauthenticated peers can cause as often as they like.
macro_rules! log_ratelimited {
    ($log:expr, $level:ident, $event:literal $($pairs:tt)*) => {
        if $log.may_log($crate::log::Level::$level, $event) {
            $crate::log::log!($log, $level, $event $($pairs)*);
        }
    };
}

/// Like `log!`, for an event that the user with this uid can cause as often as they like.
macro_rules! log_by_user {
    ($log:expr, $uid:expr, $level:ident, $event:literal $($pairs:tt)*) => {
        if $log.may_log_by_user($uid, $crate::log::Level::$level, $event) {
            $crate::log::log!($log, $level, $event $($pairs)*);
        }
    };
}

pub(crate) use {log, log_by_user, log_ratelimited};

impl Log {
    /// Returns a log to stderr.
    pub fn stderr(most: Level) -> Self {
        Self::new(Sink::Stderr(0), most)
    }

    /// Returns a log to syslog. It connects when there is a line to write.
    pub fn syslog(most: Level) -> Self {
        Self::syslog_at(SOCKETS.map(PathBuf::from).to_vec(), most)
    }

    fn syslog_at(sockets: Vec<PathBuf>, most: Level) -> Self {
        let pid = std::process::id();
        let logger = Logger::new(Syslog::at(sockets), Line { pid });
        Self::new(Sink::Syslog(Box::new(logger)), most)
    }

    fn new(sink: Sink, most: Level) -> Self {
        Self {
            sink,
            most,
            rate_limit: RateLimit::new(),
            users: HashMap::new(),
        }
    }

    /// Whether lines of this level are written.
    pub fn is_on(&self, level: Level) -> bool {
        level <= self.most
    }

    /// Logs one event. `log!` does so where the level and the keys are always the same.
    pub fn say(&mut self, level: Level, event: &str, pairs: &[(&str, &dyn Display)]) {
        if !self.is_on(level) {
            return;
        }
        let mut line = String::from(event);
        for (key, value) in pairs {
            let _ = write!(line, " {key}={}", Escaped(&value.to_string()));
        }
        self.write(level, &line);
    }

    /// Whether to write a line that unauthenticated peers can cause as often as they like: at most
    /// `NOISE` such lines a second, the rest is counted.
    pub fn may_log(&mut self, level: Level, event: &'static str) -> bool {
        if !self.is_on(level) {
            return false;
        }
        let Some(earlier) = self.rate_limit.may(event, NOISE) else {
            return false;
        };
        self.say_suppressed(&earlier, None);
        true
    }

    /// Reports suppressed lines.
    fn say_suppressed(&mut self, all: &Suppressed, of: Option<u32>) {
        for (event, lines) in all {
            let mut pairs: Vec<(&str, &dyn Display)> = vec![("event", event), ("lines", lines)];
            if let Some(uid) = &of {
                pairs.push(("uid", uid));
            }
            self.say(Level::Warning, "suppressed", &pairs);
        }
    }

    /// Returns when suppressed lines are to be reported, if no other line does so before.
    pub fn deadline(&self) -> Option<Instant> {
        let users = self.users.values().filter_map(RateLimit::due);
        self.rate_limit.due().into_iter().chain(users).min()
    }

    /// Reports all suppressed lines that were not reported yet: after a flood no later line would
    /// do so.
    pub fn tell_suppressed(&mut self) {
        let all = std::mem::take(&mut self.rate_limit.suppressed);
        self.say_suppressed(&all, None);
        let mut of_users: Vec<_> = self
            .users
            .iter_mut()
            .map(|(uid, rate_limit)| (*uid, std::mem::take(&mut rate_limit.suppressed)))
            .collect();
        of_users.sort_unstable_by_key(|(uid, _)| *uid);
        for (uid, all) in of_users {
            self.say_suppressed(&all, Some(uid));
        }
    }

    /// Whether to write a line that a local user can cause as often as they like: at most `OF_ONE`
    /// lines a second about each user, the rest is counted.
    pub fn may_log_by_user(&mut self, uid: u32, level: Level, event: &'static str) -> bool {
        if !self.is_on(level) {
            return false;
        }
        if self.users.len() >= USERS {
            self.users.retain(|_, n| !n.is_past() || n.due().is_some());
        }
        // Beyond `USERS` users at a time, count the lines of the others together.
        let known = self.users.len() < USERS || self.users.contains_key(&uid);
        let counted_as = if known { uid } else { u32::MAX };
        let rate_limit = self.users.entry(counted_as).or_insert_with(RateLimit::new);
        let Some(earlier) = rate_limit.may(event, OF_ONE) else {
            return false;
        };
        self.say_suppressed(&earlier, Some(counted_as));
        true
    }

    /// Writes a line as it is, for messages before the daemon runs.
    pub fn line(&mut self, level: Level, words: impl Display) {
        if self.is_on(level) {
            self.write(level, &words.to_string());
        }
    }

    fn write(&mut self, level: Level, line: &str) {
        match &mut self.sink {
            Sink::Stderr(lost) => to_stderr(line, lost),
            Sink::Syslog(logger) => {
                let _ = match level {
                    Level::Error => logger.err(line),
                    Level::Warning => logger.warning(line),
                    Level::Info => logger.info(line),
                    Level::Debug => logger.debug(line),
                };
            }
        }
    }
}

/// Writes a line with one write, and only if that does not block: a pipe that no process reads must
/// not stop the daemon. A pipe that is ready takes PIPE_BUF bytes.
fn to_stderr(line: &str, lost: &mut u64) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    const MOST: usize = 4096 - 64;
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO) == Ok(0) {
        *lost = lost.saturating_add(1);
        return;
    }
    let line = String::from_utf8_lossy(line.as_bytes().get(..MOST).unwrap_or(line.as_bytes()));
    let text = match std::mem::take(lost) {
        0 => format!("{line}\n"),
        n => format!("dropped lines={n}\n{line}\n"),
    };
    let _ = stderr.lock().write_all(text.as_bytes());
}

/// A value in which everything is escaped that could be taken for another field or line.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=');
        if !self.0.is_empty() && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                ' '..='~' => f.write_char(c)?,
                c if c.is_alphanumeric() => f.write_char(c)?,
                c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
            }
        }
        f.write_char('"')
    }
}

/// The line as a local syslog daemon takes it: priority, program, process. The daemon adds time and
/// host itself, and the crate's own formatters panic where the local time is unknown.
struct Line {
    pid: u32,
}

impl LogFormat<&str> for Line {
    fn format<W: Write>(&self, w: &mut W, severity: Severity, line: &str) -> syslog::Result<()> {
        let priority = Facility::LOG_AUTHPRIV as u32 | severity as u32;
        let text = format!("<{priority}>cosserver[{}]: {line}", self.pid);
        // One datagram, one line.
        w.write_all(text.as_bytes()).map_err(syslog::Error::Write)
    }
}

/// The socket to syslog. Never blocks, reconnects after an error, and counts the lines that it
/// drops.
struct Syslog {
    /// Where a daemon may listen; the first that answers is used.
    sockets: Vec<PathBuf>,
    socket: Option<UnixDatagram>,
    tried: Option<Instant>,
    dropped: u64,
}

/// Where syslog daemons listen: Linux, the BSDs, macOS.
const SOCKETS: [&str; 3] = ["/dev/log", "/var/run/log", "/var/run/syslog"];

/// Returns why no syslog daemon takes lines now, or `None` if one does.
pub fn syslog_fault() -> Option<String> {
    no_socket_of(&SOCKETS.map(PathBuf::from))
}

fn no_socket_of(sockets: &[PathBuf]) -> Option<String> {
    let socket = UnixDatagram::unbound().ok()?;
    let is_heard = sockets.iter().any(|path| socket.connect(path).is_ok());
    let first = sockets.first().filter(|_| !is_heard)?.display();
    let is_socket = |path: &&PathBuf| path.metadata().is_ok_and(|m| m.file_type().is_socket());
    Some(match sockets.iter().find(is_socket) {
        Some(path) => format!("no process listens at {}", path.display()),
        None => format!("no {first}"),
    })
}

/// How long to wait before connecting again after no daemon answered.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Syslog {
    const fn at(sockets: Vec<PathBuf>) -> Self {
        Self {
            sockets,
            socket: None,
            tried: None,
            dropped: 0,
        }
    }

    fn connect(&mut self) -> Option<&UnixDatagram> {
        if self.socket.is_none() {
            if self.tried.is_some_and(|t| t.elapsed() < AGAIN_AFTER) {
                return None;
            }
            self.tried = Some(Instant::now());
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            let mut sockets = self.sockets.iter();
            sockets.find(|path| socket.connect(path).is_ok())?;
            self.socket = Some(socket);
        }
        self.socket.as_ref()
    }

    fn send(&mut self, line: &[u8]) -> bool {
        match self.connect().map(|s| s.send(line)) {
            Some(Ok(_)) => true,
            Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => false,
            Some(Err(_)) => {
                // The daemon was restarted: reconnect at once, one time.
                (self.socket, self.tried) = (None, None);
                self.connect().is_some_and(|s| s.send(line).is_ok())
            }
            None => false,
        }
    }
}

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.dropped > 0 {
            let note = format!("<{}>cosserver: dropped lines={}", 10 << 3 | 4, self.dropped);
            if self.send(note.as_bytes()) {
                self.dropped = 0;
            }
        }
        if !self.send(line) {
            self.dropped = self.dropped.saturating_add(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
