//! `cosadm who` and `cosadm kill`: send requests to the running daemon, at its socket.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::unistd::geteuid;

use super::absent;
use super::call::Call;
use super::out::{Failure, Out};
use crate::cli::json::Json;
use crate::config::paths::Paths;
use crate::config::utc;
use crate::config::words::{quoted, shown};
use crate::fault::Fault;
use crate::ipc::control::{ANSWER, Answer, On, Question};
use crate::sys::{local, passing};

/// Time limit for each message of the daemon.
const LIMIT: Duration = Duration::from_secs(10);

/// Shows the current sessions and logins.
pub(super) fn who(call: &Call, out: &Out) -> Result<(), Failure> {
    let mut all = Vec::new();
    ask(&call.paths()?, Question::Who, |answer| match answer {
        Answer::On(on) => {
            all.push(on);
            true
        }
        Answer::End | Answer::Killed(_) | Answer::Cut(_) => false,
    })?;
    if call.given("json") {
        let sessions = Json::List(all.iter().map(json).collect());
        let value = Json::Object(vec![("sessions", sessions)]);
        return out.say(&format!("{value}\n"));
    }
    out.say(&table(&all))
}

/// Hangs up a session or login.
pub(super) fn kill(call: &Call, out: &Out) -> Result<(), Failure> {
    let word = call.operand(0);
    let id: u64 = word.parse().map_err(|_| {
        Failure::Usage(format!(
            "{} is not a session number; `cosadm who` lists them",
            quoted(word)
        ))
    })?;
    let mut there = false;
    ask(&call.paths()?, Question::Kill(id), |answer| {
        there = answer == Answer::Killed(true);
        false
    })?;
    if !there {
        let words = format!("there is no session {id}; `cosadm who` lists the sessions");
        return Err(Fault::new(words).into());
    }
    out.tell(format!("session {id} is hung up"));
    Ok(())
}

/// Hangs up everything that this machine has here, and returns the count. Returns `None` if no
/// daemon runs that could be asked.
pub(super) fn cut(paths: &Paths, machine: [u8; 16]) -> Result<Option<u64>, Fault> {
    let mut count = 0;
    let heard = ask_if_running(paths, Question::Cut(machine), |answer| {
        if let Answer::Cut(cut) = answer {
            count = cut;
        }
        false
    })?;
    Ok(heard.then_some(count))
}

/// Returns whether a daemon that can be asked runs on the folder.
///
/// # Errors
/// Returns an error if that cannot be determined, for example because its socket belongs to
/// another user.
pub(super) fn is_running(paths: &Paths) -> Result<bool, Fault> {
    Ok(call(paths)?.is_some())
}

/// Asks the daemon and passes each answer to `take`, until that returns false.
fn ask(paths: &Paths, question: Question, take: impl FnMut(Answer) -> bool) -> Result<(), Fault> {
    if ask_if_running(paths, question, take)? {
        return Ok(());
    }
    // An ordinary user's default folder is their own, but they may have meant the system's.
    let hint = if geteuid().is_root() || paths.system {
        ""
    } else {
        "; root sees the system's"
    };
    let dir = paths.dir.display();
    let words = format!("no cosserver(8) runs in the background on {dir}{hint}");
    Err(Fault::of(&paths.control(), words))
}

/// Connects to the daemon's socket; `None` if no daemon is there.
fn call(paths: &Paths) -> Result<Option<OwnedFd>, Fault> {
    let path = paths.control();
    match local::call(&path, LIMIT) {
        Ok(socket) => Ok(Some(socket)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            absent::confirm(paths, &e)?;
            Ok(None)
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            let words = format!("{e}; this is for root and the daemon's own user");
            Err(Fault::of(&path, words))
        }
        Err(e) => Err(Fault::of(&path, e)),
    }
}

/// Like `ask`, but returns `false` if no daemon is there.
fn ask_if_running(
    paths: &Paths,
    question: Question,
    mut take: impl FnMut(Answer) -> bool,
) -> Result<bool, Fault> {
    let path = paths.control();
    let of = |e: std::io::Error| Fault::of(&path, e);
    let Some(socket) = call(paths)? else {
        return Ok(false);
    };
    passing::send(socket.as_fd(), &question.encode(), &[]).map_err(|e| of(e.into()))?;
    let mut buffer = vec![0; ANSWER];
    loop {
        let received = passing::receive(socket.as_fd(), &mut buffer).map_err(|e| of(e.into()))?;
        let message = buffer.get(..received.length).filter(|m| !m.is_empty());
        let Some(message) = message else {
            return Err(Fault::of(&path, "the daemon hung up; its log says why"));
        };
        let answer = Answer::decode(message);
        let answer = answer.ok_or_else(|| {
            Fault::of(
                &path,
                "the daemon speaks a different protocol version; restart it",
            )
        })?;
        if !take(answer) {
            return Ok(true);
        }
    }
}

/// Formats the sessions as a table, with one row each.
fn table(all: &[On]) -> String {
    let mut rows = vec![
        [
            "ID", "USER", "FROM", "ADDRESS", "SERVICE", "SINCE", "PID", "IN", "OUT", "COMMAND",
        ]
        .map(str::to_owned),
    ];
    for on in all {
        let from = match (on.host.as_str(), on.caller.as_str()) {
            // The caller's name is only claimed, not authenticated.
            ("", caller) => format!("({caller})"),
            (host, caller) => format!("{caller}@{host}"),
        };
        let bytes = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let detached = if on.detached { " (detached)" } else { "" };
        rows.push([
            on.id.to_string(),
            on.user.clone(),
            shown(&from),
            on.peer.to_string(),
            format!("{}{detached}", on.service),
            utc::format(on.since),
            if on.pid == 0 {
                "-".to_owned()
            } else {
                on.pid.to_string()
            },
            bytes(on.bytes.map(|b| b.0)),
            bytes(on.bytes.map(|b| b.1)),
            if on.command.is_empty() {
                "-".to_owned()
            } else {
                shown(&on.command)
            },
        ]);
    }
    let mut text = String::new();
    let widths: Vec<usize> = (0..10)
        .map(|n| {
            rows.iter()
                .filter_map(|r| r.get(n))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn json(on: &On) -> Json {
    let (received, sent) = on.bytes.unzip();
    let pid = (on.pid != 0).then(|| Json::Number(on.pid.into()));
    let text = |text| Json::maybe(Some(text).filter(|t: &&String| !t.is_empty()));
    Json::Object(vec![
        ("id", Json::Number(on.id)),
        ("user", Json::text(&on.user)),
        ("host", text(&on.host)),
        ("caller", Json::text(&on.caller)),
        ("caller_proven", Json::Bool(!on.host.is_empty())),
        ("address", Json::text(on.peer)),
        ("service", Json::text(&on.service)),
        ("since", Json::Number(on.since)),
        ("pid", pid.into()),
        ("in", received.map(Json::Number).into()),
        ("out", sent.map(Json::Number).into()),
        ("detached", Json::Bool(on.detached)),
        ("command", text(&on.command)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each() {
        let on = On {
            id: 3,
            user: "root".into(),
            host: "hosta".into(),
            caller: "a\u{1b}[31m\u{202e}".into(),
            peer: "192.0.2.1".parse().unwrap(),
            service: "exec".into(),
            since: 0,
            pid: 0,
            bytes: None,
            detached: false,
            command: "df -h\u{1b}]0;x\u{7} …".into(),
        };
        let text = table(std::slice::from_ref(&on));
        let row = text.lines().nth(1).unwrap();
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            [
                "3",
                "root",
                "a?[31m?@hosta",
                "192.0.2.1",
                "exec",
                "1970-01-01T00:00:00Z",
                "-",
                "-",
                "-",
                "df",
                "-h?]0;x?",
                "…"
            ]
        );
        let value = json(&on).to_string();
        assert!(value.contains(r#""caller_proven":true"#), "{value}");
        let detached = On {
            host: String::new(),
            service: "gui xterm".into(),
            bytes: Some((1, 2)),
            pid: 9,
            detached: true,
            command: String::new(),
            ..on
        };
        let text = table(std::slice::from_ref(&detached));
        assert!(text.contains("gui xterm (detached)"));
        // A name that an unauthenticated caller claims.
        assert!(text.contains("  (a?[31m?)  "), "{text}");
        let value = json(&detached).to_string();
        assert!(
            value.contains(r#""host":null"#)
                && value.contains(r#""caller_proven":false"#)
                && value.contains(r#""in":1,"out":2"#)
                && value.contains(r#""command":null"#),
            "{value}"
        );
    }
}
