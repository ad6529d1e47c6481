//! Reads the settings: from flags, then the environment, then a file, then defaults.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use tokio_postgres::config::{ChannelBinding, Host, SslMode};

use crate::caller::peer::Network;
use crate::request::yaml;

/// Serves the bulk FHIR endpoints of a PostgreSQL database with the fhir_bulk extension.
///
/// Every request runs as a PostgreSQL role, in a transaction of its own. The role's grants and policies decide what it may
/// read and write. Basic credentials are a role and its password, which PostgreSQL checks. For bearer tokens, API keys and
/// anonymous callers, the proxy connects as the user of --database, which must be a member of the roles they stand for.
///
/// Each flag may also be a line of the file that --config names: `listen: 0.0.0.0:8080`.
#[derive(Debug, Parser)]
#[command(name = "fhir_bulk_proxy", version, max_term_width = 110)]
pub struct Config {
    #[command(flatten)]
    pub file: File,

    /// Where to listen
    #[arg(long, env = "FHIR_BULK_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The database, as libpq writes it: "host=127.0.0.1 dbname=fhir user=authenticator", or a postgresql:// URL. A
    /// user is needed for tokens, API keys and anonymous callers only
    #[arg(long = "database", env = "FHIR_BULK_DATABASE", value_name = "DSN", hide_env_values = true)]
    dsn: String,

    /// The parsed form of `database`.
    #[arg(skip)]
    pub database: tokio_postgres::Config,

    /// A file with the password of the user of --database
    #[arg(long, env = "FHIR_BULK_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,

    /// How clients reach the proxy, for the URLs in its answers; by default the request's Host
    #[arg(long, env = "FHIR_BULK_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,

    /// A PEM file with the certificate chain; serves https
    #[arg(long, env = "FHIR_BULK_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// A PEM file with the certificate's private key
    #[arg(long, env = "FHIR_BULK_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// A file with the secret of HS256 tokens, at least 32 bytes
    #[arg(long, env = "FHIR_BULK_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,

    /// A JWK set with the public keys of RS256 and ES256 tokens
    #[arg(long, env = "FHIR_BULK_JWKS_FILE", value_name = "FILE")]
    pub jwks_file: Option<PathBuf>,

    /// The audience that tokens must be for
    #[arg(long, env = "FHIR_BULK_JWT_AUDIENCE", value_name = "NAME")]
    pub jwt_audience: Option<String>,

    /// Clients that log in with SMART Backend Services: a YAML list of {id: …, jwks: {…} or jwks-url: …, role: …, scopes: …}.
    /// It needs --public-url
    #[arg(long, env = "FHIR_BULK_CLIENTS_FILE", value_name = "FILE")]
    pub clients_file: Option<PathBuf>,

    /// Who may submit to /fhir/$bulk-submit: a YAML list of {system: …, value: …, role: …, sources: [https://host/prefix/]}.
    /// Without it nobody may
    #[arg(long, env = "FHIR_BULK_SUBMITTERS_FILE", value_name = "FILE")]
    pub submitters_file: Option<PathBuf>,

    /// A file with the secret that signs the tokens of these clients, at least 32 bytes, for several proxies at one address;
    /// without it each proxy makes its own
    #[arg(long, env = "FHIR_BULK_TOKEN_SECRET_FILE", value_name = "FILE")]
    pub token_secret_file: Option<PathBuf>,

    /// A PEM file of certificate authorities that the proxy trusts when it reads a client's keys from its jwks-url, in
    /// addition to the well-known ones
    #[arg(long, env = "FHIR_BULK_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// API keys: a YAML list of {sha256: the key's digest in hex, role: …, claims: {…}}
    #[arg(long, env = "FHIR_BULK_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// Whether a role may log in with its password over HTTP
    #[arg(long, env = "FHIR_BULK_BASIC", value_name = "on|off", default_value = "on")]
    pub basic: Switch,

    /// The only roles that may log in by password, separated by commas; without it all may
    #[arg(long, env = "FHIR_BULK_BASIC_ROLES", value_name = "ROLES", value_delimiter = ',')]
    pub basic_roles: Vec<String>,

    /// Whether roles that are SUPERUSER, BYPASSRLS, CREATEROLE or REPLICATION may log in by password, too
    #[arg(long, env = "FHIR_BULK_BASIC_PRIVILEGED", value_name = "on|off", default_value = "off",
          num_args = 0..=1, default_missing_value = "on", require_equals = true)]
    pub basic_privileged: Switch,

    /// Addresses and networks of trusted proxies, whose X-Forwarded-For has the client's address, separated by commas
    #[arg(long, env = "FHIR_BULK_TRUSTED_PROXIES", value_name = "NETWORKS", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// The role of requests without credentials; without it they are refused
    #[arg(long, env = "FHIR_BULK_ANONYMOUS_ROLE", value_name = "ROLE")]
    pub anonymous_role: Option<String>,

    /// The role whose resource types /fhir/metadata shows to clients without credentials, which many send before they log
    /// in; by default the user of --database
    #[arg(long, env = "FHIR_BULK_METADATA_ROLE", value_name = "ROLE")]
    pub metadata_role: Option<String>,

    /// Whether there is a page at /ui, on which people see their jobs, start and end them
    #[arg(long, env = "FHIR_BULK_UI", value_name = "on|off", default_value = "off",
          num_args = 0..=1, default_missing_value = "on", require_equals = true)]
    pub ui: Switch,

    /// The most requests of one role at the same time; further ones wait, then get 429
    #[arg(long, env = "FHIR_BULK_CONNECTIONS_PER_ROLE", value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_per_role: u32,

    /// The most connections to the database; further requests wait, then get 503
    #[arg(long, env = "FHIR_BULK_CONNECTIONS", value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,

    /// How long a request waits for a free connection
    #[arg(long, env = "FHIR_BULK_WAIT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub wait: Duration,

    /// How long a pooled connection is used. A changed password or a revoked login takes effect after this time
    #[arg(long, env = "FHIR_BULK_CONNECTION_AGE", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub connection_age: Duration,

    /// How long a client may pause while it sends or receives a body
    #[arg(long, env = "FHIR_BULK_IDLE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub idle_timeout: Duration,

    /// The largest JSON or YAML body
    #[arg(long, env = "FHIR_BULK_MAX_BODY", value_name = "SIZE", default_value = "1MB", value_parser = size)]
    pub max_body: u64,

    /// The largest NDJSON body, compressed if it is sent compressed
    #[arg(long, env = "FHIR_BULK_MAX_UPLOAD", value_name = "SIZE", default_value = "16GB", value_parser = size)]
    pub max_upload: u64,

    /// How long running requests may go on after SIGTERM
    #[arg(long, env = "FHIR_BULK_SHUTDOWN_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub shutdown_timeout: Duration,

    /// The format of log lines, which go to standard error
    #[arg(long, env = "FHIR_BULK_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, or a filter of the tracing-subscriber crate
    #[arg(long, env = "FHIR_BULK_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// The shortest HS256 secret: it must be as long as the hash (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// The most bytes of JSON that a YAML settings file may make.
pub const MOST_YAML: usize = 64 << 20;

/// The flag that names the file. It is read before all others.
#[derive(Args, Debug)]
pub struct File {
    /// A YAML file with any of these flags
    #[arg(long, env = "FHIR_BULK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// A flag that is `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl Config {
    /// Reads flags, environment and file. Ends the process for `--help`, `--version` and bad flags, as clap does.
    ///
    /// # Errors
    /// An error in the file, or in a file that it names.
    pub fn read() -> Result<Config, Box<dyn Error>> {
        let only_file = clap::Command::new("file").ignore_errors(true).disable_help_flag(true);
        let found = File::augment_args(only_file).get_matches();
        let mut lines = match found.get_one::<PathBuf>("config") {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        if lines.contains_key("config") {
            return Err("the file of --config cannot name another file".into());
        }
        // The file's lines become the defaults of their flags, so flags and environment override them.
        let command = Config::command().mut_args(|arg| match arg.get_long().and_then(|name| lines.remove(name)) {
            Some(line) => arg.default_value(line).required(false),
            None => arg,
        });
        if let Some(name) = lines.keys().next() {
            return Err(format!("the file of --config has \"{name}\", which is not a flag").into());
        }
        let matches = command.try_get_matches().map_err(without_password)?;
        let mut config = Config::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        config.database = database(&config.dsn)?;
        match (&config.tls_cert, &config.tls_key) {
            (Some(_), None) => return Err("tls-cert needs tls-key".into()),
            (None, Some(_)) => return Err("tls-key needs tls-cert".into()),
            _ => {}
        }
        if let Some(password) = config.read_database_password()? {
            config.database.password(password);
        }
        Ok(config)
    }

    /// The password of the user of --database, if a file has it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_database_password(&self) -> Result<Option<String>, Box<dyn Error>> {
        self.database_password_file.as_deref().map(read_secret).transpose()
    }

    /// `public_url` without a slash at its end.
    pub fn base_url(&self) -> Option<&str> {
        self.public_url.as_deref().map(|url| url.trim_end_matches('/'))
    }
}

/// The message for bad flags: that of clap, unless it could contain a password.
fn without_password(error: clap::Error) -> Box<dyn Error> {
    if error.use_stderr() && error.to_string().to_ascii_lowercase().contains("password=") {
        return "the arguments cannot be understood; --database is one of them, in quotes".into();
    }
    error.exit()
}

/// Parses --database, and checks that it names a host.
fn database(dsn: &str) -> Result<tokio_postgres::Config, Box<dyn Error>> {
    let config: tokio_postgres::Config = dsn.parse().map_err(|error: tokio_postgres::Error| {
        let is_secret = dsn.to_ascii_lowercase().contains("pass") || dsn.contains("://");
        let why = std::error::Error::source(&error).filter(|_| !is_secret).map(|why| format!(": {why}"));
        format!("--database is neither key=value pairs nor a postgresql:// URL{}", why.unwrap_or_default())
    })?;
    let is_named = |host: &Host| !matches!(host, Host::Tcp(name) if name.is_empty());
    if !config.get_hosts().iter().any(is_named) && config.get_hostaddrs().is_empty() {
        return Err("--database names no host: add an address, or the folder of the server's socket".into());
    }
    if config.get_ssl_mode() == SslMode::Require || config.get_channel_binding() == ChannelBinding::Require {
        return Err("--database asks for TLS, which the proxy does not speak to PostgreSQL: sslmode=disable, on one \
                    machine or one trusted network"
            .into());
    }
    Ok(config)
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let json = yaml::to_json(&text, MOST_YAML).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&json).map_err(|error| format!("{}: {error}", path.display()))?;
    let line = |(name, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(text) => Ok((name, text)),
        serde_json::Value::Number(number) => Ok((name, number.to_string())),
        _ => Err(format!("{}: {name} is neither text nor a number", path.display()).into()),
    };
    lines.into_iter().map(line).collect()
}

/// A file's text without the newline at its end.
///
/// # Errors
/// The errors of reading the file, with its name.
pub fn read_secret(path: &Path) -> Result<String, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The secret of HS256 signatures in a file.
///
/// # Errors
/// The file cannot be read; the secret is too short.
pub fn read_hmac_secret(path: &Path) -> Result<String, Box<dyn Error>> {
    let secret = read_secret(path)?;
    if secret.len() < MIN_SECRET_BYTES {
        return Err(format!("{}: the secret has fewer than {MIN_SECRET_BYTES} bytes", path.display()).into());
    }
    Ok(secret)
}

/// `500ms`, `30s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a number with ms, s, m or h".into()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or("too long".into())
}

/// `65536`, `64kB`, `1MB`, `16GB`: PostgreSQL's units, powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text)?;
    let bytes = match unit {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1_u64 << 40,
        _ => return Err("a size is a number with B, kB, MB, GB or TB".into()),
    };
    number.checked_mul(bytes).ok_or("too large".into())
}

fn split_unit(text: &str) -> Result<(u64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| format!("\"{text}\" does not start with a whole number"))?;
    Ok((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_fit_together() {
        Config::command().debug_assert();
    }

    #[test]
    fn a_password_in_a_bad_database_is_never_repeated() {
        for dsn in [
            "host=x password=hunter2 more=hunter2",
            "host=x port=hunter2 password=x",
            "host=x password=a hunter2",
            "postgresql://u:hunter2@h:hunter2/db",
            "postgres://u:hunter2@[",
            "password='hunter2",
        ] {
            let error = database(dsn).unwrap_err().to_string();
            assert!(error.contains("--database") && !error.contains("hunter2"), "{error}");
        }
        assert!(database("hots=x").unwrap_err().to_string().contains("hots"));
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2 h"), Ok(Duration::from_secs(7200)));
        assert!(duration("30").is_err() && duration("s").is_err() && duration("99999999999999999h").is_err());
        assert_eq!(size("1MB"), Ok(1 << 20));
        assert_eq!(size("12"), Ok(12));
        assert!(size("1mb").is_err() && size("-1MB").is_err() && size("99999999TB").is_err());
    }
}
