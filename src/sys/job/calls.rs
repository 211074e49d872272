//! The system calls that a child makes between its start and exec.
//!
//! On Linux they go directly to the kernel: a child that shares its parent's memory must not write
//! the parent's `errno`, as the C library's functions do when they fail. On other systems the child
//! is a fork and uses the library's functions. Nothing here allocates, locks or can panic.

#[cfg(direct_calls)]
pub(in crate::sys) use direct::*;
#[cfg(not(direct_calls))]
pub(in crate::sys) use library::*;

#[cfg(direct_calls)]
mod direct {
    use std::ffi::{CStr, c_char};
    use std::os::fd::RawFd;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::resource::Resource;
    use nix::sys::signal::Signal;

    use crate::sys::id_number::IdNumber;
    use syscalls::{Sysno, syscall5};

    /// Makes one system call, with its arguments as the kernel takes them.
    ///
    /// # Safety
    /// As in the call's manual page.
    unsafe fn call(number: Sysno, arguments: [usize; 5]) -> Result<usize, Errno> {
        let [a, b, c, d, e] = arguments;
        // SAFETY: the caller guarantees it.
        let outcome = unsafe { syscall5(number, a, b, c, d, e) };
        outcome.map_err(|failed| Errno::from_raw(failed.into_raw()))
    }

    /// Converts a number for the kernel, which uses the low half of a signed one.
    fn word(number: i32) -> usize {
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    /// Converts a user or group ID for the kernel.
    fn id(number: IdNumber) -> usize {
        usize::try_from(number.get()).unwrap_or(usize::MAX)
    }

    /// dup2(2).
    pub(in crate::sys) fn duplicate(from: RawFd, onto: RawFd) -> Result<(), Errno> {
        // SAFETY: changes only this process's descriptor table.
        unsafe { call(Sysno::dup3, [word(from), word(onto), 0, 0, 0]) }.map(drop)
    }

    /// fchown(2) to this user and group.
    pub(in crate::sys) fn own(fd: RawFd, uid: IdNumber, gid: IdNumber) {
        // SAFETY: takes numbers.
        let _ = unsafe { call(Sysno::fchown, [word(fd), id(uid), id(gid), 0, 0]) };
    }

    /// Closes every descriptor from `first` on.
    pub(in crate::sys) fn close_range(first: RawFd) -> Result<(), Errno> {
        let last = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        // SAFETY: nothing in this process uses a descriptor after this.
        unsafe { call(Sysno::close_range, [word(first), last, 0, 0, 0]) }.map(drop)
    }

    /// openat(2) of a directory.
    pub(in crate::sys) fn open_folder(path: &CStr) -> Result<RawFd, Errno> {
        let flags = word(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC);
        // The path is absolute, so the directory descriptor is ignored.
        let arguments = [0, path.as_ptr() as usize, flags, 0, 0];
        // SAFETY: the string ends with NUL.
        let fd = unsafe { call(Sysno::openat, arguments) }?;
        RawFd::try_from(fd).map_err(|_| Errno::EBADF)
    }

    /// getdents64(2): reads the next entries of a directory into a buffer, and returns their length
    /// in bytes.
    pub(in crate::sys) fn entries(folder: RawFd, into: &mut [u8]) -> Result<usize, Errno> {
        let at = into.as_mut_ptr() as usize;
        // SAFETY: the kernel writes at most the length of the slice.
        unsafe { call(Sysno::getdents64, [word(folder), at, into.len(), 0, 0]) }
    }

    /// close(2).
    pub(in crate::sys) fn close(fd: RawFd) {
        // SAFETY: as in `close_range`.
        let _ = unsafe { call(Sysno::close, [word(fd), 0, 0, 0, 0]) };
    }

    /// setsid(2).
    pub(in crate::sys) fn new_session() {
        // SAFETY: takes no arguments.
        let _ = unsafe { call(Sysno::setsid, [0; 5]) };
    }

    /// setrlimit(2).
    pub(in crate::sys) fn limit(which: Resource, soft: u64, hard: u64) {
        let limit = [soft, hard];
        let arguments = [0, which as usize, limit.as_ptr() as usize, 0, 0];
        // SAFETY: the kernel's structure consists of these two numbers; it lives for the call.
        let _ = unsafe { call(Sysno::prlimit64, arguments) };
    }

    /// setgroups(2).
    pub(in crate::sys) fn groups(groups: &[IdNumber]) -> Result<(), Errno> {
        let at = groups.as_ptr() as usize;
        // SAFETY: the slice lives for the call and has the kernel's type of number.
        unsafe { call(Sysno::setgroups, [groups.len(), at, 0, 0, 0]) }.map(drop)
    }

    /// setresgid(2), for all three IDs.
    pub(in crate::sys) fn group(gid: IdNumber) -> Result<(), Errno> {
        let gid = id(gid);
        // SAFETY: takes numbers.
        unsafe { call(Sysno::setresgid, [gid, gid, gid, 0, 0]) }.map(drop)
    }

    /// Returns whether this process has that user and group as its real, effective and saved IDs.
    pub(in crate::sys) fn is_user(uid: IdNumber, gid: IdNumber) -> bool {
        let (user, group) = ([uid.get(); 3], [gid.get(); 3]);
        numbers(Sysno::getresuid) == Ok(user) && numbers(Sysno::getresgid) == Ok(group)
    }

    /// getresuid(2) or getresgid(2).
    fn numbers(which: Sysno) -> Result<[u32; 3], Errno> {
        let mut all = [0_u32; 3];
        let [real, effective, saved] = all.each_mut().map(|n| std::ptr::from_mut(n) as usize);
        // SAFETY: the kernel writes one number to each of these addresses.
        unsafe { call(which, [real, effective, saved, 0, 0]) }?;
        Ok(all)
    }

    /// setresuid(2), for all three IDs. The kernel sets PR_SET_DUMPABLE to `fs.suid_dumpable`; for
    /// a fork, whose memory is a copy with the monitor's secrets, this clears it again at once.
    pub(in crate::sys) fn user(uid: IdNumber) -> Result<(), Errno> {
        let outcome = become_user(uid);
        process_option(libc::PR_SET_DUMPABLE, 0);
        process_option(libc::PR_SET_KEEPCAPS, 0);
        if uid == 0 {
            return outcome;
        }
        outcome.and_then(|()| no_capabilities())
    }

    /// Changes only the user. The permitted capabilities stay, without effect: a process that does
    /// not have them all may neither trace this process nor read its memory, not even in the moment
    /// in which `fs.suid_dumpable` = 1 would allow it to the new user.
    pub(in crate::sys::job) fn become_user(uid: IdNumber) -> Result<(), Errno> {
        process_option(libc::PR_SET_KEEPCAPS, 1);
        let uid = id(uid);
        // SAFETY: takes numbers.
        unsafe { call(Sysno::setresuid, [uid, uid, uid, 0, 0]) }.map(drop)
    }

    /// capset(2) to an empty set.
    fn no_capabilities() -> Result<(), Errno> {
        // _LINUX_CAPABILITY_VERSION_3, and this process.
        let header = [0x2008_0522_u32, 0];
        // Effective, permitted and inheritable: twice 32 bits of each.
        let none = [0_u32; 6];
        let arguments = [header.as_ptr() as usize, none.as_ptr() as usize, 0, 0, 0];
        // SAFETY: both structures are these numbers, and live for the call.
        unsafe { call(Sysno::capset, arguments) }.map(drop)
    }

    /// Requests SIGHUP for this process when its parent dies.
    pub(in crate::sys) fn die_with_parent() {
        process_option(libc::PR_SET_PDEATHSIG, libc::SIGHUP);
    }

    /// Sets this process's name, by prctl(2).
    pub(in crate::sys) fn set_name(name: &CStr) {
        let arguments = [word(libc::PR_SET_NAME), name.as_ptr() as usize, 0, 0, 0];
        // SAFETY: the string ends with NUL, and the kernel copies it.
        let _ = unsafe { call(Sysno::prctl, arguments) };
    }

    /// rt_sigtimedwait(2): waits for this signal, which is blocked, for at most this time.
    pub(in crate::sys) fn wait_for(signal: Signal, most: Duration) {
        // The kernel's signal set: one bit for each signal, starting with the lowest.
        let set = 1_u64 << (signal as u32 - 1);
        let most = [most.as_secs(), u64::from(most.subsec_nanos())];
        let (set, most) = (std::ptr::from_ref(&set) as usize, most.as_ptr() as usize);
        // SAFETY: the set and the time (two 64-bit numbers) live for the call.
        let _ = unsafe { call(Sysno::rt_sigtimedwait, [set, 0, most, SIGNALS, 0]) };
    }

    /// pidfd_open(2).
    pub(in crate::sys) fn open_process(pid: i32) -> Result<RawFd, Errno> {
        // SAFETY: takes numbers.
        let fd = unsafe { call(Sysno::pidfd_open, [word(pid), 0, 0, 0, 0]) }?;
        RawFd::try_from(fd).map_err(|_| Errno::EBADF)
    }

    /// kill(2) of the process group with this ID, which is greater than 1.
    pub(in crate::sys) fn signal_group(leader: i32, signal: Signal) {
        let group = usize::try_from(leader).unwrap_or(0).wrapping_neg();
        // SAFETY: takes numbers.
        let _ = unsafe { call(Sysno::kill, [group, word(signal as i32), 0, 0, 0]) };
    }

    /// prctl(2) with one number.
    pub(in crate::sys::job) fn process_option(option: i32, value: i32) {
        // SAFETY: sets a number of this process.
        let _ = unsafe { call(Sysno::prctl, [word(option), word(value), 0, 0, 0]) };
    }

    /// getppid(2).
    pub(in crate::sys) fn parent() -> i32 {
        // SAFETY: takes nothing.
        let parent = unsafe { call(Sysno::getppid, [0; 5]) };
        parent.ok().and_then(|p| i32::try_from(p).ok()).unwrap_or(0)
    }

    /// umask(2).
    pub(in crate::sys) fn mask(mask: u16) {
        // SAFETY: takes a number.
        let _ = unsafe { call(Sysno::umask, [usize::from(mask), 0, 0, 0, 0]) };
    }

    /// chdir(2).
    pub(in crate::sys) fn enter(folder: &CStr) -> Result<(), Errno> {
        // SAFETY: the string ends with NUL.
        unsafe { call(Sysno::chdir, [folder.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
    }

    /// execve(2). Returns only if it failed.
    ///
    /// # Safety
    /// Both arrays end with a null pointer, and what they point to is valid.
    pub(in crate::sys) unsafe fn execute(
        path: &CStr,
        argv: *const *const c_char,
        environment: *const *const c_char,
    ) -> Errno {
        let (argv, environment) = (argv as usize, environment as usize);
        let path = path.as_ptr() as usize;
        // SAFETY: the caller guarantees it, and the string ends with NUL.
        let outcome = unsafe { call(Sysno::execve, [path, argv, environment, 0, 0]) };
        outcome.err().unwrap_or(Errno::UnknownErrno)
    }

    /// connect(2).
    pub(in crate::sys) fn connect(socket: RawFd, to: &[u8]) -> Result<(), Errno> {
        let arguments = [word(socket), to.as_ptr() as usize, to.len(), 0, 0];
        // SAFETY: the bytes live for the call.
        unsafe { call(Sysno::connect, arguments) }.map(drop)
    }

    /// Sets a signal's default action.
    pub(in crate::sys) fn default_action(signal: Signal) {
        // The kernel's sigaction: in any order of its fields, zeros mean SIG_DFL, no flag and an
        // empty mask.
        let zeros = [0_u64; 4];
        let arguments = [word(signal as i32), zeros.as_ptr() as usize, 0, SIGNALS, 0];
        // SAFETY: the structure lives for the call; the default action runs no code of this
        // program.
        let _ = unsafe { call(Sysno::rt_sigaction, arguments) };
    }

    /// Unblocks all signals.
    pub(in crate::sys) fn unblock() {
        let none = [0_u8; SIGNALS];
        let how = word(libc::SIG_SETMASK);
        let arguments = [how, none.as_ptr() as usize, 0, SIGNALS, 0];
        // SAFETY: the set lives for the call.
        let _ = unsafe { call(Sysno::rt_sigprocmask, arguments) };
    }

    /// The size of the kernel's signal set, bytes.
    const SIGNALS: usize = 8;

    /// write(2); ignores a short write.
    pub(in crate::sys) fn write(fd: RawFd, bytes: &[u8]) {
        let at = bytes.as_ptr() as usize;
        // SAFETY: the bytes live for the call.
        let _ = unsafe { call(Sysno::write, [word(fd), at, bytes.len(), 0, 0]) };
    }

    /// _exit(2): does not run the parent's exit handlers.
    pub(in crate::sys) fn exit(status: i32) -> ! {
        loop {
            // SAFETY: ends this process.
            let _ = unsafe { call(Sysno::exit_group, [word(status), 0, 0, 0, 0]) };
        }
    }
}

#[cfg(not(direct_calls))]
mod library {
    use std::ffi::{CStr, c_char};
    use std::os::fd::RawFd;

    use nix::errno::Errno;
    use nix::sys::resource::Resource;
    use nix::sys::signal::Signal;

    use crate::sys::id_number::IdNumber;

    /// dup2(2).
    pub(in crate::sys) fn duplicate(from: RawFd, onto: RawFd) -> Result<(), Errno> {
        // SAFETY: changes only this process's descriptor table.
        Errno::result(unsafe { libc::dup2(from, onto) }).map(drop)
    }

    /// fchown(2) to this user and group.
    pub(in crate::sys) fn own(fd: RawFd, uid: IdNumber, gid: IdNumber) {
        // SAFETY: takes numbers.
        unsafe { libc::fchown(fd, uid.get(), gid.get()) };
    }

    /// Closes every descriptor from `first` on.
    pub(in crate::sys) fn close_range(first: RawFd) -> Result<(), Errno> {
        #[cfg(target_os = "linux")]
        // SAFETY: nothing in this process uses a descriptor after this.
        return Errno::result(unsafe {
            libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32)
        })
        .map(drop);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = first;
            Err(Errno::ENOSYS)
        }
    }

    /// open(2) of a directory.
    pub(in crate::sys) fn open_folder(path: &CStr) -> Result<RawFd, Errno> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the string ends with NUL.
        Errno::result(unsafe { libc::open(path.as_ptr(), flags) })
    }

    /// getdents64(2): reads the next entries of a directory into a buffer, and returns their length
    /// in bytes.
    pub(in crate::sys) fn entries(folder: RawFd, into: &mut [u8]) -> Result<usize, Errno> {
        #[cfg(target_os = "linux")]
        {
            let (at, length) = (into.as_mut_ptr(), into.len());
            // SAFETY: the kernel writes at most the length of the slice.
            let read = unsafe { libc::syscall(libc::SYS_getdents64, folder, at, length) };
            usize::try_from(Errno::result(read)?).map_err(|_| Errno::EINVAL)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (folder, into);
            Err(Errno::ENOSYS)
        }
    }

    /// close(2).
    pub(in crate::sys) fn close(fd: RawFd) {
        // SAFETY: as in `close_range`.
        unsafe { libc::close(fd) };
    }

    /// setsid(2).
    pub(in crate::sys) fn new_session() {
        // SAFETY: takes no arguments.
        unsafe { libc::setsid() };
    }

    /// setrlimit(2).
    pub(in crate::sys) fn limit(which: Resource, soft: u64, hard: u64) {
        let _ = crate::sys::rlimits::set(which, soft, hard);
    }

    /// setgroups(2).
    pub(in crate::sys) fn groups(groups: &[IdNumber]) -> Result<(), Errno> {
        // SAFETY: the slice lives for the call.
        let outcome = unsafe { libc::setgroups(groups.len() as _, groups.as_ptr().cast()) };
        Errno::result(outcome).map(drop)
    }

    /// setresgid(2), for all three IDs.
    pub(in crate::sys) fn group(gid: IdNumber) -> Result<(), Errno> {
        let gid = gid.get();
        // SAFETY: takes numbers.
        Errno::result(unsafe { libc::setresgid(gid, gid, gid) }).map(drop)
    }

    /// Returns whether this process has that user and group as its real, effective and saved IDs.
    pub(in crate::sys) fn is_user(uid: IdNumber, gid: IdNumber) -> bool {
        let (user, group) = ([uid.get(); 3], [gid.get(); 3]);
        numbers(libc::getresuid) == Ok(user) && numbers(libc::getresgid) == Ok(group)
    }

    /// getresuid(2) or getresgid(2).
    fn numbers(
        which: unsafe extern "C" fn(*mut u32, *mut u32, *mut u32) -> libc::c_int,
    ) -> Result<[u32; 3], Errno> {
        let mut all = [0_u32; 3];
        let [real, effective, saved] = all.each_mut().map(std::ptr::from_mut);
        // SAFETY: the call writes one number to each of these addresses.
        Errno::result(unsafe { which(real, effective, saved) })?;
        Ok(all)
    }

    /// setresuid(2), for all three IDs. On Linux the permitted capabilities stay, without effect,
    /// until the new user can no longer read this fork's copy of the monitor's memory.
    pub(in crate::sys) fn user(uid: IdNumber) -> Result<(), Errno> {
        #[cfg(target_os = "linux")]
        // SAFETY: sets a number of this process.
        unsafe {
            libc::prctl(libc::PR_SET_KEEPCAPS, 1)
        };
        let uid = uid.get();
        // SAFETY: takes numbers.
        let outcome = Errno::result(unsafe { libc::setresuid(uid, uid, uid) }).map(drop);
        #[cfg(target_os = "linux")]
        // SAFETY: as above, twice; exec clears the remaining capabilities.
        unsafe {
            libc::prctl(libc::PR_SET_DUMPABLE, 0);
            libc::prctl(libc::PR_SET_KEEPCAPS, 0)
        };
        outcome
    }

    /// Requests SIGHUP for this process when its parent dies (Linux; on other systems the job only
    /// sees its pipes closed).
    pub(in crate::sys) fn die_with_parent() {
        #[cfg(target_os = "linux")]
        // SAFETY: sets a number of this process.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGHUP)
        };
    }

    /// getppid(2).
    pub(in crate::sys) fn parent() -> i32 {
        // SAFETY: takes no arguments.
        unsafe { libc::getppid() }
    }

    /// umask(2).
    pub(in crate::sys) fn mask(mask: u16) {
        // SAFETY: takes a number.
        unsafe { libc::umask(mask.into()) };
    }

    /// chdir(2).
    pub(in crate::sys) fn enter(folder: &CStr) -> Result<(), Errno> {
        // SAFETY: the string ends with NUL.
        Errno::result(unsafe { libc::chdir(folder.as_ptr()) }).map(drop)
    }

    /// execve(2). Returns only if it failed.
    ///
    /// # Safety
    /// Both arrays end with a null pointer, and what they point to is valid.
    pub(in crate::sys) unsafe fn execute(
        path: &CStr,
        argv: *const *const c_char,
        environment: *const *const c_char,
    ) -> Errno {
        // SAFETY: the caller guarantees it, and the string ends with NUL.
        unsafe { libc::execve(path.as_ptr(), argv, environment) };
        Errno::last()
    }

    /// connect(2).
    pub(in crate::sys) fn connect(socket: RawFd, to: &[u8]) -> Result<(), Errno> {
        let length = libc::socklen_t::try_from(to.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the bytes live for the call.
        Errno::result(unsafe { libc::connect(socket, to.as_ptr().cast(), length) }).map(drop)
    }

    /// Sets a signal's default action.
    pub(in crate::sys) fn default_action(signal: Signal) {
        // SAFETY: the default action runs no code of this program.
        unsafe { libc::signal(signal as libc::c_int, libc::SIG_DFL) };
    }

    /// Unblocks all signals.
    pub(in crate::sys) fn unblock() {
        let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    }

    /// write(2); ignores a short write.
    pub(in crate::sys) fn write(fd: RawFd, bytes: &[u8]) {
        // SAFETY: the bytes live for the call.
        unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    }

    /// _exit(2): does not run the parent's exit handlers.
    pub(in crate::sys) fn exit(status: i32) -> ! {
        // SAFETY: ends this process.
        unsafe { libc::_exit(status) }
    }
}
