//! `dump_view` and `dump_view_chunks`: return the rows of a view of SQL on FHIR; `bulk_create_view` makes a view of SQL of it.

mod create;
mod errors;
mod format;
mod given;
mod options;
mod row;
mod select;
mod source;
mod sql_types;
mod text;

use crate::arguments::{Options, required};
use crate::settings;
use crate::stream::{ChunkStream, LineStream, chunk_size};
use fhir_bulk_codec::jsonb::text::{Spacing, TextWriter};
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::datum::{Bytea, JsonbBytes, Text};
use fhir_bulk_pg::error::{Error, Result, or_raise};
use fhir_bulk_views::View;
use format::Format;
pub use options::Selection;
use pgrx::prelude::*;
use pgrx::{JsonB, default};
pub use select::select;
use serde_json::Value;
use source::Source;
use std::rc::Rc;
pub use text::TextReader;

/// Returns one line of the body per row, as `dump_sql` does.
#[pg_extern(stable, parallel_unsafe)]
fn dump_view(
    view: Option<JsonbBytes<'_>>,
    format: default!(Option<&str>, "'csv'"),
    options: default!(Option<JsonB>, "'{}'"),
    calling: Calling,
) -> SetOfIterator<'static, Text> {
    let started = compile(view).and_then(|(view, _)| start(view, format, options, calling));
    LineStream::new(or_raise(started)).rows()
}

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn dump_view_chunks(
    view: Option<JsonbBytes<'_>>,
    format: default!(Option<&str>, "'csv'"),
    gzip: default!(Option<bool>, "false"),
    options: default!(Option<JsonB>, "'{}'"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    let started = compile(view).and_then(|(view, _)| start(view, format, options, calling));
    ChunkStream::new(or_raise(started), gzip, chunk_bytes).rows()
}

/// The rows of a view, as a caller of `dump_view_chunks` gets them.
///
/// # Errors
/// Those of the arguments, of the view and of the table.
pub fn open(view: &Value, format: &str, options: Value, calling: Calling) -> Result<TextReader> {
    let view = View::compile(settings::fhir_version(), view).map_err(errors::invalid)?;
    start(view, Some(format), Some(JsonB(options)), calling)
}

/// 1. check the format and the options
/// 2. lock the table, and start to read
fn start(view: View, format: Option<&str>, options: Option<JsonB>, calling: Calling) -> Result<TextReader> {
    let view = Rc::new(view);
    let mut options = Options::new(required(options, "options")?.0)?;
    let format = Format::parse(required(format, "format")?, &mut options)?;
    let selection = Selection::parse(&mut options)?;
    options.end(&format!("format {} of a view", format.name()), &format.known_options())?;
    let source = Source::open(view.clone(), selection)?;
    source.close_with_statement(calling);
    Ok(TextReader::new(source, format.writer(&view)))
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
