//! Resizing: every axis on its own, by a matrix that holds the weights of its old elements for each new one.

use super::Write;
use crate::emit::{Fallible, made_up};
use crate::value::Call;
use quearn_stage::graph::{Node, Op, Scalar};

pub(super) const ROWS: &[(&str, Write)] = &[("Resize", resize), ("Upsample", upsample)];

fn upsample(c: &mut Call) -> Fallible<Vec<Node>> {
    let scales = match c.floats("scales") {
        Some(scales) => scales,
        None => c.known_floats(1)?,
    };
    let x = c.x(0)?;
    let mode = c.text("mode", "nearest");
    let rule = Rule { place: "asymmetric".into(), nearest: "floor".into(), ..Rule::default() };
    let axes: Vec<usize> = (0..c.emit.rank(x)).collect();
    let sizes = scaled(c, x, &axes, &scales)?;
    along_axes(c, x, &axes, &sizes, &scales, &mode, &rule)
}

/// Where new elements lie among the old ones.
#[derive(Clone)]
struct Rule {
    place: String,
    nearest: String,
    cubic: f64,
    outside: bool,
    antialias: bool,
    region: Vec<[f64; 2]>,
    beyond: f64,
}

impl Default for Rule {
    fn default() -> Rule {
        let place = "half_pixel".to_owned();
        let nearest = "round_prefer_floor".to_owned();
        Rule { place, nearest, cubic: -0.75, outside: false, antialias: false, region: vec![], beyond: 0.0 }
    }
}

fn scaled(c: &Call, x: Node, axes: &[usize], scales: &[f64]) -> Fallible<Vec<u64>> {
    if axes.len() != scales.len() {
        return Err(format!("{} scales for {} axes", scales.len(), axes.len()));
    }
    let size = |(&axis, &scale): (&usize, &f64)| match scale {
        1.0 if c.emit.extent(x, axis).is_err() => Ok(0),
        _ => Ok((c.emit.extent(x, axis)? as f64 * scale).floor() as u64),
    };
    axes.iter().zip(scales).map(size).collect()
}

fn resize(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let rank = c.emit.rank(x);
    let axes = match c.ints("axes") {
        Some(axes) => axes.iter().map(|&a| c.axis(a, rank)).collect::<Fallible<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    let old = c.opset < 11;
    let (scales_at, sizes_at) = if old { (1, 9) } else { (2, 3) };
    let rule = Rule {
        place: c.text("coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" }),
        nearest: c.text("nearest_mode", if old { "floor" } else { "round_prefer_floor" }),
        cubic: c.float("cubic_coeff_a", -0.75),
        outside: c.int("exclude_outside", 0) != 0,
        antialias: c.int("antialias", 0) != 0,
        region: region(c, axes.len())?,
        beyond: c.float("extrapolation_value", 0.0),
    };
    let scales = if c.has(scales_at) { c.known_floats(scales_at)? } else { vec![] };
    let mode = c.text("mode", "nearest");
    if !scales.is_empty() {
        let sizes = scaled(c, x, &axes, &scales)?;
        return along_axes(c, x, &axes, &sizes, &scales, &mode, &rule);
    }
    let sizes: Vec<u64> = c.known_ints(sizes_at)?.into_iter().map(|n| n.max(0) as u64).collect();
    if sizes.len() != axes.len() {
        return Err(format!("{} sizes for {} axes", sizes.len(), axes.len()));
    }
    let ratio = |(&axis, &n): (&usize, &u64)| Ok(n as f64 / c.emit.extent(x, axis)? as f64);
    let mut scales = axes.iter().zip(&sizes).map(ratio).collect::<Fallible<Vec<f64>>>()?;
    let mut sizes = sizes;
    let policy = c.text("keep_aspect_ratio_policy", "stretch");
    if policy != "stretch" {
        let pick = if policy == "not_larger" { f64::min } else { f64::max };
        let scale = scales.iter().copied().reduce(pick).unwrap_or(1.0);
        let size = |&axis: &usize| Ok((c.emit.extent(x, axis)? as f64 * scale).round() as u64);
        sizes = axes.iter().map(size).collect::<Fallible<_>>()?;
        scales = vec![scale; axes.len()];
    }
    along_axes(c, x, &axes, &sizes, &scales, &mode, &rule)
}

/// First and last place of the region that is read, for each axis.
fn region(c: &Call, axes: usize) -> Fallible<Vec<[f64; 2]>> {
    if c.opset < 11 || c.text("coordinate_transformation_mode", "") != "tf_crop_and_resize" {
        return Ok(vec![]);
    }
    let region = c.known_floats(1)?;
    if region.len() != 2 * axes {
        return Err(format!("a region of {} numbers for {axes} axes", region.len()));
    }
    Ok((0..axes).map(|i| [region[i], region[i + axes]]).collect())
}

fn along_axes(
    c: &mut Call,
    x: Node,
    axes: &[usize],
    sizes: &[u64],
    scales: &[f64],
    mode: &str,
    rule: &Rule,
) -> Fallible<Vec<Node>> {
    let mut x = x;
    for (i, &axis) in axes.iter().enumerate() {
        if scales[i] == 1.0 && rule.region.is_empty() {
            continue;
        }
        let e = &mut *c.emit;
        let (from, rank) = (e.extent(x, axis)?, e.rank(x));
        let line = Line { from, to: sizes[i], scale: scales[i], rule, region: rule.region.get(i).copied() };
        if line.to == 0 {
            return Err("nothing is left".into());
        }
        if mode == "nearest" && rule.region.is_empty() {
            let at = e.ints(&[line.to], (0..line.to).map(|j| line.nearest(j)))?;
            let lines = e.move_axis(x, axis, 0)?;
            let picked = e.op(Op::Gather, &[lines, at])?;
            x = e.move_axis(picked, 0, axis)?;
            continue;
        }
        let weights = line.weights(mode)?;
        let scalar = e.scalar(x);
        let wide = if scalar.is_float() { scalar } else { Scalar::F32 };
        let matrix = e.floats(wide, &[line.to, from], &weights)?;
        let columns = e.swap_last(matrix)?;
        let last = e.move_axis(x, axis, rank - 1)?;
        let last = e.cast(last, wide)?;
        let mut product = e.matmul(last, columns)?;
        let missing: Vec<f64> = (0..line.to).map(|j| if line.is_beyond(j) { rule.beyond } else { 0.0 }).collect();
        if missing.iter().any(|m| *m != 0.0) {
            let missing = e.floats(wide, &[line.to], &missing)?;
            product = e.add(product, missing)?;
        }
        let product = e.cast(product, scalar)?;
        x = e.move_axis(product, rank - 1, axis)?;
    }
    Ok(vec![x])
}

/// One axis.
struct Line<'a> {
    from: u64,
    to: u64,
    scale: f64,
    rule: &'a Rule,
    region: Option<[f64; 2]>,
}

impl Line<'_> {
    /// The place of a new element among the old ones.
    fn place(&self, at: u64) -> f64 {
        let (at, from) = (at as f64, self.from as f64);
        // The length that the scale stands for, which need not be whole.
        let to = from * self.scale;
        match self.rule.place.as_str() {
            "asymmetric" => at / self.scale,
            "align_corners" if self.to == 1 => 0.0,
            "align_corners" => at * (from - 1.0) / (to - 1.0),
            "pytorch_half_pixel" if self.to == 1 => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = self.to as f64 / to;
                let centre = from / 2.0;
                centre * (1.0 - adjustment) + (at + 0.5) / self.scale - 0.5
            }
            "tf_crop_and_resize" => match self.region {
                Some([start, end]) if self.to > 1 => {
                    start * (from - 1.0) + at * (end - start) * (from - 1.0) / (self.to as f64 - 1.0)
                }
                Some([start, end]) => 0.5 * (start + end) * (from - 1.0),
                None => at,
            },
            _ => (at + 0.5) / self.scale - 0.5,
        }
    }

    fn is_beyond(&self, at: u64) -> bool {
        let place = self.place(at);
        self.region.is_some() && (place < 0.0 || place > self.from as f64 - 1.0)
    }

    fn nearest(&self, at: u64) -> u64 {
        let place = self.place(at);
        let whole = match self.rule.nearest.as_str() {
            "floor" => place.floor(),
            "ceil" => place.ceil(),
            "round_prefer_ceil" => (place + 0.5).floor(),
            _ => (place - 0.5).ceil(),
        };
        whole.clamp(0.0, self.from as f64 - 1.0) as u64
    }

    /// `[to, from]` weights.
    fn weights(&self, mode: &str) -> Fallible<Vec<f64>> {
        let from = self.from as i64;
        made_up(&[self.to, self.from])?;
        let mut weights = vec![0.0; (self.to * self.from) as usize];
        for at in 0..self.to {
            let row = &mut weights[(at * self.from) as usize..][..self.from as usize];
            if self.is_beyond(at) {
                continue;
            }
            if mode == "nearest" {
                row[self.nearest(at) as usize] = 1.0;
                continue;
            }
            // A filter that shrinks reaches further, so that no element is skipped.
            let shrink = if self.rule.antialias { self.scale.min(1.0) } else { 1.0 };
            let place = self.place(at);
            let reach = match mode {
                "linear" | "bilinear" | "trilinear" => 1.0,
                "cubic" | "bicubic" => 2.0,
                other => return Err(format!("the mode {other:?} is not supported")),
            };
            let span = reach / shrink;
            let (first, last) = ((place - span).floor() as i64, (place + span).ceil() as i64);
            let mut taps = vec![];
            for tap in first..=last {
                let away = ((tap as f64 - place) * shrink).abs();
                let weight = if reach == 1.0 { (1.0 - away).max(0.0) } else { self.cubic(away) };
                let inside = (0..from).contains(&tap);
                taps.push((tap, if self.rule.outside && !inside { 0.0 } else { weight }));
            }
            let sum: f64 = taps.iter().map(|(_, w)| w).sum();
            for (tap, weight) in taps {
                row[tap.clamp(0, from - 1) as usize] += weight / sum;
            }
        }
        Ok(weights)
    }

    fn cubic(&self, x: f64) -> f64 {
        let a = self.rule.cubic;
        match x {
            x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            _ => 0.0,
        }
    }
}
