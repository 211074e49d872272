//! The registry worker: answers the monitor's questions from the doors' files, so that neither a
//! slow folder nor a password hash blocks the monitor.
//!
//! At most two of them run: one reads, and one registers, which may take a moment. Each has one
//! thread and runs as the monitor's user, which owns the files. Landlock denies it all other files.
//! It must never talk to a peer, and has no key.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::asked::{Answer, MESSAGE, Question};
use super::decision::AdmissionPass;
use super::doors::{Doors, RegistrationOutcome};
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::ipc::fields::{Reader, Writer};
use crate::ipc::{Channel, Incoming};
use crate::sys::process::CHANNEL;
use crate::sys::{memory, process, sandbox, signals, socket};

const BEGIN: u8 = 100;

/// The ticket of faults that the daemon starts with; no question has it.
pub const WITHOUT: u64 = u64::MAX;

/// How long a busy monitor may take to read an answer.
const HEARING: Duration = Duration::from_secs(60);

/// Builds the monitor's first message: the path of the settings file, from which the doors' paths
/// follow, and whether the daemon is starting, so that existing files must be sound.
pub fn begin(settings: &Path, starts: bool) -> Vec<u8> {
    Writer::new(BEGIN)
        .bytes(settings.as_os_str().as_bytes())
        .number(starts.into())
        .done()
}

fn parse_begin(message: &[u8]) -> Option<(PathBuf, bool)> {
    let (BEGIN, mut r) = Reader::new(message)? else {
        return None;
    };
    let settings = PathBuf::from(OsStr::from_bytes(r.bytes()?));
    let starts = r.number::<u8>()? == 1;
    r.done((settings, starts))
}

/// Runs the registry worker until the monitor ends or the inner door is moved.
pub fn main() -> u8 {
    process::set_name("cos: door");
    process::keep_private();
    memory::keep_small();
    process::ends_with_parent(true);
    let served = serve();
    if served.is_ok() {
        process::SUCCESS
    } else {
        process::FAILURE
    }
}

fn serve() -> Result<(), Fault> {
    let mut channel = Channel::new(socket::inherited(CHANNEL)?);
    signals::leave_to_the_monitor()?;
    process::quiet();
    let mut buffer = vec![0; MESSAGE];
    let Some(message) = next(&mut channel, &mut buffer)? else {
        return Ok(());
    };
    let (settings, starts) = parse_begin(&message).ok_or_else(|| Fault::new("no beginning"))?;
    let paths = Paths::of_file(&settings);
    let opened = if starts {
        Doors::start(&paths)
    } else {
        Ok((Doors::of(&paths), Vec::new()))
    };
    // The first answer has ticket 0, which belongs to no question.
    let mut doors = match opened {
        Ok((doors, without)) => {
            for why in without {
                let why = Answer::Fault(why.in_one_line());
                channel.deliver(why.encode(WITHOUT), HEARING)?;
            }
            doors
        }
        Err(e) => {
            channel.deliver(Answer::Fault(e.in_one_line()).encode(0), HEARING)?;
            return Err(e);
        }
    };
    let folder = doors.folder();
    // Opening the folder has already waited for this fault: the first question gets it.
    let mut wrong = folder.as_ref().err().map(ToString::to_string);
    let folder = folder.ok().flatten();
    let mut folders = vec![paths.state.clone()];
    folders.extend(folder.clone());
    let at_first = which(&folders);
    if let Err(e) = sandbox::keep_to(&folders) {
        let why = e.while_doing("the registry process's sandbox");
        channel.deliver(Answer::Fault(why.to_string()).encode(0), HEARING)?;
        return Err(why);
    }
    channel.deliver(Answer::Done.encode(0), HEARING)?;
    while let Some(message) = next(&mut channel, &mut buffer)? {
        let Some((ticket, question)) = Question::decode(&message) else {
            return Err(Fault::new("an invalid question"));
        };
        let answer = match wrong.take() {
            Some(why) => Answer::Fault(why),
            None => answer(&mut doors, question),
        };
        // The sandbox does not let it read elsewhere, nor a folder that was mounted or came back
        // since. End here: the monitor asks another worker.
        let is_moved = doors.looked_in().is_some_and(|now| *now != folder);
        if is_moved || which(&folders) != at_first {
            return Ok(());
        }
        channel.deliver(answer.encode(ticket), HEARING)?;
    }
    Ok(())
}

/// Returns the identity of the folders, independent of their names: device and inode number.
fn which(folders: &[PathBuf]) -> Vec<Option<(u64, u64)>> {
    let which = |folder: &PathBuf| {
        let about = std::fs::metadata(folder).ok()?;
        Some((about.dev(), about.ino()))
    };
    folders.iter().map(which).collect()
}

/// Answers a question from the files as they are now.
pub fn answer(doors: &mut Doors, question: Question) -> Answer {
    let done = match question {
        Question::Look(id) => doors.look(id).map(|s| Answer::MachineStatus(Box::new(s))),
        Question::Introduce(id, name, remote) => {
            let introduced = doors.introduce(id, &name, remote);
            introduced.map(|is_new| {
                if is_new {
                    Answer::RegistrationOutcome(RegistrationOutcome::Registered(
                        AdmissionPass::registered(id),
                        name,
                    ))
                } else {
                    Answer::Done
                }
            })
        }
        Question::Saw(id) => doors.saw(id).map(|()| Answer::Done),
        Question::Register(id, name, remote) => doors
            .register(id, name, remote)
            .map(Answer::RegistrationOutcome),
        Question::Activate(id, password, name, remote) => doors
            .activate(id, &password, &name, remote)
            .map(Answer::RegistrationOutcome),
    };
    done.unwrap_or_else(|e| Answer::Fault(e.to_string()))
}

/// Returns the next message; `None`: the monitor has ended.
fn next(
    channel: &mut Channel,
    buffer: &mut [u8],
) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Fault> {
    loop {
        channel.wait();
        match channel.receive(buffer)? {
            Incoming::Message(message, _) => return Ok(Some(message)),
            Incoming::Nothing => channel.flush()?,
            Incoming::Gone => return Ok(None),
        }
    }
}
