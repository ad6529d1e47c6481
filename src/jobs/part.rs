//! The part of a task that another server does: a job of that server's own queue, which it is asked for as by any client of
//! the task's owner. So it has the owner's rights there and no others, survives the ends of both servers, and is shown
//! and ended as every job.
//!
//! A part has an id that nobody else chooses. Whoever asks for it stores the id first, and then that the other server has
//! it: so it is asked for again after any crash, and never done twice.

use crate::citus::{self, Node, literal};
use crate::extension;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};

/// How long a server may refuse the owner's connections, and take the superuser's, before the part fails.
const MOST_REFUSED: Duration = Duration::from_secs(10);

/// A part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The server that has it.
    pub node: Node,
    /// Its id there.
    pub id: String,
    /// Whether that server has it.
    pub begun: bool,
    /// Since when that server refuses the owner.
    #[serde(skip)]
    refused: Option<Instant>,
}

/// The functions of a kind of jobs.
pub struct Functions {
    /// Its name in `bulk_jobs`.
    pub kind: &'static str,
    /// Waits for the end of a job, by its id, at most so many seconds, and returns its status.
    pub wait: &'static str,
    /// Ends a job, by its id.
    pub cancel: &'static str,
}

impl Part {
    /// A part that its server does not have yet.
    pub fn new(node: Node, id: String) -> Part {
        Part { node, id, begun: false, refused: None }
    }

    /// Asks the server for it, unless it has it. `call` is the call of a function of the extension, without its schema.
    ///
    /// # Errors
    /// The errors of [`Node::ask`], and those of the function there.
    pub fn begin(&mut self, functions: &Functions, settings: &[(String, String)], call: &str) -> Result<()> {
        let (schema, is_there) = (extension::schema(), self.is_there(functions));
        let added = self.ask(settings, &format!("CASE WHEN {is_there} THEN '' ELSE {schema}.{call} END"));
        match added {
            Ok(_) => Ok(()),
            // An earlier worker may have asked, and its transaction there have ended only now.
            Err(error) => match self.asked(functions, settings, 0) {
                Ok(Some(_)) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Its status, when it has ended or so many seconds have passed.
    ///
    /// # Errors
    /// 55000 if the server is none of the cluster's any more, or does not know the part; 28000 if it refuses the owner; as for
    /// [`Node::ask`].
    pub fn wait(&mut self, functions: &Functions, settings: &[(String, String)], seconds: u32) -> Result<Value> {
        if !citus::nodes().contains(&self.node) {
            return Err(self.lost("is no longer a node of the cluster"));
        }
        let status = self.asked(functions, settings, seconds)?;
        status.ok_or_else(|| self.lost("does not know its part of the job any more"))
    }

    /// Ends it, if its server has it.
    ///
    /// # Errors
    /// As for [`Node::ask`].
    pub fn cancel(&mut self, functions: &Functions, settings: &[(String, String)]) -> Result<()> {
        let call = format!("{}.{}({})", extension::schema(), functions.cancel, literal(&self.id));
        self.ask(settings, &call).map(|_| ())
    }

    /// Its status, if its server has it.
    fn asked(&mut self, functions: &Functions, settings: &[(String, String)], seconds: u32) -> Result<Option<Value>> {
        let (schema, id, is_there) = (extension::schema(), literal(&self.id), self.is_there(functions));
        let expression =
            format!("CASE WHEN {is_there} THEN {schema}.{}({id}, {seconds})::pg_catalog.text END", functions.wait);
        let answer = self.ask(settings, &expression)?;
        if answer.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&answer).map(Some).map_err(|_| {
            let message = format!("node {} gave no status of \"{}\"", self.node, self.id);
            Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message)
        })
    }

    /// Whether its server has it, as an expression there.
    fn is_there(&self, functions: &Functions) -> String {
        format!(
            "EXISTS (SELECT FROM {}.bulk_jobs j WHERE j.kind OPERATOR(pg_catalog.=) '{}' \
             AND j.id OPERATOR(pg_catalog.=) {})",
            extension::schema(),
            functions.kind,
            literal(&self.id)
        )
    }

    fn ask(&mut self, settings: &[(String, String)], expression: &str) -> Result<String> {
        let answer = self.node.ask(settings, expression);
        let is_refused = answer.as_ref().is_err_and(Error::is_of_server_away)
            && session::as_bootstrap_superuser(|| self.node.run("SELECT 1").is_ok());
        if !is_refused {
            self.refused = None;
            return answer;
        }
        if self.refused.get_or_insert_with(Instant::now).elapsed() < MOST_REFUSED {
            return answer;
        }
        let role = session::role_name();
        let message = format!("node {} refuses the connections of role \"{}\"", self.node, role.to_string_lossy());
        Err(Error::new(PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, message)
            .hint("pg_dist_authinfo, or the password file of this server, must have what the node asks of the role."))
    }

    fn lost(&self, how: &str) -> Error {
        Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("node {} {how}: what it has stored stays, and nobody stores the rest", self.node),
        )
        .hint("Start the job again when the cluster is as it shall be.")
    }
}

/// Those of a job's settings that any role may set, for another server: it has its own of the others.
pub fn settings_elsewhere(settings: &Map<String, Value>) -> Vec<(String, String)> {
    let names = Parameter::strings(settings.keys().map(String::as_bytes));
    let query = c"SELECT s.name FROM pg_settings s WHERE s.context <> 'user' AND lower(s.name) = ANY \
        (SELECT lower(n) FROM unnest($1) n)";
    let of_server = spi::catalog_texts(query, &[names]);
    let is_own = |name: &String| !of_server.iter().any(|of_server| of_server.eq_ignore_ascii_case(name));
    let all = settings.iter().filter(|(name, _)| is_own(name));
    all.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}
