//! The devices that a repository can tell apart: every device file, and every
//! combination of labels that the groups name, as far as it makes a
//! difference to which groups a device is in.
//!
//! Bounded: where the combinations are too many, one device for each group
//! and each pair of groups stands for them; a device file is there at least
//! with its own labels alone.

use std::collections::{BTreeMap, BTreeSet};

use super::Repo;
use super::value::Labels;
use crate::name::{DeviceName, GroupName};
use crate::select::{Selector, merge_labels};

/// At most so many combinations are tried one by one.
const MAX_COMBINATIONS: usize = 4096;
/// At most so many combinations for one device file.
const MAX_PER_DEVICE: usize = 16;
/// At most so many targets.
const MAX_TARGETS: usize = 4096;

/// A device that there is or could be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The device of a file; `None` for any device with these labels.
    pub device: Option<DeviceName>,
    /// Labels of its `agent.toml`.
    pub labels: Labels,
}

/// All targets of some states of one repository.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Devices of files first.
    pub targets: Vec<Target>,
    /// Whether some were left out because they were too many.
    pub bounded: bool,
    /// A name for targets without a device: no device file has it.
    pub stand_in: DeviceName,
}

/// The groups of a device with these labels, in each state.
type Membership = Vec<BTreeSet<GroupName>>;

fn membership(repos: &[&Repo], labels: &Labels) -> Membership {
    let one = |repo: &&Repo| {
        repo.groups.iter().filter(|(_, group)| group.selector.matches(labels)).map(|(name, _)| name.clone()).collect()
    };
    repos.iter().map(one).collect()
}

/// The targets of these states of one repository (before and after; or just one).
#[must_use]
pub fn targets(repos: &[&Repo]) -> Targets {
    let (combinations, mut bounded) = combinations(repos);
    let mut targets = Vec::new();
    let devices: BTreeSet<&DeviceName> = repos.iter().flat_map(|repo| repo.devices.keys()).collect();
    for device in &devices {
        let files: Vec<_> =
            repos.iter().filter_map(|repo| repo.devices.get(*device)).map(|file| &file.labels).collect();
        let member = |labels: &Labels| {
            let merged = files.iter().fold(labels.clone(), |labels, file| merge_labels(&labels, file));
            membership(repos, &merged)
        };
        let own = Labels::new();
        let mut seen = BTreeSet::from([member(&own)]);
        targets.push(Target { device: Some((*device).clone()), labels: own });
        let mut overlays = 0;
        for combination in &combinations {
            // What the file sets, it sets: such a label of agent.toml would say nothing.
            let mut labels = combination.clone();
            labels.retain(|label, _| !files.iter().any(|file| file.contains_key(label)));
            if seen.insert(member(&labels)) {
                overlays += 1;
                if overlays > MAX_PER_DEVICE || targets.len() >= MAX_TARGETS {
                    bounded = true;
                    break;
                }
                targets.push(Target { device: Some((*device).clone()), labels });
            }
        }
    }
    targets.extend(combinations.into_iter().map(|labels| Target { device: None, labels }));
    Targets { targets, bounded, stand_in: stand_in(&devices) }
}

fn stand_in(devices: &BTreeSet<&DeviceName>) -> DeviceName {
    let mut text = "some-device".to_owned();
    loop {
        // A prefix of `x` keeps it a name for as long as there are fewer files than characters.
        match text.parse::<DeviceName>() {
            Ok(name) if !devices.contains(&name) => return name,
            Ok(_) => text.insert(0, 'x'),
            Err(_) => text = "x".to_owned(),
        }
    }
}

/// One set of labels for each different membership, the fewest labels first; without the one that is in no group.
fn combinations(repos: &[&Repo]) -> (Vec<Labels>, bool) {
    let selectors: Vec<&Selector> =
        repos.iter().flat_map(|repo| repo.groups.values()).map(|group| &group.selector).collect();
    let mut values: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (label, named) in selectors.iter().flat_map(|selector| selector.names()) {
        values.entry(label).or_default().extend(named);
    }
    let count = values.values().try_fold(1_usize, |count, values| count.checked_mul(values.len() + 1));
    let bounded = count.is_none_or(|count| count > MAX_COMBINATIONS);
    let candidates = if bounded { examples(&selectors) } else { product(&values) };
    let mut best: BTreeMap<Membership, Labels> = BTreeMap::new();
    for labels in candidates {
        let member = membership(repos, &labels);
        if member.iter().all(BTreeSet::is_empty) {
            continue;
        }
        let known = best.entry(member).or_insert_with(|| labels.clone());
        if (labels.len(), &labels) < (known.len(), &*known) {
            *known = labels;
        }
    }
    let mut combinations: Vec<_> = best.into_values().collect();
    combinations.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let cut = combinations.len() > MAX_TARGETS;
    combinations.truncate(MAX_TARGETS);
    (combinations, bounded || cut)
}

fn product(values: &BTreeMap<&str, BTreeSet<String>>) -> Vec<Labels> {
    let mut all = vec![Labels::new()];
    for (label, values) in values {
        let with = |labels: &Labels, value: &String| {
            let mut labels = labels.clone();
            labels.insert((*label).to_owned(), value.clone());
            labels
        };
        let grown: Vec<_> = all.iter().flat_map(|labels| values.iter().map(move |value| with(labels, value))).collect();
        all.extend(grown);
    }
    all
}

fn examples(selectors: &[&Selector]) -> Vec<Labels> {
    let mut found = Vec::new();
    for (index, selector) in selectors.iter().enumerate() {
        found.extend(selector.example());
        for other in &selectors[..index] {
            if found.len() > 4 * MAX_COMBINATIONS {
                return found;
            }
            found.extend(selector.and(other).example());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Target, targets};
    use crate::repo::{Repo, Whose};
    use crate::tree::MemoryTree;

    fn check(files: &[(&str, &str)], want: &[&str]) {
        let tree: MemoryTree = [("burgee.yaml", "format: 1\nfleet: f\n")].iter().chain(files).copied().collect();
        let repo = Repo::read(&tree, Whose::Everyone).0.unwrap();
        let show = |target: &Target| {
            let labels: Vec<_> = target.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let device = target.device.as_ref().map_or("*", |device| device.as_str());
            format!("{device} {}", labels.join(",")).trim_end().to_owned()
        };
        let got: Vec<_> = targets(&[&repo]).targets.iter().map(show).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn what_makes_a_difference_is_a_target() {
        let eu = ("groups/eu.yaml", "selector: {matchLabels: {region: eu}}\n");
        check(&[eu], &["* region=eu"]);
        let lab = (
            "groups/lab.yaml",
            "selector: {matchExpressions: [{key: ring, operator: NotIn, values: [lab]}, {key: region, operator: Exists}]}\n",
        );
        check(&[eu, lab], &["* region=any", "* region=eu", "* region=eu,ring=lab"]);
        check(&[eu, ("devices/a.yaml", "labels: {region: eu}\n")], &["a", "* region=eu"]);
        check(&[eu, ("devices/a.yaml", "labels: {region: us}\n")], &["a", "* region=eu"]);
        check(&[eu, ("devices/a.yaml", "{}\n")], &["a", "a region=eu", "* region=eu"]);
        check(&[("groups/all.yaml", "selector: {}\n")], &[]);
    }

    #[test]
    fn many_combinations_are_bounded() {
        let files: Vec<_> = (0..40)
            .map(|n| (format!("groups/g{n}.yaml"), format!("selector: {{matchLabels: {{l{n}: v}}}}\n")))
            .chain([("burgee.yaml".to_owned(), "format: 1\nfleet: f\n".to_owned())])
            .collect();
        let tree: MemoryTree = files.into_iter().collect();
        let found = targets(&[&Repo::read(&tree, Whose::Everyone).0.unwrap()]);
        assert!(found.bounded);
        assert_eq!(found.targets.len(), 40 + 40 * 39 / 2);
    }
}
