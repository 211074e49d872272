//! `cosadm`(8), the administrator's program.

fn main() -> std::process::ExitCode {
    cosserver::admin::main()
}
