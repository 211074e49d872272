//! The first exchange on every channel: the monitor sends the sandbox configuration, the process
//! enters the sandbox and reports its status. Until then the process reads nothing else.

use super::fields::{self, fields, reason};
use super::{Channel, Incoming};
use crate::fault::Fault;
use crate::sys::process;
use crate::sys::sandbox::{self, Role, SandboxConfig, SandboxStatus};

/// A message of this exchange.
enum Message {
    /// The monitor's order. `None`: there is no sandbox configuration, because the monitor is not
    /// root.
    Order(Option<SandboxConfig>),
    /// The process is in the sandbox.
    Report(SandboxStatus),
    /// It could not enter the sandbox, and why.
    Failed(String),
}

fields!(enum Message { 100 Order(config), 101 Report(status), 102 Failed(why: reason) });

/// Returns the monitor's order. `None`: there is no sandbox configuration, because the monitor is
/// not root.
pub fn order(sandbox_config: Option<&SandboxConfig>) -> Vec<u8> {
    fields::encode(&Message::Order(sandbox_config.cloned()))
}

/// Parses a report: the sandbox status, or why the process could not enter the sandbox. Returns
/// `None` if the message is no report.
pub fn parse_report(message: &[u8]) -> Option<Result<SandboxStatus, Fault>> {
    match fields::decode(message)? {
        Message::Report(status) => Some(Ok(status)),
        Message::Failed(why) => Some(Err(Fault::new(why))),
        Message::Order(_) => None,
    }
}

/// Enters the sandbox, in the process itself: waits for the order, applies it and reports.
///
/// # Errors
/// No order came, or a part of the sandbox failed, which was reported to the monitor. The process
/// must end.
pub fn enter(role: Role, channel: &mut Channel) -> Result<(), Fault> {
    let mut buffer = vec![0; 4096];
    channel.wait();
    let Incoming::Message(message, _) = channel.receive(&mut buffer)? else {
        return Err(Fault::new(
            "no order where the sandbox configuration is expected",
        ));
    };
    let Some(Message::Order(sandbox_config)) = fields::decode(&message) else {
        return Err(Fault::new("an invalid order"));
    };
    // Nothing that this process prints from here on may appear among the monitor's lines. Inside
    // the sandbox this is no longer possible.
    process::quiet();
    let entered = sandbox::enter(role, sandbox_config.as_ref());
    let report = match &entered {
        Ok(status) => Message::Report(*status),
        Err(e) => Message::Failed(e.to_string()),
    };
    channel.send(fields::encode(&report), Vec::new())?;
    entered.map(|_| ())
}
