//! A query that somebody else wrote, read in batches, in which nothing can be written.

use super::memory::in_context;
use super::portal::{Fetched, Portal, Row};
use super::value::{Column, Value};
use super::{compat, read_only, whole};
use crate::error::{Error, Result};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, c_int};
use std::ops::ControlFlow;

/// Settings to have while a query is planned and read, by name.
pub type Settings = &'static [(&'static CStr, &'static CStr)];

unsafe extern "C-unwind" {
    // tcopprot.h and pquery.h; not pgrx's wrappers, as `whole` asks.
    fn pg_plan_queries(
        queries: *mut pg_sys::List,
        text: *const std::ffi::c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::List;
    fn PortalStart(portal: pg_sys::Portal, parameters: pg_sys::ParamListInfo, flags: c_int, snapshot: pg_sys::Snapshot);
}

/// An open query, under a snapshot that was taken once all it reads was locked, with the rights of who did.
pub struct Query {
    portal: Portal,
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
            // SAFETY: the columns are those of the portal that the row comes from.
            row.value(at).map(|datum| unsafe { Value::new(datum, &column.kind) })
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
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
            // SAFETY: PostgreSQL's own sequence for a cursor, all in the portal's memory, so that plan and text live as
            // long as it. After an error the (sub)transaction's end drops the portal. There is a snapshot to plan under:
            // we are called by a statement. The portal's own is taken at its start, when the plan has all locks.
            unsafe {
                let portal = pg_sys::CreateNewPortal();
                (*portal).visible = false;
                let columns = in_context((*portal).portalContext, || -> Result<Vec<Column>> {
                    let text = CStr::from_ptr(pg_sys::pstrdup(text.as_ptr()));
                    let plans = plan(text)?;
                    let no_name = std::ptr::null();
                    let tag = pg_sys::CommandTag::CMDTAG_SELECT;
                    pg_sys::PortalDefineQuery(portal, no_name, text.as_ptr(), tag, plans, std::ptr::null_mut());
                    let (no_parameters, new_snapshot) = (std::ptr::null_mut(), std::ptr::null_mut());
                    whole::call(text, || PortalStart(portal, no_parameters, 0, new_snapshot));
                    Ok(Column::all((*portal).tupDesc))
                })?;
                Ok(Query { portal: Portal::of(portal), columns, settings })
            }
        })
    }

    /// The names of the columns, in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Has the query closed when the calling statement ends.
    pub fn close_with_statement(&self, fcinfo: pg_sys::FunctionCallInfo) {
        self.portal.close_with_statement(fcinfo);
    }

    /// As [`Portal::fetch`]; after the last row the query is closed.
    pub fn fetch(&mut self, mut each: impl FnMut(&QueryRow<'_>) -> ControlFlow<()>) -> Fetched {
        let Query { portal, columns, settings } = self;
        let fetched = read_only::run(settings, || portal.fetch(|row| each(&QueryRow { row, columns })));
        if fetched == Fetched::End {
            portal.close();
        }
        fetched
    }
}

/// # Safety
/// The current memory context lives as long as the plan is used; there is a snapshot.
unsafe fn plan(text: &CStr) -> Result<*mut pg_sys::List> {
    // SAFETY: by the caller; each step gets what the one before it made.
    unsafe {
        let statements = whole::call(text, || compat::parse(text.as_ptr()));
        let statement = match length(statements) {
            1 => first::<pg_sys::RawStmt>(statements),
            0 => return Err(syntax("the query is empty")),
            count => return Err(syntax(format!("the query has {count} statements, and dump_sql runs one"))),
        };
        if (*(*statement).stmt).type_ != pg_sys::NodeTag::T_SelectStmt {
            return Err(not_reading(&read_only::command_name(statement.cast())));
        }
        let queries = whole::call(text, || compat::analyze(statement, text.as_ptr()));
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

/// # Safety
/// `list` is live and has an element, which is a pointer to a `T`.
unsafe fn first<T>(list: *mut pg_sys::List) -> *mut T {
    // SAFETY: by the caller.
    unsafe { (*(*list).elements).ptr_value.cast() }
}
