//! Writes and removes the objects of a bucket under one prefix, like the files of a folder.
//!
//! If the writer of an object in parts is killed, the parts stay. S3 charges for them, but lists them only to keys that may
//! see all uploads of the bucket. So the folder has a note while there are parts: an object in [`NOTES`] with the upload's
//! id, written before the first part and removed after the last. [`Folder::clear`] reads the notes.

use crate::call::{Asker, Call, Stop};
use crate::error::TransferError;
use crate::listing::Prefix;
use crate::object_name::ObjectName;
use crate::request::Client;
use crate::s3::{Object, SIGNED_FOR, Service};
use rusty_s3::actions::{DeleteObject, S3Action};
use rusty_s3::{Bucket, Credentials};
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;

/// The prefix of notes in a folder. No other object's name starts with it.
const NOTES: &str = ".parts/";

/// The objects whose keys start with a prefix, which ends in `/`.
#[derive(Clone)]
pub struct Folder {
    bucket: Bucket,
    credentials: Arc<Credentials>,
    prefix: String,
}

impl Service {
    /// The objects below a name: `a` has `a/b`, but not `ab`.
    ///
    /// # Errors
    /// As for [`Service::object`].
    pub fn folder(&self, name: ObjectName<'_>) -> Result<Folder, TransferError> {
        let Object { bucket, credentials, key } = self.object(name)?;
        Ok(Folder { bucket, credentials, prefix: format!("{}/", key.trim_end_matches('/')) })
    }
}

impl Folder {
    /// An object in the folder, which need not exist.
    pub fn object(&self, name: &str) -> Object {
        self.with_key(format!("{}{name}", self.prefix))
    }

    /// A folder in the folder.
    pub fn below(&self, name: &str) -> Folder {
        Folder { prefix: format!("{}{name}/", self.prefix), ..self.clone() }
    }

    /// The names of all objects in the folder, in the service's order.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn names(self, client: Client) -> io::Result<Call<Vec<String>>> {
        Call::start(client, move |asker| {
            let names = self.keys(asker)?.into_iter().map(|key| key[self.prefix.len()..].to_owned());
            Ok(names.collect())
        })
    }

    /// Removes all objects and the parts of unfinished ones. It succeeds if there are none, but fails with S3's code
    /// `NoSuchBucket` if the bucket does not exist.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn clear(self, client: Client) -> io::Result<Call<()>> {
        Call::start(client, move |asker| {
            let notes = format!("{}{NOTES}", self.prefix);
            let (notes, objects): (Vec<String>, Vec<String>) =
                self.keys(asker)?.into_iter().partition(|key| key.starts_with(&notes));
            for key in &notes {
                self.give_up_noted(key, asker)?;
            }
            for key in objects.into_iter().chain(notes) {
                self.with_key(key).delete(asker)?;
            }
            Ok(())
        })
    }

    /// The name of an upload's note. Each upload has its own, so that an upload that is aborted late does not remove
    /// another's note.
    pub(crate) fn note(&self, upload: &str) -> Object {
        let digest = Sha256::digest(upload);
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.object(&format!("{NOTES}{name}"))
    }

    /// Aborts the upload that a note names, unless the note has been removed meanwhile.
    fn give_up_noted<E: Send + 'static>(&self, note: &str, asker: &Asker<'_, E>) -> Result<(), Stop> {
        let note = self.with_key(note.to_owned());
        let text = match asker.get(|| note.get()) {
            Err(Stop::Failed(TransferError::Status { code: 404, .. })) => return Ok(()),
            answer => answer?,
        };
        let parsed = text.split_once('\n').map(|(upload, name)| (upload, format!("{}{name}", self.prefix)));
        // This crate writes only notes there, but others may write to the bucket.
        let Some((upload, key)) = parsed.filter(|(_, key)| ObjectName::is_key(key)) else { return Ok(()) };
        self.with_key(key).forget_parts(asker, upload)
    }

    /// Lists all keys, in the service's order.
    fn keys<E: Send + 'static>(&self, asker: &Asker<'_, E>) -> Result<Vec<String>, Stop> {
        let Folder { bucket, credentials, prefix } = self.clone();
        let prefix = Prefix { bucket, credentials, prefix };
        let (mut keys, mut from) = (Vec::new(), None);
        loop {
            let page = prefix.ask(from, asker)?;
            keys.extend(page.objects.into_iter().map(|object| object.key));
            from = page.next;
            if from.is_none() {
                return Ok(keys);
            }
        }
    }

    fn with_key(&self, key: String) -> Object {
        Object { bucket: self.bucket.clone(), credentials: self.credentials.clone(), key }
    }
}

impl Object {
    pub(crate) fn delete<E: Send + 'static>(&self, asker: &Asker<'_, E>) -> Result<(), Stop> {
        asker.delete(|| DeleteObject::new(&self.bucket, Some(&self.credentials), &self.key).sign(SIGNED_FOR))
    }
}
