//! Shares work with parallel workers, as parallel queries do. These helpers work in the same transaction, under the same
//! snapshot, role and settings. If one fails, all fail.

use super::worker;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The keys of the chunks in shared memory.
const SHARED: u64 = 1;
const INPUT: u64 = 2;
const RESULTS: u64 = 3;
/// How many numbers participants share for their own use.
pub const COUNTERS: usize = 2;
/// The size of a helper's result in shared memory, with its length.
pub const RESULT_BYTES: usize = 4 << 20;

/// The state that all participants share.
#[repr(C)]
struct Shared {
    next: AtomicU32,
    total: AtomicU64,
    counters: [AtomicU64; COUNTERS],
    input_bytes: u64,
}

impl Shared {
    fn new(input_bytes: u64) -> Shared {
        Shared { next: AtomicU32::new(0), total: AtomicU64::new(0), counters: Default::default(), input_bytes }
    }
}

/// One participant's view of the work.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    shared: &'a Shared,
    input: &'a [u8],
    alone: bool,
}

impl<'a> Part<'a> {
    /// The input, which is the same for all participants.
    pub fn input(&self) -> &'a [u8] {
        self.input
    }

    /// Whether this is the only participant: the caller wanted no helper, or the server had none left.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Takes the next piece of the work, counted from 0. Each piece goes to one participant.
    pub fn take(&self) -> usize {
        self.shared.next.fetch_add(1, Ordering::Relaxed) as usize
    }

    /// Other numbers that all participants share, and that the work may use as it likes. They begin at 0.
    pub fn counters(&self) -> &'a [AtomicU64; COUNTERS] {
        &self.shared.counters
    }

    /// Adds to the shared total, and returns the new total. Ends this process if the server has ended.
    pub fn add(&self, count: u64) -> u64 {
        worker::end_without_server();
        self.shared.total.fetch_add(count, Ordering::Relaxed) + count
    }
}

/// What helpers run: an exported function, which calls [`help`].
#[derive(Clone, Copy)]
pub struct Help {
    /// The library that exports it, by its installed name.
    pub library: &'static CStr,
    /// Its name.
    pub function: &'static CStr,
}

/// Starts up to `helpers` processes, which call a function, while this process runs `work`. All get `input`. Returns the
/// result of this process, and those of the helpers.
pub fn run<T>(help: Help, helpers: usize, input: &[u8], work: impl FnOnce(Part<'_>) -> T) -> (T, Vec<Vec<u8>>) {
    if helpers == 0 {
        // Not in parallel mode: the work may do what parallel queries may not do.
        let shared = Shared::new(0);
        return (work(Part { shared: &shared, input, alone: true }), Vec::new());
    }
    // SAFETY: the sequence of src/backend/access/transam/README.parallel. The chunks have the requested size and are aligned
    // for any type; they live until the context is destroyed. After an error the transaction's end ends the helpers and
    // destroys the context.
    unsafe {
        pg_sys::EnterParallelMode();
        let context = pg_sys::CreateParallelContext(help.library.as_ptr(), help.function.as_ptr(), helpers as i32);
        for bytes in [size_of::<Shared>(), input.len(), helpers * RESULT_BYTES] {
            estimate(&mut (*context).estimator, bytes);
        }
        pg_sys::InitializeParallelDSM(context);
        let allocate = |key, bytes| {
            let chunk = pg_sys::shm_toc_allocate((*context).toc, bytes);
            pg_sys::shm_toc_insert((*context).toc, key, chunk);
            chunk.cast::<u8>()
        };
        let shared = allocate(SHARED, size_of::<Shared>()).cast::<Shared>();
        shared.write(Shared::new(input.len() as u64));
        allocate(INPUT, input.len()).copy_from_nonoverlapping(input.as_ptr(), input.len());
        let results = allocate(RESULTS, helpers * RESULT_BYTES);
        results.write_bytes(0, helpers * RESULT_BYTES);
        pg_sys::LaunchParallelWorkers(context);
        let launched = (*context).nworkers_launched as usize;
        let done = work(Part { shared: &*shared, input, alone: launched == 0 });
        pg_sys::WaitForParallelWorkersToFinish(context);
        let result = |number: usize| {
            let start = results.add(number * RESULT_BYTES);
            let length = start.cast::<u64>().read_unaligned() as usize;
            std::slice::from_raw_parts(start.add(size_of::<u64>()), length).to_vec()
        };
        let from_helpers = (0..launched).map(result).collect();
        pg_sys::DestroyParallelContext(context);
        pg_sys::ExitParallelMode();
        (done, from_helpers)
    }
}

/// Runs a helper: `work` returns its result. Raises 54000 if the result is too long.
pub fn help(Toc(toc): Toc, work: impl FnOnce(Part<'_>) -> Vec<u8>) {
    // SAFETY: PostgreSQL made the argument, so the chunks are those of `run`, which waits for this process before it frees
    // them. The numbers are atomic; each helper writes to its own part of the results.
    unsafe {
        let find = |key| pg_sys::shm_toc_lookup(toc, key, false);
        let shared = &*find(SHARED).cast::<Shared>();
        let input = std::slice::from_raw_parts(find(INPUT).cast::<u8>(), shared.input_bytes as usize);
        let result = work(Part { shared, input, alone: false });
        if result.len() > RESULT_BYTES - size_of::<u64>() {
            let message = format!("the result of a parallel worker is longer than {RESULT_BYTES} bytes");
            pgrx::ereport!(ERROR, pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, message);
        }
        let start = find(RESULTS).cast::<u8>().add(pg_sys::ParallelWorkerNumber as usize * RESULT_BYTES);
        start.cast::<u64>().write_unaligned(result.len() as u64);
        start.add(size_of::<u64>()).copy_from_nonoverlapping(result.as_ptr(), result.len());
    }
}

/// The table of the chunks, which PostgreSQL passes to the function that [`run`] names. Only PostgreSQL can make one.
#[repr(transparent)]
pub struct Toc(*mut pg_sys::shm_toc);

/// Adds the space of a chunk and its key, as PostgreSQL's macros do (`shm_toc.h`).
fn estimate(estimator: &mut pg_sys::shm_toc_estimator, bytes: usize) {
    estimator.space_for_chunks += bytes.next_multiple_of(pg_sys::ALIGNOF_BUFFER as usize);
    estimator.number_of_keys += 1;
}
