//! Private PostgreSQL servers for the tests: started with a test binary, removed when it ends in any way.
//!
//! PostgreSQL refuses to run as root: if the tests run as root, its programs run as user `postgres`.

pub mod browser;
pub mod proxy;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use postgres::Client;
pub use postgres::error::DbError;

pub mod citus;
pub mod disk;
pub mod http;
pub mod kills;
pub mod memory;
pub mod port;
pub mod s3;
pub mod support;
pub mod tls;
pub mod tools;
mod without;

pub use without::is_without;

/// How long a test waits for a state that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a data folder, socket and port of its own; superuser `postgres`, no passwords on its socket.
pub struct Cluster {
    folder: PathBuf,
    port: port::Port,
    template: OnceLock<()>,
    /// Commands that a shell runs before it becomes the server.
    before: String,
}

/// The folder of PostgreSQL's programs.
pub fn bin(program: &str) -> PathBuf {
    let folder = std::env::var("PG_BIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".into());
    Path::new(&folder).join(program)
}

/// A command that runs as a user PostgreSQL accepts.
pub fn as_server_user(program: &Path) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

impl Cluster {
    /// Makes and starts a server with these lines in its configuration.
    pub fn start(settings: &[&str]) -> Cluster {
        Cluster::start_after("", settings)
    }

    /// As [`Cluster::start`], by a shell that runs commands first: limits, variables of the environment.
    pub fn start_after(before: &str, settings: &[&str]) -> Cluster {
        let cluster = Cluster::new(before);
        run(as_server_user(&bin("initdb"))
            .args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres", "--auth=trust"])
            .arg(cluster.data()));
        cluster.configure(settings);
        cluster.start_server();
        cluster
    }

    /// A standby that follows this server, from a base backup.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster::new("");
        run(as_server_user(&bin("pg_basebackup"))
            .args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--dbname"])
            .arg(format!("host={} port={} user=postgres", self.folder.display(), self.port()))
            .arg("--pgdata")
            .arg(standby.data()));
        standby.configure(&[]);
        standby.start_server();
        standby
    }

    fn new(before: &str) -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fhir_bulk_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let cluster =
            Cluster { folder, port: port::Port::take(), template: OnceLock::new(), before: before.to_owned() };
        cluster.watch();
        cluster
    }

    fn configure(&self, settings: &[&str]) {
        let mut text = format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\n\
             shared_buffers = 256MB\nmax_wal_size = 1GB\nautovacuum = off\nlog_line_prefix = '%m [%p] %d '\n",
            self.port(),
            self.folder.display()
        );
        // For all servers of a run, such as what only a server with assertions knows.
        let of_run = std::env::var("FHIR_BULK_SERVER_SETTINGS").unwrap_or_default();
        for setting in settings.iter().copied().chain(of_run.split(';')) {
            text.push_str(setting);
            text.push('\n');
        }
        // Written as the server's user, which owns the folder.
        let conf = self.data().join("postgresql.conf");
        let mut append = as_server_user(Path::new("/bin/sh"))
            .args(["-c", "cat >> \"$0\""])
            .arg(&conf)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        append.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(append.wait().unwrap().success());
    }

    /// Starts the server of this cluster and waits until it takes connections.
    pub fn start_server(&self) {
        let script = format!("{}\nexec \"$@\"", self.before);
        let status = as_server_user(Path::new("/bin/sh"))
            .args(["-c", &script, "sh"])
            .arg(bin("pg_ctl"))
            // With it, errors would have stack traces as DETAIL, unlike on users' servers.
            .env_remove("RUST_BACKTRACE")
            .args(["start", "--wait", "--silent", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.folder.join("log"))
            .stdout(Stdio::null())
            .status()
            .expect("a shell");
        assert!(status.success(), "the server did not start:\n{}", self.log());
    }

    /// Stops the server: `fast` or `immediate`.
    pub fn stop_server(&self, mode: &str) {
        run(as_server_user(&bin("pg_ctl")).args(["stop", "--wait", "--silent", "-m", mode, "-D"]).arg(self.data()));
    }

    /// Whether the server runs; one that has ended itself does not.
    pub fn is_running(&self) -> bool {
        let status = as_server_user(&bin("pg_ctl")).args(["status", "-D"]).arg(self.data()).output();
        status.expect("pg_ctl").status.success()
    }

    /// Kills the server's first process and all its backends with SIGKILL, as a crashed machine would.
    pub fn kill_server(&self) {
        let pid = self.first_process();
        self.end_server(&format!("/bin/kill -9 {pid} $(pgrep -P {pid})"));
    }

    /// Kills the server's first process only; its other ones end by themselves.
    pub fn kill_postmaster(&self) {
        self.end_server(&format!("/bin/kill -9 {}", self.first_process()));
    }

    fn first_process(&self) -> String {
        let mut cat = as_server_user(Path::new("/bin/cat"));
        let text = String::from_utf8(run(cat.arg(self.data().join("postmaster.pid"))).stdout).unwrap();
        text.lines().next().expect("a running server").to_owned()
    }

    /// Runs a command of the shell that ends the server, and waits for its processes.
    fn end_server(&self, command: &str) {
        // All of them work in its data directory, those too that are just being started. A thread may outlive its process's first
        // one, and keeps the shared memory so long.
        let data = fs::canonicalize(self.data().parent().unwrap()).unwrap().join(self.data().file_name().unwrap());
        let is_of_server = |thread: &Path| {
            let state = fs::read_to_string(thread.join("stat")).unwrap_or_default();
            !state.contains(") Z ") && fs::read_link(thread.join("cwd")).is_ok_and(|folder| folder == data)
        };
        let has_threads = |process: &Path| {
            fs::read_dir(process.join("task"))
                .is_ok_and(|threads| threads.flatten().any(|thread| is_of_server(&thread.path())))
        };
        // kill complains about a process that has ended meanwhile; the check below finds whether all have ended.
        as_server_user(Path::new("/bin/sh")).args(["-c", command]).output().unwrap();
        wait_for("the server's processes to be gone", || {
            !fs::read_dir("/proc").unwrap().flatten().any(|process| has_threads(&process.path()))
        });
        // If no process reaps dead children, a new server thinks that the old one's pid still runs.
        let socket = self.folder.join(format!(".s.PGSQL.{}.lock", self.port()));
        run(as_server_user(Path::new("/bin/rm")).arg("-f").arg(self.data().join("postmaster.pid")).arg(socket));
    }

    /// Kills one backend with SIGKILL; the server then restarts itself, ending all other connections.
    pub fn kill_backend(&self, pid: i32) {
        run(as_server_user(Path::new("/bin/kill")).arg("-9").arg(pid.to_string()));
    }

    /// Ends the server and removes the folder when this process ends, also when it is killed.
    fn watch(&self) {
        let script = r#"while kill -0 "$1" 2>/dev/null; do sleep 0.5; done
            [ -f "$2/data/postmaster.pid" ] && "$3" stop -m immediate -D "$2/data" >/dev/null 2>&1; rm -rf "$2""#;
        let runner: &[&str] = if as_server_user(Path::new("/")).get_program() == "runuser" {
            &["runuser", "-u", "postgres", "--"]
        } else {
            &[]
        };
        let script = script.replace("\"$3\"", &format!("{} \"$3\"", runner.join(" ")));
        Command::new("setsid")
            .args(["--fork", "/bin/sh", "-c", &script, "sh"])
            .arg(std::process::id().to_string())
            .arg(&self.folder)
            .arg(bin("pg_ctl"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("setsid from util-linux");
    }

    /// A folder beside the data, in which files for the server can be put.
    pub fn shared_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        // The server's user writes here too.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        folder
    }

    /// The server's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The TCP port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A connection string for the socket.
    pub fn dsn(&self, role: &str, database: &str) -> String {
        format!("host={} port={} user={role} dbname={database}", self.folder.display(), self.port())
    }

    /// A connection.
    pub fn connect(&self, role: &str, database: &str) -> Client {
        connect(&self.dsn(role, database)).unwrap()
    }

    /// Real psql, unaligned and without headers, stopping at the first error.
    pub fn psql(&self, role: &str, database: &str, arguments: &[&str]) -> Output {
        Command::new(bin("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.dsn(role, database)])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// A new database with the extension and `amcheck`, named after the test.
    pub fn database(&'static self, name: &str) -> Database {
        self.template.get_or_init(|| {
            let mut server = self.connect("postgres", "postgres");
            server.batch_execute("CREATE DATABASE with_extension").unwrap();
            let mut template = self.connect("postgres", "with_extension");
            template.batch_execute("CREATE EXTENSION fhir_bulk").unwrap();
            without::create_amcheck(&mut template);
        });
        let mut server = self.connect("postgres", "postgres");
        server.batch_execute(&format!("CREATE DATABASE \"{name}\" TEMPLATE with_extension")).unwrap();
        self.existing(name)
    }

    /// A database that is there already.
    pub fn existing(&'static self, name: &str) -> Database {
        let files = self.folder.join("files").join(name);
        fs::create_dir_all(&files).unwrap();
        // Set in spite of the umask: the server's user reads the tests' files there, and writes its own.
        fs::set_permissions(self.folder.join("files"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&files, fs::Permissions::from_mode(0o777)).unwrap();
        Database { cluster: self, name: name.to_owned(), files }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = as_server_user(&bin("pg_ctl")).args(["stop", "-m", "immediate", "-D"]).arg(self.data()).output();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The server that tests share; each uses a database of its own.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(&["max_connections = 100", "max_worker_processes = 32"]))
}

/// A database of one test.
pub struct Database {
    cluster: &'static Cluster,
    name: String,
    files: PathBuf,
}

impl Database {
    /// A database on the shared server, which no other test uses.
    #[expect(clippy::new_without_default, reason = "it makes something outside of this process")]
    pub fn new() -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        shared().database(&format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A connection as the superuser.
    pub fn connect(&self) -> Client {
        self.cluster.connect("postgres", &self.name)
    }

    /// A connection as another role.
    pub fn connect_as(&self, role: &str) -> Client {
        self.cluster.connect(role, &self.name)
    }

    /// What psql prints; panics when it fails.
    pub fn psql(&self, sql: &str) -> Vec<u8> {
        let output = self.cluster.psql("postgres", &self.name, &["-c", sql]);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Where [`Database::file`] puts a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// A new role that may connect; roles belong to the whole server, so its name has the database's in it.
    pub fn role(&self, name: &str) -> String {
        let role = format!("{}_{name}", self.name);
        self.connect().batch_execute(&format!("CREATE ROLE {role} LOGIN")).unwrap();
        role
    }

    /// Writes a file that the server can read; its URL.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.files.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        format!("file://{}", path.display())
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server of this database.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }
}

/// A connection, if the server takes one. A test fails when the server warns it of a buffer, a relation or a snapshot that a
/// statement has left open: a server with assertions would end.
///
/// # Errors
/// When it does not.
pub fn connect(dsn: &str) -> Result<Client, postgres::Error> {
    let mut config: postgres::Config = dsn.parse()?;
    config.notice_callback(|notice| assert!(!notice.message().contains("leak"), "{}", notice.message()));
    config.connect(postgres::NoTls)
}

/// The server's error of a failed statement.
pub fn error<T>(result: Result<T, postgres::Error>) -> DbError {
    match result {
        Ok(_) => panic!("the statement must fail"),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("not an error of the server: {error:?}")).clone(),
    }
}

/// Bytes as one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The bytes of exactly one gzip member.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = flate2::bufread::GzDecoder::new(bytes);
    let mut plain = Vec::new();
    decoder.read_to_end(&mut plain).unwrap();
    assert!(decoder.into_inner().is_empty(), "bytes after the gzip stream");
    plain
}

/// Polls until `state` holds; panics when it does not come.
pub fn wait_for(what: &str, mut state: impl FnMut() -> bool) {
    // Another one where a server is many times slower, as under valgrind.
    let seconds = std::env::var("FHIR_BULK_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    let (start, patience) = (Instant::now(), seconds.map_or(PATIENCE, Duration::from_secs));
    while !state() {
        assert!(start.elapsed() < patience, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sets a flag when it goes out of scope, also when what it waits for panics: those who look at the flag then end.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The folder with more real data, when the checkout has it beside it.
pub fn shared_data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("FHIR_BULK_SHARED_DATA").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}
