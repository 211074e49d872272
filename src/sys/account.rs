//! User accounts as NSS knows them.
//!
//! A look-up may take as long as a directory server takes, and it runs the code of NSS modules, so
//! the daemon uses a look-up process for it.

use std::ffi::CString;
use std::io::Read;
use std::path::PathBuf;

use nix::unistd::{Group, User, getgrouplist};

use super::id_number::IdNumber;
use super::shadow::{self, Validity};

/// What is needed to run a process as a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user name, as the system writes it.
    pub name: String,
    /// User ID.
    pub uid: IdNumber,
    /// Primary group ID.
    pub gid: IdNumber,
    /// All groups, including the primary one.
    pub groups: Vec<IdNumber>,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; `/bin/sh` if none is set.
    pub shell: PathBuf,
}

/// Most groups that access rules may name.
pub const NAMED_GROUPS: usize = 64;

/// The most that is read of `/etc/passwd`, bytes.
const PASSWD: u64 = 1024 * 1024;

/// A user as NSS knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The account.
    pub account: Account,
    /// What a directory says of the account's validity. If `/etc/shadow`, which NSS may not read
    /// here, has a line for the account, that line takes precedence.
    pub validity: Option<Validity>,
    /// Of the groups that access rules name, those that the user is in; `None`: the group database
    /// did not answer.
    pub named_groups: Option<Vec<String>>,
}

impl UserRecord {
    /// Looks up the user, with its validity according to a directory, in this process. May block.
    ///
    /// # Errors
    /// Why the user cannot be used.
    pub fn look_up(name: &str) -> Result<Option<Self>, String> {
        let Some(user) = User::from_name(name).ok().flatten() else {
            return Ok(None);
        };
        let locked = shadow::is_locked(user.passwd.as_bytes());
        let Some(account) = of_user(user)? else {
            return Ok(None);
        };
        let validity = if local(&account.name).is_some() {
            locked.then_some(Validity {
                locked,
                expires: None,
            })
        } else {
            shadow::by_nss(&account.name).map(|v| Validity {
                locked: v.locked || locked,
                ..v
            })
        };
        Ok(Some(Self {
            account,
            validity,
            named_groups: Some(Vec::new()),
        }))
    }

    /// Returns the record with those of these groups that the user is in. May block.
    #[must_use]
    pub fn in_groups(self, names: Vec<String>) -> Self {
        let is_in = |group: Group| {
            let mut all = self.account.groups.iter();
            all.any(|own| *own == group.gid.as_raw())
        };
        let found = |name: String| match Group::from_name(&name) {
            Ok(group) => Ok(group.is_some_and(is_in).then_some(name)),
            Err(e) => Err(e),
        };
        let found: Result<Vec<Option<String>>, _> = names.into_iter().map(found).collect();
        let named_groups = found.ok().map(|all| all.into_iter().flatten().collect());
        Self {
            named_groups,
            ..self
        }
    }

    /// Looks up the user with this ID. May block.
    ///
    /// # Errors
    /// Why the user cannot be used.
    pub fn of_number(uid: u32) -> Result<Option<Self>, String> {
        let user = User::from_uid(nix::unistd::Uid::from_raw(uid));
        let Some(user) = user.ok().flatten() else {
            return Ok(None);
        };
        let found = Self::look_up(&user.name)?;
        Ok(found.filter(|record| record.account.uid == uid))
    }
}

/// Looks up the user in this process. May block.
///
/// # Errors
/// Why the user cannot be used.
pub fn look_up(name: &str) -> Result<Option<Account>, String> {
    let user = User::from_name(name).ok().flatten();
    user.map_or(Ok(None), of_user)
}

fn of_user(user: User) -> Result<Option<Account>, String> {
    let Ok(c_name) = CString::new(user.name.as_str()) else {
        return Ok(None);
    };
    let Ok(groups) = getgrouplist(&c_name, user.gid) else {
        return Ok(None);
    };
    let none = |what| format!("the number of {what} is 4294967295, or larger in its file");
    let number = |raw, what| IdNumber::new(raw).ok_or_else(|| none(what));
    let uid = number(user.uid.as_raw(), "the user")?;
    let gid = number(user.gid.as_raw(), "its primary group")?;
    let groups = IdNumber::all(groups.iter().map(|g| g.as_raw()));
    let groups = groups.ok_or_else(|| none("one of its groups"))?;
    let shell = if user.shell.as_os_str().is_empty() {
        "/bin/sh".into()
    } else {
        user.shell
    };
    Ok(Some(Account {
        name: user.name,
        uid,
        gid,
        groups,
        home: user.dir,
        shell,
    }))
}

/// Reads an account from `/etc/passwd` without NSS: for the daemon's own account, which its package
/// creates. The primary group is its only group.
pub fn local(name: &str) -> Option<Account> {
    let file = std::fs::File::open("/etc/passwd").ok()?;
    // With room for the file's length, one read(2) is enough.
    let length = file.metadata().map_or(0, |about| about.len()).min(PASSWD);
    let mut text = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(PASSWD).read_to_end(&mut text).ok()?;
    let mut lines = text.split(|b| *b == b'\n');
    lines.find_map(|line| parse_local(std::str::from_utf8(line).ok()?, name))
}

fn parse_local(line: &str, wanted: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let mut next = || fields.next();
    let (name, _password, uid, gid, _who, home, shell) = (
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
    );
    if name != wanted || next().is_some() {
        return None;
    }
    let gid = gid.parse().ok()?;
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid,
        groups: vec![gid],
        home: home.into(),
        shell: shell.into(),
    })
}

/// Returns whether NSS finds users and groups only on this machine, according to `nsswitch.conf`.
pub fn is_local_only(nsswitch: &[u8]) -> bool {
    const LOCAL: [&str; 5] = ["files", "compat", "db", "altfiles", "systemd"];
    let text = String::from_utf8_lossy(nsswitch);
    let lines = text
        .lines()
        .filter_map(|line| line.split('#').next()?.split_once(':'));
    lines
        .filter(|(what, _)| ["passwd", "group", "initgroups"].contains(&what.trim()))
        .flat_map(|(_, words)| words.split_whitespace())
        .all(|word| LOCAL.contains(&word) || word.starts_with('[') || word.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_looked_up() {
        let root = look_up("root").unwrap().unwrap();
        assert_eq!(root.uid, 0);
        assert_eq!(look_up("no-such-user-here"), Ok(None));
    }

    #[test]
    fn a_local_account_is_found_without_nss() {
        let root = local("root").unwrap();
        assert_eq!((root.uid, root.gid), (IdNumber::ROOT, IdNumber::ROOT));
        assert_eq!(local("no-such-user-here"), None);
        let line = "_x:x:7:8:Who:/nonexistent:/usr/sbin/nologin";
        let found = parse_local(line, "_x").unwrap();
        assert!(found.uid == 7 && found.gid == 8 && found.groups == [found.gid]);
        for wrong in [
            "_x:x:7",
            "_x:x:-7:8::/:/bin/sh",
            "_x:x:4294967295:8::/:/bin/sh",
            "_x:x:7:4294967295::/:/bin/sh",
            "_x:x:4294967296:8::/:/bin/sh",
            "_x:x:7:8:Who:/:/bin/sh:more",
            "+_x:x:7:8::/:/bin/sh",
            "",
        ] {
            assert_eq!(parse_local(wrong, "_x"), None, "{wrong}");
        }
    }

    #[test]
    fn a_directory_server_is_no_local_source() {
        let here =
            b"passwd: files systemd\ngroup:\tfiles [SUCCESS=merge] systemd # ldap\nhosts: dns\n";
        assert!(is_local_only(here));
        assert!(is_local_only(b""));
        for far in ["passwd: files sss", "group: files ldap", "initgroups: nis"] {
            assert!(!is_local_only(far.as_bytes()), "{far}");
        }
    }

    #[test]
    fn a_local_user_has_no_validity_of_a_directory() {
        let root = UserRecord::look_up("root").unwrap().unwrap();
        assert_eq!(look_up("root"), Ok(Some(root.account.clone())));
        assert_eq!(UserRecord::of_number(0), Ok(Some(root)));
        let groups = ["root", "no-such-group-here", "nogroup"].map(str::to_owned);
        let root = UserRecord::look_up("root").unwrap().unwrap();
        let found = root.in_groups(groups.to_vec()).named_groups;
        assert_eq!(found, Some(vec!["root".to_owned()]));
        assert_eq!(UserRecord::look_up("no-such-user-here"), Ok(None));
        assert_eq!(UserRecord::of_number(4_000_000_001), Ok(None));
    }
}
