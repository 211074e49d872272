//! A host that is reached by `ssh` or `rsh`: that program takes our place, with
//! the command's words as they are. Pure but for [`become_program`]; run by the
//! client where the host table says `method=ssh` or `method=rsh`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::args::{Call, Family};
use crate::config::hostinfo::{Entry, Method};
use crate::fault::Fault;
use crate::sys::client_exec;

/// The argument vector of the other program, its name first.
pub fn command_line(call: &Call, entry: &Entry) -> Vec<OsString> {
    let ssh = entry.method == Method::Ssh;
    let mut words: Vec<OsString> = vec![entry.method.as_str().into()];
    match call.family {
        Some(Family::V4) => words.push("-4".into()),
        Some(Family::V6) => words.push("-6".into()),
        None => {}
    }
    if call.no_input {
        words.push("-n".into());
    }
    if ssh {
        words.extend(call.for_ssh.iter().map(OsString::from));
        if call.verbose {
            words.push("-v".into());
        }
        if call.subsystem {
            words.push("-s".into());
        }
    }
    if let Some(user) = call.user.as_ref().or(entry.user.as_ref()) {
        words.extend(["-l".into(), user.as_str().into()]);
    }
    if let Some(port) = call.port.map(u16::from).or(entry.port) {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    if ssh {
        words.push("--".into());
    }
    words.push(call.host.as_str().into());
    words.extend(call.words.iter().map(|w| OsString::from_vec(w.clone())));
    words
}

/// Becomes the other program. It returns only where that failed.
pub fn become_program(call: &Call, entry: &Entry) -> Fault {
    let words = command_line(call, entry);
    let Some((name, rest)) = words.split_first() else {
        return Fault::new("no program to start");
    };
    let Some(program) = search(name, env::var_os("PATH").as_deref()) else {
        return Fault::new(format!(
            "the host table says method={}, and there is no such program on PATH",
            entry.method
        ));
    };
    if is_this_program(&program) {
        return Fault::new(format!(
            "the host table says method={}, and {} is this program itself",
            entry.method,
            program.display()
        ));
    }
    let why = client_exec::become_program(&program, name, rest);
    Fault::of(&program, why)
}

/// The first executable of that name on the path.
fn search(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let path = path.unwrap_or(OsStr::from_bytes(b"/usr/bin:/bin"));
    env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|file| {
            let may_run = nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok();
            may_run && file.is_file()
        })
}

/// Whether a program is a link to ourselves: rsh may well be one.
fn is_this_program(program: &Path) -> bool {
    let identity = |p: &Path| p.metadata().ok().map(|m| (m.dev(), m.ino()));
    let own = env::current_exe().ok();
    own.and_then(|p| identity(&p))
        .is_some_and(|own| identity(program) == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::args::{self, Wish};

    fn told(line: &[&str], entry: &str) -> Vec<String> {
        let argv: Vec<OsString> = line.iter().map(OsString::from).collect();
        let Wish::Run(call) = args::parse(&argv).unwrap() else {
            panic!("no run: {line:?}");
        };
        let entry = Entry::parse(entry.as_bytes(), 1).unwrap().unwrap();
        let words = command_line(&call, &entry);
        words
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect()
    }

    #[test]
    fn ssh_is_given_what_it_knows() {
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
                "-oConnectTimeout=10",
                "-x",
                "-a",
                "-l",
                "jo",
                "-p",
                "2222",
                "--",
                "hostb",
                "a  b",
                "$x"
            ]
        );
        assert_eq!(
            told(
                &["cosrsh", "-6", "::1", "-s", "-n", "sftp"],
                "hostb ssh user=op"
            ),
            ["ssh", "-6", "-n", "-s", "-l", "op", "--", "::1", "sftp"]
        );
    }

    #[test]
    fn rsh_is_given_rsh_flags_alone() {
        let line = ["cos", "run", "-v", "-T", "-n", "jo@hostb", "-4", "--", "-x"];
        assert_eq!(
            told(&line, "hostb rsh"),
            ["rsh", "-4", "-n", "-l", "jo", "hostb", "-x"]
        );
    }

    #[test]
    fn a_program_is_searched_on_the_path() {
        assert_eq!(
            search(OsStr::new("sh"), Some(OsStr::new("/nowhere:/bin"))),
            Some("/bin/sh".into())
        );
        assert_eq!(search(OsStr::new("sh"), Some(OsStr::new("/nowhere"))), None);
        assert!(is_this_program(&env::current_exe().unwrap()));
        assert!(!is_this_program(Path::new("/bin/sh")));
    }
}
