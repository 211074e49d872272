//! The part of `cosadm check` about logins: PAM's file, the program that runs PAM, and each
//! application with its program and its users. It queries the user database, and must not start a
//! process.

use std::path::Path;

use nix::unistd::{AccessFlags, Group, User, access};

use super::{Level, Report, mode_and_owner};
use crate::config::applications::{AllowedUser, Application};
use crate::config::settings::Settings;
use crate::sys::pam_files;
use crate::sys::process::LoginProgram;

/// The daemon's program. The login worker's program must be in the same folder.
const DAEMON: &str = "cosserver";

impl Report<'_> {
    /// Checks everything that a login needs; nothing if no application is configured.
    pub(super) fn logins(&mut self, settings: &Settings) {
        if settings.gui.all().next().is_none() {
            return;
        }
        let file = Path::new("/etc/pam.d").join(pam_files::SERVICE);
        match settings.gui.lacks_service() {
            Some(fault) => self.add(Level::Problem, file.display(), fault),
            None if file.exists() => self.right(&file, "the PAM configuration for logins"),
            // The file is in the folder where PAM looks for the files of packages.
            None => self.add(Level::Right, "PAM", "it has a file for cosserver"),
        }
        self.login_program();
        for (name, application) in settings.gui.all() {
            self.application(name, application);
        }
    }

    /// Checks the login program, if `cosadm` is in the daemon's folder. Otherwise only the daemon
    /// can know where it is.
    fn login_program(&mut self) {
        let Ok(own) = std::env::current_exe() else {
            return;
        };
        if !own.with_file_name(DAEMON).exists() {
            return;
        }
        let file = own.with_file_name("cosserver-login");
        match LoginProgram::open() {
            Ok(_) => self.right(&file, "the program that runs PAM"),
            Err(fault) => self.wrong(&file, &fault),
        }
    }

    fn application(&mut self, name: &str, application: &Application) {
        let about = format!("[gui.{name}]");
        let program = application.command.first().map_or("", String::as_str);
        let mut warnings: Vec<String> = cannot_run(Path::new(program))
            .map(|why| format!("command: {why}"))
            .into_iter()
            .collect();
        warnings.extend(application.users.iter().filter_map(unknown_user));
        if application.users.is_empty() {
            warnings.push("users is empty, so no user may start it".to_owned());
        }
        if warnings.is_empty() {
            let users: Vec<String> = application.users.iter().map(ToString::to_string).collect();
            let arguments = if application.arguments {
                ", with arguments of their own"
            } else {
                ""
            };
            let remote = if application.remote {
                ", and by remote GUI login"
            } else {
                ""
            };
            let words = format!(
                "{} may start {program}{arguments}{remote}",
                users.join(", ").replace('*', "all users but root")
            );
            self.add(Level::Right, &about, words);
        }
        for words in warnings {
            self.add(Level::Warning, &about, words);
        }
    }
}

/// Explains why a program cannot be executed, as far as this user can determine.
pub(super) fn cannot_run(program: &Path) -> Option<String> {
    let shown = program.display();
    match std::fs::metadata(program) {
        Err(e) => Some(format!("{shown}: {e}")),
        Ok(about) if !about.is_file() => Some(format!("{shown} is not a file")),
        // For root, access(2) allows any file that some user can execute.
        Ok(_) => access(program, AccessFlags::X_OK).err().map(|_| {
            format!(
                "{shown} is {}and cannot be executed",
                mode_and_owner(program)
            )
        }),
    }
}

/// Returns a warning if there is no such user or group here.
fn unknown_user(who: &AllowedUser) -> Option<String> {
    let (kind, there) = match who {
        AllowedUser::Anyone => return None,
        AllowedUser::User(user) => ("user", User::from_name(user.as_str()).map(|u| u.is_some())),
        AllowedUser::Group(group) => (
            "group",
            Group::from_name(group.as_str()).map(|g| g.is_some()),
        ),
    };
    let name = who.to_string();
    let name = name.trim_start_matches('@');
    match there {
        Ok(true) => None,
        Ok(false) => Some(format!("users: there is no {kind} {name} on this machine")),
        Err(e) => Some(format!("users: {kind} {name}: {}", std::io::Error::from(e))),
    }
}
