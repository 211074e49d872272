use super::*;

fn told(line: &str) -> String {
    let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    match parse(&arguments) {
        Err(Failure::Usage(words)) => words,
        Ok(Parsed::Tell(text)) => text,
        _ => panic!("{line} was taken"),
    }
}

fn call(line: &str) -> Call {
    let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    match parse(&arguments) {
        Ok(Parsed::Run(_, call)) => call,
        _ => panic!("{line} was not taken"),
    }
}

#[test]
fn command_lines() {
    let call = self::call("-C S host invite hosta --addr 127.0.0.1 --addr=::1 --run-as root");
    assert_eq!(call.operand(0), "hosta");
    assert_eq!(call.value("C").as_deref(), Some("S"));
    assert_eq!(call.values("addr"), ["127.0.0.1", "::1"]);
    let call = self::call("host show -C T x --json -v");
    assert!(call.given("json") && call.given("v"));
    assert_eq!(
        (call.operand(0), call.value("C").as_deref()),
        ("x", Some("T"))
    );
    assert!(self::call("-v check").given("v"));
    // Flags may be between the words of a command.
    let call = self::call("host --json -C list list -v");
    assert!(call.given("json") && call.given("v"));
    assert_eq!(call.value("C").as_deref(), Some("list"));
    let call = self::call("host --addr ::1 invite --run-as root hosta");
    assert_eq!((call.operand(0), call.values("addr").len()), ("hosta", 1));
}

#[test]
fn mistakes() {
    for (line, words) in [
        ("chekc", "did you mean \"check\"?"),
        ("wo", "did you mean \"who\"?"),
        (
            "host",
            "after host comes one of invite, join, list, show, rotate, remove",
        ),
        (
            "machine",
            "after machine comes one of list, add, delete, rename",
        ),
        ("door", "after door comes one of "),
        ("host ivnite x", "did you mean \"host invite\"?"),
        ("host show", "cosadm host show needs NAME; see `cosadm"),
        ("host invite --addr ::1", "cosadm host invite needs NAME; "),
        (
            "host show x y",
            "takes only NAME: unexpected argument \"y\"",
        ),
        ("check x", "cosadm check: unexpected argument \"x\"; see"),
        (
            "host join f --nmae x",
            "unknown flag --nmae; did you mean \"name\"?",
        ),
        ("host join f --name", "Argument to option 'name' missing"),
        ("check --json --json", "given more than once"),
        ("-C a check -C b", "given more than once"),
        ("-x check", "unknown flag -x"),
        (
            "--json host list",
            "--json goes after the command; see `cosadm",
        ),
        (
            "host --jsn list",
            "--jsn is not a flag of `cosadm host list`; see `cosadm host list --help`",
        ),
        ("host --json", "after host comes one of invite, "),
        ("host --json lits", "did you mean \"host list\"?"),
    ] {
        assert!(told(line).contains(words), "{line:?} gave {:?}", told(line));
    }
    assert!(call("host rotate x --port 0").port().is_err());
    assert_eq!(told("zzz"), "unknown command \"zzz\"");
    let nothing: Vec<OsString> = vec!["-C".into(), "S".into()];
    assert!(matches!(parse(&nothing), Ok(Parsed::Nothing(call)) if call.value("C").is_some()));
}

#[test]
fn every_command_and_flag_is_in_the_help() {
    let text = told("--help");
    for command in commands() {
        assert!(text.contains(&format!("  {}", command.name())));
        let help = told(&format!("{} --help", command.name()));
        for flag in command.flags {
            assert!(help.contains(&format!("  {}", flag.shown)), "{help}");
        }
        assert!(
            help.lines()
                .chain(text.lines())
                .all(|line| line.chars().count() <= 110),
            "{help}"
        );
    }
    // Operands in brackets are optional.
    assert_eq!(self::call("sestab list").optional(0), None);
    assert_eq!(self::call("sestab list E").optional(0), Some("E"));
    assert_eq!(
        self::call("settings set backdoor-password").optional(1),
        None
    );
    for (line, words) in [
        ("settings set", "cosadm settings set needs NAME; see"),
        (
            "settings set a b c",
            "takes only NAME [VALUE]: unexpected argument \"c\"",
        ),
        (
            "sestab list I E",
            "takes only [I|E]: unexpected argument \"E\"",
        ),
    ] {
        assert!(told(line).contains(words), "{line:?} gave {:?}", told(line));
    }
    for line in ["-V", "--version", "check --version", "-V nonsense"] {
        let version = concat!("cosadm ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(told(line), version, "{line}");
    }
    for group in [
        "machine", "exclude", "otp", "door", "settings", "sestab", "host",
    ] {
        let help = told(&format!("{group} --help"));
        assert!(help.starts_with(&format!("usage: cosadm [-C DIR] [-v] {group} COMMAND")));
        for command in commands() {
            let line = format!("  {} ", command.name());
            let is_of_it = command.group().is_some_and(|(first, _)| first == group);
            assert_eq!(help.contains(&line), is_of_it, "{line}: {help}");
        }
        assert_eq!(told(&format!("-C S {group} -h")), help);
        assert_eq!(told(&format!("help {group}")), help);
    }
    assert_eq!(told("help"), text);
    assert_eq!(told("help door close"), told("door close --help"));
    assert!(told("machine add --help").contains("machine add --name NAME [--local]"));
}
