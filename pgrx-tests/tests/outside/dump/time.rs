//! Instants in the session's time zone.

use crate::support::{aidbox_tables, rows, run};
use fhir_bulk_tests::{Client, Database};

fn with_times(times: &str) -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    aidbox_tables(&mut client, &["Patient"]);
    run(
        &mut client,
        &format!(
            "INSERT INTO patient (id, txid, cts, ts, status, resource)
             SELECT row_number() OVER (), 1, NULL, ts, 'created', '{{}}' FROM ({times}) AS t(ts)"
        ),
    );
    (database, client)
}

fn last_updated(client: &mut Client) -> Vec<String> {
    rows(client, "SELECT line::json -> 'meta' ->> 'lastUpdated' FROM (SELECT bulk_dump('Patient') AS line) AS d")
}

#[test]
fn zones_with_half_hours_negative_offsets_and_daylight_saving_are_written_as_iso_8601() {
    let (_database, mut client) = with_times(
        "VALUES ('2021-01-15T12:00:00Z'::timestamptz), ('2021-07-15T12:00:00.5Z'), ('2021-06-10T08:26:10.707454Z')",
    );
    for (zone, expected) in [
        ("UTC", ["2021-01-15T12:00:00.000000Z", "2021-07-15T12:00:00.500000Z", "2021-06-10T08:26:10.707454Z"]),
        ("Etc/UTC", ["2021-01-15T12:00:00.000000Z", "2021-07-15T12:00:00.500000Z", "2021-06-10T08:26:10.707454Z"]),
        (
            "Asia/Kolkata",
            [
                "2021-01-15T17:30:00.000000+05:30",
                "2021-07-15T17:30:00.500000+05:30",
                "2021-06-10T13:56:10.707454+05:30",
            ],
        ),
        (
            "America/St_Johns",
            [
                "2021-01-15T08:30:00.000000-03:30",
                "2021-07-15T09:30:00.500000-02:30",
                "2021-06-10T05:56:10.707454-02:30",
            ],
        ),
        (
            "America/New_York",
            [
                "2021-01-15T07:00:00.000000-05:00",
                "2021-07-15T08:00:00.500000-04:00",
                "2021-06-10T04:26:10.707454-04:00",
            ],
        ),
        (
            "Asia/Kathmandu",
            [
                "2021-01-15T17:45:00.000000+05:45",
                "2021-07-15T17:45:00.500000+05:45",
                "2021-06-10T14:11:10.707454+05:45",
            ],
        ),
        (
            "Pacific/Kiritimati",
            [
                "2021-01-16T02:00:00.000000+14:00",
                "2021-07-16T02:00:00.500000+14:00",
                "2021-06-10T22:26:10.707454+14:00",
            ],
        ),
        (
            "Europe/Moscow",
            [
                "2021-01-15T15:00:00.000000+03:00",
                "2021-07-15T15:00:00.500000+03:00",
                "2021-06-10T11:26:10.707454+03:00",
            ],
        ),
        (
            "<+01:07>-01:07",
            [
                "2021-01-15T13:07:00.000000+01:07",
                "2021-07-15T13:07:00.500000+01:07",
                "2021-06-10T09:33:10.707454+01:07",
            ],
        ),
    ] {
        run(&mut client, &format!("SET TimeZone = '{zone}'"));
        assert_eq!(last_updated(&mut client), expected, "{zone}");
    }
}

#[test]
fn the_hour_that_daylight_saving_repeats_keeps_two_different_instants() {
    let (_database, mut client) = with_times(
        "VALUES ('2021-10-31T00:30:00Z'::timestamptz), ('2021-10-31T01:30:00Z'), ('2021-03-28T00:59:59.999999Z'), ('2021-03-28T01:00:00Z')",
    );
    run(&mut client, "SET TimeZone = 'Europe/Berlin'");
    assert_eq!(
        last_updated(&mut client),
        [
            "2021-10-31T02:30:00.000000+02:00",
            "2021-10-31T02:30:00.000000+01:00",
            "2021-03-28T01:59:59.999999+01:00",
            "2021-03-28T03:00:00.000000+02:00"
        ]
    );
}

#[test]
fn instants_of_a_century_in_many_zones_are_what_postgresql_itself_prints() {
    let (_database, mut client) = with_times(
        "SELECT g FROM generate_series('1905-03-04T05:06:07.123456Z'::timestamptz, '2060-01-01', '17 days 5 hours 1 second') AS g",
    );
    for zone in ["America/Caracas", "Europe/Lisbon", "Australia/Lord_Howe", "Africa/Monrovia", "Asia/Tehran", "UTC"] {
        run(&mut client, &format!("SET TimeZone = '{zone}'"));
        let expected = rows(
            &mut client,
            "SELECT regexp_replace(to_char(ts, 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM'), '[+]00:00$', 'Z') FROM patient
             WHERE extract(timezone FROM ts)::int % 60 = 0 ORDER BY id::int",
        );
        let dumped = rows(
            &mut client,
            "SELECT line::json -> 'meta' ->> 'lastUpdated' FROM (SELECT bulk_dump('Patient') AS line) AS d
             JOIN patient ON id = line::json ->> 'id' WHERE extract(timezone FROM ts)::int % 60 = 0 ORDER BY id::int",
        );
        assert!(dumped.len() > 1000, "{zone}");
        assert_eq!(dumped, expected, "{zone}");
        // What was printed is the same instant, also where the offset has seconds.
        let wrong = rows(
            &mut client,
            "SELECT ts, line FROM (SELECT bulk_dump('Patient') AS line) AS d JOIN patient ON id = line::json ->> 'id'
             WHERE (line::json -> 'meta' ->> 'lastUpdated')::timestamptz <> ts",
        );
        assert!(wrong.is_empty(), "{zone}: {wrong:?}");
    }
}

#[test]
fn years_beyond_four_digits_and_before_christ_are_written_as_iso_8601_counts_them() {
    let (_database, mut client) = with_times(
        "VALUES ('0044-03-15 12:00:00+00 BC'::timestamptz), ('0001-01-01T00:00:00Z'), ('9999-12-31T23:59:59.999999Z'), ('12021-03-01T12:00:00Z'),
         ('294276-12-31T23:59:59.999999Z')",
    );
    run(&mut client, "SET TimeZone = 'UTC'");
    assert_eq!(
        last_updated(&mut client),
        [
            "-0043-03-15T12:00:00.000000Z",
            "0001-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59.999999Z",
            "12021-03-01T12:00:00.000000Z",
            "294276-12-31T23:59:59.999999Z"
        ]
    );
}
