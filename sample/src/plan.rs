//! The plan of a sample: its types, how many resources of each, their patients, and facts that several resources share.

use crate::json::Json;
use crate::random::{Random, mix};
use crate::time::{Day, Second};

/// The types of a sample, in the order in which they are written: a resource comes after those that it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are FHIR's")]
pub enum ResourceType {
    Organization,
    Practitioner,
    Medication,
    Patient,
    Group,
    Encounter,
    Condition,
    Observation,
    Procedure,
    DiagnosticReport,
    MedicationRequest,
    Immunization,
    AllergyIntolerance,
}

use ResourceType::*;

impl ResourceType {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Organization,
        Practitioner,
        Medication,
        Patient,
        Group,
        Encounter,
        Condition,
        Observation,
        Procedure,
        DiagnosticReport,
        MedicationRequest,
        Immunization,
        AllergyIntolerance,
    ];

    /// As in `resourceType`.
    pub fn name(self) -> &'static str {
        match self {
            Organization => "Organization",
            Practitioner => "Practitioner",
            Medication => "Medication",
            Patient => "Patient",
            Group => "Group",
            Encounter => "Encounter",
            Condition => "Condition",
            Observation => "Observation",
            Procedure => "Procedure",
            DiagnosticReport => "DiagnosticReport",
            MedicationRequest => "MedicationRequest",
            Immunization => "Immunization",
            AllergyIntolerance => "AllergyIntolerance",
        }
    }

    /// How many of 1000 resources are of this type; [`Observation`] takes what remains.
    fn per_mille(self) -> u64 {
        match self {
            Organization | Medication => 2,
            Group => 1,
            Practitioner => 6,
            AllergyIntolerance => 9,
            Patient => PATIENTS_PER_MILLE,
            DiagnosticReport => 50,
            Immunization => 60,
            Condition | Procedure => 70,
            MedicationRequest => 80,
            Encounter => 120,
            Observation => 500,
        }
    }
}

const PATIENTS_PER_MILLE: u64 = 30;

/// Nothing in a sample happens after this day.
pub(crate) const LAST_DAY: Day = Day(20_088); // 2024-12-31

/// What to write: the same seed and size give the same bytes.
///
/// ```
/// use fhir_bulk_sample::{ResourceType, Sample};
///
/// let mut patients = Vec::new();
/// let written = Sample::new(1, 1000).write(ResourceType::Patient, &mut patients)?;
/// assert_eq!(written.resources, 30);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub(crate) seed: u64,
    counts: [u64; ResourceType::ALL.len()],
}

impl Sample {
    /// A sample of `resources` in all, at least one of each type.
    pub fn new(seed: u64, resources: u64) -> Self {
        let mut counts = ResourceType::ALL.map(|t| (resources * t.per_mille() / 1000).max(1));
        let others = counts.iter().sum::<u64>() - counts[Observation as usize];
        counts[Observation as usize] = resources.saturating_sub(others).max(1);
        Self { seed, counts }
    }

    /// A sample of `patients` patients, with about 33 resources each.
    pub fn of_patients(seed: u64, patients: u64) -> Self {
        Self::new(seed, (patients * 1000).div_ceil(PATIENTS_PER_MILLE))
    }

    /// How many resources of a type it has.
    pub fn count(&self, of: ResourceType) -> u64 {
        self.counts[of as usize]
    }

    /// How many resources it has.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The indexes of the resources of a type that belong to a patient; the inverse of `patient_of`.
    pub(crate) fn of_patient(&self, of: ResourceType, patient: u64) -> std::ops::Range<u64> {
        let (count, patients) = (self.count(of), self.count(Patient));
        (patient * count).div_ceil(patients)..((patient + 1) * count).div_ceil(patients)
    }

    pub(crate) fn patient_of(&self, of: ResourceType, index: u64) -> u64 {
        index * self.count(Patient) / self.count(of)
    }

    /// Some resource of a type that belongs to the patient, if there is one.
    pub(crate) fn another_of(&self, of: ResourceType, patient: u64, random: &mut Random) -> Option<u64> {
        let range = self.of_patient(of, patient);
        (!range.is_empty()).then(|| range.start + random.below(range.end - range.start))
    }

    /// Some resource of a type that belongs to no patient.
    pub(crate) fn any_of(&self, of: ResourceType, random: &mut Random) -> u64 {
        random.below(self.count(of))
    }

    // Facts that several resources share are functions, too.

    pub(crate) fn birth_of(&self, patient: u64) -> Day {
        Day(Random::new(self.seed, 100, patient).between(-14_000, 18_600)) // 1931 to 2020
    }

    pub(crate) fn is_female(&self, patient: u64) -> bool {
        Random::new(self.seed, 101, patient).one_in(2)
    }

    pub(crate) fn start_of_encounter(&self, encounter: u64) -> Second {
        let birth = self.birth_of(self.patient_of(Encounter, encounter));
        let mut random = Random::new(self.seed, 102, encounter);
        // Most of a record is of the last ten years.
        let earliest = if random.one_in(4) { birth.0 } else { birth.0.max(LAST_DAY.0 - 3652) };
        let day = Day(random.between(earliest, LAST_DAY.0 - 30));
        Second(day.start().0 + random.between(7 * 3600, 19 * 3600))
    }

    /// Writes the id of a resource: mostly UUIDs, now and then a plain one with dots and dashes.
    pub(crate) fn push_id(&self, j: &mut Json, of: ResourceType, index: u64) {
        let high = mix(mix(mix(self.seed) ^ of as u64) ^ index);
        let low = mix(high ^ 0x5851_F42D_4C95_7F2D);
        if low.is_multiple_of(19) {
            j.push(match index % 3 {
                0 => "ehr-2.",
                1 => "A.",
                _ => "x-",
            });
            j.push_digits(index, 7);
            j.push(if low.is_multiple_of(2) { "-" } else { "." });
            j.push_hex(mix(self.seed), 4);
        } else {
            j.push_hex(high >> 32, 8);
            j.push("-");
            j.push_hex(high >> 16, 4);
            j.push("-4");
            j.push_hex(high, 3);
            j.push("-");
            j.push_hex(0x8000 | (low >> 48) & 0x3FFF, 4);
            j.push("-");
            j.push_hex(low, 12);
        }
    }
}

impl ResourceType {
    pub(crate) fn belongs_to_a_patient(self) -> bool {
        !matches!(self, Organization | Practitioner | Medication | Group | Patient)
    }
}
