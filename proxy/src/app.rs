//! The state that all requests share.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};

use crate::caller::auth::Authenticator;
use crate::config::Config;
use crate::database::pool::Pool;
use crate::limits::attempts::Attempts;
use crate::limits::downloads::Downloads;
use crate::limits::polls::Polls;
use crate::limits::replays::Replays;
use crate::metrics::Metrics;
use crate::smart::tokens::{self, Secret};

/// The state that all requests share.
pub struct App {
    /// The settings.
    pub config: Config,
    authenticator: RwLock<Arc<Authenticator>>,
    /// Connections to the database.
    pub pool: Arc<Pool>,
    /// Downloads that are running.
    pub downloads: Arc<Downloads>,
    /// How often clients poll the status of jobs.
    pub polls: Polls,
    /// Failed logins of SMART clients.
    pub attempts: Attempts,
    /// Their used assertions.
    pub replays: Replays,
    /// Signs their tokens if no file has a secret for it.
    own_secret: Secret,
    /// The counters.
    pub metrics: Metrics,
}

impl App {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// An error in one of them.
    pub fn new(config: Config) -> Result<App, Box<dyn Error>> {
        let own_secret = tokens::random()?;
        let authenticator = RwLock::new(Arc::new(Authenticator::read(&config, &own_secret)?));
        let pool = Pool::new(&config);
        Ok(App {
            config,
            authenticator,
            pool,
            downloads: Arc::default(),
            polls: Polls::default(),
            attempts: Attempts::default(),
            replays: Replays::default(),
            own_secret,
            metrics: Metrics::default(),
        })
    }

    /// The keys and passwords that are in use now.
    pub fn authenticator(&self) -> Arc<Authenticator> {
        self.authenticator.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reloads the files of keys and passwords. They apply to new requests.
    ///
    /// # Errors
    /// What is wrong with one of them; then nothing changes.
    pub fn reload(&self) -> Result<(), Box<dyn Error>> {
        let authenticator = Arc::new(Authenticator::read(&self.config, &self.own_secret)?);
        if let Some(password) = self.config.read_database_password()? {
            self.pool.set_password(password);
        }
        *self.authenticator.write().unwrap_or_else(PoisonError::into_inner) = authenticator;
        Ok(())
    }
}
