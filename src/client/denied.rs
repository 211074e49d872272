//! What the client prints when a host denies access: one line, and the next step on a second. Pure:
//! runs in the client.
//!
//! The host tells no cause, only a reference under which its log has the reason, so the second line
//! says where that log is. If the host may not know the machine, a third line says how to authorize
//! it.

use crate::fault::Fault;
use crate::protocol::answer::Reference;

/// Returns the fault that access was denied, if nothing more is known.
pub(super) fn denied(host: &str, reference: Reference) -> Fault {
    Fault::new(first_line(reference)).with_remedy(log_of(host, reference))
}

/// Returns the fault that a named service is not available to the caller. There may be none.
pub(super) fn unavailable(host: &str, reference: Reference) -> Fault {
    let words = format!("service unavailable (reference {})", reference.to_hex());
    Fault::new(words).with_remedy(log_of(host, reference))
}

/// Returns the same fault with the client's own knowledge of the cause. The host tells nothing, so
/// one text serves every cause.
pub(super) fn denied_because(host: &str, reference: Reference, why: &str) -> Fault {
    let words = format!("{}: {why}", first_line(reference));
    Fault::new(words).with_remedy(log_of(host, reference))
}

/// Returns the same fault for a machine of this ID that got no prompt: the host may not know it.
pub(super) fn denied_without_prompt(
    host: &str,
    reference: Reference,
    id: &str,
    note: &str,
) -> Fault {
    let words = format!("{}{note}", first_line(reference));
    let log = log_of(host, reference);
    Fault::new(words).with_remedy(format!(
        "{log}\nif the log says unknown-machine: cosadm machine add {id} --name NAME"
    ))
}

fn first_line(reference: Reference) -> String {
    format!("access denied (reference {})", reference.to_hex())
}

/// Returns the commands that find the reason in a host's log.
fn log_of(host: &str, reference: Reference) -> String {
    let reference = reference.to_hex();
    format!(
        "to see why, run on {host}: journalctl -t cosserver | grep {reference} \
         (without systemd: grep {reference} /var/log/auth.log)"
    )
}
