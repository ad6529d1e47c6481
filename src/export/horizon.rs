//! `transactionTime`: from when on the next incremental export must look so that it misses nothing.
//!
//! A row's `ts` is the start of the transaction that wrote it. A transaction that is open while an export takes its
//! snapshot may write and commit later; its rows, which the export does not have, have a `ts` from before the snapshot.
//! Whether it is one that only reads, nobody knows before its end.

use fhir_bulk_pg::{session, spi};

/// The other transactions of this database at one moment. All times are microseconds since 2000-01-01T00:00:00Z.
pub struct Open {
    /// Before they were looked at.
    at: i64,
    /// When each began.
    began: Vec<i64>,
    /// Whether one is prepared for two-phase commit, of which only that is known when it was prepared.
    pub has_prepared: bool,
}

impl Open {
    /// Those of now. It takes no snapshot of the transaction's, so that it can come before that.
    pub fn now() -> Open {
        // A session that shows nothing of what it does (track_activities) shows when it began itself. What is prepared for
        // two-phase commit has no process any more; when it began is not known by then, so its preparation counts, which
        // is too late.
        let query = c"SELECT ((extract(epoch FROM began) - 946684800) * 1000000)::int8 FROM ( \
                SELECT CASE WHEN state = 'disabled' THEN backend_start ELSE xact_start END FROM pg_stat_activity \
                WHERE datname = current_database() AND (xact_start IS NOT NULL OR state = 'disabled') \
                AND pid <> pg_backend_pid() \
                AND backend_type NOT IN ('autovacuum worker', 'parallel worker', 'walsender') \
                UNION ALL SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()) AS t (began)";
        // No function of ours: its owner, who may be no superuser any more, could put another in its place. All names are
        // looked up in pg_catalog.
        session::as_bootstrap_superuser(|| {
            // A session remembers what it saw of others until its transaction ends.
            spi::texts_in_snapshot(c"SELECT pg_stat_clear_snapshot()", &[]);
            let at = session::clock();
            let began = spi::texts_in_snapshot(query, &[]);
            let prepared =
                spi::texts_in_snapshot(c"SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", &[]);
            Open {
                at,
                began: began.iter().filter_map(|micros| micros.parse().ok()).collect(),
                has_prepared: !prepared.is_empty(),
            }
        })
    }

    /// The earliest `ts` of rows that a snapshot does not see that was taken between this look and the one `after` it. The
    /// second finds those whose start the first did not show yet.
    pub fn transaction_time(&self, after: &Open) -> i64 {
        self.began.iter().chain(&after.began).copied().chain([self.at]).min().unwrap_or(self.at)
    }
}
