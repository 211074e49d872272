//! The two lists of the outer door, as the administrator manages them (seed 002, SESTAB).

use rusqlite::{OptionalExtension, params};

use super::{Level, List, Outer, WHAT};
use crate::fault::Fault;
use crate::registry::file;
use crate::registry::id::{Id, Name, Occurred};

/// A machine on one of the lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The machine's ID.
    pub id: Id,
    /// Its name, as the administrator knows it; may be empty.
    pub name: String,
    /// When it was put on the list.
    pub since: Occurred,
}

/// Accepts one machine.
pub type Taking<'a> = dyn FnMut(&Id, &Name) -> Result<(), Fault> + 'a;

/// Passes machines on, one after the other.
pub type Giving<'a> = dyn FnMut(&mut Taking<'_>) -> Result<(), Fault> + 'a;

impl Outer {
    /// Returns at most `most` machines on a list in the order of their names: the first ones, or
    /// those after `after`. No lock is held between calls, so writers do not wait.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn items_after(
        &self,
        list: List,
        after: Option<&Item>,
        most: u32,
    ) -> Result<Vec<Item>, Fault> {
        let Some(after) = after else {
            return self.items_from(list, 0, most);
        };
        let query = format!(
            "SELECT id, name, since FROM {} WHERE (name, id) > (?1, ?2)
             ORDER BY name, id LIMIT ?3",
            list.table()
        );
        self.some(&query, params![after.name, after.id.0, most])
    }

    /// Returns at most `most` machines on a list in the order of their names, without the first
    /// `skipped`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn items_from(&self, list: List, skipped: u64, most: u32) -> Result<Vec<Item>, Fault> {
        let query = format!(
            "SELECT id, name, since FROM {} ORDER BY name, id LIMIT ?2 OFFSET ?1",
            list.table()
        );
        self.some(&query, params![file::number(skipped), most])
    }

    fn some(&self, query: &str, given: &[&dyn rusqlite::ToSql]) -> Result<Vec<Item>, Fault> {
        let read = || {
            let mut query = self.0.db.prepare_cached(query)?;
            let rows = query.query_map(given, item)?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|e| self.tell(&e))
    }

    /// Passes each machine on a list to `each`, in the order of their IDs. Reads in pages, so that
    /// writers do not wait for the whole list.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn ids(&self, list: List, each: &mut dyn FnMut(Id)) -> Result<(), Fault> {
        let query = format!(
            "SELECT id, '', 0 FROM {} WHERE id > ?1 ORDER BY id LIMIT 1000",
            list.table()
        );
        // Every ID sorts after the empty one.
        let mut last = Vec::new();
        loop {
            let page = self.some(&query, params![last])?;
            let Some(end) = page.last() else {
                return Ok(());
            };
            last = end.id.0.to_vec();
            page.iter().for_each(|item| each(item.id));
        }
    }

    /// Returns a machine on a list.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, list: List, id: &Id) -> Result<Option<Item>, Fault> {
        let query = format!("SELECT id, name, since FROM {} WHERE id = ?1", list.table());
        let found = self.0.db.query_row(&query, [id.0], item);
        found.optional().map_err(|e| self.tell(&e))
    }

    /// Returns the number of machines on a list.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self, list: List) -> Result<u64, Fault> {
        let query = format!("SELECT count(*) FROM {}", list.table());
        let found = self.0.db.query_row(&query, [], |row| row.get(0));
        found.map_err(|e| self.tell(&e))
    }

    /// Puts a machine on a list. Returns `false` if it was already there; it then has the new name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(&mut self, list: List, id: &Id, name: &str) -> Result<bool, Fault> {
        let there = self.get(list, id)?.is_some();
        let query = format!(
            "INSERT INTO {} (id, name, since) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            list.table()
        );
        let done = self
            .0
            .db
            .execute(&query, params![id.0, name, Occurred::now().0]);
        done.map_err(|e| self.tell(&e))?;
        Ok(!there)
    }

    /// Renames a machine on a list. Returns `false` if it is no longer there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rename(&mut self, list: List, id: &Id, name: &str) -> Result<bool, Fault> {
        let query = format!("UPDATE {} SET name = ?2 WHERE id = ?1", list.table());
        let done = self.0.db.execute(&query, params![id.0, name]);
        done.map(|n| n > 0).map_err(|e| self.tell(&e))
    }

    /// Takes a machine off a list. Returns `false` if it was not there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn delete(&mut self, list: List, id: &Id) -> Result<bool, Fault> {
        let query = format!("DELETE FROM {} WHERE id = ?1", list.table());
        let done = self.0.db.execute(&query, [id.0]);
        done.map(|n| n > 0).map_err(|e| self.tell(&e))
    }

    /// Closes the outer door: the include list becomes these machines, which `machines` passes in
    /// the order of their IDs. Returns their number. Unchanged entries are not written again, so
    /// that a long list does not block others for long.
    ///
    /// # Errors
    /// There are none, which would lock out every machine; or the file cannot be written. Nothing
    /// has changed then.
    pub fn close(&mut self, machines: &mut Giving<'_>) -> Result<u64, Fault> {
        self.0.keep_writes_back(true)?;
        let count = self.take_over(machines);
        self.0.keep_writes_back(false)?;
        count
    }

    fn take_over(&mut self, machines: &mut Giving<'_>) -> Result<u64, Fault> {
        let path = self.0.path().to_owned();
        let tell = |e: rusqlite::Error| file::told(&path, WHAT, &e);
        let t = self.0.write(WHAT)?;
        let mut count = 0;
        let since = Occurred::now().0;
        // Every ID sorts after the empty one.
        let mut last = Vec::new();
        {
            let mut put = t
                .prepare(
                    "INSERT INTO include (id, name, since) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET name = excluded.name
                     WHERE name <> excluded.name COLLATE BINARY",
                )
                .map_err(tell)?;
            let mut drop_between = t
                .prepare("DELETE FROM include WHERE id > ?1 AND id < ?2")
                .map_err(tell)?;
            machines(&mut |id, name| {
                if id.0.as_slice() <= last.as_slice() {
                    return Err(Fault::new("the machines are not in the order of their IDs"));
                }
                count += 1;
                drop_between.execute(params![last, id.0]).map_err(tell)?;
                put.execute(params![id.0, name.as_str(), since])
                    .map_err(tell)?;
                last = id.0.to_vec();
                Ok(())
            })?;
        }
        t.execute("DELETE FROM include WHERE id > ?1", [&last])
            .map_err(tell)?;
        if count == 0 {
            return Err(Fault::new(
                "there is no authorized machine: closing the outer door now would lock everybody out",
            ));
        }
        t.execute(
            "INSERT OR REPLACE INTO setting (name, value) VALUES ('level', ?1)",
            [[Level::Closed.number()]],
        )
        .map_err(tell)?;
        t.commit().map_err(tell)?;
        Ok(count)
    }
}

fn item(row: &rusqlite::Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item {
        id: Id(row.get(0)?),
        name: row.get(1)?,
        since: Occurred(row.get(2)?),
    })
}
