//! Gets a revision ready while the device is untouched: renders it, and
//! downloads all that it needs.

use std::collections::BTreeMap;

use fleet::desired::Blobs;
use fleet::digest::Digest;
use fleet::finding::Finding;
use fleet::render::Rendered;
use fleet::revision::Revision;

use super::apply::Failure;
use super::context::{Context, Parts, Subject, chain, runtime_of, with_runtime};
use super::fetch::Fetcher;
use crate::ports::journal::Kept;
use crate::ports::runtime::{Pins, Runtime};

/// What preparing came to.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Everything is on the device.
    Ready(Box<Kept>, Blobs),
    /// The same digest as what runs and is good.
    Same(Box<Kept>, Blobs),
    /// Waiting can't mend it. With the digest, where it rendered.
    Refused(Failure, Option<Digest>),
    /// Waiting may.
    Later(Failure),
}

/// Prepares `to`. `running` is the good state that runs, if one does.
pub(crate) async fn prepare<P: Parts>(
    context: &Context<P>,
    fetcher: &Fetcher,
    to: Revision,
    running: Option<&Kept>,
) -> Prepared {
    let rendered = match fetcher.render(&to.id).await {
        Ok(Ok(rendered)) => rendered,
        Ok(Err(findings)) => return Prepared::Refused(unrendered(&findings), None),
        Err(error) => {
            let failure = Failure::of(None, &error);
            return if failure.transient { Prepared::Later(failure) } else { Prepared::Refused(failure, None) };
        }
    };
    let Rendered { state: desired, blobs, notes } = rendered;
    for note in &notes {
        tracing::warn!(note = %note, "note on the repository");
    }
    let digest = desired.digest;
    if let Some(old) = context.state().blocked.iter().find(|blocked| blocked.digest == Some(digest)) {
        let message = format!(
            "it renders to the same as revision {}, which is blocked: {}\nhint: push a change, or `burgee-agent retry`",
            old.revision, old.message
        );
        let failure = Failure {
            policy: fleet::desired::OnFailure::Rollback,
            reason: "EqualsBlocked",
            message,
            transient: false,
            blameless: false,
        };
        return Prepared::Refused(failure, Some(digest));
    }
    let mut kept = Kept { revision: to, desired, pins: BTreeMap::new() };
    if let Some(running) = running.filter(|running| running.desired.digest == digest) {
        kept.pins = running.pins.clone();
        return Prepared::Same(Box::new(kept), blobs);
    }
    match download(context, &mut kept, &blobs, running).await {
        Ok(()) => Prepared::Ready(Box::new(kept), blobs),
        Err(failure) if failure.transient => Prepared::Later(failure),
        Err(failure) => Prepared::Refused(failure, Some(digest)),
    }
}

async fn download<P: Parts>(
    context: &Context<P>,
    kept: &mut Kept,
    blobs: &Blobs,
    running: Option<&Kept>,
) -> Result<(), Failure> {
    let _images = context.images.lock().await;
    // A tag can move: an app that did not change keeps what its tags meant.
    let same = |name| running.and_then(|old| old.desired.apps.iter().find(|app| app.name == name));
    let mut pins = BTreeMap::new();
    for app in &kept.desired.apps {
        let known = match (running, same(app.name.clone())) {
            (Some(running), Some(old)) if old.digest == app.digest => running.pins.get(&app.name).cloned(),
            _ => None,
        };
        let known: Pins = known.unwrap_or_default();
        let had = running.and_then(|old| old.desired.apps.iter().find(|other| other.name == app.name));
        let subject = Subject { pins: &known, had, ..Subject::of(kept, blobs, app) };
        let owned = context.inventory(&app.name, runtime_of(app));
        let task = subject.task(&owned);
        tracing::info!(app = %app.name, "preparing");
        let resolved = with_runtime!(context, runtime_of(app), |adapter| adapter.prepare(task).await);
        let resolved = resolved.map_err(|error| Failure::of(Some(app), &error))?;
        pins.insert(app.name.clone(), resolved);
    }
    kept.pins = pins;
    Ok(())
}

/// Downloads again what a revision on its way has lost (somebody pruned the
/// images between its preparation and now).
pub(crate) async fn again<P: Parts>(context: &Context<P>, kept: &Kept, blobs: &Blobs) -> Result<Kept, Failure> {
    let mut anew = kept.clone();
    let _images = context.images.lock().await;
    for app in &kept.desired.apps {
        let owned = context.inventory(&app.name, runtime_of(app));
        let task = Subject::of(kept, blobs, app).task(&owned);
        let resolved = with_runtime!(context, runtime_of(app), |adapter| adapter.prepare(task).await);
        anew.pins.insert(app.name.clone(), resolved.map_err(|error| Failure::of(Some(app), &error))?);
    }
    Ok(anew)
}

/// A kept state. One that both copies of the journal lost is rendered anew
/// from its commit, which was verified when it was accepted, and kept again.
pub(crate) async fn kept_or_anew<P: Parts>(
    context: &Context<P>,
    fetcher: &Fetcher,
    revision: &Revision,
) -> Option<(Kept, Blobs)> {
    if let Some(found) = context.kept(revision) {
        return Some(found);
    }
    match anew(context, fetcher, revision).await {
        Ok(found) => {
            tracing::warn!(%revision, "a kept state was lost; it was rendered anew");
            context.clear("Restorable");
            Some(found)
        }
        Err(cause) => {
            tracing::error!(%revision, cause, "a kept state is lost and can't be rendered anew");
            let message = format!(
                "the desired state of {revision} is lost: {cause}\nhint: look at the disk; it is tried again, and a newer commit brings a new state"
            );
            context.set("Restorable", false, "StateLost", message);
            None
        }
    }
}

async fn anew<P: Parts>(context: &Context<P>, fetcher: &Fetcher, revision: &Revision) -> Result<(Kept, Blobs), String> {
    let rendered = fetcher.render(&revision.id).await.map_err(|error| chain(&error))?;
    let Rendered { state: desired, blobs, .. } = rendered.map_err(|findings| unrendered(&findings).message)?;
    let mut kept = Kept { revision: revision.clone(), desired, pins: BTreeMap::new() };
    download(context, &mut kept, &blobs, None).await.map_err(|failure| failure.message)?;
    context.commit(Some((&kept, &blobs)), |_| {}).map_err(|error| chain(&error))?;
    Ok((kept, blobs))
}

fn unrendered(findings: &[Finding]) -> Failure {
    let lines: Vec<String> = findings.iter().take(5).map(ToString::to_string).collect();
    let more = findings.len().saturating_sub(lines.len());
    let rest = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    let hint = findings.iter().find_map(|finding| finding.hint.clone());
    let hint = hint.unwrap_or_else(|| "`burgee check` on the repository shows all of it".to_owned());
    Failure {
        policy: fleet::desired::OnFailure::Rollback,
        reason: "NotRendered",
        message: format!("{}{rest}\nhint: {hint}", lines.join("; ")),
        transient: false,
        blameless: false,
    }
}
