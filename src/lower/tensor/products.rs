//! Plans convolutions and matrix products: layouts of operands, packing of weights, register tiles.

use super::contract::{self, Contract, Kernel};
use super::depthwise::{self, Depthwise};
use super::gemm::{BOUND_BY_B, Gemm, Loop, Pack, Right};
use super::kernel::{self, KAxis, Tile, element, elements_of_step};
use super::places::{APART, Layout};
use super::plan::{Kind, Place, shape_of};
use super::planner::{Planner, Result};
use super::spec::{AxisSpec, BufferId, Size, Spec, compute, storage};
use quearn_stage::graph::{Conv2d, Node, Op};
use quearn_stage::low::Prim;

impl Planner<'_, '_> {
    /// The machine type of a product's sums.
    pub(super) fn product_prim(&self, node: Node) -> Result<Prim> {
        match compute(self.scalar(node)) {
            Some(prim @ (Prim::F32 | Prim::F64 | Prim::I32)) => Ok(prim),
            _ => Err(self.plan.unsupported(node, format!("a product of {}", self.scalar(node)))),
        }
    }

    /// Is the tensor in memory as the kernel takes it? The kernel walks forwards only.
    pub(super) fn ready(&self, node: Node, prim: Prim) -> Option<&Spec> {
        self.plan.home(node).filter(|s| storage(s.elem) == Some(element(prim)) && !s.runs_back())
    }

    /// May a kernel that takes several elements a step read them along the last axis of a window? They must lie next to each
    /// other, and where the last step reads too many, what it reads must be ours.
    fn reads_in_steps(&self, spec: &Spec, window: &[(usize, KAxis)], prim: Prim) -> bool {
        let each = elements_of_step(prim);
        if each == 1 {
            return true;
        }
        let Some((_, last)) = window.last() else { return false };
        let ours = matches!(self.plan.buffer(spec.buffer).place, Place::Arena | Place::Prepared);
        last.a == spec.elem_bytes() && (ours || last.extent.is_multiple_of(each))
    }

    pub(super) fn conv2d(&mut self, node: Node, root: Node, conv: &Conv2d) -> Result<()> {
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        let bias = self.inputs(node).get(2).copied();
        if let Some(bias) = bias {
            self.stored(bias)?;
        }
        let prim = self.product_prim(node)?;
        if prim.is_float() && conv.groups > 1 && conv.groups == self.extent(x, 1) && conv.groups == self.extent(w, 0) {
            return self.depthwise(node, root, conv, prim);
        }
        if let Some(tiles) = self.filtering(node, conv, prim) {
            return self.winograd(node, root, conv, tiles);
        }
        let a = self.conv_input(x, w, conv, prim)?;
        let out = self.destination(root, false)?;
        let rows = [2, 3].map(|i: usize| Loop {
            size: out.axes[i].size.clone(),
            a: a.axes[i].stride * conv.stride[i - 2] as i64,
            b: 0,
            coord: Some((i, 1)),
        });
        let rows = self.flatten_rows(node, root, &out, rows);
        let window = self.window(w, conv, &a, prim);
        let k = in_steps(window.iter().map(|(_, k)| *k), prim);
        let depth = k.iter().map(|k| k.extent).product();
        let cols = self.extent(w, 0) / conv.groups;
        let tile = self.tile(prim, rows.each_ref().map(|r| r.size.now().unwrap_or(1)), cols, depth);
        let order: Vec<usize> = window.iter().map(|(axis, _)| *axis).collect();
        let right = self.pack(w, conv.groups, 0, &order, tile.vectors, [prim; 2])?;
        let (b_row, b_panel) = self.panel_bytes(tile, depth);
        let panels = cols.div_ceil(tile.vectors * u64::from(self.plan.target.lanes_of(prim))) as i64;
        let group = a.axes[1].stride * self.extent(w, 1) as i64;
        let outer = vec![
            Loop { size: out.axes[0].size.clone(), a: a.axes[0].stride, b: 0, coord: Some((0, 1)) },
            Loop { size: Size::Now(conv.groups), a: group, b: b_panel * panels, coord: Some((1, cols)) },
        ];
        let a_offset = -(0..2).map(|i| conv.padding[i] as i64 * a.axes[2 + i].stride).sum::<i64>();
        let out_spec = out.clone();
        let gemm = Gemm {
            backwards: self.takes_turn(&right),
            node,
            root,
            bias,
            a,
            a_offset,
            right,
            b_row,
            b_panel,
            outer,
            rows,
            k,
            cols,
            col_axis: 1,
            prim,
            b_elem: prim,
            tile,
            out,
        };
        self.finish(node, root, out_spec, "conv", Kind::Gemm(Box::new(gemm)));
        Ok(())
    }

    /// A convolution with a filter for each channel.
    fn depthwise(&mut self, node: Node, root: Node, conv: &Conv2d, prim: Prim) -> Result<()> {
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        let spec = self.vectors_of_channels(x, conv.padding, prim)?;
        let out = self.destination(root, false)?;
        let kernel = [self.extent(w, 2), self.extent(w, 3)];
        let Right::Packed(filters) = self.pack(w, 1, 0, &[2, 3], 1, [prim; 2])? else {
            return self.internal(node, "filters that are not packed");
        };
        let pixels = [2, 3].map(|axis: usize| out.axes[axis].size.now().unwrap_or(1));
        let depthwise = Depthwise {
            node,
            root,
            bias: self.inputs(node).get(2).copied(),
            x: spec,
            filters,
            conv: conv.clone(),
            kernel,
            tile: depthwise::choose_tile(self.plan.target, kernel, pixels),
            prim,
            out: out.clone(),
        };
        self.finish(node, root, out, "depthwise", Kind::Depthwise(Box::new(depthwise)));
        Ok(())
    }

    /// The axes of a filter that a window sums over, in the order in which the image lies in memory, and in elements.
    fn window(&self, w: Node, conv: &Conv2d, image: &Spec, prim: Prim) -> Vec<(usize, KAxis)> {
        let axis = |i: usize| {
            let dilation = if i == 1 { 1 } else { conv.dilation[i - 2] as i64 };
            (i, KAxis { extent: self.extent(w, i), a: image.axes[i].stride * dilation })
        };
        // Bytes are taken along an axis of neighbours, even if there is only one.
        let taken = |k: &KAxis| elements_of_step(prim) > 1 && k.a == image.elem_bytes();
        let counts = |(_, k): &(usize, KAxis)| k.extent > 1 || taken(k);
        let mut window: Vec<(usize, KAxis)> = [2, 3, 1].map(axis).into_iter().filter(counts).collect();
        window.sort_by_key(|(_, k)| std::cmp::Reverse(k.a));
        window
    }

    pub(super) fn tile(&self, prim: Prim, rows: [u64; 2], cols: u64, depth: u64) -> Tile {
        kernel::choose_tile(self.plan.target, self.plan.target.lanes_of(prim), rows, cols, depth)
    }

    /// A tile for a matrix of unknown height: wide enough for a single row to be computed at full speed, as far as it is not
    /// wider than high.
    fn open_tile(&self, prim: Prim, cols: u64, depth: u64) -> Tile {
        let room = |vectors: u64| (u64::from(self.plan.target.registers) - 1 - vectors) / vectors;
        let most = self.tile(prim, [1, 1], cols, depth).vectors;
        let vectors = (1..=most).rev().find(|&vectors| room(vectors) >= vectors).unwrap_or(1);
        Tile { rows: [room(vectors), 1], vectors }
    }

    /// Bytes of one row of a packed panel, and of the panel.
    pub(super) fn panel_bytes(&self, tile: Tile, depth: u64) -> (i64, i64) {
        let row = (tile.vectors * u64::from(self.plan.target.vector_bytes)) as i64;
        (row, row * depth as i64)
    }

    /// The type in which panels of a weight are kept, where `rows` rows are multiplied by it: a narrower float that has all its
    /// values, if the time goes into reading them. (With more rows it would go into widening.)
    fn panel_elem(&self, w: Node, prim: Prim, rows: Option<u64>) -> Prim {
        if prim != Prim::F32 || rows.is_none_or(|rows| rows > BOUND_BY_B) {
            return prim;
        }
        let mut node = w;
        loop {
            let input = self.inputs(node).first().copied();
            match (self.graph().op(node), input) {
                (Op::Transpose(_) | Op::Reshape(_) | Op::Slice { .. }, Some(x)) => node = x,
                (Op::Cast(_), Some(x)) => {
                    let narrow = storage(self.scalar(x));
                    return narrow.filter(|p| matches!(p, Prim::BF16 | Prim::F16)).unwrap_or(prim);
                }
                _ => return prim,
            }
        }
    }

    /// The image with zeros around it in memory.
    fn conv_input(&mut self, x: Node, w: Node, conv: &Conv2d, prim: Prim) -> Result<Spec> {
        let fits = |spec: &&Spec| {
            let padded = (0..2).all(|i| spec.halo[i] >= conv.padding[i]);
            padded && self.reads_in_steps(spec, &self.window(w, conv, spec, prim), prim)
        };
        if let Some(spec) = self.ready(x, prim).filter(fits) {
            return Ok(spec.clone());
        }
        // Few channels would leave most lanes empty while the copy is made; the kernel reads single elements anyway, or bytes
        // along a line.
        let few = self.extent(x, 1) < u64::from(self.plan.target.lanes());
        let few = few && (elements_of_step(prim) == 1 || conv.dilation[1] == 1);
        self.copy(x, if few { Layout::Planes(conv.padding) } else { Layout::Channels(conv.padding) })
    }

    /// The image with zeros around it in memory, channels adjacent.
    pub(super) fn vectors_of_channels(&mut self, x: Node, padding: [u64; 2], prim: Prim) -> Result<Spec> {
        let adjacent = |spec: &Spec| spec.axes[1].stride == spec.elem_bytes();
        let padded = |spec: &&Spec| (0..2).all(|i| spec.halo[i] >= padding[i]) && adjacent(spec);
        match self.ready(x, prim).filter(padded) {
            Some(spec) => Ok(spec.clone()),
            None => self.copy(x, Layout::Channels(padding)),
        }
    }

    /// Makes one axis of pixels where lines follow each other without a gap, in everything that the epilogue touches.
    pub(super) fn flatten_rows(&self, node: Node, root: Node, out: &Spec, rows: [Loop; 2]) -> [Loop; 2] {
        let (Some(h), Some(w)) = (rows[0].size.now(), rows[1].size.now()) else { return rows };
        // A single column is one axis already; counted along the width, it would run out of operands that have one there.
        if w == 1 {
            return rows;
        }
        let dense = rows[0].a == rows[1].a * w as i64 && out.merges(2, 3);
        let uniform = |n: &Node| match (self.plan.home(*n), self.rank(*n)) {
            (_, 0 | 1) | (None, _) => self.is_uniform(*n),
            (Some(spec), 4) => {
                spec.merges(2, 3) && [2, 3].map(|i: usize| self.extent(*n, i)) == [h, w] || self.is_uniform(*n)
            }
            _ => self.is_uniform(*n),
        };
        if !dense || !self.epilogue_operands(node, root).iter().all(uniform) {
            return rows;
        }
        let [_, row] = rows;
        let one = Loop { size: Size::Now(1), a: 0, b: 0, coord: None };
        [Loop { size: Size::Now(h * w), ..row }, one]
    }

    /// Has the node the same value at all pixels?
    pub(super) fn is_uniform(&self, node: Node) -> bool {
        let rank = self.rank(node);
        // A vector of rank 1 is along the width, unless it holds a batch norm's parameters or one element.
        let pixels = shape_of(self.graph(), node).iter().skip(rank.saturating_sub(2));
        let channel_vector = rank == 1
            && self
                .users
                .get(&node)
                .is_some_and(|u| u.iter().all(|u| matches!(self.graph().op(*u), Op::BatchNorm { .. } | Op::Conv2d(_))));
        channel_vector || pixels.into_iter().all(|d| d.as_const() == Some(1))
    }

    /// Packs a weight whose columns are along `col` and whose inner dimension is `k`, outermost first.
    pub(super) fn pack(
        &mut self,
        w: Node,
        groups: u64,
        col: usize,
        k: &[usize],
        vectors: u64,
        [prim, elem]: [Prim; 2],
    ) -> Result<Right> {
        let mut source = self.stored(w)?;
        if source.runs_back() {
            source = self.copy(w, Layout::RowMajor)?;
        }
        let key = PackKey { w, groups, col, k: k.to_vec(), vectors, elem };
        if let Some(&packed) = self.packs.get(&key) {
            return Ok(Right::Packed(packed));
        }
        let cols = self.extent(w, col) / groups;
        let stride = |i: usize| source.axes[i].stride;
        let pack = Pack {
            out: BufferId(self.plan.buffers.len() as u32),
            groups: (groups, stride(col) * cols as i64),
            cols: (cols, stride(col)),
            k: k.iter().map(|&i| (self.extent(w, i), stride(i))).collect(),
            vectors,
            prim,
            elem,
            source,
        };
        let out = pack.out;
        let bytes = pack.bytes(self.plan.target.vector_bytes);
        // A filter that is computed is packed in every run.
        let place = if self.constant.contains(&w) { Place::Prepared } else { Place::Arena };
        self.new_buffer(place, &[], bytes, format!("{} packed", self.label(w)));
        self.push(w, "pack", vec![w], Kind::Pack(Box::new(pack)));
        self.packs.insert(key, out);
        Ok(Right::Packed(out))
    }

    pub(super) fn matmul(&mut self, node: Node, root: Node) -> Result<()> {
        if let Some(results) = self.joint.get(&node).cloned() {
            return self.joint_product(node, results);
        }
        let out = self.destination(root, true)?;
        if let Some(product) = self.blocked(node, vec![(root, out.clone())])? {
            self.finish(node, root, out, "matmul", Kind::Blocked(Box::new(product)));
            return Ok(());
        }
        self.gemm(node, root, out)
    }

    /// A product that is no product of packed blocks.
    pub(super) fn gemm(&mut self, node: Node, root: Node, out: Spec) -> Result<()> {
        let w = self.inputs(node)[1];
        let shared = self.constant.contains(&w) && self.rank(w) == 2;
        let gemm = self.product(node, root, out.clone(), if shared { Rows::Joined } else { Rows::Apart(None) })?;
        self.finish(node, root, out, "matmul", Kind::Gemm(Box::new(gemm)));
        Ok(())
    }

    /// The left operand, before it is transposed, of a product that sums over the rows of the program, however many
    /// they are.
    pub(super) fn rows_summed(&self, node: Node) -> Option<Node> {
        let [left, right] = [0, 1].map(|i| self.inputs(node)[i]);
        let Op::Transpose(axes) = self.graph().op(left) else { return None };
        let x = self.inputs(left)[0];
        let unknown = self.plan.items.dim.as_ref().is_some_and(|dim| dim.as_const().is_none());
        (axes[..] == [1, 0] && unknown && self.itemed(x) && self.itemed(right) && self.rank(right) == 2).then_some(x)
    }

    pub(super) fn contract(&mut self, node: Node, root: Node, x: Node) -> Result<()> {
        let prim = self.product_prim(node)?;
        let y = self.inputs(node)[1];
        let out = self.destination(root, true)?;
        let kernel = Kernel::new(self.plan.target, prim, [x, y].map(|operand| self.extent(operand, 1)), x == y);
        let bytes = (kernel.bytes() * contract::PARTS) as u64;
        let parts = self.new_buffer(Place::Arena, &[], bytes, format!("parts of {}", self.label(node)));
        let (operands, rows) = ([x, y], Size::Items);
        let contract = Contract { node, root, operands, rows, kernel, parts, out: out.clone() };
        self.push(node, "contract", vec![node], Kind::Contract(Box::new(contract.clone())));
        self.finish(node, root, out, "contract_sum", Kind::ContractSum(Box::new(contract)));
        Ok(())
    }

    /// A matrix product with its epilogue into `out`.
    pub(super) fn product(&mut self, node: Node, root: Node, out: Spec, how: Rows) -> Result<Gemm> {
        let prim = self.product_prim(node)?;
        let [x, w] = [0, 1].map(|i| self.inputs(node)[i]);
        if self.plan.home(x).is_none() {
            self.stored(x)?;
        }
        // A result of the program is kept in its own type, which may be narrower than the kernel's.
        let line = |spec: &Spec| {
            let axis = spec.axes.len() - 1;
            vec![(axis, KAxis { extent: self.extent(x, axis), a: spec.axes[axis].stride })]
        };
        let across = |spec: &Spec| is_read_across(spec) && self.extent(w, self.rank(w) - 1) >= MANY_COLUMNS;
        let ready = self.ready(x, prim).filter(|spec| self.reads_in_steps(spec, &line(spec), prim) && !across(spec));
        let a = match ready {
            Some(spec) => spec.clone(),
            None => self.copy(x, Layout::RowMajor)?,
        };
        let (rank, row) = (out.axes.len(), a.axes.len() - 2);
        let (depth, cols) = (self.extent(w, self.rank(w) - 2), self.extent(w, self.rank(w) - 1));
        let k = in_steps([KAxis { extent: depth, a: a.axes[row + 1].stride }], prim);
        let depth = k.iter().map(|k| k.extent).product();
        let rows = Loop { size: a.axes[row].size.clone(), a: a.axes[row].stride, b: 0, coord: Some((rank - 2, 1)) };
        let joined = if how == Rows::Joined { self.joined_rows(node, root, &out, &a) } else { None };
        let is_joined = joined.is_some();
        let rows = joined.unwrap_or(rows);
        let tile = match how {
            Rows::Apart(Some(tile)) => tile,
            _ => match rows.size {
                Size::Now(count) => self.tile(prim, [count, 1], cols, depth),
                Size::EachItem(count) if count >= MANY => self.tile(prim, [count, 1], cols, depth),
                _ => self.open_tile(prim, cols, depth),
            },
        };
        let (b_row, b_panel) = self.panel_bytes(tile, depth);
        // Panels of a deep right operand are read again for each tile of rows, and its lines are far apart.
        let is_deep = self.rank(w) == 2 && self.extent(w, 0) >= DEEP;
        let many = matches!(a.axes[row].size, Size::Now(count) if count >= MANY);
        let packs = self.constant.contains(&w) || !prim.is_float() || many && (is_deep || self.is_kept(node, w));
        let mut b_elem = prim;
        let (right, b_row, b_panel) = if packs && self.rank(w) == 2 {
            let outer = if is_joined { Some(1) } else { batch(&out) };
            b_elem = self.panel_elem(w, prim, outer.and_then(|n| Some(n * rows.size.now()?)));
            let narrower = (prim.bytes() / b_elem.bytes()) as i64;
            let right = self.pack(w, 1, 1, &[0], tile.vectors, [prim, b_elem])?;
            (right, b_row / narrower, b_panel / narrower)
        } else {
            let spec = self.columns(w, prim)?;
            let stride = spec.axes[spec.axes.len() - 2].stride;
            (Right::Stored(spec), stride, b_row)
        };
        Ok(Gemm {
            backwards: self.takes_turn(&right),
            node,
            root,
            bias: None,
            a_offset: 0,
            b_row,
            b_panel,
            outer: if is_joined { vec![] } else { batch_loops(&out, &a, &right) },
            right,
            rows: [rows, Loop { size: Size::Now(1), a: 0, b: 0, coord: None }],
            k,
            cols,
            col_axis: rank - 1,
            prim,
            b_elem,
            tile,
            out,
            a,
        })
    }

    /// All rows of all matrices of a batch as one axis, where they follow each other without a gap in everything that the
    /// product and its epilogue touch: weights are then run through once for the whole batch.
    fn joined_rows(&self, node: Node, root: Node, out: &Spec, a: &Spec) -> Option<Loop> {
        let rank = out.axes.len();
        let follows = |spec: &Spec| spec.axes.len() == rank && (0..rank - 2).all(|i| spec.merges(i, i + 1));
        let each = out.axes[1..rank - 1].iter().try_fold(1, |n, axis| Some(n * axis.size.now()?))?;
        let count = match &out.axes[0].size {
            Size::Now(n) => Size::Now(n * each),
            one if each == 1 => one.clone(),
            Size::Items => Size::EachItem(each),
            _ => return None,
        };
        let same = |spec: &Spec| (0..rank - 1).all(|i| spec.axes[i].size == out.axes[i].size);
        let fits = |n: &Node| match self.plan.home(*n) {
            _ if self.rank(*n) < 2 => true,
            Some(spec) => follows(spec) && same(spec),
            None => false,
        };
        let joins = follows(a) && same(a) && follows(out) && self.epilogue_operands(node, root).iter().all(fits);
        let row = Loop { size: count, a: a.axes[rank - 2].stride, b: 0, coord: Some((rank - 2, 1)) };
        joins.then_some(row)
    }

    /// Is the right operand of a product the same at all steps that the product is taken at?
    fn is_kept(&self, node: Node, w: Node) -> bool {
        let owner = self.owners.get(&node);
        owner.is_some() && self.owners.get(&w) != owner
    }

    /// Is it this stage's turn to run through the weights backwards?
    fn takes_turn(&mut self, right: &Right) -> bool {
        let Right::Packed(weight) = right else { return false };
        let backwards = self.turns.entry(*weight).or_insert(true);
        *backwards = !*backwards;
        *backwards
    }

    /// A right operand with its columns adjacent.
    pub(super) fn columns(&mut self, w: Node, prim: Prim) -> Result<Spec> {
        let adjacent = |spec: &Spec| spec.axes.last().is_some_and(|a| a.stride == spec.elem_bytes());
        if self.plan.home(w).is_none() && !self.images.contains(&w) {
            self.stored(w)?;
        }
        match self.ready(w, prim) {
            Some(spec) if adjacent(spec) => Ok(spec.clone()),
            _ => self.copy(w, Layout::Apart),
        }
    }
}

/// An inner dimension in steps of the kernel: those that take several elements take them along the last axis.
fn in_steps(k: impl IntoIterator<Item = KAxis>, prim: Prim) -> Vec<KAxis> {
    let mut k: Vec<KAxis> = k.into_iter().collect();
    let each = elements_of_step(prim);
    if let Some(last) = k.last_mut() {
        *last = KAxis { extent: last.extent.div_ceil(each), a: last.a * each as i64 };
    }
    k
}

/// A weight as it is packed.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct PackKey {
    w: Node,
    groups: u64,
    col: usize,
    k: Vec<usize>,
    vectors: u64,
    elem: Prim,
}

/// How the rows of a batch of products are run through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rows {
    /// As one axis, where that can be.
    Joined,
    /// Matrix by matrix, in register tiles of a given shape or of the best one.
    Apart(Option<Tile>),
}

/// Rows of an item for which a tile is chosen as if there were no others.
const MANY: u64 = 16;

/// The number of matrices of a batch, if it is known now.
fn batch(out: &Spec) -> Option<u64> {
    out.axes[..out.axes.len() - 2].iter().try_fold(1, |n, axis| Some(n * axis.size.now()?))
}

/// Loops over the leading dimensions of a matrix product; an operand stays where it is broadcast.
fn batch_loops(out: &Spec, a: &Spec, right: &Right) -> Vec<Loop> {
    let rank = out.axes.len();
    let stride = |spec: &Spec, axis: usize| {
        let axis = (axis + spec.axes.len()).checked_sub(rank).map(|i| &spec.axes[i]);
        axis.filter(|a| a.size != Size::Now(1)).map_or(0, |a| a.stride)
    };
    let b_stride = |axis: usize| match right {
        Right::Stored(spec) => stride(spec, axis),
        Right::Packed(_) | Right::Apart(..) => 0,
    };
    let one = |i: usize| Loop { size: out.axes[i].size.clone(), a: stride(a, i), b: b_stride(i), coord: Some((i, 1)) };
    (0..rank - 2).map(one).collect()
}

/// Depth from which on a right operand that is computed is worth packing.
const DEEP: u64 = 128;
/// Columns from which on a left operand that is read across its lines is worth a copy: each panel of columns reads it again.
const MANY_COLUMNS: u64 = 64;
/// Lines that do not stay in the first-level cache from one tile of rows to the next.
const MANY_LINES: u64 = 256;

/// Does a left operand lie in memory so that each step along its inner dimension takes another line, of so many that they do
/// not stay in the cache?
fn is_read_across(spec: &Spec) -> bool {
    let Some(AxisSpec { size: Size::Now(steps), stride }) = spec.axes.last() else { return false };
    stride.abs() >= APART && *steps >= MANY_LINES
}
