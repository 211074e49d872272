//! The registry worker: answers the monitor's questions from the doors' files, so that neither a
//! slow folder nor a password hash blocks the monitor.
//!
//! One process, which runs as the monitor's user, the owner of the files. Landlock denies both its
//! threads all other files. The main thread reads the questions and answers those that only read
//! ([`Question::Look`]). All others write or hash, and go to the writer thread. Each thread has its
//! own [`Doors`], so that no look waits for a write, a hash or an fsync. It must never talk to a
//! peer, and has no key.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::asked::{Answer, MESSAGE, Question};
use super::decision::AdmissionPass;
use super::doors::{Doors, RegistrationOutcome};
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::ipc::fields;
use crate::ipc::{Channel, Incoming};
use crate::sys::process::CHANNEL;
use crate::sys::{memory, process, sandbox, signals, socket};

/// The ticket of faults that the daemon starts with; no question has it.
pub const WITHOUT: u64 = u64::MAX;

/// How long a busy monitor may take to read an answer.
const SEND_TIME: Duration = Duration::from_secs(60);

/// Builds the monitor's first message: the path of the settings file, from which the doors' paths
/// follow, and whether the daemon is starting, so that existing files must be sound.
pub fn begin(settings: &Path, starts: bool) -> Vec<u8> {
    fields::encode(&(settings, starts))
}

/// Runs the registry worker until the monitor ends or the inner door is moved.
pub fn main() -> u8 {
    process::set_name("cos: registry");
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
    let Some(message) = next(&mut channel, &mut vec![0; MESSAGE])? else {
        return Ok(());
    };
    let begin: Option<(PathBuf, bool)> = fields::decode(&message);
    let (settings, starts) = begin.ok_or_else(|| Fault::new("no beginning"))?;
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
                channel.deliver(why.encode(WITHOUT), SEND_TIME)?;
            }
            doors
        }
        Err(e) => {
            channel.deliver(Answer::Fault(e.in_one_line()).encode(0), SEND_TIME)?;
            return Err(e);
        }
    };
    let folder = doors.folder();
    // Opening the file may have taken long to fail: do not open it again.
    let wrong = folder.as_ref().err().map(ToString::to_string);
    let folders = Folders::now(&paths, folder.ok().flatten());
    if let Err(e) = sandbox::keep_to(&folders.all) {
        let why = e.while_doing("the registry process's sandbox");
        channel.deliver(Answer::Fault(why.to_string()).encode(0), SEND_TIME)?;
        return Err(why);
    }
    channel.deliver(Answer::Done.encode(0), SEND_TIME)?;
    let main = Thread {
        doors,
        folders,
        channel,
    };
    main.answer_all(&paths, wrong)
}

/// The folders that the sandbox allows, as they were when the worker began.
#[derive(Clone)]
struct Folders {
    /// The folder of the inner door; `None` means the state folder.
    inner: Option<PathBuf>,
    all: Vec<PathBuf>,
    /// The identity of each, independent of its name: device and inode number.
    which: Vec<Option<(u64, u64)>>,
}

impl Folders {
    fn now(paths: &Paths, inner: Option<PathBuf>) -> Self {
        let mut all = vec![paths.state.clone()];
        all.extend(inner.clone());
        let which = which(&all);
        Self { inner, all, which }
    }

    /// Returns whether the doors are in other folders now. The sandbox does not let the worker read
    /// elsewhere, nor in a folder that was mounted or came back since.
    fn are_moved(&self, doors: &Doors) -> bool {
        let is_moved = doors.looked_in().is_some_and(|now| *now != self.inner);
        is_moved || which(&self.all) != self.which
    }
}

fn which(folders: &[PathBuf]) -> Vec<Option<(u64, u64)>> {
    let which = |folder: &PathBuf| {
        let about = std::fs::metadata(folder).ok()?;
        Some((about.dev(), about.ino()))
    };
    folders.iter().map(which).collect()
}

/// The state of one of the two threads. Both send their answers on the same socket, which keeps
/// message boundaries, so that no lock is needed.
struct Thread {
    doors: Doors,
    folders: Folders,
    channel: Channel,
}

impl Thread {
    /// Runs the main thread until the monitor ends or the inner door is moved. The looks that have
    /// arrived by now get the fault `wrong`.
    fn answer_all(mut self, paths: &Paths, mut wrong: Option<String>) -> Result<(), Fault> {
        let mut buffer = vec![0; MESSAGE];
        let mut writer = None;
        loop {
            let message = match self.channel.receive(&mut buffer)? {
                Incoming::Message(message, _) => message,
                Incoming::Nothing => {
                    wrong = None;
                    self.channel.wait();
                    continue;
                }
                Incoming::Gone => return Ok(()),
            };
            let Some((ticket, question)) = Question::decode(&message) else {
                return Err(Fault::new("an invalid question"));
            };
            let answer = if let Question::Look(_) = question {
                match &wrong {
                    Some(why) => Answer::Fault(why.clone()),
                    None => answer(&mut self.doors, question),
                }
            } else {
                let writer = match &mut writer {
                    Some(writer) => Ok(writer),
                    none => self.start_writer(paths).map(|writer| none.insert(writer)),
                };
                match writer {
                    Ok(writer) => {
                        let ended = |_| Fault::new("the writer thread has ended");
                        writer.send((ticket, question)).map_err(ended)?;
                        continue;
                    }
                    Err(why) => Answer::Fault(format!("the registry's writer thread: {why}")),
                }
            };
            if !self.deliver(ticket, &answer)? {
                return Ok(());
            }
        }
    }

    /// Starts the writer thread, which has this thread's sandbox. Returns its queue, which holds
    /// one question at most: the monitor waits for the answer before it sends the next.
    fn start_writer(&self, paths: &Paths) -> Result<mpsc::Sender<(u64, Question)>, Fault> {
        let (queue, questions) = mpsc::channel();
        let mut writer = Self {
            doors: Doors::of(paths),
            folders: self.folders.clone(),
            channel: Channel::new(self.channel.as_fd().try_clone_to_owned()?),
        };
        std::thread::Builder::new().spawn(move || {
            for (ticket, question) in questions {
                let answer = answer(&mut writer.doors, question);
                if !writer.deliver(ticket, &answer).unwrap_or(false) {
                    // The main thread, which may be blocked in disk I/O, and the monitor notice.
                    writer.channel.end();
                    return;
                }
            }
        })?;
        Ok(queue)
    }

    /// Sends an answer, unless the doors have been moved: then returns `false`. The process ends,
    /// and the monitor asks another worker.
    fn deliver(&mut self, ticket: u64, answer: &Answer) -> Result<bool, Fault> {
        if self.folders.are_moved(&self.doors) {
            return Ok(false);
        }
        self.channel.deliver(answer.encode(ticket), SEND_TIME)?;
        Ok(true)
    }
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
        Question::Visited(id) => doors.saw(id).map(|()| Answer::Done),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;
    use crate::registry::id::{Id, Name};
    use crate::registry::outer::{Level, Outer};

    /// Each `Activate` costs an argon2 hash.
    #[test]
    fn looks_do_not_wait_for_activations() {
        const ACTIVATIONS: u64 = 8;
        const LOOK: u64 = 100;
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let doors = Doors::start(&paths).unwrap().0;
        let mut outer = Outer::open(&paths).unwrap();
        outer.set_level(Level::Open).unwrap();
        let (mut monitor, theirs) = Channel::pair().unwrap();
        let worker = Thread {
            folders: Folders::now(&paths, None),
            doors,
            channel: Channel::new(theirs),
        };
        let running = std::thread::spawn(move || worker.answer_all(&paths, None));
        let id = Id([3; 16]);
        for ticket in 1..=ACTIVATIONS {
            let password = b"no such password".to_vec().into();
            let name = Name::parse("pc").unwrap();
            let question = Question::Activate(id, password, name, true);
            monitor.deliver(question.encode(ticket), SEND_TIME).unwrap();
        }
        let look = Question::Look(id).encode(LOOK);
        monitor.deliver(look, SEND_TIME).unwrap();
        let mut buffer = vec![0; MESSAGE];
        let mut tickets = Vec::new();
        for _ in 0..=ACTIVATIONS {
            let message = next(&mut monitor, &mut buffer).unwrap().unwrap();
            let (ticket, answer) = Answer::decode(&message).unwrap();
            assert!(!matches!(answer, Answer::Fault(_)), "{ticket}");
            tickets.push(ticket);
        }
        assert_ne!(tickets.last(), Some(&LOOK), "{tickets:?}");
        drop(monitor);
        running.join().unwrap().unwrap();
    }
}
