//! Carries out the steps of a plan: those of one group at the same time, one
//! group after the other. Knows neither runtimes nor the journal.

use std::cell::Cell;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::apply::Outcome;
use crate::ports::runtime::{Object, RuntimeError, Step};

/// Steps of one group that are under way at a time.
const AT_ONCE: usize = 8;

/// What came of it.
pub(crate) struct Carried {
    /// How it ended; of several failures the first.
    pub(crate) ended: Result<Outcome, RuntimeError>,
    /// Every object that was not as its step expected it.
    pub(crate) changed: Vec<Object>,
}

/// Carries out `steps` by `run`, and tells `landed` of each that did. Steps
/// that have begun come to their end also when one fails or a stop is asked
/// for: what became of them is known. None begins after that.
pub(crate) async fn carry_out<D>(
    steps: &[Step<D>],
    stop: &Cell<bool>,
    run: impl AsyncFn(&Step<D>) -> Result<(), RuntimeError>,
    mut landed: impl FnMut(&Step<D>),
) -> Carried {
    let (mut later, mut failed, mut changed) = (steps, None, Vec::new());
    while let Some(first) = later.first().filter(|_| failed.is_none() && !stop.get()) {
        let together = later.iter().take_while(|step| first.group.is_some() && step.group == first.group).count();
        let (now, rest) = later.split_at(together.max(1));
        let mut waiting = now.iter();
        let mut running = FuturesUnordered::new();
        loop {
            while failed.is_none()
                && !stop.get()
                && running.len() < AT_ONCE
                && let Some(step) = waiting.next()
            {
                let run = &run;
                running.push(async move { (step, run(step).await) });
            }
            match running.next().await {
                Some((step, Ok(()))) => landed(step),
                Some((_, Err(error))) => {
                    if let RuntimeError::Changed { object } = &error {
                        changed.push(object.clone());
                    }
                    failed.get_or_insert(error);
                }
                None => break,
            }
        }
        later = if waiting.as_slice().is_empty() { rest } else { waiting.as_slice() };
    }
    let ended = match failed {
        Some(error) => Err(error),
        None if later.is_empty() => Ok(Outcome::Done),
        None => Ok(Outcome::Interrupted),
    };
    Carried { ended, changed }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::{AT_ONCE, Carried, Outcome, carry_out};
    use crate::ports::runtime::{Object, RuntimeError, Step, Verb};

    /// A step's name and group.
    type Named<'a> = (&'a str, Option<u32>);

    fn object(name: &str) -> Object {
        Object { kind: "x".to_owned(), name: name.to_owned() }
    }

    fn steps(all: &[Named<'_>]) -> Vec<Step<()>> {
        let step = |(name, group): &Named<'_>| Step {
            verb: Verb::Create,
            object: object(name),
            why: String::new(),
            after_steady: false,
            group: *group,
            data: (),
        };
        all.iter().map(step).collect()
    }

    /// Carries them out; names that begin with `c` have changed, those with `f`
    /// fail at once, and `stop` asks for a stop. What began and landed; of what
    /// landed without a beginning in between, the order says nothing.
    async fn seen(all: &[Named<'_>]) -> (String, Carried) {
        let (steps, stop, log, under_way) = (steps(all), Cell::new(false), RefCell::new(Vec::new()), Cell::new(0));
        let run = async |step: &Step<()>| {
            let name = step.object.name.as_str();
            log.borrow_mut().push(format!("{name}("));
            under_way.set(under_way.get() + 1);
            assert!(under_way.get() <= AT_ONCE);
            if !name.starts_with('f') {
                tokio::task::yield_now().await;
            }
            under_way.set(under_way.get() - 1);
            stop.set(stop.get() || name == "stop");
            match name.as_bytes()[0] {
                b'c' => Err(RuntimeError::Changed { object: step.object.clone() }),
                b'f' => Err(RuntimeError::Observe { what: name.to_owned(), source: "it failed".into() }),
                _ => Ok(()),
            }
        };
        let landed = |step: &Step<()>| log.borrow_mut().push(format!("{})", step.object.name));
        let carried = carry_out(&steps, &stop, run, landed).await;
        let ended = |word: &String| word.ends_with(')');
        log.borrow_mut().chunk_by_mut(|a, b| ended(a) && ended(b)).for_each(<[String]>::sort);
        let shown = log.borrow().join(" ");
        (shown, carried)
    }

    #[tokio::test]
    async fn groups_follow_each_other_and_run_together() {
        let one = Some(1);
        let cases: [(&str, &[Named<'_>], &str, Outcome); 4] = [
            ("nothing", &[], "", Outcome::Done),
            ("alone", &[("a", None), ("b", None)], "a( a) b( b)", Outcome::Done),
            ("together", &[("a", one), ("b", one), ("d", Some(2))], "a( b( a) b) d( d)", Outcome::Done),
            ("a stop", &[("stop", one), ("b", one), ("d", Some(2))], "stop( b( b) stop)", Outcome::Interrupted),
        ];
        for (name, all, want, end) in cases {
            let (shown, carried) = seen(all).await;
            assert_eq!(shown, want, "{name}");
            assert_eq!(carried.ended.unwrap(), end, "{name}");
        }
        let many: Vec<(String, Option<u32>)> = (0..30).map(|n| (format!("n{n}"), one)).collect();
        let many: Vec<Named<'_>> = many.iter().map(|(name, group)| (name.as_str(), *group)).collect();
        assert_eq!(seen(&many).await.0.matches(')').count(), 30);
    }

    #[tokio::test]
    async fn the_first_failure_ends_it_and_every_changed_object_is_told() {
        let one = Some(1);
        let (shown, carried) = seen(&[("f", one), ("c1", one), ("c2", one), ("a", one), ("d", Some(2))]).await;
        assert_eq!(shown, "f( c1( c2( a( a)", "what began came to its end; nothing began after that");
        assert!(matches!(carried.ended, Err(RuntimeError::Observe { .. })));
        let mut changed = carried.changed;
        changed.sort();
        assert_eq!(changed, [object("c1"), object("c2")]);
    }
}
