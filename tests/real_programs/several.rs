//! Programs that run a command on several hosts, each with its own way to report outputs and
//! statuses.

use std::fs;

use super::Hosts;

#[test]
fn taktuk_broadcasts_commands_and_files() {
    let Some(hosts) = Hosts::start(&["usr/bin/taktuk"]) else {
        return;
    };
    let script = "taktuk -c cosrsh -o output='\"$type $line\\n\"' -o error='\"$type $line\\n\"' \
         -o status='\"$type $line\\n\"' -m hostb broadcast exec [ \
         'hostname; echo error >&2; seq 1 1000; exit 3' ]";
    let mut lines = hosts.must(script);
    lines.sort();
    let mut expected: Vec<String> = (1..=1000).map(|n| format!("output {n}")).collect();
    let others = ["error error", "output hostb", "status 768"];
    expected.extend(others.map(str::to_owned));
    expected.sort();
    assert_eq!(lines, expected);
    hosts.plant("here", 1);
    hosts.must("taktuk -c cosrsh -m hostb broadcast put [ /root/here/large ] [ /root/there ]");
    let large = fs::read(hosts.near("here/large")).unwrap();
    assert!(large == fs::read(hosts.far("there")).unwrap());
    hosts.must("taktuk -c cosrsh -m hostb broadcast get [ /root/there ] [ /root/back ]");
    assert!(large == fs::read(hosts.near("back")).unwrap());
}

#[test]
fn dsh_with_any_program() {
    let Some(hosts) = Hosts::start(&["usr/bin/dsh"]) else {
        return;
    };
    let dsh = "dsh -r cosrsh -o -q -M -c -m hostb -m root@hostb --";
    let ended = hosts.run(&format!("{dsh} 'seq 1 1000; echo \"a  b\"; exit 3'"));
    assert_eq!(ended.status, Some(3), "{ended:?}");
    for host in ["hostb", "root@hostb"] {
        let start = format!("{host}: ");
        let of_host: Vec<&str> = ended
            .out
            .iter()
            .filter_map(|line| line.strip_prefix(&*start))
            .collect();
        let mut expected: Vec<String> = (1..=1000).map(|n| n.to_string()).collect();
        expected.push("a  b".to_owned());
        assert_eq!(of_host, expected);
    }
}

/// By its workers for ssh and for rsh, which add their own flags.
#[test]
fn clush_by_both_of_its_workers() {
    let Some(hosts) = Hosts::start(&["usr/bin/clush"]) else {
        return;
    };
    for worker in ["-R ssh -O ssh_path=cosrsh", "-R rsh -O rsh_path=cosrsh"] {
        let clush = format!("clush -S -w hostb -l root {worker}");
        let ended = hosts.run(&format!(
            "seq 1 50000 | {clush} 'wc -l; echo error >&2; exit 3'"
        ));
        assert_eq!(ended.status, Some(3), "{worker}: {ended:?}");
        assert_eq!(ended.out, ["hostb: 50000"]);
        assert!(ended.err.contains(&"hostb: error".to_owned()), "{ended:?}");
    }
}

/// It calls ssh by that name, with flags of ssh.
#[test]
fn mussh_with_the_client_as_ssh() {
    let Some(hosts) = Hosts::start(&["usr/bin/mussh"]) else {
        return;
    };
    fs::create_dir(hosts.near("bin")).unwrap();
    let lines = hosts.must(
        "ln -s /usr/local/bin/cosrsh bin/ssh; export PATH=/root/bin:$PATH
         mussh -m 2 -h hostb root@hostb -c 'seq 1 100; echo \"a  b\"'",
    );
    for host in ["hostb", "root@hostb"] {
        let of_host: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with(&format!("{host}: ")))
            .collect();
        assert_eq!(of_host.len(), 101, "{host}: {lines:?}");
        assert_eq!(*of_host[100], format!("{host}: a  b"));
    }
}
