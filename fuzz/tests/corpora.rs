//! The small corpora of the tree through all checks: what a fuzzer has found stays found.

use fhir_bulk_fuzz::TARGETS;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_input_of_every_target_holds() {
    for (name, check) in TARGETS {
        let folder = folder().join("corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no input");
        for file in files {
            let data = fs::read(&file).unwrap();
            let held = catch_unwind(AssertUnwindSafe(|| check(&data)));
            assert!(held.is_ok(), "{}", file.display());
        }
    }
}

/// A target that the script does not know would never run.
#[cfg(feature = "all")]
#[test]
fn the_list_for_the_script_has_all_targets() {
    let list = fs::read_to_string(folder().join("targets.txt")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let listed: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
    assert!(listed.iter().map(|line| line[0]).eq(TARGETS.iter().map(|(name, _)| *name)));
    for line in listed {
        assert!(line[1].parse::<usize>().is_ok_and(|length| length > 0), "{line:?}");
        let dictionary = folder().join("dictionaries").join(format!("{}.txt", line[2]));
        assert!(line[2] == "-" || dictionary.is_file(), "{line:?}");
        assert!(folder().join(format!("src/bin/{}.rs", line[0])).is_file(), "{line:?}");
    }
}

/// The tree is no store of what fuzzers find.
#[test]
fn the_corpora_are_small() {
    let sizes = TARGETS.iter().flat_map(|(name, _)| fs::read_dir(folder().join("corpus").join(name)).unwrap());
    let bytes: u64 = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes");
}
