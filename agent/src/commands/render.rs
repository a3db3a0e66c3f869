//! `render`: what a device is to run, fetched, verified and rendered as the
//! device would. Needs no running agent and keeps nothing.

use fleet::render::{DeviceFacts, render as rendered};

use super::args::RenderArgs;
use super::verify::{Scratch, as_url, refused};
use super::{Failure, json, print, tell};
use crate::config::settings::Settings;
use crate::ports::clock::Clock;
use crate::ports::source::Source as _;
use crate::source::{GitSource, Verified};

/// Prints the desired state of this device, or of the one that is named.
///
/// # Errors
/// As `verify`; code 2 where the head does not render.
pub(super) async fn render(settings: &Settings, args: RenderArgs, clock: &impl Clock) -> Result<(), Failure> {
    let mut from = settings.source.clone();
    if let Some(repo) = &args.repo {
        from.url = as_url(repo);
    }
    let mut facts = DeviceFacts { name: settings.device.name.clone(), labels: settings.device.labels.clone() };
    if let Some(name) = args.device {
        facts.name = name.parse().map_err(|error| Failure::new(2, format!("--device: {error}")))?;
    }
    facts.labels.extend(args.labels);
    let scratch = Scratch::make()
        .map_err(|error| Failure::new(1, format!("cannot make a temporary folder: {error}")).hint("set TMPDIR"))?;
    let failed = |error| refused(&from.url, &error);
    let source = GitSource::open(&from, &scratch.0.join("git"), clock.build_date()).map_err(failed)?;
    let revision = match source.verify(None, clock.now()).await.map_err(failed)? {
        Verified::Holds { revision, .. } => revision,
        Verified::ClockUnset { head } => {
            let message =
                format!("while verifying {}, commit {head} waits: the clock is not set (ClockUnset)", from.url);
            return Err(Failure::new(3, message).hint("set the clock: it is before this program's build"));
        }
    };
    let tree = source.tree(&revision).map_err(failed)?;
    let rendered = rendered(tree.as_ref(), &facts, &revision).map_err(|findings| {
        findings.iter().for_each(|finding| tell(&finding.to_string()));
        Failure::new(2, format!("revision {} does not render for device {}", revision.short(), facts.name))
    })?;
    rendered.notes.iter().for_each(|note| tell(&note.to_string()));
    print(&json(&rendered.state)?);
    Ok(())
}
