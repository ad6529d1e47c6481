//! Resources that a caller gives: they are stored in memory as a load would store them.

use crate::settings;
use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::instant;
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_pg::error::{Error, Result};
use serde_json::Value;

/// A resource with what its row would have.
pub struct Given {
    id: String,
    resource_type: String,
    last_updated: Option<i64>,
    version_id: Option<i64>,
    json: Vec<u8>,
}

impl Given {
    /// The resource.
    pub fn resource(&self) -> Resource<'_> {
        Resource {
            id: &self.id,
            resource_type: &self.resource_type,
            last_updated: self.last_updated,
            version_id: self.version_id,
            json: &self.json,
        }
    }

    /// A copy of a resource.
    pub fn copy(resource: &Resource<'_>) -> Given {
        Given {
            id: resource.id.to_owned(),
            resource_type: resource.resource_type.to_owned(),
            last_updated: resource.last_updated,
            version_id: resource.version_id,
            json: resource.json.to_vec(),
        }
    }
}

/// The resources of a type among those that a caller gives; Bundles are unwrapped.
///
/// # Errors
/// 22023 for what is not a resource in FHIR form.
pub fn of_type(given: Vec<Value>, resource_type: &str) -> Result<Vec<Given>> {
    let mut encoder =
        Encoder::new(IdRule::Aidbox, &settings::created_at_url()).from_fhir(settings::fhir_version(), true, None);
    let mut found = Vec::new();
    for (at, value) in given.into_iter().enumerate() {
        let entries = match value.get("resourceType").and_then(Value::as_str) {
            Some("Bundle") if resource_type != "Bundle" => match value.get("entry") {
                Some(Value::Array(entries)) => {
                    entries.iter().filter_map(|entry| entry.get("resource").cloned()).collect()
                }
                _ => Vec::new(),
            },
            _ => vec![value],
        };
        for resource in entries {
            let mistake = |what: String| Error::invalid_argument(format!("option resources: resource {at}: {what}"));
            let Some(name) = resource.get("resourceType").and_then(Value::as_str) else {
                return Err(mistake("it has no resourceType".to_owned()));
            };
            if name == resource_type {
                found.push(stored(&resource, name, &mut encoder).map_err(mistake)?);
            }
        }
    }
    Ok(found)
}

fn stored(resource: &Value, resource_type: &str, encoder: &mut Encoder) -> std::result::Result<Given, String> {
    let line = resource.to_string();
    let encoded = encoder.encode(line.as_bytes()).map_err(|error| error.to_string())?;
    let mut json = Vec::new();
    encoded.write(&mut json).map_err(|error| error.to_string())?;
    let meta = |name: &str| resource.get("meta").and_then(|meta| meta.get(name)).and_then(Value::as_str);
    Ok(Given {
        id: encoded.id().to_owned(),
        resource_type: resource_type.to_owned(),
        last_updated: meta("lastUpdated").and_then(instant::parse),
        version_id: meta("versionId").and_then(|text| text.parse().ok()),
        json,
    })
}
