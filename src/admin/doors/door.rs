//! `cosadm door`: closes and opens the outer door, and shows the status of both doors.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::super::call::Call;
use super::super::out::{Failure, Out};
use super::decision_text::{DecisionText, unknown_machine};
use super::{Both, done, many, word};
use crate::cli::json::Json;
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::registry::inner::Machine;
use crate::registry::inner::Settings;
use crate::registry::{Level, List};

/// Closes the outer door: the authorized machines become the include list.
pub(in crate::admin) fn close(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let count = Both::open(&paths)?.close(&paths)?;
    let fields = vec![
        ("outer_door", Json::text(word(Level::Closed))),
        ("included", Json::Number(count)),
    ];
    let words = format!(
        "the outer door is closed: {} included",
        many(count, "machine")
    );
    done(call, out, fields, words)
}

/// Opens the outer door: then only the inner door decides.
pub(in crate::admin) fn open(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let mut outer = super::outer(&paths)?;
    outer.set_level(Level::Open)?;
    let fields = vec![("outer_door", Json::text(word(Level::Open)))];
    drop(outer);
    done(call, out, fields, now(&paths))
}

/// Describes the outer door's state and its effect. It runs after a completed change, so an inner
/// door that cannot be read is reported in the text, not as an error.
pub(super) fn now(paths: &Paths) -> String {
    let known = Both::open(paths).and_then(|both| {
        let level = both.outer.level()?;
        let settings = both.inner.settings()?;
        let decision_text = unknown_machine(level, &settings, both.inner.has_passwords()?);
        let what = match level {
            Level::Off => "outer door: off (level 0)",
            Level::Open => "outer door: open",
            Level::Closed => "outer door: closed",
        };
        let mut words = format!("{what}; {}", decision_text.words);
        if level == Level::Open && decision_text.word == "refused" {
            words += &format!("; {} sets a password", paths.cosadm("otp add NAME"));
        }
        Ok(words)
    });
    known.unwrap_or_else(|e| format!("new machines are denied: {e}"))
}

/// The status of both doors.
pub(super) struct Status {
    pub(super) level: Level,
    pub(super) included: u64,
    pub(super) excluded: u64,
    pub(super) authorized: u64,
    /// How many of those are not on the include list; `None` if that list is not enforced.
    left_out: Option<u64>,
    pub(super) waiting: u64,
    file: PathBuf,
    settings: Settings,
    decision_text: DecisionText,
}

impl Status {
    pub(super) fn of(doors: &Both) -> Result<Self, Fault> {
        let (outer, inner) = (&doors.outer, &doors.inner);
        let (level, settings) = (outer.level()?, inner.settings()?);
        let waiting = u64::try_from(inner.passwords()?.len()).unwrap_or(u64::MAX);
        Ok(Self {
            level,
            included: outer.count(List::Include)?,
            excluded: outer.count(List::Exclude)?,
            authorized: inner.count()?,
            left_out: (level == Level::Closed)
                .then(|| left_out(doors))
                .transpose()?,
            waiting,
            file: inner.file().to_owned(),
            decision_text: unknown_machine(level, &settings, waiting > 0),
            settings,
        })
    }

    /// Describes the outer door's state in a sentence.
    pub(super) fn outer_door(&self) -> String {
        match self.level {
            Level::Off => {
                "The doors are off (level 0): only the exclude list is checked.".to_owned()
            }
            Level::Open => "The outer door is open (level 1).".to_owned(),
            Level::Closed => "The outer door is closed (level 2).".to_owned(),
        }
    }

    /// Describes in a sentence how many authorized machines the closed outer door denies.
    pub(super) fn not_taken_over(&self) -> Option<String> {
        let count = self.left_out.filter(|count| *count > 0)?;
        let (is, it, host) = if count == 1 {
            ("is", "it", "a host that proves its")
        } else {
            ("are", "them", "hosts that prove their")
        };
        Some(format!(
            "{} {is} not on the include list: the closed outer door allows {it} only as {host} \
             cookie; closing it again adds {it}.",
            many(count, "authorized machine")
        ))
    }

    fn text(&self) -> String {
        let yes = |on| if on { "yes" } else { "no" };
        let s = &self.settings;
        let welcome = if s.welcome.is_empty() {
            "none"
        } else {
            &s.welcome
        };
        let mut text = String::new();
        for (name, value) in [
            (
                "outer door",
                format!("{} (level {})", word(self.level), self.level.number()),
            ),
            ("included", many(self.included, "machine")),
            ("excluded", many(self.excluded, "machine")),
            ("inner door", self.file.display().to_string()),
            ("authorized", many(self.authorized, "machine")),
            ("one-time passwords", format!("{} unused", self.waiting)),
            ("build mode", yes(s.build_mode).to_owned()),
            ("remote only", yes(s.remote_only).to_owned()),
            (
                "backdoor password",
                (if s.backdoor { "set" } else { "none" }).to_owned(),
            ),
            ("welcome", welcome.to_owned()),
        ] {
            let _ = writeln!(text, "{name:<19} {value}");
        }
        let _ = writeln!(text, "{}", self.decision_text.words);
        if let Some(words) = self.not_taken_over() {
            let _ = writeln!(text, "{words}");
        }
        text
    }

    fn json(&self) -> Json {
        let s = &self.settings;
        let folder = self.file.parent().map(|f| f.display().to_string());
        Json::Object(vec![
            ("outer_door", Json::text(word(self.level))),
            ("level", Json::Number(self.level.number().into())),
            ("included", Json::Number(self.included)),
            ("excluded", Json::Number(self.excluded)),
            ("folder", Json::maybe(folder)),
            ("authorized", Json::Number(self.authorized)),
            ("not_included", self.left_out.map(Json::Number).into()),
            ("one_time_passwords", Json::Number(self.waiting)),
            ("build_mode", Json::Bool(s.build_mode)),
            ("remote_only", Json::Bool(s.remote_only)),
            ("backdoor_password", Json::Bool(s.backdoor)),
            ("welcome", Json::text(&s.welcome)),
            ("unknown", Json::text(self.decision_text.word)),
            ("meaning", Json::text(&self.decision_text.words)),
        ])
    }
}

/// Counts the authorized machines that are not on the include list.
fn left_out(doors: &Both) -> Result<u64, Fault> {
    let included = doors.outer.items(List::Include)?;
    let is_left_out = |m: &&Machine| included.binary_search_by_key(&m.id, |i| i.id).is_err();
    let count = doors.inner.machines()?.iter().filter(is_left_out).count();
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Shows the status of both doors.
pub(in crate::admin) fn status(call: &Call, out: &Out) -> Result<(), Failure> {
    let status = Status::of(&Both::open(&call.paths()?)?)?;
    if call.given("json") {
        return out.say(&format!("{}\n", status.json()));
    }
    out.say(&status.text())
}
