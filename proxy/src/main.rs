//! `fhir_bulk_proxy`: HTTP in front of the SQL functions of fhir_bulk. It keeps connections and nothing else.
//!
//! | module | what is there |
//! |---|---|
//! | [`routes`] | the endpoints, a file for each family of them, each with the function that answers it |
//! | [`request`], [`response`] | what a request says and brings; how answers are made |
//! | [`caller`] | on whose behalf it runs, and where it comes from |
//! | [`database`] | its transaction, on a connection of its role |
//! | [`limits`] | passwords, downloads, polls: how often, and how many at once |
//! | [`error`], [`observe`], [`metrics`] | what callers, log and monitoring are told |
//! | [`app`], [`config`], [`serve`] | what all requests share; flags; listening and stopping |
//!
//! Each uses only what stands below it here, and within a room no two files use each other.

#![forbid(unsafe_code)]

mod app;
mod caller;
mod config;
mod database;
mod error;
mod limits;
mod metrics;
mod observe;
mod request;
mod response;
mod routes;
mod serve;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use app::App;
use config::{Config, LogFormat};

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
    let app = Arc::new(App::new(config)?);
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
