//! Compiles and installs seccomp filters.
//!
//! System calls that are listed without rules for their arguments are found by binary search;
//! seccompiler compiles the rest; filters for calls that no list can name are added.
//!
//! The kernel runs a new filter once for every system call that exists, and seccompiler compares
//! with one number after another. That took most of a microsecond for each instruction, before a
//! process started by inetd could begin.
//!
//! Runs in gate, relay and look-up process, before each of them installs its filter; the lists of
//! all three deny `OWNER_COMMANDS`. Owns nothing: the callers own their lists. Must not make a
//! filter allow what its list denies.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};

use super::sandbox::is_missing;

/// Rules for the arguments of each call. A call without rules matches with any arguments.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiles a filter that applies `listed` to calls on the list and `others` to all other calls.
/// `None`: there are no filters for this processor.
///
/// # Errors
/// The list is too long, or a rule is invalid.
pub(super) fn compile(
    mut rules: Rules,
    listed: SeccompAction,
    others: SeccompAction,
) -> io::Result<Option<BpfProgram>> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(None);
    };
    let mut always = BTreeSet::new();
    rules.retain(|call, rules| {
        let number = u32::try_from(*call).ok().filter(|_| rules.is_empty());
        number.is_none_or(|number| !always.insert(number))
    });
    let searched = search(&always, u32::from(listed.clone()))?;
    let rest = SeccompFilter::new(rules, others, listed, arch).and_then(TryInto::try_into);
    let mut program: BpfProgram = rest.map_err(io::Error::other)?;
    insert(&mut program, searched);
    Ok(Some(program))
}

/// Installs a filter. Returns 0, or the error by which the kernel says that it has no filters.
///
/// # Errors
/// The kernel has filters, but refused this one.
pub(super) fn apply(program: &BpfProgram) -> io::Result<i32> {
    match apply_filter(program) {
        Ok(()) => Ok(0),
        Err(seccompiler::Error::Prctl(e) | seccompiler::Error::Seccomp(e)) => {
            let error = e.raw_os_error().filter(|error| is_missing(*error));
            error.ok_or(e)
        }
        Err(e) => Err(io::Error::other(e)),
    }
}

/// Returns instructions that return `action` for these numbers and continue after themselves for
/// others.
fn search(numbers: &BTreeSet<u32>, action: u32) -> io::Result<Vec<sock_filter>> {
    // The bounds alternate: from here on listed, from here on not listed. Numbers below the first
    // are not listed.
    let mut bounds = Vec::new();
    for number in numbers {
        let next = number.checked_add(1).ok_or_else(too_long)?;
        match bounds.last_mut() {
            Some(last) if *last == *number => *last = next,
            _ => bounds.extend([*number, next]),
        }
    }
    if bounds.is_empty() {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    halve(&bounds, 0, &mut steps);
    // The positions after the steps, and after the whole program.
    let (listed, other) = (steps.len(), steps.len() + 1);
    let mut program = vec![load_number()];
    for (at, step) in steps.iter().enumerate() {
        let to = |target: Target| {
            let target = match target {
                Target::Step(step) => step,
                Target::Listed => listed,
                Target::Other => other,
            };
            let skipped = target.checked_sub(at + 1);
            skipped
                .and_then(|n| u8::try_from(n).ok())
                .ok_or_else(too_long)
        };
        program.push(instruction(
            JUMP_IF_AT_LEAST,
            to(step.from)?,
            to(step.below)?,
            step.bound,
        ));
    }
    program.push(instruction(RETURN, 0, 0, action));
    Ok(program)
}

/// A comparison with a bound, and where to continue.
struct Step {
    bound: u32,
    below: Target,
    from: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Step(usize),
    Listed,
    Other,
}

/// Adds the comparisons that locate a number among these bounds; `before` counts the bounds below
/// them. Returns where to begin.
fn halve(bounds: &[u32], before: usize, steps: &mut Vec<Step>) -> Target {
    let middle = bounds.len() / 2;
    let Some((below, [bound, from @ ..])) = bounds.split_at_checked(middle) else {
        return match before % 2 {
            0 => Target::Other,
            _ => Target::Listed,
        };
    };
    let own = steps.len();
    steps.push(Step {
        bound: *bound,
        below: Target::Other,
        from: Target::Other,
    });
    let below = halve(below, before, steps);
    let from = halve(from, before + middle + 1, steps);
    if let Some(step) = steps.get_mut(own) {
        (step.below, step.from) = (below, from);
    }
    Target::Step(own)
}

fn too_long() -> io::Error {
    io::Error::other("the list of calls is too long")
}

/// Commands of fcntl(2) that set a descriptor's owner and signal. With O_ASYNC such a descriptor
/// sends SIGKILL to any process of the same user, and landlock does not prevent that before Linux
/// 6.12.
pub(super) const OWNER_COMMANDS: [u64; 3] = [F_SETOWN, F_SETSIG, F_SETOWN_EX];

// The values of `asm-generic/fcntl.h`, which every architecture with a filter uses.
const F_SETOWN: u64 = 8;
const F_SETSIG: u64 = 10;
const F_SETOWN_EX: u64 = 15;

// Opcodes of `linux/bpf_common.h`: load a word at an address; compare the loaded number with a
// constant; return.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
#[cfg(target_arch = "x86_64")]
const JUMP_IF_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Instructions of seccompiler's own check of the architecture.
const ARCHITECTURE_CHECK: usize = 3;

/// The bit that marks an x32 call in its number. x32 has the architecture code of x86-64, so the
/// architecture check does not reject it.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Makes every x32 call fail with this error. Its number is on no list, so a deny list would allow
/// it.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
pub(super) fn without_x32(program: &mut Vec<sock_filter>, errno: i32) {
    #[cfg(target_arch = "x86_64")]
    insert(program, [load_number(), unless_bit(X32, 1), fail(errno)]);
    let _ = (program, errno);
}

/// Makes clone3(2) fail with ENOSYS: its flags are behind a pointer, which no filter can read. The
/// C library falls back to clone(2).
pub(super) fn without_clone3(program: &mut Vec<sock_filter>) {
    if let Ok(number) = u32::try_from(libc::SYS_clone3) {
        let unless_clone3 = instruction(JUMP_IF_EQUAL, 0, 1, number);
        insert(program, [load_number(), unless_clone3, fail(libc::ENOSYS)]);
    }
}

fn insert(program: &mut Vec<sock_filter>, all: impl IntoIterator<Item = sock_filter>) {
    let at = ARCHITECTURE_CHECK.min(program.len());
    program.splice(at..at, all);
}

fn load_number() -> sock_filter {
    instruction(LOAD, 0, 0, 0)
}

/// Skips this many instructions, unless the number has this bit.
#[cfg(target_arch = "x86_64")]
fn unless_bit(bit: u32, skip: u8) -> sock_filter {
    instruction(JUMP_IF_BIT, 0, skip, bit)
}

fn fail(errno: i32) -> sock_filter {
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::super::confine::calls;
    use super::super::sandbox::{Role, system};
    use super::*;

    /// Returns a filter's answer to a call, and the number of instructions executed.
    fn ask(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> (u32, usize) {
        let word = |at: u32| match at {
            0 => number,
            // AUDIT_ARCH_X86_64.
            4 => 0xc000_003e,
            16.. => {
                let argument = arguments[(at as usize - 16) / 8];
                let shift = if at % 8 == 0 { 0 } else { 32 };
                u32::try_from((argument >> shift) & 0xffff_ffff).unwrap()
            }
            _ => 0,
        };
        let (mut at, mut loaded) = (0, 0);
        for taken in 1..=program.len() {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let mut jump = |is_so| at += usize::from(if is_so { jt } else { jf });
            match code {
                LOAD => loaded = word(k),
                0x54 => loaded &= k,
                0x05 => at += k as usize,
                JUMP_IF_EQUAL => jump(loaded == k),
                0x25 => jump(loaded > k),
                JUMP_IF_AT_LEAST => jump(loaded >= k),
                JUMP_IF_BIT => jump(loaded & k != 0),
                RETURN => return (k, taken),
                _ => panic!("{code:#x}"),
            }
        }
        panic!("it goes on behind its end");
    }

    fn numbers() -> impl Iterator<Item = u32> {
        let edges = [
            X32,
            X32 + 57,
            (1 << 31) - 1,
            1 << 31,
            u32::MAX - 1,
            u32::MAX,
        ];
        (0..1100).chain(edges)
    }

    /// Compares with the filter that seccompiler makes of the same list.
    #[track_caller]
    fn says_the_same(list: impl Fn() -> Rules, listed: SeccompAction, others: SeccompAction) {
        let arch = TargetArch::x86_64;
        let plain = SeccompFilter::new(list(), others.clone(), listed.clone(), arch);
        let plain: BpfProgram = plain.unwrap().try_into().unwrap();
        let ours = compile(list(), listed, others).unwrap().unwrap();
        assert!(ours.len() < plain.len());
        let commands = [
            77,
            1 << 32 | 1 << 16,
            0,
            1,
            2,
            3,
            6,
            8,
            10,
            13,
            15,
            16,
            20,
            33,
            0x100,
            0x8901,
            0x8902,
            1 << 16,
        ];
        for number in numbers() {
            for first in commands {
                for second in commands {
                    let arguments = [second, first, second, second, 0, 0];
                    let wanted = ask(&plain, number, arguments).0;
                    let said = ask(&ours, number, arguments).0;
                    assert_eq!(said, wanted, "{number} {arguments:?}");
                }
            }
        }
    }

    #[test]
    fn binary_search_filter_equals_the_linear_list() {
        let (allow, kill) = (SeccompAction::Allow, SeccompAction::KillProcess);
        for role in [Role::Gate, Role::Relay] {
            says_the_same(|| system::list(role).unwrap(), allow.clone(), kill.clone());
        }
        let error = calls::list(77).unwrap().1;
        says_the_same(|| calls::list(77).unwrap().0, error, allow);
    }

    /// Consecutive numbers, single ones, the first and the last; and an empty list.
    #[test]
    fn a_search_finds_every_number_of_its_list() {
        let lists: [&[u32]; 6] = [
            &[],
            &[0],
            &[5],
            &[0, 1, 2, 7, 8, 10, u32::MAX - 1],
            &[1, 3, 5, 7, 9],
            &[3, 4],
        ];
        for list in lists {
            let mut program = search(&list.iter().copied().collect(), 1).unwrap();
            program.push(instruction(RETURN, 0, 0, 0));
            for number in numbers() {
                let said = ask(&program, number, [0; 6]).0;
                assert_eq!(said == 1, list.contains(&number), "{number} of {list:?}");
            }
        }
        assert!(search(&BTreeSet::from([u32::MAX]), 1).is_err());
        assert!(search(&(0..300).map(|n| 2 * n).collect(), 1).is_err());
    }

    /// The kernel runs a new filter for every system call. With one comparison after another, that
    /// took longer than everything else that a process does before it can serve.
    #[test]
    fn no_call_is_compared_with_one_number_after_another() {
        let programs = [
            system::program(Role::Gate).unwrap(),
            system::program(Role::Relay).unwrap(),
            calls::program(77).unwrap(),
        ];
        for program in programs {
            let program = program.unwrap();
            let taken = numbers().map(|number| ask(&program, number, [0; 6]).1);
            assert!(taken.max() < Some(48), "of {}", program.len());
        }
    }
}
