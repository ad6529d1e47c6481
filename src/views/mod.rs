//! `dump_view` and `dump_view_chunks`: return the rows of a view of SQL on FHIR; `bulk_create_view` makes a view of SQL of it.

mod create;
mod errors;
mod format;
mod given;
mod options;
mod parquet;
mod reader;
mod row;
mod select;
mod source;
mod sql_types;

use crate::arguments::{Options, parsed, required};
use crate::parquet::{no_gzip, no_lines};
use crate::settings;
use crate::stream::{ChunkStream, LineStream, chunk_size};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::datum::{Bytea, JsonbBytes, Text};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_views::View;
use format::Format;
pub use options::Selection;
use pgrx::default;
use pgrx::prelude::*;
pub use reader::Reader;
pub use select::select;
use serde_json::Value;
use source::Source;
use std::rc::Rc;

/// Returns one line of the body per row, as `dump_sql` does.
#[pg_extern(stable, parallel_unsafe)]
fn dump_view(
    view: Option<JsonbBytes<'_>>,
    format: default!(Option<&str>, "'csv'"),
    options: default!(Option<JsonbBytes<'_>>, "'{}'"),
    calling: Calling,
) -> SetOfIterator<'static, Text> {
    let (view, _) = or_raise(compile(view));
    let asked = or_raise(parsed(options, "options").and_then(|options| parse(format, options)));
    if !asked.format.has_lines() {
        or_raise(Err(no_lines("dump_view_chunks")))
    }
    let reader = or_raise(start(view, asked));
    reader.close_with_statement(calling);
    LineStream::new(reader).rows()
}

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn dump_view_chunks(
    view: Option<JsonbBytes<'_>>,
    format: default!(Option<&str>, "'csv'"),
    gzip: default!(Option<bool>, "false"),
    options: default!(Option<JsonbBytes<'_>>, "'{}'"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let (view, _) = or_raise(compile(view));
    let asked = or_raise(parsed(options, "options").and_then(|options| parse(format, options)));
    if gzip && !asked.format.has_lines() {
        or_raise(Err(no_gzip()))
    }
    let reader = or_raise(start(view, asked));
    reader.close_with_statement(calling);
    ChunkStream::new(reader, gzip, chunk_bytes).rows()
}

/// The rows of a view, as a caller of `dump_view_chunks` gets them.
///
/// # Errors
/// Those of the arguments, of the view and of the table.
pub fn open(view: &Value, format: &str, options: Value) -> Result<Reader> {
    let view = View::compile(settings::fhir_version(), view).map_err(errors::invalid)?;
    start(view, parse(Some(format), options)?)
}

/// What is asked of a view's rows.
struct Asked {
    format: Format,
    selection: Selection,
}

/// Checks the arguments `format` and `options`.
fn parse(format: Option<&str>, options: Value) -> Result<Asked> {
    let mut options = Options::new(options)?;
    let format = Format::parse(required(format, "format")?, &mut options)?;
    let selection = Selection::parse(&mut options)?;
    options.end(&format!("format {} of a view", format.name()), &format.known_options())?;
    Ok(Asked { format, selection })
}

/// 1. make the writer of the format, which knows the columns' types
/// 2. lock the table, and start to read
fn start(view: View, Asked { format, selection }: Asked) -> Result<Reader> {
    let view = Rc::new(view);
    let writer = format.writer(&view)?;
    Ok(Reader::new(Source::open(view, selection)?, writer))
}

/// Compiles the argument `view` by the release of the setting; also returns its text.
fn compile(view: Option<JsonbBytes<'_>>) -> Result<(View, String)> {
    let JsonbBytes(bytes) = required(view, "view")?;
    let mut text = Vec::new();
    TextWriter::new(Spacing::Compact).write(bytes, &mut text);
    let read = serde_json::from_slice(&text).map_err(|error| {
        // It is JSON, but may be deeper than is read.
        Error::invalid_argument(format!("invalid view: {error}"))
            .hint("A view is a ViewDefinition of SQL on FHIR; its selects nest sixty levels deep at most.")
    });
    let view = View::compile(settings::fhir_version(), &read?).map_err(errors::invalid)?;
    Ok((view, String::from_utf8(text).unwrap_or_default()))
}
