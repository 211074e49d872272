//! `cosadm host invite`: allows a host to run commands here, and prints the card that carries its
//! cookie there. `rotate` prints cards too, with the same [`Invitation`].

use nix::unistd::{Uid, User, geteuid};

use super::call::Call;
use super::card_output::{CardOutput, WrittenCard};
use super::edit::{Change, Lock, Text};
use super::hosts::describe_users;
use super::init;
use super::out::{Failure, Out};
use super::reach::reach;
use crate::config::address::Network;
use crate::config::card::Card;
use crate::config::hostinfo::{Addresses, Entry, Users};
use crate::config::name::{HostName, UserName};
use crate::config::paths::Paths;
use crate::config::settings::Settings;
use crate::config::words::shell_word;
use crate::config::{cookie, keys, machines, secure};
use crate::fault::Fault;
use crate::secret::Secret;

/// Allows a host to run commands here and writes its card.
///
/// For a host that is already invited, it changes its line as the command line says and writes the
/// card of the live cookie again. A repetition therefore invalidates no card.
pub(super) fn invite(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let host = HostName::parse(call.operand(0))?;
    let users = call.value("users");
    let users = users.map(|list| Users::parse(&list)).transpose();
    let users = users.map_err(|e| e.while_doing("--users"))?;
    let networks = networks(&call.values("addr"))?;
    let output = CardOutput::of(call, out)?;
    if init::is_needed(&paths) {
        // Check the command line before the folder is created.
        run_as_is_clear(call, &host, users.is_some(), None)?;
        init::make_first(&paths, out)?;
    }
    let lock = Lock::take(&paths)?;
    let mut text = Text::read(&paths, &lock)?;
    let entry = text.find(&host)?;
    let run_as = run_as(call, &host, users.is_some(), entry.as_ref(), out)?;
    if let Some(users) = &users {
        warn_of_missing(users, &run_as, out);
    }
    let listed = (!networks.is_empty()).then(|| joined(&networks));
    let addresses = match (&listed, &entry) {
        (Some(_), _) => Addresses::Listed(networks),
        (None, Some(entry)) => entry.addresses.clone(),
        (None, None) => Addresses::ByName,
    };
    // The newest cookie is that of the last card.
    let live = match &entry {
        Some(_) => cookie::load(&paths, &paths.cookie_in(&host))?,
        None => None,
    };
    let live = live.and_then(|cookies| cookies.into_iter().next());
    let is_repeated = live.is_some();
    let hint = format!("give with --addr the address or network that {host} connects from");
    let draft = Invitation::make(
        &paths,
        &host,
        (&addresses, live),
        (call.port()?, &hint),
        out,
    )?;
    let written = output.write(&draft.card.print())?;

    // Write the line last: without it, the host is denied.
    if !is_repeated {
        cookie::write_in(&paths, &host, std::slice::from_ref(&draft.card.cookie))?;
        machines::forget(&paths, &host)?;
    }
    let mut options: Vec<(&'static str, String)> =
        listed.map(|list| ("addr", list)).into_iter().collect();
    options.extend(given(&run_as).map(|list| ("run-as", list)));
    options.extend(users.iter().map(|u| ("users", u.to_string())));
    let saved = if entry.is_some() {
        let changes = options.into_iter().map(|(name, v)| (name, Change::Set(v)));
        text.change_options(&host, &changes.collect::<Vec<_>>())
            .and_then(|()| text.save_if_changed(&host, &lock))
    } else {
        text.add(&host, &options);
        text.save(&host, &lock).map(|()| true)
    };
    let changed = match saved {
        Ok(changed) => changed,
        Err(fault) if is_repeated => return Err(fault.into()),
        Err(fault) => {
            secure::remove(&paths.cookie_in(&host))?;
            return Err(fault.into());
        }
    };
    if let Some(entry) = text.find(&host)? {
        out.tell(terms(&entry));
    }
    if is_repeated {
        let line = if changed {
            "its line is changed"
        } else {
            "nothing is changed"
        };
        out.tell(format!(
            "{host} was invited already: {line}, and its card is printed again"
        ));
        if machines::recorded(&paths, &host).is_ok_and(|key| key.is_some()) {
            let rotate = paths.cosadm(format_args!("host rotate {host}"));
            out.tell(format!(
                "the machine of {host} is recorded; {rotate} prints a card for another machine"
            ));
        }
    }
    draft.hand_over(out, written, || {
        if is_repeated {
            return "its cookie stays".to_owned();
        }
        // Someone may have a partly written card, so its cookie must become invalid.
        let rotate = paths.cosadm(format_args!("host rotate {host}"));
        match secure::remove(&paths.cookie_in(&host)) {
            Ok(_) => format!("its cookie is withdrawn; {rotate} prints another"),
            Err(fault) => format!("its cookie stays ({fault}); {rotate} prints another"),
        }
    })
}

/// Describes what a host's line allows, in a sentence.
fn terms(entry: &Entry) -> String {
    let host = &entry.name;
    let from = from(&entry.addresses, host);
    let its = describe_users(&entry.users);
    match given(&entry.run_as) {
        Some(own) => format!("{host} may run commands here as {own}, from {from}; {its}"),
        None => format!("{host} asks nothing for itself; {its}, from {from}"),
    }
}

/// Reports the users of `--users` that do not exist here.
fn warn_of_missing(users: &Users, but: &[UserName], out: &Out) {
    let Users::Pairs(pairs) = users else {
        return;
    };
    let mut named: Vec<&UserName> = pairs.iter().map(|pair| &pair.here).collect();
    named.sort();
    named.dedup();
    for user in named.into_iter().filter(|user| !but.contains(user)) {
        if !matches!(User::from_name(user.as_str()), Ok(Some(_))) {
            out.tell(missing(user));
        }
    }
}

/// A card that has not been written out yet.
pub(super) struct Invitation {
    pub(super) card: Card,
    warning: Option<String>,
}

impl Invitation {
    /// Creates a card with this cookie, or with a new one. `port` is the port on the card, by
    /// default the configured one. `hint` says what to do if the host's name does not resolve.
    pub(super) fn make(
        paths: &Paths,
        host: &HostName,
        (addresses, cookie): (&Addresses, Option<Secret>),
        (port, hint): (Option<u16>, &str),
        out: &Out,
    ) -> Result<Self, Failure> {
        let settings = Settings::load(&paths.settings())?;
        let port = port.unwrap_or(settings.port);
        if port == 0 {
            let words =
                "port = 0 lets the system choose a port; give the port for the card: --port N";
            return Err(Fault::of(&paths.settings(), words).into());
        }
        let reach = reach(&settings, host, addresses, hint)?;
        let card = Card {
            caller: host.clone(),
            server: settings.name,
            addresses: reach.addresses,
            port,
            key: keys::load_host_key(paths)?.public,
            cookie: cookie.map_or_else(Secret::random, Ok)?,
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

    /// Prints only the card to standard output, unless it was written to a file. If that fails,
    /// `withdraw` withdraws the card's cookie and returns the outcome in words.
    pub(super) fn hand_over(
        &self,
        out: &Out,
        written: WrittenCard,
        withdraw: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let file = written.keep();
        if file.is_none() {
            if let Err(failure) = out.say_secret(&self.card.print()) {
                out.tell(format!("the card was not written, and {}", withdraw()));
                return Err(failure);
            }
        }
        if let Some(warning) = &self.warning {
            out.tell(warning);
        }
        let host = &self.card.caller;
        let (card, name) = match &file {
            Some(file) => {
                let name = file.file_name().unwrap_or(file.as_os_str());
                let name = shell_word(&name.to_string_lossy());
                (format!("the card is in {}, and", file.display()), name)
            }
            None => ("the card".to_owned(), "FILE".to_owned()),
        };
        out.tell(format!(
            "{card} holds a secret: transfer it to {host} securely, and run there: cosadm host join {name}"
        ));
        Ok(())
    }
}

/// Returns a list for the host's line, unless it is empty.
fn given(users: &[UserName]) -> Option<String> {
    (!users.is_empty()).then(|| joined(users))
}

/// Checks that the command line or the host's line says as which users it may run commands.
///
/// # Errors
/// Returns an error if neither says it and `cosadm` runs as root, for which there is no default.
fn run_as_is_clear(
    call: &Call,
    host: &HostName,
    has_users: bool,
    entry: Option<&Entry>,
) -> Result<(), Failure> {
    let is_given = has_users || !call.values("run-as").is_empty();
    if is_given || !geteuid().is_root() || entry.is_some_and(Entry::may_ask) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--run-as is missing: as which users may {host} run commands? For example --run-as root, or --users for its users alone"
    )))
}

/// Returns the users of `--run-as`. Without it, returns none if the host's line or root's
/// `--users` names users, and otherwise the ordinary user who runs `cosadm`.
fn run_as(
    call: &Call,
    host: &HostName,
    has_users: bool,
    entry: Option<&Entry>,
    out: &Out,
) -> Result<Vec<UserName>, Failure> {
    run_as_is_clear(call, host, has_users, entry)?;
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
    if users.is_empty() && !me.is_root() && !entry.is_some_and(Entry::may_ask) {
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

/// Parses the values of `--addr`, each one or several networks with commas.
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

/// Joins items with commas.
pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// Describes from which addresses a host may send requests.
pub(super) fn from(addresses: &Addresses, host: &HostName) -> String {
    match addresses {
        Addresses::Listed(networks) => joined(networks).replace(',', ", "),
        Addresses::ByName => format!("the addresses of the name {host}"),
    }
}
