//! The files of the project, for the tests that read them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the directory of the project.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every file of the project, without built or fetched ones.
pub(crate) fn files() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_dir() {
                if !matches!(
                    &*name,
                    ".git" | "target" | "corpus" | "artifacts" | "__pycache__" | ".venv"
                ) {
                    walk(&path, found);
                }
            } else if about.is_file() && name != ".git" {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(top(), &mut found);
    assert!(
        found.len() > 50,
        "the project has more files than {}",
        found.len()
    );
    found
}

/// Returns its path below the project's directory.
pub(crate) fn relative(path: &Path) -> &str {
    path.strip_prefix(top()).unwrap().to_str().unwrap()
}

/// Names to compare.
pub(crate) type Set = BTreeSet<String>;

pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub(crate) fn set<'a>(items: impl IntoIterator<Item = &'a str>) -> Set {
    items.into_iter().map(str::to_owned).collect()
}

/// Fails with the names that are in only one set.
pub(crate) fn agree(code: &Set, page: &Set, what: &str) {
    assert!(!code.is_empty(), "{what}: nothing was found in the code");
    let unwritten: Vec<_> = code.difference(page).collect();
    let unknown: Vec<_> = page.difference(code).collect();
    assert!(
        unwritten.is_empty() && unknown.is_empty(),
        "{what}: in the code and not in the document: {unwritten:?}; in the document and not in the code: {unknown:?}"
    );
}
