//! What the session has to know of a program to run it, beside its code: everything that is kept with a saved program.

use super::context::{Fact, PipelineNote};
use super::frame::{Bind, Slot};
use super::moves::{Count, Move};
use super::relational::RowLayout;
use quearn_stage::graph::foreign::Signature;
use quearn_stage::graph::{Dim, Elem, Graph, Node, Op, Scalar, Ty};
use quearn_stage::low::{FailSite, FuncId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the session has to know of a program to run it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// Tensors that it reads.
    pub inputs: Vec<Input>,
    /// Functions of other libraries that it calls.
    pub functions_called: Vec<(String, Signature)>,
    /// Runs once when weights are bound.
    pub prepare: Option<FuncId>,
    /// Runs the program.
    pub main: FuncId,
    /// Size of the frame.
    pub frame_bytes: i64,
    /// What to write into the frame before a run.
    pub bindings: Vec<(Bind, Slot)>,
    /// Where results are.
    pub outputs: Vec<Output>,
    /// The results that are next values of inputs.
    pub updates: Vec<Update>,
    /// Names of the operators that runtime calls refer to.
    pub operators: Vec<String>,
    /// Where it can fail: status `k` is `sites[k - 1]`.
    pub sites: Vec<FailSite>,
    /// Table and column of each dictionary that results refer to.
    pub dictionaries: Vec<(String, String)>,
    /// Does the program sum floats over rows? Ranges of rows are then dealt out to workers in a fixed way.
    pub sums_floats: bool,
    /// What the program relies on.
    pub facts: Vec<Fact>,
    /// What was fused and what is materialised.
    pub pipelines: Vec<PipelineNote>,
    /// Where data moves.
    pub moves: Vec<Move>,
    /// Every function, for the profile of a run.
    pub functions: Vec<Function>,
}

/// The functions of other libraries that a graph calls, with their signatures, each once.
pub fn functions_called(graph: &Graph) -> Vec<(String, Signature)> {
    let mut called: Vec<(String, Signature)> = vec![];
    for node in graph.reachable() {
        if let Op::Foreign { name, signature } = graph.op(node)
            && !called.iter().any(|(n, s)| n == name && s == signature)
        {
            called.push((name.clone(), signature.clone()));
        }
    }
    called
}

impl Interface {
    /// Do the facts that the program relies on hold for these tables?
    pub fn hold(&self, catalog: &crate::data::Catalog) -> bool {
        self.facts.iter().all(|fact| fact.holds(catalog))
    }

    /// The program relies on these facts as well.
    pub fn rely_on(&mut self, facts: &[Fact]) {
        let new: Vec<Fact> = facts.iter().filter(|fact| !self.facts.contains(fact)).cloned().collect();
        self.facts.extend(new);
    }

    /// Does the program read tables, not only tensors?
    pub fn reads_tables(&self) -> bool {
        let reads = |bind: &Bind| matches!(bind, Bind::Column { .. } | Bind::Rows { .. });
        !self.facts.is_empty() || self.bindings.iter().any(|(bind, _)| reads(bind))
    }

    /// Does what is made once depend on tables or functions of the session, not on weights only?
    pub fn depends_on_session(&self) -> bool {
        self.reads_tables() || !self.functions_called.is_empty()
    }

    /// What is wrong with it, if it was not made by [`super::lower`]: a place outside the frame, a function that is not
    /// there.
    pub fn fault(&self) -> Option<String> {
        let frame = 0..=self.frame_bytes;
        let lies = |slot: &Slot| {
            slot.offset >= 0 && slot.offset.checked_add(slot.ty.bytes() as i64).is_some_and(|end| frame.contains(&end))
        };
        let result = |output: &Output| match output {
            Output::Table { lists, layout, .. } => lies(lists) && layout.is_sound(),
            Output::Columns { .. } | Output::Tensor { .. } => true,
        };
        let is_there = |bind: &Bind| match bind {
            Bind::Output { index } => *index < self.outputs.len(),
            Bind::OutputColumn { index, column } => match self.outputs.get(*index) {
                Some(Output::Columns { columns, .. }) => *column < columns.len(),
                _ => false,
            },
            Bind::Parameter { digits, min, max, .. } => *digits <= 38 && min <= max,
            _ => true,
        };
        let binding = |(bind, slot): &(Bind, Slot)| lies(slot) && is_there(bind);
        let function = |func: &FuncId| func.index() < self.functions.len();
        let notes = |f: &Function| f.note.is_none_or(|n| n < self.pipelines.len());
        let reads = |f: &Function| f.reads.iter().all(|&n| n < self.bindings.len());
        let counted = |m: &Move| {
            let is_there = match &m.count {
                Count::Bound(all) => all.iter().all(|&at| at < self.bindings.len()),
                Count::Operator(at) => *at < self.operators.len(),
                Count::Output(at) => *at < self.outputs.len(),
                Count::Slot(_) | Count::Workers { .. } => true,
            };
            is_there && m.count.slots().iter().all(lies)
        };
        let faults = [
            (!(0..1 << 40).contains(&self.frame_bytes), "the size of the frame"),
            (!self.bindings.iter().all(binding), "a binding"),
            (!self.outputs.iter().all(result), "a result"),
            (!self.updates.iter().all(|update| update.output < self.outputs.len()), "an update"),
            (!self.prepare.iter().chain([&self.main]).all(function), "an entry point"),
            (!self.moves.iter().all(counted), "a place where data moves"),
            (!self.functions.iter().all(|f| notes(f) && reads(f)), "a function"),
        ];
        faults.into_iter().find(|(wrong, _)| *wrong).map(|(_, what)| format!("{what} is wrong"))
    }
}

/// A tensor that a program reads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Input {
    /// Name.
    pub name: String,
    /// Type of the elements.
    pub scalar: Scalar,
    /// Extents; named dimensions take the sizes of the run's inputs.
    pub shape: Vec<Dim>,
    /// Is it bound once, and the same in all runs?
    pub weight: bool,
}

impl Input {
    /// The tensors that a graph reads.
    pub fn of(graph: &Graph) -> Vec<Input> {
        let input = |node: Node| match graph.op(node) {
            Op::Input { name, ty, weight } => {
                let (elem, shape) = ty.as_tensor()?;
                Some(Input { name: name.clone(), scalar: elem.scalar, shape: shape.to_vec(), weight: *weight })
            }
            _ => None,
        };
        graph.reachable().into_iter().filter_map(input).collect()
    }
}

impl fmt::Display for Input {
    /// The type: `f32 [batch, 3]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        write!(f, "{} [{}]", self.scalar, dims.join(", "))
    }
}

/// A result that is the next value of the input of its name and type.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Update {
    /// Name of both.
    pub name: String,
    /// Position of the result.
    pub output: usize,
    /// May the result be written to the memory of the input?
    pub in_place: bool,
}

impl Update {
    /// The updates of a graph, and the inputs that they are for; none of them in place.
    pub fn of(graph: &Graph) -> Vec<(Update, Node)> {
        let reachable = graph.reachable();
        let input = |name: &str, ty: &Ty| {
            let is = |node: &&Node| matches!(graph.op(**node), Op::Input { name: n, ty: t, weight: false } if n == name && t == ty);
            reachable.iter().find(is).copied()
        };
        let update = |(output, (name, node)): (usize, &(String, Node))| {
            let input = input(name, graph.ty(*node))?;
            Some((Update { name: name.clone(), output, in_place: false }, input))
        };
        graph.outputs().iter().enumerate().filter_map(update).collect()
    }
}

/// Where a result is after a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Output {
    /// Rows in per-worker lists.
    Table {
        /// Name of the result.
        name: String,
        /// Slot with the address of the first `abi::RowList`; one a worker, `abi::ROWS_BYTES` apart.
        lists: Slot,
        /// Layout of a row.
        layout: RowLayout,
    },
    /// A value in each column for each row of a stored table, in the order of its rows, in memory that the session has
    /// bound as `Bind::OutputColumn`.
    Columns {
        /// Name of the result.
        name: String,
        /// Name of the stored table.
        table: String,
        /// Names and types of the columns.
        columns: Vec<(String, Elem)>,
    },
    /// Memory that the session has bound as `Bind::Output`.
    Tensor {
        /// Name of the result.
        name: String,
        /// Type of the elements.
        elem: Elem,
        /// Extents; named dimensions take the sizes of the run's inputs.
        shape: Vec<Dim>,
    },
}

/// A generated function.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Function {
    /// Name.
    pub name: String,
    /// The pipeline that it is, by its position in [`Interface::pipelines`].
    pub note: Option<usize>,
    /// The slots that it reads, by their positions in [`Interface::bindings`].
    pub reads: Vec<usize>,
    /// Does it not run in each run, but once before?
    pub once: bool,
}
