//! The declarations of libpam (`pam-sys/`) against the installed headers: the compiler compares
//! every constant, every structure and every function.

use std::ffi::c_int;
use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

use pam::ffi;

/// The functions of `pam-sys/src/lib.rs`, as C declares a pointer to them.
const FUNCTIONS: &[(&str, &str)] = &[
    (
        "pam_start",
        "int (*%)(const char *, const char *, const struct pam_conv *, pam_handle_t **)",
    ),
    ("pam_end", "int (*%)(pam_handle_t *, int)"),
    ("pam_authenticate", "int (*%)(pam_handle_t *, int)"),
    ("pam_acct_mgmt", "int (*%)(pam_handle_t *, int)"),
    ("pam_chauthtok", "int (*%)(pam_handle_t *, int)"),
    ("pam_setcred", "int (*%)(pam_handle_t *, int)"),
    ("pam_open_session", "int (*%)(pam_handle_t *, int)"),
    ("pam_close_session", "int (*%)(pam_handle_t *, int)"),
    (
        "pam_set_item",
        "int (*%)(pam_handle_t *, int, const void *)",
    ),
    (
        "pam_get_item",
        "int (*%)(const pam_handle_t *, int, const void **)",
    ),
    ("pam_putenv", "int (*%)(pam_handle_t *, const char *)"),
    (
        "pam_getenv",
        "const char *(*%)(pam_handle_t *, const char *)",
    ),
    ("pam_getenvlist", "char **(*%)(pam_handle_t *)"),
    ("pam_strerror", "const char *(*%)(pam_handle_t *, int)"),
];

fn structures() -> String {
    let mut text = String::new();
    let mut hold = |what: &str, value: usize| {
        writeln!(text, "_Static_assert({what} == {value}, \"{what}\");").unwrap();
    };
    hold("sizeof(struct pam_message)", size_of::<ffi::pam_message>());
    hold(
        "offsetof(struct pam_message, msg_style)",
        offset_of!(ffi::pam_message, msg_style),
    );
    hold(
        "offsetof(struct pam_message, msg)",
        offset_of!(ffi::pam_message, msg),
    );
    hold(
        "sizeof(struct pam_response)",
        size_of::<ffi::pam_response>(),
    );
    hold(
        "offsetof(struct pam_response, resp)",
        offset_of!(ffi::pam_response, resp),
    );
    hold(
        "offsetof(struct pam_response, resp_retcode)",
        offset_of!(ffi::pam_response, resp_retcode),
    );
    hold("sizeof(struct pam_conv)", size_of::<ffi::pam_conv>());
    hold(
        "offsetof(struct pam_conv, conv)",
        offset_of!(ffi::pam_conv, conv),
    );
    hold(
        "offsetof(struct pam_conv, appdata_ptr)",
        offset_of!(ffi::pam_conv, appdata_ptr),
    );
    text
}

/// Returns the program that the compiler must accept.
fn program(constants: &[(&str, c_int)]) -> String {
    let mut text = String::from(
        "#include <stddef.h>\n#include <security/pam_modules.h>\n#include <security/pam_appl.h>\n",
    );
    for (name, value) in constants {
        writeln!(text, "_Static_assert({name} == {value}, \"{name}\");").unwrap();
    }
    text.push_str(&structures());
    for (name, pointer) in FUNCTIONS {
        let declared = pointer.replace('%', &format!("to_{name}"));
        writeln!(text, "{declared} = {name};").unwrap();
    }
    text.push_str(
        "static int conv(int n, const struct pam_message **m, struct pam_response **r, void *d)\n\
         { (void)n; (void)m; (void)r; (void)d; return 0; }\n\
         struct pam_conv a_conversation = { conv, 0 };\n",
    );
    text
}

/// Returns the compiler's errors; empty if it accepts the program.
fn compile(program: &str) -> String {
    let mut cc = Command::new("cc")
        .args(["-x", "c", "-std=c11", "-Wall", "-Werror", "-c", "-", "-o"])
        .arg("/dev/null")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = cc.stdin.take().unwrap();
    stdin.write_all(program.as_bytes()).unwrap();
    drop(stdin);
    let output = cc.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn declarations_agree_with_the_installed_headers() {
    assert_eq!(compile(&program(ffi::CONSTANTS)), "");
    // The check can fail: a wrong constant is found, and named.
    let said = compile(&program(&[("PAM_RHOST", ffi::PAM_RHOST + 1)]));
    assert!(said.contains("PAM_RHOST"), "{said}");
}

/// All declared functions are compared.
#[test]
fn every_declared_function_is_compared() {
    let source = include_str!("../pam-sys/src/lib.rs");
    let declared: Vec<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("    pub fn "))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let compared: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    for name in &declared {
        assert!(compared.contains(name), "{name} is not compared");
    }
    assert_eq!(declared.len(), compared.len());
}
