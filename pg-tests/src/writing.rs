//! Rows put straight into a table's pages, and what must allow it.

use crate::server::{assert_free, be_cancelled, cancel, error_of, fail, kept, memory, sql, sqlstate_of, text, undone};
use fhir_bulk_pg::access::Access;
use fhir_bulk_pg::catalog::{self, Table};
use fhir_bulk_pg::find::{Found, Snapshot};
use fhir_bulk_pg::insert::{HeapInsert, Space};
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use fhir_bulk_pg::subtransaction::{unless, unless_taken};
use fhir_bulk_pg::update::HeapUpdate;
use pgrx::pg_sys::{Datum, Oid};
use pgrx::{PgSqlErrorCode, pg_schema};

/// The rule that a number of a test's table may break.
const MOST: i64 = 1000;

/// Makes a table of numbers.
fn make(table: &str) {
    sql(&format!(
        "CREATE TABLE {table} (id bigint PRIMARY KEY, number bigint CHECK (number <= {MOST}), \
           made text DEFAULT 'made ' || 10 / (1 + current_setting('in_server.zero', true)::int))"
    ));
    sql("SET LOCAL in_server.zero = 0");
}

fn oid(relation: &str) -> Oid {
    text(&format!("SELECT '{relation}'::regclass::oid")).parse::<u32>().unwrap().into()
}

fn access(table: Table) -> Access {
    Access::insert(table, vec![1, 2])
}

/// Inserts rows as a load does: all of them, or none when a key is taken.
fn insert(table: &str, rows: &[(i64, i64)]) -> Option<()> {
    let table = Table::open_for_insert(oid(table));
    access(table).check();
    let mut insert = HeapInsert::new(access(table), Space::Anywhere);
    let done = unless_taken(|| put(&mut insert, rows));
    if done.is_none() {
        insert.was_undone();
    }
    insert.close();
    table.close();
    done
}

fn put(insert: &mut HeapInsert, rows: &[(i64, i64)]) {
    insert.insert(rows.len(), 0..rows.len(), |at, row| row.extend([Datum::from(rows[at].0), Datum::from(rows[at].1)]));
}

/// Gives rows with these ids new numbers by `change`; how many were left as they are.
fn update(table: &'static str, ids: &[i64], mut change: impl FnMut(i64) -> i64) -> usize {
    let open = Table::open_for_insert(oid(table));
    let access = Access::update(open, vec![2], vec![1]);
    access.check();
    let insert = HeapInsert::new(Access::insert(open, vec![1, 2]), Space::Anywhere);
    let mut update = HeapUpdate::new(&insert, &access, oid(&format!("{table}_pkey"))).expect("an index of the table");
    let snapshot = Snapshot::take();
    let keys: Vec<_> = ids.iter().map(|id| Datum::from(*id)).collect();
    let order: Vec<_> = (0..ids.len()).collect();
    let found = update.find(&insert, &snapshot, &keys, &order, None);
    let place = |(row, found)| if let Found::Row(place) = found { Some((row, place)) } else { None };
    let rows: Vec<_> = found.into_iter().enumerate().filter_map(place).collect();
    let left = update.replace(&insert, &snapshot, &rows, |row, old, new| {
        assert_eq!(old.get(1).unwrap().value() as i64, ids[row]);
        new.push(Some(Datum::from(change(ids[row]))));
    });
    snapshot.release();
    update.close();
    insert.close();
    open.close();
    left.len()
}

fn rows(table: &str) -> String {
    text(&format!("SELECT coalesce(string_agg(id || ':' || number, ' ' ORDER BY id), '') FROM {table}"))
}

/// What a table that is in use refuses (55006): nothing of it was left open. And its index knows its rows.
fn assert_unused(table: &str) {
    sql(&format!("ALTER TABLE {table} ADD COLUMN one_more int"));
    sql(&format!("ALTER TABLE {table} DROP COLUMN one_more"));
    kept({
        let table = table.to_owned();
        move || {
            sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off");
            let by_index = text(&format!("SELECT count(*) FROM {table} WHERE id > -1000000"));
            sql(
                "SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off",
            );
            assert_eq!(text(&format!("SELECT count(*) FROM {table} WHERE id > -1000000")), by_index);
            sql(
                "SET LOCAL enable_indexscan = on; SET LOCAL enable_indexonlyscan = on; SET LOCAL enable_bitmapscan = on",
            );
        }
    });
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::pg_test;

    #[pg_test]
    fn a_key_that_is_taken_undoes_its_batch_alone() {
        make("taken");
        assert_eq!(insert("taken", &[(1, 10), (2, 20)]), Some(()));
        assert_eq!(insert("taken", &[(3, 30), (1, 11)]), None);
        assert_eq!(insert("taken", &[(4, 40), (4, 41)]), None);
        assert_eq!(rows("taken"), "1:10 2:20");
        assert_eq!(insert("taken", &[(3, 30)]), Some(()));
        assert_eq!(rows("taken"), "1:10 2:20 3:30");
        assert_eq!(text("SELECT DISTINCT made FROM taken"), "made 10");
        assert_unused("taken");
    }

    #[pg_test]
    fn one_inserter_goes_on_after_a_batch_that_was_undone() {
        make("goes_on");
        // From PostgreSQL 17 on it keeps a page from one entry to the next.
        sql("CREATE INDEX ON goes_on USING brin (number) WITH (pages_per_range = 1)");
        let table = Table::open_for_insert(oid("goes_on"));
        let mut insert = HeapInsert::new(access(table), Space::AtEnd);
        for round in 0..20 {
            assert_eq!(unless_taken(|| put(&mut insert, &[(round, round), (0, 0), (0, 1)])), None);
            insert.was_undone();
            assert_eq!(unless_taken(|| put(&mut insert, &[(round, round * 2)])), Some(()));
        }
        insert.close();
        table.close();
        assert_eq!(text("SELECT count(*) || ' ' || sum(number) FROM goes_on"), "20 380");
        assert_unused("goes_on");
    }

    #[pg_test]
    fn an_insert_that_fails_in_whatever_way_leaves_the_table_free() {
        make("insert_fails");
        insert("insert_fails", &[(1, 10)]);
        // A rule of the table, a default of a column.
        assert_eq!(sqlstate_of(|| _ = insert("insert_fails", &[(2, 20), (3, MOST + 1)])), "23514");
        let in_default = || {
            sql("SET LOCAL in_server.zero = -1");
            insert("insert_fails", &[(2, 20)]);
        };
        assert_eq!(sqlstate_of(in_default), "22012");
        for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || {
                let table = Table::open_for_insert(oid("insert_fails"));
                HeapInsert::new(access(table), Space::Anywhere).insert(2, 0..2, |at, row| {
                    if at == 1 {
                        work();
                    }
                    row.extend([Datum::from(at as i64 + 5), Datum::from(1_i64)]);
                });
            });
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_unused("insert_fails");
        }
        assert_eq!(rows("insert_fails"), "1:10");
        assert_free();
    }

    #[pg_test]
    fn an_insert_goes_with_its_subtransaction() {
        make("insert_undone");
        undone(|| _ = insert("insert_undone", &[(1, 10), (2, 20)]));
        assert_eq!(rows("insert_undone"), "");
        kept(|| _ = insert("insert_undone", &[(1, 11)]));
        assert_eq!(rows("insert_undone"), "1:11");
        assert_unused("insert_undone");
    }

    #[pg_test]
    fn an_update_that_fails_in_whatever_way_leaves_the_table_free() {
        make("update_fails");
        insert("update_fails", &[(1, 10), (2, 20), (3, 30)]);
        assert_eq!(update("update_fails", &[3, 9], |id| id * 11), 0);
        assert_eq!(rows("update_fails"), "1:10 2:20 3:33");
        let broken = || _ = update("update_fails", &[1, 2], |id| if id == 2 { MOST + 1 } else { 0 });
        assert_eq!(sqlstate_of(broken), "23514");
        for (work, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || {
                update("update_fails", &[1, 2, 3], |id| {
                    if id == 2 {
                        work();
                    }
                    0
                });
            });
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_unused("update_fails");
        }
        assert_eq!(rows("update_fails"), "1:10 2:20 3:33");
        assert_free();
    }

    #[pg_test]
    fn an_update_goes_with_its_subtransaction() {
        make("update_undone");
        insert("update_undone", &[(1, 10), (2, 20)]);
        undone(|| _ = update("update_undone", &[1, 2], |_| 0));
        assert_eq!(rows("update_undone"), "1:10 2:20");
        kept(|| _ = update("update_undone", &[1], |_| 0));
        assert_eq!(rows("update_undone"), "1:0 2:20");
        // No page is held: one that is keeps VACUUM from freezing, and here from truncating for good.
        sql("TRUNCATE update_undone");
        assert_unused("update_undone");
    }

    #[pg_test]
    fn what_a_role_may_not_do_is_refused_and_leaves_the_table_free() {
        make("forbidden");
        sql("CREATE ROLE may_nothing; CREATE ROLE may_insert; GRANT INSERT ON forbidden TO may_insert");
        let role = |name: &str| text(&format!("SELECT '{name}'::regrole::oid")).parse::<u32>().unwrap().into();
        let (nothing, inserts): (Oid, Oid) = (role("may_nothing"), role("may_insert"));
        let table = oid("forbidden");
        let check = move |who, make: fn(Table) -> Access| {
            move || session::as_role(who, || make(Table::open_for_insert(table)).check())
        };
        assert_eq!(sqlstate_of(check(nothing, access)), "42501");
        assert_eq!(sqlstate_of(check(inserts, |table| Access::update(table, vec![2], vec![1]))), "42501");
        assert_unused("forbidden");
        session::as_role(inserts, || {
            let open = Table::open_for_insert(table);
            access(open).check();
            open.close();
        });
        assert_unused("forbidden");
        assert_free();
    }

    #[pg_test]
    fn a_table_that_is_open_when_an_error_comes_is_closed_with_its_subtransaction() {
        make("left_open");
        let table = oid("left_open");
        for work in [fail as fn(), be_cancelled, || panic!("ours")] {
            error_of(move || {
                Table::open_for_insert(table);
                work();
            });
            assert_unused("left_open");
        }
        assert_eq!(sqlstate_of(|| _ = Table::open_for_insert(1.into()).name()), "XX000");
        assert_free();
    }

    #[pg_test]
    fn a_lock_on_a_name_goes_with_its_subtransaction() {
        let locks = || {
            text("SELECT count(*) FROM pg_locks WHERE relation = 'pg_seclabel'::regclass AND pid = pg_backend_pid()")
        };
        for lock in [catalog::lock_for_insert, catalog::lock_for_select] {
            undone(move || _ = lock(c"pg_seclabel", c"pg_catalog"));
            assert_eq!(locks(), "0");
            error_of(move || {
                lock(c"pg_seclabel", c"pg_catalog");
                fail();
            });
            assert_eq!(locks(), "0");
        }
        assert_eq!(catalog::lock_for_select(c"no_such_table", c"pg_catalog"), None);
        kept(|| _ = catalog::lock_for_select(c"pg_seclabel", c"pg_catalog"));
        assert_eq!(locks(), "1");
    }

    #[pg_test]
    fn work_that_finds_a_key_taken_is_undone_and_the_session_is_that_of_before() {
        make("some_keys");
        // A table that was open before is closed by whom it belongs to: the owner of resources is that of before.
        let table = Table::open_for_insert(oid("some_keys"));
        let before = memory();
        let taken = unless_taken(|| {
            sql("INSERT INTO some_keys VALUES (1, 1)");
            sql("SET LOCAL work_mem = '1MB'");
            sql("INSERT INTO some_keys VALUES (1, 2)");
        });
        assert_eq!((taken, memory()), (None, before));
        table.close();
        assert_eq!(rows("some_keys"), "");
        assert_eq!(text("SELECT current_setting('work_mem')"), "4MB");

        let table = Table::open_for_insert(oid("some_keys"));
        assert_eq!(unless_taken(|| sql("INSERT INTO some_keys VALUES (1, 3)")), Some(()));
        assert_eq!(memory(), before);
        table.close();
        assert_eq!(rows("some_keys"), "1:3");
        assert_unused("some_keys");
    }

    #[pg_test]
    fn any_other_error_goes_on_and_undoes_the_work() {
        make("others");
        for (work, sqlstate) in [
            (fail as fn(), "22012"),
            (be_cancelled, "57014"),
            (|| panic!("ours"), "XX000"),
            (|| sql("INSERT INTO others VALUES (1, 100000)"), "23514"),
        ] {
            let raised = error_of(move || {
                unless_taken(|| {
                    sql("INSERT INTO others VALUES (1, 1)");
                    work();
                });
            });
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_eq!(rows("others"), "");
        }
        assert_unused("others");
        assert_free();
    }

    #[pg_test]
    fn a_large_statement_that_meets_an_error_it_may_meet_is_undone_and_no_other_error_is_lost() {
        use PgSqlErrorCode::{ERRCODE_DIVISION_BY_ZERO, ERRCODE_UNIQUE_VIOLATION};
        make("large");
        let put = |ids| {
            let insert = c"INSERT INTO large SELECT id, 10 / id FROM unnest($1::bigint[]) AS id";
            spi::execute_large(insert, &[Parameter::string(ids)])
        };
        let before = memory();
        let expected = [ERRCODE_DIVISION_BY_ZERO, ERRCODE_UNIQUE_VIOLATION];
        assert_eq!(unless(&expected, || put("{1,2}")), Some(2));
        assert_eq!(unless(&expected, || put("{3,0}")), None);
        assert_eq!(unless(&expected, || put("{3,2}")), None);
        assert_eq!((rows("large"), memory()), ("1:10 2:5".to_owned(), before));
        assert_eq!(sqlstate_of(move || _ = unless(&[ERRCODE_DIVISION_BY_ZERO], || put("{3,2}"))), "23505");
        assert_eq!(sqlstate_of(move || _ = put("{3,0}")), "22012");
        let cancelled = move || {
            cancel();
            unless(&expected, || put("{3}"));
        };
        assert_eq!(sqlstate_of(cancelled), "57014");
        undone(move || assert_eq!(put("{3}"), 1));
        assert_eq!(rows("large"), "1:10 2:5");
        assert_unused("large");
        assert_free();
    }

    #[pg_test]
    fn a_subtransaction_within_another_is_undone_alone() {
        make("nested");
        let outer = unless_taken(|| {
            sql("INSERT INTO nested VALUES (1, 1)");
            assert_eq!(unless_taken(|| sql("INSERT INTO nested VALUES (2, 2), (1, 3)")), None);
            assert_eq!(unless_taken(|| sql("INSERT INTO nested VALUES (3, 3)")), Some(()));
        });
        assert_eq!((outer, &*rows("nested")), (Some(()), "1:1 3:3"));
        undone(|| assert_eq!(unless_taken(|| sql("INSERT INTO nested VALUES (4, 4)")), Some(())));
        assert_eq!(rows("nested"), "1:1 3:3");
    }
}
