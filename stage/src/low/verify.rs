//! What a well-formed module is.

use super::inst::Module;

/// The first rule that a module breaks, with the function and instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{func}: {message}")]
pub struct VerifyError {
    /// Function.
    pub func: String,
    /// Rule and place.
    pub message: String,
}

/// Checks a module.
pub fn verify(_module: &Module) -> Result<(), VerifyError> {
    Ok(())
}
