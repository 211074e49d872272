//! An unauthenticated connection in the gate, from accept to the decision.
//!
//! ```text
//! accepted ─ Hello ─► asks the monitor ─ ServerHello ─► greeted ─ ClientHello ─► asks the monitor ─► the relay has it
//!                                                                     ▲                 ├─► awaits command ─ Sealed ─┐
//!                                                                     │                 │         ▲──────────────────┘
//!                                                                     │                 ├─► prompted ─ Sealed ─► asks the monitor
//!                                                                     │                 └─► refused: parked, Denied, closed
//! ```
//!
//! Runs in the gate. Reads lengths and types, and forwards the rest without decrypting it. Closes
//! the connection on anything but the message that is due, within its size and its time.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;

use crate::ipc::gate::Complaint;
use crate::protocol::limits::{LENGTH_BYTES, TAG};
use crate::protocol::record::{self, ENVELOPE, Kind};
use crate::sys::socket;

/// The stage of an unauthenticated connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The Hello is due.
    Accepted,
    /// The ClientHello is due.
    Greeted,
    /// The rest of a long command is due.
    AwaitsCommand,
    /// The answers to a prompt are due.
    Prompted,
    /// The monitor decides; nothing is due from the peer.
    AwaitsDecision,
    /// As `AwaitsDecision`, but the monitor waits for the look-up of a host's name first.
    AwaitsName,
    /// The peer's answers are checked; nothing is due from the peer.
    Checking,
    /// Refused; the answer leaves at its time.
    Parked,
    /// The refusal is sent; the peer should hang up.
    Leaving,
}

impl Stage {
    /// Returns the type of the record that is due, if any.
    pub(super) const fn due(self) -> Option<Kind> {
        match self {
            Self::Accepted => Some(Kind::Hello),
            Self::Greeted => Some(Kind::ClientHello),
            Self::AwaitsCommand | Self::Prompted => Some(Kind::Sealed),
            Self::AwaitsDecision
            | Self::AwaitsName
            | Self::Checking
            | Self::Parked
            | Self::Leaving => None,
        }
    }

    /// Returns the complaint to log when the deadline passes, if any.
    pub(super) const fn when_late(self) -> Option<Complaint> {
        match self {
            Self::Accepted => Some(Complaint::SilentHello),
            Self::Greeted | Self::AwaitsCommand => Some(Complaint::SilentHandshake),
            Self::Prompted => Some(Complaint::SilentLogin),
            Self::AwaitsDecision
            | Self::AwaitsName
            | Self::Checking
            | Self::Parked
            | Self::Leaving => None,
        }
    }

    /// Whether the monitor still has to decide.
    pub(super) const fn awaits_verdict(self) -> bool {
        matches!(
            self,
            Self::AwaitsDecision | Self::AwaitsName | Self::Checking
        )
    }
}

/// An unauthenticated connection.
pub(super) struct PreauthConnection {
    /// The socket.
    pub(super) socket: OwnedFd,
    /// The peer's address.
    pub(super) from: IpAddr,
    /// The stage.
    pub(super) stage: Stage,
    /// When the stage must be over.
    pub(super) deadline: Instant,
    /// When the ClientHello, or the last answer to a prompt, came in. Refusals leave at a multiple
    /// of the interval after it.
    pub(super) requested_at: Instant,
    /// Whether the monitor knows this connection.
    pub(super) known: bool,
    /// Whether the peer has answered a prompt.
    pub(super) has_answered: bool,
    /// Whether the monitor was told that the peer does not wait for the decision.
    pub(super) has_left: bool,
    /// What has arrived of the record that is due.
    partial: Vec<u8>,
    /// What is still to be sent: a ServerHello, an AuthContinue or a refusal.
    pub(super) unsent: Vec<u8>,
    /// The refusal, until it is due.
    refusal: Vec<u8>,
    /// Bytes of a long command that are still to come.
    command: u32,
}

/// The result of reading a socket.
pub(super) enum ReadOutcome {
    /// A whole record of the kind that was due.
    Record(Vec<u8>),
    /// No whole record yet.
    Nothing,
    /// The peer hung up: before it had sent anything, as a port scan does, or later.
    Left,
    /// Something other than what was due.
    Malformed,
}

impl PreauthConnection {
    /// Returns a connection that was just accepted.
    pub(super) const fn new(
        socket: OwnedFd,
        from: IpAddr,
        now: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            socket,
            from,
            stage: Stage::Accepted,
            deadline,
            requested_at: now,
            known: false,
            has_answered: false,
            has_left: false,
            partial: Vec::new(),
            unsent: Vec::new(),
            refusal: Vec::new(),
            command: 0,
        }
    }

    /// Keeps a refusal until it is due.
    pub(super) fn set_refusal(&mut self, record: Vec<u8>) {
        self.refusal = record;
    }

    /// Expects a command of this many bytes, in pieces.
    pub(super) fn expect_command(&mut self, length: u32) {
        self.command = length;
    }

    /// Counts a piece by the length of its record; its content is encrypted. Returns `false` after
    /// the last piece: the next byte is for the process that gets the connection.
    pub(super) fn take_piece(&mut self, record: usize) -> bool {
        let piece = record.saturating_sub(LENGTH_BYTES + ENVELOPE + TAG);
        let piece = u32::try_from(piece).unwrap_or(u32::MAX);
        self.command = self.command.saturating_sub(piece);
        self.command > 0
    }

    /// Sends the refusal and shuts the sending side down. Returns `false` if the peer is gone.
    pub(super) fn say_refusal(&mut self) -> bool {
        use nix::sys::socket::{Shutdown, shutdown};
        self.unsent = std::mem::take(&mut self.refusal);
        self.flush() && shutdown(self.socket.as_raw_fd(), Shutdown::Write).is_ok()
    }

    /// Whether the connection may be evicted to make room.
    ///
    /// True while we wait for the peer, if only to hang up, or for a host's name, and after a
    /// refusal. False while the monitor decides. False also for a login in which the peer has
    /// answered a prompt: opening another connection must not end it.
    pub(super) const fn may_be_evicted(&self) -> bool {
        match self.stage {
            Stage::AwaitsDecision | Stage::Checking => false,
            Stage::Prompted => !self.has_answered,
            Stage::Accepted
            | Stage::Greeted
            | Stage::AwaitsCommand
            | Stage::AwaitsName
            | Stage::Parked
            | Stage::Leaving => true,
        }
    }

    /// Whether the peer has begun to send.
    pub(super) fn has_spoken(&self) -> bool {
        self.known || !self.partial.is_empty()
    }

    /// Reads from the socket, but never beyond the end of the record that is due: what a peer sends
    /// too early stays in the kernel.
    pub(super) fn read(&mut self) -> ReadOutcome {
        let Some(due) = self.stage.due() else {
            return self.check_while_waiting();
        };
        loop {
            let want = match self.partial.first_chunk::<LENGTH_BYTES>() {
                None => LENGTH_BYTES,
                Some(head) => match record::body_length(*head, record::limit_of(due)) {
                    Ok(body) => LENGTH_BYTES + body,
                    Err(_) => return ReadOutcome::Malformed,
                },
            };
            let have = self.partial.len();
            if have == want {
                return self.whole_record(due);
            }
            self.partial.reserve_exact(want - have);
            self.partial.resize(want, 0);
            let got = read(
                &self.socket,
                self.partial.get_mut(have..).unwrap_or_default(),
            );
            self.partial.truncate(have + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => return ReadOutcome::Left,
                Ok(_) => {}
                Err(Errno::EAGAIN) => return ReadOutcome::Nothing,
                Err(_) => return ReadOutcome::Left,
            }
        }
    }

    fn whole_record(&mut self, due: Kind) -> ReadOutcome {
        let record = std::mem::take(&mut self.partial);
        // Check magic and type here, so that garbage never reaches the monitor.
        match record::parse(&record, &[due]) {
            Ok(_) => ReadOutcome::Record(record),
            Err(_) => ReadOutcome::Malformed,
        }
    }

    /// Checks the socket while nothing is due.
    ///
    /// Until the monitor has decided, reads nothing, because the next byte may be for the relay,
    /// but notices a hang-up. After a refusal the peer may only hang up.
    fn check_while_waiting(&self) -> ReadOutcome {
        if self.stage.awaits_verdict() {
            return if socket::has_hung_up(self.socket.as_fd()) {
                ReadOutcome::Left
            } else {
                ReadOutcome::Nothing
            };
        }
        let mut bytes = [0; 64];
        match read(&self.socket, &mut bytes) {
            Ok(0) => ReadOutcome::Left,
            Ok(_) if self.stage == Stage::Leaving => ReadOutcome::Nothing,
            Ok(_) => ReadOutcome::Malformed,
            Err(Errno::EAGAIN) => ReadOutcome::Nothing,
            Err(_) => ReadOutcome::Left,
        }
    }

    /// Whether the peer has sent something before it was due.
    pub(super) fn sent_early(&self) -> bool {
        socket::has_bytes(self.socket.as_fd())
    }

    /// Sends what is queued. Returns `false` if the peer is gone.
    pub(super) fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match nix::unistd::write(&self.socket, &self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        self.unsent = Vec::new();
        true
    }
}

/// Reads, and retries if a signal interrupts it: an edge comes only once, so the data would
/// otherwise wait for the next byte.
fn read(socket: &OwnedFd, into: &mut [u8]) -> nix::Result<usize> {
    loop {
        match nix::unistd::read(socket, into) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}
