//! What dependencies are licensed under, as `deny.toml` has it.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The licences that the policy allows.
fn allowed(policy: &str) -> Vec<&str> {
    let list = policy.split_once("allow = [").unwrap().1.split_once(']').unwrap().0;
    list.split('"').skip(1).step_by(2).collect()
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let policy = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    let allowed = allowed(&policy);
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_met(licence, &allowed), "{} is under {licence:?}", package["name"]);
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
