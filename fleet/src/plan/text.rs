//! A plan as text for a terminal: devices with the same changes share a block.

use std::collections::BTreeMap;
use std::fmt;

use super::{AppPlan, Change, DevicePlan, Kind, Plan};

/// More names than this are counted.
const MAX_NAMES: usize = 8;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let mut blocks: Vec<(&DevicePlan, Vec<String>)> = Vec::new();
        let mut index = BTreeMap::new();
        for device in &self.devices {
            let same = format!("{:?}{:?}{:?}", device.before_unknown, device.changes, device.apps);
            let at = *index.entry(same).or_insert(blocks.len());
            if at == blocks.len() {
                blocks.push((device, Vec::new()));
            }
            if let Some((_, names)) = blocks.get_mut(at) {
                names.push(heading(device));
            }
        }
        for (device, names) in &blocks {
            let more = names.len().saturating_sub(MAX_NAMES);
            write!(f, "{}", names[..names.len() - more].join(", "))?;
            writeln!(f, "{}", if more > 0 { format!(" and {more} more") } else { String::new() })?;
            if let Some(why) = &device.before_unknown {
                writeln!(f, "  (the state before is not known: {why})")?;
            }
            for change in &device.changes {
                write_change(f, "  ", change)?;
            }
            for app in &device.apps {
                write_app(f, app)?;
            }
            writeln!(f)?;
        }
        if self.bounded {
            writeln!(
                f,
                "note: the groups name too many label combinations to look at all; each group, each pair of groups and each device file was"
            )?;
        }
        let changing = self.devices.len();
        if changing == 0 {
            return writeln!(f, "nothing changes ({} devices and label combinations looked at)", self.unchanged);
        }
        writeln!(f, "{changing} of {} devices and label combinations change", changing + self.unchanged)
    }
}

fn heading(device: &DevicePlan) -> String {
    let labels: Vec<_> = device.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match &device.device {
        None => format!("[{}]", labels.join(" ")),
        Some(name) if labels.is_empty() => name.to_string(),
        Some(name) => format!("{name}[{}]", labels.join(" ")),
    }
}

fn write_app(f: &mut fmt::Formatter<'_>, app: &AppPlan) -> fmt::Result {
    writeln!(f, "  {} {} ({})", sign(app.change), app.name, app.runtime)?;
    app.changes.iter().try_for_each(|change| write_change(f, "      ", change))
}

fn write_change(f: &mut fmt::Formatter<'_>, indent: &str, change: &Change) -> fmt::Result {
    write!(f, "{indent}{} {}", sign(change.change), change.path)?;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => writeln!(f, ": {before} → {after}"),
        (Some(only), None) | (None, Some(only)) => writeln!(f, ": {only}"),
        (None, None) => writeln!(f),
    }
}

fn sign(kind: Kind) -> char {
    match kind {
        Kind::Added => '+',
        Kind::Removed => '-',
        Kind::Changed => '~',
    }
}
