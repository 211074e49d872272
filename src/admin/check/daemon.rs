//! The part of `cosadm check` about the daemon: whether one runs, and whether syslog takes its log.

use super::{Level, Report};
use crate::admin::who;
use crate::config::words::shell_word;
use crate::log;

impl Report<'_> {
    /// Reports whether a daemon serves this folder. Under inetd none runs permanently, and a host
    /// that only runs commands elsewhere needs none, so its absence is not a problem.
    pub(super) fn daemon(&mut self) {
        let runs = who::is_running(self.paths);
        self.log();
        match runs {
            Ok(true) => self.add(Level::Right, "daemon", "it runs"),
            Ok(false) => {
                let start = if self.paths.system {
                    "cosserver".to_owned()
                } else {
                    let settings = self.paths.settings().display().to_string();
                    format!("cosserver -f {}", shell_word(&settings))
                };
                let words = format!(
                    "no daemon runs on this folder, so nothing is served unless inetd starts one; \
                     `{start}` starts it"
                );
                self.add(Level::Note, "daemon", words);
            }
            Err(fault) => {
                let words = format!("cannot determine whether one runs: {fault}");
                self.add(Level::Note, "daemon", words);
            }
        }
    }

    /// Reports if syslog does not take lines here. This is only a note, because a daemon with `-e`
    /// does not need syslog.
    fn log(&mut self) {
        if let Some(why) = log::syslog_fault() {
            let words = "without -e the daemon's log goes nowhere; start syslog";
            self.add(Level::Note, "log", format!("{why}: {words}"));
        }
    }
}
