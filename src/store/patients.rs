//! Sets of patients: those of a Group, or those that a request names.

use super::{ResourceType, each_live};
use crate::settings;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_paths::search::{Member, Modified, members};
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::rc::Rc;

/// How deep Groups may be members of Groups.
const MAX_DEPTH: usize = 16;

/// Ids of patients. Clones are one set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Patients(Rc<HashSet<String>>);

impl From<Vec<String>> for Patients {
    fn from(ids: Vec<String>) -> Patients {
        Patients(Rc::new(ids.into_iter().collect()))
    }
}

impl From<Patients> for Vec<String> {
    fn from(Patients(ids): Patients) -> Vec<String> {
        ids.iter().cloned().collect()
    }
}

impl Patients {
    /// Whether an id is among them.
    #[inline]
    pub fn contains(&self, id: &[u8]) -> bool {
        str::from_utf8(id).is_ok_and(|id| self.0.contains(id))
    }

    /// The patients that are members of a Group now, directly or in Groups that are its members, as far as the current role
    /// sees the Groups. `now` is the transaction's start: all readers of an export have the same.
    ///
    /// # Errors
    /// P0002 if there is no such Group; 0A000 for a Group with a modifier extension; 3F000.
    pub fn of_group(id: &str) -> Result<Patients> {
        Patients::reached(id, |_| true)
    }

    /// Those of them who are members only since an instant, by the start of their period or of that of a Group in between:
    /// the start covers a time after it. Who was a member before, on any way, is none of them.
    ///
    /// # Errors
    /// As for [`Patients::of_group`].
    pub fn new_in_group(id: &str, since: i64) -> Result<Patients> {
        let all = Patients::of_group(id)?;
        let before = Patients::reached(id, |member| member.start.is_none_or(|(_, until)| until <= since))?;
        Ok(Patients(Rc::new(all.0.difference(&before.0).cloned().collect())))
    }

    fn reached(id: &str, counts: impl Fn(&Member<'_>) -> bool) -> Result<Patients> {
        let (now, bases) = (session::transaction_start(), settings::base_urls());
        let (mut patients, mut seen) = (HashSet::new(), HashSet::from([id.to_owned()]));
        let mut groups = vec![id.to_owned()];
        for depth in 0..MAX_DEPTH {
            let mut inner = Vec::new();
            let found = each_live(&ResourceType::new("Group")?, groups.iter().map(String::as_str), |id, json| {
                let group = Resource { id, resource_type: "Group", last_updated: None, version_id: None, json };
                let modified = members(group, now, &bases, |member| {
                    if !counts(&member) {
                        return;
                    }
                    let id = String::from_utf8_lossy(member.id).into_owned();
                    match member.resource_type {
                        b"Patient" => drop(patients.insert(id)),
                        b"Group" if seen.insert(id.clone()) => inner.push(id),
                        _ => {}
                    }
                });
                modified.map_err(|Modified(url)| has_modifier(id, &url))
            })?;
            if depth == 0 && found == 0 {
                return Err(no_group(id));
            }
            groups = inner;
            if groups.is_empty() {
                break;
            }
        }
        Ok(Patients(Rc::new(patients)))
    }

    /// The patients with these ids.
    ///
    /// # Errors
    /// 22023 for an id of which the current role sees no patient; 3F000.
    pub fn named(ids: &[String]) -> Result<Patients> {
        let mut found = HashSet::new();
        each_live(&ResourceType::new("Patient")?, ids.iter().map(String::as_str), |id, _| {
            found.insert(id.to_owned());
            Ok(())
        })?;
        match ids.iter().find(|id| !found.contains(*id)) {
            None => Ok(Patients(Rc::new(found))),
            Some(missing) => Err(Error::invalid_argument(format!("there is no Patient \"{}\"", shown(missing)))
                .hint("Name patients that are there and that you may read.")),
        }
    }

    /// Those with these ids, as far as they are among them.
    pub fn among(&self, ids: &[String]) -> Patients {
        Patients(Rc::new(ids.iter().filter(|id| self.0.contains(*id)).cloned().collect()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of these patients that are in both sets.
    ///
    /// # Errors
    /// 22023 for one that is not among `self`.
    pub fn only(&self, ids: &[String]) -> Result<Patients> {
        match ids.iter().find(|id| !self.0.contains(*id)) {
            None => Ok(Patients(Rc::new(ids.iter().cloned().collect()))),
            Some(missing) => {
                Err(Error::invalid_argument(format!("Patient \"{}\" is not a member of the Group", shown(missing))))
            }
        }
    }
}

fn no_group(id: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_NO_DATA_FOUND, format!("there is no Group \"{}\"", shown(id)))
        .hint("Name a Group that is there and that you may read.")
}

fn has_modifier(id: &str, url: &str) -> Error {
    let message = format!("Group \"{}\" has the modifier extension {}, which is not known", shown(id), shown(url));
    Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
        .detail("It may change what being a member means.")
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
