//! The twin whose type is known only when the program is built.
//!
//! `Rep<'s, Dyn>` has the operations of all types; those that do not fit its type are reported by `Stage::finish`. It
//! is for schemas that are known at run time: `r.col(name) + r.col(other)`.

use super::marker::{Dyn, Marker};
use super::stage::Rep;

impl<'s> Rep<'s, Dyn> {
    /// The typed handle on the same value; an error if it is of another type.
    #[track_caller]
    pub fn typed<T: Marker>(self) -> Rep<'s, T> {
        self.checked("typed", "the value")
    }
}
