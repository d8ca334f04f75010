//! Random tensor programs: convolutional networks and elementwise arithmetic with broadcasting.

use super::maker::Maker;
use crate::eval::EvalTensor;
use quearn_stage::graph::{
    BinaryOp, Conv2d, Dim, Literal, Node, Op, Pool2d, PoolKind, ReduceOp, Region, Scalar, Steps, Ty, UnaryOp,
};

impl Maker {
    /// A tensor from a random program.
    pub fn network(&mut self) -> Node {
        if self.rng.percent(60) { self.image_network() } else { self.arithmetic() }
    }

    fn extents(&self, node: Node) -> Vec<usize> {
        let (_, shape) = self.graph.ty(node).as_tensor().expect("a tensor");
        shape.iter().map(|d| d.as_const().expect("networks have constant shapes") as usize).collect()
    }

    fn image_network(&mut self) -> Node {
        let side = self.rng.below(self.size.clamp(2, 12)) + 3;
        let shape = [self.rng.below(2) + 1, self.rng.below(3) + 1, side, side + self.rng.below(3)];
        let mut x = self.tensor(&shape, false);
        for _ in 0..self.rng.below(self.size.clamp(2, 6)) + 1 {
            x = self.layer(x);
        }
        self.head(x)
    }

    fn layer(&mut self, x: Node) -> Node {
        match self.rng.below(9) {
            0..3 => self.conv(x),
            8 => self.byte_conv(x),
            3 => self.pool(x),
            4 => self.batch_norm(x),
            5 => {
                let (a, b) = (self.conv_1x1(x), self.conv_1x1(x));
                self.add(Op::Concat { axis: 1 }, &[a, b])
            }
            6 => {
                let branch = self.activation(x);
                self.add(Op::Binary(BinaryOp::Add), &[x, branch])
            }
            _ => self.activation(x),
        }
    }

    fn activation(&mut self, x: Node) -> Node {
        use UnaryOp::*;
        let op = *self.rng.pick(&[Relu, Relu, Sigmoid, Tanh, Abs, Neg, Atan]);
        self.add(Op::Unary(op), &[x])
    }

    fn conv(&mut self, x: Node) -> Node {
        let shape = self.extents(x);
        let groups = if shape[1].is_multiple_of(2) && self.rng.percent(25) { 2 } else { 1 };
        let kernel = [self.rng.below(shape[2].min(3)) + 1, self.rng.below(shape[3].min(3)) + 1];
        let out = (self.rng.below(3) + 1) * groups;
        let mut inputs = vec![x, self.tensor(&[out, shape[1] / groups, kernel[0], kernel[1]], true)];
        if self.rng.percent(60) {
            inputs.push(self.tensor(&[out], true));
        }
        // A dilated window must still fit.
        let dilate = |extent: usize, kernel: usize| 1 + u64::from(2 * (kernel - 1) < extent);
        let dilation = match self.rng.percent(20) {
            true => [dilate(shape[2], kernel[0]), dilate(shape[3], kernel[1])],
            false => [1, 1],
        };
        let stride = [self.rng.below(2) as u64 + 1, self.rng.below(2) as u64 + 1];
        let padding = [self.rng.below(2) as u64, self.rng.below(2) as u64];
        self.add(Op::Conv2d(Conv2d { stride, padding, dilation, groups: groups as u64 }), &inputs)
    }

    /// The image as unsigned bytes, convolved with signed ones; or the same as exporters write it, in floats that were bytes.
    /// All units are powers of two, so that every order of steps rounds alike.
    fn byte_conv(&mut self, x: Node) -> Node {
        let channels = self.extents(x)[1];
        let zero = if self.rng.percent(50) { 0.0 } else { 100.0 };
        let mut bytes = self.quantised(x, 16.0, zero);
        let shape = [self.rng.below(20) + 1, channels, 1, 1];
        let weights = (0..shape.iter().product()).map(|_| i128::from(self.rng.within(-128, 127)));
        let weights = EvalTensor::ints(Scalar::I8, &shape, weights.collect::<Vec<_>>());
        let w = self.input(weights, true);
        if self.rng.percent(40) {
            let sums = self.add(Op::Conv2d(Conv2d::default()), &[bytes, w]);
            let sums = self.add(Op::Cast(Scalar::F32), &[sums]);
            let unit = self.float(Scalar::F32, 1.0 / 4096.0);
            return self.add(Op::Binary(BinaryOp::Mul), &[sums, unit]);
        }
        let mut y = self.dequantised(bytes, 1.0 / 16.0, zero);
        if self.rng.percent(30) {
            y = self.pool(y);
            bytes = self.quantised(y, 16.0, zero);
            y = self.dequantised(bytes, 1.0 / 16.0, zero);
        }
        let units = (0..shape[0]).map(|_| 0.5f64.powi(self.rng.within(7, 10) as i32)).collect();
        let units = self.input(EvalTensor::floats(Scalar::F32, &[shape[0], 1, 1, 1], units), true);
        let w = self.add(Op::Cast(Scalar::F32), &[w]);
        let w = self.add(Op::Binary(BinaryOp::Mul), &[w, units]);
        let y = self.add(Op::Conv2d(Conv2d::default()), &[y, w]);
        let y = self.add(Op::Unary(UnaryOp::Relu), &[y]);
        let joined = self.add(Op::Concat { axis: 1 }, &[y, y]);
        let bytes = self.quantised(joined, 8.0, 0.0);
        self.dequantised(bytes, 1.0 / 8.0, 0.0)
    }

    /// `x` as unsigned bytes.
    fn quantised(&mut self, x: Node, steps: f64, zero: f64) -> Node {
        let [unit, zero, low, high] = [1.0 / steps, zero, 0.0, 255.0].map(|value| self.float(Scalar::F32, value));
        let mut y = self.add(Op::Binary(BinaryOp::Div), &[x, unit]);
        y = self.add(Op::Unary(UnaryOp::Round), &[y]);
        y = self.add(Op::Binary(BinaryOp::Add), &[y, zero]);
        y = self.add(Op::Binary(BinaryOp::Max), &[y, low]);
        y = self.add(Op::Binary(BinaryOp::Min), &[y, high]);
        self.add(Op::Cast(Scalar::U8), &[y])
    }

    /// What bytes stand for.
    fn dequantised(&mut self, bytes: Node, unit: f64, zero: f64) -> Node {
        let mut y = self.add(Op::Cast(Scalar::F32), &[bytes]);
        if zero != 0.0 {
            let zero = self.float(Scalar::F32, zero);
            y = self.add(Op::Binary(BinaryOp::Sub), &[y, zero]);
        }
        let unit = self.float(Scalar::F32, unit);
        self.add(Op::Binary(BinaryOp::Mul), &[y, unit])
    }

    fn conv_1x1(&mut self, x: Node) -> Node {
        let channels = self.extents(x)[1];
        let out = self.rng.below(2) + 1;
        let w = self.tensor(&[out, channels, 1, 1], true);
        self.add(Op::Conv2d(Conv2d::default()), &[x, w])
    }

    fn pool(&mut self, x: Node) -> Node {
        let shape = self.extents(x);
        let kernel = [self.rng.below(shape[2].min(3)) as u64 + 1, self.rng.below(shape[3].min(3)) as u64 + 1];
        let stride = [self.rng.below(2) as u64 + 1, self.rng.below(2) as u64 + 1];
        let padding = kernel.map(|k| if k > 1 { self.rng.below(2) as u64 } else { 0 });
        let kind = *self.rng.pick(PoolKind::ALL);
        let ceil = self.rng.percent(40);
        self.add(Op::Pool2d(Pool2d { kind, kernel, stride, padding, ceil }), &[x])
    }

    fn batch_norm(&mut self, x: Node) -> Node {
        let channels = self.extents(x)[1];
        let mut inputs = vec![x];
        inputs.extend((0..3).map(|_| self.tensor(&[channels], true)));
        let variances = (0..channels).map(|_| self.rng.within(1, 16) as f64 / 4.0).collect();
        inputs.push(self.input(EvalTensor::floats(Scalar::F32, &[channels], variances), true));
        self.add(Op::BatchNorm { eps: 1e-5f64.to_bits() }, &inputs)
    }

    /// A mean over the image and a linear layer, or what there is.
    fn head(&mut self, x: Node) -> Node {
        if self.rng.percent(30) {
            return x;
        }
        let channels = self.extents(x)[1];
        let mean = self.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![2, 3], keep: false }, &[x]);
        let classes = self.rng.below(4) + 1;
        let w = self.tensor(&[channels, classes], true);
        let logits = self.add(Op::MatMul, &[mean, w]);
        if self.rng.percent(50) { self.add(Op::Softmax { axis: 1 }, &[logits]) } else { logits }
    }

    fn arithmetic(&mut self) -> Node {
        let rank = self.rng.below(3) + 1;
        let shape: Vec<usize> = (0..rank).map(|_| self.rng.below(self.size.clamp(1, 8)) + 1).collect();
        let mut x = self.tensor(&shape, false);
        for _ in 0..self.rng.below(self.size.clamp(2, 6)) + 1 {
            x = self.step(x);
        }
        x
    }

    fn step(&mut self, x: Node) -> Node {
        let shape = self.extents(x);
        let axis = if shape.is_empty() { 0 } else { self.rng.below(shape.len()) };
        match self.rng.below(15) {
            13..15 if !shape.is_empty() && shape.len() < 4 => self.walk(x, &shape),
            0 if !shape.is_empty() => self.add(Op::Softmax { axis }, &[x]),
            1 if shape.len() > 1 => {
                let (op, keep) = (*self.rng.pick(ReduceOp::ALL), self.rng.percent(50));
                self.add(Op::Reduce { op, axes: vec![axis], keep }, &[x])
            }
            2 if !shape.is_empty() => self.add(Op::Concat { axis }, &[x, x]),
            3 => self.add(Op::Transpose((0..shape.len()).rev().collect()), &[x]),
            4 => self.add(Op::Reshape(vec![Dim::Const(shape.iter().product::<usize>() as u64)]), &[x]),
            5 if !shape.is_empty() => self.gather_or_scatter(x, &shape),
            6 => self.repeat(x),
            9 if !shape.is_empty() => self.slice(x, axis, shape[axis]),
            10 if !shape.is_empty() => self.add(Op::CumSum { axis }, &[x]),
            11 if shape.len() < 4 => {
                let mut to: Vec<Dim> = shape.iter().map(|&n| Dim::Const(n as u64)).collect();
                to.insert(0, Dim::Const(self.rng.below(3) as u64 + 1));
                self.add(Op::Broadcast(to), &[x])
            }
            7 => self.activation(x),
            8 if !shape.is_empty() => self.positions(x, shape[shape.len() - 1]),
            _ => self.combine(x, &shape),
        }
    }

    /// With a tensor of which some extents are 1 or missing.
    fn combine(&mut self, x: Node, shape: &[usize]) -> Node {
        let missing = self.rng.below(shape.len() + 1);
        let mut other = shape[missing..].to_vec();
        other.iter_mut().for_each(|extent| {
            if self.rng.percent(30) {
                *extent = 1;
            }
        });
        let other = self.tensor(&other, false);
        use BinaryOp::*;
        let op = *self.rng.pick(&[Add, Sub, Mul, Min, Max]);
        self.add(Op::Binary(op), &[x, other])
    }

    /// Every so many elements along an axis, forwards or backwards.
    fn slice(&mut self, x: Node, axis: usize, extent: usize) -> Node {
        let start = self.rng.below(extent) as u64;
        let (back, stride) = (self.rng.percent(40), self.rng.below(2) as u64 + 1);
        let room = if back { start } else { extent as u64 - 1 - start };
        let count = self.rng.below((room / stride) as usize + 1) as u64 + 1;
        let step = if back { -(stride as i64) } else { stride as i64 };
        self.add(Op::Slice { axis, start, step, count }, &[x])
    }

    /// The position along the last axis is added.
    fn positions(&mut self, x: Node, extent: usize) -> Node {
        let positions = self.add(Op::Iota(extent as u64), &[]);
        let positions = self.add(Op::Cast(Scalar::F32), &[positions]);
        self.add(Op::Binary(BinaryOp::Add), &[x, positions])
    }

    /// Rows by number, or others added to them; seldom a number that is not there.
    fn gather_or_scatter(&mut self, x: Node, shape: &[usize]) -> Node {
        let beyond = usize::from(self.rng.percent(3));
        let index: Vec<i128> = (0..3).map(|_| self.rng.below(shape[0] + beyond) as i128).collect();
        let index = self.input(EvalTensor::ints(Scalar::I64, &[3], index), false);
        if self.rng.percent(50) {
            return self.add(Op::Gather, &[x, index]);
        }
        let values: Vec<usize> = std::iter::once(3).chain(shape[1..].iter().copied()).collect();
        let values = self.tensor(&values, false);
        self.add(Op::ScatterAdd, &[x, index, values])
    }

    /// Steps along an axis: `tanh(state / 2 + slice)`, with a product where the state is a matrix.
    fn walk(&mut self, x: Node, shape: &[usize]) -> Node {
        let axis = self.rng.below(shape.len());
        let mut slice = shape.to_vec();
        let count = slice.remove(axis) as u64;
        let ty =
            Ty::Tensor { elem: Scalar::F32.required(), shape: slice.iter().map(|&n| Dim::Const(n as u64)).collect() };
        let begin = self.tensor(&slice, false);
        let region = self.graph.len() as u32;
        let [state, slice_of] = [0, 1].map(|index| self.add(Op::Param { region, index, ty: ty.clone() }, &[]));
        let half = self.float(Scalar::F32, 0.5);
        let before = match slice.last() {
            Some(&n) if slice.len() > 1 => {
                let w = self.tensor(&[n, n], true);
                self.add(Op::MatMul, &[state, w])
            }
            _ => self.add(Op::Binary(BinaryOp::Mul), &[state, half]),
        };
        let sum = self.add(Op::Binary(BinaryOp::Add), &[before, slice_of]);
        let next = self.add(Op::Unary(UnaryOp::Tanh), &[sum]);
        let shown = match self.rng.below(3) {
            0 => next,
            1 => self.add(Op::Binary(BinaryOp::Mul), &[next, state]),
            _ => self.activation(next),
        };
        let region = Region { params: vec![state, slice_of], results: vec![next, shown] };
        let back = self.rng.percent(40);
        let steps = self.add(Op::Steps(Steps { region, count, carried: 1, axis, back }), &[begin, x]);
        let [last, all] = [0, 1].map(|i| self.add(Op::Item(i), &[steps]));
        if self.rng.percent(30) {
            return last;
        }
        match axis {
            0 => self.add(Op::Binary(BinaryOp::Add), &[all, last]),
            _ => all,
        }
    }

    /// `x / 2 + 1`, a few times.
    fn repeat(&mut self, x: Node) -> Node {
        let ty: Ty = self.graph.ty(x).clone();
        let region = self.graph.len() as u32;
        let round = self.add(Op::Param { region, index: 0, ty: Ty::scalar(Scalar::I64.required()) }, &[]);
        let carried = self.add(Op::Param { region, index: 1, ty }, &[]);
        let (half, one) = (self.float(Scalar::F32, 0.5), self.float(Scalar::F32, 1.0));
        let halved = self.add(Op::Binary(BinaryOp::Mul), &[carried, half]);
        let next = self.add(Op::Binary(BinaryOp::Add), &[halved, one]);
        let trips = Literal::i64(self.rng.within(0, 4));
        let trips = self.constant(trips);
        self.add(Op::Loop(Region { params: vec![round, carried], results: vec![next] }), &[trips, x])
    }
}
