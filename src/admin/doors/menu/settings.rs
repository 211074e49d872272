//! The menu's screen of admin settings (seed 002, step 5): four questions, and a fifth, "Correct?".
//! Nothing changes before the fifth is answered.

use super::screen::{Left, Screen};
use crate::admin::doors::Both;
use crate::admin::doors::settings::{backdoor, default_welcome};
use crate::admin::out::Out;
use crate::config::paths::Paths;
use crate::registry::inner::Setting;

/// Asks for all settings, and stores them if the administrator confirms. Enter keeps a value.
pub(super) fn screen(screen: &mut Screen, paths: &Paths, out: &Out) -> Result<(), Left> {
    screen.say("\nAdmin Settings (Enter keeps the value in brackets)\n")?;
    loop {
        let now = Both::open(paths)?.inner.settings()?;
        let yes = |on| if on { "Y" } else { "N" };
        let mut ask = |prompt: &str, on: bool| -> Result<bool, Left> {
            let answer = screen.yes_or_enter(&format!("{prompt} (Y/N) [{}] ", yes(on)))?;
            Ok(answer.unwrap_or(on))
        };
        let build_mode = ask("Enable Build Mode?", now.build_mode)?;
        let remote_only = ask("Secure Remote Users Only?", now.remote_only)?;
        let there = if now.backdoor {
            "one is set: Enter keeps it, - removes it"
        } else {
            "Enter: none"
        };
        let prompt = format!("Backdoor Getin Password (not shown; {there}) ");
        let password = screen.password(&prompt, &[b"", b"-"])?;
        let had = !now.welcome.is_empty();
        let prompt = format!("Welcome message at start-up? (Y/N) [{}] ", yes(had));
        let welcomes = screen.yes_or_enter(&prompt)?.unwrap_or(had);
        let welcome = match (welcomes, had) {
            (false, _) => String::new(),
            (true, true) => now.welcome,
            (true, false) => default_welcome(paths),
        };
        let takes_away = password.as_slice() == b"-";
        let word = match (password.is_empty(), takes_away, now.backdoor) {
            (true, _, false) | (_, true, _) => "none",
            (true, _, true) => "as it was",
            (false, false, _) => "a new one",
        };
        screen.say(&format!(
            "Build mode {}, remote users only {}, backdoor {word}, welcome {}\n",
            yes(build_mode),
            yes(remote_only),
            if welcome.is_empty() { "none" } else { &welcome },
        ))?;
        if !screen.yes("Correct? (Y/N) ")? {
            continue;
        }
        let mut doors = Both::open(paths)?;
        let kept = if password.is_empty() {
            Ok(())
        } else if takes_away {
            doors.inner.set_backdoor(None)
        } else {
            backdoor(&mut doors.inner, &password, out)
        };
        let kept = kept.and_then(|()| {
            doors.inner.set(&[
                Setting::BuildMode(build_mode),
                Setting::RemoteOnly(remote_only),
                Setting::Welcome(welcome),
            ])
        });
        return match kept {
            Ok(()) => screen.say("The settings are kept.\n"),
            Err(e) => screen.wrong(e),
        };
    }
}
