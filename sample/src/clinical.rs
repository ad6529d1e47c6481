//! Clinical events: Encounter, Condition, Procedure, DiagnosticReport, AllergyIntolerance.

use super::json::Json;
use super::parts::*;
use super::plan::{ResourceType, Sample};
use super::random::Random;
use super::time::Second;
use super::vocabulary::*;

pub(crate) fn encounter(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let start = s.start_of_encounter(index);
    let minutes = random.between(10, 240);
    let patient = s.patient_of(ResourceType::Encounter, index);

    identifier(j, "https://ehr.example.org/encounters", random);
    j.text("status", "finished");
    let inpatient = random.one_in(10);
    let (code, display) = if inpatient { ("IMP", "inpatient encounter") } else { ("AMB", "ambulatory") };
    v3_coding(j, "class", "ActCode", code, display);
    concepts(j, "type", random.pick(ENCOUNTERS));
    reference(s, j, "subject", ResourceType::Patient, patient, random);
    j.array_of_one("participant", |j| {
        j.array("type", |j| j.item(|j| hl7_concept_members(j, "v3-ParticipationType", "PPRF")));
        period(j, "period", start, minutes, random);
        person(s, j, "individual", random);
    });
    period(j, "period", start, minutes, random);
    if random.one_in(3) {
        j.object("length", |j| quantity_members(j, minutes * 10, 1, "min"));
    }
    if random.one_in(2) {
        concepts(j, "reasonCode", random.pick(CONDITIONS));
    }
    if let Some(condition) = s.another_of(ResourceType::Condition, patient, random) {
        j.array_of_one("diagnosis", |j| {
            reference(s, j, "condition", ResourceType::Condition, condition, random);
            j.integer("rank", 1);
        });
    }
    if inpatient {
        j.object("hospitalization", |j| {
            hl7_concept(j, "dischargeDisposition", "discharge-disposition", "home");
        });
    }
    let organization = s.any_of(ResourceType::Organization, random);
    reference(s, j, "serviceProvider", ResourceType::Organization, organization, random);
}

pub(crate) fn condition(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let code = random.pick(CONDITIONS);
    let over = random.one_in(2);
    narrative(j, |j| j.push(code.2));
    hl7_concept(j, "clinicalStatus", "condition-clinical", if over { "resolved" } else { "active" });
    hl7_concept(j, "verificationStatus", "condition-ver-status", "confirmed");
    j.array("category", |j| {
        j.item(|j| {
            hl7_concept_members(j, "condition-category", random.pick(&["encounter-diagnosis", "problem-list-item"]))
        });
    });
    concept(j, "severity", Code(SNOMED, "6736007", "Moderate severity"));
    concept(j, "code", code);
    let (_, start) = subject(s, j, "subject", ResourceType::Condition, index, random);
    onset(j, start, random);
    if over {
        match random.below(4) {
            0 => age(j, "abatementAge", random),
            1 => j.text("abatementString", "nach Absetzen von \\\"X\\\" abgeklungen"),
            _ => date_time(j, "abatementDateTime", start.plus_minutes(random.between(2000, 90_000)), random),
        }
    }
    date_time(j, "recordedDate", start, random);
    person(s, j, "recorder", random);
    if random.one_in(4) {
        note(s, j, start, random);
    }
}

/// One of the five types of `onset[x]`.
fn onset(j: &mut Json, start: Second, random: &mut Random) {
    match random.below(16) {
        0 | 1 => age(j, "onsetAge", random),
        2 => j.text("onsetString", "in der Kindheit / в детстве"),
        3 => period(j, "onsetPeriod", start, 90_000, random),
        4 => j.object("onsetRange", |j| {
            quantity(j, "low", 20, 0, "a");
            quantity(j, "high", 300, 1, "a");
        }),
        5 => j.string("onsetDateTime", |j| {
            let (year, month, _) = start.day().civil();
            j.push_digits(year as u64, 4);
            j.push("-");
            j.push_digits(month as u64, 2);
        }),
        _ => date_time(j, "onsetDateTime", start, random),
    }
}

fn age(j: &mut Json, name: &str, random: &mut Random) {
    quantity(j, name, random.between(1, 90), 0, "a");
}

pub(crate) fn procedure(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let patient = s.patient_of(ResourceType::Procedure, index);
    j.text("status", "completed");
    let code = random.pick(PROCEDURES);
    concept(j, "category", Code(SNOMED, "103693007", "Diagnostic procedure"));
    concept(j, "code", code);
    let (_, start) = subject(s, j, "subject", ResourceType::Procedure, index, random);
    match random.below(12) {
        0 => j.text("performedString", "vor etwa 10 Jahren"),
        1 => age(j, "performedAge", random),
        2..5 => date_time(j, "performedDateTime", start.plus_minutes(15), random),
        _ => period(j, "performedPeriod", start, random.between(5, 90), random),
    }
    person(s, j, "recorder", random);
    j.array_of_one("performer", |j| {
        concept(j, "function", Code(SNOMED, "304292004", "Surgeon"));
        actor(s, j, "actor", random);
    });
    if let Some(condition) = s.another_of(ResourceType::Condition, patient, random) {
        j.array("reasonReference", |j| {
            j.item(|j| reference_members(s, j, ResourceType::Condition, condition, random));
        });
    }
    concepts(j, "bodySite", random.pick(BODY_SITES));
    if random.one_in(3) {
        note(s, j, start, random);
    }
}

pub(crate) fn diagnostic_report(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let patient = s.patient_of(ResourceType::DiagnosticReport, index);
    let code = random.pick(REPORTS);
    narrative(j, |j| {
        j.push(code.2);
        j.push(r":<br \/>\n");
        j.push(random.pick(NOTES));
    });
    identifier(j, "https://lab.example.org/reports", random);
    j.text("status", random.pick(&["final", "final", "amended", "preliminary"]));
    j.array("category", |j| j.item(|j| hl7_concept_members(j, "v2-0074", "LAB")));
    concept(j, "code", code);
    let (_, start) = subject(s, j, "subject", ResourceType::DiagnosticReport, index, random);
    if random.one_in(4) {
        period(j, "effectivePeriod", start, 30, random);
    } else {
        date_time(j, "effectiveDateTime", start, random);
    }
    instant(j, "issued", start.plus_minutes(90), random);
    j.array("performer", |j| j.item(|j| actor_members(s, j, random)));
    j.array("result", |j| {
        for _ in 0..random.between(1, 6) {
            if let Some(observation) = s.another_of(ResourceType::Observation, patient, random) {
                j.item(|j| reference_members(s, j, ResourceType::Observation, observation, random));
            }
        }
    });
    j.text("conclusion", random.pick(NOTES));
    if random.one_in(3) {
        attachment(j, start, random);
    }
}

/// A scan within the resource: some hundred bytes of base64.
fn attachment(j: &mut Json, at: Second, random: &mut Random) {
    j.array_of_one("presentedForm", |j| {
        j.text("contentType", "text/plain; charset=utf-8");
        j.text("language", "de-CH");
        // Hexadecimal digits are base64 too, if their number divides by four.
        j.string("data", |j| (0..random.between(8, 60)).for_each(|_| j.push_hex(random.next(), 16)));
        j.text("title", "Befund – Zusammenfassung");
        date_time(j, "creation", at, random);
    });
}

pub(crate) fn allergy_intolerance(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    hl7_concept(j, "clinicalStatus", "allergyintolerance-clinical", "active");
    hl7_concept(j, "verificationStatus", "allergyintolerance-verification", "confirmed");
    j.text("type", random.pick(&["allergy", "intolerance"]));
    j.array("category", |j| j.text_item(random.pick(&["food", "medication", "environment"])));
    j.text("criticality", random.pick(&["low", "high", "unable-to-assess"]));
    concept(j, "code", random.pick(ALLERGENS));
    let (_, start) = subject(s, j, "patient", ResourceType::AllergyIntolerance, index, random);
    onset(j, start, random);
    date_time(j, "recordedDate", start, random);
    person(s, j, "recorder", random);
    if random.one_in(3) {
        note(s, j, start, random);
    }
    j.array_of_one("reaction", |j| {
        concepts(j, "manifestation", random.pick(REACTIONS));
        j.text("severity", random.pick(&["mild", "moderate", "severe"]));
        concept(j, "exposureRoute", Code(SNOMED, "26643006", "Oral route"));
    });
}
