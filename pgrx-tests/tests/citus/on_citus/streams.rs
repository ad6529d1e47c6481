//! After its first batch a load into a distributed table gives its rows to a statement that runs: what must not stop, lose or
//! double any.

use crate::nodes::with_patients;
use crate::support::{assert_error, count, fails, load, load_fails, patient, patients, run, value};

const STATES: &str = "SELECT string_agg(status || ' ' || count, ', ' ORDER BY status)
    FROM (SELECT status::text, count(*) FROM patient GROUP BY 1) AS t";

#[test]
fn refused_lines_among_the_rows_are_kept_with_their_numbers() {
    let (database, mut client) = with_patients();
    // More than are held before they are written.
    let bad = |n: usize| n > 1500 && n.is_multiple_of(10);
    let line = |n: usize| if bad(n) { "bad\n".to_owned() } else { patient(&format!("p-{n}"), n) + "\n" };
    let url = database.file("some-bad", (1..=5000).map(line).collect::<String>());
    let result = load(&mut client, &url, r#"'Patient', options => '{"on_error": "skip"}'"#);
    assert!(result.contains("\"total\": 4650"), "{result}");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 4650);
    let kept = "SELECT count(*) || ' ' || min(line_number) || ' ' || max(line_number) FROM bulk_load_reject";
    assert_eq!(value(&mut client, kept), "350 1510 5000");
    let error = load_fails(&mut client, &url, r#"'Patient', options => '{"on_error": "skip", "max_errors": 200}'"#);
    assert_error(&error, "22023", &["more than 200"]);
}

#[test]
fn a_bad_line_in_the_middle_leaves_nothing() {
    let (database, mut client) = with_patients();
    let url = database.file("bad", patients(1..=4000) + "bad\n" + &patients(4001..=6000));
    assert_error(&load_fails(&mut client, &url, "'Patient'"), "22P02", &["line 4001"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    assert_eq!(load(&mut client, &database.file("good", patients(1..=6000)), "'Patient'"), r#"{"total": 6000}"#);
}

#[test]
fn known_ids_in_the_middle_are_replaced_and_their_versions_kept() {
    let (database, mut client) = with_patients();
    let old = patients(3000..=3001);
    assert_eq!(load(&mut client, &database.file("old", old), "'Patient'"), r#"{"total": 2}"#);
    let url = database.file("all", patients(1..=6000));
    assert_eq!(load(&mut client, &url, r#"'Patient', options => '{"update": true}'"#), r#"{"total": 6000}"#);
    assert_eq!(value(&mut client, STATES), "created 5998, updated 2");
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient_history"), 2);
}

#[test]
fn of_an_id_that_comes_again_the_last_line_counts() {
    let (database, mut client) = with_patients();
    // Statements keep their rows in temporary files, and end before these have half of what is allowed.
    run(&mut client, "SET temp_file_limit = '4MB'");
    let lines = patients(1..=3000) + &patient("p-2000", 7) + "\n" + &patients(3001..=40_000) + &patient("p-2001", 8);
    assert_eq!(load(&mut client, &database.file("again", lines), "'Patient'"), r#"{"total": 40002}"#);
    assert_eq!(value(&mut client, STATES), "created 40000");
    let numbers = "SELECT string_agg(resource ->> 'multipleBirthInteger', ' ' ORDER BY id) FROM patient WHERE id IN ('p-2000', 'p-2001')";
    assert_eq!(value(&mut client, numbers), "7 8");
}

#[test]
fn a_resource_that_no_temporary_file_may_hold_is_loaded_too() {
    let (database, mut client) = with_patients();
    let large = patient("large", 7).replace("Family 7", &"x".repeat(3_000_000));
    let lines = patients(1..=2000) + &large + "\n" + &patients(2001..=3000);
    run(&mut client, "SET temp_file_limit = '1MB'");
    assert_eq!(load(&mut client, &database.file("large", lines), "'Patient'"), r#"{"total": 3001}"#);
    assert_eq!(count(&mut client, "SELECT length(resource::text) FROM patient WHERE id = 'large'") / 1_000_000, 3);
}

#[test]
fn code_that_the_statement_calls_gets_none_of_its_rows() {
    let (database, mut client) = with_patients();
    assert_error(&fails(&mut client, "SELECT * FROM bulk_load_rows()"), "55000", &["bulk_load_rows"]);
    run(
        &mut client,
        "CREATE FUNCTION taken() RETURNS text LANGUAGE sql VOLATILE AS 'SELECT count(*)::text FROM bulk_load_rows()'",
    );
    run(&mut client, "ALTER TABLE patient ADD COLUMN number text");
    run(&mut client, "ALTER TABLE patient ALTER COLUMN number SET DEFAULT taken()");
    let error = load_fails(&mut client, &database.file("patients", patients(1..=3000)), "'Patient'");
    assert_error(&error, "55000", &["bulk_load_rows"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 0);
    // The session is as before.
    run(&mut client, "ALTER TABLE patient ALTER COLUMN number DROP DEFAULT");
    let url = database.file("again", patients(1..=3000));
    assert_eq!(load(&mut client, &url, "'Patient'"), r#"{"total": 3000}"#);
}
