use super::Table;
use fhir_bulk_codec::fhir::Version;

fn observations() -> Table {
    Table::r4(
        "Observation",
        r##"patient   "subject":{"reference":"Patient/1"}
        group     "subject":{"reference":"Group/1"}
        ours      "subject":{"reference":"https://ours.example/fhir/Patient/1"}
        ours-too  "subject":{"reference":"http://ours.example:8080/r/Patient/1","display":"d"}
        below     "subject":{"reference":"https://ours.example/fhir/r4/Patient/1"}
        foreign   "subject":{"reference":"https://other.example/fhir/Patient/1"}
        urn       "subject":{"reference":"urn:uuid:1"}
        version   "subject":{"reference":"Patient/1/_history/2"}
        our-version "subject":{"reference":"https://ours.example/fhir/Patient/1/_history/2"}
        inside    "contained":[{"resourceType":"Patient","id":"1"}],"subject":{"reference":"#1"}
        logical   "subject":{"type":"Patient","identifier":{"system":"s","value":"1"}}
        with-id   "subject":{"id":"e","reference":"Patient/1"}
        with-id-2 "subject":{"id":"e","reference":"https://ours.example/fhir/Patient/1"}
        uri       "subject":{"uri":"Patient/1"}
        query     "subject":{"reference":"Patient?identifier=s|1"}
        text      "subject":{"display":"Patient/1"}
        none"##,
    )
}

const PATIENT_1: &str = "patient ours ours-too below with-id with-id-2";

#[test]
fn a_target_has_many_spellings() {
    observations().finds(&[
        ("subject=1", "patient group ours ours-too below with-id with-id-2"),
        ("patient=1", PATIENT_1),
        ("subject=Patient/1", PATIENT_1),
        ("subject=Group/1", "group"),
        ("subject=https://ours.example/fhir/Patient/1", PATIENT_1),
        ("subject=http://ours.example:8080/r/Patient/1", PATIENT_1),
        ("subject=https%3A%2F%2Fours.example%2Ffhir%2FPatient%2F1", PATIENT_1),
        ("patient=Group/1", ""),
        ("subject=https://other.example/fhir/Patient/1", "foreign"),
        ("subject=urn:uuid:1", "urn"),
        ("subject=Patient/1/_history/2", "version our-version"),
        ("subject=https://ours.example/fhir/Patient/1/_history/2", "version our-version"),
        ("subject=Patient/1/_history/3", ""),
        ("subject=Patient/2", ""),
        ("subject=2,1", "patient group ours ours-too below with-id with-id-2"),
        // Prefixes of ids are no ids.
        ("subject=Patient/", ""),
        ("subject=#1", ""),
    ]);
}

#[test]
fn modifiers_of_references() {
    observations().finds(&[
        ("subject:Patient=1", PATIENT_1),
        ("subject:Group=1", "group"),
        ("subject:Patient=Patient/1", PATIENT_1),
        ("subject:Patient=https://ours.example/fhir/Patient/1", PATIENT_1),
        ("subject:Patient=https://other.example/fhir/Patient/1", "foreign"),
        ("subject:identifier=s|1", "logical"),
        ("subject:identifier=1", "logical"),
        ("subject:identifier=|1", ""),
        ("patient:identifier=s|", "logical"),
        ("subject:missing=true", "none"),
        // A `uri` is absolute. What does not tell its type is no reference to a patient.
        ("patient:missing=true", "group urn query text none"),
        (
            "patient:missing=false",
            "patient ours ours-too below foreign version our-version inside logical with-id with-id-2 uri",
        ),
    ]);
}

#[test]
fn canonical_urls_may_have_a_version() {
    Table::r4(
        "QuestionnaireResponse",
        r#"plain  "questionnaire":"http://q/1"
        v2     "questionnaire":"http://q/1|2.0"
        v201   "questionnaire":"http://q/1|2.0.1"
        ten    "questionnaire":"http://q/10"
        ours   "questionnaire":"https://ours.example/fhir/Questionnaire/1"
        ours-2 "questionnaire":"https://ours.example/fhir/Questionnaire/1|2"
        none"#,
    )
    .finds(&[
        ("questionnaire=http://q/1", "plain v2 v201"),
        ("questionnaire=http://q/1|2.0", "v2"),
        (r"questionnaire=http://q/1\|2.0", "v2"),
        ("questionnaire=http://q/1|3", ""),
        ("questionnaire=https://ours.example/fhir/Questionnaire/1", "ours ours-2"),
        ("questionnaire=https://ours.example/fhir/Questionnaire/1|2", "ours-2"),
        ("questionnaire=https://ours.example/fhir/Questionnaire/1|3", ""),
        ("questionnaire=Questionnaire/1", "ours ours-2"),
        ("questionnaire:missing=true", "none"),
    ]);
}

#[test]
fn references_in_r5() {
    Table::new(
        Version::R5,
        "MedicationRequest",
        r#"ref     "medication":{"reference":{"reference":"Medication/1"}}
        url     "medication":{"reference":{"reference":"https://ours.example/fhir/Medication/1"}}
        logical "medication":{"reference":{"identifier":{"system":"s","value":"1"}}}
        concept "medication":{"concept":{"coding":[{"system":"s","code":"1"}]}}"#,
    )
    .finds(&[
        ("medication=Medication/1", "ref url"),
        ("medication=1", "ref url"),
        ("medication:Medication=1", "ref url"),
        ("medication:identifier=s|1", "logical"),
        ("code=s|1", "concept"),
        ("medication:missing=true", "concept"),
        ("code:missing=true", "ref url logical"),
    ]);
    // A part of a composite that is the text of a reference.
    Table::new(
        Version::R5,
        "Encounter",
        r#"a "location":[{"location":{"reference":"Location/1"},"period":{"start":"2020","end":"2020"}},
            {"location":{"reference":"Location/2"},"period":{"start":"2021","end":"2021"}}]"#
            .replace('\n', "")
            .as_str(),
    )
    .finds(&[
        ("location-period=Location/1$2020", "a"),
        ("location-period=Location/2$2020", ""),
        ("location-period=2$2021", "a"),
    ]);
}

#[test]
fn resources_inside_are_targets_themselves() {
    Table::r4(
        "Bundle",
        r#"a "type":"message","entry":[{"resource":{"resourceType":"MessageHeader","id":"m"}},{"resource":{"resourceType":"Patient","id":"p"}}]
        b "type":"document","entry":[{"resource":{"resourceType":"Composition","id":"m"}}]"#,
    )
    .finds(&[
        ("message=m", "a"),
        ("message=MessageHeader/m", "a"),
        ("message=p", ""),
        ("composition=Composition/m", "b"),
        ("composition=m", "b"),
    ]);
}
