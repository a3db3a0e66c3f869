//! Git over a child process: `ssh` to a host, `git-upload-pack` for a path.
//!
//! The child inherits no Git environment, is killed when the fetch ends, and
//! its output is read through the [`Meter`] like any other host's.

use std::io::{self, Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::meter::{Failure, Meter};

/// How much of a child's complaint is kept, in bytes.
const COMPLAINT: usize = 2048;

/// Would point Git elsewhere, or at other objects.
const GIT_ENVIRONMENT: [&str; 18] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TRACE",
    "GIT_WORK_TREE",
];

/// A running child, to be asked what it complained about.
pub(super) struct Spawned {
    /// Held, so that the child is killed when the fetch ends.
    child: Child,
    complaint: JoinHandle<String>,
    runtime: Handle,
}

/// A child's two ends, as gix wants them.
pub(super) type Pipes = (Output, Input);

/// Starts the first of `programs` (with its arguments) that is installed.
///
/// # Errors
/// [`Failure::NoProgram`], noted in the meter, names the first where none is.
pub(super) fn spawn(
    programs: &[(&'static str, Vec<String>)],
    runtime: &Handle,
    meter: &Arc<Meter>,
) -> io::Result<(Spawned, Pipes)> {
    let _context = runtime.enter();
    let mut child = None;
    for (program, arguments) in programs {
        let mut command = Command::new(program);
        GIT_ENVIRONMENT.iter().for_each(|name| {
            command.env_remove(name);
        });
        let spawned = command
            .args(arguments)
            .env("GIT_PROTOCOL", "version=2")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        match spawned {
            Ok(spawned) => {
                child = Some(spawned);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(meter.fail(Failure::Other(format!("cannot start {program}: {error}")))),
        }
    }
    let first = programs.first().map_or("git-upload-pack", |(program, _)| program);
    let mut child = child.ok_or_else(|| meter.fail(Failure::NoProgram(first)))?;
    let (Some(stdin), Some(stdout), Some(mut stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(meter.fail(Failure::Other("the child has no pipes".to_owned())));
    };
    let complaint = runtime.spawn(async move {
        let (mut kept, mut buffer) = (Vec::new(), [0; 512]);
        while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..count]);
            kept.drain(..kept.len().saturating_sub(COMPLAINT));
        }
        String::from_utf8_lossy(&kept).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    });
    let pipe = |meter: &Arc<Meter>| (runtime.clone(), Arc::clone(meter));
    let (handle, meter_in) = pipe(meter);
    let output = Output { stdout, runtime: handle, meter: meter_in };
    let (handle, meter_out) = pipe(meter);
    let input = Input { stdin, runtime: handle, meter: meter_out };
    Ok((Spawned { child, complaint, runtime: runtime.clone() }, (output, input)))
}

impl Spawned {
    /// What the child said on stderr, once its fetch has failed.
    pub(super) fn complaint(mut self) -> String {
        self.runtime.block_on(async {
            let soon = Duration::from_millis(500);
            let _ = tokio::time::timeout(soon, self.child.wait()).await;
            let _ = self.child.start_kill();
            match tokio::time::timeout(soon, self.complaint).await {
                Ok(Ok(text)) => text.trim().to_owned(),
                _ => String::new(),
            }
        })
    }
}

pub(super) struct Output {
    stdout: ChildStdout,
    runtime: Handle,
    meter: Arc<Meter>,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.runtime.block_on(self.meter.watch(self.stdout.read(buffer)))?;
        self.meter.count(count)?;
        Ok(count)
    }
}

pub(super) struct Input {
    stdin: ChildStdin,
    runtime: Handle,
    meter: Arc<Meter>,
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.meter.watch(self.stdin.write(bytes)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.meter.watch(self.stdin.flush()))
    }
}
