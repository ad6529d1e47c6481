//! The rows: what is measured, against what, and how much of it it may take.

mod citus;
mod codec;
mod copy;
mod dump;
mod export;
mod filter;
mod http;
mod import;
mod load;
mod sql_dump;
mod view;

use super::bench::{Bench, Row};

/// In the contract's order.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "dump: bulk_dump_chunks, FHIR form",
        baseline: "COPY (SELECT resource FROM t) TO STDOUT",
        bound: 0.50,
        run: dump::dump_chunks,
        run_baseline: dump::copy_resource,
    },
    Row {
        name: "dump: bulk_dump rows through COPY",
        baseline: "COPY (SELECT resource FROM t) TO STDOUT",
        bound: 0.85,
        run: dump::dump_rows,
        run_baseline: dump::copy_resource,
    },
    Row {
        name: "dump: bulk_dump_chunks, FHIR form",
        baseline: "the same put together in SQL",
        bound: 0.20,
        run: dump::dump_chunks,
        run_baseline: dump::copy_composed,
    },
    Row {
        name: "dump: gzipped by the server",
        baseline: "COPY (SELECT resource FROM t) TO STDOUT | gzip -6",
        bound: 0.45,
        run: dump::dump_gzip,
        run_baseline: dump::copy_piped_to_gzip,
    },
    Row {
        name: "filter: a code that one in a hundred has, no index",
        baseline: "dump of all",
        bound: 0.50,
        run: filter::token,
        run_baseline: dump::dump_chunks,
    },
    Row {
        name: "filter: the same with a GIN index",
        baseline: "dump of all",
        bound: 0.05,
        run: filter::token_by_index,
        run_baseline: dump::dump_chunks,
    },
    Row {
        name: "filter: five conditions, no index",
        baseline: "one",
        bound: 2.00,
        run: filter::five_conditions,
        run_baseline: filter::token,
    },
    Row {
        name: "dump_sql: csv of the table",
        baseline: "COPY (query) TO STDOUT (FORMAT csv)",
        bound: 1.10,
        run: sql_dump::csv_stored,
        run_baseline: sql_dump::copy_csv_stored,
    },
    Row {
        name: "dump_sql: csv of scalars",
        baseline: "COPY (query) TO STDOUT (FORMAT csv)",
        bound: 1.10,
        run: sql_dump::csv_flat,
        run_baseline: sql_dump::copy_csv_flat,
    },
    Row {
        name: "dump_sql: ndjson of the table",
        baseline: "COPY (SELECT row_to_json(q) FROM (query) q) TO STDOUT",
        bound: 1.00,
        run: sql_dump::ndjson_stored,
        run_baseline: sql_dump::copy_row_to_json_stored,
    },
    Row {
        name: "dump_sql: ndjson of scalars",
        baseline: "COPY (SELECT row_to_json(q) FROM (query) q) TO STDOUT",
        bound: 1.00,
        run: sql_dump::ndjson_flat,
        run_baseline: sql_dump::copy_row_to_json_flat,
    },
    Row {
        name: "dump_view: ten columns, csv",
        baseline: "dump_sql of the same columns by jsonb's operators",
        bound: 0.50,
        run: view::csv,
        run_baseline: view::csv_by_operators,
    },
    Row {
        name: "export: all types to files, one worker",
        baseline: "COPY (SELECT resource FROM t) TO a file, each",
        bound: 0.60,
        run: export::one_worker,
        run_baseline: export::copy_to_files,
    },
    Row {
        name: "export: all types to files, two workers",
        baseline: "the same with one",
        bound: 0.60,
        run: export::two_workers,
        run_baseline: export::one_worker,
    },
    Row {
        name: "export: a Group of one patient in a hundred",
        baseline: "all types to files, two workers",
        bound: 0.50,
        run: export::group,
        run_baseline: export::two_workers,
    },
    Row {
        name: "export: all types, organized by patient, two workers",
        baseline: "all types to files, two workers",
        bound: 2.00,
        run: export::by_patient,
        run_baseline: export::two_workers,
    },
    Row {
        name: "load: bulk_load, FHIR file",
        baseline: "COPY t FROM prepared rows",
        bound: 0.65,
        run: Bench::load,
        run_baseline: load::copy_prepared,
    },
    Row {
        name: "load: bulk_load, FHIR file",
        baseline: "a staging table and INSERT … SELECT",
        bound: 0.30,
        run: Bench::load,
        run_baseline: load::load_staged,
    },
    Row {
        name: "copy: \\copy … from a file (FORMAT fhir)",
        baseline: "bulk_load of the file, by psql too",
        bound: 1.10,
        run: copy::load_by_psql,
        run_baseline: copy::bulk_load_by_psql,
    },
    Row {
        name: "copy: COPY t TO STDOUT (FORMAT fhir)",
        baseline: "COPY (SELECT resource FROM t) TO STDOUT",
        bound: 0.50,
        run: copy::dump,
        run_baseline: dump::copy_resource,
    },
    Row {
        name: "copy: 100,000 SET in a session with the hook",
        baseline: "the same without it",
        bound: 1.05,
        run: copy::statements,
        run_baseline: copy::statements_without_us,
    },
    Row {
        name: "dump: FHIR form",
        baseline: "the same in Aidbox form",
        bound: 1.15,
        run: dump::dump_chunks,
        run_baseline: dump::dump_unconverted,
    },
    Row {
        name: "load: FHIR form",
        baseline: "the same lines without conversion",
        bound: 1.15,
        run: Bench::load,
        run_baseline: load::load_unconverted,
    },
    Row {
        name: "load: over http on loopback",
        baseline: "the same from a file",
        bound: 1.10,
        run: load::load_http,
        run_baseline: Bench::load,
    },
    Row {
        name: "load: every id is known",
        baseline: "INSERT … ON CONFLICT DO UPDATE from prepared rows",
        bound: 0.90,
        run: load::load_again,
        run_baseline: load::upsert_prepared,
    },
    Row {
        name: "load: by statements (write_path set)",
        baseline: "a staging table and INSERT … SELECT",
        bound: 1.00,
        run: load::load_by_set,
        run_baseline: load::load_staged,
    },
    Row {
        name: "load: by a stage (write_path staged)",
        baseline: "a staging table and INSERT … SELECT",
        bound: 1.00,
        run: load::load_by_stage,
        run_baseline: load::load_staged,
    },
    Row {
        name: "load: into a foreign table",
        baseline: "a staging table and INSERT … SELECT into it",
        bound: 1.00,
        run: load::load_far,
        run_baseline: load::load_far_staged,
    },
    Row {
        name: "load: into a table that Citus distributes",
        baseline: "Citus's COPY t FROM prepared rows",
        bound: 1.30,
        run: citus::load,
        run_baseline: citus::copy_prepared,
    },
    Row {
        name: "load: into a table that Citus distributes",
        baseline: "the same by write_path staged",
        bound: 1.00,
        run: citus::load,
        run_baseline: citus::load_by_stage,
    },
    Row {
        name: "import: from the request to the end",
        baseline: "bulk_load of the same file",
        bound: 1.10,
        run: import::one_input,
        run_baseline: Bench::load,
    },
    Row {
        name: "import: from the request to the end",
        baseline: "bulk_load of the same file in a new session",
        bound: 1.10,
        run: import::one_input,
        run_baseline: load::load_in_new_session,
    },
    Row {
        name: "import: bulk mode, with its commits",
        baseline: "the same in one transaction",
        bound: 1.03,
        run: import::one_input,
        run_baseline: import::one_input_in_one_transaction,
    },
    Row {
        name: "import: inputs of two types, two workers",
        baseline: "the same by one worker",
        bound: 0.60,
        run: import::two_types,
        run_baseline: import::two_types_by_one,
    },
    Row {
        name: "import: two inputs of one type, two workers",
        baseline: "the same by one worker",
        bound: 0.60,
        run: import::two_inputs,
        run_baseline: import::two_inputs_by_one,
    },
    Row {
        name: "import: one input, two workers",
        baseline: "the same by one worker",
        bound: 0.70,
        run: import::one_input,
        run_baseline: import::one_input_by_one,
    },
    Row {
        name: "http: GET $dump?fhir=true",
        baseline: "bulk_dump_chunks through binary COPY",
        bound: 1.15,
        run: http::dump,
        run_baseline: dump::dump_chunks,
    },
    Row {
        name: "http: POST $load of NDJSON",
        baseline: "bulk_load of the same file",
        bound: 1.15,
        run: http::load,
        run_baseline: Bench::load,
    },
    Row {
        name: "codec: FHIR lines into jsonb",
        baseline: "PostgreSQL's jsonb_in of the same lines",
        bound: 0.35,
        run: codec::encode,
        run_baseline: codec::jsonb_in,
    },
    Row {
        name: "codec: jsonb into FHIR lines",
        baseline: "PostgreSQL's jsonb_out of the same rows",
        bound: 0.50,
        run: codec::write,
        run_baseline: codec::jsonb_out,
    },
];
