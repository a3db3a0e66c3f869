//! Which program a start of the base turns into. Pure.

use fleet::digest::Digest;

use super::record::{Moment, Program, Record};

/// A trial is started so often before it has failed: a power cut or two say
/// nothing about a program.
pub(crate) const STARTS: u32 = 4;

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The base itself.
    Base,
    Program(Program),
    /// On trial, for so many seconds more.
    Trial(Program, u64),
}

/// Chooses, and brings the record up to date: it has to be written before the
/// choice is followed.
pub(crate) fn choose(record: &mut Record, base: &Digest, now: &Moment) -> Choice {
    if record.base.as_ref() != Some(base) {
        // Another package was installed: the operator's word on this device.
        record.base = Some(*base);
        record.current = None;
        record.trial = None;
        return Choice::Base;
    }
    if let Some(trial) = &mut record.trial {
        let began = trial.began.get_or_insert_with(|| now.clone());
        // In another boot the time begins anew; the starts don't.
        if began.boot != now.boot {
            *began = now.clone();
        }
        let left = trial.limit_secs.saturating_sub(now.secs.saturating_sub(began.secs));
        if trial.starts < STARTS && left > 0 {
            trial.starts += 1;
            return Choice::Trial(trial.program.clone(), left);
        }
        give_up(record);
    }
    record.current.clone().map_or(Choice::Base, Choice::Program)
}

/// The trial did not come to health in all of its starts.
fn give_up(record: &mut Record) {
    let Some(trial) = record.trial.take() else { return };
    let message = format!(
        "agent {} never became healthy: started {} times in at most {} s, it ended, hung, or took the device down",
        trial.program.version, trial.starts, trial.limit_secs
    );
    record.fail(trial.program, "NeverHealthy", message, true);
}

/// Why a program can't be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not what was downloaded.
    Damaged,
    /// It is for no machine such as this.
    NotExecutable,
    /// The device does not let it run.
    NotAllowed,
}

impl Fault {
    /// Stable, CamelCase.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Damaged => "Damaged",
            Self::NotExecutable => "NotExecutable",
            Self::NotAllowed => "NotAllowed",
        }
    }
}

/// What was chosen can't be started: another choice is due.
pub(crate) fn unusable(record: &mut Record, program: &Program, fault: Fault, cause: &str) {
    let message = format!("agent {} can't be started: {cause}", program.version);
    // Damage is the disk's, and a folder where nothing may run the device's: it
    // may be downloaded again.
    record.fail(program.clone(), fault.reason(), message, fault == Fault::NotExecutable);
    if record.trial.as_ref().is_some_and(|trial| trial.program == *program) {
        record.trial = None;
    }
    if record.current.as_ref() == Some(program) {
        record.current = None;
    }
}

#[cfg(test)]
mod tests {
    use fleet::digest::Digest;

    use super::super::record::{Moment, Program, Record, Trial};
    use super::{Choice, Fault, STARTS, choose, unusable};

    fn program(n: u8) -> Program {
        Program { version: format!("{n}.0.0"), sha256: Digest::of(&[n]) }
    }

    fn at(boot: &str, secs: u64) -> Moment {
        Moment { boot: boot.to_owned(), secs }
    }

    fn record(current: Option<u8>, trial: Option<(u8, u32)>) -> Record {
        let trial = trial.map(|(n, starts)| Trial { program: program(n), starts, limit_secs: 60, began: None });
        Record { base: Some(Digest::of(&[0])), current: current.map(program), trial, ..Record::default() }
    }

    #[test]
    fn what_a_start_turns_into() {
        let base = Digest::of(&[0]);
        let cases = [
            ("nothing was ever downloaded", Record::default(), Choice::Base),
            ("what is current", record(Some(1), None), Choice::Program(program(1))),
            ("a trial goes first", record(Some(1), Some((2, 0))), Choice::Trial(program(2), 60)),
            ("its last start", record(None, Some((2, STARTS - 1))), Choice::Trial(program(2), 60)),
            ("after it, what was current", record(Some(1), Some((2, STARTS))), Choice::Program(program(1))),
            ("or the base", record(None, Some((2, STARTS))), Choice::Base),
        ];
        for (name, mut record, want) in cases {
            assert_eq!(choose(&mut record, &base, &at("a", 1000)), want, "{name}");
        }
    }

    #[test]
    fn a_trial_has_so_many_starts_and_is_blocked_then() {
        let base = Digest::of(&[0]);
        let mut record = record(Some(1), Some((2, 0)));
        for start in 1..=STARTS {
            assert_eq!(choose(&mut record, &base, &at("a", 1000)), Choice::Trial(program(2), 60), "start {start}");
        }
        assert_eq!(choose(&mut record, &base, &at("a", 1000)), Choice::Program(program(1)));
        assert!(record.trial.is_none() && record.failure(&program(2).sha256).unwrap().blocked, "{record:?}");
        assert_eq!(choose(&mut record, &base, &at("a", 1000)), Choice::Program(program(1)), "and it stays so");
    }

    #[test]
    fn a_trial_has_so_much_time_in_one_boot() {
        let base = Digest::of(&[0]);
        let mut record = record(None, Some((2, 0)));
        assert_eq!(choose(&mut record, &base, &at("a", 1000)), Choice::Trial(program(2), 60));
        assert_eq!(choose(&mut record, &base, &at("a", 1040)), Choice::Trial(program(2), 20));
        assert_eq!(choose(&mut record, &base, &at("b", 5)), Choice::Trial(program(2), 60), "another boot");
        assert_eq!(choose(&mut record, &base, &at("b", 65)), Choice::Base, "its time is over");
        assert!(record.failure(&program(2).sha256).unwrap().blocked);
    }

    #[test]
    fn another_package_runs_itself() {
        let mut record = record(Some(1), Some((2, 1)));
        assert_eq!(choose(&mut record, &Digest::of(&[9]), &at("a", 1000)), Choice::Base);
        assert_eq!((record.current, record.trial, record.base), (None, None, Some(Digest::of(&[9]))));
    }

    #[test]
    fn a_damaged_file_is_not_held_against_the_version() {
        let base = Digest::of(&[0]);
        let mut record = record(Some(1), Some((2, 0)));
        unusable(&mut record, &program(2), Fault::Damaged, "its digest is another");
        assert_eq!(choose(&mut record, &base, &at("a", 1000)), Choice::Program(program(1)));
        assert!(!record.failure(&program(2).sha256).unwrap().blocked);
        unusable(&mut record, &program(1), Fault::NotExecutable, "exec format error");
        assert_eq!(choose(&mut record, &base, &at("a", 1000)), Choice::Base);
        assert!(record.failure(&program(1).sha256).unwrap().blocked);
    }

    #[test]
    fn three_times_is_blocked() {
        let mut record = Record::default();
        for times in 1..=3 {
            record.fail(program(1), "NoContact", String::new(), false);
            assert_eq!(record.failure(&program(1).sha256).unwrap().blocked, times == 3, "{times}");
        }
    }
}
