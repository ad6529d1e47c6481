//! A query that somebody else wrote, read in batches, in which nothing can be written.

use super::cursor::{Calling, Cursor, Fetched, Row, first};
use super::memory::{in_context, new_context};
use super::value::{Column, Value};
use super::{read_only, whole};
use crate::error::{Error, Result};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, c_int};
use std::ops::ControlFlow;

/// Settings to have while a query is planned and read, by name.
pub type Settings = &'static [(&'static CStr, &'static CStr)];

unsafe extern "C-unwind" {
    // tcopprot.h and parser.h; not pgrx's wrappers, as `whole` asks.
    fn pg_parse_query(text: *const std::ffi::c_char) -> *mut pg_sys::List;
    fn pg_analyze_and_rewrite_fixedparams(
        statement: *mut pg_sys::RawStmt,
        text: *const std::ffi::c_char,
        types: *const pg_sys::Oid,
        count: c_int,
        environment: *mut pg_sys::QueryEnvironment,
    ) -> *mut pg_sys::List;
    fn pg_plan_queries(
        queries: *mut pg_sys::List,
        text: *const std::ffi::c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::List;
}

/// An open query, with the rights of who did.
pub struct Query {
    cursor: Cursor,
    columns: Vec<Column>,
    settings: Settings,
}

/// One row of it.
pub struct QueryRow<'a> {
    row: &'a Row<'a>,
    columns: &'a [Column],
}

impl<'a> QueryRow<'a> {
    /// The values in the order of the columns; `None` for NULL.
    pub fn values(&self) -> impl Iterator<Item = Option<Value<'a>>> {
        let row = self.row;
        self.columns.iter().enumerate().map(move |(at, column)| {
            // SAFETY: the columns are those of the query that the row comes from.
            row.value(at).map(|datum| unsafe { Value::new(datum, &column.kind) })
        })
    }

    /// How many columns there are.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// One of them.
    pub fn value(&self, column: usize) -> Option<Value<'a>> {
        // SAFETY: as above.
        self.row.value(column).map(|datum| unsafe { Value::new(datum, &self.columns[column].kind) })
    }
}

impl Query {
    /// Plans and opens one SELECT, VALUES or TABLE. Errors in it are PostgreSQL's own.
    ///
    /// # Errors
    /// 42601 when it is not one statement; 25006 when it does not only read.
    pub fn open(text: &CStr, settings: Settings) -> Result<Query> {
        read_only::run(settings, || {
            // SAFETY: there is a snapshot to plan under: we are called by a statement. Plan and text are in the query's own
            // memory.
            unsafe {
                let context = new_context();
                let (text, statement) = in_context(context, || {
                    let text = CStr::from_ptr(pg_sys::pstrdup(text.as_ptr()));
                    plan(text).map(|plans| (text, first(plans)))
                })?;
                let cursor = Cursor::start(context, statement, text, std::ptr::null_mut());
                let columns = in_context(context, || Column::all(cursor.descriptor()));
                Ok(Query { cursor, columns, settings })
            }
        })
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Has the query closed when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.cursor.close_with_statement(calling);
    }

    /// As [`Cursor::fetch`]; after the last row the query is closed.
    ///
    /// # Errors
    /// That of `each`.
    pub fn fetch(&mut self, mut each: impl FnMut(&QueryRow<'_>) -> Result<ControlFlow<()>>) -> Result<Fetched> {
        let Query { cursor, columns, settings } = self;
        let fetched = read_only::run(settings, || cursor.fetch(|row| each(&QueryRow { row, columns })))?;
        if fetched == Fetched::End {
            cursor.close();
        }
        Ok(fetched)
    }
}

/// # Safety
/// The current memory context lives as long as the plan is used; there is a snapshot.
unsafe fn plan(text: &CStr) -> Result<*mut pg_sys::List> {
    // SAFETY: by the caller; each step gets what the one before it made.
    unsafe {
        let statements = whole::call(text, || pg_parse_query(text.as_ptr()));
        let statement = match length(statements) {
            1 => first::<pg_sys::RawStmt>(statements),
            0 => return Err(syntax("the query is empty")),
            count => return Err(syntax(format!("the query has {count} statements, and dump_sql runs one"))),
        };
        if (*(*statement).stmt).type_ != pg_sys::NodeTag::T_SelectStmt {
            return Err(not_reading(&read_only::command_name(statement.cast())));
        }
        let queries = whole::call(text, || {
            let (types, environment) = (std::ptr::null(), std::ptr::null_mut());
            pg_analyze_and_rewrite_fixedparams(statement, text.as_ptr(), types, 0, environment)
        });
        let query = first::<pg_sys::Query>(queries);
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT {
            return Err(not_reading("SELECT INTO"));
        }
        if (*query).hasModifyingCTE {
            return Err(not_reading("a WITH that changes data"));
        }
        let options = pg_sys::CURSOR_OPT_NO_SCROLL as c_int;
        Ok(whole::call(text, || pg_plan_queries(queries, text.as_ptr(), options, std::ptr::null_mut())))
    }
}

fn syntax(message: impl Into<String>) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, message).hint(HINT)
}

fn not_reading(what: &str) -> Error {
    read_only::refusal(what).hint(HINT)
}

const HINT: &str = "A query is one SELECT, VALUES or TABLE statement; it may start with WITH.";

/// # Safety
/// `list` is live, or null for an empty one.
unsafe fn length(list: *mut pg_sys::List) -> c_int {
    // SAFETY: by the caller.
    if list.is_null() { 0 } else { unsafe { (*list).length } }
}
