//! What rewriting did, and how it can fail.

use super::RULES;
use crate::data::Fact;
use quearn_stage::graph::{GraphError, Scalar};
use std::collections::BTreeMap;
use std::fmt;

/// Why rewriting stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RewriteError {
    /// The user's: a switch that names no rule.
    #[error("no rewrite rule {0:?}; there are {known}", known = names())]
    UnknownRule(String),
    /// The user's: a required rule is to be switched off.
    #[error("rewrite rule {0} cannot be switched off: what it replaces cannot be compiled otherwise")]
    RequiredRule(&'static str),
    /// The user's: weights are to become something else than floats of 16 bits.
    #[error("weights can be narrowed to f16 or bf16, not to {0}")]
    NotNarrow(Scalar),
    /// Ours: a rule made something that is no equal graph.
    #[error("rewrite rule {rule} is wrong: {source}")]
    Rule {
        /// The rule.
        rule: &'static str,
        /// What it made.
        source: GraphError,
    },
}

impl RewriteError {
    pub(super) fn rule(rule: &'static str, source: GraphError) -> RewriteError {
        RewriteError::Rule { rule, source }
    }
}

fn names() -> String {
    RULES.iter().map(|rule| rule.name).collect::<Vec<_>>().join(", ")
}

/// How often each rule changed a node, and what the changes rely on.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RewriteReport {
    fired: BTreeMap<&'static str, usize>,
    facts: Vec<Fact>,
}

impl RewriteReport {
    pub(super) fn count(&mut self, rule: &'static str, changes: usize) {
        *self.fired.entry(rule).or_default() += changes;
    }

    pub(super) fn rely_on(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            if !self.facts.contains(&fact) {
                self.facts.push(fact);
            }
        }
    }

    /// What must hold for the tables, that the rewritten graph is equal.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// How often the rule of that name fired.
    pub fn fired(&self, name: &str) -> usize {
        self.fired.get(name).copied().unwrap_or(0)
    }

    /// The rules that fired, in their order, and how often; before them the pass `scatter_rows`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        let names = std::iter::once("scatter_rows").chain(RULES.iter().map(|rule| rule.name));
        names.map(|name| (name, self.fired(name))).filter(|(_, count)| *count > 0)
    }
}

impl fmt::Display for RewriteReport {
    /// `push_filter x2, prune_projection x1`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.iter().map(|(name, count)| format!("{name} x{count}")).collect();
        f.write_str(if each.is_empty() { "none" } else { "" })?;
        f.write_str(&each.join(", "))
    }
}
