//! The mechanisms `hash` and `vouch` (seed 000). Runs in the monitor.
//!
//! `hash`: the caller is a host of HOSTINFO. It connects from its address with its machine key, and
//! has hashed this host's nonce with its request under a cookie that only the two hosts have.
//! `vouch`: the same for a user of that host who connects with a key of their own; the host's
//! signer has made the hash.

use std::net::IpAddr;

use super::Opened;
use crate::config::cookie;
use crate::config::hostinfo::{Addresses, Entry, HostTable};
use crate::config::machines::{self, Recorded};
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::protocol::hello::Suite;
use crate::protocol::noise::{Keys, Responder};
use crate::protocol::opening::{Credential, Hosts, Opening};
use crate::protocol::prompt::Text;
use crate::protocol::proof::{self, Claim, Side, Voucher};
use crate::protocol::request::{Command, Request, Service};
use crate::protocol::rest;
use crate::protocol::{Malformed, answer::Answer};
use crate::refusal::{Cause, Refusal};
use crate::registry::{Admitted, Id, Known, Machine};
use crate::secret::{PublicKey, Secret};

/// What the proof is verified against.
pub struct ProofContext<'a> {
    /// The host table.
    pub table: &'a HostTable,
    /// Returns the addresses of a host's name; `None`: not known (yet).
    pub resolved: &'a dyn Fn(&HostName) -> Option<Vec<IpAddr>>,
    /// The paths of the cookies and the recorded keys.
    pub paths: &'a Paths,
    /// This host's name, as its invitations state it.
    pub name: &'a HostName,
    /// This host's public key.
    pub host_key: &'a PublicKey,
    /// Returns the secret that this host's key shares with another; `None`: that key is of low
    /// order.
    pub shared: &'a dyn Fn(&PublicKey) -> Option<Secret>,
    /// The peer's address, as the kernel reports it for the socket.
    pub peer: IpAddr,
}

/// An authenticated caller with the request that the proof covers.
pub struct AuthenticatedHost {
    caller: Entry,
    peer: IpAddr,
    request: Request,
    server_proof: [u8; 32],
    responder: Option<Responder>,
    suite: Suite,
    machine: PublicKey,
    key: PublicKey,
    vouched: bool,
    newly_recorded: bool,
}

impl AuthenticatedHost {
    /// Returns the calling host.
    pub const fn caller(&self) -> &Entry {
        &self.caller
    }

    /// Returns the address that it connects from.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Returns the cipher of the connection.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Returns its machine key.
    pub const fn machine(&self) -> &PublicKey {
        &self.machine
    }

    /// Returns the key that the handshake has proven: the machine's, or that of the user that its
    /// signer vouches for.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the IDs of the calling machines: the host's, and that of the user it vouches for.
    pub fn machines(&self) -> Vec<Id> {
        let mut all = vec![Id::of(&self.machine)];
        all.extend((self.key != self.machine).then(|| Id::of(&self.key)));
        all
    }

    /// Returns whether its signer vouches for one of its users, who is named in the request.
    /// Otherwise the host itself asks.
    pub const fn is_vouched(&self) -> bool {
        self.vouched
    }

    /// Returns the request.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Returns whether its machine key was recorded just now, with its first proof.
    pub const fn is_newly_recorded(&self) -> bool {
        self.newly_recorded
    }

    /// Returns the accepting answer, with this host's own proof and the texts to be shown.
    ///
    /// # Errors
    /// None that a proof can cause.
    pub fn acceptance(&self, texts: Vec<Text>) -> Result<Vec<u8>, Malformed> {
        Answer::accept(self.server_proof, texts).encode()
    }

    /// Returns this host's own proof.
    pub const fn server_proof(&self) -> [u8; 32] {
        self.server_proof
    }

    /// Builds message 2 around an answer, and returns the session keys. Works once.
    ///
    /// # Errors
    /// It was built before, or there were no random bytes.
    pub fn message_2(&mut self, payload: &[u8]) -> Result<(Vec<u8>, Keys), Malformed> {
        let responder = self
            .responder
            .take()
            .ok_or(Malformed("message 2 is made once"))?;
        responder.message_2(payload)
    }
}

/// Adds the command and its variables to the caller, once they have arrived completely.
///
/// # Errors
/// The command is not the one that the proof covers.
pub fn with_command(
    mut known: Known<AuthenticatedHost>,
    encoding: &[u8],
) -> Result<Known<AuthenticatedHost>, Refusal> {
    let authenticated = known.inner_mut();
    if let Command::Follows { digest, .. } = &authenticated.request.command {
        let (words, environment) = rest::unpack(encoding, digest).map_err(not_a_request)?;
        if !environment.is_empty() {
            if !authenticated.request.environment.is_empty() {
                return Err(not_a_request(Malformed("variables in two places")));
            }
            authenticated.request.environment = environment;
        }
        authenticated.request.command = Command::Words(words);
    }
    Ok(known)
}

impl Machine for AuthenticatedHost {
    fn machine(&self) -> &PublicKey {
        &self.machine
    }
}

fn not_a_request(m: Malformed) -> Refusal {
    Refusal::new(Cause::Request, m)
}

/// Verifies an opened handshake against HOSTINFO, address, key and cookie.
///
/// # Errors
/// Returns a [`Refusal`] with the cause for the log.
pub fn authenticate_host(
    admitted: Admitted<Opened>,
    context: &ProofContext<'_>,
) -> Result<AuthenticatedHost, Refusal> {
    let opened = admitted.into_inner();
    let opening =
        Opening::decode(&opened.payload).map_err(|m| Refusal::new(Cause::Handshake, m))?;
    let (hosts, voucher) = match opening.credential {
        Credential::Hash(hosts) => (hosts, None),
        Credential::Vouch(hosts, machine) => (hosts, Some(machine)),
        Credential::Password | Credential::Machine => {
            return Err(Refusal::new(Cause::Handshake, Malformed("no host asks")));
        }
    };
    // Do the same reads and computations whatever is wrong: the time they take shows in when
    // another connection is answered, and must not reveal why this one is refused.
    let entry = entry_of(&hosts, context);
    let machine = voucher.unwrap_or(opened.machine);
    let files = entry.as_ref().ok().map(|entry| &entry.name);
    let files = files.or_else(|| substitute_host(context.table, &hosts.caller));
    let recorded = files.map_or(Ok(None), |host| machines::recorded(context.paths, host));
    let cookies = files.map(|host| cookie::load_in(context.paths, host));
    let shared = voucher.map(|key| (context.shared)(&key));
    let of_no_host = Secret::new([0; 32]);
    let claim = Claim {
        caller: &hosts.caller,
        server: &hosts.server,
        caller_key: &opened.machine,
        server_key: context.host_key,
        nonce: &opened.nonce,
        request: opening.request,
        voucher: shared.as_ref().map(|shared| Voucher {
            machine: &machine,
            shared: shared.as_ref().unwrap_or(&of_no_host),
        }),
    };
    let cookie = right_cookie(cookies, &claim, &hosts.proof);
    let entry = entry?;
    let caller = &entry.name;
    check_key(entry, &machine, &recorded)?;
    if matches!(shared, Some(None)) {
        let why = Malformed("a machine key of low order");
        return Err(Refusal::new(Cause::Handshake, why));
    }
    let cookie = cookie?;
    let newly_recorded = record_key(caller, machine, recorded, context.paths)?;
    let request = Request::decode(opening.request).map_err(not_a_request)?;
    if request.service == Service::Enrol {
        return Err(not_a_request(Malformed(
            "a machine enrols by its key alone",
        )));
    }
    let server_proof = proof::make(&cookie, Side::Server, &claim).map_err(not_a_request)?;
    Ok(AuthenticatedHost {
        caller: entry.clone(),
        peer: context.peer,
        request,
        server_proof,
        responder: Some(opened.responder),
        suite: opened.suite,
        machine,
        key: opened.machine,
        vouched: voucher.is_some(),
        newly_recorded,
    })
}

/// Returns the caller's HOSTINFO entry if it addresses this host by its name and connects from its
/// own address.
fn entry_of<'a>(hosts: &Hosts, context: &ProofContext<'a>) -> Result<&'a Entry, Refusal> {
    let server = HostName::parse(&hosts.server).ok();
    if server.as_ref() != Some(context.name) {
        let words = format!(
            "it calls {:?}, and this host is {}",
            hosts.server, context.name
        );
        return Err(Refusal::new(Cause::ServerName, words));
    }
    let caller = HostName::parse(&hosts.caller).map_err(|e| Refusal::new(Cause::UnknownHost, e))?;
    let entry = context.table.get(&caller).ok_or_else(|| {
        let words = format!("{caller} has no valid entry in hostinfo");
        Refusal::new(Cause::UnknownHost, words)
    })?;
    check_address(entry, context)?;
    Ok(entry)
}

/// Returns the host that an admitted handshake claims to be from, if HOSTINFO lists it by name only
/// and no known address of that name is the peer's. Its name must be resolved before the proof is
/// verified.
pub fn unknown_by_name(
    admitted: &Admitted<Opened>,
    table: &HostTable,
    resolved: &dyn Fn(&HostName) -> Option<Vec<IpAddr>>,
    peer: IpAddr,
) -> Option<HostName> {
    let opening = Opening::decode(&admitted.inner().payload).ok()?;
    let caller = HostName::parse(&opening.credential.hosts()?.caller).ok()?;
    let entry = table.get(&caller)?;
    let is_by_name = entry.may_ask() && entry.addresses == Addresses::ByName;
    let is_known = resolved(&caller).is_some_and(|all| all.contains(&peer));
    (is_by_name && !is_known).then_some(caller)
}

fn check_address(entry: &Entry, context: &ProofContext<'_>) -> Result<(), Refusal> {
    let name = &entry.name;
    let is_its_own = match (&entry.addresses, entry.addresses.contains(context.peer)) {
        (Addresses::Listed(_), contains) => contains == Some(true),
        (Addresses::ByName, _) => {
            let resolved = (context.resolved)(name).ok_or_else(|| {
                let words = format!("the name {name} does not resolve, or is not resolved yet");
                Refusal::new(Cause::Address, words)
            })?;
            resolved.contains(&context.peer)
        }
    };
    if is_its_own {
        return Ok(());
    }
    let words = format!("{} is not an address of {name}", context.peer);
    Err(Refusal::new(Cause::Address, words))
}

/// Checks that no other machine key is pinned or recorded for the caller. A read error is not
/// reported here: [`record_key`] reports it, after the proof.
fn check_key(
    entry: &Entry,
    machine: &PublicKey,
    recorded: &Result<Option<PublicKey>, Fault>,
) -> Result<(), Refusal> {
    if entry.machine_key.is_some_and(|pinned| pinned != *machine) {
        return Err(other_key(&entry.name, "hostinfo pins a different key"));
    }
    match recorded {
        Ok(Some(first)) if first != machine => {
            Err(other_key(&entry.name, "a different key is recorded"))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Records the key of a host's first proof, and returns whether this was the first. If two first
/// proofs race, one wins. The caller has authenticated, so any other failure is this host's own.
fn record_key(
    host: &HostName,
    machine: PublicKey,
    recorded: Result<Option<PublicKey>, Fault>,
    paths: &Paths,
) -> Result<bool, Refusal> {
    let recorded = recorded.and_then(|known| match known {
        Some(_) => Ok(Recorded::Same),
        None => machines::record(paths, host, machine),
    });
    match recorded {
        Ok(Recorded::Other) => Err(other_key(host, "a different key is recorded")),
        Ok(recorded) => Ok(recorded == Recorded::New),
        Err(e) => Err(Refusal::new(Cause::System, e)),
    }
}

fn other_key(host: &HostName, why: &str) -> Refusal {
    let words = format!(
        "not the machine key of {host}: {why}; after a change of machine, `cosadm host rotate {host}`"
    );
    Refusal::new(Cause::MachineKey, words)
}

/// Returns the cookie that the proof matches. Cookies are read each time, so that none stays in the
/// monitor's memory and a removed one no longer counts. A wrong proof is always compared with the
/// maximum number of cookies.
fn right_cookie(
    cookies: Option<Result<Vec<Secret>, Fault>>,
    claim: &Claim<'_>,
    proof: &[u8; 32],
) -> Result<Secret, Refusal> {
    let right = |c: &Secret| proof::verify(c, Side::Client, claim, proof);
    let cookies = cookies.unwrap_or_else(|| Ok(Vec::new()));
    let mut held = 0;
    for cookie in cookies.as_ref().into_iter().flatten() {
        held += 1;
        if right(cookie) {
            return Ok(cookie.clone());
        }
    }
    let of_no_host = Secret::new([0; 32]);
    for _ in held..cookie::LIVE_MAX {
        std::hint::black_box(right(&of_no_host));
    }
    cookies.map_err(|e| Refusal::new(Cause::NoCookie, e))?;
    let words = format!("the hash of {} is wrong: its cookie differs", claim.caller);
    Err(Refusal::new(Cause::Proof, words))
}

/// Returns the host whose files are read for a caller that has none: the caller itself, if only its
/// address or the server name is wrong, else the first host of the table that may connect.
fn substitute_host<'a>(table: &'a HostTable, caller: &str) -> Option<&'a HostName> {
    let itself = HostName::parse(caller).ok().and_then(|c| table.get(&c));
    let first = || table.entries().iter().find(|entry| entry.may_ask());
    itself.or_else(first).map(|entry| &entry.name)
}

/// Does the reads and computations of [`authenticate_host`] for a wrong proof, for a caller that is
/// refused before or without a proof.
pub fn verify_dummy_proof(table: &HostTable, paths: &Paths, host_key: &PublicKey) {
    let host = substitute_host(table, "");
    let recorded = host.map(|host| machines::recorded(paths, host));
    let name = host.map_or("", HostName::as_str);
    let claim = Claim {
        caller: name,
        server: name,
        caller_key: host_key,
        server_key: host_key,
        nonce: &[0; 32],
        request: &[0; 64],
        voucher: None,
    };
    let cookies = host.map(|host| cookie::load_in(paths, host));
    let cookie = right_cookie(cookies, &claim, &[0; 32]);
    std::hint::black_box((recorded.is_some(), cookie.is_ok()));
}
