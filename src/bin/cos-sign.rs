//! `cos-sign`(8): the signer as a set-uid program, for a host without a daemon. Reads a request's
//! fields from standard input and writes the answer that the daemon's socket would give; see
//! [`cosserver::signer`]. It has no options and uses no environment.

use std::process::ExitCode;

fn main() -> ExitCode {
    cosserver::signer::program::main()
}
