//! safetensors: named tensors, as model weights come.

use super::atomic::AtomicFile;
use super::file_error;
use crate::data::{Error, Result, Tensor, hint};
use ::safetensors::{Dtype, SafeTensors, tensor::TensorView};
use quearn_stage::graph::Scalar;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Tensors by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tensors(pub BTreeMap<String, Tensor>);

impl Tensors {
    /// A tensor of the given shape; an error that names similar tensors, or the shape found.
    pub fn get(&self, name: &str, shape: &[u64]) -> Result<&Tensor> {
        let tensor = self.0.get(name).ok_or_else(|| self.missing(name))?;
        check_shape(name, tensor, shape)?;
        Ok(tensor)
    }

    /// Removes and returns a tensor of the given shape; errors as [`Tensors::get`], and then nothing is removed.
    pub fn take(&mut self, name: &str, shape: &[u64]) -> Result<Tensor> {
        self.get(name, shape)?;
        self.0.remove(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Error {
        Error::NoTensor { tensor: name.into(), hint: hint(name, self.0.keys().map(String::as_str)) }
    }
}

fn check_shape(name: &str, tensor: &Tensor, expected: &[u64]) -> Result<()> {
    if tensor.shape() == expected {
        return Ok(());
    }
    let found = tensor.shape().to_vec();
    Err(Error::TensorShape { tensor: name.into(), expected: expected.to_vec(), found })
}

/// The tensors of a safetensors file.
pub fn read_safetensors(path: impl AsRef<Path>) -> Result<Tensors> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(file_error(path))?;
    let fail = |message: String| Error::Format { path: path.into(), format: "safetensors", message };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fail(describe(&bytes, &e)))?;
    let read = |(name, view): (&str, TensorView)| {
        let scalar = scalar_of(view.dtype())
            .ok_or_else(|| fail(format!("tensor `{name}`: type {:?} is not supported", view.dtype())))?;
        let shape: Vec<u64> = view.shape().iter().map(|n| *n as u64).collect();
        let tensor = Tensor::from_bytes(scalar, &shape, view.data()).map_err(|e| fail(format!("`{name}`: {e}")))?;
        Ok((name.to_string(), tensor))
    };
    file.iter().map(read).collect::<Result<_>>().map(Tensors)
}

/// The library's message, and the sizes where the file ends too soon.
fn describe(bytes: &[u8], error: &::safetensors::SafeTensorError) -> String {
    let found = bytes.len();
    let Some(header) = bytes.first_chunk().map(|b| u64::from_le_bytes(*b)) else {
        return format!("{error} (found {found} bytes; a header alone takes 8)");
    };
    if header > (found as u64).saturating_sub(8) {
        return format!("{error} (the header should take {header} bytes, found {})", found - 8);
    }
    format!("{error} ({found} bytes in all)")
}

/// Writes the tensors as a safetensors file that replaces one of that name.
pub fn write_safetensors<'a>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let path = path.as_ref();
    let fail = |message: String| Error::Format { path: path.into(), format: "safetensors", message };
    let view = |(name, tensor): (&'a str, &'a Tensor)| {
        let dtype = dtype_of(tensor.scalar())
            .ok_or_else(|| fail(format!("tensor `{name}`: it has no type for {}", tensor.scalar())))?;
        let shape = tensor.shape().iter().map(|n| *n as usize).collect();
        TensorView::new(dtype, shape, tensor.data()).map(|v| (name, v)).map_err(|e| fail(format!("`{name}`: {e}")))
    };
    let views = tensors.into_iter().map(view).collect::<Result<Vec<_>>>()?;
    let bytes = ::safetensors::serialize(views, None).map_err(|e| fail(e.to_string()))?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&bytes).map_err(file_error(path))?;
    file.commit()
}

/// Types that both sides have.
const TYPES: [(Dtype, Scalar); 10] = [
    (Dtype::BOOL, Scalar::Bool),
    (Dtype::U8, Scalar::U8),
    (Dtype::I8, Scalar::I8),
    (Dtype::I16, Scalar::I16),
    (Dtype::I32, Scalar::I32),
    (Dtype::I64, Scalar::I64),
    (Dtype::F16, Scalar::F16),
    (Dtype::BF16, Scalar::BF16),
    (Dtype::F32, Scalar::F32),
    (Dtype::F64, Scalar::F64),
];

fn scalar_of(dtype: Dtype) -> Option<Scalar> {
    TYPES.iter().find(|(d, _)| *d == dtype).map(|(_, s)| *s)
}

fn dtype_of(scalar: Scalar) -> Option<Dtype> {
    TYPES.iter().find(|(_, s)| *s == scalar).map(|(d, _)| *d)
}
