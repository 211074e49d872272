//! The look-up process: looks users up in NSS and hosts in the resolver.
//!
//! A fresh execution of the program, so that it never holds a secret. Runs as `_cosserver` if the
//! monitor is root, and is confined ([`crate::sys::confine`]) before any module's code runs.
//! Answers questions until the monitor is gone or needs it no more. Must never communicate with a
//! peer. The main thread answers questions about users one by one; each question about a host has
//! its own thread.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fault::Fault;
use crate::ipc::lookup::{ADDRESSES, Answer, Begin, HOSTS, QUESTION, Question};
use crate::ipc::{Channel, Incoming};
use crate::sys::account::{self, UserRecord};
use crate::sys::process::CHANNEL;
use crate::sys::{confine, memory, process, signals, socket};

/// How long the monitor may leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the look-up process until the monitor is gone.
pub fn main() -> u8 {
    process::set_name("cos: lookup");
    process::keep_private();
    memory::keep_small();
    process::ends_with_parent(true);
    match serve() {
        Ok(()) => process::SUCCESS,
        Err(_) => process::FAILURE,
    }
}

fn serve() -> Result<(), Fault> {
    let socket = socket::inherited(CHANNEL)?;
    let answers = Answers(Arc::new(Mutex::new(Channel::new(socket.try_clone()?))));
    let monitor = Channel::new(socket);
    signals::leave_to_the_monitor()?;
    let mut buffer = [0; QUESTION];
    let Some(message) = next(&monitor, &mut buffer)? else {
        return Ok(());
    };
    let begin = Begin::decode(&message).ok_or_else(|| Fault::new("no beginning"))?;
    // Keep what a module writes to standard error out of the monitor's log.
    process::quiet();
    let confined = match confine::confine(begin.user) {
        Ok(confined) => confined,
        Err(why) => {
            answers.send(&Answer::Failed(why.to_string()))?;
            // An unread question would reset the channel before the monitor has read the answer.
            while next(&monitor, &mut buffer)?.is_some() {}
            return Err(why);
        }
    };
    answers.send(&Answer::Ready(confined))?;
    if begin.warm {
        warm();
    }
    let hosts = Arc::new(AtomicUsize::new(0));
    while let Some(message) = next(&monitor, &mut buffer)? {
        let (number, question) =
            Question::decode(&message).ok_or_else(|| Fault::new("an invalid question"))?;
        match question {
            Question::User(name, groups) => {
                let found = in_groups(UserRecord::look_up(&name), groups);
                answers.send(&Answer::User(number, found))?;
            }
            Question::Number(uid, groups) => {
                let found = in_groups(UserRecord::of_number(uid), groups);
                answers.send(&Answer::User(number, found))?;
            }
            Question::Host(name) => resolve_apart(&hosts, &answers, number, name)?,
        }
    }
    Ok(())
}

/// Adds those of these groups that a user is in.
fn in_groups(
    found: Result<Option<UserRecord>, String>,
    groups: Vec<String>,
) -> Result<Option<Box<UserRecord>>, String> {
    Ok(found?.map(|record| Box::new(record.in_groups(groups))))
}

/// Returns the next message, or `None` if the monitor is gone.
fn next(
    monitor: &Channel,
    buffer: &mut [u8],
) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Fault> {
    loop {
        monitor.wait();
        match monitor.receive(buffer)? {
            Incoming::Message(message, _) => return Ok(Some(message)),
            Incoming::Nothing => {}
            Incoming::Gone => return Ok(None),
        }
    }
}

/// The channel for the answers, shared by all threads.
#[derive(Clone)]
struct Answers(Arc<Mutex<Channel>>);

impl Answers {
    fn send(&self, answer: &Answer) -> Result<(), Fault> {
        let broken = || Fault::new("a thread has panicked");
        let mut channel = self.0.lock().map_err(|_| broken())?;
        for message in answer.encode() {
            channel.send(message, Vec::new())?;
        }
        channel.settle(PATIENCE);
        if channel.is_waiting() {
            return Err(Fault::new("the monitor does not read"));
        }
        Ok(())
    }
}

/// Loads what the look-up of a user needs, unless that would ask a directory server. No server may
/// be asked before a client has authenticated.
fn warm() {
    if account::is_local_only(&std::fs::read("/etc/nsswitch.conf").unwrap_or_default()) {
        let _ = account::look_up("root");
    }
}

/// Resolves a name in its own thread, or in this one if too many threads run already or none can be
/// started.
fn resolve_apart(
    hosts: &Arc<AtomicUsize>,
    answers: &Answers,
    number: u64,
    name: String,
) -> Result<(), Fault> {
    if hosts.fetch_add(1, Ordering::Relaxed) < HOSTS {
        let (count, to, host) = (Arc::clone(hosts), answers.clone(), name.clone());
        let started = std::thread::Builder::new().spawn(move || {
            let answer = Answer::Host(number, resolve(&host));
            // Count down before the answer: the monitor's next question may come at once.
            count.fetch_sub(1, Ordering::Relaxed);
            // If the monitor is gone, the main thread notices.
            let _ = to.send(&answer);
        });
        if started.is_ok() {
            return Ok(());
        }
    }
    hosts.fetch_sub(1, Ordering::Relaxed);
    answers.send(&Answer::Host(number, resolve(&name)))
}

fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|e| e.to_string())?;
    let mut addresses = Vec::new();
    for address in found.map(|a| a.ip().to_canonical()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.len() > ADDRESSES {
        return Err(format!("it has more than {ADDRESSES} addresses"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_each_of_its_addresses_once() {
        let found = resolve("127.0.0.1").unwrap();
        assert_eq!(found, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(resolve("no.such.host.invalid").is_err());
    }
}
