//! `fhir_bulk_proxy`: an HTTP server for the SQL functions of fhir_bulk. It keeps database connections and no other state.
//!
//! | module | contents |
//! |---|---|
//! | [`routes`] | the endpoints; each calls one SQL function |
//! | [`request`], [`response`] | reading requests; making responses |
//! | [`caller`] | the caller of a request, and its address |
//! | [`smart`] | clients that log in with signed assertions, their tokens and scopes |
//! | [`jose`] | keys and signatures of tokens |
//! | [`database`] | the request's transaction, on a connection of its role |
//! | [`limits`] | limits of wrong passwords, used assertions, downloads, polls |
//! | [`error`], [`observe`], [`metrics`] | errors for callers, the log, the metrics |
//! | [`app`], [`config`], [`serve`] | shared state; settings; listening and stopping |
//!
//! Each module uses only those below it in this table. Within a module no two files use each other.

#![forbid(unsafe_code)]

mod app;
mod caller;
mod config;
mod database;
mod error;
mod jose;
mod limits;
mod metrics;
mod observe;
mod request;
mod response;
mod routes;
mod serve;
mod smart;

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
