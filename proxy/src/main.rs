//! `fhir_bulk_proxy`: HTTP in front of the SQL functions of fhir_bulk. It keeps connections and nothing else.
//!
//! | module | what is there |
//! |---|---|
//! | [`routes`], [`exports`], [`files`] | the endpoints, each with the function that answers it |
//! | [`call`], [`request`], [`yaml`], [`upload`] | what a request says and brings |
//! | [`auth`], [`jwt`], [`attempts`], [`peer`] | on whose behalf it runs; who is kept out |
//! | [`session`], [`pool`], [`downloads`], [`polls`] | its transaction, on a connection of its role; how many there are |
//! | [`error`], [`observe`], [`metrics`] | what callers, log and monitoring are told |
//! | [`config`], [`serve`] | flags; listening and stopping |

#![forbid(unsafe_code)]

mod attempts;
mod auth;
mod call;
mod config;
mod downloads;
mod error;
mod exports;
mod files;
mod jwt;
mod metrics;
mod observe;
mod peer;
mod polls;
mod pool;
mod request;
mod routes;
mod serve;
mod session;
mod upload;
mod yaml;

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};

use tracing_subscriber::EnvFilter;

use auth::Authenticator;
use config::{Config, LogFormat};
use downloads::Downloads;
use metrics::Metrics;
use polls::Polls;
use pool::Pool;

/// What all requests share.
pub struct App {
    config: Config,
    authenticator: RwLock<Arc<Authenticator>>,
    pool: Arc<Pool>,
    downloads: Arc<Downloads>,
    polls: Polls,
    metrics: Metrics,
}

impl App {
    /// What credentials are checked with now.
    pub fn authenticator(&self) -> Arc<Authenticator> {
        self.authenticator.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files of keys and passwords anew; requests that come from now on are checked with what they hold.
    ///
    /// # Errors
    /// What is wrong with one of them; then nothing has changed.
    pub fn reload(&self) -> Result<(), Box<dyn Error>> {
        let authenticator = Arc::new(Authenticator::read(&self.config)?);
        if let Some(password) = self.config.read_database_password()? {
            self.pool.set_password(password);
        }
        *self.authenticator.write().unwrap_or_else(PoisonError::into_inner) = authenticator;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fhir_bulk_proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let config = Config::read()?;
    log(&config)?;
    let (authenticator, pool) = (RwLock::new(Arc::new(Authenticator::read(&config)?)), Pool::new(&config));
    let (downloads, polls, metrics) = (Arc::default(), Polls::default(), Metrics::default());
    let app = Arc::new(App { config, authenticator, pool, downloads, polls, metrics });
    serve::serve(app.clone(), routes::router(app)).await
}

fn log(config: &Config) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_new(&config.log)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match config.log_format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
