//! Pictures chosen by a query, classified by a network, counted by a query.
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
mod expected;
mod pictures;

pub use data::{Data, data};
pub use expected::{Expected, TOLERANCE, check, expected};

use crate::squeezenet::CHANNELS;
use std::fmt;

/// Mean of the samples of a channel, where 1 is the brightest.
pub const MEAN: [f32; CHANNELS] = [0.485, 0.456, 0.406];
/// Deviation of the samples of a channel.
pub const DEVIATION: [f32; CHANNELS] = [0.229, 0.224, 0.225];

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
