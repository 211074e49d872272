//! The client, `cos` and `cosrsh`: see [`cosserver::client`].

fn main() -> std::process::ExitCode {
    cosserver::client::main()
}
