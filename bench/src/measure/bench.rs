//! The server and the data of a measurement, and what a row of it is.

use std::cell::OnceCell;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use super::cpu;
use super::options::Options;
use fhir_bulk_sample::{ResourceType, Sample};
use fhir_bulk_tests::citus::Nodes;
use fhir_bulk_tests::proxy::{self, Proxy};
use fhir_bulk_tests::{Client, Cluster};
use flate2::bufread::MultiGzDecoder;

/// What each server is set to.
pub const SETTINGS: [&str; 3] = ["fsync = on", "shared_buffers = 512MB", "max_wal_size = 16GB"];

/// The result of one run or of a whole measurement.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a row needs and this machine does not have: the row is skipped, and the report says so.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Missing {}

/// One operation and its baseline.
pub struct Row {
    pub name: &'static str,
    pub baseline: &'static str,
    /// The contract's.
    pub bound: Bound,
    pub run: fn(&mut Bench) -> Outcome<f64>,
    pub run_baseline: fn(&mut Bench) -> Outcome<f64>,
}

/// The seconds of an operation over those of its baseline, at most.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    Ratio(f64),
    /// Twice as many processes: this ratio, or if the baseline waits for other things than the CPU, what is 1.15 times of its
    /// CPU seconds on two processors.
    OfCpu(f64),
    /// None: it says how near something comes to what it cannot pass.
    None,
}

/// The server and the data of a measurement.
pub struct Bench {
    pub cluster: Cluster,
    pub client: Client,
    /// `Observation`, or what the folder's largest file is called.
    pub resource_type: String,
    /// The plain NDJSON, which the server can read.
    pub source: PathBuf,
    pub source_bytes: u64,
    /// Started when a row first asks for it.
    pub proxy: OnceCell<Proxy>,
    /// The same.
    pub citus: OnceCell<Nodes>,
    /// The same: a server whose log is decoded.
    pub decoded: OnceCell<Cluster>,
    /// The table's rows as COPY's text format writes them.
    pub prepared: PathBuf,
    pub resources: i64,
    /// As in [`Options`].
    pub data: Option<PathBuf>,
    /// CPU seconds of the server in the last operation that says so.
    pub cpu: f64,
}

impl Bench {
    pub fn prepare(options: &Options) -> Outcome<Bench> {
        let cluster = Cluster::start(&SETTINGS);
        let folder = cluster.shared_folder("bench");
        let (resource_type, source) = match &options.data {
            Some(data) => unpack_largest(data, &folder)?,
            None => generate(options.resources, &folder)?,
        };
        let source_bytes = fs::metadata(&source)?.len();
        let mut client = cluster.connect("postgres", "postgres");
        client.batch_execute("CREATE DATABASE bench")?;
        let mut client = cluster.connect("postgres", "bench");
        client.batch_execute("CREATE EXTENSION fhir_bulk; SET fhir_bulk.allowed_sources = '127.0.0.1'")?;
        let prepared = folder.join("prepared.txt");
        let data = options.data.clone();
        let mut bench = Bench {
            cluster,
            client,
            resource_type,
            source,
            source_bytes,
            proxy: OnceCell::new(),
            citus: OnceCell::new(),
            decoded: OnceCell::new(),
            prepared,
            resources: 0,
            data,
            cpu: 0.0,
        };
        bench.load()?;
        let table = bench.table();
        bench.resources = bench.client.query_one(&format!("SELECT count(*) FROM {table}"), &[])?.get(0);
        let copy = format!("COPY {table} ({COLUMNS}) TO '{}'", bench.prepared.display());
        bench.client.batch_execute(&copy)?;
        Ok(bench)
    }

    pub fn table(&self) -> String {
        format!("\"{}\"", self.resource_type.to_lowercase())
    }

    /// An empty table, and nothing left over from before for the server to write.
    pub fn empty_table(&mut self) -> Outcome<()> {
        let table = self.table();
        self.client.execute("SELECT bulk_create_table($1)", &[&self.resource_type])?;
        self.client.batch_execute(&format!("TRUNCATE {table}; CHECKPOINT"))?;
        Ok(())
    }

    pub fn load(&mut self) -> Outcome<f64> {
        self.empty_table()?;
        self.load_from(&self.file_url(), true)
    }

    pub fn load_from(&mut self, source: &str, fhir: bool) -> Outcome<f64> {
        let start = Instant::now();
        self.client.execute("SELECT bulk_load($1, $2, $3)", &[&source, &self.resource_type, &fhir])?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// A proxy whose callers all are the superuser, as this program is.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.get_or_init(|| {
            let database = self.cluster.dsn("postgres", "bench");
            let flags = ["--listen", "127.0.0.1:0", "--anonymous-role", "postgres", "--database", &database];
            Proxy::spawn(Command::new(proxy::program(true)).args(flags))
        })
    }

    /// Has `work` measured in seconds, and in CPU seconds of the server besides.
    pub fn with_cpu(&mut self, work: impl FnOnce(&mut Bench) -> Outcome<f64>) -> Outcome<f64> {
        let backend: i32 = self.client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let cpu = || cpu::of_server(backend).ok_or("the server is gone");
        let before = cpu()?;
        let seconds = work(self)?;
        self.cpu = cpu()? - before;
        Ok(seconds)
    }

    pub fn file_url(&self) -> String {
        format!("file://{}", self.source.display())
    }

    /// Serves the source, once, on a thread of its own.
    pub fn http_url(&self) -> Outcome<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (path, bytes) = (self.source.clone(), self.source_bytes);
        thread::spawn(move || -> io::Result<()> {
            let (mut client, _) = listener.accept()?;
            let mut request = BufReader::new(client.try_clone()?);
            let mut line = String::new();
            while request.read_line(&mut line)? > 2 {
                line.clear();
            }
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n")?;
            io::copy(&mut File::open(path)?, &mut client)?;
            Ok(())
        });
        Ok(url)
    }

    /// Reads all that a COPY TO STDOUT sends, into `to`; how long it took.
    pub fn copy_out(&mut self, query: &str, to: &mut dyn Write) -> Outcome<f64> {
        let start = Instant::now();
        let mut rows = self.client.copy_out(query)?;
        io::copy(&mut rows, to)?;
        drop(rows);
        Ok(start.elapsed().as_secs_f64())
    }
}

/// The columns of a resource table.
pub const COLUMNS: &str = "id, txid, cts, ts, resource_type, status, resource";

fn generate(resources: u64, folder: &Path) -> Outcome<(String, PathBuf)> {
    // Half of a sample are Observations.
    let sample = Sample::new(1, resources * 2);
    let path = folder.join("Observation.ndjson");
    let mut file = BufWriter::new(File::create(&path)?);
    sample.write(ResourceType::Observation, &mut file)?;
    file.flush()?;
    readable(&path)?;
    Ok(("Observation".into(), path))
}

fn unpack_largest(data: &Path, folder: &Path) -> Outcome<(String, PathBuf)> {
    let mut files: Vec<PathBuf> = fs::read_dir(data)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|path| path.to_string_lossy().contains(".ndjson"));
    files.sort_by_key(|path| fs::metadata(path).map_or(0, |m| m.len()));
    let largest = files.pop().ok_or_else(|| format!("{}: no *.ndjson or *.ndjson.gz", data.display()))?;
    let name = largest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let resource_type = name.split('.').next().unwrap_or_default().to_owned();
    let path = folder.join(format!("{resource_type}.ndjson"));
    let mut plain = BufWriter::new(File::create(&path)?);
    let packed = BufReader::new(File::open(&largest)?);
    let mut source: Box<dyn Read> =
        if name.ends_with(".gz") { Box::new(MultiGzDecoder::new(packed)) } else { Box::new(packed) };
    io::copy(&mut source, &mut plain)?;
    plain.flush()?;
    readable(&path)?;
    Ok((resource_type, path))
}

/// Writes a line of Synthea or of the sample, whose resource gets another id: that of a copy. It differs at the end, so that ids
/// come in no order, as those of the source do.
pub fn write_copy(line: &[u8], copy: usize, to: &mut impl Write) -> io::Result<()> {
    const ID: &[u8] = b"\"id\":\"";
    let id = line.windows(ID.len()).position(|piece| piece == ID).map(|at| at + ID.len());
    let end = id.and_then(|id| Some(id + line[id..].iter().position(|byte| *byte == b'"')?));
    let Some(end) = end else { return to.write_all(line) };
    to.write_all(&line[..end])?;
    write!(to, "-{copy}")?;
    to.write_all(&line[end..])
}

/// The server may run as another user.
pub fn readable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}
