//! Runs a query and passes each row to a closure while the executor holds it, without copies or a tuple table.
//!
//! The executor runs the query directly, as it runs the queries of SQL functions, without a portal. The query lives as long
//! as the calling statement, in its memory and under its resource owner. So it goes on wherever that statement goes on: in a
//! cursor WITH HOLD, which PostgreSQL reads to its end at COMMIT, and after the rollback of the savepoint in which the query
//! was started. And it has no name by which SQL could close it.

use super::error::Result;
use super::memory::{Scratch, in_context, keep_in, new_context};
use super::spi::{Arguments, Parameter};
use super::{catalog, compat, datum, session, whole};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{pg_guard, pg_sys, pgrx_resolved_type};
use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::ops::ControlFlow;
use std::rc::Rc;

/// An open query.
pub struct Cursor {
    query: Handle,
    /// See [`Cursor::missed_table`].
    missed: Option<pg_sys::Oid>,
}

/// The executor's state; null once the query is closed or its memory is freed.
type Handle = Rc<Cell<*mut pg_sys::QueryDesc>>;

/// Kept in the query's memory, which the calling statement frees: its Drop then sets the handle to null.
struct Gone(Handle);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.set(std::ptr::null_mut());
    }
}

/// The call of a set-returning function: an argument that SQL does not see and only PostgreSQL can pass.
#[derive(Clone, Copy)]
pub struct Calling(pg_sys::FunctionCallInfo);

// SAFETY: SQL has no such type, and pgrx leaves the argument out of the SQL declaration.
unsafe impl SqlTranslatable for Calling {
    const TYPE_IDENT: &'static str = pgrx_resolved_type!(Calling);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}

// SAFETY: done as pgrx passes a FunctionCallInfo to a function.
unsafe impl<'fcx> ArgAbi<'fcx> for Calling {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Calling {
        // SAFETY: the caller guarantees it.
        Calling(unsafe { pg_sys::FunctionCallInfo::unbox_arg_unchecked(arg) })
    }

    fn is_virtual_arg() -> bool {
        true
    }
}

/// The result of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The row handler asked to stop; there may be more rows.
    Paused,
    /// There are no more rows.
    End,
}

/// A row in the executor's own memory.
pub struct Row<'a>(&'a pg_sys::TupleTableSlot);

impl<'a> Row<'a> {
    /// A column's datum; `None` for NULL.
    pub(super) fn value(&self, column: usize) -> Option<pg_sys::Datum> {
        assert!(column < self.0.tts_nvalid as usize, "no such column");
        // SAFETY: `tts_nvalid` columns are deformed; the arrays hold at least as many.
        unsafe { (!*self.0.tts_isnull.add(column)).then(|| *self.0.tts_values.add(column)) }
    }

    /// A column of type text.
    pub fn text(&self, column: usize) -> Option<&'a str> {
        // SAFETY: the query makes this column text; the row outlives 'a, as does the context it is detoasted in.
        let bytes = self.value(column).map(|value| unsafe { datum::text_bytes(value) })?;
        // The database's encoding is UTF8: CREATE EXTENSION has checked it.
        Some(std::str::from_utf8(bytes).expect("text in a UTF8 database is UTF-8"))
    }

    /// A column of type bigint or timestamptz.
    pub fn int8(&self, column: usize) -> Option<i64> {
        self.value(column).map(|value| value.value() as i64)
    }

    /// A column of type jsonb: its bytes after the length header.
    pub fn jsonb(&self, column: usize) -> Option<&'a [u8]> {
        // SAFETY: as for text.
        let bytes = self.value(column).map(|value| unsafe { datum::varlena_bytes(value) })?;
        datum::prefetch(bytes);
        Some(bytes)
    }
}

unsafe extern "C-unwind" {
    // executor.h; not pgrx's wrapper: `whole` says why.
    fn ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
    fn ExecutorRewind(query: *mut pg_sys::QueryDesc);
}

/// The receiver to which PostgreSQL passes rows. PostgreSQL expects its own struct as the first member.
#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    each: &'a mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    scratch: Scratch,
    paused: bool,
}

impl Cursor {
    /// Plans and opens `query`. PostgreSQL raises the errors of the query.
    ///
    /// The query uses the snapshot of the calling statement, so all queries of one statement see the same rows. But planning
    /// may wait for a table's lock, and then the snapshot is older than the lock: it misses what was committed during the
    /// wait, and shows a table that was truncated or rewritten as empty. So after a wait the query takes a new snapshot, as
    /// PostgreSQL does for its own statements, which lock first. In REPEATABLE READ the new snapshot is the transaction's.
    pub fn open(query: &CStr, parameters: &[Parameter]) -> Cursor {
        let arguments = Arguments::of(parameters);
        // SAFETY: everything that the executor gets is copied into the query's own memory before SPI frees its own.
        unsafe {
            let context = new_context();
            let (text, values) = in_context(context, || (pg_sys::pstrdup(query.as_ptr()), arguments.list()));
            pg_sys::SPI_connect();
            let plan = plan_with_locks(CStr::from_ptr(text), &arguments, values);
            let statement = first::<pg_sys::PlannedStmt>((*plan).stmt_list);
            let statement = in_context(context, || pg_sys::copyObjectImpl(statement.cast()).cast());
            pg_sys::ReleaseCachedPlan(plan, std::ptr::null_mut());
            pg_sys::SPI_finish();
            Cursor::start(context, statement, CStr::from_ptr(text), values)
        }
    }

    /// Starts a plan whose tables are locked.
    ///
    /// # Safety
    /// `context` is a child of the calling statement's; statement, text and parameters are in it.
    pub(super) unsafe fn start(
        context: pg_sys::MemoryContext,
        statement: *mut pg_sys::PlannedStmt,
        text: &CStr,
        parameters: pg_sys::ParamListInfo,
    ) -> Cursor {
        // SAFETY: the caller guarantees it; the query registers the snapshot itself. Each fetch sets the receiver.
        unsafe {
            let missed = push_snapshot(&tables_of(statement));
            let query = in_context(context, || {
                let (snapshot, nothing) = (pg_sys::GetActiveSnapshot(), std::ptr::null_mut());
                let (to_nobody, no_environment) = (std::ptr::null_mut(), std::ptr::null_mut());
                let source = text.as_ptr();
                let query = pg_sys::CreateQueryDesc(
                    statement,
                    source,
                    snapshot,
                    nothing,
                    to_nobody,
                    parameters,
                    no_environment,
                    0,
                );
                whole::call(text, || ExecutorStart(query, 0));
                query
            });
            pg_sys::PopActiveSnapshot();
            let handle = Rc::new(Cell::new(query));
            keep_in(context, Gone(handle.clone()));
            Cursor { query: handle, missed }
        }
    }

    /// The columns of its rows.
    pub(super) fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the only caller calls it right after `start`, while the query is open.
        unsafe { (*self.query.get()).tupDesc }
    }

    /// A table that was truncated or rewritten after the transaction took its only snapshot: the query reads it as empty.
    pub fn missed_table(&self) -> Option<String> {
        self.missed.map(catalog::name)
    }

    /// Passes rows to `each` until it breaks or fails, or there are no more. What `each` pallocs is freed after the row.
    ///
    /// # Errors
    /// The error of `each`.
    pub fn fetch(&mut self, mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>>) -> Result<Fetched> {
        let query = self.query.get();
        // A closed query must not look like the end of the rows.
        assert!(!query.is_null(), "the query has been ended");
        // The executor only gets the request to stop.
        let mut failure = None;
        let mut each = |row: &Row<'_>| {
            each(row).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        };
        let mut receiver = Receiver {
            base: pg_sys::DestReceiver {
                receiveSlot: Some(receive_row),
                rStartup: Some(start),
                rShutdown: Some(end),
                rDestroy: Some(end),
                mydest: pg_sys::CommandDest::DestNone,
            },
            each: &mut each,
            scratch: Scratch::default(),
            paused: false,
        };
        // SAFETY: the query is open; the receiver lives through the call. After an early stop the executor's state is right
        // after the last row, so that the next fetch goes on there.
        unsafe {
            let text = CStr::from_ptr((*query).sourceText);
            pg_sys::PushActiveSnapshot((*query).snapshot);
            (*query).dest = (&raw mut receiver).cast();
            whole::call(text, || compat::run_executor(query));
            pg_sys::PopActiveSnapshot();
            receiver.scratch.delete();
        }
        let paused = receiver.paused;
        match failure {
            Some(error) => Err(error),
            None if paused => Ok(Fetched::Paused),
            None => Ok(Fetched::End),
        }
    }

    /// Goes back to the first row. The snapshot stays the same, so the rows are the same again, as far as the functions that
    /// the query calls have the same results.
    pub fn rewind(&mut self) {
        let query = self.query.get();
        assert!(!query.is_null(), "the query has been ended");
        // SAFETY: the query is open, and only reads. Nodes of its plan that keep no rows run again.
        unsafe {
            let text = CStr::from_ptr((*query).sourceText);
            pg_sys::PushActiveSnapshot((*query).snapshot);
            whole::call(text, || ExecutorRewind(query));
            pg_sys::PopActiveSnapshot();
        }
    }

    /// Ends the query.
    pub fn close(&mut self) {
        close(&self.query);
    }

    /// Ends the query when the statement that calls this set-returning function ends, also when it ends early (`LIMIT`, a
    /// closed cursor) and never asks for the last row.
    pub fn close_with_statement(&self, Calling(call): Calling) {
        // SAFETY: PostgreSQL passed the call, which still runs. It calls set-returning functions with a ReturnSetInfo. The
        // expression context ends before the statement's memory, in which the handle is kept.
        unsafe {
            let info = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            assert!(!info.is_null() && (*info).type_ == pg_sys::NodeTag::T_ReturnSetInfo, "a set-returning function");
            let context = (*info).econtext;
            let handle = keep_in((*context).ecxt_per_query_memory, self.query.clone());
            pg_sys::RegisterExprContextCallback(context, Some(close_at_shutdown), pg_sys::Datum::from(handle));
        }
    }
}

/// Locks all tables that a query reads until the transaction ends: also partitions, and tables that views and policies read.
pub fn lock_reads(query: &CStr) {
    // SAFETY: there are no parameters; SPI frees the plan.
    unsafe {
        pg_sys::SPI_connect();
        let plan = plan_with_locks(query, &Arguments::of(&[]), std::ptr::null_mut());
        pg_sys::ReleaseCachedPlan(plan, std::ptr::null_mut());
        pg_sys::SPI_finish();
    }
}

/// Plans a query in SPI's current connection for these values, and locks its tables.
///
/// # Safety
/// Connected to SPI, under an active snapshot.
unsafe fn plan_with_locks(
    query: &CStr,
    arguments: &Arguments,
    values: pg_sys::ParamListInfo,
) -> *mut pg_sys::CachedPlan {
    // SAFETY: the caller guarantees it; the array has `count` elements, which SPI only reads. A query that cannot be planned
    // raises.
    unsafe {
        let options = pg_sys::CURSOR_OPT_NO_SCROLL as c_int;
        let types = arguments.types.as_ptr().cast_mut();
        let prepared = pg_sys::SPI_prepare_cursor(query.as_ptr(), arguments.count(), types, options);
        assert!(!prepared.is_null(), "SPI_prepare_cursor");
        let source = first(pg_sys::SPI_plan_get_plan_sources(prepared));
        pg_sys::GetCachedPlan(source, values, std::ptr::null_mut(), std::ptr::null_mut())
    }
}

/// The relations that a plan reads.
///
/// # Safety
/// The plan is live.
unsafe fn tables_of(statement: *mut pg_sys::PlannedStmt) -> Vec<pg_sys::Oid> {
    // SAFETY: the caller guarantees it; a list of OIDs, or null for none.
    unsafe {
        let list = (*statement).relationOids;
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        (0..count).map(|at| (*(*list).elements.add(at)).oid_value).collect()
    }
}

/// Pushes the snapshot under which to read tables that are locked now: the calling statement's, or a new one if that is
/// older than a table's file or than a wait for a lock. Returns a table that the new snapshot still shows as empty, in a
/// transaction that has only one snapshot.
///
/// # Safety
/// Under an active snapshot.
unsafe fn push_snapshot(tables: &[pg_sys::Oid]) -> Option<pg_sys::Oid> {
    // SAFETY: the caller guarantees it. PushActiveSnapshot copies the transaction's snapshot, and only this function has the
    // copy.
    unsafe {
        let now = |table: &pg_sys::Oid| catalog::file(*table, std::ptr::null_mut());
        let is_older = |snapshot| tables.iter().any(|table| catalog::file(*table, snapshot) != now(table));
        let calling = pg_sys::GetActiveSnapshot();
        if !is_older(calling) && !session::waited_in_statement() {
            pg_sys::PushActiveSnapshot(calling);
            return None;
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let new = pg_sys::GetActiveSnapshot();
        // The query must not read what the calling statement writes, or it would never end. But this transaction may have
        // rewritten a table after it declared a cursor.
        let current = (*new).curcid;
        (*new).curcid = current.min((*calling).curcid);
        if !is_older(new) {
            return None;
        }
        (*new).curcid = current;
        let is_missed = |table: &&pg_sys::Oid| catalog::file(**table, new).is_some_and(|file| Some(file) != now(table));
        tables.iter().find(is_missed).copied()
    }
}

/// # Safety
/// `list` has an element, which is a pointer to a `T`.
pub(super) unsafe fn first<T>(list: *mut pg_sys::List) -> *mut T {
    // SAFETY: the caller guarantees it.
    unsafe { (*(*list).elements).ptr_value.cast() }
}

fn close(handle: &Handle) {
    let query = handle.replace(std::ptr::null_mut());
    if !query.is_null() {
        // SAFETY: the query is open, or the handle would be null; nothing of ours runs in it now. Functions that run at its
        // end use its snapshot.
        unsafe {
            pg_sys::PushActiveSnapshot((*query).snapshot);
            pg_sys::ExecutorFinish(query);
            pg_sys::ExecutorEnd(query);
            pg_sys::PopActiveSnapshot();
            pg_sys::FreeQueryDesc(query);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn close_at_shutdown(handle: pg_sys::Datum) {
    // SAFETY: the argument that `close_with_statement` registered.
    close(unsafe { &*handle.cast_mut_ptr::<Handle>() });
}

#[pg_guard]
unsafe extern "C-unwind" fn receive_row(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: the receiver is the one that `fetch` passed; the slot is valid for this call and is deformed here.
    let (receiver, row) = unsafe {
        let columns = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < columns {
            pg_sys::slot_getsomeattrs_int(slot, columns);
        }
        (&mut *receiver.cast::<Receiver<'_>>(), Row(&*slot))
    };
    let Receiver { each, scratch, paused, .. } = receiver;
    *paused = scratch.run(|| each(&row)).is_break();
    !*paused
}

#[pg_guard]
unsafe extern "C-unwind" fn start(
    _receiver: *mut pg_sys::DestReceiver,
    _operation: std::ffi::c_int,
    _descriptor: pg_sys::TupleDesc,
) {
}

#[pg_guard]
unsafe extern "C-unwind" fn end(_receiver: *mut pg_sys::DestReceiver) {}
