//! Stores rows in pages that are added to a table for them, filled as a whole: a page is made in memory, and copied once.
//! `heap_multi_insert` stores the same on any page, and writes the same records of the log; but before it does, it makes a
//! tuple of each row, and (before PostgreSQL 16) has the system extend the file page by page, which costs more than all the
//! rest.

use super::compat;
use super::mapped;
use super::session::check_for_interrupts;
use super::whole::call_for_client;
use pgrx::pg_sys;
use std::collections::VecDeque;

const PAGE: usize = pg_sys::BLCKSZ as usize;
/// `SizeOfPageHeaderData`, where a page's line pointers begin.
const HEADER: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp);
const LINE_POINTER: usize = size_of::<pg_sys::ItemIdData>();
const TUPLE_HEADER: usize = std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits);
/// `MaxHeapTupleSize`.
const LARGEST_TUPLE: usize = PAGE - align(HEADER + LINE_POINTER);
/// `MaxHeapTuplesPerPage`.
const MOST_TUPLES: usize = (PAGE - HEADER) / (align(TUPLE_HEADER) + LINE_POINTER);
/// `TOAST_TUPLE_THRESHOLD`: of rows that are longer, four would not fit on a page.
const TOAST_THRESHOLD: usize = ((PAGE - align(HEADER + 4 * LINE_POINTER)) / 4) & !7;

/// Fewer rows than fill so many pages go where there is room, as those of INSERT do.
const FEWEST: usize = 16;
/// So many pages are added at once, unless the server has few buffers.
const MOST_AT_ONCE: usize = 64;

// heapam_xlog.h
const XLOG_HEAP2_MULTI_INSERT: u8 = 0x50;
const XLOG_HEAP_INIT_PAGE: u8 = 0x80;
const XLH_INSERT_LAST_IN_MULTI: u8 = 1 << 1;
const XLH_INSERT_CONTAINS_NEW_TUPLE: u8 = 1 << 3;

unsafe extern "C-unwind" {
    // htup_details.h, heaptoast.h, predicate.h; not pgrx's wrappers, where there are any, as `whole` asks.
    fn heap_compute_data_size(
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        is_null: *const bool,
    ) -> usize;
    fn heap_fill_tuple(
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        is_null: *const bool,
        data: *mut u8,
        size: usize,
        infomask: *mut u16,
        bits: *mut u8,
    );
    fn heap_form_tuple(
        descriptor: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        is_null: *const bool,
    ) -> pg_sys::HeapTuple;
    fn heap_toast_insert_or_update(
        table: pg_sys::Relation,
        new: pg_sys::HeapTuple,
        old: pg_sys::HeapTuple,
        options: i32,
    ) -> pg_sys::HeapTuple;
    fn CheckForSerializableConflictIn(table: pg_sys::Relation, place: pg_sys::ItemPointer, page: pg_sys::BlockNumber);
}

const fn align(size: usize) -> usize {
    size.next_multiple_of(8)
}

/// Inserts rows into new pages of one table.
pub(super) struct NewPages {
    table: pg_sys::Relation,
    /// The table's descriptor, as the slots have it.
    descriptor: pg_sys::TupleDesc,
    /// Whether rows go into new pages even where others have room.
    always: bool,
    /// Whether rows are in some already.
    has_rows: bool,
    /// What each page keeps free for later versions of its rows (`fillfactor`).
    spare: usize,
    page: PageImage,
    /// Pages that were added, and not needed yet.
    left: VecDeque<pg_sys::BlockNumber>,
    /// The first and the last buffer of the pages that were added last.
    ends: Option<(pg_sys::Buffer, pg_sys::Buffer)>,
}

impl NewPages {
    /// Prepares to insert into a heap. None if pages can't be added so: those of temporary tables are in no shared buffer,
    /// and of some others `heap_multi_insert` logs more, or nothing.
    ///
    /// # Safety
    /// The table is open and locked; it and the descriptor live as long as the result.
    pub unsafe fn of(table: pg_sys::Relation, descriptor: pg_sys::TupleDesc, always: bool) -> Option<NewPages> {
        // SAFETY: the caller guarantees it. A table's options, if it has some, are StdRdOptions.
        unsafe {
            let is_permanent = (*(*table).rd_rel).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
            let is_logged = pg_sys::wal_level > pg_sys::WalLevel::WAL_LEVEL_MINIMAL as i32;
            let options = (*table).rd_options.cast::<pg_sys::StdRdOptions>().as_ref();
            let is_catalog = options.is_some_and(|options| options.user_catalog_table);
            let filled = options.map_or(100, |options| options.fillfactor.clamp(10, 100) as usize);
            (is_permanent && is_logged && !is_catalog).then(|| NewPages {
                table,
                descriptor,
                always,
                has_rows: false,
                spare: PAGE * (100 - filled) / 100,
                page: PageImage::default(),
                left: VecDeque::new(),
                ends: None,
            })
        }
    }

    /// Whether the rows of these slots are for new pages: enough to fill some, while no other page has room. Where later rows
    /// must have higher places, all that follow rows in new pages are.
    ///
    /// # Safety
    /// As for [`NewPages::store`].
    pub unsafe fn are_for(&self, slots: &[*mut pg_sys::TupleTableSlot]) -> bool {
        if self.always && self.has_rows {
            return true;
        }
        let mut bytes = 0;
        // SAFETY: the caller's; the table is open.
        unsafe {
            let is_enough = call_for_client(|| {
                slots.iter().any(|slot| {
                    bytes += heap_compute_data_size(self.descriptor, (**slot).tts_values, (**slot).tts_isnull);
                    bytes >= FEWEST * PAGE
                })
            });
            let has_room = || pg_sys::GetPageWithFreeSpace(self.table, PAGE / 2) != pg_sys::InvalidBlockNumber;
            is_enough && (self.always || !has_room())
        }
    }

    /// Stores the rows of slots, and sets each slot's place, as `heap_multi_insert` does. Everything opened here is closed
    /// when it returns, so that it may run in a subtransaction.
    ///
    /// # Safety
    /// The slots are filled, and of this table. What is allocated in the current context lives until this returns.
    pub unsafe fn store(&mut self, slots: &[*mut pg_sys::TupleTableSlot], command: pg_sys::CommandId) {
        // SAFETY: the table is open, and locked for writing, inside a transaction.
        let stamp = unsafe {
            let (table, nothing) = (self.table, std::ptr::null_mut());
            call_for_client(|| CheckForSerializableConflictIn(table, nothing, pg_sys::InvalidBlockNumber));
            Stamp { xid: pg_sys::GetCurrentTransactionId(), command }
        };
        // One of a store that failed is gone.
        self.page.ready = None;
        self.has_rows = true;
        let mut pinned = VecDeque::new();
        let mut at = 0;
        while at < slots.len() {
            check_for_interrupts();
            // SAFETY: the caller's; the image is a page of this table's rows.
            unsafe {
                let count = self.make_page(&slots[at..], stamp);
                let buffer = self.next_page(&mut pinned, (slots.len() - at) / count);
                let block = self.page.write(buffer, at + count == slots.len());
                for (number, slot) in slots[at..at + count].iter().enumerate() {
                    (**slot).tts_tableOid = (*self.table).rd_id;
                    (**slot).tts_tid = place(block, number);
                }
                at += count;
            }
        }
        // SAFETY: this transaction has stored the rows; the pages are pinned, and not locked.
        unsafe {
            pg_sys::pgstat_count_heap_insert(self.table, slots.len() as _);
            for buffer in pinned {
                self.left.push_back(pg_sys::BufferGetBlockNumber(buffer));
                pg_sys::ReleaseBuffer(buffer);
            }
        }
    }

    /// Makes a page of the first rows. Returns how many they are: one at least. Raises 54000 for a row that no page has room
    /// for.
    ///
    /// # Safety
    /// As for [`NewPages::store`].
    unsafe fn make_page(&mut self, slots: &[*mut pg_sys::TupleTableSlot], stamp: Stamp) -> usize {
        let NewPages { table, descriptor, spare, page, .. } = self;
        let (table, descriptor, spare) = (*table, *descriptor, *spare);
        page.clear();
        // SAFETY: the caller's; nothing needs a Drop.
        let too_long = unsafe {
            call_for_client(|| {
                for slot in slots.iter().copied() {
                    match page.push(Row { table, descriptor, slot, spare, stamp }) {
                        Pushed::Yes => {}
                        Pushed::NoRoom => break,
                        Pushed::TooLong(length) => return Some(length),
                    }
                }
                None
            })
        };
        if let Some(length) = too_long {
            let message = format!("row is too big: size {length}, maximum size {LARGEST_TUPLE}");
            pgrx::ereport!(ERROR, pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message);
        }
        page.count
    }

    /// A new page, locked: the next of `wanted`.
    ///
    /// # Safety
    /// The table is open.
    unsafe fn next_page(&mut self, pinned: &mut VecDeque<pg_sys::Buffer>, wanted: usize) -> pg_sys::Buffer {
        loop {
            // SAFETY: the caller's; the pages are the table's.
            unsafe {
                let buffer = if let Some(block) = self.left.pop_front() {
                    pg_sys::ReadBuffer(self.table, block)
                } else if let Some(buffer) = pinned.pop_front() {
                    buffer
                } else {
                    // Others need buffers, too.
                    let share = (pg_sys::NBuffers / pg_sys::MaxBackends.max(1)).max(1) as usize;
                    let count = wanted.clamp(1, MOST_AT_ONCE.min(share));
                    if let Some((first, last)) = self.ends {
                        mapped::expect(last, first <= last, count);
                    }
                    compat::add_pages(self.table, count, pinned);
                    self.ends = pinned.front().copied().zip(pinned.back().copied());
                    continue;
                };
                pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_EXCLUSIVE as _);
                // Another session that looked for room may have found it.
                if is_new(buffer) {
                    return buffer;
                }
                pg_sys::UnlockReleaseBuffer(buffer);
            }
        }
    }

    /// Lets others have the pages that were not needed.
    pub fn close(self) {
        for block in self.left {
            // SAFETY: a page of the table, which is open.
            unsafe { pg_sys::RecordPageWithFreeSpace(self.table, block, PAGE - HEADER) };
        }
    }
}

#[derive(Clone, Copy)]
struct Stamp {
    xid: pg_sys::TransactionId,
    command: pg_sys::CommandId,
}

/// A row of a table, and how it is stored.
#[derive(Clone, Copy)]
struct Row {
    table: pg_sys::Relation,
    descriptor: pg_sys::TupleDesc,
    slot: *mut pg_sys::TupleTableSlot,
    /// See [`NewPages::spare`].
    spare: usize,
    stamp: Stamp,
}

/// What became of a row.
enum Pushed {
    Yes,
    NoRoom,
    /// It is longer than a page, with so many bytes.
    TooLong(usize),
}

/// A page that is filled, and the record of the log that says so.
struct PageImage {
    /// 8-byte units, because pages are aligned.
    image: Box<[u64; PAGE / 8]>,
    count: usize,
    /// Where its line pointers end, and where its tuples begin.
    lower: usize,
    upper: usize,
    /// What the log has of its tuples.
    log: Vec<u8>,
    /// A row that is longer than [`TOAST_THRESHOLD`], made ready already, and for which the page before had no room.
    ready: Option<pg_sys::HeapTuple>,
}

impl Default for PageImage {
    fn default() -> PageImage {
        let log = Vec::with_capacity(2 * PAGE);
        PageImage { image: Box::new([0; PAGE / 8]), count: 0, lower: HEADER, upper: PAGE, log, ready: None }
    }
}

impl PageImage {
    fn clear(&mut self) {
        // Padding is zero.
        self.image.fill(0);
        self.log.clear();
        (self.count, self.lower, self.upper) = (0, HEADER, PAGE);
    }

    /// Adds a row.
    ///
    /// # Safety
    /// As for [`NewPages::store`]. Errors of PostgreSQL jump out of here.
    unsafe fn push(&mut self, row: Row) -> Pushed {
        let Row { descriptor, slot, spare, stamp, .. } = row;
        // SAFETY: the caller's: the slot's arrays have an element for each column. The tuple is made on the image as
        // `heap_form_tuple` makes it.
        unsafe {
            let columns = (*descriptor).natts as usize;
            let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
            let has_nulls = std::slice::from_raw_parts(nulls, columns).contains(&true);
            let start = align(TUPLE_HEADER + if has_nulls { columns.div_ceil(8) } else { 0 });
            let data = heap_compute_data_size(descriptor, values, nulls);
            if start + data > TOAST_THRESHOLD {
                return self.push_long(row);
            }
            let Some(tuple) = self.place(start + data, spare) else { return Pushed::NoRoom };
            (*tuple).t_hoff = start as u8;
            (*tuple).t_infomask2 = columns as u16;
            let bits = if has_nulls { tuple.byte_add(TUPLE_HEADER).cast() } else { std::ptr::null_mut() };
            let infomask = &raw mut (*tuple).t_infomask;
            heap_fill_tuple(descriptor, values, nulls, tuple.byte_add(start).cast(), data, infomask, bits);
            if (*tuple).t_infomask & pg_sys::HEAP_HASEXTERNAL as u16 != 0 {
                // A default that is kept in another table.
                self.take_back(start + data);
                return self.push_long(row);
            }
            self.finish(tuple, start + data, stamp);
            Pushed::Yes
        }
    }

    /// Adds a row whose long values are compressed, or kept elsewhere: those are stored before the page is.
    ///
    /// # Safety
    /// As for [`PageImage::push`].
    unsafe fn push_long(&mut self, row: Row) -> Pushed {
        let Row { table, descriptor, slot, spare, stamp } = row;
        // SAFETY: the caller's. `ready` is of this slot: it had no room on the page before.
        unsafe {
            let ready = self.ready.take().unwrap_or_else(|| {
                let formed = heap_form_tuple(descriptor, (*slot).tts_values, (*slot).tts_isnull);
                heap_toast_insert_or_update(table, formed, std::ptr::null_mut(), 0)
            });
            let length = (*ready).t_len as usize;
            if length > LARGEST_TUPLE {
                return Pushed::TooLong(length);
            }
            let Some(tuple) = self.place(length, spare) else {
                self.ready = Some(ready);
                return Pushed::NoRoom;
            };
            std::ptr::copy_nonoverlapping((*ready).t_data.cast::<u8>(), tuple.cast(), length);
            self.finish(tuple, length, stamp);
            Pushed::Yes
        }
    }

    /// Room for a tuple, and its line pointer. A page without tuples has room for each.
    fn place(&mut self, length: usize, spare: usize) -> Option<*mut pg_sys::HeapTupleHeaderData> {
        let is_full = self.upper - self.lower < LINE_POINTER + align(length) + spare || self.count == MOST_TUPLES;
        if self.count > 0 && is_full {
            return None;
        }
        self.upper -= align(length);
        let mut pointer = pg_sys::ItemIdData::default();
        pointer.set_lp_off(self.upper as u32);
        pointer.set_lp_flags(pg_sys::LP_NORMAL);
        pointer.set_lp_len(length as u32);
        // SAFETY: both are on the page: a tuple is at most as long as LARGEST_TUPLE.
        unsafe {
            let page = self.image.as_mut_ptr().cast::<u8>();
            page.add(self.lower).cast::<pg_sys::ItemIdData>().write(pointer);
            self.lower += LINE_POINTER;
            self.count += 1;
            Some(page.add(self.upper).cast())
        }
    }

    /// Takes back the last tuple that was placed, with its length.
    fn take_back(&mut self, length: usize) {
        let units = self.upper / 8..(self.upper + align(length)) / 8;
        self.image[units].fill(0);
        self.upper += align(length);
        self.lower -= LINE_POINTER;
        self.count -= 1;
    }

    /// Stamps a tuple that has its values, and has the log say what it is.
    ///
    /// # Safety
    /// It is the last one that was placed, with its length.
    unsafe fn finish(&mut self, tuple: *mut pg_sys::HeapTupleHeaderData, length: usize, stamp: Stamp) {
        // SAFETY: the caller's.
        unsafe {
            let header = &mut *tuple;
            header.t_infomask = header.t_infomask & !(pg_sys::HEAP_XACT_MASK as u16) | pg_sys::HEAP_XMAX_INVALID as u16;
            header.t_choice.t_heap.t_xmin = stamp.xid;
            header.t_choice.t_heap.t_xmax = pg_sys::InvalidTransactionId;
            header.t_choice.t_heap.t_field3.t_cid = stamp.command;
            if !self.log.len().is_multiple_of(2) {
                self.log.push(0);
            }
            let data = std::slice::from_raw_parts(tuple.cast::<u8>().add(TUPLE_HEADER), length - TUPLE_HEADER);
            // xl_multi_insert_tuple, without the padding at its end.
            self.log.extend_from_slice(&(data.len() as u16).to_ne_bytes());
            self.log.extend_from_slice(&header.t_infomask2.to_ne_bytes());
            self.log.extend_from_slice(&header.t_infomask.to_ne_bytes());
            self.log.push(header.t_hoff);
            self.log.extend_from_slice(data);
        }
    }

    /// Copies the image into a new page, logs it, and unlocks the page. Returns its block.
    ///
    /// # Safety
    /// The buffer is pinned, locked for writing, and a new page of the table.
    unsafe fn write(&mut self, buffer: pg_sys::Buffer, is_last: bool) -> pg_sys::BlockNumber {
        // SAFETY: the caller's. Nothing between the two changes of CritSectionCount can fail but by the end of the server, and
        // what it needs is allocated before: an insertion into the log has its memory since the process started.
        unsafe {
            let block = pg_sys::BufferGetBlockNumber(buffer);
            let page = self.image.as_mut_ptr().cast::<u8>();
            let header = &mut *page.cast::<pg_sys::PageHeaderData>();
            (header.pd_lower, header.pd_upper) = (self.lower as u16, self.upper as u16);
            header.pd_special = PAGE as u16;
            header.pd_pagesize_version = (PAGE as u32 | pg_sys::PG_PAGE_LAYOUT_VERSION) as u16;
            for number in 0..self.count {
                let pointer = *page.add(HEADER + number * LINE_POINTER).cast::<pg_sys::ItemIdData>();
                let tuple = page.add(pointer.lp_off() as usize).cast::<pg_sys::HeapTupleHeaderData>();
                (*tuple).t_ctid = place(block, number);
            }
            let mut flags = if is_last { XLH_INSERT_LAST_IN_MULTI } else { 0 };
            if pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32 {
                flags |= XLH_INSERT_CONTAINS_NEW_TUPLE;
            }
            // xl_heap_multi_insert; the rows of a new page are numbered from 1.
            let [low, high] = (self.count as u16).to_ne_bytes();
            let mut head = [flags, 0, low, high];
            let to = pg_sys::BufferGetPage(buffer).cast::<u8>();

            pg_sys::CritSectionCount += 1;
            std::ptr::copy_nonoverlapping(page, to, PAGE);
            pg_sys::MarkBufferDirty(buffer);
            pg_sys::XLogBeginInsert();
            pg_sys::XLogRegisterData(head.as_mut_ptr().cast(), head.len() as _);
            let how = pg_sys::REGBUF_STANDARD | pg_sys::REGBUF_WILL_INIT | pg_sys::REGBUF_KEEP_DATA;
            pg_sys::XLogRegisterBuffer(0, buffer, how as u8);
            pg_sys::XLogRegisterBufData(0, self.log.as_mut_ptr().cast(), self.log.len() as _);
            pg_sys::XLogSetRecordFlags(pg_sys::XLOG_INCLUDE_ORIGIN as u8);
            let end =
                pg_sys::XLogInsert(pg_sys::RmgrIds::RM_HEAP2_ID as u8, XLOG_HEAP2_MULTI_INSERT | XLOG_HEAP_INIT_PAGE);
            let to = &mut *to.cast::<pg_sys::PageHeaderData>();
            to.pd_lsn = pg_sys::PageXLogRecPtr { xlogid: (end >> 32) as u32, xrecoff: end as u32 };
            pg_sys::CritSectionCount -= 1;

            pg_sys::UnlockReleaseBuffer(buffer);
            block
        }
    }
}

/// Whether nobody has used a page yet.
///
/// # Safety
/// The buffer is locked.
unsafe fn is_new(buffer: pg_sys::Buffer) -> bool {
    // SAFETY: the caller's.
    unsafe { (*pg_sys::BufferGetPage(buffer).cast::<pg_sys::PageHeaderData>()).pd_upper == 0 }
}

/// The place of a page's row, counted from 0.
fn place(block: pg_sys::BlockNumber, number: usize) -> pg_sys::ItemPointerData {
    let ip_blkid = pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 };
    pg_sys::ItemPointerData { ip_blkid, ip_posid: number as u16 + 1 }
}
