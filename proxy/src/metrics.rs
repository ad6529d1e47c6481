//! Counters, as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

/// What has happened since the start.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, Requests>>,
    jobs: Mutex<BTreeMap<&'static str, u64>>,
    rows_out: AtomicU64,
    rows_in: AtomicU64,
    bytes_in: AtomicU64,
    running: AtomicI64,
}

/// Method, route, status. The method is one of HTTP's and the route a pattern of ours, so that their number is bounded.
type Labels = (&'static str, String, u16);

/// A method as a label: one that HTTP has, or `other` for what a caller makes up.
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
    /// A request came.
    pub fn begun(&self) {
        self.running.fetch_add(1, Relaxed);
    }

    /// The last byte of an answer is sent, or it `broke` off before.
    pub fn ended(&self, labels: Labels, bytes: u64, time: Duration, broke: bool) {
        self.running.fetch_sub(1, Relaxed);
        let mut all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = all.entry(labels).or_default();
        requests.count += 1;
        requests.bytes += bytes;
        requests.broken += u64::from(broke);
        requests.time += time;
    }

    /// Lines of a dump went out.
    pub fn dumped(&self, rows: usize) {
        self.rows_out.fetch_add(rows as u64, Relaxed);
    }

    /// A load answered with its counts.
    pub fn loaded(&self, answer: &str) {
        let counts: Map<String, Value> = serde_json::from_str(answer).unwrap_or_default();
        let rows = counts.iter().filter(|(name, _)| *name != "errors").filter_map(|(_, count)| count.as_u64()).sum();
        self.rows_in.fetch_add(rows, Relaxed);
    }

    /// A body of resources came.
    pub fn uploaded(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// A job was started.
    pub fn job_started(&self, kind: &'static str) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// All of it, with how many connections to the database are in use and how many idle.
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
