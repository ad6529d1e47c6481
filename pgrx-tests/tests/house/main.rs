//! The house itself: no file of a crate uses one that uses it, by whichever way round.

mod graph;

use graph::Crate;
use std::path::Path;

/// All crates but this one, with where their sources are.
const CRATES: [&str; 7] = ["src", "bench/src", "codec/src", "feed/src", "pg/src", "proxy/src", "transfer/src"];

#[test]
fn no_files_use_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut circles = Vec::new();
    for source in CRATES {
        let files = Crate::read(&root.join(source));
        assert!(files.count() > 3, "{source} has {} files", files.count());
        circles.extend(files.circles().into_iter().map(|circle| format!("{source}: {circle}")));
    }
    assert!(circles.is_empty(), "files that use each other:\n{}", circles.join("\n"));
}
