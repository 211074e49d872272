//! `cosadm otp`: one-time passwords, with which machines register while the outer door is open.

use zeroize::Zeroizing;

use super::super::call::Call;
use super::super::card_output::CardOutput;
use super::super::out::{Failure, Out};
use super::machine::warn_of_namesake;
use super::{Both, day, done, name, seconds, typed};
use crate::cli::json::Json;
use crate::config::paths::Paths;
use crate::config::words::quoted;
use crate::fault::Fault;
use crate::registry::inner::Pending;
use crate::registry::{Inner, Level, Name};

/// A chosen password shorter than this is easy to guess. In characters.
const SHORT: usize = 8;

/// Returns a warning about a weak chosen password. The password is accepted all the same.
pub(super) fn weakness(password: &[u8]) -> Option<String> {
    let length = String::from_utf8_lossy(password).chars().count();
    (length < SHORT).then(|| {
        format!("a password of fewer than {SHORT} characters is easily guessed while the outer door is open")
    })
}

/// Adds a one-time password: generates one, or reads a chosen one from `--password-fd`.
pub(in crate::admin) fn add(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let name = name(call.operand(0))?;
    if call.value("password-fd").is_some() && call.value("output").is_some() {
        let words = "--output is for a generated password, and --password-fd supplies one";
        return Err(Failure::Usage(words.to_owned()));
    }
    let mut doors = Both::open(&paths)?;
    warn_of_namesake(out, &doors.inner, &name, None)?;
    let Some(number) = call.value("password-fd") else {
        made(call, out, &mut doors.inner, &name)?;
        return hint(out, &paths, &doors);
    };
    let password = typed::of_descriptor(&number)?;
    if let Some(weakness) = weakness(&password) {
        out.tell(weakness);
    }
    doors.inner.add_chosen(&name, &password)?;
    let fields = vec![
        ("name", Json::text(&name)),
        ("generated", Json::Bool(false)),
    ];
    done(call, out, fields, format!("{name} has a one-time password"))?;
    hint(out, &paths, &doors)
}

/// Generates a password and writes it out. Withdraws it if it cannot be written.
fn made(call: &Call, out: &Out, inner: &mut Inner, name: &Name) -> Result<(), Failure> {
    let output = CardOutput::of(call, out)?;
    let password = inner.add_generated(name)?.shown();
    let text = Zeroizing::new(if call.given("json") {
        // No escaping: a password consists of digits, letters and dashes.
        let name = Json::text(name);
        format!(
            "{{\"name\":{name},\"generated\":true,\"password\":\"{}\"}}\n",
            *password
        )
    } else {
        format!("{}\n", *password)
    });
    let handed_over = output.write(&text).map_err(Failure::from);
    let handed_over = handed_over.and_then(|written| match written.keep() {
        Some(file) => {
            out.tell(format!("the password is in {}", file.display()));
            Ok(())
        }
        None => out.say_secret(&text),
    });
    if let Err(failure) = handed_over {
        let taken_back = inner.delete_password(name.as_str());
        out.tell(match taken_back {
            Ok(_) => "the password was not written, and is withdrawn".to_owned(),
            Err(e) => format!("the password was not written, and could not be withdrawn: {e}"),
        });
        return Err(failure);
    }
    Ok(())
}

/// Reports that a password cannot be used yet, if that is so.
fn hint(out: &Out, paths: &Paths, doors: &Both) -> Result<(), Failure> {
    if let Some(words) = of_no_use(paths, doors)? {
        out.tell(words);
    }
    Ok(())
}

/// Explains why a password cannot be used yet; `None` if it can.
pub(super) fn of_no_use(paths: &Paths, doors: &Both) -> Result<Option<String>, Fault> {
    let build_mode = doors.inner.settings()?.build_mode;
    let (words, until) = match doors.outer.level()? {
        Level::Open if !build_mode => return Ok(None),
        Level::Open => (
            "build mode is on: an unknown machine is prompted for a name, not for a password",
            "settings set build-mode no",
        ),
        Level::Closed => (
            "the outer door is closed: no machine can register",
            "door open",
        ),
        Level::Off => (
            "the level is 0: no machine is prompted for a password",
            "door open",
        ),
    };
    Ok(Some(format!("{words} until {}", paths.cosadm(until))))
}

/// Formats an unused one-time password as a line.
pub(super) fn row(pending: &Pending) -> String {
    let how = if pending.generated { "made" } else { "chosen" };
    format!("{:<20} {} {how}", pending.name, day(pending.made))
}

/// Lists the unused one-time passwords.
pub(in crate::admin) fn list(call: &Call, out: &Out) -> Result<(), Failure> {
    let waiting = Both::open(&call.paths()?)?.inner.passwords()?;
    if call.given("json") {
        let all = waiting.iter().map(|p| {
            Json::Object(vec![
                ("name", Json::text(&p.name)),
                ("made", seconds(p.made)),
                ("generated", Json::Bool(p.generated)),
            ])
        });
        let value = Json::Object(vec![("passwords", Json::List(all.collect()))]);
        return out.say(&format!("{value}\n"));
    }
    if waiting.is_empty() {
        out.tell("there is no unused one-time password");
    }
    let lines = (1..).zip(&waiting);
    let lines = lines.map(|(n, p)| format!("{}\n", super::rows::numbered(n, &row(p))));
    out.say(&lines.collect::<String>())
}

/// Deletes a one-time password.
pub(in crate::admin) fn delete(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let name = call.operand(0).trim();
    if !Both::open(&paths)?.inner.delete_password(name)? {
        let words = format!(
            "there is no one-time password for {}; {} shows them",
            quoted(name),
            paths.cosadm("otp list")
        );
        return Err(Fault::new(words).into());
    }
    let fields = vec![("name", Json::text(name)), ("deleted", Json::Bool(true))];
    let words = format!("the one-time password for {} is deleted", quoted(name));
    done(call, out, fields, words)
}
