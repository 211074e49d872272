//! The signer of this host, as its users see it: the daemon's socket or, if no daemon runs, the
//! set-uid program `cos-sign`.
//!
//! Runs in the client. Owns our key, and never sees a cookie. Must not send a request to a socket
//! of a user other than root or this one.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::cookie::LIVE_MAX;
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::protocol::limits::NONCE;
use crate::protocol::request::Request;
use crate::secret::{KeyPair, PublicKey};
use crate::signer::fields::{Ask, MESSAGE, Reply, Signed};
use crate::sys::{client_exec, local, passing};

/// The program, beside the client's own.
const PROGRAM: &str = "cos-sign";
/// How long the signer may take: it may look up our name for ten seconds.
const LIMIT: Duration = Duration::from_secs(15);
/// The pause before we call again if there were too many callers. It doubles each time.
const AGAIN: Duration = Duration::from_millis(20);
/// The longest pause.
const AGAIN_MOST: Duration = Duration::from_millis(500);

/// Access to the signer of this host.
pub struct LocalSigner {
    paths: Paths,
    /// The host that the request is for.
    host: HostName,
    /// Our own key, for the handshake.
    key: KeyPair,
    /// The number of cookies, as far as it is known.
    cookies: Cell<u8>,
}

impl LocalSigner {
    /// Returns the signer for requests to that host, for a caller with this key.
    pub fn new(paths: &Paths, host: &HostName, key: KeyPair) -> Self {
        Self {
            paths: paths.clone(),
            host: host.clone(),
            key,
            cookies: Cell::new(u8::try_from(LIVE_MAX).unwrap_or(1)),
        }
    }

    /// Our own key.
    pub const fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Whether there is a cookie of that number, as far as it is known.
    pub fn has(&self, which: u8) -> bool {
        which < self.cookies.get()
    }

    /// Whether a signer seems to exist.
    pub fn is_there(paths: &Paths) -> bool {
        paths.signer().exists() || program(paths).is_some()
    }

    /// Has a request signed.
    ///
    /// # Errors
    /// There is no signer, or it refuses.
    pub fn sign(
        &self,
        asked: &Request,
        pin: &PublicKey,
        which: u8,
        nonce: &[u8; NONCE],
    ) -> Result<Signed, Fault> {
        let ask = Ask {
            host: self.host.to_string(),
            nonce: *nonce,
            pin: *pin,
            key: self.key.public,
            which,
            service: asked.service.clone(),
            user: asked.user.clone(),
            command: asked.command.clone(),
            environment: asked.environment.clone(),
            linger: asked.linger,
        };
        let message = ask.encode().map_err(|m| Fault::new(m.to_string()))?;
        let reply = match self.until_signed(&message) {
            Ok(reply) => reply,
            Err(e) => match (program(&self.paths), is_not_listening(&e)) {
                (Some(program), true) => client_exec::ask(&program, &message, MESSAGE)
                    .map_err(|e| Fault::of(&program, e))?,
                (None, true) => return Err(self.no_signer()),
                (_, false) => return Err(Fault::of(&self.paths.signer(), e)),
            },
        };
        let reply = Reply::decode(&reply);
        match reply.map_err(|m| Fault::new(format!("the signer's answer is invalid: {m}")))? {
            Reply::Signed(signed) => {
                self.cookies.set(signed.cookies);
                Ok(signed)
            }
            Reply::Refused(why) => Err(Fault::new(format!("this host's signer refuses: {why}"))),
        }
    }

    /// Calls until there is an answer: too many users may call at the same time.
    fn until_signed(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let until = Instant::now() + LIMIT;
        let mut pause = AGAIN;
        loop {
            // A limit of zero would mean no limit.
            let left = until.saturating_duration_since(Instant::now()).max(AGAIN);
            let e = match self.by_socket(message, left) {
                Ok(reply) => return Ok(reply),
                Err(e) => e,
            };
            if e.kind() == io::ErrorKind::WouldBlock {
                return Err(io::Error::other("the signer does not answer"));
            }
            if !is_hang_up(&e) {
                return Err(e);
            }
            if Instant::now() + pause >= until {
                let words = "the signer closes the connection: too many calls at the same time";
                return Err(io::Error::other(words));
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(AGAIN_MOST);
        }
    }

    fn by_socket(&self, message: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
        let socket = local::call(&self.paths.signer(), limit)?;
        // Only root's daemon or one that this user started may see the request.
        let uid = local::user_of(&socket)?;
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            let words = format!("user {uid} listens there, who is neither root nor this user");
            return Err(io::Error::other(words));
        }
        passing::send(socket.as_fd(), message, &[])?;
        let mut buffer = vec![0; MESSAGE];
        let received = passing::receive(socket.as_fd(), &mut buffer)?;
        if received.length == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if received.truncated {
            return Err(io::Error::other("the signer's answer is too long"));
        }
        buffer.truncate(received.length);
        Ok(buffer)
    }

    fn no_signer(&self) -> Fault {
        none(&self.paths, self.host.as_ref())
    }
}

/// Returns the fault that there is no signer through which an ordinary user could ask this host.
pub(super) fn none(paths: &Paths, host: &str) -> Fault {
    Fault::of(
        &paths.signer(),
        format!("an ordinary user needs a signer to ask {host}, and there is none"),
    )
    .with_remedy(
        "start cosserver(8) here or, where no daemon is to run, install cos-sign: make install SIGNER=setuid",
    )
}

/// Whether the signer hung up: there were too many callers, or it has just been stopped.
fn is_hang_up(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn is_not_listening(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Returns the set-uid program, which knows only the system's folder.
fn program(paths: &Paths) -> Option<PathBuf> {
    let own = std::env::current_exe().ok().filter(|_| paths.system)?;
    let program = own.with_file_name(PROGRAM);
    program.is_file().then_some(program)
}
