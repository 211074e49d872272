//! What the inner door shows the user of an unknown machine. Runs in the monitor.

use crate::protocol::prompt::{Asks, Style, Text};
use crate::registry::PromptFor;

/// Returns who asks, and the texts that the user is shown.
pub(super) fn texts(want: PromptFor) -> (Asks, Vec<Text>) {
    let text = |style, words: &str| Text {
        style,
        words: words.to_owned(),
    };
    match want {
        PromptFor::Name => (
            Asks::Name,
            vec![
                text(Style::Info, "This machine is not registered here yet."),
                text(Style::Shown, "Enter your name: "),
            ],
        ),
        PromptFor::Activation => (
            Asks::Activation,
            vec![
                text(
                    Style::Info,
                    "You have not been authorized to sign on to this system.",
                ),
                text(
                    Style::Info,
                    "In order to do so you must enter an ACTIVATION password.",
                ),
                text(Style::Hidden, "Please enter your ACTIVATION password: "),
            ],
        ),
    }
}

/// Returns what is wanted of the user, as the log has it.
pub(super) const fn name(want: PromptFor) -> &'static str {
    match want {
        PromptFor::Name => "name",
        PromptFor::Activation => "activation",
    }
}
