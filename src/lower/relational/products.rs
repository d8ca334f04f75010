//! Products that sum over the rows of a table, `transpose(x) y` of columns: added up in the pipeline that makes the rows,
//! a block of them at a time, so that the rows themselves are never written out.

use super::env::Env;
use super::pipeline::{self, Sink};
use super::tensors::{Operand, element, table_of, value};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Slot, workers};
use crate::lower::moves::{Count, MoveKind, Stride};
use crate::lower::tensor::{RowProducts, Target};
use quearn_stage::graph::{Node, Op};
use quearn_stage::low::{Builder, FuncId, Ty, V};
use std::collections::BTreeSet;

/// The operands of a product over rows, before the first is transposed, if the node is one.
pub fn operands(cx: &Cx<'_>, node: Node, is_rows: impl Fn(Node) -> bool) -> Option<[Node; 2]> {
    let inputs = cx.graph.inputs(node);
    if *cx.graph.op(node) != Op::MatMul {
        return None;
    }
    let Op::Transpose(axes) = cx.graph.op(inputs[0]) else { return None };
    let operands = [cx.graph.inputs(inputs[0])[0], inputs[1]];
    (axes[..] == [1, 0] && operands.into_iter().all(is_rows)).then_some(operands)
}

/// Adds rows up. A worker's memory is the number of rows in its blocks, how many it has added, its matrix, and the blocks.
struct Products {
    /// Values of a row, with their places in the first row of a block and the bytes to the next row.
    fields: Vec<(Node, i64, i64)>,
    kernel: RowProducts,
    /// Slot with the address of the first worker's memory.
    memory: Slot,
    /// Adds up a block.
    add: FuncId,
}

/// Bytes before the matrix.
const HEADER: i64 = 64;
/// Bytes before the number of rows that were added.
const ROWS_SEEN: i64 = 8;

fn memory_bytes(kernel: &RowProducts) -> i64 {
    HEADER + kernel.bytes()
}

impl Products {
    fn flush<'b>(&self, b: &'b Builder, frame: V<'b>, memory: V<'b>, count: V<'b>) {
        b.store(memory, 0, b.i64(0));
        b.store(memory, ROWS_SEEN, b.load(Ty::I64, memory, ROWS_SEEN) + count);
        b.par_for(self.add, frame, count, count);
    }

    fn memory<'b>(&self, env: &Env<'b>) -> V<'b> {
        self.memory.get(env.b, env.frame).index(env.worker, memory_bytes(&self.kernel))
    }
}

impl Sink for Products {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let b = env.b;
        let memory = self.memory(env);
        let count = b.load(Ty::I64, memory, 0);
        for &(node, at, row) in &self.fields {
            b.store(memory.at(at).index(count, row), 0, value(cx, env, node)?);
        }
        b.store(memory, 0, count + 1);
        let full = b.i64(self.kernel.block as i64);
        b.if_((count + 1).eq(full), || self.flush(b, env.frame, memory, full));
        Ok(())
    }

    fn expressions(&self, _: &Cx<'_>) -> Vec<Node> {
        self.fields.iter().map(|(node, ..)| *node).collect()
    }

    fn end<'b>(&mut self, _: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let b = env.b;
        let memory = self.memory(env);
        let count = b.load(Ty::I64, memory, 0);
        b.if_(count.gt(b.i64(0)), || self.flush(b, env.frame, memory, count));
        Ok(())
    }

    fn describe(&self) -> String {
        let [x, y] = self.kernel.sides.map(|side| side.extent);
        format!("products of {x} and {y} columns: {} bytes a worker", memory_bytes(&self.kernel))
    }
}

/// Emits the pipeline that sums up a product over rows, and tells where the result is.
pub fn lower(cx: &Cx<'_>, node: Node, operands: [Node; 2]) -> Result<Operand> {
    let prim = element(cx, node)?;
    let columns = operands.map(|operand| cx.graph.inputs(operand));
    let same = operands[0] == operands[1];
    let kernel = RowProducts::new(Target::host(), prim, columns.map(|columns| columns.len() as u64), same);
    let place = |side: usize| {
        let (first, row) = (HEADER + kernel.blocks()[side], kernel.row_bytes(side));
        columns[side].iter().zip(0..).map(move |(node, at)| (*node, first + kernel.unit() * at, row))
    };
    let fields: Vec<_> = if same { place(0).collect() } else { place(0).chain(place(1)).collect() };
    let memory = cx.frame.slot(Ty::PTR);
    let stride = memory_bytes(&kernel);
    let add = cx.task("products", |b, frame, worker, _, hi| {
        kernel.add(b, memory.get(b, frame).index(worker, stride).at(HEADER), hi);
    });
    cx.step(move |cx, b, frame| {
        memory.set(b, frame, cx.alloc(b, frame, workers(b, frame) * stride, "products over rows"));
    });
    let bytes = fields.len() as u64 * kernel.unit() as u64;
    let rows = Count::Workers { memory, stride: Stride::Known(stride), offset: ROWS_SEEN, bytes };
    cx.moved("blocks of products over rows", MoveKind::Tile, rows);
    let table = table_of(cx, &BTreeSet::from(operands)).unwrap_or(node);
    pipeline::run(cx, "products", table, &mut Products { fields, kernel, memory, add })?;
    let all = cx.task_over("sum", 1.0, |b, frame, _, _, _| sum(b, frame, memory.get(b, frame).at(HEADER), &kernel));
    cx.step(move |_, b, frame| b.par_for(all, frame, b.i64(1), b.i64(1)));
    Ok(Operand { base: memory, offset: HEADER, strides: vec![kernel.matrix_row(), kernel.unit()] })
}

/// Adds the matrices of all workers to that of the first.
fn sum<'b>(b: &'b Builder, frame: V<'b>, first: V<'b>, kernel: &RowProducts) {
    b.for_(b.i64(1), workers(b, frame), |worker| {
        let other = first.index(worker, memory_bytes(kernel));
        kernel.each_vector(b, first, |at, ty| b.load(ty, first.index(at, 1), 0) + b.load(ty, other.index(at, 1), 0));
    });
}
