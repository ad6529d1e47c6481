//! A query that a user wrote. It is read in batches and cannot write.

use super::cursor::{Calling, Cursor, Fetched, Row, first};
use super::guc;
use super::memory::{Scratch, in_context, new_context};
pub use super::placeholders::Place;
use super::placeholders::{self, Known};
use super::spi::{Arguments, Parameter};
use super::value::{Column, Value};
use super::whole::call_for_client;
use super::{read_only, whole};
use crate::error::{Error, Result};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, CString, c_int};
use std::ops::ControlFlow;

/// Names and values of the settings under which a query is planned and read.
pub type Settings = &'static [(&'static CStr, &'static CStr)];

unsafe extern "C-unwind" {
    // tcopprot.h and parser.h; not pgrx's wrappers: `whole` says why.
    fn pg_parse_query(text: *const std::ffi::c_char) -> *mut pg_sys::List;
    fn pg_analyze_and_rewrite_fixedparams(
        statement: *mut pg_sys::RawStmt,
        text: *const std::ffi::c_char,
        types: *const pg_sys::Oid,
        count: c_int,
        environment: *mut pg_sys::QueryEnvironment,
    ) -> *mut pg_sys::List;
    fn pg_analyze_and_rewrite_withcb(
        statement: *mut pg_sys::RawStmt,
        text: *const std::ffi::c_char,
        prepare: pg_sys::ParserSetupHook,
        argument: *mut std::ffi::c_void,
        environment: *mut pg_sys::QueryEnvironment,
    ) -> *mut pg_sys::List;
    fn pg_plan_queries(
        queries: *mut pg_sys::List,
        text: *const std::ffi::c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::List;
}

/// An open query. It has the rights of the role that opened it.
pub struct Query {
    cursor: Cursor,
    columns: Vec<Column>,
    settings: Settings,
    /// Whether the query must not write.
    only_reads: bool,
}

/// A table that a query sees under a name, and that is a query itself.
pub struct Table {
    /// The name, in whose place the query stands.
    pub name: CString,
    /// One SELECT, VALUES or TABLE.
    pub query: CString,
    /// Tables that this query sees.
    pub tables: Vec<Table>,
}

/// What a query has beside its own text.
#[derive(Default)]
pub struct Beside {
    /// Tables that it sees: they come before the queries of its WITH.
    pub tables: Vec<Table>,
    /// Where it has placeholders.
    pub places: Vec<Place>,
    /// Their values.
    pub values: Vec<Parameter>,
}

/// One row of a query.
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

    /// The value of one column.
    pub fn value(&self, column: usize) -> Option<Value<'a>> {
        // SAFETY: as above.
        self.row.value(column).map(|datum| unsafe { Value::new(datum, &self.columns[column].kind) })
    }
}

impl Query {
    /// Plans and opens one SELECT, VALUES or TABLE. PostgreSQL raises the errors in it.
    ///
    /// # Errors
    /// 42601 when it is not one statement; 25006 when it does not only read.
    pub fn open(text: &CStr, settings: Settings) -> Result<Query> {
        Query::open_beside(text, settings, &Beside::default())
    }

    /// The same with tables and values of the caller's. Positions in errors are those in `text`.
    ///
    /// # Errors
    /// As for [`Query::open`], also for the query of a table.
    pub fn open_beside(text: &CStr, settings: Settings, beside: &Beside) -> Result<Query> {
        read_only::run(settings, || {
            // SAFETY: the calling statement has an active snapshot to plan under. Plan and text are in the query's own
            // memory.
            unsafe {
                let context = new_context();
                let (text, statement, values) = in_context(context, || {
                    let text = CStr::from_ptr(pg_sys::pstrdup(text.as_ptr()));
                    let values = Arguments::of(&beside.values).list();
                    plan(text, beside, values).map(|plans| (text, first(plans), values))
                })?;
                Ok(Query::start(context, statement, text, settings, true, values))
            }
        })
    }

    /// Plans such a query, and so locks what it reads until the transaction ends, also what views and policies read. It takes
    /// no snapshot.
    ///
    /// # Errors
    /// As for [`Query::open_beside`].
    pub fn lock_reads(text: &CStr, beside: &Beside) -> Result<()> {
        read_only::run(&[], || {
            let mut scratch = Scratch::default();
            // SAFETY: the caller has an active snapshot to plan under. The plan ends with its memory.
            let planned =
                scratch.run(|| unsafe { plan(text, beside, Arguments::of(&beside.values).list()).map(|_| ()) });
            scratch.delete();
            planned
        })
    }

    /// Plans and starts the query of a COPY, with its position in the client's text, as COPY itself would. It may write.
    /// PostgreSQL raises the errors in it.
    ///
    /// # Errors
    /// 0A000 for SELECT INTO, for a statement without rows, and for one that rules turn into several.
    ///
    /// # Safety
    /// `tree` is a live, raw parse tree of `text`.
    pub(super) unsafe fn open_tree(
        tree: *mut pg_sys::Node,
        text: &CStr,
        (location, length): (c_int, c_int),
    ) -> Result<Query> {
        // SAFETY: the caller guarantees it; there is a snapshot, and plan and text are in the query's own memory.
        unsafe {
            let context = new_context();
            let (text, plan) = in_context(context, || {
                let text = CStr::from_ptr(pg_sys::pstrdup(text.as_ptr()));
                let mut raw = pgrx::PgBox::<pg_sys::RawStmt>::alloc_node(pg_sys::NodeTag::T_RawStmt);
                (raw.stmt, raw.stmt_location, raw.stmt_len) = (tree, location, length);
                plan_for_copy(raw.into_pg(), text).map(|plan| (text, plan))
            })?;
            Ok(Query::start(context, plan, text, &[], false, std::ptr::null_mut()))
        }
    }

    /// Plans and starts a query of the extension with the rights of the current role. It may write.
    ///
    /// # Errors
    /// As for the query of a COPY.
    pub fn open_whole(text: &CStr) -> Result<Query> {
        // SAFETY: the parser's own tree, of one statement; what raises is called through `whole`.
        unsafe {
            let statement = first::<pg_sys::RawStmt>(whole::call(text, || pg_parse_query(text.as_ptr())));
            Query::open_tree((*statement).stmt, text, (0, 0))
        }
    }

    /// # Safety
    /// As [`Cursor::start`].
    unsafe fn start(
        context: pg_sys::MemoryContext,
        statement: *mut pg_sys::PlannedStmt,
        text: &CStr,
        settings: Settings,
        only_reads: bool,
        values: pg_sys::ParamListInfo,
    ) -> Query {
        // SAFETY: the caller guarantees it.
        unsafe {
            let cursor = Cursor::start(context, statement, text, values);
            let columns = in_context(context, || Column::all(cursor.descriptor()));
            Query { cursor, columns, settings, only_reads }
        }
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Closes the query when the calling statement ends.
    pub fn close_with_statement(&self, calling: Calling) {
        self.cursor.close_with_statement(calling);
    }

    /// Ends the query, of which no more rows are wanted.
    pub fn close(&mut self) {
        self.cursor.close();
    }

    /// As [`Cursor::fetch`]; after the last row the query is closed.
    ///
    /// # Errors
    /// The error of `each`.
    pub fn fetch(&mut self, mut each: impl FnMut(&QueryRow<'_>) -> Result<ControlFlow<()>>) -> Result<Fetched> {
        let Query { cursor, columns, settings, only_reads } = self;
        let fetched = if *only_reads {
            read_only::run(settings, || cursor.fetch(|row| each(&QueryRow { row, columns })))
        } else {
            // The query itself runs under the settings of the session.
            cursor.fetch(|row| guc::with_exact_output(|| each(&QueryRow { row, columns })))
        }?;
        if fetched == Fetched::End {
            cursor.close();
        }
        Ok(fetched)
    }
}

/// # Safety
/// The current memory context lives as long as the plan is used; there is a snapshot.
unsafe fn plan(text: &CStr, beside: &Beside, values: pg_sys::ParamListInfo) -> Result<*mut pg_sys::List> {
    // SAFETY: the caller guarantees it; each step gets the result of the step before.
    unsafe {
        let queries = analysed(text, &beside.tables, &beside.places, &beside.values)?;
        let query = first::<pg_sys::Query>(queries);
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT {
            return Err(not_reading("SELECT INTO"));
        }
        if (*query).hasModifyingCTE {
            return Err(not_reading("a WITH that changes data"));
        }
        let options = pg_sys::CURSOR_OPT_NO_SCROLL as c_int;
        Ok(whole::call(text, || pg_plan_queries(queries, text.as_ptr(), options, values)))
    }
}

/// # Safety
/// As for [`plan`].
unsafe fn analysed(text: &CStr, tables: &[Table], places: &[Place], values: &[Parameter]) -> Result<*mut pg_sys::List> {
    let mut known = Known { places, values };
    // SAFETY: the caller guarantees it; what is known lives through the call.
    unsafe {
        let statement = parsed(&placeholders::masked(text, places), text)?;
        add_tables((*statement).stmt, tables, Checked::Not)?;
        let argument = (&raw mut known).cast();
        let (prepare, environment) = (Some(placeholders::prepare as _), std::ptr::null_mut());
        let analyse = || pg_analyze_and_rewrite_withcb(statement, text.as_ptr(), prepare, argument, environment);
        Ok(whole::call(text, analyse))
    }
}

/// The only statement of a text, which is a SELECT, VALUES or TABLE; `shown` is the text that errors are about, with the same
/// positions.
///
/// # Safety
/// As for [`plan`].
unsafe fn parsed(text: &CStr, shown: &CStr) -> Result<*mut pg_sys::RawStmt> {
    // SAFETY: the caller guarantees it.
    unsafe {
        let statements = whole::call(shown, || pg_parse_query(text.as_ptr()));
        let statement = match length(statements) {
            1 => first::<pg_sys::RawStmt>(statements),
            0 => return Err(syntax("the query is empty")),
            count => return Err(syntax(format!("the query has {count} statements; dump_sql runs only one"))),
        };
        if (*(*statement).stmt).type_ != pg_sys::NodeTag::T_SelectStmt {
            return Err(not_reading(&read_only::command_name(statement.cast())));
        }
        Ok(statement)
    }
}

/// Whether queries have been analysed alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checked {
    Not,
    Yes,
}

/// Puts tables before the queries of a statement's WITH.
///
/// # Safety
/// `select` is a raw SELECT of the parser, of the current memory context; as for [`plan`].
unsafe fn add_tables(select: *mut pg_sys::Node, tables: &[Table], checked: Checked) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    // SAFETY: the caller guarantees it. All nodes are of the current memory context.
    unsafe {
        let mut all = std::ptr::null_mut();
        for Table { name, query, tables } in tables {
            // Alone first: what is wrong with it then has its place in its own text. Here its places would be taken for some
            // in the statement's text.
            if checked == Checked::Not {
                analysed(query, tables, &[], &[])?;
            }
            let inner = (*parsed(query, query)?).stmt;
            add_tables(inner, tables, Checked::Yes)?;
            let mut with = pgrx::PgBox::<pg_sys::CommonTableExpr>::alloc_node(pg_sys::NodeTag::T_CommonTableExpr);
            with.ctename = pg_sys::pstrdup(name.as_ptr());
            with.ctequery = inner;
            with.location = -1;
            all = pg_sys::lappend(all, with.into_pg().cast());
        }
        let clause = &mut (*select.cast::<pg_sys::SelectStmt>()).withClause;
        if clause.is_null() {
            let mut new = pgrx::PgBox::<pg_sys::WithClause>::alloc_node(pg_sys::NodeTag::T_WithClause);
            new.location = -1;
            *clause = new.into_pg();
        }
        (**clause).ctes = pg_sys::list_concat(all, (**clause).ctes);
    }
    Ok(())
}

/// # Safety
/// The current memory context lives as long as the plan is used; `raw` is a statement of `text`; there is a snapshot.
unsafe fn plan_for_copy(raw: *mut pg_sys::RawStmt, text: &CStr) -> Result<*mut pg_sys::PlannedStmt> {
    let refused = |message: &str| Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
    // SAFETY: the caller guarantees it. The tree is copied, as analysis changes it, and a prepared statement runs it again.
    unsafe {
        let raw = pg_sys::copyObjectImpl(raw.cast()).cast();
        let queries = call_for_client(|| {
            let (types, environment) = (std::ptr::null(), std::ptr::null_mut());
            pg_analyze_and_rewrite_fixedparams(raw, text.as_ptr(), types, 0, environment)
        });
        if length(queries) != 1 {
            return Err(refused("COPY cannot run a statement that rules turn into none or several"));
        }
        let query = first::<pg_sys::Query>(queries);
        if (*query).commandType == pg_sys::CmdType::CMD_UTILITY {
            let into = (*(*query).utilityStmt).type_ == pg_sys::NodeTag::T_CreateTableAsStmt;
            return Err(refused(if into {
                "COPY (SELECT INTO) is not supported"
            } else {
                "COPY needs a query that returns rows"
            }));
        }
        if (*query).commandType != pg_sys::CmdType::CMD_SELECT && (*query).returningList.is_null() {
            return Err(refused("COPY needs a query that returns rows").hint("Add RETURNING."));
        }
        let options = pg_sys::CURSOR_OPT_NO_SCROLL as c_int;
        Ok(first(call_for_client(|| pg_plan_queries(queries, text.as_ptr(), options, std::ptr::null_mut()))))
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
    // SAFETY: the caller guarantees it.
    if list.is_null() { 0 } else { unsafe { (*list).length } }
}
