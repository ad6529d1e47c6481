//! An S3 service for tests: objects are files in a folder, and requests must be signed.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use std::fs;
use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;

/// The id of the access key.
pub const KEY_ID: &str = "TESTKEYID";
/// The secret access key.
pub const SECRET_KEY: &str = "test/SECRET+key";

/// The service, on 127.0.0.1. Drop removes its folder.
pub struct S3Server {
    port: u16,
    folder: PathBuf,
}

impl Default for S3Server {
    fn default() -> S3Server {
        S3Server::new()
    }
}

impl S3Server {
    /// Starts it, with an empty bucket `bucket`.
    pub fn new() -> S3Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fhir_bulk_s3_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("bucket")).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(&folder).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET_KEY));
        let service = service.build();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        // It ends with the process, as all threads do.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let server = Arc::new(Builder::new(TokioExecutor::new()));
                while let Ok((stream, _)) = listener.accept().await {
                    let (server, service) = (server.clone(), service.clone());
                    tokio::spawn(async move {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        });
        S3Server { port, folder }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes an object.
    pub fn put(&self, bucket: &str, key: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.join(bucket).join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// An object's content, if there is one.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join(bucket).join(key)).ok()
    }

    /// The keys of a bucket's objects, in order.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let root = self.folder.join(bucket);
        let (mut keys, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    keys.push(entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        keys.sort();
        keys
    }

    /// The parts of uploads that were neither completed nor aborted.
    pub fn unfinished(&self) -> Vec<String> {
        let names = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".upload")).collect()
    }

    /// An address that leads here. `fault` decides what happens to the n-th connection, counted from 0.
    pub fn behind(&self, fault: impl Fn(usize) -> Fault + Send + 'static) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, count) = (self.port, Arc::new(AtomicUsize::new(0)));
        let connections = count.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let fault = fault(connections.fetch_add(1, Ordering::SeqCst));
                thread::spawn(move || forward(client, target, fault));
            }
        });
        Proxy { port, count }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new(&self.folder));
    }
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It works.
    None,
    /// It ends after this many bytes of the response.
    CutAnswer(usize),
    /// It ends after this many bytes of the request.
    CutRequest(usize),
    /// The request gets no response.
    Stall,
    /// The answer is 503.
    Busy,
}

/// An address that leads to a service.
pub struct Proxy {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl Proxy {
    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

fn forward(mut client: TcpStream, port: u16, fault: Fault) {
    match fault {
        Fault::Stall => return crate::http::hold(&mut client),
        Fault::Busy => {
            let _ = client.read(&mut [0; 65536]);
            let _ = client.write_all(&crate::http::status("503 Slow Down", "Retry-After: 0\r\n"));
            let _ = client.shutdown(Shutdown::Write);
            return crate::http::hold(&mut client);
        }
        Fault::None | Fault::CutAnswer(_) | Fault::CutRequest(_) => {}
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let request = if let Fault::CutRequest(bytes) = fault { bytes as u64 } else { u64::MAX };
    let answer = if let Fault::CutAnswer(bytes) = fault { bytes as u64 } else { u64::MAX };
    thread::spawn(move || {
        let _ = io::copy(&mut Read::by_ref(&mut from_client).take(request), &mut to_server);
        let _ = to_server.shutdown(if request == u64::MAX { Shutdown::Write } else { Shutdown::Both });
        if request != u64::MAX {
            let _ = from_client.shutdown(Shutdown::Both);
        }
    });
    let _ = io::copy(&mut Read::by_ref(&mut server).take(answer), &mut client);
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}
