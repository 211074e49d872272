//! Opens the file of the tokens with care, and creates it.
//!
//! Runs in each process that uses the tokens. The file is created under a temporary name and then
//! put in place whole, so that of several that race one wins and the others open its file. One of
//! an earlier boot is replaced, under the lock of its lists: another process that waits for
//! that finds that the path leads to another file. Must not change a file that is something else, or another user's.

use std::path::Path;

use super::free_list;
use super::layout::{
    ANONYMOUS_MOST, IDENTITY, LISTS_AT, RECORD, RECORDS, checksum, get, put, short,
};
use super::storage::Storage;
use super::token::NotDone;
use crate::config::paths::Paths;
use crate::config::secure;
use crate::config::words::shell_word;
use crate::fault::Fault;
use crate::secret;
use crate::sys::boot;

/// The start of a file of tokens.
const MAGIC: &[u8; 16] = b"cosserver-tokens";
const VERSION: u32 = 1;

// The places of what follows.
const FORM: usize = MAGIC.len();
const FIRST_GENERATION: usize = 28;
const BOOT: usize = 32;
const CHECKED: usize = BOOT + boot::LENGTH;
const SIZE: usize = CHECKED + 8;

/// Tries, in case others create or replace the file at the same time.
const TRIES: usize = 64;

/// What a file is.
enum Form {
    /// A file of tokens, with this first generation.
    Tokens(u32),
    /// One of another boot.
    Old,
    /// Something else.
    Other,
}

/// Opens the file, and creates it if it is missing or from another boot.
///
/// # Errors
/// See [`super::TokenFile::open`].
pub(super) fn open(paths: &Paths, boot: &[u8; boot::LENGTH]) -> Result<Storage, Fault> {
    let path = paths.tokens();
    for _ in 0..TRIES {
        let Some((storage, form)) = look(paths, boot)? else {
            secure::create_new(&path, &empty(boot)?, 0o600)?;
            continue;
        };
        match form {
            Form::Tokens(_) => return Ok(storage),
            Form::Other => return Err(other(&path)),
            Form::Old => match storage.lock_lists() {
                Ok(_lock) if storage.is_in_place() => {
                    secure::replace(&path, &empty(boot)?, 0o600)?;
                }
                Err(NotDone::Fault(fault)) => return Err(fault),
                Ok(_) | Err(_) => {}
            },
        }
    }
    Err(Fault::of(&path, "it changes all the time"))
}

/// Opens the file, if there is one of this boot.
///
/// # Errors
/// See [`super::TokenFile::open_existing`].
pub(super) fn open_existing(
    paths: &Paths,
    boot: &[u8; boot::LENGTH],
) -> Result<Option<Storage>, Fault> {
    match look(paths, boot)? {
        Some((storage, Form::Tokens(_))) => Ok(Some(storage)),
        Some((_, Form::Other)) => Err(other(&paths.tokens())),
        Some((_, Form::Old)) | None => Ok(None),
    }
}

fn look(paths: &Paths, boot: &[u8; boot::LENGTH]) -> Result<Option<(Storage, Form)>, Fault> {
    let path = paths.tokens();
    let Some(file) = paths.checker().open_to_change(&path)? else {
        return Ok(None);
    };
    let mut storage = Storage::new(file, &path);
    let mut head = [0; SIZE];
    storage.read(IDENTITY, &mut head)?;
    let form = form(&head, boot);
    if let Form::Tokens(first_generation) = form {
        storage.first_generation = first_generation;
    }
    Ok(Some((storage, form)))
}

fn form(head: &[u8; SIZE], boot: &[u8; boot::LENGTH]) -> Form {
    let sum = checksum(head.get(..CHECKED).unwrap_or_default());
    if !head.starts_with(MAGIC) || get(head, FORM) != sizes() || get(head, CHECKED) != sum {
        return Form::Other;
    }
    if get(head, BOOT) != *boot {
        return Form::Old;
    }
    Form::Tokens(short(head, FIRST_GENERATION))
}

/// Returns the version and the sizes.
fn sizes() -> [u8; 12] {
    let mut bytes = [0; 12];
    let record = u32::try_from(RECORD).unwrap_or(0);
    for (at, number) in [(0, VERSION), (4, record), (8, ANONYMOUS_MOST)] {
        put(&mut bytes, at, &number.to_le_bytes());
    }
    bytes
}

/// Returns a file without tokens. The first generation is a random one, so that no index of an
/// earlier boot is likely to be used again; half of all generations are left for each slot.
fn empty(boot: &[u8; boot::LENGTH]) -> Result<Vec<u8>, Fault> {
    let first_generation = (u32::from_le_bytes(secret::random()?) >> 1).max(1);
    let mut head = [0; SIZE];
    put(&mut head, 0, MAGIC);
    put(&mut head, FORM, &sizes());
    put(&mut head, FIRST_GENERATION, &first_generation.to_le_bytes());
    put(&mut head, BOOT, boot);
    let sum = checksum(head.get(..CHECKED).unwrap_or_default());
    put(&mut head, CHECKED, &sum);
    let mut bytes = vec![0; usize::try_from(RECORDS).unwrap_or(0)];
    put(&mut bytes, 0, &head);
    let lists = usize::try_from(LISTS_AT).unwrap_or(0);
    put(&mut bytes, lists, &free_list::new()?);
    Ok(bytes)
}

fn other(path: &Path) -> Fault {
    let remedy = format!("rm {}", shell_word(&path.display().to_string()));
    Fault::of(path, "it is not a file of tokens of this version").with_remedy(remedy)
}
