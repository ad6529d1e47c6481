//! FHIR data types, and the parts that resources of several types share.

use super::json::Json;
use super::plan::{ResourceType, Sample};
use super::random::Random;
use super::time::Second;
use super::vocabulary::{Code, Culture, NOTES, UCUM, v3};

const OFFSETS: [&str; 5] = ["Z", "+00:00", "+03:00", "-05:00", "+05:30"];
const MILLISECONDS: [&str; 4] = [".395+10:00", ".000Z", ".07-03:30", "+01:00"];

/// `meta` as exporters write it: often a profile, at times a tag, a source's own version and date, an extension.
pub(crate) fn meta(j: &mut Json, of: ResourceType, random: &mut Random) {
    if random.one_in(8) {
        return;
    }
    let server_fields = random.one_in(8);
    let profile = !server_fields || random.one_in(2);
    j.object("meta", |j| {
        if server_fields {
            j.string("versionId", |j| j.push_integer(random.between(1, 9)));
            j.string("lastUpdated", |j| {
                j.push("202");
                j.push_integer(random.between(0, 4));
                j.push("-06-10T08:26:10.707Z");
            });
        }
        if random.one_in(24) {
            j.array_of_one("extension", |j| {
                j.text("url", "https://ehr.example.org/fhir/StructureDefinition/batch");
                j.string("valueString", |j| j.push_hex(random.next(), 8));
            });
        }
        if profile {
            j.array("profile", |j| {
                j.string_item(|j| {
                    j.push("http://hl7.org/fhir/us/core/StructureDefinition/us-core-");
                    j.push(profile_of(of));
                });
            });
        }
        if random.one_in(6) {
            j.array_of_one("tag", |j| {
                j.text("system", "https://ehr.example.org/fhir/CodeSystem/origin");
                j.text("code", random.pick(&["imported", "HIE", "device", "prüfung"]));
            });
        }
    });
}

fn profile_of(of: ResourceType) -> &'static str {
    match of {
        ResourceType::Organization => "organization",
        ResourceType::Practitioner => "practitioner",
        ResourceType::Medication => "medication",
        ResourceType::Patient => "patient",
        ResourceType::Group => "group",
        ResourceType::Encounter => "encounter",
        ResourceType::Condition => "condition",
        ResourceType::Observation => "observation-lab",
        ResourceType::Procedure => "procedure",
        ResourceType::DiagnosticReport => "diagnosticreport-lab",
        ResourceType::MedicationRequest => "medicationrequest",
        ResourceType::Immunization => "immunization",
        ResourceType::AllergyIntolerance => "allergyintolerance",
    }
}

/// `text`: generated XHTML with escaped quotes and line breaks; `body` writes what is inside the `div`.
pub(crate) fn narrative(j: &mut Json, body: impl FnOnce(&mut Json)) {
    j.object("text", |j| {
        j.text("status", "generated");
        j.string("div", |j| {
            j.push(r#"<div xmlns=\"http://www.w3.org/1999/xhtml\">\n  <p class=\"summary\">"#);
            body(j);
            j.push(r"</p>\n</div>");
        });
    });
}

// --- references

/// A reference to a resource of the sample: relative as a rule, sometimes with a display, rarely absolute.
pub(crate) fn reference(s: &Sample, j: &mut Json, name: &str, to: ResourceType, index: u64, random: &mut Random) {
    j.object(name, |j| reference_members(s, j, to, index, random));
}

pub(crate) fn reference_members(s: &Sample, j: &mut Json, to: ResourceType, index: u64, random: &mut Random) {
    let kind = random.below(40);
    j.string("reference", |j| {
        if kind == 0 {
            j.push("https://ehr.example.org/fhir/");
        }
        j.push(to.name());
        j.push("/");
        s.push_id(j, to, index);
    });
    if kind == 1 {
        j.text("type", to.name());
    }
    if kind < 8 {
        j.string("display", |j| {
            j.push(to.name());
            j.push(" № ");
            j.push_integer(index as i64);
        });
    }
}

/// A reference to an author or performer: a practitioner, or something outside the sample.
pub(crate) fn actor(s: &Sample, j: &mut Json, name: &str, random: &mut Random) {
    j.object(name, |j| actor_members(s, j, random));
}

pub(crate) fn actor_members(s: &Sample, j: &mut Json, random: &mut Random) {
    match random.below(24) {
        0 => j.string("reference", |j| {
            j.push("urn:uuid:");
            push_uuid(j, random);
        }),
        1 => {
            j.text("type", "Practitioner");
            j.object("identifier", |j| {
                j.text("system", "http://hl7.org/fhir/sid/us-npi");
                j.string("value", |j| j.push_digits(random.below(10_000_000_000), 10));
            });
            j.text("display", "Dr. Who \\u0026 Partners");
        }
        2 => {
            j.string("reference", |j| {
                j.push("https://other.example.com/r4/Practitioner/");
                j.push_integer(random.between(1, 99_999));
            });
        }
        3 | 4 => {
            let organization = s.any_of(ResourceType::Organization, random);
            reference_members(s, j, ResourceType::Organization, organization, random);
        }
        5 => j.text("display", "самозапись, без направления"),
        _ => {
            let practitioner = s.any_of(ResourceType::Practitioner, random);
            reference_members(s, j, ResourceType::Practitioner, practitioner, random);
        }
    }
}

/// A practitioner of the sample, for elements that allow nothing else.
pub(crate) fn person(s: &Sample, j: &mut Json, name: &str, random: &mut Random) {
    let practitioner = s.any_of(ResourceType::Practitioner, random);
    reference(s, j, name, ResourceType::Practitioner, practitioner, random);
}

/// Writes the subject and the encounter. Returns the patient and when the visit began.
pub(crate) fn subject(
    s: &Sample,
    j: &mut Json,
    name: &str,
    of: ResourceType,
    index: u64,
    random: &mut Random,
) -> (u64, Second) {
    let patient = s.patient_of(of, index);
    reference(s, j, name, ResourceType::Patient, patient, random);
    match s.another_of(ResourceType::Encounter, patient, random) {
        Some(encounter) => {
            reference(s, j, "encounter", ResourceType::Encounter, encounter, random);
            (patient, s.start_of_encounter(encounter))
        }
        None => (patient, s.birth_of(patient).start().plus_minutes(600)),
    }
}

pub(crate) fn push_uuid(j: &mut Json, random: &mut Random) {
    let bits = random.next();
    j.push_hex(bits >> 32, 8);
    j.push("-");
    j.push_hex(bits >> 16, 4);
    j.push("-4");
    j.push_hex(bits, 3);
    j.push("-a");
    j.push_hex(random.next(), 3);
    j.push("-");
    j.push_hex(random.next(), 12);
}

// --- codes

pub(crate) fn concept(j: &mut Json, name: &str, code: Code) {
    j.object(name, |j| concept_members(j, code));
}

pub(crate) fn concepts(j: &mut Json, name: &str, code: Code) {
    j.array_of_one(name, |j| concept_members(j, code));
}

pub(crate) fn concept_members(j: &mut Json, code: Code) {
    j.array_of_one("coding", |j| coding_members(j, code));
    j.text("text", code.2);
}

pub(crate) fn coding_members(j: &mut Json, Code(system, code, display): Code) {
    j.text("system", system);
    j.text("code", code);
    j.text("display", display);
}

/// A concept of one of HL7's own code systems, named by the last part of its url.
pub(crate) fn hl7_concept(j: &mut Json, name: &str, system: &str, code: &str) {
    j.object(name, |j| hl7_concept_members(j, system, code));
}

pub(crate) fn hl7_concept_members(j: &mut Json, system: &str, code: &str) {
    j.array_of_one("coding", |j| {
        j.string("system", |j| {
            j.push("http://terminology.hl7.org/CodeSystem/");
            j.push(system);
        });
        j.text("code", code);
    });
}

pub(crate) fn v3_coding(j: &mut Json, name: &str, system: &str, code: &str, display: &str) {
    j.object(name, |j| {
        j.string("system", |j| v3(system).into_iter().for_each(|part| j.push(part)));
        j.text("code", code);
        j.text("display", display);
    });
}

// --- quantities

/// A UCUM quantity of `units / 10^scale`.
pub(crate) fn quantity(j: &mut Json, name: &str, units: i64, scale: u32, unit: &str) {
    j.object(name, |j| quantity_members(j, units, scale, unit));
}

pub(crate) fn quantity_members(j: &mut Json, units: i64, scale: u32, unit: &str) {
    j.decimal("value", units, scale);
    j.text("unit", unit);
    j.text("system", UCUM);
    j.text("code", unit);
}

// --- times

pub(crate) fn date_time(j: &mut Json, name: &str, at: Second, random: &mut Random) {
    j.date_time(name, at, random.pick(&OFFSETS));
}

/// An instant: some sources give milliseconds or other fractions.
pub(crate) fn instant(j: &mut Json, name: &str, at: Second, random: &mut Random) {
    j.date_time(name, at, random.pick(&MILLISECONDS));
}

pub(crate) fn period(j: &mut Json, name: &str, start: Second, minutes: i64, random: &mut Random) {
    let offset = random.pick(&OFFSETS);
    j.object(name, |j| {
        j.date_time("start", start, offset);
        if minutes > 0 {
            j.date_time("end", start.plus_minutes(minutes), offset);
        }
    });
}

// --- the rest

/// `note` by somebody: one choice element among `authorReference` and `authorString`.
pub(crate) fn note(s: &Sample, j: &mut Json, at: Second, random: &mut Random) {
    j.array_of_one("note", |j| {
        if random.one_in(3) {
            j.text("authorString", "Schwester Käthe");
        } else {
            actor(s, j, "authorReference", random);
        }
        date_time(j, "time", at, random);
        j.text("text", random.pick(NOTES));
    });
}

pub(crate) fn identifier(j: &mut Json, system: &str, random: &mut Random) {
    j.array_of_one("identifier", |j| {
        j.text("use", random.pick(&["official", "usual", "secondary"]));
        j.text("system", system);
        j.string("value", |j| j.push_hex(random.next(), 12));
    });
}

pub(crate) fn address_members(j: &mut Json, culture: &Culture, geolocation: bool, random: &mut Random) {
    let [city, state, postal_code, country] = random.pick(culture.cities);
    if geolocation {
        j.array_of_one("extension", |j| {
            // Nested extensions: as the specification has them, the outer one holds no value.
            j.array("extension", |j| {
                for (url, bound) in [("latitude", 90), ("longitude", 180)] {
                    j.item(|j| {
                        j.text("url", url);
                        j.decimal("valueDecimal", random.between(-bound * 10i64.pow(15), bound * 10i64.pow(15)), 15);
                    });
                }
            });
            j.text("url", "http://hl7.org/fhir/StructureDefinition/geolocation");
        });
    }
    j.array("line", |j| {
        j.string_item(|j| {
            j.push_integer(random.between(1, 999));
            j.push(" ");
            j.push(random.pick(culture.streets));
        });
    });
    j.text("city", city);
    j.text("state", state);
    j.text("postalCode", postal_code);
    j.text("country", country);
}

/// A telephone number that nobody has, or a mail address of a reserved domain.
pub(crate) fn telecom(j: &mut Json, random: &mut Random) {
    j.array("telecom", |j| {
        j.item(|j| {
            j.text("system", "phone");
            j.string("value", |j| {
                j.push("+1-555-");
                j.push_digits(random.below(1000), 3);
                j.push("-01");
                j.push_digits(random.below(100), 2);
            });
            j.text("use", random.pick(&["home", "work", "mobile"]));
            j.integer("rank", random.between(1, 3));
        });
        if random.one_in(3) {
            j.item(|j| {
                j.text("system", "email");
                j.string("value", |j| {
                    j.push_hex(random.next(), 6);
                    j.push("@example.com");
                });
            });
        }
    });
}
