//! Every example of README.md and of the manual pages is run as written.
//!
//! `hosta`, `hostb`, `hostc` and `pc` are test machines, with the accounts, files and programs that
//! the examples use. An example that is not run is listed in `NOT_RUN` with its reason; one that is
//! neither run nor listed fails the test.

use crate::daemon;
use crate::machine;
use crate::seat;
use crate::tree;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cosserver::config::hostinfo::HostTable;
use cosserver::config::paths::Paths;
use cosserver::config::settings::Settings;
use cosserver::registry::Doors;
use machine::Machine;
use seat::Seat;
use tree::{files, relative, text};

/// Examples that are not run, each with its reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("make demo", "CI runs it"),
    ("make test", "it runs this test"),
    (
        "make && sudo make install",
        "it builds everything; the machines are made by `make install` alone",
    ),
    (
        "scp card hosta:",
        "there is no sshd; the test carries each card itself",
    ),
    (
        "systemctl disable --now cosserver",
        "the machines have no systemd; the test ends the daemon",
    ),
    (
        "cosserver stream tcp nowait root /usr/local/sbin/cosserver cosserver -i",
        "a line of inetd.conf, which tests/init/inetd.rs gives to an inetd",
    ),
    (
        "cos run -J jump@hostj -o JumpProgram=/usr/bin/cos hostb uptime",
        "there is no hostj; tests/jump.rs goes through other hosts",
    ),
    (
        "sshfs -o ssh_command=cosrsh hostb:/srv /mnt",
        "the machines have no /dev/fuse; tests/sftp.rs mounts",
    ),
    (
        "restic -o sftp.command='cosrsh hostb -s sftp' -r sftp:hostb:/srv/backup snapshots",
        "there is no repository; tests/sftp.rs has one",
    ),
    (
        "rclone --sftp-ssh 'cosrsh hostb' ls :sftp:/srv",
        "distributions have an older one; tests/cosrsh.rs has its command line",
    ),
    (
        "K     = HKDF-SHA-256(salt, cookie, \"cosserver hash v1\", 32)",
        "a formula, which tests/independent calculates",
    ),
    (
        "proof = HMAC-SHA-256(K, lp(label) lp(caller) lp(server)",
        "a formula, which tests/independent calculates",
    ),
    (
        "lp(client key) lp(host key) lp(nonce) lp(request))",
        "a formula, which tests/independent calculates",
    ),
];

/// Third-party programs that examples call. Without one its examples are skipped; CI fails.
const PROGRAMS: [&str; 10] = [
    "git", "rsync", "pdsh", "parallel", "jq", "hg", "unison", "ansible", "sftp", "scp",
];

/// Returns the program that this command lacks, and reports it.
fn lacks(command: &str) -> bool {
    let words: BTreeSet<&str> = command
        .split(|c: char| !c.is_ascii_alphanumeric())
        .collect();
    let calls = |program: &&&str| words.contains(**program);
    let mut missing = PROGRAMS
        .iter()
        .filter(|program| daemon::session::on_path(program).is_none());
    let Some(program) = missing.find(calls) else {
        return false;
    };
    let why = format!("no {program} for: {command}");
    assert!(!daemon::in_ci(), "{why}");
    daemon::report_skipped(&why);
    true
}

/// Commands that remove an installation: run last, on hostc.
const LAST: [&str; 2] = ["rm -rf ", "userdel "];

/// The prerequisites of the first example that contains this word: on which host, and the commands
/// that create them.
const BEFORE: &[(&str, &str, &str)] = &[
    (
        "hg clone",
        "hostb",
        "hg init /srv/project && cd /srv/project && echo a >a && hg commit -A -u me -m first",
    ),
    (
        "cos services",
        "hostb",
        "cat >>/etc/cosserver/cosserver.toml <<EOF && kill -HUP $(cat /run/cosserver/cosserver.pid)
[service.uptime]
kind = \"command\"
command = [\"/usr/bin/uptime\"]
as = \"nobody\"
allow = [ { host = \"hosta\" } ]
[service.report]
kind = \"command\"
command = [\"/bin/echo\"]
args = [\"daily month=*\"]
as = \"nobody\"
allow = [ { host = \"hosta\" } ]
[service.git]
kind = \"inetd\"
command = [\"$(command -v git)\", \"daemon\", \"--inetd\", \"--export-all\", \"--base-path=/srv\"]
as = \"root\"
allow = [ { host = \"hosta\" } ]
EOF
",
    ),
    (
        "hostc",
        "hostc",
        "cosadm host invite hosta --addr 192.0.2.1 --run-as root -o /root/card && cosserver",
    ),
    (
        "'Attic PC'",
        "hostb",
        "cosadm machine add 0123456789abcdef0123456789abcdef --name 'Attic PC'",
    ),
];

/// What a user types at a terminal: the end of a prompt, and the answer; `OTP` is the password that
/// `cosadm otp add` printed last.
const TYPED: &[(&str, &[(&str, &str)])] = &[
    (
        "pc$ cos enrol hostb",
        &[("(yes/no) ", "yes"), ("ACTIVATION password: ", "OTP")],
    ),
    ("pc$ cos gui alice@hostb xterm", &[("Password: ", "secret")]),
    ("cos gui alice@hostb xterm", &[("Password: ", "secret")]),
    (
        "cos gui -l alice --display 192.0.2.7:9103 --detach hostb xterm",
        &[("Password: ", "secret")],
    ),
];

/// An example: its location and its lines.
struct Block {
    at: String,
    page: &'static str,
    lines: Vec<String>,
}

/// Returns the blocks of README: its numbered lines, which form one, and indented blocks.
fn of_readme() -> Vec<Block> {
    let page = text("README.md");
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(page.lines()) {
        let numbered = line
            .split_once(". ")
            .filter(|(n, _)| n.parse::<u8>().is_ok());
        let found = match (line.strip_prefix("    "), numbered) {
            (Some(code), _) => code.to_owned(),
            (None, Some((_, words))) => {
                let (before, rest) = words.split_once('`').unwrap();
                let command = rest.split('`').next().unwrap();
                let hosts = ["hosta", "hostb"].into_iter();
                let host = hosts
                    .filter_map(|host| Some((before.find(host)?, host)))
                    .min();
                host.map_or_else(
                    || command.to_owned(),
                    |(_, host)| format!("{host}# {command}"),
                )
            }
            (None, None) => {
                open = false;
                continue;
            }
        };
        if !open {
            blocks.push(Block {
                at: format!("README.md:{number}"),
                page: "README.md",
                lines: Vec::new(),
            });
            open = true;
        }
        blocks.last_mut().unwrap().lines.push(found);
    }
    blocks
}

/// Returns the literal blocks of a manual page.
fn of_page(page: &'static str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text(page).lines()) {
        if line.starts_with(".Bd -literal") || line.starts_with(".Dl ") {
            blocks.push(Block {
                at: format!("{page}:{number}"),
                page,
                lines: Vec::new(),
            });
            open = line.starts_with(".Bd");
            if let Some(one) = line.strip_prefix(".Dl ") {
                blocks.last_mut().unwrap().lines.push(one.to_owned());
            }
        } else if line == ".Ed" {
            open = false;
        } else if open {
            blocks.last_mut().unwrap().lines.push(line.to_owned());
        }
    }
    blocks
}

const PAGES: [&str; 7] = [
    "docs/man/cos.1",
    "docs/man/cos-sign.1",
    "docs/man/cosadm.8",
    "docs/man/cosserver.8",
    "docs/man/cosserver.toml.5",
    "docs/man/hostinfo.5",
    "docs/man/cosserver-protocol.7",
];

fn blocks() -> Vec<Block> {
    let mut all = of_readme();
    all.extend(PAGES.into_iter().flat_map(of_page));
    all
}

/// Returns the commands of a block: a line that ends with `|` or `\` continues in the next.
fn commands(block: &Block) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in &block.lines {
        match all.last_mut().filter(|_| goes_on) {
            Some(last) => {
                last.push('\n');
                last.push_str(line);
            }
            None => all.push(line.clone()),
        }
        goes_on = line.ends_with('|') || line.ends_with('\\');
    }
    all.retain(|line| !line.trim().is_empty());
    all
}

/// Returns a command without the comment after it.
fn bare(command: &str) -> &str {
    command.split("  #").next().unwrap().trim()
}

fn is_not_run(command: &str) -> Option<usize> {
    let command = command.trim_start_matches("hostb# ");
    NOT_RUN.iter().position(|(text, _)| *text == bare(command))
}

/// The four machines.
struct Park {
    hosta: Machine,
    hostb: Machine,
    hostc: Machine,
    pc: Machine,
    prepared: RefCell<BTreeSet<usize>>,
    otp: RefCell<String>,
    run: Cell<usize>,
    /// The examples that failed, with what they said.
    wrong: RefCell<Vec<String>>,
}

/// The accounts and files that the examples use, on their hosts.
const ACCOUNTS: &str = "
    hostname $NAME
    printf '192.0.2.1 hosta\\n192.0.2.7 hostb\\n192.0.2.9 hostc\\n192.0.2.20 pc\\n' >>/etc/hosts
    getent group staff >/dev/null || groupadd staff
    for user in operator alice bob; do
        id $user >/dev/null 2>&1 || useradd -N -m -s /bin/sh $user
    done
    echo alice:secret | chpasswd
    mkdir -p /backup /opt/stock/bin /srv
    printf 'reload:\\n\\t@echo reloaded\\n' >/srv/Makefile
    printf '#!/bin/sh\\nexit 0\\n' >/usr/bin/xterm
    chmod 755 /usr/bin/xterm
    if test $NAME = hostb; then
        rm -rf /srv/project.git
        git init -q --bare /srv/project.git
        : >/dev/st0
    fi
";

impl Park {
    fn start() -> Option<Self> {
        let machine = |name: &str| {
            let machine = Machine::start()?;
            machine.make("install INIT=none PAM=debian");
            machine.must(&format!("NAME={name}{ACCOUNTS}"));
            Some(machine)
        };
        let park = Self {
            hosta: machine("hosta")?,
            hostb: machine("hostb")?,
            hostc: machine("hostc")?,
            pc: machine("pc")?,
            prepared: RefCell::new(BTreeSet::new()),
            otp: RefCell::new(String::new()),
            run: Cell::new(0),
            wrong: RefCell::new(Vec::new()),
        };
        park.hostb.connect("192.0.2.7", &park.hosta, "192.0.2.1");
        park.hostb.connect("192.0.2.7", &park.pc, "192.0.2.20");
        park.hostc.connect("192.0.2.9", &park.hosta, "192.0.2.1");
        Some(park)
    }

    fn host(&self, name: &str) -> &Machine {
        match name {
            "hosta" => &self.hosta,
            "hostb" => &self.hostb,
            "hostc" => &self.hostc,
            "pc" => &self.pc,
            other => panic!("there is no host {other}"),
        }
    }

    /// Creates what this example needs, if it is missing.
    fn prepare(&self, command: &str) {
        for (number, (word, host, script)) in BEFORE.iter().enumerate() {
            if !command.contains(word) || !self.prepared.borrow_mut().insert(number) {
                continue;
            }
            self.host(host).must(script);
            if *word == "hostc" {
                self.carry("/root/card", "hostc", "/root/card-of-c");
                self.hosta.must("cosadm host join /root/card-of-c");
            }
        }
    }

    /// Copies a card to hosta.
    fn carry(&self, card: &str, from: &str, to: &str) {
        let card = self.host(from).path(card);
        std::fs::copy(card, self.hosta.path(to)).unwrap();
    }

    /// Runs a command of this block on the host that the prompt before it names, in a separate
    /// directory.
    fn run(&self, at: &str, number: usize, line: &str) {
        let (host, command, is_root) = match line.split_once("# ") {
            Some((host, command)) if !host.contains(' ') => (host, command, true),
            _ => match line.split_once("$ ") {
                Some((host, command)) if !host.contains(' ') => (host, command, false),
                _ if ["cos gui", "cos key", "cos enrol"]
                    .iter()
                    .any(|start| line.starts_with(start)) =>
                {
                    ("pc", line, false)
                }
                _ => ("hosta", line, true),
            },
        };
        self.prepare(command);
        let home = if is_root { "/root" } else { "/home/alice" };
        let folder = format!("{home}/example{number}");
        let script = format!(
            "mkdir -p {folder}/src {folder}/tree && cd {folder} || exit 1
             echo a >src/a; echo b >tree/b; echo secret >password; echo 1234-5678 >activation
             {command}"
        );
        let machine = self.host(host);
        let shell = if is_root {
            machine.shell(&script)
        } else {
            let mut shell = machine.shell(
                "exec setpriv --reuid=alice --regid=$(id -g alice) --init-groups \
                 env HOME=/home/alice USER=alice LOGNAME=alice sh -c \"$SCRIPT\"",
            );
            shell.env("SCRIPT", &script);
            shell
        };
        let typed = TYPED.iter().find(|(text, _)| bare(line) == *text);
        let (status, said) = match typed {
            Some((_, answers)) => self.at_a_terminal(&shell, answers),
            None => whole(shell),
        };
        self.run.set(self.run.get() + 1);
        if status != Some(0) {
            let wrong = format!("{at}: {line}\nends with {status:?}: {said}");
            self.wrong.borrow_mut().push(wrong);
            return;
        }
        if command.contains("otp add") {
            let printed = said.lines().next().unwrap();
            self.otp.replace(printed.to_owned());
        }
        // What is created on hosta stays there.
        let card = command.split_once("-o ").filter(|_| host != "hosta");
        if let Some((_, card)) = card {
            let card = format!("{folder}/{}", bare(card));
            self.hosta.must(&format!("mkdir -p {folder}"));
            self.carry(&card, host, &card);
        }
    }

    fn at_a_terminal(&self, shell: &Command, answers: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut seat = Seat::take(shell);
        for (prompt, answer) in answers {
            seat.sees(prompt);
            let otp = self.otp.borrow();
            let answer = if *answer == "OTP" {
                otp.as_str()
            } else {
                answer
            };
            let keys = format!("{answer}\n");
            if prompt.contains("assword") {
                seat.types_unseen(keys.as_bytes());
            } else {
                seat.types(keys.as_bytes());
            }
        }
        let seen = seat.seen.clone();
        let ended = seat.ends();
        (ended.status, format!("{seen}\n{ended:?}"))
    }

    /// Puts the tables of a block into hostb's settings.
    fn set(&self, table: &str) {
        let file = self.hostb.path("/etc/cosserver/cosserver.toml");
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{before}\n{table}")).unwrap();
    }
}

/// Checks an example of a registry file: no line is wrong, and the mark fits.
fn is_registry_file(text: &str) {
    let folder = daemon::Folder::new();
    let paths = Paths::of_dir(&folder.0);
    Doors::make(&paths).unwrap();
    let name = text.split(' ').nth(1).unwrap();
    let path = paths.state.join(name);
    std::fs::write(&path, text).unwrap();
    let sorted = text.lines().nth(2).unwrap();
    let mut numbers = sorted.split(' ').skip(1).map(|n| n.parse().unwrap());
    let (time, size): (u64, usize) = (numbers.next().unwrap(), numbers.next().unwrap() as usize);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(time))
        .unwrap();
    let rest: usize = text.lines().skip(3).map(|l| l.len() + 1).sum();
    assert_eq!(rest, size, "{text}");
    assert_eq!(Doors::check(&paths), Ok(Vec::new()), "{text}");
}

/// Runs a command to its end: its status, and its output, standard output first.
fn whole(mut command: Command) -> (Option<i32>, String) {
    let out = command.output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    (
        out.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Each block is run, read, or excused; each excused one exists.
#[test]
fn every_example_runs_as_it_is_written() {
    if !daemon::needs_root() {
        return;
    }
    let Some(park) = Park::start() else {
        return;
    };
    let mut last: Vec<(String, String)> = Vec::new();
    let mut excused = BTreeSet::new();
    for (number, block) in blocks().iter().enumerate() {
        let whole = block.lines.join("\n") + "\n";
        match block.page {
            "docs/man/hostinfo.5" => {
                let table = HostTable::parse(whole.as_bytes(), Path::new("hostinfo"));
                let lines = block.lines.iter().filter(|l| !l.starts_with('#')).count();
                assert!(
                    table.faults().is_empty(),
                    "{}: {:?}",
                    block.at,
                    table.faults()
                );
                assert_eq!(table.entries().len(), lines, "{}", block.at);
            }
            "docs/man/cosserver.toml.5" => {
                let read = Settings::parse(&whole, &Paths::of_dir(Path::new("/S")));
                assert!(read.is_ok(), "{}: {:?}", block.at, read.err());
            }
            "README.md" if whole.starts_with('[') => park.set(&whole),
            "docs/man/cosadm.8" if whole.starts_with("cosserver ") => is_registry_file(&whole),
            // Emacs Lisp: tests/ssh_tools.rs calls as TRAMP does.
            "docs/man/cos.1" if whole.starts_with('(') => {
                let count = |sign| whole.matches(sign).count();
                assert_eq!(count('('), count(')'), "{}", block.at);
            }
            _ => {
                for command in commands(block) {
                    if let Some(which) = is_not_run(&command) {
                        excused.insert(which);
                    } else if lacks(&command) {
                        park.run.set(park.run.get() + 1);
                    } else if LAST.iter().any(|start| command.starts_with(start)) {
                        last.push((block.at.clone(), command));
                    } else {
                        park.run(&block.at, number, &command);
                    }
                }
            }
        }
    }
    park.hostc.must(
        "kill $(cat /run/cosserver/cosserver.pid)
         while test -e /run/cosserver/cosserver.pid; do :; done",
    );
    for (at, command) in last {
        park.run(&at, 99, &format!("hostc# {command}"));
    }
    let wrong = park.wrong.borrow();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    for (which, (text, _)) in NOT_RUN.iter().enumerate() {
        assert!(excused.contains(&which), "no document has {text:?}");
    }
    assert!(park.run.get() > 40, "only {} were run", park.run.get());
}

/// Indented and literal blocks are found in every document, so that no example is missed.
#[test]
fn every_document_is_searched_for_examples() {
    for path in files() {
        let name = relative(&path);
        if name.starts_with("docs/man/") {
            assert!(PAGES.contains(&name), "{name} is not searched");
            let page = text(name);
            let literal = page.matches("\n.Bd -literal").count() + page.matches("\n.Dl ").count();
            let found = blocks().iter().filter(|b| b.page == name).count();
            assert_eq!(found, literal, "{name}");
            // The other forms of an example are not used.
            for other in ["\n.Bd -unfilled", "\n.D1 ", "\n.nf", "\n.EX"] {
                assert!(!page.contains(other), "{name} has {other:?}");
            }
        }
    }
    let readme = text("README.md");
    assert!(
        !readme.contains("```"),
        "README has an example of another form"
    );
    assert!(of_readme().len() >= 8);
}

/// The quick start is at the top, and has at most ten steps; README stays short.
#[test]
fn readme_begins_with_a_quick_start_of_at_most_ten_lines() {
    let readme = text("README.md");
    let lines: Vec<&str> = readme.lines().collect();
    assert!(lines.len() <= 180, "README has {} lines", lines.len());
    for (number, line) in (1..).zip(&lines) {
        let is_short = line.starts_with('|') || line.chars().count() <= 100;
        assert!(is_short, "README.md:{number} has more than 100 characters");
    }
    let heading = lines.iter().find(|line| line.starts_with("## "));
    assert_eq!(heading, Some(&"## Quick start"));
    let steps = lines.iter().filter(|line| {
        line.split_once(". ")
            .is_some_and(|(number, _)| number.parse::<u8>().is_ok())
    });
    let count = steps.count();
    assert!((2..=10).contains(&count), "{count} steps");
}
