//! The state that all requests share.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};

use crate::caller::auth::Authenticator;
use crate::caller::submitters::Submitters;
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
    submitters: RwLock<Arc<Submitters>>,
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
        let submitters = RwLock::new(Arc::new(submitters(&config)?));
        let pool = Pool::new(&config);
        Ok(App {
            config,
            authenticator,
            submitters,
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

    /// Who may submit now.
    pub fn submitters(&self) -> Arc<Submitters> {
        self.submitters.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reloads the files of keys, passwords and submitters. They apply to new requests.
    ///
    /// # Errors
    /// What is wrong with one of them; then nothing changes.
    pub fn reload(&self) -> Result<(), Box<dyn Error>> {
        let authenticator = Arc::new(Authenticator::read(&self.config, &self.own_secret)?);
        let submitters = Arc::new(submitters(&self.config)?);
        if let Some(password) = self.config.read_database_password()? {
            self.pool.set_password(password);
        }
        *self.authenticator.write().unwrap_or_else(PoisonError::into_inner) = authenticator;
        *self.submitters.write().unwrap_or_else(PoisonError::into_inner) = submitters;
        Ok(())
    }
}

/// Reads the file of submitters. Without one there are none.
fn submitters(config: &Config) -> Result<Submitters, Box<dyn Error>> {
    config.submitters_file.as_deref().map_or_else(|| Ok(Submitters::default()), Submitters::read)
}
