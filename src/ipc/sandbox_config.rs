//! The first exchange on every channel: the monitor sends the sandbox configuration, the process
//! enters the sandbox and reports its status. Until then the process reads nothing else.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::fields::{Reader, Writer};
use super::{Channel, Incoming};
use crate::fault::Fault;
use crate::sys::process;
use crate::sys::sandbox::{self, Role, SandboxConfig, SandboxStatus};

const ORDER: u8 = 100;
const REPORT: u8 = 101;
const FAILED: u8 = 102;

/// Returns the monitor's order. `None`: there is no sandbox configuration, because the monitor is
/// not root.
pub fn order(sandbox_config: Option<&SandboxConfig>) -> Vec<u8> {
    match sandbox_config {
        None => Writer::new(ORDER).done(),
        Some(c) => Writer::new(ORDER)
            .number(c.uid.into())
            .number(c.gid.into())
            .bytes(c.root.as_ref().map_or(&[], |r| r.as_os_str().as_bytes()))
            .done(),
    }
}

fn parse_order(message: &[u8]) -> Option<Option<SandboxConfig>> {
    let (ORDER, mut r) = Reader::new(message)? else {
        return None;
    };
    if r.is_done() {
        return Some(None);
    }
    let (uid, gid) = (r.id_number()?, r.id_number()?);
    let root = PathBuf::from(std::ffi::OsStr::from_bytes(r.bytes()?));
    let root = Some(root).filter(|r| !r.as_os_str().is_empty());
    r.done(Some(SandboxConfig { uid, gid, root }))
}

/// Parses a report: the sandbox status, or why the process could not enter the sandbox. Returns
/// `None` if the message is no report.
pub fn parse_report(message: &[u8]) -> Option<Result<SandboxStatus, Fault>> {
    match Reader::new(message)? {
        (REPORT, mut r) => {
            let [chroot, landlock, seccomp] = r.array::<3>()?.map(|b| b != 0);
            let (landlock_error, seccomp_error) = (r.number()?, r.number()?);
            r.done(Ok(SandboxStatus {
                chroot,
                landlock,
                seccomp,
                landlock_error,
                seccomp_error,
            }))
        }
        (FAILED, mut r) => {
            let why = Fault::new(r.text()?);
            r.done(Err(why))
        }
        _ => None,
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
    let sandbox_config = parse_order(&message).ok_or_else(|| Fault::new("an invalid order"))?;
    // Nothing that this process prints from here on may appear among the monitor's lines. Inside
    // the sandbox this is no longer possible.
    process::quiet();
    let w = match sandbox::enter(role, sandbox_config.as_ref()) {
        Ok(sandbox_status) => sandbox_status,
        Err(e) => {
            let words = e.to_string();
            let failed = Writer::new(FAILED).bytes(words.as_bytes()).done();
            channel.send(failed, Vec::new())?;
            return Err(e);
        }
    };
    let sandbox_status = [w.chroot, w.landlock, w.seccomp].map(u8::from);
    let error = |errno: i32| u64::try_from(errno).unwrap_or(0);
    let report = Writer::new(REPORT)
        .bytes(&sandbox_status)
        .number(error(w.landlock_error))
        .number(error(w.seccomp_error));
    channel.send(report.done(), Vec::new())
}
