//! Programs that keep revisions of files, with their repository on the other host.

use std::fs;

use super::{Hosts, contents};

/// A repository too large for the buffers in between, in both directions.
#[test]
fn git_pushes_and_clones_much() {
    let Some(hosts) = Hosts::start(&["usr/bin/git"]) else {
        return;
    };
    hosts.plant("work", 3_000);
    let git = |script: &str| {
        hosts.must(&format!(
            "export GIT_SSH_COMMAND='cosrsh -o BatchMode=yes'
             git() {{ command git -c user.name=a -c user.email=a@b -c init.defaultBranch=main \"$@\"; }}
             {script}"
        ))
    };
    // Random bytes, which compression does not reduce.
    git("head -c 60000000 /dev/urandom >work/random
         cosrsh hostb git init -q --bare /root/bare
         cd work; git init -q; git add .; git commit -q -m one
         git push -q root@hostb:/root/bare HEAD:refs/heads/main");
    git("cosrsh hostb git -C /root/bare fsck --strict");
    git("git clone -q -b main ssh://root@hostb/root/bare clone; git -C clone fsck --strict");
    let tree = |folder: &str| git(&format!("git -C {folder} rev-parse 'HEAD^{{tree}}'"));
    assert_eq!(tree("work"), tree("clone"));
    let random = |folder: &str| fs::read(hosts.near(folder).join("random")).unwrap();
    assert!(random("work") == random("clone"));
}

#[test]
fn subversion_checks_out_commits_and_updates() {
    let Some(hosts) = Hosts::start(&["usr/bin/svn", "usr/bin/svnserve"]) else {
        return;
    };
    let svn = |script: &str| hosts.must(&format!("export SVN_SSH='cosrsh -q'\n{script}"));
    svn("cosrsh hostb svnadmin create /root/svn
         svn checkout -q svn+ssh://root@hostb/root/svn one");
    hosts.plant("one/tree", 300);
    svn("cd one; svn add -q tree; svn commit -q -m one
         svn checkout -q svn+ssh://root@hostb/root/svn ../two");
    let tree = |name: &str| contents(&hosts.near(name));
    assert!(tree("one/tree").len() > 300);
    assert!(tree("one/tree") == tree("two/tree"));
    fs::write(hosts.near("two/tree/large"), "y".repeat(3_000_000)).unwrap();
    svn("cd two; svn commit -q -m two; cd ../one; svn update -q");
    assert!(tree("one/tree") == tree("two/tree"));
    assert_eq!(svn("cd one; svn info --show-item revision"), ["2"]);
    svn("cosrsh hostb svnadmin verify -q /root/svn");
}

#[test]
fn cvs_checks_out_commits_and_updates() {
    let Some(hosts) = Hosts::start(&["usr/bin/cvs"]) else {
        return;
    };
    let cvs = |script: &str| {
        let root = ":ext:root@hostb:/root/cvs";
        hosts.must(&format!("export CVS_RSH=cosrsh CVSROOT={root}\n{script}"))
    };
    let numbers = || (0..100_000).map(|n| format!("{n}\n")).collect::<String>();
    fs::create_dir(hosts.near("import")).unwrap();
    fs::write(hosts.near("import/file"), numbers()).unwrap();
    cvs("cosrsh hostb cvs -d /root/cvs init
         cd import; cvs -Q import -m one module vendor release; cd ..
         cvs -Q checkout -d one module; cvs -Q checkout -d two module");
    let file = |folder: &str| fs::read_to_string(hosts.near(folder).join("file")).unwrap();
    assert!(file("one") == numbers() && file("two") == numbers());
    fs::write(hosts.near("one/file"), numbers() + "more\n").unwrap();
    cvs("cd one; cvs -Q commit -m two; cd ../two; cvs -Q update");
    assert!(file("two") == numbers() + "more\n");
    let found = cvs("cd two; cvs -Q log -N file | grep '^revision 1'");
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn fossil_clones_and_synchronizes() {
    let Some(hosts) = Hosts::start(&["usr/bin/fossil"]) else {
        return;
    };
    let fossil = |script: &str| {
        hosts.must(&format!(
            "export USER=root; url=ssh://root@hostb//root/far.fossil; ssh='cosrsh -T'\n{script}"
        ))
    };
    fossil(
        "cosrsh hostb fossil init /root/far.fossil
         fossil clone --ssh-command \"$ssh\" $url near.fossil; mkdir work
         cd work; fossil open -f ../near.fossil",
    );
    hosts.plant("work/tree", 100);
    // A name that it does not accept.
    fs::remove_file(hosts.near("work/tree/it's \"named\" $so; \\n")).unwrap();
    fossil(
        "cd work; fossil add tree; fossil commit --no-warnings -m one; cd ..
         fossil clone --ssh-command \"$ssh\" $url second.fossil; mkdir second
         cd second; fossil open ../second.fossil",
    );
    for file in ["large", "d7/f 7", "d16/f 16"] {
        let read = |folder: &str| fs::read(hosts.near(folder).join(file)).unwrap();
        assert!(read("work/tree") == read("second/tree"), "{file}");
    }
    fossil("cosrsh hostb fossil test-integrity -R /root/far.fossil");
}
