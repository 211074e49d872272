//! The scripts of `examples/`, each run as an administrator would run it, on a machine of its
//! own with the daemon installed. `make lint` checks them with shellcheck and checkbashisms.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

mod daemon;
#[path = "machine/mod.rs"]
mod machine;

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

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

/// What each shell of these tests begins with.
const CLIENT: &str = "export COS_CONFIG_DIR=/root/A; cd /srv/checkout/examples\n";

/// A machine that serves root's client on it as `hostb`.
fn serving() -> Option<Machine> {
    let machine = Machine::with_cosserver("none")?;
    machine.must("cosserver");
    Some(machine)
}

/// Runs this in the folder of the scripts, with this exit status; all it said.
fn ends(machine: &Machine, status: i32, script: &str) -> String {
    machine.ends(status, &[CLIENT, script].concat())
}

fn must(machine: &Machine, script: &str) -> String {
    ends(machine, 0, &["set -e\n", script].concat())
}

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
         for day in 1 2 3; do echo old >/root/backup/hostb-2020010${day}T000000.tar.gz; done
         echo other >/root/backup/hostc-20200101T000000.tar.gz
         ./backup.sh hostb \"/root/it's data\" /root/backup 2
         [ \"$(ls /root/backup | grep -c '^hostb-')\" -eq 2 ]
         [ -e /root/backup/hostb-20200103T000000.tar.gz ]
         [ -e /root/backup/hostc-20200101T000000.tar.gz ]
         tar -C /root/back -xzf \"$(ls -d /root/backup/hostb-* | tail -n 1)\"
         diff -r \"/root/it's data\" /root/back",
    );
    let before = must(&machine, "ls /root/backup");
    ends(
        &machine,
        2,
        "./backup.sh hostb /no/such/folder /root/backup 1",
    );
    assert_eq!(must(&machine, "ls /root/backup"), before);
    let said = ends(&machine, 255, "./backup.sh nowhere / /root/backup 1");
    assert!(said.contains("cos: nowhere: "), "{said}");
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
fn follow_log_reconnects_and_leaves_nothing_behind() {
    let Some(machine) = serving() else { return };
    must(&machine, MORE_NAMES);
    machine.must("mkdir '/root/the logs'; : >'/root/the logs/l'");
    let script = "exec ./follow-log.sh '/root/the logs/l' hostb hostc";
    let mut follower = machine
        .shell(&[CLIENT, script].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let tails = |count: usize| {
        machine.until("the hosts follow the file", |m| {
            m.running("tail -n 0 -F /root").len() == count
        });
    };
    let said = daemon::Lines::collect(follower.stdout.take().unwrap());
    let hears = |word: &str| {
        // A tail has its name before it has opened the file: what is written until then is lost.
        machine.until("both hosts' lines come", |m| {
            m.must(&format!("echo {word} >>'/root/the logs/l'"));
            let comes = |host: &str| said.count(&format!("{host}: {word}")) > 0;
            comes("hostb") && comes("hostc")
        });
    };
    tails(2);
    hears("first");
    // One connection ends: its follower comes back, the other one is not disturbed.
    let one = machine.running("tail -n 0 -F /root").remove(0);
    let pid = one.split(' ').next().unwrap();
    machine.must(&format!("kill {pid}"));
    machine.until("another follows in its place", |m| {
        let now = m.running("tail -n 0 -F /root");
        now.len() == 2 && !now.contains(&one)
    });
    hears("second");
    let pid = machine.running("follow-log.sh");
    let first = pid
        .iter()
        .map(|line| line.split(' ').next().unwrap().parse::<i32>().unwrap());
    machine.must(&format!("kill {}", first.min().unwrap()));
    assert!(follower.wait().unwrap().success());
    tails(0);
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
fn cron_job_runs_once_at_a_time_and_tells_failures_alone() {
    let Some(machine) = serving() else { return };
    // An init makes it.
    machine.must("mkdir -p /run/lock");
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
    // What is no archive changes nothing.
    deploy(3, "/etc/passwd");
    assert_eq!(must(&machine, "readlink \"/srv/it's here/current\""), link);
    assert_eq!(
        must(&machine, "ls \"/srv/it's here/releases\" | wc -l"),
        "3\n"
    );
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
    must(
        &machine,
        "PATH=$PATH:/usr/local/sbin
         ./chroot-inetd.sh /srv/jail /bin/ls /bin/cat >/etc/inetd.conf
         chroot /srv/jail /usr/local/sbin/cosadm host invite hosta --addr 127.0.0.1 --run-as operator >/root/card2
         cosadm -C /root/B init
         cosadm -C /root/B host join /root/card2 --name jail
         cat /usr/local/share/doc/cosserver/examples/services >>/etc/services
         /usr/sbin/inetd",
    );
    let run = "COS_CONFIG_DIR=/root/B cosrsh -l operator jail";
    let said = must(&machine, &format!("{run} 'ls /'"));
    let found: BTreeSet<&str> = said.lines().collect();
    assert!(!found.contains("srv") && !found.contains("proc"), "{said}");
    assert!(found.contains("bin") && found.contains("etc"), "{said}");
    let back = must(&machine, &format!("echo in | {run} cat"));
    assert_eq!(back, "in\n");
    ends(&machine, 3, &format!("{run} 'exit 3'"));
    // An update: keys and the table stay.
    must(
        &machine,
        &format!("PATH=$PATH:/usr/local/sbin; ./chroot-inetd.sh /srv/jail >/dev/null; {run} true"),
    );
}
