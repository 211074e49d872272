//! The files of the project, for the tests that read them.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the project.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project, without what is built or fetched.
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

/// Its path below the project's folder.
pub(crate) fn relative(path: &Path) -> &str {
    path.strip_prefix(top()).unwrap().to_str().unwrap()
}
