//! The codec alone against what PostgreSQL itself makes of the same lines and rows, each on one core.

use std::fs;
use std::time::Instant;

use super::super::bench::{Bench, Outcome};
use crate::loops::{self, Encode, Write};

pub(super) fn encode(bench: &mut Bench) -> Outcome<f64> {
    let lines = loops::lines_of(&fs::read(&bench.source)?);
    let mut encode = Encode::new(&lines, true);
    let start = Instant::now();
    encode.run();
    Ok(start.elapsed().as_secs_f64())
}

/// Of lines that are in memory as well.
pub(super) fn jsonb_in(bench: &mut Bench) -> Outcome<f64> {
    let prepare = format!(
        r"CREATE TEMPORARY TABLE IF NOT EXISTS json_lines (line text);
        ALTER TABLE json_lines ALTER line SET STORAGE EXTERNAL;
        TRUNCATE json_lines;
        COPY json_lines FROM '{}' WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02')",
        bench.source.display()
    );
    bench.client.batch_execute(&prepare)?;
    time(bench, "SELECT count(line::jsonb) FROM json_lines")
}

pub(super) fn write(bench: &mut Bench) -> Outcome<f64> {
    let lines = loops::lines_of(&fs::read(&bench.source)?);
    let mut write = Write::new(&lines, true);
    let start = Instant::now();
    write.run();
    Ok(start.elapsed().as_secs_f64())
}

pub(super) fn jsonb_out(bench: &mut Bench) -> Outcome<f64> {
    bench.load()?;
    bench.client.batch_execute(&format!("VACUUM {}", bench.table()))?;
    time(bench, &format!("SELECT count(resource::text) FROM {}", bench.table()))
}

/// By one process: as many would help as the table has rows for.
fn time(bench: &mut Bench, query: &str) -> Outcome<f64> {
    bench.client.batch_execute("SET max_parallel_workers_per_gather = 0")?;
    let start = Instant::now();
    bench.client.execute(query, &[])?;
    let time = start.elapsed().as_secs_f64();
    bench.client.batch_execute("RESET max_parallel_workers_per_gather")?;
    Ok(time)
}

/// What no reader or writer of all bytes can pass: they are copied into memory that is as cold as theirs.
pub(super) fn copy_bytes(bench: &mut Bench) -> Outcome<f64> {
    let lines = loops::lines_of(&fs::read(&bench.source)?);
    let mut out = vec![0; lines.iter().map(Vec::len).sum()];
    let start = Instant::now();
    let mut rest = &mut out[..];
    for line in &lines {
        let (to, after) = rest.split_at_mut(line.len());
        to.copy_from_slice(line);
        rest = after;
    }
    let seconds = start.elapsed().as_secs_f64();
    std::hint::black_box(out);
    Ok(seconds)
}
