//! The login worker, which `cosserver`(8) starts. It is the only program that contains PAM's code,
//! and so the only one that is linked with libpam.

#[path = "../sys/pam.rs"]
mod pam;

fn main() -> std::process::ExitCode {
    cosserver::daemon::login::main(pam::start)
}
