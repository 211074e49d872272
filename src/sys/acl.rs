//! POSIX access control lists of files, as Linux stores them (`system.posix_acl_access`).
//!
//! Used when a file is replaced and the new file must grant what the old one granted. The list is
//! copied as bytes and never interpreted. Other systems have no such lists here.

use std::io;
use std::path::Path;

/// Returns the access control list of a file; does not follow a symbolic link. `None`: the file has
/// none, or its file system has no such lists.
///
/// # Errors
/// The system call failed.
pub fn access_list(path: &Path) -> io::Result<Option<Vec<u8>>> {
    imp::get(path)
}

/// Sets a file's access control list, or removes it (`None`).
///
/// # Errors
/// The system call failed.
pub fn set_access_list(path: &Path, list: Option<&[u8]>) -> io::Result<()> {
    match list {
        Some(list) => imp::set(path, list),
        None => imp::remove(path),
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::ffi::{CStr, CString};
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    const NAME: &CStr = c"system.posix_acl_access";
    /// The longest extended attribute on Linux, bytes.
    const MOST: usize = 65_536;

    fn name_of(path: &Path) -> io::Result<CString> {
        CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
    }

    /// Returns whether the error means that there is no list.
    fn is_none(e: &io::Error) -> bool {
        matches!(
            e.raw_os_error(),
            Some(libc::ENODATA | libc::EOPNOTSUPP | libc::ENOSYS)
        )
    }

    pub(super) fn get(path: &Path) -> io::Result<Option<Vec<u8>>> {
        let path = name_of(path)?;
        let mut list = vec![0; MOST];
        // SAFETY: both names end with NUL, and the kernel writes at most `list.len()` bytes.
        let length = unsafe {
            libc::lgetxattr(
                path.as_ptr(),
                NAME.as_ptr(),
                list.as_mut_ptr().cast(),
                list.len(),
            )
        };
        match usize::try_from(length) {
            Ok(length) => {
                list.truncate(length);
                Ok(Some(list))
            }
            Err(_) => {
                let e = io::Error::last_os_error();
                if is_none(&e) { Ok(None) } else { Err(e) }
            }
        }
    }

    pub(super) fn set(path: &Path, list: &[u8]) -> io::Result<()> {
        let path = name_of(path)?;
        // SAFETY: both names end with NUL, and the kernel reads `list.len()` bytes of `list`.
        let done = unsafe {
            libc::lsetxattr(
                path.as_ptr(),
                NAME.as_ptr(),
                list.as_ptr().cast(),
                list.len(),
                0,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    pub(super) fn remove(path: &Path) -> io::Result<()> {
        let path = name_of(path)?;
        // SAFETY: both names end with NUL.
        if unsafe { libc::lremovexattr(path.as_ptr(), NAME.as_ptr()) } == 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        if is_none(&e) { Ok(()) } else { Err(e) }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::path::Path;

    pub(super) fn get(_: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    pub(super) fn set(_: &Path, _: &[u8]) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    pub(super) fn remove(_: &Path) -> io::Result<()> {
        Ok(())
    }
}
