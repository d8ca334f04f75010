//! What generated functions are, for the profile of a run: the pipeline of each, and which bound slots it reads.

use super::context::PipelineNote;
use super::frame::{Bind, Slot};
use super::interface::Function;
use quearn_stage::low::{Block, Func, FuncId, Module, Op};
use std::collections::{HashMap, HashSet};

/// Describes the functions of a module with these entry points.
pub fn functions(
    module: &Module,
    prepare: Option<FuncId>,
    main: FuncId,
    notes: &[PipelineNote],
    bindings: &[(Bind, Slot)],
) -> Vec<Function> {
    let mut in_run = Started::default();
    in_run.visit(module, main, true);
    let mut order = Started::default();
    prepare.into_iter().for_each(|prepare| order.visit(module, prepare, true));
    order.visit(module, main, true);
    let on_frame = order.on_frame;
    let notes = noted(module, order.funcs, notes);
    let function = |(func, function): (u32, &Func)| Function {
        name: function.name.clone(),
        note: notes.get(&FuncId(func)).copied(),
        // What a stage reads is in a record of its own, whose places have nothing to do with those of the frame.
        reads: if on_frame.contains(&FuncId(func)) { reads(function, bindings) } else { vec![] },
        once: !in_run.seen.contains(&FuncId(func)),
    };
    (0..).zip(&module.funcs).map(function).collect()
}

/// The notes of loops that have one. A note has the name of its function, up to the function's number, and notes of one
/// name are in the order in which their functions run.
fn noted(module: &Module, order: Vec<FuncId>, notes: &[PipelineNote]) -> HashMap<FuncId, usize> {
    let mut named: HashMap<&str, Vec<FuncId>> = HashMap::new();
    for &func in order.iter().rev() {
        if let Some((name, _)) = module.funcs[func.index()].name.rsplit_once('_') {
            named.entry(name).or_default().push(func);
        }
    }
    let numbers: HashMap<String, FuncId> = order.iter().map(|func| (format!("({func})"), *func)).collect();
    let mut found = HashMap::new();
    for (i, note) in notes.iter().enumerate() {
        // A tensor's note names its function beside the kernel: `conv (f3)`.
        let numbered = note.name.rsplit_once(' ').and_then(|(_, number)| numbers.get(number).copied());
        let func = match numbered {
            Some(func) => Some(func),
            None => named.get_mut(note.name.as_str()).and_then(Vec::pop),
        };
        if let Some(func) = func {
            found.entry(func).or_insert(i);
        }
    }
    found
}

/// Functions of the loops that a function starts, and of those that they start, in order.
#[derive(Default)]
struct Started {
    funcs: Vec<FuncId>,
    seen: HashSet<FuncId>,
    /// Those that run on the frame of the program.
    on_frame: HashSet<FuncId>,
}

impl Started {
    fn visit(&mut self, module: &Module, func: FuncId, on_frame: bool) {
        let function = &module.funcs[func.index()];
        if on_frame {
            self.on_frame.insert(func);
        }
        walk(function, function.entry, &mut |op| {
            if let Op::ParFor { func, frame, .. } = op
                && self.seen.insert(*func)
            {
                self.funcs.push(*func);
                self.visit(module, *func, on_frame && function.params.first() == Some(frame));
            }
        });
    }
}

fn reads(function: &Func, bindings: &[(Bind, Slot)]) -> Vec<usize> {
    let Some(frame) = function.params.first() else { return vec![] };
    let mut offsets = HashSet::new();
    walk(function, function.entry, &mut |op| {
        if let Op::Load { ptr, offset, .. } = op
            && ptr == frame
        {
            offsets.insert(*offset);
        }
    });
    let bound = bindings.iter().enumerate().filter(|(_, (_, slot))| offsets.contains(&slot.offset));
    bound.map(|(i, _)| i).collect()
}

fn walk(function: &Func, block: Block, visit: &mut dyn FnMut(&Op)) {
    for inst in &function.block(block).insts {
        let op = &function.inst(*inst).op;
        visit(op);
        op.blocks().into_iter().for_each(|block| walk(function, block, visit));
    }
}
