//! Queries that are read row by row, and work in which nothing can be written.

use crate::server::{assert_free, be_cancelled, cancel, error_of, fail, kept, sql, sqlstate_of, text, texts, undone};
use fhir_bulk_pg::cursor::{Calling, Cursor, Fetched, lock_reads};
use fhir_bulk_pg::error::{Error, or_raise};
use fhir_bulk_pg::query::Query;
use fhir_bulk_pg::read_only;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::iter::SetOfIterator;
use pgrx::pg_schema;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::ops::ControlFlow;
use std::rc::Rc;

const NUMBERS: &std::ffi::CStr = c"SELECT i::bigint FROM generate_series(1, 100) i";

/// The next row's number.
fn next(cursor: &mut Cursor) -> Option<i64> {
    let mut found = None;
    cursor
        .fetch(|row| {
            found = row.int8(0);
            Ok(ControlFlow::Break(()))
        })
        .unwrap();
    found
}

/// Locks of this session on a table.
fn locks(table: &str) -> Vec<String> {
    texts(&format!(
        "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = to_regclass('{table}') ORDER BY 1"
    ))
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::{pg_extern, pg_test};

    /// The numbers that a query gives, as they come.
    #[pg_extern]
    fn numbers(query: &str, calling: Calling) -> SetOfIterator<'static, i64> {
        let mut cursor = Cursor::open(&CString::new(query).unwrap(), &[]);
        cursor.close_with_statement(calling);
        SetOfIterator::new(std::iter::from_fn(move || next(&mut cursor)))
    }

    #[pg_test]
    fn a_query_that_cannot_be_planned_leaves_the_session_as_it_was() {
        assert_eq!(sqlstate_of(|| _ = Cursor::open(c"SELECT * FROM no_such_table", &[])), "42P01");
        assert_eq!(sqlstate_of(|| _ = Cursor::open(c"SELEC", &[Parameter::int8(1)])), "42601");
        assert_free();
    }

    #[pg_test]
    fn a_query_that_fails_can_be_caught_and_another_read() {
        let raised = error_of(|| {
            let mut cursor = Cursor::open(c"SELECT (10 / (5 - i))::bigint FROM generate_series(1, 9) i", &[]);
            cursor.fetch(|_| Ok(ControlFlow::Continue(()))).unwrap();
        });
        assert_eq!(raised.sqlstate, "22012", "{raised:?}");
        let mut cursor = Cursor::open(NUMBERS, &[]);
        assert_eq!((next(&mut cursor), next(&mut cursor)), (Some(1), Some(2)));
        cursor.close();
        assert_free();
    }

    #[pg_test]
    fn a_query_can_be_cancelled_between_two_rows() {
        let seen = Rc::new(Cell::new(0));
        let count = seen.clone();
        let sqlstate = sqlstate_of(move || {
            let mut cursor = Cursor::open(NUMBERS, &[]);
            cursor
                .fetch(|row| {
                    count.set(row.int8(0).unwrap());
                    if count.get() == 3 {
                        cancel();
                    }
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
        });
        assert_eq!((&*sqlstate, seen.get()), ("57014", 3));
        assert_free();
    }

    #[pg_test]
    fn what_a_row_is_handed_to_may_fail() {
        for (work, sqlstate) in [(fail as fn(), "22012"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || {
                Cursor::open(NUMBERS, &[])
                    .fetch(|_| {
                        work();
                        Ok(ControlFlow::Continue(()))
                    })
                    .unwrap();
            });
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_free();
        }
    }

    #[pg_test]
    fn what_a_row_is_handed_to_may_answer_with_an_error_after_which_the_query_goes_on() {
        let mut cursor = Cursor::open(NUMBERS, &[]);
        let answer = cursor.fetch(|_| Err(Error::invalid_argument("ours")));
        assert_eq!(answer.unwrap_err().sqlstate(), "22023");
        assert_eq!(next(&mut cursor), Some(2));
        cursor.close();
        let mut query = Query::open(NUMBERS, &[(c"work_mem", c"64kB")]).unwrap();
        let answer = query.fetch(|_| Err(Error::invalid_argument("ours")));
        assert_eq!(answer.unwrap_err().sqlstate(), "22023");
        assert_eq!(text("SELECT current_setting('work_mem')"), "4MB");
        assert_free();
    }

    #[pg_test]
    fn a_query_pauses_and_goes_on_and_ends() {
        let mut cursor = Cursor::open(c"SELECT i::bigint FROM generate_series(1, 3) i", &[]);
        assert_eq!((next(&mut cursor), next(&mut cursor)), (Some(1), Some(2)));
        assert_eq!(cursor.fetch(|_| Ok(ControlFlow::Continue(()))).unwrap(), Fetched::End);
        cursor.close();
    }

    #[pg_test]
    fn a_query_whose_memory_is_gone_is_an_error_and_no_crash() {
        let kept_too_long: Rc<RefCell<Option<Cursor>>> = Rc::default();
        let keep = kept_too_long.clone();
        // It belongs to the call that opens it, which ends.
        kept(move || _ = keep.replace(Some(Cursor::open(NUMBERS, &[]))));
        let raised = error_of(move || _ = next(kept_too_long.borrow_mut().as_mut().unwrap()));
        assert_eq!((&*raised.sqlstate, &*raised.message), ("XX000", "the query has been ended"));
        assert_free();
    }

    #[pg_test]
    fn a_query_that_is_ended_is_not_ended_twice_and_gives_no_rows() {
        let raised = error_of(|| {
            let mut cursor = Cursor::open(NUMBERS, &[]);
            cursor.close();
            cursor.close();
            next(&mut cursor);
        });
        assert_eq!(raised.message, "the query has been ended");
    }

    #[pg_test]
    fn a_query_goes_on_after_a_savepoint_in_which_it_was_begun_is_undone() {
        sql("CREATE TABLE numbered AS SELECT i::bigint FROM generate_series(1, 5000) i");
        sql("CREATE FUNCTION read_on() RETURNS text LANGUAGE plpgsql AS $$ \
             DECLARE c CURSOR FOR SELECT tests.numbers('SELECT i FROM numbered ORDER BY i'); a bigint; b bigint; \
             BEGIN OPEN c; \
               BEGIN FETCH c INTO a; PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END; \
               FETCH c INTO b; CLOSE c; RETURN b; END $$");
        assert_eq!(text("SELECT read_on()"), "2");
        // The table is nobody's any more.
        sql("DROP TABLE numbered");
    }

    #[pg_test]
    fn a_statement_that_stops_early_ends_its_query() {
        sql("CREATE TABLE first_few AS SELECT i::bigint FROM generate_series(1, 5000) i");
        assert_eq!(text("SELECT tests.numbers('SELECT i FROM first_few ORDER BY i') LIMIT 1"), "1");
        // Which a table that is in use would refuse.
        sql("ALTER TABLE first_few ADD COLUMN more int");
        let failing = || sql("SELECT 1 / (2 - tests.numbers('SELECT i FROM first_few ORDER BY i'))");
        assert_eq!(sqlstate_of(failing), "22012");
        sql("ALTER TABLE first_few DROP COLUMN more");
    }

    #[pg_test]
    fn locks_of_what_is_read_go_with_the_subtransaction() {
        sql("CREATE TABLE read_later (id int)");
        sql("CREATE VIEW seen_later AS SELECT * FROM read_later");
        // Which made it still holds the lock of CREATE; another table's place in the catalogue is free.
        let catalogue = "pg_largeobject_metadata";
        undone(|| lock_reads(c"SELECT * FROM pg_largeobject_metadata"));
        assert_eq!(locks(catalogue), [""; 0]);
        kept(|| lock_reads(c"SELECT * FROM pg_largeobject_metadata, seen_later"));
        assert_eq!(locks(catalogue), ["AccessShareLock"]);
        assert_eq!(sqlstate_of(|| lock_reads(c"SELECT * FROM no_such_table")), "42P01");
        assert_eq!(sqlstate_of(|| lock_reads(c"SELEC")), "42601");
        assert_free();
    }

    #[pg_test]
    fn statements_that_fail_or_are_cancelled_leave_spi_as_it_was() {
        assert_eq!(sqlstate_of(|| _ = spi::execute(c"SELECT 1/0", &[])), "22012");
        assert_eq!(sqlstate_of(|| _ = spi::texts(c"SELECT i / 0 FROM generate_series(1, 3) i", &[])), "22012");
        let cancelled = || {
            cancel();
            spi::texts_in_snapshot(c"SELECT count(*) FROM generate_series(1, 1000000)", &[]);
        };
        assert_eq!(sqlstate_of(cancelled), "57014");
        undone(|| _ = spi::execute(c"CREATE TABLE undone (id int)", &[]));
        assert_eq!(text("SELECT to_regclass('undone') IS NULL"), "t");
        assert_eq!(spi::texts(c"SELECT $1 || '!'", &[Parameter::string("on")]), ["on!"]);
    }

    #[pg_test]
    fn work_that_only_reads_ends_with_an_error_an_interrupt_or_a_panic() {
        for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || read_only::run(&[(c"work_mem", c"64kB")], work));
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_free();
            assert_eq!(text("SELECT current_setting('work_mem')"), "4MB");
        }
        undone(|| read_only::run(&[], || ()));
        assert_free();
        read_only::run(&[], || ());
        assert_free();
    }

    #[pg_test]
    fn a_panic_that_is_caught_in_the_same_subtransaction_leaves_nothing_confined() {
        kept(|| {
            let panicked = std::panic::catch_unwind(|| read_only::run(&[], || panic!("ours")));
            assert!(panicked.is_err());
            // Settings are put back by the end of the subtransaction; all else is at once.
            sql("CREATE ROLE after_panic; SET LOCAL ROLE after_panic; RESET ROLE; DROP ROLE after_panic");
            sql("CREATE TABLE after_panic (id int); DROP TABLE after_panic");
        });
    }

    #[pg_test]
    fn work_that_only_reads_stays_so_after_an_error_that_is_caught_in_it() {
        sql("CREATE TABLE kept_clean (id int)");
        read_only::run(&[], || {
            let refused = || {
                for statement in [
                    "INSERT INTO kept_clean VALUES (1)",
                    "CREATE TABLE another (id int)",
                    "CREATE TEMPORARY TABLE mine (id int)",
                    "SELECT set_config('work_mem', '1MB', false)",
                    "SELECT pg_advisory_lock(1)",
                    "SELECT lo_create(0)",
                    "SET work_mem = '1MB'",
                ] {
                    assert_eq!(sqlstate_of(move || sql(statement)), "25006", "{statement}");
                }
                assert!(matches!(&*sqlstate_of(|| sql("SET ROLE none")), "25006" | "42501"));
            };
            refused();
            assert_eq!(sqlstate_of(fail), "22012");
            assert_eq!(sqlstate_of(be_cancelled), "57014");
            undone(|| read_only::run(&[], || ()));
            refused();
        });
        assert_free();
    }

    #[pg_test]
    fn a_query_that_may_not_run_leaves_the_session_as_it_was() {
        for (query, sqlstate) in [
            (c"DELETE FROM pg_class", "25006"),
            (c"WITH d AS (DELETE FROM pg_class RETURNING 1) SELECT * FROM d", "25006"),
            (c"SELECT 1 AS a INTO made", "25006"),
            (c"SELECT 1; SELECT 2", "42601"),
            (c"", "42601"),
            (c"SELECT * FROM no_such_table", "42P01"),
        ] {
            let raised = error_of(move || _ = or_raise(Query::open(query, &[(c"work_mem", c"64kB")])));
            assert_eq!(raised.sqlstate, sqlstate, "{query:?}: {raised:?}");
            assert_free();
        }
        // An answer is no error of PostgreSQL: nothing is undone, and all is as it was.
        assert_eq!(Query::open(c"SELECT 1; SELECT 2", &[(c"work_mem", c"64kB")]).err().unwrap().sqlstate(), "42601");
        assert_eq!(text("SELECT current_setting('work_mem')"), "4MB");
        assert_free();
    }

    #[pg_test]
    fn a_query_of_somebody_else_that_fails_or_is_cancelled_leaves_the_session_as_it_was() {
        sql("CREATE FUNCTION becomes() RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('role', 'none', false); RETURN 1; END $$");
        for (query, sqlstate) in [
            (c"SELECT 1 / (3 - i) FROM generate_series(1, 9) i", "22012"),
            (c"SELECT becomes()", "25006"),
            (c"SELECT set_config('request.jwt.claims', 'them', false)", "25006"),
        ] {
            let raised = error_of(move || {
                or_raise(Query::open(query, &[])).fetch(|_| Ok(ControlFlow::Continue(()))).unwrap();
            });
            assert_eq!(raised.sqlstate, sqlstate, "{query:?}: {raised:?}");
            assert_free();
        }
        let cancelled = || {
            or_raise(Query::open(NUMBERS, &[]))
                .fetch(|_| {
                    cancel();
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
        };
        assert_eq!(sqlstate_of(cancelled), "57014");
        assert_free();
    }

    #[pg_test]
    fn between_two_fetches_the_session_is_free() {
        let mut query = Query::open(NUMBERS, &[(c"work_mem", c"64kB")]).unwrap();
        for _ in 0..3 {
            assert_eq!(query.fetch(|_| Ok(ControlFlow::Break(()))).unwrap(), Fetched::Paused);
            assert_eq!(text("SELECT current_setting('work_mem')"), "4MB");
            assert_free();
        }
        assert_eq!(query.fetch(|_| Ok(ControlFlow::Continue(()))).unwrap(), Fetched::End);
        assert_free();
    }
}
