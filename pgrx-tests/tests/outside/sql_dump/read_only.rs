//! A query cannot change anything, even if an attacker wrote it.

use super::{dump_sql, literal};
use crate::support::{assert_error, count, fails, relations, rows, run, value};
use fhir_bulk_tests::{Client, Database, DbError, is_without};

/// Tables to write to, of which one is temporary, and functions that run any SQL.
pub(super) fn session() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE t (a integer); INSERT INTO t VALUES (0);
         CREATE TEMPORARY TABLE own (a integer); INSERT INTO own VALUES (0);
         CREATE SEQUENCE s; CREATE TEMPORARY SEQUENCE own_s; PREPARE writes AS INSERT INTO t VALUES (1);
         CREATE FUNCTION does(sql text) RETURNS text LANGUAGE plpgsql AS
           $$ DECLARE answer text; BEGIN EXECUTE sql INTO answer; RETURN coalesce(answer, 'done'); END $$;
         CREATE FUNCTION tries(sql text) RETURNS text LANGUAGE plpgsql AS
           $$ BEGIN EXECUTE sql; RETURN 'done'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$;
         CREATE FUNCTION inserts() RETURNS integer LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING a';
         CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
         CREATE VIEW reads AS SELECT inserts()",
    );
    // The first call makes the extension's own settings known.
    assert_eq!(rows(&mut client, "SELECT dump_sql('SELECT 1')"), ["1"]);
    (database, client)
}

pub(super) fn refused(client: &mut Client, query: &str) -> DbError {
    fails(client, &format!("SELECT {}", dump_sql(query, "csv", "{}")))
}

/// What a write, a setting or a role would have changed.
pub(super) fn state(client: &mut Client) -> Vec<String> {
    let mut state = rows(
        client,
        "SELECT count(*), sum(a) FROM t UNION ALL SELECT count(*), sum(a) FROM own
         UNION ALL SELECT last_value, is_called::int FROM s UNION ALL SELECT last_value, is_called::int FROM own_s
         UNION ALL SELECT count(*), 0 FROM pg_largeobject_metadata
         UNION ALL SELECT count(*), 0 FROM pg_locks WHERE locktype = 'advisory'
         UNION ALL SELECT count(*), 0 FROM pg_prepared_statements
         UNION ALL SELECT count(*), 0 FROM pg_cursors
         UNION ALL SELECT count(*), 0 FROM pg_listening_channels()
         UNION ALL SELECT count(*), 0 FROM pg_replication_slots",
    );
    state.extend(rows(client, "SELECT name, setting FROM pg_settings ORDER BY name"));
    state.extend(rows(client, "SELECT current_user, session_user, current_setting('request.jwt.claims', true)"));
    state.extend(relations(client));
    state
}

#[test]
fn no_statement_that_writes_locks_or_sets_can_be_a_query() {
    let (_database, mut client) = session();
    let before = state(&mut client);
    for query in [
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (1) RETURNING a",
        "UPDATE t SET a = 1 RETURNING a",
        "DELETE FROM t RETURNING a",
        "MERGE INTO t USING t AS x ON false WHEN NOT MATCHED THEN INSERT VALUES (1)",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM x",
        "WITH x AS (DELETE FROM own RETURNING a) SELECT a FROM x",
        "WITH x AS (UPDATE t SET a = 1) SELECT 1",
        "SELECT a FROM t FOR UPDATE",
        "SELECT a FROM t FOR KEY SHARE",
        "SELECT a FROM own FOR UPDATE",
        "SELECT * FROM (SELECT a FROM t FOR SHARE) AS x",
        "SELECT a INTO made FROM t",
        "SELECT a INTO TEMPORARY made FROM t",
        "CREATE TABLE made AS SELECT 1",
        "CREATE TEMPORARY TABLE made (a integer)",
        "DROP TABLE t",
        "TRUNCATE t",
        "COPY t TO STDOUT",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "EXECUTE writes",
        "CALL commits()",
        "DO $$ BEGIN INSERT INTO t VALUES (1); END $$",
        "SET ROLE postgres",
        "SET request.jwt.claims = '{}'",
        "RESET ALL",
        "SHOW work_mem",
        "BEGIN",
        "COMMIT",
        "LOCK TABLE t",
        "LISTEN x",
        "NOTIFY x",
        "DECLARE c CURSOR FOR SELECT 1",
        "FETCH ALL FROM c",
        "PREPARE p AS SELECT 1",
        "DISCARD ALL",
        "LOAD 'plpgsql'",
        "VACUUM t",
        "ALTER SYSTEM SET work_mem = '8MB'",
    ] {
        let error = refused(&mut client, query);
        assert_error(&error, "25006", &["dump_sql only reads and cannot run"]);
        assert_eq!(state(&mut client), before, "{query}");
    }
}

#[test]
fn no_function_of_a_query_can_write_lock_or_set() {
    let (_database, mut client) = session();
    let before = state(&mut client);
    for sql in [
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "INSERT INTO own VALUES (1)",
        "DELETE FROM own",
        "WITH x AS (INSERT INTO own VALUES (1) RETURNING a) SELECT a FROM x",
        "SELECT a FROM t FOR UPDATE",
        "SELECT a FROM own FOR UPDATE",
        "CREATE TABLE made (a integer)",
        "CREATE TEMPORARY TABLE made (a integer)",
        "CREATE TEMPORARY TABLE made AS SELECT 1",
        "ALTER TABLE own ADD COLUMN b integer",
        "TRUNCATE own",
        "DROP TABLE own",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "EXPLAIN ANALYZE INSERT INTO own VALUES (1)",
        "EXPLAIN ANALYZE CREATE TEMPORARY TABLE made AS SELECT 1",
        "EXECUTE writes",
        "DEALLOCATE writes",
        "DISCARD TEMP",
        "SET request.jwt.claims = '{}'",
        "SET LOCAL request.jwt.claims = '{}'",
        "SET work_mem = '8MB'",
        "RESET ALL",
        "SET ROLE pg_monitor",
        "SET LOCAL ROLE pg_monitor",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION pg_monitor",
        "RESET SESSION AUTHORIZATION",
        "SET transaction_read_only = off",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET CONSTRAINTS ALL DEFERRED",
        "DO $$ BEGIN INSERT INTO t VALUES (1); END $$",
        "DO $$ BEGIN PERFORM set_config('request.jwt.claims', '{}', false); END $$",
        "DO $$ DECLARE x text; BEGIN x := set_config('request.jwt.claims', '{}', true); END $$",
        "UPDATE pg_settings SET setting = '8MB' WHERE name = 'work_mem'",
        "COPY t TO '/dev/null'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "LOCK TABLE t IN ACCESS SHARE MODE",
        "LISTEN x",
        "NOTIFY x",
        "LOAD 'plpgsql'",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "CHECKPOINT",
        "COMMENT ON TABLE t IS 'x'",
        "GRANT SELECT ON t TO PUBLIC",
        "REFRESH MATERIALIZED VIEW t",
        "SELECT nextval('s')",
        "SELECT nextval('own_s')",
        "SELECT setval('own_s', 7)",
        "SELECT lo_create(0)",
        "SELECT inserts()",
        "SELECT * FROM reads",
        "SELECT set_config('request.jwt.claims', '{}', true)",
        "SELECT dump_sql('INSERT INTO t VALUES (1)')",
        "SELECT dump_sql('SELECT inserts()')",
        "SELECT bulk_create_table('Patient')",
    ] {
        let query = format!("SELECT does({})", literal(sql));
        assert_error(&refused(&mut client, &query), "25006", &[]);
        assert_eq!(state(&mut client), before, "{sql}");
        // Nor does it help to catch the refusal.
        let caught = format!("SELECT tries({}), tries('INSERT INTO t VALUES (1)')", literal(sql));
        let answer = rows(&mut client, &format!("SELECT {}", dump_sql(&caught, "csv", "{}")));
        assert_eq!(answer, ["25006,25006"], "{sql}");
        assert_eq!(state(&mut client), before, "{sql}");
    }
    for (sql, sqlstate) in
        [("COMMIT", "0A000"), ("ROLLBACK", "0A000"), ("CALL commits()", "2D000"), ("SAVEPOINT x", "0A000")]
    {
        assert_error(&refused(&mut client, &format!("SELECT does('{sql}')")), sqlstate, &[]);
        assert_eq!(state(&mut client), before, "{sql}");
    }
}

/// Volatile functions of PostgreSQL that change nothing, or nothing but what ends with the transaction or is a number
/// drawn by chance.
const HARMLESS: &str =
    "amvalidate array_sample array_shuffle clock_timestamp current_query currtid2 currval gen_random_uuid lastval
    lo_close lo_get lo_lseek lo_lseek64 lo_open lo_tell lo_tell64 loread pg_available_wal_summaries pg_blocking_pids pg_collation_actual_version
    pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system pg_current_logfile
    pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_collation_actual_version
    pg_database_size pg_get_aios pg_get_backend_memory_contexts pg_get_loaded_modules pg_get_multixact_members
    pg_get_sequence_data pg_get_shmem_allocations pg_get_shmem_allocations_numa pg_get_wait_events
    pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_get_wal_summarizer_state pg_hba_file_rules
    pg_ident_file_mappings pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused
    pg_isolation_test_session_is_blocked pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status pg_logical_slot_peek_binary_changes
    pg_logical_slot_peek_changes pg_ls_archive_statusdir pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir
    pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_summariesdir pg_ls_tmpdir pg_ls_waldir pg_notification_queue_usage
    pg_partition_ancestors pg_partition_tree pg_prepared_xact pg_read_binary_file pg_read_file pg_read_file_old
    pg_relation_size pg_replication_origin_progress pg_replication_origin_session_is_setup
    pg_replication_origin_session_progress pg_safe_snapshot_blocking_pids pg_sequence_last_value
    pg_show_all_file_settings pg_show_replication_origin_status pg_sleep pg_sleep_for pg_sleep_until
    pg_stat_clear_snapshot pg_stat_file pg_stat_force_next_flush pg_stat_get_backend_io pg_stat_get_backend_wal
    pg_stat_get_io pg_stat_get_recovery_prefetch pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit
    pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time pg_stat_get_xact_function_total_time
    pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched
    pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_newpage_updated
    pg_stat_get_xact_tuples_returned pg_stat_get_xact_tuples_updated pg_stat_have_stats pg_table_size
    pg_tablespace_size pg_total_relation_size
    pg_wal_summary_contents pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status query_to_xml
    query_to_xml_and_xmlschema query_to_xmlschema random random_normal setseed timeofday ts_rewrite ts_stat
    txid_status uuidv4 uuidv7";

#[test]
fn every_volatile_function_of_this_postgresql_is_refused_or_known_to_be_harmless() {
    let mut client = Database::new().connect();
    // With NULLs, which nearly all of these functions answer without doing anything; the refusal comes before the call.
    // That they are NULLs must not be seen before the query runs.
    let calls = rows(
        &mut client,
        r#"SELECT proname, format('SELECT %s(%s) FROM (SELECT %s OFFSET 0) AS x', proname,
           (SELECT string_agg(CASE WHEN at = pronargs AND provariadic NOT IN (0, '"any"'::regtype) THEN 'VARIADIC ' ELSE '' END || 'a' || at, ', ' ORDER BY at) FROM unnest(proargtypes) WITH ORDINALITY AS a(t, at)),
           (SELECT string_agg(format('NULL::%s AS a%s', format_type(t, NULL), at), ', ') FROM unnest(proargtypes) WITH ORDINALITY AS a(t, at)))
         FROM pg_proc
         WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v' AND oid < 16384
           AND prorettype <> ALL ('{trigger,event_trigger,internal,tsm_handler,index_am_handler,table_am_handler,language_handler}'::regtype[])
           AND 'internal'::regtype <> ALL (proargtypes) AND proname NOT LIKE 'plpgsql%'"#,
    );
    assert!(calls.len() > 180, "{}", calls.len());
    let harmless: Vec<_> = HARMLESS.split_whitespace().collect();
    for call in calls {
        let (name, query) = call.split_once('|').unwrap();
        let result = client.simple_query(&format!("SELECT {}", dump_sql(query, "csv", "{}")));
        let error = result.err().and_then(|error| error.as_db_error().map(|error| error.message().to_owned()));
        let refused = error.is_some_and(|message| message.starts_with("dump_sql only reads and cannot run "));
        assert_eq!(refused, !harmless.contains(&name), "{query}");
    }
}

#[test]
fn what_only_reads_goes_on_working() {
    let (database, mut client) = session();
    run(
        &mut client,
        "CREATE FUNCTION in_berlin(at timestamptz) RETURNS text LANGUAGE sql STABLE SET TimeZone = 'Europe/Berlin' AS 'SELECT at::text';
         CREATE FUNCTION estimated(query text) RETURNS json LANGUAGE plpgsql AS
           $$ DECLARE plan json; BEGIN EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan; RETURN plan -> 0 -> 'Plan' -> 'Node Type'; END $$;
         SET TimeZone = 'UTC'",
    );
    for (query, answer) in [
        ("SELECT in_berlin('2024-07-01 00:00Z'), current_setting('TimeZone')", "2024-07-01 02:00:00+02,UTC"),
        ("SELECT estimated('INSERT INTO t VALUES (1)')", "\"\"\"ModifyTable\"\"\""),
        ("SELECT does('SHOW server_encoding')", "UTF8"),
        ("SELECT tries('DO $d$ BEGIN PERFORM 1; END $d$')", "done"),
        ("SELECT dump_sql('SELECT dump_sql(''SELECT a FROM t'')')", "0"),
        ("SELECT xpath('//a/text()', table_to_xml('t', true, true, ''))", "{0}"),
        ("SELECT txid_current() > 0, random() < 1, clock_timestamp() > now()", "t,t,t"),
        ("SELECT lo_get(0) FROM t WHERE a > 0", "none"),
        ("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT sum(i) FROM n", "6"),
    ] {
        if query.contains("to_xml") && is_without("libxml") {
            continue;
        }
        let mut answers = rows(&mut client, &format!("SELECT {}", dump_sql(query, "csv", "{}")));
        let expected = if answer.is_empty() { "\"\"" } else { answer };
        if answers.is_empty() {
            answers.push("none".into());
        }
        assert_eq!(answers, [expected], "{query}");
    }
    // In a transaction that only reads as well.
    run(&mut client, "BEGIN READ ONLY");
    assert_eq!(rows(&mut client, "SELECT dump_sql('SELECT a FROM t')"), ["0"]);
    assert_error(&fails(&mut client, "INSERT INTO t VALUES (1)"), "25006", &["read-only transaction"]);
    run(&mut client, "ROLLBACK");
    drop(database);
}

#[test]
fn the_callers_transaction_writes_before_between_and_after_the_rows() {
    let (_database, mut client) = session();
    run(&mut client, "BEGIN; INSERT INTO t VALUES (1)");
    run(&mut client, "INSERT INTO t SELECT dump_sql('SELECT g FROM generate_series(2, 5000) AS g')::integer");
    assert_eq!(count(&mut client, "SELECT count(*) FROM t"), 5001);
    run(
        &mut client,
        "DECLARE c CURSOR FOR SELECT dump_sql('SELECT repeat(''x'', 1000), g FROM generate_series(1, 1000) AS g')",
    );
    for _ in 0..4 {
        assert_eq!(rows(&mut client, "FETCH 200 FROM c").len(), 200);
        assert_eq!(value(&mut client, "SHOW transaction_read_only"), "off");
        run(&mut client, "INSERT INTO t VALUES (7); SET LOCAL work_mem = '8MB'; SELECT lo_create(0), nextval('s')");
    }
    run(&mut client, "SAVEPOINT a");
    for query in ["SELECT inserts()", "SELECT 1 / 0", "SELECT 1 frm t t", "INSERT INTO t VALUES (1)"] {
        refused(&mut client, query);
        run(&mut client, "ROLLBACK TO a; INSERT INTO t VALUES (8)");
        assert_eq!(value(&mut client, "SHOW transaction_read_only"), "off");
        assert_eq!(value(&mut client, "SHOW work_mem"), "8MB");
    }
    run(
        &mut client,
        "DO $$ BEGIN
           BEGIN PERFORM dump_sql('SELECT 1 / (9 - g) FROM generate_series(1, 9) AS g'); EXCEPTION WHEN division_by_zero THEN INSERT INTO t VALUES (9); END;
           PERFORM set_config('request.jwt.claims', 'mine', true);
         END $$; SET LOCAL ROLE pg_monitor; RESET ROLE; SAVEPOINT b; INSERT INTO t VALUES (9)",
    );
    assert_eq!(value(&mut client, "SELECT current_setting('request.jwt.claims')"), "mine");
    assert_eq!(rows(&mut client, "FETCH ALL FROM c").len(), 200);
    run(&mut client, "CLOSE c; COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM t WHERE a IN (7, 9)"), 4 + 2 + 2);
}
