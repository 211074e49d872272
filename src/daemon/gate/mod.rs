//! The gate: all unauthenticated connections, in one event loop.
//!
//! Runs as `_cosserver` in an empty root. Owns the unauthenticated sockets, their deadlines and the
//! penalties of their sources. Holds no key, decrypts no message and can start no process. Must
//! never block on a peer.

mod connection;
mod preauth_table;
mod sources;

use std::time::Instant;

use mio::{Poll, Token};

use crate::fault::Fault;
use crate::ipc::gate::Order;
use crate::ipc::watch::{Batches, Watch};
use crate::ipc::{self, Channel, Incoming, sandbox_config};
use crate::sys::process::CHANNEL;
use crate::sys::sandbox::Role;
use crate::sys::{memory, process, signals, socket};
use preauth_table::PreauthTable;

/// The channel to the monitor. Listeners follow, then connections.
const MONITOR: Token = Token(0);

/// Runs the gate: enters the sandbox, then the event loop. Ends when the monitor does.
pub fn main() -> u8 {
    process::set_name("cos: gate");
    process::keep_private();
    memory::keep_small();
    match serve() {
        Ok(()) => process::SUCCESS,
        Err(_) => process::FAILURE,
    }
}

fn serve() -> Result<(), Fault> {
    let mut monitor = Channel::new(socket::inherited(CHANNEL)?);
    signals::leave_to_the_monitor()?;
    // Create the poll before the sandbox is active.
    let mut poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let mut watch = Watch::new(&registry, &monitor, MONITOR)?;
    sandbox_config::enter(Role::Gate, &mut monitor)?;

    let mut preauth_table = PreauthTable::new(monitor, registry);
    let mut events = Batches::of(1024);
    let mut buffer = vec![0; ipc::MESSAGE];
    loop {
        preauth_table.update(&mut watch)?;
        let now = Instant::now();
        let timeout = preauth_table
            .next_deadline(now)
            .map(|d| d.saturating_duration_since(now));
        match events.wait(&mut poll, timeout) {
            // Interrupted by a stop. Handle the events that have arrived before any deadline.
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        let now = Instant::now();
        for event in events.iter() {
            match event.token() {
                MONITOR => {
                    if !take_orders(&mut preauth_table, &mut buffer, now)? {
                        return Ok(());
                    }
                }
                token => preauth_table.ready(token, now)?,
            }
        }
        preauth_table.go_on(now)?;
        if let Some(heard) = events.heard() {
            preauth_table.pass_deadlines(heard)?;
        }
    }
}

/// Handles the monitor's orders. Returns `false` if the monitor is gone.
fn take_orders(
    preauth_table: &mut PreauthTable,
    buffer: &mut [u8],
    now: Instant,
) -> Result<bool, Fault> {
    preauth_table.monitor.flush()?;
    loop {
        match preauth_table.monitor.receive(buffer)? {
            Incoming::Message(message, fds) => {
                let order = Order::decode(&message);
                preauth_table.execute_order(
                    order.ok_or_else(|| Fault::new("an invalid order"))?,
                    fds,
                    now,
                )?;
            }
            Incoming::Nothing => return Ok(true),
            Incoming::Gone => return Ok(false),
        }
    }
}
