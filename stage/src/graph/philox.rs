//! Random bits by counting: Philox4x32-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy
//! as 1, 2, 3" (SC 2011).
//!
//! A block of bits is a function of a key and a counter, so that any element of a random tensor can be made on its own: by
//! any thread, and again where it is needed again.

/// Multipliers of the two halves of a block.
pub const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the two words of the key grow by from round to round.
pub const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
/// Rounds.
pub const ROUNDS: u32 = 10;

/// The block of a counter under a key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let wide = |half: usize| u64::from(MULTIPLIERS[half]) * u64::from(counter[2 * half]);
        let [(high0, low0), (high1, low1)] = [wide(0), wide(1)].map(|product| ((product >> 32) as u32, product as u32));
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

/// The block that [`Op::Random`](super::Op::Random) takes its bits from: the seed is the key; the stream stands above the counter.
pub fn block(seed: i64, stream: i64, counter: i64) -> [u32; 4] {
    let words = |x: i64| [x as u32, (x as u64 >> 32) as u32];
    let ([c0, c1], [c2, c3]) = (words(counter), words(stream));
    philox4x32([c0, c1, c2, c3], words(seed))
}

/// A block as a number in 0..1, a multiple of 2^-24: exact in f32.
pub fn unit_f32(block: [u32; 4]) -> f32 {
    (block[0] >> 8) as f32 / (1u32 << 24) as f32
}

/// A block as a number in 0..1, a multiple of 2^-53: exact in f64.
pub fn unit_f64(block: [u32; 4]) -> f64 {
    (word(block) >> 11) as f64 / (1u64 << 53) as f64
}

/// A block as an integer from 0 to 2^63 - 1.
pub fn integer(block: [u32; 4]) -> i64 {
    (word(block) >> 1) as i64
}

fn word(block: [u32; 4]) -> u64 {
    u64::from(block[0]) << 32 | u64::from(block[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with the authors' library, Random123 (`tests/kat_vectors`).
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let (counter, key) = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(philox4x32(counter, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn numbers_lie_in_their_ranges() {
        assert_eq!(unit_f32([u32::MAX; 4]), 1.0 - 2f32.powi(-24));
        assert_eq!(unit_f64([u32::MAX; 4]), 1.0 - 2f64.powi(-53));
        assert_eq!(integer([u32::MAX; 4]), i64::MAX);
        assert_eq!((unit_f32([255, 0, 0, 0]), unit_f64([0, 2047, 0, 0]), integer([0, 1, 0, 0])), (0.0, 0.0, 0));
    }
}
