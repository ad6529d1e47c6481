//! Thousands of random documents, made to meet what jsonb treats in different ways.

use super::{assert_stored_as_reference, make_reference};
use crate::support::{count, load, rows, run};
use fhir_bulk_tests::Database;
use std::fmt::Write as _;

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, share: usize) -> bool {
        self.below(share) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Mostly small, now and then around what jsonb counts in: 32 entries for an offset, 127 bytes, a page.
    fn size(&mut self, most: usize) -> usize {
        let size = match self.below(20) {
            0 => self.pick(&[30, 31, 32, 33, 63, 64, 65, 126, 127, 128]),
            1 => self.below(200),
            _ => self.below(6),
        };
        size.min(most)
    }
}

/// JSON text under way.
struct Document<'a> {
    random: &'a mut Random,
    text: String,
}

const KEYS: [&str; 16] = [
    "id",
    "meta",
    "resourceType",
    "a",
    "b",
    "aa",
    "value",
    "extension",
    "url",
    "",
    "é",
    "日本",
    "key with space",
    "lastUpdated",
    "\\u0061",
    "\\\"",
];

impl Document<'_> {
    fn space(&mut self) {
        if self.random.one_in(12) {
            let space = self.random.pick(&[" ", "\t", "\r", "   "]);
            self.text.push_str(space);
        }
    }

    fn value(&mut self, depth: usize, budget: usize) {
        self.space();
        match self.random.below(if depth > 12 || budget == 0 { 6 } else { 10 }) {
            0 => self.text.push_str("null"),
            1 => self.text.push_str("true"),
            2 => self.text.push_str("false"),
            3 => self.number(),
            4 | 5 => self.string(),
            6 | 7 => self.array(depth, budget),
            _ => {
                self.text.push('{');
                self.members(depth, budget, false);
                self.text.push('}');
            }
        }
        self.space();
    }

    fn array(&mut self, depth: usize, budget: usize) {
        self.text.push('[');
        let count = self.random.size(budget);
        for at in 0..count {
            if at > 0 {
                self.text.push(',');
            }
            self.value(depth + 1, budget / 3);
        }
        self.text.push(']');
    }

    /// Members of an object; behind others when `follow`.
    fn members(&mut self, depth: usize, budget: usize, follow: bool) {
        let count = self.random.size(budget);
        for at in 0..count {
            if at > 0 || follow {
                self.text.push(',');
            }
            self.space();
            // The row's own keys stay out of the resource itself.
            let first = if depth == 0 { 3 } else { 0 };
            if self.random.one_in(3) {
                let key = KEYS[first + self.random.below(KEYS.len() - first)];
                let _ = write!(self.text, "\"{key}\"");
            } else {
                let _ = write!(self.text, "\"k{}\"", self.random.below(500));
            }
            self.space();
            self.text.push(':');
            self.value(depth + 1, budget / 3);
        }
    }

    fn number(&mut self) {
        if self.random.one_in(4) {
            self.text.push('-');
        }
        match self.random.below(6) {
            0 => {
                let edge = self.random.pick(&[
                    "0",
                    "0.0",
                    "0.00000",
                    "9999",
                    "10000",
                    "0.0001",
                    "0.00001",
                    "99999999",
                    "100000000",
                    "1e0",
                    "1E+5",
                    "0e10",
                    "0.10e-2",
                    "1e-100",
                    "12345678901234567890123456789012345678901234567890",
                    "1e1000",
                    "0.000000000000000000000000001000",
                ]);
                self.text.push_str(edge);
            }
            1 => {
                let _ = write!(self.text, "{}", self.random.below(10));
            }
            2 => {
                let _ = write!(self.text, "{}", self.random.next());
            }
            3 => {
                let (whole, digits) = (self.random.below(100_000), self.random.below(30));
                let _ = write!(self.text, "{whole}.");
                for _ in 0..=digits {
                    let _ = write!(self.text, "{}", self.random.below(10));
                }
            }
            4 => {
                let _ = write!(
                    self.text,
                    "{}.{}e{}",
                    self.random.below(10),
                    self.random.below(1000),
                    self.random.below(40) as i64 - 20
                );
            }
            _ => {
                let _ = write!(self.text, "{}", self.random.below(100_000) * 10_000);
            }
        }
    }

    fn string(&mut self) {
        self.text.push('"');
        let count = if self.random.one_in(400) { 70_000 } else { self.random.size(200) };
        for _ in 0..count {
            match self.random.below(12) {
                0 => {
                    let escape = self.random.pick(&[
                        "\\n",
                        "\\t",
                        "\\\"",
                        "\\\\",
                        "\\/",
                        "\\b",
                        "\\f",
                        "\\r",
                        "\\u0001",
                        "\\u00e9",
                        "\\uD83D\\uDE00",
                        "\\u2028",
                    ]);
                    self.text.push_str(escape);
                }
                1 => {
                    let letter = self.random.pick(&[
                        "é",
                        "ß",
                        "日",
                        "😀",
                        "\u{7f}",
                        "\u{80}",
                        "\u{FEFF}",
                        "\u{FFFF}",
                        "\u{10FFFF}",
                    ]);
                    self.text.push_str(letter);
                }
                _ => {
                    let letter = char::from(b'a' + self.random.below(26) as u8);
                    self.text.push(letter);
                }
            }
        }
        self.text.push('"');
    }

    fn resource(&mut self, id: usize) {
        let meta = self.random.pick(&[
            "",
            ",\"meta\":{}",
            ",\"meta\":{\"versionId\":\"1\",\"lastUpdated\":\"2020-01-01T00:00:00Z\"}",
            ",\"meta\":{\"profile\":[\"p\"],\"versionId\":7}",
            ",\"meta\":{\"source\":\"s\",\"tag\":[],\"security\":{\"versionId\":[]}}",
        ]);
        let _ = write!(self.text, "{{\"resourceType\":\"Basic\",\"id\":\"r-{id}\"{meta}");
        let budget = if self.random.one_in(10) { 200 } else { 40 };
        self.members(0, budget, true);
        self.text.push('}');
    }
}

#[test]
fn random_documents_are_stored_as_postgresql_stores_them_and_come_back() {
    let seed = std::env::var("FHIR_BULK_TEST_SEED").ok().map_or_else(
        || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().expect("FHIR_BULK_TEST_SEED is a number"),
    );
    println!("FHIR_BULK_TEST_SEED={seed}");
    let mut random = Random(seed);
    let mut document = Document { random: &mut random, text: String::new() };
    for id in 0..4000 {
        document.resource(id);
        document.text.push('\n');
    }
    let database = Database::new();
    let mut client = database.connect();
    let url = database.file("random.ndjson", &document.text);
    run(&mut client, "SET TimeZone = 'UTC'");
    for fhir in ["true", "false"] {
        assert_eq!(load(&mut client, &url, &format!("fhir => {fhir}")), r#"{"Basic": 4000}"#);
        if fhir == "true" {
            make_reference(&mut client, url.trim_start_matches("file://"));
        }
        assert_stored_as_reference(&mut client);
    }
    // Aidbox form: PostgreSQL's text of the stored resource with the row's members.
    run(
        &mut client,
        r#"CREATE VIEW expected AS SELECT b.id, b.resource || jsonb_build_object('id', b.id, 'resourceType', resource_type, 'meta',
             coalesce(b.resource -> 'meta', '{}') || jsonb_build_object('versionId', txid,
               'createdAt', to_char(cts, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'lastUpdated', to_char(ts, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))) AS resource
           FROM basic b"#,
    );
    let dumped = "(SELECT bulk_dump('Basic') AS line) AS d JOIN expected AS e ON e.id = d.line::jsonb ->> 'id'";
    assert_eq!(count(&mut client, &format!("SELECT count(*) FROM {dumped}")), 4000);
    assert_eq!(
        rows(&mut client, &format!("SELECT line, resource FROM {dumped} WHERE line <> resource::text LIMIT 3")),
        [""; 0]
    );
    // FHIR form: the same JSON but for meta's createdAt, and compact.
    let dumped =
        "(SELECT bulk_dump('Basic', fhir => true) AS line) AS d JOIN expected AS e ON e.id = d.line::jsonb ->> 'id'";
    let different = format!(
        "SELECT line, resource FROM {dumped} WHERE NOT (ROW(line::jsonb - 'meta')::datum *= ROW(resource - 'meta')::datum)
         OR (line::jsonb -> 'meta') - 'extension' <> (resource -> 'meta') - 'createdAt'
         OR line::jsonb #> '{{meta,extension,-1,valueInstant}}' <> resource #> '{{meta,createdAt}}' LIMIT 3"
    );
    assert_eq!(count(&mut client, &format!("SELECT count(*) FROM {dumped}")), 4000);
    assert_eq!(rows(&mut client, &different), [""; 0]);
    // Loaded again from its own dump, the same is stored.
    run(
        &mut client,
        &format!(
            r"COPY (SELECT bulk_dump('Basic', fhir => true)) TO '{}' WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02')",
            database.path("again").display()
        ),
    );
    assert_eq!(
        load(&mut client, &format!("file://{}", database.path("again").display()), "'Basic', true"),
        r#"{"total": 4000}"#
    );
    assert_stored_as_reference(&mut client);
}
