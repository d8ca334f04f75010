//! P9: pictures chosen by a query, classified by a network, counted by a query.
//!
//! ```sql
//! SELECT c.region, class(i.image_id) AS class, count(*) AS n
//! FROM images i JOIN cameras c ON i.camera_id = c.camera_id
//! WHERE c.active > 0 AND i.quality >= 0.3 AND i.day BETWEEN 20 AND 360
//! GROUP BY c.region, class
//! ```
//!
//! `class` gathers the picture's samples, normalises them, runs SqueezeNet 1.1 and names the largest logit.

mod centre;
mod data;
mod pictures;

pub(super) use data::data;

use super::answer::by_key;
use super::columns::fields;
use super::{Answer, Results, Tolerance};
use crate::Result;
use crate::squeezenet::{CHANNELS, CLASSES, SQUEEZENET1_1};
use data::PIXELS;
use quearn_stage::graph::{Field, Scalar};
use quearn_stage::rep::{F32, I32, I64, Rep, Stage, Table, Tensor, U8, count};
use std::fmt;

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[("hist", Tolerance::Share(0.02)), ("n", Tolerance::Exact)];

/// Mean of the samples of a channel, where 1 is the brightest.
pub const MEAN: [f32; CHANNELS] = [0.485, 0.456, 0.406];
/// Deviation of the samples of a channel.
pub const DEVIATION: [f32; CHANNELS] = [0.229, 0.224, 0.225];

/// Name of the weight that holds [`MEAN`].
const MEAN_NAME: &str = "pixels.mean";
/// Name of the weight that holds [`DEVIATION`].
const DEVIATION_NAME: &str = "pixels.deviation";
/// Number of regions.
const REGIONS: usize = 8;

/// `region`, `class`, `n` of a set at a scale.
pub(super) fn program(s: &Stage, set: Set, scale: f64) -> Rep<'_, Table> {
    let size = set.size() as u64;
    let pixels = s.input(PIXELS, [set.pictures(scale) as u64, size, size, CHANNELS as u64]);
    let cameras =
        s.scan("cameras", fields(Scalar::I32, ["camera_id", "region", "active"])).filter(|r| r.i32("active").gt(0));
    s.scan(
        "images",
        fields(Scalar::I32, ["image_id", "camera_id", "day"]).into_iter().chain([Field::new("quality", Scalar::F32)]),
    )
    .filter(|r| r.f32("quality").ge(0.3) & r.i32("day").between(20, 360))
    .join_inner(cameras, [("camera_id", "camera_id")])
    .map_rows("class", |r| class(s, pixels, r.i32("image_id").as_tensor()))
    .group_by(["region", "class"])
    .agg(|_| [count("n")])
}

/// The class [n] of the pictures `ids` [n] of `pixels` [pictures, size, size, 3].
fn class<'s>(s: &'s Stage, pixels: Rep<'s, Tensor<U8>>, ids: Rep<'s, Tensor<I32>>) -> Rep<'s, Tensor<I64>> {
    let [mean, deviation] = [MEAN_NAME, DEVIATION_NAME].map(|name| s.weight(name, [CHANNELS as u64]));
    let samples: Rep<'s, Tensor<F32>> = (pixels.gather(ids).cast::<F32>() / 255.0).standardise(mean, deviation);
    SQUEEZENET1_1.logits(s, samples.permute([0, 3, 1, 2])).arg_max(1)
}

/// The network on samples [n, 3, size, size] in an input.
pub(super) fn alone(s: &Stage, input: &str, shape: &[u64]) {
    s.output("class", SQUEEZENET1_1.logits(s, s.input::<F32>(input, shape.to_vec())).arg_max(1));
}

/// Number of pictures by class over all regions, and by region.
pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let classes = results.table("classes")?;
    let mut answer = by_key(classes, "class", CLASSES, &[("hist", "n")])?;
    answer.append(&mut by_key(classes, "region", REGIONS, &[("n", "n")])?);
    Ok(answer)
}

/// A set of pictures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// Many small ones: 4000 of 64 x 64 pixels.
    A,
    /// Few large ones: 400 of 224 x 224 pixels.
    B,
}

impl Set {
    /// Number of pictures at a scale; a small scale still has some.
    pub fn pictures(self, scale: f64) -> usize {
        let (full, least) = match self {
            Set::A => (4000.0, 64),
            Set::B => (400.0, 16),
        };
        least.max((full * scale) as usize)
    }

    /// Height and width of a picture.
    pub const fn size(self) -> usize {
        match self {
            Set::A => 64,
            Set::B => 224,
        }
    }

    /// What the names of its random streams begin with.
    const fn streams(self) -> &'static str {
        match self {
            Set::A => "P9a",
            Set::B => "P9b",
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Set::A => "a",
            Set::B => "b",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_well_formed() {
        let s = Stage::new();
        s.output("classes", program(&s, Set::A, 1.0));
        let graph = s.finish().unwrap().to_string();
        assert!(graph.contains("rel.join_inner") && graph.contains("tensor.arg_max"), "{graph}");
    }
}
