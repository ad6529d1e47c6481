//! Compares two sets of NDJSON files: do they have the same resources?
//!
//! Resources are matched by type and id, in any order, and are equal when their JSON is equal after removing
//! what the server adds: `meta.lastUpdated`, `meta.versionId`, the createdAt extension of `meta`, and then an
//! empty `meta.extension` and an empty `meta`. Numbers are equal when PostgreSQL's `numeric` prints the same text: every
//! digit counts, `1E-2` is `0.01` and `-0.0` is `0.0`. A resource that is twice on one side must be twice on the other.
//!
//! Both sides are read as streams at the same time. Only resources without a counterpart so far are kept, as hashes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

/// The url of the extension in which a dump has the creation time of a resource.
const CREATED_AT_URL: &str = "ex:createdAt";

/// The result of a comparison.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Resources in the expected files.
    pub expected: u64,
    /// Resources in the actual files.
    pub actual: u64,
    /// All differences, by key, sorted.
    pub differences: Vec<(String, Difference)>,
}

/// How one resource differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Expected, but not there.
    Missing,
    /// Present, but not expected.
    Unexpected,
    /// On both sides, with different content.
    Changed,
}

/// A resource in comparable form.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// `Type/id`.
    pub key: String,
    /// The JSON with sorted keys, plain numbers, and without what a server adds.
    pub text: String,
}

/// Compares two sets of files; each path is a file or a folder, of which all `.ndjson` and `.ndjson.gz` count.
pub fn compare(expected: &Path, actual: &Path) -> io::Result<Comparison> {
    // 1. Both sides are read, parsed and hashed on threads of their own.
    let [expected_files, actual_files] = [files(expected)?, files(actual)?];
    let (mut comparison, mut open) = (Comparison::default(), HashMap::new());
    thread::scope(|scope| {
        let sides = [(&expected_files, 1), (&actual_files, -1)].map(|(files, sign)| {
            let (to, from) = sync_channel(8);
            (scope.spawn(move || send_hashes(files, &to)), from, sign)
        });
        // 2. Each expected resource adds to its key's balance, each actual one subtracts from it.
        balance(&sides.each_ref().map(|(_, from, sign)| (from, *sign)), &mut comparison, &mut open);
        sides.into_iter().try_for_each(|(side, ..)| side.join().expect("the reading thread does not panic"))
    })?;
    // 3. Each balance that is not zero now is a difference.
    comparison.differences = open.into_iter().map(|(key, balance)| (key, balance.difference())).collect();
    comparison.differences.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(comparison)
}

/// The comparable texts of some keys on one side, for showing a difference.
pub fn texts_of(path: &Path, keys: &[&str]) -> io::Result<HashMap<String, String>> {
    let mut found = HashMap::new();
    for file in files(path)? {
        for_each_resource(&file, |resource| {
            if keys.contains(&resource.key.as_str()) {
                found.insert(resource.key, resource.text);
            }
            true
        })?;
    }
    Ok(found)
}

/// Converts a line of NDJSON to comparable form.
pub fn comparable(line: &str) -> Result<Resource, String> {
    let mut value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let Value::Object(resource) = &mut value else { return Err("not an object".into()) };
    if let Some(Value::Object(meta)) = resource.get_mut("meta") {
        meta.remove("lastUpdated");
        meta.remove("versionId");
        if let Some(Value::Array(extensions)) = meta.get_mut("extension") {
            extensions.retain(|e| e["url"] != CREATED_AT_URL);
            if extensions.is_empty() {
                meta.remove("extension");
            }
        }
        if meta.is_empty() {
            resource.remove("meta");
        }
    }
    let word = |name: &str| resource.get(name).and_then(Value::as_str).unwrap_or("?");
    let key = format!("{}/{}", word("resourceType"), word("id"));
    let mut text = String::with_capacity(line.len());
    write_sorted(&value, &mut text);
    Ok(Resource { key, text })
}

fn write_sorted(value: &Value, to: &mut String) {
    match value {
        Value::Object(members) => {
            // serde_json keeps them sorted unless some other crate of the build asks it not to.
            let mut members: Vec<_> = members.iter().collect();
            if !members.is_sorted_by_key(|m| m.0) {
                members.sort_by_key(|m| m.0);
            }
            to.push('{');
            for (i, (name, member)) in members.into_iter().enumerate() {
                if i > 0 {
                    to.push(',');
                }
                to.push_str(&serde_json::to_string(name).expect("a string is JSON"));
                to.push(':');
                write_sorted(member, to);
            }
            to.push('}');
        }
        Value::Array(items) => {
            to.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    to.push(',');
                }
                write_sorted(item, to);
            }
            to.push(']');
        }
        Value::Number(number) => to.push_str(&plain_number(number.as_str())),
        other => write!(to, "{other}").expect("a String takes all"),
    }
}

/// A JSON number as PostgreSQL's numeric prints it: no exponent, no minus before a zero, all other digits kept.
pub fn plain_number(literal: &str) -> Cow<'_, str> {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let sign = if mantissa.bytes().all(|b| b == b'0' || b == b'.') { "" } else { sign };
    let unchanged = exponent == "0" && sign.len() + mantissa.len() == literal.len();
    let (false, Ok(exponent @ -100_000..=100_000)) = (unchanged, exponent.parse::<i32>()) else {
        return literal.into();
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = [whole, fraction].concat();
    let mut point = whole.len() as i32 + exponent;
    if point < 1 {
        digits.insert_str(0, &"0".repeat((1 - point) as usize));
        point = 1;
    }
    let point = point as usize;
    if digits.len() < point {
        digits.push_str(&"0".repeat(point - digits.len()));
    }
    let leading_zeros = digits[..point - 1].bytes().take_while(|b| *b == b'0').count();
    let (whole, fraction) = (&digits[leading_zeros..point], &digits[point..]);
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{dot}{fraction}").into()
}

// --- reading

/// The files that a path means, sorted by name.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found: Vec<_> = path.read_dir()?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
    found.retain(|f| [".ndjson", ".ndjson.gz"].iter().any(|end| f.to_string_lossy().ends_with(end)));
    found.sort();
    if found.is_empty() {
        return Err(io::Error::other(format!("{}: no .ndjson or .ndjson.gz in this folder", path.display())));
    }
    Ok(found)
}

/// Calls `visit` with each resource of a file, plain or gzip, until it returns false.
fn for_each_resource(file: &Path, mut visit: impl FnMut(Resource) -> bool) -> io::Result<()> {
    let at = |what: &dyn std::fmt::Display| io::Error::other(format!("{}: {what}", file.display()));
    let mut raw = BufReader::with_capacity(1 << 18, File::open(file).map_err(|e| at(&e))?);
    let is_gzip = raw.fill_buf().map_err(|e| at(&e))?.starts_with(&[0x1F, 0x8B]);
    let bytes: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(raw)) } else { Box::new(raw) };
    let mut lines = BufReader::with_capacity(1 << 18, bytes);
    let mut line = String::new();
    for number in 1u64.. {
        line.clear();
        if lines.read_line(&mut line).map_err(|e| at(&format!("line {number}: {e}")))? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let resource = comparable(&line).map_err(|e| at(&format!("line {number}: {e}")))?;
        if !visit(resource) {
            break;
        }
    }
    Ok(())
}

type Batch = Vec<(String, u64)>;

fn send_hashes(files: &[PathBuf], to: &SyncSender<Batch>) -> io::Result<()> {
    const BATCH: usize = 256;
    let mut batch = Batch::with_capacity(BATCH);
    for file in files {
        for_each_resource(file, |resource| {
            let mut hasher = DefaultHasher::new();
            hasher.write(resource.text.as_bytes());
            batch.push((resource.key, hasher.finish()));
            // The receiver is gone only if the comparison has failed elsewhere.
            batch.len() < BATCH || to.send(std::mem::replace(&mut batch, Batch::with_capacity(BATCH))).is_ok()
        })?;
    }
    let _ = to.send(batch);
    Ok(())
}

// --- balancing

/// How often a key was expected minus how often it was found, and the same for the hashes of its texts.
#[derive(Default, PartialEq)]
struct Balance {
    count: i64,
    hashes: u64,
}

impl Balance {
    fn difference(&self) -> Difference {
        match self.count {
            1.. => Difference::Missing,
            0 => Difference::Changed,
            _ => Difference::Unexpected,
        }
    }
}

/// Takes from both sides in turn until both have ended.
fn balance(sides: &[(&Receiver<Batch>, i64); 2], comparison: &mut Comparison, open: &mut HashMap<String, Balance>) {
    let mut ended = [false; 2];
    while ended != [true; 2] {
        for (side, (from, sign)) in sides.iter().enumerate() {
            if ended[side] {
                continue;
            }
            let Ok(batch) = from.recv() else {
                ended[side] = true;
                continue;
            };
            let count = if *sign > 0 { &mut comparison.expected } else { &mut comparison.actual };
            *count += batch.len() as u64;
            for (key, hash) in batch {
                settle(open, key, *sign, hash);
            }
        }
    }
}

fn settle(open: &mut HashMap<String, Balance>, key: String, sign: i64, hash: u64) {
    let balance = open.entry(key.clone()).or_default();
    balance.count += sign;
    balance.hashes = if sign > 0 { balance.hashes.wrapping_add(hash) } else { balance.hashes.wrapping_sub(hash) };
    if *balance == Balance::default() {
        open.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str) -> String {
        comparable(line).unwrap().text
    }

    #[test]
    fn what_a_server_adds_does_not_count() {
        let sent = r#"{"resourceType":"Patient","id":"a","name":[{"given":["Zoé"]}]}"#;
        let dumped = r#"{"id":"a","meta":{"versionId":1,"lastUpdated":"x","extension":[{"url":"ex:createdAt","valueInstant":"y"}]},"name":[{"given":["Zo\u00e9"]}],"resourceType":"Patient"}"#;
        assert_eq!(comparable(sent).unwrap(), comparable(dumped).unwrap());
        assert_eq!(comparable(sent).unwrap().key, "Patient/a");
        // What else meta holds does.
        let tagged =
            r#"{"resourceType":"Patient","id":"a","meta":{"extension":[{"url":"u"}]},"name":[{"given":["Zoé"]}]}"#;
        assert_ne!(text(sent), text(tagged));
    }

    #[test]
    fn the_comparable_text_is_sorted_json() {
        let line = r#"{"id":"a","b":{},"a":[1,[],{"z":null,"y":"\n\"\u0001"}],"n":-0.0}"#;
        let text = text(line);
        assert_eq!(text, r#"{"a":[1,[],{"y":"\n\"\u0001","z":null}],"b":{},"id":"a","n":0.0}"#);
        assert!(serde_json::from_str::<Value>(&text).is_ok());
        assert_eq!(comparable("{}").unwrap().text, "{}");
        assert!(comparable("[]").is_err());
        assert!(comparable("{} {}").is_err());
    }

    #[test]
    fn every_digit_of_a_number_counts() {
        for (literal, plain) in [
            ("1.10", "1.10"),
            ("0.0", "0.0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("-1.5", "-1.5"),
            ("1E-22", "0.0000000000000000000001"),
            ("1.50e1", "15.0"),
            ("1.5e+1", "15"),
            ("12e3", "12000"),
            ("-1.2e-1", "-0.12"),
            ("0.0012e2", "0.12"),
            ("0.0012e4", "12"),
            ("0e5", "0"),
            ("1e0", "1"),
        ] {
            assert_eq!(plain_number(literal), plain, "{literal}");
        }
        assert_ne!(text(r#"{"id":"a","x":1.1}"#), text(r#"{"id":"a","x":1.10}"#));
    }

    #[test]
    fn keys_balance_in_any_order_and_as_often_as_they_occur() {
        let mut open = HashMap::new();
        for (key, sign, hash) in [
            ("same", 1, 5),
            ("changed", 1, 6),
            ("missing", 1, 7),
            ("twice", 1, 8),
            ("twice", 1, 9),
            ("extra", -1, 1),
            ("twice", -1, 9),
            ("changed", -1, 60),
            ("same", -1, 5),
            ("twice", -1, 8),
        ] {
            settle(&mut open, key.into(), sign, hash);
        }
        let mut found: Vec<_> = open.iter().map(|(k, b)| (k.as_str(), b.difference())).collect();
        found.sort_by_key(|f| f.0);
        let expected =
            [("changed", Difference::Changed), ("extra", Difference::Unexpected), ("missing", Difference::Missing)];
        assert_eq!(found, expected);
    }
}
