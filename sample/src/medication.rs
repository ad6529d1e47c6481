//! Medication: Medication, MedicationRequest, Immunization.

use super::json::Json;
use super::parts::*;
use super::plan::{ResourceType, Sample};
use super::random::Random;
use super::time::Second;
use super::vocabulary::*;

pub(crate) fn medication(s: &Sample, j: &mut Json, random: &mut Random) {
    let code = random.pick(MEDICATIONS);
    concept(j, "code", code);
    j.text("status", "active");
    let organization = s.any_of(ResourceType::Organization, random);
    reference(s, j, "manufacturer", ResourceType::Organization, organization, random);
    concept(j, "form", Code(SNOMED, "385055001", "Tablet"));
    j.object("amount", |j| {
        quantity(j, "numerator", random.between(10, 100), 0, "1");
        quantity(j, "denominator", 10, 1, "1");
    });
    j.array("ingredient", |j| {
        j.item(|j| {
            concept(j, "itemCodeableConcept", code);
            j.boolean("isActive", true);
            j.object("strength", |j| {
                quantity(j, "numerator", random.between(1, 5000) * 10, 3, "mg");
                quantity(j, "denominator", 1, 0, "1");
            });
        });
        j.item(|j| {
            let other = s.any_of(ResourceType::Medication, random);
            reference(s, j, "itemReference", ResourceType::Medication, other, random);
            j.boolean("isActive", false);
        });
    });
    j.object("batch", |j| {
        j.string("lotNumber", |j| j.push_hex(random.next(), 6));
        j.text("expirationDate", "2026-07");
    });
}

pub(crate) fn medication_request(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let code = random.pick(MEDICATIONS);
    let how = random.below(10);
    let contained = how == 0;
    if contained {
        j.array_of_one("contained", |j| {
            j.text("resourceType", "Medication");
            j.text("id", "med");
            concept(j, "code", code);
            // A choice and a reference inside a contained resource.
            j.array_of_one("ingredient", |j| {
                concept(j, "itemCodeableConcept", code);
                j.object("strength", |j| {
                    quantity(j, "numerator", 100, 1, "mg");
                    quantity(j, "denominator", 1, 0, "mL");
                });
            });
        });
    }
    j.text("status", random.pick(&["active", "completed", "stopped"]));
    j.text("intent", "order");
    match random.below(12) {
        0 => actor(s, j, "reportedReference", random),
        1..6 => j.boolean("reportedBoolean", false),
        _ => {}
    }
    match how {
        0 => j.object("medicationReference", |j| j.text("reference", "#med")),
        1 | 2 => {
            let medication = s.any_of(ResourceType::Medication, random);
            reference(s, j, "medicationReference", ResourceType::Medication, medication, random);
        }
        _ => concept(j, "medicationCodeableConcept", code),
    }
    let (_, start) = subject(s, j, "subject", ResourceType::MedicationRequest, index, random);
    date_time(j, "authoredOn", start, random);
    actor(s, j, "requester", random);
    dosage(j, start, random);
    if random.one_in(2) {
        j.object("dispenseRequest", |j| {
            period(j, "validityPeriod", start, 90 * 1440, random);
            j.integer("numberOfRepeatsAllowed", random.between(0, 5));
            quantity(j, "quantity", random.between(1, 9) * 100, 1, "1");
            quantity(j, "expectedSupplyDuration", 30, 0, "d");
        });
    }
    if random.one_in(3) {
        j.object("substitution", |j| match random.below(2) {
            0 => j.boolean("allowedBoolean", true),
            _ => hl7_concept(j, "allowedCodeableConcept", "v3-substanceAdminSubstitution", "G"),
        });
    }
}

fn dosage(j: &mut Json, start: Second, random: &mut Random) {
    j.array_of_one("dosageInstruction", |j| {
        j.integer("sequence", 1);
        j.text(
            "text",
            random.pick(&["1 Tablette täglich", "по 1 таблетке 2 раза в день", "Take as needed.", "一日三次"]),
        );
        j.object("timing", |j| {
            j.object("repeat", |j| {
                match random.below(6) {
                    0 => quantity(j, "boundsDuration", 105, 1, "d"),
                    1 => period(j, "boundsPeriod", start, 14_400, random),
                    _ => {}
                }
                j.integer("frequency", random.between(1, 4));
                j.decimal("period", 10, 1);
                j.text("periodUnit", "d");
            });
        });
        match random.below(3) {
            0 => concept(j, "asNeededCodeableConcept", Code(SNOMED, "25064002", "Headache")),
            _ => j.boolean("asNeededBoolean", false),
        }
        j.array_of_one("doseAndRate", |j| {
            hl7_concept(j, "type", "dose-rate-type", "ordered");
            match random.below(4) {
                0 => j.object("doseRange", |j| {
                    quantity(j, "low", 5, 1, "mg");
                    quantity(j, "high", 110, 2, "mg");
                }),
                _ => quantity(j, "doseQuantity", random.between(1, 400) * 10, 2, "mg"),
            }
            if random.one_in(6) {
                j.object("rateRatio", |j| {
                    quantity(j, "numerator", 250, 1, "mL");
                    quantity(j, "denominator", 1, 0, "h");
                });
            }
        });
    });
}

pub(crate) fn immunization(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    identifier(j, "https://ehr.example.org/immunizations", random);
    j.text("status", "completed");
    concept(j, "vaccineCode", random.pick(VACCINES));
    let (_, start) = subject(s, j, "patient", ResourceType::Immunization, index, random);
    if random.one_in(15) {
        j.text("occurrenceString", "laut Impfpass, Datum unleserlich");
    } else {
        date_time(j, "occurrenceDateTime", start, random);
    }
    j.boolean("primarySource", !random.one_in(6));
    j.string("lotNumber", |j| j.push_hex(random.next(), 7));
    j.date("expirationDate", start.plus_minutes(400_000).day());
    concept(j, "site", random.pick(&BODY_SITES[..2]));
    hl7_concept(j, "route", "v3-RouteOfAdministration", "IM");
    quantity(j, "doseQuantity", random.between(1, 20) * 5, 2, "mL");
    j.array_of_one("performer", |j| {
        hl7_concept(j, "function", "v2-0443", "AP");
        actor(s, j, "actor", random);
    });
    if random.one_in(4) {
        note(s, j, start, random);
    }
    j.array_of_one("protocolApplied", |j| {
        if random.one_in(5) {
            j.text("doseNumberString", "Auffrischung");
        } else {
            j.integer("doseNumberPositiveInt", random.between(1, 3));
        }
        j.integer("seriesDosesPositiveInt", 3);
    });
}
