//! The signer of this host, as its users see it: the daemon's socket or, where no
//! daemon runs, the set-uid program `cos-sign`. Run by the client.

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
/// How long the signer may take: a look-up of our name may take ten seconds.
const LIMIT: Duration = Duration::from_secs(15);
/// How long we wait before we call again where too many called; then twice as long each
/// time.
const AGAIN: Duration = Duration::from_millis(20);
/// The longest such pause.
const AGAIN_MOST: Duration = Duration::from_millis(500);

/// Where somebody signs for us.
pub struct LocalSigner {
    paths: Paths,
    /// The host that we want to ask.
    host: HostName,
    /// Our own key, for the handshake.
    key: KeyPair,
    /// How many cookies there are, as far as it is known.
    cookies: Cell<u8>,
}

impl LocalSigner {
    /// The desk for requests to that host, of a caller with this key.
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

    /// Whether there seems to be a signer at all.
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
            Err(e) => match (program(&self.paths), nobody_listens(&e)) {
                (Some(program), true) => client_exec::ask(&program, &message, MESSAGE)
                    .map_err(|e| Fault::of(&program, e))?,
                (None, true) => return Err(self.no_signer()),
                (_, false) => return Err(Fault::of(&self.paths.signer(), e)),
            },
        };
        let reply = Reply::decode(&reply);
        match reply.map_err(|m| Fault::new(format!("the signer's answer is none: {m}")))? {
            Reply::Signed(signed) => {
                self.cookies.set(signed.cookies);
                Ok(signed)
            }
            Reply::Refused(why) => Err(Fault::new(format!("this host's signer refuses: {why}"))),
        }
    }

    /// Calls until there is an answer: too many of us may call at the same time.
    fn until_signed(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let until = Instant::now() + LIMIT;
        let mut pause = AGAIN;
        loop {
            // A limit of nothing would be none at all.
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
                let words = "the signer hangs up: too many call at the same time";
                return Err(io::Error::other(words));
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(AGAIN_MOST);
        }
    }

    fn by_socket(&self, message: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
        let socket = local::call(&self.paths.signer(), limit)?;
        // Root's daemon, or the one that we started ourselves: nobody else may know what
        // we ask.
        let uid = local::user_of(&socket)?;
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            let words = format!("user {uid} listens there, and neither root nor we");
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

/// That there is no signer, by which an ordinary user would ask this host.
pub(super) fn none(paths: &Paths, host: &str) -> Fault {
    Fault::of(
        &paths.signer(),
        format!("an ordinary user needs a signer to ask {host}, and there is none"),
    )
    .with_remedy(
        "start cosserver(8) here or, where no daemon is to run, install cos-sign: make install SIGNER=setuid",
    )
}

/// Whether the signer hung up: we were one too many, or it has just been stopped.
fn is_hang_up(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn nobody_listens(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// The set-uid program, which knows the system's folder alone.
fn program(paths: &Paths) -> Option<PathBuf> {
    let own = std::env::current_exe().ok().filter(|_| paths.system)?;
    let program = own.with_file_name(PROGRAM);
    program.is_file().then_some(program)
}
