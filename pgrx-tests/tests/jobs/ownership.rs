//! The owner of a job, the roles that see it, and the rights with which it runs.

use crate::job::{allowed, finish, import, import_sql, importer, inputs, wait_for_workers_to_end, wait_until_waiting};
use crate::source::Stalling;
use crate::support::{assert_error, count, fails, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database};
use serde_json::json;

/// A role that may import into `patient`, from files too, and may not log in.
fn owner(database: &Database, client: &mut Client, name: &str) -> String {
    let role = importer(database, client, name);
    run(
        client,
        &format!(
            "ALTER ROLE {role} NOLOGIN; GRANT pg_read_server_files TO {role};
             GRANT EXECUTE ON FUNCTION bulk_import_cancel(text) TO {role}"
        ),
    );
    role
}

#[test]
fn a_job_runs_as_its_owner_who_need_not_be_able_to_log_in() {
    let (database, mut client) = allowed();
    let role = owner(&database, &mut client, "owner");
    run(
        &mut client,
        &format!(
            "CREATE TABLE seen (who text, session text, super text);
             GRANT INSERT ON seen TO {role};
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen VALUES (current_user, session_user, current_setting('is_superuser')); RETURN NEW; END $$;
             CREATE TRIGGER note BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION note()"
        ),
    );
    let url = database.file("one", patients(1..=10));
    run(&mut client, &format!("SET ROLE {role}"));
    import(&mut client, "mine", &[("Patient", &url)]);
    assert_eq!(inputs(&finish(&mut client, "mine")), ["finished 10"]);
    run(&mut client, "RESET ROLE");
    assert_eq!(rows(&mut client, "SELECT DISTINCT * FROM seen"), [format!("{role}|{role}|off")]);
    // What the owner may not do, its job does not.
    let (table, file) =
        (import_sql("x", &[("Person", &url)], json!({})), import_sql("y", &[("Patient", &url)], json!({})));
    run(&mut client, &format!("REVOKE CREATE ON SCHEMA public FROM PUBLIC; SET ROLE {role}; {table}"));
    assert_eq!(finish(&mut client, "x")["inputs"][0]["error"], "permission denied for schema public");
    run(&mut client, &format!("RESET ROLE; REVOKE pg_read_server_files FROM {role}; SET ROLE {role}; {file}"));
    let error = finish(&mut client, "y")["inputs"][0]["error"].to_string();
    assert!(error.contains("permission denied to read"), "{error}");
}

#[test]
fn policies_see_the_claims_of_the_call_and_its_settings_hold() {
    let (database, mut client) = allowed();
    let role = owner(&database, &mut client, "tenant");
    run(
        &mut client,
        "ALTER TABLE patient ENABLE ROW LEVEL SECURITY;
         CREATE POLICY tenant ON patient USING (true) WITH CHECK
           (resource #>> '{name,0,given,0}' = current_setting('request.jwt.claims')::json ->> 'name'
            AND current_setting('TimeZone') = 'Asia/Tokyo' AND current_setting('search_path') = 'special'
            AND current_setting('request.headers')::json ->> 'x-tenant' = 't')",
    );
    let url = database.file("one", patients(1..=10));
    let settings = |name: &str| {
        format!(
            r#"SET ROLE {role}; SET TimeZone = 'Asia/Tokyo'; SET search_path = special;
             SET request.headers = '{{"x-tenant": "t", "Authorization": "Bearer s3cret", "cookie": "s3cret"}}';
             SET request.cookies = '{{"a": "s3cret"}}'; SET request.jwt.claims = '{{"name": "{name}"}}'"#
        )
    };
    for (id, name, expected) in [("right", "Zoë", "finished"), ("wrong", "Eve", "failed")] {
        let mut session = database.connect();
        run(&mut session, &settings(name));
        let sql = import_sql(id, &[("Patient", &url)], json!({}));
        // What the session sets afterwards does not matter.
        run(&mut session, &(sql.replace("bulk_import", "public.bulk_import") + "; RESET TimeZone; RESET search_path"));
        let status = finish(&mut session, id);
        assert_eq!(status["status"], expected, "{status}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 10);
    assert_eq!(
        count(&mut client, "SELECT count(*) FROM fhir_bulk_internal.bulk_job WHERE settings::text ~ 's3cret'"),
        0
    );
}

/// Workers connect as the server's superuser, whose settings must not apply to the owner's job.
#[test]
fn settings_of_the_superuser_do_not_reach_the_jobs_of_others() {
    let (database, mut client) = allowed();
    let role = owner(&database, &mut client, "plain");
    run(
        &mut client,
        &format!(
            "CREATE TABLE seen (path text, zone text); GRANT INSERT ON seen TO {role};
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen VALUES (current_setting('search_path'), current_setting('TimeZone')); RETURN NEW; END $$;
             CREATE TRIGGER note BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION note();
             ALTER ROLE postgres IN DATABASE {0} SET search_path = superuser;
             ALTER ROLE postgres IN DATABASE {0} SET TimeZone = 'Asia/Tokyo';
             ALTER ROLE {role} LOGIN; ALTER ROLE {role} SET TimeZone = 'Asia/Dubai'",
            database.name()
        ),
    );
    let url = database.file("one", patients(1..=10));
    let mut session = database.connect_as(&role);
    import(&mut session, "plain", &[("Patient", &url)]);
    assert_eq!(inputs(&finish(&mut session, "plain")), ["finished 10"]);
    assert_eq!(rows(&mut client, "SELECT DISTINCT * FROM seen"), ["\"$user\", public|Asia/Dubai"]);
}

#[test]
fn nobody_reads_or_writes_the_queue_itself() {
    let (database, mut client) = allowed();
    let role = owner(&database, &mut client, "curious");
    run(&mut client, &format!("GRANT ALL ON SCHEMA public TO {role}; SET ROLE {role}"));
    for table in ["bulk_job", "bulk_job_task"].map(|name| format!("fhir_bulk_internal.{name}")) {
        for sql in [
            "SELECT * FROM @",
            "DELETE FROM @",
            "UPDATE @ SET status = 'active'",
            "TRUNCATE @",
            "DROP TABLE @",
            "INSERT INTO @ DEFAULT VALUES",
        ] {
            let error = fails(&mut client, &sql.replace('@', &table));
            assert_error(&error, "42501", &["fhir_bulk_internal"]);
        }
        assert_error(
            &fails(
                &mut client,
                &format!(
                    "CREATE TRIGGER t AFTER INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                ),
            ),
            "42501",
            &["fhir_bulk_internal"],
        );
    }
    for sql in ["INSERT INTO bulk_jobs (id) VALUES ('x')", "DELETE FROM bulk_jobs", "UPDATE bulk_jobs SET id = 'x'"] {
        assert_error(&fails(&mut client, sql), "55000", &["bulk_jobs"]);
    }
}

#[test]
fn a_job_is_seen_and_cancelled_by_its_owner_and_the_same_sub_only() {
    let (database, mut client) = allowed();
    let (one, two) = (owner(&database, &mut client, "one"), owner(&database, &mut client, "two"));
    let monitor = database.role("monitor");
    run(&mut client, &format!("GRANT pg_monitor TO {monitor}"));
    let source = Stalling::silent();
    let claims = |sub: &str| format!("SET request.jwt.claims = '{{\"sub\": \"{sub}\"}}'");
    let of =
        |client: &mut Client, role: &str, claims: &str| run(client, &format!("RESET ROLE; SET ROLE {role}; {claims}"));
    let none = "SET request.jwt.claims = ''";
    // The same id for each.
    let who = [(&one, none.to_owned()), (&one, claims("a")), (&one, claims("b")), (&two, none.to_owned())];
    for (role, claims) in &who {
        of(&mut client, role, claims);
        import(&mut client, "same", &[("Patient", &source.url())]);
        assert_error(
            &fails(&mut client, &import_sql("same", &[("Patient", &source.url())], json!({}))),
            "42710",
            &["same"],
        );
    }
    let sees = |client: &mut Client| rows(client, "SELECT role, subject FROM bulk_jobs ORDER BY 1, 2 NULLS FIRST");
    let all = [format!("{one}|∅"), format!("{one}|a"), format!("{one}|b"), format!("{two}|∅")];
    let mut check = |role: &str, claims: &str, expected: &[String]| {
        of(&mut client, role, claims);
        assert_eq!(sees(&mut client), expected, "{role} {claims}");
    };
    check(&one, none, &all[..3]);
    check(&one, &claims("a"), &all[1..2]);
    check(&one, &claims("c"), &[]);
    check(&two, none, &all[3..]);
    check(&two, &claims("a"), &[]);
    check(&monitor, none, &all);
    of(&mut client, &two, &claims("a"));
    assert_error(&fails(&mut client, "SELECT bulk_import_status('same')"), "P0002", &["same"]);
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('same')"), "f");
    of(&mut client, &one, &claims("a"));
    assert_eq!(value(&mut client, "SELECT bulk_import_cancel('same')"), "t");
    run(&mut client, "RESET ROLE; SET request.jwt.claims = ''");
    assert_eq!(rows(&mut client, "SELECT subject FROM bulk_jobs WHERE status = 'cancelled'"), ["a"]);
    // Calling them is granted.
    let stranger = database.role("stranger");
    run(&mut client, &format!("SET ROLE {stranger}"));
    for sql in ["SELECT bulk_import('{}')", "SELECT bulk_import_cancel('same')"] {
        assert_error(&fails(&mut client, sql), "42501", &["permission denied for function"]);
    }
    assert_error(&fails(&mut client, "SELECT bulk_import_status('same')"), "P0002", &["same"]);
    assert_eq!(sees(&mut client), [""; 0]);
    source.go_on();
    wait_for_workers_to_end(&database);
}

#[test]
fn a_function_with_its_definers_rights_asks_for_jobs_of_its_definer() {
    let (database, mut client) = allowed();
    let (definer, caller) = (owner(&database, &mut client, "definer"), database.role("caller"));
    let url = database.file("one", patients(1..=10));
    run(
        &mut client,
        &format!(
            "CREATE FUNCTION ask(request jsonb) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT bulk_import(request)';
             ALTER FUNCTION ask OWNER TO {definer}; SET ROLE {caller}"
        ),
    );
    run(&mut client, &import_sql("asked", &[("Patient", &url)], json!({})).replace("bulk_import", "ask"));
    assert_error(&fails(&mut client, "SELECT bulk_import_status('asked')"), "P0002", &["asked"]);
    run(&mut client, &format!("RESET ROLE; SET ROLE {definer}"));
    assert_eq!(inputs(&finish(&mut client, "asked")), ["finished 10"]);
    let source = Stalling::silent();
    import(&mut client, "waits", &[("Patient", &source.url())]);
    let mut superuser = database.connect();
    wait_until_waiting(&mut superuser, "Extension");
    // As a worker shows itself to others.
    run(&mut client, &format!("RESET ROLE; SET ROLE {caller}"));
    assert_eq!(
        rows(
            &mut client,
            "SELECT query FROM pg_stat_activity WHERE backend_type = 'fhir_bulk job worker' AND datname = current_database()"
        ),
        [""; 0],
        "backend types of others are hidden"
    );
    source.go_on();
}
