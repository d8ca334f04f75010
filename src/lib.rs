//! Quearn: queries and tensor programs in one staged language, compiled together.
//!
//! [`Session`] holds tables, weights and settings, and compiles and runs programs that are written with the builder of
//! [`prelude`]. What a program becomes on its way is told in `ARCHITECTURE.md`; [`explain`] shows it.
#![doc = include_str!("../README.md")]

pub mod autodiff;
mod cache;
pub mod compile;
pub mod data;
mod error;
pub mod estimate;
pub mod eval;
pub mod executable;
pub mod explain;
mod facts;
pub mod foreign;
pub mod io;
pub mod lower;
pub mod machine;
pub mod moved;
pub mod options;
pub mod prelude;
pub mod profile;
pub mod results;
pub mod rewrite;
pub mod saved;
mod session;
mod state;
#[doc(hidden)]
pub mod testing;
pub mod training;

pub use arrow;
pub use error::{Error, Result};
pub use executable::Tensors;
pub use explain::Level;
pub use foreign::Function;
pub use moved::Moved;
pub use options::{BackendKind, Options};
pub use profile::Profile;
pub use results::{Outcome, Outputs};
pub use session::{Program, Session, SessionBuilder};
pub use state::State;
