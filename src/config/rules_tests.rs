//! The lists of a service as TOML.

use toml::de::DeTable;

use super::*;

/// Parses a document with `allow` and `deny`, and returns the mistakes with their lines.
pub(crate) fn parse(text: &str) -> Result<Rules, Vec<(usize, String)>> {
    let line_of = |at: usize| text[..at].matches('\n').count() + 1;
    let document = DeTable::parse(text).unwrap();
    let mut mistakes = Vec::new();
    let mut rules = Rules::default();
    for (key, value) in document.get_ref() {
        let list = read_list(key.get_ref(), value, &line_of, &mut mistakes);
        match &**key.get_ref() {
            "allow" => rules.allow = list,
            _ => rules.deny = list,
        }
    }
    if mistakes.is_empty() {
        return Ok(rules);
    }
    let told = |(at, words)| (line_of(at), words);
    Err(mistakes.into_iter().map(told).collect())
}

#[test]
fn every_condition_is_read_and_shown() {
    let lines = [
        r#"{ user = "alice" }"#,
        r#"{ group = "dba" }"#,
        r#"{ host = "hosta" }"#,
        r#"{ machine = "00112233445566778899aabbccddeeff" }"#,
        r#"{ token = "anonymous" }"#,
        r#"{ address = "192.0.2.0/24" }"#,
        r#"{ hardware = "02:00:5e:10:00:01" }"#,
        r#"{ time = "Mon-Fri 07:00-19:00" }"#,
        r#"{ suite = "chacha-poly" }"#,
        r#"{ compression = "lz4" }"#,
    ];
    assert_eq!(lines.len(), KEYS.len());
    let text = format!("allow = [\n{}\n]\n", lines.join(",\n"));
    let rules = parse(&text).unwrap();
    assert!(rules.deny.is_empty());
    for (n, (rule, line)) in rules.allow.iter().zip(lines).enumerate() {
        assert_eq!((rule.line(), &*rule.to_string()), (n + 2, line));
        assert!(line.contains(KEYS[n].name));
    }
    let two = r#"{ host = "hosta", time = "Sat" }"#;
    let rules = parse(&format!("deny = [ {two} ]")).unwrap();
    assert_eq!(rules.deny[0].to_string(), two);
}

#[test]
fn a_mistake_names_its_line_and_the_nearest_word() {
    for (rule, line, words) in [
        (
            "{ usr = \"alice\" }",
            2,
            "unknown condition \"usr\"; did you mean \"user\"?",
        ),
        ("{ user = 1 }", 2, "user: it must be a user name"),
        ("{ user = \"a b\" }", 2, "user: "),
        ("{ host = \"-x\" }", 2, "host: \"-x\" is no host name"),
        (
            "{ machine = \"00\" }",
            2,
            "machine: \"00\" is no machine ID",
        ),
        ("{ token = \"hots\" }", 2, "did you mean \"host\"?"),
        (
            "{ token = \"all\" }",
            2,
            "token: \"all\" is none of anonymous, user, host",
        ),
        ("{ address = \"192.0.2.1/24\" }", 2, "address: "),
        ("{ hardware = \"0200.5e10.0001\" }", 2, "hardware: "),
        ("{ hardware = \"0:20:05:e1:00:001\" }", 2, "hardware: "),
        (
            "{ time = \"Mon-Fri 7-19\" }",
            2,
            "as in Mon-Fri 07:00-19:00",
        ),
        (
            "{ suite = \"aes\" }",
            2,
            "suite: \"aes\" is none of aes-gcm, chacha-poly",
        ),
        ("{ compression = \"gzip\" }", 2, "compression: "),
        ("{ }", 2, "a rule without a condition"),
        ("\"alice\"", 2, "a rule is a table of conditions"),
    ] {
        let text = format!("allow = [\n{rule} ]\n");
        let mistakes = parse(&text).unwrap_err();
        let [(at, told)] = &mistakes[..] else {
            panic!("{rule}: {mistakes:?}");
        };
        assert!(*at == line && told.contains(words), "{rule}: {at}: {told}");
    }
    let mistakes = parse("deny = { user = \"alice\" }").unwrap_err();
    assert!(
        mistakes[0].1.contains("deny: it must be a list of rules"),
        "{mistakes:?}"
    );
}
