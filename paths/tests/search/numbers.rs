use super::Table;

#[test]
fn a_number_is_as_precise_as_it_is_written() {
    Table::r4(
        "RiskAssessment",
        r#"a "prediction":[{"probabilityDecimal":0.5}]
        b "prediction":[{"probabilityDecimal":0.50}]
        c "prediction":[{"probabilityDecimal":0.5499999999999999999999999999}]
        d "prediction":[{"probabilityDecimal":0.55}]
        e "prediction":[{"probabilityDecimal":0.45}]
        f "prediction":[{"probabilityDecimal":0.4499999999999999999999999999}]
        g "prediction":[{"probabilityDecimal":100}]
        h "prediction":[{"probabilityDecimal":-3}]
        r "prediction":[{"probabilityRange":{"low":{"value":0.1},"high":{"value":0.2}}}]
        n"#,
    )
    .finds(&[
        ("probability=0.5", "a b c e"),
        ("probability=0.50", "a b"),
        ("probability=0.500000000000000000000000000000", "a b"),
        ("probability=5e-1", "a b c e"),
        ("probability=50E-2", "a b"),
        ("probability=eq0.5", "a b c e"),
        ("probability=ne0.5", "d f g h r"),
        ("probability=gt0.5", "c d g"),
        ("probability=lt0.5", "e f h r"),
        ("probability=ge0.5", "a b c d g"),
        ("probability=le0.5", "a b e f h r"),
        ("probability=sa0.5", "c d g"),
        ("probability=eb0.5", "e f h r"),
        ("probability=100", "g"),
        ("probability=99.5", ""),
        ("probability=100.4", ""),
        ("probability=1e2", "g"),
        ("probability=-3", "h"),
        ("probability=lt-2", "h"),
        ("probability=0.5,100", "a b c e g"),
        ("probability=gt0.1&probability=lt0.5", "e f r"),
    ]);
}

#[test]
fn an_exponent_adds_no_digits() {
    let lines = "a \"prediction\":[{\"probabilityDecimal\":100}]\n b \"prediction\":[{\"probabilityDecimal\":104}]
        c \"prediction\":[{\"probabilityDecimal\":60}]\n d \"prediction\":[{\"probabilityDecimal\":150}]";
    Table::r4("RiskAssessment", lines).finds(&[
        ("probability=1e2", "a b c"),
        ("probability=1.0e2", "a b"),
        ("probability=1.00e2", "a"),
        ("probability=gt1e2", "b d"),
    ]);
}

#[test]
fn quantities_have_units() {
    Table::r4(
        "Observation",
        r#"mg     "valueQuantity":{"value":5.4,"unit":"milligram","system":"http://unitsofmeasure.org","code":"mg"}
        unit   "valueQuantity":{"value":5.4,"unit":"mg"}
        other  "valueQuantity":{"value":5.40,"system":"urn:other","code":"mg"}
        none   "valueQuantity":{"value":5.35}
        above  "valueQuantity":{"value":5.45,"system":"http://unitsofmeasure.org","code":"mg"}
        empty  "valueQuantity":{"unit":"mg"}
        series "valueSampledData":{"origin":{"value":0,"system":"http://unitsofmeasure.org","code":"mg"},"period":1,"dimensions":1,"lowerLimit":5,"upperLimit":6}
        endless "valueSampledData":{"origin":{"value":0},"period":1,"dimensions":1}
        string "valueString":"5.4""#,
    )
    .finds(&[
        ("value-quantity=5.4", "mg unit other none"),
        ("value-quantity=5.40", "mg unit other"),
        ("value-quantity=5.4|http://unitsofmeasure.org|mg", "mg"),
        ("value-quantity=5.4|http://unitsofmeasure.org|", "mg"),
        ("value-quantity=5.4||mg", "mg unit other"),
        ("value-quantity=5.4||milligram", "mg"),
        ("value-quantity=5.4||MG", ""),
        ("value-quantity=5.4|urn:other|mg", "other"),
        ("value-quantity=gt5.4", "above series"),
        ("value-quantity=ge5.4", "mg unit other above series"),
        ("value-quantity=lt5.4", "none series"),
        ("value-quantity=gt5.4|http://unitsofmeasure.org|mg", "above series"),
        ("value-quantity=ne5.4", "above series"),
        ("value-quantity=sa4", "mg unit other none above series"),
        ("value-quantity=eb6.1||mg", "mg unit other above series"),
        ("value-quantity:missing=true", "string"),
    ]);
}

#[test]
fn ranges_ages_and_money() {
    Table::r4(
        "Condition",
        r#"age   "onsetAge":{"value":50,"system":"http://unitsofmeasure.org","code":"a"}
        range "onsetRange":{"low":{"value":40},"high":{"value":60}}
        low   "onsetRange":{"low":{"value":40}}
        high  "onsetRange":{"high":{"value":60}}
        open  "onsetRange":{}
        date  "onsetDateTime":"2020""#,
    )
    .finds(&[
        ("onset-age=50", "age"),
        ("onset-age=50|http://unitsofmeasure.org|a", "age"),
        ("onset-age=ne50", "range low high"),
        ("onset-age=gt50", "range low high"),
        ("onset-age=lt50", "range low high"),
        ("onset-age=gt60", "low"),
        ("onset-age=ge60", "range low high"),
        ("onset-age=lt40", "high"),
        ("onset-age=sa39", "age range low"),
        ("onset-age=eb61", "age range high"),
        ("onset-age=sa40", "age"),
    ]);
    Table::r4(
        "ChargeItem",
        r#"usd "priceOverride":{"value":12.00,"currency":"USD"}
        eur "priceOverride":{"value":12,"currency":"EUR"}"#,
    )
    .finds(&[
        ("price-override=12", "usd eur"),
        ("price-override=12||USD", "usd"),
        ("price-override=12|urn:iso:std:iso:4217|EUR", "eur"),
        ("price-override=12|http://unitsofmeasure.org|EUR", ""),
        ("price-override=gt11||USD", "usd"),
    ]);
}

#[test]
fn composites_are_of_one_element() {
    let table = Table::r4(
        "Observation",
        r#"bp "code":{"coding":[{"system":"l","code":"bp"}]},"component":[{"code":{"coding":[{"system":"l","code":"sys"}]},"valueQuantity":{"value":140,"unit":"mmHg"}},{"code":{"coding":[{"system":"l","code":"dia"}]},"valueQuantity":{"value":90,"unit":"mmHg"}}]
        hr "code":{"coding":[{"system":"l","code":"hr"}]},"valueQuantity":{"value":60,"unit":"bpm"}
        dt "code":{"coding":[{"code":"d$t"}]},"valueDateTime":"2020-05"
        gl "code":{"coding":[{"code":"gl"}]},"valueCodeableConcept":{"coding":[{"code":"neg"}]}"#,
    );
    table.finds(&[
        ("code-value-quantity=hr$60", "hr"),
        ("code-value-quantity=l|hr$gt50||bpm", "hr"),
        ("code-value-quantity=hr$lt50", ""),
        ("code-value-quantity=bp$140", ""),
        ("component-code-value-quantity=sys$gt130", "bp"),
        ("component-code-value-quantity=l|dia$le90", "bp"),
        // The code of one component and the value of another one.
        ("component-code-value-quantity=dia$140", ""),
        ("component-code-value-quantity=dia$140,sys$140", "bp"),
        ("combo-code-value-quantity=hr$60,sys$140", "bp hr"),
        ("code-value-concept=gl$neg", "gl"),
        (r"code-value-date=d\$t$2020", "dt"),
        ("code-value-quantity:missing=true", ""),
    ]);
}
