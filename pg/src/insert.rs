//! Inserts rows into a plain heap table as COPY does: a whole batch into pages, then its index entries.

use super::access::Access;
use super::catalog::{Column, Table};
use super::compat;
use super::find::Place;
use super::later_keys::LaterKeys;
use super::memory::Scratch;
use super::new_pages::NewPages;
use super::slot::clear;
use super::whole::call_for_client;
use pgrx::pg_sys;

/// Values of one row, in the order of [`HeapInsert::new`]'s `columns`.
pub type RowValues<'a> = &'a [pg_sys::Datum];

/// Where in the table a row may be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// On any page with room, as INSERT does.
    Anywhere,
    /// After all other rows: of two rows the later one has the higher place.
    AtEnd,
}

/// Inserts batches into one table.
pub struct HeapInsert {
    pub(super) table: Table,
    columns: Vec<i16>,
    options: i32,
    /// The other columns, each with its default, or `None` for NULL.
    defaults: Vec<(i16, Option<*mut pg_sys::ExprState>)>,
    pub(super) state: *mut pg_sys::EState,
    pub(super) relation_info: *mut pg_sys::ResultRelInfo,
    /// A copy of the table's descriptor, which no resource owner tracks: slots made in a subtransaction outlive it.
    pub(super) descriptor: pg_sys::TupleDesc,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    /// Whole pages of rows, if the table can have them so.
    new_pages: Option<NewPages>,
    pub(super) has_constraints: bool,
    scratch: Scratch,
}

impl HeapInsert {
    /// Prepares to insert into the columns of `access`. The caller has checked it.
    pub fn new(access: Access, space: Space) -> HeapInsert {
        let table = access.table;
        // SAFETY: the table is open; nodes are made in the current context, which outlives this value; the
        // executor state is made and used as COPY does (`CopyFrom` in copyfrom.c).
        unsafe {
            let state = pg_sys::CreateExecutorState();
            compat::set_range_table(state, access.entry());
            let relation_info =
                pgrx::PgBox::<pg_sys::ResultRelInfo>::alloc_node(pg_sys::NodeTag::T_ResultRelInfo).into_pg();
            pg_sys::ExecInitResultRelation(state, relation_info, 1);
            pg_sys::ExecOpenIndices(relation_info, false);
            let has_constraints = !(*(*table.raw()).rd_att).constr.is_null();
            let descriptor = pg_sys::CreateTupleDescCopy((*table.raw()).rd_att);
            HeapInsert {
                table,
                defaults: other_defaults(&access),
                columns: access.inserted,
                options: match space {
                    Space::Anywhere => 0,
                    Space::AtEnd => pg_sys::TABLE_INSERT_SKIP_FSM as i32,
                },
                state,
                relation_info,
                descriptor,
                slots: Vec::new(),
                new_pages: NewPages::of(table.raw(), descriptor, space == Space::AtEnd),
                has_constraints,
                scratch: Scratch::default(),
            }
        }
    }

    /// For the entries of an index that are inserted later, if the table's indexes allow it: see [`LaterKeys`].
    pub fn later_keys(&self, index: pg_sys::Oid) -> Option<LaterKeys> {
        // SAFETY: the relation and its indexes are open as long as this value.
        unsafe { LaterKeys::of(self.table.raw(), self.relation_info, index) }
    }

    /// Inserts `count` rows; `values(i, …)` appends the values of row `i`. Index entries are inserted in the order of
    /// `by_key`: that is faster, and sessions that insert the same keys wait for each other in one order. Raises 23505 if
    /// another row has a key. Everything opened here is closed when it returns, so that it may run in a subtransaction.
    pub fn insert(
        &mut self,
        count: usize,
        by_key: impl IntoIterator<Item = usize>,
        values: impl FnMut(usize, &mut Vec<pg_sys::Datum>),
    ) {
        self.store(count, values, |slots, relation_info, state| {
            for at in by_key {
                let slot = slots[at];
                // SAFETY: the slot's row is stored, and is of this table.
                unsafe { call_for_client(|| compat::insert_index_entries(relation_info, slot, state, None)) }
            }
        });
    }

    /// As [`HeapInsert::insert`], but the entries in the index of `later` are left to it: `key` is that of row `i`.
    pub fn insert_but_key<'k>(
        &mut self,
        later: &mut LaterKeys,
        count: usize,
        values: impl FnMut(usize, &mut Vec<pg_sys::Datum>),
        key: impl Fn(usize) -> &'k [u8],
    ) {
        self.store(count, values, |slots, relation_info, state| {
            later.set_ready(false);
            for (at, slot) in slots.iter().copied().enumerate() {
                // SAFETY: as in `insert`; the slot has the row's place.
                let place = unsafe {
                    if later.has_others() {
                        call_for_client(|| compat::insert_index_entries(relation_info, slot, state, None));
                    }
                    Place((*slot).tts_tid)
                };
                later.push(key(at), place);
            }
            later.set_ready(true);
        });
    }

    /// Stores rows in the heap, then calls `index` with them.
    fn store(
        &mut self,
        count: usize,
        mut values: impl FnMut(usize, &mut Vec<pg_sys::Datum>),
        index: impl FnOnce(&[*mut pg_sys::TupleTableSlot], *mut pg_sys::ResultRelInfo, *mut pg_sys::EState),
    ) {
        while self.slots.len() < count {
            // SAFETY: the descriptor lives as long as the slots.
            self.slots
                .push(unsafe { pg_sys::MakeSingleTupleTableSlot(self.descriptor, &raw const pg_sys::TTSOpsVirtual) });
        }
        let HeapInsert {
            table,
            columns,
            options,
            defaults,
            state,
            relation_info,
            slots,
            new_pages,
            has_constraints,
            scratch,
            ..
        } = self;
        let slots = &mut slots[..count];
        let mut row = Vec::with_capacity(columns.len());
        scratch.run(|| {
            for (at, slot) in slots.iter().enumerate() {
                row.clear();
                values(at, &mut row);
                // SAFETY: the slot has the table's columns; its values live until the batch is inserted.
                unsafe {
                    clear(*slot);
                    fill(*slot, columns, &row, defaults, *state);
                    if *has_constraints {
                        (**slot).tts_tableOid = table.oid();
                        check_constraints(*relation_info, *slot, *state);
                    }
                }
            }
            // SAFETY: the slots are filled; the table is a locked heap. The insert sets each slot's tid, which the index
            // entries need. FreeBulkInsertState unpins the buffer of the bulk state.
            unsafe {
                let command = pg_sys::GetCurrentCommandId(true);
                match new_pages {
                    Some(pages) if pages.are_for(slots) => pages.store(slots, command),
                    _ => {
                        let bulk = pg_sys::GetBulkInsertState();
                        let (table, slots) = (table.raw(), slots.as_mut_ptr());
                        pg_sys::heap_multi_insert(table, slots, count as i32, command, *options, bulk);
                        pg_sys::FreeBulkInsertState(bulk);
                    }
                }
                index(slots, *relation_info, *state);
                compat::end_index_entries(*relation_info);
                forget_expressions(*state);
            }
        });
        // SAFETY: live slots. Their values pointed to the batch and to the scratch memory.
        unsafe {
            for slot in slots {
                clear(*slot);
            }
        }
    }

    /// Must be called after a rollback of the subtransaction in which [`HeapInsert::insert`] ran.
    pub fn was_undone(&mut self) {
        // SAFETY: the indexes are open as long as this value.
        unsafe { compat::forget_index_entries(self.relation_info) }
    }

    /// Frees everything. After an error the transaction's end does that instead.
    pub fn close(self) {
        // SAFETY: everything was made by `new` or `insert`, and is closed once.
        unsafe {
            for slot in self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
            if let Some(pages) = self.new_pages {
                pages.close();
            }
            pg_sys::FreeTupleDesc(self.descriptor);
            pg_sys::ExecCloseResultRelations(self.state);
            pg_sys::ExecCloseRangeTableRelations(self.state);
            pg_sys::FreeExecutorState(self.state);
        }
        self.scratch.delete();
    }
}

/// Stores a row in a virtual slot.
///
/// # Safety
/// The slot has the table's columns, with those in `columns` and `defaults`; `state` is live.
unsafe fn fill(
    slot: *mut pg_sys::TupleTableSlot,
    columns: &[i16],
    row: RowValues<'_>,
    defaults: &[(i16, Option<*mut pg_sys::ExprState>)],
    state: *mut pg_sys::EState,
) {
    // SAFETY: the caller guarantees it; arrays of a slot have one element per column.
    unsafe {
        let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
        let natts = (*(*slot).tts_tupleDescriptor).natts as usize;
        // Dropped columns stay NULL.
        std::slice::from_raw_parts_mut(nulls, natts).fill(true);
        for (number, value) in columns.iter().zip(row) {
            *values.add(*number as usize - 1) = *value;
            *nulls.add(*number as usize - 1) = false;
        }
        for (number, expression) in defaults {
            if let Some(expression) = expression {
                let at = *number as usize - 1;
                *values.add(at) = evaluate(*expression, state, nulls.add(at));
            }
        }
        pg_sys::ExecStoreVirtualTuple(slot);
    }
}

unsafe extern "C-unwind" {
    // executor.h; not pgrx's wrapper, as `whole` asks.
    fn ExecConstraints(
        relation_info: *mut pg_sys::ResultRelInfo,
        slot: *mut pg_sys::TupleTableSlot,
        estate: *mut pg_sys::EState,
    );
}

/// Raises 23502 and 23514 if a row violates a constraint of its table.
///
/// # Safety
/// All are live and belong together.
pub(super) unsafe fn check_constraints(
    relation_info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    // SAFETY: the caller guarantees it.
    unsafe { call_for_client(|| ExecConstraints(relation_info, slot, estate)) }
}

/// Frees the memory that CHECK constraints and index expressions used.
///
/// # Safety
/// `state` is live.
pub(super) unsafe fn forget_expressions(state: *mut pg_sys::EState) {
    // SAFETY: the caller guarantees it; null until an expression is first evaluated.
    unsafe {
        let context = (*state).es_per_tuple_exprcontext;
        if !context.is_null() {
            pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
        }
    }
}

/// # Safety
/// `expression` and `state` are live; `is_null` can be written.
unsafe fn evaluate(
    expression: *mut pg_sys::ExprState,
    state: *mut pg_sys::EState,
    is_null: *mut bool,
) -> pg_sys::Datum {
    // SAFETY: the caller guarantees it. The result lives in the current (batch's) context. The evaluation function raises
    // PostgreSQL errors itself, so it is called through `whole`.
    unsafe {
        let context = if (*state).es_per_tuple_exprcontext.is_null() {
            pg_sys::MakePerTupleExprContext(state)
        } else {
            (*state).es_per_tuple_exprcontext
        };
        match (*expression).evalfunc {
            Some(function) => call_for_client(|| function(expression, context, is_null)),
            None => {
                *is_null = true;
                pg_sys::Datum::null()
            }
        }
    }
}

/// The defaults of the columns that `access` does not insert, prepared for evaluation per row.
///
/// # Safety
/// The table is open.
unsafe fn other_defaults(access: &Access) -> Vec<(i16, Option<*mut pg_sys::ExprState>)> {
    let others = access.table.columns().into_iter().filter(|c| !access.inserted.contains(&c.number));
    others
        .map(|Column { number, .. }| {
            // SAFETY: an existing column of an open table; null when it has no default.
            let expression = unsafe {
                let node = pg_sys::build_column_default(access.table.raw(), i32::from(number));
                (!node.is_null()).then(|| {
                    let planned = pg_sys::expression_planner(node.cast());
                    pg_sys::ExecInitExpr(planned, std::ptr::null_mut())
                })
            };
            (number, expression)
        })
        .collect()
}
