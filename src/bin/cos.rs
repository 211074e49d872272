//! The client, `cos` and `cosrsh`: see [`cosserver::client`].
#![cfg_attr(all(target_os = "linux", target_env = "gnu"), no_main)]

cosserver::client_main!(cosserver::client::main);
