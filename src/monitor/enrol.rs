//! A machine that wanted to be known is: it hears so, and that is all. The last step of
//! its walk; what goes to the relay is a session without anything in it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::Monitor;
use super::answer::Halt;
use super::login;
use super::sessions::{Leader, Whose};
use super::talk::Talk;
use crate::channel::gate::{Connection, Order};
use crate::channel::relay::Session;
use crate::credential::Newcomer;
use crate::door::{Id, Known, Machine};
use crate::log::Level;
use crate::refusal::{Cause, Refusal};
use crate::sys::socket;
use crate::wire::answer::Answer;
use crate::wire::prompt::Text;
use crate::wire::record::{self, Kind};
use crate::wire::request::ENROL;
use crate::wire::stream::End;

impl Monitor {
    /// Tells a machine that it is known.
    pub(super) fn accept_newcomer(
        &mut self,
        connection: Connection,
        known: Known<Box<Newcomer>>,
        socket: OwnedFd,
        talk: Option<Box<Talk>>,
        texts: Vec<Text>,
        now: Instant,
    ) -> Result<(), Halt> {
        let mut newcomer = known.into_who();
        let peer = newcomer.peer();
        if let Some(why) = self.cannot_start() {
            let refusal = Refusal::new(Cause::Busy, why).of(peer);
            return Err(refusal.of_stranger(true).into());
        }
        let proof = None;
        let payload = Answer::Accept { proof, texts }.encode()?;
        let (answer, keys) = match talk {
            None => {
                let (message, keys) = newcomer.message_2(&payload)?;
                (record::compose(Kind::Answer, &message)?, keys)
            }
            Some(mut talk) => (talk.seal(&payload)?, talk.into_keys()?),
        };
        let (session, id) = (self.sessions.number(), Id::of(newcomer.machine()));
        let whose = Whose {
            host: String::new(),
            user: String::new(),
            peer,
            caller: newcomer.caller_user().to_string(),
            service: ENROL.to_owned(),
            machines: vec![id],
            command: String::new(),
            holders: Vec::new(),
        };
        // Whoever is let in can cause as many as he likes.
        self.log.say_noise(
            Level::Info,
            "enrol",
            &[
                ("session", &session),
                ("peer", &peer),
                ("machine", &id),
                ("caller", &newcomer.caller_user()),
            ],
        );
        let answer = socket::send_now(socket.as_fd(), answer);
        self.tell_gate(Order::Taken(connection).encode());
        let handed = login::nothing().and_then(|streams| {
            self.hand_over(
                session,
                whose,
                Leader::Nobody,
                streams,
                socket,
                &Session {
                    answer,
                    keys,
                    linger: 0,
                    windows: self.windows(),
                },
                now,
            )
        });
        match handed {
            Ok(()) => {
                let finished = self.sessions.told(session, End::Exited(0), now);
                self.log_end(finished);
            }
            Err(e) => self.log.say(Level::Error, "fault", &[("why", &e)]),
        }
        Ok(())
    }
}
