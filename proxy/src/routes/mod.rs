//! The endpoints. Each handler calls one SQL function, and does nothing that the function can do.

mod callers;
mod dumps;
mod exports;
mod files;
mod import_statuses;
mod imports;
mod jobs;
mod loads;
mod manifests;
mod pages;
mod reads;
mod rejects;
mod rpc;
mod runs;
mod service;
mod smart;
mod sql_exports;
mod submissions;
mod ui;
mod upload;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::http::Uri;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};

use crate::app::App;
use crate::observe;
use crate::request::call::Call;
use crate::request::need::Need::{self, Closed, OfAll, OfSome, OfType, Open, OwnJob, Submit};
use crate::request::sql_export::Operation::{SqlExport, ViewExport};
use crate::request::sql_run::Operation::{SqlRun, ViewRun};
use crate::smart::scopes::Permissions;
use exports::Level;
use import_statuses::Shape;

/// Routes, each with what it asks of tokens with scopes.
struct Routes(Router<Arc<App>>);

impl Routes {
    fn route(self, path: &str, need: Need, methods: MethodRouter<Arc<App>>) -> Routes {
        // The layer tells the request, before its handler is called.
        Routes(self.0.route(path, methods.layer(Extension(need))))
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Routes(Router::new())
        .route("/{type}/$dump", OfType(Permissions::READ_ALL), get(dumps::dump))
        .route("/{type}/$dump-csv", OfType(Permissions::READ_ALL), get(dumps::dump_csv))
        .route("/$dump-sql", Closed, post(dumps::dump_sql))
        .route("/$load", OfAll(Permissions::LOAD), post(|call: Call, body: Body| loads::load(call, None, false, body)))
        .route(
            "/fhir/$load",
            OfAll(Permissions::LOAD),
            post(|call: Call, body: Body| loads::load(call, None, true, body)),
        )
        .route(
            "/{type}/$load",
            OfType(Permissions::LOAD),
            post(|call: Call, Path(name), body: Body| loads::load(call, Some(name), false, body)),
        )
        .route(
            "/fhir/{type}/$load",
            OfType(Permissions::LOAD),
            post(|call: Call, Path(name), body: Body| loads::load(call, Some(name), true, body)),
        )
        .route(
            "/$import",
            OfSome(Permissions::LOAD),
            post(|call: Call, body: Body| imports::import(call, Shape::V1, false, body)),
        )
        .route(
            "/fhir/$import",
            OfSome(Permissions::LOAD),
            post(|call: Call, body: Body| imports::import(call, Shape::V1, true, body)),
        )
        .route(
            "/BulkImportStatus/{id}",
            OwnJob,
            get(|call: Call, id: Path<String>| imports::status(call, Shape::V1, id)).delete(imports::cancel),
        )
        .route(
            "/v2/$import",
            OfSome(Permissions::LOAD),
            get(imports::list).post(|call: Call, body: Body| imports::import(call, Shape::V2, false, body)),
        )
        .route(
            "/v2/fhir/$import",
            OfSome(Permissions::LOAD),
            post(|call: Call, body: Body| imports::import(call, Shape::V2, true, body)),
        )
        .route(
            "/v2/$import/{id}",
            OwnJob,
            get(|call: Call, id: Path<String>| imports::status(call, Shape::V2, id)).delete(imports::cancel),
        )
        .route("/rpc", Closed, post(rpc::call))
        .route("/$bulk/export", Closed, post(exports::identifiers))
        .route("/api/v2/spp/$bulk/export", Closed, post(exports::identifiers))
        .route("/fhir/metadata", Open, get(exports::metadata))
        .route("/fhir/.well-known/smart-configuration", Open, get(smart::configuration))
        .route("/auth/token", Open, post(smart::token))
        .route(
            "/fhir/$export",
            OfSome(Permissions::READ_ALL),
            get(|call: Call, uri: Uri| exports::kick_off(call, Level::System, uri))
                .head(exports::no_head)
                .post(|call: Call, body: Body| exports::kick_off_by_parameters(call, Level::System, body)),
        )
        .route(
            "/fhir/Patient/$export",
            OfSome(Permissions::READ_ALL),
            get(|call: Call, uri: Uri| exports::kick_off(call, Level::Patient, uri))
                .head(exports::no_head)
                .post(|call: Call, body: Body| exports::kick_off_by_parameters(call, Level::Patient, body)),
        )
        .route(
            "/fhir/Group/{id}/$export",
            OfSome(Permissions::READ_ALL),
            get(|call: Call, Path(id), uri: Uri| exports::kick_off(call, Level::Group(id), uri))
                .head(exports::no_head)
                .post(|call: Call, Path(id), body: Body| exports::kick_off_by_parameters(call, Level::Group(id), body)),
        )
        .route(
            "/fhir/$export-v4",
            OfSome(Permissions::READ_ALL),
            post(|call: Call, body: Body| exports::kick_off_v4(call, Level::System, body)),
        )
        .route(
            "/fhir/Patient/$export-v4",
            OfSome(Permissions::READ_ALL),
            post(|call: Call, body: Body| exports::kick_off_v4(call, Level::Patient, body)),
        )
        .route(
            "/fhir/Group/{id}/$export-v4",
            OfSome(Permissions::READ_ALL),
            post(|call: Call, Path(id), body: Body| exports::kick_off_v4(call, Level::Group(id), body)),
        )
        .route("/fhir/$export-status/{id}", OwnJob, get(exports::status).delete(exports::delete))
        .route(
            "/fhir/$sql-run",
            OfSome(Permissions::READ_ALL),
            get(|call: Call| runs::run(call, SqlRun))
                .post(|call: Call, body: Body| runs::run_by_parameters(call, SqlRun, body)),
        )
        .route(
            "/fhir/$viewdefinition-run",
            OfSome(Permissions::READ_ALL),
            get(|call: Call| runs::run(call, ViewRun))
                .post(|call: Call, body: Body| runs::run_by_parameters(call, ViewRun, body)),
        )
        .route(
            "/fhir/ViewDefinition/$run",
            OfSome(Permissions::READ_ALL),
            get(|call: Call| runs::run(call, ViewRun))
                .post(|call: Call, body: Body| runs::run_by_parameters(call, ViewRun, body)),
        )
        .route(
            "/fhir/ViewDefinition/{id}/$run",
            OfSome(Permissions::READ_ALL),
            get(runs::run_stored).post(runs::run_stored_by_parameters),
        )
        .route(
            "/fhir/$sql-export",
            OfSome(Permissions::READ_ALL),
            post(|call: Call, body: Body| sql_exports::kick_off(call, SqlExport, body)).fallback(sql_exports::no_other),
        )
        .route(
            "/fhir/$viewdefinition-export",
            OfSome(Permissions::READ_ALL),
            post(|call: Call, body: Body| sql_exports::kick_off(call, ViewExport, body))
                .fallback(sql_exports::no_other),
        )
        .route("/fhir/$sql-export-status/{id}", OwnJob, get(sql_exports::status).delete(exports::delete))
        .route("/fhir/$sql-export-result/{id}", OwnJob, get(sql_exports::result))
        .route("/fhir/$bulk-submit", Submit, post(submissions::submit))
        .route("/fhir/$bulk-submit-status", Submit, post(submissions::ask))
        .route("/fhir/$bulk-submit-status/{id}", Submit, get(submissions::poll).delete(submissions::forget))
        .route("/fhir/$bulk-submit-outcomes/{id}/{file}", Submit, get(submissions::outcomes))
        .route("/fhir/{type}/{id}", OfType(Permissions::READ), get(reads::read))
        .route("/v1/bulk/export", Closed, post(exports::start_single))
        .route("/v1/bulk/jobs/{id}", Closed, get(exports::job))
        .route("/export/{job}/{file}", Open, get(files::file))
        .route("/caller", OwnJob, get(callers::caller))
        .route("/jobs", OwnJob, get(jobs::list))
        .route("/jobs/{id}", OwnJob, get(jobs::one))
        .route("/rejects", Closed, get(rejects::list))
        .route("/types", OfSome(Permissions::READ_ALL), get(callers::types))
        .route("/types/{type}", OfType(Permissions::READ_ALL), get(callers::count))
        .route("/ui", Open, get(ui::page))
        .route("/ui/{file}", Open, get(ui::file))
        .route("/health", Open, get(service::health))
        .route("/metrics", Open, get(service::metrics))
        .0
        .layer(axum::middleware::from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// `GET /health` and so on, read from the calls in this file's own text.
    fn served() -> BTreeSet<String> {
        let source = include_str!("mod.rs");
        let router = source.split("pub fn router").nth(1).unwrap().split("#[cfg(test)]").next().unwrap();
        let calls = router.split(".route(").skip(1);
        let routes = calls.flat_map(|call| {
            let path = call.split('"').nth(1).unwrap().to_owned();
            let serves = move |method: &&str| call.contains(&format!("{}(", method.to_lowercase()));
            ["GET", "POST", "DELETE"].into_iter().filter(serves).map(move |method| format!("{method} {path}"))
        });
        routes.collect()
    }

    #[test]
    fn the_documented_routes_are_those_that_are_served() {
        let page = include_str!("../../../docs/http.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let documented: BTreeSet<String> = rows
            .filter(|(methods, _)| methods.split(", ").all(|method| ["GET", "POST", "DELETE"].contains(&method)))
            .flat_map(|(methods, rest)| {
                let paths = rest.split(" | ").next().unwrap().split('`').skip(1).step_by(2);
                paths.flat_map(|path| methods.split(", ").map(move |method| format!("{method} {path}")))
            })
            .collect();
        assert!(documented.len() > 20, "{documented:?}");
        assert_eq!(documented, served());
    }
}
