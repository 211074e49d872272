//! Refusals: why a request was denied. On the wire a refusal is `denied` and a reference; the log
//! has the cause and the details.
//!
//! Used only by the monitor.

use std::fmt::Display;
use std::net::IpAddr;

/// The causes, with stable names for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The handshake cannot be opened, or its payload is not an opening.
    Handshake,
    /// Its machine is on the exclude list of the outer door.
    Excluded,
    /// The doors do not know its machine, and it cannot register.
    UnknownMachine,
    /// The activation password is wrong, or the answer to the inner door is not a name.
    Activation,
    /// The registry could not be read or written: not the caller's fault.
    Registry,
    /// The caller addressed this host by another name.
    ServerName,
    /// The caller is not in HOSTINFO, or its entry is wrong.
    UnknownHost,
    /// HOSTINFO cannot be read or is not trusted.
    NoHostinfo,
    /// It connects from an address that is not its own.
    Address,
    /// Its machine key is not the one that is pinned or recorded.
    MachineKey,
    /// There is no cookie for it, or the file is not trusted.
    NoCookie,
    /// The hash is wrong.
    Proof,
    /// The caller has authenticated, but its payload is not a request, or the command that follows
    /// is not the one that it announced.
    Request,
    /// It may not be this user.
    User,
    /// It may not run this command.
    Command,
    /// It may not ask for this subsystem, or the settings have no program for it.
    Subsystem,
    /// It may not use this named service, or there is none, or its backend is not available.
    Service,
    /// The user does not exist, or could not be looked up in time.
    Account,
    /// PAM denied the login, or the user may not start that application.
    Login,
    /// PAM, or its worker, has failed: not the caller's fault.
    Pam,
    /// An authenticated host's user may not start that application, or it does not exist.
    Application,
    /// The maximum number of sessions is reached, or there is no descriptor for one more.
    Busy,
    /// The system could not start the job, or read or write a recorded machine key.
    System,
}

impl Cause {
    /// Every cause, for the check of the documents.
    pub const ALL: [Self; 23] = [
        Self::Handshake,
        Self::Excluded,
        Self::UnknownMachine,
        Self::Activation,
        Self::Registry,
        Self::ServerName,
        Self::UnknownHost,
        Self::NoHostinfo,
        Self::Address,
        Self::MachineKey,
        Self::NoCookie,
        Self::Proof,
        Self::Request,
        Self::User,
        Self::Command,
        Self::Subsystem,
        Self::Service,
        Self::Account,
        Self::Login,
        Self::Pam,
        Self::Application,
        Self::Busy,
        Self::System,
    ];

    /// Returns the name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Excluded => "excluded",
            Self::UnknownMachine => "unknown-machine",
            Self::Activation => "activation",
            Self::Registry => "registry",
            Self::ServerName => "server-name",
            Self::UnknownHost => "unknown-host",
            Self::NoHostinfo => "no-hostinfo",
            Self::Address => "address",
            Self::MachineKey => "machine-key",
            Self::NoCookie => "no-cookie",
            Self::Proof => "proof",
            Self::Request => "request",
            Self::User => "user",
            Self::Command => "command",
            Self::Subsystem => "subsystem",
            Self::Service => "service",
            Self::Account => "account",
            Self::Login => "login",
            Self::Pam => "pam",
            Self::Application => "application",
            Self::Busy => "busy",
            Self::System => "system",
        }
    }

    /// Returns whether the source address is penalized: the caller has not authenticated.
    pub const fn is_unproven(self) -> bool {
        match self {
            Self::Handshake
            | Self::Excluded
            | Self::UnknownMachine
            | Self::Activation
            | Self::ServerName
            | Self::UnknownHost
            | Self::Address
            | Self::MachineKey
            | Self::Proof
            | Self::Login => true,
            Self::Registry
            | Self::NoHostinfo
            | Self::NoCookie
            | Self::Request
            | Self::User
            | Self::Command
            | Self::Subsystem
            | Self::Service
            | Self::Account
            | Self::Pam
            | Self::Application
            | Self::Busy
            | Self::System => false,
        }
    }

    /// Returns whether the caller had authenticated before this arose. Its administrator will look
    /// for the reason, and no unauthenticated connection can cause it (except in a login:
    /// [`Refusal::is_unauthenticated`]).
    pub const fn is_after_proof(self) -> bool {
        matches!(
            self,
            Self::Request
                | Self::User
                | Self::Command
                | Self::Subsystem
                | Self::Service
                | Self::Account
                | Self::Application
                | Self::Busy
                | Self::System
        )
    }
}

/// A refusal with its details for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The cause.
    pub cause: Cause,
    /// The details for the administrator. No secret, no key.
    pub words: String,
    /// The refused peer, once it is known.
    pub peer: Option<IpAddr>,
    /// Whether the caller has not authenticated. Unauthenticated connections can cause such a
    /// refusal as often as they like, whatever its cause.
    pub is_unauthenticated: bool,
    /// Whether all lookups and computations of a proof were done. If not, the code that sends the
    /// refusal does them, so that its timing does not reveal the cause.
    pub is_work_done: bool,
}

impl Refusal {
    /// Creates a refusal.
    pub fn new(cause: Cause, words: impl Display) -> Self {
        Self {
            cause,
            words: words.to_string(),
            peer: None,
            is_unauthenticated: false,
            is_work_done: false,
        }
    }

    /// Returns the refusal with [`Refusal::is_unauthenticated`] set to this.
    #[must_use]
    pub fn from_unauthenticated(self, is_unauthenticated: bool) -> Self {
        Self {
            is_unauthenticated,
            ..self
        }
    }

    /// Returns the refusal with [`Refusal::is_work_done`] set.
    #[must_use]
    pub fn with_work_done(self) -> Self {
        Self {
            is_work_done: true,
            ..self
        }
    }

    /// Returns the refusal with this peer.
    #[must_use]
    pub fn of(self, peer: IpAddr) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }
}
