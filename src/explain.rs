//! `explain`: a program at every level, from the graph as it was written to assembly.

use crate::compile;
use crate::data::Catalog;
use crate::error::{Error, Result};
use crate::lower::moves::{Move, MoveKind};
use crate::lower::{self, ArenaNote, PipelineNote};
use crate::options::Options;
use quearn_backends::Backend;
use quearn_stage::graph::Graph;
use std::fmt::Write as _;
use std::str::FromStr;

/// A level of the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The graph as it was written.
    Graph,
    /// The graph after rewriting, and which rewrites fired.
    Rewritten,
    /// What was fused into each loop, what is materialised with how many bytes, and where data moves.
    Pipelines,
    /// The low-level program.
    Low,
    /// LLVM IR after its passes.
    Llvm,
    /// Assembly.
    Asm,
}

impl Level {
    /// Every level, from the top down, with its name on the command line.
    pub const ALL: [(&'static str, Level); 6] = [
        ("graph", Level::Graph),
        ("rewritten", Level::Rewritten),
        ("pipelines", Level::Pipelines),
        ("low", Level::Low),
        ("llvm", Level::Llvm),
        ("asm", Level::Asm),
    ];
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Level> {
        let known = || Level::ALL.map(|(name, _)| name).join(", ");
        let found = Level::ALL.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, level)| *level)
            .ok_or_else(|| Error::Setting(format!("no level \"{text}\"; there are {}", known())))
    }
}

/// The program at a level.
pub(crate) fn explain(
    graph: &Graph,
    catalog: &Catalog,
    options: &Options,
    backend: &dyn Backend,
    level: Level,
) -> Result<String> {
    if level == Level::Graph {
        return Ok(graph.to_string());
    }
    let rewritten = compile::rewrite(graph, catalog, options)?;
    if level == Level::Rewritten {
        return Ok(format!("{}\n{}", rewritten.graph, rewritten.report));
    }
    let lowered = lower::lower(&rewritten.graph, &rewritten.parameters, catalog, options.stop_at_match)?;
    let listing = |name: &str| {
        let missing = || Error::Setting(format!("the {} backend has no listing \"{name}\"", backend.name()));
        backend.listing(&lowered.module, &compile::settings(options), name)?.ok_or_else(missing)
    };
    match level {
        Level::Llvm => listing("llvm"),
        Level::Asm => listing("asm"),
        Level::Low => Ok(lowered.module.to_string()),
        _ => Ok(pipelines(&lowered.interface.pipelines) + &arenas(&lowered.arenas) + &moves(&lowered.interface.moves)),
    }
}

fn pipelines(notes: &[PipelineNote]) -> String {
    let mut text = String::new();
    for (i, note) in notes.iter().enumerate() {
        let once = if note.once { ", once" } else { "" };
        let _ = writeln!(text, "{i}: {}{once}", note.name);
        for operator in &note.fused {
            let _ = writeln!(text, "   | {operator}");
        }
        for made in &note.materialised {
            let _ = writeln!(text, "   => {made}");
        }
    }
    text
}

/// Where data moves, kind by kind.
fn moves(moves: &[Move]) -> String {
    let line = |m: &Move| format!("{:9} {}\n", m.kind, m.place);
    let of = |kind: MoveKind| moves.iter().filter(move |m| m.kind == kind).map(line);
    MoveKind::ALL.into_iter().flat_map(of).collect()
}

fn arenas(notes: &[ArenaNote]) -> String {
    let mut text = String::new();
    for ArenaNote { bytes, needed, items } in notes {
        let of = match items {
            None => " for each item".to_owned(),
            Some(1) => String::new(),
            Some(items) => format!(" for {items} items"),
        };
        let ratio = *bytes as f64 / (*needed).max(1) as f64;
        let _ = match bytes {
            0 => writeln!(text, "arena: none"),
            _ => writeln!(text, "arena: {bytes} bytes{of}; {needed} are live at once: ratio {ratio:.3}"),
        };
    }
    text
}
