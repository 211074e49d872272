//! A door's file: SQLite, opened with care. A missing, foreign, damaged or newer file is an error
//! that names the file, and nothing in it is lost.
//!
//! Both doors use a rollback journal. It works on a shared folder and on read-only media as well as
//! on a local disk, while WAL does neither. A process that is killed during a write leaves a file
//! that opens.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::config::secure::{self, Checker, Created};
use crate::fault::Fault;

/// How long to wait for another writer.
const BUSY: Duration = Duration::from_secs(5);

/// The purpose for which a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Reading and writing. Waits for another writer, and rolls back what a killed writer has left.
    Work,
    /// Reading without blocking. Never waits, and never writes.
    NonblockingReader,
}

/// The content of a door's file.
pub(super) struct Schema {
    /// What the file is, for errors.
    pub(super) what: &'static str,
    /// SQLite's application id, which tells the doors' files apart.
    pub(super) application: i32,
    /// The version of its format; a newer program may write a newer one.
    pub(super) version: i32,
    /// The statements that create its tables.
    pub(super) tables: &'static [&'static str],
}

/// An open file.
pub(super) struct File {
    pub(super) db: Connection,
    path: PathBuf,
    journal: PathBuf,
    /// The identity of the file when it was opened, and when it was last changed.
    which: Which,
}

/// A file's identity: device, inode number, and time of last change (seconds, nanoseconds). SQLite
/// takes its cached pages for current as long as the file's header is unchanged. The header of a
/// restored copy may be the same, so the header alone is not enough.
type Which = (u64, u64, i64, i64);

fn which(about: &fs::Metadata) -> Which {
    (about.dev(), about.ino(), about.ctime(), about.ctime_nsec())
}

impl File {
    /// Creates the file with its tables, atomically, if it does not exist. A process that is killed
    /// leaves no partial file, and a second process finds it complete. Returns whether it was
    /// created now.
    pub(super) fn create(path: &Path, schema: &Schema) -> Result<Created, Fault> {
        // Keep this order: a file that is being written has a journal and exists.
        let journal = journal(path);
        let has_journal = journal.exists();
        if fs::symlink_metadata(path).is_ok() {
            return Ok(Created::There);
        }
        // SQLite would play it back into the new file.
        if has_journal {
            let words = format!(
                "there is no such file, but there is its journal, {}; nothing was changed: put \
                 the file back, or move its journal away too",
                journal.display()
            );
            return Err(Fault::of(path, words));
        }
        let content = without_rows(schema).map_err(|e| told(path, schema.what, &e))?;
        secure::create_new(path, &content, 0o600)
    }

    /// Opens an existing file.
    pub(super) fn open(
        path: &Path,
        schema: &Schema,
        to: Use,
        folders: &Checker,
    ) -> Result<Self, Fault> {
        let (db, which) = connect(path, schema.what, to, folders)?;
        check(&db, schema).map_err(|e| match e {
            Wrong::Is(why) => Fault::of(path, why),
            Wrong::Sql(e) => told(path, schema.what, &e),
        })?;
        Ok(Self {
            db,
            path: path.to_owned(),
            journal: journal(path),
            which,
        })
    }

    /// Returns whether the file is as it was when it was opened. It may have been changed or
    /// restored from a copy, or its folder may be gone.
    pub(super) fn is_current(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|about| which(&about) == self.which)
            && is_plain_or_none(&self.journal)
    }

    /// Checks the whole file. Takes a second for a million machines.
    pub(super) fn check_whole(&self, schema: &Schema) -> Result<(), Fault> {
        let tell = |e: rusqlite::Error| told(&self.path, schema.what, &e);
        let mut found = self.db.prepare("PRAGMA quick_check(1)").map_err(tell)?;
        let found: String = found.query_row([], |row| row.get(0)).map_err(tell)?;
        if found == "ok" {
            return Ok(());
        }
        let found = found.replace('\n', " ");
        Err(Fault::of(&self.path, damaged(schema.what, found.trim())))
    }

    /// Returns the error in words for the administrator.
    pub(super) fn fault(&self, what: &str, e: &rusqlite::Error) -> Fault {
        told(&self.path, what, e)
    }

    /// Starts a write transaction, which excludes other writers.
    pub(super) fn write(&mut self, what: &str) -> Result<Transaction<'_>, Fault> {
        let path = &self.path;
        Transaction::new(&mut self.db, TransactionBehavior::Immediate)
            .map_err(|e| told(path, what, &e))
    }

    /// Sets whether a transaction keeps all its writes in memory until its end, however many they
    /// are. Otherwise no other process can read from the first page that does not fit.
    pub(super) fn keep_writes_back(&self, on: bool) -> Result<(), Fault> {
        let pragmas = if on {
            "PRAGMA cache_spill=OFF; PRAGMA cache_size=-1048576;"
        } else {
            "PRAGMA cache_size=-256; PRAGMA cache_spill=ON; PRAGMA shrink_memory;"
        };
        let done = self.db.execute_batch(pragmas);
        done.map_err(|e| told(&self.path, "this file", &e))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens the file if no other user can have written it.
fn connect(
    path: &Path,
    what: &str,
    to: Use,
    folders: &Checker,
) -> Result<(Connection, Which), Fault> {
    let missing = || Fault::of(path, "there is no such file");
    let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(missing)?;
    let real = folders.check_folder(folder)?.join(name);
    let about = fs::symlink_metadata(&real).map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            missing()
        } else {
            Fault::of(path, e)
        }
    })?;
    if !about.is_file() {
        return Err(Fault::of(path, "it is no plain file"));
    }
    if about.mode() & 0o077 != 0 {
        return Err(Fault::of(
            path,
            format!("others may read or write it; chmod 600 {}", path.display()),
        ));
    }
    if about.uid() != 0 && about.uid() != geteuid().as_raw() {
        let words = format!(
            "it belongs to user {}, not to this one or root",
            about.uid()
        );
        return Err(Fault::of(path, words));
    }
    // SQLite opens the journal together with the file, and would block on a fifo.
    let journal = journal(&real);
    if !is_plain_or_none(&journal) {
        return Err(Fault::of(&journal, "it is no plain file; move it away"));
    }
    let tell = |e: rusqlite::Error| told(path, what, &e);
    let (access, busy) = match to {
        Use::Work => (OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY),
        Use::NonblockingReader => (OpenFlags::SQLITE_OPEN_READ_ONLY, Duration::ZERO),
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&real, flags).map_err(tell)?;
    db.busy_timeout(busy).map_err(tell)?;
    // A file that another user has made must do nothing but hold data.
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        db.set_db_config(setting, on).map_err(tell)?;
    }
    db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)
        .map_err(tell)?;
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, 1 << 20)
        .map_err(tell)?;
    // These cost nothing where the library has them by default.
    if !cfg!(sqlite_defaults) {
        db.execute_batch(DEFAULTS).map_err(tell)?;
    }
    if to == Use::NonblockingReader {
        db.pragma_update(None, "cache_size", "-64").map_err(tell)?;
    }
    Ok((db, which(&about)))
}

/// What `.cargo/config.toml` builds SQLite with.
const DEFAULTS: &str = "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;
     PRAGMA synchronous=EXTRA; PRAGMA cache_size=-256;";

fn is_plain_or_none(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or(true, |about| about.is_file())
}

/// A fault of a file.
enum Wrong {
    Is(String),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Wrong {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sql(e)
    }
}

/// Returns the path of SQLite's rollback journal.
fn journal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-journal");
    PathBuf::from(name)
}

/// Returns the bytes of a file with its tables and no rows.
fn without_rows(schema: &Schema) -> rusqlite::Result<Vec<u8>> {
    let db = Connection::open_in_memory()?;
    for table in schema.tables {
        db.execute_batch(table)?;
    }
    db.pragma_update(None, "application_id", schema.application)?;
    db.pragma_update(None, "user_version", schema.version)?;
    Ok(db.serialize("main")?.to_vec())
}

/// Checks that the file is a door's, in the format that this program knows, with nothing else in
/// it.
fn check(db: &Connection, schema: &Schema) -> Result<(), Wrong> {
    let what = schema.what;
    // Read all of it under one lock.
    let db = db.unchecked_transaction()?;
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application != schema.application {
        let words = format!("it is not {what}; if it was put here by mistake, move it away");
        return Err(Wrong::Is(words));
    }
    if version > schema.version {
        return Err(Wrong::Is(format!(
            "it was written by a newer cosserver (form {version}, and this program knows {}); \
             nothing was changed: install that version again",
            schema.version
        )));
    }
    let mut found =
        db.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let found: Vec<String> = found
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if found != schema.tables {
        return Err(Wrong::Is(damaged(
            what,
            "its tables are not those of cosserver",
        )));
    }
    Ok(())
}

fn damaged(what: &str, why: &str) -> String {
    format!(
        "{what} is damaged ({why}); nothing was changed: put a copy back, \
         or move it away and make a new one"
    )
}

/// Passes each setting of a door to `each`.
pub(super) fn settings(db: &Connection, mut each: impl FnMut(&str, &[u8])) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached("SELECT name, value FROM setting LIMIT 64")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_blob()?);
    }
    Ok(())
}

/// Converts a count for SQLite.
pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Returns SQLite's error in words for the administrator.
pub(super) fn told(path: &Path, what: &str, e: &rusqlite::Error) -> Fault {
    let words = match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(what, &e.to_string()),
        Some(ErrorCode::DiskFull) => "the disk is full; nothing was changed".to_owned(),
        Some(ErrorCode::ReadOnly) => "it cannot be written; nothing was changed".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!(
            "another process has been writing it for {} s; nothing was changed",
            BUSY.as_secs()
        ),
        _ => e.to_string(),
    };
    Fault::of(path, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;
    use crate::registry::outer::Outer;

    /// The options are set by statements or by the library's build.
    #[test]
    fn a_file_is_opened_with_care() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        drop(crate::registry::Doors::start(&paths).unwrap());
        for (to, cache) in [(Use::Work, -256), (Use::NonblockingReader, -64)] {
            let path = Outer::path(&paths);
            let (db, _) = connect(&path, "it", to, &Checker::new()).unwrap();
            let number = |name: &str| {
                let value = db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
                value.unwrap_or_else(|e| panic!("{name}: {e}"))
            };
            assert_eq!(number("cell_size_check"), 1);
            // 0: as the library was built.
            let temp_store = if cfg!(sqlite_defaults) { 0 } else { 2 };
            assert_eq!(number("temp_store"), temp_store);
            assert_eq!(number("synchronous"), 3);
            assert_eq!(number("cache_size"), cache);
            assert_eq!(number("trusted_schema"), 0);
            let built = "SELECT count(*) FROM pragma_compile_options
                         WHERE compile_options = 'TEMP_STORE=2'";
            let built: i64 = db.query_row(built, [], |row| row.get(0)).unwrap();
            assert_eq!(built == 1, cfg!(sqlite_defaults));
        }
    }
}
