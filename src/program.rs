//! Runs a program on the server that COPY reads from or writes to. Its pipe does not block, so that every wait can be
//! interrupted.

use fhir_bulk_pg::error::{Error, Result};
use fhir_bulk_pg::session::{self, Waiting};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use pgrx::PgSqlErrorCode;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take to end after its pipe is closed. Then it is killed.
const GRACE: Duration = Duration::from_millis(200);
/// How often to check whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running program. Drop closes its pipe, and kills its shell if that does not end soon. Other processes that the shell has
/// started only see that the pipe is closed.
pub struct Program {
    command: String,
    child: Child,
    /// This process's end of the pipe; `None` once it is closed.
    pipe: Option<File>,
}

impl Program {
    /// Runs a command with the shell, to read its output.
    ///
    /// # Errors
    /// 58000 if it cannot be started.
    pub fn to_read(command: &str) -> Result<Program> {
        let mut child = start(command, |shell| shell.stdout(Stdio::piped()))?;
        let pipe = child.stdout.take().map(OwnedFd::from);
        Program::new(command, child, pipe)
    }

    /// Runs a command with the shell, to write its input.
    ///
    /// # Errors
    /// 58000 if it cannot be started.
    pub fn to_write(command: &str) -> Result<Program> {
        let mut child = start(command, |shell| shell.stdin(Stdio::piped()))?;
        let pipe = child.stdin.take().map(OwnedFd::from);
        Program::new(command, child, pipe)
    }

    fn new(command: &str, child: Child, pipe: Option<OwnedFd>) -> Result<Program> {
        let program = Program { command: command.to_owned(), child, pipe: pipe.map(File::from) };
        if let Some(pipe) = &program.pipe {
            let unblocked = fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
            unblocked.map_err(|error| could_not_start(command, &error.into()))?;
        }
        Ok(program)
    }

    /// This process's end of its pipe.
    ///
    /// # Panics
    /// After [`Program::end`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_ref().expect("open until the end").as_fd()
    }

    /// Reads its output. Returns how many bytes; 0 at the end, `None` if there are none so far.
    ///
    /// # Errors
    /// 58030.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(pipe) = &mut self.pipe else { return Ok(Some(0)) };
        match pipe.read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(self.failed("could not read from", &error)),
        }
    }

    /// Writes all bytes, and waits until the program takes them. An interrupt takes effect meanwhile.
    ///
    /// # Errors
    /// 38000 if the program has failed, 58030 if it no longer reads.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            match pipe.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    session::wait(&[Waiting::Writable(pipe.as_fd())]);
                    session::check_for_interrupts();
                }
                Err(error) => {
                    // The program's failure is a better error than the broken pipe.
                    self.end()?;
                    return Err(self.failed("could not write to", &error));
                }
            }
        }
        Ok(())
    }

    /// Closes the pipe, and waits until the program has ended. An interrupt takes effect meanwhile.
    ///
    /// # Errors
    /// 38000 for a program that fails.
    pub fn end(&mut self) -> Result<()> {
        self.pipe = None;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    // A cancel has reached it, too, as it is of the same group of processes.
                    session::check_for_interrupts();
                    let message = format!("program \"{}\" failed", self.command);
                    return Err(Error::new(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message)
                        .detail(how_it_ended(status)));
                }
                Ok(None) => session::wait_for_latch(LOOK_EVERY),
                Err(error) => return Err(self.failed("could not wait for", &error)),
            }
        }
    }

    fn failed(&self, what: &str, error: &io::Error) -> Error {
        let message = format!("{what} program \"{}\": {error}", self.command);
        Error::new(PgSqlErrorCode::ERRCODE_IO_ERROR, message)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.pipe = None;
        let deadline = Instant::now() + GRACE;
        // If waitpid fails, it is no longer a child.
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

fn start(command: &str, pipe: impl FnOnce(&mut Command) -> &mut Command) -> Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]);
    pipe(&mut shell).spawn().map_err(|error| could_not_start(command, &error))
}

fn could_not_start(command: &str, error: &io::Error) -> Error {
    let message = format!("could not start program \"{command}\": {error}");
    Error::new(PgSqlErrorCode::ERRCODE_SYSTEM_ERROR, message)
}

fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("It ended with status {code}."),
        (None, Some(signal)) => format!("It was ended by signal {signal}."),
        (None, None) => "It ended without a status.".to_owned(),
    }
}
