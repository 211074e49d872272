//! The part of `cosadm check` about the outer and the inner door: both files, and which machines
//! they allow.

use super::{Level, Report};
use crate::admin::doors::{check_writers, unknown_machine, word};
use crate::fault::Fault;
use crate::registry::noted::Noted;
use crate::registry::{self, Doors, Inner, List, Outer};

impl Report<'_> {
    /// Checks both doors, and reports the access decision on an unknown machine.
    pub(super) fn doors(&mut self) {
        self.older_copies();
        self.left_over(&self.paths.state.clone());
        let path = Outer::path(self.paths);
        let Some(outer) = self.open_or_report(&path, Outer::open(self.paths), Outer::wrong_lines)
        else {
            return;
        };
        let about = || {
            let count = |list| outer.count(list);
            let (included, excluded) = (count(List::Include)?, count(List::Exclude)?);
            Ok((outer.level()?, included, excluded, outer.folder()?))
        };
        let (level, folder) = match about() {
            Ok((level, included, excluded, folder)) => {
                let (door, number) = (word(level), level.number());
                self.right(
                    &path,
                    format!("the outer door: {door} (level {number}), {included} included, {excluded} excluded"),
                );
                (level, folder)
            }
            Err(fault) => return self.wrong(&path, &fault),
        };
        let path = Inner::path(self.paths, folder.as_deref());
        if let Some(folder) = &folder {
            self.left_over(folder);
        }
        let Some(inner) = self.open_or_report(&path, Inner::open(&path), Inner::wrong_lines) else {
            return;
        };
        if let Some(Err(fault)) = path.parent().map(check_writers) {
            self.wrong(&path, &fault);
        }
        let about = || Ok((inner.count()?, inner.settings()?, inner.has_passwords()?));
        match about() {
            Ok((authorized, settings, waiting)) => {
                self.right(&path, format!("the inner door: {authorized} authorized"));
                let decision_text = unknown_machine(level, &settings, waiting);
                let rank = if decision_text.word == "refused" {
                    Level::Right
                } else {
                    Level::Note
                };
                self.add(rank, "doors", decision_text.words);
                self.warn_of_weak_settings(level, settings.build_mode, settings.backdoor);
            }
            Err(fault) => self.wrong(&path, &fault),
        }
    }

    /// Reports each file of the registry that is older than the registry note says.
    fn older_copies(&mut self) {
        match Noted::read(self.paths) {
            Ok(None) => {}
            Ok(Some(noted)) => {
                for (path, older) in noted.is_newer_than(&Noted::now(self.paths), self.paths) {
                    self.wrong(&path, &older);
                }
            }
            Err(fault) => self.wrong(&self.paths.registry_note(), &fault),
        }
    }

    /// Returns a door whose file exists and is undamaged; otherwise reports why not. Reports each
    /// wrong line.
    fn open_or_report<T>(
        &mut self,
        path: &std::path::Path,
        opened: Result<T, Fault>,
        wrong_lines: fn(&T) -> Result<Vec<Fault>, Fault>,
    ) -> Option<T> {
        if matches!(path.try_exists(), Ok(false)) {
            if let Some(lost) = Doors::lost(self.paths) {
                self.wrong(path, &lost);
                return None;
            }
            let init = self.paths.cosadm("init");
            let words =
                format!("there is no such file, so all machines are denied; {init} makes it");
            self.add(Level::Problem, path.display(), words);
            return None;
        }
        match opened.and_then(|door| wrong_lines(&door).map(|wrong| (door, wrong))) {
            Ok((door, wrong)) => {
                for line in wrong {
                    self.wrong(path, &line);
                }
                Some(door)
            }
            Err(fault) => {
                self.wrong(path, &fault);
                None
            }
        }
    }

    /// Warns of settings that weaken the doors.
    fn warn_of_weak_settings(&mut self, level: registry::Level, build_mode: bool, backdoor: bool) {
        let mut warn = |words: String| self.add(Level::Warning, "doors", words);
        match level {
            registry::Level::Off => {
                warn("the security level is 0: the doors deny only excluded machines".to_owned())
            }
            registry::Level::Open => {
                if build_mode {
                    warn("the outer door is open in build mode: any machine can register under a name".to_owned());
                }
                if backdoor {
                    warn("the outer door is open, and there is a backdoor password: anyone who guesses it can register a machine".to_owned());
                }
            }
            registry::Level::Closed => {}
        }
    }
}
