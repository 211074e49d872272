//! The tables `[service.NAME]` as a settings file has them.

use super::*;
use crate::config::paths::Paths;
use crate::config::settings::Settings;

/// The example of cosserver.toml(5).
const EXAMPLE: &str = r#"
[service.uptime]
kind = "command"
command = ["/usr/bin/uptime"]
as = "nobody"
allow = [ { host = "hosta" } ]

[service.pg]
kind  = "forward"
to    = "unix:/run/postgresql/.s.PGSQL.5432"
as    = "@caller"
allow = [ { group = "dba" }, { host = "hosta", time = "Mon-Fri 07:00-19:00" } ]
deny  = [ { address = "192.0.2.0/24" } ]
"#;

fn settings(text: &str) -> Result<Settings, String> {
    let paths = Paths::of_dir(std::path::Path::new("/S"));
    Settings::parse(&format!("name = \"x\"\n{text}"), &paths).map_err(|e| e.to_string())
}

fn parse(text: &str) -> NamedServices {
    settings(text)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .service
}

/// Returns the line and the words of the mistake in a file whose second line begins the text.
fn told(text: &str) -> String {
    let told = settings(text).err().unwrap_or_else(|| panic!("{text}"));
    assert!(told.len() < 160 && told.lines().count() == 1, "{told}");
    let rest = told.strip_prefix("/S/cosserver.toml:").unwrap();
    rest.to_owned()
}

/// Returns the mistake in a table whose keys begin in line 3.
fn told_of(keys: &str) -> String {
    told(&format!("[service.x]\n{keys}\n"))
}

fn one(keys: &str) -> NamedService {
    let all = parse(&format!("[service.x]\n{keys}\n"));
    all.get("x").unwrap().clone()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_example_of_the_manual_page() {
    let all = parse(EXAMPLE);
    let names: Vec<&str> = all.all().map(|(name, _)| name).collect();
    assert_eq!(names, ["pg", "uptime"]);
    let uptime = all.get("Uptime").unwrap();
    let command = words(&["/usr/bin/uptime"]);
    let args = Vec::new();
    assert_eq!(uptime.kind, Kind::Command { command, args });
    let nobody = UserName::parse("nobody").unwrap();
    assert_eq!(uptime.runs_as, ServiceUser::User(nobody));
    let pg = all.get("PG").unwrap();
    let to = Backend::Unix("/run/postgresql/.s.PGSQL.5432".into());
    assert_eq!(pg.kind, Kind::Forward { to });
    assert_eq!(pg.runs_as, ServiceUser::Caller);
    let rules = pg.rules.allow.iter().chain(&pg.rules.deny);
    let rules: Vec<_> = rules.map(|r| (r.line(), r.to_string())).collect();
    assert_eq!(
        rules,
        [
            (13, "{ group = \"dba\" }".to_owned()),
            (
                13,
                "{ host = \"hosta\", time = \"Mon-Fri 07:00-19:00\" }".to_owned()
            ),
            (14, "{ address = \"192.0.2.0/24\" }".to_owned()),
        ]
    );
    assert!(all.get("nosuch").is_none());
}

#[test]
fn each_kind_and_its_defaults() {
    let command = || words(&["/bin/x"]);
    let plain = one("kind = \"command\"\ncommand = [\"/bin/x\"]");
    let args = Vec::new();
    assert_eq!(plain.kind.name(), "command");
    assert_eq!(
        plain,
        NamedService {
            kind: Kind::Command {
                command: command(),
                args
            },
            runs_as: ServiceUser::Caller,
            formats: Vec::new(),
            rules: Rules::default(),
        }
    );
    let with_args =
        one("kind = \"command\"\ncommand = [\"/bin/x\", \"-v\"]\nargs = [\"daily month=*\", \"\"]");
    let Kind::Command { command: all, args } = &with_args.kind else {
        panic!("{with_args:?}");
    };
    assert_eq!(*all, words(&["/bin/x", "-v"]));
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    assert_eq!(args, ["daily month=*", ""]);

    let inetd = one("kind = \"inetd\"\ncommand = [\"/bin/x\"]\nas = \"root\"");
    let (command, wait) = (command(), false);
    assert_eq!(inetd.kind, Kind::Inetd { command, wait });
    assert_eq!(inetd.runs_as.to_string(), "root");
    let waits = one("kind = \"inetd\"\ncommand = [\"/bin/x\"]\nwait = true\nas = \"nobody\"");
    assert!(matches!(waits.kind, Kind::Inetd { wait: true, .. }));
    // Keys in any order, and in the other forms of TOML.
    let inline = parse(
        "service.X = { as = \"nobody\", wait = true, command = [\"/bin/x\"], kind = \"inetd\" }",
    );
    assert_eq!(inline.get("x"), Some(&waits));
}

#[test]
fn backends() {
    let tcp = |host: &str, port| Backend::Tcp {
        host: host.to_owned(),
        port,
    };
    for (text, backend, shown) in [
        ("tcp:HostB:1", tcp("hostb", 1), "tcp:hostb:1"),
        (
            "tcp:192.0.2.1:65535",
            tcp("192.0.2.1", 65535),
            "tcp:192.0.2.1:65535",
        ),
        ("tcp:[0::1]:5432", tcp("::1", 5432), "tcp:[::1]:5432"),
        (
            "tcp:[fe80::1%eth0]:1",
            tcp("fe80::1%eth0", 1),
            "tcp:[fe80::1%eth0]:1",
        ),
        ("unix:/a b", Backend::Unix("/a b".into()), "unix:/a b"),
    ] {
        let parsed = Backend::parse(text).unwrap();
        assert_eq!((&parsed, &*parsed.to_string()), (&backend, shown));
    }
    let path = |length: usize| Backend::parse(&format!("unix:{}", "/".repeat(length)));
    assert!(path(107).is_ok() && path(108).is_err());
    for (text, why) in [
        ("hostb:1", "it must be unix:/PATH or tcp:HOST:PORT"),
        ("udp:hostb:1", "it must be unix:/PATH or tcp:HOST:PORT"),
        ("tcp:hostb", "it must be unix:/PATH or tcp:HOST:PORT"),
        ("tcp:hostb:0", "its port must be from 1 to 65535"),
        ("tcp:hostb:+1", "its port must be from 1 to 65535"),
        (
            "tcp:::1:80",
            "an IPv6 address must be in brackets, as in tcp:[::1]:80",
        ),
        ("tcp:[::1:80", "its address is none"),
        ("tcp:[hostb]:80", "its address is none"),
        ("tcp:127.1:80", "its address is none"),
        ("tcp:192.0.2.300:80", "its address is none"),
        ("tcp::80", "its address is none"),
        ("unix:run/x", "the path must be absolute"),
        ("unix:/\0", "a NUL byte in it"),
    ] {
        let told = Backend::parse(text).unwrap_err().to_string();
        assert_eq!(told, format!("{} is no backend: {why}", quoted(text)));
    }
    let told = Backend::parse("tcp:-x:1").unwrap_err().to_string();
    assert_eq!(told, "\"-x\" is no host name: it begins with . or -");
}

#[test]
fn a_mistake_names_its_line_and_what_is_wrong() {
    let command = "kind = \"command\"\ncommand = [\"/bin/x\"]";
    for (keys, wanted) in [
        (
            "",
            "2: a service needs a kind = \"command\", \"forward\" or \"inetd\"",
        ),
        (
            "kind = \"comand\"",
            "3: kind: \"comand\" is none of command, forward, inetd; did you mean \"command\"?",
        ),
        (
            "\nkind = 1",
            "4: kind: it must be \"command\", \"forward\" or \"inetd\"",
        ),
        (
            "knd = \"command\"\ncommand = [\"/bin/x\"]",
            "3: unknown key \"knd\" of a service; did you mean \"kind\"?",
        ),
        (
            "y.kind = \"command\"",
            "3: unknown key \"y\" of a service; a name with a dot in it must be in quotes",
        ),
        (
            "kind = \"command\"",
            "2: a service of kind = \"command\" needs a command = [\"/path\", …]",
        ),
        (
            "kind = \"inetd\"",
            "2: a service of kind = \"inetd\" needs a command = [\"/path\", …]",
        ),
        (
            "kind = \"forward\"",
            "2: a service of kind = \"forward\" needs a to = \"unix:/PATH\" or \"tcp:HOST:PORT\"",
        ),
        (
            "kind = \"inetd\"\ncommand = \"/bin/x\"",
            "4: command: it must be a list of words, the first an absolute path",
        ),
        (
            "kind = \"inetd\"\ncommand = []",
            "4: command: it must be a list of words, the first an absolute path",
        ),
        (
            "kind = \"inetd\"\ncommand = [\"x\"]",
            "4: command: \"x\" is no absolute path",
        ),
        (
            "kind = \"forward\"\nto = 5432",
            "4: to: it must be \"unix:/PATH\" or \"tcp:HOST:PORT\"",
        ),
        (
            "kind = \"forward\"\nto = \"tcp:hostb\"",
            "4: to: \"tcp:hostb\" is no backend: it must be unix:/PATH or tcp:HOST:PORT",
        ),
        (
            "kind = \"inetd\"\ncommand = [\"/x\"]\nwait = \"yes\"",
            "5: wait: it must be true or false",
        ),
    ] {
        assert_eq!(told_of(keys), wanted, "{keys}");
    }
    for (key, wanted) in [
        ("args = \"*\"", "args: it must be a list of patterns"),
        (
            "args = [\"... x\"]",
            "args: \"... x\" is no pattern for arguments: ... may only be its last word",
        ),
        (
            "as = \"@caler\"",
            "as: \"@caler\" is no user; did you mean \"@caller\"?",
        ),
        ("as = \"@staff\"", "as: \"@staff\" is no user"),
        ("as = 0", "as: it must be \"@caller\" or a user name"),
        (
            "as = \"-x\"",
            "as: \"-x\" is no user name: it begins with -",
        ),
        (
            "allow = { host = \"hosta\" }",
            "allow: it must be a list of rules, as in [ { user = \"alice\" } ]",
        ),
        (
            "deny = [ { hots = \"hosta\" } ]",
            "unknown condition \"hots\"; did you mean \"host\"?",
        ),
    ] {
        let told = told_of(&format!("{command}\n{key}"));
        assert_eq!(told, format!("5: {wanted}"), "{key}");
    }
    // Each rule's own line.
    let told = told_of(&format!("{command}\nallow = [\n{{ user = \"a\" }},\n{{}}]"));
    assert!(told.starts_with("7: a rule without a condition"), "{told}");
}

#[test]
fn a_key_of_another_kind_is_a_mistake() {
    for (keys, wanted) in [
        (
            "kind = \"command\"\ncommand = [\"/x\"]\nto = 1",
            "5: to belongs to kind = \"forward\"; this is kind = \"command\"",
        ),
        (
            "command = [\"/x\"]\nkind = \"forward\"",
            "3: command belongs to kind = \"command\" or \"inetd\"; this is kind = \"forward\"",
        ),
        (
            "kind = \"inetd\"\nargs = []",
            "4: args belongs to kind = \"command\"; this is kind = \"inetd\"",
        ),
        (
            "kind = \"command\"\nwait = false",
            "4: wait belongs to kind = \"inetd\"; this is kind = \"command\"",
        ),
    ] {
        assert_eq!(told_of(keys), wanted, "{keys}");
    }
}

#[test]
fn names() {
    let table = |name: &str| format!("[service.{name}]\nkind = \"command\"\ncommand = [\"/x\"]\n");
    assert_eq!(
        told(&[table("pg"), table("x"), table("PG")].concat()),
        "8: [service.PG] is the same as [service.pg] in line 2: a name matches in any case"
    );
    // Also if the first one has a mistake of its own, which is told first.
    assert!(told(&format!("[service.PG]\n{}", table("pg"))).starts_with("2: a service needs"));
    assert!(parse(&table("\"A.b+c\"")).get("a.B+C").is_some());
    let most = "x".repeat(64);
    assert!(parse(&table(&most)).get(&most).is_some());
    for wrong in ["\"a b\"", "-a", "\"\"", &"x".repeat(65)] {
        let told = settings(&table(wrong)).unwrap_err();
        let words = "is no service's name: at most 64 letters, digits and . _ - +, no - first";
        assert!(told.contains(":2: ") && told.ends_with(words), "{told}");
    }
    for (text, wanted) in [
        (
            "[service]\ncommand = [\"/x\"]",
            "3: command belongs to a service, whose table is [service.NAME]: write its name there",
        ),
        (
            "[service]\npg = \"unix:/x\"",
            "3: pg must be a table of its own: write [service.pg]",
        ),
        (
            "[[service.pg]]\nkind = \"inetd\"",
            "2: pg must be a table of its own: write [service.pg]",
        ),
        (
            "service = \"pg\"",
            "2: service is a table, not a key; write [service.NAME] on a line of its own and its keys below",
        ),
        (
            "[services.pg]",
            "2: unknown table [services]; did you mean [service]?",
        ),
    ] {
        assert_eq!(told(text), wanted, "{text}");
    }
}

#[test]
fn services_are_printed_as_they_are_read() {
    let text = format!(
        "{EXAMPLE}{}",
        r#"
[service."Re.port"]
kind = "command"
command = ["/opt/re port", "-c", "a\"b\\c\u001b"]
args = ["daily month=*", "\\* ..."]
allow = [ { user = 'a"\b', token = "user" } ]

[service.old]
kind = "inetd"
command = ["/usr/sbin/in.oldd"]
wait = true
as = "root"

[service.web]
kind = "forward"
to = "tcp:[::1]:80"
allow = [ { address = "::/0", time = "Sat,Sun", suite = "aes-gcm", compression = "none" } ]
"#
    );
    let first = settings(&text).unwrap();
    let printed = first.print();
    let again = settings(&printed.replacen("name = \"x\"\n", "", 1)).unwrap();
    assert_eq!(again.print(), printed);
    // The rules have other lines.
    let without_rules = |all: &NamedServices| {
        let mut all = all.clone();
        all.all
            .values_mut()
            .for_each(|s| s.rules = Rules::default());
        all
    };
    assert_eq!(without_rules(&again.service), without_rules(&first.service));
    for ((name, one), (_, other)) in first.service.all().zip(again.service.all()) {
        let conditions = |service: &NamedService| {
            let lists = [&service.rules.allow, &service.rules.deny];
            lists.map(|l| {
                l.iter()
                    .map(|r| r.conditions().to_vec())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(conditions(one), conditions(other), "{name}");
    }
    let pg = "\n[service.pg]\nkind = \"forward\"\nto = \"unix:/run/postgresql/.s.PGSQL.5432\"\n\
              as = \"@caller\"\n\
              allow = [{ group = \"dba\" }, { host = \"hosta\", time = \"Mon-Fri 07:00-19:00\" }]\n\
              deny = [{ address = \"192.0.2.0/24\" }]\n";
    assert!(printed.contains(pg), "{printed}");
    let uptime = "\n[service.uptime]\nkind = \"command\"\ncommand = [\"/usr/bin/uptime\"]\nargs = []\n\
                  as = \"nobody\"\nallow = [{ host = \"hosta\" }]\ndeny = []\n";
    assert!(printed.contains(uptime), "{printed}");
}

#[test]
fn keys_are_named_once_and_explained() {
    for (i, key) in KEYS.iter().enumerate() {
        assert!(KEYS[..i].iter().all(|k| k.name != key.name));
        assert!(key.meaning.ends_with('.') && !key.kinds.is_empty());
    }
    for kind in KindName::ALL {
        assert_eq!(one_of(kind.name(), KINDS), Ok(*kind));
    }
}
