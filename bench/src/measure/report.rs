//! What was measured, as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::chart::{self, Bar};

/// An operation beside its baseline.
pub(super) struct Measured {
    name: &'static str,
    baseline: &'static str,
    bound: Option<f64>,
    /// Seconds, in the order of the runs.
    ours: Vec<f64>,
    baseline_runs: Vec<f64>,
    /// Of the medians.
    pub(super) ratio: f64,
    /// CPU seconds of both, as medians, if the bound depends on them.
    cpu: Option<[f64; 2]>,
}

/// How much a backend grew.
pub(super) struct Grown {
    pub(super) name: &'static str,
    pub(super) bytes: u64,
    pub(super) growth_mb: f64,
    pub(super) bound_mb: f64,
}

/// What a resource costs among few and among many, in microseconds.
pub(super) struct Scaled {
    pub(super) name: &'static str,
    /// How many are many.
    pub(super) resources: u64,
    /// In the order of the runs.
    pub(super) few: Vec<f64>,
    pub(super) many: f64,
    /// None for what others do.
    pub(super) bound: Option<f64>,
}

impl Scaled {
    fn ratio(&self) -> f64 {
        self.many / median(&self.few)
    }

    fn passes(&self) -> Option<bool> {
        self.bound.map(|bound| self.ratio() <= bound)
    }
}

/// All rows of one measurement.
pub(super) struct Report {
    machine: String,
    resource_type: String,
    resources: i64,
    bytes: u64,
    runs: usize,
    pub(super) measured: Vec<Measured>,
    /// Rows that need what this machine does not have, and what that is.
    pub(super) skipped: Vec<(&'static str, String)>,
    pub(super) memory: Vec<Grown>,
    pub(super) scaled: Vec<Scaled>,
}

impl Measured {
    pub(super) fn new(
        name: &'static str,
        baseline: &'static str,
        bound: Option<f64>,
        ours: Vec<f64>,
        baseline_runs: Vec<f64>,
    ) -> Measured {
        let ratio = median(&ours) / median(&baseline_runs);
        Measured { name, baseline, bound, ours, baseline_runs, ratio, cpu: None }
    }

    /// With a bound of [`Bound::OfCpu`](super::bench::Bound::OfCpu), from the CPU seconds of both in each run.
    pub(super) fn of_cpu(
        name: &'static str,
        baseline: &'static str,
        least: f64,
        ours: Vec<f64>,
        baseline_runs: Vec<f64>,
        cpu: &[[f64; 2]],
    ) -> Measured {
        let of = |which: usize| median(&cpu.iter().map(|run| run[which]).collect::<Vec<_>>());
        let cpu = [of(0), of(1)];
        let bound = least.max(1.15 * cpu[1] / (2.0 * median(&baseline_runs)));
        Measured { cpu: Some(cpu), ..Measured::new(name, baseline, Some(bound), ours, baseline_runs) }
    }

    fn passes(&self) -> Option<bool> {
        self.bound.map(|bound| self.ratio <= bound)
    }

    fn bar(&self) -> Bar {
        let seconds = [median(&self.ours), median(&self.baseline_runs)];
        let (operation, baseline) = (self.name.to_owned(), self.baseline.to_owned());
        Bar { operation, baseline, seconds, ratio: self.ratio, bound: self.bound }
    }
}

impl Report {
    pub(super) fn new(machine: String, resource_type: &str, resources: i64, bytes: u64, runs: usize) -> Report {
        Report {
            machine,
            resource_type: resource_type.to_owned(),
            resources,
            bytes,
            runs,
            measured: Vec::new(),
            skipped: Vec::new(),
            memory: Vec::new(),
            scaled: Vec::new(),
        }
    }

    /// A Markdown table, which reads well on a screen too.
    pub(super) fn table(&self) -> String {
        let mut text = format!("\n{}\n\n", self.title());
        let head = ["operation", "baseline", "s (min–max)", "baseline s (min–max)", "ratio", "at most", ""];
        let mut rows = vec![head.map(str::to_owned)];
        for row in &self.measured {
            rows.push([
                row.name.into(),
                row.baseline.into(),
                spread(&row.ours) + &self.more(row, &row.ours, row.cpu.map(|cpu| cpu[0])),
                spread(&row.baseline_runs) + &self.more(row, &row.baseline_runs, row.cpu.map(|cpu| cpu[1])),
                format!("{:.2}", row.ratio),
                row.bound.map_or_else(String::new, |bound| format!("{bound:.2}")),
                row.passes().map_or("", verdict).into(),
            ]);
        }
        for row in &self.memory {
            rows.push([
                format!("memory: {} of {:.0} MB", row.name, row.bytes as f64 / 1e6),
                "the backend before it".into(),
                String::new(),
                String::new(),
                format!("+{:.0} MB", row.growth_mb),
                format!("{:.0} MB", row.bound_mb),
                verdict(row.growth_mb <= row.bound_mb).into(),
            ]);
        }
        for row in &self.scaled {
            rows.push([
                format!("scale: {}, µs a resource of {}", row.name, row.resources),
                "a resource of 100000".into(),
                format!("{:.2}", row.many),
                spread(&row.few),
                format!("{:.2}", row.ratio()),
                row.bound.map_or_else(String::new, |bound| format!("{bound:.2}")),
                row.passes().map_or("", verdict).into(),
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for (at, row) in rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(text, "| {cell:width$} ");
            }
            text.push_str("|\n");
            if at == 0 {
                for width in &widths {
                    let _ = write!(text, "|{}", "-".repeat(width + 2));
                }
                text.push_str("|\n");
            }
        }
        if !self.skipped.is_empty() {
            text.push_str("\nSkipped:\n\n");
        }
        for (name, why) in &self.skipped {
            let _ = writeln!(text, "- {name}: {why}");
        }
        text
    }

    /// What there is to say of runs besides their seconds.
    fn more(&self, row: &Measured, runs: &[f64], cpu: Option<f64>) -> String {
        match cpu {
            Some(cpu) => format!(", {cpu:.2} of CPU"),
            None if row.baseline.contains("memcpy") => format!(", {:.2} GB/s", self.bytes as f64 / 1e9 / median(runs)),
            None => String::new(),
        }
    }

    fn title(&self) -> String {
        let Report { machine, resources, resource_type, runs, .. } = self;
        let mb = self.bytes as f64 / 1e6;
        format!(
            "{resources} {resource_type} resources, {mb:.0} MB of NDJSON; medians of {runs} alternating runs; {machine}"
        )
    }

    /// Writes `report.md`, `report-light.svg`, `report-dark.svg` and `report.json` into a folder.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.md"), format!("![ratios](report-light.svg)\n{}", self.table()))?;
        let bars: Vec<Bar> = self.measured.iter().map(Measured::bar).collect();
        chart::draw(&self.title(), &bars, folder, "report")?;
        let json = serde_json::to_string_pretty(&self.json())?;
        fs::write(folder.join("report.json"), json + "\n")
    }

    fn json(&self) -> Value {
        let measured = self.measured.iter().map(|row| {
            json!({"name": row.name, "baseline": row.baseline, "seconds": row.ours,
                   "baselineSeconds": row.baseline_runs, "ratio": row.ratio, "bound": row.bound,
                   "cpuSeconds": row.cpu, "pass": row.passes()})
        });
        let memory = self.memory.iter().map(|row| {
            json!({"name": row.name, "bytes": row.bytes, "growthMB": row.growth_mb, "boundMB": row.bound_mb,
                   "pass": row.growth_mb <= row.bound_mb})
        });
        let scaled = self.scaled.iter().map(|row| {
            json!({"name": row.name, "resources": row.resources, "microsAmongFew": row.few, "microsAmongMany": row.many,
                   "ratio": row.ratio(), "bound": row.bound, "pass": row.passes()})
        });
        let skipped = self.skipped.iter().map(|(name, why)| json!({"name": name, "why": why}));
        json!({"machine": self.machine, "resourceType": self.resource_type, "resources": self.resources, "bytes": self.bytes,
               "runs": self.runs, "rows": measured.collect::<Vec<_>>(), "skipped": skipped.collect::<Vec<_>>(),
               "memory": memory.collect::<Vec<_>>(), "scale": scaled.collect::<Vec<_>>()})
    }
}

fn verdict(pass: bool) -> &'static str {
    if pass { "PASS" } else { "over" }
}

fn spread(runs: &[f64]) -> String {
    let (least, most) = runs.iter().fold((f64::MAX, 0f64), |(least, most), run| (least.min(*run), most.max(*run)));
    format!("{:.2} ({least:.2}–{most:.2})", median(runs))
}

fn median(runs: &[f64]) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_operation_is_over_its_bound() {
        let mut report = Report::new(String::new(), "Patient", 1, 1, 3);
        report.measured.push(Measured::new("a", "b", Some(0.5), vec![0.6, 9.0, 0.5], vec![1.0, 1.0, 1.0]));
        report.measured.push(Measured::new("c", "d", Some(0.5), vec![0.1, 9.0, 0.5], vec![1.0, 1.0, 1.0]));
        assert_eq!(report.json()["rows"][0]["pass"], false);
        assert_eq!(report.json()["rows"][1]["pass"], true);
        assert!(report.table().contains("over"));
    }

    #[test]
    fn twice_as_many_processes_may_take_what_the_cpu_needs() {
        let of = |cpu: f64| Measured::of_cpu("a", "b", 0.58, vec![0.6], vec![1.0], &[[0.9, cpu]]);
        let bound = |cpu| of(cpu).bound.unwrap_or_default();
        assert!((bound(0.9) - 0.58).abs() < 1e-9);
        assert!((bound(1.2) - 0.69).abs() < 1e-9);
    }

    #[test]
    fn a_row_that_was_skipped_says_why() {
        let mut report = Report::new(String::new(), "Patient", 1, 1, 3);
        report.skipped.push(("load: into a table of Citus", "Citus is not installed".into()));
        assert!(report.table().ends_with("\nSkipped:\n\n- load: into a table of Citus: Citus is not installed\n"));
        assert_eq!(report.json()["skipped"][0]["why"], "Citus is not installed");
    }
}
