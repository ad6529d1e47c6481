//! Lists the objects of a bucket whose keys start with a prefix, page by page.

use crate::call::{Asker, Call, Stop};
use crate::error::TransferError;
use crate::object_name::ObjectName;
use crate::request::Client;
use crate::s3::{Object, SIGNED_FOR, Service};
use rusty_s3::actions::{ListObjectsV2, S3Action};
use rusty_s3::{Bucket, Credentials};
use std::io;
use std::sync::Arc;
use url::Url;

/// The objects whose keys start with a prefix, which may be empty.
#[derive(Clone)]
pub struct Prefix {
    pub(crate) bucket: Bucket,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) prefix: String,
}

/// A page of a listing: what the service gives at once, mostly a thousand keys.
#[derive(Debug)]
pub struct Page {
    /// The objects, in the service's order.
    pub objects: Vec<Listed>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<String>,
}

/// An object of a listing.
#[derive(Debug)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// When it was last modified, as the service writes it: ISO 8601 in UTC. Some do not.
    pub modified: Option<String>,
}

impl Service {
    /// The objects whose keys start with that of a name.
    ///
    /// # Errors
    /// As for [`Service::object`].
    pub fn prefix(&self, name: ObjectName<'_>) -> Result<Prefix, TransferError> {
        let Object { bucket, credentials, key: prefix } = self.object(name)?;
        Ok(Prefix { bucket, credentials, prefix })
    }
}

impl Prefix {
    /// The URL of its bucket.
    pub fn bucket_url(&self) -> &Url {
        self.bucket.base_url()
    }

    /// Asks for the page that begins where an earlier one told; `None` for the first.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn page(&self, from: Option<String>, client: Client) -> io::Result<Call<Page>> {
        let prefix = self.clone();
        Call::start(client, move |asker| prefix.ask(from, asker))
    }

    /// As [`Prefix::page`], on the thread that asks.
    pub(crate) fn ask<E: Send + 'static>(&self, from: Option<String>, asker: &Asker<'_, E>) -> Result<Page, Stop> {
        let mut action = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
        action.with_prefix(self.prefix.as_str());
        if let Some(from) = &from {
            action.with_continuation_token(from.as_str());
        }
        let document = asker.get(|| action.sign(SIGNED_FOR))?;
        Page::read(&document, &self.prefix, from.as_deref()).map_err(Stop::Failed)
    }
}

impl Page {
    /// Reads a service's answer to the request for the keys below `prefix`, for the page that begins where `from` told.
    ///
    /// # Errors
    /// The answer is not S3's, lists something else, or leads back to the same page.
    pub fn read(document: &str, prefix: &str, from: Option<&str>) -> Result<Page, TransferError> {
        let failed = |why: String| Err(TransferError::Network(why));
        let listed = match ListObjectsV2::parse_response(document) {
            Ok(listed) => listed,
            Err(error) => return failed(format!("the service's answer cannot be read as S3's: {error}")),
        };
        // Whoever may read, or deletes, what is below a prefix means nothing else: some services ignore prefixes.
        if let Some(other) = listed.contents.iter().find(|found| !found.key.starts_with(prefix)) {
            return failed(format!(
                "the service lists \"{}\", which is not below the requested prefix \"{prefix}\"",
                other.key
            ));
        }
        let next = listed.next_continuation_token;
        if next.is_some() && next.as_deref() == from {
            return failed("the service lists the same page again and again".into());
        }
        let objects = listed.contents.into_iter();
        Ok(Page {
            objects: objects.map(|found| Listed { key: found.key, modified: found.last_modified }).collect(),
            next,
        })
    }
}
