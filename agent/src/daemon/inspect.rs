//! What only looks, and may take long where an engine is slow: runs beside the
//! loop.

use fleet::name::AppName;

use super::context::{Context, Parts, Subject, chain, runtime_of, with_runtime};
use super::watch::plan_lines;
use crate::ports::Reason as _;
use crate::ports::control::{Answer, AppDiff, Refusal};
use crate::ports::runtime::Runtime;

/// What a reconcile would do now.
pub(crate) async fn diff<P: Parts>(context: &Context<P>) -> Result<Answer, Refusal> {
    let state = context.state();
    // Held: what will be done; else what drifted.
    let revision = state.phase.target().filter(|to| context.kept(to).is_some()).or(state.phase.at()).cloned();
    let Some((kept, blobs)) = revision.and_then(|revision| context.kept(&revision)) else {
        return Err(refused("NothingKept", "there is no desired state to compare with yet", None));
    };
    let mut diffs = Vec::new();
    for app in &kept.desired.apps {
        let lines = plan_lines(context, Subject::of(&kept, &blobs, app), app, true).await;
        let steps = lines.map_err(|message| {
            refused("ObserveFailed", &format!("while comparing, app {}: {message}", app.name), None)
        })?;
        if !steps.is_empty() {
            diffs.push(AppDiff { app: app.name.clone(), steps });
        }
    }
    for app in state.inventory.keys().filter(|name| !kept.desired.apps.iter().any(|app| app.name == **name)) {
        diffs.push(AppDiff { app: app.clone(), steps: vec![format!("delete app {app}")] });
    }
    Ok(Answer::Diff(diffs))
}

/// The last lines of an app's log.
pub(crate) async fn logs<P: Parts>(context: &Context<P>, name: &AppName, lines: usize) -> Result<Vec<String>, Refusal> {
    let state = context.state();
    let revision = state.phase.at().or(state.phase.target()).cloned();
    let Some((kept, blobs)) = revision.and_then(|revision| context.kept(&revision)) else {
        return Err(refused("NothingKept", "nothing runs yet", None));
    };
    let Some(app) = kept.desired.apps.iter().find(|app| app.name == *name) else {
        let names: Vec<_> = kept.desired.apps.iter().map(|app| app.name.as_str()).collect();
        let hint = format!("this device runs {}", names.join(", "));
        return Err(refused("NoSuchApp", &format!("no app {name} on this device"), Some(&hint)));
    };
    let runtime = runtime_of(app);
    let inventory = context.inventory(name, runtime);
    let task = Subject::of(&kept, &blobs, app).task(&inventory);
    let read = with_runtime!(context, runtime, |adapter| adapter.logs(task, lines.min(10_000)).await);
    read.map_err(|error| Refusal {
        reason: error.reason().to_owned(),
        message: format!("while reading logs, app {name}: {}", chain(&error)),
        hint: error.hint(),
    })
}

/// A refusal with these words.
pub(crate) fn refused(reason: &str, message: &str, hint: Option<&str>) -> Refusal {
    Refusal { reason: reason.to_owned(), message: message.to_owned(), hint: hint.map(str::to_owned) }
}
