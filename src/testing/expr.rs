//! Random typed expressions over the rows of a table.

use super::maker::{Class, Col, Maker, Rel};
use quearn_stage::graph::infer::binary_result;
use quearn_stage::graph::{BinaryOp, Clean, CompareOp, Literal, Node, Op, Scalar, UnaryOp};

const PATTERNS: [&str; 7] = ["%", "a%", "%special%requests%", "_b%", "100\\%", "%\\_%", "abc"];

impl Maker {
    /// An expression of `class` over `rel`, at most `depth` operations deep. An `exact` one gives the same bits in
    /// every correct program.
    pub fn expr(&mut self, rel: &Rel, class: Class, depth: usize, exact: bool) -> Node {
        if depth == 0 || self.rng.percent(20) {
            return self.leaf(rel, class, exact);
        }
        let depth = depth - 1;
        if class != Class::Interval && self.rng.percent(12) {
            return self.conditional(rel, class, depth, exact);
        }
        match class {
            Class::Bool => self.bool_expr(rel, depth),
            Class::Int => self.int_expr(rel, depth),
            Class::Decimal => self.decimal_expr(rel, depth),
            Class::Float => self.float_expr(rel, depth, exact),
            Class::Date | Class::Timestamp => self.time_expr(rel, class, depth),
            Class::Str => self.string_expr(rel, depth),
            Class::Interval => self.leaf(rel, class, exact),
        }
    }

    /// The class of some column that predicates may read; seldom any class, whose leaves may all be constants.
    pub fn class_in(&mut self, rel: &Rel) -> Class {
        let readable = |c: &&Col| c.exact && c.elem.scalar != Scalar::Interval;
        let classes: Vec<Class> = rel.columns.iter().filter(readable).map(|c| Class::of(c.elem.scalar)).collect();
        let any = classes.is_empty() || self.rng.percent(10);
        *self.rng.pick(if any { &Class::ORDERED } else { &classes })
    }

    fn pair(&mut self, rel: &Rel, class: Class, depth: usize, exact: bool) -> [Node; 2] {
        [self.expr(rel, class, depth, exact), self.expr(rel, class, depth, exact)]
    }

    fn leaf(&mut self, rel: &Rel, class: Class, exact: bool) -> Node {
        let fits = |c: &&Col| Class::of(c.elem.scalar) == class && (c.exact || !exact);
        let columns: Vec<&Col> = rel.columns.iter().filter(fits).collect();
        if columns.is_empty() || self.rng.percent(20) {
            return self.literal(class);
        }
        let column = self.rng.pick(&columns);
        let node = self.column(rel, column);
        // Narrow types overflow soon; most of the time that is not what a case is about.
        match class {
            Class::Int if self.rng.percent(80) => self.add(Op::Cast(Scalar::I64), &[node]),
            // f16 and bf16 leave open when intermediate results are rounded.
            Class::Float if matches!(column.elem.scalar, Scalar::F16 | Scalar::BF16) => {
                self.add(Op::Cast(Scalar::F32), &[node])
            }
            _ => node,
        }
    }

    fn literal(&mut self, class: Class) -> Node {
        let small = self.rng.within(0, 50);
        let literal = match class {
            Class::Bool => Literal::bool(small % 2 == 0),
            Class::Int => Literal::i64(small),
            Class::Decimal => Literal::decimal(small.into(), 4, 2).expect("four digits"),
            Class::Float => {
                let scalar = *self.rng.pick(&[Scalar::F32, Scalar::F64]);
                Literal::float(scalar, self.rng.dyadic()).expect("a float type")
            }
            Class::Date => Literal::date(9_000 + small as i32),
            Class::Timestamp => Literal::timestamp(777_600_000_000_000 + small * 3_600_000_000),
            Class::Str => Literal::string(*self.rng.pick(&["a", "abc", "", "special requests"])),
            Class::Interval => Literal::interval(small as i32 % 14, small as i32, 0),
        };
        let literal = if self.rng.percent(4) { Literal::null(literal.scalar()) } else { literal };
        self.constant(literal)
    }

    fn conditional(&mut self, rel: &Rel, class: Class, depth: usize, exact: bool) -> Node {
        let [a, b] = self.pair(rel, class, depth, exact);
        if self.rng.percent(30) {
            return self.add(Op::Binary(BinaryOp::Coalesce), &[a, b]);
        }
        let cond = self.expr(rel, Class::Bool, depth.min(1), true);
        let op = if self.rng.percent(50) { Op::If } else { Op::Select };
        self.add(op, &[cond, a, b])
    }

    fn bool_expr(&mut self, rel: &Rel, depth: usize) -> Node {
        match self.rng.below(10) {
            0 => {
                let a = self.expr(rel, Class::Bool, depth, true);
                self.add(Op::Unary(UnaryOp::Not), &[a])
            }
            1 | 2 => {
                let op = *self.rng.pick(&[BinaryOp::And, BinaryOp::Or]);
                let operands = self.pair(rel, Class::Bool, depth, true);
                self.add(Op::Binary(op), &operands)
            }
            3 if !rel.columns.is_empty() => {
                let column = rel.columns[self.rng.below(rel.columns.len())].clone();
                let node = self.column(rel, &column);
                self.add(Op::Unary(UnaryOp::IsNull), &[node])
            }
            4 => {
                let text = self.expr(rel, Class::Str, depth, true);
                let pattern = *self.rng.pick(&PATTERNS);
                self.add(Op::Like(pattern.into()), &[text])
            }
            _ => {
                let class = self.class_in(rel);
                let op = *self.rng.pick(CompareOp::ALL);
                let operands = self.pair(rel, class, depth, true);
                self.add(Op::Compare(op), &operands)
            }
        }
    }

    fn int_expr(&mut self, rel: &Rel, depth: usize) -> Node {
        match self.rng.below(13) {
            12 => {
                let text = self.expr(rel, Class::Str, depth, true);
                let hash = self.add(Op::Hash, &[text]);
                let buckets = self.add(Op::Const(Literal::i64(10)), &[]);
                self.add(Op::Binary(BinaryOp::Rem), &[hash, buckets])
            }
            0 => {
                let op = *self.rng.pick(&[UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Relu]);
                let a = self.expr(rel, Class::Int, depth, true);
                self.add(Op::Unary(op), &[a])
            }
            1 => {
                let op = *self.rng.pick(&[UnaryOp::Year, UnaryOp::Month, UnaryOp::Day]);
                let class = *self.rng.pick(&[Class::Date, Class::Timestamp]);
                let a = self.expr(rel, class, depth, true);
                self.add(Op::Unary(op), &[a])
            }
            2 => {
                let operands = self.pair(rel, Class::Date, depth, true);
                self.add(Op::Binary(BinaryOp::Sub), &operands)
            }
            3 => {
                let a = self.expr(rel, Class::Bool, depth, true);
                self.add(Op::Cast(Scalar::I32), &[a])
            }
            4 => self.division(rel, depth),
            5 => {
                let a = self.expr(rel, Class::Int, depth, true);
                let to = *self.rng.pick(&[Scalar::I16, Scalar::I32, Scalar::I64, Scalar::I64]);
                self.add(Op::Cast(to), &[a])
            }
            _ => {
                use BinaryOp::*;
                let op = *self.rng.pick(&[Add, Add, Sub, Mul, Min, Max]);
                let operands = self.pair(rel, Class::Int, depth, true);
                self.add(Op::Binary(op), &operands)
            }
        }
    }

    /// Mostly by a constant that is not 0.
    fn division(&mut self, rel: &Rel, depth: usize) -> Node {
        let a = self.expr(rel, Class::Int, depth, true);
        let by = match self.rng.percent(90) {
            true => {
                let by = self.rng.within(1, 9);
                self.constant(Literal::i64(by))
            }
            false => self.expr(rel, Class::Int, depth, true),
        };
        let op = *self.rng.pick(&[BinaryOp::Div, BinaryOp::Rem]);
        self.add(Op::Binary(op), &[a, by])
    }

    fn decimal_expr(&mut self, rel: &Rel, depth: usize) -> Node {
        let a = self.expr(rel, Class::Decimal, depth, true);
        if self.rng.percent(15) {
            let op = *self.rng.pick(&[UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Relu]);
            return self.add(Op::Unary(op), &[a]);
        }
        if self.rng.percent(10) {
            return self.add(Op::Cast(Scalar::decimal(20, 1)), &[a]);
        }
        use BinaryOp::*;
        let op = *self.rng.pick(&[Add, Sub, Mul, Min, Max]);
        let class = if self.rng.percent(20) { Class::Int } else { Class::Decimal };
        let b = self.expr(rel, class, depth, true);
        let result = binary_result(op, self.elem(a).scalar, self.elem(b).scalar);
        // Wide products overflow their 38 digits; keep the sum instead.
        let narrow = matches!(result, Some(Scalar::Decimal { precision, .. }) if precision < 38);
        self.add(Op::Binary(if narrow { op } else { Min }), &[a, b])
    }

    fn float_expr(&mut self, rel: &Rel, depth: usize, exact: bool) -> Node {
        use UnaryOp::*;
        match self.rng.below(8) {
            0 | 1 => {
                let a = self.expr(rel, Class::Float, depth, exact);
                let always_exact = [Neg, Abs, Relu, Floor, Ceil, Round];
                let others = [Exp, Tanh, Sigmoid, Erf, Sin, Cos, Atan];
                let op = *self.rng.pick(if exact { &always_exact[..] } else { &others[..] });
                self.add(Op::Unary(op), &[a])
            }
            2 if !exact => self.float_of_exact(rel, depth),
            _ => {
                use BinaryOp::*;
                let op = *self.rng.pick(&[Add, Sub, Mul, Min, Max]);
                let operands = self.pair(rel, Class::Float, depth, exact);
                self.add(Op::Binary(op), &operands)
            }
        }
    }

    /// A quotient of decimals, or a number converted.
    fn float_of_exact(&mut self, rel: &Rel, depth: usize) -> Node {
        if self.rng.percent(50) {
            let class = *self.rng.pick(&[Class::Int, Class::Decimal]);
            let a = self.expr(rel, class, depth, true);
            return self.add(Op::Cast(Scalar::F64), &[a]);
        }
        let a = self.expr(rel, Class::Decimal, depth, true);
        let by = Literal::decimal(self.rng.within(1, 99).into(), 4, 2).expect("four digits");
        let by = self.constant(by);
        self.add(Op::Binary(BinaryOp::Div), &[a, by])
    }

    fn time_expr(&mut self, rel: &Rel, class: Class, depth: usize) -> Node {
        let a = self.expr(rel, class, depth, true);
        match self.rng.below(4) {
            0 => {
                let b = self.expr(rel, class, depth, true);
                let op = *self.rng.pick(&[BinaryOp::Min, BinaryOp::Max]);
                self.add(Op::Binary(op), &[a, b])
            }
            1 => {
                let (from, to) = match class {
                    Class::Date => (Class::Timestamp, Scalar::Date),
                    _ => (Class::Date, Scalar::Timestamp),
                };
                let other = self.expr(rel, from, depth, true);
                self.add(Op::Cast(to), &[other])
            }
            _ => {
                let by = self.literal(Class::Interval);
                let op = *self.rng.pick(&[BinaryOp::Add, BinaryOp::Sub]);
                self.add(Op::Binary(op), &[a, by])
            }
        }
    }

    fn string_expr(&mut self, rel: &Rel, depth: usize) -> Node {
        let a = self.expr(rel, Class::Str, depth, true);
        if self.rng.within(0, 2) == 0 {
            let mut is_on = || self.rng.percent(50);
            let how = Clean { lower: is_on(), punctuation: is_on(), spaces: is_on() };
            return self.add(Op::Clean(how), &[a]);
        }
        let (start, len) = (self.rng.within(1, 3) as u32, self.rng.within(0, 4) as u32);
        self.add(Op::Substring { start, len }, &[a])
    }
}
