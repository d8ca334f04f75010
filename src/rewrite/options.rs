//! Which rules run.

use super::{RULES, RewriteError};
use std::collections::BTreeSet;

/// A switch per rule; all are on by default. Those that are required run in any case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RewriteOptions {
    on: BTreeSet<&'static str>,
}

impl Default for RewriteOptions {
    fn default() -> Self {
        RewriteOptions { on: RULES.iter().map(|rule| rule.name).collect() }
    }
}

impl RewriteOptions {
    /// No rule runs but those that are required.
    pub fn none() -> RewriteOptions {
        RewriteOptions { on: BTreeSet::new() }
    }

    /// These, and the rule of that name.
    ///
    /// # Errors
    /// There is no such rule.
    pub fn with(mut self, name: &str) -> Result<RewriteOptions, RewriteError> {
        self.on.insert(known(name)?);
        Ok(self)
    }

    /// These but for the rule of that name.
    ///
    /// # Errors
    /// There is no such rule, or it is required.
    pub fn without(mut self, name: &str) -> Result<RewriteOptions, RewriteError> {
        let name = known(name)?;
        if RULES.iter().any(|rule| rule.name == name && rule.required) {
            return Err(RewriteError::RequiredRule(name));
        }
        self.on.remove(name);
        Ok(self)
    }

    /// Does the rule of that name run?
    pub fn is_on(&self, name: &str) -> bool {
        self.on.contains(name)
    }
}

fn known(name: &str) -> Result<&'static str, RewriteError> {
    let rule = RULES.iter().find(|rule| rule.name == name);
    rule.map(|rule| rule.name).ok_or_else(|| RewriteError::UnknownRule(name.to_owned()))
}
