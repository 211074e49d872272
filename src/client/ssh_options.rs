//! ssh's options, `-o KEY=VALUE`, each parsed into what it asks for here. Pure: run by the client
//! while it reads its command line.
//!
//! What says where or what to run acts as its flag does, or is refused as its flag is. What ssh
//! has for keys, ciphers, shared connections and questions means nothing here and is passed over,
//! since tools send it with each call. What ssh does not have either is probably misspelt.

use std::num::NonZeroU16;
use std::time::Duration;

use super::args::Family;
use super::values::{self, Destination};
use crate::config::linger::Linger;
use crate::config::name::UserName;
use crate::config::words::did_you_mean;
use crate::fault::Fault;
use crate::wire::request::is_variable;

/// What one option asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// How long connecting may take.
    ConnectTimeout(Option<Duration>),
    /// Seconds of silence after which the host is asked whether it is there.
    KeepAlive(u32),
    /// The remote user.
    User(UserName),
    /// The port.
    Port(NonZeroU16),
    /// The host to connect to, with `%h` for the one that was named.
    HostName(String),
    /// A family of addresses, or any.
    Family(Option<Family>),
    /// Names and patterns of variables.
    SendEnv(Vec<String>),
    /// Variables and their values.
    SetEnv(Vec<(String, String)>),
    /// Whether no person is to be asked.
    Batch(bool),
    /// The address to connect from.
    BindAddress(Option<String>),
    /// The interface to connect from.
    BindInterface(Option<String>),
    /// The hosts to connect through.
    Jumps(Vec<Destination>),
    /// The command, where no words are given.
    RemoteCommand(Option<String>),
    /// Our own: `cos` on the hosts in between.
    JumpProgram(String),
    /// Our own: the quiet time.
    Linger(Linger),
    /// Whether there is no standard input.
    NoInput(bool),
    /// Whether to go to the background.
    Background(bool),
    /// Whether a terminal is asked for; `None`: as it comes.
    Terminal(Option<bool>),
    /// No command.
    NoCommand,
    /// The command's only word names a subsystem.
    Subsystem,
    /// No notes.
    Quiet,
    /// Whether forwardings are forgotten.
    ClearForwardings(bool),
    /// A forwarding; why there is none.
    Forwarding(String),
    /// What cannot be honored, and why.
    Refused(String),
    /// It changes nothing here.
    PassedOver,
    /// ssh has no such option, as far as we know: what is wrong with it.
    Unknown(String),
}

/// The keys of `-o` that ssh does not have.
pub(super) const OURS: [&str; 2] = ["Linger", "JumpProgram"];

/// ssh's keys that act here.
const ACTING: [&str; 25] = [
    "AddressFamily",
    "BatchMode",
    "BindAddress",
    "BindInterface",
    "ClearAllForwardings",
    "ConnectTimeout",
    "DynamicForward",
    "ForkAfterAuthentication",
    "HostName",
    "LocalForward",
    "LogLevel",
    "Port",
    "ProxyCommand",
    "ProxyJump",
    "RemoteCommand",
    "RemoteForward",
    "RequestTTY",
    "SendEnv",
    "ServerAliveInterval",
    "SessionType",
    "SetEnv",
    "StdinNull",
    "Tunnel",
    "User",
    "ProxyUseFdpass",
];

/// The others that ssh_config(5) has, of OpenSSH 9.9 and before, in small letters.
const PASSED_OVER: &str = " addkeystoagent afstokenpassing canonicaldomains \
 canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames \
 casignaturealgorithms certificatefile challengeresponseauthentication channeltimeout checkhostip \
 cipher ciphers compression compressionlevel connectionattempts controlmaster controlpath \
 controlpersist dsaauthentication enableescapecommandline enablesshkeysign escapechar \
 exitonforwardfailure fallbacktorsh fingerprinthash forwardagent forwardx11 forwardx11timeout \
 forwardx11trusted gatewayports globalknownhostsfile gssapiauthentication gssapiclientidentity \
 gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey \
 gssapiserveridentity gssapitrustdns hashknownhosts hostbasedacceptedalgorithms \
 hostbasedauthentication hostbasedkeytypes hostkeyalgorithms hostkeyalias identitiesonly \
 identityagent identityfile ignoreunknown include ipqos kbdinteractiveauthentication \
 kbdinteractivedevices keepalive kerberosauthentication kerberostgtpassing kexalgorithms \
 knownhostscommand localcommand logverbose macs nohostauthenticationforlocalhost \
 numberofpasswordprompts obscurekeystroketiming passwordauthentication permitlocalcommand \
 permitremoteopen pkcs11provider preferredauthentications protocol pubkeyacceptedalgorithms \
 pubkeyacceptedkeytypes pubkeyauthentication rekeylimit requiredrsasize revokedhostkeys \
 rhostsauthentication rhostsrsaauthentication rsaauthentication securitykeyprovider \
 serveralivecountmax skeyauthentication smartcarddevice streamlocalbindmask streamlocalbindunlink \
 stricthostkeychecking syslogfacility tag tcpkeepalive tisauthentication tunneldevice \
 updatehostkeys useblacklistedkeys usekeychain useprivilegedport userknownhostsfile usersh \
 verifyhostkeydns versionaddendum visualhostkey warnweakcrypto xauthlocation ";

const NO_FORWARDING: &str = "there is no port forwarding";

/// Parses an option in ssh's form: a key in any case, a `=` or a blank, and its value, which may
/// stand in quotes.
///
/// # Errors
/// It is not of that form, or the value is none of this key.
pub(super) fn parse(setting: &str) -> Result<Setting, Fault> {
    let Some((key, value)) = setting.split_once(['=', ' ']) else {
        return Err(Fault::new(format!(
            "-o {setting:?} is not of the form KEY=VALUE"
        )));
    };
    let key = key.trim();
    let whole = value.trim_start_matches([' ', '=']);
    let value = value.trim_matches([' ', '=', '"']);
    let is_none = value.eq_ignore_ascii_case("none");
    let given = || Some(value).filter(|_| !is_none).map(str::to_owned);
    let wrong = |words: &str| Fault::new(format!("-o {key}={value}: {words}"));
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
        // As ssh has it, up to its end and with its quotes.
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
        "loglevel" if value.eq_ignore_ascii_case("quiet") => Setting::Quiet,
        "clearallforwardings" => Setting::ClearForwardings(yes()?),
        "localforward" | "remoteforward" | "dynamicforward" => {
            Setting::Forwarding(format!("-o {key}: {NO_FORWARDING}"))
        }
        "tunnel" if yes_or_no(value) != Some(false) => {
            Setting::Forwarding(format!("-o {key}: there are no tunnel devices"))
        }
        "proxycommand" if !is_none => Setting::Refused(format!(
            "-o {key}: no other program makes the connection; -J HOST connects through a host"
        )),
        "loglevel" | "tunnel" | "proxycommand" | "proxyusefdpass" => Setting::PassedOver,
        known if PASSED_OVER.split(' ').any(|word| word == known) => Setting::PassedOver,
        _ => {
            let meant = did_you_mean(key, ACTING.into_iter().chain(OURS));
            Setting::Unknown(format!("-o {key} is not known{meant}"))
        }
    })
}

/// ssh's words for yes and no.
fn yes_or_no(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// The variables of SetEnv: `NAME=VALUE`, separated by blanks. Quotes hold a value with blanks
/// together, and a backslash stands before a quote that is meant itself.
fn variables(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let wrong = |what: &str| Fault::new(format!("-o SetEnv: {what}"));
    let (mut all, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', _) if matches!(characters.peek(), Some('"' | '\'' | '\\')) => {
                word.extend(characters.next());
            }
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
        Some((name, value)) if is_variable(name) => Ok((name.to_owned(), value.to_owned())),
        _ => Err(wrong(&format!("{word:?} is not of the form NAME=VALUE"))),
    });
    parted.collect()
}

/// The host of HostName: `%h` is the one that was named, `%%` a percent sign.
///
/// # Errors
/// Another letter follows the sign.
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
                    let words = format!("-o HostName={pattern}: only %h and %% are known");
                    return Err(Fault::new(words));
                }
            },
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(setting: &str) -> String {
        parse(setting).unwrap_err().to_string()
    }

    #[test]
    fn what_says_where_or_what_to_run_is_taken() {
        for (setting, means) in [
            ("hostname=192.0.2.1", Setting::HostName("192.0.2.1".into())),
            ("StdinNull yes", Setting::NoInput(true)),
            ("StdinNull=no", Setting::NoInput(false)),
            ("SessionType=subsystem", Setting::Subsystem),
            ("SessionType=none", Setting::NoCommand),
            ("SessionType=default", Setting::PassedOver),
            ("ForkAfterAuthentication=true", Setting::Background(true)),
            ("RequestTTY=force", Setting::Terminal(Some(true))),
            ("RequestTTY=no", Setting::Terminal(Some(false))),
            ("RequestTTY=auto", Setting::Terminal(None)),
            ("AddressFamily=inet6", Setting::Family(Some(Family::V6))),
            ("AddressFamily=any", Setting::Family(None)),
            ("LogLevel=QUIET", Setting::Quiet),
            ("LogLevel=ERROR", Setting::PassedOver),
            ("ProxyCommand=none", Setting::PassedOver),
            ("Tunnel=no", Setting::PassedOver),
            ("ClearAllForwardings=yes", Setting::ClearForwardings(true)),
        ] {
            assert_eq!(parse(setting), Ok(means), "{setting}");
        }
        assert!(told("StdinNull=maybe").ends_with("neither yes nor no"));
        assert!(told("SessionType=x").ends_with("not none, subsystem or default"));
        assert!(told("AddressFamily=ipx").ends_with("not any, inet or inet6"));
        assert!(told("HostName=").ends_with("the host has no name"));
    }

    #[test]
    fn forwardings_and_programs_are_refused_under_their_names() {
        for setting in [
            "LocalForward=1 localhost:1",
            "RemoteForward 1 localhost:1",
            "DynamicForward=1",
            "Tunnel=yes",
        ] {
            let Ok(Setting::Forwarding(why)) = parse(setting) else {
                panic!("{setting}");
            };
            assert!(why.starts_with("-o ") && why.contains(": there "), "{why}");
        }
        let refused = parse("ProxyCommand=nc %h %p");
        assert!(matches!(refused, Ok(Setting::Refused(why)) if why.contains("-J HOST")));
    }

    #[test]
    fn what_ssh_has_besides_is_passed_over_and_what_it_has_not_is_told() {
        for setting in ["StrictHostKeyChecking=no", "ControlPath=none", "CIPHERS=x"] {
            assert_eq!(parse(setting), Ok(Setting::PassedOver), "{setting}");
        }
        let Ok(Setting::Unknown(note)) = parse("ConnectTimout=3") else {
            panic!("it is known");
        };
        assert!(note.contains("ConnectTimeout"), "{note}");
        assert!(matches!(parse("Bogus=1"), Ok(Setting::Unknown(_))));
        for key in ACTING {
            let unknown = matches!(parse(&format!("{key}=none")), Ok(Setting::Unknown(_)));
            assert!(!unknown, "{key}");
        }
    }

    #[test]
    fn variables_are_set_with_their_blanks() {
        let set = |text: &str| match parse(&format!("SetEnv={text}")) {
            Ok(Setting::SetEnv(all)) => all,
            other => panic!("{text}: {other:?}"),
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(set("A=1 B="), [pair("A", "1"), pair("B", "")]);
        assert_eq!(
            set("A=\"1  2\" B='\"' C=\\\"x"),
            [pair("A", "1  2"), pair("B", "\""), pair("C", "\"x")]
        );
        assert_eq!(set("\"A=1 2\""), [pair("A", "1 2")]);
        for wrong in ["A", "=1", "A-B=1", "A=\"1"] {
            assert!(parse(&format!("SetEnv={wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_name_may_be_made_of_the_one_that_was_named() {
        assert_eq!(
            host_name("%h.example.org", "hostb").unwrap(),
            "hostb.example.org"
        );
        assert_eq!(host_name("fe80::1%%eth0", "x").unwrap(), "fe80::1%eth0");
        assert!(host_name("%p", "x").is_err());
        assert!(host_name("x%", "x").is_err());
    }
}
