//! Rep.
