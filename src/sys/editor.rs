//! Runs the administrator's editor on a file.
//!
//! Runs in `cosadm edit`. Waits until the editor ends, without a limit: a person uses it. The keys
//! that interrupt a program are the editor's in this time, and do not end `cosadm`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::client_signals::is_ignored;

/// Runs an editor on a file, and returns how it ended. It has the standard streams of this process.
///
/// `editor` is a shell command, as for git and crontab: its user sets it and runs it, with
/// arguments (`code --wait`), quotes and variables. The files that it creates are its user's alone.
///
/// # Errors
/// The shell cannot be started.
#[allow(
    clippy::disallowed_methods,
    reason = "the administrator's editor is started here alone"
)]
pub fn run(editor: &OsStr, file: &Path) -> io::Result<ExitStatus> {
    let _kept = Kept::catch()?;
    // A trap keeps the shell alive until the editor has ended, and is none in the editor itself.
    let mut script = OsString::from("trap : INT QUIT; umask 077; ");
    script.push(editor);
    script.push(" \"$@\"");
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).arg("cosadm").arg(file);
    shell.status()
}

/// The signals of the keys that interrupt a program.
const KEYS: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

/// The actions of [`KEYS`] before, which are restored when dropped.
struct Kept(Vec<(Signal, SigAction)>);

impl Kept {
    /// Has the signals do nothing here. A program that is started gets them with their default
    /// action: a handler is not inherited, while an ignored signal would be.
    fn catch() -> io::Result<Self> {
        let nothing = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        let mut kept = Self(Vec::new());
        for signal in KEYS.into_iter().filter(|signal| !is_ignored(*signal)) {
            // SAFETY: the handler does nothing.
            let before = unsafe { sigaction(signal, &nothing) }?;
            kept.0.push((signal, before));
        }
        Ok(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for (signal, before) in &self.0 {
            // SAFETY: it was the action before.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
}

extern "C" fn nothing(_: libc::c_int) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editor_is_a_shell_command() {
        let file = std::env::temp_dir().join(format!("cos editor-{}", std::process::id()));
        let run = |editor: &str| super::run(OsStr::new(editor), &file).unwrap().code();
        assert_eq!(run("sh -c 'echo \"two words\" >\"$1\"' x"), Some(0));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two words\n");
        assert_eq!(run("A=1 test -w"), Some(0));
        assert_eq!(run("exit 3 #"), Some(3));
        std::fs::remove_file(&file).unwrap();
    }

    /// A shell whose command gets SIGINT ends as the command does, and this process goes on.
    #[test]
    fn an_interrupt_is_the_editors() {
        let script = "sh -c 'kill -INT $PPID; exit 4' #";
        let ended = run(OsStr::new(script), Path::new("/dev/null")).unwrap();
        assert_eq!(ended.code(), Some(4));
        let script = "sh -c 'kill -INT $$' #";
        let ended = run(OsStr::new(script), Path::new("/dev/null")).unwrap();
        assert!(!ended.success());
        assert!(!is_ignored(Signal::SIGINT));
    }
}
