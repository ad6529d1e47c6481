//! Converts YAML to JSON text, by the core schema of YAML 1.2, limited to JSON's values. A number must match JSON's grammar,
//! and keeps all its digits; `true` and `false` are booleans; `null`, `~` and an empty value are null. Everything else, and
//! every key, is text.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Tag};

/// Converts a text with one document. Aliases are expanded, and the result may not have more than `most_bytes`.
///
/// # Errors
/// The error in the text, and its line.
pub fn to_json(text: &str, most_bytes: usize) -> Result<String, String> {
    let mut writer = Writer { most_bytes, ..Writer::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        writer.event(event).map_err(|why| format!("{why} at line {}", span.start.line()))?;
    }
    Ok(if writer.json.is_empty() { "null".into() } else { writer.json })
}

#[derive(Default)]
struct Writer {
    json: String,
    most_bytes: usize,
    documents: usize,
    open: Vec<Collection>,
    /// The ranges in `json` of nodes with an anchor.
    anchors: HashMap<usize, Range<usize>>,
}

/// An open sequence or mapping.
struct Collection {
    /// The keys so far, if it is a mapping.
    keys: Option<HashSet<String>>,
    /// Whether the next node is a mapping's value.
    has_key: bool,
    is_empty: bool,
    start: usize,
    anchor: usize,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("there is a second document".into());
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let start = self.begin()?;
                let is_key = self.awaits_key();
                let json = if is_key { quoted(&text) } else { scalar(&text, style, tag.as_deref())? };
                self.json += &json;
                self.anchor(anchor, start);
                if is_key { self.key(&text)? } else { self.end() }
            }
            Event::Alias(anchor) => {
                let start = self.begin()?;
                let target = self.anchors.get(&anchor).cloned().ok_or("an alias refers to a node that contains it")?;
                if start + target.len() > self.most_bytes {
                    return Err("the aliases expand to too many bytes".into());
                }
                let is_key = self.awaits_key();
                if is_key {
                    let key = serde_json::from_str::<String>(&self.json[target.clone()]);
                    self.json.extend_from_within(target);
                    self.key(&key.map_err(|_| "a key is not text")?)?;
                } else {
                    self.json.extend_from_within(target);
                    self.end();
                }
            }
            Event::SequenceStart(_, anchor, tag) => self.start('[', None, anchor, tag.as_deref())?,
            Event::MappingStart(_, anchor, tag) => self.start('{', Some(HashSet::new()), anchor, tag.as_deref())?,
            Event::SequenceEnd => self.close(']'),
            Event::MappingEnd => self.close('}'),
            _ => {}
        }
        Ok(())
    }

    /// Writes the comma that the next node may need. Returns where the node begins.
    fn begin(&mut self) -> Result<usize, String> {
        if let Some(collection) = self.open.last_mut() {
            if !collection.is_empty && !collection.has_key {
                self.json.push(',');
            }
            collection.is_empty = false;
        }
        Ok(self.json.len())
    }

    fn awaits_key(&self) -> bool {
        self.open.last().is_some_and(|collection| collection.keys.is_some() && !collection.has_key)
    }

    fn key(&mut self, key: &str) -> Result<(), String> {
        self.json.push(':');
        let collection = self.open.last_mut().expect("a key is in a mapping");
        collection.has_key = true;
        if collection.keys.as_mut().is_some_and(|keys| !keys.insert(key.to_owned())) {
            return Err(format!("the key {} is there twice", quoted(key)));
        }
        Ok(())
    }

    /// Notes the end of a value.
    fn end(&mut self) {
        if let Some(collection) = self.open.last_mut() {
            collection.has_key = false;
        }
    }

    fn anchor(&mut self, anchor: usize, start: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, start..self.json.len());
        }
    }

    fn start(
        &mut self,
        bracket: char,
        keys: Option<HashSet<String>>,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), String> {
        if self.awaits_key() {
            return Err("a key is not text".into());
        }
        if tag.is_some_and(|tag| !matches!(tag.core_suffix(), Some("map" | "seq"))) {
            return Err("unknown tag".into());
        }
        let start = self.begin()?;
        self.json.push(bracket);
        self.open.push(Collection { keys, has_key: false, is_empty: true, start, anchor });
        Ok(())
    }

    fn close(&mut self, bracket: char) {
        self.json.push(bracket);
        if let Some(Collection { anchor, start, .. }) = self.open.pop() {
            self.anchor(anchor, start);
        }
        self.end();
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<String, String> {
    let is_text = match tag.map(Tag::core_suffix) {
        None => style != ScalarStyle::Plain,
        Some(Some("str")) => true,
        Some(Some("int" | "float" | "bool" | "null")) => false,
        Some(_) => return Err("unknown tag".into()),
    };
    Ok(match text {
        _ if is_text => quoted(text),
        "" | "~" => "null".to_owned(),
        "null" | "true" | "false" => text.to_owned(),
        _ if is_number(text) => text.to_owned(),
        _ => quoted(text),
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether it is a number in JSON's grammar (RFC 8259, 6).
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(text, rest)| (text, Some(rest)));
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        to_json(text, 1000).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_value_is_what_it_was_written_as() {
        for number in ["0", "-1", "1.10", "12345678901234567890123", "1e2", "1E-22", "-0.0"] {
            assert_eq!(json(&format!("a: {number}")), format!("{{\"a\":{number}}}"));
        }
        for text in [
            "NO",
            "no",
            "Yes",
            "on",
            "off",
            "y",
            "True",
            "TRUE",
            "NULL",
            "Null",
            "01234",
            "1_000",
            "0x1F",
            "0o17",
            "+1",
            ".5",
            "1.",
            "1e",
            ".inf",
            ".nan",
            "2021-04-02",
            "12:30:45",
            "1,5",
            "<<",
        ] {
            assert_eq!(json(&format!("a:\n- {text}\n")), format!("{{\"a\":[{}]}}", quoted(text)));
        }
        assert_eq!(
            json("[true, false, null, ~, 'true', \"1\", !!str 5, !!int '5']"),
            r#"[true,false,null,null,"true","1","5",5]"#
        );
        assert_eq!(json("a:\nb: |\n  x\n  y\n"), "{\"a\":null,\"b\":\"x\\ny\\n\"}");
        assert_eq!(json(""), "null");
    }

    #[test]
    fn keys_are_always_text() {
        assert_eq!(
            json("null: 'N'\ntrue: T\n1.0: one\n~: t\nNO: no"),
            r#"{"null":"N","true":"T","1.0":"one","~":"t","NO":"no"}"#
        );
        for wrong in ["a: 1\na: 2", "? [a]\n: 1", "? {a: 1}\n: 1", "'a': 1\na: 2"] {
            assert!(to_json(wrong, 1000).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nested_nodes_and_aliases_keep_their_places() {
        assert_eq!(json("- {a: [], b: {}}\n- [[1, 2], [x]]"), r#"[{"a":[],"b":{}},[[1,2],["x"]]]"#);
        assert_eq!(json("a: &x {b: 1.10}\nc: [*x, *x]"), r#"{"a":{"b":1.10},"c":[{"b":1.10},{"b":1.10}]}"#);
        assert_eq!(json("a: &x b\n*x : c"), r#"{"a":"b","b":"c"}"#);
        for wrong in ["a: *x", "a: &x [*x]", "a: 1\n---\nb: 2", "a: !thing 1", "a: !!set {b}", "a: [b", "\tb: c: d"] {
            assert!(to_json(wrong, 1000).is_err(), "{wrong}");
        }
        let bomb = "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c]\ne: [*d,*d,*d,*d]";
        assert!(to_json(bomb, 1000).unwrap_err().contains("too many bytes"));
    }
}
