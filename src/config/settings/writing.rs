//! Writes settings as text: a key's value in force, the defaults, and the commented file that
//! `cosadm init` writes. The opposite direction is `reading`.

use std::fmt::Write as _;

use super::Settings;
use super::keys::{KEYS, Key, Slot, TABLES};
use crate::config::applications::Applications;
use crate::config::named_services::{Kind, NamedServices};
use crate::config::rules::Rule;
use crate::config::subsystems::{SFTP, Subsystems, USUAL};
use crate::config::tables::string;

impl Key {
    /// Returns the value in force, as TOML.
    pub fn value(&self, settings: &Settings) -> String {
        let mut copy = settings.clone();
        let s = &mut copy;
        match self.slot {
            Slot::Seconds(at, ..) => at(s).as_secs().to_string(),
            Slot::Count(at, ..) => at(s).to_string(),
            Slot::Port(at) => at(s).to_string(),
            Slot::Host(at) => string(at(s).as_str()),
            Slot::User(at) => string(at(s).as_str()),
            Slot::Folders(at) => string(at(s)),
            Slot::Switch(at) => at(s).to_string(),
            Slot::Addresses(at) => array(at(s).iter().map(ToString::to_string)),
            Slot::Networks(at) => array(at(s).iter().map(ToString::to_string)),
        }
    }
}

/// Returns the defaults that do not depend on the machine, as a settings file.
pub(super) fn defaults() -> String {
    let mut out = String::new();
    for table in TABLES {
        if !table.name.is_empty() {
            let _ = writeln!(out, "[{}]", table.name);
        }
        for key in KEYS
            .iter()
            .filter(|key| key.table == table.name && key.depends.is_none())
        {
            let _ = writeln!(out, "{} = {}", key.name, key.default);
        }
    }
    out
}

/// Returns the commented file that `cosadm init` writes.
pub(super) fn template() -> String {
    let mut out = String::from(
        "# Settings of cosserver(8). Every key is listed with its default; remove the # to\n\
         # change one. `cosserver -t` checks this file, `cosserver -T` prints what is in force.\n",
    );
    for table in TABLES {
        let _ = write!(out, "\n# {}\n", table.meaning);
        if !table.name.is_empty() {
            let _ = writeln!(out, "[{}]", table.name);
        }
        for key in KEYS.iter().filter(|key| key.table == table.name) {
            let unit = match key.unit() {
                "" => String::new(),
                unit => format!(" In {unit}."),
            };
            let depends = key
                .depends
                .map(|words| format!(" Default: {words}."))
                .unwrap_or_default();
            let at_start = if key.at_start {
                " A change of it takes a restart."
            } else {
                ""
            };
            let _ = writeln!(
                out,
                "# {}{unit}{depends}{at_start}\n#{} = {}",
                key.meaning, key.name, key.default
            );
        }
    }
    out.push_str(
        "\n# Subsystems that hosts may ask for by name, as sftp, scp and sshfs do: a program and\n\
         # its arguments. An empty text turns one off. Without an entry for sftp the usual paths of\n\
         # sftp-server are tried.\n\
         [subsystem]\n",
    );
    let usual = USUAL.first().unwrap_or(&"");
    let _ = writeln!(out, "# {SFTP} = {}", string(usual));
    out.push_str(
        "\n# Applications that people may start by `cos gui`, a table each; without one no user logs\n\
         # in. They need PAM's file, /etc/pam.d/cosserver. cosserver.toml(5) has every key.\n\
         # The application finds the PC by GUI_HOST and GUI_PORT; one of X wants a DISPLAY.\n\
         # [gui.xterm]\n\
         # command = [\"/bin/sh\", \"-c\", \"DISPLAY=$GUI_HOST:0 exec /usr/bin/xterm\"]\n\
         # users = [\"alice\", \"@staff\"]\n",
    );
    out
}

/// Writes the subsystems in the form of a settings file.
pub(super) fn subsystems(out: &mut String, all: &Subsystems) {
    out.push_str("\n[subsystem]\n");
    if all.all().all(|(name, _)| name != SFTP) {
        let _ = writeln!(out, "# {SFTP}: the first program of {}", USUAL.join(", "));
    }
    for (name, entry) in all.all() {
        let _ = writeln!(out, "{} = {}", quoted_key(name), string(&entry.text));
    }
}

/// Writes the named services in the form of a settings file.
pub(super) fn services(out: &mut String, all: &NamedServices) {
    for (name, service) in all.all() {
        let _ = writeln!(out, "\n[service.{}]", quoted_key(name));
        let _ = writeln!(out, "kind = {}", string(service.kind.name()));
        let words = |words: &[String]| array(words.iter().cloned());
        let _ = match &service.kind {
            Kind::Command { command, args } => {
                let args = array(args.iter().map(ToString::to_string));
                writeln!(out, "command = {}\nargs = {args}", words(command))
            }
            Kind::Forward { to } => writeln!(out, "to = {}", string(&to.to_string())),
            Kind::Inetd { command, wait } => {
                writeln!(out, "command = {}\nwait = {wait}", words(command))
            }
        };
        if !service.formats.is_empty() {
            let formats = array(service.formats.iter().cloned());
            let _ = writeln!(out, "formats = {formats}");
        }
        let runs_as = string(&service.runs_as.to_string());
        let (allow, deny) = (rules(&service.rules.allow), rules(&service.rules.deny));
        let _ = writeln!(out, "as = {runs_as}\nallow = {allow}\ndeny = {deny}");
    }
}

fn rules(list: &[Rule]) -> String {
    let rules: Vec<String> = list.iter().map(Rule::to_string).collect();
    format!("[{}]", rules.join(", "))
}

/// Writes the applications in the form of a settings file.
pub(super) fn applications(out: &mut String, all: &Applications) {
    for (name, a) in all.all() {
        let _ = writeln!(out, "\n[gui.{}]", quoted_key(name));
        let _ = writeln!(out, "command = {}", array(a.command.iter().cloned()));
        let users = array(a.users.iter().map(ToString::to_string));
        let _ = writeln!(out, "users = {users}");
        let _ = writeln!(out, "arguments = {}\nremote = {}", a.arguments, a.remote);
        let pairs = a.environment.iter();
        let pairs: Vec<String> = pairs.map(|(n, v)| format!("{n} = {}", string(v))).collect();
        let pairs = match pairs.join(", ") {
            none if none.is_empty() => none,
            some => format!(" {some} "),
        };
        let _ = writeln!(out, "environment = {{{pairs}}}");
    }
}

/// Returns a TOML key, in quotes if it needs them.
fn quoted_key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if name.bytes().all(bare) {
        name.to_owned()
    } else {
        string(name)
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!(
        "[{}]",
        items
            .map(|item| string(&item))
            .collect::<Vec<_>>()
            .join(", ")
    )
}
