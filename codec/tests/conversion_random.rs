//! Random lines, drawn from the tables of definitions, through FHIR form, Aidbox form and back.

mod common;

use common::{encode, encode_with, from_fhir, jsonb_text, normalized, to_fhir};
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const TABLES: [(Version, &str, usize); 3] = [
    (Version::R4, include_str!("../definitions/r4.txt"), 987),
    (Version::R4B, include_str!("../definitions/r4b.txt"), 1035),
    (Version::R5, include_str!("../definitions/r5.txt"), 1359),
];

struct Table {
    fields: BTreeMap<&'static str, Vec<(&'static str, Vec<&'static str>)>>,
    resources: Vec<&'static str>,
}

fn table(text: &'static str) -> Table {
    let mut table = Table { fields: BTreeMap::new(), resources: Vec::new() };
    for (path, fields) in text.lines().filter_map(|line| line.split_once(' ')) {
        let name = path.trim_start_matches('!');
        if name != path {
            table.resources.push(name);
        }
        let fields = fields.split(' ').filter_map(|field| field.split_once('='));
        table.fields.insert(name, fields.map(|(name, types)| (name, types.split(',').collect())).collect());
    }
    table
}

fn typed(base: &str, of_type: &str) -> String {
    format!("{base}{}{}", of_type[..1].to_ascii_uppercase(), &of_type[1..])
}

/// Draws JSON text; the same for the same seed.
struct Draw<'t> {
    table: &'t Table,
    state: u64,
    /// Only what FHIR allows, or anything under known names.
    valid: bool,
}

impl Draw<'_> {
    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn scalar(&mut self) -> String {
        let other = if self.valid { 4 } else { 5 };
        match self.below(other) {
            0 => self.below(1000).to_string(),
            1 => "true".to_owned(),
            2 => r#""a\n\u00e9/""#.to_owned(),
            3 => "1.10".to_owned(),
            _ => self.pick(&["null", r##""#a""##, r#""Patient/1""#, r#""urn:x""#, r#""Patient""#]).to_owned(),
        }
    }

    fn reference(&mut self) -> String {
        let texts = ["Patient/1", "#a", "urn:uuid:1", "http://h/A/1", "A/1/_history/2", "A?b=c", r"Group\/g", "x"];
        let text = self.pick(&texts);
        let id = self.pick(&["", "", "", r#","id":"e""#, r#","display":"d""#, r#","type":"T""#]);
        format!(r#"{{"reference":"{text}"{id}}}"#)
    }

    /// A value of a type or path.
    fn value(&mut self, of: &str, depth: usize) -> String {
        if !self.valid {
            match self.below(8) {
                0 => return self.scalar(),
                1 if depth > 0 => return format!("[{},{}]", self.value(of, depth - 1), self.value(of, depth - 1)),
                _ => {}
            }
        }
        match of {
            "Resource" if depth == 0 => "{}".to_owned(),
            "Resource" => {
                let of = self.table.resources[self.below(self.table.resources.len())];
                self.object(of, depth - 1, &format!(r#""resourceType":"{of}""#))
            }
            "Reference" if self.valid || self.below(2) == 0 => self.reference(),
            primitive if primitive.starts_with(|c: char| c.is_ascii_lowercase()) && self.valid => self.scalar(),
            _ if depth == 0 => "{}".to_owned(),
            other => self.object(other, depth - 1, ""),
        }
    }

    /// An object of some of a structure's elements.
    fn object(&mut self, of: &str, depth: usize, own: &str) -> String {
        let fields = self.table.fields.get(of).map_or(&[][..], |fields| fields);
        let mut members: Vec<String> = Vec::new();
        for _ in 0..self.below(5) {
            if fields.is_empty() {
                break;
            }
            let (name, types) = &fields[self.below(fields.len())];
            match name.strip_suffix("[x]") {
                Some(base) => {
                    let of = self.pick(types);
                    let value = self.value(of, depth);
                    let name = if !self.valid && self.below(6) == 0 { base.to_owned() } else { typed(base, of) };
                    let in_aidbox_form = !self.valid && name == base && self.below(2) == 0;
                    let value = if in_aidbox_form { format!(r#"{{"{of}":{value}}}"#) } else { value };
                    members.push(format!(r#""{name}":{value}"#));
                }
                None => {
                    let value = self.value(types[0], depth);
                    let value = if self.below(2) == 0 { format!("[{value}]") } else { value };
                    members.push(format!(r#""{name}":{value}"#));
                }
            }
        }
        if self.below(4) == 0 {
            members.push(format!(r#""extension":[{}]"#, self.value("Extension", depth)));
            members.push(format!(r#""_other":{}"#, self.value("Element", depth)));
        }
        if !self.valid {
            for _ in 0..self.below(3) {
                let names =
                    ["reference", "uri", "id", "localRef", "resourceType", "url", "", "r\\u0065ference", "value"];
                members.push(format!(r#""{}":{}"#, self.pick(&names), self.scalar()));
            }
        }
        if self.valid {
            // Of one name only one.
            let mut seen = BTreeSet::new();
            members.retain(|member| seen.insert(member.split(':').next().unwrap_or_default().to_owned()));
        }
        let at = self.below(members.len() + 1);
        if !own.is_empty() {
            members.insert(at, own.to_owned());
        }
        format!("{{{}}}", members.join(","))
    }
}

/// What comes back is the line, with what it has in Aidbox form already in FHIR form; nothing is there twice.
fn comes_back(version: Version, line: &str) -> Result<(), TestCaseError> {
    let parsed = |text: &str| normalized(serde_json::from_str(text).expect(text));
    let of_line = |mut stored: common::Stored| {
        // A line that names no type stands in a table that does.
        stored.resource_type.get_or_insert_with(|| "Basic".to_owned());
        stored
    };
    let converted = of_line(encode_with(&mut from_fhir(version), line.as_bytes()).expect(line));
    let plain = of_line(encode(IdRule::Aidbox, line).expect(line));
    let (back, expected) = (to_fhir(version, &converted), to_fhir(version, &plain));
    prop_assert_eq!(parsed(&back), parsed(&expected), "{}", line);
    let mut text = String::new();
    jsonb_text(&serde_json::from_str(&back).expect("JSON"), false, &mut text);
    prop_assert_eq!(text.len(), back.len(), "a name is there twice: {}", back);
    let again = encode_with(&mut from_fhir(version), back.as_bytes()).expect(line);
    prop_assert_eq!(parsed(&to_fhir(version, &of_line(again))), parsed(&back), "{}", line);
    Ok(())
}

#[test]
fn every_type_of_every_choice_comes_back_equal() {
    for (version, text, pairs) in TABLES {
        let table = table(text);
        let mut tried = 0;
        // From each resource through all structures, once each.
        let mut known = BTreeSet::new();
        let mut open: Vec<(&str, String, String)> = table
            .resources
            .iter()
            .map(|name| (*name, format!(r#"{{"id":"x","resourceType":"{name}""#), "}".to_owned()))
            .collect();
        // What is used as a type within choices and extensions only.
        let extension = r#"{"id":"x","resourceType":"Basic","extension":[{"url":"u""#;
        open.insert(0, ("Extension", extension.to_owned(), "}]}".to_owned()));
        while let Some((path, before, after)) = open.pop() {
            if !known.insert(path) {
                continue;
            }
            for (name, types) in table.fields.get(path).map_or(&[][..], |fields| fields) {
                for of in types {
                    let mut draw = Draw { table: &table, state: tried, valid: true };
                    let (name, value) = match name.strip_suffix("[x]") {
                        Some(base) => (typed(base, of), draw.value(of, 3)),
                        None => ((*name).to_owned(), String::new()),
                    };
                    if !value.is_empty() {
                        tried += 1;
                        let line = format!(r#"{before},"{name}":{value}{after}"#);
                        comes_back(version, &line).unwrap_or_else(|error| panic!("{version:?}: {error}"));
                        let stored = encode_with(&mut from_fhir(version), line.as_bytes()).unwrap();
                        assert_eq!(
                            normalized(serde_json::from_str(&to_fhir(version, &stored)).unwrap()),
                            normalized(serde_json::from_str(&line).unwrap())
                        );
                    }
                    if table.fields.contains_key(of) && *of != "Resource" {
                        open.push((of, format!(r#"{before},"{name}":{{"own":1"#), format!("}}{after}")));
                    }
                }
            }
        }
        let unreached: Vec<_> = table
            .fields
            .iter()
            .filter(|(path, _)| !known.contains(*path))
            .flat_map(|(path, fields)| fields.iter().map(move |(name, types)| (path, name, types.len())))
            .filter(|(_, name, _)| name.ends_with("[x]"))
            .collect();
        println!("{version:?}: no resource uses {unreached:?}");
        let unreached: usize = unreached.iter().map(|(_, _, types)| types).sum();
        assert_eq!(tried as usize + unreached, pairs, "{version:?}");
        assert!(unreached <= 2, "{version:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_resources_come_back_equal(state: u64, version in 0..3usize, valid: bool) {
        let (version, text, _) = TABLES[version];
        thread_local! { static TABLE: [Table; 3] = TABLES.map(|(_, text, _)| table(text)); }
        let line = TABLE.with(|tables| {
            let at = TABLES.iter().position(|(_, other, _)| *other == text).unwrap_or(0);
            let table = &tables[at];
            let mut draw = Draw { table, state, valid };
            let of = table.resources[draw.below(table.resources.len())];
            let inner = Draw { table, state, valid }.object(of, 5, &format!(r#""resourceType":"{of}""#));
            format!(r#"{{"resourceType":"Bundle","entry":[{{"resource":{inner}}}],"id":"x"}}"#)
        });
        comes_back(version, &line)?;
        if valid {
            let stored = encode_with(&mut from_fhir(version), line.as_bytes()).expect("valid");
            let back = normalized(serde_json::from_str(&to_fhir(version, &stored)).expect("JSON"));
            prop_assert_eq!(back, normalized(serde_json::from_str(&line).expect("JSON")));
        }
    }
}
