//! From the low-level program to the form in which it is walked: every decision that does not depend on data is made
//! here. A message is the result for what no type rule allows; the verifier reports most of that earlier.

use super::lanes::{self, Binary, Cell};
use super::steps::*;
use crate::runtime::symbols;
use quearn_stage::low::{Block, CastOp, Const, Extern, Func, InstData, Module, Op, Prim, Ty, Value};

/// All functions of a module.
pub fn resolve(module: &Module) -> Result<Program, String> {
    let funcs = module.funcs.iter().map(|func| Resolver::new(module, func).function()).collect::<Result<_, _>>()?;
    Ok(Program { funcs })
}

struct Resolver<'a> {
    module: &'a Module,
    func: &'a Func,
    /// Place of every value.
    places: Vec<Place>,
    cells: Vec<Cell>,
    stack: usize,
}

impl<'a> Resolver<'a> {
    fn new(module: &'a Module, func: &'a Func) -> Resolver<'a> {
        let mut end = 0;
        let place = |value: &quearn_stage::low::ValueData| {
            let place = end;
            end += value.ty.lanes as usize;
            place
        };
        let places = func.values.iter().map(place).collect();
        Resolver { module, func, places, cells: vec![0; end], stack: 0 }
    }

    fn function(mut self) -> Result<Function, String> {
        let func = self.func;
        let blocks: Result<Vec<Steps>, String> = (0..func.blocks.len()).map(|b| self.block(Block(b as u32))).collect();
        let status = *func.block(func.entry).yields.first().ok_or("the entry block yields no status")?;
        Ok(Function {
            name: func.name.clone(),
            blocks: blocks.map_err(|message| format!("{}: {message}", func.name))?,
            params: func.params.iter().map(|&v| self.place(v)).collect(),
            entry: func.entry.index(),
            status: self.place(status),
            cells: self.cells,
            stack: self.stack,
        })
    }

    fn block(&mut self, block: Block) -> Result<Steps, String> {
        let mut steps = vec![];
        for &inst in &self.func.block(block).insts {
            let data = self.func.inst(inst);
            let step = self.step(data).map_err(|what| format!("{inst}: {what} in {:?}", data.op))?;
            steps.extend(step);
        }
        Ok(steps)
    }

    fn place(&self, value: Value) -> Place {
        self.places[value.index()]
    }

    fn ty(&self, value: Value) -> Ty {
        self.func.ty(value)
    }

    fn moves(&self, from: &[Value], to: &[Value]) -> Moves {
        let copy = |(&from, &to): (&Value, &Value)| self.copy(from, to);
        from.iter().zip(to).map(copy).collect()
    }

    fn copy(&self, from: Value, to: Value) -> Move {
        Move { from: self.place(from), to: self.place(to), n: self.ty(to).lanes as usize }
    }

    /// The step of an instruction; none for a constant, which is in place from the start.
    fn step(&mut self, data: &InstData) -> Result<Option<Step>, String> {
        let place = |value: &Value| self.places[value.index()];
        let result = data.results.first().copied();
        let (to, ty) = result.map_or((0, Ty::BOOL), |value| (self.place(value), self.ty(value)));
        let n = ty.lanes as usize;
        let step = match &data.op {
            Op::Const(value) => return self.constant(*value, to, ty).map(|()| None),
            Op::Iota => {
                (0..n).for_each(|lane| self.cells[to + lane] = lane as Cell & lanes::mask(ty.prim));
                return Ok(None);
            }
            Op::Un(op, a) => Step::Map1 { f: lanes::un(*op, ty.prim).ok_or(NO_RULE)?, to, a: place(a), n },
            Op::Bin(op, a, b) => match lanes::bin(*op, ty.prim).ok_or(NO_RULE)? {
                Binary::Total(f) => Step::Map2 { f, to, a: place(a), b: place(b), n },
                Binary::Partial(f) => Step::Partial { f, what: op.name(), to, a: place(a), b: place(b), n },
            },
            Op::Cmp(op, a, b) => {
                Step::Map2 { f: lanes::cmp(*op, self.ty(*a).prim).ok_or(NO_RULE)?, to, a: place(a), b: place(b), n }
            }
            Op::Ovf(op, a, b) => {
                Step::Map2 { f: lanes::ovf(*op, self.ty(*a).prim).ok_or(NO_RULE)?, to, a: place(a), b: place(b), n }
            }
            Op::Cast(op, a) => self.cast(*op, *a, to, ty)?,
            Op::Select(cond, a, b) => {
                let stride = usize::from(self.ty(*cond).is_vector());
                Step::Select { to, cond: place(cond), stride, a: place(a), b: place(b), n }
            }
            Op::Fma(a, b, c) => {
                Step::Map3 { f: lanes::fma(ty.prim).ok_or(NO_RULE)?, to, a: place(a), b: place(b), c: place(c), n }
            }
            Op::Dot4(a, b, c) => Step::Map3 { f: lanes::dot4, to, a: place(a), b: place(b), c: place(c), n },
            Op::Splat(a) => Step::Splat { to, a: place(a), n },
            Op::Extract(a, lane) => Step::Copy(Move { from: place(a) + *lane as usize, to, n: 1 }),
            Op::Insert(a, scalar, lane) => {
                Step::Insert { to, a: place(a), scalar: place(scalar), lane: *lane as usize, n }
            }
            Op::Reduce(op, a) => {
                let n = self.ty(*a).lanes as usize;
                Step::Reduce { f: lanes::reduce(*op, ty.prim).ok_or(NO_RULE)?, to, a: place(a), n }
            }
            Op::PtrAdd { base, index, scale, offset } => {
                let index = index.as_ref().map(place);
                Step::PtrAdd { to, base: place(base), index, scale: *scale, offset: *offset }
            }
            Op::Prefetch { .. } => return Ok(None),
            Op::Alloca { bytes, align } => Step::Alloca { to, offset: self.reserve(*bytes, *align) },
            Op::FailIf { cond, code } => Step::FailIf { cond: place(cond), code: *code },
            Op::Check { status } => Step::Check { status: place(status) },
            Op::Call { callee, args } => {
                let declared = &self.module.externs[callee.index()];
                let to = result.map(|_| (to, lanes::mask(ty.prim)));
                Step::Call { function: runtime_function(declared)?, args: args.iter().map(place).collect(), to }
            }
            Op::If { .. } | Op::For { .. } | Op::While { .. } | Op::ParFor { .. } => self.control(data, to),
            _ => self.memory(&data.op, to, ty),
        };
        Ok(Some(step))
    }

    fn constant(&mut self, value: Const, to: Place, ty: Ty) -> Result<(), String> {
        let cell = match value {
            Const::Int(bits) => bits as Cell & lanes::mask(ty.prim),
            Const::Float(bits) => lanes::float(ty.prim, f64::from_bits(bits)).ok_or(NO_RULE)?,
        };
        self.cells[to..to + ty.lanes as usize].fill(cell);
        Ok(())
    }

    fn cast(&self, op: CastOp, a: Value, to: Place, ty: Ty) -> Result<Step, String> {
        let (from, a) = (self.ty(a), self.place(a));
        let n = ty.lanes as usize;
        if op != CastOp::Bitcast {
            return Ok(Step::Map1 { f: lanes::cast(op, from.prim, ty.prim).ok_or(NO_RULE)?, to, a, n });
        }
        let (bits, to_bits) = (lane_bits(from.prim), lane_bits(ty.prim));
        if bits * from.lanes as usize != to_bits * n {
            return Err("a bitcast changes the size".into());
        }
        Ok(Step::Bitcast { to, to_bits, to_n: n, a, bits, n: from.lanes as usize })
    }

    /// Room on the stack.
    fn reserve(&mut self, bytes: u32, align: u16) -> usize {
        let offset = self.stack.next_multiple_of(align.max(1) as usize);
        self.stack = offset + bytes as usize;
        offset
    }

    fn memory(&self, op: &Op, to: Place, ty: Ty) -> Step {
        let place = |value: &Value| self.place(*value);
        let masked = |ptr: &Value, mask: &Value, ty: Ty| Masked {
            ptr: place(ptr),
            mask: place(mask),
            prim: ty.prim,
            n: ty.lanes as usize,
        };
        let access = |ptr: &Value, offset: i64, align: u16, ty: Ty| Access {
            ptr: place(ptr),
            offset,
            align: align.max(1).into(),
            prim: ty.prim,
            n: ty.lanes as usize,
        };
        match op {
            Op::Load { ptr, offset, align, .. } => Step::Load { to, from: access(ptr, *offset, *align, ty) },
            Op::Store { ptr, offset, align, value } => {
                Step::Store { a: place(value), to: access(ptr, *offset, *align, self.ty(*value)) }
            }
            Op::MaskedLoad { ptr, mask, .. } => Step::MaskedLoad { to, from: masked(ptr, mask, ty) },
            Op::MaskedStore { ptr, mask, value } => {
                Step::MaskedStore { a: place(value), to: masked(ptr, mask, self.ty(*value)) }
            }
            Op::CompressStore { ptr, mask, value } => {
                Step::CompressStore { a: place(value), to: masked(ptr, mask, self.ty(*value)) }
            }
            Op::Gather { base, index, scale, mask, .. } => Step::Gather {
                to,
                from: masked(base, mask, ty),
                index: place(index),
                index_prim: self.ty(*index).prim,
                scale: (*scale).into(),
            },
            Op::AtomicRmw { op, ptr, value } => {
                Step::Rmw { op: *op, to, prim: ty.prim, ptr: place(ptr), value: place(value) }
            }
            Op::CmpXchg { ptr, expected, new } => {
                Step::CmpXchg { to, prim: ty.prim, ptr: place(ptr), expected: place(expected), new: place(new) }
            }
            other => unreachable!("{other:?} is no access to memory"),
        }
    }

    fn control(&self, data: &InstData, to: Place) -> Step {
        let results = &data.results;
        let yields = |block: &Block| &self.func.block(*block).yields[..];
        let params = |block: &Block| &self.func.block(*block).params[..];
        match &data.op {
            Op::If { cond, then, els } => {
                let branch = |block: &Block| (block.index(), self.moves(yields(block), results));
                Step::If { cond: self.place(*cond), then: branch(then), els: branch(els) }
            }
            Op::For { lo, hi, step, init, body } => {
                let (counter, carried) = params(body).split_first().expect("a loop body takes the counter");
                Step::For(Box::new(ForLoop {
                    lo: self.place(*lo),
                    hi: self.place(*hi),
                    step: *step,
                    counter: self.place(*counter),
                    body: body.index(),
                    enter: self.moves(init, carried),
                    next: self.moves(yields(body), carried),
                    leave: self.moves(carried, results),
                }))
            }
            Op::While { init, cond, body } => Step::While(Box::new(WhileLoop {
                cond: cond.index(),
                test: self.place(yields(cond)[0]),
                body: body.index(),
                enter: self.moves(init, params(cond)),
                pass: self.moves(params(cond), params(body)),
                next: self.moves(yields(body), params(cond)),
                leave: self.moves(params(cond), results),
            })),
            Op::ParFor { func, frame, n, grain } => Step::ParFor {
                to,
                func: func.index(),
                frame: self.place(*frame),
                n: self.place(*n),
                grain: self.place(*grain),
            },
            other => unreachable!("{other:?} is no control flow"),
        }
    }
}

const NO_RULE: &str = "no rule for the type";

/// Bits of a lane as a bitcast counts them.
fn lane_bits(prim: Prim) -> usize {
    if prim == Prim::Bool { 1 } else { prim.bytes() * 8 }
}

/// The runtime function of a declaration. A program may ignore a result.
fn runtime_function(declared: &Extern) -> Result<unsafe fn(&[u64]) -> u64, String> {
    let name = &declared.name;
    let symbol = symbols().iter().find(|s| s.name == name);
    let symbol = symbol.ok_or_else(|| format!("there is no runtime function {name}"))?;
    let fits = symbol.params == declared.params && (declared.ret.is_none() || declared.ret == symbol.ret);
    if fits { Ok(symbol.call) } else { Err(format!("{name} is declared with another signature than it has")) }
}
