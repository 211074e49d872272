//! The login worker of `cosserver`(8), which starts it. The only program that has PAM's code,
//! and so the only one that is linked with libpam.

#[path = "../sys/pam.rs"]
mod pam;

fn main() -> std::process::ExitCode {
    cosserver::daemon::login::main(pam::start)
}
