//! Elementary functions as vector polynomials, lane by lane, accurate to a few units in the last place.
//!
//! The `f32` polynomials are those of Cephes (Moshier, single precision: `expf`, `logf`) with Cody-Waite reduction,
//! and of Eigen (`tanh`, a rational minimax approximation); `erf` is the rational of Eigen as well. What differs for `f64` is in
//! [`wide`].

mod wide;

use quearn_stage::low::{BinOp, CastOp, Prim, UnOp, V};

/// A float constant of the type of `x`.
pub fn like<'b>(x: V<'b>, value: f64) -> V<'b> {
    x.builder().float(x.ty(), value)
}

/// `c[0] x^n + … + c[n]` by Horner's rule.
fn poly<'b>(x: V<'b>, coefficients: &[f64]) -> V<'b> {
    let (first, rest) = coefficients.split_first().expect("a polynomial has coefficients");
    rest.iter().fold(like(x, *first), |acc, &c| acc.fma(x, like(x, c)))
}

/// Clamps, and keeps NaN.
fn clamp<'b>(x: V<'b>, lo: f64, hi: f64) -> V<'b> {
    let (lo, hi) = (like(x, lo), like(x, hi));
    let below = x.lt(lo).select(lo, x);
    below.gt(hi).select(hi, below)
}

/// A float that is a whole number of few bits, as an integer of the same width: adding 1.5 times the power of two from which
/// on floats are whole numbers leaves it in the low bits.
fn whole<'b>(n: V<'b>) -> V<'b> {
    let (shift, int) = match n.ty().prim {
        Prim::F32 => (12_582_912.0, Prim::I32),
        _ => (6_755_399_441_055_744.0, Prim::I64),
    };
    let (shift, int) = (like(n, shift), n.ty().with_prim(int));
    (n + shift).bitcast(int) - shift.bitcast(int)
}

/// `p` times 2^n, in two halves, because a whole `n` may reach below the exponents of normal numbers.
fn times_power<'b>(p: V<'b>, n: V<'b>) -> V<'b> {
    let (bias, fraction) = if p.ty().prim == Prim::F32 { (127, 23) } else { (1023, 52) };
    let n = whole(n);
    let half = n.bin(BinOp::AShr, n.same(1));
    let scale = |e: V<'b>| (e + bias).shl(fraction).bitcast(p.ty());
    p * scale(half) * scale(n - half)
}

/// `p`, but zero where e^x is: below half of the smallest denormal, whose logarithm is `least`. Scaled down to nothing it would
/// pass through denormals, which processors take a hundred cycles for; scores that a mask hides come here all the time.
fn p_or_zero<'b>(x: V<'b>, p: V<'b>, least: f64) -> V<'b> {
    x.lt(like(x, least)).select(like(x, 0.0), p)
}

/// A logarithm `y` of `x`, mended where `x` is no positive number.
fn log_at_ends<'b>(x: V<'b>, y: V<'b>) -> V<'b> {
    let infinite = x.eq(like(x, f64::INFINITY));
    let zero = x.eq(like(x, 0.0));
    let bad = x.lt(like(x, 0.0)) | x.ne(x);
    let y = infinite.select(x, y);
    let y = zero.select(like(x, f64::NEG_INFINITY), y);
    bad.select(like(x, f64::NAN), y)
}

/// e^x.
pub fn exp<'b>(x: V<'b>) -> V<'b> {
    if x.ty().prim != Prim::F32 {
        return wide::exp(x);
    }
    let b = x.builder();
    // Beyond these e^x is infinity or zero.
    let clamped = clamp(x, -104.0, 89.0);
    let n = (clamped * like(x, std::f64::consts::LOG2_E)).un(UnOp::Round);
    let r = n.fma(like(x, -0.693_359_375), clamped);
    let r = n.fma(like(x, 2.121_944_400_546_906e-4), r);
    let p = poly(
        r,
        &[
            1.987_569_150_0e-4,
            1.398_199_950_7e-3,
            8.333_451_907_3e-3,
            4.166_579_589_4e-2,
            1.666_666_545_9e-1,
            5.000_000_120_1e-1,
        ],
    );
    let p = p.fma(r * r, r) + like(x, 1.0);
    let y = times_power(p_or_zero(x, p, -103.972_08), n);
    x.ne(x).select(x, x.gt(like(x, 88.8)).select(b.float(x.ty(), f64::INFINITY), y))
}

/// Natural logarithm.
pub fn log<'b>(x: V<'b>) -> V<'b> {
    if x.ty().prim != Prim::F32 {
        return wide::log(x);
    }
    let int = x.ty().with_prim(Prim::I32);
    let b = x.builder();
    // Denormals are scaled into the normal range first.
    let tiny = x.lt(like(x, f64::from(f32::MIN_POSITIVE)));
    let scaled = tiny.select(x * like(x, 8_388_608.0), x);
    let bits = scaled.bitcast(int);
    let exponent = bits.lshr(23) - tiny.select(b.int(int, 23), b.int(int, 0)) - 126;
    let mantissa = ((bits & 0x7f_ffff) | b.int(int, 0x3f00_0000)).bitcast(x.ty());
    let low = mantissa.lt(like(x, std::f64::consts::FRAC_1_SQRT_2));
    let e = (exponent - low.select(b.int(int, 1), b.int(int, 0))).cast(CastOp::SiToFp, Prim::F32);
    let m = low.select(mantissa + mantissa, mantissa) - like(x, 1.0);
    let z = m * m;
    let p = poly(
        m,
        &[
            7.037_683_629_2e-2,
            -1.151_461_031_0e-1,
            1.167_699_874_0e-1,
            -1.242_014_084_6e-1,
            1.424_932_278_7e-1,
            -1.666_805_766_5e-1,
            2.000_071_476_5e-1,
            -2.499_999_399_3e-1,
            3.333_333_117_4e-1,
        ],
    );
    let y = e.fma(like(x, -2.121_944_400_546_906e-4), p * m * z);
    let y = z.fma(like(x, -0.5), y);
    let y = e.fma(like(x, 0.693_359_375), m + y);
    log_at_ends(x, y)
}

/// Sine.
pub fn sin<'b>(x: V<'b>) -> V<'b> {
    if x.ty().prim == Prim::F64 { wide::sin(x) } else { x.un(UnOp::Sin) }
}

/// Cosine.
pub fn cos<'b>(x: V<'b>) -> V<'b> {
    if x.ty().prim == Prim::F64 { wide::cos(x) } else { x.un(UnOp::Cos) }
}

/// 1 / (1 + e^-x).
pub fn sigmoid<'b>(x: V<'b>) -> V<'b> {
    let one = like(x, 1.0);
    one / (one + exp(-x))
}

/// Hyperbolic tangent.
pub fn tanh<'b>(x: V<'b>) -> V<'b> {
    let one = like(x, 1.0);
    if x.ty().prim != Prim::F32 {
        // (1 - e) / (1 + e) with e = e^-2|x| never overflows; below 1/64 the series is exact to 1e-16 relative.
        let magnitude = x.un(UnOp::Abs);
        let e = exp(magnitude * like(x, -2.0));
        let large = (one - e) / (one + e);
        let z = x * x;
        let series = poly(z, &[-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0]) * magnitude;
        let y = magnitude.lt(like(x, 0.015_625)).select(series, large);
        return x.lt(like(x, 0.0)).select(-y, y);
    }
    let c = clamp(x, -7.905_311_107_635_498, 7.905_311_107_635_498);
    let z = c * c;
    let p = poly(
        z,
        &[
            -2.760_768_477_423_55e-16,
            2.000_187_904_824_77e-13,
            -8.604_671_522_137_35e-11,
            5.122_297_090_371_14e-8,
            1.485_722_357_179_79e-5,
            6.372_619_288_754_36e-4,
            4.893_524_558_917_86e-3,
        ],
    );
    let q = poly(z, &[1.198_258_394_667_02e-6, 1.185_347_056_866_54e-4, 2.268_434_632_439e-3, 4.893_525_185_543_85e-3]);
    let y = c * p / q;
    x.un(UnOp::Abs).lt(like(x, 0.0004)).select(x, y)
}

/// Arc tangent: the argument is brought below tan(pi/8) (or 0.66 in `f64`), where Cephes' polynomial (or rational) holds.
pub fn atan<'b>(x: V<'b>) -> V<'b> {
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};
    let wide = x.ty().prim != Prim::F32;
    let (one, zero, a) = (like(x, 1.0), like(x, 0.0), x.un(UnOp::Abs));
    // tan(3 pi/8), and where the middle range begins.
    let large = a.gt(like(x, 2.414_213_562_373_095));
    let middle = a.gt(like(x, if wide { 0.66 } else { 0.414_213_562_373_095 }));
    let reduced = large.select(-(one / a), middle.select((a - one) / (a + one), a));
    let base = large.select(like(x, FRAC_PI_2), middle.select(like(x, FRAC_PI_4), zero));
    let z = reduced * reduced;
    let tail = if wide {
        const P: [f64; 5] = [
            -8.750_608_600_031_904e-1,
            -1.615_753_718_733_365e1,
            -7.500_855_792_314_705e1,
            -1.228_866_684_490_136e2,
            -6.485_021_904_942_025e1,
        ];
        const Q: [f64; 6] = [
            1.0,
            2.485_846_490_142_306_3e1,
            1.650_270_098_316_988_5e2,
            4.328_810_604_912_902_7e2,
            4.853_903_996_359_137e2,
            1.945_506_571_482_614e2,
        ];
        poly(z, &P) / poly(z, &Q)
    } else {
        const P: [f64; 4] = [8.053_744_495_38e-2, -1.387_768_560_32e-1, 1.997_771_064_78e-1, -3.333_294_915_39e-1];
        poly(z, &P)
    };
    let y = base + (tail * z).fma(reduced, reduced);
    x.lt(zero).select(-y, y)
}

/// Error function.
pub fn erf<'b>(x: V<'b>) -> V<'b> {
    if x.ty().prim != Prim::F32 {
        return wide::erf(x);
    }
    let c = clamp(x, -4.0, 4.0);
    let z = c * c;
    let p = poly(
        z,
        &[
            -2.726_142_380_132_61e-10,
            2.770_681_424_959_02e-8,
            -2.101_024_029_063_43e-6,
            -5.692_506_621_949_46e-5,
            -7.349_906_309_269_79e-4,
            -2.954_600_048_541_88e-3,
            -1.609_603_312_621_94e-2,
        ],
    );
    let q = poly(
        z,
        &[
            -1.456_607_184_649_96e-5,
            -2.133_740_240_991_61e-4,
            -1.682_827_037_916_31e-3,
            -7.373_329_163_725_52e-3,
            -1.426_473_906_801_57e-2,
        ],
    );
    c * p / q
}
