//! The work of one phase, running beside the loop. One at a time; it ends by
//! telling the loop, numbered, so that what is late can be told from what is
//! awaited.

use std::cell::Cell;
use std::rc::Rc;

use fleet::revision::Revision;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::apply::{Direction, Failure, Outcome, apply};
use super::context::{Context, Parts};
use super::core::Input;
use super::fetch::Fetcher;
use super::prepare::{self, Prepared, kept_or_anew, prepare};
use super::probe::{Unhealthy, probe};

/// How a work ended.
#[derive(Debug)]
pub(crate) enum Done {
    Prepared(Prepared),
    Applied,
    ApplyFailed(Failure),
    Healthy,
    Unhealthy(Unhealthy),
    /// It was asked to stop.
    Interrupted,
    /// A kept state that it needs is lost, and can't be had anew yet.
    Lost,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Work {
    number: u64,
    running: Option<JoinHandle<()>>,
    /// Whether it may be dropped anywhere; else it stops between two steps.
    droppable: bool,
    stop: Rc<Cell<bool>>,
}

/// Numbers are unique across the loop's works.
fn next_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Work {
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Counts `number` as running, for an end that nothing tells.
    pub(crate) fn mark(&mut self, number: u64) {
        self.number = number;
        self.running = Some(tokio::task::spawn_local(async {}));
    }

    /// Whether `number` is the running work's; then it no longer runs.
    pub(crate) fn ended(&mut self, number: u64) -> bool {
        let ours = self.running.is_some() && self.number == number;
        if ours {
            self.running = None;
        }
        ours
    }

    /// Asks it to stop; its end is told as usual. False: nothing runs.
    pub(crate) fn stop(&self) -> bool {
        self.stop.set(true);
        self.running.is_some()
    }

    /// Its phase is over: what it still tells is not heard.
    pub(crate) fn abandon(&mut self) {
        self.stop.set(true);
        if let Some(running) = self.running.take()
            && self.droppable
        {
            running.abort();
        }
    }

    fn start(
        &mut self,
        droppable: bool,
        inputs: UnboundedSender<Input>,
        work: impl FnOnce(Rc<Cell<bool>>) -> std::pin::Pin<Box<dyn Future<Output = Done>>>,
    ) {
        self.number = next_number();
        self.droppable = droppable;
        self.stop = Rc::new(Cell::new(false));
        let (number, future) = (self.number, work(Rc::clone(&self.stop)));
        self.running = Some(tokio::task::spawn_local(async move {
            let done = future.await;
            let _ = inputs.send(Input::Done(number, done));
        }));
    }

    pub(crate) fn prepare<P: Parts>(
        &mut self,
        context: Rc<Context<P>>,
        fetcher: Fetcher,
        to: Revision,
        running: Option<Revision>,
        inputs: UnboundedSender<Input>,
    ) {
        self.start(true, inputs, |_| {
            Box::pin(async move {
                let running = running.and_then(|running| context.kept(&running)).map(|(kept, _)| kept);
                Done::Prepared(prepare(&context, &fetcher, to, running.as_ref()).await)
            })
        });
    }

    pub(crate) fn apply<P: Parts>(
        &mut self,
        (context, fetcher): (Rc<Context<P>>, Fetcher),
        to: Revision,
        from: Option<Revision>,
        back: bool,
        inputs: UnboundedSender<Input>,
    ) {
        self.start(false, inputs, |stop| {
            Box::pin(async move {
                let direction = if back { Direction::Back } else { Direction::Forward };
                let Some((kept, blobs)) = kept_or_anew(&context, &fetcher, &to).await else { return Done::Lost };
                let from = from.and_then(|from| context.kept(&from)).map(|(kept, _)| kept);
                match apply(&context, (&kept, &blobs), from.as_ref(), direction, &stop).await {
                    Ok(Outcome::Done) => Done::Applied,
                    Ok(Outcome::Interrupted) => Done::Interrupted,
                    Err(failure) if failure.reason == "PullFailed" && !back => {
                        match prepare::again(&context, &kept, &blobs).await {
                            Ok(anew) => {
                                let _ = context.commit(Some((&anew, &blobs)), |_| {});
                                Done::ApplyFailed(failure)
                            }
                            Err(again) => Done::ApplyFailed(again),
                        }
                    }
                    Err(failure) => Done::ApplyFailed(failure),
                }
            })
        });
    }

    pub(crate) fn probe<P: Parts>(
        &mut self,
        (context, fetcher): (Rc<Context<P>>, Fetcher),
        to: Revision,
        back: Option<Revision>,
        inputs: UnboundedSender<Input>,
    ) {
        self.start(true, inputs, |stop| {
            Box::pin(async move {
                let Some((kept, blobs)) = kept_or_anew(&context, &fetcher, &to).await else { return Done::Lost };
                let back = back.and_then(|back| context.kept(&back)).map(|(kept, _)| kept);
                let judged = probe(&context, (&kept, &blobs), back.as_ref(), &stop).await;
                match judged {
                    _ if stop.get() => Done::Interrupted,
                    Ok(()) => Done::Healthy,
                    Err(unhealthy) => Done::Unhealthy(unhealthy),
                }
            })
        });
    }
}
