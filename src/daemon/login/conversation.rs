//! PAM's conversation: carries its questions to the monitor, and the answers back.
//!
//! Runs in the login worker. Holds PAM's information texts until PAM asks a question or the login
//! has succeeded: a text such as "your account has expired" must not tell an unauthenticated client
//! more than a refusal does. Once the user is authenticated, no question is asked any more: a
//! session module that asks gets no answer, and the PAM stack decides whether that matters.

use std::cell::RefCell;
use std::rc::Rc;

use super::Line;
use super::pam::{Converse, Message, Reply, Style as PamStyle};
use crate::ipc::login::{Order, WorkerToMonitor};
use crate::protocol::limits;
use crate::protocol::prompt::{Style, Text, fit};

/// The texts that are held.
pub(super) type Held = Rc<RefCell<Vec<Text>>>;

/// The application's side of the PAM conversation.
pub(super) struct Conversation {
    line: Line,
    held: Held,
    rounds: usize,
}

impl Conversation {
    pub(super) const fn new(line: Line, held: Held) -> Self {
        Self {
            line,
            held,
            rounds: 0,
        }
    }
}

impl Converse for Conversation {
    fn converse(&mut self, messages: Vec<Message>) -> Option<Vec<Reply>> {
        let new: Vec<Text> = messages.into_iter().map(text).collect();
        let prompts = new.iter().filter(|t| t.style.is_prompt()).count();
        let mut held = self.held.borrow_mut();
        // The questions must fit in, whatever texts are held already.
        let room = limits::PROMPTS.saturating_sub(new.len());
        held.truncate(room);
        held.extend(new);
        if prompts == 0 {
            return Some(Vec::new());
        }
        self.rounds += 1;
        if self.rounds > limits::ROUNDS || self.line.known.get() {
            return None;
        }
        let ask = WorkerToMonitor::Ask(fit(std::mem::take(&mut *held)));
        drop(held);
        self.line.say(&ask).ok()?;
        let answer = self.line.next();
        self.line.outlive_monitor();
        match answer {
            Ok((Order::Answers(answers), _)) if answers.len() == prompts => Some(answers),
            // There is no answer: PAM goes on to its decision without one.
            _ => None,
        }
    }
}

fn text(message: Message) -> Text {
    let style = match message.style {
        PamStyle::Hidden => Style::Hidden,
        PamStyle::Shown => Style::Shown,
        PamStyle::Info => Style::Info,
        PamStyle::Error => Style::Error,
    };
    Text {
        style,
        words: message.words,
    }
}
