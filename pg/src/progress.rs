//! What `pg_stat_progress_copy` shows of this process: shared memory that costs a few stores to write.

use pgrx::pg_sys;

/// Which way rows go.
#[derive(Clone, Copy, Debug)]
pub enum Copying {
    /// From a source.
    From {
        /// So much of it, as it is stored, has been read.
        read_bytes: u64,
        /// So much there is in all, if that is known.
        all_bytes: Option<u64>,
    },
    /// To somewhere else.
    To {
        /// So much has been written.
        written_bytes: u64,
    },
}

/// Where the numbers that are shown stand among all.
const PLACES: [i32; 7] = [
    pg_sys::PROGRESS_COPY_COMMAND as i32,
    pg_sys::PROGRESS_COPY_TYPE as i32,
    pg_sys::PROGRESS_COPY_BYTES_PROCESSED as i32,
    pg_sys::PROGRESS_COPY_BYTES_TOTAL as i32,
    pg_sys::PROGRESS_COPY_TUPLES_PROCESSED as i32,
    pg_sys::PGSTAT_NUM_PROGRESS_PARAM as i32 - 2,
    pg_sys::PGSTAT_NUM_PROGRESS_PARAM as i32 - 1,
];

/// What is shown of whose rows.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A job's task: the last two of the twenty numbers, which the view leaves out, say which.
    Task(i64, i32),
    /// A COPY of a relation, if it is of one.
    Copy {
        /// InvalidOid for a query.
        relation: pg_sys::Oid,
        /// Where from, or where to.
        through: Through,
    },
}

/// As the view's column `type` has it.
#[derive(Clone, Copy, Debug)]
pub enum Through {
    /// A file on the server.
    File,
    /// A program on the server.
    Program,
    /// The client.
    Pipe,
}

/// Shows how many rows have been copied, until [`end`] or the transaction fails.
pub fn show(copying: Copying, rows: u64, work: Work) {
    let (command, read_bytes, all_bytes) = match copying {
        Copying::From { read_bytes, all_bytes } => (pg_sys::PROGRESS_COPY_COMMAND_FROM, read_bytes, all_bytes),
        Copying::To { written_bytes } => (pg_sys::PROGRESS_COPY_COMMAND_TO, written_bytes, None),
    };
    let (relation, kind, (job, number)) = match work {
        Work::Task(job, number) => (pg_sys::InvalidOid, pg_sys::PROGRESS_COPY_TYPE_CALLBACK, (job, number)),
        Work::Copy { relation, through } => {
            let kind = match through {
                Through::File => pg_sys::PROGRESS_COPY_TYPE_FILE,
                Through::Program => pg_sys::PROGRESS_COPY_TYPE_PROGRAM,
                Through::Pipe => pg_sys::PROGRESS_COPY_TYPE_PIPE,
            };
            (relation, kind, (0, 0))
        }
    };
    let values: [i64; PLACES.len()] = [
        command.into(),
        kind.into(),
        read_bytes as i64,
        all_bytes.unwrap_or_default() as i64,
        rows as i64,
        job,
        number.into(),
    ];
    // Commands that are run meanwhile may have shown theirs: that which builds an index of a new table does.
    begin(relation);
    // SAFETY: as many places as values, all below the number of parameters.
    unsafe { pg_sys::pgstat_progress_update_multi_param(PLACES.len() as i32, PLACES.as_ptr(), values.as_ptr()) }
}

/// Shows nothing more.
pub fn end() {
    // SAFETY: this process's own entry.
    unsafe { pg_sys::pgstat_progress_end_command() }
}

/// Begins to show this process's progress as that of a COPY, unless it does already.
fn begin(relation: pg_sys::Oid) {
    // SAFETY: this process's own entry, if it has one.
    unsafe {
        use pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY;
        if !pg_sys::MyBEEntry.is_null() && (*pg_sys::MyBEEntry).st_progress_command != PROGRESS_COMMAND_COPY {
            pg_sys::pgstat_progress_start_command(PROGRESS_COMMAND_COPY, relation);
        }
    }
}
