//! Accounts: who a user is, asked of NSS in a child of its own, because a
//! directory server may take its time and the monitor has none.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::unistd::{Pid, User, getgrouplist, pipe2};

/// What running as a user takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, as the system writes it.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: PathBuf,
    /// Login shell; `/bin/sh` where none is named.
    pub shell: PathBuf,
}

/// How much of `/etc/passwd` is read, bytes.
const PASSWD: u64 = 1024 * 1024;

/// Longest answer of a helper, bytes: the addresses of a hundred thousand hosts.
pub const ANSWER: usize = 16 * 1024 * 1024;

/// Looks the user up here and now. May block.
pub fn look_up(name: &str) -> Option<Account> {
    let user = User::from_name(name).ok().flatten()?;
    let c_name = CString::new(user.name.as_str()).ok()?;
    let groups = getgrouplist(&c_name, user.gid).ok()?;
    let shell = if user.shell.as_os_str().is_empty() {
        "/bin/sh".into()
    } else {
        user.shell
    };
    Some(Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.iter().map(|g| g.as_raw()).collect(),
        home: user.dir,
        shell,
    })
}

/// The numbers of an account that stands in `/etc/passwd`, without NSS: for the
/// daemon's own, which its package has put there. It is alone in its group.
pub fn local(name: &str) -> Option<Account> {
    let mut text = Vec::new();
    let file = std::fs::File::open("/etc/passwd").ok()?;
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

/// The user of this process. May block.
pub fn own() -> Option<Account> {
    of_number(nix::unistd::geteuid().as_raw())
}

/// The user of that number. May block.
pub fn of_number(uid: u32) -> Option<Account> {
    let user = User::from_uid(nix::unistd::Uid::from_raw(uid))
        .ok()
        .flatten()?;
    look_up(&user.name).filter(|account| account.uid == uid)
}

/// A piece of work done in a child process, which writes what it found into a
/// pipe and ends.
pub struct Helper {
    /// The child, to be reaped, or killed when it takes too long.
    pub pid: Pid,
    /// Where its answer comes, nonblocking; at its end the answer is whole.
    pub answer: OwnedFd,
}

impl Helper {
    /// Ends the child, if it has not ended. Its number, if it is still to be reaped:
    /// one that waits for a file server may take its time even to be killed.
    #[must_use]
    pub fn end(self) -> Option<Pid> {
        super::process::signal(self.pid, nix::sys::signal::Signal::SIGKILL);
        (!super::process::reap(self.pid)).then_some(self.pid)
    }

    /// Tells a child of [`in_stock`] whom to look up. `false`: it is dead, or no user has
    /// such a name.
    pub fn tell(&self, name: &str) -> bool {
        if name.len() > NAME || name.contains('\0') {
            return false;
        }
        let line = [name.as_bytes(), &[0]].concat();
        super::socket::send(self.answer.as_fd(), &line) == Ok(line.len())
    }
}

/// The number at which a helper has the pipe for its answer.
const ANSWERS: i32 = 3;

/// Runs `work` in a child, which has nothing of ours open but the standard
/// descriptors and the pipe: a look-up that takes long must not hold a listening
/// socket or a session's channel. Only for a process with a single thread.
///
/// # Errors
/// No process or descriptor was to be had.
pub fn in_child(work: impl FnOnce() -> Vec<u8>) -> nix::Result<Helper> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    helper(read, &write, |mut pipe| {
        let _ = pipe.write_all(&work());
    })
}

/// A child that has NSS at hand and waits to be told a name by [`Helper::tell`], of
/// which it looks the account up. For a process that has not yet read a secret, and
/// has one thread: what takes the time is done while it does something else.
///
/// # Errors
/// No process or descriptor was to be had.
pub fn in_stock() -> nix::Result<Helper> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let kind = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind.0, None, kind.1)?;
    helper(ours, &theirs, |mut line| {
        // Nobody's directory server is to be asked for whoever merely connects.
        if asks_nobody_else(&std::fs::read("/etc/nsswitch.conf").unwrap_or_default()) {
            let _ = look_up("root");
        }
        let mut name = Vec::new();
        let mut byte = [0];
        while matches!(line.read(&mut byte), Ok(1)) && name.len() <= NAME {
            if byte == [0] {
                let found = std::str::from_utf8(&name).ok().and_then(look_up);
                let _ = line.write_all(&found.map(|a| a.to_bytes()).unwrap_or_default());
                return;
            }
            name.extend_from_slice(&byte);
        }
    })
}

/// The longest name of a user that is looked up, bytes.
const NAME: usize = 256;

/// Whether NSS finds users and groups on this machine alone, by what its file says.
fn asks_nobody_else(nsswitch: &[u8]) -> bool {
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

/// Does `work` in a child of which nothing but this line is left to us.
fn helper(
    ours: OwnedFd,
    theirs: &OwnedFd,
    work: impl FnOnce(std::fs::File),
) -> nix::Result<Helper> {
    let parent = nix::unistd::getpid();
    if let Some(pid) = super::job::fork_quietly()? {
        super::socket::set_nonblocking(&ours).map_err(|_| nix::errno::Errno::EBADF)?;
        return Ok(Helper { pid, answer: ours });
    }
    super::job::default_signals();
    super::oom::take(super::oom::Standing::Original);
    super::job::die_with(parent.as_raw());
    // SAFETY: whatever had the number is used no more in this process.
    if unsafe { libc::dup2(theirs.as_raw_fd(), ANSWERS) } == ANSWERS {
        super::job::close_from(ANSWERS + 1);
        // What a module of NSS might start must not keep the answer from its end.
        // SAFETY: sets a flag of a descriptor of this process.
        unsafe { libc::fcntl(ANSWERS, libc::F_SETFD, libc::FD_CLOEXEC) };
        // SAFETY: the number is ours, as the call above said.
        work(std::fs::File::from(unsafe {
            OwnedFd::from_raw_fd(ANSWERS)
        }));
    }
    // SAFETY: ends the child without running what its parent would run at exit.
    unsafe { libc::_exit(0) }
}

/// Has a child look an account up, and waits for it: at most so long. For the
/// start of a process that is to stay small and knows its secrets alone: what NSS
/// loads and does then ends with the child.
///
/// # Errors
/// No child was to be had, or it did not answer in time.
pub fn ask(
    look: impl FnOnce() -> Option<Account>,
    limit: std::time::Duration,
) -> std::io::Result<Option<Account>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let until = std::time::Instant::now() + limit;
    let helper = in_child(|| look().map(|a| a.to_bytes()).unwrap_or_default())?;
    let mut answer = Vec::new();
    let heard = loop {
        match read_answer(&helper.answer, &mut answer) {
            Ok(false) => {}
            other => break other,
        }
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            break Err(std::io::ErrorKind::TimedOut.into());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let _ = poll(
            &mut [PollFd::new(helper.answer.as_fd(), PollFlags::POLLIN)],
            timeout,
        );
    };
    // One that did not answer is left to whoever reaps after us: nothing starts then.
    if let (Some(pid), true) = (helper.end(), heard.is_ok()) {
        let _ = nix::sys::wait::waitpid(pid, None);
    }
    heard.map(|_| Account::from_bytes(&answer))
}

impl Account {
    /// The account as bytes, for the pipe.
    pub fn to_bytes(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        let head = format!(
            "{}\0{}\0{}\0{}\0",
            self.name,
            self.uid,
            self.gid,
            groups.join(",")
        );
        let paths = [
            self.home.as_os_str().as_bytes(),
            self.shell.as_os_str().as_bytes(),
        ];
        [head.as_bytes(), &paths.join(&0)].concat()
    }

    /// The account that [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        use std::os::unix::ffi::OsStrExt;
        let parts: Vec<&[u8]> = bytes.split(|b| *b == 0).collect();
        let [name, uid, gid, groups, home, shell] = parts.as_slice() else {
            return None;
        };
        let number = |b: &[u8]| std::str::from_utf8(b).ok()?.parse::<u32>().ok();
        let path = |b: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(b));
        Some(Self {
            name: std::str::from_utf8(name).ok()?.to_owned(),
            uid: number(uid)?,
            gid: number(gid)?,
            groups: groups
                .split(|b| *b == b',')
                .map(number)
                .collect::<Option<_>>()?,
            home: path(home),
            shell: path(shell),
        })
    }
}

/// Reads what has come of a helper's answer. `Ok(true)`: it is whole.
///
/// # Errors
/// The pipe is broken, or the answer longer than [`ANSWER`].
pub fn read_answer(from: &OwnedFd, into: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut file = std::fs::File::from(from.try_clone()?);
    let mut bytes = [0; 4096];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok(true),
            Ok(n) => into.extend_from_slice(bytes.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if into.len() > ANSWER {
            return Err(std::io::Error::other("a helper's answer is too long"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_survives_the_pipe() {
        let root = look_up("root").unwrap();
        assert_eq!(root.uid, 0);
        assert_eq!(Account::from_bytes(&root.to_bytes()), Some(root));
        assert_eq!(Account::from_bytes(b"x\0y"), None);
        assert!(look_up("no-such-user-here").is_none());
    }

    #[test]
    fn a_local_account_is_found_without_nss() {
        let root = local("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(local("no-such-user-here"), None);
        let line = "_x:x:7:8:Who:/nonexistent:/usr/sbin/nologin";
        let found = parse_local(line, "_x").unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (7, 8, vec![8]));
        for wrong in [
            "_x:x:7",
            "_x:x:-7:8::/:/bin/sh",
            "_x:x:7:8:Who:/:/bin/sh:more",
            "+_x:x:7:8::/:/bin/sh",
            "",
        ] {
            assert_eq!(parse_local(wrong, "_x"), None, "{wrong}");
        }
    }

    #[test]
    fn who_is_told_a_name_looks_it_up() {
        use std::os::fd::AsFd;
        let asked = |name: &str| {
            let helper = in_stock().unwrap();
            let told = helper.tell(name);
            assert_eq!(told, name.len() <= NAME);
            if !told {
                let _ = helper.end().map(|pid| nix::sys::wait::waitpid(pid, None));
                return None;
            }
            let mut answer = Vec::new();
            while !read_answer(&helper.answer, &mut answer).unwrap() {
                use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
                let mut fds = [PollFd::new(helper.answer.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::NONE).unwrap();
            }
            if let Some(pid) = helper.end() {
                nix::sys::wait::waitpid(pid, None).unwrap();
            }
            Account::from_bytes(&answer)
        };
        assert_eq!(asked("root"), look_up("root"));
        assert_eq!(asked("no-such-user-here"), None);
        assert_eq!(asked(&"x".repeat(1000)), None);
    }

    #[test]
    fn a_directory_server_is_no_local_source() {
        let here =
            b"passwd: files systemd\ngroup:\tfiles [SUCCESS=merge] systemd # ldap\nhosts: dns\n";
        assert!(asks_nobody_else(here));
        assert!(asks_nobody_else(b""));
        for far in ["passwd: files sss", "group: files ldap", "initgroups: nis"] {
            assert!(!asks_nobody_else(far.as_bytes()), "{far}");
        }
    }

    #[test]
    fn a_child_that_does_not_answer_is_waited_for_no_longer_than_said() {
        let limit = std::time::Duration::from_millis(50);
        let silent = ask(
            || {
                loop {
                    std::thread::park();
                }
            },
            limit,
        );
        assert_eq!(silent.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        let day = std::time::Duration::from_secs(86_400);
        assert_eq!(ask(|| look_up("root"), day).unwrap().unwrap().uid, 0);
        assert_eq!(ask(|| None, day).unwrap(), None);
    }
}
