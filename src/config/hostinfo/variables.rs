//! The variables that a host may be allowed to pass. Pure.

use crate::config::words::quoted;
use crate::fault::Fault;

/// The name of a variable that a peer may be allowed to set.
pub(super) fn variable(name: &str) -> Result<String, Fault> {
    let wrong = |why: &str| Err(Fault::new(format!("{} {why}", quoted(name))));
    let right = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !name.bytes().all(right) || name.bytes().next().is_none_or(|b| b.is_ascii_digit()) {
        return wrong("is no name of a variable: letters, digits and _ only, and no wildcards");
    }
    if SET_BY_US.contains(&name) {
        return wrong("is set by cosserver itself and cannot be passed");
    }
    if name.starts_with("LD_") || RUNS_OTHER_CODE.contains(&name) {
        return wrong(
            "makes the loader, a shell or an interpreter run other code, so that run-as= and commands= would mean nothing",
        );
    }
    Ok(name.to_owned())
}

/// What the daemon sets, or leaves unset because it should be: bash reads a file by
/// `SSH_CLIENT`, or by the other.
const SET_BY_US: &[&str] = &[
    "COS_HOST",
    "COS_USER",
    "HOME",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSH2_CLIENT",
    "SSH_CLIENT",
    "USER",
];

/// What the common shells and interpreters, and the C library, run or load because a
/// variable says so. Others have more: hostinfo(5) says that it is not all.
const RUNS_OTHER_CODE: &[&str] = &[
    "BASHOPTS",
    "BASH_ENV",
    "ENV",
    "GCONV_PATH",
    "IFS",
    "NODE_OPTIONS",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PS4",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "ZDOTDIR",
];
