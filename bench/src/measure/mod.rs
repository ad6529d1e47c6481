//! Measures `fhir_bulk` against what its users run today: each row is an operation and its baseline, in turn, on the
//! same server, data and machine. Medians count, and only their ratio means something elsewhere.

mod bench;
mod chart;
mod cpu;
mod machine;
mod memory;
mod options;
mod page;
mod report;
mod rows;
mod scale;

pub use bench::Outcome;
pub use options::Options;
pub use page::draw;

use bench::{Bench, Bound, Missing, Row};
use report::{Measured, Report};

/// Measures every row and writes the report.
///
/// # Errors
/// Those of files, of the server, and of a row that moved other data than its baseline.
pub fn run(options: &Options) -> Outcome<()> {
    let mut bench = Bench::prepare(options)?;
    let machine = machine::describe(&mut bench.client)?;
    let mut report = Report::new(machine, &bench.resource_type, bench.resources, bench.source_bytes, options.runs);
    let chosen = |row: &&Row| row.name.contains(&options.only) || row.baseline.contains(&options.only);
    for row in rows::ROWS.iter().filter(chosen) {
        eprint!("{} … ", row.name);
        match measure(row, &mut bench, options.runs) {
            Ok(measured) => {
                eprintln!("{:.2}", measured.ratio);
                report.measured.push(measured);
            }
            Err(error) if error.is::<Missing>() => {
                eprintln!("skipped: {error}");
                report.skipped.push((row.name, error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    if options.only.is_empty() {
        report.memory = memory::measure(&mut bench, options.memory_bytes)?;
    }
    if let Some(resources) = options.scale {
        eprintln!("scale: {resources} resources");
        report.scaled = scale::measure(&mut bench, resources, options.runs)?;
    }
    print!("{}", report.table());
    report.write(&options.out)?;
    Ok(())
}

/// The operation and its baseline in turn.
fn measure(row: &Row, bench: &mut Bench, runs: usize) -> Outcome<Measured> {
    let (mut ours, mut baseline, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push((row.run)(bench)?);
        let of_ours = bench.cpu;
        baseline.push((row.run_baseline)(bench)?);
        cpu.push([of_ours, bench.cpu]);
    }
    Ok(match row.bound {
        Bound::Ratio(bound) => Measured::new(row.name, row.baseline, Some(bound), ours, baseline),
        Bound::None => Measured::new(row.name, row.baseline, None, ours, baseline),
        Bound::OfCpu(least) => Measured::of_cpu(row.name, row.baseline, least, ours, baseline, &cpu),
    })
}
