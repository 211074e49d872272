//! The decision on a named service: examples, and properties over many random lists and callers.

use super::*;
use crate::config::rules::tests::parse;

const ID: MachineId = [0x11; 16];

fn facts<'a>() -> Facts<'a> {
    Facts {
        user: Some("alice"),
        groups: Some(&[]),
        host: None,
        machine: Some(ID),
        token: TokenKind::User,
        address: Some([192, 0, 2, 7].into()),
        hardware: None,
        time: WeekTime {
            day: 0,
            minute: 12 * 60,
        },
        suite: Some(Suite::AesGcm),
        compression: Some(Compression::None),
    }
}

#[test]
fn deny_comes_before_allow_and_nothing_is_allowed_that_no_rule_allows() {
    let rules = parse(
        "allow = [ { user = \"alice\" }, { group = \"dba\" } ]\n\
         deny = [ { address = \"192.0.2.0/28\" } ]\n",
    );
    let rules = rules.unwrap();
    let elsewhere = Some([198, 51, 100, 1].into());
    assert_eq!(decide(&rules, &facts()), Verdict::Denied(&rules.deny[0]));
    let mut caller = Facts {
        address: elsewhere,
        ..facts()
    };
    assert_eq!(decide(&rules, &caller), Verdict::Allowed(&rules.allow[0]));
    caller.user = Some("bob");
    assert_eq!(decide(&rules, &caller), Verdict::Unlisted);
    let groups = ["users".to_owned(), "dba".to_owned()];
    caller.groups = Some(&groups);
    assert_eq!(decide(&rules, &caller), Verdict::Allowed(&rules.allow[1]));
    assert_eq!(decide(&Rules::default(), &caller), Verdict::Unlisted);
}

#[test]
fn all_conditions_of_a_rule_must_hold() {
    let host = HostName::parse("hosta").unwrap();
    let caller = Facts {
        host: Some(&host),
        token: TokenKind::Host,
        hardware: Some([2, 0, 0x5e, 0x10, 0, 1]),
        suite: Some(Suite::ChaChaPoly),
        compression: Some(Compression::Lz4),
        ..facts()
    };
    let conditions = [
        "user = \"alice\"",
        "host = \"HostA\"",
        "machine = \"11111111111111111111111111111111\"",
        "token = \"host\"",
        "address = \"192.0.2.7\"",
        "hardware = \"02:00:5E:10:00:01\"",
        "time = \"Mon\"",
        "suite = \"chacha-poly\"",
        "compression = \"lz4\"",
    ];
    let all = conditions.join(", ");
    let rules = parse(&format!("allow = [ {{ {all} }} ]")).unwrap();
    assert!(decide(&rules, &caller).is_allowed());
    // Without one of them, another caller is covered, or none.
    for others in [
        Facts {
            user: Some("bob"),
            ..caller
        },
        Facts {
            user: None,
            ..caller
        },
        Facts {
            host: None,
            ..caller
        },
        Facts {
            machine: Some([0x12; 16]),
            ..caller
        },
        Facts {
            token: TokenKind::User,
            ..caller
        },
        Facts {
            address: Some([192, 0, 2, 8].into()),
            ..caller
        },
        Facts {
            hardware: None,
            ..caller
        },
        Facts {
            time: WeekTime { day: 1, minute: 0 },
            ..caller
        },
        Facts {
            suite: Some(Suite::AesGcm),
            ..caller
        },
        Facts {
            compression: Some(Compression::None),
            ..caller
        },
    ] {
        assert_eq!(decide(&rules, &others), Verdict::Unlisted, "{others:?}");
    }
}

/// Random numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n).unwrap()).unwrap()
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// Returns a list of up to four rules of up to three conditions.
fn list(random: &mut Random) -> Vec<Rule> {
    const CONDITIONS: [&str; 14] = [
        "user = \"alice\"",
        "user = \"bob\"",
        "group = \"dba\"",
        "group = \"staff\"",
        "host = \"hosta\"",
        "host = \"hostb\"",
        "machine = \"11111111111111111111111111111111\"",
        "token = \"user\"",
        "token = \"anonymous\"",
        "address = \"192.0.2.0/24\"",
        "address = \"2001:db8::/32\"",
        "time = \"Mon-Wed 08:00-16:00\"",
        "suite = \"aes-gcm\"",
        "compression = \"lz4\"",
    ];
    let mut rules = Vec::new();
    for _ in 0..random.below(5) {
        let mut keys = std::collections::BTreeMap::new();
        for _ in 0..=random.below(3) {
            let condition = random.one(&CONDITIONS);
            keys.insert(condition.split(' ').next(), condition);
        }
        let all: Vec<_> = keys.into_values().collect();
        rules.push(format!("{{ {} }}", all.join(", ")));
    }
    parse(&format!("allow = [ {} ]", rules.join(", ")))
        .unwrap()
        .allow
}

#[test]
fn no_deny_and_no_removed_allow_allows_more_and_order_means_nothing() {
    let mut random = Random(0x5eed);
    let hosts = ["hosta", "hostb"].map(|name| HostName::parse(name).unwrap());
    let groups = [
        vec![],
        vec!["dba".to_owned()],
        vec!["staff".into(), "dba".into()],
    ];
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..20_000 {
        let rules = Rules {
            allow: list(&mut random),
            deny: list(&mut random),
        };
        let groups = random.one(&groups);
        let host = random.one(&[None, Some(&hosts[0]), Some(&hosts[1])]);
        let caller = Facts {
            user: random.one(&[None, Some("alice"), Some("bob")]),
            groups: Some(&groups),
            host,
            machine: random.one(&[None, Some(ID), Some([0; 16])]),
            token: random.one(&[TokenKind::Anonymous, TokenKind::User, TokenKind::Host]),
            address: random.one(&[
                None,
                Some([192, 0, 2, 7].into()),
                Some("2001:db8::1".parse().unwrap()),
            ]),
            hardware: None,
            time: WeekTime {
                day: random.one(&[0, 3]),
                minute: random.one(&[0, 9 * 60]),
            },
            suite: random.one(&[Some(Suite::AesGcm), Some(Suite::ChaChaPoly)]),
            compression: random.one(&[Some(Compression::None), Some(Compression::Lz4)]),
        };
        let is_allowed = decide(&rules, &caller).is_allowed();
        match is_allowed {
            true => allowed += 1,
            false => denied += 1,
        }
        let mut more = rules.clone();
        more.deny.extend(list(&mut random));
        assert!(
            is_allowed || !decide(&more, &caller).is_allowed(),
            "{rules:?}"
        );
        let mut fewer = rules.clone();
        if !fewer.allow.is_empty() {
            let at = random.below(fewer.allow.len());
            fewer.allow.remove(at);
            assert!(
                is_allowed || !decide(&fewer, &caller).is_allowed(),
                "{rules:?}"
            );
        }
        let mut other = rules.clone();
        other.allow.reverse();
        let by = usize::from(!other.deny.is_empty());
        other.deny.rotate_left(by);
        assert_eq!(
            is_allowed,
            decide(&other, &caller).is_allowed(),
            "{rules:?}"
        );
    }
    assert!(allowed > 1_000 && denied > 1_000, "{allowed} and {denied}");
}

/// Regression: a vouched user whom a rule of `deny` named asked to be a user that it may not be, and
/// was no user here for the rule.
#[test]
fn nobody_avoids_a_rule_of_deny_by_an_unknown_fact() {
    let lists = |deny: &str| {
        let text = format!("allow = [ {{ host = \"hosta\" }} ]\ndeny = [ {deny} ]\n");
        parse(&text).unwrap()
    };
    let rules = lists("{ user = \"bob\" }");
    let host = HostName::parse("hosta").unwrap();
    let caller = Facts {
        host: Some(&host),
        ..facts()
    };
    assert!(decide(&rules, &caller).is_allowed());
    let unknown = Facts {
        user: None,
        groups: None,
        ..caller
    };
    assert_eq!(decide(&rules, &unknown), Verdict::Denied(&rules.deny[0]));
    // What is known not to hold decides all the same.
    let rules = lists("{ user = \"bob\", host = \"hostb\" }");
    assert!(decide(&rules, &unknown).is_allowed());
}
