//! A bounded pool of connections to the database. Connections are opened as the callers' roles, and kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use ring::hmac;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{CancelToken, Client, NoTls};

use super::login::{connect, copy_target, find_extension, is_privileged};
use crate::caller::auth::Caller;
use crate::config::{Config, Switch};
use crate::error::{Problem, Result, WRONG_PASSWORD};
use crate::limits::attempts::Attempts;

/// The timeout for opening a connection, for a cancel and for cleaning up.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the result of a probe is used.
const HEALTH_AGE: Duration = Duration::from_secs(1);
/// How often old connections are removed.
const SWEEP: Duration = Duration::from_secs(5);

/// The login of a connection. Passwords are kept only as a digest with a key of this process.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Login {
    role: String,
    password: Vec<u8>,
}

/// All connections.
pub struct Pool {
    database: RwLock<tokio_postgres::Config>,
    own_user: Option<String>,
    max_age: Duration,
    wait: Duration,
    per_role: u32,
    connections: u32,
    digest_key: hmac::Key,
    attempts: Attempts,
    /// Whether privileged roles may log in with their passwords.
    takes_privileged: bool,
    /// One permit for each connection in use.
    all: Arc<Semaphore>,
    /// One permit for each connection in use, by role.
    roles: Mutex<HashMap<String, Weak<Semaphore>>>,
    idle: Mutex<HashMap<Login, Vec<Open>>>,
    /// The result and time of the last probe. Locked while a probe runs.
    health: tokio::sync::Mutex<Option<(Health, Instant)>>,
    /// When a request last found no extension; `None` if a later one found it.
    missed_extension: Mutex<Option<Instant>>,
}

/// Whether requests can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Yes, as far as the probe can tell.
    Good,
    /// The server does not answer.
    Unreachable,
    /// The proxy's own user cannot log in.
    NoLogin,
    /// The database does not have the extension.
    NoExtension,
}

/// An open connection.
struct Open {
    client: Client,
    /// The task that sends and receives its bytes. It ends with the connection; aborting it closes the socket.
    driver: JoinHandle<()>,
    /// The schema of the extension's functions, quoted.
    schema: String,
    born: Instant,
}

impl Open {
    /// Closes the connection. Its server process ends as soon as it notices.
    async fn end(mut self) {
        self.driver.abort();
        let _ = (&mut self.driver).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Further messages of the server are not read.
        self.driver.abort();
    }
}

/// A connection that one request uses.
pub struct Connection {
    pool: Arc<Pool>,
    login: Login,
    open: Open,
    /// Its permits: one of the role's and one of all. Held until the connection is returned or closed.
    _permits: [OwnedSemaphorePermit; 2],
}

impl Pool {
    /// An empty pool. A task closes old connections as long as the pool lives.
    pub fn new(config: &Config) -> Arc<Pool> {
        let mut database = config.database.clone();
        database.application_name("fhir_bulk_proxy");
        if database.get_connect_timeout().is_none() {
            database.connect_timeout(SERVER_PATIENCE);
        }
        let pool = Arc::new(Pool {
            own_user: database.get_user().map(str::to_owned),
            database: RwLock::new(database),
            max_age: config.connection_age,
            wait: config.wait,
            per_role: config.connections_per_role,
            connections: config.connections,
            digest_key: hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new())
                .expect("the system has random numbers"),
            attempts: Attempts::default(),
            takes_privileged: config.basic_privileged == Switch::On,
            all: Arc::new(Semaphore::new(config.connections as usize)),
            roles: Mutex::default(),
            idle: Mutex::default(),
            health: tokio::sync::Mutex::default(),
            missed_extension: Mutex::default(),
        });
        let weak = Arc::downgrade(&pool);
        tokio::spawn(async move {
            while let Some(pool) = weak.upgrade() {
                pool.sweep();
                drop(pool);
                tokio::time::sleep(SWEEP).await;
            }
        });
        pool
    }

    /// A connection for a caller: logged in as its role, or as the proxy's own user.
    ///
    /// # Errors
    /// 401 for a wrong password; 429 if the role has too many requests running; 503 if there are too many requests in all,
    /// or if the database cannot be reached.
    pub async fn get(self: &Arc<Pool>, caller: &Caller) -> Result<Connection> {
        let start = Instant::now();
        if let Caller::Login { role, from, .. } = caller {
            self.attempts.check(role, *from, start).map_err(Problem::slowed)?;
        }
        let role = self.role(caller.share());
        let busy = || Problem::new(StatusCode::TOO_MANY_REQUESTS, "this role has too many requests running");
        let for_role = permit(&role, self.wait).await.ok_or_else(busy)?;
        let left = self.wait.saturating_sub(start.elapsed());
        let all_busy = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are running");
        let for_all = permit(&self.all, left).await.ok_or_else(all_busy)?;
        let login = self.login(caller)?;
        let mut trial = None;
        if let Caller::Login { role, from, .. } = caller {
            let left = self.wait.saturating_sub(start.elapsed());
            trial = Some(timeout(left, self.attempts.trial(role, *from)).await.map_err(|_| busy())?);
            // Before the look-up of a kept connection: a right guess must not be faster than a wrong one.
            self.attempts.admit(role, *from, Instant::now()).map_err(Problem::slowed)?;
        }
        // A task of its own, which goes on if the caller disconnects: a login that has begun counts until it ends, so that
        // each tried password is counted.
        let (pool, caller, permits) = (self.clone(), caller.clone(), [for_role, for_all]);
        let (send, receive) = oneshot::channel();
        tokio::spawn(async move {
            let result = pool.connection(&caller, login, permits).await;
            drop(trial);
            if let Err(Ok(connection)) = send.send(result) {
                connection.put_back("");
            }
        });
        receive.await.unwrap_or_else(|_| Err(Problem::unavailable("a login was interrupted")))
    }

    /// A kept connection or a new one.
    async fn connection(
        self: Arc<Pool>,
        caller: &Caller,
        login: Login,
        permits: [OwnedSemaphorePermit; 2],
    ) -> Result<Connection> {
        let (found, old) = self.take_idle(&login);
        for open in old {
            open.end().await;
        }
        let open = match found {
            Some(open) => open,
            None => self.open(caller).await.inspect_err(|problem| {
                if let (Caller::Login { role, from, .. }, StatusCode::UNAUTHORIZED) = (caller, problem.status) {
                    self.attempts.failed(role, *from, Instant::now());
                }
            })?,
        };
        if let Caller::Login { role, from, .. } = caller {
            self.attempts.succeeded(role, *from);
        }
        Ok(Connection { pool: self, login, open, _permits: permits })
    }

    /// How many requests a role may have running, and how many more it may start now.
    pub fn limits(&self, role: &str) -> (u32, usize) {
        (self.per_role, self.role(role).available_permits())
    }

    /// The user of --database, if it names one.
    pub fn own_user(&self) -> Option<&str> {
        self.own_user.as_deref()
    }

    /// Sets the password with which the user of --database logs in from now on.
    pub fn set_password(&self, password: String) {
        self.database.write().unwrap_or_else(PoisonError::into_inner).password(password);
    }

    fn database(&self) -> tokio_postgres::Config {
        self.database.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether requests can be served now. One probe runs at a time, and all callers use its result for a second.
    pub async fn health(&self) -> Health {
        let mut last = self.health.lock().await;
        if let Some((health, _)) = last.filter(|(_, at)| at.elapsed() < HEALTH_AGE) {
            return health;
        }
        let health = timeout(SERVER_PATIENCE, self.probe()).await.unwrap_or(Health::Unreachable);
        *last = Some((health, Instant::now()));
        health
    }

    /// Logs in as the proxy's own user and looks for the extension. Without such a user, it only checks that the server
    /// answers, and whether requests have recently found no extension.
    async fn probe(&self) -> Health {
        let mut config = self.database();
        if self.own_user.is_none() {
            config.user("fhir_bulk_proxy_health");
        }
        match connect(&config).await {
            Ok((client, driver)) => {
                let found = find_extension(&client).await;
                driver.abort();
                match found {
                    Ok(Some(_)) => Health::Good,
                    Ok(None) => Health::NoExtension,
                    Err(_) => Health::Unreachable,
                }
            }
            Err(error) => {
                // The server answers: it asked for a password, or has no such role. "57P03": it is starting or stopping.
                let is_there = match error.as_db_error() {
                    Some(error) => error.code().code().starts_with("28"),
                    None => std::error::Error::source(&error).is_some_and(|cause| !cause.is::<std::io::Error>()),
                };
                let missed = lock(&self.missed_extension).is_some_and(|at| at.elapsed() < SERVER_PATIENCE);
                match (is_there, &self.own_user) {
                    (false, _) => Health::Unreachable,
                    (true, Some(_)) => Health::NoLogin,
                    (true, None) if missed => Health::NoExtension,
                    (true, None) => Health::Good,
                }
            }
        }
    }

    /// How many connections are in use and how many idle.
    pub fn counts(&self) -> (usize, usize) {
        let idle = lock(&self.idle).values().map(Vec::len).sum();
        (self.connections as usize - self.all.available_permits(), idle)
    }

    fn role(&self, name: &str) -> Arc<Semaphore> {
        let mut roles = lock(&self.roles);
        if let Some(role) = roles.get(name).and_then(Weak::upgrade) {
            return role;
        }
        let role = Arc::new(Semaphore::new(self.per_role as usize));
        roles.insert(name.to_owned(), Arc::downgrade(&role));
        role
    }

    fn login(&self, caller: &Caller) -> Result<Login> {
        match caller {
            Caller::Login { role, password, .. } => {
                let password = hmac::sign(&self.digest_key, password.as_bytes()).as_ref().to_vec();
                Ok(Login { role: role.clone(), password })
            }
            Caller::Assumed { .. } | Caller::Own(_) | Caller::Download(_) => {
                let role = self.own_user.clone().ok_or_else(|| Problem::unavailable("--database names no user"))?;
                Ok(Login { role, password: Vec::new() })
            }
        }
    }

    /// A kept connection for a login, and the connections that must be closed before a new one is opened.
    fn take_idle(&self, login: &Login) -> (Option<Open>, Vec<Open>) {
        let mut idle = lock(&self.idle);
        let mut old = Vec::new();
        // The one used last, so that unneeded ones grow old.
        while let Some(open) = idle.get_mut(login).and_then(Vec::pop) {
            if self.is_good(&open) {
                return (Some(open), old);
            }
            old.push(open);
        }
        // Idle connections of other roles count, too; the oldest one is closed to make room.
        if idle.values().map(Vec::len).sum::<usize>() > self.all.available_permits() {
            let oldest =
                idle.iter().filter_map(|(login, all)| Some((all.first()?.born, login.clone()))).min_by_key(|o| o.0);
            if let Some(all) = oldest.and_then(|(_, login)| idle.get_mut(&login)) {
                old.push(all.remove(0));
            }
        }
        (None, old)
    }

    fn is_good(&self, open: &Open) -> bool {
        !open.client.is_closed() && open.born.elapsed() < self.max_age
    }

    fn sweep(&self) {
        lock(&self.idle).retain(|_, all| {
            all.retain(|open| self.is_good(open));
            !all.is_empty()
        });
        lock(&self.roles).retain(|_, role| role.strong_count() > 0);
    }

    /// 1. check that the server asks the role for a password: otherwise a password would prove nothing
    /// 2. log in
    /// 3. check that the role may log in over HTTP; the caller does not learn which roles may not
    /// 4. find the extension
    async fn open(&self, caller: &Caller) -> Result<Open> {
        let mut config = self.database();
        if let Caller::Login { role, password, .. } = caller {
            config.user(role);
            // Without a password: the password in --database is that of the proxy's own user.
            let mut probe = tokio_postgres::Config::new();
            copy_target(&config, &mut probe);
            probe.user(role);
            match connect(&probe).await {
                Ok(_) => {
                    let why = format!(
                        "role \"{role}\" connects without a password (trust, peer or cert in pg_hba.conf), so a \
                                       password proves nothing"
                    );
                    return Err(Problem::unauthorized("this role cannot log in by password").because(why));
                }
                Err(error) if error.as_db_error().is_some() => return Err(Problem::of_login(&error)),
                // The server asked for a password. If it cannot be reached, the login below fails.
                Err(_) => {}
            }
            config.password(password);
        }
        let (client, driver) = connect(&config).await.map_err(|error| match caller {
            Caller::Login { .. } => Problem::of_login(&error),
            Caller::Assumed { .. } | Caller::Own(_) | Caller::Download(_) => {
                Problem::unavailable(format!("the user of --database cannot log in: {error:?}"))
            }
        })?;
        if let Caller::Login { role, .. } = caller
            && !self.takes_privileged
            && is_privileged(&client).await.map_err(Problem::unavailable)?
        {
            let why = format!("role \"{role}\" is SUPERUSER, BYPASSRLS, CREATEROLE or REPLICATION: --basic-privileged");
            return Err(Problem::unauthorized(WRONG_PASSWORD).because(why));
        }
        let found = find_extension(&client).await.map_err(Problem::unavailable)?;
        *lock(&self.missed_extension) = found.is_none().then(Instant::now);
        let missing = || {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the database has no extension fhir_bulk")
                .because("CREATE EXTENSION fhir_bulk")
        };
        let schema = found.ok_or_else(missing)?;
        Ok(Open { client, driver, schema, born: Instant::now() })
    }
}

impl Connection {
    /// The connection's client.
    pub fn client(&self) -> &Client {
        &self.open.client
    }

    /// The schema of the extension's functions, quoted.
    pub fn schema(&self) -> &str {
        &self.open.schema
    }

    /// Returns the connection to the pool without any state of this request. `end` ends its transaction, if there is one.
    pub fn put_back(self, end: &'static str) {
        // As a function's argument the whole struct moves into the task. An async block would move only the fields that it
        // names, and the permits would be released here, too early.
        tokio::spawn(self.clean_up(end));
    }

    async fn clean_up(self, end: &'static str) {
        let clean = async {
            // DISCARD ALL must be alone in its message.
            self.open.client.batch_execute(end).await?;
            self.open.client.batch_execute("DISCARD ALL").await
        };
        let clean = timeout(SERVER_PATIENCE, clean).await;
        if let (Ok(Ok(())), true) = (clean, self.pool.is_good(&self.open)) {
            lock(&self.pool.idle).entry(self.login).or_default().push(self.open);
        } else {
            self.open.end().await;
        }
    }

    /// Cancels the running query and closes the connection.
    pub fn cancel(self) {
        let token: CancelToken = self.open.client.cancel_token();
        tokio::spawn(async move {
            if let Ok(Err(error)) = timeout(SERVER_PATIENCE, token.cancel_query(NoTls)).await {
                tracing::warn!(%error, "a query could not be cancelled");
            }
            // Waits until the query has ended, if a cancel ends it: its error comes before the answer to this query.
            let _ = timeout(SERVER_PATIENCE, self.open.client.batch_execute("")).await;
            // The permits are held until here, so that they match the server's load.
            let Connection { open, _permits, .. } = self;
            open.end().await;
        });
    }
}

async fn permit(semaphore: &Arc<Semaphore>, wait: Duration) -> Option<OwnedSemaphorePermit> {
    timeout(wait, semaphore.clone().acquire_owned()).await.ok()?.ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic cannot leave the data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
