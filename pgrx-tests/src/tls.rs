//! Certificate authorities, and https servers that they vouch for.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate authority of a test.
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one with this name.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A server on 127.0.0.1 with a certificate for `host`, as changed.
    pub fn server(&self, host: &str, answer: Vec<u8>, change: impl FnOnce(&mut CertificateParams)) -> Server {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Server::new(
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap(),
            answer,
        )
    }
}

/// Answers all requests alike, over TLS.
pub struct Server {
    port: u16,
    behaviour: Arc<Behaviour>,
}

struct Behaviour {
    answer: Mutex<Vec<u8>>,
    /// Whether the end of an answer says that it is the end.
    ends_well: AtomicBool,
    answered: AtomicUsize,
}

impl Server {
    fn new(config: ServerConfig, answer: Vec<u8>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(config);
        let (ends_well, answered) = (AtomicBool::new(true), AtomicUsize::new(0));
        let behaviour = Arc::new(Behaviour { answer: Mutex::new(answer), ends_well, answered });
        let server = Server { port, behaviour: behaviour.clone() };
        // It ends with the process, as all threads do.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Clients that do not trust it hang up.
                let _ = behaviour.answer(stream, config.clone());
            }
        });
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `path` starts with a slash.
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.port)
    }

    /// Answers otherwise from now on.
    pub fn set_answer(&self, answer: Vec<u8>) {
        *self.behaviour.answer.lock().unwrap() = answer;
    }

    /// Ends TLS without its closing message from now on.
    pub fn break_off(&self) {
        self.behaviour.ends_well.store(false, Ordering::SeqCst);
    }

    /// How many requests it has read.
    pub fn answered(&self) -> usize {
        self.behaviour.answered.load(Ordering::SeqCst)
    }
}

impl Behaviour {
    fn answer(&self, stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        let mut line = String::new();
        while stream.read_line(&mut line)? > 2 {
            line.clear();
        }
        self.answered.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        let stream = stream.get_mut();
        stream.write_all(&answer)?;
        if self.ends_well.load(Ordering::SeqCst) {
            stream.conn.send_close_notify();
        }
        stream.flush()
    }
}
