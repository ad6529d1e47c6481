//! `transactionTime`: the `_since` with which the next incremental export misses nothing.
//!
//! A row's `ts` is the start of the transaction that wrote it. A transaction that is open while an export takes its snapshot
//! may commit later. The export does not have its rows, although their `ts` is before the snapshot. So `transactionTime` is
//! the start of the oldest open transaction, if there is one. One that only reads counts, too: until it ends, it may still
//! write.

use fhir_bulk_pg::{session, spi};

/// The other open transactions of this database at one moment. All times are microseconds since 2000-01-01T00:00:00Z.
pub struct Open {
    /// The time just before they were read.
    at: i64,
    /// When each began.
    began: Vec<i64>,
    /// Whether one is prepared for two-phase commit: PostgreSQL knows only when it was prepared.
    pub has_prepared: bool,
}

impl Open {
    /// Reads the transactions that are open now. It does not take the transaction's snapshot, so that it can run before
    /// that.
    pub fn now() -> Open {
        // A session without track_activities shows only its own start. A transaction that is prepared for two-phase commit
        // has no process any more. Its start is not known, so the time of its preparation is used, which is too late.
        let query = c"SELECT ((extract(epoch FROM began) - 946684800) * 1000000)::int8 FROM ( \
                SELECT CASE WHEN state = 'disabled' THEN backend_start ELSE xact_start END FROM pg_stat_activity \
                WHERE datname = current_database() AND (xact_start IS NOT NULL OR state = 'disabled') \
                AND pid <> pg_backend_pid() \
                AND backend_type NOT IN ('autovacuum worker', 'parallel worker', 'walsender') \
                UNION ALL SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()) AS t (began)";
        // Not a function of the extension: its owner may no longer be a superuser and could replace it. All names are looked
        // up in pg_catalog.
        session::as_bootstrap_superuser(|| {
            // PostgreSQL caches what a session reads of others until its transaction ends.
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

    /// The earliest `ts` of rows that a snapshot does not see, if it was taken between this look and `after`. The second
    /// look finds transactions whose start the first did not show yet.
    pub fn transaction_time(&self, after: &Open) -> i64 {
        self.began.iter().chain(&after.began).copied().chain([self.at]).min().unwrap_or(self.at)
    }
}
