//! Elementary functions of `f64`: the polynomials of fdlibm (Sun Microsystems 1993) for logarithm, sine and cosine, Taylor's
//! series for the exponential, rationals for the error function.
//!
//! Single numbers go through the low program's own functions: the library's tables beat a polynomial there.

use super::{clamp, like, log_at_ends, p_or_zero, poly, times_power, whole};
use quearn_stage::low::{CastOp, Prim, ReduceOp, UnOp, V};

/// ln 2 in two parts, of which the first has zeros at its end.
const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];

/// e^x.
pub fn exp<'b>(x: V<'b>) -> V<'b> {
    if x.ty().lanes == 1 {
        return x.un(UnOp::Exp);
    }
    // Beyond these e^x is infinity or zero.
    let clamped = clamp(x, -746.0, 710.0);
    let n = (clamped * like(x, std::f64::consts::LOG2_E)).un(UnOp::Round);
    let r = n.fma(like(x, -LN_2[0]), clamped);
    let r = n.fma(like(x, -LN_2[1]), r);
    // 1/13! .. 1/2!: the next term is below 2^-57 for |r| up to ln 2 / 2.
    let mut factorials = vec![0.5];
    (3..=13).for_each(|k| factorials.push(factorials[k - 3] / k as f64));
    factorials.reverse();
    let p = poly(r, &factorials);
    let p = p.fma(r * r, r) + like(x, 1.0);
    let y = times_power(p_or_zero(x, p, -745.133_219_101_941_3), n);
    x.ne(x).select(x, x.gt(like(x, 709.782_712_893_384)).select(like(x, f64::INFINITY), y))
}

/// Natural logarithm.
pub fn log<'b>(x: V<'b>) -> V<'b> {
    if x.ty().lanes == 1 {
        return x.un(UnOp::Log);
    }
    const L: [f64; 7] = [
        1.479_819_860_511_658_6e-1,
        1.531_383_769_920_937_3e-1,
        1.818_357_216_161_805e-1,
        2.222_219_843_214_978_4e-1,
        2.857_142_874_366_239e-1,
        3.999_999_999_940_942e-1,
        6.666_666_666_666_735e-1,
    ];
    let (b, int) = (x.builder(), x.ty().with_prim(Prim::I64));
    // Denormals are scaled into the normal range first.
    let tiny = x.lt(like(x, f64::MIN_POSITIVE));
    let scaled = tiny.select(x * like(x, (1u64 << 54) as f64), x);
    let bits = scaled.bitcast(int);
    let exponent = bits.lshr(52) - tiny.select(b.int(int, 54), b.int(int, 0)) - 1022;
    let fraction = b.int(int, (1 << 52) - 1);
    let mantissa = ((bits & fraction) | b.int(int, 0x3fe0_0000_0000_0000)).bitcast(x.ty());
    let low = mantissa.lt(like(x, std::f64::consts::FRAC_1_SQRT_2));
    let k = (exponent - low.select(b.int(int, 1), b.int(int, 0))).cast(CastOp::SiToFp, Prim::F64);
    let f = low.select(mantissa + mantissa, mantissa) - like(x, 1.0);
    let s = f / (f + like(x, 2.0));
    let z = s * s;
    let half_square = f * f * like(x, 0.5);
    let rest = k.fma(like(x, LN_2[1]), s * (half_square + z * poly(z, &L)));
    let y = k.fma(like(x, LN_2[0]), f - (half_square - rest));
    log_at_ends(x, y)
}

/// Sine.
pub fn sin<'b>(x: V<'b>) -> V<'b> {
    circular(x, 0, UnOp::Sin)
}

/// Cosine.
pub fn cos<'b>(x: V<'b>) -> V<'b> {
    circular(x, 1, UnOp::Cos)
}

/// Up to here the quarter turns of an angle are counted without a loss.
const MOST_ANGLE: f64 = 1e6;

/// Sine of `x` and so many quarter turns. Large angles are left to the low program's own function.
fn circular<'b>(x: V<'b>, turns: i64, own: UnOp) -> V<'b> {
    if x.ty().lanes == 1 {
        return x.un(own);
    }
    let large = !x.un(UnOp::Abs).lt(like(x, MOST_ANGLE));
    let any = large.reduce(ReduceOp::Or);
    x.builder().if_else(any, || vec![x.un(own)], || vec![near(x, turns)])[0]
}

fn near<'b>(x: V<'b>, turns: i64) -> V<'b> {
    const S: [f64; 6] = [
        1.589_690_995_211_55e-10,
        -2.505_076_025_340_686_3e-8,
        2.755_731_370_707_007e-6,
        -1.984_126_982_985_795e-4,
        8.333_333_333_322_49e-3,
        -1.666_666_666_666_663_2e-1,
    ];
    const C: [f64; 6] = [
        -1.135_964_755_778_819_5e-11,
        2.087_572_321_298_175e-9,
        -2.755_731_435_139_066_3e-7,
        2.480_158_728_947_673e-5,
        -1.388_888_888_887_411e-3,
        4.166_666_666_666_66e-2,
    ];
    /// pi / 2 in two parts, of which the first has 33 bits.
    const QUARTER: [f64; 2] = [1.570_796_326_734_125_6, 6.077_100_506_506_192e-11];
    let n = (x * like(x, std::f64::consts::FRAC_2_PI)).un(UnOp::Round);
    let r = n.fma(like(x, -QUARTER[0]), x);
    let r = n.fma(like(x, -QUARTER[1]), r);
    let z = r * r;
    let sine = (poly(z, &S) * z).fma(r, r);
    let half = z * like(x, 0.5);
    let one = like(x, 1.0);
    let w = one - half;
    let cosine = w + ((one - w - half) + z * z * poly(z, &C));
    let quarter = whole(n) + turns;
    let odd = (quarter & 1).ne(quarter.same(0));
    let y = odd.select(cosine, sine);
    (quarter & 2).ne(quarter.same(0)).select(-y, y)
}

/// Error function: rational approximations, of erf below 1 (Cephes, Moshier), of erfc above (Cody 1969).
pub fn erf<'b>(x: V<'b>) -> V<'b> {
    const T: [f64; 5] = [
        9.604_973_739_870_516,
        9.002_601_972_038_427e1,
        2.232_005_345_946_843e3,
        7.003_325_141_128_051e3,
        5.559_230_130_103_949e4,
    ];
    const U: [f64; 6] = [
        1.0,
        3.356_171_416_475_031e1,
        5.213_579_497_801_527e2,
        4.594_323_829_709_801e3,
        2.262_900_006_138_909_4e4,
        4.926_739_426_086_359e4,
    ];
    const P: [f64; 9] = [
        2.153_115_354_744_038_5e-8,
        5.641_884_969_886_701e-1,
        8.883_149_794_388_376,
        6.611_919_063_714_163e1,
        2.986_351_381_974_001e2,
        8.819_522_212_417_69e2,
        1.712_047_612_634_070_6e3,
        2.051_078_377_826_071_5e3,
        1.230_339_354_797_997_2e3,
    ];
    const Q: [f64; 9] = [
        1.0,
        1.574_492_611_070_983_5e1,
        1.176_939_508_913_125e2,
        5.371_811_018_620_099e2,
        1.621_389_574_566_690_2e3,
        3.290_799_235_733_459_6e3,
        4.362_619_090_143_247e3,
        3.439_367_674_143_721_6e3,
        1.230_339_354_803_749_4e3,
    ];
    let (z, b) = (x * x, x.un(UnOp::Abs));
    let is_small = b.lt(like(x, 1.0));
    // From 6 on it is 1.
    let a = clamp(b, 0.0, 6.0);
    // One division serves both: it costs more than a polynomial.
    let above = is_small.select(x * poly(z, &T), poly(a, &P));
    let ratio = above / is_small.select(poly(z, &U), poly(a, &Q));
    let large = like(x, 1.0) - exp(-(a * a)) * ratio;
    let large = x.lt(like(x, 0.0)).select(-large, large);
    is_small.select(ratio, large)
}
