//! Opens connections, and runs the first queries on a new one.

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::error::printable;

/// The server's address and the database's name, without user and password.
pub fn copy_target(from: &tokio_postgres::Config, to: &mut tokio_postgres::Config) {
    for host in from.get_hosts() {
        match host {
            tokio_postgres::config::Host::Tcp(name) => to.host(name),
            tokio_postgres::config::Host::Unix(path) => to.host_path(path),
        };
    }
    for address in from.get_hostaddrs() {
        to.hostaddr(*address);
    }
    for port in from.get_ports() {
        to.port(*port);
    }
    if let Some(name) = from.get_dbname() {
        to.dbname(name);
    }
    if let Some(time) = from.get_connect_timeout() {
        to.connect_timeout(*time);
    }
    to.ssl_mode(from.get_ssl_mode());
}

pub async fn connect(
    config: &tokio_postgres::Config,
) -> std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = printable(&error.to_string()), "a connection to the database ended");
        }
    });
    Ok((client, driver))
}

/// Whether the role that logged in has attributes that give it more rights than its grants.
pub async fn is_privileged(client: &Client) -> std::result::Result<bool, tokio_postgres::Error> {
    let query = "SELECT r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication FROM pg_catalog.pg_roles r \
         WHERE r.rolname OPERATOR(pg_catalog.=) session_user";
    Ok(client.query_typed_opt(query, &[]).await?.is_none_or(|row| row.get(0)))
}

/// The extension's schema, quoted, if the database has the extension.
pub async fn find_extension(client: &Client) -> std::result::Result<Option<String>, tokio_postgres::Error> {
    let query = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace \
         WHERE e.extname OPERATOR(pg_catalog.=) 'fhir_bulk'";
    Ok(client.query_typed_opt(query, &[]).await?.map(|row| row.get(0)))
}
