//! The pictures: a colour gradient, a checker board, a disc and noise, in integers only.

use crate::random::{Stream, ints};
use crate::squeezenet::CHANNELS;
use rayon::prelude::*;

/// What the pictures of one set have drawn on them; value `i` (or values `3 i` to `3 i + 2`) belong to picture `i`.
struct Drawings {
    size: i64,
    period: Vec<i64>,
    centre_x: Vec<i64>,
    centre_y: Vec<i64>,
    radius: Vec<i64>,
    base: Vec<i64>,
    gradient_x: Vec<i64>,
    gradient_y: Vec<i64>,
    checker: Vec<i64>,
    disc: Vec<i64>,
    noise: Stream,
}

impl Drawings {
    fn new(set: &str, count: usize, size: usize) -> Drawings {
        let side = size as i64;
        let one = |name: &str, lo, hi| ints(&format!("{set}.{name}"), count, lo, hi);
        let colour = |name: &str, lo, hi| ints(&format!("{set}.{name}"), CHANNELS * count, lo, hi);
        Drawings {
            size: side,
            period: one("px", 2, 17),
            centre_x: one("cx", 0, side),
            centre_y: one("cy", 0, side),
            radius: one("r", 4, side),
            base: colour("base", 30, 200),
            gradient_x: colour("gx", -120, 121),
            gradient_y: colour("gy", -120, 121),
            checker: colour("amp", -80, 81),
            disc: colour("disc", -100, 101),
            noise: Stream::new(&format!("{set}.noise")),
        }
    }

    /// Draws picture `i`, samples in the order [row, column, channel].
    fn draw(&self, i: usize, samples: &mut [u8]) {
        let first = (i * samples.len()) as u64;
        for (at, sample) in samples.iter_mut().enumerate() {
            let (pixel, channel) = (at / CHANNELS, at % CHANNELS);
            let (y, x) = (pixel as i64 / self.size, pixel as i64 % self.size);
            let noise = (self.noise.u64(first + at as u64) >> 59) as i64 - 16;
            *sample = (self.colour(i, channel, x, y) + noise).clamp(0, 255) as u8;
        }
    }

    /// The colour before noise; divisions round down.
    fn colour(&self, i: usize, channel: usize, x: i64, y: i64) -> i64 {
        let c = CHANNELS * i + channel;
        let on_checker = (x / self.period[i] + y / self.period[i]) & 1;
        let (dx, dy) = (x - self.centre_x[i], y - self.centre_y[i]);
        let on_disc = (dx * dx + dy * dy < self.radius[i] * self.radius[i]) as i64;
        let gradient = |slope: i64, at: i64| (slope * at).div_euclid(self.size);
        self.base[c]
            + gradient(self.gradient_x[c], x)
            + gradient(self.gradient_y[c], y)
            + self.checker[c] * on_checker
            + self.disc[c] * on_disc
    }
}

/// `count` pictures of `size` x `size` pixels, [count, size, size, 3]. `done` is told the number of pictures drawn
/// since its last call, from any thread.
pub fn pictures(set: &str, count: usize, size: usize, done: &(impl Fn(usize) + Sync)) -> Vec<u8> {
    let drawings = Drawings::new(set, count, size);
    let mut samples = vec![0; count * size * size * CHANNELS];
    samples.par_chunks_mut(size * size * CHANNELS).enumerate().for_each(|(i, picture)| {
        drawings.draw(i, picture);
        done(1);
    });
    samples
}

#[cfg(test)]
mod tests {
    //! The expected samples are those of the peers' `gen.py`.
    use super::*;

    /// A sum in which every sample's position counts.
    fn checksum(samples: &[u8]) -> u64 {
        samples.iter().zip(0..).map(|(&sample, at): (_, u64)| u64::from(sample) * (at % 65_521)).sum()
    }

    #[test]
    fn small_pictures_agree() {
        let samples = pictures("P9a", 64, 64, &|_| ());
        assert_eq!(samples[64 * 64 * 3..][..12], [184, 38, 89, 171, 62, 77, 161, 39, 105, 184, 57, 98]);
        assert_eq!(checksum(&samples), 3_041_629_476_046);
    }

    #[test]
    fn large_pictures_agree() {
        let samples = pictures("P9b", 16, 224, &|_| ());
        assert_eq!(samples[224 * 224 * 3..][..12], [117, 111, 69, 90, 117, 64, 108, 100, 70, 116, 106, 92]);
        assert_eq!(checksum(&samples), 8_837_922_223_620);
    }
}
