//! Files: Parquet tables and safetensors weights. (Arrow needs no file: `crate::data::Table::from_batches` shares
//! the memory of `RecordBatch`es.)
//!
//! Every error names the file; what a corrupt file makes a decoder do, panics included, comes back as an error.
