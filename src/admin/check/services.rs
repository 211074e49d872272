//! The part of `cosadm check` about named services: the program or the backend of each, its user,
//! and whether anybody may use it. It queries the user database, and connects to no backend.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::logins::cannot_run;
use super::users::wrong_user;
use super::{Level, Report};
use crate::config::named_services::{Backend, Kind, NamedService, ServiceUser};
use crate::config::settings::Settings;

impl Report<'_> {
    /// Checks the named services of the settings.
    pub(super) fn services(&mut self, settings: &Settings) {
        for (name, service) in settings.service.all() {
            self.service(&format!("[service.{name}]"), service);
        }
    }

    fn service(&mut self, about: &str, service: &NamedService) {
        let warnings: Vec<String> = [does_not_work(&service.kind), no_user(&service.runs_as)]
            .into_iter()
            .flatten()
            .collect();
        if warnings.is_empty() {
            self.add(Level::Right, about, meaning(service));
        }
        for words in warnings {
            self.add(Level::Warning, about, words);
        }
        if service.rules.allow.is_empty() {
            let words = "nobody may use it: it has no rule in allow";
            self.add(Level::Note, about, words);
        }
    }
}

/// Describes a service whose program or backend is as it should be.
fn meaning(service: &NamedService) -> String {
    let user = &service.runs_as;
    match &service.kind {
        Kind::Command { command, .. } => format!("runs {} as {user}", command.join(" ")),
        Kind::Forward { to } => format!("connects to {to} as {user}"),
        Kind::Inetd { command, .. } => format!("starts {} as {user}", command.join(" ")),
    }
}

/// Explains why a service does not work, as far as this user can determine.
fn does_not_work(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Command { command, .. } | Kind::Inetd { command, .. } => {
            let program = command.first().map_or("", String::as_str);
            cannot_run(Path::new(program)).map(|why| format!("command: {why}"))
        }
        Kind::Forward {
            to: Backend::Unix(path),
        } => no_socket(path).map(|why| format!("to: {why}")),
        Kind::Forward {
            to: Backend::Tcp { .. },
        } => None,
    }
}

/// Explains why nothing can connect to a Unix socket.
fn no_socket(path: &Path) -> Option<String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(e) => Some(format!("{shown}: {e}")),
        Ok(about) if !about.file_type().is_socket() => Some(format!("{shown} is not a socket")),
        Ok(_) => None,
    }
}

/// Explains why the service cannot run as its user.
fn no_user(user: &ServiceUser) -> Option<String> {
    match user {
        ServiceUser::Caller => None,
        ServiceUser::User(user) => wrong_user(user.as_str()).map(|why| format!("as: {why}")),
    }
}
