//! The text of a query: `name:modifier=value,value&…`, percent-encoded as in a URL.

use super::value::{Refused, shown};

/// The most bytes of a query.
pub const MAX_BYTES: usize = 64 << 10;
/// The most parameters of a query.
const MAX_PARAMETERS: usize = 100;

/// One parameter of a query.
#[derive(Debug, PartialEq, Eq)]
pub struct Clause {
    /// The name with its modifier.
    pub name: String,
    /// Everything after the sign.
    pub value: String,
}

/// Reads a query. A plus sign is a plus sign: dates have them.
///
/// # Errors
/// A query that is too long, a part without `=`, percent signs without two digits, bytes that are not UTF-8.
pub fn parse(query: &str) -> Result<Vec<Clause>, Refused> {
    if query.len() > MAX_BYTES {
        return Err(Refused::invalid(format!("the query has {} bytes; at most {MAX_BYTES} are read", query.len())));
    }
    let parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    if parts.len() > MAX_PARAMETERS {
        return Err(Refused::invalid(format!(
            "the query has {} parameters; {MAX_PARAMETERS} are allowed",
            parts.len()
        )));
    }
    let clause = |part: &str| {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            Refused::invalid("it has no value")
                .of(part)
                .hint("A query is name=value, joined by &: status=final&code=8302-2")
        })?;
        let name = decode(name).map_err(|error| error.of(name))?;
        let value = decode(value).map_err(|error| error.of(&name))?;
        Ok(Clause { name, value })
    };
    parts.into_iter().map(clause).collect()
}

fn decode(text: &str) -> Result<String, Refused> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(Refused::invalid(format!("\"{}\" has a % without two hexadecimal digits", shown(text)))
                .hint("A percent sign itself is written %25."));
        };
        bytes.push((high * 16 + low) as u8);
        rest = &after[2..];
    }
    let invalid = |_| Refused::invalid("its bytes are not UTF-8");
    String::from_utf8(bytes).map_err(invalid).and_then(|text| {
        if text.contains('\0') { Err(Refused::invalid("it has a character with the code 0")) } else { Ok(text) }
    })
}

/// The queries of a `_typeFilter`: `Type?query`, several joined by commas. A comma joins if a type and a question mark
/// follow it; other commas belong to a value.
pub fn type_filters(text: &str) -> Vec<&str> {
    let starts = |rest: &str| {
        let name = rest.trim_start();
        let length = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name[length..].starts_with('?')
    };
    let (mut queries, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(',') {
        if starts(&text[at + 1..]) {
            queries.push(text[start..at].trim());
            start = at + 1;
        }
    }
    queries.push(text[start..].trim());
    queries.retain(|query| !query.is_empty());
    queries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clauses(query: &str) -> Vec<(String, String)> {
        parse(query).unwrap().into_iter().map(|Clause { name, value }| (name, value)).collect()
    }

    #[test]
    fn queries_are_decoded_after_they_are_split() {
        let pairs =
            |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        assert_eq!(
            clauses("&code:not=a%26b%3D%2C&&date=ge2020-01-01T00:00:00+01:00&name=J%C3%BCrgen=x"),
            pairs(&[("code:not", "a&b=,"), ("date", "ge2020-01-01T00:00:00+01:00"), ("name", "Jürgen=x")])
        );
        assert_eq!(clauses(""), []);
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (query, parameter) in [
            ("a", "a"),
            ("a=1&b", "b"),
            ("a=%", "a"),
            ("a=%g0", "a"),
            ("a=1%2", "a"),
            ("a=%ff", "a"),
            ("a=%00", "a"),
            ("%=1", "%"),
        ] {
            assert_eq!(parse(query).unwrap_err().parameter, parameter, "{query}");
        }
        assert!(parse(&"a=1&".repeat(101)).is_err());
        assert!(parse(&format!("a={}", "1".repeat(MAX_BYTES))).is_err());
    }

    #[test]
    fn type_filters_are_joined_by_commas_that_a_type_follows() {
        assert_eq!(
            type_filters(r"Observation?category=a%2Cb,c,Condition?code=Upper,lower\,Patient?x, Patient?name=Q?"),
            ["Observation?category=a%2Cb,c", r"Condition?code=Upper,lower\", "Patient?x", "Patient?name=Q?"]
        );
        assert_eq!(type_filters(""), [""; 0]);
        assert_eq!(type_filters("Observation"), ["Observation"]);
    }
}
