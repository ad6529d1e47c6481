//! What lasts as long as a transaction or a session: locks, snapshots, what is shown of progress.

use crate::server::{assert_free, be_cancelled, error_of, fail, kept, sql, sqlstate_of, text, undone};
use fhir_bulk_pg::lock::Key;
use fhir_bulk_pg::progress::{self, Copying, Work};
use fhir_bulk_pg::transaction;
use pgrx::pg_schema;

/// A key of a test's own; tests run at once.
pub fn key(object: u32) -> Key {
    Key { class: 1.into(), object, part: 0 }
}

/// What others see this session copy.
fn shown() -> String {
    sql("SELECT pg_stat_clear_snapshot()");
    text("SELECT coalesce(max(tuples_processed), -1) FROM pg_stat_progress_copy WHERE pid = pg_backend_pid()")
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn work_under_the_catalogues_snapshot_can_fail() {
        for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || transaction::in_catalog_snapshot(work));
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_free();
        }
        undone(|| transaction::in_catalog_snapshot(|| sql("SELECT 1")));
        assert_eq!(transaction::in_catalog_snapshot(|| text("SELECT 'on'")), "on");
    }

    #[pg_test]
    fn a_sessions_lock_outlives_a_subtransaction_that_is_undone() {
        let key = key(1);
        assert!(key.is_free());
        undone(move || assert!(key.try_take()));
        assert!(!key.is_free());
        assert_eq!(sqlstate_of(fail), "22012");
        assert!(!key.is_free());
        assert!(key.keep());
        key.release();
        key.release();
        assert!(key.is_free());
    }

    #[pg_test]
    fn a_transactions_lock_goes_with_its_subtransaction() {
        let key = key(2);
        for work in [fail as fn(), be_cancelled, || panic!("ours")] {
            error_of(move || {
                key.wait_in_transaction();
                work();
            });
            assert!(key.is_free());
        }
        undone(move || key.wait_in_transaction());
        assert!(key.is_free());
        kept(move || key.wait_in_transaction());
        assert!(!key.is_free());
    }

    #[pg_test]
    fn progress_is_shown_no_more_after_an_error() {
        let show = |rows| progress::show(Copying::From { read_bytes: 1, all_bytes: None }, rows, Work::Task(1, 1));
        for work in [fail as fn(), be_cancelled, || panic!("ours")] {
            error_of(move || {
                show(7);
                assert_eq!(shown(), "7");
                work();
            });
            assert_eq!(shown(), "-1");
        }
        show(8);
        show(9);
        assert_eq!(shown(), "9");
        progress::end();
        assert_eq!(shown(), "-1");
    }
}
