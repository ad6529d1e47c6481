use super::{Table, common};
use fhir_bulk_codec::fhir::Version;

const OBSERVATIONS: &str = r#"a "meta":{"lastUpdated":"2024-05-06T07:08:09.123456Z","profile":["http://p/1|2","http://p/2"],"tag":[{"system":"s","code":"t"}],"security":[{"system":"s","code":"R"}],"source":"http://src/a#1"}
    b "meta":{"lastUpdated":"2024-05-06T23:30:00-02:00","tag":[{"code":"t"},{"code":"u"}],"source":"http://src"}
    c"#;

#[test]
fn what_all_resources_have() {
    Table::r4("Observation", OBSERVATIONS).finds(&[
        ("_id=a", "a"),
        ("_id=a,c,x", "a c"),
        ("_id=A", ""),
        ("_id:not=a", "b c"),
        ("_lastUpdated=2024-05-06", "a"),
        ("_lastUpdated=2024-05-07", "b"),
        ("_lastUpdated=2024", "a b"),
        ("_lastUpdated=2024-05-06T07:08:09Z", "a"),
        ("_lastUpdated=2024-05-06T07:08:09.123456Z", "a"),
        ("_lastUpdated=gt2024-05-06T07:08:09.123456Z", "b"),
        ("_lastUpdated=ge2024-05-06T07:08:09.123456Z", "a b"),
        ("_lastUpdated=lt2024-05-06T09:08:09.123457%2B02:00", "a"),
        ("_lastUpdated=eb2024-05-07", "a"),
        ("_lastUpdated=sa2024-05-06", "b"),
        ("_lastUpdated=ne2024-05-06", "b"),
        ("_lastUpdated:missing=true", "c"),
        ("_tag=t", "a b"),
        ("_tag=s|t", "a"),
        ("_tag=|t", "b"),
        ("_tag:not=u", "a c"),
        ("_security=s|R", "a"),
        ("_security:missing=true", "b c"),
        ("_profile=http://p/2", "a"),
        ("_profile:below=http://p", "a"),
        ("_source=http://src", "b"),
        ("_source:below=http://src", "a b"),
    ]);
    // In R5 it is a reference to a canonical url.
    Table::new(Version::R5, "Observation", OBSERVATIONS).finds(&[
        ("_profile=http://p/1", "a"),
        ("_profile=http://p/1|2", "a"),
        ("_profile=http://p/1|3", ""),
        ("_profile:missing=true", "b c"),
    ]);
}

/// Rows may have been loaded in Aidbox's form.
#[test]
fn aidbox_form_is_what_is_searched() {
    let mut table = Table::r4("Observation", "");
    for (name, members) in [
        ("quantity", r#""value":{"Quantity":{"value":5,"code":"mg"}}"#),
        ("string", r#""value":{"string":"Five"}"#),
        ("concept", r#""value":{"CodeableConcept":{"coding":[{"code":"five"}]}}"#),
        ("subject", r#""subject":{"id":"1","resourceType":"Patient"}"#),
        ("uri", r#""subject":{"uri":"https://ours.example/fhir/Patient/1"}"#),
        ("local", r#""subject":{"localRef":"1"},"contained":[{"resourceType":"Patient","id":"1"}]"#),
        ("date", r#""effective":{"dateTime":"2020-05-10"}"#),
        ("period", r#""effective":{"Period":{"start":"2020-05-10"}}"#),
        ("timing", r#""effective":{"Timing":{"repeat":{"bounds":{"Period":{"end":"2020-05-10"}}}}}"#),
        ("part", r#""component":[{"value":{"Quantity":{"value":5}}}]"#),
    ] {
        let json = format!(r#"{{"resourceType":"Observation","id":"{name}",{members}}}"#);
        table.rows.push((name.to_owned(), common::stored_as_it_is(&json)));
    }
    table.finds(&[
        ("value-quantity=5", "quantity"),
        ("value-quantity=5||mg", "quantity"),
        ("value-string=five", "string"),
        ("value-concept=five", "concept"),
        ("component-value-quantity=5", "part"),
        ("subject=Patient/1", "subject uri"),
        ("patient:missing=false", "subject uri local"),
        ("date=2020-05-10", "date"),
        ("date=ge2020-05-10", "date period"),
        ("date=le2020-05-10", "date timing"),
    ]);
}

/// What is not what the definitions say is not found, and stops nothing.
#[test]
fn a_resource_may_contain_anything() {
    let mut table = Table::r4("Observation", "");
    for (at, json) in [
        r#""status":[["final"]]"#,
        r#""status":{"code":"final"}"#,
        r#""status":null"#,
        r#""status":5"#,
        r#""code":"final""#,
        r#""code":{"coding":"final"}"#,
        r#""code":{"coding":[["final",null,{"code":{"code":"final"}}]]}"#,
        r#""subject":"Patient/1""#,
        r#""subject":{"id":1,"resourceType":"Patient"}"#,
        r#""value":{"Quantity":{"value":"5"}}"#,
        r#""value":5"#,
        r#""effective":{"Period":{"start":5,"end":["2020"]}}"#,
        r#""effective":{"Timing":{"event":{"a":"2020"},"repeat":[]}}"#,
        r#""meta":{"tag":{"code":"final"}}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let json = format!(r#"{{"resourceType":"Observation","id":"{at}",{json}}}"#);
        table.rows.push((at.to_string(), common::stored_as_it_is(&json)));
    }
    table.finds(&[
        ("status=final", ""),
        ("code=final", ""),
        ("value-quantity=5", ""),
        ("date=2020", ""),
        ("_tag=final", ""),
        ("combo-code-value-quantity=final$5", ""),
    ]);
}
