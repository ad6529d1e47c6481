//! Reads an export's request: HL7's kick-off request, or the short form with types and a point in time.

use super::associated::{self, Associated};
use super::ignored::{Ignored, shown};
use super::level::Level;
use super::request::{Request, missing, not_too_much};
use super::subjects::{self, Subjects};
use super::type_filters::TypeFilters;
use crate::settings;
use crate::store::{ResourceTable, ResourceType, readable_types, unknown};
use fhir_bulk_codec::instant;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};

/// The values of `_outputFormat`: all mean NDJSON.
const FORMATS: [&str; 3] = ["application/fhir+ndjson", "application/ndjson", "ndjson"];

/// A checked request. The queue stores it in this form.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kickoff {
    /// Types that have a table, in FHIR's spelling, without duplicates.
    pub types: Vec<String>,
    /// Whether these are all types that the role may read, because the request named none.
    #[serde(default)]
    pub all: bool,
    /// The only types that the caller may have, whatever its role may read; `None` for no such limit.
    #[serde(default)]
    pub allowed: Option<Vec<String>>,
    /// Resources changed at or after this, in microseconds since 2000-01-01T00:00:00Z.
    pub since: Option<i64>,
    /// Resources changed before this.
    pub until: Option<i64>,
    /// Names of elements, with or without a type as prefix; empty for whole resources.
    pub elements: Vec<String>,
    /// Whether files are compressed.
    pub gzip: bool,
    /// The largest size of a file that the request allows, in bytes.
    #[serde(default)]
    pub file_bytes: Option<u64>,
    /// Whether the manifest tells the sizes of files.
    #[serde(default)]
    pub file_sizes: bool,
    /// Whether the status shows files as soon as they are final.
    #[serde(default)]
    pub partial: bool,
    /// Whether files have one patient after the other; otherwise they have types.
    #[serde(default)]
    pub by_patient: bool,
    /// Whether one file has all types; otherwise each type has its own files.
    pub single: bool,
    /// Whose resources.
    #[serde(default)]
    pub level: Level,
    /// Types that the request named although they belong to no patient.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Types that come if they are referred to.
    #[serde(default)]
    pub extras: Vec<String>,
    /// Which Provenance of the exported resources, if the request says it.
    #[serde(default)]
    pub associated: Option<Associated>,
    /// Types that come although the request did not name them.
    #[serde(default)]
    pub added: Vec<String>,
    /// What a lenient request asked for in vain.
    #[serde(default)]
    pub ignored: Vec<Ignored>,
    /// Which resources of the types.
    #[serde(default)]
    pub filters: TypeFilters,
    /// Tables of SQL on FHIR that are exported in place of resources; `types` has those of their views.
    #[serde(default)]
    pub subjects: Option<Subjects>,
    /// The request's URL, for the manifest.
    pub url: String,
}

impl Kickoff {
    /// Reads `{"level", "group", "patient", "_type", "_since", "_until", "_elements", "_typeFilter",
    /// "includeAssociatedData", "organizeOutputBy", "allowPartialManifests", "lenient", "_minimumFileSize",
    /// "_maximumFileSize", "fileSizes", "_outputFormat", "contentEncoding", "request", "allowedTypes"}`, all of them optional,
    /// or `{"resourceTypes", "since"}`, which makes one file of all types; or `{"subjects"}`, with what [`Subjects::parse`]
    /// takes.
    ///
    /// # Errors
    /// P0002 for a Group that is not there; 42501 for a type that the role may not read, or that is not among
    /// `allowedTypes`, or if reading the patients would run another role's code; 22023 for a patient or a level that is none.
    /// Unless the request is lenient, 22023 and 22007 for members that are unknown or have a wrong value; 0A000 for a
    /// `_typeFilter` that is not supported, and for types of which none belongs to patients; 42P01 for a type without a table.
    /// 54000 if a lenient request has too much of that.
    pub fn parse(request: serde_json::Value) -> Result<Kickoff> {
        let mut request = Request::new(request)?;
        if request.has("resourceTypes") || request.has("since") {
            return Kickoff::single(request);
        }
        if request.has("subjects") {
            return Kickoff::of_subjects(request);
        }
        request.lenient = request.boolean("lenient")?.unwrap_or(false);
        let lenient = request.lenient;
        let types = request.leniently("_type", types_of)?;
        let elements = request.leniently("_elements", Request::names)?.unwrap_or_default();
        let since = request.leniently("_since", instant_of)?;
        let until = request.leniently("_until", instant_of)?;
        // Decoding a URL often turns a plus into a space.
        let format = request.leniently("_outputFormat", Request::string)?.map(|format| format.replace(' ', "+"));
        let gzip = encoding(&mut request)?;
        let url = request.string("request")?;
        let by_patient = request.leniently("organizeOutputBy", organized_by)?.unwrap_or(false);
        // Whose resources is never ignored.
        let level = Level::parse(&mut request)?;
        // What belongs to no patient has no place in files by patient.
        let level = if by_patient { level.of_patients() } else { level };
        // A file ends where it is full or the type ends, so no file is smaller than need be.
        request.leniently("_minimumFileSize", Request::positive)?;
        let file_bytes = request.leniently("_maximumFileSize", Request::positive)?;
        let filters = request.leniently("_typeFilter", Request::string_or_strings)?.unwrap_or_default();
        let partial = request.leniently("allowPartialManifests", Request::boolean)?.unwrap_or(false);
        let file_sizes = request.leniently("fileSizes", Request::boolean)?.unwrap_or(false);
        let associated = request.leniently(associated::PARAMETER, Request::names)?;
        let allowed = request.strings("allowedTypes")?;
        let mut ignored = request.end(
            "level, group, patient, _type, _since, _until, _elements, _typeFilter, includeAssociatedData, \
             organizeOutputBy, allowPartialManifests, lenient, _minimumFileSize, _maximumFileSize, fileSizes, \
             _outputFormat, contentEncoding, request and allowedTypes",
        )?;
        let associated = associated
            .map(|values| Associated::parse(&values, by_patient, lenient, &mut ignored))
            .transpose()?
            .flatten();
        // Who asks for another format cannot read this one.
        if let Some(format) = format.filter(|format| !FORMATS.contains(&format.as_str())) {
            return Err(Error::invalid_argument(format!("_outputFormat \"{}\" is not known", shown(&format)))
                .hint(format!("It may be {}.", FORMATS.join(", "))));
        }
        let url = url.unwrap_or_else(|| "$export".to_owned());
        let all = types.is_none();
        let types = types.unwrap_or_default();
        let kickoff = Kickoff {
            types,
            all,
            allowed,
            since,
            until,
            elements,
            gzip,
            file_bytes,
            file_sizes,
            partial,
            level,
            by_patient,
            associated,
            ignored,
            url,
            ..Kickoff::default()
        };
        let mut kickoff = kickoff.with_tables(lenient)?;
        kickoff.left_out = kickoff.level.keep_types(&mut kickoff.types, all || lenient)?;
        if all {
            // Of all types, those that belong to patients were meant.
            kickoff.left_out.clear();
        }
        kickoff.add_associated()?;
        kickoff.add_extras()?;
        // Whether they are there is for the caller to hear now, not for the job.
        kickoff.level.check_code(|name| kickoff.names(name))?;
        kickoff.level.patients()?;
        let filters = TypeFilters::parse(&filters, &kickoff.types, lenient, |name| kickoff.check_allowed(name))?;
        Ok(Kickoff { filters, ..kickoff })
    }

    fn single(mut request: Request) -> Result<Kickoff> {
        let types = request.strings("resourceTypes")?.ok_or_else(|| missing("resourceTypes"))?;
        let since = instant_of(&mut request, "since")?;
        let gzip = encoding(&mut request)?;
        request.end("resourceTypes, since and contentEncoding")?;
        if types.is_empty() {
            return Err(Error::invalid_argument("\"resourceTypes\" of the request is empty"));
        }
        Kickoff { types, since, gzip, single: true, ..Kickoff::default() }.with_tables(false)
    }

    /// An export of tables in place of resources. All that can be wrong with a subject is found now.
    fn of_subjects(mut request: Request) -> Result<Kickoff> {
        let (gzip, url) = (encoding(&mut request)?, request.string("request")?);
        request.positive("_minimumFileSize")?;
        let file_bytes = request.positive("_maximumFileSize")?;
        let file_sizes = request.boolean("fileSizes")?.unwrap_or(false);
        let allowed = request.strings("allowedTypes")?;
        let subjects = Subjects::parse(&mut request, allowed.is_some())?;
        let of_files = "contentEncoding, _minimumFileSize, _maximumFileSize, fileSizes, request and allowedTypes";
        request.end(&format!("{}, {of_files}", subjects::KNOWN))?;
        if gzip && !subjects.takes_gzip() {
            return Err(Error::invalid_argument("contentEncoding is not for parquet, which is compressed in itself")
                .hint("Leave it out."));
        }
        subjects.check()?;
        let url = url.unwrap_or_else(|| "$sql-export".to_owned());
        let types = subjects.types();
        let allowed = allowed.filter(|names| !names.iter().any(|name| name == "*"));
        let kickoff = Kickoff { types, allowed, gzip, file_bytes, file_sizes, url, ..Kickoff::default() };
        Kickoff { subjects: Some(subjects), ..kickoff }.with_tables(false)
    }

    /// The types besides the exported ones that are read to find the patients.
    pub fn other_types(&self) -> Vec<&'static str> {
        let of_subjects = self.subjects.iter().flat_map(Subjects::other_types);
        self.level.other_types().iter().copied().chain(of_subjects).collect()
    }

    /// Finds the spelling of each type and removes duplicates. If no type was named, takes all that the role may read. A
    /// lenient request goes on without types that are not known.
    fn with_tables(mut self, lenient: bool) -> Result<Kickoff> {
        let readable = readable_types()?;
        let spelt = |name: &str| readable.iter().find(|known| known.as_str().eq_ignore_ascii_case(name));
        if self.all {
            let all = readable.iter().map(ResourceType::as_str);
            self.types = all.filter(|name| self.allows(name)).map(str::to_owned).collect();
        }
        let mut types: Vec<String> = Vec::new();
        for name in &self.types {
            self.check_allowed(name)?;
            let Some(known) = spelt(name) else {
                match unreadable(name) {
                    error if lenient && error.code() == PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE => {
                        self.ignored.push(Ignored::new("_type", "A type was ignored", &error));
                    }
                    error => return Err(error),
                }
                continue;
            };
            // If FHIR and the table do not tell the spelling, the caller's is used.
            let is_told = known.as_str().bytes().any(|byte| byte.is_ascii_uppercase());
            let name = if is_told { known.as_str() } else { name };
            if !types.iter().any(|known_already| known_already.eq_ignore_ascii_case(name)) {
                types.push(name.to_owned());
            }
        }
        self.types = types;
        not_too_much(&self.ignored)?;
        Ok(self)
    }

    /// Chooses the types that come with patients if they are referred to: those of the setting that the role may read, and
    /// that the request did not leave out.
    fn add_extras(&mut self) -> Result<()> {
        if !self.level.has_patients() || self.by_patient {
            return Ok(());
        }
        let readable = readable_types()?;
        for name in settings::export::extras() {
            let Some(known) = readable.iter().find(|known| known.as_str().eq_ignore_ascii_case(&name)) else {
                continue;
            };
            if !self.allows(known.as_str()) {
                continue;
            }
            let is_wanted = self.all || self.left_out.iter().any(|left| left == known.as_str());
            if is_wanted && !self.types.iter().chain(&self.extras).any(|other| other == known.as_str()) {
                self.extras.push(known.as_str().to_owned());
            }
        }
        self.left_out.retain(|name| !self.extras.contains(name));
        Ok(())
    }

    /// Adds the type of associated data, if the role may read it.
    fn add_associated(&mut self) -> Result<()> {
        let is_there = self.types.iter().any(|name| name == associated::TYPE);
        let is_wanted = self.associated.is_some() && !self.all && !is_there && self.allows(associated::TYPE);
        if is_wanted && readable_types()?.iter().any(|known| known.as_str() == associated::TYPE) {
            self.types.push(associated::TYPE.to_owned());
            self.added.push(associated::TYPE.to_owned());
        }
        Ok(())
    }

    /// Whether a type that is exported is there because the request wants it, and so trusts its table. Otherwise it is
    /// exported only if reading it runs no code of other roles.
    pub fn trusts(&self, exported: &str) -> bool {
        !self.all && self.added.iter().all(|name| name != exported)
    }

    /// Whether other resources decide which resources of a type are exported.
    pub fn is_linked(&self, resource_type: &str) -> bool {
        resource_type == associated::TYPE && (self.level.has_patients() || self.associated.is_some())
    }

    /// Whether the caller may have a type at all.
    pub fn allows(&self, name: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// # Errors
    /// 42501 for a type that the caller may not have.
    fn check_allowed(&self, name: &str) -> Result<()> {
        if self.allows(name) {
            return Ok(());
        }
        let shown: String = name.chars().take(80).collect();
        let message = format!("type \"{shown}\" is not among those that this request may export");
        Err(Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
            .hint("\"allowedTypes\" of the request has these; over HTTP they are the scopes of the token."))
    }

    /// Whether the request named a type, and so trusts its table.
    pub fn names(&self, resource_type: &str) -> bool {
        self.trusts(resource_type) && self.types.iter().chain(&self.left_out).any(|name| name == resource_type)
    }

    /// Whether the export includes deletions.
    pub fn has_deletions(&self) -> bool {
        self.since.is_some() && !self.single
    }

    /// The elements that the request wants of a type; empty for all.
    pub fn elements_of(&self, resource_type: &str) -> Vec<&str> {
        let of_type = |name| match str::split_once(name, '.') {
            Some((of, element)) => (of == resource_type).then_some(element),
            None => Some(name),
        };
        self.elements.iter().filter_map(|name| of_type(name.as_str())).collect()
    }
}

/// The error for a type that the role cannot export.
fn unreadable(name: &str) -> Error {
    let table = ResourceType::new(name).map(|resource_type| ResourceTable::find(&resource_type));
    match table {
        Ok(Err(error)) => error,
        Ok(Ok(Some(table))) => Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for table {}", table.sql_name),
        )
        .hint(format!("GRANT SELECT ON {} TO {};", table.sql_name, session::role_name().to_string_lossy())),
        Ok(Ok(None)) | Err(_) => unknown(name),
    }
}

/// Whether `organizeOutputBy` is Patient, the only value there is.
fn organized_by(request: &mut Request, name: &str) -> Result<Option<bool>> {
    match request.string(name)?.as_deref() {
        None => Ok(None),
        Some("Patient") => Ok(Some(true)),
        Some(other) => {
            let message = format!("{name} \"{}\" is not known", shown(other));
            Err(Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message).hint("It may be Patient."))
        }
    }
}

fn encoding(request: &mut Request) -> Result<bool> {
    match request.string("contentEncoding")?.as_deref() {
        None | Some("plain") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => Err(Error::invalid_argument(format!("contentEncoding \"{other}\" is not known"))
            .hint("It may be gzip or plain.")),
    }
}

/// The types that a request names.
fn types_of(request: &mut Request, name: &str) -> Result<Option<Vec<String>>> {
    let types = request.names(name)?;
    if types.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::invalid_argument(format!("\"{name}\" of the request names no type"))
            .hint(format!("Leave out {name} to export all types that you may read.")));
    }
    Ok(types)
}

/// An instant, or a date: its midnight in the session's time zone.
fn instant_of(request: &mut Request, name: &str) -> Result<Option<i64>> {
    let Some(text) = request.string(name)? else { return Ok(None) };
    let midnight = || instant::parse(&format!("{text}T00:00:00Z")).map(session::in_time_zone);
    instant::parse(&text).or_else(midnight).map(Some).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT,
            format!("{name} \"{shown}\" is neither an instant nor a date"),
        )
        .hint("An instant has a date, a time and an offset: 2025-01-01T00:00:00Z")
    })
}
