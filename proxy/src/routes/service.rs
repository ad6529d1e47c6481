//! The endpoints for monitoring: health and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::database::pool::Health;
use crate::request::parse::JSON;
use crate::response::{Said, respond};

/// Returns whether requests can be served.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let (code, status) = match app.pool.health().await {
        Health::Good => (StatusCode::OK, "ok"),
        Health::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached"),
        Health::NoLogin => (StatusCode::SERVICE_UNAVAILABLE, "the user of --database cannot log in"),
        Health::NoExtension => (StatusCode::SERVICE_UNAVAILABLE, "the database has no extension fhir_bulk"),
    };
    let mut response = respond(code, JSON[0], format!(r#"{{"status": "{status}"}}"#));
    response.extensions_mut().insert(Said);
    response
}

/// Returns the metrics for Prometheus.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.text(app.pool.counts())).into_response()
}
