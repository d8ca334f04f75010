//! Training: a network and a loss become a program that makes a step, and a trainer runs it.
//!
//! | file | what it holds |
//! |---|---|
//! | [`plan`] | a step as one program: forward, loss, backward, update |
//! | [`trainer`] | steps, epochs, scores, early stopping |
//! | [`optimizer`] | the next value of a parameter from its gradient |
//! | [`schedule`] | learning rates that change with the steps |
//! | [`clip`] | limits for gradients |
//! | [`draw`] | mini-batches, drawn by the program |
//! | [`norm`] | batch norm in training |
//! | [`history`] | losses and scores as tables and as a picture |
//! | `checkpoint` | checkpoints as files |
//! | `epoch` | several steps as one program |
//! | `recompute` | activations within a budget: kept, or computed again |
//! | `liveness` | how much is live at once |
//! | `diagnosis` | where a loss that is not finite comes from |
//!
//! Invariant: what a step does follows from the state, the inputs and the seed; neither the number of threads nor a
//! checkpoint in between changes where random numbers come from.

mod checkpoint;
pub mod clip;
mod diagnosis;
pub mod draw;
mod epoch;
pub mod history;
mod liveness;
pub mod norm;
pub mod optimizer;
pub mod plan;
mod recompute;
pub mod schedule;
pub mod trainer;

pub use clip::Clip;
pub use draw::{Draw, Last, steps_in_epoch};
pub use history::History;
pub use norm::batch_norm;
pub use optimizer::{Adagrad, Adam, AdamW, Moment, Next, Optimizer, Parameter, RmsProp, Sgd, Slot};
pub use plan::{Kept, Plan, Recipe};
pub use recompute::Activations;
pub use schedule::Schedule;
pub use trainer::{Fit, Score, Step, Trainer, Watch};
