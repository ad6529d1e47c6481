//! A line in Aidbox form → jsonb: refused for a reason that is true, or stored as the bytes that `jsonb_in` would make of it.

use crate::reference::{self, READ_DEPTH};
use fhir_bulk_codec::Reason;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::resource::{Encoder, Envelope, Form, Writer};
use serde_json::{Map, Value};

/// The url of the extension with the creation time.
pub const CREATED_AT_URL: &str = "ex:createdAt";

/// What a line became.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// The resource's id.
    pub id: String,
    /// Its type, if the line has one.
    pub resource_type: Option<String>,
    /// The creation time of the line.
    pub created_at: Option<String>,
    /// The jsonb after its length header.
    pub jsonb: Vec<u8>,
}

/// Encodes a line.
///
/// # Errors
/// The reason for which it is refused.
pub fn encode(encoder: &mut Encoder, line: &[u8]) -> Result<Stored, Reason> {
    let encoded = encoder.encode(line).map_err(|error| {
        let shown = error.to_string();
        assert!(error.offset <= line.len() && !shown.contains('\n'), "{shown} is not in the line");
        error.reason
    })?;
    let mut jsonb = Vec::new();
    encoded.write(&mut jsonb).map_err(|error| error.reason)?;
    Ok(Stored {
        id: encoded.id().to_owned(),
        resource_type: encoded.resource_type().map(str::to_owned),
        created_at: encoded.created_at().map(str::to_owned),
        jsonb,
    })
}

/// The text of a jsonb.
pub fn text(jsonb: &[u8], spacing: Spacing) -> String {
    let mut out = Vec::new();
    TextWriter::new(spacing).write(jsonb, &mut out);
    String::from_utf8(out).expect("text of jsonb is UTF-8")
}

/// Checks a line: the first byte says whether nulls are left out.
pub fn check(data: &[u8]) {
    let Some((options, line)) = data.split_first() else { return };
    let strips = options & 1 == 1;
    let mut encoder = Encoder::new(IdRule::Aidbox, CREATED_AT_URL);
    if strips {
        encoder.strip_nulls_before(usize::MAX);
    }
    let ours = encode(&mut encoder, line);
    // Nothing stays of a line in the encoder.
    assert_eq!(encode(&mut encoder, line), ours);
    let Some(theirs) = reference::parse(line) else { return };
    match (ours, theirs) {
        (Ok(stored), Ok(value)) => {
            let value = if strips { reference::stripped(value) } else { value };
            is_stored_as(&stored, value);
            comes_back(&stored, &mut encoder);
        }
        (Ok(_), Err(error)) => panic!("accepted, but {error}"),
        (Err(reason), theirs) => is_true(reason, line, theirs.ok(), strips),
    }
}

/// Whether the stored bytes, in both spacings, are those of the value.
fn is_stored_as(stored: &Stored, value: Value) {
    let Value::Object(resource) = value else { panic!("accepted, but it is no object") };
    let (expected, created_at) = without_row_members(resource);
    assert_eq!(stored.created_at, created_at);
    let jsonb = reference::jsonb(&expected).expect("accepted, but a number is beyond numeric");
    assert!(stored.jsonb == jsonb, "other bytes than jsonb_in's");
    for (spacing, spaced) in [(Spacing::Postgres, true), (Spacing::Compact, false)] {
        let mut by_definition = String::new();
        reference::text(&expected, spaced, &mut by_definition).expect("numbers are numerics");
        assert_eq!(text(&stored.jsonb, spacing), by_definition);
    }
}

/// What a row stores, and the creation time that goes into a column.
fn without_row_members(mut resource: Map<String, Value>) -> (Value, Option<String>) {
    let mut created_at = None;
    let mut note = |value: &Value| created_at = value.as_str().map(str::to_owned).or(created_at.take());
    resource.remove("id");
    resource.remove("resourceType");
    match resource.get_mut("meta") {
        Some(Value::Null) => drop(resource.remove("meta")),
        Some(Value::Object(meta)) => {
            if let Some(Value::Array(extensions)) = meta.get_mut("extension") {
                extensions.retain(|extension| creation_time(extension).map(&mut note).is_none());
                if extensions.is_empty() && created_at.is_some() {
                    meta.remove("extension");
                }
            }
            if let Some(value) = meta.remove("createdAt") {
                created_at = value.as_str().map(str::to_owned).or(created_at);
            }
            meta.remove("lastUpdated");
            meta.remove("versionId");
            if meta.is_empty() {
                resource.remove("meta");
            }
        }
        _ => {}
    }
    (Value::Object(resource), created_at)
}

/// The value of an extension that has the creation time, as FHIR or Aidbox writes it.
fn creation_time(extension: &Value) -> Option<&Value> {
    let members =
        extension.as_object().filter(|members| members.get("url").is_some_and(|url| url == CREATED_AT_URL))?;
    let of_aidbox = || members.get("value")?.as_object().filter(|value| value.len() == 1)?.get("instant");
    members.get("valueInstant").or_else(of_aidbox)
}

/// Whether the line that a dump writes is stored as the same bytes.
fn comes_back(stored: &Stored, encoder: &mut Encoder) {
    let row = Envelope {
        id: &stored.id,
        resource_type: stored.resource_type.as_deref().unwrap_or("Basic"),
        created_at: stored.created_at.as_deref(),
        version_id: Some(7),
        last_updated: Some("2020-01-01T00:00:00.000000Z"),
    };
    let mut line = Vec::new();
    Writer::new(Form::Aidbox, CREATED_AT_URL, false).write(&row, &stored.jsonb, &mut line).expect("an object");
    let again = encode(encoder, &line).expect("a dumped line can be loaded");
    assert_eq!(again.id, stored.id);
    assert_eq!(again.created_at, stored.created_at);
    assert!(again.jsonb == stored.jsonb, "a dumped line is stored otherwise");
}

/// Whether a reason is one. `read` is what the second opinion reads, if it can.
pub fn is_true(reason: Reason, line: &[u8], read: Option<Value>, strips: bool) {
    let read = read.map(|value| if strips { reference::stripped(value) } else { value });
    let member = |name: &str| read.as_ref().and_then(|value| value.get(name));
    let is_one = match reason {
        Reason::Syntax(_) | Reason::TrailingData | Reason::Encoding | Reason::LoneSurrogate => read.is_none(),
        Reason::NulCharacter => line.contains(&0) || reference::has(line, b"\\u0000"),
        Reason::NumberOverflow => line.iter().any(|byte| matches!(byte, b'e' | b'E')) || line.len() > 0x3FFF,
        Reason::TooDeep => line.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > READ_DEPTH,
        Reason::TooLarge | Reason::OutOfMemory => false,
        Reason::NotAnObject => !read.as_ref().is_some_and(Value::is_object),
        Reason::MissingId => read.is_some() && member("id").is_none(),
        Reason::IdNotString => member("id").is_some_and(|id| !id.is_string()),
        Reason::InvalidId(rule) => member("id").and_then(Value::as_str).is_some_and(|id| !is_id(id, rule)),
        Reason::TypeNotString => member("resourceType").is_some_and(|name| !name.is_string()),
        Reason::MetaNotObject => member("meta").is_some_and(|meta| !meta.is_object() && !meta.is_null()),
        Reason::CreatedAtNotString => reference::has(line, b"reatedAt") || line.contains(&b'\\'),
    };
    assert!(is_one, "refused: {reason:?}, but {read:?}");
}

fn is_id(id: &str, rule: IdRule) -> bool {
    match rule {
        IdRule::Fhir => {
            (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
        }
        IdRule::Aidbox => (1..=255).contains(&id.len()) && !id.chars().any(char::is_control),
    }
}
