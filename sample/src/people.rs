//! People and organizations: Patient, Group, Practitioner, Organization.

use super::json::Json;
use super::parts::*;
use super::plan::{LAST_DAY, ResourceType, Sample};
use super::random::Random;
use super::time::Day;
use super::vocabulary::{CULTURES, Culture, DEPARTMENTS, NICKNAMES};

const EXTENSION: &str = "http://hl7.org/fhir/StructureDefinition/";

pub(crate) fn patient(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let culture = random.pick_ref(CULTURES);
    let female = s.is_female(index);
    let birth = s.birth_of(index);
    let family = random.pick(culture.families);
    let given = random.pick(if female { culture.women } else { culture.men });
    let has_contained_organization = random.one_in(20);

    narrative(j, |j| {
        j.push(given);
        j.push(" ");
        j.push(family);
        j.push(r" &amp; family, <b>born<\/b> ");
        j.push_date(birth);
    });
    if has_contained_organization {
        j.array_of_one("contained", |j| {
            j.text("resourceType", "Organization");
            j.text("id", "org1");
            j.text("name", r#"Practice \"Zum Goldenen Löwen\""#);
        });
    }
    j.array("extension", |j| patient_extensions(j, culture, female, random));
    patient_identifiers(s, j, random);
    j.boolean("active", !random.one_in(30));
    patient_names(j, family, given, female, random);
    telecom(j, random);
    j.text("gender", if female { "female" } else { "male" });
    birth_date(j, birth, culture, random);
    match random.below(24) {
        0 | 1 => j.date_time("deceasedDateTime", LAST_DAY.start(), culture.offset),
        2..12 => j.boolean("deceasedBoolean", false),
        _ => {}
    }
    j.array_of_one("address", |j| {
        j.text("use", "home");
        let geolocation = random.one_in(2);
        address_members(j, culture, geolocation, random);
    });
    hl7_concept(j, "maritalStatus", "v3-MaritalStatus", random.pick(&["M", "S", "D", "W"]));
    match random.below(12) {
        0 => j.integer("multipleBirthInteger", random.between(1, 3)),
        1..8 => j.boolean("multipleBirthBoolean", false),
        _ => {}
    }
    if random.one_in(5) {
        contact(j, culture, random);
    }
    j.array_of_one("communication", |j| {
        j.object("language", |j| {
            let (code, display) = culture.language;
            j.array_of_one("coding", |j| {
                j.text("system", "urn:ietf:bcp:47");
                j.text("code", code);
                j.text("display", display);
            });
        });
        j.boolean("preferred", true);
    });
    j.array("generalPractitioner", |j| j.item(|j| actor_members(s, j, random)));
    if has_contained_organization {
        j.object("managingOrganization", |j| j.text("reference", "#org1"));
    } else {
        let organization = s.any_of(ResourceType::Organization, random);
        reference(s, j, "managingOrganization", ResourceType::Organization, organization, random);
    }
    if index > 0 && random.one_in(15) {
        j.array_of_one("link", |j| {
            let other = random.below(index);
            reference(s, j, "other", ResourceType::Patient, other, random);
            j.text("type", "seealso");
        });
    }
}

fn patient_extensions(j: &mut Json, culture: &Culture, female: bool, random: &mut Random) {
    j.item(|j| {
        j.array("extension", |j| {
            j.item(|j| {
                j.text("url", "ombCategory");
                j.object("valueCoding", |j| {
                    j.text("system", "urn:oid:2.16.840.1.113883.6.238");
                    let (code, display) = random.pick(&[
                        ("2106-3", "White"),
                        ("2054-5", "Black or African American"),
                        ("2028-9", "Asian"),
                    ]);
                    j.text("code", code);
                    j.text("display", display);
                });
            });
            j.item(|j| {
                j.text("url", "text");
                j.text("valueString", "as told by the patient");
            });
        });
        j.text("url", "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race");
    });
    j.item(|j| {
        j.text("url", "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex");
        j.text("valueCode", if female { "F" } else { "M" });
    });
    j.item(|j| {
        j.string("url", |j| {
            j.push(EXTENSION);
            j.push("patient-mothersMaidenName");
        });
        j.text("valueString", random.pick(culture.families));
    });
    j.item(|j| {
        j.string("url", |j| {
            j.push(EXTENSION);
            j.push("patient-birthPlace");
        });
        j.object("valueAddress", |j| {
            let [city, state, _, country] = random.pick(culture.cities);
            j.text("city", city);
            j.text("state", state);
            j.text("country", country);
        });
    });
    j.item(|j| {
        j.text("url", "https://ehr.example.org/fhir/StructureDefinition/disability-adjusted-life-years");
        match random.below(12) {
            // Zero with a digit to keep, and more digits than any float has.
            0 => j.number("valueDecimal", "0.0"),
            1 => j.number("valueDecimal", "-12.3456789012345678901234567890123456789000"),
            _ => j.decimal("valueDecimal", random.between(0, 40 * 10i64.pow(16)), 16),
        }
    });
}

fn patient_identifiers(s: &Sample, j: &mut Json, random: &mut Random) {
    j.array("identifier", |j| {
        j.item(|j| {
            j.text("use", "usual");
            hl7_concept(j, "type", "v2-0203", "MR");
            j.text("system", "https://hospital.example.org/mrn");
            j.string("value", |j| j.push_digits(random.below(1_000_000_000), 9));
            let organization = s.any_of(ResourceType::Organization, random);
            reference(s, j, "assigner", ResourceType::Organization, organization, random);
        });
        j.item(|j| {
            j.object("type", |j| {
                hl7_concept_members(j, "v2-0203", "SS");
                j.text("text", "Social Security Number");
            });
            j.text("system", "http://hl7.org/fhir/sid/us-ssn");
            j.string("value", |j| {
                j.push("999-");
                j.push_digits(random.below(100), 2);
                j.push("-");
                j.push_digits(random.below(10_000), 4);
            });
        });
    });
}

fn patient_names(j: &mut Json, family: &str, given: &str, female: bool, random: &mut Random) {
    j.array("name", |j| {
        j.item(|j| {
            j.text("use", "official");
            j.text("family", family);
            j.array("given", |j| {
                j.text_item(given);
                if random.one_in(3) {
                    j.push_initial(random);
                }
            });
            j.array("prefix", |j| j.text_item(if female { "Ms." } else { "Mr." }));
        });
        if random.one_in(6) {
            j.item(|j| {
                j.text("use", "nickname");
                j.text("text", random.pick(NICKNAMES));
            });
        }
        if random.one_in(12) {
            // The second given name is known only by why it is missing: null in one array, an object in the other.
            j.item(|j| {
                j.text("use", "old");
                j.array("given", |j| {
                    j.text_item(given);
                    j.null_item();
                });
                j.array("_given", |j| {
                    j.null_item();
                    j.item(absent);
                });
            });
        }
    });
}

impl Json {
    fn push_initial(&mut self, random: &mut Random) {
        self.text_item(random.pick(&["A.", "É.", "Ł.", "Ж."]));
    }
}

/// The extension that says why a primitive has no value.
fn absent(j: &mut Json) {
    j.array_of_one("extension", |j| {
        j.text("url", "http://hl7.org/fhir/StructureDefinition/data-absent-reason");
        j.text("valueCode", "unknown");
    });
}

/// A birth date of any precision, some with the time of birth as an extension of the primitive.
fn birth_date(j: &mut Json, birth: Day, culture: &Culture, random: &mut Random) {
    match random.below(20) {
        0 => j.string("birthDate", |j| j.push_digits(birth.civil().0 as u64, 4)),
        1 => return j.object("_birthDate", absent),
        _ => j.date("birthDate", birth),
    }
    if random.one_in(4) {
        j.object("_birthDate", |j| {
            j.array_of_one("extension", |j| {
                j.text("url", "http://hl7.org/fhir/StructureDefinition/patient-birthTime");
                j.date_time("valueDateTime", birth.start().plus_minutes(random.between(0, 1439)), culture.offset);
            });
        });
    }
}

fn contact(j: &mut Json, culture: &Culture, random: &mut Random) {
    j.array_of_one("contact", |j| {
        j.array("relationship", |j| {
            j.item(|j| hl7_concept_members(j, "v2-0131", "N"));
        });
        j.object("name", |j| {
            j.text("family", random.pick(culture.families));
            j.array("given", |j| j.text_item(random.pick(culture.women)));
        });
        telecom(j, random);
        j.object("period", |j| j.text("start", "2012-03"));
    });
}

pub(crate) fn group(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    identifier(j, "https://ehr.example.org/cohorts", random);
    j.text("type", "person");
    j.boolean("actual", true);
    j.string("name", |j| {
        j.push("Cohort ");
        j.push_integer(index as i64 + 1);
        j.push(": diabète & hypertension");
    });
    let members = 1 + random.below(s.count(ResourceType::Patient).min(8));
    j.integer("quantity", members as i64);
    j.array("characteristic", |j| {
        j.item(|j| {
            j.object("code", |j| j.text("text", "age"));
            j.object("valueRange", |j| {
                quantity(j, "low", 18, 0, "a");
                quantity(j, "high", 655, 1, "a");
            });
            j.boolean("exclude", false);
        });
        j.item(|j| {
            j.object("code", |j| j.text("text", "smoker"));
            j.boolean("valueBoolean", true);
            j.boolean("exclude", true);
        });
    });
    j.array("member", |j| {
        for _ in 0..members {
            j.item(|j| {
                let patient = s.any_of(ResourceType::Patient, random);
                reference(s, j, "entity", ResourceType::Patient, patient, random);
                j.object("period", |j| j.text("start", "2023-01-01"));
                j.boolean("inactive", random.one_in(9));
            });
        }
    });
}

pub(crate) fn practitioner(j: &mut Json, index: u64, random: &mut Random) {
    let culture = random.pick_ref(CULTURES);
    let female = random.one_in(2);
    j.array_of_one("identifier", |j| {
        j.text("system", "http://hl7.org/fhir/sid/us-npi");
        j.string("value", |j| j.push_digits(9_999_000_000 + index, 10));
    });
    j.boolean("active", true);
    j.array_of_one("name", |j| {
        j.text("family", random.pick(culture.families));
        j.array("given", |j| j.text_item(random.pick(if female { culture.women } else { culture.men })));
        j.array("prefix", |j| j.text_item("Dr."));
        j.array("suffix", |j| j.text_item("M.D."));
    });
    telecom(j, random);
    j.array_of_one("address", |j| address_members(j, culture, false, random));
    j.text("gender", if female { "female" } else { "male" });
    j.array_of_one("qualification", |j| {
        hl7_concept(j, "code", "v2-0360", "MD");
        j.object("period", |j| j.string("start", |j| j.push_integer(random.between(1975, 2020))));
        j.object("issuer", |j| j.text("display", "Universität Zürich"));
    });
}

pub(crate) fn organization(s: &Sample, j: &mut Json, index: u64, random: &mut Random) {
    let culture = random.pick_ref(CULTURES);
    identifier(j, "https://ehr.example.org/organizations", random);
    j.boolean("active", true);
    j.array("type", |j| j.item(|j| hl7_concept_members(j, "organization-type", "prov")));
    j.string("name", |j| {
        j.push(culture.cities[0][0]);
        j.push(" Hospital – ");
        j.push(random.pick(DEPARTMENTS));
    });
    j.array("alias", |j| j.text_item(r#"The \"Old\" Infirmary"#));
    telecom(j, random);
    j.array_of_one("address", |j| address_members(j, culture, true, random));
    if index > 0 && random.one_in(3) {
        let parent = random.below(index);
        reference(s, j, "partOf", ResourceType::Organization, parent, random);
    }
}
