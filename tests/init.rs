//! The daemon under the supported inits and inetds, each really started, in a test machine; and
//! what `make install` installs.

#[path = "init/fail2ban.rs"]
mod fail2ban;
#[path = "init/inetd.rs"]
mod inetd;
#[path = "init/install.rs"]
mod install;
#[path = "init/supervised.rs"]
mod supervised;
#[path = "init/sysv.rs"]
mod sysv;
#[path = "init/texts.rs"]
mod texts;
