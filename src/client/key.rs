//! `cos key show`: this machine's ID, by which other hosts know it. Runs in the client, without a
//! connection.

use nix::unistd::User;

use super::call::ShowKey;
use super::messages;
use super::route::Places;
use crate::cli::json::Json;
use crate::config::keys;
use crate::fault::Fault;

/// Prints the ID on a line of its own, or with the public key and its file as JSON. The key is made
/// if there is none yet.
///
/// # Errors
/// The folder of `-C` is another user's; the key cannot be made or is not trusted; or the output
/// cannot be written.
pub(super) fn show(asked: &ShowKey) -> Result<(), Fault> {
    let Places { table, own: paths } = Places::of_folder(asked.folder.as_deref());
    let owner = table.other_owner().filter(|_| asked.folder.is_some());
    if let Some(owner) = owner {
        // The caller's own key would be taken for that of the folder.
        let user = User::from_uid(owner).ok().flatten();
        let user = user.map_or_else(|| owner.to_string(), |user| user.name);
        let words = format!("the key of {} belongs to {user}", table.dir.display());
        return Err(Fault::new(words).with_remedy(format!("run it as {user}")));
    }
    let key = keys::own_machine_key(&paths)?.public;
    let id = keys::fingerprint(&key);
    let text = if asked.json {
        let object = Json::Object(vec![
            ("id", Json::text(id)),
            ("key", Json::text(key.to_hex())),
            ("file", Json::text(paths.machine_key().display())),
        ]);
        format!("{object}\n")
    } else {
        format!("{id}\n")
    };
    Ok(messages::tell(&text)?)
}
