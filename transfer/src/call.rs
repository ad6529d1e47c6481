//! Single requests to an S3 service, each on a thread of its own.

use crate::error::{Failure, TransferError};
use crate::request::{Client, Status};
use crate::s3::{self, Object, SIGNED_FOR, Service};
use crate::thread::{Hand, Thread};
use crate::upload::document;
use rusty_s3::actions::{DeleteObject, ListObjectsV2, S3Action};
use std::io;
use std::os::fd::BorrowedFd;
use ureq::http::Method;

/// A request on its way. Dropped, it ends its connection and its thread.
pub struct Call<T> {
    thread: Thread<Result<T, TransferError>>,
    client: Client,
}

impl<T: Send + 'static> Call<T> {
    fn start(
        client: Client,
        mut request: impl FnMut(&Client) -> Result<T, Failure> + Send + 'static,
    ) -> io::Result<Self> {
        let of_thread = client.clone();
        let thread = Thread::start("fhir_bulk call", move |hand: &Hand<_>| {
            match of_thread.again(|time| hand.wait(time), || request(&of_thread)) {
                Ok(Some(answer)) => hand.over(Ok(answer)),
                Ok(None) => false,
                Err(error) => hand.over(Err(error)),
            };
        })?;
        Ok(Call { thread, client })
    }

    /// Readable when there may be an answer.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.thread.wake_fd()
    }

    /// The answer, without waiting.
    pub fn take(&mut self) -> Option<Result<T, TransferError>> {
        let gone = || Err(TransferError::Network("the request ended without a word".into()));
        self.thread.take().unwrap_or_else(|_| Some(gone()))
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        self.client.shut_down();
    }
}

impl Object {
    /// Deletes the object; it is well if it is not there.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn delete(self, client: Client) -> io::Result<Call<()>> {
        Call::start(client, move |client| {
            let action = DeleteObject::new(&self.bucket, Some(&self.credentials), &self.key);
            self.remove(client, &action.sign(SIGNED_FOR))
        })
    }

    /// Has the service forget the parts of an upload whose [`crate::Stored::Parts`] was told; it is well if there are
    /// none.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn give_up(self, upload: String, client: Client) -> io::Result<Call<()>> {
        Call::start(client, move |client| self.forget_parts(client, &upload))
    }
}

impl Service {
    /// The keys in a bucket that start with a prefix, in order.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn list(self, bucket: String, prefix: String, client: Client) -> io::Result<Call<Vec<String>>> {
        Call::start(client, move |client| {
            let bucket = self.bucket(&bucket)?;
            let (mut keys, mut token) = (Vec::new(), None::<String>);
            loop {
                let mut action = ListObjectsV2::new(&bucket, Some(self.credentials()));
                action.with_prefix(prefix.as_str());
                if let Some(token) = token.take() {
                    action.with_continuation_token(token);
                }
                let response = client.send(Method::GET, &action.sign(SIGNED_FOR), &[], None)?;
                if response.status() != Status::OK {
                    return Err(s3::failure(response));
                }
                let listed = ListObjectsV2::parse_response(&document(response)?)
                    .map_err(|error| TransferError::Network(format!("the service's answer is not S3's: {error}")))?;
                keys.extend(listed.contents.into_iter().map(|object| object.key));
                token = listed.next_continuation_token;
                if token.is_none() {
                    return Ok(keys);
                }
            }
        })
    }
}
