//! `cos key show`: this machine's ID, by which the doors of other hosts know it. Run by
//! the client, without a connection.

use super::args::ShowKey;
use super::route::Places;
use super::say;
use crate::config::{keys, words};
use crate::fault::Fault;

/// Prints the ID, alone on its line, or with the public key and its file as JSON. The key
/// is made where there is none yet.
///
/// # Errors
/// The key cannot be made, is not to be trusted, or nobody takes the output.
pub(super) fn show(asked: &ShowKey) -> Result<(), Fault> {
    let place = Places::of_folder(asked.folder.as_deref()).own;
    let key = keys::own_machine_key(&place)?.public;
    let id = keys::fingerprint(&key);
    let text = if asked.json {
        let file = place.machine_key();
        let file = words::json(&file.to_string_lossy());
        format!(
            "{{\"id\":\"{id}\",\"key\":\"{}\",\"file\":{file}}}\n",
            key.to_hex()
        )
    } else {
        format!("{id}\n")
    };
    Ok(say::tell(&text)?)
}
