//! `profile`: where the time of one run of a program goes, pipeline by pipeline.

use crate::data::Catalog;
use crate::executable::Times;
use crate::lower::Interface;
use crate::lower::frame::Bind;
use crate::lower::interface::Function;
use crate::moved::part_bytes;
use crate::results::Outputs;
use quearn_backends::Code;
use quearn_backends::runtime::{LoopProfile, Share};
use quearn_stage::low::FuncId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use quearn_backends::runtime::Counted;

/// Where the time of one run went.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The results of the run.
    pub outputs: Outputs,
    /// Milliseconds of each phase of compilation.
    pub compile: Vec<(&'static str, f64)>,
    /// Milliseconds between the parallel loops. With the pipelines' `wall_ms` this makes `outputs.run_ms`.
    pub serial_ms: f64,
    /// What the runtime did in that time: sorting, arranging the rows of joins, taking memory. (Some of its functions
    /// use all threads.)
    pub calls: Vec<RuntimeCalls>,
    /// The parallel loops, in the order in which they started.
    pub pipelines: Vec<PipelineProfile>,
}

/// Calls of one runtime function between the parallel loops.
#[derive(Clone, Debug)]
pub struct RuntimeCalls {
    /// Name of the function.
    pub name: &'static str,
    /// How many there were.
    pub calls: u64,
    /// Milliseconds of all of them; for `qn_par_for`, what it takes to start and end loops.
    pub ms: f64,
}

/// A parallel loop: a pipeline, or a step that belongs to one (linking a hash table, merging groups).
#[derive(Clone, Debug)]
pub struct PipelineProfile {
    /// Name of the generated function.
    pub name: String,
    /// Operators fused into the loop, source first; empty for a loop that `explain` does not list.
    pub fused: Vec<String>,
    /// What is materialised at the end.
    pub materialised: Vec<String>,
    /// Milliseconds from start to end; `None` for a loop inside another one's tile, which is a part of that one's.
    pub wall_ms: Option<f64>,
    /// Milliseconds that each worker was busy, without loops inside.
    pub busy_ms: Vec<f64>,
    /// How often the loop ran.
    pub runs: u64,
    /// Items: rows of a stored table, spans of materialised rows, or pieces of a tensor.
    pub items: u64,
    /// Tiles that the items were cut into.
    pub tiles: u64,
    /// Bytes of the columns of the scanned table that the loop reads, whole, although filters may skip parts of them;
    /// `None` if no table is scanned.
    pub bytes: Option<u64>,
    /// What the processor counted, where the system allows it.
    pub counted: Option<Counted>,
}

impl PipelineProfile {
    /// Milliseconds of all workers together.
    pub fn total_busy_ms(&self) -> f64 {
        self.busy_ms.iter().sum()
    }

    /// The busiest worker's time over the mean: 1 if all have the same.
    pub fn imbalance(&self) -> f64 {
        let mean = self.total_busy_ms() / self.busy_ms.len().max(1) as f64;
        let most = self.busy_ms.iter().copied().fold(0.0, f64::max);
        if mean > 0.0 { most / mean } else { 1.0 }
    }
}

/// What a profile is made from.
pub(crate) struct Source<'a> {
    pub interface: &'a Interface,
    pub code: &'a dyn Code,
    pub catalog: &'a Catalog,
}

impl Source<'_> {
    /// What a run recorded, by name.
    pub(crate) fn profile(&self, outputs: Outputs, times: &Times, compile: Vec<(&'static str, f64)>) -> Profile {
        let functions = (0..).map(FuncId).zip(&self.interface.functions);
        let keys: BTreeMap<usize, &Function> = functions.map(|(id, f)| (self.code.profile_key(id), f)).collect();
        let named = |profile: &LoopProfile| Some(self.pipeline(keys.get(&profile.func)?, profile));
        let pipelines: Vec<PipelineProfile> = times.loops.iter().filter_map(named).collect();
        let loops_ms: f64 = pipelines.iter().filter_map(|p| p.wall_ms).sum();
        let calls = times.calls.iter().map(|(&name, call)| RuntimeCalls { name, calls: call.calls, ms: ms(call.time) });
        let serial_ms = (outputs.run_ms - loops_ms).max(0.0);
        Profile { outputs, compile, serial_ms, calls: calls.collect(), pipelines }
    }

    fn pipeline(&self, function: &Function, profile: &LoopProfile) -> PipelineProfile {
        let note = function.note.map(|note| &self.interface.pipelines[note]);
        let all = profile.shares.iter().fold(Share::default(), |all, share| all + *share);
        PipelineProfile {
            name: function.name.clone(),
            fused: note.map_or(vec![], |note| note.fused.clone()),
            materialised: note.map_or(vec![], |note| note.materialised.clone()),
            wall_ms: (!profile.nested).then(|| ms(profile.wall)),
            busy_ms: profile.shares.iter().map(|share| ms(share.busy)).collect(),
            runs: profile.runs,
            items: profile.items,
            tiles: profile.tiles,
            bytes: self.bytes(function, profile.items / profile.runs.max(1)),
            counted: all.counted,
        }
    }

    /// Bytes of the stored columns that a loop over `rows` items reads, if these are the rows of a table.
    fn bytes(&self, function: &Function, rows: u64) -> Option<u64> {
        let read = function.reads.iter().map(|&binding| &self.interface.bindings[binding].0);
        let columns = read.filter_map(|bind| match bind {
            Bind::Column { table, column, part } => {
                let table = self.catalog.table(table).filter(|table| table.rows() as u64 == rows)?;
                part_bytes(table.column(column).ok()?, *part, table.rows())
            }
            _ => None,
        });
        columns.reduce(|a, b| a + b)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl fmt::Display for Profile {
    /// A table of the loops, with what is fused into each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases: Vec<String> = self.compile.iter().map(|(phase, ms)| format!("{phase} {ms:.1}")).collect();
        writeln!(f, "compiled: {} ms", phases.join(", "))?;
        writeln!(f, "ran: {:.3} ms, of which {:.3} outside of parallel loops", self.outputs.run_ms, self.serial_ms)?;
        let calls: Vec<String> = self.calls.iter().map(|c| format!("{} x{} {:.3} ms", c.name, c.calls, c.ms)).collect();
        writeln!(f, "runtime calls there: {}", calls.join(", "))?;
        let titles = ["wall ms", "busy ms", "imbalance", "tiles", "items", "MB", "Mcycles", "Minstr."];
        writeln!(f, "{:20} {}", "loop", titles.map(|title| format!("{title:>10}")).join(" "))?;
        for pipeline in &self.pipelines {
            let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
            let millions = |value: Option<u64>| number(value.map(|value| value as f64 / 1e6));
            let cells = [
                number(pipeline.wall_ms),
                number(Some(pipeline.total_busy_ms())),
                format!("{:.2}", pipeline.imbalance()),
                pipeline.tiles.to_string(),
                pipeline.items.to_string(),
                millions(pipeline.bytes),
                millions(pipeline.counted.map(|c| c.cycles)),
                millions(pipeline.counted.map(|c| c.instructions)),
            ];
            writeln!(f, "{:20} {}", pipeline.name, cells.map(|cell| format!("{cell:>10}")).join(" "))?;
            pipeline.fused.iter().try_for_each(|operator| writeln!(f, "   | {operator}"))?;
            pipeline.materialised.iter().try_for_each(|made| writeln!(f, "   => {made}"))?;
        }
        write!(f, "{}", self.outputs.moved())
    }
}
