//! Settings of the S3 service that `s3://bucket/key` means, and of its access key.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_transfer::{Keys, Service};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgSqlErrorCode};
use serde::{Deserialize, Serialize};
use std::env;
use std::ffi::CString;

static ENDPOINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static REGION: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static PATH_STYLE: GucSetting<bool> = GucSetting::<bool>::new(true);
static ACCESS_KEY_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SECRET_ACCESS_KEY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SESSION_TOKEN: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Defines the settings.
pub fn define() {
    GucRegistry::define_string_guc(
        c"fhir_bulk.s3_endpoint",
        c"The URL of the S3 service that s3:// means.",
        c"Empty means AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL of the server's environment, then AWS itself.",
        &ENDPOINT,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"fhir_bulk.s3_region",
        c"The region of the S3 service.",
        c"Empty means AWS_REGION or AWS_DEFAULT_REGION of the server's environment, then us-east-1.",
        &REGION,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"fhir_bulk.s3_path_style",
        c"Whether a bucket is a path of the service's URL; otherwise it is the first part of the host name.",
        c"Turn it off for services that only have one host per bucket.",
        &PATH_STYLE,
        GucContext::Suset,
        GucFlags::default(),
    );
    // Only in a configuration file: pg_db_role_setting shows everybody what ALTER ROLE and ALTER DATABASE set.
    for (name, what, setting) in [
        (c"fhir_bulk.s3_access_key_id", c"The id of the access key for the S3 service.", &ACCESS_KEY_ID),
        (c"fhir_bulk.s3_secret_access_key", c"The secret access key for the S3 service.", &SECRET_ACCESS_KEY),
        (c"fhir_bulk.s3_session_token", c"The session token of temporary S3 access keys.", &SESSION_TOKEN),
    ] {
        GucRegistry::define_string_guc(
            name,
            what,
            c"Empty means the variable AWS_... with this name in the server's environment.",
            setting,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL,
        );
    }
}

/// A service with a key that the settings do not have.
#[derive(Clone)]
pub struct Account {
    /// Where it is.
    pub address: Address,
    /// Never shown.
    pub keys: Keys,
}

impl Account {
    /// The service.
    ///
    /// # Errors
    /// 22023 for an endpoint that is not a URL.
    pub fn service(&self) -> Result<Service> {
        let Address { endpoint, region, path_style } = &self.address;
        Service::new(endpoint, region, *path_style, self.keys.clone())
            .map_err(|error| Error::invalid_argument(format!("the host of the account: {error}")))
    }
}

/// The address of a service, without a key.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    endpoint: String,
    region: String,
    path_style: bool,
}

impl Address {
    /// The service of a region, on another host than AWS's if one is given: `host[:port]`, which is asked by https, or a URL.
    /// Buckets are found as the settings say.
    pub fn of(region: String, host: Option<&str>) -> Address {
        let endpoint = match host {
            Some(host) if host.contains("://") => host.to_owned(),
            Some(host) => format!("https://{host}"),
            None => of_region(&region),
        };
        Address { endpoint, region, path_style: PATH_STYLE.get() }
    }

    /// The URL of the service.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The service at this address, with the current key.
    ///
    /// # Errors
    /// 22023 for an endpoint that is not a URL and for half a key, 55000 if there is no key at all.
    pub fn service(&self) -> Result<Service> {
        Service::new(&self.endpoint, &self.region, self.path_style, keys()?)
            .map_err(|error| Error::invalid_argument(format!("fhir_bulk.s3_endpoint: {error}")))
    }
}

/// The address of the service that `s3://` means now.
pub fn address() -> Address {
    let region = text(&REGION)
        .or_else(|| variable("AWS_REGION"))
        .or_else(|| variable("AWS_DEFAULT_REGION"))
        .unwrap_or_else(|| "us-east-1".into());
    let endpoint = text(&ENDPOINT)
        .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
        .or_else(|| variable("AWS_ENDPOINT_URL"))
        .unwrap_or_else(|| of_region(&region));
    Address { endpoint, region, path_style: PATH_STYLE.get() }
}

/// The URL of AWS's service.
fn of_region(region: &str) -> String {
    format!("https://s3.{region}.amazonaws.com")
}

/// The key of the settings, or that of the environment; never half of each.
fn keys() -> Result<Keys> {
    match (text(&ACCESS_KEY_ID), text(&SECRET_ACCESS_KEY)) {
        (Some(id), Some(secret)) => return Ok(Keys { id, secret, token: text(&SESSION_TOKEN) }),
        (None, None) => {}
        (id, _) => {
            let missing = if id.is_none() { "s3_access_key_id" } else { "s3_secret_access_key" };
            return Err(Error::invalid_argument(format!("fhir_bulk.{missing} is empty"))
                .hint("Set both in the server's configuration file."));
        }
    }
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Ok(Keys { id, secret, token: variable("AWS_SESSION_TOKEN") }),
        _ => Err(Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "there is no access key for the S3 service",
        )
        .hint(
            "A superuser sets fhir_bulk.s3_access_key_id and fhir_bulk.s3_secret_access_key in the server's \
             configuration file.",
        )),
    }
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    setting.get().map(|text| text.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
