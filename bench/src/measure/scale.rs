//! Whether a resource costs the same among many as among few: small resources, loaded into a table that the load makes,
//! with its primary key, dumped as a whole, and dumped by `since`; and what a load and COPY pay for more rows in a table
//! that is there, with its key and an index on `cts`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::bench::{Bench, COLUMNS, Outcome, readable};
use super::report::Scaled;

/// How many are few.
const FEW: u64 = 100_000;
/// The contract's: cost of a resource among many over that among few, at most.
const BOUND: f64 = 1.2;
/// Of all resources, so many are younger than `since`: one in a hundred.
const YOUNG: u64 = 100;
/// Seconds since 1970 at which the first resource was created; each is a second younger than the one before.
const FIRST_CREATED: u64 = 1_600_000_000;

/// Seconds for so many resources.
struct Costs {
    load: f64,
    load_into_indexes: f64,
    copy: f64,
    dump: f64,
    dump_since: f64,
}

/// Loads and dumps few resources `runs` times, of which the medians count, and `many` once.
pub(super) fn measure(bench: &mut Bench, many: u64, runs: usize) -> Outcome<Vec<Scaled>> {
    let folder = bench.cluster.shared_folder("scale");
    let (few_path, many_path) = (write(&folder, FEW)?, write(&folder, many)?);
    let few = (0..runs).map(|_| costs(bench, &few_path, FEW)).collect::<Outcome<Vec<_>>>()?;
    let many_costs = costs(bench, &many_path, many)?;
    let row = |name, of: fn(&Costs) -> f64, divisor: u64, bound| {
        let few = few.iter().map(|costs| of(costs) / (FEW / divisor) as f64 * 1e6).collect();
        Scaled { name, resources: many, few, many: of(&many_costs) / (many / divisor) as f64 * 1e6, bound }
    };
    Ok(vec![
        row("load", |costs| costs.load, 1, Some(BOUND)),
        row("load into a table with its indexes", |costs| costs.load_into_indexes, 1, None),
        row("COPY t FROM the same rows, prepared, into it", |costs| costs.copy, 1, None),
        row("dump", |costs| costs.dump, 1, Some(BOUND)),
        row("dump since, 1 in 100", |costs| costs.dump_since, YOUNG, Some(BOUND)),
    ])
}

fn costs(bench: &mut Bench, source: &Path, resources: u64) -> Outcome<Costs> {
    let load = |bench: &mut Bench| -> Outcome<f64> {
        let start = Instant::now();
        bench.client.batch_execute(&format!("SELECT bulk_load('file://{}', 'Scale', true)", source.display()))?;
        Ok(start.elapsed().as_secs_f64())
    };
    bench.client.batch_execute("DROP TABLE IF EXISTS scale, scale_history; CHECKPOINT")?;
    let load_into_new = load(bench)?;
    // The index that README advises for `since`.
    bench.client.batch_execute("CREATE INDEX scale_cts ON scale (cts)")?;
    // Both sizes are dumped as a table is that has been in use: hint bits set, statistics there.
    bench.client.batch_execute("VACUUM ANALYZE scale")?;
    bench.client.batch_execute("CHECKPOINT")?;
    let since = FIRST_CREATED + resources - resources / YOUNG;
    let copy = |arguments: &str| format!("COPY (SELECT bulk_dump_chunks({arguments})) TO STDOUT (FORMAT binary)");
    let dump = bench.copy_out(&copy("'Scale', fhir => true"), &mut io::sink())?;
    let dump_since = bench.copy_out(&copy(&format!("'Scale', to_timestamp({since} - 0.5), true")), &mut io::sink())?;
    let prepared = source.with_extension("txt");
    bench
        .client
        .batch_execute(&format!("COPY scale ({COLUMNS}) TO '{0}'; TRUNCATE scale; CHECKPOINT", prepared.display()))?;
    let start = Instant::now();
    bench.client.batch_execute(&format!("COPY scale ({COLUMNS}) FROM '{}'", prepared.display()))?;
    let copied = start.elapsed().as_secs_f64();
    fs::remove_file(prepared)?;
    bench.client.batch_execute("TRUNCATE scale; CHECKPOINT")?;
    let load_into_indexes = load(bench)?;
    Ok(Costs { load: load_into_new, load_into_indexes, copy: copied, dump, dump_since })
}

fn write(folder: &Path, resources: u64) -> Outcome<PathBuf> {
    let path = folder.join(format!("{resources}.ndjson"));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    for number in 0..resources {
        // Ids in no order, as those of UUIDs are; the same for each number.
        let id = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let created = instant(FIRST_CREATED + number);
        writeln!(
            file,
            "{{\"resourceType\":\"Scale\",\"id\":\"{id:016x}\",\"meta\":{{\"extension\":[{{\"url\":\"ex:createdAt\",\
             \"valueInstant\":\"{created}\"}}]}},\"status\":\"final\",\"value\":{number}}}"
        )?;
    }
    file.flush()?;
    readable(&path)?;
    Ok(path)
}

/// Seconds since 1970 as FHIR writes them.
fn instant(seconds: u64) -> String {
    const FROM_1970_TO_2000: i64 = 946_684_800;
    fhir_bulk_codec::instant::format((seconds as i64 - FROM_1970_TO_2000) * 1_000_000, 0)
}
