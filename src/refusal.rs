//! Why a peer was refused: its fault, or the administrator's wish. The wire says
//! `denied` and a reference; the log has the cause and the words.
//!
//! Used by the monitor's rooms alone.

use std::fmt::Display;
use std::net::IpAddr;

/// The stable names of causes, as the log has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The handshake does not open, or what is in it is no opening.
    Handshake,
    /// Its machine is on the exclude list of the outer door.
    Excluded,
    /// The doors do not know its machine, and it cannot register.
    UnknownMachine,
    /// The activation password is wrong, or what it answered the inner door is no name.
    Activation,
    /// A door could not be looked at or written: not the caller's fault.
    Doors,
    /// The caller took us for another host.
    ServerName,
    /// The caller is not in HOSTINFO, or its line is wrong.
    UnknownHost,
    /// HOSTINFO cannot be read, or is not to be trusted.
    NoHostinfo,
    /// It calls from an address that is not its own.
    Address,
    /// Another machine key than the one that is pinned or recorded.
    MachineKey,
    /// There is no cookie for it, or the file is not to be trusted.
    NoCookie,
    /// The hash is wrong.
    Proof,
    /// The caller is proven, but what it asks for is no request, or what follows is
    /// not the command that it announced.
    Request,
    /// It may not be this user.
    User,
    /// It may not run this command.
    Command,
    /// It may not ask for this subsystem, or the settings have no program for it.
    Subsystem,
    /// The user does not exist, or could not be looked up in time.
    Account,
    /// PAM said no, or he may not start that application.
    Login,
    /// PAM, or the worker in which it runs, has failed: not the caller's fault.
    Pam,
    /// A proven host's user may not start that application, or it is not there.
    Application,
    /// There are as many sessions as there may be, or no descriptor is left for one more.
    Busy,
    /// The system could not start the job, or read or write a recorded machine key.
    System,
}

impl Cause {
    /// Every cause, for the documents' check.
    pub const ALL: [Self; 22] = [
        Self::Handshake,
        Self::Excluded,
        Self::UnknownMachine,
        Self::Activation,
        Self::Doors,
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
        Self::Account,
        Self::Login,
        Self::Pam,
        Self::Application,
        Self::Busy,
        Self::System,
    ];

    /// The name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Excluded => "excluded",
            Self::UnknownMachine => "unknown-machine",
            Self::Activation => "activation",
            Self::Doors => "doors",
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
            Self::Account => "account",
            Self::Login => "login",
            Self::Pam => "pam",
            Self::Application => "application",
            Self::Busy => "busy",
            Self::System => "system",
        }
    }

    /// Whether the source is to be penalised: it has not proven who it is.
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
            Self::Doors
            | Self::NoHostinfo
            | Self::NoCookie
            | Self::Request
            | Self::User
            | Self::Command
            | Self::Subsystem
            | Self::Account
            | Self::Pam
            | Self::Application
            | Self::Busy
            | Self::System => false,
        }
    }

    /// Whether the caller had proven who it is before this came up: its
    /// administrator will look for the reason, and no stranger can cause it (but in a
    /// login: [`Refusal::is_unauthenticated`]).
    pub const fn is_after_proof(self) -> bool {
        matches!(
            self,
            Self::Request
                | Self::User
                | Self::Command
                | Self::Subsystem
                | Self::Account
                | Self::Application
                | Self::Busy
                | Self::System
        )
    }
}

/// A refusal with its words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The cause.
    pub cause: Cause,
    /// What the administrator may want to know. No secret, no key.
    pub words: String,
    /// Who was refused, once that is known.
    pub peer: Option<IpAddr>,
    /// Whether it is somebody's who has proven nothing: strangers can cause it as often
    /// as they like, whatever the cause.
    pub is_unauthenticated: bool,
    /// Whether all was looked up and computed that a proof takes: else whoever refuses does it,
    /// so that the time tells nobody why.
    pub is_worked_out: bool,
}

impl Refusal {
    /// A refusal.
    pub fn new(cause: Cause, words: impl Display) -> Self {
        Self {
            cause,
            words: words.to_string(),
            peer: None,
            is_unauthenticated: false,
            is_worked_out: false,
        }
    }

    /// The same refusal, of somebody who has proven nothing, if so.
    #[must_use]
    pub fn from_unauthenticated(self, is_unauthenticated: bool) -> Self {
        Self {
            is_unauthenticated,
            ..self
        }
    }

    /// The same refusal, after all the work that a proof takes.
    #[must_use]
    pub fn worked_out(self) -> Self {
        Self {
            is_worked_out: true,
            ..self
        }
    }

    /// The same refusal, of this peer.
    #[must_use]
    pub fn of(self, peer: IpAddr) -> Self {
        Self {
            peer: Some(peer),
            ..self
        }
    }
}
