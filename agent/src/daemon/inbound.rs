//! What comes from outside: fetches that ended, hints and commands of the
//! hub, and what an operator on the device asks.

use std::time::Duration;

use fleet::revision::Revision;
use fleet::wire::command::{Act, Command};
use fleet::wire::report::{self, Logs, Outcome, ReportBody};

use super::context::{Parts, chain, with_hint};
use super::core::{Core, Input, Pending};
use super::fetch;
use super::inspect::{self, refused};
use super::record::note;
use super::tally::add;
use crate::phase::{Event, Phase};
use crate::ports::Reason;
use crate::ports::control::{Answer, Ask, Refusal, Request};
use crate::ports::journal::{Accepted, Suspension};
use crate::ports::source::{Fetched, SourceError};
use crate::ports::uplink::{Inbound, Uplink};

impl<P: Parts, U: Uplink> Core<P, U> {
    /// Starts a fetch beside the loop.
    pub(crate) fn fetch(&mut self) {
        self.polling.began();
        let (fetcher, inputs) = (self.fetcher.clone(), self.send.clone());
        let (accepted, now) = (self.context.state().accepted, self.context.now());
        self.anchoring = self.anchor.take();
        let ask = match self.anchoring.clone() {
            Some(accept) => fetch::Ask::Anew { before: accepted, accept },
            None => fetch::Ask::After(accepted),
        };
        tokio::task::spawn_local(async move {
            let _ = inputs.send(Input::Fetched(fetcher.fetch(ask, now).await));
        });
    }

    pub(crate) fn fetched(&mut self, result: Result<Fetched, SourceError>) {
        let reached = !matches!(&result, Err(SourceError::Unreachable { .. } | SourceError::Local { .. }));
        add(&self.context.tally.fetches);
        let mqtt_up = self.is_mqtt_up();
        self.polling.ended(reached, mqtt_up);
        self.outcome.fetch = None;
        if reached {
            self.context.clear("Fetched");
        } else {
            // The operator's word waits for the host.
            self.anchor = self.anchor.take().or(self.anchoring.take());
        }
        if !matches!(result, Ok(Fetched::ClockUnset { .. })) {
            self.context.clear("ClockSet");
        }
        match result {
            Ok(Fetched::Same) => {
                self.context.clear("Verified");
            }
            Ok(Fetched::New(accepted)) => self.accept(*accepted),
            Ok(Fetched::ClockUnset { head }) => {
                let message =
                    format!("revision {} waits: the clock is not set\nhint: check the time service", head.short());
                self.outcome.fetch = Some(1);
                self.context.set("ClockSet", false, "ClockUnset", message);
            }
            Err(error) => self.fetch_failed(&error),
        }
    }

    fn accept(&mut self, accepted: Accepted) {
        let (revision, now) = (accepted.revision.clone(), self.context.now());
        let message = format!("signed by {} ({}): {}", accepted.signer, accepted.fingerprint, accepted.subject);
        tracing::info!(%revision, signer = accepted.signer, fingerprint = accepted.fingerprint, subject = accepted.subject, "revision accepted");
        let journalled = self.context.commit(None, |state| {
            state.accepted = Some(accepted);
            note(state, now, &revision, "accepted", &message);
        });
        if journalled.is_err() {
            // The head is judged again with the next fetch.
            return;
        }
        self.context.clear("Verified");
        self.say(Some(&revision), "accepted", &message);
    }

    fn fetch_failed(&mut self, error: &SourceError) {
        let message = format!("while fetching: {}", with_hint(error));
        self.outcome.fetch = Some(match error {
            SourceError::Untrusted { .. } => 3,
            SourceError::Malformed { .. } => 2,
            SourceError::Unreachable { .. } => 5,
            SourceError::Local { .. } => 1,
        });
        let kind = match error {
            SourceError::Untrusted { .. } | SourceError::Malformed { .. } => "Verified",
            SourceError::Unreachable { .. } | SourceError::Local { .. } => "Fetched",
        };
        let known = self.context.conditions.borrow().get(kind).is_some_and(|old| !old.status && old.message == message);
        self.context.set(kind, false, error.reason(), message.clone());
        if kind == "Verified" && !known {
            add(&self.context.tally.refused);
            tracing::error!(reason = error.reason(), cause = chain(error), "the head is refused");
            self.say(None, "refused", &message);
        } else if !known {
            tracing::warn!(reason = error.reason(), cause = chain(error), "cannot fetch; trying again later");
        }
    }

    pub(crate) fn inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Notify { spread_secs } => self.polling.hint(Duration::from_secs(spread_secs)),
            Inbound::Link => {
                let up = self.is_mqtt_up();
                self.polling.relink(up);
            }
            Inbound::Command(command) => self.command(command),
        }
    }

    /// A command that the uplink verified. Its sequence is journalled before
    /// it is acted on: a replay after a power cut is refused, too.
    fn command(&mut self, command: Command) {
        let sequence = command.sequence;
        if sequence <= self.context.state().command_sequence {
            tracing::warn!(sequence, "a command was replayed; refused");
            add(&self.context.tally.commands_refused);
            self.say(None, "command-refused", &format!("command {sequence} was replayed"));
            return;
        }
        if self.context.commit(None, |state| state.command_sequence = sequence).is_err() {
            return;
        }
        tracing::info!(sequence, act = ?command.act, "command");
        let ask = match command.act {
            Act::Sync => Ask::Sync { prune: false },
            Act::Suspend => Ask::Suspend { all: false },
            Act::Resume => Ask::Resume,
            Act::Retry => Ask::Retry,
            Act::Rollback => Ask::Rollback,
            Act::Logs { app, lines } => {
                let (context, send) = (std::rc::Rc::clone(&self.context), self.send.clone());
                tokio::task::spawn_local(async move {
                    let read = inspect::logs(&context, &app, lines as usize).await;
                    let lines = read.unwrap_or_else(|refusal| vec![refusal.message]);
                    let logs = Logs { command: sequence, app: app.to_string(), lines };
                    let _ = send.send(Input::Say(ReportBody::Logs(logs)));
                });
                return;
            }
        };
        let (outcome, message) = match self.answer(&ask) {
            Ok(Answer::Done(message)) => (Outcome::Done, message),
            Ok(_) => (Outcome::Done, String::new()),
            Err(refusal) => (Outcome::Refused, refusal.message),
        };
        let answer = report::Answer { command: sequence, outcome, message };
        self.uplink.report(ReportBody::Answer(answer), true);
    }

    /// Answers an operator; what only looks does so beside the loop.
    pub(crate) fn asked(&mut self, (ask, reply): Request) {
        let context = std::rc::Rc::clone(&self.context);
        match ask {
            Ask::Diff => {
                tokio::task::spawn_local(async move { reply.send(inspect::diff(&context).await) });
            }
            Ask::Logs { app, lines } => {
                tokio::task::spawn_local(async move {
                    reply.send(inspect::logs(&context, &app, lines).await.map(Answer::Lines))
                });
            }
            Ask::Fetched => self.waiting.push(reply),
            ask => {
                let _ = reply.send(self.answer(&ask));
            }
        }
    }

    /// Answers at once. What takes long is only begun.
    fn answer(&mut self, ask: &Ask) -> Result<Answer, Refusal> {
        match *ask {
            Ask::Status => Ok(Answer::Status(Box::new(self.status()))),
            Ask::Sync { prune } => {
                self.context.prune_freely.set(prune);
                self.now();
                self.polling.now();
                self.look_again();
                Ok(Answer::Done("fetching".to_owned()))
            }
            Ask::History => Ok(Answer::History(self.context.state().history)),
            Ask::Rollback => self.rollback(),
            Ask::Suspend { all } => {
                let pause = Suspension { all, by: "operator".to_owned(), since: self.context.now() };
                self.journalled(|state| state.suspended = Some(pause))?;
                let what = if all { "new revisions and repair wait" } else { "new revisions wait" };
                Ok(Answer::Done(format!("suspended: {what} until `burgee-agent resume`")))
            }
            Ask::Resume => {
                self.journalled(|state| state.suspended = None)?;
                self.now();
                Ok(Answer::Done("resumed".to_owned()))
            }
            Ask::Retry => self.retry(),
            Ask::Anchor { ref accept } => {
                self.anchor = Some(accept.clone());
                self.polling.now();
                Ok(Answer::Done(format!("anchoring anew at or above {accept}")))
            }
            Ask::Diff | Ask::Fetched | Ask::Logs { .. } => Err(refused("Internal", "answered beside the loop", None)),
        }
    }

    fn journalled(&self, change: impl FnOnce(&mut crate::ports::journal::State)) -> Result<(), Refusal> {
        self.context.commit(None, change).map_err(|error| Refusal {
            reason: error.reason().to_owned(),
            message: chain(&error),
            hint: error.hint(),
        })
    }

    fn rollback(&mut self) -> Result<Answer, Refusal> {
        let state = self.context.state();
        let to = match &state.phase {
            // What is on its way is given up for where it came from.
            Phase::Applying { back, .. } | Phase::Probing { back, .. } => back.clone(),
            Phase::RollingBack { .. } => {
                return Err(refused("RollingBack", "the device is on its way back already", None));
            }
            Phase::Stalled { failed, at } if at.as_ref() == Some(failed) => state.good.clone(),
            _ => state.before.clone(),
        };
        let Some(to) = to else {
            let hint = "only last good and the revision before it are kept; push a `git revert` instead";
            return Err(refused("NothingBefore", "there is no revision to go back to", Some(hint)));
        };
        if self.context.kept(&to).is_none() {
            return Err(refused("StateLost", &format!("the state of revision {to} is not in the journal"), None));
        }
        if matches!(state.phase, Phase::Applying { .. }) {
            self.interrupt(Pending::Rollback(to.clone()));
        } else if !self.begin_rollback(to.clone()) {
            return Err(refused(
                "StoreFailed",
                "the rollback could not be journalled",
                Some("see burgee-agent status"),
            ));
        }
        Ok(Answer::Done(format!("going back to {}", to.id)))
    }

    fn retry(&mut self) -> Result<Answer, Refusal> {
        let state = self.context.state();
        self.now();
        self.polling.now();
        self.renewal.retry();
        let Some(accepted) = state.accepted.map(|accepted| accepted.revision) else {
            return Ok(Answer::Done("nothing was accepted yet; fetching".to_owned()));
        };
        self.journalled(|state| state.blocked.clear())?;
        let stalled_on: Option<Revision> = match state.phase {
            Phase::Stalled { failed, .. } => Some(failed),
            _ => None,
        };
        if stalled_on.is_some() {
            self.advance(Event::Target(accepted.clone()), None, |_| {});
        }
        Ok(Answer::Done(format!("trying {} again", accepted.id)))
    }
}
