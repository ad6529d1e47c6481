//! The metrics in Prometheus's format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

/// The counters since the start.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, Requests>>,
    jobs: Mutex<BTreeMap<&'static str, u64>>,
    rows_out: AtomicU64,
    rows_in: AtomicU64,
    bytes_in: AtomicU64,
    running: AtomicI64,
}

/// Method, route, status. Only HTTP's methods and the patterns of routes are used, so that the number of labels is bounded.
type Labels = (&'static str, String, u16);

/// The label of a method: one of HTTP's, or `other`.
pub fn label(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

#[derive(Clone, Copy, Default)]
struct Requests {
    count: u64,
    bytes: u64,
    broken: u64,
    time: Duration,
}

impl Metrics {
    /// Counts a request at its start.
    pub fn begun(&self) {
        self.running.fetch_add(1, Relaxed);
    }

    /// Counts a response at its end. `broke` means that it was not sent completely.
    pub fn ended(&self, labels: Labels, bytes: u64, time: Duration, broke: bool) {
        self.running.fetch_sub(1, Relaxed);
        let mut all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = all.entry(labels).or_default();
        requests.count += 1;
        requests.bytes += bytes;
        requests.broken += u64::from(broke);
        requests.time += time;
    }

    /// Counts lines of a dump that were sent.
    pub fn dumped(&self, rows: usize) {
        self.rows_out.fetch_add(rows as u64, Relaxed);
    }

    /// Counts the resources of a finished load.
    pub fn loaded(&self, answer: &str) {
        let counts: Map<String, Value> = serde_json::from_str(answer).unwrap_or_default();
        let rows = counts.iter().filter(|(name, _)| *name != "errors").filter_map(|(_, count)| count.as_u64()).sum();
        self.rows_in.fetch_add(rows, Relaxed);
    }

    /// Counts the bytes of an uploaded body.
    pub fn uploaded(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// Counts a started job.
    pub fn job_started(&self, kind: &'static str) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// The text of all metrics, with the number of used and idle database connections.
    pub fn text(&self, (used, idle): (usize, usize)) -> String {
        let mut out = Text(String::new());
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut each = |name: &str, what: &str, value: fn(&Requests) -> f64| {
            out.head(name, "counter", what);
            for ((method, route, status), requests) in &requests {
                let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
                out.line(name, &labels, value(requests));
            }
        };
        each("fhir_bulk_proxy_requests_total", "Requests answered, or given up.", |r| r.count as f64);
        each("fhir_bulk_proxy_broken_answers_total", "Answers that broke off.", |r| r.broken as f64);
        each("fhir_bulk_proxy_response_bytes_total", "Bytes of the bodies of answers.", |r| r.bytes as f64);
        each("fhir_bulk_proxy_request_seconds_total", "Time to the last byte.", |r| r.time.as_secs_f64());

        out.head("fhir_bulk_proxy_running_requests", "gauge", "Requests whose answers are not yet whole.");
        out.line("fhir_bulk_proxy_running_requests", "", self.running.load(Relaxed) as f64);
        out.head("fhir_bulk_proxy_upload_bytes_total", "counter", "Bytes of resources in the bodies of requests.");
        out.line("fhir_bulk_proxy_upload_bytes_total", "", self.bytes_in.load(Relaxed) as f64);
        out.head("fhir_bulk_proxy_rows_total", "counter", "Resources loaded, and lines dumped without gzip.");
        out.line("fhir_bulk_proxy_rows_total", "{direction=\"in\"}", self.rows_in.load(Relaxed) as f64);
        out.line("fhir_bulk_proxy_rows_total", "{direction=\"out\"}", self.rows_out.load(Relaxed) as f64);
        out.head("fhir_bulk_proxy_jobs_total", "counter", "Background jobs started.");
        for (kind, count) in self.jobs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            out.line("fhir_bulk_proxy_jobs_total", &format!("{{kind=\"{kind}\"}}"), *count as f64);
        }
        out.head("fhir_bulk_proxy_connections", "gauge", "Connections to the database.");
        out.line("fhir_bulk_proxy_connections", "{state=\"used\"}", used as f64);
        out.line("fhir_bulk_proxy_connections", "{state=\"idle\"}", idle as f64);
        out.0
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, what: &str) {
        let _ = writeln!(self.0, "# HELP {name} {what}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
