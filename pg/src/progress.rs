//! Shows this process's progress in `pg_stat_progress_copy`. An update costs a few stores to shared memory.

use pgrx::pg_sys;

/// The direction of the copy.
#[derive(Clone, Copy, Debug)]
pub enum Copying {
    /// From a source.
    From {
        /// How many bytes of the source have been read.
        read_bytes: u64,
        /// The size of the source, if it is known.
        all_bytes: Option<u64>,
    },
    /// To somewhere else.
    To {
        /// How many bytes have been written.
        written_bytes: u64,
    },
}

/// The indexes of the parameters that [`show`] sets.
const PLACES: [i32; 7] = [
    pg_sys::PROGRESS_COPY_COMMAND as i32,
    pg_sys::PROGRESS_COPY_TYPE as i32,
    pg_sys::PROGRESS_COPY_BYTES_PROCESSED as i32,
    pg_sys::PROGRESS_COPY_BYTES_TOTAL as i32,
    pg_sys::PROGRESS_COPY_TUPLES_PROCESSED as i32,
    pg_sys::PGSTAT_NUM_PROGRESS_PARAM as i32 - 2,
    pg_sys::PGSTAT_NUM_PROGRESS_PARAM as i32 - 1,
];

/// The owner of the rows that are shown.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A job's task: the last two of the twenty parameters, which the view does not show, say which.
    Task(i64, i32),
    /// A COPY.
    Copy {
        /// InvalidOid for a query.
        relation: pg_sys::Oid,
        /// The source or target.
        through: Through,
    },
}

/// The value of the view's column `type`.
#[derive(Clone, Copy, Debug)]
pub enum Through {
    /// A file on the server.
    File,
    /// A program on the server.
    Program,
    /// The client.
    Pipe,
}

/// Shows how many rows have been copied, until [`end`] or until the transaction fails.
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
    // A command within the task may have replaced the entry by its own: CREATE INDEX of a new table does.
    begin(relation);
    // SAFETY: as many indexes as values, all below the number of parameters.
    unsafe { pg_sys::pgstat_progress_update_multi_param(PLACES.len() as i32, PLACES.as_ptr(), values.as_ptr()) }
}

/// Ends the entry.
pub fn end() {
    // SAFETY: this process's own entry.
    unsafe { pg_sys::pgstat_progress_end_command() }
}

/// Begins the entry of a COPY, unless it has begun already.
fn begin(relation: pg_sys::Oid) {
    // SAFETY: this process's own entry, if it has one.
    unsafe {
        use pg_sys::ProgressCommandType::PROGRESS_COMMAND_COPY;
        if !pg_sys::MyBEEntry.is_null() && (*pg_sys::MyBEEntry).st_progress_command != PROGRESS_COMMAND_COPY {
            pg_sys::pgstat_progress_start_command(PROGRESS_COMMAND_COPY, relation);
        }
    }
}
