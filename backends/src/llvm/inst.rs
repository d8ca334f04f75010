//! Instructions without blocks: arithmetic, comparisons, conversions, vectors. Memory is in `memory`.

use super::error::{Error, Result};
use super::func::FuncTranslator;
use super::types::{constant, iota, lanes_of, value_type};
use inkwell::types::{BasicTypeEnum, VectorType};
use inkwell::values::{BasicValue, BasicValueEnum, FastMathFlags, InstructionOpcode, StructValue};
use inkwell::{FloatPredicate, IntPredicate};
use quearn_stage::low::{BinOp, CastOp, CmpOp, Const, Inst, Op, OvfOp, Prim, ReduceOp, Ty, UnOp, Value};

impl<'ctx> FuncTranslator<'_, 'ctx> {
    /// Translates an instruction; gives its results.
    pub(super) fn inst(&mut self, inst: Inst) -> Result<Vec<BasicValueEnum<'ctx>>> {
        let data = self.func.inst(inst);
        match &data.op {
            op @ (Op::If { .. } | Op::For { .. } | Op::While { .. }) => self.control(op),
            &Op::FailIf { cond, code } => self.fail_if(cond, code).map(|()| vec![]),
            &Op::Check { status } => self.check(status).map(|()| vec![]),
            Op::Call { callee, args } => {
                let callee = self.module.external(*callee);
                let args: Vec<_> = self.get_all(args)?.into_iter().map(Into::into).collect();
                let call = self.builder.build_call(callee, &args, "")?;
                Ok(call.try_as_basic_value().basic().into_iter().collect())
            }
            op @ (Op::Store { .. } | Op::MaskedStore { .. } | Op::CompressStore { .. } | Op::Prefetch { .. }) => {
                self.write(op).map(|()| vec![])
            }
            op => {
                let result = data.results.first().ok_or_else(|| Error::new("an operation without its result"))?;
                self.value(op, self.func.ty(*result)).map(|v| vec![v])
            }
        }
    }

    /// Translates an operation that gives one value of type `ty`.
    fn value(&mut self, op: &Op, ty: Ty) -> Result<BasicValueEnum<'ctx>> {
        match *op {
            Op::Const(c) => Ok(constant(self.cx, ty, c)),
            Op::Iota => Ok(iota(self.cx, ty)),
            Op::Un(op, a) => self.unary(op, ty, a),
            Op::Bin(op, a, b) => self.binary(op, ty, a, b),
            Op::Cmp(op, a, b) => self.compare(op, a, b),
            Op::Ovf(op, a, b) => {
                let pair = self.checked_pair(op, a, b)?;
                Ok(self.builder.build_extract_value(pair, 1, "")?)
            }
            Op::Cast(op, a) => self.cast(op, a, ty),
            Op::Select(c, a, b) => self.select(c, a, b),
            Op::Fma(a, b, c) => self.math("llvm.fma", &[self.get(a)?, self.get(b)?, self.get(c)?]),
            Op::Dot4(a, b, c) => self.dot4(ty, [a, b, c]),
            Op::Splat(a) => self.splat(self.get(a)?, ty),
            Op::Extract(a, lane) => {
                let lane = self.cx.i32_type().const_int(lane.into(), false);
                Ok(self.builder.build_extract_element(self.get(a)?.into_vector_value(), lane, "")?)
            }
            Op::Insert(a, scalar, lane) => {
                let lane = self.cx.i32_type().const_int(lane.into(), false);
                let vector = self.get(a)?.into_vector_value();
                Ok(self.builder.build_insert_element(vector, self.get(scalar)?, lane, "")?.into())
            }
            Op::Reduce(op, a) => self.reduce(op, a),
            Op::ParFor { func, frame, n, grain } => self.par_for(func, frame, n, grain),
            _ => self.memory_value(op, ty),
        }
    }

    /// Calls an intrinsic that is overloaded on the one type of its operands and its result.
    fn math(&self, name: &'static str, operands: &[BasicValueEnum<'ctx>]) -> Result<BasicValueEnum<'ctx>> {
        let args: Vec<_> = operands.iter().map(|&v| v.into()).collect();
        self.call_value(self.intrinsic(name, &[operands[0].get_type()], &args)?)
    }

    fn unary(&self, op: UnOp, ty: Ty, a: Value) -> Result<BasicValueEnum<'ctx>> {
        let a = self.get(a)?;
        let float = ty.prim.is_float();
        match op {
            UnOp::Neg if float => self.float_neg(a),
            UnOp::Neg => self.bin(InstructionOpcode::Sub, constant(self.cx, ty, Const::Int(0)), a),
            UnOp::Not => self.bin(InstructionOpcode::Xor, a, constant(self.cx, ty, Const::Int(-1))),
            UnOp::Abs if float => self.math("llvm.fabs", &[a]),
            UnOp::Abs => self.math_with_flag("llvm.abs", a),
            UnOp::Sqrt => self.math("llvm.sqrt", &[a]),
            UnOp::Exp => self.math("llvm.exp", &[a]),
            UnOp::Log => self.math("llvm.log", &[a]),
            UnOp::Sin => self.math("llvm.sin", &[a]),
            UnOp::Cos => self.math("llvm.cos", &[a]),
            UnOp::Floor => self.math("llvm.floor", &[a]),
            UnOp::Ceil => self.math("llvm.ceil", &[a]),
            UnOp::Round => self.math("llvm.roundeven", &[a]),
            UnOp::Ctz => self.math_with_flag("llvm.cttz", a),
            UnOp::Clz => self.math_with_flag("llvm.ctlz", a),
            UnOp::Popcnt => self.math("llvm.ctpop", &[a]),
        }
    }

    /// Calls an intrinsic whose second operand says that the corner case is undefined: for us it never is.
    fn math_with_flag(&self, name: &'static str, a: BasicValueEnum<'ctx>) -> Result<BasicValueEnum<'ctx>> {
        let defined = self.cx.bool_type().const_zero();
        self.call_value(self.intrinsic(name, &[a.get_type()], &[a.into(), defined.into()])?)
    }

    fn float_neg(&self, a: BasicValueEnum<'ctx>) -> Result<BasicValueEnum<'ctx>> {
        Ok(match a {
            BasicValueEnum::VectorValue(v) => self.builder.build_float_neg(v, "")?.into(),
            scalar => self.builder.build_float_neg(scalar.into_float_value(), "")?.into(),
        })
    }

    /// An instruction of two operands.
    pub(super) fn bin(
        &self,
        op: InstructionOpcode,
        a: BasicValueEnum<'ctx>,
        b: BasicValueEnum<'ctx>,
    ) -> Result<BasicValueEnum<'ctx>> {
        Ok(self.builder.build_binop(op, a, b, "")?)
    }

    fn binary(&mut self, op: BinOp, ty: Ty, a: Value, b: Value) -> Result<BasicValueEnum<'ctx>> {
        if let Some(pair) = self.pair_of(op, a, b)? {
            return Ok(self.builder.build_extract_value(pair, 0, "")?);
        }
        let selects = self.selects(a);
        let (a, b) = (self.get(a)?, self.get(b)?);
        match (opcode(op, ty.prim), op) {
            (Some(opcode), _) => self.bin(opcode, a, b),
            (None, BinOp::Min) if selects => self.select_by(IntPredicate::SLT, a, b),
            (None, BinOp::Max) if selects => self.select_by(IntPredicate::SGT, a, b),
            (None, BinOp::Min) => self.math(min_name(ty.prim), &[a, b]),
            (None, BinOp::Max) => self.math(max_name(ty.prim), &[a, b]),
            (None, BinOp::Pow) => self.math("llvm.pow", &[a, b]),
            (None, _) => Err(Error::new(format!("no {} of {ty}", op.name()))),
        }
    }

    /// The pair whose first element is this operation's result, when the program tests it for overflow too.
    fn pair_of(&mut self, op: BinOp, a: Value, b: Value) -> Result<Option<StructValue<'ctx>>> {
        let op = match op {
            BinOp::Add => OvfOp::Add,
            BinOp::Sub => OvfOp::Sub,
            BinOp::Mul => OvfOp::Mul,
            _ => return Ok(None),
        };
        let key = (op, a, b);
        // A pair that an enclosing block makes later does not dominate this place.
        let is_made = self.checked.iter().any(|t| matches!(t.get(&key), Some(Some(_))));
        let is_wanted_here = self.checked.last().is_some_and(|t| t.contains_key(&key));
        if is_made || is_wanted_here { self.checked_pair(op, a, b).map(Some) } else { Ok(None) }
    }

    /// `{result, overflowed}` of an operation, made once in a scope.
    fn checked_pair(&mut self, op: OvfOp, a: Value, b: Value) -> Result<StructValue<'ctx>> {
        let key = (op, a, b);
        if let Some(pair) = self.checked.iter().rev().find_map(|t| t.get(&key).copied().flatten()) {
            return Ok(pair);
        }
        let name = match op {
            OvfOp::Add => "llvm.sadd.with.overflow",
            OvfOp::Sub => "llvm.ssub.with.overflow",
            OvfOp::Mul => "llvm.smul.with.overflow",
        };
        let pair = self.math(name, &[self.get(a)?, self.get(b)?])?.into_struct_value();
        if let Some(table) = self.checked.last_mut() {
            table.insert(key, Some(pair));
        }
        Ok(pair)
    }

    fn compare(&self, op: CmpOp, a: Value, b: Value) -> Result<BasicValueEnum<'ctx>> {
        let prim = self.func.ty(a).prim;
        let (a, b) = (self.get(a)?, self.get(b)?);
        if prim.is_float() {
            return self.float_compare(float_predicate(op)?, a, b);
        }
        self.int_compare(int_predicate(op), a, b)
    }

    /// A comparison of integers, pointers or vectors of them.
    pub(super) fn int_compare(
        &self,
        predicate: IntPredicate,
        a: BasicValueEnum<'ctx>,
        b: BasicValueEnum<'ctx>,
    ) -> Result<BasicValueEnum<'ctx>> {
        let builder = &self.builder;
        Ok(match a {
            BasicValueEnum::VectorValue(a) => {
                builder.build_int_compare(predicate, a, b.into_vector_value(), "")?.into()
            }
            BasicValueEnum::PointerValue(a) => {
                builder.build_int_compare(predicate, a, b.into_pointer_value(), "")?.into()
            }
            a => builder.build_int_compare(predicate, a.into_int_value(), b.into_int_value(), "")?.into(),
        })
    }

    fn float_compare(
        &self,
        predicate: FloatPredicate,
        a: BasicValueEnum<'ctx>,
        b: BasicValueEnum<'ctx>,
    ) -> Result<BasicValueEnum<'ctx>> {
        let builder = &self.builder;
        Ok(match a {
            BasicValueEnum::VectorValue(a) => {
                builder.build_float_compare(predicate, a, b.into_vector_value(), "")?.into()
            }
            a => builder.build_float_compare(predicate, a.into_float_value(), b.into_float_value(), "")?.into(),
        })
    }

    fn cast(&self, op: CastOp, value: Value, to: Ty) -> Result<BasicValueEnum<'ctx>> {
        let from = self.func.ty(value).prim;
        let a = self.get(value)?;
        let ty = value_type(self.cx, to);
        let opcode = match op {
            CastOp::SExt => InstructionOpcode::SExt,
            CastOp::ZExt => InstructionOpcode::ZExt,
            CastOp::Trunc => InstructionOpcode::Trunc,
            CastOp::SiToFp => InstructionOpcode::SIToFP,
            CastOp::UiToFp => InstructionOpcode::UIToFP,
            CastOp::FpToSi if self.fits(value, to.prim) => InstructionOpcode::FPToSI,
            CastOp::FpToSi if to.is_vector() => return self.floats_to_ints(a, Ty::vector(from, to.lanes), to),
            CastOp::FpToSi => return self.float_to_int(a, ty),
            CastOp::FpExt => InstructionOpcode::FPExt,
            CastOp::FpTrunc => InstructionOpcode::FPTrunc,
            CastOp::Bitcast if from == Prim::Ptr && to.prim != Prim::Ptr => InstructionOpcode::PtrToInt,
            CastOp::Bitcast if to.prim == Prim::Ptr && from != Prim::Ptr => InstructionOpcode::IntToPtr,
            CastOp::Bitcast => InstructionOpcode::BitCast,
        };
        Ok(self.builder.build_cast(opcode, a, ty, "")?)
    }

    /// Was a float clamped to what an integer type holds?
    fn fits(&self, value: Value, to: Prim) -> bool {
        let (Some([low, high]), Some(bits)) = (self.func.clamp(value), to.int_bits()) else { return false };
        let end = (bits as f64 - 1.0).exp2();
        -end <= low && high < end
    }

    fn float_to_int(&self, a: BasicValueEnum<'ctx>, ty: BasicTypeEnum<'ctx>) -> Result<BasicValueEnum<'ctx>> {
        self.call_value(self.intrinsic("llvm.fptosi.sat", &[ty, a.get_type()], &[a.into()])?)
    }

    /// The same for vectors, which LLVM would take apart: converts all lanes, and replaces those that do not fit.
    fn floats_to_ints(&self, a: BasicValueEnum<'ctx>, from: Ty, to: Ty) -> Result<BasicValueEnum<'ctx>> {
        let builder = &self.builder;
        let Some(bits) = to.prim.int_bits() else { return self.float_to_int(a, value_type(self.cx, to)) };
        let limit = |value: f64| constant(self.cx, from, Const::Float(value.to_bits())).into_vector_value();
        let number = |value: i128| constant(self.cx, to, Const::Int(value));
        let (smallest, largest) = (i128::MIN >> (128 - bits), i128::MAX >> (128 - bits));
        // A power of two, so exact in both float types.
        let end = -(smallest as f64);
        let x = a.into_vector_value();
        let converted = builder.build_cast(InstructionOpcode::FPToSI, a, value_type(self.cx, to), "")?;
        let high = builder.build_float_compare(FloatPredicate::OGE, x, limit(end), "")?;
        let low = builder.build_float_compare(FloatPredicate::OLT, x, limit(-end), "")?;
        let nan = builder.build_float_compare(FloatPredicate::UNO, x, x, "")?;
        let value = builder.build_select(high, number(largest), converted, "")?;
        let value = builder.build_select(low, number(smallest), value, "")?;
        Ok(builder.build_select(nan, number(0), value, "")?)
    }

    fn select(&self, cond: Value, a: Value, b: Value) -> Result<BasicValueEnum<'ctx>> {
        let (a, b) = (self.get(a)?, self.get(b)?);
        Ok(match self.get(cond)? {
            BasicValueEnum::VectorValue(c) => self.builder.build_select(c, a, b, "")?,
            c => self.builder.build_select(c.into_int_value(), a, b, "")?,
        })
    }

    /// A scalar in every lane of a vector of type `ty`.
    pub(super) fn splat(&self, scalar: BasicValueEnum<'ctx>, ty: Ty) -> Result<BasicValueEnum<'ctx>> {
        let i32 = self.cx.i32_type();
        let vector = value_type(self.cx, ty).into_vector_type();
        let first = self.builder.build_insert_element(vector.get_poison(), scalar, i32.const_zero(), "")?;
        let mask = lanes_of(i32.into(), ty.lanes).into_vector_type().const_zero();
        Ok(self.builder.build_shuffle_vector(first, vector.get_poison(), mask, "")?.into())
    }

    fn reduce(&self, op: ReduceOp, a: Value) -> Result<BasicValueEnum<'ctx>> {
        let ty = self.func.ty(a);
        let vector = self.get(a)?;
        if op == ReduceOp::Add && ty.prim.is_float() {
            let zero = constant(self.cx, Ty::scalar(ty.prim), Const::Float((-0.0f64).to_bits()));
            let args = [zero.into(), vector.into()];
            let sum = self.call_value(self.intrinsic("llvm.vector.reduce.fadd", &[vector.get_type()], &args)?)?;
            if let Some(call) = sum.as_instruction_value() {
                call.set_fast_math_flags(FastMathFlags::AllowReassoc)?;
            }
            return Ok(sum);
        }
        if ty.prim.is_float() && ty.lanes.is_power_of_two() {
            let name = if op == ReduceOp::Min { min_name(ty.prim) } else { max_name(ty.prim) };
            return self.reduce_halves(name, vector, ty);
        }
        self.math(reduce_name(op, ty.prim), &[vector])
    }

    /// Folds halves of a vector of floats onto each other, down to one lane. (LLVM would go from lane to lane.)
    fn reduce_halves(&self, name: &'static str, vector: BasicValueEnum<'ctx>, ty: Ty) -> Result<BasicValueEnum<'ctx>> {
        let i32 = self.cx.i32_type();
        let (mut vector, mut lanes) = (vector.into_vector_value(), ty.lanes);
        while lanes > 1 {
            lanes /= 2;
            let half = |from: u16| {
                let places: Vec<_> = (from..from + lanes).map(|i| i32.const_int(i.into(), false)).collect();
                let nothing = vector.get_type().get_poison();
                self.builder.build_shuffle_vector(vector, nothing, VectorType::const_vector(&places), "")
            };
            let halves = [half(0)?.into(), half(lanes)?.into()];
            vector = self.math(name, &halves)?.into_vector_value();
        }
        Ok(self.builder.build_extract_element(vector, i32.const_zero(), "")?)
    }
}

fn opcode(op: BinOp, prim: Prim) -> Option<InstructionOpcode> {
    use InstructionOpcode as I;
    let float = prim.is_float();
    Some(match op {
        BinOp::Add if float => I::FAdd,
        BinOp::Sub if float => I::FSub,
        BinOp::Mul if float => I::FMul,
        BinOp::Div if float => I::FDiv,
        BinOp::Rem if float => I::FRem,
        BinOp::Add => I::Add,
        BinOp::Sub => I::Sub,
        BinOp::Mul => I::Mul,
        BinOp::Div => I::SDiv,
        BinOp::Rem => I::SRem,
        BinOp::UDiv => I::UDiv,
        BinOp::URem => I::URem,
        BinOp::And => I::And,
        BinOp::Or => I::Or,
        BinOp::Xor => I::Xor,
        BinOp::Shl => I::Shl,
        BinOp::LShr => I::LShr,
        BinOp::AShr => I::AShr,
        BinOp::Min | BinOp::Max | BinOp::Pow => return None,
    })
}

fn min_name(prim: Prim) -> &'static str {
    if prim.is_float() { "llvm.minnum" } else { "llvm.smin" }
}

fn max_name(prim: Prim) -> &'static str {
    if prim.is_float() { "llvm.maxnum" } else { "llvm.smax" }
}

fn reduce_name(op: ReduceOp, prim: Prim) -> &'static str {
    match op {
        ReduceOp::Add => "llvm.vector.reduce.add",
        ReduceOp::Min if prim.is_float() => "llvm.vector.reduce.fmin",
        ReduceOp::Min => "llvm.vector.reduce.smin",
        ReduceOp::Max if prim.is_float() => "llvm.vector.reduce.fmax",
        ReduceOp::Max => "llvm.vector.reduce.smax",
        ReduceOp::And => "llvm.vector.reduce.and",
        ReduceOp::Or => "llvm.vector.reduce.or",
    }
}

fn int_predicate(op: CmpOp) -> IntPredicate {
    match op {
        CmpOp::Eq => IntPredicate::EQ,
        CmpOp::Ne => IntPredicate::NE,
        CmpOp::Lt => IntPredicate::SLT,
        CmpOp::Le => IntPredicate::SLE,
        CmpOp::Gt => IntPredicate::SGT,
        CmpOp::Ge => IntPredicate::SGE,
        CmpOp::Ult => IntPredicate::ULT,
        CmpOp::Ule => IntPredicate::ULE,
    }
}

fn float_predicate(op: CmpOp) -> Result<FloatPredicate> {
    Ok(match op {
        CmpOp::Eq => FloatPredicate::OEQ,
        CmpOp::Ne => FloatPredicate::UNE,
        CmpOp::Lt => FloatPredicate::OLT,
        CmpOp::Le => FloatPredicate::OLE,
        CmpOp::Gt => FloatPredicate::OGT,
        CmpOp::Ge => FloatPredicate::OGE,
        CmpOp::Ult | CmpOp::Ule => return Err(Error::new(format!("no {} of floats", op.name()))),
    })
}
