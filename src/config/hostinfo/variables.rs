//! The variables that a host may be allowed to pass. Pure.

use crate::config::words::quoted;
use crate::fault::Fault;

/// Checks the name of a variable that a peer may be allowed to set.
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

/// Variables that the daemon sets, or leaves unset on purpose: bash reads a startup file because of
/// `SSH_CLIENT` or the like.
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

/// Variables that make common shells, interpreters or the C library run or load code. There are
/// more: hostinfo(5) says that the list is not complete.
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
