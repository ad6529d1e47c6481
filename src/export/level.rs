//! The level of an export: the whole system, all patients, or the members of a Group; and the patients that it is narrowed
//! to.

use super::request::{Request, missing};
use crate::settings;
use crate::store::{Filter, Patients, ResourceTable, ResourceType, foreign_code};
use fhir_bulk_paths::search::Compartment;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

/// Whose resources are exported.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Level {
    /// All.
    #[default]
    System,
    /// Patients and what belongs to them.
    Patient {
        /// Only these, if there are any.
        only: Vec<String>,
    },
    /// The members of a Group and what belongs to them.
    Group {
        /// The Group's id.
        id: String,
        /// Only these members, if there are any.
        only: Vec<String>,
    },
}

impl Level {
    /// Reads `level`, `group` and `patient`.
    ///
    /// # Errors
    /// 22023 for other values, and for members that do not go together.
    pub fn parse(request: &mut Request) -> Result<Level> {
        let level = request.string("level")?;
        let group = request.string("group")?;
        let patients = request.string_or_strings("patient")?;
        let only =
            patients.clone().unwrap_or_default().iter().map(|text| patient_id(text)).collect::<Result<Vec<_>>>()?;
        if patients.is_some() && only.is_empty() {
            return Err(Error::invalid_argument("\"patient\" of the request names no patient"));
        }
        match level.as_deref() {
            _ if group.is_some() && level.as_deref() != Some("group") => {
                Err(Error::invalid_argument("\"group\" of the request is for level group"))
            }
            None | Some("system") if patients.is_some() => {
                Err(Error::invalid_argument("\"patient\" of the request is for the levels patient and group"))
            }
            None | Some("system") => Ok(Level::System),
            Some("patient") => Ok(Level::Patient { only }),
            Some("group") => Ok(Level::Group { id: group.ok_or_else(|| missing("group"))?, only }),
            Some(other) => {
                let shown: String = other.chars().take(80).collect();
                Err(Error::invalid_argument(format!("level \"{shown}\" is not known"))
                    .hint("It may be system, patient or group."))
            }
        }
    }

    /// The level that leaves out what belongs to no patient.
    pub fn of_patients(self) -> Level {
        match self {
            Level::System => Level::Patient { only: Vec::new() },
            level => level,
        }
    }

    /// Whether only what belongs to patients is exported.
    pub fn has_patients(&self) -> bool {
        !matches!(self, Level::System)
    }

    /// Removes the types that are not in the Patient compartment; returns them. At system level every type stays.
    ///
    /// # Errors
    /// 0A000 if none is left, unless `may_be_none`.
    pub fn keep_types(&self, types: &mut Vec<String>, may_be_none: bool) -> Result<Vec<String>> {
        if !self.has_patients() {
            return Ok(Vec::new());
        }
        let version = settings::fhir_version();
        let (kept, left_out): (Vec<_>, Vec<_>) =
            std::mem::take(types).into_iter().partition(|name| Compartment::of(version, name).is_some());
        if kept.is_empty() && !may_be_none {
            let message = format!("_type has only types that belong to no patient: {}", left_out.join(", "));
            return Err(Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                .hint("Export them at system level, not organized by patient."));
        }
        *types = kept;
        Ok(left_out)
    }

    /// The types besides the exported ones that are read to find the patients.
    pub fn other_types(&self) -> &'static [&'static str] {
        match self {
            Level::System => &[],
            Level::Patient { only } if only.is_empty() => &[],
            Level::Patient { .. } => &["Patient"],
            Level::Group { .. } => &["Group"],
        }
    }

    /// Checks that reading the patients runs no other role's code, for types that the request did not name.
    ///
    /// # Errors
    /// 42501, with what the code is; 3F000.
    pub fn check_code(&self, is_named: impl Fn(&str) -> bool) -> Result<()> {
        for name in self.other_types().iter().filter(|name| !is_named(name)) {
            let resource_type = ResourceType::new(name)?;
            if ResourceTable::find(&resource_type)?.is_none() {
                continue;
            }
            // Locked first, so that the checked table is the one that is read.
            if let Some(what) = foreign_code(&ResourceTable::lock_to_read(&resource_type)?) {
                let message = format!("reading {name} would run code of another role with your rights: {what}");
                return Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
                    .hint(format!("If you trust it, name {name} in _type.")));
            }
        }
        Ok(())
    }

    /// The patients now, as far as the current role sees them; `None` for all, or if they do not count.
    ///
    /// # Errors
    /// P0002 for a Group that is not there; 0A000 for one with a modifier extension; 22023 for a patient who is not there, or
    /// no member.
    pub fn patients(&self) -> Result<Option<Patients>> {
        match self {
            Level::System => Ok(None),
            Level::Patient { only } if only.is_empty() => Ok(None),
            Level::Patient { only } => Patients::named(only).map(Some),
            Level::Group { id, only } => {
                let members = Patients::of_group(id)?;
                if only.is_empty() { Ok(Some(members)) } else { members.only(only).map(Some) }
            }
        }
    }

    /// The patients who are members of the Group only since an instant, if the setting says that all of theirs comes.
    ///
    /// # Errors
    /// As for [`Level::patients`].
    pub fn new_members(&self, since: Option<i64>) -> Result<Option<Patients>> {
        let (Level::Group { id, only }, Some(since)) = (self, since) else { return Ok(None) };
        if !settings::export::group_since_new_members() {
            return Ok(None);
        }
        let new = Patients::new_in_group(id, since)?;
        let new = if only.is_empty() { new } else { new.among(only) };
        Ok(Some(new).filter(|new| !new.is_empty()))
    }

    /// The filter for a type, of what the request's queries let through.
    pub fn filter(&self, queries: Option<Filter>, resource_type: &str, patients: Option<&Patients>) -> Option<Filter> {
        if self.has_patients() { Some(Filter::of_patients(queries, resource_type, patients.cloned())) } else { queries }
    }
}

/// The id of `Patient/id` or `id`.
fn patient_id(text: &str) -> Result<String> {
    let id = text.strip_prefix("Patient/").unwrap_or(text);
    if id.is_empty() || id.contains('/') {
        let shown: String = text.chars().take(80).collect();
        return Err(Error::invalid_argument(format!("patient \"{shown}\" is not a reference to a Patient"))
            .hint("It is an id, or Patient/ and an id."));
    }
    Ok(id.to_owned())
}
