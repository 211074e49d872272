//! Links libpam, and libpam alone: libpam_misc is for programs with a terminal.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-lib=pam");
}
