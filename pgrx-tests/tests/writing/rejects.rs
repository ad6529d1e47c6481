//! `on_error: skip` and the lines that it passes over.

use crate::support::{assert_error, count, fails, load, load_fails, patients, rows, run, value};
use fhir_bulk_tests::{Client, Database, gzip};

const SKIP: &str = "'Patient', options => '{\"on_error\": \"skip\"}'";

fn new() -> (Database, Client) {
    let database = Database::new();
    let client = database.connect();
    (database, client)
}

/// Lines, the bad ones of which have their SQLSTATE beside them.
fn mixed_lines() -> Vec<(Vec<u8>, &'static str)> {
    let line = |text: &str| text.as_bytes().to_vec();
    let long = format!("{{\"id\":\"long\",\"text\":\"{}\"}}", "x".repeat(200_000));
    vec![
        (line(r#"{"id":"good-1"}"#), ""),
        (line(r#"{"id":"broken""#), "22P02"),
        (line(""), ""),
        (b"{\"id\":\"latin\",\"name\":\"Zo\xEB\"}".to_vec(), "22021"),
        (b"{\"id\":\"nul\",\"name\":\"a\0b\"}".to_vec(), "22P05"),
        (line(r#"{"id":"escaped-nul","name":"\u0000"}"#), "22P05"),
        (line(r#"{"id":"surrogate","name":"\ud800"}"#), "22P02"),
        (line(r#"{"id":"good-2"}"#), ""),
        (line(&long), "54000"),
        (line(r#"{"id":"foreign","resourceType":"Group"}"#), "22023"),
        (line(r#"{"id":"typed","resourceType":7}"#), "22023"),
        (line(r#"{"id":""}"#), "22023"),
        (line(r#"{"id":17}"#), "22023"),
        (line(r#"{}"#), "22023"),
        (line("[]"), "22023"),
        (line("\"text\""), "22023"),
        (line(r#"{"id":"a"} {"id":"b"}"#), "22P02"),
        (line(r#"{"id":"time","meta":{"createdAt":"yesterday"}}"#), "22007"),
        (line(r#"{"id":"meta","meta":[]}"#), "22023"),
        (line(r#"{"id":"number","n":1e999999}"#), "22003"),
        (line(&format!("{{\"id\":\"deep\",\"n\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000))), "54001"),
        (line(&long), "54000"),
        (line("{\"id\":\"good-3\"}\r"), ""),
        (line("   \r"), ""),
        (line("}"), "22P02"),
    ]
}

#[test]
fn each_kind_of_bad_line_is_passed_over_with_its_place_and_reason() {
    let (database, mut client) = new();
    run(&mut client, "SET fhir_bulk.max_line_bytes = '100kB'");
    let lines = mixed_lines();
    let mut text = b"\xEF\xBB\xBF".to_vec();
    let mut expected = Vec::new();
    for (at, (line, state)) in lines.iter().enumerate() {
        if !state.is_empty() {
            let kept: String = line[..line.len().min(65536)].iter().map(|byte| format!("{byte:02x}")).collect();
            expected.push(format!("{}|{}|{state}|{kept}", at + 1, text.len()));
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.pop();
    let bad = expected.len();
    for (name, bytes) in [
        ("plain", text.clone()),
        ("packed", gzip(&text)),
        ("members", [gzip(&text[..150]), gzip(&text[150..])].concat()),
    ] {
        let url = database.file(name, bytes);
        assert_eq!(load(&mut client, &url, SKIP), format!("{{\"total\": 3, \"errors\": {bad}}}"), "{name}");
        assert_eq!(rows(&mut client, "SELECT id FROM patient ORDER BY 1"), ["good-1", "good-2", "good-3"]);
        let query = "SELECT line_number, byte_offset, sqlstate, encode(line, 'hex') FROM bulk_load_reject
            WHERE source = $s$URL$s$ ORDER BY line_number";
        let found = rows(&mut client, &query.replace("URL", &url));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found == expected, "{name}: {} is not {}", cut(found), cut(expected));
        }
    }
    // The messages are those that end a load without skip.
    let errors =
        rows(&mut client, "SELECT error FROM bulk_load_reject WHERE source LIKE '%plain' ORDER BY line_number");
    for (error, (line, _)) in errors.iter().zip(lines.iter().filter(|(_, state)| !state.is_empty())) {
        let alone = load_fails(&mut client, &database.file("alone", line), "'Patient'");
        let place = |text: &str| text.split_once(['/', ':']).map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        let reason = |text: &str| place(text).rsplit(": ").next().unwrap().replace("alone", "").replace("plain", "");
        assert_eq!(reason(error), reason(alone.message()), "{error}");
    }
}

fn cut(text: &str) -> &str {
    &text[..text.len().min(120)]
}

#[test]
fn hundreds_of_bad_lines_are_all_there() {
    let (database, mut client) = new();
    let text: String = (1..=1234).map(|n| if n % 5 == 0 { patients(n..=n) } else { format!("bad {n}\n") }).collect();
    let url = database.file("lines", text);
    assert_eq!(load(&mut client, &url, SKIP), r#"{"total": 246, "errors": 988}"#);
    assert_eq!(
        value(
            &mut client,
            "SELECT count(*), count(DISTINCT line_number), bool_and(line = ('bad ' || line_number)::bytea), bool_and(loaded_at <= now()) FROM bulk_load_reject"
        ),
        "988|988|t|t"
    );
}

#[test]
fn without_bad_lines_errors_is_zero_and_without_skip_it_is_not_there() {
    let (database, mut client) = new();
    let url = database.file("lines", patients(1..=3));
    assert_eq!(load(&mut client, &url, SKIP), r#"{"total": 3, "errors": 0}"#);
    assert_eq!(load(&mut client, &url, "options => '{\"on_error\": \"skip\"}'"), r#"{"errors": 0, "Patient": 3}"#);
    assert_eq!(load(&mut client, &url, "options => '{\"on_error\": \"abort\"}'"), r#"{"Patient": 3}"#);
    let empty = database.file("empty", "");
    assert_eq!(load(&mut client, &empty, SKIP), r#"{"total": 0, "errors": 0}"#);
    let all_bad = database.file("bad", "x\ny\n");
    assert_eq!(load(&mut client, &all_bad, SKIP), r#"{"total": 0, "errors": 2}"#);
}

#[test]
fn a_line_without_a_type_or_with_a_bad_one_is_passed_over_in_an_untyped_load() {
    let (database, mut client) = new();
    let lines = "{\"id\":\"1\"}\n{\"id\":\"2\",\"resourceType\":\"A b\"}\n{\"id\":\"3\",\"resourceType\":\"\"}\n{\"id\":\"4\",\"resourceType\":\"Group\"}\n";
    let url = database.file("lines", lines);
    assert_eq!(load(&mut client, &url, "options => '{\"on_error\": \"skip\"}'"), r#"{"Group": 1, "errors": 3}"#);
    assert_eq!(rows(&mut client, "SELECT line_number FROM bulk_load_reject"), ["1", "2", "3"]);
}

#[test]
fn what_is_wrong_with_the_source_or_the_table_is_not_passed_over() {
    let (database, mut client) = new();
    let packed = gzip(patients(1..=5000).as_bytes());
    let cut = database.file("cut", &packed[..packed.len() - 20]);
    assert_error(&load_fails(&mut client, &cut, SKIP), "22P04", &["line"]);
    let mut broken = packed.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 8].fill(0x55);
    assert_error(&load_fails(&mut client, &database.file("broken", broken), SKIP), "22P04", &["line"]);
    run(&mut client, "SELECT bulk_create_table('Patient'); ALTER TABLE patient ADD CHECK (id <> 'p-3')");
    assert_error(&load_fails(&mut client, &database.file("good", patients(1..=5)), SKIP), "23514", &["patient"]);
    run(&mut client, "SET fhir_bulk.max_new_tables = 0");
    let types = database.file("types", "{\"id\":\"1\",\"resourceType\":\"Group\"}\n");
    assert_error(&load_fails(&mut client, &types, "options => '{\"on_error\": \"skip\"}'"), "54000", &["Group"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_load_reject"), 0);
}

#[test]
fn roles_see_and_delete_only_their_own_rejects_and_nobody_writes_them() {
    let (database, mut admin) = new();
    run(&mut admin, "SELECT bulk_create_table('Patient')");
    let url = database.file("bad", "bad\n");
    let mut sessions = Vec::new();
    for name in ["one", "two"] {
        let role = database.role(name);
        run(
            &mut admin,
            &format!(
                "GRANT pg_read_server_files TO {role}; GRANT EXECUTE ON FUNCTION bulk_load TO {role};
                 GRANT ALL ON patient TO {role}; GRANT USAGE ON SEQUENCE transaction_id_seq TO {role}"
            ),
        );
        let mut client = database.connect_as(&role);
        assert_eq!(load(&mut client, &url, SKIP), r#"{"total": 0, "errors": 1}"#);
        sessions.push(client);
    }
    load(&mut admin, &database.file("admins", "bad\nworse\n"), SKIP);
    for client in &mut sessions {
        assert_eq!(rows(client, "SELECT line FROM bulk_load_reject"), ["\\x626164"]);
        for statement in [
            "SELECT * FROM fhir_bulk_internal.bulk_load_reject_row",
            "DELETE FROM fhir_bulk_internal.bulk_load_reject_row",
            "TRUNCATE fhir_bulk_internal.bulk_load_reject_row",
            "INSERT INTO fhir_bulk_internal.bulk_load_reject_row VALUES (10, now(), 's', 1, 1, '22000', 'e', '')",
            "INSERT INTO bulk_load_reject VALUES (now(), 's', 1, 1, '22000', 'e', '')",
            "UPDATE bulk_load_reject SET error = 'other'",
            "CREATE TRIGGER t BEFORE INSERT ON fhir_bulk_internal.bulk_load_reject_row FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ] {
            let named = if statement.contains("_row") { "fhir_bulk_internal" } else { "bulk_load_reject" };
            assert_error(&fails(client, statement), "42501", &[named]);
        }
    }
    // A function of the caller's that would see rows before the view's condition does.
    run(
        &mut sessions[0],
        "CREATE FUNCTION pg_temp.leak(bytea) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
             'BEGIN IF encode($1, ''escape'') = ''worse'' THEN RAISE EXCEPTION ''leaked''; END IF; RETURN true; END'",
    );
    assert_eq!(count(&mut sessions[0], "SELECT count(*) FROM bulk_load_reject WHERE pg_temp.leak(line)"), 1);
    run(&mut sessions[0], "DELETE FROM bulk_load_reject");
    assert_eq!(count(&mut sessions[0], "SELECT count(*) FROM bulk_load_reject"), 0);
    assert_eq!(count(&mut sessions[1], "SELECT count(*) FROM bulk_load_reject"), 1);
    assert_eq!(count(&mut admin, "SELECT count(*) FROM bulk_load_reject"), 2);
    // Under SET ROLE and in a SECURITY DEFINER function it is the current role.
    let two = value(&mut sessions[1], "SELECT current_user");
    run(&mut admin, &format!("SET ROLE {two}"));
    assert_eq!(count(&mut admin, "SELECT count(*) FROM bulk_load_reject"), 1);
}

#[test]
fn rejects_go_back_with_the_transaction_or_the_savepoint() {
    let (database, mut client) = new();
    let url = database.file("lines", patients(1..=3) + &"bad\n".repeat(150));
    run(&mut client, "BEGIN");
    assert_eq!(load(&mut client, &url, SKIP), r#"{"total": 3, "errors": 150}"#);
    run(&mut client, "SAVEPOINT s");
    load(&mut client, &url, SKIP);
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_load_reject"), 300);
    run(&mut client, "ROLLBACK TO s; COMMIT");
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_load_reject"), 150);
    run(&mut client, "DELETE FROM bulk_load_reject");
    run(&mut client, "BEGIN");
    load(&mut client, &url, SKIP);
    run(&mut client, "ROLLBACK");
    assert_eq!(count(&mut client, "SELECT count(*) FROM bulk_load_reject"), 0);
}

#[test]
fn rejects_can_be_deleted_where_all_tables_are_published() {
    let (database, mut client) = new();
    run(&mut client, "CREATE PUBLICATION everything FOR ALL TABLES");
    load(&mut client, &database.file("bad", "bad\n"), SKIP);
    assert_eq!(rows(&mut client, "DELETE FROM bulk_load_reject RETURNING line_number"), ["1"]);
}

#[test]
fn a_role_that_gets_anothers_name_does_not_get_its_rejected_lines() {
    let (database, mut client) = new();
    let role = database.role("first");
    run(
        &mut client,
        &format!(
            "GRANT EXECUTE ON FUNCTION bulk_load TO {role}; GRANT pg_read_server_files TO {role}; GRANT CREATE ON SCHEMA public TO {role}"
        ),
    );
    let url = database.file("bad", "{\"id\":\"1\"}\n{\n");
    let mut first = database.connect_as(&role);
    load(&mut first, &url, SKIP);
    let seen = "SELECT count(*) FROM bulk_load_reject";
    assert_eq!(count(&mut first, seen), 1);
    drop(first);
    let other = format!("{role}_renamed");
    run(&mut client, &format!("ALTER ROLE {role} RENAME TO {other}; CREATE ROLE {role} LOGIN"));
    assert_eq!(count(&mut database.connect_as(&role), seen), 0, "another role of that name");
    assert_eq!(count(&mut database.connect_as(&other), seen), 1, "the same role by another name");
    run(&mut client, &format!("DROP ROLE {role}; DROP OWNED BY {other}; DROP ROLE {other}"));
}
