//! Changing a container's rules. They are part of its desired state; the answer waits until the node has
//! put them in force, and is 502 with the cause where it could not.

use super::{RuleInput, RuleTexts, Selector, parse_rule};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::container::{self, Effect, Progress, change},
    store::container::ContainerRow,
};
use hoody_protocol::{
    bounded::List,
    container::Desired,
    firewall::{Direction, FirewallRule, FirewallSpec, MAX_RULES},
    id::ContainerId,
};

/// Bytes of one container's rules, see [`byte_count`].
pub const MAX_BYTES: usize = 256 << 10;

/// A rule with the texts to answer with.
pub type Rule = (FirewallRule, RuleTexts);

/// The container with its rules.
pub async fn list(app: &App, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    container::get(app, caller, id).await
}

/// The texts of a rule; without any, its owner wrote none.
pub fn texts(row: &ContainerRow, rule: &FirewallRule) -> RuleTexts {
    row.attributes.rule_texts.get(&rule.id).cloned().unwrap_or_default()
}

/// Bytes that the container's rules take in the store.
pub fn byte_count(row: &ContainerRow) -> usize {
    let rules = serde_json::to_vec(&row.spec.firewall).map_or(0, |text| text.len());
    rules + serde_json::to_vec(&row.attributes.rule_texts).map_or(0, |text| text.len())
}

/// What an addition came to.
#[derive(Debug)]
pub struct Added {
    /// The rule as it is now.
    pub rule: Rule,
    /// Position of the rule that was there already; nothing was added then.
    pub duplicate_of: Option<usize>,
    /// How far the node is.
    pub progress: Progress,
}

/// Adds a rule behind the others of its direction, unless there is one that says the same.
pub async fn add(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    direction: Direction,
    input: &RuleInput,
) -> Result<Added, ServiceError> {
    let (rule, rule_texts) = parse_rule(direction, input)?;
    let (row, progress, (rule, duplicate_of)) = edit(app, caller, id, |row| {
        let rules = row.spec.firewall.rules(direction);
        let same = |other: &FirewallRule| {
            (other.enabled, other.action, &other.matches, other.peer, &other.host)
                == (rule.enabled, rule.action, &rule.matches, rule.peer, &rule.host)
        };
        if let Some(index) = rules.iter().position(same) {
            let found = rules[index].clone();
            let found_texts = texts(row, &found);
            return Ok((Effect::Nothing, ((found, found_texts), Some(index))));
        }
        let count = row.spec.firewall.ingress.len() + row.spec.firewall.egress.len();
        if count >= MAX_RULES {
            return Err(ServiceError::Conflict(format!(
                "the container has {MAX_RULES} rules, as many as it may have: remove one first"
            )));
        }
        let mut rules = rules.to_vec();
        rules.push(rule.clone());
        set(&mut row.spec.firewall, direction, rules)?;
        row.attributes.rule_texts.insert(rule.id, rule_texts.clone());
        if byte_count(row) > MAX_BYTES {
            return Err(ServiceError::Conflict(format!("the rules take more than {MAX_BYTES} bytes: shorten remarks")));
        }
        Ok((Effect::Desired, ((rule, rule_texts), None)))
    })
    .await?;
    enforced(&row)?;
    Ok(Added { rule, duplicate_of, progress })
}

/// Enables or disables every rule that `input` selects; gives the rules as they are now.
pub async fn toggle(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    direction: Direction,
    input: &RuleInput,
) -> Result<(Vec<Rule>, bool, Progress), ServiceError> {
    let (selector, enabled) = Selector::for_toggle(direction, input)?;
    let (row, progress, selected) = edit(app, caller, id, |row| {
        let mut rules = row.spec.firewall.rules(direction).to_vec();
        let mut selected = Vec::new();
        let mut changed = false;
        for rule in &mut rules {
            let rule_texts = texts(row, rule);
            if selector.selects(rule, &rule_texts) {
                changed |= rule.enabled != enabled;
                rule.enabled = enabled;
                selected.push((rule.clone(), rule_texts));
            }
        }
        if selected.is_empty() {
            return Err(ServiceError::NotFound("firewall rule"));
        }
        set(&mut row.spec.firewall, direction, rules)?;
        Ok((if changed { Effect::Desired } else { Effect::Nothing }, selected))
    })
    .await?;
    enforced(&row)?;
    Ok((selected, enabled, progress))
}

/// Removes every rule that `input` selects; gives them.
pub async fn remove(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    direction: Direction,
    input: &RuleInput,
) -> Result<(Vec<Rule>, Progress), ServiceError> {
    let selector = Selector::for_removal(direction, input)?;
    let (row, progress, removed) = edit(app, caller, id, |row| {
        let is_removed =
            |rule: &FirewallRule| selector.as_ref().is_none_or(|selector| selector.selects(rule, &texts(row, rule)));
        let (removed, kept): (Vec<_>, Vec<_>) =
            row.spec.firewall.rules(direction).iter().cloned().partition(is_removed);
        if removed.is_empty() {
            // Nothing of this kind is there; "all" is true of none as well.
            return if selector.is_none() {
                Ok((Effect::Nothing, vec![]))
            } else {
                Err(ServiceError::NotFound("firewall rule"))
            };
        }
        set(&mut row.spec.firewall, direction, kept)?;
        let removed = removed.into_iter().map(|rule| {
            let rule_texts = row.attributes.rule_texts.remove(&rule.id).unwrap_or_default();
            (rule, rule_texts)
        });
        Ok((Effect::Desired, removed.collect()))
    })
    .await?;
    enforced(&row)?;
    Ok((removed, progress))
}

/// Removes every rule: the container is open again to what the platform allows.
pub async fn reset(app: &App, caller: &Caller, id: ContainerId) -> Result<Progress, ServiceError> {
    let (row, progress, ()) = edit(app, caller, id, |row| {
        if row.spec.firewall == FirewallSpec::default() {
            return Ok((Effect::Nothing, ()));
        }
        row.spec.firewall = FirewallSpec::default();
        row.attributes.rule_texts.clear();
        Ok((Effect::Desired, ()))
    })
    .await?;
    enforced(&row)?;
    Ok(progress)
}

async fn edit<T>(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    edit: impl FnOnce(&mut ContainerRow) -> Result<(Effect, T), ServiceError>,
) -> Result<(ContainerRow, Progress, T), ServiceError> {
    change(app, caller, id, |row| {
        if row.spec.desired == Desired::Deleted {
            return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
        }
        edit(row)
    })
    .await
}

fn set(firewall: &mut FirewallSpec, direction: Direction, rules: Vec<FirewallRule>) -> Result<(), ServiceError> {
    let rules: List<_, MAX_RULES> = rules.try_into().map_err(ServiceError::internal)?;
    match direction {
        Direction::Ingress => firewall.ingress = rules,
        Direction::Egress => firewall.egress = rules,
    }
    Ok(())
}

/// 502 where the node could not put the stored rules in force: those before them still stand there.
fn enforced(row: &ContainerRow) -> Result<(), ServiceError> {
    let report = row.report.as_ref().filter(|report| report.version >= row.spec.version);
    match report.and_then(|report| report.firewall_error.clone()) {
        Some(cause) => Err(ServiceError::NodeFailed(cause)),
        None => Ok(()),
    }
}
