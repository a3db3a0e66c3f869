//! `rollouts/<rollout>.yaml`: how a revision moves over groups, stage by stage.
//!
//! Which stage a device is in, and when the next one may go, is for the
//! rollout engine; here the file is read and judged.

use schemars::JsonSchema;
use serde::Deserialize;

use super::files::names;
use super::problems::Problems;
use super::value::{self, DurationText, LabelName, LimitText, NameText, PercentText, WindowFile};
use crate::desired::{Limit, Window};
use crate::finding::Finding;
use crate::name::GroupName;
use crate::select::{Selector, SelectorFile};
use crate::yaml::{self, At, Place};

/// More stages than this are a mistake.
const MAX_STAGES: usize = 64;

/// `rollouts/<rollout>.yaml`: how a revision moves over groups.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RolloutFile {
    /// The groups whose devices it paces; a group is in one rollout at most.
    #[schemars(with = "Vec<NameText>", length(min = 1))]
    groups: At<Vec<At<String>>>,
    /// In order. The last one names neither `selector` nor `percent`: it takes the rest.
    #[schemars(length(min = 1, max = 64))]
    stages: At<Vec<At<StageFile>>>,
    /// How many devices may be away at once.
    budget: Option<BudgetFile>,
    /// Whether the ratio waits for devices that are offline. Default `skip`.
    offline: Option<Offline>,
    /// What happens to the devices that moved when a stage fails. Default `rollback`.
    on_failure: Option<OnStageFailure>,
    /// What a device does that can't reach a hub. Default `hold`.
    without_hub: Option<WithoutHub>,
    /// When the devices of the groups may apply; their groups' windows count, too.
    window: Option<WindowFile>,
}

/// One stage.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageFile {
    /// The stage's name.
    #[schemars(with = "NameText")]
    name: At<String>,
    /// The devices of the stage.
    selector: Option<At<SelectorFile>>,
    /// Or a share of the devices that no earlier stage took, 1 to 100.
    #[schemars(with = "Option<PercentText>")]
    percent: Option<At<String>>,
    /// How long the stage has to hold before the next. Default 0s.
    #[schemars(with = "Option<DurationText>")]
    soak: Option<At<String>>,
    /// The share of the stage's devices that have to succeed. Default 100%.
    #[schemars(with = "Option<PercentText>")]
    success: Option<At<String>>,
    /// Whether a person has to let the stage begin. Default `automatic`.
    approval: Option<Approval>,
}

/// A budget for disruption.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BudgetFile {
    /// At most so many devices, or this share, away at once.
    #[schemars(with = "LimitText")]
    max_unavailable: At<String>,
    /// Counted for each value of this label; without it, for the rollout.
    #[schemars(with = "Option<LabelName>")]
    by: Option<At<String>>,
}

/// Whether a person has to let a stage begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// It begins when the one before has held.
    #[default]
    Automatic,
    /// A person approves it.
    Manual,
}

/// How offline devices count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Offline {
    /// They leave the ratio, and catch up later.
    #[default]
    Skip,
    /// The stage waits for them.
    Wait,
}

/// What happens to the devices that moved when a stage fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnStageFailure {
    /// They go back.
    #[default]
    Rollback,
    /// The rollout pauses, they stay.
    Pause,
}

/// What a device does that can't reach a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutHub {
    /// It waits for the hub's release.
    #[default]
    Hold,
    /// It follows the branch.
    Follow,
}

/// A rollout, checked.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The groups whose devices it paces.
    pub groups: Vec<At<GroupName>>,
    /// In order.
    pub stages: Vec<Stage>,
    /// How many devices may be away at once.
    pub budget: Option<Budget>,
    /// How offline devices count.
    pub offline: Offline,
    /// What happens when a stage fails.
    pub on_failure: OnStageFailure,
    /// What a device does without a hub.
    pub without_hub: WithoutHub,
    /// When its devices may apply.
    pub window: Option<Window>,
}

/// One stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Whom it takes.
    pub takes: Takes,
    /// How long it has to hold, in milliseconds.
    pub soak_ms: u64,
    /// The share of its devices that have to succeed, of a hundred.
    pub success: u8,
    /// Whether a person has to let it begin.
    pub approval: Approval,
}

/// Whom a stage takes, of those that no earlier stage took.
#[derive(Clone, Debug)]
pub enum Takes {
    /// Those with these labels.
    Selected(Selector),
    /// So many of a hundred.
    Percent(u8),
    /// All.
    Rest,
}

/// A budget for disruption.
#[derive(Clone, Debug)]
pub struct Budget {
    /// At most so many away at once.
    pub max_unavailable: Limit,
    /// For each value of this label.
    pub by: Option<String>,
}

impl Rollout {
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let file: RolloutFile = yaml::parse(path, bytes).map_err(|found| vec![found])?;
        let mut problems = Problems::new(path);
        if file.groups.value.is_empty() {
            problems.error(file.groups.place, "no groups, expected at least one");
        }
        let groups = names(&mut problems, file.groups.value, "group");
        let stages = stages(&mut problems, file.stages);
        let budget = file.budget.and_then(|budget| budget.check(&mut problems));
        let window = file.window.and_then(|window| window.apply.check(&mut problems));
        problems.finish(stages.map(|stages| Self {
            groups,
            stages,
            budget,
            offline: file.offline.unwrap_or_default(),
            on_failure: file.on_failure.unwrap_or_default(),
            without_hub: file.without_hub.unwrap_or_default(),
            window,
        }))
    }
}

fn stages(problems: &mut Problems<'_>, given: At<Vec<At<StageFile>>>) -> Option<Vec<Stage>> {
    if given.value.is_empty() || given.value.len() > MAX_STAGES {
        problems.error(given.place, format!("{} stages, expected 1 to {MAX_STAGES}", given.value.len()));
        return None;
    }
    let mut stages: Vec<Stage> = Vec::new();
    let mut rest: Option<Place> = None;
    let mut whole = true;
    for stage in given.value {
        if rest.take().is_some() {
            problems.error_with_hint(
                stage.place,
                format!("no device is left for stage `{}`: the one before takes the rest", stage.value.name.value),
                "give the stage before a `selector` or a `percent`, or put it last",
            );
        }
        if stages.iter().any(|before| before.name == stage.value.name.value) {
            problems.error(
                stage.value.name.place,
                format!("a second stage `{}`, expected each name once", stage.value.name.value),
            );
        }
        match stage.value.check(problems) {
            Some(checked) => {
                rest = matches!(checked.takes, Takes::Rest).then_some(stage.place);
                stages.push(checked);
            }
            None => whole = false,
        }
    }
    if whole && rest.is_none() {
        problems.warning(
            given.place,
            "the last stage does not take the rest, so that devices may be left that never move; expected one without `selector` and `percent`",
        );
    }
    whole.then_some(stages)
}

impl StageFile {
    fn check(&self, problems: &mut Problems<'_>) -> Option<Stage> {
        let name = problems.take(&self.name, str::parse::<crate::name::RolloutName>);
        let takes = match (&self.selector, &self.percent) {
            (Some(_), Some(percent)) => {
                problems.error(percent.place, "both `selector` and `percent`, expected one of them");
                None
            }
            (Some(selector), None) => Some(Takes::Selected(selector.value.check(problems, selector.place))),
            (None, Some(percent)) => problems
                .take(percent, |text| match value::percent(text)? {
                    0 => Err("0% takes no device, expected 1% to 100%".to_owned()),
                    share => Ok(share),
                })
                .map(Takes::Percent),
            (None, None) => Some(Takes::Rest),
        };
        let soak_ms = self.soak.as_ref().map_or(Some(0), |soak| problems.take(soak, value::duration));
        let success = self.success.as_ref().map_or(Some(100), |share| problems.take(share, value::percent));
        Some(Stage {
            name: name?.to_string(),
            takes: takes?,
            soak_ms: soak_ms?,
            success: success?,
            approval: self.approval.unwrap_or_default(),
        })
    }
}

impl BudgetFile {
    fn check(&self, problems: &mut Problems<'_>) -> Option<Budget> {
        let max_unavailable = problems.take(&self.max_unavailable, |text| match value::limit(text)? {
            Limit::Count(0) | Limit::Percent(0) => {
                Err(format!("`{text}` lets no device move, expected at least 1 or 1%"))
            }
            limit => Ok(limit),
        });
        if let Some(by) = &self.by {
            problems.take(by, value::label_name);
        }
        Some(Budget { max_unavailable: max_unavailable?, by: self.by.as_ref().map(|by| by.value.clone()) })
    }
}
