//! A request's transaction: it begins as the caller, commits at its end, and is cancelled if the request is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::{SinkExt as _, Stream, StreamExt as _, stream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, CopyInSink, Row, RowStream};

use crate::caller::auth::Caller;
use crate::database::pool::Connection;
use crate::error::{Blame, Problem, Result};

/// Whether a transaction may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may not write, even if the role may.
    ReadOnly,
    /// It may write what the role may write.
    ReadWrite,
}

/// An argument of a function with its type.
pub type Argument<'a> = (&'a (dyn ToSql + Sync), Type);

/// A transaction. If it is dropped before its commit, its running query is cancelled, and it is rolled back.
pub struct Session {
    connection: Option<Connection>,
    blame: Blame,
    /// Whether a query may be running.
    is_busy: AtomicBool,
}

impl Session {
    /// Begins a transaction as `caller`. The session's application_name has the request's id, and signed URLs start with
    /// `files_url`.
    ///
    /// # Errors
    /// 403 if the proxy's user may not switch to the role; 503.
    pub async fn begin(
        connection: Connection,
        caller: &Caller,
        access: Access,
        blame: Blame,
        request_id: &str,
        files_url: &str,
    ) -> Result<Session> {
        let session = Session { connection: Some(connection), blame, is_busy: AtomicBool::new(true) };
        let begin = match access {
            Access::ReadOnly => "BEGIN READ ONLY",
            Access::ReadWrite => "BEGIN READ WRITE",
        };
        let client = session.connection().client();
        if matches!(caller, Caller::Assumed { role, .. } if role == "none") {
            // SET ROLE none would keep the session's user.
            session.is_busy.store(false, Relaxed);
            return Err(unusable().because("SET ROLE none"));
        }
        client.batch_execute(begin).await.map_err(Problem::unavailable)?;
        let tablespaces = match caller {
            Caller::Assumed { role, .. } => take_on_settings(client, role).await?,
            _ => Vec::new(),
        };
        let name = format!("fhir_bulk_proxy {request_id}");
        // The role comes last: the user who logged in sets the settings before it.
        let set = "SELECT pg_catalog.set_config('application_name', $1, true), \
             pg_catalog.set_config('fhir_bulk.export_url', $2, true)";
        let set_caller = "SELECT pg_catalog.set_config('application_name', $1, true), \
             pg_catalog.set_config('fhir_bulk.export_url', $2, true), \
             pg_catalog.set_config('request.jwt.claims', $3, true), pg_catalog.set_config('role', $4, true)";
        let mut values = vec![(&name as &(dyn ToSql + Sync), Type::TEXT), (&files_url, Type::TEXT)];
        match caller {
            Caller::Login { .. } | Caller::Own(_) | Caller::Download(_) => client.query_typed(set, &values).await,
            Caller::Assumed { role, claims } => {
                values.extend([(claims as &(dyn ToSql + Sync), Type::TEXT), (role, Type::TEXT)]);
                client.query_typed(set_caller, &values).await
            }
        }
        .map_err(|error| match error.as_db_error() {
            Some(_) => unusable().because(format!("SET ROLE \"{}\": {error:?}", caller.role())),
            None => Problem::unavailable(error),
        })?;
        for (name, value) in tablespaces {
            take_on_tablespaces(client, &name, &value).await.map_err(Problem::unavailable)?;
        }
        session.is_busy.store(false, Relaxed);
        Ok(session)
    }

    /// Calls one of the extension's functions, `name($1, …)`, and returns its value. NULL is "null", as in JSON.
    ///
    /// # Errors
    /// The errors of the function.
    pub async fn value(&self, call: &str, arguments: &[Argument<'_>]) -> Result<String> {
        let query = format!("SELECT {}.{call}::pg_catalog.text", self.connection().schema());
        self.is_busy.store(true, Relaxed);
        let row = self.connection().client().query_typed_one(&query, arguments).await;
        self.is_busy.store(false, Relaxed);
        let row = row.map_err(|error| Problem::of_statement(&error, self.blame))?;
        Ok(row.get::<_, Option<String>>(0).unwrap_or_else(|| "null".into()))
    }

    /// Calls a function that returns one row. Returns the first column, a bytea, without a copy, and the whole row.
    ///
    /// # Errors
    /// The errors of the function.
    pub async fn bytes_and_more(
        &self,
        columns: &str,
        call: &str,
        arguments: &[Argument<'_>],
    ) -> Result<(Bytes, Arc<Row>)> {
        let query = format!("SELECT {columns} FROM {}.{call}", self.connection().schema());
        self.is_busy.store(true, Relaxed);
        let row = self.connection().client().query_typed_one(&query, arguments).await;
        self.is_busy.store(false, Relaxed);
        let row = Arc::new(row.map_err(|error| Problem::of_statement(&error, self.blame))?);
        Ok((piece(row.clone()), row))
    }

    /// Calls a function without arguments, and returns its rows.
    ///
    /// # Errors
    /// The errors of the function.
    pub async fn values(&self, call: &str) -> Result<Vec<String>> {
        self.is_busy.store(true, Relaxed);
        let query = format!("SELECT {}.{call}::pg_catalog.text", self.connection().schema());
        let rows = self.connection().client().query_typed(&query, &[]).await.map_err(|error| self.failed(&error))?;
        self.is_busy.store(false, Relaxed);
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Calls a function without arguments, and returns its rows as JSON objects.
    ///
    /// # Errors
    /// The errors of the function.
    pub async fn objects(&self, call: &str) -> Result<Vec<serde_json::Value>> {
        self.is_busy.store(true, Relaxed);
        let query =
            format!("SELECT pg_catalog.to_jsonb(r)::pg_catalog.text FROM {}.{call} AS r", self.connection().schema());
        let rows = self.connection().client().query_typed(&query, &[]).await.map_err(|error| self.failed(&error))?;
        self.is_busy.store(false, Relaxed);
        let object = |row: &Row| serde_json::from_str(row.get(0)).map_err(Problem::unavailable);
        rows.iter().map(object).collect()
    }

    /// The rows of a query on the extension's relations as JSON objects. In its text `{schema}` stands for their schema.
    ///
    /// # Errors
    /// The errors of the query.
    pub async fn objects_where(&self, query: &str, arguments: &[Argument<'_>]) -> Result<Vec<serde_json::Value>> {
        let rows = query.replace("{schema}", self.connection().schema());
        let query = format!("SELECT pg_catalog.to_jsonb(r)::pg_catalog.text FROM ({rows}) AS r");
        self.is_busy.store(true, Relaxed);
        let rows = self.connection().client().query_typed(&query, arguments).await;
        let rows = rows.map_err(|error| self.failed(&error))?;
        self.is_busy.store(false, Relaxed);
        let object = |row: &Row| serde_json::from_str(row.get(0)).map_err(Problem::unavailable);
        rows.iter().map(object).collect()
    }

    /// The value of a setting in the session.
    ///
    /// # Errors
    /// 503.
    pub async fn setting(&self, name: &str) -> Result<String> {
        self.is_busy.store(true, Relaxed);
        let query = "SELECT pg_catalog.current_setting($1)";
        let row = self.connection().client().query_typed_one(query, &[(&name, Type::TEXT)]).await;
        self.is_busy.store(false, Relaxed);
        Ok(row.map_err(|error| Problem::of_statement(&error, self.blame))?.get(0))
    }

    /// Changes a setting for this transaction.
    ///
    /// # Errors
    /// 503.
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        self.is_busy.store(true, Relaxed);
        let query = "SELECT pg_catalog.set_config($1, $2, true)";
        let done = self.connection().client().query_typed(query, &[(&name, Type::TEXT), (&value, Type::TEXT)]).await;
        self.is_busy.store(false, Relaxed);
        done.map_err(|error| Problem::of_statement(&error, self.blame)).map(drop)
    }

    /// Calls a function whose rows are chunks of a body. The rows arrive only as fast as they are read: if the client does
    /// not read, the server stops sending, and then stops working.
    ///
    /// # Errors
    /// The errors before the first row. A later error ends the stream.
    pub async fn pieces(self, call: &str, arguments: &[Argument<'_>]) -> Result<Pieces> {
        let query = format!("SELECT {}.{call}", self.connection().schema());
        self.is_busy.store(true, Relaxed);
        let rows = self.connection().client().query_typed_raw(&query, arguments.iter().map(|(v, t)| (*v, t.clone())));
        let mut rows = Box::pin(rows.await.map_err(|error| self.failed(&error))?);
        let Some(first) = rows.next().await else {
            self.commit().await?;
            return Ok(stream::empty().boxed());
        };
        let first = first.map_err(|error| self.failed(&error))?;
        let rest = stream::try_unfold(Some((rows, self)), next_piece);
        Ok(stream::once(async { Ok(piece(first)) }).chain(rest).boxed())
    }

    /// Starts a COPY into one of the extension's relations, with options in SQL. If it is dropped before its end, none of
    /// its rows is stored.
    ///
    /// # Errors
    /// The errors of the statement.
    pub async fn copy_in(&self, relation: &str, options: &str) -> Result<Copy<'_>> {
        // Without the library, which may not be loaded yet, PostgreSQL does not know the formats.
        self.value("bulk_load_result()", &[]).await?;
        let statement = format!("COPY {}.{relation} FROM STDIN ({options})", self.connection().schema());
        self.is_busy.store(true, Relaxed);
        // If a COPY does not begin, the driver ends its messages once too often and loses the order of messages. So the
        // connection counts as busy, and is closed with the session.
        let sink = self.connection().client().copy_in(&statement).await;
        let sink = sink.map_err(|error| Problem::of_statement(&error, self.blame))?;
        Ok(Copy { session: self, sink: Box::pin(sink) })
    }

    /// Commits the transaction and returns the connection to the pool.
    ///
    /// # Errors
    /// The errors of deferred constraints and triggers.
    pub async fn commit(mut self) -> Result<()> {
        *self.is_busy.get_mut() = true;
        let result = self.connection().client().batch_execute("COMMIT").await;
        *self.is_busy.get_mut() = false;
        result.map_err(|error| Problem::of_statement(&error, self.blame))?;
        if let Some(connection) = self.connection.take() {
            connection.put_back("");
        }
        Ok(())
    }

    /// Makes a problem of an error that ended a query's rows. The query has ended, too.
    fn failed(&self, error: &tokio_postgres::Error) -> Problem {
        self.is_busy.store(false, Relaxed);
        Problem::of_statement(error, self.blame)
    }

    /// Its connection.
    pub fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("held until commit, which consumes the session")
    }
}

/// A COPY … FROM STDIN of a session.
pub struct Copy<'a> {
    session: &'a Session,
    sink: Pin<Box<CopyInSink<Bytes>>>,
}

impl Copy<'_> {
    /// Sends bytes, as fast as the server takes them.
    ///
    /// # Errors
    /// 503 if the connection is lost.
    pub async fn send(&mut self, bytes: Bytes) -> Result<()> {
        self.sink.send(bytes).await.map_err(Problem::unavailable)
    }

    /// Ends the data, and waits until all of it is loaded.
    ///
    /// # Errors
    /// The errors of the load.
    pub async fn finish(mut self) -> Result<()> {
        let done = self.sink.as_mut().finish().await;
        done.map_err(|error| self.session.failed(&error))?;
        self.session.is_busy.store(false, Relaxed);
        Ok(())
    }
}

fn unusable() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "the credentials stand for a role that cannot be used")
}

/// PostgreSQL applies ALTER ROLE … SET when a role logs in, but not at SET ROLE. So this statement applies those settings
/// for the transaction. Settings for this database override those for all. It leaves out settings that only superusers may
/// set, those that the connection itself has set (such as its encoding), and those about roles and transactions, which are
/// set for each request. It returns settings about tablespaces and does not set them.
const SETTINGS_OF_ROLE: &str = "\
    SELECT own.name, own.value, CASE WHEN own.name OPERATOR(pg_catalog.<>) ALL (ARRAY['temp_tablespaces', \
            'default_tablespace']) THEN pg_catalog.set_config(own.name, own.value, true) END FROM ( \
        SELECT DISTINCT ON (part.name) part.name, part.value FROM pg_catalog.pg_db_role_setting s \
        CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS line \
        CROSS JOIN LATERAL (SELECT pg_catalog.split_part(line, '=', 1) AS name, \
            pg_catalog.substr(line, pg_catalog.strpos(line, '=') OPERATOR(pg_catalog.+) 1) AS value) AS part \
        WHERE s.setrole OPERATOR(pg_catalog.=) \
            (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) $1) \
        AND (s.setdatabase OPERATOR(pg_catalog.=) 0 OR s.setdatabase OPERATOR(pg_catalog.=) (SELECT d.oid \
            FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())) \
        ORDER BY part.name, s.setdatabase DESC) AS own \
    LEFT JOIN pg_catalog.pg_settings known \
        ON pg_catalog.lower(known.name) OPERATOR(pg_catalog.=) pg_catalog.lower(own.name) \
    WHERE CASE WHEN known.name IS NULL THEN pg_catalog.strpos(own.name, '.') OPERATOR(pg_catalog.>) 0 \
        ELSE known.context OPERATOR(pg_catalog.=) 'user' AND known.source OPERATOR(pg_catalog.<>) 'client' END \
    AND own.name OPERATOR(pg_catalog.<>) ALL (ARRAY['role', 'session_authorization', 'transaction_isolation', \
        'transaction_read_only', 'transaction_deferrable'])";

/// Applies the role's settings. Returns the names and values of those about tablespaces.
///
/// # Errors
/// 500 for a setting that cannot be applied: without it the role might get a wrong answer.
async fn take_on_settings(client: &Client, role: &str) -> Result<Vec<(String, String)>> {
    let set = client.query_typed(SETTINGS_OF_ROLE, &[(&role, Type::TEXT)]).await;
    let rows = set.map_err(|error| match error.as_db_error() {
        Some(error) => {
            let message = "the settings of this role cannot be applied; the log of the proxy says why";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message).because(format!(
                "ALTER ROLE \"{role}\" SET …: {}: {}",
                error.code().code(),
                error.message()
            ))
        }
        None => Problem::unavailable(error),
    })?;
    let left = rows.iter().filter(|row| row.get::<_, Option<&str>>(2).is_none());
    Ok(left.map(|row| (row.get(0), row.get(1))).collect())
}

/// Sets tablespaces as the role, so that the server checks its rights. Like a login, this ignores tablespaces that no longer
/// exist, or that the role may not use.
async fn take_on_tablespaces(
    client: &Client,
    name: &str,
    value: &str,
) -> std::result::Result<(), tokio_postgres::Error> {
    client.batch_execute("SAVEPOINT tablespaces").await?;
    let set = "SELECT pg_catalog.set_config($1, $2, true)";
    let end = match client.query_typed(set, &[(&name, Type::TEXT), (&value, Type::TEXT)]).await {
        Ok(_) => "RELEASE tablespaces",
        Err(error) if error.as_db_error().is_some() => "ROLLBACK TO tablespaces; RELEASE tablespaces",
        Err(error) => return Err(error),
    };
    client.batch_execute(end).await
}

impl Drop for Session {
    fn drop(&mut self) {
        match self.connection.take() {
            Some(connection) if *self.is_busy.get_mut() => connection.cancel(),
            Some(connection) => connection.put_back("ROLLBACK"),
            None => {}
        }
    }
}

/// The chunks of a body. An error means that the body is incomplete.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

type Running = Option<(Pin<Box<RowStream>>, Session)>;

async fn next_piece(running: Running) -> Result<Option<(Bytes, Running)>> {
    let Some((mut rows, session)) = running else { return Ok(None) };
    match rows.next().await {
        Some(Ok(row)) => Ok(Some((piece(row), Some((rows, session))))),
        Some(Err(error)) => {
            // Wait until hyper has sent the chunks before: it drops its buffer when a body fails.
            tokio::task::yield_now().await;
            Err(session.failed(&error))
        }
        None => session.commit().await.map(|()| None),
    }
}

/// The row's only column, without a copy.
fn piece(row: impl Into<Arc<Row>>) -> Bytes {
    struct Column(Arc<Row>);
    impl AsRef<[u8]> for Column {
        fn as_ref(&self) -> &[u8] {
            self.0.get::<_, Option<&[u8]>>(0).unwrap_or_default()
        }
    }
    Bytes::from_owner(Column(row.into()))
}
