//! The daemon under the inits and inetds that it is for, each really started, in a
//! machine of the test's own; and what `make install` puts there.

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
