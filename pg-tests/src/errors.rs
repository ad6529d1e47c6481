//! Errors: those of the house, those of PostgreSQL that arrive whole.

use crate::server::{Raised, be_cancelled, cancel, error_of, fail, memory, on_its_way, sql, text};
use fhir_bulk_pg::error::{Error, or_raise};
use fhir_bulk_pg::query::Query;
use fhir_bulk_pg::whole::reporting;
use pgrx::{PgTryBuilder, pg_schema};
use std::ffi::CStr;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;

/// Reads a query to its end.
fn read(query: &CStr) {
    let mut query = or_raise(Query::open(query, &[]));
    query.fetch(|_| Ok(ControlFlow::Continue(()))).unwrap();
}

/// A function that raises an error with all that an error may have.
fn make_failing_function() {
    sql("CREATE FUNCTION failing() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
         RAISE 'it fails' USING ERRCODE = 'FAIL0', DETAIL = 'the detail', HINT = 'the hint', CONSTRAINT = 'the_rule'; \
         END $$");
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::{pg_extern, pg_test};

    /// Reads a query; its errors are not reported whole.
    #[pg_extern]
    fn read_all(query: &str) {
        read(&std::ffi::CString::new(query).unwrap());
    }

    #[pg_test]
    fn an_error_of_ours_arrives_with_all_that_it_says() {
        let raised = error_of(|| {
            let error = Error::invalid_argument("pages is 0").detail("in options").hint("It may be 1 to 9.");
            or_raise::<()>(Err(error));
        });
        let said = (&*raised.sqlstate, &*raised.message, &*raised.detail, &*raised.hint);
        assert_eq!(said, ("22023", "pages is 0", "in options", "It may be 1 to 9."));
    }

    #[pg_test]
    fn an_error_of_postgresql_that_is_caught_keeps_what_it_says() {
        make_failing_function();
        let raised = error_of(|| {
            let caught = PgTryBuilder::new(AssertUnwindSafe(|| {
                sql("SELECT failing()");
                None
            }))
            .catch_others(|error| Some(Error::from(error)))
            .execute();
            caught.expect("an error").detail_if_none("never used").raise();
        });
        let said = (&*raised.message, &*raised.detail, &*raised.hint);
        assert_eq!(said, ("it fails", "the detail", "the hint"));
    }

    #[pg_test]
    fn a_panic_is_an_error_that_can_be_caught() {
        let raised = error_of(|| panic!("a mistake of ours"));
        assert_eq!((&*raised.sqlstate, &*raised.message), ("XX000", "a mistake of ours"), "{raised:?}");
        assert_eq!(raised.detail, "", "no backtrace");
        assert_eq!(text("SELECT 'on'"), "on");
    }

    #[pg_test]
    fn an_error_in_somebodys_query_arrives_whole() {
        make_failing_function();
        let raised = error_of(|| reporting(|| read(c"SELECT failing()")));
        let Raised { sqlstate, message, detail, hint, context, constraint } = raised;
        assert_eq!((&*sqlstate, &*message, &*detail, &*hint), ("FAIL0", "it fails", "the detail", "the hint"));
        assert!(context.contains("PL/pgSQL function failing() line 1 at RAISE"), "{context}");
        assert_eq!(constraint, "the_rule");
    }

    #[pg_test]
    fn an_error_in_a_query_leaves_the_memory_that_was_current() {
        let raised = error_of(|| {
            let before = memory();
            on_its_way(|| read(c"SELECT 1/0"), move || assert_eq!(memory(), before));
        });
        assert_eq!(raised.sqlstate, "22012", "{raised:?}");
    }

    #[pg_test]
    fn an_error_that_was_reported_whole_adds_nothing_to_the_next() {
        make_failing_function();
        error_of(|| reporting(|| read(c"SELECT failing()")));
        let next = error_of(|| reporting(|| or_raise::<()>(Err(Error::invalid_argument("the next")))));
        assert_eq!((&*next.sqlstate, &*next.constraint), ("22023", ""), "{next:?}");
        assert!(!next.context.contains("failing"), "{next:?}");
        let next = error_of(fail);
        assert_eq!((&*next.sqlstate, &*next.constraint), ("22012", ""), "{next:?}");
    }

    #[pg_test]
    fn an_error_that_a_query_catches_itself_adds_nothing_to_one_of_ours() {
        make_failing_function();
        sql("CREATE FUNCTION careful() RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM tests.read_all('SELECT failing()'); RETURN 0; EXCEPTION WHEN OTHERS THEN RETURN 1; END $$");
        let raised = error_of(|| {
            reporting(|| {
                read(c"SELECT careful()");
                or_raise::<()>(Err(Error::invalid_argument("ours")));
            });
        });
        assert_eq!((&*raised.sqlstate, &*raised.message, &*raised.constraint), ("22023", "ours", ""), "{raised:?}");
        assert!(!raised.context.contains("failing"), "{raised:?}");
    }

    #[pg_test]
    fn an_interrupt_in_a_query_is_one_to_whoever_catches_it() {
        let raised = error_of(|| {
            reporting(|| {
                let mut query = or_raise(Query::open(c"SELECT i FROM generate_series(1, 1000000) i", &[]));
                query
                    .fetch(|_| {
                        cancel();
                        Ok(ControlFlow::Continue(()))
                    })
                    .unwrap();
            });
        });
        assert_eq!(raised.sqlstate, "57014", "{raised:?}");
        let raised = error_of(|| reporting(be_cancelled));
        assert_eq!(raised.sqlstate, "57014", "{raised:?}");
        assert_eq!(text("SELECT 'on'"), "on");
    }
}
