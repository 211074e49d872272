//! The three streams of a command against the real daemon: complete, separate, with back-pressure,
//! and to their end whatever either side does in between.

use crate::daemon;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemon::session::{self, Fifo, Gate, Later, Patient, Session, as_shell, ends, later, lives};
use daemon::{Daemon, long, must, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

/// Bytes in each direction: 1 GiB if the long counts are requested.
fn volume() -> u64 {
    if long() { 1 << 30 } else { 64 << 20 }
}

/// Bytes that never repeat, the same at every call: xorshift64*.
struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    fn of(bytes: u64) -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            left: bytes,
        }
    }

    /// Fills a block; returns what it filled, empty at the end.
    fn next<'a>(&mut self, block: &'a mut [u8]) -> &'a [u8] {
        for eight in block.chunks_exact_mut(8) {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            eight.copy_from_slice(&self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        let n = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(block.len());
        self.left -= n as u64;
        &block[..n]
    }
}

/// Writes noise; returns its checksum.
fn write_noise(mut to: impl Write + Send + 'static, bytes: u64) -> Later<String> {
    later(move || {
        let (mut noise, mut sum, mut block) = (Noise::of(bytes), Sha256::new(), vec![0; 1 << 16]);
        loop {
            let part = noise.next(&mut block);
            if part.is_empty() {
                return hex(sum);
            }
            sum.update(part);
            to.write_all(part).unwrap();
        }
    })
}

/// Reads to the end; returns the number of bytes, and their checksum.
fn read_sum(mut from: impl Read + Send + 'static) -> Later<(u64, String)> {
    later(move || {
        let (mut sum, mut block, mut count) = (Sha256::new(), vec![0; 1 << 16], 0);
        loop {
            match from.read(&mut block).unwrap() {
                0 => return (count, hex(sum)),
                n => {
                    sum.update(&block[..n]);
                    count += n as u64;
                }
            }
        }
    })
}

fn hex(sum: Sha256) -> String {
    sum.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Starts a client with pipes for all three streams.
fn piped(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn in_background(mut from: impl Read + Send + 'static) -> Later<Vec<u8>> {
    later(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

/// Returns the output of `seq 1 N`.
fn counted(to: u32) -> Vec<u8> {
    must(Command::new("seq").args(["1", &to.to_string()]))
}

/// More than a 32-bit number can count, in each direction, if the long counts are requested.
#[test]
fn more_than_4_gib_in_one_session() {
    const MUCH: u64 = 5 << 30;
    if !long() {
        return;
    }
    let d = Daemon::start();
    let mut client = piped(&mut d.cos(&["cat"]));
    let mut stdin = client.stdin.take().unwrap();
    let writer = later(move || {
        let mut zeros = std::io::repeat(0).take(MUCH);
        std::io::copy(&mut zeros, &mut stdin).unwrap()
    });
    let mut stdout = client.stdout.take().unwrap();
    let read = later(move || std::io::copy(&mut stdout, &mut std::io::sink()).unwrap());
    assert_eq!((read.get(), writer.get()), (MUCH, MUCH));
    assert_eq!(session::wait(&mut client).code(), Some(0));
    let line = d.log.wait("end session=");
    let count = |key: &str| line.contains(&format!(" {key}={MUCH}"));
    assert!(count("in") && count("out"), "{line}");
}

#[test]
fn both_ways_at_once_by_checksum() {
    let d = Daemon::start();
    let mut client = piped(&mut d.cos(&["cat"]));
    let writer = write_noise(client.stdin.take().unwrap(), volume());
    let reader = read_sum(client.stdout.take().unwrap());
    let sum = writer.get();
    assert_eq!(reader.get(), (volume(), sum));
    assert_eq!(session::wait(&mut client).code(), Some(0));
    let line = d.log.wait("end session=0");
    let volume = volume();
    assert!(
        line.contains(&format!("in={volume} out={volume}")),
        "{line}"
    );
}

#[test]
fn only_stdin_by_checksum() {
    let d = Daemon::start();
    let mut client = piped(&mut d.cos(&["sha256sum; wc -c </dev/null"]));
    let writer = write_noise(client.stdin.take().unwrap(), volume());
    let out = in_background(client.stdout.take().unwrap());
    let sum = writer.get();
    let out = String::from_utf8(out.get()).unwrap();
    assert_eq!(out, format!("{sum}  -\n0\n"));
    assert_eq!(session::wait(&mut client).code(), Some(0));
}

#[test]
fn only_stdout_by_checksum() {
    let d = Daemon::start();
    let file = d.folder.path("noise");
    let sum = write_noise(File::create(&file).unwrap(), volume());
    let sum = sum.get();
    let mut client = piped(&mut d.cos(&["cat", file.to_str().unwrap()]));
    let reader = read_sum(client.stdout.take().unwrap());
    assert_eq!(reader.get(), (volume(), sum));
    assert_eq!(session::wait(&mut client).code(), Some(0));
}

#[test]
fn files_as_the_clients_own_streams() {
    // Not pipes but files: as in `cos run HOST cat <in >out 2>err`.
    let d = Daemon::start();
    let [input, output, errors] = ["in", "out", "err"].map(|n| d.folder.path(n));
    write_noise(File::create(&input).unwrap(), 5 << 20).get();
    let status = d
        .cos(&["tee /dev/stderr"])
        .stdin(File::open(&input).unwrap())
        .stdout(File::create(&output).unwrap())
        .stderr(File::create(&errors).unwrap())
        .status();
    assert_eq!(status.unwrap().code(), Some(0));
    let expected = std::fs::read(input).unwrap();
    assert!(std::fs::read(output).unwrap() == expected);
    assert!(std::fs::read(errors).unwrap() == expected);
}

#[test]
fn every_byte_value_on_every_stream() {
    let d = Daemon::start();
    let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    let out = d.with_input(&all, &["tee /dev/stderr"]);
    assert_eq!(out.stdout, all);
    assert_eq!(out.stderr, all);
    // Line ends are not changed, and the last one may be missing.
    let text = b"a\r\nb\rc\n\n\0d\x04\x1a\x03";
    assert_eq!(d.with_input(text, &["cat"]).stdout, text);
}

#[test]
fn output_and_errors_interleaved() {
    let d = Daemon::start();
    let count = if long() { 8_000_000 } else { 800_000 };
    let script = format!("seq 1 {count} & seq 1 {count} >&2; wait");
    let mut client = piped(&mut d.cos(&[&script]));
    let err = in_background(client.stderr.take().unwrap());
    let out = in_background(client.stdout.take().unwrap());
    let expected = counted(count);
    assert!(out.get() == expected);
    assert!(err.get() == expected);
    assert_eq!(session::wait(&mut client).code(), Some(0));
}

#[test]
fn unread_stderr_does_not_block_stdout_and_vice_versa() {
    let d = Daemon::start();
    for (kept, read) in [("", ">&2"), (">&2", "")] {
        // The first is never read until the second has arrived completely.
        let script = format!("seq 1 800000 {kept} & seq 1 800000 {read}; echo done {read}; wait");
        let mut client = piped(&mut d.cos(&[&script]));
        let (out, err) = (client.stdout.take().unwrap(), client.stderr.take().unwrap());
        let (out, err) = (OwnedFd::from(out), OwnedFd::from(err));
        let (first, second) = if read.is_empty() {
            (out, err)
        } else {
            (err, out)
        };
        let mut lines = BufReader::new(Patient(File::from(first)));
        let mut got = Vec::new();
        while !got.ends_with(b"done\n") {
            assert_ne!(lines.read_until(b'e', &mut got).unwrap(), 0);
            if got.ends_with(b"done") {
                lines.read_until(b'\n', &mut got).unwrap();
            }
        }
        let expected = counted(800_000);
        assert!(got[..got.len() - 5] == expected[..]);
        assert!(in_background(File::from(second)).get() == expected);
        assert_eq!(session::wait(&mut client).code(), Some(0));
    }
}

#[test]
fn the_end_of_the_input_is_carried_while_the_output_goes_on() {
    let d = Daemon::start();
    // sort writes its output only when its input has ended.
    let input: Vec<u8> = (0..50_000_u32)
        .rev()
        .flat_map(|n| format!("{n:05}\n").into_bytes())
        .collect();
    let out = d.with_input(&input, &["sort; echo end"]);
    let expected: Vec<u8> = (0..50_000_u32)
        .flat_map(|n| format!("{n:05}\n").into_bytes())
        .chain(*b"end\n")
        .collect();
    assert!(out.stdout == expected);
    // An input that is empty from the start.
    assert_eq!(d.says(0, &["wc -c"]), b"0\n");
}

#[test]
fn no_input_flag_does_not_read_the_callers_input() {
    let d = Daemon::start();
    let file = d.folder.path("lines");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    let mut input = File::open(&file).unwrap();
    let cos = |input: Stdio| {
        let mut command = Command::new(daemon::COS);
        command.arg("-C").arg(d.client());
        command.args([
            "run",
            "-n",
            "-p",
            &d.port.to_string(),
            "hostb",
            "cat; echo end",
        ]);
        command.stdin(input).output().unwrap()
    };
    let out = cos(input.try_clone().unwrap().into());
    assert_eq!(out.stdout, b"end\n");
    assert_eq!(input.stream_position().unwrap(), 0);
    // An input that never ends does not delay it.
    let (read, _held) = session::pipe();
    let out = cos(read.into());
    assert_eq!((out.status.code(), &*out.stdout), (Some(0), &b"end\n"[..]));
}

#[test]
fn two_hundred_commands_at_once() {
    cosserver::sys::process::raise_descriptors(u64::MAX);
    let d = Daemon::start();
    let mut all: Vec<Session> = (0..200)
        .map(|n| d.session(&[&format!("echo ready; read x; echo \"$x\"; exit {n}")]))
        .collect();
    for job in &all {
        job.out.wait("ready");
    }
    // All of them run at the same time.
    d.log.said_times("exec session=", 200);
    assert_eq!(d.log.count("end session="), 0);
    for (n, job) in all.iter_mut().enumerate() {
        job.say(&format!("word {n}"));
    }
    for (n, job) in all.into_iter().enumerate() {
        let ended = job.finish();
        assert_eq!(ended.out, ["ready".to_owned(), format!("word {n}")]);
        assert_eq!(ended.err, [""; 0]);
        assert_eq!(ended.status, i32::try_from(n).ok());
    }
}

#[test]
fn two_hundred_commands_started_side_by_side() {
    let d = Daemon::start();
    let d = &d;
    std::thread::scope(|scope| {
        for worker in 0..16 {
            scope.spawn(move || {
                for n in 0..13 {
                    let words = format!("echo {worker} {n}; exit {n}");
                    assert_eq!(d.says(n, &[&words]), format!("{worker} {n}\n").into_bytes());
                }
            });
        }
    });
}

#[test]
fn a_client_killed_mid_stream_leaves_nothing_behind() {
    let d = Daemon::start_with("[exec]\nhup-to-kill = 0\n", "");
    let mut client = piped(&mut d.cos(&["echo $$ >&2; exec cat"]));
    let mut err = BufReader::new(Patient(client.stderr.take().unwrap()));
    let mut pid = String::new();
    err.read_line(&mut pid).unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let mut out = Patient(client.stdout.take().unwrap());
    let writer = later(move || {
        let block = [b'x'; 65_536];
        while stdin.write_all(&block).is_ok() {}
    });
    let mut some = vec![0; 4 << 20];
    out.read_exact(&mut some).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    writer.get();
    assert!(ends(pid.trim().parse().unwrap()));
    let line = d.log.wait("end session=0");
    assert!(line.contains("how=client-gone"), "{line}");
    assert_eq!(d.says(0, &["echo still here"]), b"still here\n");
}

#[test]
fn a_job_may_close_its_descriptors_and_go_on() {
    let d = Daemon::start();
    let mut gate = Gate::new(d.folder.path("gate"));
    let mut fifo = Fifo::new(d.folder.path("fifo"));
    let script = format!(
        "echo out; exec <&- >&- 2>&-; echo closed >{}; read x <{}; exit 3",
        fifo.name(),
        gate.name()
    );
    let mut client = piped(&mut d.cos(&[&script]));
    assert_eq!(fifo.receive(), "closed\n");
    // The reader sees the end of the output while the command runs.
    let mut out = String::new();
    Patient(client.stdout.take().unwrap())
        .read_to_string(&mut out)
        .unwrap();
    assert_eq!(out, "out\n");
    assert!(client.try_wait().unwrap().is_none());
    // The input is not read any more: the writer gets an error.
    let mut stdin = client.stdin.take().unwrap();
    let error = later(move || {
        let block = [0; 65_536];
        (0..1000).find_map(|_| stdin.write_all(&block).err())
    });
    assert_eq!(error.get().unwrap().kind(), std::io::ErrorKind::BrokenPipe);
    assert!(client.try_wait().unwrap().is_none());
    gate.open();
    assert_eq!(session::wait(&mut client).code(), Some(3));
}

#[test]
fn a_child_left_behind_with_the_output_holds_the_end_up_for_the_linger() {
    let d = Daemon::start_with("[exec]\nlinger = 1\n", "");
    let began = Instant::now();
    let ended = d.session(&["sleep 1000 & echo $!; exit 4"]).finish();
    let lasted = began.elapsed();
    assert_eq!(ended.status, Some(4));
    let child: i32 = ended.out[0].parse().unwrap();
    let there = lives(child);
    kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    assert!(there, "a normal end signals nobody");
    assert!(lasted >= Duration::from_secs(1), "{lasted:?}");
    let line = d.log.wait("end session=0");
    assert!(line.contains("how=done"), "{line}");
}

#[test]
fn a_child_left_behind_without_the_output_holds_nothing_up() {
    // Longer than the test may take.
    let d = Daemon::start_with("[exec]\nlinger = 1000\n", "");
    let ended = d
        .session(&["sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; exit 4"])
        .finish();
    assert_eq!(ended.status, Some(4));
    let child = Pid::from_raw(ended.out[0].parse().unwrap());
    assert!(lives(child.as_raw()));
    kill(child, Signal::SIGKILL).unwrap();
}

#[test]
fn output_of_a_child_that_keeps_writing_is_complete() {
    let d = Daemon::start_with("[exec]\nlinger = 2\n", "");
    // Three seconds of output with pauses far below the linger time.
    let ended = d
        .session(&["(for n in 1 2 3 4 5 6; do sleep 0.5; echo $n; done) & exit 5"])
        .finish();
    assert_eq!(ended.out, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(ended.status, Some(5));
}

/// Output after the quiet time is lost, and the client is told that it may be.
#[test]
fn output_after_the_linger_time_is_reported_as_cut_off() {
    let d = Daemon::start_with("[exec]\nlinger = 0\n", "");
    let mut gate = Gate::new(d.folder.path("gate"));
    let script = format!("(read x <{}; echo late) & exit 0", gate.name());
    let ended = d.session(&[&script]).finish();
    gate.open();
    assert_eq!((ended.status, ended.out), (Some(0), Vec::new()));
    let told = [
        "cos: hostb: output may be cut off: the command has ended, but another process holds its output open",
        "cos: to wait until that process closes it: -o Linger=none",
    ];
    assert_eq!(ended.err, told);
    // So does the log.
    let line = d.log.wait("end session=0 ");
    assert!(
        line.contains("how=done status=0 ") && line.contains(" cut-off=yes"),
        "{line}"
    );
    // A user who ended the command by a signal gets no advice.
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let script = "(trap '' TERM HUP; echo ready; exec sleep 1000) & wait";
        let session = d.session(&[script]);
        session.out.wait("ready");
        session.signal(signal);
        let ended = session.finish();
        assert_eq!(ended.status, Some(128 + signal as i32));
        assert_eq!(ended.err, Vec::<String>::new());
    }
    // A command that ends its outputs in time causes no message.
    let ended = d.session(&["echo all; echo err >&2"]).finish();
    let said = (&*ended.out, &*ended.err);
    assert_eq!(said, (&["all".to_owned()][..], &["err".to_owned()][..]));
    let line = d.log.wait("end session=3 ");
    assert!(
        line.contains("how=done status=0 ") && !line.contains("cut-off"),
        "{line}"
    );
}

/// The host's line and the client set the quiet time; the client's takes precedence.
#[test]
fn the_quiet_time_is_the_callers_or_the_host_lines() {
    let waits = |d: &Daemon, flags: &[&str], expected: &[&str]| {
        let script = "(sleep 1.5; echo late) & exit 5";
        let mut command = d.cos(&[]);
        let ended = session::Session::spawn(command.args(flags).arg(script)).finish();
        let told = usize::from(expected.is_empty()) * 2;
        let said = (ended.status, ended.out, ended.err.len());
        let late: Vec<String> = expected.iter().map(|s| (*s).to_owned()).collect();
        assert_eq!(said, (Some(5), late, told), "{flags:?}");
    };
    let d = Daemon::start_with("[exec]\nlinger = 0\n", "");
    waits(&d, &["-oLinger=none"], &["late"]);
    waits(&d, &["-oLinger=1000"], &["late"]);
    waits(&d, &[], &[]);
    let d = Daemon::start_with("[exec]\nlinger = 0\n", "linger=none");
    waits(&d, &[], &["late"]);
    waits(&d, &["-o", "Linger=0"], &[]);
}

#[test]
fn a_reader_that_pauses_longer_than_the_linger_loses_nothing() {
    let d = Daemon::start_with("[exec]\nlinger = 1\n", "");
    let (read, write) = session::pipe();
    // More than the credit, but at most what a small pipe holds in addition.
    let file = d.folder.path("file");
    let expected = counted(200_000)[..(1 << 20) + 40_000].to_vec();
    std::fs::write(&file, &expected).unwrap();
    let command = d.cos(&["echo $$ >&2; cat", file.to_str().unwrap()]);
    let (mut client, err) = session::start_onto(command, write);
    let leader: i32 = err.wait("").parse().unwrap();
    // The command has written everything into the pipes, and is gone; for one and a half linger
    // times the output is not read.
    assert!(ends(leader));
    std::thread::park_timeout(Duration::from_millis(1500));
    let all = in_background(File::from(read)).get();
    assert!(all == expected, "{} of {} bytes", all.len(), expected.len());
    assert_eq!(session::wait(&mut client).code(), Some(0));
}

#[test]
fn a_job_that_never_reads_its_input_and_exits() {
    let d = Daemon::start();
    for script in ["exit 6", "exec <&-; exit 6", "read x; exit 6"] {
        // Ten MiB for a command that reads none or one line of it.
        let mut client = piped(&mut d.cos(&[script]));
        let mut stdin = client.stdin.take().unwrap();
        let writer = later(move || {
            let line = [&[b'x'; 65_535][..], b"\n"].concat();
            (0..160).all(|_| stdin.write_all(&line).is_ok())
        });
        assert_eq!(session::wait(&mut client).code(), Some(6), "{script}");
        assert!(!writer.get(), "not all of it can have been taken");
    }
}

#[test]
fn a_job_that_never_reads_its_input_and_waits() {
    let d = Daemon::start();
    let mut gate = Gate::new(d.folder.path("gate"));
    let script = format!("echo ready; read x <{}; exit 7", gate.name());
    let mut client = piped(&mut d.cos(&[&script]));
    let mut out = BufReader::new(Patient(client.stdout.take().unwrap()));
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let writer = later(move || {
        let block = [0; 65_536];
        (0..160).all(|_| stdin.write_all(&block).is_ok())
    });
    // The session is full of input that is not read, and must end all the same.
    gate.open();
    assert_eq!(session::wait(&mut client).code(), Some(7));
    assert!(!writer.get());
}

#[test]
fn a_job_that_writes_after_its_errors_were_closed_learns_it() {
    let d = Daemon::start();
    let without_reader = |script: &str| {
        let (read, write) = session::pipe();
        drop(read);
        let mut command = d.cos(&[script]);
        let client = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(write)
            .spawn();
        drop(command);
        let mut client = client.unwrap();
        let out = in_background(client.stdout.take().unwrap()).get();
        (session::wait(&mut client), String::from_utf8(out).unwrap())
    };
    let (status, _) = without_reader("exec sh -c 'while echo x >&2; do :; done'");
    assert_eq!(as_shell(status), Some(128 + 13));
    let (status, out) =
        without_reader("trap '' PIPE; while cat /etc/passwd >&2; do :; done; echo still; exit 5");
    assert_eq!((status.code(), &*out), (Some(5), "still\n"));
}

#[test]
fn an_output_that_is_closed_ends_its_command() {
    let d = Daemon::start();
    let began = Instant::now();
    // `cos run hostb yes | head -1`
    let mut client = piped(&mut d.cos(&["exec yes"]));
    let mut out = BufReader::new(Patient(client.stdout.take().unwrap()));
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    drop(out);
    let err = in_background(client.stderr.take().unwrap());
    assert_eq!(session::wait(&mut client).code(), Some(128 + 13));
    assert_eq!(err.get(), b"");
    assert!(began.elapsed() < Duration::from_secs(10), "promptly");

    // The job notices at once, even if it writes nothing, and by nothing else.
    let waits = "import select, sys; p = select.poll(); p.register(1, 0); \
                 print(\"ready\", flush=True); p.poll(); print(\"gone\", file=sys.stderr)";
    let script = format!("python3 -c '{waits}'; exec sh -c 'echo more; echo no >&2'");
    let mut client = piped(&mut d.cos(&[&script]));
    let mut out = BufReader::new(Patient(client.stdout.take().unwrap()));
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    drop(out);
    let err = in_background(client.stderr.take().unwrap());
    assert_eq!(session::wait(&mut client).code(), Some(128 + 13));
    assert_eq!(err.get(), b"gone\n");
}

#[test]
fn empty_output_and_small_pieces() {
    let d = Daemon::start();
    let out = run(&mut d.cos(&["true"]));
    assert_eq!((out.stdout.len(), out.stderr.len()), (0, 0));
    assert_eq!(out.status.code(), Some(0));
    // Each piece arrives when it is written, not when a buffer is full.
    let mut job = d.session(&["while read x; do echo \"<$x>\"; done"]);
    for n in 0..100 {
        job.say(&n.to_string());
        job.out.wait(&format!("<{n}>"));
    }
    job.stdin.take();
    assert_eq!(job.finish().status, Some(0));
}
