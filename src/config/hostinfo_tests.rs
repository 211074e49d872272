use std::path::Path;
use std::time::Instant;

use super::*;
use crate::config::scratch::{Numbers, Scratch};

const FILE: &str = "/S/hostinfo";

fn table(text: &str) -> HostTable {
    HostTable::parse(text.as_bytes(), Path::new(FILE))
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn fault(line: &str) -> String {
    let table = table(line);
    assert!(table.entries().is_empty(), "{line:?} was taken");
    assert_eq!(table.faults().len(), 1, "{line:?}");
    table.faults()[0].to_string()
}

#[test]
fn a_whole_line() {
    let key = "ab".repeat(32);
    let table = table("# the park\n\nHostA\tcos  addr=192.0.2.1 \\\n");
    assert_eq!(table.entries().len(), 0, "a backslash continues nothing");

    let table = self::table(&format!(
        "HostA cos addr=192.0.2.1,10.0.0.0/8 port=9102 as=hostb server=real user=jo run-as=root,operator \
         commands=\"/usr/bin/df -h *\" 'commands=/bin/true' machine-key={key} accept-env=TZ,EDITOR # x\r\nb ssh\nc rsh"
    ));
    assert!(table.faults().is_empty(), "{:?}", table.faults());
    let a = table.get(&host("hosta")).unwrap();
    assert_eq!(
        (a.name.as_str(), a.line, a.method, a.port),
        ("hosta", 1, Method::Cos, Some(9102))
    );
    assert_eq!(
        a.addresses.plain(),
        [crate::config::address::Address::parse("192.0.2.1").unwrap()]
    );
    assert_eq!(
        a.addresses.contains("10.1.1.1".parse().unwrap()),
        Some(true)
    );
    assert_eq!(
        a.addresses.contains("::ffff:10.1.1.1".parse().unwrap()),
        Some(true)
    );
    assert_eq!(
        a.addresses.contains("11.1.1.1".parse().unwrap()),
        Some(false)
    );
    assert_eq!(
        a.run_as.iter().map(|u| u.as_str()).collect::<Vec<_>>(),
        ["root", "operator"]
    );
    assert_eq!(a.server_name().as_str(), "real");
    assert_eq!(a.as_name, Some(host("hostb")));
    assert_eq!(a.machine_key.unwrap().to_hex(), key);
    assert!(a.may_run(&[b"/bin/true".to_vec()]));
    assert!(a.may_run(&[b"/usr/bin/df".to_vec(), b"-h".to_vec(), b"/".to_vec()]));
    assert!(!a.may_run(&[b"/bin/sh".to_vec()]));
    for (name, may) in [
        ("TZ", true),
        ("LANG", true),
        ("LC_ALL", true),
        ("GIT_PROTOCOL", true),
        ("PATH", false),
    ] {
        assert_eq!(a.may_pass(name), may, "{name}");
    }
    assert!(!a.may_pass("LC_") && !a.may_pass("LC_A=B") && !a.may_pass(""));

    let b = table.get(&host("B")).unwrap();
    assert_eq!(
        (b.line, b.method, &b.addresses),
        (2, Method::Ssh, &Addresses::ByName)
    );
    assert!(
        b.run_as.is_empty() && b.may_run(&[b"/bin/sh".to_vec()]) && !b.may_run_as(&a.run_as[0])
    );
    assert_eq!(b.addresses.contains("192.0.2.1".parse().unwrap()), None);
    assert!(table.get(&host("d")).is_none());
}

#[test]
fn mistakes_name_the_line_and_what_was_meant() {
    for (line, words) in [
        ("a", "after the name comes a method"),
        ("a coss", "unknown method \"coss\"; did you mean \"cos\"?"),
        ("a telnet", "the methods are cos, ssh and rsh"),
        (
            "a cos adr=1.2.3.4",
            "unknown option \"adr\"; did you mean \"addr\"?",
        ),
        (
            "a cos run_as=root",
            "unknown option \"run_as\"; did you mean \"run-as\"?",
        ),
        (
            "a cos Addr=1.2.3.4",
            "unknown option \"Addr\"; did you mean \"addr\"?",
        ),
        ("a cos root", "options are written key=value"),
        ("a cos port", "write port=…"),
        ("a cos port=0", "port=: \"0\" is no port"),
        ("a cos port=+1", "is no port"),
        ("a cos port=70000", "is no port"),
        ("a cos port=", "is no port"),
        ("a cos port=1 port=1", "port=: it is on the line twice"),
        ("a cos addr=", "something is missing"),
        ("a cos addr=1.2.3.4,", "something is missing"),
        ("a cos addr=1.2.3.4,1.2.3.4", "\"1.2.3.4\" is in it twice"),
        ("a cos addr=10.1.1.1/8", "did you mean 10.0.0.0/8?"),
        ("a cos addr=other.example", "names are not looked up"),
        ("a cos run-as=", "something is missing"),
        ("a cos run-as=-froot", "begins with -"),
        ("a cos run-as=\"jo hn\"", "is no user name"),
        ("a cos commands=df", "must begin with the absolute path"),
        ("a cos commands=/bin/df -h", "\"-h\" has no ="),
        ("a cos subsystems=sftp,", "something is missing"),
        ("a cos subsystems=sftp,sftp", "\"sftp\" is in it twice"),
        ("a cos subsystems=-,sftp", "\"-\" is no subsystem's name"),
        (
            "a cos subsystems=/bin/sh",
            "\"/bin/sh\" is no subsystem's name",
        ),
        ("a cos subsystems=a subsystems=b", "it is on the line twice"),
        (
            "a cos machine-key=abc",
            "64 hexadecimal digits, and this has 3",
        ),
        ("a cos accept-env=LC_*", "no wildcards"),
        ("a cos accept-env=LD_PRELOAD", "loader"),
        ("a cos accept-env=COS_HOST", "set by cosserver itself"),
        ("a cos accept-env=SSH_CLIENT", "set by cosserver itself"),
        ("a cos accept-env=SSH2_CLIENT", "set by cosserver itself"),
        ("a cos as=../x", "as=: \"../x\" is no host name"),
        ("a cos commands=\"/bin/df", "opened and not closed"),
        (
            "addr=1.2.3.4 cos",
            "a line begins with a host's name, not with addr=",
        ),
        ("a/b cos", "\"a/b\" is no host name"),
        ("a cos \x07", "control character"),
    ] {
        let told = fault(line);
        assert!(
            told.starts_with("/S/hostinfo:1: ") && told.contains(words),
            "{line:?} gave {told:?}"
        );
        assert_eq!(told.lines().count(), 1);
    }
    assert!(fault("a cos adr=1").starts_with("/S/hostinfo:1: a is denied: "));
}

#[test]
fn mistake_in_a_line_disables_only_its_host() {
    let table = HostTable::parse(
        b"a cos\nb cos prot=1\n\xff\xfe cos\nc cos user=\xff\nd cos",
        Path::new(FILE),
    );
    assert_eq!(
        table
            .entries()
            .iter()
            .map(|e| e.name.as_str())
            .collect::<Vec<_>>(),
        ["a", "d"]
    );
    let told: Vec<String> = table.faults().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("/S/hostinfo:2: b is denied"));
    assert!(told[1].starts_with("/S/hostinfo:3: "));
    assert!(told[2].starts_with("/S/hostinfo:4: c is denied: the line is not UTF-8"));
}

#[test]
fn host_on_two_lines_is_refused() {
    for text in [
        "a cos\nb cos\nA ssh\n",
        "a cos\nb cos\na zzz\n",
        "a zzz\nb cos\na cos\n",
        "a cos\nb cos\n'a' cos \"\n",
        "a cos\nb cos\na \x07cos\n",
        "a cos\nb cos\na cos\na cos\n",
    ] {
        let table = table(text);
        assert!(table.get(&host("a")).is_none(), "{text:?}");
        assert!(table.get(&host("b")).is_some(), "{text:?}");
        assert!(
            table
                .faults()
                .iter()
                .any(|f| f.to_string().contains("a is on line 1 already")),
            "{text:?}"
        );
        assert!(
            find_in(text.as_bytes(), Path::new(FILE), &host("a")).is_err(),
            "{text:?}"
        );
        assert_eq!(
            find_in(text.as_bytes(), Path::new(FILE), &host("B"))
                .unwrap()
                .unwrap()
                .line,
            2
        );
        assert!(
            find_in(text.as_bytes(), Path::new(FILE), &host("c"))
                .unwrap()
                .is_none()
        );
    }
}

#[test]
fn overlong_line_is_not_split() {
    let long = format!("a cos user=x {}b cos", " ".repeat(LINE_MAX));
    let table = table(&format!("{long}\nc cos\n"));
    assert_eq!(table.entries().len(), 1);
    assert!(table.get(&host("c")).is_some());
    assert!(table.faults()[0].to_string().contains("8192 are the most"));
    // It still counts as a line of its host.
    let table = self::table(&format!("{long}\na cos\n"));
    assert!(table.get(&host("a")).is_none());
}

#[test]
fn untrusted_file_is_not_read_as_a_table() {
    let scratch = Scratch::new();
    let paths = scratch.paths();
    assert!(
        HostTable::load(&paths)
            .unwrap_err()
            .to_string()
            .contains("no host table")
    );
    assert!(find(&paths, &host("a")).is_err());
    scratch.file("hostinfo", "a cos\n", 0o644);
    assert_eq!(HostTable::load(&paths).unwrap().entries().len(), 1);
    assert!(find(&paths, &host("a")).unwrap().is_some());
    scratch.file("hostinfo", "a cos\n", 0o664);
    assert!(HostTable::load(&paths).is_err() && find(&paths, &host("a")).is_err());
    scratch.file("hostinfo", "a cos\n".repeat(FILE_MAX / 6 + 1), 0o644);
    assert!(
        HostTable::load(&paths)
            .unwrap_err()
            .to_string()
            .contains("are the most that are read")
    );
    if nix::unistd::geteuid().is_root() {
        let file = scratch.file("hostinfo", "a cos\n", 0o644);
        std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
        assert!(HostTable::load(&paths).is_err());
    }
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "the figures are for whoever runs it with --nocapture"
)]
fn a_hundred_thousand_hosts() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for i in 0..100_000_u32 {
        let [_, b, c, d] = i.to_be_bytes();
        writeln!(
            text,
            "host{i} cos addr=10.{b}.{c}.{d} run-as=root machine-key={}",
            "0f".repeat(32)
        )
        .unwrap();
    }
    assert!(text.len() < FILE_MAX);
    let began = Instant::now();
    let table = table(&text);
    let read = began.elapsed();
    assert_eq!(table.entries().len(), 100_000);
    assert_eq!(table.get(&host("HOST99999")).unwrap().line, 100_000);
    let began = Instant::now();
    let one = find_in(text.as_bytes(), Path::new(FILE), &host("host99999"))
        .unwrap()
        .unwrap();
    assert_eq!(one.line, 100_000);
    eprintln!("read {read:?}, one looked up {:?}", began.elapsed());
}

#[test]
fn mutants_end_with_an_answer() {
    let key = "ab".repeat(32);
    let seeds = [
        format!(
            "hosta cos addr=127.0.0.1,::1 port=9002 run-as=root machine-key={key}\nhostb ssh user=jo # x\n"
        ),
        "hosta cos addr=10.0.0.0/8,2001:db8::/32 commands=\"/bin/df -h *\" subsystems=sftp,x\n\
         hostb rsh accept-env=TZ,A_B as=hosta server=real\n"
            .to_owned(),
        "a cos\nb cos\nc cos\n".to_owned(),
    ];
    let mut numbers = Numbers(42);
    let (mut right, mut wrong) = (0_u64, 0_u64);
    for round in 0..270_000 {
        let text = numbers.mutate(seeds[round % seeds.len()].as_bytes());
        let table = HostTable::parse(&text, Path::new(FILE));
        right += u64::from(table.faults().is_empty());
        wrong += u64::from(!table.faults().is_empty());
        // Both readers agree on whether a name is in the table or denied.
        for name in ["a", "hosta", "hostb"] {
            let one = find_in(&text, Path::new(FILE), &host(name))
                .ok()
                .flatten()
                .map(|e| e.line);
            assert_eq!(
                one,
                table.get(&host(name)).map(|e| e.line),
                "{name} {text:?}"
            );
        }
    }
    assert!(right > 1000 && wrong > 1000, "{right} right, {wrong} wrong");
}

/// A host that may run any command could start a subsystem's program anyway.
#[test]
fn a_host_with_commands_has_the_subsystems_that_its_line_names() {
    let may = |options: &str| {
        let table = table(&format!("a cos run-as=root {options}"));
        assert!(table.faults().is_empty(), "{:?}", table.faults());
        ["sftp", "x.y"].map(|name| table.entries()[0].may_ask_subsystem(name))
    };
    assert_eq!(may(""), [true, true]);
    assert_eq!(may("commands=/bin/true"), [false, false]);
    assert_eq!(may("subsystems=x.y"), [false, true]);
    assert_eq!(may("subsystems=-"), [false, false]);
    assert_eq!(may("commands=/bin/true subsystems=sftp,x.y"), [true, true]);
}

/// A variable that has no effect, or that would make an interpreter run other code, is rejected.
#[test]
fn variables_without_effect_or_that_run_other_code_are_refused() {
    for set in ["PATH", "HOME", "SHELL"] {
        let told = fault(&format!("a cos accept-env={set}"));
        assert!(told.contains("is set by cosserver itself"), "{told}");
    }
    for other in [
        "BASH_ENV",
        "ENV",
        "PERL5OPT",
        "PYTHONPATH",
        "LD_AUDIT",
        "PS4",
    ] {
        let told = fault(&format!("a cos accept-env=TZ,{other}"));
        assert!(told.contains("run other code"), "{told}");
    }
}
