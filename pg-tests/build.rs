//! What `cargo pgrx` would have all crates built anew for: the extension keeps the sections that tell its SQL.

fn main() {
    if std::env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|system| system == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--no-gc-sections");
    }
}
