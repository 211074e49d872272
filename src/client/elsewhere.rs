//! A host that is reached by `ssh` or `rsh`: that program replaces this one, with the command's
//! words unchanged. Pure except for [`become_program`]. Runs in the client if the host table says
//! `method=ssh` or `method=rsh`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::call::{Call, CallKind, Family};
use super::route::Route;
use crate::config::hostinfo::Method;
use crate::fault::Fault;
use crate::sys::client_exec;

/// ssh's default port.
const SSH_PORT: u16 = 22;

/// Returns the argument vector of the other program, its name first.
///
/// If the line lists addresses, the first one is dialled. ssh gets it in addition to the name, so
/// that it still uses the sections of its configuration and the known host keys of that name. rsh
/// has no flag for that.
///
/// # Errors
/// No listed address is of the requested family.
pub fn command_line(call: &Call, route: &Route) -> Result<Vec<OsString>, Fault> {
    let entry = &route.entry;
    let ssh = entry.method == Method::Ssh;
    let address = route.first_listed(call)?;
    let mut words: Vec<OsString> = vec![entry.method.as_str().into()];
    match call.family {
        Some(Family::V4) => words.push("-4".into()),
        Some(Family::V6) => words.push("-6".into()),
        None => {}
    }
    if call.no_input {
        words.push("-n".into());
    }
    // Before the user's flags: ssh uses the first of two values.
    if let Some(user) = call.user.as_ref().or(entry.user.as_ref()) {
        words.extend(["-l".into(), user.as_str().into()]);
    }
    let port = call.port.map(u16::from).or(entry.port);
    if let Some(port) = port {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(name) = call.host_name.as_ref().filter(|_| ssh) {
        words.push(format!("-oHostName={name}").into());
    }
    if ssh {
        words.extend(call.for_ssh.iter().map(OsString::from));
        if call.kind == CallKind::Subsystem {
            words.push("-s".into());
        }
    }
    let name = entry.name.as_str();
    let host = if ssh && route.has_address() {
        // The form that ssh itself uses for a host in known_hosts.
        let key_of = match port {
            None | Some(SSH_PORT) => name.to_owned(),
            Some(port) => format!("[{name}]:{port}"),
        };
        if let (Some(address), None) = (address, &call.host_name) {
            words.push(format!("-oHostName={address}").into());
        }
        words.push(format!("-oHostKeyAlias={key_of}").into());
        name.to_owned()
    } else {
        let address = address.filter(|_| !ssh);
        address.map_or_else(|| call.host.clone(), |address| address.to_string())
    };
    if ssh {
        words.push("--".into());
    } else if let Some(first) = call.words.first().filter(|word| word.starts_with(b"-")) {
        // Some rsh programs also read flags after the host, including one for another user's name.
        let first = String::from_utf8_lossy(first).escape_debug().to_string();
        return Err(Fault::new(format!(
            "the host table says method=rsh, and rsh takes a command that begins with {first} \
             for a flag; put env before it"
        )));
    }
    words.push(host.into());
    words.extend(call.words.iter().map(|w| OsString::from_vec(w.clone())));
    Ok(words)
}

/// Returns the flag of the call that rsh does not support.
fn beyond_rsh(call: &Call) -> Option<&'static str> {
    let asked = [
        (call.background, "-f"),
        (!call.jumps.is_empty(), "-J"),
        (call.source.address.is_some(), "-b"),
        (call.source.interface.is_some(), "-B"),
        (call.host_name.is_some(), "-o HostName"),
        (!call.set_env.is_empty(), "-o SetEnv"),
        (call.of_ssh.stdio_to.is_some(), "-W"),
        (call.of_ssh.command.is_some(), "-o RemoteCommand"),
        (call.of_ssh.no_command, "-N"),
    ];
    asked.into_iter().find_map(|(is, flag)| is.then_some(flag))
}

/// Executes the other program. Returns only if that failed.
pub fn become_program(call: &Call, route: &Route) -> Fault {
    let entry = &route.entry;
    if let Some(refused) = call
        .of_ssh
        .refused
        .as_ref()
        .filter(|_| entry.method == Method::Rsh)
    {
        return Fault::new(refused.clone());
    }
    if let Some(flag) = beyond_rsh(call).filter(|_| entry.method == Method::Rsh) {
        let words = format!("the host table says method=rsh, and rsh has no {flag}");
        return Fault::new(words);
    }
    if client_exec::was_reexecuted() {
        return Fault::new(format!(
            "the host table says method={}, and the {} on PATH are copies of this program",
            entry.method, entry.method
        ));
    }
    let words = match command_line(call, route) {
        Ok(words) => words,
        Err(fault) => return fault,
    };
    let Some((name, rest)) = words.split_first() else {
        return Fault::new("no program to start");
    };
    let path = env::var_os("PATH");
    let mut found = search(name, path.as_deref()).peekable();
    let is_there = found.peek().is_some();
    let Some(program) = found.find(|program| !is_this_program(program)) else {
        let what = if is_there {
            "the only one on PATH is this program itself"
        } else {
            "there is no such program on PATH"
        };
        return Fault::new(format!(
            "the host table says method={}, and {what}",
            entry.method
        ));
    };
    let why = client_exec::become_program(&program, name, rest);
    Fault::of(&program, why)
}

/// Returns the executables of that name on the path, in its order.
fn search(name: &OsStr, path: Option<&OsStr>) -> impl Iterator<Item = PathBuf> {
    let path = path.unwrap_or(OsStr::from_bytes(b"/usr/bin:/bin"));
    let files: Vec<PathBuf> = env::split_paths(path)
        .map(|folder| folder.join(name))
        .collect();
    files.into_iter().filter(|file| {
        let may_run = nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok();
        may_run && file.is_file()
    })
}

/// Whether a program is a link to this one, as rsh and ssh may well be.
fn is_this_program(program: &Path) -> bool {
    let identity = |p: &Path| p.metadata().ok().map(|m| (m.dev(), m.ino()));
    let own = env::current_exe().ok();
    own.and_then(|p| identity(&p))
        .is_some_and(|own| identity(program) == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::route;
    use crate::client::{args, call::Action};
    use crate::config::scratch::Scratch;

    fn parsed(line: &[&str]) -> Call {
        let argv: Vec<OsString> = line.iter().map(OsString::from).collect();
        let Action::Run(call) = args::parse(&argv).unwrap() else {
            panic!("no run: {line:?}");
        };
        *call
    }

    /// Returns the words, for a table with only this line.
    fn told(line: &[&str], entry: &str) -> Vec<String> {
        let (call, route) = found(line, entry);
        let words = command_line(&call, &route).unwrap().into_iter();
        words.map(|w| w.into_string().unwrap()).collect()
    }

    fn found(line: &[&str], entry: &str) -> (Call, Route) {
        let scratch = Scratch::new();
        scratch.file("hostinfo", entry, 0o644);
        let call = parsed(line);
        let route = route::find(&scratch.paths(), &call.host).unwrap();
        (call, route)
    }

    #[test]
    fn ssh_gets_only_flags_that_it_accepts() {
        let line = [
            "cosrsh",
            "-oConnectTimeout=10",
            "-2",
            "-a",
            "-x",
            "-l",
            "jo",
            "hostb",
            "a  b",
            "$x",
        ];
        assert_eq!(
            told(&line, "hostb ssh port=2222"),
            [
                "ssh",
                "-l",
                "jo",
                "-p",
                "2222",
                "-oConnectTimeout=10",
                "-a",
                "-x",
                "--",
                "hostb",
                "a  b",
                "$x"
            ]
        );
        assert_eq!(
            told(
                &["cosrsh", "-6", "HostB", "-s", "-n", "sftp"],
                "hostb ssh user=op addr=10.0.0.0/8"
            ),
            ["ssh", "-6", "-n", "-l", "op", "-s", "--", "HostB", "sftp"]
        );
        // ssh, too, uses the first of two.
        assert_eq!(
            told(&["ssh", "-l", "b", "-oUser=a", "hostb", "x"], "hostb ssh"),
            ["ssh", "-l", "b", "-oUser=a", "--", "hostb", "x"]
        );
    }

    /// The keys remain those of the host's name, at every address.
    #[test]
    fn ssh_gets_host_name_and_host_key_alias() {
        let line = ["ssh", "-oHostName=%h.x", "hostb", "x"];
        let name = ["ssh", "-oHostName=hostb.x", "-oHostName=%h.x"];
        assert_eq!(
            told(&line, "hostb ssh addr=192.0.2.1"),
            [&name[..], &["-oHostKeyAlias=hostb", "--", "hostb", "x"]].concat()
        );
        assert_eq!(
            told(&line, "hostb ssh"),
            [&name[..], &["--", "hostb", "x"]].concat()
        );
    }

    #[test]
    fn what_rsh_cannot_do_is_refused_by_its_name() {
        for (option, why) in [
            ("-oHostName=a", "rsh has no -o HostName"),
            ("-oRemoteCommand=x", "rsh has no -o RemoteCommand"),
            ("-oSetEnv=A=1", "rsh has no -o SetEnv"),
            ("-oProxyCommand=x", "-o ProxyCommand: no other program"),
        ] {
            let (call, route) = found(&["ssh", option, "hostb", "x"], "hostb rsh");
            let told = become_program(&call, &route).to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn the_first_listed_address_is_dialled_under_the_hosts_name() {
        let listed = "hostb ssh addr=10.0.0.0/8,192.0.2.1,2001:db8::1,192.0.2.2";
        let by = |address: &str, key_of: &str| {
            [
                format!("-oHostName={address}"),
                format!("-oHostKeyAlias={key_of}"),
                "--".into(),
                "hostb".into(),
                "x".into(),
            ]
        };
        let words = |line: &[&str], entry: &str| {
            let all = told(line, entry);
            all[all.len() - 5..].to_vec()
        };
        assert_eq!(
            words(&["cosrsh", "hostb", "x"], listed),
            by("192.0.2.1", "hostb")
        );
        assert_eq!(
            words(&["cosrsh", "-6", "hostb", "x"], listed),
            by("2001:db8::1", "hostb")
        );
        // Of several addresses, the requested one.
        assert_eq!(
            words(&["cosrsh", "192.0.2.2", "x"], listed),
            by("192.0.2.2", "hostb")
        );
        let entry = "hostb ssh addr=192.0.2.1 port=2222";
        assert_eq!(
            words(&["cosrsh", "hostb", "x"], entry),
            by("192.0.2.1", "[hostb]:2222")
        );
        assert_eq!(
            words(&["cosrsh", "-p", "22", "hostb", "x"], entry),
            by("192.0.2.1", "hostb")
        );
        let (call, route) = found(&["cosrsh", "-6", "hostb", "x"], entry);
        assert!(command_line(&call, &route).is_err());

        let entry = "hostb rsh addr=192.0.2.1,192.0.2.2";
        assert_eq!(
            told(&["cosrsh", "hostb", "x"], entry),
            ["rsh", "192.0.2.1", "x"]
        );
    }

    #[test]
    fn rsh_gets_only_flags_of_rsh() {
        let line = [
            "cos", "run", "-v", "-T", "-n", "jo@hostb", "-4", "--", "x", "-y",
        ];
        assert_eq!(
            told(&line, "hostb rsh"),
            ["rsh", "-4", "-n", "-l", "jo", "hostb", "x", "-y"]
        );
    }

    /// rsh also reads flags after the host: the command's first word would choose the user.
    #[test]
    fn a_command_is_no_flag_of_rsh() {
        let line = ["cosrsh", "hostb", "--", "-l", "root", "id"];
        let (call, route) = found(&line, "hostb rsh");
        let why = command_line(&call, &route).unwrap_err().to_string();
        assert!(why.contains("begins with -l"), "{why}");
        assert_eq!(
            told(&line, "hostb ssh").last().map(String::as_str),
            Some("id")
        );
    }

    #[test]
    fn a_program_is_searched_on_the_path() {
        let found = |path: &str| search(OsStr::new("sh"), Some(OsStr::new(path))).next();
        assert_eq!(found("/nowhere:/bin"), Some("/bin/sh".into()));
        assert_eq!(found("/nowhere"), None);
        assert!(is_this_program(&env::current_exe().unwrap()));
        assert!(!is_this_program(Path::new("/bin/sh")));
    }
}
