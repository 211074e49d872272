//! Tests of ssh's options.

use super::*;

fn told(setting: &str) -> String {
    parse(setting).unwrap_err().to_string()
}

#[test]
fn what_says_where_or_what_to_run_is_taken() {
    for (setting, auth_method) in [
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
        ("LogLevel=ERROR", Setting::Quiet),
        ("LogLevel=INFO", Setting::PassedOver),
        (" hostname\t'h'", Setting::HostName("h".into())),
        ("ProxyCommand=none", Setting::PassedOver),
        ("Tunnel=no", Setting::PassedOver),
        ("ClearAllForwardings=yes", Setting::ClearForwardings(true)),
    ] {
        assert_eq!(parse(setting), Ok(auth_method), "{setting}");
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
fn other_ssh_options_are_ignored_and_unknown_options_reported() {
    for setting in ["StrictHostKeyChecking=no", "ControlPath=none", "CIPHERS=x"] {
        assert_eq!(parse(setting), Ok(Setting::PassedOver), "{setting}");
    }
    let Ok(Setting::Unknown(_, note)) = parse("ConnectTimout=3") else {
        panic!("it is known");
    };
    assert!(note.contains("ConnectTimeout"), "{note}");
    assert!(matches!(parse("Bogus=1"), Ok(Setting::Unknown(..))));
    for key in ACTING {
        let unknown = matches!(parse(&format!("{key}=none")), Ok(Setting::Unknown(..)));
        assert!(!unknown, "{key}");
    }
    let long = "x".repeat(1000);
    for setting in [
        &*long,
        &format!("SetEnv={long}"),
        &format!("StdinNull={long}"),
    ] {
        assert!(told(setting).len() <= 160, "{}", told(setting));
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
    assert_eq!(set("A=1\\ 2 #B=3"), [pair("A", "1 2")]);
    for wrong in ["A", "=1", "A=\"1"] {
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
    for wrong in ["x;id", "-V", "a b", "foo\nuser evil", "$(id)"] {
        assert!(host_name(wrong, "x").is_err(), "{wrong}");
    }
}
