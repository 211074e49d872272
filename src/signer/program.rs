//! `cos-sign`: makes one signature for the user who started it, from the system's folder only.
//!
//! If installed, it is set-uid root, so everything it was started with is an attacker's. It takes
//! nothing from there but standard input and output and, from the kernel, the uid of its caller.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{Uid, User, geteuid, getuid};

use super::fields::{Ask, MESSAGE, Reply, Signed};
use super::{check_number, sign};
use crate::config::hostinfo;
use crate::config::name::{HostName, UserName};
use crate::config::paths::{Paths, SYSTEM};
use crate::fault::Fault;
use crate::log::{Level, Log, log};
use crate::sys::set_uid;

/// Time limit of one signature, including its input and the lookup of the name, seconds.
const LIMIT: u32 = 15;

/// Runs the program.
pub fn main() -> ExitCode {
    set_uid::drop_inheritance(LIMIT);
    let mut log = Log::syslog(Level::Info);
    let uid = getuid();
    let mut asked = None;
    let signed = vouch(uid, &mut asked);
    let (user, ask) = asked.unwrap_or_default();
    let user = user.map_or_else(|| format!("#{uid}"), |u| u.to_string());
    let host = ask.as_ref().map_or("?", |a| a.host.as_str());
    let reply = match signed {
        Ok(signed) => {
            let service = ask.as_ref().map_or("?", |a| a.service.name());
            log!(log, Info, "signed", user, host, service);
            Reply::Signed(signed)
        }
        Err(why) => {
            log!(log, Warning, "not-signed", user, host, why);
            Reply::Refused(why.to_string())
        }
    };
    let written = reply
        .encode()
        .map(|bytes| std::io::stdout().write_all(&bytes));
    ExitCode::from(u8::from(!matches!(written, Ok(Ok(())))))
}

/// The user and the request, as far as they are known.
type Asked = (Option<UserName>, Option<Ask>);

fn vouch(uid: Uid, asked: &mut Option<Asked>) -> Result<Signed, Fault> {
    let mut message = Vec::new();
    let most = u64::try_from(MESSAGE).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin().take(most).read_to_end(&mut message)?;
    if !geteuid().is_root() {
        return Err(Fault::new(
            "cos-sign is not set-uid root; `make install SIGNER=setuid` installs it so",
        ));
    }
    check_number(uid.as_raw())?;
    let ask = Ask::decode(&message).map_err(|m| Fault::new(m.to_string()))?;
    let (_, ask) = asked.insert((None, Some(ask)));
    let no_name = || Fault::new(format!("user {uid} has no name"));
    let user = User::from_uid(uid)?.ok_or_else(no_name)?;
    let user = UserName::parse(&user.name)?;
    let paths = Paths::of_dir(Path::new(SYSTEM)).once();
    let ask = ask.as_ref().ok_or_else(no_name)?;
    let host = HostName::parse(&ask.host)?;
    let entry = hostinfo::find(&paths, &host)?
        .ok_or_else(|| Fault::of(&paths.hostinfo(), format!("{host} is not in it")))?;
    let signed = sign(&paths, &entry, &user, ask);
    if let Some((name, _)) = asked {
        *name = Some(user);
    }
    signed
}
