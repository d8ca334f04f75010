//! Functions of other libraries as stages: their operands lie in memory in row-major order, and the runtime calls the
//! function, tile by tile.

use super::eval::Eval;
use super::places::Layout;
use super::plan::{Kind, Place};
use super::planner::{Planner, Result};
use super::spec::{BufferId, Size, Spec, row_major};
use quearn_backends::abi::SLICE_BYTES;
use quearn_stage::graph::Node;
use quearn_stage::graph::foreign::{Part, Signature};
use quearn_stage::low::{Ty, V};

/// A call of a function.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where the address of the function is.
    pub function: BufferId,
    /// Operands, then the result, with what the signature says of them.
    pub parts: Vec<(Spec, Part)>,
    /// Number of rows.
    pub rows: Size,
}

impl Call {
    /// The result.
    pub fn out(&self) -> BufferId {
        self.parts.last().map_or(self.function, |(spec, _)| spec.buffer)
    }

    /// Writes the call, the only work item.
    pub fn emit(&self, ev: &Eval<'_, '_>) {
        let b = ev.b;
        let rows = ev.env.size(&self.rows);
        let slices = b.alloca((SLICE_BYTES as usize * self.parts.len()) as u32, 8);
        for (at, (spec, part)) in (0..).map(|i| i * SLICE_BYTES).zip(&self.parts) {
            let each = part.elements() as i64;
            let len: V<'_> = if part.by_row { rows * each } else { b.i64(each) };
            b.store(slices, at, ev.env.buffer(spec.buffer).at(spec.offset));
            b.store(slices, at + 8, len);
        }
        let function = ev.env.buffer(self.function);
        b.check(b.call("qn_foreign", Ty::I32, &[ev.env.run(), function, slices, rows]));
    }
}

impl Planner<'_, '_> {
    /// The stage of a call.
    pub(super) fn call(&mut self, node: Node, name: &str, signature: &Signature) -> Result<()> {
        let mut parts = vec![];
        let mut rows = Size::Now(0);
        for (&operand, part) in self.inputs(node).iter().zip(&signature.operands) {
            let mut spec = self.stored(operand)?;
            if !self.is_plain(operand, &spec)? {
                spec = self.copy(operand, Layout::RowMajor)?;
            }
            if !self.is_plain(operand, &spec)? {
                return Err(self.plan.unsupported(operand, "this layout of an operand of a foreign function"));
            }
            if part.by_row {
                rows = spec.axes[0].size.clone();
            }
            parts.push((spec, part.clone()));
        }
        let out = self.destination(node, true)?;
        if !self.is_plain(node, &out)? {
            return Err(self.plan.unsupported(node, "this layout of the result of a foreign function"));
        }
        parts.push((out.clone(), signature.result.clone()));
        let function =
            self.new_buffer(Place::Function { name: name.to_owned() }, &[], 0, format!("function \"{name}\""));
        self.finish(node, node, out, "foreign", Kind::Foreign(Box::new(Call { function, parts, rows })));
        Ok(())
    }

    /// Does a tensor lie in row-major order without gaps, in the type that the graph says?
    fn is_plain(&self, node: Node, spec: &Spec) -> Result<bool> {
        let dense = row_major(&self.sizes(node)?, spec.elem_bytes());
        // How far apart the slices of an axis of extent 1 are does not matter.
        let same = spec.axes.iter().zip(&dense).all(|(a, b)| a.stride == b.stride || a.size.now() == Some(1));
        Ok(same && spec.elem == self.scalar(node) && spec.halo == [0, 0])
    }
}
