//! What a program needs: `use quearn::prelude::*`.

pub use crate::data::{Table as StoredTable, Tensor as StoredTensor};
pub use crate::{BackendKind, Error, Level, Outcome, Outputs, Program, Session};
pub use quearn_stage::graph::{Field, Graph, Scalar};
pub use quearn_stage::rep::*;
