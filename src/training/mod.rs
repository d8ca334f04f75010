//! Training.
//!
//! | file | what it holds |
//! |---|---|
//! | [`optimizer`] | the next value of a parameter from its gradient |
//! | [`schedule`] | learning rates that change with the steps |
//! | [`clip`] | limits for gradients |

pub mod clip;
pub mod optimizer;
pub mod schedule;

pub use clip::Clip;
pub use optimizer::{Adagrad, Adam, AdamW, Moment, Next, Optimizer, Parameter, RmsProp, Sgd, Slot};
pub use schedule::Schedule;
