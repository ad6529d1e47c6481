//! Associated data (`includeAssociatedData`): the Provenance of the resources that an export has, all of it or the newest of
//! each. It takes the place of the Provenance that an export has otherwise.

use super::ignored::{Ignored, shown};
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

/// The parameter's name.
pub const PARAMETER: &str = "includeAssociatedData";
/// The type of associated data.
pub const TYPE: &str = "Provenance";

/// Which Provenance of each exported resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Associated {
    /// The newest.
    Latest,
    /// All.
    Relevant,
}

impl Associated {
    /// Reads the values of `includeAssociatedData`. Of several, the one counts that exports most. A lenient request goes on
    /// without those that are not known, and without all of them if files are by patient: they are added to `ignored`.
    ///
    /// # Errors
    /// 22023 for an unknown value, and if there is none; 0A000 if files are by patient.
    pub fn parse(
        values: &[String],
        by_patient: bool,
        lenient: bool,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Option<Associated>> {
        let mut most = None;
        for value in values {
            match Associated::known(value) {
                Ok(known) => most = most.max(Some(known)),
                Err(error) if lenient => {
                    ignored.push(Ignored::new(PARAMETER, "A value was ignored", &error));
                }
                Err(error) => return Err(error),
            }
        }
        if values.is_empty() {
            return Err(Error::invalid_argument(format!("\"{PARAMETER}\" of the request names nothing")));
        }
        if by_patient && most.is_some() {
            let message = format!("{PARAMETER} does not go with organizeOutputBy");
            let error = Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                .hint("Without it, each patient's resources come with their Provenance.");
            if !lenient {
                return Err(error);
            }
            ignored.push(Ignored::new(PARAMETER, "It was ignored", &error));
            return Ok(None);
        }
        Ok(most)
    }

    fn known(value: &str) -> Result<Associated> {
        match value {
            "LatestProvenanceResources" => Ok(Associated::Latest),
            "RelevantProvenanceResources" => Ok(Associated::Relevant),
            _ => Err(Error::invalid_argument(format!("{PARAMETER} \"{}\" is not known", shown(value)))
                .hint("It may be LatestProvenanceResources or RelevantProvenanceResources.")),
        }
    }
}
