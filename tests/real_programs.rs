//! Programs that call a remote shell, as Debian packages them, between two test machines: from
//! `hosta`, where `cosrsh` replaces ssh, to `hostb`, where the daemon runs. The results are
//! compared byte for byte. They run in `make soak`, for which `scripts/need` unpacks the packages.

use crate::daemon;
use crate::machine;
use crate::tool;

#[path = "real_programs/backups.rs"]
mod backups;
#[path = "real_programs/revisions.rs"]
mod revisions;
#[path = "real_programs/several.rs"]
mod several;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::session::{Ended, Session};
use daemon::{PATIENCE, until};
use machine::Machine;
use tool::{everything, grow};

/// The addresses of `hosta` and `hostb`, reserved for documentation (RFC 5737).
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Makes a machine one of the two: a home directory without the files of the user that runs the
/// tests, its own network devices, the names of both, and cosserver.
const SET_UP: &str = "mount -t tmpfs -o mode=700 machine /root
     mount -t sysfs -o ro machine /sys
     printf '192.0.2.1 hosta\\n192.0.2.2 hostb\\n' >>/etc/hosts
     cosadm init";

/// The two machines.
struct Hosts {
    hosta: Machine,
    hostb: Machine,
}

impl Hosts {
    /// Starts the machines; `hosta` may run commands on `hostb` as root. `None` if this is not
    /// `make soak`, or if one of these programs is missing.
    fn start(programs: &[&str]) -> Option<Self> {
        if !daemon::long() {
            daemon::report_skipped("for make soak");
            return None;
        }
        for program in programs {
            let of_soak = machine::soak_tools().join(program);
            if !of_soak.exists() && !Path::new("/").join(program).exists() {
                let why = format!("no {program}: COS_LONG=1 scripts/need test unpacks it");
                assert!(!daemon::in_ci(), "{why}");
                daemon::report_skipped(&why);
                return None;
            }
        }
        let [hosta, hostb] = [Machine::start()?, Machine::start()?];
        hosta.connect(ADDRESSES[0], &hostb, ADDRESSES[1]);
        for (machine, name) in [(&hosta, "hosta"), (&hostb, "hostb")] {
            if machine::soak_tools().exists() {
                machine.install_tree(&machine::soak_tools());
            }
            machine.make("install INIT=none");
            machine.must(&format!("hostname {name}\n{SET_UP}"));
        }
        hostb.must(
            "cosadm host invite hosta --addr 192.0.2.1 --run-as root >/root/card
             setsid cosserver -D -e </dev/null >/root/log 2>&1 &",
        );
        until("the daemon listens", || {
            hostb.text("/root/log").contains("listening on ")
        });
        fs::copy(hostb.path("/root/card"), hosta.path("/root/card")).unwrap();
        hosta.must("cosadm host join /root/card --name hostb --addr 192.0.2.2; rm /root/card");
        Some(Self { hosta, hostb })
    }

    /// Runs a script in root's home directory on `hosta` to its end.
    fn run(&self, script: &str) -> Ended {
        let mut shell = self.hosta.shell(&format!("set -e; cd /root\n{script}"));
        let mut session = Session::spawn(&mut shell);
        drop(session.stdin.take());
        session.finish()
    }

    /// Runs such a script, which must succeed; returns the lines of its standard output.
    fn must(&self, script: &str) -> Vec<String> {
        let ended = self.run(script);
        let log = self.hostb.text("/root/log");
        assert_eq!(ended.status, Some(0), "{script}: {ended:?}\n{log}");
        ended.out
    }

    /// Returns how many commands the daemon has run.
    fn commands(&self) -> usize {
        let log = self.hostb.text("/root/log");
        let lines = log.lines();
        lines.filter(|l| l.starts_with("exec session=")).count()
    }

    /// Creates a tree of files in root's home directory on `hosta`.
    fn plant(&self, name: &str, files: usize) {
        grow(&self.near(name), files);
    }

    /// Returns a file in root's home directory on `hosta`, and one on `hostb`.
    fn near(&self, name: &str) -> PathBuf {
        self.hosta.path(&format!("/root/{name}"))
    }

    fn far(&self, name: &str) -> PathBuf {
        self.hostb.path(&format!("/root/{name}"))
    }

    /// Returns the lines of a file in root's home directory on `hosta`.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.near(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Returns the files of a tree with their contents, for programs that do not keep everything else.
fn contents(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = everything(top).into_iter();
    let files = all.map(|(path, (_, _, content))| (path, content));
    files.collect()
}

/// The result of [`everything`] for a tree.
type Tree = BTreeMap<PathBuf, (u32, i64, Vec<u8>)>;

/// Asserts that two trees have the same files, modes, times and contents.
fn assert_same(one: &Path, other: &Path) {
    assert_equal(&everything(one), &everything(other));
}

/// The same for a program that does not keep the times of symbolic links.
fn assert_same_but_times_of_links(one: &Path, other: &Path) {
    let trees = [one, other].map(|top| {
        let mut tree = everything(top);
        let links = tree.values_mut().filter(|(mode, ..)| mode >> 12 == 0o12);
        links.for_each(|(_, time, _)| *time = 0);
        tree
    });
    assert_equal(&trees[0], &trees[1]);
}

fn assert_equal(one: &Tree, other: &Tree) {
    assert!(one.len() > 50, "there are only {}", one.len());
    let differ = |path: &&PathBuf| one.get(*path) != other.get(*path);
    let differing: Vec<_> = one.keys().chain(other.keys()).filter(differ).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

/// Standard input, both outputs and the status of each command are separate, however many run.
#[test]
fn xargs_runs_sixteen_at_a_time() {
    let Some(hosts) = Hosts::start(&["usr/bin/xargs"]) else {
        return;
    };
    let each = "echo {} | cosrsh hostb \"seq {} 3000; cat; echo error {} >&2; exit {}\" \
         >jobs/{}.out 2>jobs/{}.err && status=0 || status=$?; echo $status >jobs/{}.status";
    hosts.must(&format!(
        "mkdir jobs; seq 1 200 | xargs -P 16 -I{{}} sh -c '{each}'"
    ));
    for n in 1..=200 {
        let mut expected: Vec<String> = (n..=3000).map(|line| line.to_string()).collect();
        expected.push(n.to_string());
        assert!(hosts.lines(&format!("jobs/{n}.out")) == expected, "job {n}");
        let error = hosts.lines(&format!("jobs/{n}.err"));
        assert_eq!(error, [format!("error {n}")]);
        let status = hosts.lines(&format!("jobs/{n}.status"));
        assert_eq!(status, [n.to_string()]);
    }
    assert_eq!(hosts.commands(), 200);
    // By xargs itself, which has one output for all, and its own status.
    let mut lines = hosts.must("seq 1 200 | xargs -P 16 -n 1 cosrsh hostb echo");
    lines.sort_by_key(|line| line.parse::<u32>().unwrap());
    let expected: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
    assert_eq!(lines, expected);
    let ended = hosts.run("seq 1 32 | xargs -P 16 -I{} cosrsh hostb 'test {} -ne 7'");
    assert_eq!(ended.status, Some(123), "{ended:?}");
    assert_eq!(hosts.commands(), 432);
}

/// A job of cron has only cron's own environment.
#[test]
fn cron_with_an_empty_environment() {
    let Some(hosts) = Hosts::start(&["usr/sbin/cron"]) else {
        return;
    };
    let far = "cat; echo \"a  b\"; echo error >&2; exit 3";
    fs::write(hosts.near("job"), format!("#!/bin/sh\nenv >/root/env.$1\n/usr/local/bin/cosrsh hostb '{far}' >/root/out.$1 2>/root/err.$1\necho $? >/root/status.$1\n/usr/local/bin/cosrsh hostb \"echo done $1 >>/root/done\"\n")).unwrap();
    // Without the jobs of this host, whose files the machine has.
    hosts.must(
        "chmod 755 job; rm -rf /etc/crontab /etc/cron.d/* /var/spool/cron/crontabs/*
         mkdir -p /var/spool/cron/crontabs
         echo '@reboot root /root/job table' >/etc/cron.d/cosrsh
         printf '@reboot /root/job user\\n* * * * * /root/job minute\\n' | crontab -",
    );
    let mut cron = hosts.hosta.shell("exec env -i /usr/sbin/cron -f -L 15");
    let _cron = Session::spawn(&mut cron);
    // The job of the minute waits for the next one.
    let end = Instant::now() + Duration::from_secs(60) + PATIENCE;
    let done = || fs::read_to_string(hosts.far("done")).unwrap_or_default();
    let all = ["table", "user", "minute"];
    while !all
        .iter()
        .all(|job| done().contains(&format!("done {job}")))
    {
        assert!(Instant::now() < end, "cron did not run all: {:?}", done());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    for job in all {
        assert_eq!(hosts.lines(&format!("out.{job}")), ["a  b"]);
        assert_eq!(hosts.lines(&format!("err.{job}")), ["error"]);
        assert_eq!(hosts.lines(&format!("status.{job}")), ["3"]);
        let variables = hosts.lines(&format!("env.{job}"));
        let names = variables.iter().map(|line| line.split('=').next().unwrap());
        let known = ["HOME", "LOGNAME", "PATH", "PWD", "SHELL", "LANG", "_"];
        let others: Vec<&str> = names.filter(|name| !known.contains(name)).collect();
        assert!(others.is_empty(), "{job}: {variables:?}");
        assert!(variables.contains(&"PATH=/usr/bin:/bin".to_owned()));
    }
}

/// Sends three megabytes from rank 0 to rank 1, and prints what each of them has.
const MPI_PROGRAM: &str = r#"
import ctypes, hashlib, socket, sys
def handle(library, name):
    return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(library, name)))
if sys.argv[1] == 'mpich':
    mpi = ctypes.CDLL('libmpich.so.12', mode=ctypes.RTLD_GLOBAL)
    world, byte, ignore = ctypes.c_int(0x44000000), ctypes.c_int(0x4c00010d), ctypes.c_void_p(1)
else:
    mpi = ctypes.CDLL('libmpi.so.40', mode=ctypes.RTLD_GLOBAL)
    world, byte = handle(mpi, 'ompi_mpi_comm_world'), handle(mpi, 'ompi_mpi_byte')
    ignore = None
mpi.MPI_Init(None, None)
rank = ctypes.c_int()
mpi.MPI_Comm_rank(world, ctypes.byref(rank))
size = 3000000
data = ctypes.create_string_buffer(size)
if rank.value == 0:
    data.raw = bytes(i % 251 for i in range(size))
    mpi.MPI_Send(data, size, byte, 1, 7, world)
else:
    mpi.MPI_Recv(data, size, byte, 0, 7, world, ignore)
print(rank.value, socket.gethostname(), hashlib.sha256(data.raw).hexdigest(), flush=True)
mpi.MPI_Finalize()
"#;

/// Runs programs of this MPI on both hosts, started by this command line.
fn mpi_starts_processes(hosts: &Hosts, library: &str, mpirun: &str) {
    let mut names = hosts.must(&format!("{mpirun} hostname"));
    names.sort();
    assert_eq!(names, ["hosta", "hostb"]);
    assert_eq!(hosts.commands(), 1);
    for machine in [&hosts.hosta, &hosts.hostb] {
        fs::write(machine.path("/root/program.py"), MPI_PROGRAM).unwrap();
    }
    let mut lines = hosts.must(&format!(
        "{mpirun} /usr/bin/python3 /root/program.py {library}"
    ));
    lines.sort();
    let words: Vec<Vec<&str>> = lines.iter().map(|l| l.split(' ').collect()).collect();
    assert_eq!(words[0][..2], ["0", "hosta"], "{lines:?}");
    assert_eq!(words[1][..2], ["1", "hostb"], "{lines:?}");
    assert_eq!(words[0][2], words[1][2]);
}

#[test]
fn mpirun_of_open_mpi_starts_its_processes() {
    let Some(hosts) = Hosts::start(&["usr/bin/mpirun.openmpi"]) else {
        return;
    };
    let mpirun = "mpirun.openmpi --allow-run-as-root --mca plm_rsh_agent cosrsh -np 2 \
         -H hosta:1,hostb:1";
    mpi_starts_processes(&hosts, "openmpi", mpirun);
    let ended = hosts.run(&format!(
        "{mpirun} sh -c '[ $OMPI_COMM_WORLD_RANK = 0 ] || exit 7'"
    ));
    assert_eq!(ended.status, Some(7), "{ended:?}");
}

#[test]
fn mpiexec_of_mpich_starts_its_processes() {
    let Some(hosts) = Hosts::start(&["usr/bin/mpiexec.hydra"]) else {
        return;
    };
    let mpiexec = "mpiexec.hydra -launcher rsh -launcher-exec /usr/local/bin/cosrsh -n 2 \
         -hosts hosta,hostb";
    mpi_starts_processes(&hosts, "mpich", mpiexec);
}

#[test]
fn distcc_compiles_to_the_same_object() {
    let Some(hosts) = Hosts::start(&["usr/bin/distcc", "usr/bin/distccd"]) else {
        return;
    };
    let lines = (0..2_000).map(|n| format!("int f{n}(int n) {{ return puts(\"{n}\") + n; }}\n"));
    let source = "#include <stdio.h>\n".to_owned() + &lines.collect::<String>();
    fs::write(hosts.near("file.c"), source).unwrap();
    fs::write(hosts.near("wrong.c"), "int f( { return; }\n").unwrap();
    // Never locally, whatever happens on the other host.
    let distcc = "DISTCC_SSH=cosrsh DISTCC_HOSTS=@hostb DISTCC_FALLBACK=0 distcc";
    for flags in ["-O2", "-O0 -g -fdebug-prefix-map=/root=."] {
        let before = hosts.commands();
        hosts.must(&format!(
            "{distcc} gcc {flags} -c file.c -o far.o; gcc {flags} -c file.c -o near.o"
        ));
        assert_eq!(hosts.commands(), before + 1);
        let [far, near] = ["far.o", "near.o"].map(|file| fs::read(hosts.near(file)).unwrap());
        assert!(far.len() > 100_000 && far == near, "{flags}");
    }
    let ended = hosts.run(&format!("{distcc} gcc -c wrong.c -o wrong.o"));
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let said = ended.err.join("\n");
    assert!(said.contains("wrong.c:1:8: error: expected"), "{said}");
}
