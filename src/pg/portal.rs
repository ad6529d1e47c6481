//! A query whose rows are handled one by one where the executor leaves them, without copies or a tuple table.

use super::memory::{Scratch, keep_in};
use super::spi::{Arguments, Parameter};
use super::{datum, whole};
use pgrx::{pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, c_long};
use std::ops::ControlFlow;
use std::rc::Rc;

/// An open read-only portal, under a snapshot that was taken once all it reads was locked. Others may drop it: who ends the
/// transaction, or a CLOSE of its name, under which there may be another portal then.
pub struct Portal(Handle);

/// Where the portal is; null since it is gone.
type Handle = Rc<Cell<pg_sys::Portal>>;

/// Kept in the portal's memory, which goes with it.
struct Gone(Handle);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.set(std::ptr::null_mut());
    }
}

/// What a fetch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The row handler asked to stop; there may be more rows.
    Paused,
    /// There are no more rows.
    End,
    /// The portal is gone: the (sub)transaction that it was opened in has ended, or it was closed by its name.
    Lost,
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
        // The database's encoding is UTF8; CREATE EXTENSION made sure of it.
        Some(std::str::from_utf8(bytes).expect("text in a UTF8 database is UTF-8"))
    }

    /// A column of type bigint or timestamptz.
    pub fn int8(&self, column: usize) -> Option<i64> {
        self.value(column).map(|value| value.value() as i64)
    }

    /// A column of type jsonb: its bytes after the length header.
    pub fn jsonb(&self, column: usize) -> Option<&'a [u8]> {
        // SAFETY: as for text.
        self.value(column).map(|value| unsafe { datum::varlena_bytes(value) })
    }
}

unsafe extern "C-unwind" {
    // pquery.h; not pgrx's wrapper, as `whole` asks.
    fn PortalRunFetch(
        portal: pg_sys::Portal,
        direction: pg_sys::FetchDirection::Type,
        count: c_long,
        receiver: *mut pg_sys::DestReceiver,
    ) -> u64;
}

/// What PostgreSQL hands rows to. The first member is PostgreSQL's own struct, as it expects.
#[repr(C)]
struct Receiver<'a> {
    base: pg_sys::DestReceiver,
    each: &'a mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    scratch: Scratch,
    paused: bool,
}

impl Portal {
    /// Plans and opens `query`. Errors of the query are PostgreSQL's own.
    ///
    /// Planning waits for the locks of what is read. The calling statement's snapshot may be older than that wait: of a
    /// table that was truncated or rewritten meanwhile it would show nothing. So a new one is taken afterwards, as
    /// PostgreSQL does for a statement of its own; in REPEATABLE READ it is the transaction's.
    pub fn open(query: &CStr, parameters: &[Parameter]) -> Portal {
        let mut arguments = Arguments::of(parameters);
        // SAFETY: the arrays have `count` elements and live through the call, which copies them. The portal outlives
        // SPI's connection, and its own snapshot the one that is pushed here.
        unsafe {
            pg_sys::SPI_connect();
            let plan = plan_with_locks(query, &mut arguments);
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let (values, nulls) = (arguments.values.as_mut_ptr(), arguments.nulls.as_ptr());
            let portal = Portal::of(pg_sys::SPI_cursor_open(std::ptr::null(), plan, values, nulls, true));
            pg_sys::PopActiveSnapshot();
            pg_sys::SPI_finish();
            portal
        }
    }

    /// A portal that has been started.
    ///
    /// # Safety
    /// `portal` is live.
    pub(super) unsafe fn of(portal: pg_sys::Portal) -> Portal {
        let handle = Rc::new(Cell::new(portal));
        // SAFETY: by the caller; a portal has memory of its own.
        unsafe { keep_in((*portal).portalContext, Gone(handle.clone())) };
        Portal(handle)
    }

    /// Hands rows to `each` until it breaks or there are no more. What is pallocated in `each` is freed after
    /// its row.
    pub fn fetch(&mut self, mut each: impl FnMut(&Row<'_>) -> ControlFlow<()>) -> Fetched {
        let mut receiver = Receiver {
            base: pg_sys::DestReceiver {
                receiveSlot: Some(receive_row),
                rStartup: Some(start),
                rShutdown: Some(end),
                rDestroy: Some(end),
                mydest: pg_sys::CommandDest::DestNone,
            },
            each: &mut each,
            scratch: Scratch::new(),
            paused: false,
        };
        let portal = self.0.get();
        if portal.is_null() {
            return Fetched::Lost;
        }
        // SAFETY: the portal is live, or the handle would say so; the receiver lives through the call.
        unsafe {
            let (query, receiver_base) = (CStr::from_ptr((*portal).sourceText), (&raw mut receiver).cast());
            whole::call(query, || {
                PortalRunFetch(portal, pg_sys::FetchDirection::FETCH_FORWARD, c_long::MAX, receiver_base)
            });
            receiver.scratch.delete();
            if self.0.get().is_null() {
                // A function in the query has ended it.
                return Fetched::Lost;
            }
            if receiver.paused {
                // PortalRunSelect takes an early stop for the end of the rows. The executor's state stands right
                // behind the last row, so that the next fetch goes on there.
                (*portal).atEnd = false;
                return Fetched::Paused;
            }
        }
        Fetched::End
    }

    /// Drops the portal.
    pub fn close(&mut self) {
        close(&self.0);
    }

    /// Has the portal dropped when the statement that calls this set-returning function ends, also when it ends
    /// early (`LIMIT`, a closed cursor) and never asks for the last row.
    pub fn close_with_statement(&self, fcinfo: pg_sys::FunctionCallInfo) {
        // SAFETY: PostgreSQL calls set-returning functions with a ReturnSetInfo, whose expression context ends before
        // the statement's memory, in which a handle is kept.
        unsafe {
            let context = (*(*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>()).econtext;
            let handle = keep_in((*context).ecxt_per_query_memory, self.0.clone());
            pg_sys::RegisterExprContextCallback(context, Some(close_at_shutdown), pg_sys::Datum::from(handle));
        }
    }
}

/// Locks all that a query reads until the transaction ends: tables, their parts, what views and policies lead to.
pub fn lock_reads(query: &CStr) {
    // SAFETY: there are no parameters; SPI frees the plan.
    unsafe {
        pg_sys::SPI_connect();
        plan_with_locks(query, &mut Arguments::of(&[]));
        pg_sys::SPI_finish();
    }
}

/// A plan of SPI's current connection, whose tables are locked.
///
/// # Safety
/// Connected to SPI, under an active snapshot.
unsafe fn plan_with_locks(query: &CStr, arguments: &mut Arguments) -> pg_sys::SPIPlanPtr {
    // SAFETY: by the caller; the array has `count` elements. A query that cannot be planned raises.
    unsafe {
        let options = pg_sys::CURSOR_OPT_NO_SCROLL as i32;
        let types = arguments.types.as_mut_ptr();
        let plan = pg_sys::SPI_prepare_cursor(query.as_ptr(), arguments.count(), types, options);
        assert!(!plan.is_null(), "SPI_prepare_cursor");
        pg_sys::ReleaseCachedPlan(pg_sys::SPI_plan_get_cached_plan(plan), std::ptr::null_mut());
        plan
    }
}

fn close(handle: &Handle) {
    let portal = handle.get();
    if !portal.is_null() {
        // SAFETY: the portal is live, or the handle would say so; nothing of ours runs in it now.
        unsafe { pg_sys::PortalDrop(portal, false) }
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
    // SAFETY: the receiver is the one `fetch` passed; the slot is valid for this call and is deformed here.
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
