//! A test's own accounts and NSS modules, for a daemon that has another `/etc` than the machine, in
//! a mount namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Folder, must};

/// Mounts the directory `$1` as `/etc`, and executes the remaining arguments.
const WITH_ETC: &str = "mount --bind \"$1\" /etc && shift && exec \"$@\"";

/// Creates an `/etc` with root, nobody, `_cosserver` (990) and these users, each with an ID from
/// 40001 on and this line of shadow(5) after the name.
pub fn etc(folder: &Folder, users: &[(&str, &str)]) -> PathBuf {
    let etc = folder.path("etc");
    fs::create_dir(&etc).unwrap();
    for all in [&folder.0, &etc] {
        fs::set_permissions(all, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut passwd = "root:x:0:0:root:/root:/bin/sh\n\
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
        _cosserver:x:990:990::/nonexistent:/usr/sbin/nologin\n"
        .to_owned();
    for (number, (name, _)) in (40_001..).zip(users) {
        passwd += &format!("{name}:x:{number}:{number}::/:/bin/sh\n");
    }
    fs::write(etc.join("passwd"), passwd).unwrap();
    fs::write(etc.join("group"), "root:x:0:\n_cosserver:x:990:\n").unwrap();
    set_shadow(&etc, users);
    let sources = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n";
    fs::write(etc.join("nsswitch.conf"), sources).unwrap();
    for name in ["ld.so.cache", "ld.so.conf", "hosts"] {
        let _ = fs::copy(Path::new("/etc").join(name), etc.join(name));
    }
    etc
}

/// Writes these users' lines of shadow(5), after root's.
pub fn set_shadow(etc: &Path, users: &[(&str, &str)]) {
    let lines = users.iter().map(|(name, line)| format!("{name}:{line}\n"));
    let text = "root:*:20000:0:99999:7:::\n".to_owned() + &lines.collect::<String>();
    fs::write(etc.join("shadow"), text).unwrap();
    fs::set_permissions(etc.join("shadow"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Compiles an NSS module, and makes the loader of this `/etc` find it.
pub fn install(etc: &Path, folder: &Path, name: &str, source: &Path, defines: &[String]) {
    let file = format!("libnss_{name}.so.2");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]);
    cc.arg(format!("-Wl,-soname,{file}")).args(defines);
    must(cc.arg("-o").arg(folder.join(&file)).arg(source));
    let listed = etc.join("ld.so.test");
    fs::write(&listed, format!("{}\n", folder.display())).unwrap();
    let mut ldconfig = Command::new("/sbin/ldconfig");
    ldconfig.arg("-X").arg("-C").arg(etc.join("ld.so.cache"));
    must(ldconfig.arg("-f").arg(listed));
}

/// Returns a program that has this `/etc`, for [`super::Daemon::start_by`].
pub fn with_etc(etc: &Path, program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(words(etc)).arg(program);
    command
}

/// Returns the arguments of unshare(1) before such a program.
pub fn words(etc: &Path) -> Vec<String> {
    let words = [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        WITH_ETC,
        "sh",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.push(etc.to_str().unwrap().to_owned());
    words
}
