//! How often a task tries again what temporary errors stop.

use super::patience::Patience;
use crate::citus;
use fhir_bulk_pg::error::Error;
use fhir_bulk_pg::{transaction, worker};
use pgrx::PgSqlErrorCode;
use std::time::Duration;

/// How often in a row.
const MOST: u32 = 10;
/// The longest wait before another try. The first wait is a thousandth of it; each next one is twice as long.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The tries of a task.
#[derive(Default)]
pub struct Tries {
    failures: u32,
    patience: Patience,
}

impl Tries {
    /// Waits, if another try may succeed. False if it would fail, too, or there have been enough. `again` says in the log
    /// what begins again.
    pub fn wait(&mut self, error: &Error, again: &str) -> bool {
        if error.is_of_server_away() {
            worker::log(again);
            return self.patience.wait(error);
        }
        self.failures += 1;
        if !may_pass(error) || self.failures == MOST {
            return false;
        }
        worker::log(again);
        worker::wait(LONGEST_WAIT / 1000 * 2_u32.pow(self.failures - 1));
        true
    }

    /// Begins anew, after the task has got on.
    pub fn renew(&mut self) {
        *self = Tries::default();
    }
}

/// Whether another try may succeed: after a deadlock, a serialization failure, an interrupt that was not meant for the
/// task; with Citus also after an internal error, which is all that a commit says when one of its servers has ended, and
/// after an I/O error, which is what its COPY to a shard then says.
fn may_pass(error: &Error) -> bool {
    match error.code() {
        PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
        | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
        | PgSqlErrorCode::ERRCODE_QUERY_CANCELED => true,
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR | PgSqlErrorCode::ERRCODE_IO_ERROR => {
            transaction::run(|| Ok::<_, Error>(citus::is_here())).unwrap_or(false)
        }
        _ => false,
    }
}
