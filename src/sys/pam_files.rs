//! PAM's service files, as far as the daemon must check them. Separate from the PAM calls, so that
//! only the login worker is linked with PAM's library.
//!
//! PAM asks the service `other` for each kind of line that a service lacks (pam.conf(5)), and
//! `other` may allow logins: this program's service must have a line of each kind.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The service's name.
pub const SERVICE: &str = "cosserver";

/// The directories in which PAM looks for a service's file, besides the single file for all
/// services.
const FOLDERS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d"];

/// The kinds of lines.
const KINDS: [&str; 4] = ["auth", "account", "password", "session"];

/// The longest file that is read, bytes.
const LONGEST: u64 = 64 << 10;

/// The most files that are searched for one kind of line, in case they include each other.
const MOST: usize = 64;

/// Why no user can log in by the service's stack.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no file for the service.
    Missing,
    /// It has no line of this kind.
    Lacks(PathBuf, &'static str),
    /// A file cannot be read, or other users can write it.
    Unusable(PathBuf, String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "no /etc/pam.d/{SERVICE} that says how people log in"),
            Self::Lacks(file, kind) => write!(
                f,
                "no {kind} line in {}, so that PAM would ask `other`",
                file.display()
            ),
            Self::Unusable(file, why) => write!(f, "{}: {why}", file.display()),
        }
    }
}

/// Checks the service's stack, with all files that it includes.
///
/// # Errors
/// No user may log in by it.
pub fn judge() -> Result<(), Trouble> {
    judge_in(&FOLDERS.map(Path::new), SERVICE)
}

fn judge_in(folders: &[&Path], service: &str) -> Result<(), Trouble> {
    let file = find(folders, service).ok_or(Trouble::Missing)?;
    let text = read(&file)?;
    for kind in KINDS {
        if !has(folders, &text, kind, &mut { MOST })? {
            return Err(Trouble::Lacks(file, kind));
        }
    }
    Ok(())
}

fn find(folders: &[&Path], name: &str) -> Option<PathBuf> {
    // `join` keeps an absolute path as it is.
    let all = folders.iter().map(|f| f.join(name));
    all.into_iter().find(|f| f.is_file())
}

/// Reads a file that only root or this user can write.
fn read(path: &Path) -> Result<String, Trouble> {
    let unusable = |why: String| Trouble::Unusable(path.to_owned(), why);
    let of = |e: io::Error| unusable(e.to_string());
    let mut file = File::open(path).map_err(of)?;
    let about = file.metadata().map_err(of)?;
    let own = nix::unistd::geteuid().as_raw();
    if about.mode() & 0o022 != 0 || (about.uid() != 0 && about.uid() != own) {
        return Err(unusable(
            "others can write it: chown it to root, chmod it to 644".to_owned(),
        ));
    }
    let mut bytes = Vec::new();
    let read = file.by_ref().take(LONGEST + 1).read_to_end(&mut bytes);
    if read.map_err(of)? as u64 > LONGEST {
        return Err(unusable(format!("it has more than {LONGEST} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).replace("\\\n", " "))
}

/// Returns whether a line of this kind calls some module.
fn has(folders: &[&Path], text: &str, kind: &str, left: &mut usize) -> Result<bool, Trouble> {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (first, second) = (words.next(), words.next());
        let included = match (first, second) {
            (Some("@include"), file) => file,
            (Some(of), Some(control)) if is_of(of, kind) => {
                let includes = ["include", "substack"].map(|w| control.eq_ignore_ascii_case(w));
                if !includes.contains(&true) {
                    return Ok(true);
                }
                words.next()
            }
            _ => continue,
        };
        // A missing included file is left to PAM to report.
        let file = included.and_then(|name| find(folders, name));
        if let Some(file) = file.filter(|_| *left > 0) {
            *left -= 1;
            if has(folders, &read(&file)?, kind, left)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns whether a line that begins with this word is of that kind. (With a `-` its module may be
/// missing.)
fn is_of(word: &str, kind: &str) -> bool {
    word.strip_prefix('-')
        .unwrap_or(word)
        .eq_ignore_ascii_case(kind)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::scratch::Scratch;

    fn judged(scratch: &Scratch, text: &str) -> Result<(), Trouble> {
        scratch.file("cosserver", text, 0o644);
        judge_in(&[&scratch.paths().dir], SERVICE)
    }

    #[test]
    fn each_kind_of_lines_must_be_there() {
        let scratch = Scratch::new();
        let dir = scratch.paths().dir;
        assert_eq!(judge_in(&[&dir], SERVICE), Err(Trouble::Missing));
        let whole = "auth required a.so\nAccount [success=1 default=ignore] a.so x\n\
                     password \\\n required a.so\n-session optional a.so\n";
        assert_eq!(judged(&scratch, whole), Ok(()));
        let lacks = |kind| Err(Trouble::Lacks(dir.join(SERVICE), kind));
        for text in [
            "",
            "# auth required a.so\n",
            "authx required a.so\n",
            "auth\n",
        ] {
            assert_eq!(judged(&scratch, text), lacks("auth"), "{text}");
        }
        for (gone, kind) in [
            ("auth ", "auth"),
            ("Account ", "account"),
            ("password ", "password"),
            ("-session ", "session"),
        ] {
            assert_eq!(judged(&scratch, &whole.replace(gone, "#")), lacks(kind));
        }
    }

    #[test]
    fn what_is_included_counts_for_what_it_has() {
        let scratch = Scratch::new();
        let dir = scratch.paths().dir;
        let lacks = |kind| Err(Trouble::Lacks(dir.join(SERVICE), kind));
        let all = "auth include common\naccount SUBSTACK common\n@include common\n";
        assert_eq!(judged(&scratch, all), lacks("auth"), "it is not there");
        let common = "auth required a.so\naccount required a.so\npassword required a.so\n";
        scratch.file("common", common, 0o644);
        assert_eq!(judged(&scratch, all), lacks("session"));
        scratch.file("common", format!("{common}session required a.so\n"), 0o644);
        assert_eq!(judged(&scratch, all), Ok(()));
        // An include counts only for its own kind of line.
        assert_eq!(judged(&scratch, "auth include common\n"), lacks("account"));
        // Includes itself without end.
        let itself = "auth include cosserver\n".repeat(1000);
        assert_eq!(judged(&scratch, &itself), lacks("auth"));
    }

    #[test]
    fn pam_files_writable_by_other_users_are_refused() {
        let scratch = Scratch::new();
        let dir = scratch.paths().dir;
        let lines = KINDS.map(|k| format!("{k} required a.so\n")).concat();
        let unusable = |result: Result<(), Trouble>, name: &str| match result {
            Err(Trouble::Unusable(file, why)) => {
                assert_eq!(file, dir.join(name));
                why
            }
            other => panic!("{other:?}"),
        };
        scratch.file(SERVICE, &lines, 0o664);
        let judged_as_is = || judge_in(&[&dir], SERVICE);
        let why = unusable(judged_as_is(), SERVICE);
        assert!(why.contains("others can write it"), "{why}");
        scratch.file("common", &lines, 0o666);
        let why = unusable(judged(&scratch, "@include common\n"), "common");
        assert!(why.contains("others can write it"), "{why}");
        fs::write(dir.join(SERVICE), vec![b'#'; 70_000]).unwrap();
        let why = unusable(judged_as_is(), SERVICE);
        assert!(why.contains("more than 65536 bytes"), "{why}");
    }
}
