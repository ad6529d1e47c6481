//! What holds of a load whatever table it goes to.

use super::kind::Place;
use crate::support::{assert_error, count, load, load_fails, patient, patients, rows, run, value};
use fhir_bulk_tests::Client;

/// More than a batch of the ways that work by statements.
const MANY: usize = 9000;
const NUMBER: &str = "resource ->> 'multipleBirthInteger'";

/// All of it, each on an empty table.
pub fn all(place: &mut Place) {
    for check in [
        new_lines_are_created_and_the_last_of_an_id_wins,
        the_last_line_of_an_id_wins_whatever_room_there_is_for_it,
        known_ids_are_updated_and_keep_their_creation,
        update_keeps_each_replaced_version_once,
        equal_resources_are_left_as_they_are_if_asked,
        a_known_id_is_refused_if_asked,
        creation_times_come_from_the_lines,
        options_work_together,
        a_failed_or_rolled_back_load_leaves_nothing,
    ] {
        run(&mut place.admin, "DELETE FROM patient; DELETE FROM patient_history; DROP TABLE IF EXISTS before");
        check(place);
        if let Some(also) = place.also {
            also(place);
        }
    }
}

fn new_lines_are_created_and_the_last_of_an_id_wins(place: &mut Place) {
    let Place { database, client, has_cts, .. } = place;
    let text = patients(1..=MANY) + &patient("p-9000", 9001) + "\n" + &patient("p-1", 9002);
    let url = database.file("new", text);
    run(client, "BEGIN");
    assert_eq!(load(client, &url, "'Patient'"), r#"{"total": 9002}"#);
    let (txid, now) = own_stamp(client);
    let query = format!(
        "SELECT count(*), count(DISTINCT id), bool_and(txid = {txid}), bool_and(status::text = 'created'),
         bool_and(ts = '{now}'), bool_and(resource_type = 'Patient'), bool_or(resource ?| ARRAY['id', 'resourceType']) FROM patient"
    );
    assert_eq!(value(client, &query), "9000|9000|t|t|t|t|f");
    if *has_cts {
        assert_eq!(value(client, &format!("SELECT bool_and(cts = '{now}') FROM patient")), "t");
    }
    assert_eq!(rows(client, &numbers("id IN ('p-1', 'p-2', 'p-9000')")), ["p-1|9002", "p-2|2", "p-9000|9001"]);
    assert_eq!(value(client, &format!("SELECT count(*) FROM patient WHERE 'p-' || ({NUMBER}) = id")), "8998");
    assert_eq!(value(client, "SELECT count(*) FROM (SELECT bulk_dump('Patient')) AS dumped"), "9000");
    run(client, "COMMIT");
}

/// Of large resources four fill a page and leave room for some small ones: those come later and fit in earlier pages.
fn the_last_line_of_an_id_wins_whatever_room_there_is_for_it(place: &mut Place) {
    let Place { database, client, .. } = place;
    let mut random = 1_u64;
    let mut text = || -> String {
        // Of no two letters alike, so that it is not compressed.
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'0' + (random >> 33) as u8 % 75)
        };
        (0..1700).map(|_| next()).filter(|c| *c != '\\').collect()
    };
    let large: String = (0..1200).map(|n| format!("{{\"id\":\"l-{n}\",\"text\":\"{}\"}}\n", text())).collect();
    let small: String = (0..1200).rev().map(|n| format!("{{\"id\":\"l-{n}\",\"small\":true}}\n")).collect();
    let url = database.file("sizes", large + &small);
    assert_eq!(load(client, &url, "'Patient'"), r#"{"total": 2400}"#);
    assert_eq!(value(client, "SELECT count(*), bool_and(resource ? 'small') FROM patient"), "1200|t");
}

fn known_ids_are_updated_and_keep_their_creation(place: &mut Place) {
    let Place { database, client, admin, has_cts, .. } = place;
    load(client, &database.file("first", patients(1..=MANY)), "'Patient'");
    run(admin, "UPDATE patient SET status = 'deleted' WHERE id = 'p-2'; CREATE TABLE before AS SELECT * FROM patient");
    let second = patients(11..=9500).replace("Family", "Other")
        + &[("p-2", 1), ("p-20", 2), ("p-9499", 3), ("p-9499", 4), ("p-11", 5)]
            .map(|(id, number)| patient(id, number) + "\n")
            .concat();
    let url = database.file("second", second);
    run(client, "BEGIN");
    assert_eq!(load(client, &url, ""), r#"{"Patient": 9495}"#);
    assert_eq!(
        rows(client, "SELECT status, count(*) FROM patient GROUP BY 1 ORDER BY status::text"),
        ["created|509", "recreated|1", "updated|8990"]
    );
    let (txid, now) = own_stamp(client);
    let query = format!("SELECT count(*), bool_and(ts = '{now}') FROM patient WHERE txid = {txid}");
    assert_eq!(value(client, &query), "9491|t");
    run(client, "COMMIT");
    assert_eq!(
        rows(admin, &numbers("id IN ('p-2', 'p-11', 'p-20', 'p-9499', 'p-9500')")),
        ["p-11|5", "p-2|1", "p-20|2", "p-9499|4", "p-9500|9500"]
    );
    assert_eq!(
        value(
            admin,
            "SELECT count(*) FROM patient p JOIN before b USING (id, txid, ts, resource) WHERE p.status::text = b.status::text"
        ),
        "9",
        "rows that the source does not name"
    );
    assert_eq!(count(admin, "SELECT count(*) FROM patient WHERE resource::text ~ 'Other'"), 9487);
    if *has_cts {
        assert_eq!(count(admin, "SELECT count(*) FROM patient p JOIN before b USING (id, cts)"), MANY as i64);
        assert_eq!(count(admin, "SELECT count(*) FROM patient WHERE cts = ts AND status::text = 'created'"), 509);
    }
    assert_eq!(count(admin, "SELECT count(*) FROM patient_history"), 0);
}

fn equal_resources_are_left_as_they_are_if_asked(place: &mut Place) {
    let Place { database, client, admin, .. } = place;
    let first = database.file("first", patients(1..=MANY));
    load(client, &first, "'Patient'");
    // Of a trigger that changes what comes no two are equal.
    let changed = count(admin, "SELECT count(*) FROM patient WHERE resource ? 'tagged'");
    run(admin, "UPDATE patient SET status = 'deleted' WHERE id = 'p-2'; CREATE TABLE before AS SELECT * FROM patient");
    let skip = "options => '{\"skip_unchanged\": true, \"update\": true}'";
    // A number that is equal has other digits, one that is not has the same.
    let second = patients(1..=9010)
        .replace("\"multipleBirthInteger\":8}", "\"multipleBirthInteger\":8.0}")
        .replace("\"multipleBirthInteger\":7}", "\"multipleBirthInteger\":9}");
    let second = database.file("second", second);
    let unchanged = if changed > 0 { 0 } else { MANY - 3 };
    let answer = format!("{{\"total\": 9010, \"unchanged\": {unchanged}}}");
    assert_eq!(load(client, &second, &format!("'Patient', {skip}")), answer);
    let same = "SELECT count(*) FROM patient JOIN before USING (id, txid, ts, resource) WHERE patient.status::text = before.status::text";
    assert_eq!(count(admin, same), unchanged as i64);
    if changed == 0 {
        assert_eq!(
            rows(admin, "SELECT id, status FROM patient_history ORDER BY 1"),
            ["p-2|deleted", "p-7|created", "p-8|created"]
        );
        assert_eq!(
            rows(
                admin,
                "SELECT id, status, resource -> 'multipleBirthInteger' FROM patient WHERE txid <> (SELECT max(txid) FROM before) AND id < 'p-9' ORDER BY 1"
            ),
            ["p-2|recreated|2", "p-7|updated|9", "p-8|updated|8.0"]
        );
    }
    // All of it once more, of any type, and in all ways the same.
    let whole = if changed > 0 { 0 } else { 9010 };
    assert_eq!(load(client, &second, skip), format!("{{\"Patient\": 9010, \"unchanged\": {whole}}}"));
}

fn a_known_id_is_refused_if_asked(place: &mut Place) {
    let Place { database, client, admin, .. } = place;
    let refuse = "'Patient', options => '{\"on_conflict\": \"error\"}'";
    assert_eq!(load(client, &database.file("first", patients(1..=MANY)), refuse), r#"{"total": 9000}"#);
    run(admin, "CREATE TABLE before AS SELECT * FROM patient");
    for (name, lines, id) in [
        ("known", patients(9001..=9010) + &patient("p-5", 1), "p-5"),
        ("twice", patients(9001..=9010) + &patient("p-9003", 1), "p-9003"),
        ("far", patients(9001..=19_000) + &patient("p-9003", 1), "p-9003"),
    ] {
        let error = load_fails(client, &database.file(name, lines), refuse);
        assert_error(&error, "23505", &["already", id]);
    }
    assert_eq!(
        rows(admin, "SELECT id, txid, resource FROM patient EXCEPT SELECT id, txid, resource FROM before"),
        [""; 0]
    );
    assert_eq!(load(client, &database.file("new", patients(9001..=9010)), refuse), r#"{"total": 10}"#);
}

fn update_keeps_each_replaced_version_once(place: &mut Place) {
    let Place { database, client, admin, has_cts, .. } = place;
    let update = "'Patient', options => '{\"update\": true}'";
    assert_eq!(load(client, &database.file("first", patients(1..=MANY)), update), r#"{"total": 9000}"#);
    assert_eq!(count(admin, "SELECT count(*) FROM patient_history"), 0);
    run(admin, "UPDATE patient SET status = 'deleted' WHERE id = 'p-2'; CREATE TABLE before AS SELECT * FROM patient");
    let second = patients(2..=9100).replace("Family", "Other")
        + &[("p-20", 2), ("p-9099", 3), ("p-9099", 4), ("p-3", 5)].map(|(id, n)| patient(id, n) + "\n").concat();
    let second = database.file("second", second);
    assert_eq!(load(client, &second, update), r#"{"total": 9103}"#);
    let cts = if *has_cts { ", cts" } else { "" };
    let columns = format!("id, txid, ts, resource_type, status, resource{cts}");
    let differences = format!(
        "(SELECT {columns} FROM before WHERE id <> 'p-1' EXCEPT ALL SELECT {columns} FROM patient_history) UNION ALL
         (SELECT {columns} FROM patient_history EXCEPT ALL SELECT {columns} FROM before WHERE id <> 'p-1')"
    );
    assert_eq!(count(admin, &format!("SELECT count(*) FROM ({differences}) AS d")), 0);
    assert_eq!(
        rows(admin, "SELECT status, count(*) FROM patient GROUP BY 1 ORDER BY status::text"),
        ["created|101", "recreated|1", "updated|8998"]
    );
    assert_eq!(rows(admin, &numbers("id IN ('p-3', 'p-20', 'p-9099')")), ["p-20|2", "p-3|5", "p-9099|4"]);
    // Again: the second version goes where the first one is.
    assert_eq!(load(client, &second, update), r#"{"total": 9103}"#);
    assert_eq!(
        value(
            admin,
            "SELECT count(*), count(DISTINCT txid), count(*) FILTER (WHERE id = 'p-9099') FROM patient_history"
        ),
        "18098|2|1"
    );
}

fn creation_times_come_from_the_lines(place: &mut Place) {
    let Place { database, client, admin, has_cts, .. } = place;
    let line = |id: &str, at: &str| {
        let meta = if at.is_empty() { String::new() } else { format!(",\"meta\":{{\"createdAt\":\"{at}\"}}") };
        format!("{{\"id\":\"{id}\",\"resourceType\":\"Patient\"{meta}}}\n")
    };
    let first = line("c-1", "2001-02-03T04:05:06.789Z")
        + &line("c-2", "2001-01-01T00:00:00Z")
        + &line("c-2", "2002-02-02T00:00:00Z")
        + &line("c-3", "2003-01-01T00:00:00Z")
        + &line("c-3", "")
        + &line("c-4", "2004-04-04T00:00:00+02:00");
    assert_eq!(load(client, &database.file("first", first), "'Patient'"), r#"{"total": 6}"#);
    run(admin, "UPDATE patient SET status = 'deleted' WHERE id = 'c-4'");
    let second = line("c-1", "2011-11-11T00:00:00Z") + &line("c-4", "2014-01-01T00:00:00Z") + &line("c-2", "");
    assert_eq!(load(client, &database.file("second", second), "'Patient'"), r#"{"total": 3}"#);
    let fhir = "{\"resourceType\":\"Patient\",\"id\":\"c-5\",\"meta\":{\"extension\":[{\"url\":\"ex:createdAt\",\
                \"valueInstant\":\"2005-05-05T00:00:00Z\"}]}}";
    assert_eq!(load(client, &database.file("fhir", fhir), "'Patient', fhir => true"), r#"{"total": 1}"#);
    assert_eq!(rows(admin, "SELECT DISTINCT resource - 'tagged' FROM patient"), ["{}"]);
    assert_eq!(
        rows(admin, "SELECT id, status FROM patient ORDER BY 1"),
        ["c-1|updated", "c-2|updated", "c-3|created", "c-4|recreated", "c-5|created"]
    );
    if *has_cts {
        assert_eq!(
            rows(
                admin,
                "SELECT id, CASE WHEN cts = ts THEN 'now' ELSE (cts AT TIME ZONE 'UTC')::text END FROM patient ORDER BY 1"
            ),
            [
                "c-1|2001-02-03 04:05:06.789",
                "c-2|2002-02-02 00:00:00",
                "c-3|now",
                "c-4|2004-04-03 22:00:00",
                "c-5|2005-05-05 00:00:00"
            ]
        );
    }
}

fn options_work_together(place: &mut Place) {
    let Place { database, client, admin, .. } = place;
    load(client, &database.file("known", "{\"id\":\"o-1\",\"old\":true}"), "'Patient'");
    let lines =
        b"{\"id\":\"o-1\",\"a\":null,\"tenant\":\"x\"}\n{\"id\":\"o-2\",\n{\"id\":\"o-3\",\"b\":{\"c\":null}}\n\xff\n";
    let options =
        r#"'{"strip-nulls": true, "merge": {"tenant": "t", "gone": null}, "on_error": "skip", "update": true}'"#;
    let url = database.file("lines", lines);
    let answer = load(client, &url, &format!("'Patient', options => {options}"));
    assert_eq!(answer, r#"{"total": 2, "errors": 2}"#);
    assert_eq!(
        rows(admin, "SELECT id, resource - 'tagged', status FROM patient ORDER BY 1"),
        [r#"o-1|{"gone": null, "tenant": "t"}|updated"#, r#"o-3|{"b": {}, "gone": null, "tenant": "t"}|created"#]
    );
    assert_eq!(rows(admin, "SELECT id, resource - 'tagged' FROM patient_history"), [r#"o-1|{"old": true}"#]);
    assert_eq!(
        rows(
            client,
            "DELETE FROM bulk_load_reject RETURNING line_number, byte_offset, sqlstate, encode(line, 'escape')"
        ),
        ["2|35|22P02|{\"id\":\"o-2\",", "4|76|22021|\\377"]
    );
}

fn a_failed_or_rolled_back_load_leaves_nothing(place: &mut Place) {
    let Place { database, client, admin, .. } = place;
    load(client, &database.file("first", patients(1..=100)), "'Patient'");
    run(admin, "CREATE TABLE before AS SELECT * FROM patient");
    let changed = patients(50..=MANY).replace("Family", "Other");
    let update = "'Patient', options => '{\"update\": true, \"on_error\": \"skip\"}'";
    run(client, "BEGIN");
    let good = database.file("good", changed.clone() + "{\n");
    assert_eq!(load(client, &good, update), r#"{"total": 8951, "errors": 1}"#);
    run(client, "ROLLBACK");
    let bad = database.file("bad", changed + "{\n");
    assert_error(&load_fails(client, &bad, "'Patient', options => '{\"update\": true}'"), "22P02", &["line 8952"]);
    assert_eq!(count(admin, "SELECT count(*) FROM patient_history"), 0);
    assert_eq!(count(client, "SELECT count(*) FROM bulk_load_reject"), 0);
    assert_eq!(count(admin, "SELECT count(*) FROM patient"), 100);
    assert_eq!(
        count(
            admin,
            "SELECT count(*) FROM patient p JOIN before b USING (id, txid, ts, resource) WHERE p.status::text = b.status::text"
        ),
        100
    );
}

/// The number of the transaction's last load and its time, as literals: queries on tables of several servers run there.
fn own_stamp(client: &mut Client) -> (String, String) {
    (value(client, "SELECT currval('transaction_id_seq')"), value(client, "SELECT now()"))
}

fn numbers(which: &str) -> String {
    format!("SELECT id, {NUMBER} FROM patient WHERE {which} ORDER BY id COLLATE \"C\"")
}
