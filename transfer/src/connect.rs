//! Connections that never take a break for the end of the body.
//!
//! A body without a length ends with its connection. The HTTP client would also take a reset, or TLS without a closing
//! message, for the end, and half a file would look complete.

use std::io;
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// The last connector in a chain.
#[derive(Debug)]
pub(crate) struct Strict;

impl<In: Transport> Connector<In> for Strict {
    type Out = StrictTransport<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(StrictTransport))
    }
}

/// A connection that fails when it breaks.
#[derive(Debug)]
pub(crate) struct StrictTransport<T>(T);

impl<T: Transport> Transport for StrictTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
        self.0.await_input(timeout).map_err(|error| match error {
            // The client would take these kinds for the end of the body.
            Error::Io(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset | UnexpectedEof) => {
                Error::Io(io::Error::other(error.to_string()))
            }
            error => error,
        })
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
