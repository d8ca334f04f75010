//! Recurrent networks: the products with the input are one product for all steps, a step is the product with the state
//! before it and what is elementwise.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{Node, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] =
    &[("GRU", |c| run(c, Cell::Gru)), ("LSTM", |c| run(c, Cell::Lstm)), ("RNN", |c| run(c, Cell::Rnn))];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Gru,
    Lstm,
    Rnn,
}

impl Cell {
    /// Gates, side by side in the weights.
    fn gates(self) -> u64 {
        match self {
            Cell::Gru => 3,
            Cell::Lstm => 4,
            Cell::Rnn => 1,
        }
    }

    /// Functions of the gates and the state, where none are named.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Cell::Rnn => &["Tanh"],
        }
    }
}

/// The weights of one direction.
struct Direction {
    /// What the input and the biases give, `[steps, batch, gates * hidden]`.
    input: Node,
    /// `[hidden, gates * hidden]`.
    recurrent: Node,
    /// Bias of the recurrent product, `[gates * hidden]`.
    recurrent_bias: Option<Node>,
    /// `[3 * hidden]`.
    peepholes: Option<Node>,
    functions: Vec<UnaryOp>,
    hidden: u64,
    /// Does the reset gate of a GRU work on the product?
    after: bool,
}

fn functions(c: &Call, cell: Cell, directions: usize) -> Fallible<Vec<UnaryOp>> {
    let default = || cell.activations().repeat(directions).iter().map(|s| s.to_string()).collect();
    let names: Vec<String> = c.texts("activations").unwrap_or_else(default);
    let function = |name: &String| match name.to_lowercase().as_str() {
        "sigmoid" => Ok(UnaryOp::Sigmoid),
        "tanh" => Ok(UnaryOp::Tanh),
        "relu" => Ok(UnaryOp::Relu),
        _ => Err(format!("the activation {name:?} is not supported")),
    };
    let functions = names.iter().map(function).collect::<Fallible<Vec<UnaryOp>>>()?;
    let wanted = directions * cell.activations().len();
    if functions.len() == wanted {
        Ok(functions)
    } else {
        Err(format!("{} activations, not {wanted}", functions.len()))
    }
}

fn run(c: &mut Call, cell: Cell) -> Fallible<Vec<Node>> {
    let mut x = c.x(0)?;
    let batch_first = c.int("layout", 0) != 0;
    if batch_first {
        x = c.emit.move_axis(x, 1, 0)?;
    }
    let (w, r, bias) = (c.x(1)?, c.x(2)?, c.optional(3)?);
    let (steps, batch, hidden) = (c.emit.extent(x, 0)?, c.emit.extent(x, 1)?, c.emit.extent(r, 2)?);
    if c.has(4) && c.known_ints(4)?.iter().any(|&n| n != steps as i64) {
        return Err("sequences of different lengths are not supported".into());
    }
    if c.has_attribute("clip") || c.int("input_forget", 0) != 0 {
        return Err("clip and input_forget are not supported".into());
    }
    let way = c.text("direction", "forward");
    let ways: &[bool] = match way.as_str() {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(format!("the direction {other:?} is not known")),
    };
    let functions = functions(c, cell, ways.len())?;
    let mut state = [c.optional(5)?, if cell == Cell::Lstm { c.optional(6)? } else { None }];
    let peepholes = if cell == Cell::Lstm { c.optional(7)? } else { None };
    let after = c.int("linear_before_reset", 0) != 0;
    let e = &mut *c.emit;
    if batch_first {
        for state in state.iter_mut().flatten() {
            *state = e.move_axis(*state, 1, 0)?;
        }
    }
    let width = cell.gates() * hidden;
    let (mut all, mut last_h, mut last_c) = (vec![], vec![], vec![]);
    for (i, &backwards) in ways.iter().enumerate() {
        let at = i as u64;
        let [w, r] = [e.pick(w, 0, at)?, e.pick(r, 0, at)?];
        let [w, r] = [e.swap_last(w)?, e.swap_last(r)?];
        let mut input = e.matmul(x, w)?;
        let mut recurrent_bias = None;
        if let Some(bias) = bias {
            let bias = e.pick(bias, 0, at)?;
            let (first, second) = (e.slice(bias, 0, 0, 1, width)?, e.slice(bias, 0, width, 1, width)?);
            input = e.add(input, first)?;
            recurrent_bias = Some(second);
        }
        let pick = |e: &mut Emit, from: Option<Node>| from.map(|from| e.pick(from, 0, at)).transpose();
        let count = cell.activations().len();
        let direction = Direction {
            input,
            recurrent: r,
            recurrent_bias,
            peepholes: pick(e, peepholes)?,
            functions: functions[i * count..][..count].to_vec(),
            hidden,
            after,
        };
        let zero = e.like(x, 0.0)?;
        let nothing = e.broadcast(zero, [batch, hidden].map(quearn_stage::graph::Dim::Const).to_vec())?;
        let mut begin = vec![pick(e, state[0])?.unwrap_or(nothing)];
        if cell == Cell::Lstm {
            begin.push(pick(e, state[1])?.unwrap_or(nothing));
        }
        let made = e.steps((steps, 0, backwards), &begin, &[direction.input], |e, given| match *given {
            [h, x] if cell == Cell::Gru => direction.gru(e, x, h).map(|h| vec![h, h]),
            [h, x] => direction.rnn(e, x, h).map(|h| vec![h, h]),
            [h, s, x] => direction.lstm(e, x, h, s).map(|(h, s)| vec![h, s, h]),
            _ => Err("a step of another cell".into()),
        })?;
        let (h, s) = (made[0], made[made.len() - 2]);
        all.push(e.reshape_to(made[made.len() - 1], &[steps, 1, batch, hidden])?);
        last_h.push(e.reshape_to(h, &[1, batch, hidden])?);
        last_c.push(e.reshape_to(s, &[1, batch, hidden])?);
    }
    let (mut y, mut h, mut s) = (e.concat(&all, 1)?, e.concat(&last_h, 0)?, e.concat(&last_c, 0)?);
    if batch_first {
        y = e.transpose(y, vec![2, 0, 1, 3])?;
        (h, s) = (e.move_axis(h, 1, 0)?, e.move_axis(s, 1, 0)?);
    }
    Ok(if cell == Cell::Lstm { vec![y, h, s] } else { vec![y, h] })
}

impl Direction {
    /// The gates before their functions.
    fn sum(&self, e: &mut Emit, x: Node, h: Node) -> Fallible<Node> {
        let product = e.matmul(h, self.recurrent)?;
        let product = self.recurrent_bias.map_or(Ok(product), |bias| e.add(product, bias))?;
        e.add(x, product)
    }

    fn rnn(&self, e: &mut Emit, x: Node, h: Node) -> Fallible<Node> {
        let sum = self.sum(e, x, h)?;
        e.unary(self.functions[0], sum)
    }

    fn gate(&self, e: &mut Emit, sum: Node, i: u64) -> Fallible<Node> {
        e.slice(sum, 1, i * self.hidden, 1, self.hidden)
    }

    fn peep(&self, e: &mut Emit, gate: Node, i: u64, cell: Node) -> Fallible<Node> {
        let Some(peepholes) = self.peepholes else { return Ok(gate) };
        let weights = e.slice(peepholes, 0, i * self.hidden, 1, self.hidden)?;
        let seen = e.mul(weights, cell)?;
        e.add(gate, seen)
    }

    /// Gates in the order input, output, forget, cell.
    fn lstm(&self, e: &mut Emit, x: Node, state: Node, old: Node) -> Fallible<(Node, Node)> {
        let sum = self.sum(e, x, state)?;
        let [f, g, h] = self.functions[..] else { return Err("an LSTM has three activations".into()) };
        let (input, forget, cell) = (self.gate(e, sum, 0)?, self.gate(e, sum, 2)?, self.gate(e, sum, 3)?);
        let (input, forget) = (self.peep(e, input, 0, old)?, self.peep(e, forget, 2, old)?);
        let (input, forget, cell) = (e.unary(f, input)?, e.unary(f, forget)?, e.unary(g, cell)?);
        let (kept, new) = (e.mul(forget, old)?, e.mul(input, cell)?);
        let next = e.add(kept, new)?;
        let output = self.gate(e, sum, 1)?;
        let output = self.peep(e, output, 1, next)?;
        let (output, shown) = (e.unary(f, output)?, e.unary(h, next)?);
        Ok((e.mul(output, shown)?, next))
    }

    /// Gates in the order update, reset, hidden.
    fn gru(&self, e: &mut Emit, x: Node, h: Node) -> Fallible<Node> {
        let [f, g] = self.functions[..] else { return Err("a GRU has two activations".into()) };
        let n = self.hidden;
        // Where the reset gate works on the state, the last product has to wait for it.
        let width = if self.after { 3 * n } else { 2 * n };
        let columns = e.slice(self.recurrent, 1, 0, 1, width)?;
        let mut product = e.matmul(h, columns)?;
        if let Some(bias) = self.recurrent_bias {
            let bias = e.slice(bias, 0, 0, 1, width)?;
            product = e.add(product, bias)?;
        }
        let mut gates = vec![];
        for i in 0..2 {
            let (own, other) = (self.gate(e, x, i)?, self.gate(e, product, i)?);
            let sum = e.add(own, other)?;
            gates.push(e.unary(f, sum)?);
        }
        let seen = if self.after {
            let other = self.gate(e, product, 2)?;
            e.mul(gates[1], other)?
        } else {
            let reset = e.mul(gates[1], h)?;
            let columns = e.slice(self.recurrent, 1, 2 * n, 1, n)?;
            let mut seen = e.matmul(reset, columns)?;
            if let Some(bias) = self.recurrent_bias {
                let bias = e.slice(bias, 0, 2 * n, 1, n)?;
                seen = e.add(seen, bias)?;
            }
            seen
        };
        let own = self.gate(e, x, 2)?;
        let sum = e.add(own, seen)?;
        let new = e.unary(g, sum)?;
        // (1 - update) * new + update * h
        let (away, one) = (e.sub(h, new)?, gates[0]);
        let kept = e.mul(one, away)?;
        e.add(new, kept)
    }
}
