//! What packages say of the project is right.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the script that `make dist` runs says of a `META.json` of this version; nothing if it is right.
fn mistakes(meta: &Path) -> String {
    let output = Command::new("python3")
        .arg(root().join("scripts/check-meta.py"))
        .args([meta, Path::new(env!("CARGO_PKG_VERSION"))])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), told.is_empty(), "{told}");
    told
}

#[test]
fn pgxn_takes_the_release() {
    assert_eq!(mistakes(&root().join("META.json")), "");
}

#[test]
fn what_pgxn_would_not_take_is_found() {
    let meta: Value = serde_json::from_slice(&fs::read(root().join("META.json")).unwrap()).unwrap();
    let folder = std::env::temp_dir().join(format!("fhir_bulk_meta_{}", std::process::id()));
    fs::create_dir_all(folder.join("src")).unwrap();
    for file in ["README.md", "src/lib.rs"] {
        fs::write(folder.join(file), "").unwrap();
    }
    let path = folder.join("META.json");
    let check = |meta: &Value| {
        fs::write(&path, meta.to_string()).unwrap();
        mistakes(&path)
    };
    assert_eq!(check(&meta), "");
    let cases = [
        ("/abstract", Value::Null, "abstract"),
        ("/name", json!("fhir/bulk"), "name"),
        ("/version", json!("0.2"), "version"),
        ("/version", json!("0.1.9"), "version"),
        ("/maintainer", json!([]), "maintainer"),
        ("/license", json!("ours"), "license"),
        ("/license", json!({"ours": "nowhere"}), "license"),
        ("/release_status", json!("ready"), "release_status"),
        ("/tags", json!([7]), "tags"),
        ("/meta-spec/version", json!("2.0.0"), "meta-spec.version"),
        ("/provides", json!({}), "provides"),
        ("/provides/fhir_bulk/version", json!("2"), "fhir_bulk has no version"),
        ("/provides/fhir_bulk/file", json!("nothing.sql"), "file of fhir_bulk"),
        ("/prereqs/runtime", json!({"demands": {}}), "demands"),
        ("/prereqs/runtime/requires/PostgreSQL", json!("new"), "PostgreSQL"),
    ];
    for (place, value, told) in cases {
        let mut wrong = meta.clone();
        *wrong.pointer_mut(place).unwrap() = value;
        assert!(check(&wrong).contains(told), "{place}: {}", check(&wrong));
    }
    for (name, value, told) in [
        ("extra", json!(1), "extra"),
        ("resources", json!({"homepage": 7}), "resources.homepage"),
        ("resources", json!({"repository": {"type": "Git"}}), "resources.repository.type"),
        ("no_index", json!({"folder": "docs"}), "no_index.folder"),
    ] {
        let mut wrong = meta.clone();
        wrong[name] = value;
        assert!(check(&wrong).contains(told), "{name}: {}", check(&wrong));
    }
    fs::remove_dir_all(folder).unwrap();
}
