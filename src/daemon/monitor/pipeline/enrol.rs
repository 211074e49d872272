//! The last step of a registration: tells the machine that it is registered, and gives the relay an
//! empty session. Runs in the monitor.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::handover::Handover;
use crate::auth::AuthenticatedMachine;
use crate::daemon::monitor::Monitor;
use crate::daemon::monitor::conversation::Conversation;
use crate::daemon::monitor::login;
use crate::daemon::monitor::preauth::Reject;
use crate::daemon::monitor::sessions::{Leader, SessionInfo};
use crate::ipc::Channel;
use crate::ipc::gate::{Connection, Order};
use crate::ipc::relay::Session;
use crate::log::{log, log_ratelimited};
use crate::protocol::answer::Answer;
use crate::protocol::prompt::Text;
use crate::protocol::record::{self, Kind};
use crate::protocol::request::ENROL;
use crate::protocol::stream::End;
use crate::refusal::{Cause, Refusal};
use crate::registry::{Id, Known, Machine};
use crate::sys::socket;

impl Monitor {
    /// Tells a machine that it is registered.
    pub(in crate::daemon::monitor) fn accept_registration(
        &mut self,
        connection: Connection,
        known: Known<Box<AuthenticatedMachine>>,
        socket: OwnedFd,
        conversation: Option<Box<Conversation>>,
        texts: Vec<Text>,
        now: Instant,
    ) -> Result<(), Reject> {
        let mut authenticated_machine = known.into_inner();
        let peer = authenticated_machine.peer();
        if let Some(why) = self.cannot_start() {
            let refusal = Refusal::new(Cause::Busy, why).of(peer);
            return Err(refusal.from_unauthenticated(true).into());
        }
        let proof = None;
        let payload = Answer::Accept { proof, texts }.encode()?;
        let (answer, keys) = match conversation {
            None => {
                let (message, keys) = authenticated_machine.message_2(&payload)?;
                (record::compose(Kind::Answer, &message)?, keys)
            }
            Some(mut conversation) => (conversation.seal(&payload)?, conversation.into_keys()?),
        };
        let (session, id) = (
            self.sessions.number(),
            Id::of(authenticated_machine.machine()),
        );
        let info = SessionInfo {
            host: String::new(),
            user: String::new(),
            peer,
            caller: authenticated_machine.caller_user().to_string(),
            service: ENROL.to_owned(),
            machines: vec![id],
            command: String::new(),
            holders: Vec::new(),
        };
        // An admitted machine can cause any number of these.
        log_ratelimited!(
            self.log,
            Info,
            "enrol",
            session,
            peer,
            machine = id,
            caller = authenticated_machine.caller_user()
        );
        let answer = socket::send_now(socket.as_fd(), answer);
        self.send_to_gate(Order::Taken(connection).encode());
        let handed = login::nothing().and_then(|streams| {
            let handover = Handover {
                id: session,
                info,
                leader: Leader::Detached,
                streams,
                socket,
                channel: Channel::pair()?,
                session: Session {
                    answer,
                    keys,
                    linger: 0,
                    windows: self.windows(),
                },
            };
            self.hand_over(handover, now)
        });
        match handed {
            Ok(()) => {
                let finished = self.sessions.told(session, End::Exited(0), now);
                self.log_end(finished);
            }
            Err(e) => log!(self.log, Error, "fault", why = e),
        }
        Ok(())
    }
}
