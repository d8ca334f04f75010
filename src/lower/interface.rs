//! What the session has to know of a program to run it, beside its code: everything that is kept with a saved program.

use super::context::{Fact, Form, PipelineNote};
use super::frame::{Bind, Slot};
use super::relational::RowLayout;
use quearn_stage::graph::{Dim, Elem, Graph, Node, Op, Scalar, Ty};
use quearn_stage::low::{FailSite, FuncId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the session has to know of a program to run it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// Tensors that it reads.
    pub inputs: Vec<Input>,
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
    /// Every function, for the profile of a run.
    pub functions: Vec<Function>,
}

impl Interface {
    /// Do the facts that the program relies on hold for these tables?
    pub fn hold(&self, catalog: &crate::data::Catalog) -> bool {
        self.facts.iter().all(|fact| fact.holds(catalog))
    }

    /// Does the program read tables, not only tensors?
    pub fn reads_tables(&self) -> bool {
        let reads = |bind: &Bind| matches!(bind, Bind::Column { .. } | Bind::Rows { .. });
        !self.facts.is_empty() || self.bindings.iter().any(|(bind, _)| reads(bind))
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
        let faults = [
            (!(0..1 << 40).contains(&self.frame_bytes), "the size of the frame"),
            (!self.bindings.iter().all(binding), "a binding"),
            (!self.outputs.iter().all(result), "a result"),
            (!self.updates.iter().all(|update| update.output < self.outputs.len()), "an update"),
            (!self.prepare.iter().chain([&self.main]).all(function), "an entry point"),
            (!self.functions.iter().all(|f| notes(f) && reads(f)), "a function"),
        ];
        faults.into_iter().find(|(wrong, _)| *wrong).map(|(_, what)| format!("{what} is wrong"))
    }
}

impl fmt::Display for Fact {
    /// In the words of who owns the tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Stored { table, column, form } => write!(f, "{table}.{column} is stored as {form}"),
            Fact::Range { table, column, min, max } => write!(f, "{table}.{column} lies between {min} and {max}"),
            Fact::NoNulls { table, column } => write!(f, "{table}.{column} has no NULL"),
            Fact::Bitmap { table, column } => write!(f, "{table}.{column} has a bitmap of NULLs"),
            Fact::Sorted { table, column } => write!(f, "{table}.{column} is sorted"),
            Fact::Unique { table, column } => write!(f, "{table}.{column} has no value twice"),
            Fact::CountsUp { table, column, min, max } => write!(f, "{table}.{column} counts up from {min} to {max}"),
            Fact::Zones { table, column } => write!(f, "{table}.{column} is clustered"),
            Fact::MaxRows { table, rows } => write!(f, "{table} has at most {rows} rows"),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Fixed(phys) => write!(f, "{phys:?}"),
            Form::Text { wide } => write!(f, "text with offsets of {} bits", if *wide { 64 } else { 32 }),
            Form::Coded(phys) => write!(f, "codes ({phys:?}) of a dictionary"),
        }
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
}
