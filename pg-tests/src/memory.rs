//! Memory contexts and values.

use crate::server::{be_cancelled, contexts, error_of, fail, memory, on_its_way, sql, sqlstate_of, text, undone};
use fhir_bulk_pg::datum::{Jsonb, Text, Values, input, timestamptz};
use fhir_bulk_pg::memory::{Scratch, with_scratch};
use fhir_bulk_pg::query::Query;
use fhir_bulk_pg::value::Content;
use pgrx::{pg_schema, pg_sys};
use std::ops::ControlFlow;

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn scratch_memory_is_left_on_the_way_of_an_error() {
        let raised = error_of(|| {
            let before = memory();
            on_its_way(|| with_scratch(fail), move || assert_eq!(memory(), before));
        });
        assert_eq!(raised.sqlstate, "22012", "{raised:?}");
    }

    #[pg_test]
    fn scratch_memory_is_left_on_the_way_of_an_interrupt() {
        let raised = error_of(|| {
            let before = memory();
            on_its_way(|| with_scratch(be_cancelled), move || assert_eq!(memory(), before));
        });
        assert_eq!(raised.sqlstate, "57014", "{raised:?}");
    }

    #[pg_test]
    fn scratch_memory_is_gone_after_an_error_and_after_a_rollback() {
        let before = contexts();
        assert_eq!(sqlstate_of(|| with_scratch(fail)), "22012");
        assert_eq!(contexts(), before);
        undone(|| with_scratch(|| sql("SELECT 1")));
        undone(|| _ = Scratch::default().run(|| text("SELECT 1")));
        assert_eq!(contexts(), before);
    }

    #[pg_test]
    fn a_scratch_whose_work_failed_is_used_again() {
        // Its memory is that of the call, which goes on.
        let raised = error_of(|| {
            let mut scratch = Scratch::default();
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                scratch.run(|| panic!("in the scratch"));
            }));
            assert!(failed.is_err());
            assert_eq!(scratch.run(|| text("SELECT 'again'")), "again");
            scratch.delete();
            fail();
        });
        assert_eq!(raised.sqlstate, "22012", "{raised:?}");
    }

    #[pg_test]
    fn a_value_that_is_too_long_is_refused_and_says_what_to_do() {
        let raised = error_of(|| _ = Text::new(&vec![0; 1 << 30]));
        assert_eq!(raised.sqlstate, "54000", "{raised:?}");
        assert!(raised.hint.contains("chunks"), "{raised:?}");
        assert_eq!(text("SELECT 'on'"), "on");
    }

    #[pg_test]
    fn a_text_that_its_type_refuses_raises_the_types_own_error() {
        assert_eq!(sqlstate_of(|| _ = input(pg_sys::INT8OID, c"one")), "22P02");
        let raised = error_of(|| _ = Jsonb::parse(c"{\"a\":"));
        assert_eq!(raised.sqlstate, "22P02", "{raised:?}");
        assert!(raised.detail.contains("ended unexpectedly"), "{raised:?}");
        assert_eq!(input(pg_sys::INT8OID, c"1").value(), 1);
        // An answer, after which the same subtransaction goes on.
        assert_eq!(timestamptz(c"tomorrowish").unwrap_err().sqlstate(), "22007");
        assert_eq!(timestamptz(c"2000-01-01T00:00:01Z").unwrap(), 1_000_000);
    }

    #[pg_test]
    fn of_a_value_that_could_not_be_written_nothing_is_kept() {
        let write = |out: &mut Vec<u8>, bytes: &[u8]| -> Result<(), ()> {
            out.extend(bytes);
            Ok(())
        };
        let mut values = Values::default();
        let first = values.push(|out| write(out, b"first")).unwrap();
        let size = values.size();
        let failed = values.push(|out| {
            out.extend(b"half");
            Err("no more")
        });
        assert_eq!(failed.unwrap_err(), "no more");
        assert_eq!(values.size(), size);
        let second = values.push(|out| write(out, b"second")).unwrap();
        assert_eq!((values.bytes(first), values.bytes(second)), (&b"first"[..], &b"second"[..]));
    }

    /// What a query's one value is as JSON by its type's own cast.
    fn json_of(query: &'static std::ffi::CStr) {
        let mut query = Query::open(query, &[]).unwrap();
        query
            .fetch(|row| {
                let before = memory();
                let Content::Castable(value) = row.value(0).unwrap().content() else { panic!("no cast") };
                on_its_way(|| _ = value.json(), move || assert_eq!(memory(), before));
                #[allow(unreachable_code, reason = "the closure's type")]
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
    }

    #[pg_test]
    fn a_cast_to_json_that_fails_raises_its_own_error() {
        sql("CREATE TYPE celsius AS ENUM ('cold')");
        sql("CREATE FUNCTION celsius_json(celsius) RETURNS json LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'too cold' USING ERRCODE = 'data_exception', HINT = 'warm it'; END $$");
        sql("CREATE CAST (celsius AS json) WITH FUNCTION celsius_json(celsius)");
        let raised = error_of(|| json_of(c"SELECT 'cold'::celsius"));
        assert_eq!((&*raised.sqlstate, &*raised.hint), ("22000", "warm it"), "{raised:?}");
        crate::server::assert_free();
    }

    #[pg_test]
    fn a_cast_to_json_can_be_cancelled() {
        sql("CREATE TYPE slow AS ENUM ('snail')");
        sql("CREATE FUNCTION slow_json(slow) RETURNS json LANGUAGE plpgsql AS \
             $$ BEGIN LOOP END LOOP; END $$");
        sql("CREATE CAST (slow AS json) WITH FUNCTION slow_json(slow)");
        let raised = error_of(|| {
            let mut query = Query::open(c"SELECT 'snail'::slow", &[]).unwrap();
            query
                .fetch(|row| {
                    let Content::Castable(value) = row.value(0).unwrap().content() else { panic!("no cast") };
                    crate::server::cancel();
                    assert!(value.json().is_empty(), "it never ends");
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
        });
        assert_eq!(raised.sqlstate, "57014", "{raised:?}");
        crate::server::assert_free();
    }
}
