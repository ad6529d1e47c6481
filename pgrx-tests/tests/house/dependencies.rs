//! Dependencies: licensed as `deny.toml` has it, and used by who has them.

use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All packages, as cargo knows them.
fn packages() -> Vec<Value> {
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    assert!(packages.len() > 100, "{}", packages.len());
    packages
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The strings of a list in the policy.
fn listed<'a>(policy: &'a str, name: &str) -> Vec<&'a str> {
    let list = policy.split_once(&format!("{name} = [")).unwrap().1.split_once(']').unwrap().0;
    list.split('"').skip(1).step_by(2).collect()
}

/// What is built on the policy's targets, as `name vVERSION`: cargo's metadata has what only others need, too.
fn built(policy: &str) -> HashSet<String> {
    let targets = listed(policy, "targets").into_iter().flat_map(|target| ["--target", target]);
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["tree", "--locked", "--workspace", "--all-features", "--prefix", "none"])
        .args(targets)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let built: HashSet<String> = text.lines().map(names).collect();
    assert!(built.len() > 100, "{}", built.len());
    built
}

/// Whether an SPDX expression can be met by allowed licences alone: one of each OR, all of each AND.
fn is_met(expression: &str, allowed: &[&str]) -> bool {
    // Crates wrote OR as a slash once.
    let expression = expression.replace('/', " OR ");
    let outer = |word: &str| {
        let (mut depth, mut parts, mut part) = (0, Vec::new(), Vec::new());
        for token in expression.replace('(', "( ").replace(')', " )").split_whitespace() {
            depth += i32::from(token == "(") - i32::from(token == ")");
            if depth == 0 && token == word {
                parts.push(std::mem::take(&mut part).join(" "));
            } else {
                part.push(token.to_owned());
            }
        }
        parts.push(part.join(" "));
        parts
    };
    let (all, any) = (outer("AND"), outer("OR"));
    match expression.trim() {
        // OR binds less tightly than AND.
        _ if any.len() > 1 => any.iter().any(|part| is_met(part, allowed)),
        _ if all.len() > 1 => all.iter().all(|part| is_met(part, allowed)),
        inner if inner.starts_with('(') => is_met(inner.trim_start_matches('(').trim_end_matches(')').trim(), allowed),
        licence => allowed.contains(&licence),
    }
}

#[test]
fn every_dependency_has_a_licence_that_the_policy_allows() {
    let policy = fs::read_to_string(root().join("deny.toml")).unwrap();
    let (allowed, built) = (listed(&policy, "allow"), built(&policy));
    let name = |package: &Value| {
        let [name, version] = ["name", "version"].map(|member| package[member].as_str().unwrap_or_default());
        format!("{name} v{version}")
    };
    for package in packages().iter().filter(|package| built.contains(&name(package))) {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_met(licence, &allowed), "{} is under {licence:?}", package["name"]);
    }
}

/// A version of Rust as numbers: 1.95 is 1.95.0.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

#[test]
fn no_dependency_needs_a_newer_rust_than_we_say_we_need() {
    let packages = packages();
    let needed = |package: &Value| package["rust_version"].as_str().map(numbers);
    let ours = packages.iter().find(|package| package["name"] == "fhir_bulk").and_then(needed).unwrap();
    for package in &packages {
        assert!(needed(package) <= Some(ours), "{} needs Rust {}", package["name"], package["rust_version"]);
    }
}

#[test]
fn an_expression_is_met_by_one_of_each_or_and_all_of_each_and() {
    let allowed = ["MIT", "ISC"];
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(GPL-3.0 OR MIT) AND ISC", "GPL-3.0 AND ISC OR MIT"] {
        assert!(is_met(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR MIT) AND GPL-3.0", "GPL-3.0 AND MIT OR GPL-3.0"] {
        assert!(!is_met(bad, &allowed), "{bad}");
    }
}

/// All Rust below a folder, if it is there.
fn rust_below(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            text += &rust_below(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

/// Whether a path in some Rust begins with a crate's name.
fn names(rust: &str, krate: &str) -> bool {
    let is_whole = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    rust.match_indices(&format!("{krate}::")).any(|(at, _)| is_whole(&rust[..at]))
}

#[test]
fn every_dependency_is_named_by_the_sources_of_who_has_it() {
    let mut count = 0;
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        let own = rust_below(&folder.join("src"));
        let tests = rust_below(&folder.join("tests")) + &rust_below(&folder.join("benches"));
        // The tests from outside are what that package is for.
        let is_of_tests = package["name"] == "fhir_bulk_tests";
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap().replace('-', "_");
            let may_be_in_tests = is_of_tests || dependency["kind"] == "dev";
            let is_used = names(&own, &name) || may_be_in_tests && names(&tests, &name);
            assert!(is_used, "{}: {name} is not used", package["name"]);
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn a_crate_is_named_where_a_path_begins_with_it() {
    for rust in ["use url::Url;", "fn f() -> url::Url", "pub use url::{self}"] {
        assert!(names(rust, "url"), "{rust}");
    }
    for rust in ["", "let url = 1;", "use curl::Easy;", "use crate::url::Url;"] {
        assert!(!names(rust, "url"), "{rust}");
    }
}
