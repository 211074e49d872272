//! `cos-sign`(8): the signer as a set-uid program, for a host that runs no daemon. It
//! takes a request's fields on standard input and writes what the daemon's socket would
//! answer; see [`cosserver::signer`]. It has no options and uses no environment.

use std::process::ExitCode;

fn main() -> ExitCode {
    cosserver::signer::program::main()
}
