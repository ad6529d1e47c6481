//! Search parameters that are not HL7's, and those of HL7's that need more than their definition says.

use super::Table;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_paths::search::{Component, Definition, Kind, Problem};

fn own(code: &str, kind: Kind, base: &str, expression: &str) -> Definition {
    Definition {
        url: format!("http://own/{code}"),
        code: code.to_owned(),
        kind,
        base: vec![base.to_owned()],
        targets: Vec::new(),
        expression: expression.to_owned(),
        components: Vec::new(),
    }
}

#[test]
fn own_parameters_are_used_after_hl7s() {
    let mut table = Table::r4(
        "Observation",
        r#"a "status":"final","note":[{"text":"One"},{"text":"Two"}],"extension":[{"url":"http://own/e","valueInteger":3}],"performer":[{"reference":"Practitioner/1"},{"reference":"Organization/1"}]
        b "status":"amended","note":[{"text":"Three","authorString":"Me"}],"text":{"status":"empty"}"#,
    );
    let components = |parts: [(&str, &str); 2]| {
        parts
            .map(|(url, expression)| Component { definition: url.to_owned(), expression: expression.to_owned() })
            .to_vec()
    };
    table.own = vec![
        own("note", Kind::String, "Observation", "Observation.note.text"),
        own("author", Kind::String, "DomainResource", "note.author.ofType(string)"),
        own("narrative", Kind::Token, "DomainResource", "DomainResource.text.status"),
        own("status", Kind::Token, "Observation", "Observation.text.status"),
        own("third", Kind::Number, "Observation", "Observation.extension('http://own/e').value.ofType(integer)"),
        own("first", Kind::Reference, "Observation", "Observation.performer.first()"),
        own("second", Kind::Reference, "Observation", "Observation.performer[1]"),
        own("both", Kind::Reference, "Observation", "Observation.subject | Observation.performer"),
        own("texts", Kind::Token, "Observation", "Observation.note.exists()"),
        own("patient-only", Kind::Token, "Patient", "Patient.gender"),
        Definition {
            components: components([("http://own/note", "text"), ("http://own/author", "author.ofType(string)")]),
            ..own("note-author", Kind::Composite, "Observation", "Observation.note")
        },
        Definition {
            components: components([("http://own/none", "author"), ("http://own/note", "text")]),
            ..own("broken-1", Kind::Composite, "Observation", "Observation.note")
        },
        own("broken-2", Kind::Token, "Observation", "Observation.nothing"),
        own("broken-3", Kind::Token, "Observation", "Observation.status.matches('f.*')"),
        own("broken-4", Kind::Token, "Observation", "Observation."),
        own("broken-5", Kind::Token, "Observation", "Patient.gender"),
        own("broken-6", Kind::Special, "Observation", "Observation.status"),
        own("broken-7", Kind::Token, "Observation", ""),
    ];
    table.finds(&[
        ("note=o", "a"),
        ("note=t", "a b"),
        ("note:exact=Two", "a"),
        ("author=me", "b"),
        ("narrative=empty", "b"),
        ("status=final", "a"),
        ("status=empty", ""),
        ("third=3", "a"),
        ("third=gt3", ""),
        ("first=Practitioner/1", "a"),
        ("first=1", "a"),
        ("first=Organization/1", ""),
        ("second=Organization/1", "a"),
        ("both=1", "a"),
        ("texts=true", "a b"),
        ("note-author=thr$me", "b"),
        ("note-author=one$me", ""),
    ]);
    let refused = |query: &str| table.filter(query).unwrap_err();
    for name in ["broken-1", "broken-2", "broken-3", "broken-4", "broken-5", "broken-6", "broken-7", "patient-only"] {
        let error = refused(&format!("{name}=a$b"));
        assert_eq!((error.problem, error.parameter.as_str()), (Problem::NotSupported, name), "{error:?}");
    }
}

#[test]
fn logic_has_three_values() {
    let mut table = Table::r4(
        "Patient",
        r#"yes  "active":true,"name":[{"use":"official","family":"A"}],"deceasedBoolean":true
        no   "active":false,"name":[{"family":"A"}],"deceasedDateTime":"2020"
        none"#,
    );
    let where_ = |condition: &str| own("p", Kind::Token, "Patient", &format!("Patient.where({condition}).exists()"));
    for (condition, expected) in [
        ("active", "yes"),
        ("active = true", "yes"),
        ("active != true", "no"),
        ("active.not()", "no"),
        ("(active = true).not()", "no"),
        ("active.exists().not()", "none"),
        ("active.empty()", "none"),
        ("active or active.not()", "yes no"),
        ("active or gender.empty()", "yes no none"),
        ("active and gender.empty()", "yes"),
        ("(active and gender.empty()).not()", "no"),
        ("(active or gender.exists()).not()", "no"),
        // One item that is not a boolean is as good as true.
        ("name", "yes no"),
        ("name.use = 'official'", "yes"),
        ("name.where(use = 'official').exists().not()", "no none"),
        ("name.where((use = 'official').not()).exists()", ""),
        ("name.exists(use != 'official')", ""),
        ("deceased is boolean", "yes"),
        ("(deceased is boolean).not()", "no"),
        ("deceased is Quantity", ""),
    ] {
        table.own = vec![where_(condition)];
        assert_eq!(table.found("p=true"), expected, "{condition}");
    }
}

#[test]
fn a_type_counts_with_those_that_derive_from_it() {
    let extension =
        |kind: Kind, expression: &str| own("e", kind, "Basic", &format!("Basic.extension.value.{expression}"));
    let mut table = Table::r4(
        "Basic",
        r#"code  "extension":[{"url":"u","valueCode":"x"}]
        text  "extension":[{"url":"u","valueString":"x"}]
        url   "extension":[{"url":"u","valueUrl":"x"}]
        canonical "extension":[{"url":"u","valueCanonical":"x"}]
        age   "extension":[{"url":"u","valueAge":{"value":1}}]
        quantity "extension":[{"url":"u","valueQuantity":{"value":1}}]
        positive "extension":[{"url":"u","valuePositiveInt":1}]"#,
    );
    for (kind, expression, query, expected) in [
        (Kind::String, "ofType(string)", "e=x", "code text"),
        (Kind::Token, "as(code)", "e=x", "code"),
        (Kind::Uri, "ofType(uri)", "e=x", "url canonical"),
        (Kind::Quantity, "ofType(Quantity)", "e=1", "age quantity"),
        (Kind::Quantity, "ofType(Age)", "e=1", "age"),
        (Kind::Number, "ofType(integer)", "e=1", "positive"),
    ] {
        table.own = vec![extension(kind, expression)];
        assert_eq!(table.found(query), expected, "{expression}");
    }
}

#[test]
fn codeable_references_are_concepts_and_references() {
    let mut table = Table::new(
        Version::R5,
        "Procedure",
        r#"concept "reason":[{"concept":{"coding":[{"system":"s","code":"x"}]}}]
        ref     "reason":[{"reference":{"reference":"Condition/x"}}]
        logical "reason":[{"reference":{"identifier":{"value":"x"}}}]"#,
    );
    table.own = vec![
        own("why-code", Kind::Token, "Procedure", "Procedure.reason"),
        own("why", Kind::Reference, "Procedure", "Procedure.reason"),
    ];
    table.finds(&[
        ("why-code=x", "concept"),
        ("why-code=s|x", "concept"),
        ("why-code:not=x", "ref logical"),
        ("why=x", "ref"),
        ("why=Condition/x", "ref"),
        ("why:Condition=x", "ref"),
        ("why:identifier=x", "logical"),
    ]);
}

/// A type that is not FHIR's has the parameters of all resources, and users' own.
#[test]
fn types_that_are_not_fhirs() {
    let mut table =
        Table::r4("Custom", "a \"meta\":{\"tag\":[{\"code\":\"t\"}]},\"some\":{\"thing\":[{\"name\":\"x\"}]}\n b");
    table.own = vec![own("thing", Kind::String, "Custom", "Custom.some.thing.name")];
    table.finds(&[("_id=a", "a"), ("thing=x", "a"), ("thing:missing=true", "b"), ("_tag=t", "a")]);
    assert_eq!(table.filter("code=x").unwrap_err().problem, Problem::NotSupported);
}

/// HL7's parameters on extensions mean the value of the extension.
#[test]
fn parameters_on_extensions() {
    Table::r4(
        "Device",
        r#"a "extension":[{"url":"http://hl7.org/fhir/SearchParameter/device-extensions-Device-din","valueIdentifier":{"value":"x"}}]
        b "extension":[{"url":"http://hl7.org/fhir/StructureDefinition/other","valueIdentifier":{"value":"x"}}]"#,
    )
    .finds(&[("din=x", "a"), ("din:missing=true", "b")]);
    Table::r4(
        "Condition",
        r#"a "extension":[{"url":"http://hl7.org/fhir/StructureDefinition/condition-assertedDate","valueDateTime":"2024-05-06"}]"#,
    )
    .finds(&[("asserted-date=2024-05", "a"), ("asserted-date=2023", "")]);
}

/// Composites of R5 whose parts have definitions that HL7 has not published: the part's type says how it is compared.
#[test]
fn composites_with_unpublished_parts() {
    Table::new(Version::R5, "Observation", r#"a "code":{"coding":[{"code":"x"}]},"valueString":"Some""#).finds(&[
        ("code-value-string=x$some", "a"),
        ("code-value-string=y$some", ""),
        ("code-value-string=x$other", ""),
    ]);
    Table::new(
        Version::R5,
        "ResearchStudy",
        r#"a "progressStatus":[{"state":{"coding":[{"code":"active"}]},"actual":true,"period":{"start":"2020","end":"2021"}}]"#,
    )
    .finds(&[
        ("progress-status-state-period-actual=active$ge2020$true", "a"),
        ("progress-status-state-period-actual=active$ge2020$false", ""),
        ("progress-status-state-actual=active$true", "a"),
        ("progress-status-state-actual=active$false", ""),
        ("progress-status-state-period=active$ge2020", "a"),
        ("progress-status-state-period=active$2019", ""),
    ]);
}

#[test]
fn criteria_within_criteria_end_and_choices_within_choices_are_not_looked_for_by_an_index() {
    let deep = (0..24).fold("url".to_owned(), |inner, _| format!("%resource.extension.where({inner}.exists())"));
    let extensions: Vec<String> = (0..20).map(|n| format!("{{\"url\":\"u{n}\",\"valueCode\":\"c\"}}")).collect();
    let mut table = Table::r4("Basic", &format!("a \"extension\":[{}]", extensions.join(",")));
    let never = deep.replacen("url.exists()", "url = 'none'", 1);
    let codes = format!("Basic{}.extension.value.ofType(code)", ".extension.value".repeat(4));
    table.own = vec![
        own("deep", Kind::Token, "Basic", &format!("Basic.extension.where({never}.exists()).url")),
        own("codes", Kind::Token, "Basic", &codes),
    ];
    table.finds(&[("deep=u1", ""), ("codes=c", "")]);
}
