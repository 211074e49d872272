//! PAM's conversation: its questions to the monitor, the answers back. Run by the
//! login worker.
//!
//! What PAM only tells is held until it asks, or until the login has succeeded:
//! "your account has expired" must not tell a stranger more than a refusal does. Once it
//! is known who he is nobody is asked any more: a session's module that asks gets no
//! answer, and the stack says whether that matters.

use std::cell::RefCell;
use std::rc::Rc;

use super::Line;
use super::pam::{Converse, Message, Reply, Style as PamStyle};
use crate::ipc::login::{Order, WorkerToMonitor};
use crate::protocol::limits;
use crate::protocol::prompt::{Style, Text, fit};

/// The texts that are held.
pub(super) type Held = Rc<RefCell<Vec<Text>>>;

/// PAM's partner.
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
        // The questions must get through, whatever was told before.
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
            // Nobody is there who could answer: PAM goes on to its verdict without.
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
