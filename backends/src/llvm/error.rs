//! What can go wrong between a verified module and machine code.

use inkwell::builder::BuilderError;
use inkwell::support::LLVMString;
use inkwell::values::InstructionValueError;

/// A message for [`crate::BackendError::Failed`].
#[derive(Debug)]
pub(super) struct Error(pub(super) String);

/// Result of a step of this backend.
pub(super) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }
}

impl From<BuilderError> for Error {
    fn from(error: BuilderError) -> Error {
        Error(error.to_string())
    }
}

impl From<InstructionValueError> for Error {
    fn from(error: InstructionValueError) -> Error {
        Error(error.to_string())
    }
}

impl From<LLVMString> for Error {
    fn from(message: LLVMString) -> Error {
        Error(message.to_string())
    }
}
