//! Observation: half of the resources, with all types that its value can have.

use super::json::Json;
use super::parts::*;
use super::plan::{ResourceType, Sample};
use super::random::Random;
use super::time::Second;
use super::vocabulary::*;

/// One thing that is observed.
struct Kind {
    category: &'static str,
    code: Code,
    value: Value,
}

/// How its value is written. Ranges are in units of the last digit: `Quantity(3550, 3990, 2, "Cel")` gives
/// `35.50` to `39.90`.
enum Value {
    Quantity(i64, i64, u32, &'static str),
    BloodPressure,
    Concept(&'static [Code]),
    Text(&'static [&'static str]),
    Boolean,
    Integer(i64, i64),
    Range,
    Ratio,
    Samples,
    Time,
    DateTime,
    Period,
}

const fn kind(category: &'static str, code: &'static str, display: &'static str, value: Value) -> Kind {
    Kind { category, code: Code(LOINC, code, display), value }
}

const VITAL: &str = "vital-signs";
const LAB: &str = "laboratory";
const SURVEY: &str = "survey";
const SOCIAL: &str = "social-history";

/// The common ones: nine of ten observations.
const COMMON: &[Kind] = &[
    kind(VITAL, "85354-9", "Blood pressure panel with all children optional", Value::BloodPressure),
    kind(VITAL, "8302-2", "Body Height", Value::Quantity(450, 2050, 1, "cm")),
    kind(VITAL, "29463-7", "Body Weight", Value::Quantity(250, 13_000, 2, "kg")),
    kind(VITAL, "8310-5", "Body temperature", Value::Quantity(3550, 3990, 2, "Cel")),
    kind(VITAL, "8867-4", "Heart rate", Value::Quantity(48, 130, 0, "/min")),
    kind(VITAL, "9279-1", "Respiratory rate", Value::Quantity(10, 28, 0, "/min")),
    kind(VITAL, "2708-6", "Oxygen saturation in Arterial blood", Value::Quantity(880, 1000, 1, "%")),
    kind(LAB, "2339-0", "Glucose [Mass/volume] in Blood", Value::Quantity(6000, 22_000, 2, "mg/dL")),
    kind(LAB, "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", Value::Quantity(40, 120, 1, "%")),
    kind(LAB, "2160-0", "Creatinine [Mass/volume] in Serum or Plasma", Value::Quantity(0, 400, 2, "mg/dL")),
    kind(LAB, "2951-2", "Sodium [Moles/volume] in Serum or Plasma", Value::Quantity(1300, 1500, 1, "mmol/L")),
    kind(LAB, "3016-3", "Thyrotropin [Units/volume] in Serum or Plasma", Value::Quantity(5, 9000, 3, "m[IU]/L")),
    kind(LAB, "718-7", "Hemoglobin [Mass/volume] in Blood", Value::Quantity(70, 180, 1, "g/dL")),
    kind(
        LAB,
        "33914-3",
        "Glomerular filtration rate/1.73 sq M.predicted",
        Value::Quantity(15 * SIXTEEN, 120 * SIXTEEN, 16, "mL/min"),
    ),
    kind(SOCIAL, "72166-2", "Tobacco smoking status", Value::Concept(SMOKING)),
];

/// As calculated values come: all the digits of a float.
const SIXTEEN: i64 = 76_543_210_987_654;

/// The rare ones, each of another type.
const RARE: &[Kind] = &[
    kind(LAB, "630-4", "Bacteria identified in Urine by Culture", Value::Text(NOTES)),
    kind(SURVEY, "82810-3", "Pregnancy status", Value::Boolean),
    kind(SURVEY, "44261-6", "Patient Health Questionnaire 9 item total score", Value::Integer(0, 27)),
    kind(LAB, "5767-9", "Appearance of Urine", Value::Concept(APPEARANCE)),
    kind(LAB, "13945-1", "Erythrocytes [#/area] in Urine sediment", Value::Range),
    kind(LAB, "5048-4", "Nuclear Ab [Titer] in Serum", Value::Ratio),
    kind("procedure", "11524-6", "EKG study", Value::Samples),
    kind(SURVEY, "65561-3", "Usual bed time", Value::Time),
    kind(SURVEY, "8665-2", "Last menstrual period start date", Value::DateTime),
    kind(SOCIAL, "74013-4", "Time of residence", Value::Period),
];

const SMOKING: &[Code] = &[
    Code(SNOMED, "266919005", "Never smoked tobacco (finding)"),
    Code(SNOMED, "8517006", "Ex-smoker (finding)"),
    Code(SNOMED, "77176002", "Smoker (finding)"),
];

const APPEARANCE: &[Code] = &[
    Code(SNOMED, "167236000", "Urine: turbid – «молочный» цвет"),
    Code(SNOMED, "167235001", "Urine: clear (finding)"),
];

pub(crate) fn observation(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let patient = s.patient_of(ResourceType::Observation, index);
    let kinds = if random.one_in(10) { RARE } else { COMMON };
    let kind = random.pick_ref(kinds);
    let has_specimen = kind.category == LAB && random.one_in(12);

    if random.one_in(8) {
        narrative(j, |j| j.push(kind.code.2));
    }
    if has_specimen {
        contained_specimen(j, s.start_of_some_visit(patient, random), random);
    }
    if random.one_in(4) {
        identifier(j, "https://lab.example.org/results", random);
    }
    j.text("status", random.pick(&["final", "final", "final", "amended"]));
    j.array("category", |j| {
        j.item(|j| {
            hl7_concept_members(j, "observation-category", kind.category);
            j.text("text", kind.category);
        });
    });
    concept(j, "code", kind.code);
    let (_, start) = subject(s, j, "subject", ResourceType::Observation, index, random);
    let at = start.plus_minutes(random.between(1, 9));
    effective(j, at, random);
    instant(j, "issued", at.plus_minutes(20), random);
    j.array("performer", |j| j.item(|j| actor_members(s, j, random)));
    let has_value = !random.one_in(50);
    if has_value {
        value(j, &kind.value, at, random);
    } else {
        hl7_concept(j, "dataAbsentReason", "data-absent-reason", "unknown");
    }
    if kind.category == LAB && has_value {
        j.array("interpretation", |j| {
            j.item(|j| hl7_concept_members(j, "v3-ObservationInterpretation", random.pick(&["N", "H", "L"])));
        });
    }
    if random.one_in(10) {
        note(s, j, at, random);
    }
    if kind.category == VITAL && random.one_in(3) {
        concept(j, "bodySite", random.pick(BODY_SITES));
    }
    if has_specimen {
        j.object("specimen", |j| j.text("reference", "#spec"));
    }
    if random.one_in(15) {
        j.object("device", |j| {
            j.string("reference", |j| {
                j.push("urn:uuid:");
                push_uuid(j, random);
            });
        });
    }
    if let (LAB, Value::Quantity(low, high, scale, unit)) = (kind.category, &kind.value)
        && random.one_in(2)
    {
        reference_range(j, *low, *high, *scale, unit);
    }
    if random.one_in(20)
        && let Some(other) = s.another_of(ResourceType::Observation, patient, random)
    {
        j.array("derivedFrom", |j| j.item(|j| reference_members(s, j, ResourceType::Observation, other, random)));
    }
    if let Value::BloodPressure = kind.value {
        blood_pressure(j, random);
    }
}

impl Sample {
    fn start_of_some_visit(&self, patient: u64, random: &mut Random) -> Second {
        match self.another_of(ResourceType::Encounter, patient, random) {
            Some(encounter) => self.start_of_encounter(encounter),
            None => self.birth_of(patient).start(),
        }
    }
}

/// A contained resource with a choice element of its own.
fn contained_specimen(j: &mut Json, at: Second, random: &mut Random) {
    j.array_of_one("contained", |j| {
        j.text("resourceType", "Specimen");
        j.text("id", "spec");
        concept(j, "type", Code(SNOMED, "122555007", "Venous blood specimen"));
        j.object("collection", |j| {
            if random.one_in(2) {
                date_time(j, "collectedDateTime", at, random);
            } else {
                period(j, "collectedPeriod", at, 5, random);
            }
            quantity(j, "quantity", 50, 1, "mL");
            hl7_concept(j, "fastingStatusCodeableConcept", "v2-0916", "F");
        });
    });
}

fn effective(j: &mut Json, at: Second, random: &mut Random) {
    match random.below(40) {
        0..4 => period(j, "effectivePeriod", at, 15, random),
        4 => instant(j, "effectiveInstant", at, random),
        5 => j.object("effectiveTiming", |j| {
            j.array("event", |j| j.string_item(|j| j.push_date_time(at, "Z")));
            j.object("repeat", |j| {
                j.object("boundsRange", |j| {
                    quantity(j, "low", 2, 0, "d");
                    quantity(j, "high", 75, 1, "d");
                });
                j.integer("count", 3);
            });
        }),
        6 => j.object("_effectiveDateTime", |j| {
            j.array_of_one("extension", |j| {
                j.text("url", "http://hl7.org/fhir/StructureDefinition/data-absent-reason");
                j.text("valueCode", "asked-unknown");
            });
        }),
        _ => date_time(j, "effectiveDateTime", at, random),
    }
}

fn value(j: &mut Json, value: &Value, at: Second, random: &mut Random) {
    match value {
        Value::Quantity(low, high, scale, unit) => {
            let mut units = random.between(*low, *high);
            if random.one_in(3) {
                units -= units % 10; // people round, and devices still print the zero: 36.60
            }
            if random.one_in(40) {
                j.object("valueQuantity", |j| {
                    j.decimal("value", units, *scale);
                    j.text("comparator", random.pick(&["<", ">="]));
                    j.text("unit", unit);
                });
            } else {
                quantity(j, "valueQuantity", units, *scale, unit);
            }
        }
        Value::BloodPressure => {} // in the components
        Value::Concept(codes) => concept(j, "valueCodeableConcept", random.pick(codes)),
        Value::Text(texts) => {
            j.text("valueString", random.pick(texts));
            if random.one_in(2) {
                j.object("_valueString", |j| {
                    j.array_of_one("extension", |j| {
                        j.text("url", "http://hl7.org/fhir/StructureDefinition/rendering-markdown");
                        j.text("valueMarkdown", "**kein Wachstum** nach 48 h");
                    });
                });
            }
        }
        Value::Boolean => j.boolean("valueBoolean", random.one_in(2)),
        Value::Integer(low, high) => j.integer("valueInteger", random.between(*low, *high)),
        Value::Range => j.object("valueRange", |j| {
            quantity(j, "low", 0, 1, "/[HPF]");
            quantity(j, "high", random.between(1, 9) * 10, 1, "/[HPF]");
        }),
        Value::Ratio => j.object("valueRatio", |j| {
            quantity(j, "numerator", 1, 0, "1");
            quantity(j, "denominator", 1 << random.between(3, 10), 0, "1");
        }),
        Value::Samples => j.object("valueSampledData", |j| {
            quantity(j, "origin", 0, 1, "mV");
            j.decimal("period", 100, 1);
            j.decimal("factor", 1612, 3);
            j.integer("dimensions", 1);
            j.string("data", |j| {
                for _ in 0..random.between(40, 120) {
                    j.push_integer(random.between(-2048, 2047));
                    j.push(" ");
                }
                j.push("E");
            });
        }),
        Value::Time => j.text("valueTime", random.pick(&["22:30:00", "23:15:00.5", "00:05:00"])),
        Value::DateTime => j.date("valueDateTime", at.plus_minutes(-30_000).day()),
        Value::Period => j.object("valuePeriod", |j| j.date("start", at.plus_minutes(-900_000).day())),
    }
}

fn reference_range(j: &mut Json, low: i64, high: i64, scale: u32, unit: &str) {
    j.array_of_one("referenceRange", |j| {
        quantity(j, "low", low + (high - low) / 4, scale, unit);
        quantity(j, "high", high - (high - low) / 4, scale, unit);
        hl7_concept(j, "type", "referencerange-meaning", "normal");
    });
}

fn blood_pressure(j: &mut Json, random: &mut Random) {
    j.array("component", |j| {
        for (code, display, low, high) in
            [("8462-4", "Diastolic Blood Pressure", 50, 110), ("8480-6", "Systolic Blood Pressure", 90, 190)]
        {
            j.item(|j| {
                concept(j, "code", Code(LOINC, code, display));
                quantity(j, "valueQuantity", random.between(low, high), 0, "mm[Hg]");
            });
        }
    });
}
