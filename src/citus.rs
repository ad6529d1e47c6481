//! Citus, if the database has it: which tables it distributes to other servers, and how it is asked to.

use fhir_bulk_pg::catalog;
use fhir_bulk_pg::error::{Error, Result};
#[cfg(doc)]
use fhir_bulk_pg::session;
use fhir_bulk_pg::spi::{self, Parameter};
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::fmt;

/// Whether the database has Citus.
pub fn is_here() -> bool {
    has(c"pg_dist_partition")
}

/// Whether Citus distributes a table. Then only a shell of it is here, without rows.
pub fn is_distributed(table: pg_sys::Oid) -> bool {
    let query = c"SELECT 'yes' FROM pg_dist_partition WHERE logicalrelid = $1";
    is_here() && !spi::catalog_texts(query, &[Parameter::oid(table)]).is_empty()
}

/// The column by whose value Citus finds the shard of a row. `None` for tables that it does not distribute, and for those
/// that it does not cut, such as reference tables.
pub fn distribution_column(table: pg_sys::Oid) -> Option<String> {
    if !is_distributed(table) {
        return None;
    }
    let query = c"SELECT column_to_column_name(logicalrelid, partkey) FROM pg_dist_partition WHERE logicalrelid = $1";
    spi::catalog_texts(query, &[Parameter::oid(table)]).pop()
}

/// How many bytes the shards of a distributed table have, on all servers; `None` of another table.
pub fn bytes(table: pg_sys::Oid) -> Option<u64> {
    if !is_distributed(table) {
        return None;
    }
    spi::catalog_texts(c"SELECT citus_table_size($1)", &[Parameter::oid(table)]).pop()?.parse().ok()
}

/// Whether Citus may have the rows of two tables on different servers. It cannot join such tables in every query.
pub fn are_apart(table: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    let query = c"SELECT 'yes' FROM pg_dist_partition t WHERE t.logicalrelid = $1 AND t.colocationid = \
        (SELECT o.colocationid FROM pg_dist_partition o WHERE o.logicalrelid = $2)";
    let is_together = || !spi::catalog_texts(query, &[Parameter::oid(table), Parameter::oid(other)]).is_empty();
    (is_distributed(table) || is_distributed(other)) && !is_together()
}

/// The coordinator, if this server is one of Citus's workers.
///
/// # Errors
/// 55000 if this worker does not know it.
pub fn coordinator_of_worker() -> Result<Option<Node>> {
    if !is_worker() {
        return Ok(None);
    }
    let found = spi::catalog_texts(c"SELECT concat(nodeport, ' ', nodename) FROM pg_dist_node WHERE groupid = 0", &[]);
    found.first().and_then(|text| Node::read(text)).map(Some).ok_or_else(|| {
        let message = "this server is a worker of Citus, and does not know its coordinator";
        Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("On the coordinator: SELECT citus_set_coordinator_host('…');")
    })
}

/// Whether this server is one of Citus's workers, and not the coordinator.
pub fn is_worker() -> bool {
    group() != 0
}

/// The number of this server's group; that of the coordinator, 0, without Citus.
pub fn group() -> i32 {
    if !has(c"pg_dist_local_group") {
        return 0;
    }
    let found = spi::catalog_texts(c"SELECT groupid FROM pg_dist_local_group", &[]);
    found.first().and_then(|group| group.parse().ok()).unwrap_or(0)
}

/// A text as a literal in a statement for another server.
pub fn literal(text: &str) -> String {
    // With a backslash it must not depend on standard_conforming_strings there.
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A server of a cluster of Citus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Node {
    /// Reads `<port> <host>`.
    fn read(text: &str) -> Option<Node> {
        let (port, host) = text.split_once(' ')?;
        Some(Node { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// The value of an expression there, as text; empty for NULL. It is computed under these settings, names and values.
    ///
    /// # Errors
    /// As for [`Node::run`].
    pub fn ask(&self, settings: &[(String, String)], expression: &str) -> Result<String> {
        if settings.is_empty() {
            return self.run(&format!("SELECT {expression}"));
        }
        let set = settings
            .iter()
            .map(|(name, value)| format!("pg_catalog.set_config({}, {}, true)", literal(name), literal(value)));
        // The settings first: a row of them is what the expression is computed for.
        let set = format!("pg_catalog.concat({}, 'x')", set.collect::<Vec<_>>().join(", "));
        self.run(&format!(
            "WITH s AS MATERIALIZED (SELECT {set} AS a) SELECT {expression} FROM s WHERE s.a IS NOT NULL"
        ))
    }

    /// Runs a statement there as the current role, in a transaction of its own: by a connection of Citus's, which uses what
    /// `pg_dist_authinfo` or the server's password file has for the role. Returns the only value of its only row as text, or
    /// empty.
    ///
    /// # Errors
    /// Class 08 if it cannot be reached, or ends meanwhile; 42501 if the role lacks a right there; 38000 for other errors of
    /// it. All name the node.
    pub fn run(&self, statement: &str) -> Result<String> {
        // Not in parallel: that looks for an answer every few milliseconds, and this waits for it.
        let query = c"SELECT concat(CASE WHEN success THEN '+' ELSE '-' END, result) \
            FROM master_run_on_worker(ARRAY[$1], ARRAY[$2], ARRAY[$3], false)";
        let parameters =
            [Parameter::string(&self.host), Parameter::int4(self.port.into()), Parameter::string(statement)];
        let answers = spi::catalog_texts(query, &parameters);
        let answer = answers.first().map_or("-", String::as_str);
        match answer.strip_prefix('+') {
            Some(value) => Ok(value.to_owned()),
            None => Err(self.failed(&answer[1..])),
        }
    }

    /// The error for what Citus says of a statement that failed there: its first line.
    fn failed(&self, said: &str) -> Error {
        let of_connection =
            ["failed to ", "connection ", "query result unavailable", "FATAL:", "server closed", "SSL "];
        let (code, message) = match said.split_once("ERROR:") {
            Some(("", reason)) if reason.contains("permission denied") || reason.contains("must be ") => {
                (PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, reason.trim())
            }
            Some(("", reason)) => (PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, reason.trim()),
            _ if said.is_empty() || of_connection.iter().any(|start| said.starts_with(start)) => {
                (PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE, said)
            }
            _ => (PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, said),
        };
        let error = Error::new(code, format!("node {self}: {message}")).of_another_server();
        match code {
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => {
                error.hint("Each node of Citus has its own rights on functions and settings: grant them there, too.")
            }
            PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE => error.hint(
                "The role connects to the node with what pg_dist_authinfo or the server's password file has for it.",
            ),
            _ => error,
        }
    }
}

/// The nodes of the cluster that are in use, of which the others are standbys.
pub fn nodes() -> Vec<Node> {
    if !has(c"pg_dist_node") {
        return Vec::new();
    }
    let query = c"SELECT concat(nodeport, ' ', nodename) FROM pg_dist_node WHERE isactive AND noderole = 'primary'";
    spi::catalog_texts(query, &[]).iter().filter_map(|text| Node::read(text)).collect()
}

/// The ranges of hashes that the shards of a distributed table have, by the node that has them. Every hash is in one range.
/// Empty if that is not so.
pub fn hashes_by_node(table: pg_sys::Oid) -> Vec<(Node, Vec<(i32, i32)>)> {
    let query =
        c"SELECT concat_ws(' ', s.shardminvalue, s.shardmaxvalue, n.nodeport, n.nodename) FROM pg_dist_shard s \
        JOIN LATERAL (SELECT n.nodeid, n.nodeport, n.nodename FROM pg_dist_placement p \
            JOIN pg_dist_node n ON n.groupid = p.groupid AND n.isactive AND n.noderole = 'primary' \
            WHERE p.shardid = s.shardid AND p.shardstate = 1 ORDER BY n.nodeid LIMIT 1) n ON true \
        WHERE s.logicalrelid = $1 ORDER BY n.nodeid, s.shardminvalue::int8";
    let mut found: Vec<(Node, Vec<(i32, i32)>)> = Vec::new();
    let mut covered = 0;
    for line in spi::catalog_texts(query, &[Parameter::oid(table)]) {
        let mut parts = line.splitn(3, ' ');
        let mut number = || parts.next()?.parse::<i32>().ok();
        let (Some(first), Some(last)) = (number(), number()) else { return Vec::new() };
        let Some(node) = parts.next().and_then(Node::read) else { return Vec::new() };
        covered += i64::from(last) - i64::from(first) + 1;
        match found.last_mut() {
            Some((known, ranges)) if *known == node => match ranges.last_mut() {
                Some((_, end)) if i64::from(*end) + 1 == i64::from(first) => *end = last,
                _ => ranges.push((first, last)),
            },
            _ => found.push((node, vec![(first, last)])),
        }
    }
    if covered == 1 << 32 { found } else { Vec::new() }
}

/// The numbers of the shards of a distributed table, by the node that has them.
pub fn shards_by_node(table: pg_sys::Oid) -> Vec<(Node, Vec<i64>)> {
    let query = c"SELECT concat_ws(' ', s.shardid, n.nodeport, n.nodename) FROM pg_dist_shard s \
        JOIN LATERAL (SELECT n.nodeid, n.nodeport, n.nodename FROM pg_dist_placement p \
            JOIN pg_dist_node n ON n.groupid = p.groupid AND n.isactive AND n.noderole = 'primary' \
            WHERE p.shardid = s.shardid AND p.shardstate = 1 ORDER BY n.nodeid LIMIT 1) n ON true \
        WHERE s.logicalrelid = $1 ORDER BY n.nodeid, s.shardid";
    let mut found: Vec<(Node, Vec<i64>)> = Vec::new();
    for line in spi::catalog_texts(query, &[Parameter::oid(table)]) {
        let Some((Ok(shard), Some(node))) = line.split_once(' ').map(|(id, node)| (id.parse(), Node::read(node)))
        else {
            continue;
        };
        match found.last_mut() {
            Some((known, shards)) if *known == node => shards.push(shard),
            _ => found.push((node, vec![shard])),
        }
    }
    found
}

/// Runs a query that returns one text on each worker, as the current role. Returns the texts, each with the number of the
/// worker's group, and the servers that did not answer, each with the reason. Without Citus there are none. It runs under the
/// active snapshot, and the caller's search_path must be [`session::SAFE_SEARCH_PATH`].
pub fn ask_workers(query: &CStr) -> (Vec<(i32, String)>, Vec<String>) {
    if !has(c"pg_dist_node") {
        return (Vec::new(), Vec::new());
    }
    let ask = c"SELECT CASE WHEN r.success THEN concat('+', n.groupid, ' ', r.result) \
            ELSE concat('-', r.nodename, ':', r.nodeport, ': ', r.result) END \
        FROM run_command_on_workers($1) r LEFT JOIN pg_dist_node n ON n.nodename = r.nodename AND n.nodeport = r.nodeport \
        UNION ALL SELECT '-the coordinator: workers do not ask it' FROM pg_dist_local_group WHERE groupid <> 0";
    let answers = spi::texts_in_snapshot(ask, &[Parameter::string(&query.to_string_lossy())]);
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.starts_with('+'));
    let of_group = |answer: String| {
        let (group, text) = answer[1..].split_once(' ')?;
        Some((group.parse().ok()?, text.to_owned()))
    };
    (good.into_iter().filter_map(of_group).collect(), bad.into_iter().map(|answer| answer[1..].to_owned()).collect())
}

/// The node that a transaction prepared for two-phase commit belongs to, by the transaction's name: its group, and the process
/// there. `None` if it is not Citus's.
pub fn preparer(name: &str) -> Option<(i32, &str)> {
    let mut parts = name.strip_prefix("citus_")?.splitn(3, '_');
    let (group, pid, _) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    Some((group, pid))
}

/// Lets Citus distribute a table by `id`, each row to the server that has the rows of `beside` with the same id. Both are
/// `schema.table`, quoted.
///
/// # Errors
/// 55000 without Citus. Citus raises its own errors.
pub fn distribute(table: &str, beside: Option<&str>) -> Result<()> {
    if !is_here() {
        let message = "fhir_bulk.distribute_tables is on, but this database has no Citus";
        return Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("CREATE EXTENSION citus, or turn the setting off."));
    }
    let beside = beside.map_or_else(|| "'default'".to_owned(), literal);
    let statement = format!(
        "SELECT pg_catalog.create_distributed_table({}::pg_catalog.regclass, 'id', colocate_with => {beside})",
        literal(table)
    );
    spi::execute(&CString::new(statement).expect("names have no NUL"), &[]);
    Ok(())
}

/// Whether Citus's catalogue has a table. Nobody but a superuser can create one in pg_catalog.
fn has(table: &CStr) -> bool {
    catalog::schema(c"pg_catalog").is_some_and(|schema| catalog::relation(table, schema).is_some())
}
