//! `dump_view` and `dump_view_chunks`: return the rows of a view of SQL on FHIR; `bulk_create_view` makes a view of SQL of it.

mod create;
mod errors;
mod format;
mod given;
mod options;
mod row;
mod source;
mod sql_types;
mod text;

use crate::arguments::{Options, required};
use crate::settings;
use crate::stream::{ChunkStream, LineStream, chunk_size};
use fhir_bulk_pg::cursor::Calling;
use fhir_bulk_pg::datum::{Bytea, Text};
use fhir_bulk_pg::error::{Result, or_raise};
use fhir_bulk_views::View;
use format::Format;
use options::Selection;
use pgrx::prelude::*;
use pgrx::{JsonB, default};
use source::Source;
use std::rc::Rc;
use text::TextReader;

/// Returns one line of the body per row, as `dump_sql` does.
#[pg_extern(stable, parallel_unsafe)]
fn dump_view(
    view: Option<JsonB>,
    format: default!(Option<&str>, "'csv'"),
    options: default!(Option<JsonB>, "'{}'"),
    calling: Calling,
) -> SetOfIterator<'static, Text> {
    LineStream::new(or_raise(open(view, format, options, calling))).rows()
}

/// Returns the body in chunks.
#[pg_extern(stable, parallel_unsafe)]
fn dump_view_chunks(
    view: Option<JsonB>,
    format: default!(Option<&str>, "'csv'"),
    gzip: default!(Option<bool>, "false"),
    options: default!(Option<JsonB>, "'{}'"),
    chunk_bytes: default!(Option<i32>, "65536"),
    calling: Calling,
) -> SetOfIterator<'static, Bytea> {
    let chunk_bytes = or_raise(chunk_size(chunk_bytes));
    let gzip = or_raise(required(gzip, "gzip"));
    ChunkStream::new(or_raise(open(view, format, options, calling)), gzip, chunk_bytes).rows()
}

/// 1. compile the view
/// 2. check the format and the options
/// 3. lock the table, and start to read
fn open(view: Option<JsonB>, format: Option<&str>, options: Option<JsonB>, calling: Calling) -> Result<TextReader> {
    let view = Rc::new(compile(view)?);
    let mut options = Options::new(required(options, "options")?.0)?;
    let format = Format::parse(required(format, "format")?, &mut options)?;
    let selection = Selection::parse(&mut options)?;
    options.end(&format!("format {} of a view", format.name()), &format.known_options())?;
    let source = Source::open(view.clone(), selection)?;
    source.close_with_statement(calling);
    Ok(TextReader::new(source, format.writer(&view)))
}

/// Compiles the argument `view` by the release of the setting.
fn compile(view: Option<JsonB>) -> Result<View> {
    let JsonB(view) = required(view, "view")?;
    View::compile(settings::fhir_version(), &view).map_err(errors::invalid)
}
