//! What the client says when a host denies access: one line, and the next step on a second.
//!
//! The host tells no cause, only a reference, under which its log has the reason; so the second
//! line says where that log is. Where the host may not know the machine, a third says how it is
//! authorized if that is the reason.

use crate::fault::Fault;
use crate::protocol::answer::Reference;

/// Access was denied, and nothing more is known.
pub(super) fn denied(host: &str, reference: Reference) -> Fault {
    Fault::new(first_line(reference)).with_remedy(log_of(host, reference))
}

/// The same where the client can tell more of it than the host does. One text for every
/// cause: the host does not say more.
pub(super) fn denied_because(host: &str, reference: Reference, why: &str) -> Fault {
    let words = format!("{}: {why}", first_line(reference));
    Fault::new(words).with_remedy(log_of(host, reference))
}

/// The same for a machine of this ID that was asked for nothing: the host may not know it.
pub(super) fn denied_unasked(host: &str, reference: Reference, id: &str, note: &str) -> Fault {
    let words = format!("{}{note}", first_line(reference));
    let log = log_of(host, reference);
    Fault::new(words).with_remedy(format!(
        "{log}\nif the log says unknown-machine: cosadm machine add {id} --name NAME"
    ))
}

fn first_line(reference: Reference) -> String {
    format!("access denied (reference {})", reference.to_hex())
}

/// Where a host's log is, as the commands that find the reason in it.
fn log_of(host: &str, reference: Reference) -> String {
    let reference = reference.to_hex();
    format!(
        "to see why, run on {host}: journalctl -t cosserver | grep {reference} \
         (without systemd: grep {reference} /var/log/auth.log)"
    )
}
