//! Named services: the tables `[service.NAME]` of `cosserver.toml` (seed 003). Read by the monitor
//! and by `cosadm`. Must not decide who may use one: `auth::rules` does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::command::ArgsPattern;
use super::name::UserName;
use super::rules::Rules;

/// A named service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedService {
    /// What it does.
    pub kind: Kind,
    /// The user that its program, or the connection to its backend, belongs to.
    pub runs_as: ServiceUser,
    /// Who may use it.
    pub rules: Rules,
}

/// What a named service does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Runs a program, without a shell.
    Command {
        /// The program's absolute path and its arguments.
        command: Vec<String>,
        /// The arguments that a caller may add: what one of these allows. Empty: none.
        args: Vec<ArgsPattern>,
    },
    /// Connects to a backend.
    Forward {
        /// The backend.
        to: Backend,
    },
    /// Starts a program with the connection on its descriptors, as inetd does.
    Inetd {
        /// The program's absolute path and its arguments.
        command: Vec<String>,
        /// Whether one process serves all connections: it gets a listening socket, not a
        /// connection.
        wait: bool,
    },
}

/// The backend of a forward service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A Unix socket, an absolute path.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// A host's name or an address.
        host: String,
        /// The port, not 0.
        port: u16,
    },
}

/// The user that a service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceUser {
    /// `"@caller"`: the user that the caller is here, never root.
    Caller,
    /// This user; root only if it is named.
    User(UserName),
}

/// All named services, by their names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedServices(BTreeMap<String, NamedService>);

impl NamedServices {
    /// Returns the service of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&NamedService> {
        self.0.get(&name.to_ascii_lowercase())
    }

    /// Returns all of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &NamedService)> {
        self.0
            .iter()
            .map(|(name, service)| (name.as_str(), service))
    }
}
