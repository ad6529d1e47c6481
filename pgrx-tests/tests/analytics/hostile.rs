//! Views and resources that are too much: they are refused, or take their time without the server's memory, and can be ended.

use super::{dump_view, store, view};
use crate::support::{assert_error, count, fails, rows, run, value};
use fhir_bulk_tests::memory::growth;
use fhir_bulk_tests::{Client, Database, error, wait_for};
use serde_json::{Value, json};
use std::io::Read as _;
use std::time::{Duration, Instant};

/// How much a backend may grow: a part of the rows of one resource is kept ahead.
const GROWTH: i64 = 160 << 20;
/// The contract: a statement has ended this time after a cancel.
const WITHIN: Duration = Duration::from_secs(1);
/// Other tests use the machine, too; one of this many attempts must be in time.
const ATTEMPTS: usize = 3;

/// A patient with so many names.
fn patient(id: &str, names: usize) -> Value {
    json!({"resourceType": "Patient", "id": id, "name": (0..names).map(|n| json!({"family": format!("f{n}")})).collect::<Vec<_>>()})
}

/// The names, multiplied with themselves so many times.
fn product(times: usize) -> String {
    let each = |at| json!({"forEach": "name", "column": [{"name": format!("c{at}"), "path": "family"}]});
    json!({"resource": "Patient", "select": (0..times).map(each).collect::<Vec<_>>()}).to_string()
}

fn read_all(client: &mut Client, sql: &str) -> usize {
    let mut body = client.copy_out(&format!("COPY (SELECT {sql}) TO STDOUT WITH (FORMAT binary)")).unwrap();
    let (mut piece, mut length) = (vec![0; 1 << 20], 0);
    loop {
        match body.read(&mut piece).unwrap() {
            0 => return length,
            count => length += count,
        }
    }
}

#[test]
fn a_product_of_one_resource_streams_and_is_whole() {
    let database = Database::new();
    let mut client = database.connect();
    store(&mut client, &database, &[patient("p", 130), patient("q", 1)]);
    let rows_of = |sql: &str| format!("SELECT count(*), count(DISTINCT l) FROM (SELECT {sql} AS l) x");
    // More than what is kept of one resource: it is made again up to where it paused.
    let sql = dump_view(&product(3), "csv", "{}");
    let found = client.query_one(&rows_of(&sql), &[]).unwrap();
    assert_eq!((found.get::<_, i64>(0), found.get::<_, i64>(1)), (130 * 130 * 130 + 1, 130 * 130 * 130));
    let chunks = sql.replace("dump_view(", "dump_view_chunks(").replace("'{}')", "false, '{}')");
    let grown = growth(&mut client, |client| assert!(read_all(client, &chunks) > 20 << 20));
    assert!(grown < GROWTH, "{grown}");
    // As many again from the other end.
    let limited = dump_view(&product(5), "csv", r#"{"limit": 1000}"#);
    assert_eq!(rows(&mut client, &format!("SELECT {limited}")).len(), 1000);
}

#[test]
fn a_cancel_ends_a_view_within_a_second_also_without_rows() {
    let database = Database::new();
    let mut client = database.connect();
    store(&mut client, &database, &[patient("p", 300)]);
    let without_rows = product(6).replace("\"select\"", "\"x\":0,\"select\"").replacen(
        "]}]",
        "]},{\"forEach\":\"name.where(false)\",\"column\":[{\"name\":\"z\",\"path\":\"family\"}]}]",
        1,
    );
    for sql in [
        format!("SELECT count(*) FROM (SELECT {}) x", dump_view(&product(6), "csv", "{}")),
        format!("SELECT {}", dump_view(&without_rows, "csv", "{}")),
    ] {
        let mut times = Vec::new();
        for _ in 0..ATTEMPTS {
            let mut worker = database.connect();
            let pid = count(&mut worker, "SELECT pg_backend_pid()");
            let mut watcher = database.connect();
            let time = std::thread::scope(|scope| {
                let statement = scope.spawn(|| (worker.simple_query(&sql).map(|_| ()), Instant::now()));
                wait_for("the statement to run", || {
                    assert!(!statement.is_finished(), "it ended before it could be cancelled");
                    count(
                        &mut watcher,
                        &format!(
                            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'
                        AND clock_timestamp() > query_start + interval '300 ms'"
                        ),
                    ) == 1
                });
                let asked = Instant::now();
                run(&mut watcher, &format!("SELECT pg_cancel_backend({pid})"));
                let (result, ended) = statement.join().unwrap();
                assert_error(&error(result), "57014", &["canceling statement"]);
                ended - asked
            });
            times.push(time);
            if time < WITHIN {
                break;
            }
        }
        assert!(times.last().is_some_and(|time| *time < WITHIN), "{times:?}");
    }
}

#[test]
fn views_that_are_too_much_are_refused_and_the_session_goes_on() {
    let database = Database::new();
    let mut client = database.connect();
    store(&mut client, &database, &[patient("p", 2)]);
    let nested = (0..70).fold(json!({"column": [{"name": "a", "path": "id"}]}), |inner, _| json!({"select": [inner]}));
    let columns = |count: usize| (0..count).map(|n| json!({"name": format!("c{n}"), "path": "id"})).collect::<Vec<_>>();
    for (view, piece) in [
        (product(101), "102 selects nest or multiply"),
        (json!({"resource": "Patient", "select": [{"column": columns(10_001)}]}).to_string(), "more than 10000 columns"),
        (json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "(".repeat(200)}]}]}).to_string(), "too deep"),
        (json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "name | ".repeat(5000) + "name"}]}]}).to_string(), "too long"),
        (json!({"resource": "Patient", "select": [{"repeat": ["$this"], "column": columns(1)}]}).to_string(), "never end"),
    ] {
        let error = fails(&mut client, &format!("SELECT {}", dump_view(&view, "csv", "{}")));
        assert_error(&error, "22023", &[piece]);
    }
    let nested = json!({"resource": "Patient", "select": [nested]}).to_string();
    let error = fails(&mut client, &format!("SELECT {}", dump_view(&nested, "csv", "{}")));
    assert_error(&error, "22023", &["invalid view: recursion limit exceeded"]);
    let many = json!({"resource": "Patient", "select": [{"column": columns(10_000)}]}).to_string();
    assert_eq!(value(&mut client, &format!("SELECT length({})", dump_view(&many, "csv", "{}"))), "19999");
    let error = fails(&mut client, &format!("SELECT bulk_create_view('wide', '{many}')"));
    assert_error(&error, "54011", &["target lists can have at most"]);
    let quadratic =
        view("Patient", &[("a", "name.where(%resource.name.where(family = 'none').exists()).family.first()")]);
    store(&mut client, &database, &[patient("big", 10_000)]);
    let error = fails(&mut client, &format!("SELECT {}", dump_view(&quadratic, "csv", "{}")));
    assert_error(&error, "54000", &["needs too much of one resource"]);
}

#[test]
fn a_resource_of_40_mb_has_its_rows() {
    let database = Database::new();
    let mut client = database.connect();
    let text = "x".repeat(40_000);
    let names: Vec<Value> = (0..1000).map(|n| json!({"family": format!("f{n}"), "text": text})).collect();
    store(&mut client, &database, &[json!({"resourceType": "Patient", "id": "large", "name": names})]);
    let each = json!({"resource": "Patient", "select": [{"forEach": "name", "column": [
        {"name": "family", "path": "family"}, {"name": "text", "path": "text"}]}]});
    let sql =
        format!("SELECT count(*), sum(length(l)) FROM (SELECT {} AS l) x", dump_view(&each.to_string(), "csv", "{}"));
    let found = client.query_one(&sql, &[]).unwrap();
    assert_eq!(found.get::<_, i64>(0), 1000);
    assert!(found.get::<_, i64>(1) > 40_000_000);
    let whole = view("Patient", &[("whole", "$this")]);
    let length = value(
        &mut client,
        &format!("SELECT sum(length({}))", dump_view(&whole, "ndjson", "{}"))
            .replace("sum(length(", "length(")
            .replace("))", ")"),
    );
    assert!(length.parse::<u64>().unwrap() > 40_000_000);
}
