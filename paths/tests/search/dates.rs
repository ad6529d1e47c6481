use super::Table;

fn observations() -> Table {
    Table::r4(
        "Observation",
        r#"year    "effectiveDateTime":"2020"
        month   "effectiveDateTime":"2020-05"
        day     "effectiveDateTime":"2020-05-10"
        noon    "effectiveDateTime":"2020-05-10T12:00:00Z"
        half    "effectiveInstant":"2020-05-10T12:00:00.500Z"
        west    "effectiveDateTime":"2020-05-10T23:30:00-02:00"
        period  "effectivePeriod":{"start":"2020-05-01","end":"2020-05-20"}
        from    "effectivePeriod":{"start":"2020-05-15"}
        until   "effectivePeriod":{"end":"2020-05-05"}
        back    "effectivePeriod":{"start":"2020-06-01","end":"2020-05-01"}
        open    "effectivePeriod":{"extension":[{"url":"u","valueCode":"unknown"}]}
        events  "effectiveTiming":{"event":["2020-06-01","2020-04-01"]}
        bounds  "effectiveTiming":{"repeat":{"boundsPeriod":{"start":"2020-05-01","end":"2020-05-31"},"count":3}}
        weekly  "effectiveTiming":{"repeat":{"frequency":1,"period":1,"periodUnit":"wk"}}
        bad     "effectiveDateTime":"yesterday"
        none"#,
    )
}

/// Ranges: year [2020-01-01, 2021-01-01), month [05-01, 06-01), day [05-10, 05-11), noon one second, half one millisecond, west
/// is 2020-05-11T01:30Z, period [05-01, 05-21), from [05-15, …), until (…, 05-06), events [04-01, 06-02), bounds [05-01, 06-01).
#[test]
fn every_prefix_compares_ranges() {
    observations().finds(&[
        // A day: [05-10, 05-11).
        ("date=2020-05-10", "day noon half"),
        ("date=eq2020-05-10", "day noon half"),
        ("date=ne2020-05-10", "year month west period from until events bounds"),
        ("date=gt2020-05-10", "year month west period from events bounds"),
        ("date=lt2020-05-10", "year month period until events bounds"),
        ("date=ge2020-05-10", "year month day noon half west period from events bounds"),
        ("date=le2020-05-10", "year month day noon half period until events bounds"),
        ("date=sa2020-05-10", "west from"),
        ("date=eb2020-05-10", "until"),
        // A year.
        ("date=2020", "year month day noon half west period events bounds"),
        ("date=ne2020", "from until"),
        ("date=gt2020", "from"),
        ("date=lt2020", "until"),
        ("date=ge2020", "year month day noon half west period from events bounds"),
        ("date=le2020", "year month day noon half west period until events bounds"),
        ("date=sa2020", ""),
        ("date=eb2020", ""),
        ("date=sa2019", "year month day noon half west period from events bounds"),
        ("date=eb2021", "year month day noon half west period until events bounds"),
        // A month: [05-01, 06-01).
        ("date=2020-05", "month day noon half west period bounds"),
        ("date=ne2020-05", "year from until events"),
        ("date=gt2020-05", "year from events"),
        ("date=lt2020-05", "year until events"),
        ("date=sa2020-04", "month day noon half west period from bounds"),
        ("date=eb2020-06", "month day noon half west period until bounds"),
        // A second: 12:00:00 to before 12:00:01.
        ("date=2020-05-10T12:00:00Z", "noon half"),
        ("date=gt2020-05-10T12:00:00Z", "year month day west period from events bounds"),
        ("date=lt2020-05-10T12:00:00Z", "year month day period until events bounds"),
        ("date=ge2020-05-10T12:00:00Z", "year month day noon half west period from events bounds"),
        ("date=sa2020-05-10T12:00:00Z", "west from"),
        ("date=eb2020-05-10T12:00:00Z", "until"),
        ("date=eb2020-05-10T12:00:01Z", "noon half until"),
        // A tenth of a second, and a millisecond.
        ("date=2020-05-10T12:00:00.5Z", "half"),
        ("date=2020-05-10T12:00:00.500Z", "half"),
        ("date=2020-05-10T12:00:00.501Z", ""),
        ("date=gt2020-05-10T12:00:00.500Z", "year month day noon west period from events bounds"),
        // A minute, and what has no zone: UTC.
        ("date=2020-05-10T12:00", "noon half"),
        ("date=2020-05-10T12:00:00", "noon half"),
    ]);
}

#[test]
fn zones_are_offsets_from_utc() {
    observations().finds(&[
        ("date=2020-05-10T14:00:00%2B02:00", "noon half"),
        ("date=2020-05-10T14:00:00+02:00", "noon half"),
        // A plus that some client did not encode, and some server decoded.
        ("date=2020-05-10T14:00:00 02:00", "noon half"),
        ("date=2020-05-10T14:00:00%2002:00", "noon half"),
        ("date=2020-05-10T11:30-00:30", "noon half"),
        ("date=2020-05-10T14:00:00-02:00", ""),
        ("date=2020-05-11", "west"),
        ("date=2020-05-11T01:30:00Z", "west"),
        ("date=2020-05-10T23:30-02:00", "west"),
    ]);
}

#[test]
fn dates_are_missing_without_an_element_and_never_match_without_a_date() {
    observations().finds(&[
        ("date:missing=true", "none"),
        ("date:missing=false", "year month day noon half west period from until back open events bounds weekly bad"),
        ("date=2020-05-11,2020-05-10", "day noon half west"),
        ("date=ge2020-05-10&date=lt2020-05-11", "year month day noon half period events bounds"),
        ("date=ge2020-05-10&date=le2020-05-10&date=ne2020-05-10", "year month period events bounds"),
        ("date=2020-05-10,sa2020-05-14", "day noon half from"),
    ]);
}

#[test]
fn other_elements_with_dates() {
    Table::r4("Patient", "a \"birthDate\":\"1980-02-29\"\n b \"birthDate\":\"1980\"\n c \"_birthDate\":{\"id\":\"x\"}")
        .finds(&[
            ("birthdate=1980-02-29", "a"),
            ("birthdate=1980", "a b"),
            ("birthdate=ge1980-06", "b"),
            ("birthdate=le1980-02-28", "b"),
            ("birthdate:missing=true", "c"),
        ]);
    // A list: one of its values is enough.
    Table::r4(
        "Goal",
        r#"a "target":[{"dueDate":"2020-01-01"},{"dueDate":"2021-01-01"},{"dueDuration":{"value":3}}]
        b "target":[{"dueDuration":{"value":3}}]"#,
    )
    .finds(&[
        ("target-date=2020", "a"),
        ("target-date=2021", "a"),
        ("target-date=gt2021", ""),
        // Every range of values has one that another query finds, too.
        ("target-date=ne2020", "a"),
        ("target-date:missing=true", "b"),
    ]);
    // Words are no dates, even if they look like one.
    Table::r4(
        "Procedure",
        r#"a "performedString":"2020"
        b "performedPeriod":{"start":"2020","end":"2020"}
        c "performedAge":{"value":2020}"#,
    )
    .finds(&[("date=2020", "b"), ("date:missing=true", "")]);
    Table::r4("Observation", r#"a "issued":"2020-01-01T00:00:00.123+01:00""#).finds(&[
        ("issued=2019-12-31", "a"),
        ("issued=gt2019-12-31T22:59:59Z", "a"),
        ("issued=gt2020-01-01", ""),
    ]);
}
