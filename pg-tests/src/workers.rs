//! What holds where transactions begin and end: in workers, which have no client, and between processes.

use crate::processes::{LIBRARY, Scenarios, start, wait_for_end};
use crate::server::{assert_free, be_cancelled, cancel, error_of, fail, sql, text, texts, wait_for};
use crate::transactions::key;
use fhir_bulk_pg::client::{self, CopyOut};
use fhir_bulk_pg::error::Error;
use fhir_bulk_pg::parallel::{self, Help};
use fhir_bulk_pg::{catalog, guc, session, transaction, worker};
use pgrx::pg_schema;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What workers do, by name.
pub const SCENARIOS: Scenarios = &[
    ("failed transactions", failed_transactions),
    ("frozen transactions", frozen_transactions),
    ("work between transactions", work_between),
    ("told of the commit", told_of_the_commit),
    ("no client", no_client),
    ("a role that is left", a_role_that_is_left),
    ("a lock after a failure", a_lock_after_a_failure),
    ("ends with a lock", ends_with_a_lock),
    ("holds a lock", holds_a_lock),
];

/// The SQLSTATE with which a transaction fails.
fn failure_of(work: impl FnOnce()) -> String {
    transaction::run::<_, Error>(|| {
        work();
        Ok(())
    })
    .expect_err("an error")
    .sqlstate()
}

/// Runs work that succeeds.
fn committed<T>(work: impl FnOnce() -> T) -> T {
    transaction::run::<_, Error>(|| Ok(work())).unwrap_or_else(|error| panic!("{error:?}"))
}

fn failed_transactions() {
    committed(|| sql("CREATE TABLE in_server.runs (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); CREATE ROLE runner"));
    let insert = || sql("INSERT INTO in_server.runs VALUES (1)");
    let me = committed(|| text("SELECT current_user"));
    let role = committed(|| text("SELECT 'runner'::regrole::oid").parse::<u32>().unwrap());
    for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
        let failure = failure_of(|| {
            insert();
            session::Identity::confined_to(role.into()).restore();
            work();
        });
        assert_eq!(failure, sqlstate);
        assert_eq!(
            committed(|| text("SELECT current_user || ' ' || (SELECT count(*) FROM in_server.runs)")),
            format!("{me} 0")
        );
    }
    // Nor does it stay when the work succeeds.
    committed(|| session::Identity::confined_to(role.into()).restore());
    assert_eq!(committed(|| text("SELECT current_user")), me);
    // An answer of the work, and an error of the commit itself.
    let answer = transaction::run::<(), _>(|| {
        insert();
        Err(Error::invalid_argument("ours"))
    });
    assert_eq!(answer.unwrap_err().sqlstate(), "22023");
    let at_commit = failure_of(|| {
        insert();
        insert();
    });
    assert_eq!(at_commit, "23505");
    committed(assert_free);
    committed(insert);
    assert_eq!(committed(|| text("SELECT count(*) FROM in_server.runs")), "1");
}

fn frozen_transactions() {
    committed(|| sql("CREATE TABLE in_server.frozen (id int)"));
    let isolation = || text("SELECT current_setting('transaction_isolation')");
    let lock = || Ok(catalog::lock_for_select(c"frozen", c"in_server"));
    let fine = transaction::run_frozen::<_, _, Error>(lock, |locked| Ok((locked.is_some(), isolation())));
    assert_eq!(fine.unwrap(), (true, "repeatable read".to_owned()));
    for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
        let failure = transaction::run_frozen::<_, (), Error>(lock, |_| {
            sql("INSERT INTO in_server.frozen VALUES (1)");
            work();
            Ok(())
        });
        assert_eq!(failure.unwrap_err().sqlstate(), sqlstate);
    }
    let failure = transaction::run_frozen::<(), _, Error>(|| Err(Error::invalid_argument("no lock")), |()| Ok(()));
    assert_eq!(failure.unwrap_err().sqlstate(), "22023");
    let failure = transaction::run_frozen::<_, _, Error>(
        || {
            be_cancelled();
            Ok(())
        },
        |()| Ok(()),
    );
    assert_eq!(failure.unwrap_err().sqlstate(), "57014");
    assert_eq!(committed(|| text("SELECT count(*) FROM in_server.frozen")), "0");
    assert_eq!(committed(isolation), "read committed");
}

fn work_between() {
    let failed = transaction::between::<(), Error>(|| Err(Error::invalid_argument("ours")));
    assert_eq!(failed.unwrap_err().sqlstate(), "22023");
    let interrupted = transaction::between::<_, Error>(|| {
        cancel();
        session::wait_for_latch(Duration::from_secs(3600));
        Ok(())
    });
    assert_eq!(interrupted.unwrap_err().sqlstate(), "57014");
    let panicked = transaction::between::<(), Error>(|| panic!("ours"));
    assert_eq!(panicked.unwrap_err().sqlstate(), "XX000");
    // A cancel is for what a process does: one that only waits has it behind it, and what comes next is not cancelled.
    cancel();
    worker::wait(Duration::from_secs(3600));
    committed(assert_free);
}

fn told_of_the_commit() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let told = || TOLD.swap(0, Ordering::Relaxed);
    let tell = || transaction::at_commit(|| _ = TOLD.fetch_add(1, Ordering::Relaxed));
    committed(tell);
    assert_eq!(told(), 1);
    committed(|| ());
    assert_eq!(told(), 0, "once");
    for work in [fail as fn(), be_cancelled, || panic!("ours")] {
        failure_of(|| {
            tell();
            work();
        });
        committed(|| ());
        assert_eq!(told(), 0, "not of another's");
    }
    committed(|| {
        tell();
        error_of(fail);
        assert_eq!(told(), 0);
    });
    assert_eq!(told(), 1);
}

/// A COPY has nobody to speak with here.
fn no_client() {
    assert_eq!(client::copy_in(|_| ()).expect_err("no client").sqlstate(), "0A000");
    assert_eq!(CopyOut::begin().err().expect("no client").sqlstate(), "0A000");
    committed(assert_free);
}

fn a_role_that_is_left() {
    committed(|| sql("CREATE ROLE guest; GRANT CREATE, TEMPORARY ON DATABASE pgrx_tests TO guest"));
    let role = committed(|| text("SELECT 'guest'::regrole::oid").parse::<u32>().unwrap());
    let who = || text("SELECT session_user || ' ' || current_user");
    let before = committed(who);
    for (work, fails) in [((|| ()) as fn(), false), (fail, true), (be_cancelled, true)] {
        worker::become_role(role.into()).unwrap();
        assert_eq!(committed(who), "guest guest");
        committed(|| sql("SET work_mem = '1MB'; CREATE TEMPORARY TABLE mine (id int); PREPARE mine AS SELECT 1"));
        committed(|| sql("SELECT pg_advisory_lock(77)"));
        assert_eq!(failure_of(|| sql("RESET SESSION AUTHORIZATION; SELECT rolpassword FROM pg_authid")), "42501");
        if fails {
            failure_of(work);
        }
        worker::leave_role().unwrap();
        assert_eq!(committed(who), before);
        assert_eq!(guc::get(c"work_mem").unwrap(), c"4096".to_owned());
        let left = "SELECT (SELECT count(*) FROM pg_prepared_statements) + (SELECT count(*) FROM pg_locks WHERE \
            pid = pg_backend_pid() AND locktype = 'advisory') + (SELECT count(*) FROM pg_class WHERE relname = 'mine')";
        assert_eq!(committed(|| text(left)), "0");
        committed(assert_free);
    }
}

fn a_lock_after_a_failure() {
    let key = key(100);
    assert!(key.try_take());
    committed(|| ());
    assert!(!key.is_free(), "a commit gives none up");
    for work in [fail as fn(), be_cancelled, || panic!("ours")] {
        failure_of(work);
        assert!(key.is_free(), "a failure gives all up");
        assert!(key.keep() && key.keep());
        assert!(!key.is_free());
    }
    key.release();
    assert!(key.is_free(), "taken twice, it was held once");
}

fn ends_with_a_lock() {
    assert!(key(101).try_take());
}

/// Until it is interrupted.
fn holds_a_lock() {
    let cancelled = failure_of(|| {
        key(102).wait_in_transaction();
        loop {
            session::wait_for_latch(Duration::from_secs(3600));
        }
    });
    assert_eq!(cancelled, "57014");
    assert!(key(102).is_free());
}

/// Who holds the lock of that scenario.
fn pids() -> Vec<String> {
    texts("SELECT l.pid FROM pg_locks l WHERE l.locktype = 'object' AND l.objid = 102 AND l.granted")
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    /// Runs a scenario and waits for its end; fails when it does.
    fn run(scenario: &str) {
        start(SCENARIOS, scenario);
        wait_for_end(scenario);
    }

    const HELP: Help = Help { library: LIBRARY, function: c"fhir_bulk_pg_tests_helper" };

    #[pg_test]
    fn a_transaction_that_fails_is_undone_and_the_role_is_that_of_before() {
        run("failed transactions");
    }

    #[pg_test]
    fn a_transaction_of_one_snapshot_that_fails_is_undone() {
        run("frozen transactions");
    }

    #[pg_test]
    fn work_between_transactions_may_fail_and_be_interrupted() {
        run("work between transactions");
    }

    #[pg_test]
    fn a_commit_is_told_once_and_only_that_of_the_transaction_that_asked() {
        run("told of the commit");
    }

    #[pg_test]
    fn a_copy_without_a_client_is_refused() {
        run("no client");
    }

    #[pg_test]
    fn of_a_role_that_is_left_nothing_stays() {
        run("a role that is left");
    }

    #[pg_test]
    fn a_sessions_lock_is_kept_after_a_transaction_that_failed() {
        run("a lock after a failure");
    }

    #[pg_test]
    fn a_process_that_ends_gives_up_its_locks() {
        run("ends with a lock");
        wait_for("the process to end", || key(101).is_free());
        assert!(key(101).try_take());
        key(101).release();
    }

    #[pg_test]
    fn waiting_for_a_lock_can_be_cancelled_and_the_one_who_has_it_interrupted() {
        start(SCENARIOS, "holds a lock");
        wait_for("the lock to be held", || !pids().is_empty());
        assert!(!key(102).try_take());
        let raised = error_of(|| {
            cancel();
            key(102).wait_in_transaction();
        });
        assert_eq!(raised.sqlstate, "57014", "{raised:?}");
        let raised = error_of(|| {
            sql("SET LOCAL lock_timeout = '10ms'");
            key(102).wait_in_transaction();
        });
        assert_eq!(raised.sqlstate, "55P03", "{raised:?}");
        assert_free();
        worker::interrupt(pids()[0].parse().unwrap());
        wait_for_end("holds a lock");
        // Nobody waits for it any more either.
        assert!(key(102).is_free());
        // Nor is anybody interrupted who is not there.
        worker::interrupt(i32::MAX);
    }

    /// How many helpers of this session there are.
    fn helpers() -> String {
        sql("SELECT pg_stat_clear_snapshot()");
        text("SELECT count(*) FROM pg_stat_activity WHERE leader_pid = pg_backend_pid()")
    }

    #[pg_test]
    fn helpers_share_the_work() {
        let (mine, others) = parallel::run(HELP, 2, b"count", crate::processes::help);
        assert!(!others.is_empty(), "no helper was started");
        let mut all: Vec<u8> = others.into_iter().flatten().chain(mine).collect();
        all.sort();
        assert_eq!(all, (0..100).collect::<Vec<u8>>());
        assert_free();
    }

    #[pg_test]
    fn an_error_of_a_helper_is_one_of_the_work_and_the_session_may_write_again() {
        for (input, sqlstate) in [(&b"fail"[..], "22012"), (b"panic", "XX000"), (b"too much", "54000")] {
            let raised = error_of(move || {
                parallel::run(HELP, 2, input, |_| {
                    loop {
                        session::wait_for_latch(Duration::from_secs(3600));
                    }
                });
            });
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_eq!(helpers(), "0");
            assert_free();
        }
    }

    #[pg_test]
    fn an_error_beside_helpers_ends_them() {
        for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || {
                parallel::run(HELP, 2, b"wait", |_| {
                    wait_for("helpers", || helpers() == "2");
                    work();
                });
            });
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_eq!(helpers(), "0");
            assert_free();
        }
    }

    #[pg_test]
    fn work_without_helpers_may_do_as_it_likes() {
        let (mine, others) = parallel::run(HELP, 0, b"", |part| {
            assert!(part.is_alone());
            assert_free();
        });
        assert_eq!((mine, others.len()), ((), 0));
        assert_eq!(error_of(|| _ = parallel::run(HELP, 0, b"", |_| fail())).sqlstate, "22012");
    }
}
