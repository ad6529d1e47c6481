//! Tests of the sources themselves: no two files of a crate use each other, directly or through other files.

mod dependencies;
mod graph;
mod packages;
mod pages;

use graph::Crate;
use std::path::Path;

/// All crates but this one, with where their sources are.
const CRATES: [&str; 14] = [
    "src",
    "bench/src",
    "codec/src",
    "feed/src",
    "fuzz/src",
    "parquet/src",
    "paths/src",
    "pg/src",
    "pg-tests/src",
    "proxy/src",
    "sample/src",
    "thread/src",
    "transfer/src",
    "views/src",
];

#[test]
fn no_files_use_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut circles = Vec::new();
    for source in CRATES {
        let files = Crate::read(&root.join(source));
        assert!(files.count() > 0, "{source} has no files");
        circles.extend(files.circles().into_iter().map(|circle| format!("{source}: {circle}")));
    }
    assert!(circles.is_empty(), "files that use each other:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found_whichever_way_files_name_each_other() {
    let circles = |files: &[(&str, &str)]| {
        let folder = std::env::temp_dir().join(format!("fhir_bulk_house_{}_{}", std::process::id(), files.len()));
        std::fs::create_dir_all(folder.join("room")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let found = Crate::read(&folder).circles();
        std::fs::remove_dir_all(folder).unwrap();
        found
    };
    let in_room = "the root, room, room::a, room::b";
    // By a `use` line and by a path; through what a room re-exports; between a file and what it declares.
    assert_eq!(
        circles(&[
            ("lib.rs", "mod room; pub struct Own; fn f() { room::A::new(); }"),
            ("room/mod.rs", "mod a; mod b; pub use a::A; use b::B;"),
            ("room/a.rs", "use super::B; pub struct A;"),
            ("room/b.rs", "pub struct B; fn f() -> crate::Own { crate::room::A::new() }"),
        ]),
        [in_room]
    );
    // What only declares, or re-exports what uses its neighbours, is in none; nor are tests.
    assert_eq!(
        circles(&[
            ("lib.rs", "mod room; mod other; mod inner; pub use room::A; use inner::C;"),
            ("room/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("room/a.rs", "use super::B; pub struct A;"),
            ("room/b.rs", "pub struct B; #[cfg(test)] mod tests { use super::super::A; }"),
            ("other.rs", "use crate::A;"),
            ("inner.rs", "pub struct C; mod tests { use super::*; fn f() -> super::C { self::g() } }"),
        ]),
        [""; 0]
    );
}
