//! The login worker of `cosserver`(8): the monitor starts it, and nobody else.

fn main() -> std::process::ExitCode {
    cosserver::login::main()
}
