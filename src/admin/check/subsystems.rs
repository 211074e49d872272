//! The part of `cosadm check` about subsystems: the program of each, and the lines of the host
//! table that name one without a program.

use std::path::Path;

use super::logins::cannot_run;
use super::{Level, Report};
use crate::config::hostinfo::HostTable;
use crate::config::settings::Settings;
use crate::config::subsystems::SFTP;

impl Report<'_> {
    /// Checks the subsystems of the settings, and those that the host table names.
    pub(super) fn subsystems(&mut self, settings: &Settings) {
        let mut names: Vec<&str> = settings.subsystem.all().map(|(name, _)| name).collect();
        if !names.contains(&SFTP) {
            names.push(SFTP);
        }
        for name in names {
            let about = format!("subsystem {name}");
            match settings.subsystem.find(name) {
                Ok(words) => {
                    let program = words.first().map_or("", String::as_str);
                    match cannot_run(Path::new(program)) {
                        Some(why) => self.add(Level::Warning, about, why),
                        None => self.add(Level::Right, about, words.join(" ")),
                    }
                }
                Err(why) => self.add(Level::Note, about, why),
            }
        }
        // A table that cannot be read is reported separately.
        let Ok(table) = HostTable::load(self.paths) else {
            return;
        };
        for entry in table.entries() {
            for name in entry.subsystems.iter().flatten() {
                if let Err(why) = settings.subsystem.find(name) {
                    let words = format!("it may ask for the subsystem {name}: {why}");
                    self.add(Level::Note, format!("host {}", entry.name), words);
                }
            }
        }
    }
}
