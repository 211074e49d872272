//! The scripts of `examples/`, each run as an administrator would run it, on a test machine with
//! the daemon installed. `make lint` checks them with shellcheck and checkbashisms.

use crate::daemon;
use crate::machine;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};

use machine::{Machine, tool, top};

/// Every script, so that none is without a test.
const SCRIPTS: [&str; 10] = [
    "backup.sh",
    "check-disk.sh",
    "chroot-inetd.sh",
    "copy-file.sh",
    "cron-job.sh",
    "deploy.sh",
    "follow-log.sh",
    "mirror.sh",
    "restart-service.sh",
    "rolling-restart.sh",
];

/// The first lines of each shell of these tests.
const CLIENT: &str = "export COS_CONFIG_DIR=/root/A; cd /srv/checkout/examples\n";

/// Starts a machine that serves root's client on it as `hostb`.
fn serving() -> Option<Machine> {
    let machine = Machine::with_cosserver("none")?;
    machine.must("cosserver");
    Some(machine)
}

/// Runs this in the directory of the scripts, with this exit status; returns all its output.
fn ends(machine: &Machine, status: i32, script: &str) -> String {
    machine.ends(status, &[CLIENT, script].concat())
}

fn must(machine: &Machine, script: &str) -> String {
    ends(machine, 0, &["set -e\n", script].concat())
}

/// A command that signals `interrupt` that it runs, and does not end by itself.
const HANGS: &str = "echo x >/root/begun; exec sleep 1234";

/// Runs this script until a command in it `HANGS`, and sends it the signal; returns all its output.
/// It must end with this status, and its clients before it.
fn interrupt(machine: &Machine, signal: &str, status: i32, script: &str) -> String {
    // A shell makes background processes ignore SIGINT.
    let line = format!(
        "rm -f /root/begun; mkfifo /root/begun
         env --default-signal=INT {script} >/root/said 2>&1 & pid=$!
         read -r word </root/begun
         kill -{signal} $pid; status=0; wait $pid || status=$?
         cat /root/said
         exit $status"
    );
    let said = ends(machine, status, &line);
    assert_eq!(machine.running("cos run "), Vec::<String>::new(), "{said}");
    machine.until("the command has ended", |m| {
        m.running("sleep 1234").is_empty()
    });
    said
}

/// Puts a program of this name before all others of the client.
fn stub(machine: &Machine, name: &str, script: &str) {
    machine.must(&format!(
        "mkdir -p /root/stub; cat >/root/stub/{name} <<'STUB'
#!/bin/sh
{script}
STUB
         chmod 755 /root/stub/{name}"
    ));
}

const SIGNALS: [(&str, i32); 3] = [("HUP", 129), ("INT", 130), ("TERM", 143)];

#[test]
fn every_script_has_a_test() {
    let found: BTreeSet<String> = fs::read_dir(top().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".sh"))
        .collect();
    assert_eq!(found, SCRIPTS.map(str::to_owned).into());
}

#[test]
fn backup_keeps_the_newest_archives_and_fails_without_a_trace() {
    let Some(machine) = serving() else { return };
    must(
        &machine,
        "mkdir -p \"/root/it's data/sub\" /root/backup /root/back
         echo one >\"/root/it's data/sub/f\"
         for day in 1 2 3; do echo old >/root/backup/hostb-2020010${day}T000000-0000001.tar.gz; done
         echo other >/root/backup/hostc-20200101T000000-0000001.tar.gz
         ./backup.sh hostb \"/root/it's data\" /root/backup 2
         [ \"$(ls /root/backup | grep -c '^hostb-')\" -eq 2 ]
         [ -e /root/backup/hostb-20200103T000000-0000001.tar.gz ]
         [ -e /root/backup/hostc-20200101T000000-0000001.tar.gz ]
         tar -C /root/back -xzf \"$(ls -d /root/backup/hostb-* | tail -n 1)\"
         diff -r \"/root/it's data\" /root/back",
    );
    let before = must(&machine, "ls /root/backup");
    let said = ends(
        &machine,
        2,
        "./backup.sh hostb /no/such/folder /root/backup 1",
    );
    assert!(said.contains("tar failed with status 2\n"), "{said}");
    assert_eq!(must(&machine, "ls /root/backup"), before);
    // If cos itself failed, its own line is the only message.
    let said = ends(&machine, 255, "./backup.sh nowhere / /root/backup 1");
    assert!(said.starts_with("cos: nowhere: "), "{said}");
    assert!(!said.contains("tar failed"), "{said}");
    assert_eq!(must(&machine, "ls /root/backup"), before);
}

#[test]
fn mirror_deletes_what_is_gone_and_tries_again() {
    let Some(machine) = serving() else { return };
    must(
        &machine,
        "mkdir /root/from; echo 1 >/root/from/a; echo 2 >/root/from/b
         ./mirror.sh /root/from hostb:/root/to
         diff -r /root/from /root/to
         rm /root/from/a
         ./mirror.sh /root/from/ hostb:/root/to --quiet
         diff -r /root/from /root/to",
    );
    machine.must("kill $(cat /run/cosserver/cosserver.pid)");
    machine.until("the daemon has ended", |m| {
        m.running("cosserver").is_empty()
    });
    let out = machine.sh(&[
        CLIENT,
        "MIRROR_PAUSE=0 ./mirror.sh /root/from hostb:/root/to",
    ]
    .concat());
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success());
    assert_eq!(said.matches("trying again").count(), 2, "{said}");
}

#[test]
fn backup_removes_only_archives_of_its_own_host() {
    let Some(machine) = serving() else { return };
    let others = "hostb-2-20200101T000000-0000001.tar.gz
hostb-2-20200102T000000-0000001.tar.gz
hostb-20200101T000000-20200101T000000-0000001.tar.gz
hostb-3T1.tar.gz
";
    for name in others.lines() {
        must(
            &machine,
            &format!("mkdir -p /root/backup; : >/root/backup/{name}"),
        );
    }
    for _ in 0..2 {
        must(&machine, "./backup.sh hostb /etc/cosserver /root/backup 1");
    }
    let found = must(&machine, "LC_ALL=C ls /root/backup");
    let (own, rest): (Vec<&str>, Vec<&str>) = found
        .lines()
        .partition(|name| !others.lines().any(|other| other == *name));
    assert_eq!(rest, others.lines().collect::<Vec<_>>());
    assert_eq!(own.len(), 1, "{found}");
}

#[test]
fn backup_refuses_a_keep_that_is_no_positive_number() {
    let Some(machine) = serving() else { return };
    machine.must("mkdir /root/backup");
    for keep in ["0", "abc", "-1", "''", "1x"] {
        let said = ends(
            &machine,
            2,
            &format!("./backup.sh hostb /etc/cosserver /root/backup {keep}"),
        );
        assert!(said.starts_with("usage: "), "{keep}: {said}");
    }
    assert_eq!(machine.must("ls -A /root/backup"), "");
}

#[test]
fn backups_of_the_same_second_are_kept_apart() {
    let Some(machine) = serving() else { return };
    stub(&machine, "date", "echo 20300101T000000");
    must(
        &machine,
        "PATH=/root/stub:$PATH
         mkdir /root/backup /root/one /root/two; echo one >/root/one/f; echo two >/root/two/f
         ./backup.sh hostb /root/one /root/backup & first=$!
         ./backup.sh hostb /root/two /root/backup & second=$!
         wait $first; wait $second
         [ $(ls -A /root/backup | wc -l) -eq 2 ]
         for archive in /root/backup/*; do tar -xOzf $archive ./f; done | sort >/root/both
         printf 'one\\ntwo\\n' | cmp - /root/both",
    );
}

#[test]
fn backup_interrupted_leaves_no_part() {
    let Some(machine) = serving() else { return };
    machine.must(&format!(
        "mkdir /root/backup; rm \"$(command -v tar)\"
         printf '#!/bin/sh\\n{HANGS}\\n' >/usr/local/bin/tar; chmod 755 /usr/local/bin/tar"
    ));
    for (signal, status) in SIGNALS {
        interrupt(
            &machine,
            signal,
            status,
            "./backup.sh hostb /etc /root/backup",
        );
        assert_eq!(machine.must("ls -A /root/backup"), "");
    }
}

#[test]
fn mirror_refuses_empty_arguments() {
    let Some(machine) = serving() else { return };
    stub(&machine, "rsync", "printf '%s\\n' \"$@\" >/root/words");
    for refused in [
        "'' hostb:/root/to",
        "/root/from ''",
        "/root/from /root/to",
        "/root/from :/root/to",
        "/root/from -V:/root/to",
    ] {
        let line = format!("PATH=/root/stub:$PATH ./mirror.sh {refused}");
        let said = ends(&machine, 2, &line);
        assert!(said.starts_with("usage: "), "{refused}: {said}");
        machine.must("[ ! -e /root/words ]");
    }
    for (given, from, to) in [
        ("/root/from hostb:", "/root/from/", "hostb:"),
        ("/root/from/ [::1]:", "/root/from/", "[::1]:"),
        ("/root/from hostb:to", "/root/from/", "hostb:to/"),
        ("/ hostb:/", "/", "hostb:/"),
        ("-from hostb:/root/to/ -v", "-from/", "hostb:/root/to/"),
    ] {
        let line = format!("PATH=/root/stub:$PATH ./mirror.sh {given}; tail -n 3 /root/words");
        assert_eq!(must(&machine, &line), format!("--\n{from}\n{to}\n"));
    }
}

#[test]
fn mirror_interrupted_ends_rsync() {
    let Some(machine) = serving() else { return };
    stub(&machine, "rsync", HANGS);
    for (signal, status) in SIGNALS {
        let script = "PATH=/root/stub:$PATH ./mirror.sh /root/from hostb:/root/to";
        interrupt(&machine, signal, status, script);
    }
}

#[test]
fn host_name_that_looks_like_a_flag_fails() {
    let Some(machine) = serving() else { return };
    machine.must("mkdir /root/backup; tar -cf /root/a.tar /etc/passwd; echo -V >/root/hosts");
    for (status, line) in [
        (255, "backup.sh -V /etc /root/backup"),
        (3, "check-disk.sh -V / 80 90"),
        (255, "copy-file.sh /etc/passwd -V /root/copy"),
        (255, "cron-job.sh report -V true"),
        (255, "deploy.sh -V /root/a.tar /srv/app true"),
        (255, "restart-service.sh -V httpd"),
        (1, "rolling-restart.sh /root/hosts true"),
    ] {
        let said = ends(&machine, status, &format!("./{line}"));
        assert!(said.contains("-V"), "{line}: {said}");
    }
}

#[test]
fn newlines_at_the_end_of_a_path_are_kept() {
    let Some(machine) = serving() else { return };
    must(
        &machine,
        "end=$(printf '\\n\\n.'); end=${end%.}
         mkdir \"/root/folder$end\" /root/backup /root/back; echo x >\"/root/folder$end/f\"
         ./backup.sh hostb \"/root/folder$end\" /root/backup
         tar -xOzf /root/backup/* ./f | grep x
         ./copy-file.sh /etc/passwd hostb \"/root/file$end\"
         cmp /etc/passwd \"/root/file$end\"
         tar -C /root/backup -cf /root/a.tar .
         ./deploy.sh hostb /root/a.tar \"/root/top$end\" true
         [ -d \"/root/top$end/current/\" ]",
    );
}

/// `hostb` under two more names.
const MORE_NAMES: &str = "for name in hostc hostd; do
         sed -n \"s/^hostb \\(.*\\)/$name \\1 server=hostb/p\" /root/A/hostinfo >>/root/A/more
         sed -n \"s/^hostb /$name /p\" /root/A/known_hosts >>/root/A/keys
         cp -p /root/A/cookies/hostb.out /root/A/cookies/$name.out
     done
     cat /root/A/more >>/root/A/hostinfo
     cat /root/A/keys >>/root/A/known_hosts
     rm /root/A/more /root/A/keys
     printf '# the web servers\\nhostb\\n\\nhostc\\n  hostd\\n' >/root/hosts\n";

#[test]
fn rolling_restart_stops_at_the_first_failure() {
    let Some(machine) = serving() else { return };
    must(&machine, MORE_NAMES);
    let said = must(
        &machine,
        "./rolling-restart.sh -P 3 /root/hosts 'echo x >>/root/all' | sort",
    );
    assert_eq!(said, "hostb: ok\nhostc: ok\nhostd: ok\n");
    let said = ends(
        &machine,
        1,
        "./rolling-restart.sh /root/hosts 'echo x >>/root/some; [ $(wc -l </root/some) -eq 1 ] || { echo broken; exit 3; }'",
    );
    assert!(said.contains("hostb: ok\n"), "{said}");
    assert!(
        said.contains("hostc: failed with status 3\nbroken\n"),
        "{said}"
    );
    assert!(!said.contains("hostd: "), "{said}");
    assert_eq!(
        machine.must("wc -l </root/all; wc -l </root/some"),
        "3\n2\n"
    );
}

#[test]
fn rolling_restart_waits_for_the_others_after_a_failure() {
    let Some(machine) = serving() else { return };
    must(&machine, MORE_NAMES);
    // The first waits until the second has failed, and then leaves time to a script that does not
    // wait for it.
    machine.must(
        "mkfifo /root/go
         cat >/root/restart <<'END'
if mkdir /root/first 2>/dev/null; then read -r word </root/go; sleep 0.5; echo x >>/root/ended; exit 0; fi
exit 3
END",
    );
    let said = must(
        &machine,
        "./rolling-restart.sh -P 2 /root/hosts 'sh /root/restart' >/root/said 2>&1 & pid=$!
         until grep -qs 'failed with status 3' /root/said; do sleep 0.01; done
         echo x >/root/go
         status=0; wait $pid || status=$?
         [ $status -eq 1 ]
         cat /root/ended /root/said",
    );
    assert!(said.starts_with("x\n"), "{said}");
    assert!(said.contains(": ok\n"), "{said}");
    assert!(!said.contains("hostd"), "{said}");
    assert!(said.ends_with("rolling-restart.sh: stopped\n"), "{said}");
}

#[test]
fn rolling_restart_interrupted_begins_no_further_host() {
    let Some(machine) = serving() else { return };
    must(&machine, MORE_NAMES);
    for (signal, status) in SIGNALS {
        for number in [1, 2] {
            let script = format!(
                "./rolling-restart.sh -P {number} /root/hosts 'echo x >>/root/all; {HANGS}'"
            );
            let said = interrupt(&machine, signal, status, &script);
            assert!(said.contains("hostb: interrupted\n"), "{said}");
            assert!(!said.contains("hostd"), "{said}");
            assert_eq!(machine.running("rolling-restart"), Vec::<String>::new());
        }
    }
    // Of two hosts the second may not have reached its command.
    let count: u32 = machine.must("wc -l </root/all").trim().parse().unwrap();
    assert!((6..=9).contains(&count), "{count}");
}

#[test]
fn rolling_restart_refuses_a_number_of_none() {
    let Some(machine) = serving() else { return };
    for number in ["0", "abc", "''"] {
        let line = format!("./rolling-restart.sh -P {number} /etc/hosts true");
        let said = ends(&machine, 2, &line);
        assert!(said.starts_with("usage: "), "{number}: {said}");
    }
}

/// Starts `follow-log.sh`.
fn follower(machine: &Machine, script: &str, stdout: Stdio) -> Child {
    machine
        .shell(&[CLIENT, script].concat())
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until this many commands follow a file.
fn tails(machine: &Machine, count: usize) {
    machine.until("the hosts follow the file", |m| {
        m.running("tail -n 0 -F -- /root").len() == count
    });
}

/// Signals the first process of `follow-log.sh`, which is the script itself.
fn signal_first(machine: &Machine, signal: &str) {
    let pids = machine.running("follow-log.sh");
    let pids = pids
        .iter()
        .map(|line| line.split(' ').next().unwrap().parse::<i32>().unwrap());
    machine.must(&format!("kill -{signal} {}", pids.min().unwrap()));
}

fn ends_well(machine: &Machine, follower: &mut Child) {
    machine.until("it ends", |_| follower.try_wait().unwrap().is_some());
    assert!(follower.wait().unwrap().success());
}

#[test]
fn follow_log_follows_a_host_that_is_named_twice() {
    let Some(machine) = serving() else { return };
    machine.must(": >/root/log");
    let mut follower = follower(
        &machine,
        "exec ./follow-log.sh /root/log hostb hostb",
        Stdio::null(),
    );
    tails(&machine, 2);
    // SIGHUP ends it as SIGTERM does.
    signal_first(&machine, "HUP");
    ends_well(&machine, &mut follower);
    tails(&machine, 0);
    assert_eq!(machine.running("follow-log.sh"), Vec::<String>::new());
}

#[test]
fn follow_log_ends_when_its_reader_closes() {
    let Some(machine) = serving() else { return };
    must(&machine, MORE_NAMES);
    // One host's log has no new lines, so its follower cannot notice.
    machine.must(
        "cat >/usr/local/bin/tail <<'END'
#!/bin/sh
if mkdir /root/first 2>/dev/null; then exec /usr/bin/tail \"$@\"; fi
exec sleep 4321
END
         chmod 755 /usr/local/bin/tail; : >/root/log",
    );
    let script = "exec ./follow-log.sh /root/log hostb hostc";
    let mut follower = follower(&machine, script, Stdio::piped());
    tails(&machine, 1);
    machine.until("the other is silent", |m| {
        m.running("sleep 4321").len() == 1
    });
    drop(follower.stdout.take());
    machine.until("it ends", |m| {
        m.must("echo line >>/root/log");
        follower.try_wait().unwrap().is_some()
    });
    assert_eq!(follower.wait().unwrap().code(), Some(1));
    tails(&machine, 0);
    machine.until("nothing is left", |m| m.running("sleep 4321").is_empty());
}

#[test]
fn follow_log_ends_before_the_client_has_opened_its_pipe() {
    let Some(machine) = serving() else { return };
    // sed quotes the file's name for the client, which the shell has not started at that time.
    stub(&machine, "sed", "echo x >/root/begun; exec sleep 4321");
    machine.must("mkfifo /root/begun");
    let script = "PATH=/root/stub:$PATH exec ./follow-log.sh /root/log hostb";
    let mut follower = follower(&machine, script, Stdio::null());
    machine.must("read -r word </root/begun");
    signal_first(&machine, "TERM");
    ends_well(&machine, &mut follower);
}

#[test]
fn follow_log_reconnects_and_leaves_nothing_behind() {
    let Some(machine) = serving() else { return };
    must(&machine, MORE_NAMES);
    machine.must("mkdir '/root/the logs'; : >'/root/the logs/l'");
    let script = "exec ./follow-log.sh '/root/the logs/l' hostb hostc";
    let mut follower = follower(&machine, script, Stdio::piped());
    let said = daemon::Lines::collect(follower.stdout.take().unwrap());
    let receives = |word: &str| {
        // A tail has its name before it has opened the file: lines written until then are lost.
        machine.until("both hosts' lines come", |m| {
            m.must(&format!("echo {word} >>'/root/the logs/l'"));
            let comes = |host: &str| said.count(&format!("{host}: {word}")) > 0;
            comes("hostb") && comes("hostc")
        });
    };
    tails(&machine, 2);
    receives("first");
    // One connection ends: its follower reconnects, the other one is not disturbed.
    let one = machine.running("tail -n 0 -F -- /root").remove(0);
    let pid = one.split(' ').next().unwrap();
    machine.must(&format!("kill {pid}"));
    machine.until("another follows in its place", |m| {
        let now = m.running("tail -n 0 -F -- /root");
        now.len() == 2 && !now.contains(&one)
    });
    receives("second");
    signal_first(&machine, "TERM");
    ends_well(&machine, &mut follower);
    tails(&machine, 0);
    assert_eq!(machine.running("follow-log.sh"), Vec::<String>::new());
}

#[test]
fn check_disk_answers_as_a_plug_in() {
    let Some(machine) = serving() else { return };
    for (status, thresholds, state) in [
        (0, "101 101", "OK"),
        (1, "0 101", "WARNING"),
        (2, "0 0", "CRITICAL"),
    ] {
        let said = ends(
            &machine,
            status,
            &format!("./check-disk.sh hostb / {thresholds}"),
        );
        assert!(
            said.starts_with(&format!("DISK {state} - / on hostb: ")),
            "{said}"
        );
        assert!(
            said.contains("|used=") && said.lines().count() == 1,
            "{said}"
        );
    }
    for wrong in [
        "nowhere / 80 90",
        "hostb /nowhere 80 90",
        "hostb '/;id' 80 90",
        "hostb",
    ] {
        let said = ends(&machine, 3, &format!("./check-disk.sh {wrong}"));
        assert!(said.starts_with("DISK UNKNOWN - "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn check_disk_reads_past_blanks_in_a_device_name() {
    let Some(machine) = serving() else { return };
    let df = |line: &str| {
        machine.must(&format!(
            "rm -f /bin/df; printf '#!/bin/sh\\necho Filesystem\\necho \"{line}\"\\n' >/bin/df; chmod 755 /bin/df"
        ));
    };
    df("//nas/my 0% share 100 99 1 99%% /mnt");
    let said = ends(&machine, 2, "./check-disk.sh hostb /mnt 80 90");
    assert!(
        said.starts_with("DISK CRITICAL - /mnt on hostb: 99% "),
        "{said}"
    );
    df("overlay 0 0 0 - /mnt");
    let said = ends(&machine, 3, "./check-disk.sh hostb /mnt 80 90");
    assert!(said.starts_with("DISK UNKNOWN - df printed no"), "{said}");
    let said = ends(&machine, 3, "./check-disk.sh hostb /mnt 80 many");
    assert!(said.starts_with("DISK UNKNOWN - many is no"), "{said}");
}

#[test]
fn check_disk_interrupted_ends_its_command() {
    let Some(machine) = serving() else { return };
    machine.must(&format!(
        "rm -f /bin/df; printf '#!/bin/sh\\n{HANGS}\\n' >/bin/df; chmod 755 /bin/df"
    ));
    for (signal, _) in SIGNALS {
        let said = interrupt(&machine, signal, 3, "./check-disk.sh hostb / 80 90");
        assert!(said.starts_with("DISK UNKNOWN - "), "{said}");
    }
}

#[test]
fn cron_job_fails_without_flock() {
    let Some(machine) = serving() else { return };
    machine.must("rm \"$(command -v flock)\"");
    let said = ends(
        &machine,
        255,
        "./cron-job.sh report hostb 'touch /root/ran'",
    );
    assert!(said.contains("flock failed with status 127"), "{said}");
    machine.must("[ ! -e /root/ran ]");
}

#[test]
fn cron_job_keeps_its_lock_from_other_users() {
    let Some(machine) = serving() else { return };
    let job = "./cron-job.sh report hostb true";
    let modes = must(
        &machine,
        &format!("umask 022; {job}; stat -L -c %a /var/run/cron-job /var/run/cron-job/report.lock"),
    );
    assert_eq!(modes, "700\n600\n");
    machine.must(
        "mkdir /root/open /root/group /root/theirs /root/own; ln -s own /root/link
         chmod 1777 /root/open; chmod 770 /root/group; chown 1 /root/theirs",
    );
    for folder in ["open", "group", "theirs", "link"] {
        let said = ends(&machine, 255, &format!("LOCK_FOLDER=/root/{folder} {job}"));
        assert!(said.contains("alone can write to"), "{folder}: {said}");
    }
    ends(&machine, 2, "./cron-job.sh ../report hostb true");
}

#[test]
fn cron_job_interrupted_ends_its_command() {
    let Some(machine) = serving() else { return };
    for (signal, status) in SIGNALS {
        let script = format!("./cron-job.sh report hostb '{HANGS}'");
        let said = interrupt(&machine, signal, status, &script);
        assert!(said.contains("report on hostb was ended by"), "{said}");
        assert_eq!(machine.must("ls /var/run/cron-job"), "report.lock\n");
    }
}

#[test]
fn cron_job_killed_leaves_the_lock_to_its_command() {
    let Some(machine) = serving() else { return };
    must(
        &machine,
        "mkfifo /root/begun /root/go
         ./cron-job.sh report hostb 'echo x >/root/begun; read -r word </root/go' & first=$!
         read -r word </root/begun
         kill -KILL $first
         ! wait $first
         ./cron-job.sh report hostb 'touch /root/second'
         [ ! -e /root/second ]
         echo x >/root/go
         until [ -e /root/second ]; do ./cron-job.sh report hostb 'touch /root/second'; done",
    );
}

#[test]
fn cron_job_runs_once_at_a_time_and_reports_only_failures() {
    let Some(machine) = serving() else { return };
    let quiet = "./cron-job.sh report hostb 'echo out; echo err >&2'";
    assert_eq!(ends(&machine, 0, quiet), "");
    let said = ends(
        &machine,
        7,
        "./cron-job.sh report hostb 'echo out; echo err >&2; exit 7'",
    );
    assert!(said.contains("failed with status 7\n"), "{said}");
    assert!(said.contains("out\n") && said.contains("err\n"), "{said}");
    must(
        &machine,
        "mkfifo /root/begun /root/go
         ./cron-job.sh report hostb 'echo x >/root/begun; cat /root/go' & first=$!
         cat /root/begun
         ./cron-job.sh report hostb 'touch /root/second'
         [ ! -e /root/second ]
         ./cron-job.sh other hostb 'touch /root/other'
         [ -e /root/other ]
         echo x >/root/go
         wait $first
         ./cron-job.sh report hostb 'touch /root/second'
         [ -e /root/second ]",
    );
}

#[test]
fn deploy_rolls_back_when_the_check_fails() {
    let Some(machine) = serving() else { return };
    must(
        &machine,
        "mkdir /root/app; cd /root/app
         echo bad >state; tar -cf /root/bad.tar state
         echo good >state; tar -cf /root/good.tar state",
    );
    let deploy = |status, archive: &str| {
        let line = format!("./deploy.sh hostb {archive} \"/srv/it's here\" 'grep -q good state'");
        ends(&machine, status, &line)
    };
    let current = "cat \"/srv/it's here/current/state\"";
    let said = deploy(1, "/root/bad.tar");
    assert!(said.contains("rolled back to nothing"), "{said}");
    ends(&machine, 1, &format!("{current} 2>/dev/null"));
    deploy(0, "/root/good.tar");
    assert_eq!(must(&machine, current), "good\n");
    let link = must(&machine, "readlink \"/srv/it's here/current\"");
    let said = deploy(1, "/root/bad.tar");
    assert!(said.contains(&format!("rolled back to {link}")), "{said}");
    assert_eq!(must(&machine, current), "good\n");
    // An invalid archive changes nothing, even if its end looks like that of a valid one.
    machine.must("{ cat /etc/passwd; head -c 10240 /dev/zero; } >/root/none.tar");
    deploy(3, "/root/none.tar");
    assert_eq!(must(&machine, "readlink \"/srv/it's here/current\""), link);
    assert_eq!(
        must(&machine, "ls \"/srv/it's here/releases\" | wc -l"),
        "3\n"
    );
}

/// Creates the archives of two releases, and deploys the first below /srv/app.
fn deployed(machine: &Machine) -> String {
    must(
        machine,
        "mkdir /root/app; cd /root/app
         for state in old new; do echo $state >state; tar -cf /root/$state.tar state; done
         cd - >/dev/null; ./deploy.sh hostb /root/old.tar /srv/app true
         readlink /srv/app/current",
    )
}

#[test]
fn deploy_interrupted_in_its_check_rolls_back() {
    let Some(machine) = serving() else { return };
    let link = deployed(&machine);
    let script = format!("./deploy.sh hostb /root/new.tar /srv/app 'grep -q new state; {HANGS}'");
    for (signal, status) in SIGNALS {
        let said = interrupt(&machine, signal, status, &script);
        assert!(said.contains(&format!("rolled back to {link}")), "{said}");
        assert_eq!(machine.must("readlink /srv/app/current"), link);
    }
    // The connection is lost.
    interrupt(&machine, "KILL", 137, &script);
    machine.until("the host has rolled back", |m| {
        m.must("readlink /srv/app/current") == link
    });
    machine.must("[ \"$(ls -A /srv/app)\" = \"$(printf 'current\\nreleases')\" ]");
}

#[test]
fn deploy_interrupted_while_unpacking_removes_the_release() {
    let Some(machine) = serving() else { return };
    let link = deployed(&machine);
    machine.must(&format!(
        "rm \"$(command -v tar)\"
         printf '#!/bin/sh\\n{HANGS}\\n' >/usr/local/bin/tar; chmod 755 /usr/local/bin/tar"
    ));
    let script = "./deploy.sh hostb /root/new.tar /srv/app true";
    for (signal, status) in SIGNALS {
        interrupt(&machine, signal, status, script);
        assert_eq!(machine.must("readlink /srv/app/current"), link);
        assert_eq!(machine.must("ls /srv/app/releases | wc -l"), "1\n");
    }
}

#[test]
fn deploy_reports_a_failed_roll_back() {
    let Some(machine) = serving() else { return };
    deployed(&machine);
    let said = ends(
        &machine,
        4,
        "./deploy.sh hostb /root/new.tar /srv/app 'cd /srv/app; rm current; mkdir -p current/x; false'",
    );
    assert!(said.contains("the roll-back FAILED"), "{said}");
    assert!(!said.contains("rolled back"), "{said}");
    // It does not begin if there is no link to roll back to.
    let said = ends(&machine, 3, "./deploy.sh hostb /root/new.tar /srv/app true");
    assert!(said.contains("is no link"), "{said}");
}

#[test]
fn deploy_refuses_an_archive_that_was_cut_between_files() {
    let Some(machine) = serving() else { return };
    let link = deployed(&machine);
    machine.must("head -c 1024 /root/new.tar >/root/cut.tar; : >/root/empty.tar");
    for archive in ["cut", "empty"] {
        let line = format!("./deploy.sh hostb /root/{archive}.tar /srv/app true");
        let said = ends(&machine, 3, &line);
        assert!(said.contains("was cut short"), "{archive}: {said}");
    }
    assert_eq!(machine.must("readlink /srv/app/current"), link);
}

#[test]
fn copy_file_refuses_what_is_no_file() {
    let Some(machine) = serving() else { return };
    machine.must("mkdir /root/folder; ln -s folder /root/link; mkfifo /root/pipe");
    for path in ["folder", "folder/", "link", "pipe"] {
        let line = format!("./copy-file.sh /etc/passwd hostb /root/{path}");
        let said = ends(&machine, 3, &line);
        assert!(said.contains("not a regular file"), "{path}: {said}");
    }
    must(
        &machine,
        "[ -z \"$(ls -A /root/folder)\" ]; [ -L /root/link ]; [ -p /root/pipe ]
         ! ls /root | grep part",
    );
}

#[test]
fn copy_file_gives_a_new_file_the_permissions_of_its_source() {
    let Some(machine) = serving() else { return };
    for (source, copy) in [
        ("600", "600"),
        ("640", "640"),
        ("755", "755"),
        ("444", "444"),
        ("4710", "710"),
        ("6604", "604"),
    ] {
        let said = must(
            &machine,
            &format!(
                "cp /etc/passwd /root/source; chmod {source} /root/source; rm -f /root/copy
                 ./copy-file.sh /root/source hostb /root/copy; stat -c %a /root/copy"
            ),
        );
        assert_eq!(said.trim(), copy, "{source}");
    }
    // Until it is complete, no other user can read it.
    stub(
        &machine,
        "sha256sum",
        "stat -c %a /root/secret.part.* >&2; exit 1",
    );
    machine.must("rm \"$(command -v sha256sum)\"; cp /root/stub/sha256sum /usr/local/bin/");
    stub(&machine, "sha256sum", "echo 0000  -");
    let said = ends(
        &machine,
        3,
        "PATH=/root/stub:$PATH ./copy-file.sh /etc/passwd hostb /root/secret",
    );
    assert_eq!(said, "600\n");
}

#[test]
fn chroot_inetd_makes_nothing_outside_its_folder() {
    let Some(machine) = serving() else { return };
    for (words, why) in [
        ("/srv/jail bin/ls", "is no absolute path"),
        ("/srv/jail /bin/cat /../srv/jail2/x", "leads out"),
        ("/srv/jail/../..", "leads out"),
        ("/srv/the\\ jail", "takes no blanks"),
        ("/.", "is the root folder"),
        ("//", "is the root folder"),
    ] {
        // If a case is not rejected, it must not get far.
        let line = format!("PATH=/root/none; ./chroot-inetd.sh {words}");
        let said = ends(&machine, 2, &line);
        assert!(said.contains(why), "{words}: {said}");
    }
    assert_eq!(machine.must("ls /srv"), "checkout\nprograms\n");
}

#[test]
fn copy_file_verifies_and_keeps_owner_and_mode() {
    let Some(machine) = serving() else { return };
    must(
        &machine,
        "head -c 3000000 /dev/urandom >/root/data
         ./copy-file.sh /root/data hostb \"/root/it's new\"
         cmp /root/data \"/root/it's new\"
         echo old >/root/old; chown 1:2 /root/old; chmod 640 /root/old
         ./copy-file.sh /root/data hostb /root/old
         cmp /root/data /root/old
         [ \"$(stat -c '%u %g %a' /root/old)\" = '1 2 640' ]
         mkdir /root/stub
         printf '#!/bin/sh\\necho 0000  -\\n' >/root/stub/sha256sum; chmod 755 /root/stub/sha256sum
         echo kept >/root/kept",
    );
    let said = ends(
        &machine,
        1,
        "PATH=/root/stub:$PATH ./copy-file.sh /root/data hostb /root/kept",
    );
    assert!(said.contains("the checksum differs"), "{said}");
    assert_eq!(
        must(&machine, "cat /root/kept; ls /root | grep -c part || :"),
        "kept\n0\n"
    );
    ends(
        &machine,
        3,
        "./copy-file.sh /root/data hostb /no/such/file 2>/dev/null",
    );
}

#[test]
fn restart_service_is_all_that_the_user_may_do() {
    let [Some(host), Some(own)] = [(); 2].map(|()| Machine::with_cosserver("none")) else {
        return;
    };
    own.connect("192.0.2.1", &host, "192.0.2.2");
    host.must(
        "printf '#!/bin/sh\\necho $(id -un): $*\\n' >/usr/sbin/service
         chmod 755 /usr/sbin/service
         sed -i '/^listen/d' /etc/cosserver/cosserver.toml
         cosadm host invite own --addr 192.0.2.1 --users alice:root -o /root/own
         sed -i '/^own /s|$| commands=\"/usr/sbin/service httpd restart\"|' /etc/cosserver/hostinfo
         cosserver",
    );
    let card = host.text("/root/own");
    fs::write(own.path("/root/own"), card).unwrap();
    own.must(
        "groupadd -g 3107 alice; useradd -M -u 3107 -g 3107 -d /tmp -s /bin/sh alice
         cosadm host join /root/own --name target --addr 192.0.2.2
         cosserver",
    );
    let as_alice = |status, line: &str| {
        let words = format!("cd /; setpriv --reuid alice --regid alice --clear-groups {line}");
        own.ends(status, &words)
    };
    let script = "/srv/checkout/examples/restart-service.sh target";
    assert_eq!(
        as_alice(0, &format!("{script} httpd")),
        "root: httpd restart\n"
    );
    for refused in [
        format!("{script} sshd"),
        format!("{script} 'httpd restart; id'"),
        "cos run -l root target id".to_owned(),
    ] {
        let said = as_alice(255, &refused);
        assert!(said.contains("denied"), "{refused}: {said}");
    }
}

#[test]
fn chroot_inetd_serves_what_lies_in_it() {
    if tool("usr/sbin/inetd").is_none() {
        return;
    }
    let Some(machine) = Machine::with_cosserver("none") else {
        return;
    };
    machine.install_tools();
    let said = must(
        &machine,
        "PATH=$PATH:/usr/local/sbin
         ./chroot-inetd.sh /srv/jail /bin/ls /bin/cat >/etc/inetd.conf
         chroot /srv/jail /usr/local/sbin/cosadm host invite hosta --addr 127.0.0.1 --run-as operator >/root/card2
         cosadm -C /root/B init
         cosadm -C /root/B host join /root/card2 --name jail
         cat /usr/local/share/doc/cosserver/examples/services >>/etc/services
         /usr/sbin/inetd",
    );
    let log = "chroot-inetd.sh: let your syslog listen on /srv/jail/dev/log too";
    assert!(said.contains(log), "{said}");
    let run = "COS_CONFIG_DIR=/root/B cosrsh -l operator jail";
    let said = must(&machine, &format!("{run} 'ls /'"));
    let found: BTreeSet<&str> = said.lines().collect();
    assert!(!found.contains("srv") && !found.contains("proc"), "{said}");
    assert!(found.contains("bin") && found.contains("etc"), "{said}");
    let back = must(&machine, &format!("echo in | {run} cat"));
    assert_eq!(back, "in\n");
    ends(&machine, 3, &format!("{run} 'exit 3'"));
    // After an update, keys and the table stay.
    must(
        &machine,
        &format!("PATH=$PATH:/usr/local/sbin; ./chroot-inetd.sh /srv/jail >/dev/null; {run} true"),
    );
}
