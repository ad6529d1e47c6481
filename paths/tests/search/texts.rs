use super::Table;

#[test]
fn names_and_addresses_are_searched_in_all_their_parts() {
    Table::r4(
        "Patient",
        r#"a "name":[{"use":"official","family":"Müller","given":["José","Ana"],"prefix":["Dr."],"suffix":["MD"],"text":"Professor J. Müller"}],"address":[{"use":"home","line":["12 Main St","Apt 4"],"city":"Zürich","district":"D1","state":"ZH","postalCode":"8001","country":"CH","text":"Whole address"}]
        b "name":[{"family":"MULLER"},{"family":"Other"}]
        c "name":[{"use":"official"}]
        d"#,
    )
    .finds(&[
        ("name=mul", "a b"),
        ("name=jose", "a"),
        ("name=ana", "a"),
        ("name=dr", "a"),
        ("name=md", "a"),
        ("name=professor", "a"),
        ("name=j. m", ""),
        ("name=official", ""),
        ("name=other", "b"),
        ("family=jose", ""),
        ("given=jose", "a"),
        ("name:contains=. m", "a"),
        ("name:exact=José", "a"),
        ("name:exact=Jose", ""),
        ("name:missing=true", "d"),
        ("family:missing=true", "c d"),
        ("address=12", "a"),
        ("address=apt", "a"),
        ("address=zur", "a"),
        ("address=d1", "a"),
        ("address=zh", "a"),
        ("address=80", "a"),
        ("address=ch", "a"),
        ("address=whole", "a"),
        ("address=home", ""),
        ("address=st", ""),
        ("address:contains=st", "a"),
        ("address-city=zürich", "a"),
        ("address-postalcode=800", "a"),
        ("address-state=z", "a"),
        ("address-country=ch", "a"),
        ("address-city=main", ""),
    ]);
}

#[test]
fn neither_case_nor_accents_count_unless_the_text_has_to_be_exact() {
    Table::r4(
        "Patient",
        "composed   \"name\":[{\"family\":\"M\u{fc}ller\"}]
        decomposed \"name\":[{\"family\":\"Mu\u{308}ller\"}]
        plain      \"name\":[{\"family\":\"MULLER, von\"}]
        inner      \"name\":[{\"family\":\"van der Muller\"}]
        greek      \"name\":[{\"family\":\"\u{3a3}\u{39f}\u{3a6}\u{39f}\u{3a3}\"}]
        kelvin     \"name\":[{\"family\":\"\u{212a}elvin\"}]
        korean     \"name\":[{\"family\":\"\u{ac01}\"}]
        hindi      \"name\":[{\"family\":\"\u{92e}\u{940}\u{928}\u{93e}\"}]
        empty      \"name\":[{\"family\":\"\"}]",
    )
    .finds(&[
        ("family=mul", "composed decomposed plain"),
        ("family=m\u{fc}l", "composed decomposed plain"),
        ("family=MU\u{308}LLER", "composed decomposed plain"),
        ("family=muller\\, v", "plain"),
        ("family=ller", ""),
        ("family:contains=LLER", "composed decomposed plain inner"),
        ("family:contains=\u{fc}ll", "composed decomposed plain inner"),
        ("family:exact=M\u{fc}ller", "composed"),
        ("family:exact=Mu\u{308}ller", "decomposed"),
        ("family:exact=m\u{fc}ller", ""),
        ("family:exact=M\u{fc}lle", ""),
        // The small sigma has another form at the end of a word.
        ("family=\u{3c3}\u{3bf}\u{3c6}\u{3bf}\u{3c2}", "greek"),
        ("family=\u{3c3}\u{3bf}\u{3c6}\u{3bf}\u{3c3}", "greek"),
        ("family=kelvin", "kelvin"),
        // A syllable is one character, although Unicode can take it apart.
        ("family=\u{ac01}", "korean"),
        ("family=\u{ac00}", ""),
        // A vowel sign is a letter, not an accent.
        ("family=\u{92e}\u{940}\u{928}", "hindi"),
        ("family=\u{92e}\u{928}", ""),
        ("family:missing=true", ""),
    ]);
}

#[test]
fn lists_of_texts() {
    Table::r4("Location", r#"a "name":"Ward","alias":["North","West wing"]"#).finds(&[
        ("name=west", "a"),
        ("name=north", "a"),
        ("name=ward", "a"),
        ("name=wing", ""),
    ]);
    // A text that is markdown.
    Table::r4("ValueSet", r#"a "title":"T","description":"Some *text*""#).finds(&[
        ("description=some *", "a"),
        ("description:contains=TEXT", "a"),
        ("title=x", ""),
    ]);
}

#[test]
fn urls() {
    Table::r4(
        "ValueSet",
        r#"one  "url":"http://x.org/fhir/ValueSet/1"
        ten  "url":"http://x.org/fhir/ValueSet/10"
        root "url":"http://x.org/fhir"
        oid  "url":"urn:oid:1.2.3"
        oid4 "url":"urn:oid:1.2.3.4"
        none"#,
    )
    .finds(&[
        ("url=http://x.org/fhir/ValueSet/1", "one"),
        ("url=http://X.org/fhir/ValueSet/1", ""),
        ("url=http://x.org/fhir/ValueSet/", ""),
        ("url=urn:oid:1.2.3,http://x.org/fhir", "root oid"),
        ("url:below=http://x.org/fhir", "one ten root"),
        ("url:below=http://x.org/fhir/", "one ten root"),
        ("url:below=http://x.org/fhir/ValueSet/1", "one"),
        ("url:below=http://x.org/fh", ""),
        ("url:above=http://x.org/fhir/ValueSet/1", "one root"),
        ("url:above=http://x.org/fhir/ValueSet/1/2", "one root"),
        ("url:above=http://x.org/fhir/ValueSet", "root"),
        // Only urls have paths.
        ("url:below=urn:oid:1.2.3", "oid"),
        ("url:above=urn:oid:1.2.3.4", "oid4"),
        ("url:missing=true", "none"),
    ]);
}

#[test]
fn a_text_is_searched_for_once_however_often_it_nearly_begins() {
    let near = "a".repeat(900);
    let names = format!(
        "plain \"name\":[{{\"text\":\"{}b{near}\"}}]\n accent \"name\":[{{\"text\":\"{}b{near}\u{e9}\"}}]",
        "a".repeat(899),
        "a".repeat(899)
    );
    let wanted = |text: &str| format!("name:contains={text}");
    let table = Table::r4("Patient", &names);
    table.finds(&[
        (&wanted(&near), "plain accent"),
        (&wanted(&format!("{near}e")), "accent"),
        (&wanted(&format!("ab{near}")), "plain accent"),
        (&wanted(&format!("{near}b")), ""),
        (&wanted("aabaab"), ""),
    ]);
}
