//! The tables, generated in process and cached as Parquet.
//!
//! Files are `$QUEARN_CACHE/tpch/sf<scale>/<table>.parquet` (default `~/.cache/quearn`). A file that is there is whole,
//! because it gets its name last; so only absent ones are made. Row groups are generated and encoded on all threads
//! and written in order.

use crate::schema::{self, TABLES};
use crate::{Error, Result};
use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::error::ArrowError;
use quearn::io::{ParquetWriter, RowGroup, RowGroupEncoder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use tpchgen::generators::*;
use tpchgen_arrow::*;

/// Told the table, its rows so far, and (about) how many there will be.
pub type Progress<'a> = &'a dyn Fn(&str, u64, u64);

/// Folder of the tables at a scale factor.
pub fn folder(scale: f64) -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = set("QUEARN_CACHE").or_else(|| Some(set("HOME")?.join(".cache/quearn"))).ok_or(Error::NoCache)?;
    Ok(cache.join("tpch").join(format!("sf{scale}")))
}

/// Makes the tables that are absent from [`folder`], and returns it.
pub fn generate(scale: f64, progress: Progress) -> Result<PathBuf> {
    let folder = folder(scale)?;
    generate_into(&folder, scale, progress)?;
    Ok(folder)
}

/// Makes the tables that are absent from a folder.
pub fn generate_into(folder: &Path, scale: f64, progress: Progress) -> Result<()> {
    // The generator divides by numbers of rows.
    if !scale.is_finite() || scale < 1e-4 {
        return Err(Error::Scale(scale));
    }
    // The largest first, so that no thread is left alone with it.
    let absent = TABLES.iter().rev().map(|t| (*t, folder.join(format!("{t}.parquet")))).filter(|(_, p)| !p.exists());
    let sinks = absent.map(|(table, path)| Sink::new(table, path, scale)).collect::<Result<Vec<_>>>()?;
    let parts: Vec<(&Sink, i32)> = sinks.iter().flat_map(|s| (0..s.parts).map(move |p| (s, p))).collect();
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            let (sender, parts, next) = (sender.clone(), &parts, &next);
            scope.spawn(move || {
                while let Some((sink, part)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver is gone after an error: the rest is not needed.
                    if sender.send((*sink, sink.make(scale, *part))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        report(receiver, progress)
    })
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn report(parts: mpsc::Receiver<(&Sink, Result<u64>)>, progress: Progress) -> Result<()> {
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    for (sink, made) in parts {
        let done = rows.entry(sink.table).or_default();
        *done += made?;
        progress(sink.table, *done, sink.rows.max(*done));
    }
    Ok(())
}

/// A table's file and the row groups that wait for earlier ones.
struct Sink {
    table: &'static str,
    /// Expected rows; exact except for `lineitem`.
    rows: u64,
    parts: i32,
    encoder: RowGroupEncoder,
    state: Mutex<State>,
}

struct State {
    /// `None` once the file is finished.
    writer: Option<ParquetWriter>,
    waiting: BTreeMap<i32, RowGroup>,
    written: i32,
}

/// About the rows of a row group.
const PART_ROWS: u64 = 400_000;

impl Sink {
    fn new(table: &'static str, path: PathBuf, scale: f64) -> Result<Sink> {
        let rows = rows(table, scale);
        let parts = rows.div_ceil(PART_ROWS).max(1) as i32;
        let writer = ParquetWriter::create(&path, reader(table, scale, 1, 1).schema())?;
        let encoder = writer.encoder();
        let state = State { writer: Some(writer), waiting: BTreeMap::new(), written: 0 };
        Ok(Sink { table, rows, parts, encoder, state: Mutex::new(state) })
    }

    /// Generates and encodes a part, and writes what is next in order; returns its rows.
    fn make(&self, scale: f64, part: i32) -> Result<u64> {
        let batches: Result<Vec<RecordBatch>, ArrowError> = reader(self.table, scale, part + 1, self.parts).collect();
        let batches = batches.map_err(|e| Error::Generate { table: self.table.into(), message: e.to_string() })?;
        let group = self.encoder.encode(part as usize, &batches)?;
        self.store(part, group)?;
        Ok(batches.iter().map(|b| b.num_rows() as u64).sum())
    }

    fn store(&self, part: i32, group: RowGroup) -> Result<()> {
        let mut guard = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let state = &mut *guard;
        state.waiting.insert(part, group);
        let Some(writer) = &mut state.writer else { return Ok(()) };
        while let Some(group) = state.waiting.remove(&state.written) {
            writer.append(group)?;
            state.written += 1;
        }
        if state.written == self.parts
            && let Some(writer) = state.writer.take()
        {
            writer.finish()?;
        }
        Ok(())
    }
}

/// Rows of a table; `lineitem` has 1 to 7 for every order, 4 on average.
pub(crate) fn rows(table: &str, scale: f64) -> u64 {
    let base = match table {
        schema::REGION => return 5,
        schema::NATION => return 25,
        schema::SUPPLIER => 10_000.0,
        schema::CUSTOMER => 150_000.0,
        schema::PART => 200_000.0,
        schema::PARTSUPP => 800_000.0,
        schema::ORDERS => 1_500_000.0,
        _ => 6_000_000.0,
    };
    (base * scale) as u64
}

/// Part `part` (from 1) of a table.
fn reader(table: &str, scale: f64, part: i32, parts: i32) -> Box<dyn RecordBatchReader> {
    const ROWS: usize = 1 << 16;
    match table {
        schema::REGION => Box::new(RegionArrow::new(RegionGenerator::new(scale, part, parts))),
        schema::NATION => Box::new(NationArrow::new(NationGenerator::new(scale, part, parts))),
        schema::SUPPLIER => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, part, parts))),
        schema::CUSTOMER => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, part, parts))),
        schema::PART => Box::new(PartArrow::new(PartGenerator::new(scale, part, parts))),
        schema::PARTSUPP => {
            Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, part, parts)).with_batch_size(ROWS))
        }
        schema::ORDERS => Box::new(OrderArrow::new(OrderGenerator::new(scale, part, parts)).with_batch_size(ROWS)),
        _ => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, part, parts)).with_batch_size(ROWS)),
    }
}
