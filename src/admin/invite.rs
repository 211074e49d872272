//! `cosadm host invite`: lets a host ask this one, and prints the card that
//! carries its cookie there. `rotate` prints cards too, by the same draft.

use nix::unistd::{Uid, User, geteuid};

use super::commands::Call;
use super::edit::{Change, Lock, Text};
use super::hosts::its_users;
use super::out::{Failure, Out};
use super::reach::reach;
use crate::config::address::Network;
use crate::config::card::Card;
use crate::config::hostinfo::{Addresses, Users};
use crate::config::name::{HostName, UserName};
use crate::config::place::Place;
use crate::config::settings::Settings;
use crate::config::words::cosadm;
use crate::config::{cookie, keys, machines, secure};
use crate::fault::Fault;
use crate::secret::Secret;

/// Lets a host run commands here and prints its card.
pub(super) fn invite(call: &Call, out: &Out) -> Result<(), Failure> {
    let place = call.place()?;
    let host = HostName::parse(call.operand(0))?;
    let users = call.value("users");
    let users = users.map(|list| Users::parse(&list)).transpose();
    let users = users.map_err(|e| e.while_doing("--users"))?;
    let run_as = run_as(call, &host, users.is_some(), out)?;
    if let Some(Users::Pairs(pairs)) = &users {
        let mut named: Vec<&UserName> = pairs.iter().map(|pair| &pair.here).collect();
        named.sort();
        named.dedup();
        for user in named.into_iter().filter(|user| !run_as.contains(user)) {
            if !matches!(User::from_name(user.as_str()), Ok(Some(_))) {
                out.tell(missing(user));
            }
        }
    }
    let networks = networks(&call.values("addr"))?;
    out.takes_secrets()?;
    let lock = Lock::take(&place)?;
    let mut text = Text::read(&place, &lock)?;
    let entry = text.find(&host)?;
    if let Some(entry) = entry
        .as_ref()
        .filter(|e| e.may_ask() || place.cookie_in(&host).exists())
    {
        return Err(Fault::at(
            &place.hostinfo(),
            entry.line,
            format!(
                "{host} is invited already; {} gives it a new cookie, {} removes it",
                cosadm(&place, format_args!("host rotate {host}")),
                cosadm(&place, format_args!("host remove {host}"))
            ),
        )
        .into());
    }
    let listed = if networks.is_empty() {
        None
    } else {
        Some(joined(&networks))
    };
    let addresses = match (&listed, &entry) {
        (Some(_), _) => Addresses::Listed(networks),
        (None, Some(entry)) => entry.addresses.clone(),
        (None, None) => Addresses::ByName,
    };
    let hint = format!("say with --addr from which address or network {host} will ask");
    let draft = Draft::make(&place, &host, &addresses, (call.port()?, &hint), out)?;

    // The line comes last: until it is there, the host is denied.
    cookie::write_in(&place, &host, std::slice::from_ref(&draft.card.cookie))?;
    machines::forget(&place, &host)?;
    if entry.is_some() {
        // A line that `join` wrote, which lets nobody in so far.
        let mut changes = Vec::new();
        changes.extend(given(&run_as).map(|list| ("run-as", Change::Set(list))));
        changes.extend(users.iter().map(|u| ("users", Change::Set(u.to_string()))));
        changes.extend(listed.map(|list| ("addr", Change::Set(list))));
        text.change(&host, &changes)?;
    } else {
        let mut options: Vec<(&str, String)> =
            listed.map(|list| ("addr", list)).into_iter().collect();
        options.extend(given(&run_as).map(|list| ("run-as", list)));
        options.extend(users.iter().map(|u| ("users", u.to_string())));
        text.add(&host, &options);
    }
    if let Err(fault) = text.save(&host, &lock) {
        secure::remove(&place.cookie_in(&host))?;
        return Err(fault.into());
    }
    let from = from(&addresses, &host);
    let its = its_users(&users.unwrap_or(Users::SameName));
    out.tell(match given(&run_as) {
        Some(own) => format!("{host} may run commands here as {own}, from {from}; {its}"),
        None => format!("{host} asks nothing for itself; {its}, from {from}"),
    });
    out.tell("a running cosserver sees it at the next request");
    draft.hand_over(out, || {
        // A half-written card may be anywhere: its cookie counts no more.
        let rotate = cosadm(&place, format_args!("host rotate {host}"));
        match secure::remove(&place.cookie_in(&host)) {
            Ok(_) => format!("its cookie is withdrawn; {rotate} prints another"),
            Err(fault) => format!("its cookie stays ({fault}); {rotate} prints another"),
        }
    })
}

/// A card that is not handed over yet.
pub(super) struct Draft {
    pub(super) card: Card,
    warning: Option<String>,
}

impl Draft {
    /// A card with a new cookie. `port`: the one to put on it, where it is not
    /// the configured one; `hint`: what to do where the host's name does not
    /// resolve.
    pub(super) fn make(
        place: &Place,
        host: &HostName,
        addresses: &Addresses,
        (port, hint): (Option<u16>, &str),
        out: &Out,
    ) -> Result<Self, Failure> {
        let settings = Settings::load(&place.settings())?;
        let port = port.unwrap_or(settings.port);
        if port == 0 {
            let words =
                "port = 0 lets the system choose a port, so the card must be told it: --port N";
            return Err(Fault::of(&place.settings(), words).into());
        }
        let reach = reach(&settings, host, addresses, hint)?;
        let card = Card {
            caller: host.clone(),
            server: settings.name,
            addresses: reach.addresses,
            port,
            key: keys::load_host_key(place)?.public,
            cookie: Secret::random()?,
        };
        out.detail(format!(
            "this host is {}, at {}, port {port}",
            card.server,
            joined(&card.addresses)
        ));
        Ok(Self {
            card,
            warning: reach.warning,
        })
    }

    /// Prints the card, and nothing else, to standard output. Where that fails,
    /// `withdraw` takes the card's cookie back and says what came of it.
    pub(super) fn hand_over(
        &self,
        out: &Out,
        withdraw: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if let Err(failure) = out.say_secret(&self.card.print()) {
            out.tell(format!("the card was not written, and {}", withdraw()));
            return Err(failure);
        }
        if let Some(warning) = &self.warning {
            out.tell(warning);
        }
        let host = &self.card.caller;
        out.tell(format!(
            "the card holds a secret: carry it to {host} by a safe way, and there: cosadm host join FILE"
        ));
        Ok(())
    }
}

/// A list that is to stand on a line, if there is anything in it.
fn given(users: &[UserName]) -> Option<String> {
    (!users.is_empty()).then(|| joined(users))
}

/// The users of `--run-as`; without it, an ordinary user himself, and nobody where its
/// users alone are to be let in.
fn run_as(
    call: &Call,
    host: &HostName,
    without: bool,
    out: &Out,
) -> Result<Vec<UserName>, Failure> {
    let me = geteuid();
    let mut users: Vec<UserName> = Vec::new();
    for name in call
        .values("run-as")
        .iter()
        .flat_map(|list| list.split(','))
    {
        let name = UserName::parse(name).map_err(|e| e.while_doing("--run-as"))?;
        if !users.contains(&name) {
            users.push(name);
        }
    }
    if users.is_empty() && !(without && me.is_root()) {
        if me.is_root() {
            let words = format!(
                "--run-as is missing: as which users may {host} run commands? For example --run-as root, or --users for its users alone"
            );
            return Err(Failure::Usage(words));
        }
        users.push(own_name(me)?);
    }
    for user in &users {
        match User::from_name(user.as_str()) {
            Ok(Some(account)) if !me.is_root() && account.uid != me => {
                let words = format!(
                    "--run-as {user}: a cosserver that you start can run commands as you alone"
                );
                return Err(Fault::new(words).into());
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => out.tell(missing(user)),
        }
    }
    Ok(users)
}

fn missing(user: &UserName) -> String {
    format!("there is no user {user} on this machine (yet)")
}

fn own_name(me: Uid) -> Result<UserName, Fault> {
    let account = User::from_uid(me)?
        .ok_or_else(|| Fault::new(format!("user {me} has no name; give --run-as")))?;
    UserName::parse(&account.name)
}

/// The values of `--addr`, each one or several with commas.
pub(super) fn networks(values: &[String]) -> Result<Vec<Network>, Fault> {
    let mut networks: Vec<Network> = Vec::new();
    for text in values.iter().flat_map(|list| list.split(',')) {
        let network = Network::parse(text).map_err(|e| e.while_doing("--addr"))?;
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

/// Items with commas between them.
pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// From where a host may ask, in words.
pub(super) fn from(addresses: &Addresses, host: &HostName) -> String {
    match addresses {
        Addresses::Listed(networks) => joined(networks).replace(',', ", "),
        Addresses::ByName => format!("the addresses of the name {host}"),
    }
}
