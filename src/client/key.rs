//! `cos key show`: this machine's ID, by which the doors of other hosts know it. Run by
//! the client, without a connection.

use super::args::ShowKey;
use super::route::Places;
use super::say;
use crate::config::keys;
use crate::fault::Fault;

/// Prints the ID, alone on its line, or with the public key and its file as JSON. The key
/// is made where there is none yet.
///
/// # Errors
/// The key cannot be made, is not to be trusted, or nobody takes the output.
pub(super) fn show(asked: &ShowKey) -> Result<(), Fault> {
    let place = Places::of_folder(asked.folder.as_deref())?.own;
    let key = keys::own_machine_key(&place)?.public;
    let id = keys::fingerprint(&key);
    let text = if asked.json {
        let file = place.machine_key();
        let file = quoted(&file.to_string_lossy());
        format!(
            "{{\"id\":\"{id}\",\"key\":\"{}\",\"file\":{file}}}\n",
            key.to_hex()
        )
    } else {
        format!("{id}\n")
    };
    Ok(say::tell(&text)?)
}

/// A text as JSON has it (RFC 8259).
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_any_name_is_a_text_of_json() {
        let odd = quoted("/a \"b\"\\\n\u{7f}\u{e9}");
        assert_eq!(odd, "\"/a \\\"b\\\"\\\\\\u000a\\u007f\u{e9}\"");
    }
}
