//! Writes the bytes of COPY … TO to the client, a file or a program.

use super::end;
use crate::program::Program;
use fhir_bulk_pg::client::CopyOut;
use fhir_bulk_pg::copy::End;
use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session;
use nix::sys::stat::{Mode, umask};
use pgrx::PgSqlErrorCode;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// An open target.
pub enum Outlet {
    /// To the client.
    Client(CopyOut),
    /// Into a file of the server.
    File(File, PathBuf),
    /// Into a program on the server.
    Program(Program),
}

impl Outlet {
    /// Opens the target. The caller has checked the rights.
    ///
    /// # Errors
    /// 0A000 without a client; 42602 for a file without an absolute path; 42501, 42809, 53100, 58030, 58P01 for a file that
    /// cannot be created; 58000 for a program that cannot be started.
    pub fn open(end: End<'_>) -> Result<Outlet> {
        Ok(match end {
            End::Client => Outlet::Client(CopyOut::begin()?),
            End::File(name) => {
                let path = end::path(name);
                if !path.is_absolute() {
                    let message = format!("the path \"{}\" is not absolute", path.display());
                    return Err(Error::new(PgSqlErrorCode::ERRCODE_INVALID_NAME, message)
                        .hint("COPY TO a file of the server needs an absolute path."));
                }
                let file = create(&path).map_err(|error| failure("create", &path, &error))?;
                Outlet::File(file, path)
            }
            End::Program(command) => Outlet::Program(Program::to_write(&command.to_string_lossy())?),
        })
    }

    /// Writes bytes. A cancel takes effect here.
    ///
    /// # Errors
    /// 53100 and 58030 for a file, 38000 and 58030 for a program.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Outlet::Client(client) => {
                client.send(bytes);
                Ok(())
            }
            Outlet::File(file, path) => {
                session::check_for_interrupts();
                file.write_all(bytes).map_err(|error| failure("write to", path, &error))
            }
            Outlet::Program(program) => program.write(bytes),
        }
    }

    /// Ends the target.
    ///
    /// # Errors
    /// 38000 if the program fails.
    pub fn end(self) -> Result<()> {
        match self {
            Outlet::Client(client) => {
                client.end();
                Ok(())
            }
            Outlet::File(..) => Ok(()),
            Outlet::Program(mut program) => program.end(),
        }
    }
}

/// The mode of files, as in COPY: everybody may read them, only the server's user may write them.
fn create(path: &Path) -> io::Result<File> {
    // To open a pipe waits for its reader.
    if fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        return Err(io::Error::other("it is a pipe"));
    }
    let before = umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let file = File::create(path);
    umask(before);
    file
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
        io::ErrorKind::PermissionDenied => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        io::ErrorKind::IsADirectory => PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
        io::ErrorKind::StorageFull => PgSqlErrorCode::ERRCODE_DISK_FULL,
        _ => PgSqlErrorCode::ERRCODE_IO_ERROR,
    };
    Error::new(code, format!("could not {what} {}: {error}", path.display()))
        .hint("The file is written on the server, by the user that PostgreSQL runs as. \\copy of psql writes files of the client.")
}
