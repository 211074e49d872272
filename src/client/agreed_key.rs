//! Connecting to a host that need not be in the table: its key is pinned already, or the user
//! agrees to it.
//!
//! Runs in the client, for a login and for a registration. Any host can show any key: must not pin
//! a key, or answer a question of the host, before the handshake has proven that key.

use super::asker::Asker;
use super::call::Call;
use super::dial::{Dialing, Times};
use super::greet::{Greeted, OurHello};
use super::messages::Reporter;
use super::route::{Places, Route};
use crate::config::paths::Paths;
use crate::config::{keys, known_hosts};
use crate::fault::Fault;
use crate::protocol::noise::Prepared;
use crate::secret::{KeyPair, PublicKey};

/// A host that has shown a key which is pinned or which the user has agreed to.
pub(super) struct Agreed<'a> {
    /// The connection.
    pub(super) greeted: Greeted<'a>,
    /// Its key.
    pub(super) key: PublicKey,
    /// Our own.
    pub(super) machine: KeyPair,
    /// The key agreement with both, precomputed.
    pub(super) prepared: Prepared,
    /// Whether to pin the key once it is proven.
    pub(super) is_new: bool,
}

/// Connects to a host until it has shown a key that is pinned or that the user agrees to.
///
/// # Errors
/// It cannot be reached, the user does not agree, or another key is pinned.
pub(super) fn connect<'a>(
    call: &Call,
    places: &Places,
    route: &Route,
    hello: &'a OurHello,
    asker: &Asker,
    reporter: &Reporter,
) -> Result<Agreed<'a>, Fault> {
    let addresses = route.addresses(call)?;
    let greet = || -> Result<(Greeted<'a>, PublicKey), Fault> {
        let mut dialing = Dialing::begin(&addresses, Times::of(call));
        dialing.greet(hello.record());
        reporter.step(|| format!("connecting to {addresses:?}"));
        let dialed = dialing.finish(hello.record())?;
        reporter.step(|| format!("connected to {}", dialed.peer));
        let greeted = Greeted::wait(dialed, hello)?;
        let key = greeted.host_key().copied();
        let key = key.ok_or_else(|| Fault::new("it did not send its key"))?;
        Ok((greeted, key))
    };
    let (mut greeted, key) = greet()?;
    let machine = keys::own_machine_key(&places.own)?;
    let paths = &places.own;
    let mut pins = known_hosts::pins(&places.table, &route.entry.name)?;
    if places.table.dir != paths.dir {
        pins.extend(known_hosts::pins(paths, &route.entry.name)?);
    }
    let prepared = Prepared::for_initiator(&machine, &key)
        .map_err(|m| Fault::new(format!("the key that it shows is invalid: {m}")))?;
    let is_new = !pins.contains(&key);
    reporter.step(|| {
        let known = if is_new { "not pinned" } else { "pinned" };
        format!("its key is {}, {known}", keys::fingerprint(&key))
    });
    if is_new {
        // Close the connection first. Comparing takes longer than the host waits for a handshake,
        // and the connection would hold a slot of its unauthenticated connections.
        drop(greeted);
        check_key(call, paths, route, &key, &pins, asker)?;
        let now;
        (greeted, now) = greet()?;
        if now != key {
            return Err(Fault::new(format!(
                "HOST KEY CHANGED: it showed {} first, and now {} (possible attack). Nothing was sent",
                keys::fingerprint(&key),
                keys::fingerprint(&now)
            )));
        }
    }
    Ok(Agreed {
        greeted,
        key,
        machine,
        prepared,
        is_new,
    })
}

/// Pins a key that has been proven.
///
/// # Errors
/// The file cannot be written.
pub(super) fn pin(
    places: &Places,
    route: &Route,
    key: &PublicKey,
    reporter: &Reporter,
) -> Result<(), Fault> {
    if known_hosts::pin(&places.own, &route.entry.name, key)? {
        reporter.step(|| "its key is pinned from now on".to_owned());
    }
    Ok(())
}

/// Asks about a key that is not pinned. If another one is pinned, everything stops.
fn check_key(
    call: &Call,
    paths: &Paths,
    route: &Route,
    key: &PublicKey,
    pins: &[PublicKey],
    asker: &Asker,
) -> Result<(), Fault> {
    let (name, file) = (&route.entry.name, paths.known_hosts());
    if let Some(pinned) = pins.first() {
        return Err(Fault::of(
            &file,
            format!(
                "HOST KEY CHANGED: {name} shows {}, but {} is pinned (possible attack). \
                 Nothing was sent. If its administrator confirms the new key, remove the line of {name}",
                keys::fingerprint(key),
                keys::fingerprint(pinned)
            ),
        ));
    }
    let question = format!(
        "The key of {} is not pinned here. Its fingerprint is\n  {}\n\
         Compare it with what \"cosadm check\" on that host prints for host.key.\n\
         Pin this key? (yes/no) ",
        call.host,
        keys::fingerprint(key)
    );
    let agreed = asker.confirm(&question).map_err(|e| {
        Fault::of(
            &file,
            format!(
                "no key is pinned for {name}, which shows the fingerprint {}: {e}",
                keys::fingerprint(key)
            ),
        )
        .with_remedy(format!(
            "if \"cosadm check\" on that host prints this fingerprint, add the line: {name} {}",
            key.to_hex()
        ))
    })?;
    if !agreed {
        return Err(Fault::new("its key was rejected; nothing was sent"));
    }
    Ok(())
}
