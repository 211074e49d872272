//! Tools that use the client as ssh, with the flags of ssh that they add, against the real daemon,
//! with their results compared byte for byte. `scripts/need test` installs them; if one is missing
//! the test says so, and fails in CI.

use crate::daemon;
use crate::tool;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use daemon::{COS, Daemon, me, must, needs_root, run, until};
use tool::{everything, grow, have, start, tool};

/// The flags that users give ssh, for a tool's setting with a whole command line.
const FLAGS: [&str; 8] = [
    "-C",
    "-i",
    "/no/key",
    "-F",
    "/dev/null",
    "-c",
    "aes256-ctr",
    "-q",
];

fn cosrsh_with_flags() -> String {
    format!("cosrsh {}", FLAGS.join(" "))
}

/// Starts a daemon that is reached by `ssh` on the path, which is the client.
fn start_as_ssh() -> Daemon {
    let d = start();
    symlink(COS, d.folder.path("bin/ssh")).unwrap();
    d
}

#[test]
fn rsync_with_flags_of_ssh() {
    if !have(&["rsync"]) {
        return;
    }
    let d = start();
    let [here, there, back] = ["here", "there", "back"].map(|n| d.folder.path(n));
    grow(&here, 300);
    let rsync = |from: &str, to: &str| {
        must(tool(&d, "rsync").args(["-a", "-e", &cosrsh_with_flags(), from, to]));
    };
    let slash = |path: &Path| format!("{}/", path.display());
    rsync(&slash(&here), &format!("hostb:{}", slash(&there)));
    rsync(&format!("{}@hostb:{}", me(), slash(&there)), &slash(&back));
    assert!(everything(&here) == everything(&there));
    assert!(everything(&here) == everything(&back));
}

#[test]
fn scp_with_flags_of_ssh() {
    if !have(&["scp"]) {
        return;
    }
    let d = start();
    let [here, there, back] = ["here", "there", "back"].map(|n| d.folder.path(n));
    grow(&here, 100);
    fs::remove_file(here.join("link")).unwrap();
    // The protocol of rcp: -O is new, and older versions know no other.
    let knows = run(Command::new("scp").arg("-O"));
    let usage = String::from_utf8(knows.stderr).unwrap();
    let mut words = usage.split_whitespace();
    let is_new = words.any(|w| w.starts_with("[-3") && w.contains('O'));
    let rcp: &[&str] = if is_new { &["-O"] } else { &[] };
    let scp = |from: &str, to: &str| {
        let mut command = tool(&d, "scp");
        command.args(rcp).args(["-S", "cosrsh", "-q", "-r", "-p"]);
        must(command.args(&FLAGS[..7]).args([from, to]));
    };
    scp(
        &here.display().to_string(),
        &format!("hostb:{}", there.display()),
    );
    scp(
        &format!("{}@hostb:{}", me(), there.display()),
        &back.display().to_string(),
    );
    assert!(everything(&here) == everything(&there));
    assert!(everything(&here) == everything(&back));
}

#[test]
fn mercurial_clones_and_pushes() {
    if !have(&["hg"]) {
        return;
    }
    let d = start();
    let [work, clone] = ["work", "clone"].map(|n| d.folder.path(n));
    grow(&work, 200);
    let hg = |folder: &Path, words: &[&str]| {
        let mut command = tool(&d, "hg");
        command.env("HGRCPATH", "/dev/null").env("HGPLAIN", "1");
        command
            .args(["--config", "ui.username=a"])
            .args(["--config"]);
        command.arg(format!("ui.ssh={}", cosrsh_with_flags()));
        String::from_utf8(must(command.current_dir(folder).args(words))).unwrap()
    };
    hg(&work, &["init"]);
    hg(&work, &["commit", "-q", "-A", "-m", "one"]);
    let url = format!("ssh://{}@hostb/{}", me(), work.display());
    hg(&d.folder.0, &["clone", "-q", &url, clone.to_str().unwrap()]);
    let files = |folder: &Path| -> Vec<_> {
        let all = everything(folder).into_iter();
        let of_tree = all.filter(|(path, _)| !path.starts_with(".hg") && !path.ends_with("empty"));
        of_tree
            .map(|(path, (_, _, content))| (path, content))
            .collect()
    };
    assert!(files(&clone) == files(&work));
    fs::write(clone.join("new"), "x".repeat(2_000_000)).unwrap();
    hg(&clone, &["commit", "-q", "-A", "-m", "two"]);
    hg(&clone, &["push", "-q"]);
    hg(&work, &["update", "-q"]);
    assert!(files(&clone) == files(&work));
    hg(&work, &["verify", "-q"]);
}

#[test]
fn unison_both_ways() {
    if !have(&["unison"]) {
        return;
    }
    let d = start();
    let [here, there] = ["here", "there"].map(|n| d.folder.path(n));
    grow(&here, 100);
    fs::create_dir(&there).unwrap();
    fs::write(there.join("of there"), "x").unwrap();
    // Its notes, which are otherwise in the home directories of both.
    let [notes, others] = ["notes", "others"].map(|n| d.folder.path(n));
    let unison = || {
        let mut command = tool(&d, "unison");
        command.env("UNISON", &notes).env("HOME", &d.folder.0);
        command.args(["-ui", "text", "-batch", "-auto", "-times", "-silent"]);
        command.args(["-sshcmd", "cosrsh", "-sshargs", &FLAGS.join(" ")]);
        let server = format!("env UNISON={} unison", others.display());
        command.args(["-servercmd", &server]);
        command
            .arg(&here)
            .arg(format!("ssh://{}@hostb/{}", me(), there.display()));
        must(&mut command)
    };
    let content = |folder: &Path| -> Vec<_> {
        let all = everything(folder).into_iter();
        all.map(|(path, (_, _, content))| (path, content)).collect()
    };
    unison();
    assert!(here.join("of there").exists());
    assert!(content(&here) == content(&there));
    fs::write(there.join("large"), "y".repeat(3_000_000)).unwrap();
    unison();
    assert!(content(&here) == content(&there));
}

#[test]
fn pdsh_by_its_own_module_for_ssh() {
    if !have(&["pdsh"]) {
        return;
    }
    let d = start_as_ssh();
    let mut pdsh = tool(&d, "pdsh");
    pdsh.args([
        "-R",
        "ssh",
        "-S",
        "-w",
        "hostb,127.0.0.1",
        "echo \"a  b\"; exit 3",
    ]);
    let out = run(&mut pdsh);
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["127.0.0.1: a  b", "hostb: a  b"]);
}

#[test]
fn pssh_on_several_hosts() {
    if !have(&["parallel-ssh"]) {
        return;
    }
    let d = start_as_ssh();
    let [out, err, input] = ["out", "err", "input"].map(|n| d.folder.path(n));
    fs::write(&input, must(Command::new("seq").args(["1", "100000"]))).unwrap();
    let mut pssh = tool(&d, "parallel-ssh");
    pssh.args([
        "-H",
        "hostb",
        "-H",
        "127.0.0.1",
        "-l",
        &me(),
        "-I",
        "-x",
        "-C -tt",
    ]);
    pssh.arg("-o")
        .arg(&out)
        .arg("-e")
        .arg(&err)
        .arg("cat; echo error >&2");
    let done = pssh
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let expected = fs::read(&input).unwrap();
    for host in ["hostb", "127.0.0.1"] {
        assert!(fs::read(out.join(host)).unwrap() == expected);
        let said = fs::read_to_string(err.join(host)).unwrap();
        let note = format!("cos: {host}: -t: there is no terminal; the command runs without one\n");
        assert_eq!(said, format!("{note}error\n"));
    }
}

/// It has the path of ssh built in, so the client replaces that file, in a mount namespace.
#[test]
fn check_by_ssh() {
    const PLUGIN: &str = "/usr/lib/nagios/plugins/check_by_ssh";
    if !needs_root() {
        return;
    }
    if !Path::new(PLUGIN).exists() || !Path::new("/usr/bin/ssh").exists() {
        let why = format!("no {PLUGIN}: scripts/need test installs it");
        assert!(!daemon::in_ci(), "{why}");
        daemon::report_skipped(&why);
        return;
    }
    let d = start();
    let check = |command: &str, words: &[&str]| {
        let mut unshare = tool(&d, "unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c"]);
        unshare.arg("mount --bind \"$1\" /usr/bin/ssh && shift && exec \"$@\"");
        unshare
            .args(["sh", COS, PLUGIN, "-H", "hostb", "-C", command])
            .args(words);
        let out = run(&mut unshare);
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let critical = "echo 'DISK CRITICAL - 1  %|x=1'; exit 2";
    let line = "DISK CRITICAL - 1  %|x=1\n";
    assert_eq!(check(critical, &[]), (Some(2), line.into()));
    let flags = [
        "-i",
        "/no/key",
        "-o",
        "StrictHostKeyChecking=no",
        "-q",
        "-4",
        "-l",
    ];
    let (status, out) = check("echo OK", &[&flags[..], &[&me()]].concat());
    assert_eq!((status, &*out), (Some(0), "OK\n"));
}

#[test]
fn ansible_commands_and_files() {
    if !have(&["ansible-playbook"]) {
        return;
    }
    let d = start_as_ssh();
    let [source, there, back] = ["source", "there", "back"].map(|n| d.folder.path(n));
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&source, &bytes).unwrap();
    let play = format!(
        r#"
- hosts: hostb
  gather_facts: false
  tasks:
    - copy: {{src: {source}, dest: {there}, mode: "0640"}}
    - shell: "printf 'a  b\\n'; printf 'c\\n' >&2; exit 3"
      register: told
      failed_when: told.rc != 3 or told.stdout != 'a  b' or 'c' not in told.stderr_lines + told.stdout_lines
    - fetch: {{src: {there}, dest: {back}, flat: true}}
"#,
        source = source.display(),
        there = there.display(),
        back = back.display()
    );
    fs::write(d.folder.path("play.yml"), play).unwrap();
    // Unmodified: ssh from the path, with -C and -tt; sftp has the path of ssh built in.
    let mut ansible = tool(&d, "ansible-playbook");
    ansible
        .env("HOME", &d.folder.0)
        .env("ANSIBLE_HOME", d.folder.path("ansible"))
        .env("ANSIBLE_REMOTE_TMP", d.folder.path("tmp"))
        .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3")
        .env("ANSIBLE_SSH_TRANSFER_METHOD", "piped")
        .env("LC_ALL", "C.UTF-8")
        .args(["-i", "hostb,", "-u", &me(), "play.yml"]);
    let out = run(&mut ansible);
    assert!(out.status.success(), "{out:?}");
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.contains("failed=0"), "{said}");
    assert!(fs::read(&there).unwrap() == bytes && fs::read(&back).unwrap() == bytes);
}

/// Runs a script with Debian's own Python, which has pexpect.
fn pexpect(d: &Daemon, script: &str, words: &[&str]) -> Option<String> {
    let python = "/usr/bin/python3";
    let has = Command::new(python).args(["-c", "import pexpect"]).output();
    if !has.is_ok_and(|out| out.status.success()) {
        let why = "no pexpect: scripts/need test installs it";
        assert!(!daemon::in_ci(), "{why}");
        daemon::report_skipped(why);
        return None;
    }
    let mut command = tool(d, python);
    let out = run(command.args(["-c", script]).args(words));
    assert!(out.status.success(), "{out:?}");
    Some(String::from_utf8(out.stdout).unwrap())
}

/// pxssh needs a prompt, which takes a terminal on the host: it fails with the message about that.
/// A session by pexpect without a prompt works.
#[test]
fn pxssh_says_what_is_missing() {
    let d = start_as_ssh();
    let script = r#"
import pexpect.pxssh, sys
session = pexpect.pxssh.pxssh(timeout=20, encoding='utf-8')
try:
    session.login('hostb', sys.argv[1])
except pexpect.ExceptionPexpect:
    print(session.before)
child = pexpect.spawn('ssh', ['-T', 'hostb'], timeout=20)
child.setecho(False)
child.sendline('echo $((6*7))')
child.expect_exact('42')
child.sendline('exit 3')
child.expect(pexpect.EOF)
child.close()
print('status', child.exitstatus)
"#;
    let Some(said) = pexpect(&d, script, &[&me()]) else {
        return;
    };
    assert!(
        said.contains("there is no terminal here; give a command"),
        "{said}"
    );
    assert!(said.ends_with("status 3\n"), "{said}");
}

/// The Midnight Commander's shell link, with compression, copies a file from one panel to the
/// other.
#[test]
fn midnight_commander_copies_from_a_shell_link() {
    if !have(&["mc"]) {
        return;
    }
    let d = start_as_ssh();
    let [there, here] = ["there", "here"].map(|n| d.folder.path(n));
    fs::create_dir(&there).unwrap();
    fs::create_dir(&here).unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(there.join("a-file-there"), &bytes).unwrap();
    let script = r#"
import os, pexpect, sys
env = dict(os.environ, TERM='xterm', HOME=sys.argv[1], SHELL='/bin/sh')
child = pexpect.spawn('mc', ['-u', sys.argv[2], sys.argv[3]], timeout=30, env=env, dimensions=(24, 100))
child.expect_exact('a-file-there')
# The rest of the screen.
child.expect(pexpect.TIMEOUT, timeout=0.5)
child.send('\x0e')
child.send('\x1b5')
child.expect_exact('ackground')
child.send('\r')
copied = os.path.join(sys.argv[3], 'a-file-there')
for _ in range(150):
    if os.path.exists(copied) and os.path.getsize(copied) == int(sys.argv[4]):
        break
    child.expect(pexpect.TIMEOUT, timeout=0.2)
# Keys may come too early for it: it ends with its terminal.
child.close(force=True)
"#;
    let link = format!("sh://{}@hostb:C{}", me(), there.display());
    let home = d.folder.0.to_str().unwrap();
    let words = [
        home,
        &link,
        here.to_str().unwrap(),
        &bytes.len().to_string(),
    ];
    if pexpect(&d, script, &words).is_some() {
        assert!(fs::read(here.join("a-file-there")).unwrap() == bytes);
        until("its session has ended", || d.log.count("end session=") >= 1);
    }
}

/// Emacs' TRAMP by its methods sshx and scpx, which name a shell that prompts without a terminal,
/// and by the method in cos(1): what it sends (as observed with Emacs 28), and the prompts that it
/// waits for.
#[test]
fn a_shell_with_a_prompt_for_tramp() {
    let d = start_as_ssh();
    let script = r#"
import pexpect, sys
child = pexpect.spawn('/bin/sh', ['-c', 'exec ssh -l "$@"', 'sh'] + sys.argv[1:], timeout=20)
child.setecho(False)
child.expect_exact(['# ', '$ '])
child.sendline("exec env ENV='' HISTFILE=~/.tramp_history PROMPT_COMMAND='' PS1=\\#\\$\\  PS2='' PS3='' /bin/sh -i")
child.expect_exact('#$ ')
child.sendline("PS1='///abc''#$' PS2='' PS3='' PROMPT_COMMAND=''")
child.expect_exact('///abc#$')
child.sendline("(cd ~/ && pwd) ; echo tramp_exit_status $?")
child.expect(r'(/\S*)\r?\ntramp_exit_status 0\r?\n///abc#\$')
print(child.match.group(1).decode())
"#;
    let share = [
        "ControlMaster=auto",
        "ControlPath=tramp.%C",
        "ControlPersist=no",
    ];
    let mut sshx: Vec<&str> = share.iter().flat_map(|s| ["-o", s]).collect();
    let remote = "RemoteCommand=/bin/sh  -i";
    sshx.extend(["-e", "none", "-t", "-t", "-o", remote, "hostb"]);
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let home = user.unwrap().unwrap().dir;
    for words in [&sshx[..], &["hostb", "/bin/sh", "-i"]] {
        let Some(said) = pexpect(&d, script, &[&[&*me()], words].concat()) else {
            return;
        };
        assert_eq!(said.trim_end(), home.to_str().unwrap(), "{words:?}");
    }
}
