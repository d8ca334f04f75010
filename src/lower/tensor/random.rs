//! Random bits in every lane: Philox4x32-10 as the graph defines it, with 32-bit words in lanes of 64 bits.

use quearn_stage::graph::Scalar;
use quearn_stage::graph::philox::{MULTIPLIERS, ROUNDS, WEYL};
use quearn_stage::low::{CastOp, Prim, V};

/// The lower 32 bits of a lane.
const WORD: i64 = 0xffff_ffff;

/// `Op::Random` of seed, stream and counter, three `i64`.
pub fn random<'b>([seed, stream, counter]: [V<'b>; 3], to: Scalar) -> V<'b> {
    let words = |x: V<'b>| [x & WORD, x.lshr(32)];
    let [mut key0, mut key1] = words(seed);
    let ([c0, c1], [c2, c3]) = (words(counter), words(stream));
    let mut block = [c0, c1, c2, c3];
    for round in 0..ROUNDS {
        if round > 0 {
            key0 = (key0 + i64::from(WEYL[0])) & WORD;
            key1 = (key1 + i64::from(WEYL[1])) & WORD;
        }
        let [wide0, wide1] = [block[0] * i64::from(MULTIPLIERS[0]), block[2] * i64::from(MULTIPLIERS[1])];
        block = [wide1.lshr(32) ^ block[1] ^ key0, wide1 & WORD, wide0.lshr(32) ^ block[3] ^ key1, wide0 & WORD];
    }
    let word = || block[0].shl(32) | block[1];
    match to {
        Scalar::F32 => scaled(block[0].lshr(8), Prim::F32, 24),
        Scalar::F64 => scaled(word().lshr(11), Prim::F64, 53),
        _ => word().lshr(1),
    }
}

/// An integer of so many bits as a fraction of 1.
fn scaled(bits: V<'_>, prim: Prim, count: i32) -> V<'_> {
    let number = bits.cast(CastOp::SiToFp, prim);
    number * bits.builder().float(number.ty(), 0.5f64.powi(count))
}
