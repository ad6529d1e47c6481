//! What columns find, beyond the public suite: Aidbox's form read as FHIR's, columns of the row, times, numbers.

mod common;

use common::{Stored, lines};
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_views::View;
use serde_json::{Value, json};

fn compiled(resource: &str, path: &str, more: Value) -> Result<View, String> {
    let mut column = json!({"name": "v", "path": path});
    for (name, value) in more.as_object().unwrap() {
        column[name] = value.clone();
    }
    let view = json!({"resource": resource, "select": [{"column": [column]}]});
    View::compile(Version::R4, &view).map_err(|error| error.to_string())
}

/// The one cell of a view with one column.
fn cell(resource: &Value, path: &str) -> String {
    let of_type = resource["resourceType"].as_str().unwrap();
    let view = compiled(of_type, path, json!({})).unwrap_or_else(|error| panic!("{path}: {error}"));
    let rows =
        lines(&view, &[Stored::new(Version::R4, resource, true)]).unwrap_or_else(|error| panic!("{path}: {error}"));
    let [row] = rows.as_slice() else { panic!("{path}: {rows:?}") };
    row.strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_owned()
}

#[test]
fn stored_parts_are_read_as_fhir_has_them() {
    let observation = json!({
        "resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": "t"},
        "meta": {"versionId": "7", "lastUpdated": "2021-06-10T08:26:10.707454Z", "profile": ["http://p"]},
        "subject": {"reference": "Patient/p1", "display": "P"},
        "encounter": {"reference": "http://elsewhere/fhir/Encounter/e1"},
        "performer": [{"reference": "#c"}, {"reference": "Practitioner/d1/_history/2"}, {"display": "nobody"}],
        "valueQuantity": {"value": 1.25, "unit": "kg"},
        "extension": [{"url": "http://u", "valueReference": {"reference": "Device/d"}}],
        "contained": [{"resourceType": "Practitioner", "id": "c", "active": true}]
    });
    for (path, value) in [
        ("id", r#""o1""#),
        ("$this.id", r#""o1""#),
        ("%resource.id", r#""o1""#),
        ("Observation.id", r#""o1""#),
        ("where(id = 'o1').status", r#""final""#),
        ("meta.versionId", r#""7""#),
        ("meta.lastUpdated", r#""2021-06-10T08:26:10.707454Z""#),
        ("meta.where(lastUpdated > @2020).versionId", r#""7""#),
        ("meta", r#"{"versionId":"7","lastUpdated":"2021-06-10T08:26:10.707454Z","profile":["http://p"]}"#),
        ("subject.reference", r#""Patient/p1""#),
        ("subject", r#"{"reference":"Patient/p1","display":"P"}"#),
        ("subject.id", "null"),
        ("subject.reference = 'Patient/p1'", "true"),
        ("subject.where(reference = 'Patient/p2').display", "null"),
        ("subject.getReferenceKey()", r#""p1""#),
        ("subject.getReferenceKey(Patient) = 'p1'", "true"),
        ("encounter.reference", r#""http://elsewhere/fhir/Encounter/e1""#),
        ("encounter.getReferenceKey()", "null"),
        ("performer[0].reference", r##""#c""##),
        ("performer[1].getReferenceKey(Practitioner)", r#""d1""#),
        ("performer.reference.first()", r##""#c""##),
        ("performer[2].reference.exists()", "false"),
        ("value", r#"{"unit":"kg","value":1.25}"#),
        ("value.ofType(Quantity).value", "1.25"),
        ("(value as Quantity).unit", r#""kg""#),
        ("value is Quantity", "true"),
        ("value.ofType(string)", "null"),
        ("value.ofType(Quantity).value * 2", "2.50"),
        ("value.ofType(Quantity).value / 4 + 1", "1.3125"),
        ("-value.ofType(Quantity).value", "-1.25"),
        ("extension('http://u').value.ofType(Reference).reference", r#""Device/d""#),
        ("contained.ofType(Practitioner).id", r#""c""#),
        ("contained.ofType(Practitioner).active", "true"),
        ("contained", r#"{"id":"c","active":true,"resourceType":"Practitioner"}"#),
        ("status & '-' & code.text", r#""final-t""#),
        ("status & bodySite.text", r#""final""#),
        ("status + bodySite.text", "null"),
        ("subject.reference & '/' & id", r#""Patient/p1/o1""#),
        ("meta.lastUpdated & ''", r#""2021-06-10T08:26:10.707454Z""#),
        ("meta.lastUpdated > @2021-06-10T08:26:10Z", "true"),
        ("meta.lastUpdated = @2021-06-10T10:26:10.707454+02:00", "true"),
        ("meta.lastUpdated < @2021-06-10", "null"),
        ("status = 'final' xor status = 'amended'", "true"),
        ("status = 'amended' implies bodySite.exists()", "true"),
        ("bodySite.text = 'x' implies true", "true"),
        ("bodySite.text = 'x' or {}", "null"),
        ("performer.display | subject.display", r#"ERROR"#),
        ("code = code", "true"),
        ("performer = performer", "true"),
        ("performer = subject", "false"),
        ("1 = 1.0", "true"),
        ("'a' < 'b'", "true"),
        ("%context.status", r#""final""#),
    ] {
        if value == "ERROR" {
            let view = compiled("Observation", path, json!({})).unwrap();
            let stored = Stored::new(Version::R4, &observation, true);
            assert!(lines(&view, &[stored]).unwrap_err().contains("SeveralValues"), "{path}");
        } else {
            assert_eq!(cell(&observation, path), value, "{path}");
        }
    }
}

#[test]
fn a_whole_resource_is_one_with_what_its_columns_have() {
    let patient = json!({"resourceType": "Patient", "id": "p", "active": true, "deceasedBoolean": false});
    let whole = r#"{"id":"p","active":true,"deceasedBoolean":false,"resourceType":"Patient"}"#;
    assert_eq!(cell(&patient, "$this"), whole);
    assert_eq!(cell(&patient, "meta"), "{}");
    assert_eq!(cell(&patient, "meta.lastUpdated"), "null");
}

#[test]
fn extensions_are_found_in_both_stored_forms() {
    let patient = json!({"resourceType": "Patient", "id": "p", "birthDate": "2020-01-01",
        "extension": [{"url": "u", "valueCode": "x"}, {"url": "v", "valueDateTime": "2020"}],
        "_birthDate": {"extension": [{"url": "w", "valueString": "y"}]}});
    for (path, value) in [
        ("extension('u').value.ofType(code)", "x"),
        ("extension('u').value", "x"),
        ("extension('v').value.ofType(dateTime)", "2020"),
        ("birthDate.extension('w').value.ofType(string)", "y"),
    ] {
        let view = compiled("Patient", path, json!({})).unwrap();
        for convert_extensions in [true, false] {
            let stored = Stored::new(Version::R4, &patient, convert_extensions);
            assert_eq!(lines(&view, &[stored]).unwrap(), [format!("{{\"v\":\"{value}\"}}")], "{path}");
        }
    }
}

#[test]
fn columns_of_a_row_of_nulls_are_null_but_for_their_number() {
    let view = json!({"resource": "Patient", "select": [
        {"column": [{"name": "id", "path": "id"}]},
        {"forEachOrNull": "name", "column": [
            {"name": "n", "path": "%rowIndex"}, {"name": "c", "path": "'constant'"}, {"name": "e", "path": "given.exists()"}],
         "select": [{"forEach": "given", "column": [{"name": "given", "path": "$this"}]}]}]});
    let view = View::compile(Version::R4, &view).unwrap();
    let stored = Stored::new(Version::R4, &json!({"resourceType": "Patient", "id": "p"}), true);
    assert_eq!(lines(&view, &[stored]).unwrap(), [r#"{"id":"p","n":0,"c":null,"e":null,"given":null}"#]);
}

#[test]
fn the_item_of_an_expression_is_its_context() {
    let view = json!({"resource": "Patient", "select": [{"forEach": "contact", "column": [
        {"name": "v", "path": "telecom.where(system = %context.gender).value"}]}]});
    let view = View::compile(Version::R4, &view).unwrap();
    let patient = json!({"resourceType": "Patient", "id": "p", "contact": [
        {"gender": "x", "telecom": [{"system": "x", "value": "1"}, {"system": "y", "value": "2"}]},
        {"gender": "y", "telecom": [{"system": "x", "value": "1"}, {"system": "y", "value": "2"}]}]});
    assert_eq!(lines(&view, &[Stored::new(Version::R4, &patient, true)]).unwrap(), [r#"{"v":"1"}"#, r#"{"v":"2"}"#]);
}

#[test]
fn types_of_columns_are_those_of_sql_on_fhir() {
    use fhir_bulk_views::SqlType::{Ansi, BigInt, Binary, Boolean, Integer, Json, Text, Timestamptz};
    for (path, more, expected) in [
        ("active", json!({}), Boolean),
        ("active", json!({"type": "boolean"}), Boolean),
        ("multipleBirth.ofType(integer)", json!({}), Integer),
        ("birthDate", json!({}), Text),
        ("meta.lastUpdated", json!({}), Timestamptz),
        ("meta.lastUpdated", json!({"type": "dateTime"}), Text),
        ("id", json!({"type": "integer64"}), BigInt),
        ("photo.data", json!({}), Binary),
        ("name", json!({"collection": true}), Json),
        ("maritalStatus", json!({}), Json),
        ("id", json!({"type": "http://hl7.org/fhirpath/System.Boolean"}), Boolean),
        (
            "id",
            json!({"tag": [{"name": "ansi/type", "value": "CHARACTER VARYING(10)"}]}),
            Ansi("CHARACTER VARYING(10)".into()),
        ),
        ("%rowIndex", json!({}), Integer),
    ] {
        assert_eq!(compiled("Patient", path, more).unwrap().columns()[0].sql_type(), expected, "{path}");
    }
}

#[test]
fn a_mistake_is_told_with_its_element_and_its_byte() {
    for (view, message) in [
        (json!([]), "it is not a JSON object"),
        (json!({}), "resource: it is missing"),
        (json!({"resource": 1}), "resource: it is not a string"),
        (json!({"resource": "Patient"}), "select: it is missing"),
        (json!({"resource": "Patient", "select": [{}]}), "select: it has no columns"),
        (json!({"resource": "Patient", "select": [{"colunm": []}]}), "select[0]: \"colunm\" is not known here"),
        (
            json!({"resource": "Patient", "select": [{"column": [{"path": "id"}]}]}),
            "select[0].column[0].name: it is missing",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "1", "path": "id"}]}]}),
            "select[0].column[0].name: \"1\" is not a name",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "id"}, {"name": "a", "path": "id"}]}]}),
            "select[0].column[1].name: another column has the name \"a\"",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "name.family."}]}]}),
            "select[0].column[0].path: expected a name at byte 12",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "name.famly"}]}]}),
            "select[0].column[0].path: HumanName has no element famly at byte 5",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "name.where(use = %x).family"}]}]}),
            "select[0].column[0].path: the view has no constant x at byte 17",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "active + 1"}]}]}),
            "select[0].column[0].path: boolean is not a number at byte 7",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "name > 1"}]}]}),
            "select[0].column[0].path: HumanName and integer have no order at byte 5",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "name.soundex()"}]}]}),
            "select[0].column[0].path: soundex() with 0 arguments is not supported at byte 5",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "Observation.status"}]}]}),
            "select[0].column[0].path: the resources are of type Patient at byte 0",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "gender.ofType(Quantity)"}]}]}),
            "select[0].column[0].path: code is never Quantity at byte 7",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "id", "type": "strng"}]}]}),
            "select[0].column[0].type: there is no type strng",
        ),
        (
            json!({"resource": "Patient", "select": [{"forEach": "name", "forEachOrNull": "name"}]}),
            "select[0]: it has both forEach and forEachOrNull",
        ),
        (
            json!({"resource": "Patient", "select": [{"repeat": ["$this"], "column": [{"name": "a", "path": "id"}]}]}),
            "select[0].repeat[0]: it does not lead to elements of the item, so it would never end",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "id"}]}], "where": [{"path": "name.family"}]}),
            "where[0].path: it is string, and has to be a boolean",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "id"}]}], "constant": [{"name": "x"}]}),
            "constant[0]: it has no value",
        ),
        (
            json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "id"}]}],
            "constant": [{"name": "x", "valueDate": "today"}]}),
            "constant[0].valueDate: it is not a value of type date",
        ),
        (
            json!({"resource": "Patient", "select": [{"unionAll": [{"column": [{"name": "a", "path": "id"}]}, {}]}]}),
            "select[0].unionAll[1]: column \"a\" of the first branch is missing",
        ),
        (
            json!({"resource": "Patient", "select": [{"unionAll": [{"column": [{"name": "a", "path": "id"}]},
            {"column": [{"name": "a", "path": "id"}, {"name": "b", "path": "id"}]}]}]}),
            "select[0].unionAll[1].column[1]: column \"b\" is not in the first branch",
        ),
    ] {
        assert_eq!(View::compile(Version::R4, &view).unwrap_err().to_string(), message, "{view}");
    }
}

#[test]
fn a_where_that_is_no_boolean_for_a_resource_is_an_error_of_the_resource() {
    let view = json!({"resource": "Patient", "select": [{"column": [{"name": "a", "path": "id"}]}], "where": [{"path": "deceased"}]});
    let view = View::compile(Version::R4, &view).unwrap();
    let stored = |resource: &Value| Stored::new(Version::R4, resource, true);
    let alive = json!({"resourceType": "Patient", "id": "a", "deceasedBoolean": false});
    let dead = json!({"resourceType": "Patient", "id": "b", "deceasedBoolean": true});
    let dated = json!({"resourceType": "Patient", "id": "c", "deceasedDateTime": "2020"});
    assert_eq!(lines(&view, &[stored(&alive), stored(&dead)]).unwrap(), [r#"{"a":"b"}"#]);
    assert!(lines(&view, &[stored(&dated)]).unwrap_err().contains("NotBoolean"));
}
