//! The certificate authorities that https trusts, and messages for TLS errors.

use crate::error::TransferError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, Error, RootCertStore};
use std::fmt;
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The certificate authorities that https trusts.
#[derive(Clone, Debug)]
pub struct Authorities(RootCerts);

impl Default for Authorities {
    /// The authorities of Mozilla's list at the time of the build.
    fn default() -> Authorities {
        Authorities(RootCerts::WebPki)
    }
}

/// Why a file of authorities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidAuthorities {
    /// It contains no certificate.
    None,
    /// It is not PEM.
    NotPem(String),
    /// The certificate with this number, from 1, cannot be read.
    NotCertificate(usize),
}

impl fmt::Display for InvalidAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidAuthorities::None => f.write_str("there is no certificate in it"),
            InvalidAuthorities::NotPem(why) => write!(f, "it is not PEM: {why}"),
            InvalidAuthorities::NotCertificate(number) => write!(f, "certificate {number} in it cannot be read"),
        }
    }
}

impl std::error::Error for InvalidAuthorities {}

impl Authorities {
    /// Mozilla's list and the certificates of a PEM file.
    ///
    /// # Errors
    /// The file has no certificates, or one that cannot be read.
    pub fn with_pem(pem: &[u8]) -> Result<Authorities, InvalidAuthorities> {
        let own: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| InvalidAuthorities::NotPem(error.to_string()))?;
        if own.is_empty() {
            return Err(InvalidAuthorities::None);
        }
        for (at, certificate) in own.iter().enumerate() {
            let usable = RootCertStore::empty().add(certificate.clone());
            usable.map_err(|_| InvalidAuthorities::NotCertificate(at + 1))?;
        }
        let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
        let all = built_in.chain(&own).map(|certificate| Certificate::from_der(certificate).to_owned());
        Ok(Authorities(RootCerts::Specific(Arc::new(all.collect()))))
    }

    pub(crate) fn config(self) -> TlsConfig {
        TlsConfig::builder().root_certs(self.0).build()
    }
}

/// Makes a transfer error of a TLS error.
pub(crate) fn meaning(error: &Error) -> TransferError {
    let of_certificate = |what: &str| TransferError::Network(format!("the server's certificate {what}"));
    match error {
        // BadSignature: the authority has the name of a trusted one, but another key.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            TransferError::UnknownAuthority
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            of_certificate("has expired")
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            of_certificate("is not valid yet")
        }
        Error::InvalidCertificate(CertificateError::NotValidForName) => of_certificate("is for another host"),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            // Each is a quoted name inside the name of its kind.
            let bare = |name: &str| name.split('"').nth(1).unwrap_or(name).to_owned();
            let presented = presented.iter().take(5).map(|name| bare(name)).collect::<Vec<_>>().join(", ");
            of_certificate(&format!("is not for host \"{}\" but for {presented}", expected.to_str()))
        }
        Error::InvalidCertificate(error) => of_certificate(&format!("is not valid: {error}")),
        Error::InvalidMessage(error) => TransferError::Network(format!("the server does not speak TLS ({error:?})")),
        error => TransferError::Network(format!("TLS: {error}")),
    }
}
