//! COPY in a format of the tests' own, which a hook runs.

use crate::server::{assert_free, be_cancelled, cancel, fail};
use fhir_bulk_pg::copy::{Copy, OptionValue};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::utility::{self, Formats};
use pgrx::pg_schema;
use std::ops::ControlFlow;

/// Has COPY know the format `in_server`.
pub fn install() {
    utility::install(Formats { extension: c"fhir_bulk_pg_tests", names: &[c"in_server"], run });
}

/// Does what the option `work` says.
fn run(copy: &Copy<'_>) -> Result<u64> {
    let found = copy.options().find(|option| option.name == c"work").expect("what to do");
    let OptionValue::Text(work) = found.value else { panic!("no text") };
    match work.to_str().unwrap() {
        "fail" => fail(),
        "be cancelled" => be_cancelled(),
        "panic" => panic!("ours"),
        "answer" => return Err(Error::invalid_argument("no such page").hint("Turn back.").at(found.position)),
        "lock" => _ = copy.lock_relation(),
        "read" => return read(copy, || ()),
        "read, fail" => return read(copy, fail),
        "read, be cancelled" => return read(copy, cancel),
        other => panic!("{other}"),
    }
    Ok(0)
}

/// Reads the query between the parentheses to its end.
fn read(copy: &Copy<'_>, mut at_row: impl FnMut()) -> Result<u64> {
    let mut rows = 0;
    copy.open_query()?.fetch(|_| {
        rows += 1;
        at_row();
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(rows)
}

#[pg_schema]
mod tests {
    use super::*;
    use crate::server::{Raised, error_of, kept, sql, sqlstate_of, text, undone};
    use pgrx::pg_test;

    fn copy(what: &'static str, work: &'static str) -> impl FnOnce() + 'static {
        move || sql(&format!("COPY {what} TO '/nowhere' (FORMAT in_server, work '{work}')"))
    }

    #[pg_test]
    fn a_copy_that_fails_or_is_cancelled_leaves_the_session_as_it_was() {
        for (work, sqlstate) in [("fail", "22012"), ("be cancelled", "57014"), ("panic", "XX000"), ("answer", "22023")]
        {
            assert_eq!(sqlstate_of(copy("pg_class", work)), sqlstate, "{work}");
            assert_free();
        }
        let Raised { message, hint, .. } = error_of(copy("pg_class", "answer"));
        assert_eq!((&*message, &*hint), ("no such page", "Turn back."));
        // The next error says nothing of this one.
        assert_eq!(error_of(fail).hint, "");
    }

    #[pg_test]
    fn a_query_that_is_copied_may_fail_and_be_cancelled() {
        let query = "(SELECT 1 / (3 - i) FROM generate_series(1, 9) i)";
        assert_eq!(sqlstate_of(copy(query, "read")), "22012");
        let query = "(SELECT i FROM generate_series(1, 1000000) i)";
        assert_eq!(sqlstate_of(copy(query, "read, be cancelled")), "57014");
        assert_eq!(sqlstate_of(copy("(SELECT 1 AS a INTO made)", "read")), "0A000");
        assert_eq!(sqlstate_of(copy("(SELECT * FROM no_such_table)", "read")), "42P01");
        kept(copy("(SELECT 1)", "read"));
        // Rows are written as ISO has it; what comes after an error in the middle of one is written as the session has it.
        sql("SET LOCAL datestyle = 'German'");
        assert_eq!(sqlstate_of(copy("(SELECT 1)", "read, fail")), "22012");
        assert_eq!(text("SELECT (date '2020-02-01')::text"), "01.02.2020");
        assert_free();
    }

    #[pg_test]
    fn the_lock_of_what_is_copied_goes_with_the_subtransaction() {
        let locks = || {
            text("SELECT count(*) FROM pg_locks WHERE relation = 'pg_seclabel'::regclass AND pid = pg_backend_pid()")
        };
        undone(copy("pg_seclabel", "lock"));
        assert_eq!(locks(), "0");
        kept(copy("pg_seclabel", "lock"));
        assert_eq!(locks(), "1");
        assert_eq!(sqlstate_of(copy("no_such_table", "lock")), "42P01");
    }

    #[pg_test]
    fn other_copies_are_postgresqls_own() {
        assert_eq!(sqlstate_of(|| sql("COPY pg_class TO '/nowhere/at/all' (FORMAT csv)")), "58P01");
        assert_eq!(sqlstate_of(|| sql("COPY pg_class TO '/nowhere/at/all' (FORMAT fhir)")), "22023");
    }
}
