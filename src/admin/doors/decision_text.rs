//! The access decision in plain words, by the same rule as the daemon's. Pure.

use crate::registry::inner::Settings;
use crate::registry::{
    AccessDecision, Id, Level, MachineStatus, PromptFor, RegistrationState, decide,
};

/// An access decision as text: a word for scripts, and words for people.
pub(in crate::admin) struct DecisionText {
    pub(in crate::admin) word: &'static str,
    pub(in crate::admin) words: String,
}

/// Describes the decision on a machine that neither door knows, by the level and the settings.
/// `waiting`: there is an unused one-time password.
pub(in crate::admin) fn unknown_machine(
    level: Level,
    settings: &Settings,
    waiting: bool,
) -> DecisionText {
    let status = MachineStatus {
        id: Id([0; 16]),
        excluded: false,
        included: false,
        level,
        state: RegistrationState::Never,
        remote_only: settings.remote_only,
        build_mode: settings.build_mode,
        passwords: waiting || settings.backdoor,
        welcome: String::new(),
    };
    let word = decision_text(&status, false, false).word;
    let how = match (word, level) {
        ("in", _) => "allowed (at level 0, only the exclude list is checked)",
        ("name", _) => "prompted for a name, which registers them (build mode is on)",
        ("password", _) => "prompted for an activation password, which registers them",
        (_, Level::Closed) => "denied (the outer door is closed)",
        _ => "denied (no activation password is set)",
    };
    let mut words = format!("unknown machines: {how}");
    if level != Level::Off {
        words += "; hosts that prove their cookie: registered, unless deleted or excluded";
        if settings.remote_only {
            words += "; connections from this host itself: allowed, unless excluded";
        }
    }
    DecisionText { word, words }
}

/// Describes the decision on this machine: as a host that proves its cookie or not, connecting
/// from this host itself or from elsewhere.
pub(super) fn decision_text(status: &MachineStatus, is_host: bool, is_local: bool) -> DecisionText {
    let (word, words) = match decide(status, is_host, is_local) {
        AccessDecision::Allow(_) if status.level == Level::Off => (
            "in",
            "is allowed: at level 0, only the exclude list is checked".to_owned(),
        ),
        AccessDecision::Allow(_) => ("in", "is allowed".to_owned()),
        AccessDecision::Prompt(PromptFor::Name) => (
            "name",
            "is prompted for a name, which registers it: build mode is on".to_owned(),
        ),
        AccessDecision::Prompt(PromptFor::Activation) => (
            "password",
            "is prompted for an activation password, which registers it".to_owned(),
        ),
        AccessDecision::Deny(_)
            if status.state == RegistrationState::Never
                && !status.excluded
                && !status.included
                && !is_host =>
        {
            let why = if status.level == Level::Closed {
                "the outer door is closed"
            } else {
                "no activation password is set"
            };
            ("refused", format!("is denied: {why}"))
        }
        AccessDecision::Deny(why) => ("refused", format!("is denied: {why}")),
    };
    DecisionText { word, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_of_an_unknown_machine_follows_the_settings() {
        let none = Settings::default();
        let build = Settings {
            build_mode: true,
            ..none.clone()
        };
        let backdoor = Settings {
            backdoor: true,
            remote_only: true,
            ..none.clone()
        };
        for (level, settings, waiting, word, words) in [
            (Level::Off, &none, false, "in", "only the exclude list"),
            (
                Level::Open,
                &none,
                false,
                "refused",
                "no activation password",
            ),
            (
                Level::Open,
                &none,
                true,
                "password",
                "for an activation password",
            ),
            (
                Level::Open,
                &backdoor,
                false,
                "password",
                "from this host itself: allowed",
            ),
            (Level::Open, &build, true, "name", "build mode is on"),
            (
                Level::Closed,
                &none,
                false,
                "refused",
                "outer door is closed",
            ),
            (
                Level::Closed,
                &build,
                true,
                "refused",
                "outer door is closed",
            ),
        ] {
            let told = unknown_machine(level, settings, waiting);
            assert_eq!(told.word, word, "{}", told.words);
            assert!(told.words.contains(words), "{}", told.words);
            assert_eq!(told.words.contains("cookie"), level != Level::Off);
        }
    }
}
