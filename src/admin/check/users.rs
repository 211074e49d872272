//! The part of `cosadm check` about the users of a host's line: those that do not exist here, and
//! those that the daemon cannot become. It queries the user database.

use nix::unistd::{User, geteuid};

use crate::config::hostinfo::{Entry, Users};

/// Explains why commands cannot run as the users of a line, each user once.
pub(super) fn wrong(entry: &Entry) -> Vec<String> {
    let run_as = entry.run_as.iter();
    let run_as = run_as.map(|user| (user, format!("run-as={user}")));
    let pairs = match &entry.users {
        Users::Pairs(pairs) => pairs.as_slice(),
        Users::SameName => &[],
    };
    let mut seen = Vec::new();
    run_as
        .chain(pairs.iter().map(|p| (&p.here, format!("users={p}"))))
        .filter(|(user, _)| {
            let new = !seen.contains(user);
            seen.push(user);
            new
        })
        .filter_map(|(user, option)| Some(format!("{option}: {}", wrong_user(user.as_str())?)))
        .collect()
}

/// Explains why commands cannot run as that user.
pub(super) fn wrong_user(name: &str) -> Option<String> {
    let me = geteuid();
    match User::from_name(name) {
        Ok(Some(user)) if !me.is_root() && user.uid != me => Some(format!(
            "{name} is another user, and a cosserver that you start can run commands as you alone"
        )),
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("there is no user {name} on this machine")),
        Err(e) => Some(format!("{name}: {}", std::io::Error::from(e))),
    }
}
