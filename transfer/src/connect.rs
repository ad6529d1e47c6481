//! Connections whose break is never taken for their end.
//!
//! A body without a length ends where its connection does. There the client takes a reset, or TLS that stops without
//! saying so, for such an end as well; it would make half a file of a whole one.

use std::io;
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Comes last in a chain of connectors.
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
            // Under these kinds it would be taken for an end.
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
