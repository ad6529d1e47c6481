//! Writes rows as JSON objects: as NDJSON, as one JSON array, or as the body of a `_bulk` request.

use super::writer::{Writer, different};
use fhir_bulk_codec::instant::{format_date, format_timestamp};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_codec::rows::bulk::{Actions, MAX_ID_BYTES};
use fhir_bulk_codec::rows::json::{member_name, write_base64, write_json, write_number, write_string};
use fhir_bulk_codec::rows::write_integer;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::query::QueryRow;
use fhir_bulk_pg::session;
use fhir_bulk_pg::value::{Array, Composite, Content, Elements, INFINITE_DATES, INFINITE_TIMES, Value};
use pgrx::PgSqlErrorCode;

/// NDJSON: one object per line.
pub struct Objects {
    /// `"name":`
    names: Vec<Vec<u8>>,
    jsonb: TextWriter,
}

impl Objects {
    /// # Errors
    /// 42701 for a repeated name.
    pub fn new(columns: &[&str]) -> Result<Objects> {
        different(columns)?;
        let names = columns.iter().map(|name| member_name(name)).collect();
        Ok(Objects { names, jsonb: TextWriter::new(Spacing::Compact) })
    }

    fn object(&self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<()> {
        out.push(b'{');
        for (at, (name, value)) in self.names.iter().zip(row.values()).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            self.value(value, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// 42701 for a composite in which a name is repeated.
    pub fn value(&self, value: Option<Value<'_>>, out: &mut Vec<u8>) -> Result<()> {
        let Some(value) = value else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        match value.content() {
            Content::Bool(true) => out.extend_from_slice(b"true"),
            Content::Bool(false) => out.extend_from_slice(b"false"),
            Content::Int(number) => write_integer(number, out),
            Content::Numeric | Content::Float4(_) | Content::Float8(_) => write_number(value.text(), out),
            Content::Text(text) => write_string(text, out),
            Content::Jsonb(bytes) => self.jsonb.write(bytes, out),
            Content::Json(text) => write_json(text, out),
            Content::Castable(cast) => write_json(cast.json(), out),
            Content::Bytea(bytes) => write_base64(bytes.get(), out),
            Content::Date(days) if !INFINITE_DATES.contains(&days) => put_quoted(&format_date(days), out),
            Content::Timestamp(at) if !INFINITE_TIMES.contains(&at) => put_quoted(&format_timestamp(at, None), out),
            Content::Timestamptz(at) if !INFINITE_TIMES.contains(&at) => {
                put_quoted(&format_timestamp(at, Some(session::utc_offset(at))), out);
            }
            Content::Array(array) => self.array(&array, out)?,
            Content::Composite(composite) => self.composite(&composite, out)?,
            _ => write_string(value.text(), out),
        }
        Ok(())
    }

    fn array(&self, array: &Array<'_>, out: &mut Vec<u8>) -> Result<()> {
        let elements = array.elements();
        if elements.dimensions().is_empty() {
            out.extend_from_slice(b"[]");
            return Ok(());
        }
        self.dimension(&elements, 0, &mut elements.values(), out)
    }

    /// Writes one dimension of an array. Its elements are arrays, except in the last dimension.
    fn dimension<'e>(
        &self,
        elements: &Elements,
        at: usize,
        values: &mut impl Iterator<Item = Option<Value<'e>>>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let dimensions = elements.dimensions();
        out.push(b'[');
        for element in 0..dimensions[at] {
            if element > 0 {
                out.push(b',');
            }
            if at + 1 < dimensions.len() {
                self.dimension(elements, at + 1, values, out)?;
            } else {
                self.value(values.next().flatten(), out)?;
            }
        }
        out.push(b']');
        Ok(())
    }

    fn composite(&self, composite: &Composite<'_>, out: &mut Vec<u8>) -> Result<()> {
        let row = composite.row();
        if let Some(name) = row.repeated() {
            different(&[name, name])?;
        }
        out.push(b'{');
        for (at, (name, value)) in row.members().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_string(name.as_bytes(), out);
            out.push(b':');
            self.value(value, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// Writes a string in which no character needs an escape.
fn put_quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

impl Writer for Objects {
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool> {
        self.object(row, out)?;
        Ok(true)
    }
}

/// One array, with one object per line.
pub struct JsonWriter {
    objects: Objects,
    any: bool,
}

impl JsonWriter {
    /// An array of these objects.
    pub fn new(objects: Objects) -> JsonWriter {
        JsonWriter { objects, any: false }
    }
}

impl Writer for JsonWriter {
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool> {
        out.push(if std::mem::replace(&mut self.any, true) { b',' } else { b'[' });
        self.objects.object(row, out)?;
        Ok(true)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        out.extend_from_slice(if std::mem::take(&mut self.any) { b"]" } else { b"[]" });
        Ok(true)
    }
}

/// The body of a `_bulk` request.
pub struct BulkWriter {
    actions: Actions,
    /// The column with the document's id.
    id: Option<usize>,
    objects: Objects,
}

impl BulkWriter {
    /// Column `id` has the documents' ids; without it they have none.
    pub fn new(actions: Actions, id: Option<usize>, objects: Objects) -> BulkWriter {
        BulkWriter { actions, id, objects }
    }
}

impl Writer for BulkWriter {
    fn row(&mut self, row: &QueryRow<'_>, out: &mut Vec<u8>) -> Result<bool> {
        let id = self.id.map(|column| id_of(row.value(column))).transpose()?;
        self.actions.line(id, out);
        self.objects.object(row, out)?;
        Ok(true)
    }
}

fn id_of(value: Option<Value<'_>>) -> Result<&[u8]> {
    let value = value.ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, "a row has NULL in the column of option id_column")
            .hint("Leave such rows out of the query, or leave out id_column: then each document gets a new id.")
    })?;
    let id = value.text();
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(Error::invalid_argument(format!("a row has an id of {} bytes", id.len()))
            .hint(format!("Elasticsearch and OpenSearch accept ids of 1 to {MAX_ID_BYTES} bytes.")));
    }
    Ok(id)
}
