//! Carrying one step out. No opinions: the plan has them.

use std::sync::PoisonError;

use fleet::digest::Digest;

use super::FilesRuntime;
use super::diff::{Act, Found, Want};
use super::marks::{Start, boot_id};
use super::observe;
use super::write::{Content, WriteError, put, rmdir, unlink};
use crate::ports::runtime::{Hinted, Object, RuntimeError, Step, Task};
use crate::systemd::{Job, SystemdError};

/// Why systemd did not do what a step asked.
pub(super) fn lift(action: &'static str, object: &Object, error: SystemdError) -> RuntimeError {
    match error {
        SystemdError::Unreachable(source) => {
            RuntimeError::Unreachable { engine: "systemd over D-Bus".to_owned(), source }
        }
        error => RuntimeError::Step {
            action,
            object: object.clone(),
            transient: matches!(error, SystemdError::Silent { .. } | SystemdError::Unfinished { .. }),
            source: Box::new(error),
        },
    }
}

fn written(action: &'static str, object: &Object, error: WriteError) -> RuntimeError {
    if error.is_change() {
        return RuntimeError::Changed { object: object.clone() };
    }
    let transient = error.is_transient();
    let source: Box<dyn std::error::Error + Send + Sync> = match error.hint() {
        Some(hint) => Box::new(Hinted { message: error.to_string(), hint: hint.to_owned() }),
        None => Box::new(error),
    };
    RuntimeError::Step { action, object: object.clone(), transient, source }
}

impl FilesRuntime {
    pub(super) async fn carry_out(
        &self,
        task: Task<'_>,
        want: Option<&Want>,
        step: &Step<Act>,
    ) -> Result<(), RuntimeError> {
        let object = &step.object;
        let marked = |error: std::io::Error| RuntimeError::Step {
            action: "note the state of",
            object: object.clone(),
            transient: true,
            source: Box::new(error),
        };
        match &step.data {
            Act::Leave { unit } => {
                self.marks
                    .change(task.app, |marks| {
                        marks.started.remove(unit);
                        marks.reload = true;
                    })
                    .map_err(marked)?;
                for done in [self.systemd.run(Job::Stop, unit).await, self.systemd.disable(unit).await] {
                    match done {
                        Err(error) if !error.is_missing_unit() => return Err(lift("stop", object, error)),
                        _ => {}
                    }
                }
                self.systemd.reset_failed(unit).await.map_err(|error| lift("stop", object, error))
            }
            Act::Unlink { path } => {
                self.place.check(path)?;
                if self.is_claimed(task, path) {
                    return Ok(());
                }
                self.unmark(task, path).map_err(marked)?;
                unlink(&self.place, path).map_err(|error| written("remove", object, error))
            }
            Act::Rmdir { path } => {
                self.place.check_folder(path)?;
                rmdir(&self.place, path).map_err(|error| written("remove", object, error))
            }
            Act::Write { path, content, mode, owner, fresh } => {
                self.place.check(path)?;
                let bytes = task.blobs.get(content).ok_or_else(|| RuntimeError::Observe {
                    what: format!("the content of {path}"),
                    source: format!("blob {} is missing", content.short()).into(),
                })?;
                self.unmark(task, path).map_err(marked)?;
                let file = Content { bytes, mode: *mode, owner: *owner };
                match put(&self.place, path, &file, *fresh) {
                    // Written by this step before: to repeat it is no mistake.
                    Err(error) if *fresh && error.is_change() && self.bears(path, &file, *content) => Ok(()),
                    outcome => outcome.map_err(|error| written("write", object, error)),
                }
            }
            Act::Enable { unit, again } => {
                self.systemd.enable(unit, *again).await.map_err(|error| lift("enable", object, error))
            }
            Act::Reload => {
                self.systemd.reload().await.map_err(|error| lift("reload", object, error))?;
                self.marks.change(task.app, |marks| marks.reload = false).map_err(marked)
            }
            Act::Start { unit } => self.bring_up(task, want, Job::Start, unit, object).await,
            Act::Restart { unit } => self.bring_up(task, want, Job::Restart, unit, object).await,
        }
    }

    /// Whether the file is there, just as it is to be.
    fn bears(&self, path: &str, file: &Content<'_>, content: Digest) -> bool {
        let found = observe::look(&self.place, path, Some(file.bytes.len() as u64));
        matches!(found, Ok(Found::File { digest: Some(digest), mode, owner })
            if digest == content && mode == file.mode & 0o7777 && owner == file.owner)
    }

    async fn bring_up(
        &self,
        task: Task<'_>,
        want: Option<&Want>,
        job: Job,
        unit: &str,
        object: &Object,
    ) -> Result<(), RuntimeError> {
        let action = if job == Job::Restart { "restart" } else { "start" };
        let failed = |error| lift(action, object, error);
        // A start limit that an earlier revision ran into is not this one's.
        self.systemd.reset_failed(unit).await.map_err(failed)?;
        if unit.ends_with(".socket") && job == Job::Restart {
            // A socket does not restart under a running service; the service's own step follows.
            let own = want.map(|want| want.units.as_slice()).unwrap_or_default();
            for service in self.systemd.triggers(unit).await.map_err(failed)? {
                if own.contains(&service) {
                    self.systemd.run(Job::Stop, &service).await.map_err(failed)?;
                }
            }
        }
        match self.systemd.run(job, unit).await {
            Ok(()) => {}
            // It was told; from here on, health judges how long it may take.
            Err(SystemdError::Unfinished { limit }) => {
                tracing::warn!(unit, limit_secs = limit.as_secs(), "unit is still starting");
            }
            Err(error) => return Err(failed(error)),
        }
        let Some(digest) = want.map(|want| want.digest) else { return Ok(()) };
        let noted = boot_id().and_then(|boot| {
            self.marks.change(task.app, |marks| {
                marks.started.insert(unit.to_owned(), Start { files: digest, boot });
            })
        });
        noted.map_err(|error| RuntimeError::Step {
            action: "note the start of",
            object: object.clone(),
            transient: true,
            source: Box::new(error),
        })
    }

    /// Before the first byte of the app changes: its units no longer run with
    /// what is on disk, and systemd has not read it.
    fn unmark(&self, task: Task<'_>, path: &str) -> std::io::Result<()> {
        let unit = self.place.is_unit_path(path) && super::has_systemd();
        self.marks.change(task.app, |marks| {
            marks.started.clear();
            marks.reload |= unit;
        })
    }

    /// Whether another app took the path over at this revision.
    fn is_claimed(&self, task: Task<'_>, path: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .any(|(app, known)| app != task.app && known.revision == *task.revision && known.wanted.contains(path))
    }
}
