//! ssh's command line, called as rsh and as ssh: what acts, what is ignored, what is refused, and
//! what is given to ssh itself.

use super::tests::{call, complaint, parsed};
use crate::client::call::*;
use std::num::NonZeroU16;

/// Regression: a later value was used if it was another kind of setting than the first.
#[test]
fn first_of_two_values_of_an_option_is_used() {
    for (first, second) in [
        ("SessionType=default", "SessionType=none"),
        ("SessionType=default", "sessiontype=subsystem"),
        ("LogLevel=INFO", "LogLevel=QUIET"),
        ("ProxyCommand=none", "ProxyCommand=x"),
        ("Tunnel=no", "Tunnel=yes"),
        ("StdinNull=no", "StdinNull=yes"),
    ] {
        let [first, second] = [first, second].map(|option| format!("-o{option}"));
        let alone = call(&["ssh", &first, "hostb", "x"]);
        let both = call(&["ssh", &first, &second, "hostb", "x"]);
        assert_eq!(both.of_ssh, alone.of_ssh, "{second}");
        assert_eq!((both.kind, both.no_input), (alone.kind, alone.no_input));
    }
}

/// All flags that tools add to ssh's command line.
const OF_TOOLS: [&str; 30] = [
    "-C", "-i", "FILE", "-F", "FILE", "-c", "CIPHER", "-m", "MAC", "-S", "CTL", "-k", "-K", "-y",
    "-Y", "-M", "-E", "LOG", "-B", "IF", "-b", "ADDR", "-N", "-t", "-tt", "-g", "-I", "LIB", "-P",
    "TAG",
];

#[test]
fn flags_of_ssh_are_taken_and_go_on_as_they_were() {
    for program in ["cosrsh", "rsh", "ssh"] {
        let line = [
            &[program][..],
            &OF_TOOLS,
            &["hostb", "-f", "-C", "--", "x", "-C"],
        ]
        .concat();
        let call = call(&line);
        assert_eq!((&*call.host, call.words.len()), ("hostb", 2));
        assert_eq!(
            call.for_ssh.join(" "),
            "-C -iFILE -FFILE -cCIPHER -mMAC -SCTL -k -K -y -Y -M -ELOG -BIF -bADDR -N -t -t -t -g \
             -ILIB -PTAG -f -C"
        );
        assert!(call.background);
        assert_eq!(call.log, Some("LOG".into()));
        assert_eq!(call.source.address.as_deref(), Some("ADDR"));
        assert_eq!(call.source.interface.as_deref(), Some("IF"));
        let asked = &call.of_ssh;
        assert!(asked.terminal && asked.no_command && asked.compress && !asked.quiet);
    }
}

#[test]
fn cos_run_takes_those_that_act() {
    let line = [
        "cos", "run", "-f", "-E", "LOG", "-b", "A", "-B", "I", "-J", "a", "hostb", "x",
    ];
    let call = call(&line);
    assert!(call.background && call.log.is_some());
    assert_eq!(call.jumps.len(), 1);
    for flag in [
        "-C", "-t", "-N", "-i", "-F", "-c", "-m", "-S", "-k", "-K", "-y", "-Y", "-M",
    ] {
        complaint(&["cos", "run", flag, "hostb", "x"]);
    }
}

/// rsh's `-L` has no value, and ssh's has one.
#[test]
fn forwardings_are_refused_but_by_ssh_itself() {
    for (flag, program) in [
        ("-L", "ssh"),
        ("-D", "ssh"),
        ("-R", "cosrsh"),
        ("-w", "rsh"),
    ] {
        let call = call(&[program, flag, "8080:x:80", "hostb", "x"]);
        let refused = call.of_ssh.refused.unwrap();
        assert!(refused.starts_with(flag), "{refused}");
        assert_eq!(call.for_ssh, [format!("{flag}8080:x:80")]);
    }
    let ctl = call(&["ssh", "-O", "check", "hostb"]);
    assert_eq!(
        ctl.of_ssh.refused.as_deref(),
        Some("-O: there are no shared connections")
    );
    let of_rsh = call(&["cosrsh", "-L", "hostb", "x"]);
    assert_eq!((of_rsh.of_ssh.refused, of_rsh.for_ssh.len()), (None, 0));
    assert!(complaint(&["ssh", "-Q", "cipher"]).starts_with("-Q cipher: "));
    // A value for ssh's -L is reported as such, and an address is a host.
    for value in ["8080:localhost:80", "127.0.0.1:8080:x:80", "1:[::1]:80"] {
        for line in [&["cosrsh"][..], &["cos", "run"]] {
            let told = complaint(&[line, &["-L", value, "hostb", "x"]].concat());
            assert_eq!(told, "-L: there is no port forwarding");
        }
    }
    for host in ["::1", "2001:db8::1", "1:2:3:4:5:6:7:8", "hostb"] {
        assert_eq!(call(&["cosrsh", "-L", host, "x"]).host, host);
    }
}

#[test]
fn jumps() {
    let jumps = |line: &[&str]| -> Vec<String> {
        let call = call(line);
        call.jumps.iter().map(ToString::to_string).collect()
    };
    let of = |text: &str| jumps(&["ssh", "-J", text, "hostb", "x"]);
    assert_eq!(of("a"), ["a"]);
    assert_eq!(
        of("jo@a:22,[2001:db8::1]:7000,ssh://b,2001:db8::2"),
        ["jo@a:22", "[2001:db8::1]:7000", "b", "2001:db8::2"]
    );
    assert_eq!(of("[2001:db8::1]"), ["2001:db8::1"]);
    assert_eq!(of("none"), [""; 0]);
    assert_eq!(jumps(&["ssh", "-oProxyJump=a,b", "hostb", "x"]), ["a", "b"]);
    // The flag counts, not the option.
    assert_eq!(
        jumps(&["ssh", "-oProxyJump=a", "-J", "none", "hostb", "x"]),
        [""; 0]
    );
    for bad in ["", "a,", "a:0", "-x@a", "a:x", &["a"; 9].join(",")] {
        let told = complaint(&["ssh", "-J", bad, "hostb", "x"]);
        assert!(told.starts_with("-J: "), "{told}");
    }
}

#[test]
fn uris_name_a_host() {
    let call1 = call(&["ssh", "ssh://jo@hostb:7000", "x"]);
    assert_eq!(call1.host, "hostb");
    assert_eq!(call1.user.unwrap().as_str(), "jo");
    assert_eq!(call1.port.map(NonZeroU16::get), Some(7000));
    let of_flags = call(&[
        "cosrsh",
        "-p",
        "1",
        "-l",
        "me",
        "ssh://jo@[2001:db8::1]:7000/",
        "x",
    ]);
    assert_eq!(
        (&*of_flags.host, of_flags.port.map(NonZeroU16::get)),
        ("2001:db8::1", Some(1))
    );
    assert_eq!(of_flags.user.unwrap().as_str(), "me");
    assert_eq!(call(&["cosrsh", "2001:db8::1", "x"]).host, "2001:db8::1");
}

#[test]
fn options_that_replace_the_command() {
    assert!(call(&["ssh", "hostb"]).words.is_empty());
    let remote = |setting: &str| call(&["ssh", "-o", setting, "hostb"]).of_ssh.command;
    assert_eq!(
        remote("RemoteCommand=/bin/sh -l").as_deref(),
        Some("/bin/sh -l")
    );
    assert_eq!(
        remote("remotecommand echo \"a\"").as_deref(),
        Some("echo \"a\"")
    );
    assert_eq!(remote("RemoteCommand=none"), None);
    let target = call(&["ssh", "-W", "[2001:db8::1]:7", "hostb"])
        .of_ssh
        .stdio_to
        .unwrap();
    assert_eq!(
        (&*target.host, target.port.map(NonZeroU16::get)),
        ("2001:db8::1", Some(7))
    );
    for bad in ["x", "x:", ":1", "jo@x:1", "2001:db8::1", "$x:1", "-x:1"] {
        complaint(&["ssh", "-W", bad, "hostb"]);
    }
}

#[test]
fn version_configuration_and_connect() {
    let version = format!("cos {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        parsed(&["ssh", "-V"]).unwrap(),
        Action::TellError(version.clone())
    );
    assert_eq!(parsed(&["cosrsh", "-V"]).unwrap(), Action::Tell(version));
    assert!(matches!(
        parsed(&["/usr/bin/ssh", "-G", "hostb"]).unwrap(),
        Action::ShowConfig(_)
    ));
    let Action::Connect(call) = parsed(&["cos", "connect", "-4", "hostb", "7000"]).unwrap() else {
        panic!()
    };
    assert_eq!(
        (&*call.host, call.port.map(NonZeroU16::get)),
        ("hostb", Some(7000))
    );
    assert_eq!(call.family, Some(Family::V4));
    for bad in [
        &["hostb", "0"][..],
        &["hostb", "1", "2"],
        &["jo@hostb"],
        &[],
    ] {
        complaint(&[&["cos", "connect"], bad].concat());
    }
}

#[test]
fn jump_program_is_one_word() {
    let program = |text: &str| {
        let call = call(&["ssh", "-oJumpProgram=/opt/cos", "-o", text, "hostb", "x"]);
        assert_eq!(call.for_ssh, ["-oA=b"], "it is ours alone");
        call.jump_program
    };
    assert_eq!(program("A=b").as_deref(), Some("/opt/cos"));
    for bad in [
        "JumpProgram=",
        "JumpProgram=a b",
        "JumpProgram=-x",
        "JumpProgram=$x",
    ] {
        complaint(&["ssh", "-o", bad, "hostb", "x"]);
    }
}
