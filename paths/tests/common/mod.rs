//! Resources for tests: HL7's examples, generated ones, and what lies beside the checkout.
#![allow(dead_code)] // Each test file uses a part of it.

pub mod queries;

use fhir_bulk_codec::error::IdRule;
use fhir_bulk_codec::fhir::Version;
use fhir_bulk_codec::instant::{Micros, parse};
use fhir_bulk_codec::resource::Encoder;
use fhir_bulk_paths::item::Resource;
use fhir_bulk_sample::{ResourceType, Sample};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A resource as a row stores it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: String,
    pub resource_type: String,
    pub last_updated: Option<Micros>,
    /// The jsonb after its length header.
    pub jsonb: Vec<u8>,
}

impl Stored {
    pub fn resource(&self) -> Resource<'_> {
        Resource {
            id: &self.id,
            resource_type: &self.resource_type,
            last_updated: self.last_updated,
            version_id: None,
            json: &self.jsonb,
        }
    }
}

/// A resource in FHIR form as it is stored by a load that converts it.
pub fn stored(version: Version, line: &str) -> Stored {
    encoded(&mut Encoder::new(IdRule::Aidbox, "ex:createdAt").from_fhir(version, true, None), line)
}

/// A resource in Aidbox form as it is stored.
pub fn stored_as_it_is(line: &str) -> Stored {
    encoded(&mut Encoder::new(IdRule::Aidbox, "ex:createdAt"), line)
}

fn encoded(encoder: &mut Encoder, line: &str) -> Stored {
    let encoded = encoder.encode(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
    let mut jsonb = Vec::new();
    encoded.write(&mut jsonb).unwrap();
    // A document may be deeper than serde_json reads.
    let resource: Value = serde_json::from_str(line).unwrap_or_default();
    Stored {
        id: encoded.id().to_owned(),
        resource_type: encoded.resource_type().unwrap_or("Basic").to_owned(),
        last_updated: resource["meta"]["lastUpdated"].as_str().and_then(parse),
        jsonb,
    }
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// HL7's examples, those of `tests/data`, as lines.
pub fn examples(version: Version) -> Vec<String> {
    let name = if version == Version::R5 { "r5" } else { "r4" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    unpacked(&folder.join(format!("{name}.examples.ndjson.gz"))).lines().map(str::to_owned).collect()
}

/// Some hundred generated resources of R4, as lines.
pub fn generated() -> Vec<String> {
    let sample = Sample::new(7, 400);
    let mut text = Vec::new();
    for of in ResourceType::ALL {
        sample.write(of, &mut text).unwrap();
    }
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

/// The lines of files beside the checkout: in `$FHIR_BULK_SHARED_DATA`, or in `../shared/data`. None where they are not;
/// then it is said.
pub fn shared_lines(file: &str) -> Vec<String> {
    let root = std::env::var_os("FHIR_BULK_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = root.join(file);
    if !path.is_file() {
        println!("skipped: no ../shared/data/{file}");
        return Vec::new();
    }
    unpacked(&path).lines().map(str::to_owned).collect()
}
