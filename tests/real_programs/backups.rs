//! Programs that keep backups on the other host, or fetch them from there.

use std::fs;
use std::process::Command;

use super::{Hosts, assert_same, assert_same_but_times_of_links, contents};
use crate::daemon::session::{Session, lives};
use crate::daemon::{self, until};

#[test]
fn borg_keeps_a_repository() {
    let Some(hosts) = Hosts::start(&["usr/bin/borg"]) else {
        return;
    };
    hosts.plant("here", 1_000);
    let borg = |words: &str| {
        hosts.must(&format!(
            "export BORG_RSH=cosrsh BORG_REPO=ssh://root@hostb/root/repo \
             BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes\n{words}"
        ))
    };
    borg("borg init -e none; borg create ::one here");
    assert_eq!(borg("borg list --short"), ["one"]);
    borg("mkdir back; cd back; borg extract ::one");
    assert_same(&hosts.near("here"), &hosts.near("back/here"));
    // Only the change is sent, and the first archive stays as it was.
    fs::write(hosts.near("here/new"), "new").unwrap();
    borg(
        "borg create ::two here; borg check --verify-data
         rm -r back; mkdir back; cd back; borg extract ::two",
    );
    assert_same(&hosts.near("here"), &hosts.near("back/here"));
    assert_eq!(borg("borg diff --sort ::one two | grep -c here/new"), ["1"]);
    assert!(hosts.far("repo/data").exists());
    assert!(hosts.commands() >= 7);
}

#[test]
fn rdiff_backup_keeps_increments() {
    let Some(hosts) = Hosts::start(&["usr/bin/rdiff-backup"]) else {
        return;
    };
    hosts.plant("here", 300);
    // Its interface 201 cannot restore in Debian 12, even without another host.
    let rdiff = |words: &str| {
        let schema = "'cosrsh -q {h} rdiff-backup server'";
        hosts.must(&format!(
            "rdiff-backup --api-version 200 --remote-schema {schema} {words}"
        ))
    };
    // Its increments are named after the second.
    rdiff("--current-time 1700000000 backup here hostb::/root/there");
    fs::write(hosts.near("here/large"), "y".repeat(3_000_000)).unwrap();
    fs::rename(hosts.near("here"), hosts.near("second")).unwrap();
    hosts.plant("here", 300);
    rdiff("--current-time 1700000100 backup second hostb::/root/there");
    rdiff("restore hostb::/root/there back");
    assert_same_but_times_of_links(&hosts.near("second"), &hosts.near("back"));
    rdiff("restore --at 1700000000 hostb::/root/there first");
    let tree = |name: &str| contents(&hosts.near(name));
    assert!(tree("first") == tree("here"));
    rdiff("verify hostb::/root/there");
}

/// It calls ssh by that name, with flags of ssh.
#[test]
fn duplicity_by_its_backend_for_rsync() {
    let Some(hosts) = Hosts::start(&["usr/bin/duplicity", "usr/bin/rsync"]) else {
        return;
    };
    hosts.plant("here", 300);
    hosts.must("mkdir bin; ln -s /usr/local/bin/cosrsh bin/ssh; cosrsh hostb mkdir /root/there");
    let duplicity = |words: &str| {
        hosts.must(&format!(
            "PATH=/root/bin:$PATH; duplicity() {{ command duplicity \"$@\" --no-encryption \
             --num-retries 1 --archive-dir /root/archive; }}
             {words}"
        ))
    };
    duplicity("duplicity full here rsync://root@hostb//root/there");
    fs::write(hosts.near("here/large"), "y".repeat(3_000_000)).unwrap();
    duplicity("duplicity incremental here rsync://root@hostb//root/there");
    // All its data is on the other host.
    duplicity("rm -r archive; duplicity restore rsync://root@hostb//root/there back");
    assert_same_but_times_of_links(&hosts.near("here"), &hosts.near("back"));
    duplicity("duplicity verify --compare-data rsync://root@hostb//root/there here");
}

#[test]
fn rsnapshot_fetches_generations() {
    let Some(hosts) = Hosts::start(&["usr/bin/rsnapshot", "usr/bin/rsync"]) else {
        return;
    };
    hosts.plant("here", 300);
    let settings = [
        "config_version\t1.2",
        "snapshot_root\t/root/kept/",
        "cmd_rsync\t/usr/bin/rsync",
        "cmd_ssh\t/usr/local/bin/cosrsh",
        "cmd_cp\t/bin/cp",
        "ssh_args\t-q -o BatchMode=yes",
        "retain\talpha\t2",
        "lockfile\t/root/lock",
        "backup\troot@hostb:/root/there/\thostb/",
        "backup_exec\t/usr/local/bin/cosrsh hostb 'echo x  y >/root/ran'",
    ];
    fs::write(hosts.near("settings"), settings.join("\n") + "\n").unwrap();
    hosts.must("rsync -a -e cosrsh here/ hostb:/root/there; rsnapshot -c settings alpha");
    let before = hosts.commands();
    fs::write(hosts.far("there/large"), "y".repeat(3_000_000)).unwrap();
    hosts.must("rsnapshot -c settings alpha");
    assert_eq!(hosts.commands(), before + 2);
    let kept = |n: u32| hosts.near(&format!("kept/alpha.{n}/hostb/root/there"));
    assert_same(&kept(0), &hosts.far("there"));
    assert_same(&kept(1), &hosts.near("here"));
    assert_eq!(fs::read(hosts.far("ran")).unwrap(), b"x y\n");
}

#[test]
fn dirvish_fetches_images() {
    let Some(hosts) = Hosts::start(&["usr/sbin/dirvish", "usr/bin/rsync"]) else {
        return;
    };
    hosts.plant("here", 300);
    hosts.must("mkdir -p bank/vault/dirvish; rsync -a -e cosrsh here/ hostb:/root/there");
    let master = "bank:\n\t/root/bank\nrsh: cosrsh -q\n";
    fs::write(hosts.hosta.path("/etc/dirvish/master.conf"), master).unwrap();
    let vault = "client: root@hostb\ntree: /root/there\nindex: none\nexpire-default: never\n";
    fs::write(hosts.near("bank/vault/dirvish/default.conf"), vault).unwrap();
    hosts.must("dirvish --vault vault --init --image one");
    fs::write(hosts.far("there/large"), "y".repeat(3_000_000)).unwrap();
    hosts.must("dirvish --vault vault --image two");
    let image = |name: &str| hosts.near(&format!("bank/vault/{name}/tree"));
    assert_same(&image("one"), &hosts.near("here"));
    assert_same(&image("two"), &hosts.far("there"));
}

/// It calls ssh by that name, and uses its own protocol.
#[test]
fn bup_saves_and_restores() {
    let Some(hosts) = Hosts::start(&["usr/bin/bup"]) else {
        return;
    };
    hosts.plant("here", 300);
    hosts.must(
        "mkdir bin; ln -s /usr/local/bin/cosrsh bin/ssh; PATH=/root/bin:$PATH
         bup init; bup init -r root@hostb:/root/there; bup index here
         bup save -q -r root@hostb:/root/there -n branch here
         bup restore -q -r root@hostb:/root/there -C back branch/latest/root/here
         cosrsh hostb bup -d /root/there fsck",
    );
    assert_same(&hosts.near("here"), &hosts.near("back/here"));
}

/// It follows changes, and renames and deletes on the other host by its own commands.
#[test]
fn lsyncd_follows_changes() {
    let Some(hosts) = Hosts::start(&["usr/bin/lsyncd", "usr/bin/rsync"]) else {
        return;
    };
    hosts.plant("here", 100);
    fs::create_dir(hosts.far("there")).unwrap();
    let settings = r#"settings { nodaemon = true, insist = false }
sync {
    default.rsyncssh, source = "/root/here", host = "root@hostb", targetdir = "/root/there",
    delay = 1,
    ssh = { binary = "/usr/local/bin/cosrsh" },
    rsync = { archive = true, rsh = "/usr/local/bin/cosrsh -q" },
}
"#;
    fs::write(hosts.near("settings"), settings).unwrap();
    let mut shell = hosts.hosta.shell("cd /root; exec lsyncd -log all settings");
    let lsyncd = Session::spawn(&mut shell);
    // By a program that tolerates files that vanish while it reads them.
    let follows = |what: &str| {
        until(what, || {
            assert!(lives(lsyncd.pid()), "{:?}", lsyncd.out.all());
            let mut diff = Command::new("diff");
            diff.args(["-r", "-q", "--no-dereference"]);
            diff.arg(hosts.near("here")).arg(hosts.far("there"));
            daemon::run(&mut diff).status.success()
        });
    };
    follows("all is there");
    fs::write(hosts.near("here/large"), "y".repeat(3_000_000)).unwrap();
    follows("the change is there");
    fs::rename(hosts.near("here/large"), hosts.near("here/d1/it's large")).unwrap();
    follows("the new name is there");
    fs::remove_file(hosts.near("here/d1/it's large")).unwrap();
    follows("the file is gone there");
    assert!(!hosts.far("there/large").exists());
}
