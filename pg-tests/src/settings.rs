//! Settings, roles, and waiting.

use crate::server::{assert_free, be_cancelled, cancel, error_of, fail, kept, sql, sqlstate_of, text, undone};
use fhir_bulk_pg::guc::{self, Changes};
use fhir_bulk_pg::session::{self, Waiting};
use fhir_bulk_pg::spi;
use pgrx::pg_schema;
use std::os::fd::AsFd;
use std::time::Duration;

/// A setting's value as SQL shows it.
fn shown(name: &str) -> String {
    text(&format!("SELECT current_setting('{name}')"))
}

const WANTED: &[(&std::ffi::CStr, &std::ffi::CStr)] = &[(c"work_mem", c"64kB"), (c"enable_seqscan", c"off")];

fn assert_as_before() {
    assert_eq!((shown("work_mem"), shown("enable_seqscan")), ("4MB".to_owned(), "on".to_owned()));
}

/// How many sets of events this process waits for, of which each is a file.
fn open_sets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    targets.filter(|target| target.as_os_str() == "anon_inode:[eventpoll]").count()
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn settings_are_as_before_after_an_error() {
        for changes in [Changes::Keep, Changes::Undo] {
            let sqlstate = sqlstate_of(move || {
                guc::with(WANTED, changes, || {
                    assert_eq!(shown("work_mem"), "64kB");
                    sql("SET work_mem = '1MB'");
                    fail();
                });
            });
            assert_eq!(sqlstate, "22012");
            assert_as_before();
        }
    }

    #[pg_test]
    fn settings_are_as_before_after_an_interrupt() {
        assert_eq!(sqlstate_of(|| guc::with(WANTED, Changes::Keep, be_cancelled)), "57014");
        assert_as_before();
        assert_eq!(sqlstate_of(|| guc::with_maintenance_kb(2048, be_cancelled)), "57014");
        assert_eq!(shown("maintenance_work_mem"), "64MB");
    }

    #[pg_test]
    fn settings_are_as_before_when_one_of_them_is_refused() {
        let refused = || guc::with(&[(c"work_mem", c"64kB"), (c"enable_seqscan", c"perhaps")], Changes::Keep, || ());
        let raised = error_of(refused);
        assert_eq!(raised.sqlstate, "22023", "{raised:?}");
        assert_as_before();
    }

    #[pg_test]
    fn what_work_sets_stays_or_is_undone_as_asked() {
        guc::with(WANTED, Changes::Undo, || sql("SELECT set_config('lock_timeout', '7s', true)"));
        assert_eq!(shown("lock_timeout"), "0");
        guc::with(WANTED, Changes::Keep, || sql("SELECT set_config('lock_timeout', '7s', true)"));
        assert_eq!(shown("lock_timeout"), "7s");
        assert_as_before();
    }

    #[pg_test]
    fn settings_within_others_are_as_before_in_a_subtransaction_that_is_undone() {
        undone(|| guc::with(WANTED, Changes::Keep, || guc::with(&[(c"work_mem", c"1MB")], Changes::Keep, || ())));
        assert_as_before();
        // An error that is caught within the work: what that has set is there still.
        guc::with(WANTED, Changes::Keep, || {
            assert_eq!(sqlstate_of(|| guc::with(&[(c"work_mem", c"1MB")], Changes::Keep, fail)), "22012");
            assert_eq!(shown("work_mem"), "64kB");
        });
        assert_as_before();
    }

    #[pg_test]
    fn a_local_setting_goes_with_its_subtransaction() {
        undone(|| guc::set_local(c"work_mem", c"1MB"));
        assert_eq!(shown("work_mem"), "4MB");
        assert_eq!(sqlstate_of(|| guc::set_local(c"work_mem", c"much")), "22023");
        assert_eq!(shown("work_mem"), "4MB");
        kept(|| guc::set_local(c"work_mem", c"1MB"));
        assert_eq!(shown("work_mem"), "1MB");
    }

    #[pg_test]
    fn a_default_stays_and_one_that_is_refused_changes_nothing() {
        assert_eq!(sqlstate_of(|| guc::set_default(c"work_mem", c"much")), "22023");
        assert_eq!(shown("work_mem"), "4MB");
        undone(|| guc::set_default(c"work_mem", c"1MB"));
        assert_eq!(guc::get(c"work_mem").unwrap(), c"1024".to_owned());
        sql("SET LOCAL work_mem = '2MB'; RESET work_mem");
        assert_eq!(shown("work_mem"), "1MB");
        assert_eq!(guc::get(c"no.such_setting"), None);
    }

    /// Makes a role for one test; roles are the server's, and tests run at once.
    fn make_role(name: &str) -> pgrx::pg_sys::Oid {
        sql(&format!("CREATE ROLE {name}"));
        text(&format!("SELECT '{name}'::regrole::oid")).parse::<u32>().unwrap().into()
    }

    fn assert_role_as_before(role: &str, path: &str) {
        assert_eq!(text("SELECT current_user"), role);
        assert_eq!(shown("search_path"), path);
        assert_free();
    }

    #[pg_test]
    fn another_role_is_left_after_an_error_an_interrupt_and_a_rollback() {
        let (me, path, other) = (text("SELECT current_user"), shown("search_path"), make_role("role_in_errors"));
        for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || {
                session::as_role(other, move || {
                    assert_eq!(text("SELECT current_user"), "role_in_errors");
                    assert_eq!(shown("search_path"), "pg_catalog, pg_temp");
                    work();
                });
            });
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_role_as_before(&me, &path);
        }
        undone(move || session::as_role(other, || ()));
        assert_role_as_before(&me, &path);
        session::as_role(other, || ());
        assert_role_as_before(&me, &path);
        session::as_bootstrap_superuser(|| ());
        assert_role_as_before(&me, &path);
    }

    #[pg_test]
    fn another_role_stays_and_stays_confined_after_an_error_that_is_caught_in_its_work() {
        let other = make_role("role_that_catches");
        session::as_role(other, || {
            assert_eq!(sqlstate_of(|| sql("SET ROLE none")), "42501");
            assert_eq!(sqlstate_of(fail), "22012");
            assert_eq!(text("SELECT current_user"), "role_that_catches");
            assert_eq!(shown("search_path"), "pg_catalog, pg_temp");
            assert_eq!(sqlstate_of(|| sql("RESET ROLE")), "42501");
        });
    }

    #[pg_test]
    fn a_look_into_the_catalogue_leaves_the_search_path_as_it_was() {
        sql("SET LOCAL search_path = public, tests");
        let cancelled = || {
            cancel();
            spi::catalog_texts(c"SELECT relname FROM pg_class", &[]);
        };
        assert_eq!(sqlstate_of(|| _ = spi::catalog_texts(c"SELECT 1/0", &[])), "22012");
        assert_eq!(sqlstate_of(cancelled), "57014");
        undone(|| _ = spi::catalog_texts(c"SELECT 1", &[]));
        let path = spi::catalog_texts(c"SELECT current_setting('search_path')", &[]);
        assert_eq!(path, ["pg_catalog, pg_temp"]);
        assert_eq!(shown("search_path"), "public, tests");
    }

    #[pg_test]
    fn what_may_not_write_is_told_so_and_may_write_again_afterwards() {
        let sqlstate = sqlstate_of(|| {
            sql("SET LOCAL transaction_read_only = on");
            session::prevent_if_read_only(c"bulk_load()");
        });
        assert_eq!(sqlstate, "25006");
        session::prevent_if_read_only(c"bulk_load()");
        assert_free();
    }

    #[pg_test]
    fn waiting_can_be_cancelled_and_leaves_no_file_open() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let wait = move || {
            cancel();
            session::wait(&[Waiting::Readable(reader.as_fd())]);
            session::check_for_interrupts();
        };
        let before = open_sets();
        assert_eq!(sqlstate_of(wait), "57014");
        assert_eq!(open_sets(), before);
        let wait = || {
            cancel();
            session::wait_for_latch(Duration::from_secs(3600));
        };
        assert_eq!(sqlstate_of(wait), "57014");
        assert_eq!(text("SELECT 'on'"), "on");
    }
}
