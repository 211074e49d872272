//! The real programs that request the subsystem `sftp`, over `cosrsh` against the real daemon and
//! the real sftp-server, with their results compared byte for byte. sshfs, restic and lftp run in
//! `make soak`; rclone's `--sftp-ssh` is newer than what distributions have, and its command line
//! is in `tests/cosrsh.rs`.

use crate::daemon;
use crate::tool;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cosserver::config::subsystems::USUAL;
use daemon::{Daemon, long, me, must, report_skipped, run};
use tool::{everything, grow, have, soak_tool, start, tool};

/// Returns whether OpenSSH's programs are installed, including sftp-server.
fn have_sftp() -> bool {
    if !have(&["sftp", "scp"]) {
        return false;
    }
    let there = USUAL.iter().any(|path| Path::new(path).exists());
    if !there {
        let why = "no sftp-server: scripts/need test installs it";
        assert!(!daemon::in_ci(), "{why}");
        report_skipped(why);
    }
    there
}

/// Creates a tree to transfer, without symbolic links, which sftp and scp do not transfer as such.
fn plant(d: &Daemon, files: usize) -> [PathBuf; 3] {
    let [here, there, back] = ["here", "there", "back"].map(|n| d.folder.path(n));
    grow(&here, files);
    fs::remove_file(here.join("link")).unwrap();
    [here, there, back]
}

/// Returns only the contents, by name.
fn contents(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = everything(top).into_iter();
    all.map(|(name, (_, _, content))| (name, content)).collect()
}

/// Checks that the subsystem was requested this often, and no command.
fn asked(d: &Daemon, times: usize) {
    d.log.said_times(" service=subsystem command=sftp", times);
    d.log.said_times("exec session=", times);
}

#[test]
fn sftp_both_ways() {
    if !have_sftp() {
        return;
    }
    let d = start();
    let [here, there, back] = plant(&d, if long() { 10_000 } else { 300 });
    let batch = d.folder.path("batch");
    let sftp = |lines: String| {
        fs::write(&batch, lines).unwrap();
        let mut command = tool(&d, "sftp");
        command.args(["-q", "-S", "cosrsh", "-b"]).arg(&batch);
        command.arg(format!("{}@hostb", me()));
        command
    };
    let [there_path, back_path] = [&there, &back].map(|p| p.display());
    must(&mut sftp(format!("put -Rp here {there_path}\n")));
    assert!(
        everything(&there) == everything(&here),
        "what was put differs"
    );
    must(&mut sftp(format!("get -Rp {there_path} {back_path}\n")));
    assert!(
        everything(&back) == everything(&here),
        "what was got differs"
    );
    asked(&d, 2);
    // The rest of a truncated file, a new name, and a failure that is reported by the status.
    let large = fs::read(here.join("large")).unwrap();
    fs::write(back.join("large"), large.get(..2_000_000).unwrap()).unwrap();
    must(&mut sftp(format!(
        "reget {there_path}/large {back_path}/large\nrename {there_path}/large {there_path}/renamed\n"
    )));
    assert!(fs::read(back.join("large")).unwrap() == large);
    assert!(fs::read(there.join("renamed")).unwrap() == large);
    let out = run(&mut sftp(format!("get {there_path}/none\n")));
    assert_eq!(out.status.code(), Some(1), "{out:?}");
}

#[test]
fn scp_both_ways_in_its_own_mode() {
    if !have_sftp() {
        return;
    }
    let d = start();
    let [here, there, back] = plant(&d, 300);
    let remote = format!("hostb:{}", there.display());
    let scp = |words: &[&str]| {
        let mut command = tool(&d, "scp");
        command.args(["-q", "-S", "cosrsh", "-rp", "-C", "-i", "key"]);
        command.args(["-c", "aes128-ctr", "-F", "config"]);
        must(command.args(words));
    };
    scp(&["here", &remote]);
    assert!(
        everything(&there) == everything(&here),
        "what was pushed differs"
    );
    scp(&[&format!("{}@{remote}", me()), "back"]);
    assert!(
        everything(&back) == everything(&here),
        "what was pulled differs"
    );
    asked(&d, 2);
    // The older mode, which runs scp on the host.
    scp(&["-O", "here/large", &format!("{remote}/again")]);
    d.log.said_times("exec session=", 3);
    assert!(fs::read(there.join("again")).unwrap() == fs::read(here.join("large")).unwrap());
}

#[test]
fn sftp_reports_a_denial() {
    if !have_sftp() {
        return;
    }
    let d = Daemon::start_with("[daemon]\nrefusal-interval = 1", "subsystems=-");
    d.install_cosrsh();
    let out = run(tool(&d, "sftp").args(["-S", "cosrsh", "-b", "/dev/null", "hostb"]));
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(255), "{said}");
    assert!(
        said.contains("cos: hostb: access denied (reference "),
        "{said}"
    );
}

#[test]
fn sshfs_mounts_a_folder() {
    if !have_sftp() {
        return;
    }
    let d = start();
    let Some(sshfs) = soak_tool(&d, "sshfs") else {
        return;
    };
    let fuse = fs::File::options().read(true).write(true).open("/dev/fuse");
    let may = run(tool(&d, "unshare").args(["--mount", "true"]));
    if fuse.is_err() || !may.status.success() {
        report_skipped("no FUSE, or no mount namespace");
        return;
    }
    let [here, there, back] = plant(&d, 1_000);
    for name in ["there", "mnt"] {
        fs::create_dir(d.folder.path(name)).unwrap();
    }
    // Its mount is in its own namespace, and ends with it.
    let script = "set -e\n\"$@\"\ntrap 'umount -l mnt' EXIT\ncp -a here mnt/copy\n\
         mv mnt/copy/large mnt/copy/larger\nmv mnt/copy/larger mnt/copy/large\ncp -a mnt/copy back\nln -s large mnt/link\ntest \"$(readlink mnt/link)\" = large";
    let mut command = tool(&d, "unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    command.arg(sshfs.get_program()).args(sshfs.get_args());
    command.args(["-o", "ssh_command=cosrsh"]);
    command.arg(format!("hostb:{}", there.display())).arg("mnt");
    let out = run(&mut command);
    assert!(out.status.success(), "{out:?}\n{}", d.log_text());
    assert!(everything(&there.join("copy")) == everything(&here));
    assert!(everything(&back) == everything(&here));
    asked(&d, 1);
}

#[test]
fn restic_keeps_a_repository() {
    if !have_sftp() {
        return;
    }
    let d = start();
    let [here, there, back] = ["here", "there", "back"].map(|n| d.folder.path(n));
    grow(&here, 1_000);
    let restic = |words: &[&str]| -> Option<()> {
        let mut command = soak_tool(&d, "restic")?;
        command
            .env("RESTIC_PASSWORD", "secret")
            .env("HOME", &d.folder.0);
        command.args([
            "--no-cache",
            "-o",
            "sftp.command=cosrsh hostb -s sftp",
            "-r",
        ]);
        command.arg(format!("sftp:hostb:{}", there.display()));
        must(command.args(words));
        Some(())
    };
    let path = here.to_str().unwrap();
    if restic(&["init"]).is_none() {
        return;
    }
    restic(&["backup", path]);
    restic(&["check", "--read-data"]);
    restic(&["restore", "latest", "--target", back.to_str().unwrap()]);
    let restored = back.join(here.strip_prefix("/").unwrap());
    assert!(everything(&restored) == everything(&here));
    let times = d.log.count(" service=subsystem command=sftp");
    assert!(times >= 4, "{}", d.log_text());
    asked(&d, times);
}

#[test]
fn lftp_mirrors_a_folder() {
    if !have_sftp() {
        return;
    }
    let d = start();
    let Some(mut lftp) = soak_tool(&d, "lftp") else {
        return;
    };
    let [here, there, back] = plant(&d, 1_000);
    let [there_path, back_path] = [&there, &back].map(|p| p.display());
    lftp.env("HOME", &d.folder.0).arg("-c").arg(format!(
        "set sftp:connect-program \"cosrsh -a -x\"; set cmd:fail-exit true; \
         open -u {},x sftp://hostb; mirror -R here {there_path}; mirror {there_path} {back_path}",
        me()
    ));
    must(&mut lftp);
    assert!(contents(&there) == contents(&here));
    assert!(contents(&back) == contents(&here));
    d.log.said_at_least(" service=subsystem command=sftp", 1);
}
