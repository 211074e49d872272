//! `cosadm host join`: installs a card made by another host's administrator, so that this host can
//! run commands there. It grants no access to this host.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::call::Call;
use super::edit::{Change, Lock, Text};
use super::init;
use super::invite::{joined, networks};
use super::out::{Failure, Out};
use crate::config::address::{Address, Network};
use crate::config::card::{Card, TEXT_MAX};
use crate::config::hostinfo::{Addresses, Entry, Method};
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::config::words::shell_word;
use crate::config::{cookie, keys, known_hosts};
use crate::fault::Fault;

/// Installs a card.
pub(super) fn join(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let file = call.operand(0);
    let card = Card::parse(&read(file)?).map_err(|e| Fault::of(Path::new(file), e))?;
    not_our_own(&paths, file, &card)?;
    let name = call
        .value("name")
        .map(|name| HostName::parse(&name))
        .transpose()?;
    let name = name.unwrap_or_else(|| card.server.clone());
    let dialled = dialled(call)?;
    if init::is_needed(&paths) {
        init::make_first(&paths, out)?;
    }
    let lock = Lock::take(&paths)?;
    let mut text = Text::read(&paths, &lock)?;
    let entry = text.find(&name)?;
    let replaces = pin_fits(&paths, &name, &card, call.given("replace-key"))?;

    let server = (card.server != name).then(|| card.server.to_string());
    let mut kept = Kept::default();
    match &entry {
        Some(entry) => {
            let (changes, kept_so) = changes(entry, &card, server, &dialled, call.port()?, out);
            text.change(&name, &changes)?;
            kept = kept_so;
        }
        None => {
            let addresses = if dialled.is_empty() {
                joined(&card.addresses)
            } else {
                joined(&dialled)
            };
            let port = call.port()?.unwrap_or(card.port);
            let mut options = vec![
                ("addr", addresses),
                ("port", port.to_string()),
                ("as", card.caller.to_string()),
            ];
            options.extend(server.map(|server| ("server", server)));
            text.add(&name, &options);
        }
    }
    // Write the line last: without it, the host is not known.
    if replaces {
        known_hosts::unpin(&paths, &name)?;
    }
    let pinned = known_hosts::pin(&paths, &name, &card.key)?;
    let before = cookie::load(&paths, &paths.cookie_out(&name));
    let had = before.as_ref().ok().and_then(Option::as_ref);
    let same = had.is_some_and(|had| matches!(&**had, [one] if one.same(&card.cookie)));
    if !same {
        cookie::write_out(&paths, &name, std::slice::from_ref(&card.cookie))?;
    }
    let lined = text.save_if_changed(&name, &lock)?;
    drop(lock);
    if same && !pinned && !lined {
        out.tell(format!(
            "{name}: this card was joined already; nothing was changed"
        ));
    } else {
        out.tell(format!(
            "{name} is joined; it knows this host as {}",
            card.caller
        ));
    }
    if !same && before.as_ref().is_ok_and(Option::is_some) {
        out.tell(format!(
            "{name}: the cookie on the card replaces another, which may be newer: cards have no date"
        ));
    }
    out.detail(format!(
        "its key is {}, fingerprint {}",
        card.key.to_hex(),
        keys::fingerprint(&card.key)
    ));
    let dir = paths.option_c();
    let attempt = format!("cos{dir} run {name} true");
    match kept.flags() {
        None => out.tell(format!(
            "try: {attempt}   (and remove the card: it holds the secret)"
        )),
        Some(flags) => {
            let file = shell_word(file);
            out.tell(format!(
                "try: {attempt}   (if it cannot connect, this takes what the card says: \
                 cosadm{dir} host join {file} --name {name}{flags})"
            ));
            out.tell("remove the card when it works: it holds the secret");
        }
    }
    Ok(())
}

/// The values of the card that were not taken, because the host's existing line has others.
#[derive(Default)]
struct Kept {
    port: Option<u16>,
    addresses: Vec<IpAddr>,
}

impl Kept {
    /// Returns the flags that set the card's values; `None` if the line kept no other value.
    fn flags(&self) -> Option<String> {
        let address = self.addresses.iter().map(|a| format!(" --addr {a}"));
        let port = self.port.iter().map(|port| format!(" --port {port}"));
        let flags: String = address.chain(port).collect();
        (!flags.is_empty()).then_some(flags)
    }
}

/// Rejects a card that this host made: it is meant for another host. A folder without a host key
/// has made no card.
fn not_our_own(paths: &Paths, file: &str, card: &Card) -> Result<(), Fault> {
    if !keys::load_host_key(paths).is_ok_and(|own| own.public == card.key) {
        return Ok(());
    }
    let words = format!(
        "this card was made here, by the host whose key is {}, for {} to join: carry it there",
        paths.host_key().display(),
        card.caller
    );
    Err(Fault::of(Path::new(file), words))
}

/// Returns the changes to an existing line. Values that only the card can know and values of flags
/// are set, and missing ones are added. Everything else stays, because the administrator may have
/// written it; differences are reported.
fn changes(
    entry: &Entry,
    card: &Card,
    server: Option<String>,
    dialled: &[Address],
    port: Option<u16>,
    out: &Out,
) -> (Vec<(&'static str, Change)>, Kept) {
    let name = &entry.name;
    let mut kept = Kept::default();
    let mut old_port = entry.port;
    if entry.method != Method::Cos {
        // The old port is that of the other program.
        old_port = None;
        out.tell(format!(
            "{name}: its method was {}, and is cos now, at port {}",
            entry.method,
            port.unwrap_or(card.port)
        ));
    }
    let mut changes = vec![
        ("as", Change::Set(card.caller.to_string())),
        ("server", server.map_or(Change::Remove, Change::Set)),
    ];
    match (port, old_port) {
        (Some(port), _) => changes.push(("port", Change::Set(port.to_string()))),
        (None, None) => changes.push(("port", Change::Set(card.port.to_string()))),
        (None, Some(port)) if port != card.port => {
            kept.port = Some(card.port);
            out.tell(format!(
                "{name}: port={port} stays, though the card says {}",
                card.port
            ));
        }
        (None, Some(_)) => {}
    }
    match &entry.addresses {
        _ if !dialled.is_empty() => changes.push(("addr", Change::Set(joined(dialled)))),
        // If the host may send requests, a list of addresses also restricts where they come from.
        Addresses::ByName if !entry.may_ask() => {
            changes.push(("addr", Change::Set(joined(&card.addresses))));
        }
        Addresses::ByName => {}
        Addresses::Listed(_)
            if card
                .addresses
                .iter()
                .any(|a| entry.addresses.contains(*a) == Some(true)) => {}
        Addresses::Listed(listed) => {
            let (listed, given) = (joined(listed), joined(&card.addresses));
            kept.addresses.clone_from(&card.addresses);
            out.tell(format!(
                "{name}: addr={listed} stays, though the card says {given}"
            ));
        }
    }
    (changes, kept)
}

/// Returns whether the card's key replaces another pinned key.
fn pin_fits(paths: &Paths, name: &HostName, card: &Card, replace: bool) -> Result<bool, Fault> {
    let pins = known_hosts::pins(paths, name)?;
    let Some(other) = pins.first().filter(|_| !pins.contains(&card.key)) else {
        return Ok(false);
    };
    if replace {
        return Ok(true);
    }
    Err(Fault::of(
        &paths.known_hosts(),
        format!(
            "HOST KEY CHANGED: the card has {}, but {} is pinned for {name} (possible attack)",
            keys::fingerprint(&card.key),
            keys::fingerprint(other)
        ),
    )
    .with_remedy(format!(
        "if the administrator of {name} confirms the new key: {}",
        paths.cosadm("host join FILE --replace-key")
    )))
}

/// Returns the addresses of `--addr`. They are connected to, so networks are not allowed.
fn dialled(call: &Call) -> Result<Vec<Address>, Fault> {
    let single = |network: Network| {
        let words = format!("--addr: {network} is a network, not an address to connect to");
        network.single().ok_or_else(|| Fault::new(words))
    };
    networks(&call.values("addr"))?
        .into_iter()
        .map(single)
        .collect()
}

/// Opens a file without blocking: open(2) of a FIFO waits for a writer. A descriptor that this
/// process has open already was chosen by its caller, like standard input, and may block.
fn open(file: &str) -> std::io::Result<File> {
    if file == "/dev/stdin" || file.starts_with("/dev/fd/") {
        return File::open(file);
    }
    let card = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(file)?;
    if card.metadata()?.is_file() {
        return Ok(card);
    }
    let words = "it is not a regular file; `-` reads a card from standard input";
    Err(std::io::Error::other(words))
}

/// Reads the card's file, or standard input for `-`, up to the largest size of a card.
fn read(file: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let wrong = |e: std::io::Error| Fault::of(Path::new(file), e);
    let mut source: Box<dyn Read> = if file == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(open(file).map_err(wrong)?)
    };
    let mut bytes = Zeroizing::new(vec![0; TEXT_MAX + 1]);
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match source.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(wrong(e)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
