//! Reproducible numbers: value `i` of the stream `name` depends on `(name, i)` only.
//!
//! 64-bit wrapping integer arithmetic and IEEE `+`, `-`, `*` make every value the same bits in any language, so data and
//! weights need not be shipped: they are made where they are used. The streams have no state; a part of one can be made
//! on its own, and in parallel.

/// The golden-ratio increment of SplitMix64.
const INCREMENT: u64 = 0x9E37_79B9_7F4A_7C15;
/// Square root of three: scales the sum of four uniforms, of variance 1/3, to variance 1.
const SQRT3: f64 = 1.732_050_807_568_877_2;

/// The FNV-1a hash (64 bits) of a name.
pub const fn hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        i += 1;
    }
    hash
}

/// A named stream of independent, uniformly distributed 64-bit values.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    seed: u64,
}

impl Stream {
    /// The stream of a name.
    pub const fn new(name: &str) -> Stream {
        Stream { seed: hash(name) }
    }

    /// Value `i`: SplitMix64 at position `i + 1` after the name's hash.
    pub const fn u64(self, i: u64) -> u64 {
        let z = self.seed.wrapping_add(i.wrapping_add(1).wrapping_mul(INCREMENT));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Value `i` in [0, 1): its 53 upper bits.
    pub const fn unif(self, i: u64) -> f64 {
        (self.u64(i) >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Value `i` in `lo..hi`.
    pub fn int(self, i: u64, lo: i64, hi: i64) -> i64 {
        lo + (self.unif(i) * (hi - lo) as f64).floor() as i64
    }
}

/// A stream of values with mean 0 and variance 1: the sum of four uniforms, from the streams `name/0` to `name/3`.
#[derive(Clone, Copy, Debug)]
pub struct Gauss {
    parts: [Stream; 4],
}

impl Gauss {
    /// The stream of a name.
    pub fn new(name: &str) -> Gauss {
        Gauss { parts: [0, 1, 2, 3].map(|part| Stream::new(&format!("{name}/{part}"))) }
    }

    /// Value `i`.
    pub fn value(self, i: u64) -> f64 {
        let [a, b, c, d] = self.parts.map(|part| part.unif(i));
        (((a + b) + c) + d - 2.0) * SQRT3
    }
}

/// The first `n` values in [0, 1) of a stream.
pub fn unif(name: &str, n: usize) -> Vec<f64> {
    let stream = Stream::new(name);
    (0..n as u64).map(|i| stream.unif(i)).collect()
}

/// The first `n` values in `lo..hi` of a stream.
pub fn ints(name: &str, n: usize, lo: i64, hi: i64) -> Vec<i64> {
    let stream = Stream::new(name);
    (0..n as u64).map(|i| stream.int(i, lo, hi)).collect()
}

/// The first `n` values with mean 0 and variance 1 of a stream.
pub fn gauss(name: &str, n: usize) -> Vec<f64> {
    let stream = Gauss::new(name);
    (0..n as u64).map(|i| stream.value(i)).collect()
}

/// A weight tensor of that shape, row-major: variance `gain²` over its fan-in, the product of all extents but the first
/// (1 for a vector).
pub fn weight(name: &str, shape: &[usize], gain: f64) -> Vec<f32> {
    let fan_in: usize = shape[1..].iter().product();
    let scale = gain / (fan_in as f64).sqrt();
    gauss(name, shape.iter().product()).into_iter().map(|value| (value * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    //! The expected bits were printed by `common.py` of the peers' pipelines (numpy).
    use super::*;

    #[test]
    fn names_hash_as_fnv1a() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("P9.cam"), 0xf906_21bb_326e_89f3);
    }

    #[test]
    fn streams_start_anywhere() {
        let noise = Stream::new("P9a.noise");
        let first = [0xe175_a919_3fa0_6444, 0x5571_af95_0c23_8a88, 0x8acd_7a59_9942_eaae];
        assert_eq!([0, 1, 2].map(|i| noise.u64(i)), first);
        assert_eq!(noise.u64(1_000_000), 0x5836_f736_aaef_246b);
    }

    #[test]
    fn uniforms_agree_to_the_bit() {
        let bits = [0x3fe3_8579_46b4_53c8, 0x3fda_2692_8b51_a82c, 0x3fed_b11b_7a6d_8ad0];
        assert_eq!(unif("P9a.q", 3).into_iter().map(f64::to_bits).collect::<Vec<_>>(), bits);
    }

    #[test]
    fn integers_agree() {
        assert_eq!(ints("P9a.cam", 8, 0, 100), [4, 20, 16, 67, 22, 55, 57, 94]);
        assert_eq!(ints("P9a.gx", 8, -120, 121), [-76, 61, 110, 92, 80, 61, 24, 17]);
    }

    #[test]
    fn gaussians_agree_to_the_bit() {
        let bits = [0x3fea_ba21_d2e9_4dad, 0xbfef_701e_3a5c_bff4, 0xbfbd_9a9c_4175_c019, 0x3ff2_5cd7_480e_efe1];
        assert_eq!(gauss("P12.w", 4).into_iter().map(f64::to_bits).collect::<Vec<_>>(), bits);
    }

    #[test]
    fn weights_agree_to_the_bit() {
        let bits = |values: Vec<f32>, n| values.into_iter().take(n).map(f32::to_bits).collect::<Vec<_>>();
        let kernel = weight("P9.conv1.w", &[64, 3, 3, 3], crate::weights::GAIN);
        assert_eq!(bits(kernel, 4), [0xbed3_1368, 0x3d8e_beeb, 0xbc08_2033, 0xbe0c_921f]);
        assert_eq!(bits(weight("P9.conv1.b", &[64], 0.05), 3), [0x3dbf_7c81, 0xbd20_f239, 0x3c9e_2a09]);
    }
}
