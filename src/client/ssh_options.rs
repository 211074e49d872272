//! ssh's options, `-o KEY=VALUE`, each parsed into what it asks for here. Pure: runs in the client
//! while it reads its command line.
//!
//! Options that select the host or the command act like the flag that does the same. Options that
//! cannot be honored are refused, as their flags are. ssh's other options (keys, ciphers, shared
//! connections) mean nothing here and are ignored, since tools send them with each call. An option
//! that ssh does not have either is reported.

use std::num::NonZeroU16;
use std::time::Duration;

use super::call::{Family, Personality};
use super::flags::NO_FORWARDING;
use super::values::{self, Destination};
use crate::config::address::Address;
use crate::config::linger::Linger;
use crate::config::name::{HostName, UserName};
use crate::config::words::did_you_mean;
use crate::fault::Fault;

/// What one option asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// How long connecting may take.
    ConnectTimeout(Option<Duration>),
    /// Seconds of silence after which the host is probed.
    KeepAlive(u32),
    /// The remote user.
    User(UserName),
    /// The port.
    Port(NonZeroU16),
    /// The host to connect to, with `%h` for the one on the command line.
    HostName(String),
    /// A family of addresses, or any.
    Family(Option<Family>),
    /// Names and patterns of variables.
    SendEnv(Vec<String>),
    /// Variables and their values.
    SetEnv(Vec<(String, String)>),
    /// Whether the user must not be asked.
    Batch(bool),
    /// The address to connect from.
    BindAddress(Option<String>),
    /// The interface to connect from.
    BindInterface(Option<String>),
    /// The hosts to connect through.
    Jumps(Vec<Destination>),
    /// The command, where no words are given.
    RemoteCommand(Option<String>),
    /// Our own option: `cos` on the hosts in between.
    JumpProgram(String),
    /// Our own option: the quiet time.
    Linger(Linger),
    /// Whether there is no standard input.
    NoInput(bool),
    /// Whether to go to the background.
    Background(bool),
    /// Whether a terminal is requested; `None`: the default.
    Terminal(Option<bool>),
    /// No command.
    NoCommand,
    /// The command's only word names a subsystem.
    Subsystem,
    /// No notes.
    Quiet,
    /// Whether forwardings are cancelled.
    ClearForwardings(bool),
    /// A forwarding; the text says why there is none.
    Forwarding(String),
    /// An option that cannot be honored; the text says why.
    Refused(String),
    /// It changes nothing here.
    PassedOver,
    /// Patterns of options that are not reported.
    IgnoreUnknown(Vec<String>),
    /// An option that ssh does not have, as far as we know: its key, and what is wrong with it.
    Unknown(String, String),
}

impl Setting {
    /// Whether an option can mean something to a personality.
    pub(super) const fn is_for(&self, personality: Personality) -> bool {
        match self {
            Self::ConnectTimeout(_)
            | Self::KeepAlive(_)
            | Self::Family(_)
            | Self::Quiet
            | Self::PassedOver
            | Self::IgnoreUnknown(_)
            | Self::Unknown(..) => true,
            Self::Port(_) | Self::HostName(_) | Self::Batch(_) => {
                !matches!(personality, Personality::Connect)
            }
            Self::User(_) => !matches!(personality, Personality::Connect | Personality::Enrol),
            Self::SendEnv(_) | Self::SetEnv(_) | Self::Linger(_) | Self::NoInput(_) => !matches!(
                personality,
                Personality::Connect | Personality::Enrol | Personality::Services
            ),
            Self::BindAddress(_)
            | Self::BindInterface(_)
            | Self::Jumps(_)
            | Self::JumpProgram(_) => !matches!(
                personality,
                Personality::Connect | Personality::Enrol | Personality::Gui
            ),
            Self::RemoteCommand(_)
            | Self::Background(_)
            | Self::Terminal(_)
            | Self::NoCommand
            | Self::Subsystem
            | Self::ClearForwardings(_)
            | Self::Forwarding(_)
            | Self::Refused(_) => !matches!(
                personality,
                Personality::Connect
                    | Personality::Enrol
                    | Personality::Gui
                    | Personality::Open
                    | Personality::Services
            ),
        }
    }
}

/// The keys of `-o` that ssh does not have.
pub(super) const OURS: [&str; 2] = ["Linger", "JumpProgram"];

/// ssh's keys that act here.
const ACTING: [&str; 19] = [
    "AddressFamily",
    "BatchMode",
    "BindAddress",
    "BindInterface",
    "ClearAllForwardings",
    "ConnectTimeout",
    "ForkAfterAuthentication",
    "HostName",
    "LogLevel",
    "Port",
    "ProxyJump",
    "RemoteCommand",
    "RequestTTY",
    "SendEnv",
    "ServerAliveInterval",
    "SessionType",
    "SetEnv",
    "StdinNull",
    "User",
];

/// The other keys that ssh_config(5) has or had, including those that distributions add, in lower
/// case.
const IGNORED_KEYS: &str = " addkeystoagent afstokenpassing canonicaldomains \
 canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames \
 casignaturealgorithms certificatefile challengeresponseauthentication channeltimeout checkhostip \
 cipher ciphers compression compressionlevel connectionattempts controlmaster controlpath \
 controlpersist dsaauthentication enableescapecommandline enablesshkeysign escapechar \
 exitonforwardfailure fallbacktorsh fingerprinthash forwardagent forwardx11 forwardx11timeout \
 forwardx11trusted gatewayports globalknownhostsfile globalknownhostsfile2 gssapiauthentication gssapiclientidentity \
 gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey \
 gssapiserveridentity gssapitrustdns hashknownhosts hostbasedacceptedalgorithms \
 hostbasedauthentication hostbasedkeytypes hostkeyalgorithms hostkeyalias identitiesonly \
 identityagent identityfile identityfile2 include ipqos kbdinteractiveauthentication \
 kbdinteractivedevices keepalive kerberosauthentication kerberostgtpassing kexalgorithms \
 knownhostscommand localcommand logverbose macs nohostauthenticationforlocalhost \
 numberofpasswordprompts obscurekeystroketiming passwordauthentication permitlocalcommand \
 permitremoteopen pkcs11provider preferredauthentications protocol protocolkeepalives proxyusefdpass pubkeyacceptedalgorithms \
 pubkeyacceptedkeytypes pubkeyauthentication refuseconnection rekeylimit requiredrsasize revokedhostkeys \
 rhostsauthentication rhostsrsaauthentication rsaauthentication securitykeyprovider \
 serveralivecountmax setuptimeout skeyauthentication smartcarddevice streamlocalbindmask streamlocalbindunlink \
 stricthostkeychecking syslogfacility tag tcpkeepalive tisauthentication tunneldevice \
 updatehostkeys useblacklistedkeys usekeychain useprivilegedport userknownhostsfile userknownhostsfile2 useroaming usersh \
 verifyhostkeydns versionaddendum visualhostkey warnweakcrypto xauthlocation ";

/// Parses an option in ssh's form: a key in any case, a `=` or a blank, and its value, which may be
/// in quotes.
///
/// # Errors
/// It is not of that form, or the value is invalid for this key.
pub(super) fn parse(setting: &str) -> Result<Setting, Fault> {
    let Some((key, value)) = setting.trim_start_matches(BLANKS).split_once(SEPARATORS) else {
        let words = format!("-o {} is not of the form KEY=VALUE", cut(setting));
        return Err(Fault::new(words));
    };
    let whole = value.trim_start_matches(SEPARATORS);
    let value = whole.trim_end_matches(BLANKS).trim_matches(['"', '\'']);
    let is_none = value.eq_ignore_ascii_case("none");
    let given = || Some(value).filter(|_| !is_none).map(str::to_owned);
    let name = cut(key);
    let wrong = |words: &str| Fault::new(format!("-o {name}={}: {words}", cut(value)));
    let yes = || yes_or_no(value).ok_or_else(|| wrong("neither yes nor no"));
    Ok(match key.to_ascii_lowercase().as_str() {
        "connecttimeout" => Setting::ConnectTimeout(values::seconds(value, "ConnectTimeout")?),
        "serveraliveinterval" => Setting::KeepAlive(values::keep_alive(value)?),
        "user" => Setting::User(values::user(value, "-o User=")?),
        "port" => Setting::Port(values::port(value, "-o Port=")?),
        "hostname" if value.is_empty() => return Err(wrong("the host has no name")),
        "hostname" => Setting::HostName(value.to_owned()),
        "addressfamily" => Setting::Family(match value.to_ascii_lowercase().as_str() {
            "any" => None,
            "inet" => Some(Family::V4),
            "inet6" => Some(Family::V6),
            _ => return Err(wrong("not any, inet or inet6")),
        }),
        "sendenv" => Setting::SendEnv(value.split_ascii_whitespace().map(str::to_owned).collect()),
        "setenv" => Setting::SetEnv(variables(whole)?),
        "batchmode" => Setting::Batch(yes()?),
        "bindaddress" => Setting::BindAddress(given()),
        "bindinterface" => Setting::BindInterface(given()),
        "proxyjump" => Setting::Jumps(values::jumps(value, "-o ProxyJump=")?),
        // As in ssh, up to the end and with its quotes.
        "remotecommand" => {
            Setting::RemoteCommand(Some(whole).filter(|_| !is_none).map(str::to_owned))
        }
        "jumpprogram" => Setting::JumpProgram(values::program(value)?),
        "linger" => Setting::Linger(Linger::parse(value).map_err(|e| e.while_doing("-o Linger="))?),
        "stdinnull" => Setting::NoInput(yes()?),
        "forkafterauthentication" => Setting::Background(yes()?),
        "requesttty" => match value.to_ascii_lowercase().as_str() {
            "auto" => Setting::Terminal(None),
            "force" => Setting::Terminal(Some(true)),
            _ => Setting::Terminal(Some(
                yes_or_no(value).ok_or_else(|| wrong("not yes, no, force or auto"))?,
            )),
        },
        "sessiontype" => match value.to_ascii_lowercase().as_str() {
            "default" => Setting::PassedOver,
            "none" => Setting::NoCommand,
            "subsystem" => Setting::Subsystem,
            _ => return Err(wrong("not none, subsystem or default")),
        },
        "loglevel" if is_quiet(value) => Setting::Quiet,
        "ignoreunknown" => {
            let patterns = value.split([',', ' ']).filter(|word| !word.is_empty());
            Setting::IgnoreUnknown(patterns.map(str::to_ascii_lowercase).collect())
        }
        "clearallforwardings" => Setting::ClearForwardings(yes()?),
        "localforward" | "remoteforward" | "dynamicforward" => {
            Setting::Forwarding(format!("-o {name}: {NO_FORWARDING}"))
        }
        "tunnel" if yes_or_no(value) != Some(false) => {
            Setting::Forwarding(format!("-o {name}: there are no tunnel devices"))
        }
        "proxycommand" if !is_none => Setting::Refused(format!(
            "-o {name}: no other program makes the connection; use -J HOST"
        )),
        "loglevel" | "tunnel" | "proxycommand" => Setting::PassedOver,
        known if IGNORED_KEYS.split(' ').any(|word| word == known) => Setting::PassedOver,
        _ => {
            let meant = did_you_mean(key, ACTING.into_iter().chain(OURS));
            Setting::Unknown(
                key.to_ascii_lowercase(),
                format!("-o {name} is not known{meant}"),
            )
        }
    })
}

/// The separators of a key and its value, besides `=`.
const BLANKS: [char; 2] = [' ', '\t'];
const SEPARATORS: [char; 3] = ['=', ' ', '\t'];

/// Returns the key of an option in ssh's form.
pub(super) fn key(setting: &str) -> &str {
    let setting = setting.trim_start_matches(BLANKS);
    setting.split(SEPARATORS).next().unwrap_or(setting)
}

/// Returns a word of the command line as a message shows it: at most 60 characters.
fn cut(text: &str) -> String {
    const MOST: usize = 60;
    let shown: String = text.chars().take(MOST).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{}{more}", shown.escape_debug())
}

/// Whether ssh prints no notes at this log level.
fn is_quiet(level: &str) -> bool {
    ["quiet", "fatal", "error"]
        .iter()
        .any(|quiet| level.eq_ignore_ascii_case(quiet))
}

/// Parses ssh's words for yes and no.
fn yes_or_no(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// Parses the variables of SetEnv: `NAME=VALUE`, separated by blanks. Quotes hold a value with
/// blanks together, a backslash precedes a literal quote or blank, and # begins a comment. The
/// request checks which names the protocol allows.
fn variables(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let wrong = |what: &str| Fault::new(format!("-o SetEnv: {what}"));
    let escaped = |c: Option<&char>| matches!(c, Some('"' | '\'' | '\\' | ' '));
    let (mut all, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', _) if escaped(characters.peek()) => {
                word.extend(characters.next());
                is_word = true;
            }
            ('#', None) if !is_word => break,
            (q, Some(open)) if q == open => quote = None,
            ('"' | '\'', None) => (quote, is_word) = (Some(c), true),
            (' ' | '\t', None) => {
                if std::mem::take(&mut is_word) {
                    all.push(std::mem::take(&mut word));
                }
            }
            _ => {
                word.push(c);
                is_word = true;
            }
        }
    }
    if quote.is_some() {
        return Err(wrong("a quote is not closed"));
    }
    if is_word {
        all.push(word);
    }
    let parted = all.into_iter().map(|word| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(wrong(&format!(
            "{} is not of the form NAME=VALUE",
            cut(&word)
        ))),
    });
    parted.collect()
}

/// Expands HostName: `%h` is the host of the command line, `%%` a percent sign. The result becomes
/// a word for a shell (`-J`), and a line for programs that parse the output of `ssh -G`.
///
/// # Errors
/// Another letter follows the sign, or the result is neither a host's name nor an address.
pub(super) fn host_name(pattern: &str, host: &str) -> Result<String, Fault> {
    let mut name = String::new();
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match (c, c == '%') {
            (_, false) => name.push(c),
            (_, true) => match characters.next() {
                Some('h') => name.push_str(host),
                Some('%') => name.push('%'),
                _ => {
                    let words = "only %h and %% are known";
                    return Err(Fault::new(format!("-o HostName={}: {words}", cut(pattern))));
                }
            },
        }
    }
    // A zone may have any name.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:%[]".contains(c);
    let is_host = Address::parse(&name).is_ok() || HostName::parse(&name).is_ok();
    if !is_host || !name.chars().all(plain) {
        let words = "it is neither a host's name nor an address";
        return Err(Fault::new(format!("-o HostName={}: {words}", cut(&name))));
    }
    Ok(name)
}

#[cfg(test)]
#[path = "ssh_options_tests.rs"]
mod tests;
