use super::Table;
use fhir_bulk_codec::fhir::Version;

#[test]
fn identifiers() {
    Table::r4(
        "Patient",
        r#"both   "identifier":[{"system":"urn:s","value":"1"},{"system":"urn:t","value":"2"}]
        plain  "identifier":[{"value":"1"}]
        other  "identifier":[{"system":"urn:s","value":"2"}]
        empty  "identifier":[{"system":"urn:s"}]
        none"#,
    )
    .finds(&[
        ("identifier=1", "both plain"),
        ("identifier=2", "both other"),
        ("identifier=urn:s|1", "both"),
        // The system and value of two identifiers are no identifier.
        ("identifier=urn:s|2", "other"),
        ("identifier=urn:t|2", "both"),
        ("identifier=|1", "plain"),
        ("identifier=|2", ""),
        ("identifier=urn:s|", "both other empty"),
        ("identifier=urn:s%7C1", "both"),
        ("identifier=urn:s|1,|1", "both plain"),
        ("identifier:not=1", "other empty none"),
        ("identifier:not=urn:s|1,2", "plain empty none"),
        ("identifier:not=urn:s|", "plain none"),
        ("identifier:missing=true", "none"),
        ("identifier:missing=false", "both plain other empty"),
        ("identifier=URN:S|1", ""),
    ]);
}

#[test]
fn concepts() {
    Table::r4(
        "Observation",
        r#"two    "code":{"coding":[{"system":"s","code":"x,y"},{"system":"t","code":"p|q"}],"text":"Some"}
        dollar "code":{"coding":[{"code":"$d"}]}
        text   "code":{"text":"x"}
        named  "code":{"coding":[{"system":"s","display":"x"}]}
        slash  "code":{"coding":[{"system":"","code":"a\\b"}]}
        upper  "code":{"coding":[{"system":"s","code":"X"}]}
        none"#,
    )
    .finds(&[
        (r"code=x\,y", "two"),
        (r"code=s|x\,y", "two"),
        (r"code=t|x\,y", ""),
        (r"code=p\|q", "two"),
        (r"code=t|p\|q", "two"),
        ("code=t|p|q", "two"),
        (r"code=\$d", "dollar"),
        ("code=$d", "dollar"),
        ("code=|$d", "dollar"),
        (r"code=a\\b", "slash"),
        (r"code=a\b", "slash"),
        // A system without text is none.
        (r"code=|a\\b", "slash"),
        // Neither texts nor displays are codes, and case counts.
        ("code=x", ""),
        ("code=X", "upper"),
        ("code=s|", "two named upper"),
        ("code:not=X", "two dollar text named slash none"),
        ("code:not=s|", "dollar text slash none"),
        ("code:missing=true", "none"),
    ]);
}

#[test]
fn codes_booleans_and_codings() {
    Table::r4(
        "Patient",
        r#"a "active":true,"gender":"male","deceasedBoolean":false
        b "active":false,"gender":"female","deceasedBoolean":true
        c "deceasedDateTime":"2020"
        d"#,
    )
    .finds(&[
        ("active=true", "a"),
        ("active=false", "b"),
        ("active:not=true", "b c d"),
        ("active:not=false", "a c d"),
        ("active=True", ""),
        ("active:missing=true", "c d"),
        ("gender=male", "a"),
        ("gender=male,female", "a b"),
        ("gender:not=male", "b c d"),
        // The system of a code is that of its element: a query may name it.
        ("gender=http://hl7.org/fhir/administrative-gender|male", "a"),
        ("gender=MALE", ""),
        ("deceased=true", "b c"),
        ("deceased=false", "a d"),
    ]);
    Table::r4(
        "Encounter",
        r#"a "class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"AMB"}
        b "class":{"code":"AMB"}
        c"#,
    )
    .finds(&[
        ("class=AMB", "a b"),
        ("class=http://terminology.hl7.org/CodeSystem/v3-ActCode|AMB", "a"),
        ("class=|AMB", "b"),
        ("class:not=AMB", "c"),
    ]);
    // In R5 the same element is a list of concepts.
    Table::new(Version::R5, "Encounter", r#"a "class":[{"coding":[{"code":"IMP"}]},{"coding":[{"code":"AMB"}]}]"#)
        .finds(&[("class=AMB", "a"), ("class=IMP", "a"), ("class:not=AMB", "")]);
}

#[test]
fn contact_points() {
    Table::r4(
        "Patient",
        r#"a "telecom":[{"system":"phone","value":"+1 555 0100"},{"system":"email","value":"A.B@Example.org"}]
        b "telecom":[{"system":"phone","value":"a.b@example.org"}]
        c"#,
    )
    .finds(&[
        ("email=a.b@example.org", "a"),
        ("email=A.B@EXAMPLE.ORG", "a"),
        ("phone=a.b@example.org", "b"),
        ("phone=%2B1 555 0100", "a"),
        ("telecom=a.b@example.org", "a b"),
        ("telecom=email|a.b@example.org", "a"),
        ("telecom=phone|", "a b"),
        ("phone:not=%2B1 555 0100", "b c"),
        ("email:missing=true", "b c"),
    ]);
}

#[test]
fn choices_keep_their_types_apart() {
    Table::r4(
        "Observation",
        r#"concept "valueCodeableConcept":{"coding":[{"system":"s","code":"x"}]}
        string  "valueString":"x"
        number  "valueInteger":3
        parts   "component":[{"code":{"text":"t"},"valueCodeableConcept":{"coding":[{"code":"x"}]}}]"#,
    )
    .finds(&[
        ("value-concept=x", "concept"),
        ("value-concept=s|x", "concept"),
        ("component-value-concept=x", "parts"),
        ("combo-value-concept=x", "concept parts"),
        ("value-concept:missing=true", "string number parts"),
        ("value-string=X", "string"),
    ]);
    Table::r4(
        "MedicationRequest",
        r#"concept "medicationCodeableConcept":{"coding":[{"code":"x"}]}
        ref     "medicationReference":{"reference":"Medication/x"}"#,
    )
    .finds(&[("code=x", "concept"), ("medication=x", "ref"), ("code:missing=true", "ref")]);
}
