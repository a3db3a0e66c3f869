//! Which devices a group or a stage takes: selectors over labels.
//!
//! Pure sets: a selector is one requirement for each label that it names. An
//! empty selector matches nothing. What is *in* a selected group is for
//! rendering.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::repo::problems::Problems;
use crate::repo::value::{self, LabelName, Labels, LabelsMap};
use crate::yaml::{At, Place};

/// A selector as it is written. All that it says has to hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SelectorFile {
    /// Labels that a device has to have, with these values.
    #[schemars(with = "Option<LabelsMap>")]
    match_labels: Option<BTreeMap<At<String>, At<String>>>,
    /// Further conditions.
    match_expressions: Option<Vec<ExpressionFile>>,
}

/// One condition on one label.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpressionFile {
    /// The label.
    #[schemars(with = "LabelName")]
    key: At<String>,
    /// How it is compared. A device without the label passes `NotIn`.
    operator: At<Operator>,
    /// For `In` and `NotIn`.
    #[schemars(with = "Option<Vec<String>>")]
    values: Option<At<Vec<At<String>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// A selector: requirements by label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Selector {
    requirements: BTreeMap<String, Requirement>,
}

/// What is asked of one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Requirement {
    /// It has to be there.
    present: bool,
    /// It must not be there.
    absent: bool,
    /// It has to be there, with one of these values.
    any_of: Option<BTreeSet<String>>,
    /// It must not have one of these values.
    none_of: BTreeSet<String>,
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        match value {
            None => !self.present && self.any_of.is_none(),
            Some(value) => {
                !self.absent
                    && self.any_of.as_ref().is_none_or(|any| any.contains(value))
                    && !self.none_of.contains(value)
            }
        }
    }

    fn only(&mut self, values: BTreeSet<String>) {
        self.any_of = Some(match self.any_of.take() {
            Some(before) => before.intersection(&values).cloned().collect(),
            None => values,
        });
    }

    fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.present |= other.present;
        both.absent |= other.absent;
        both.none_of.extend(other.none_of.iter().cloned());
        if let Some(any) = &other.any_of {
            both.only(any.clone());
        }
        both
    }

    /// The value of a device that passes: `Some(None)` is a device without the
    /// label; `None` means that there is no such device.
    fn example(&self) -> Option<Option<String>> {
        if self.holds(None) {
            return Some(None);
        }
        let values = match &self.any_of {
            Some(any) => any.iter().cloned().collect(),
            None => vec!["any".to_owned(), (0..).map(|n| format!("any-{n}")).find(|v| !self.none_of.contains(v))?],
        };
        values.into_iter().find(|value| self.holds(Some(value))).map(Some)
    }
}

impl Selector {
    /// Whether a device with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.is_empty()
            && self.requirements.iter().all(|(label, asked)| asked.holds(labels.get(label).map(String::as_str)))
    }

    /// Whether it says nothing, and so matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The fewest labels of a device that this selects; `None` where no device can be selected.
    #[must_use]
    pub fn example(&self) -> Option<Labels> {
        if self.is_empty() {
            return None;
        }
        let mut labels = Labels::new();
        for (label, asked) in &self.requirements {
            if let Some(value) = asked.example()? {
                labels.insert(label.clone(), value);
            }
        }
        Some(labels)
    }

    /// What both ask: it selects the devices that both select. Empty where one of them is.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return Self::default();
        }
        let mut both = self.clone();
        for (label, asked) in &other.requirements {
            let joined = both.requirements.get(label).cloned().unwrap_or_default().and(asked);
            both.requirements.insert(label.clone(), joined);
        }
        both
    }

    /// The labels that it names, each with the values that make a difference to
    /// it; where any other value does, too, `any` is among them.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, BTreeSet<String>)> {
        self.requirements.iter().map(|(label, asked)| {
            let mut values: BTreeSet<String> = asked.any_of.iter().flatten().chain(&asked.none_of).cloned().collect();
            if asked.any_of.is_none() && (asked.present || asked.absent) {
                values.extend(asked.example().flatten().or_else(|| Some("any".to_owned())));
            }
            (label.as_str(), values)
        })
    }
}

impl SelectorFile {
    /// The selector, or errors at their places.
    pub(crate) fn check(&self, problems: &mut Problems<'_>, place: Place) -> Selector {
        let mut selector = Selector::default();
        for (label, wanted) in self.match_labels.iter().flatten() {
            problems.take(label, value::label_name);
            problems.take(wanted, value::label_value);
            let asked = selector.requirements.entry(label.value.clone()).or_default();
            asked.only([wanted.value.clone()].into());
        }
        for expression in self.match_expressions.iter().flatten() {
            expression.check(problems, &mut selector);
        }
        if selector.is_empty() {
            problems.warning(place, "an empty selector matches no device, expected matchLabels or matchExpressions");
        } else if selector.example().is_none() {
            problems.warning(place, "no device can match this selector: what it asks of a label excludes itself");
        }
        selector
    }
}

impl ExpressionFile {
    fn check(&self, problems: &mut Problems<'_>, selector: &mut Selector) {
        problems.take(&self.key, value::label_name);
        let operator = self.operator.value;
        let mut values = BTreeSet::new();
        for value in self.values.iter().flat_map(|values| &values.value) {
            problems.take(value, value::label_value);
            values.insert(value.value.clone());
        }
        match (&self.values, operator) {
            (None, Operator::In | Operator::NotIn) => {
                problems.error(
                    self.operator.place,
                    format!("the key `values` is missing, `{operator:?}` expects at least one"),
                );
                return;
            }
            (Some(given), Operator::In | Operator::NotIn) if given.value.is_empty() => {
                problems.error(given.place, format!("no values, `{operator:?}` expects at least one"));
                return;
            }
            (Some(given), Operator::Exists | Operator::DoesNotExist) if !given.value.is_empty() => {
                problems.error(given.place, format!("`{operator:?}` expects no values"));
            }
            _ => {}
        }
        let asked = selector.requirements.entry(self.key.value.clone()).or_default();
        match operator {
            Operator::In => asked.only(values),
            Operator::NotIn => asked.none_of.extend(values),
            Operator::Exists => asked.present = true,
            Operator::DoesNotExist => asked.absent = true,
        }
    }
}

/// A device's labels: its own from `agent.toml`, and those of
/// `devices/<device>.yaml`, which win.
#[must_use]
pub fn merge_labels(agent: &Labels, file: &Labels) -> Labels {
    let mut labels = agent.clone();
    labels.extend(file.iter().map(|(name, value)| (name.clone(), value.clone())));
    labels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Labels, Selector, SelectorFile, merge_labels};
    use crate::finding::Finding;
    use crate::repo::problems::Problems;
    use crate::yaml::{Place, parse};

    fn read(text: &str) -> Result<(Selector, Vec<Finding>), Vec<Finding>> {
        let file: SelectorFile = parse("s", text.as_bytes()).map_err(|found| vec![found])?;
        let mut problems = Problems::new("s");
        let selector = file.check(&mut problems, Place::START);
        problems.finish(Some(selector))
    }

    fn labels(text: &str) -> Labels {
        text.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn matching() {
        let eu = "matchLabels: {region: eu}\nmatchExpressions: [{key: ring, operator: NotIn, values: [lab]}]";
        let cases = [
            (eu, "region=eu", true),
            (eu, "region=eu ring=canary", true),
            (eu, "region=eu ring=lab", false),
            (eu, "region=us", false),
            (eu, "", false),
            ("{}", "region=eu", false),
            ("matchExpressions: [{key: a, operator: In, values: [x, y]}]", "a=y", true),
            ("matchExpressions: [{key: a, operator: In, values: [x, y]}]", "a=z", false),
            ("matchExpressions: [{key: a, operator: In, values: [x, y]}]", "", false),
            ("matchExpressions: [{key: a, operator: Exists}]", "a=z", true),
            ("matchExpressions: [{key: a, operator: Exists}]", "b=z", false),
            ("matchExpressions: [{key: a, operator: DoesNotExist}]", "b=z", true),
            ("matchExpressions: [{key: a, operator: DoesNotExist}]", "a=z", false),
            ("matchLabels: {a: 1}\nmatchExpressions: [{key: a, operator: In, values: [2]}]", "a=1", false),
        ];
        for (selector, device, want) in cases {
            assert_eq!(read(selector).unwrap().0.matches(&labels(device)), want, "{selector} on {device:?}");
        }
    }

    #[test]
    fn errors_and_warnings() {
        let cases = [
            ("{}", "s:1:1: warning: an empty selector matches no device, expected matchLabels or matchExpressions"),
            (
                "matchExpressions: []",
                "s:1:1: warning: an empty selector matches no device, expected matchLabels or matchExpressions",
            ),
            (
                "matchExpressions: [{key: a, operator: In}]",
                "s:1:39: the key `values` is missing, `In` expects at least one",
            ),
            (
                "matchExpressions: [{key: a, operator: NotIn, values: []}]",
                "s:1:54: no values, `NotIn` expects at least one",
            ),
            ("matchExpressions: [{key: a, operator: Exists, values: [b]}]", "s:1:55: `Exists` expects no values"),
            (
                "matchExpressions: [{key: a, operator: Equals}]",
                "s:1:39: unknown value `Equals`, expected one of `In`, `NotIn`, `Exists`, `DoesNotExist`",
            ),
            ("matchExpressions: [{key: a b, operator: Exists}]", "s:1:26: `a b` is no label name"),
            ("matchLabels: {a: b c}", "s:1:18: `b c` is no label value"),
            (
                "matchLabels: {a: x}\nmatchExpressions: [{key: a, operator: DoesNotExist}]",
                "s:1:1: warning: no device can match this selector",
            ),
        ];
        for (text, want) in cases {
            let found = read(text).map_or_else(|errors| errors, |(_, warnings)| warnings);
            assert!(found.iter().any(|found| found.to_string().starts_with(want)), "{text}: {found:?}");
        }
    }

    fn any_labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[abc]", "[xyz]", 0..4)
    }

    fn any_selector() -> impl Strategy<Value = Selector> {
        let expression = ("[abc]", 0..4_usize, proptest::collection::btree_set("[xyz]", 1..3));
        proptest::collection::vec(expression, 0..4).prop_map(|expressions| {
            let rows: Vec<String> = expressions
                .into_iter()
                .map(|(key, operator, values)| match operator {
                    0 => format!("{{key: {key}, operator: In, values: [{}]}}", Vec::from_iter(values).join(", ")),
                    1 => format!("{{key: {key}, operator: NotIn, values: [{}]}}", Vec::from_iter(values).join(", ")),
                    2 => format!("{{key: {key}, operator: Exists}}"),
                    _ => format!("{{key: {key}, operator: DoesNotExist}}"),
                })
                .collect();
            read(&format!("matchExpressions: [{}]", rows.join(", "))).unwrap().0
        })
    }

    proptest! {
        #[test]
        fn a_conjunction_selects_what_both_select(a in any_selector(), b in any_selector(), device in any_labels()) {
            prop_assert_eq!(a.and(&b).matches(&device), a.matches(&device) && b.matches(&device));
        }

        #[test]
        fn an_example_is_selected_and_without_one_nothing_is(a in any_selector(), device in any_labels()) {
            match a.example() {
                Some(example) => prop_assert!(a.matches(&example)),
                None => prop_assert!(!a.matches(&device)),
            }
        }

        #[test]
        fn the_device_file_wins(agent in any_labels(), file in any_labels()) {
            let merged = merge_labels(&agent, &file);
            for (name, value) in &merged {
                prop_assert_eq!(Some(value), file.get(name).or_else(|| agent.get(name)));
            }
            prop_assert!(agent.keys().chain(file.keys()).all(|name| merged.contains_key(name)));
        }
    }
}
