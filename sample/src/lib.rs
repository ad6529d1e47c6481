//! Generates sample data for testing and measuring `fhir_bulk`, and compares the data after a round trip ([`compare`]).
//!
//! A deterministic sample of FHIR R4 resources, written as a stream.
//!
//! Any resource is a function of the seed, its type and its index, so each type can be written alone, nothing is
//! kept in memory, and references point at resources that exist in the same sample. Proportions follow real
//! records: half of it are Observations, and every patient has a fair share of everything.
//!
//! The data exercises what makes FHIR hard to move: relative, absolute, `urn:uuid:`, contained and logical
//! references; choice elements of some thirty types; nested and primitive extensions; narrative with quotes and
//! line breaks; names in several scripts, raw and as `\u` escapes; decimals whose digits must be kept.

mod clinical;
pub mod compare;
mod json;
mod medication;
mod observation;
mod parts;
mod people;
mod plan;
mod random;
mod time;
mod vocabulary;

use std::io::{self, Write};

use json::Json;
use random::Random;

pub use plan::{ResourceType, Sample};

use ResourceType::*;

/// How much a call wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Resources, one per line.
    pub resources: u64,
    /// Bytes of NDJSON.
    pub bytes: u64,
}

impl Sample {
    /// Writes all resources of one type as NDJSON.
    pub fn write(&self, of: ResourceType, to: impl Write) -> io::Result<Written> {
        let mut lines = Lines::new(to);
        for index in 0..self.count(of) {
            lines.resource(self, of, index)?;
        }
        lines.finish()
    }

    /// Writes the whole sample as NDJSON of mixed types: first the resources of no patient, then each patient with all its
    /// resources. The lines are the same that [`write`](Self::write) writes type by type.
    pub fn write_mixed(&self, to: impl Write) -> io::Result<Written> {
        let mut lines = Lines::new(to);
        for of in [Organization, Practitioner, Medication, Group] {
            for index in 0..self.count(of) {
                lines.resource(self, of, index)?;
            }
        }
        for patient in 0..self.count(Patient) {
            lines.resource(self, Patient, patient)?;
            for of in ResourceType::ALL.into_iter().filter(|t| t.belongs_to_a_patient()) {
                for index in self.of_patient(of, patient) {
                    lines.resource(self, of, index)?;
                }
            }
        }
        lines.finish()
    }

    fn write_resource(&self, j: &mut Json, of: ResourceType, index: u64) {
        let random = &mut Random::new(self.seed, of as u64, index);
        j.line(|j| {
            j.text("resourceType", of.name());
            j.string("id", |j| self.push_id(j, of, index));
            parts::meta(j, of, random);
            match of {
                Organization => people::organization(self, j, index, random),
                Practitioner => people::practitioner(j, index, random),
                Medication => medication::medication(self, j, random),
                Patient => people::patient(self, j, index, random),
                Group => people::group(self, j, index, random),
                Encounter => clinical::encounter(self, j, index, random),
                Condition => clinical::condition(self, j, index, random),
                Observation => observation::observation(self, j, index, random),
                Procedure => clinical::procedure(self, j, index, random),
                DiagnosticReport => clinical::diagnostic_report(self, j, index, random),
                MedicationRequest => medication::medication_request(self, j, index, random),
                Immunization => medication::immunization(self, j, index, random),
                AllergyIntolerance => clinical::allergy_intolerance(self, j, index, random),
            }
        });
    }
}

/// Collects lines and passes them on in pieces of about 64 kB.
struct Lines<W> {
    to: W,
    json: Json,
    written: Written,
}

impl<W: Write> Lines<W> {
    fn new(to: W) -> Self {
        Self { to, json: Json::new(), written: Written::default() }
    }

    fn resource(&mut self, sample: &Sample, of: ResourceType, index: u64) -> io::Result<()> {
        sample.write_resource(&mut self.json, of, index);
        self.written.resources += 1;
        if self.json.bytes().len() >= 1 << 16 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(self.json.bytes())?;
        self.written.bytes += self.json.bytes().len() as u64;
        self.json.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Written> {
        self.flush()?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests;
