//! Programs that are a query and a network at once.

pub mod image_classes;
