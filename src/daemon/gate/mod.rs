//! The gate: all strangers, however many, in one event loop.
//!
//! Runs as `_cosserver` in an empty root. It owns the strangers' sockets, their
//! deadlines and their sources' penalties. It holds no key, opens no message,
//! and can start nothing; it must never block on a peer.

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

/// The gate's life: into the cell, then the loop. It ends when the monitor does.
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
    // The poll is made before the walls are up.
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
            // Stopped meanwhile: what has come is looked at before a deadline is.
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

/// Takes the monitor's orders. `false`: it is gone.
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
                preauth_table.obey(
                    order.ok_or_else(|| Fault::new("an order that is none"))?,
                    fds,
                    now,
                )?;
            }
            Incoming::Nothing => return Ok(true),
            Incoming::Gone => return Ok(false),
        }
    }
}
