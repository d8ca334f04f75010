//! Tensors: dense, row-major, 64-byte aligned.

use super::{Error, Phys, Result};
use arrow::buffer::{Buffer, MutableBuffer};
use half::{bf16, f16};
use quearn_stage::graph::Scalar;
use std::fmt;

/// A dense tensor in row-major order.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    scalar: Scalar,
    shape: Vec<u64>,
    /// 64-byte aligned.
    data: Buffer,
}

/// A Rust type that can be the element of a tensor.
///
/// # Safety
/// Every bit pattern of `SCALAR`'s storage must be a value of the type, which has its size and no padding.
pub unsafe trait Element: Copy + 'static {
    /// Type of an element.
    const SCALAR: Scalar;
}

macro_rules! elements {
    ($($t:ty = $scalar:ident),*) => {$(
        // SAFETY: a plain number of the size of `Phys::of(SCALAR)`; all bit patterns are values.
        unsafe impl Element for $t {
            const SCALAR: Scalar = Scalar::$scalar;
        }
    )*};
}
elements!(i8 = I8, u8 = U8, i16 = I16, i32 = I32, i64 = I64, f16 = F16, bf16 = BF16, f32 = F32, f64 = F64);

impl Tensor {
    /// A tensor of the values in row-major order.
    pub fn from_vec<T: Element>(values: Vec<T>, shape: &[u64]) -> Result<Tensor> {
        // SAFETY: an `Element` has no padding, so all of its bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(&values[..])) };
        Tensor::from_bytes(T::SCALAR, shape, bytes)
    }

    /// A tensor of little-endian values in row-major order.
    pub fn from_bytes(scalar: Scalar, shape: &[u64], bytes: &[u8]) -> Result<Tensor> {
        let fail = |message| Error::TensorData { scalar: scalar.to_string(), shape: shape.to_vec(), message };
        let width = Phys::of(scalar).ok_or_else(|| fail("expected a type of fixed width".into()))?.bytes();
        let expected = byte_len(shape, width).ok_or_else(|| fail("its size overflows 64 bits".into()))?;
        if bytes.len() as u64 != expected {
            return Err(fail(format!("expected {expected} bytes, found {}", bytes.len())));
        }
        if scalar == Scalar::Bool && bytes.iter().any(|b| *b > 1) {
            return Err(fail("expected bytes 0 and 1, found another".into()));
        }
        let mut data = MutableBuffer::new(bytes.len());
        data.extend_from_slice(bytes);
        Ok(Tensor { scalar, shape: shape.to_vec(), data: data.into() })
    }

    /// A tensor of little-endian values in row-major order, sharing the buffer if it is 64-byte aligned.
    pub fn from_buffer(scalar: Scalar, shape: Vec<u64>, data: Buffer) -> Result<Tensor> {
        let width = Phys::of(scalar).map_or(0, Phys::bytes);
        let whole = width > 0 && byte_len(&shape, width) == Some(data.len() as u64);
        // Bools need their values checked.
        if !whole || scalar == Scalar::Bool || data.as_ptr().align_offset(64) != 0 {
            return Tensor::from_bytes(scalar, &shape, &data);
        }
        Ok(Tensor { scalar, shape, data })
    }

    /// Type of an element.
    pub fn scalar(&self) -> Scalar {
        self.scalar
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// Is an extent 0?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' memory, 64-byte aligned.
    pub fn data(&self) -> &Buffer {
        &self.data
    }

    /// The elements; an error if they are of another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        if T::SCALAR != self.scalar {
            return Err(Error::TensorType { expected: T::SCALAR.to_string(), found: self.scalar.to_string() });
        }
        // SAFETY: the constructor checked that the buffer holds `len` elements of this type; it is aligned to 64
        // bytes, and every bit pattern is a `T`.
        Ok(unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast::<T>(), self.len()) })
    }

    /// The same elements with another shape of equal size.
    pub fn reshape(mut self, shape: &[u64]) -> Result<Tensor> {
        if byte_len(shape, 1) != byte_len(&self.shape, 1) {
            let message = format!("expected {} elements, as there are", self.len());
            return Err(Error::TensorData { scalar: self.scalar.to_string(), shape: shape.to_vec(), message });
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// The elements, of f32, rounded to the nearest of a float of 16 bits (ties to even, out of range to infinity).
    pub fn narrowed(&self, to: Scalar) -> Result<Tensor> {
        let values = self.as_slice::<f32>()?;
        match to {
            Scalar::BF16 => Tensor::from_vec(values.iter().map(|x| bf16::from_f32(*x)).collect(), &self.shape),
            Scalar::F16 => Tensor::from_vec(values.iter().map(|x| f16::from_f32(*x)).collect(), &self.shape),
            _ => Err(Error::TensorType { expected: "f16 or bf16".into(), found: to.to_string() }),
        }
    }

    fn element_text(&self, i: usize) -> String {
        fn at<T: Element + fmt::Display>(tensor: &Tensor, i: usize) -> String {
            tensor.as_slice::<T>().map_or_else(|_| "?".into(), |s| s[i].to_string())
        }
        match self.scalar {
            Scalar::Bool => (self.data[i] != 0).to_string(),
            Scalar::I8 => at::<i8>(self, i),
            Scalar::U8 => at::<u8>(self, i),
            Scalar::I16 => at::<i16>(self, i),
            Scalar::I32 => at::<i32>(self, i),
            Scalar::I64 => at::<i64>(self, i),
            Scalar::F16 => at::<f16>(self, i),
            Scalar::BF16 => at::<bf16>(self, i),
            Scalar::F32 => at::<f32>(self, i),
            _ => at::<f64>(self, i),
        }
    }

    /// Writes the sub-tensor of axes `axis..` that begins at element `base`.
    fn write_axis(&self, f: &mut fmt::Formatter<'_>, axis: usize, base: usize) -> fmt::Result {
        let Some(&extent) = self.shape.get(axis) else { return f.write_str(&self.element_text(base)) };
        let stride: u64 = self.shape[axis + 1..].iter().product();
        f.write_str("[")?;
        for i in 0..extent.min(SHOWN) {
            match i {
                0 => {}
                _ if axis + 1 == self.shape.len() => f.write_str(", ")?,
                _ => write!(f, ",\n{:axis$} ", "")?,
            }
            self.write_axis(f, axis + 1, base + (i * stride) as usize)?;
        }
        f.write_str(if extent > SHOWN { ", ...]" } else { "]" })
    }
}

/// Elements of an axis that `Display` writes.
const SHOWN: u64 = 8;

impl fmt::Display for Tensor {
    /// Type, shape and the first elements of every axis.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}{:?}", self.scalar, self.shape)?;
        self.write_axis(f, 0, 0)
    }
}

fn byte_len(shape: &[u64], width: usize) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(width as u64, |n, extent| n.checked_mul(*extent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_and_shows_values() {
        let t = Tensor::from_vec(vec![1f32, 2.5, 3.0, 4.0], &[2, 2]).unwrap();
        assert_eq!(t.as_slice::<f32>().unwrap(), [1.0, 2.5, 3.0, 4.0]);
        assert_eq!(t.data().as_ptr() as usize % 64, 0);
        assert_eq!(t.to_string(), "f32[2, 2]\n[[1, 2.5],\n [3, 4]]");
        let long = Tensor::from_vec((0..10i64).collect(), &[10]).unwrap();
        assert_eq!(long.to_string(), "i64[10]\n[0, 1, 2, 3, 4, 5, 6, 7, ...]");
        assert_eq!(Tensor::from_vec(vec![7u8], &[]).unwrap().to_string(), "u8[]\n7");
        assert!(Tensor::from_vec(Vec::<f32>::new(), &[0, 5]).unwrap().is_empty());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let text = |e: Error| e.to_string();
        let short = Tensor::from_vec(vec![1f32; 3], &[2, 2]).unwrap_err();
        assert_eq!(text(short), "tensor of type f32 and shape [2, 2]: expected 16 bytes, found 12");
        let t = Tensor::from_vec(vec![1i64; 4], &[2, 2]).unwrap();
        let found = t.as_slice::<f32>().unwrap_err();
        assert_eq!(text(found), "tensor: expected elements of type f32, found i64");
        assert!(text(t.reshape(&[3]).unwrap_err()).contains("expected 4 elements"));
        assert!(Tensor::from_bytes(Scalar::F64, &[u64::MAX, 2], &[]).is_err());
        assert!(Tensor::from_bytes(Scalar::Bool, &[1], &[2]).is_err());
    }
}
