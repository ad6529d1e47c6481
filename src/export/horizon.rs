//! `transactionTime`: the `_since` with which the next incremental export misses nothing.
//!
//! A row's `ts` is the start of the transaction that wrote it. A transaction that is open while an export takes its snapshot
//! may commit later. The export does not have its rows, although their `ts` is before the snapshot. So `transactionTime` is
//! the start of the oldest open transaction, if there is one. One that only reads counts, too: until it ends, it may still
//! write.
//!
//! With Citus, each server has transactions of its own, a clock of its own, and a snapshot of its own for each query. So all
//! servers are asked, and the earliest time of all counts.

use crate::citus;
use fhir_bulk_pg::{session, spi};
use std::ffi::CStr;

/// The other open transactions of this database at one moment, on all servers. All times are microseconds since
/// 2000-01-01T00:00:00Z.
pub struct Open {
    /// The time just before they were read: the earliest, if there are several servers.
    at: i64,
    /// When each began.
    began: Vec<i64>,
    /// Whether one is prepared for two-phase commit and has no process any more: PostgreSQL knows only when it was prepared.
    pub has_prepared: bool,
    /// Servers that did not answer, each with the reason.
    pub unknown: Vec<String>,
}

/// The transactions of one server, as [`QUERY`] returns them.
#[derive(Default)]
struct OfServer {
    /// Its clock when the query began.
    clock: Option<i64>,
    began: Vec<i64>,
    /// The processes of open transactions.
    pids: Vec<String>,
    /// The names of prepared ones.
    prepared: Vec<String>,
}

/// A line for the server's clock (`t`), for each open transaction with its process (`b`), and for each prepared one with its
/// name (`p`), as one text, because Citus takes only one value from each server. There it runs under that server's
/// search_path, so it names each function and operator by its schema.
///
/// A session without track_activities shows only its own start. A transaction that is prepared for two-phase commit has no
/// process any more. Its start is not known, so the time of its preparation is used, which is too late.
const QUERY: &CStr = c"SELECT pg_catalog.string_agg(pg_catalog.concat(kind, ' ', \
        ((extract(epoch FROM at) OPERATOR(pg_catalog.-) 946684800) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
        ' ', pg_catalog.replace(name, pg_catalog.chr(10), ' ')), pg_catalog.chr(10)) \
    FROM (SELECT 't'::pg_catalog.text, pg_catalog.statement_timestamp(), ''::pg_catalog.text \
    UNION ALL SELECT 'b', CASE WHEN state OPERATOR(pg_catalog.=) 'disabled' THEN backend_start ELSE xact_start END, \
        pid::pg_catalog.text FROM pg_catalog.pg_stat_activity \
        WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
        AND (xact_start IS NOT NULL OR state OPERATOR(pg_catalog.=) 'disabled') \
        AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() AND backend_type OPERATOR(pg_catalog.<>) \
            ALL (ARRAY['autovacuum worker', 'parallel worker', 'walsender']::pg_catalog.text[]) \
    UNION ALL SELECT 'p', prepared, gid FROM pg_catalog.pg_prepared_xacts \
        WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS t (kind, at, name)";

/// How often to look for the process of a prepared transaction.
const LOOKS: usize = 3;

/// What all servers answer at about one moment.
struct Look {
    at: i64,
    /// Each with its group; `None` for this server.
    servers: Vec<(Option<i32>, OfServer)>,
    unknown: Vec<String>,
}

impl Look {
    fn now() -> Look {
        let at = session::clock();
        // The others first: a transaction of this server that is found prepared there has its process here, or has ended.
        let (answers, unknown) = citus::ask_workers(QUERY);
        // PostgreSQL caches what a session reads of others until its transaction ends.
        spi::texts_in_snapshot(c"SELECT pg_stat_clear_snapshot()", &[]);
        let here = OfServer::read(&spi::texts_in_snapshot(QUERY, &[]).concat());
        let others = answers.iter().map(|(group, answer)| (Some(*group), OfServer::read(answer)));
        Look { at, servers: others.chain([(None, here)]).collect(), unknown }
    }

    /// The prepared transactions whose processes no server has.
    fn without_process(&self) -> Vec<String> {
        let own = citus::group();
        let is_alive = |name: &&String| {
            citus::preparer(name).is_some_and(|(group, pid)| {
                let is_of = |of: &Option<i32>| of.unwrap_or(own) == group;
                self.servers.iter().any(|(of, server)| is_of(of) && server.pids.iter().any(|known| known == pid))
            })
        };
        let prepared = self.servers.iter().flat_map(|(_, server)| &server.prepared);
        prepared.filter(|name| !is_alive(name)).cloned().collect()
    }
}

impl Open {
    /// Reads the transactions that are open now. It does not take the transaction's snapshot, so that it can run before
    /// that.
    pub fn now() -> Open {
        // Not a function of the extension: its owner may no longer be a superuser and could replace it. All names are looked
        // up in pg_catalog.
        session::as_bootstrap_superuser(|| {
            let first = Look::now();
            let mut unknown_ends = first.without_process();
            // A process may have begun between the look at its own node and that at another one: the next look finds it, or
            // the transaction has ended.
            for _ in 1..LOOKS {
                if !unknown_ends.is_empty() {
                    let again = Look::now().without_process();
                    unknown_ends.retain(|name| again.contains(name));
                }
            }
            // The clock of this server's line is that of the worker's start.
            let at = first.servers.iter().filter(|(group, _)| group.is_some());
            let at = at.filter_map(|(_, server)| server.clock).fold(first.at, i64::min);
            let began = first.servers.iter().flat_map(|(_, server)| &server.began).copied().collect();
            Open { at, began, has_prepared: !unknown_ends.is_empty(), unknown: first.unknown }
        })
    }

    /// The earliest `ts` of rows that a snapshot does not see, if it was taken between this look and `after`. The second
    /// look finds transactions whose start the first did not show yet.
    pub fn transaction_time(&self, after: &Open) -> i64 {
        self.began.iter().chain(&after.began).copied().chain([self.at]).min().unwrap_or(self.at)
    }
}

impl OfServer {
    fn read(answer: &str) -> OfServer {
        let mut server = OfServer::default();
        for line in answer.lines() {
            let mut parts = line.splitn(3, ' ');
            let (kind, at, name) = (parts.next(), parts.next().and_then(|at| at.parse().ok()), parts.next());
            let name = name.unwrap_or_default().to_owned();
            match kind {
                Some("t") => server.clock = at,
                Some("b") => {
                    server.began.extend(at);
                    server.pids.push(name);
                }
                _ => {
                    server.began.extend(at);
                    server.prepared.push(name);
                }
            }
        }
        server
    }
}
