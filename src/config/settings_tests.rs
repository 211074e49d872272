use super::*;
use crate::config::scratch::{Numbers, Scratch};

fn paths() -> Paths {
    Paths::of_file(Path::new("/home/jo/S/cosserver.toml"))
}

fn parse(text: &str) -> Result<Settings, Fault> {
    Settings::parse(text, &paths())
}

fn told(text: &str) -> String {
    parse(text).expect_err("it was taken").to_string()
}

#[test]
fn an_empty_file_is_the_defaults() {
    let s = parse("name = \"hostb\"").unwrap();
    assert_eq!(s.limits.hello, Duration::from_secs(10));
    assert_eq!(s.limits.silent, 16384);
    assert_eq!(s.daemon.user.as_str(), "_cosserver");
    assert_eq!(
        s.listen,
        [
            Address::parse("127.0.0.1").unwrap(),
            Address::parse("::1").unwrap()
        ]
    );
    assert!(!s.port_given);
    let system = Settings::parse(
        "name = \"hostb\"",
        &Paths::of_dir(Path::new("/etc/cosserver")),
    )
    .unwrap();
    assert!(system.listen.iter().all(|a| a.ip().is_unspecified()));
}

#[test]
fn every_key_can_be_printed_and_read_back() {
    let text = "name = \"HostB\"\nport = 1\nlisten = [\"192.0.2.1\"]\n[penalties]\nexempt = [\"10.0.0.0/8\", \"::1\"]\n\
                [daemon]\nuser = 'a\"\\b'\n[exec]\npath = \"/bin\"";
    let printed = parse(text).unwrap().print();
    let again = parse(&printed).unwrap();
    assert_eq!(again.print(), printed);
    assert_eq!(again.name.as_str(), "hostb");
    assert_eq!(again.daemon.user.as_str(), "a\"\\b");
    for key in KEYS {
        assert!(
            printed.contains(&format!("\n{} = ", key.name)) || printed.starts_with(key.name),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_template_says_every_default() {
    let template = Settings::template();
    parse(&format!("name = \"x\"\n{template}")).unwrap();
    // Without the # before each key it is still a valid file.
    let bare: String = template
        .lines()
        .map(|l| {
            l.strip_prefix('#')
                .filter(|r| !r.starts_with(' '))
                .unwrap_or(l)
        })
        .fold(String::new(), |mut out, line| {
            out.push_str(line);
            out.push('\n');
            out
        });
    let mut system = Settings::parse(&bare, &Paths::of_dir(Path::new("/etc/cosserver"))).unwrap();
    let plain = Settings::parse("", &Paths::of_dir(Path::new("/etc/cosserver"))).unwrap();
    system.name = plain.name.clone();
    system.port = plain.port;
    assert_eq!(system.print(), plain.print());
}

/// The example that a new user uncomments must be valid, and must reach the display.
#[test]
fn the_template_has_an_application_that_displays_on_the_pc() {
    let template = Settings::template();
    let from = template.find("# [gui.xterm]").unwrap();
    let example = template[from..].replace("# ", "");
    let s = parse(&format!("name = \"x\"\n{example}")).unwrap();
    let xterm = s.gui.get("xterm").unwrap();
    assert!(
        xterm.command[2].contains("DISPLAY=$GUI_HOST:0 "),
        "{xterm:?}"
    );
}

#[test]
fn subsystems_are_printed_as_they_are_read() {
    let text = "name = \"x\"\n[subsystem]\nsftp = \"\"\n\"a.b\" = '''/x 'a \"b' \"\"'''\n";
    let s = parse(text).unwrap();
    assert_eq!(s.subsystem.find("a.b").unwrap(), ["/x", "a \"b", ""]);
    let printed = s.print();
    assert!(
        printed.contains("\n[subsystem]\n\"a.b\" = \"/x 'a \\\"b' \\\"\\\"\"\nsftp = \"\"\n"),
        "{printed}"
    );
    assert_eq!(parse(&printed).unwrap().subsystem, s.subsystem);
    // Without an entry for sftp it lists the paths that are tried.
    let printed = parse("name = \"x\"").unwrap().print();
    let tried = "\n[subsystem]\n# sftp: the first program of /usr/lib/openssh/sftp-server, ";
    assert!(printed.contains(tried), "{printed}");
}

#[test]
fn keys_are_named_once_and_explained() {
    for (i, key) in KEYS.iter().enumerate() {
        assert!(
            KEYS[..i]
                .iter()
                .all(|k| (k.table, k.name) != (key.table, key.name))
        );
        assert!(
            key.meaning.ends_with('.') && key.meaning.len() < 110,
            "{}",
            key.name
        );
        assert!(TABLES.iter().any(|t| t.name == key.table));
    }
}

#[test]
fn settings_that_need_a_restart_are_kept() {
    let started = parse("name = \"x\"\nport = 1\nlisten = [\"192.0.2.1\"]").unwrap();
    let text =
        "name = \"y\"\nport = 2\nlisten = [\"192.0.2.2\"]\n[daemon]\nuser = \"z\"\ngrace = 7";
    let mut now = parse(text).unwrap();
    let in_vain = now.keep_from_start(&started);
    assert!(
        in_vain
            .iter()
            .map(|key| key.name)
            .eq(["listen", "port", "user"])
    );
    for key in KEYS {
        let kept = key.value(&now) == key.value(&started);
        assert_eq!(kept, !["name", "grace"].contains(&key.name), "{}", key.name);
    }
    assert!(now.keep_from_start(&started).is_empty());
}

#[test]
fn mistakes_name_the_line_and_what_was_meant() {
    let file = "/home/jo/S/cosserver.toml";
    for (text, words) in [
        (
            "\nprot = 1",
            ":2: unknown key \"prot\" before the first [table]; did you mean \"port\"?",
        ),
        (
            "[limits]\nprot = 1",
            ":2: unknown key \"prot\" in [limits]; did you mean \"port\"? It belongs before",
        ),
        (
            "[limits]\nhelo = 1",
            ":2: unknown key \"helo\" in [limits]; did you mean \"hello\"?",
        ),
        (
            "hello = 1",
            ":1: unknown key \"hello\" before the first [table]; it belongs in [limits]",
        ),
        (
            "[limit]\nhello = 1",
            ":1: unknown table [limit]; did you mean [limits]?",
        ),
        ("[zzzzzzzzzzz]", ":1: unknown table [zzzzzzzzzzz]"),
        ("limits = 1", ":1: limits is a table"),
        (
            "port = \"9002\"",
            ":1: port must be a port from 0 to 65535, and this is a string",
        ),
        ("port = 65536", ":1: port must be a port"),
        ("port = -1", ":1: port must be a port"),
        (
            "port = 99999999999999999999999999",
            ":1: port must be a port",
        ),
        (
            "[limits]\n\nhello = 0",
            ":3: hello must be whole seconds from 1 to 86400",
        ),
        (
            "[limits]\nhello = 1.5",
            ":2: hello must be whole seconds from 1 to 86400, and this is a float",
        ),
        ("[limits]\nhello = [1]", "this is an array"),
        ("port = 1\nport = 2", ":2: \"port\" is set twice"),
        (
            "[limits]\nhello = 1\n[limits]\n",
            ":3: [limits] is set twice",
        ),
        (
            "[gui.a.b]\ncommand = [\"/x\"]\n",
            ":1: unknown key \"b\" of an application; a name with a dot in it must be in quotes",
        ),
        (
            "[gui.x]\ncommand = [\"/x\"]\n [gui.x] # again\n",
            ":3: [gui.x] is set twice",
        ),
        (
            "[gui]\ncommand = [\"/x\"]",
            ":2: command belongs to an application, whose table is [gui.NAME]",
        ),
        (
            "[gui.x]\ncommand = \"/x\"",
            ":2: command: it must be a list of words, the first an absolute path",
        ),
        (
            "[gui.x]\nusers = \"alice\"",
            ":2: users: it must be a list of user names and @groups, or \"*\" for every user but root",
        ),
        (
            "[subsystem]\nsftp = \"internal-sftp\"",
            ":2: sftp: \"internal-sftp\" is no absolute path of a program",
        ),
        (
            "[subsystem]\nx = \"/bin/x\"\n\"a b\" = \"/x\"",
            ":3: \"a b\" is no subsystem's name",
        ),
        (
            "[subsystem]\nx = \"/x 'a\"",
            ":2: x: a ' is opened and not closed",
        ),
        (
            "[subsystem]\nx = \"/x #a\"",
            ":2: x: a word that begins with #",
        ),
        ("[subsystem]\nx = [\"/x\"]", ":2: x: it must be a text"),
        ("[subsystems]", "did you mean [subsystem]?"),
        ("subsystem = \"/x\"", ":1: subsystem is a table, not a key"),
        ("gui = 1", ":1: gui is a table, not a key; write [gui.NAME]"),
        ("name = \"a b\"", ":1: name: \"a b\" is no host name"),
        ("listen = []", "at least one address"),
        ("listen = [\"hostb\"]", "\"hostb\" is no address"),
        ("listen = [1]", "listen must be addresses"),
        (
            "[penalties]\nexempt = [\"10.0.0.1/8\"]",
            "did you mean 10.0.0.0/8?",
        ),
        (
            "[exec]\npath = \"/bin:\"",
            "every folder in it must be absolute",
        ),
        (
            "[exec]\npath = \"/bin:bin\"",
            "every folder in it must be absolute",
        ),
        ("[daemon]\nuser = \"-x\"", "begins with -"),
        (
            "[limits]\nsilent = 10\nreserved = 10",
            "reserved = 10 must be less than silent = 10",
        ),
        ("[penalties]\nmin = 700", "min must not be more than max"),
        ("port = ", ":1: "),
        ("\n\n= 3", ":3: "),
        ("[[limits]]\nhello = 1", "limits is a table"),
        (
            "port.x = 1",
            "port must be a port from 0 to 65535, and this is a table",
        ),
    ] {
        let told = told(text);
        assert!(
            told.starts_with(file) && told.contains(words),
            "{text:?} gave {told:?}"
        );
        assert_eq!(told.lines().count(), 1, "{told:?}");
        assert!(!told.contains("; it must"), "{told:?}");
    }
    // Only the first of several mistakes is reported.
    assert!(told("[zz]\nx=1\n[exec]\nq=1\n[limits]\ny=1").contains(":1:"));
}

#[test]
fn star_for_all_users_with_or_without_a_list() {
    let of = |users: &str| {
        let text = format!("name = \"x\"\n[gui.x]\ncommand = [\"/bin/true\"]\nusers = {users}\n");
        parse(&text).unwrap()
    };
    let (plain, list) = (of("\"*\""), of("[\"*\"]"));
    assert_eq!(plain.gui, list.gui);
    assert!(plain.print().contains("\nusers = [\"*\"]\n"));
    // An empty environment is written as an empty table.
    assert!(plain.print().ends_with("\nenvironment = {}\n"));
}

#[test]
fn other_ways_to_write_numbers() {
    assert_eq!(parse("port = 0x2710").unwrap().port, 10000);
    assert_eq!(parse("port = 10_000").unwrap().port, 10000);
    assert_eq!(parse("port = +7").unwrap().port, 7);
}

#[test]
fn files() {
    let scratch = Scratch::new();
    let file = scratch.file("cosserver.toml", "name = \"x\"\n", 0o644);
    assert_eq!(Settings::load(&file).unwrap().name.as_str(), "x");
    scratch.file("cosserver.toml", b"port = 1\n\xff\n", 0o644);
    assert!(
        Settings::load(&file)
            .unwrap_err()
            .to_string()
            .ends_with("cosserver.toml:2: it is not UTF-8 text")
    );
    scratch.file("cosserver.toml", "", 0o666);
    assert!(
        Settings::load(&file)
            .unwrap_err()
            .to_string()
            .contains("can be written by all users")
    );
    scratch.file("cosserver.toml", "#".repeat(FILE_MAX + 1), 0o644);
    assert!(Settings::load(&file).is_err());
    std::fs::remove_file(&file).unwrap();
    assert!(
        Settings::load(&file)
            .unwrap_err()
            .to_string()
            .contains(" init` makes one")
    );
    // `init` creates no file of another name, and none outside the machine's first folders.
    for other in [
        file.with_file_name("other.toml"),
        "/cosserver.toml".into(),
        "/nosuch".into(),
    ] {
        let told = Settings::load(&other).unwrap_err().to_string();
        assert!(told.ends_with(": there is no such file"), "{told}");
    }
}

#[test]
fn deep_and_mutated_files_end_with_an_answer() {
    for deep in [
        "[".repeat(100_000),
        "a=".to_owned() + &"[".repeat(100_000),
        "a.".repeat(100_000) + "b=1",
    ] {
        assert!(parse(&deep).is_err());
    }
    let service = "name = \"x\"\n[service.x]\nkind = \"forward\"\nto = \"tcp:[::1]:1\"\n\
                   allow = [{ host = \"hosta\", time = \"Sat 07:00-19:00\" }]\n";
    let seed = parse(service).unwrap().print();
    let mut numbers = Numbers(1);
    let mut taken = 0;
    for _ in 0..20_000 {
        let text = numbers.mutate(seed.as_bytes());
        if let Ok(text) = String::from_utf8(text) {
            taken += usize::from(parse(&text).is_ok());
        }
    }
    assert!(
        taken > 0,
        "no mutant was a right file: the test does not reach the values"
    );
}

/// Connections to more listeners than the gate has numbers for would never be accepted.
#[test]
fn no_more_addresses_than_the_gate_can_listen_on() {
    let of = |n: usize| {
        let list: Vec<String> = (1..=n).map(|i| format!("\"127.0.0.{i}\"")).collect();
        parse(&format!("name = \"x\"\nlisten = [{}]", list.join(", ")))
    };
    assert_eq!(of(63).unwrap().listen.len(), 63);
    let told = of(64).unwrap_err().to_string();
    assert!(told.contains(":2: listen: 63 addresses at most"), "{told}");
}

#[test]
fn a_comment_need_not_be_utf_8() {
    let scratch = Scratch::new();
    let load = |text: &[u8]| Settings::load(&scratch.file("cosserver.toml", text, 0o600));
    let good = b"# B\xfcro\nname = \"hostb\" # f\xfcr \"uns\"\nport = 7000\n";
    assert_eq!(load(good).unwrap().port, 7000);
    for wrong in [
        &b"# x\nname = \"h\xfc\"\n"[..],
        b"# \xfc\n[exec]\npath = \"/b # \xfc\"\n",
        b"n\xfc = 1\n",
        b"name = \"hostb\"\n\xfc\n",
    ] {
        let told = load(wrong).unwrap_err().to_string();
        assert!(told.contains("it is not UTF-8 text"), "{told}");
    }
}

/// A mistake elsewhere was once reported as the comment's.
#[test]
fn a_comment_that_is_not_utf_8_hides_no_other_mistake() {
    let scratch = Scratch::new();
    for (line, wrong) in [
        (2, &b"# B\xfcro\nport = = 3\n"[..]),
        (1, b"port = = 3 # f\xfcr uns\n"),
        (3, b"name = \"hostb\" # \xfc\xe4\n\n[exec\n# \xfc\n"),
    ] {
        let told = Settings::load(&scratch.file("cosserver.toml", wrong, 0o600));
        let told = told.unwrap_err().to_string();
        assert!(told.contains(&format!("cosserver.toml:{line}: ")), "{told}");
        assert!(!told.contains("UTF-8"), "{told}");
    }
    // Nor is the comment reported for another line that is not UTF-8.
    let wrong = b"# \xfc\nn\xfc = 1\n";
    let told = Settings::load(&scratch.file("cosserver.toml", wrong, 0o600));
    let told = told.unwrap_err().to_string();
    assert!(told.ends_with(":2: it is not UTF-8 text"), "{told}");
}
