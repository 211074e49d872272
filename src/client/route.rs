//! The location of a host: its line of the host table, its addresses, its port. Runs in the client,
//! which asks a name service only if the line has no address.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::call::{Call, Family};
use super::io_error::text_without_number;
use crate::config::address::Address;
use crate::config::hostinfo::{self, Addresses, Entry, HostTable};
use crate::config::name::HostName;
use crate::config::paths::{Paths, SYSTEM};
use crate::config::settings::default_port;
use crate::fault::Fault;

/// A host's line, and the address from the command line if it named the host by address.
pub struct Route {
    /// The line.
    pub entry: Entry,
    address: Option<Address>,
    /// Whether the table has that line. Otherwise it is made from the name only.
    listed: bool,
}

/// The configuration paths that a call uses.
#[derive(Clone)]
pub struct Places {
    /// The paths of the table that has the host.
    pub table: Paths,
    /// The paths of the caller's own key and pins. Usually the same as `table`.
    pub own: Paths,
}

impl Places {
    /// Returns the paths of a call, as far as they are known before its host is looked up.
    pub fn of(call: &Call) -> Self {
        Self::of_folder(call.folder.as_deref())
    }

    /// Returns the paths for a named folder, or for none.
    pub fn of_folder(named: Option<&Path>) -> Self {
        let table = Paths::of_caller(named).once();
        let own = if table.is_anothers() {
            Paths::of_user().once()
        } else {
            table.clone()
        };
        Self { table, own }
    }

    /// Returns the system's table with the caller's own paths. An ordinary user who names no
    /// folder, and whose own table has no such host, asks in the machine's name. `None`: a folder
    /// was named, the table is already the system's, or the system has none.
    fn of_system(&self, call: &Call) -> Option<Self> {
        let system = Paths::of_dir(Path::new(SYSTEM)).once();
        let may = !Paths::is_named(call.folder.as_deref()) && !self.table.system;
        (may && system.hostinfo().exists()).then(|| Self {
            table: system,
            own: self.own.clone(),
        })
    }
}

/// Looks up a call's host by name or by address: in the caller's table, else in the system's.
///
/// # Errors
/// The table is missing or not trusted, the host is not in it, or its line is wrong.
pub fn locate(call: &Call) -> Result<(Places, Route), Fault> {
    let own = Places::of(call);
    let Some(system) = own.of_system(call) else {
        let route = look_if_there(&own.table, &call.host)?;
        let route = route.ok_or_else(|| not_there(&own.table));
        let route = route.map_err(|fault| or_by_ssh(call, &own.table, fault))?;
        return Ok((own, route));
    };
    let words = format!(
        "{} is in neither {} nor {}",
        call.host,
        own.table.hostinfo().display(),
        system.table.hostinfo().display()
    );
    let found = search([Some(own.clone()), Some(system)], &call.host)?;
    let fault =
        Fault::new(words).with_remedy("to add it, with its invitation card: cosadm host join FILE");
    found.ok_or_else(|| or_by_ssh(call, &own.table, fault))
}

/// Adds how to reach the host by ssh(1), if the program was called as ssh. Before cosserver, ssh(1)
/// reached a host that is in no table.
fn or_by_ssh(call: &Call, paths: &Paths, fault: Fault) -> Fault {
    let name = HostName::parse(&call.host);
    let Some(name) = name.ok().filter(|_| call.of_ssh.is_ssh) else {
        return fault;
    };
    let file = paths.hostinfo();
    fault.with_remedy(format!(
        "to reach it by ssh(1), add the line \"{name} ssh\" to {}",
        file.display()
    ))
}

/// Looks up a host in the first of these tables that has it.
fn search(tables: [Option<Places>; 2], host: &str) -> Result<Option<(Places, Route)>, Fault> {
    for places in tables.into_iter().flatten() {
        // Skip a table that does not exist. One that cannot be used is an error: it may have the
        // host.
        let file = places.table.hostinfo();
        if file.try_exists().map_err(|e| Fault::of(&file, e))? {
            if let Some(route) = look_for(&places.table, host)? {
                return Ok(Some((places, route)));
            }
        }
    }
    Ok(None)
}

/// Looks up a host in one table.
///
/// # Errors
/// As [`locate`].
pub fn find(paths: &Paths, host: &str) -> Result<Route, Fault> {
    look_if_there(paths, host)?.ok_or_else(|| not_there(paths))
}

fn not_there(paths: &Paths) -> Fault {
    let file = paths.hostinfo();
    let what = match file.try_exists() {
        Ok(false) => "there is no host table",
        Ok(true) | Err(_) => "this host is not in it",
    };
    let join = paths.cosadm("host join FILE");
    let words =
        format!("{what}; {join} adds the host from an invitation that its administrator makes");
    Fault::of(&file, words)
}

/// Looks up a host in one table. `None`: there is no table, or it has no such host.
fn look_if_there(paths: &Paths, host: &str) -> Result<Option<Route>, Fault> {
    match paths.hostinfo().try_exists() {
        Ok(false) => Ok(None),
        Ok(true) | Err(_) => look_for(paths, host),
    }
}

fn look_for(paths: &Paths, host: &str) -> Result<Option<Route>, Fault> {
    let address = literal(host);
    // An IPv4 address may also be a name. A word with brackets or colons is not a name.
    let name = HostName::parse(host).map(Some);
    let name = name.or_else(|e| address.map(|_| None).ok_or(e))?;
    if let Some(name) = name {
        if let Some(entry) = hostinfo::find(paths, &name)? {
            return Ok(Some(Route {
                entry,
                address: None,
                listed: true,
            }));
        }
    }
    if let Some(address) = address {
        let table = HostTable::load(paths)?;
        let here = |e: &&Entry| e.addresses.plain().contains(&address);
        if let Some(entry) = table.entries().iter().find(here) {
            return Ok(Some(Route {
                entry: entry.clone(),
                address: Some(address),
                listed: true,
            }));
        }
    }
    Ok(None)
}

/// Looks up a host that need not be in the table: at a login the user may name any host.
///
/// # Errors
/// The table is not trusted, the host's line is wrong, or its name is invalid.
pub fn find_any(call: &Call) -> Result<(Places, Route), Fault> {
    let (own, host) = (Places::of(call), call.host.as_str());
    let tables = [Some(own.clone()), own.of_system(call)];
    if let Some(found) = search(tables, host)? {
        return Ok(found);
    }
    let address = literal(host);
    let name = match address {
        // Keys are pinned under the address then. A name may have no colons and may not begin with
        // the character that replaces them.
        Some(a) if a.ip().is_ipv6() => {
            format!("ip6-{}", a.to_string().replace(':', "-").replace('%', "_"))
        }
        Some(address) => address.to_string(),
        None => host.to_owned(),
    };
    let entry = Entry::named(HostName::parse(&name)?);
    let route = Route {
        entry,
        address,
        listed: false,
    };
    Ok((own, route))
}

/// Parses an address, with or without brackets and zone. IPv4 is always returned as IPv4.
fn literal(host: &str) -> Option<Address> {
    Address::parse(host).ok()
}

impl Route {
    /// Whether the table has that host.
    pub const fn is_listed(&self) -> bool {
        self.listed
    }

    /// Returns the address for a program that dials only one: the address from the command line,
    /// else the first of the line's plain addresses of the requested family. `None`: the line has
    /// none.
    ///
    /// # Errors
    /// None of its addresses is of that family.
    pub fn first_listed(&self, call: &Call) -> Result<Option<Address>, Fault> {
        let listed = self.listed_addresses(call);
        let first = listed.iter().find(|a| suits(call.family, &a.ip()));
        if first.is_none() && !listed.is_empty() {
            return Err(no_such_family());
        }
        Ok(first.copied())
    }

    /// Whether the table or the command line has an address of the host.
    pub(super) fn has_address(&self) -> bool {
        self.address.is_some() || !self.entry.addresses.plain().is_empty()
    }

    /// Returns the addresses that need no name service.
    fn listed_addresses(&self, call: &Call) -> Vec<Address> {
        match (&call.host_name, self.address) {
            (Some(name), _) => literal(name).into_iter().collect(),
            (None, Some(address)) => vec![address],
            (None, None) => self.entry.addresses.plain(),
        }
    }

    /// Returns the name to resolve if there are none.
    pub(super) fn dialed_name<'a>(&'a self, call: &'a Call) -> &'a str {
        let own = self.entry.name.as_str();
        call.host_name.as_deref().unwrap_or(own)
    }

    /// Returns the port to connect to: from the command line, else from the host's line, else the
    /// default.
    pub fn port(&self, call: &Call) -> u16 {
        let port = call.port.map(u16::from).or(self.entry.port);
        port.unwrap_or_else(default_port)
    }

    /// Returns the addresses to connect to, in this order.
    ///
    /// # Errors
    /// The name does not resolve, or there is no address of the requested family.
    pub fn addresses(&self, call: &Call) -> Result<Vec<SocketAddr>, Fault> {
        let port = self.port(call);
        let listed = self.listed_addresses(call);
        let with_port = |a: Address| {
            let address = a.with_port(port);
            address.map_err(|e| {
                Fault::new(format!(
                    "no interface {}: {}",
                    a.zone(),
                    text_without_number(&e)
                ))
            })
        };
        let listed: Result<Vec<SocketAddr>, Fault> = listed.into_iter().map(with_port).collect();
        let mut all = listed?;
        if all.is_empty() {
            let name = self.dialed_name(call);
            let found = (name, port).to_socket_addrs().map_err(|e| {
                if call.host_name.is_some() {
                    return Fault::new(format!("-o HostName={name}: it does not resolve: {e}"));
                }
                if !self.listed {
                    return Fault::new(format!("its name does not resolve: {e}"));
                }
                let has = match &self.entry.addresses {
                    Addresses::ByName => "no addr=",
                    Addresses::Listed(_) => "only networks in addr=, which cannot be dialled",
                };
                Fault::new(format!(
                    "its line in hostinfo has {has}, and its name does not resolve: {e}"
                ))
            })?;
            // A link-local address keeps its zone. An IPv4-mapped address becomes IPv4.
            all = found
                .map(|a| match a.ip().to_canonical() {
                    IpAddr::V4(ip) => SocketAddr::new(ip.into(), port),
                    IpAddr::V6(_) => a,
                })
                .collect();
        }
        all.retain(|a| suits(call.family, &a.ip()));
        if all.is_empty() {
            return Err(no_such_family());
        }
        Ok(all)
    }
}

fn suits(family: Option<Family>, address: &IpAddr) -> bool {
    family.is_none_or(|f| (f == Family::V4) == address.is_ipv4())
}

fn no_such_family() -> Fault {
    Fault::new("it has no address of the requested family")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{args, call::Action};
    use crate::config::scratch::Scratch;

    fn call(line: &[&str]) -> Call {
        let argv: Vec<_> = line.iter().map(std::ffi::OsString::from).collect();
        let action = args::parse(&argv).unwrap();
        let Action::Run(call) = action else {
            panic!("{action:?}");
        };
        *call
    }

    fn dialled(route: &Route, line: &[&str]) -> Vec<String> {
        let all = route.addresses(&call(line)).unwrap();
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn by_name_and_by_address() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let table = "hostb cos addr=192.0.2.1,2001:db8::1,10.0.0.0/8 port=7000\n192.0.2.9 cos addr=192.0.2.10\nwrong nonsense\n";
        scratch.file("hostinfo", table, 0o644);

        let route = find(&paths, "HostB").unwrap();
        let all = ["192.0.2.1:7000", "[2001:db8::1]:7000"];
        assert_eq!(dialled(&route, &["cosrsh", "x", "y"]), all);
        assert_eq!(dialled(&route, &["cosrsh", "-4", "x", "y"]), &all[..1]);
        assert_eq!(
            dialled(&route, &["cosrsh", "-6", "-p", "1", "x", "y"]),
            ["[2001:db8::1]:1"]
        );

        let route = find(&paths, "2001:db8::1").unwrap();
        assert_eq!(route.entry.name.as_str(), "hostb");
        assert_eq!(dialled(&route, &["cosrsh", "x", "y"]), &all[1..]);
        assert!(route.addresses(&call(&["cosrsh", "-4", "x", "y"])).is_err());
        assert_eq!(
            find(&paths, "[2001:db8::1]").unwrap().entry.name.as_str(),
            "hostb"
        );
        for same in [
            "192.0.2.1",
            "[192.0.2.1]",
            "::ffff:192.0.2.1",
            "[::ffff:192.0.2.1]",
        ] {
            assert_eq!(find(&paths, same).unwrap().entry.name.as_str(), "hostb");
        }
        let none = find(&Scratch::new().paths(), "hostc");
        let told = none.err().unwrap().to_string();
        let words = ["there is no host table; ", "host join FILE` adds the host"];
        assert!(words.iter().all(|w| told.contains(w)), "{told}");
        // A name that looks like an address is tried as a name first.
        assert_eq!(
            find(&paths, "192.0.2.9").unwrap().entry.name.as_str(),
            "192.0.2.9"
        );

        for unknown in ["hostc", "192.0.2.2", "2001:db8::2"] {
            let told = find(&paths, unknown).err().unwrap().to_string();
            assert!(
                told.contains("hostinfo: ") && told.contains(&paths.cosadm("host join FILE")),
                "{told}"
            );
        }
        assert!(find(&paths, "-x").is_err());
        // A network in addr= cannot be dialled.
        let table = "nowhere.invalid cos addr=10.0.0.0/8\nno.invalid cos\n";
        scratch.file("hostinfo", table, 0o644);
        for (name, words) in [
            ("nowhere.invalid", "has only networks in addr="),
            ("no.invalid", "has no addr=,"),
        ] {
            let route = find(&paths, name).unwrap();
            let told = route.addresses(&call(&["cosrsh", "x", "y"])).unwrap_err();
            assert!(told.to_string().contains(words), "{told}");
        }
        scratch.file("hostinfo", "\nwrong nonsense\n", 0o644);
        let told = find(&paths, "wrong").err().unwrap().to_string();
        assert!(told.contains("hostinfo:2: "), "{told}");
    }

    #[test]
    fn an_address_that_is_not_in_the_table_has_a_name_for_its_pins() {
        let scratch = Scratch::new();
        let folder = scratch.paths().dir;
        let folder = folder.to_str().unwrap();
        let any = |host: &str| {
            let argv = ["cos", "-C", folder, "gui", host, "x"].map(std::ffi::OsString::from);
            let Ok(Action::Gui(call)) = args::parse(&argv) else {
                panic!("{host}");
            };
            let (_, route) = find_any(&call).unwrap();
            assert!(!route.is_listed());
            (
                route.entry.name.to_string(),
                dialled(&route, &["cosrsh", "-p", "1", "x", "y"]),
            )
        };
        for (host, name, address) in [
            ("::1", "ip6---1", "[::1]:1"),
            ("[::1]", "ip6---1", "[::1]:1"),
            ("::", "ip6---", "[::]:1"),
            ("2001:DB8::1", "ip6-2001-db8--1", "[2001:db8::1]:1"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1:1"),
            ("[192.0.2.1]", "192.0.2.1", "192.0.2.1:1"),
            ("fe80::1%7", "ip6-fe80--1_7", "[fe80::1%7]:1"),
            ("[fe80::1%7]", "ip6-fe80--1_7", "[fe80::1%7]:1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.1:1"),
        ] {
            assert_eq!(any(host), (name.to_owned(), vec![address.to_owned()]));
        }
    }
}
