//! The client, `cos` and `cosrsh`: see [`cosserver::client`].
#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

cosserver::entry!(cosserver::client::main);
